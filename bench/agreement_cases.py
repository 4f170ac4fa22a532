"""The scenarios of `bench.agreement`: each told to `gatewayd simulate` as a file, and to daemon and boards as settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import yaml

from bench.agreement_models import model
from gatewayd.core.device import Bearer, Profile
from gatewayd.places import profiles_folder
from gatewayd.sim.board import Truth, true_board
from gatewayd.sim.radio import LINKS, LinkFigures
from gatewayd.simulate.carriage import Overheads
from gatewayd.wire.profiles import parse_profile

CHUNK_BYTES = 1024
_BEARERS = {"wifi": Bearer.WLAN, "ble": Bearer.BLUETOOTH, "802.15.4": Bearer.IEEE_802_15_4}


@dataclass(frozen=True)
class Board:
    """One simulated board. `link` names a radio of `gatewayd.sim`, or is one with another round trip (s) and rate (bytes/s).

    `seed` is of how it differs from its profile.
    """

    name: str
    board: str
    link: str | tuple[str, float, float]
    sensor: str
    protocol: str = "mqtt"
    loss: float = 0.0
    seed: int = 1
    is_on_mains: bool = True

    @property
    def id(self) -> str:
        """What `gatewayd simulate` calls the only device of a group."""
        return f"{self.name}-1"

    @property
    def radio(self) -> LinkFigures:
        """What its link is believed to be."""
        return LINKS[self.link] if isinstance(self.link, str) else LinkFigures(*self.link[1:])

    @property
    def kind(self) -> str:
        """What it says that carries it."""
        return self.link if isinstance(self.link, str) else self.link[0]

    @property
    def profile(self) -> Profile:
        """What the daemon believes of it."""
        return parse_profile((profiles_folder() / f"{self.board}.yaml").read_text())

    @property
    def truth(self) -> Truth:
        """What it is."""
        return true_board(self.profile, self.radio, seed=self.seed, device=self.id)

    def arguments(self) -> list[str]:
        """Return what `gatewayd sim-device` is told, gateway and folders aside."""
        radio = self.radio
        told = ["--id", self.id, "--board", self.board, "--protocol", self.protocol, "--seed", str(self.seed)]
        told += ["--link", self.kind]
        told += ["--rtt", str(radio.rtt_s), "--rate", str(radio.goodput_bytes_per_s), "--loss", str(self.loss)]
        told += [
            "--sensor",
            "sensor",
            "--arena",
            "131072",
            "--slot-bytes",
            "262144",
            "--slots",
            "2",
            "--lifetime",
            "300",
        ]
        told += ["--chunk", str(CHUNK_BYTES), "--steer"]
        return [*told, "--mains"] if self.is_on_mains else told


@dataclass(frozen=True)
class Case:
    """One scenario. `load` and `changes` are as in a scenario's file; `classes` of requests: the daemon's own."""

    name: str
    boards: Sequence[Board]
    load: Sequence[Mapping[str, object]]
    changes: Sequence[Mapping[str, object]] = ()
    duration_s: float = 30.0
    seed: int = 1
    request_class: str = "default"
    horizon_s: float = 3600.0
    robustness: float = 0.05

    def shifted(self, by: int) -> Self:
        """Return the same with other seeds: of the moments, and of how the boards differ from their profiles."""
        boards = tuple(replace(each, seed=each.seed + by) for each in self.boards)
        return replace(self, seed=self.seed + by, boards=boards)

    @property
    def models(self) -> list[str]:
        """The names of what is asked for."""
        return sorted({str(each["model"]) for each in self.load})


@dataclass(frozen=True)
class Machine:
    """What was measured once, before everything: overheads, and seconds of each model on the node."""

    overheads: Overheads
    node_s: Mapping[str, float] = field(default_factory=dict)


def scenario_text(case: Case, machine: Machine) -> str:
    """Return the scenario's file."""
    told, boards, links, devices = machine.overheads, [], [], []
    for board in case.boards:
        truth, profile = board.truth, board.profile
        boards.append({
            "name": f"{board.name}-board",
            "clock_mhz": profile.clock_mhz,
            "macs_per_s": truth.macs_per_s,
            "energy_nj_per_mac": truth.energy_nj_per_mac,
            "invoke_s": truth.invoke_s,
            "believed_macs_per_s": profile.macs_per_s,
            "believed_energy_nj_per_mac": profile.energy_nj_per_mac,
        })  # fmt: skip
        links.append({
            "name": f"{board.name}-link",
            "rtt_s": truth.link.rtt_s,
            "bytes_per_s": truth.link.goodput_bytes_per_s,
            "loss": board.loss,
            "chunk_bytes": CHUNK_BYTES,
            "bearer": _BEARERS[board.kind].value,
        })  # fmt: skip
        devices.append({
            "name": board.name,
            "board": f"{board.name}-board",
            "link": f"{board.name}-link",
            "protocol": board.protocol,
            "battery_j": None if board.is_on_mains else 9720.0,
        })  # fmt: skip
    document = {
        "name": case.name,
        "duration_s": case.duration_s,
        "seed": case.seed,
        "request_class": case.request_class,
        "horizon_s": case.horizon_s,
        "noise": 0.0,
        "watched_s": 0.0,
        "overheads": {name: round(getattr(told, name), 4) for name in Overheads.__dataclass_fields__},
        "boards": boards,
        "links": links,
        "models": [_model(name, machine.node_s.get(name, 0.001)) for name in case.models],
        "devices": devices,
        "load": [dict(each) for each in case.load],
        "changes": [dict(each) for each in case.changes],
    }
    return yaml.safe_dump(document, sort_keys=False)


def _model(name: str, node_s: float) -> dict[str, object]:
    made = model(name)
    return {
        "name": name,
        "size_bytes": len(made.content),
        "input_bytes": made.sample_bytes,
        "output_bytes": made.output_bytes,
        "macs": made.macs,
        "node_s": node_s,
        "stream_bytes": made.stream_bytes,
    }  # fmt: skip


def _asked(name: str, asked: str, per_s: float, **more: object) -> dict[str, object]:
    return {"devices": name, "model": asked, "per_s": per_s, "deadline_s": 10.0, **more}


LTE_M, MESH, SLOW = ("wifi", 0.12, 25_000.0), ("802.15.4", 0.06, 5_000.0), ("wifi", 0.4, 8_000.0)

CASES: tuple[Case, ...] = (
    Case(
        "a camera over BLE gets the model",
        (Board("door", "nucleo-h7a3zi-q", "ble", "image", seed=3),),
        (_asked("door", "image", 4.0),),
        seed=11,
    ),
    Case(
        "a slow board over BLE sends its data",
        (Board("attic", "nucleo-g0b1re", "ble", "image", seed=4),),
        (_asked("attic", "image", 3.0),),
        seed=12,
    ),
    Case(
        "LwM2M over BLE",
        (Board("pump", "nucleo-h7a3zi-q", "ble", "sound", "lwm2m", seed=5),),
        (_asked("pump", "sound", 0.8),),
        duration_s=60.0,
        seed=13,
    ),
    Case(
        "LwM2M over BLE that loses 2 %",
        (Board("meter", "disco-f746ng", "ble", "frame", "lwm2m", loss=0.02, seed=6),),
        (_asked("meter", "frame", 1.2),),
        duration_s=150.0,  # a lost message costs as much as ten answers: their mean takes many
        seed=14,
    ),
    Case(
        "battery first, in bursts",
        (
            Board("wrist", "syntiant-ndp9120", "ble", "sound", seed=7, is_on_mains=False),
            Board("ankle", "nucleo-l4r5zi-microtvm", "ble", "sound", seed=8, is_on_mains=False),
        ),
        (
            _asked("wrist", "sound", 2.0, arrival="bursts", burst=6),
            _asked("ankle", "sound", 2.0, arrival="bursts", burst=6),
        ),
        request_class="battery",
        seed=15,
    ),
    Case(
        "the board gets thirty times slower",
        (Board("press", "nucleo-h7a3zi-q", LTE_M, "image", seed=9),),
        (_asked("press", "image", 2.0),),
        ({"what": "compute", "devices": "press", "at_s": 14.0, "factor": 30.0},),
        seed=16,
    ),
    Case(
        "interference on the link for a while",
        (Board("line", "nucleo-u385rg-q", "ble", "frame", seed=10),),
        (_asked("line", "frame", 3.0),),
        ({"what": "link", "devices": "line", "at_s": 10.0, "for_s": 8.0, "factor": 0.15},),
        seed=17,
    ),
    Case(
        "the link is gone for six seconds",
        (Board("gate", "nucleo-h7a3zi-q", "ble", "image", seed=11),),
        (_asked("gate", "image", 2.0, deadline_s=1.0),),
        ({"what": "outage", "devices": "gate", "at_s": 15.0, "for_s": 6.0},),
        seed=18,
    ),
    Case(
        "a busy node and four boards, two protocols",
        (
            Board("hall", "ek-ra8d1", "ble", "image", seed=12),
            Board("roof", "nucleo-u385rg-q", LTE_M, "frame", "lwm2m", seed=13),
            Board("yard", "nucleo-l4r5zi", "wifi", "image", seed=14),
            Board("shed", "disco-f746ng", "ble", "image", seed=15),
        ),
        (
            _asked("hall", "image", 1.5),
            _asked("roof", "frame", 0.4),
            _asked("yard", "heavy", 6.0),
            _asked("shed", "image", 1.5),
        ),
        duration_s=40.0,
        seed=19,
    ),
    Case(
        "a mesh of 40 kb/s over LwM2M",
        (Board("tank", "nucleo-u575zi-q", MESH, "sound", "lwm2m", seed=17),),
        (_asked("tank", "sound", 0.4),),
        duration_s=40.0,
        seed=21,
    ),
    Case(
        "few requests over a slow link",
        (Board("field", "nucleo-u575zi-q", SLOW, "image", seed=16),),
        (_asked("field", "image", 0.7),),
        duration_s=40.0,
        horizon_s=120.0,
        seed=20,
    ),
)
