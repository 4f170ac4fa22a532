"""Boards, models and links of a scenario's own, beside the built-in ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from gatewayd.core.device import Bearer, Profile
from gatewayd.core.errors import BadRequest
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS, Board, Link, Model


@dataclass(frozen=True, slots=True)
class OwnBoard:
    """A board by its speed: it takes `invoke_s` and the MACs at `macs_per_s` for one inference, and nJ for each MAC.

    `believed_*` are its profile's figures, what policies start from; None: it is as its profile says.
    """

    name: str
    macs_per_s: float
    energy_nj_per_mac: float = 0.0
    invoke_s: float = 0.0
    clock_mhz: int = 100
    flash_bytes: int = 2_097_152
    believed_macs_per_s: float | None = None
    believed_energy_nj_per_mac: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Everything a scenario can name."""

    boards: Mapping[str, Board]
    models: Mapping[str, Model]
    links: Mapping[str, Link]


_Named = TypeVar("_Named", Model, Link, OwnBoard)


def known_of(boards: tuple[OwnBoard, ...], models: tuple[Model, ...], links: tuple[Link, ...], *, source: str) -> Known:
    """Return the built-in ones and those. Raises: BadRequest for a name that is taken, or a figure that makes no sense."""
    all_models = {**MODELS, **_named(models, MODELS, f"{source}: models")}
    all_links = {**LINKS, **_named(links, LINKS, f"{source}: links")}
    for link in links:
        if not link.bytes_per_s > 0.0 or link.chunk_bytes < 1 or not link.loss < 1.0:
            raise BadRequest(f"{source}: links: {link.name}: bytes_per_s and chunk_bytes are above 0, loss is below 1")
        bearers = [each.value for each in Bearer]
        if link.bearer and link.bearer not in bearers:
            raise BadRequest(f"{source}: links: {link.name}: bearer: {link.bearer!r} is none of {', '.join(bearers)}")
    for board in boards:
        if not board.macs_per_s > 0.0 or board.believed_macs_per_s == 0.0:
            raise BadRequest(f"{source}: boards: {board.name}: macs_per_s is above 0")
    made = {name: _board(own, all_models) for name, own in _named(boards, BOARDS, f"{source}: boards").items()}
    with_own_models = {name: _with(board, models) for name, board in BOARDS.items()} if models else BOARDS
    return Known({**with_own_models, **made}, all_models, all_links)


def _named(given: tuple[_Named, ...], built_in: Mapping[str, object], where: str) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    for each in given:
        if each.name in built_in or each.name in found:
            raise BadRequest(f"{where}: {each.name!r} is there already: give it another name")
        found[each.name] = each
    return found


def _board(own: OwnBoard, models: Mapping[str, Model]) -> Board:
    return Board(
        own.name,
        own.clock_mhz,
        own.flash_bytes,
        {name: own.invoke_s + model.macs / own.macs_per_s for name, model in models.items()},
        {name: own.energy_nj_per_mac * model.macs / 1000.0 for name, model in models.items()},
        Profile(
            board=own.name,
            cpu="",
            clock_mhz=own.clock_mhz,
            ram_bytes=0,
            flash_bytes=own.flash_bytes,
            runtime="",
            macs_per_s=own.believed_macs_per_s or own.macs_per_s,
            energy_nj_per_mac=own.energy_nj_per_mac
            if own.believed_energy_nj_per_mac is None
            else own.believed_energy_nj_per_mac,
            invoke_s=own.invoke_s,
            source="the scenario",
        ),
    )


def _with(board: Board, models: tuple[Model, ...]) -> Board:
    """Return the board with the scenario's models: they take what their MACs take at the speed of KWS (nobody measured it)."""
    per_mac_s = board.seconds["kws"] / MODELS["kws"].macs
    per_mac_uj = board.energy_uj["kws"] / MODELS["kws"].macs
    return Board(
        board.name,
        board.clock_mhz,
        board.flash_bytes,
        {**board.seconds, **{each.name: per_mac_s * each.macs for each in models}},
        {**board.energy_uj, **{each.name: per_mac_uj * each.macs for each in models}},
    )
