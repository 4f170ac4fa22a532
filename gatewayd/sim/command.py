"""`gatewayd sim-device`: argv → a simulated board on a real broker → exit code."""

import argparse
import asyncio
import fcntl
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatewayd.core.device import EnergySource, Profile
from gatewayd.core.errors import BadRequest, GatewayError
from gatewayd.core.names import DeviceId
from gatewayd.places import profiles_folder
from gatewayd.sim.attach import client_options, device_id, given_credentials, trusted_texts, unprotected
from gatewayd.sim.board import Room, Truth, capabilities_of, true_board
from gatewayd.sim.client import ClientOptions
from gatewayd.sim.conditions import Conditions, steered
from gatewayd.sim.device import SimDevice
from gatewayd.sim.flash import FileCells, Flash, FlashFault, Layout, Power, Tear
from gatewayd.sim.log import EventLog
from gatewayd.sim.lwm2m_command import add_lwm2m_arguments, lwm2m_options
from gatewayd.sim.lwm2m_device import Lwm2mDevice
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.machine import Machine
from gatewayd.sim.radio import LinkFigures
from gatewayd.sim.radio_command import add_radio_arguments, radio_of
from gatewayd.sim.relay import plain_link
from gatewayd.sim.runtime import BoardRuntime
from gatewayd.sim.sensor import ReplaySensor, open_sensor
from gatewayd.sim.stock_device import StockDevice
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_journal import journal_bytes
from gatewayd.wire.agent_terms import Board
from gatewayd.wire.manifest import key_ring
from gatewayd.wire.mqttdevice import MAX_CHUNK_BYTES, MAX_DATA_BYTES, MAX_SLOTS
from gatewayd.wire.mqttdevice_status import DEFLATE_BITS
from gatewayd.wire.profiles import parse_profile

EXIT_FAILED = 1
EXIT_USAGE = 2
_KEY = r"[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the arguments come to, checked."""

    device: DeviceId
    profile: Profile
    radio: LinkFigures
    room: Room
    sensors: tuple[ReplaySensor, ...]
    client: ClientOptions | Lwm2mOptions
    flash: Flash
    cells: FileCells
    keys: Mapping[bytes, bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `gatewayd sim-device`."""
    parser.add_argument("--id", help="the device's id")
    parser.add_argument("--board", required=True, help="a profile's name, e.g. nucleo-l4r5zi")
    parser.add_argument("--profiles", type=Path, default=profiles_folder(), help="directory of board profiles (*.yaml)")
    parser.add_argument("--protocol", choices=("mqtt", "lwm2m"), default="mqtt", help="how it attaches to its gateway")
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help="what `devices credentials new --save` wrote: id, broker, password, keys",
    )
    parser.add_argument("--broker", help="host:port (default: 127.0.0.1:1883)")
    parser.add_argument("--ca", type=Path, help="certificate of the authority to trust: the broker is reached over TLS")
    parser.add_argument(
        "--mqtt-version", choices=("3.1.1", "5"), default="3.1.1", help="of the protocol (default: %(default)s)"
    )
    parser.add_argument("--username", help="the broker's user (see --password-file)")
    parser.add_argument("--password-file", type=Path, help="a file whose first line is the password")
    parser.add_argument("--prefix", help="first topic level(s) (default: gatewayd)")
    parser.add_argument("--node", help="the gateway's node name (with MQTT it must be given)")
    parser.add_argument(
        "--state", type=Path, required=True, help="directory that is the board's flash; made when missing"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KEY",
        help="public key that signs what may be installed: 64 hex digits, or a file of such lines; may be repeated",
    )
    parser.add_argument("--samples", type=Path, help="directory with samples.json and samples.bin, or such a .json")
    parser.add_argument("--sensor", default="sensor", help="name of the sensor that replays the samples")
    parser.add_argument("--seed", type=int, default=1, help="of how this board differs from its profile")
    parser.add_argument("--arena", type=int, default=65536, help="bytes of RAM for the tensor arena")
    parser.add_argument("--slots", type=int, default=2, help="model slots, one of which stays free for staging")
    parser.add_argument(
        "--slot-bytes", type=int, default=131_072, help="of flash for each model (default: %(default)s)"
    )
    parser.add_argument("--chunk", type=int, default=1024, help="bytes of the receive buffer, and of a flash page")
    parser.add_argument(
        "--deflate-bits", type=int, default=12, help="window in which it decodes DEFLATE; 0: not at all"
    )
    parser.add_argument(
        "--give-up-model",
        action="store_true",
        help="with one slot: give up the model that runs to take a newer version",
    )
    parser.add_argument("--returns", type=int, default=4096, help="largest sample sent with an unsure answer; 0: none")
    parser.add_argument("--no-drop", action="store_true", help="let no model go on request: an older agent")
    parser.add_argument("--battery", type=float, default=0.9, help="charge, 0..1")
    parser.add_argument(
        "--cut-power-at", type=int, help="the flash operation (from 0) in which the power goes: SIGKILL"
    )
    parser.add_argument(
        "--tear", choices=[tear.value for tear in Tear], default="n/2", help="what it does of that page"
    )
    parser.add_argument("--mains", action="store_true", help="runs on mains, not on a battery")
    add_radio_arguments(parser)
    add_lwm2m_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the device until SIGTERM or SIGINT: 0; 1 when it could not go on, 2 when the arguments are wrong."""
    try:
        parts = _checked(args)
        with _own(args.state):
            return _lived(parts, args)
    except GatewayError as error:
        sys.stderr.write(f"gatewayd sim-device: {error}\n")
        return EXIT_USAGE


def _lived(parts: _Parts, args: argparse.Namespace) -> int:
    log, code = EventLog(parts.device), 0
    try:
        asyncio.run(_live(parts, args, log))
    except* (GatewayError, FlashFault, OSError) as group:
        log("reset", reason="; ".join(str(each) for each in group.exceptions))
        code = EXIT_FAILED
    return code


@contextmanager
def _own(state: Path) -> Iterator[None]:
    """Keep other boards off the flash: two that write it would be one broken board. The kernel forgets with the process."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "in-use.lock").open("w")
    except OSError as error:
        raise BadRequest(f"--state {state}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"--state {state}: another simulated board runs on it: end that one, or name another folder"
            raise BadRequest(text) from None
        yield


async def _live(parts: _Parts, args: argparse.Namespace, log: EventLog) -> None:
    if isinstance(parts.client, Lwm2mOptions) and parts.client.persona is not None:
        await _stay(_stock(parts, parts.client, args, log), log)
        return
    await asyncio.to_thread(parts.cells.prepare)
    runtime = await BoardRuntime.start(arena_bytes=parts.room.arena_bytes, log=log)
    conditions = Conditions()
    try:
        await _stay(_device(parts, args, runtime, log, conditions), log, conditions if args.steer else None)
    finally:
        await runtime.close()


async def _stay(
    device: SimDevice | Lwm2mDevice | StockDevice, log: EventLog, steering: Conditions | None = None
) -> None:
    """Run a board until a signal ends it; `steering` is what standard input changes."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, device.stop)
    await (device.run() if steering is None else _steered(device, steering, log))
    log("stopped")


async def _steered(device: SimDevice | Lwm2mDevice | StockDevice, conditions: Conditions, log: EventLog) -> None:
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(steered(conditions, log), name="steering")
        await device.run()
        listening.cancel()


def _stock(parts: _Parts, options: Lwm2mOptions, args: argparse.Namespace, log: EventLog) -> StockDevice:
    truth = true_board(parts.profile, parts.radio, seed=args.seed, device=parts.device, spread=args.spread)
    log("started", board=parts.profile.board, link=args.link, persona=args.persona)
    radio = plain_link(args.link, truth.link)
    return StockDevice(options, radio=radio, keys=parts.keys, slot_bytes=args.slot_bytes, folder=args.state, log=log)


def _device(
    parts: _Parts, args: argparse.Namespace, runtime: BoardRuntime, log: EventLog, conditions: Conditions
) -> SimDevice | Lwm2mDevice:
    truth = true_board(parts.profile, parts.radio, seed=args.seed, device=parts.device, spread=args.spread)
    capabilities = capabilities_of(
        parts.profile,
        parts.room,
        runtime_version=runtime.version,
        energy=EnergySource.MAINS if args.mains else EnergySource.BATTERY,
        sensors=tuple(sensor.description for sensor in parts.sensors),
    )
    board = Board(
        capabilities, args.slots, parts.flash.layout.page_bytes, parts.keys, takes_one_slot=args.give_up_model
    )
    agent = Agent(board, battery_percent=None if args.mains else round(args.battery * 100))
    log("started", board=parts.profile.board, link=args.link, runtime=f"tflm {runtime.version}", **_true_figures(truth))
    returns_bytes = parts.room.returns_bytes
    machine = Machine(parts.flash, args.state, runtime, parts.sensors, truth, returns_bytes, conditions=conditions)
    if isinstance(parts.client, Lwm2mOptions):
        radio = plain_link(args.link, truth.link)
        return Lwm2mDevice(agent, machine, radio=radio, options=parts.client, log=log, conditions=conditions)
    return SimDevice(agent, machine, truth=truth, options=parts.client, log=log, conditions=conditions)


def _true_figures(truth: Truth) -> dict[str, object]:
    return {
        "true_macs_per_s": round(truth.macs_per_s),
        "true_nj_per_mac": f"{truth.energy_nj_per_mac:.3g}",
        "true_invoke_s": f"{truth.invoke_s:.3g}",
        "true_rtt_s": f"{truth.link.rtt_s:.3g}",
        "true_goodput_bytes_per_s": round(truth.link.goodput_bytes_per_s),
    }


def _checked(args: argparse.Namespace) -> _Parts:
    profile = _profile(args.profiles, args.board)
    bits = args.deflate_bits or None
    room = Room(
        args.arena, args.slot_bytes, args.chunk, bits, drops_models=not args.no_drop, returns_bytes=args.returns
    )
    _check_room(profile, room, slots=args.slots)
    if not 0 <= args.battery <= 1:
        raise BadRequest(f"--battery {args.battery}: must be 0..1")
    if not 0 <= args.spread < 1:
        raise BadRequest(f"--spread {args.spread}: must be 0 or more and under 1")
    sensors = (open_sensor(args.sensor, args.samples),) if args.samples is not None else ()
    layout = Layout(args.slots, args.slot_bytes, args.chunk, journal_bytes(args.slots, args.chunk))
    cells = FileCells(args.state, layout)
    flash = Flash(layout, cells, Power(args.cut_power_at, Tear(args.tear)))
    given = given_credentials(args)
    device = device_id(args, given)
    if args.protocol == "lwm2m":
        unprotected(given)
    client = lwm2m_options(args, device) if args.protocol == "lwm2m" else client_options(args, given)
    keys = key_ring(trusted_keys(list(trusted_texts(args, given))))
    return _Parts(device, profile, radio_of(args), room, sensors, client, flash, cells, keys)


def _check_room(profile: Profile, room: Room, *, slots: int) -> None:
    if not 1 <= slots <= MAX_SLOTS:
        raise BadRequest(f"--slots {slots}: must be 1..{MAX_SLOTS}")
    if not 1 <= room.chunk_bytes <= MAX_CHUNK_BYTES or room.slot_bytes < room.chunk_bytes:
        raise BadRequest(f"--chunk {room.chunk_bytes}: must be 1..{MAX_CHUNK_BYTES} and fit --slot-bytes")
    if room.deflate_bits is not None and not DEFLATE_BITS[0] <= room.deflate_bits <= DEFLATE_BITS[1]:
        raise BadRequest(f"--deflate-bits {room.deflate_bits}: must be {DEFLATE_BITS[0]}..{DEFLATE_BITS[1]}, or 0")
    if not 0 <= room.returns_bytes <= MAX_DATA_BYTES:
        raise BadRequest(f"--returns {room.returns_bytes}: must be 0..{MAX_DATA_BYTES}")
    if not 1 <= room.arena_bytes <= profile.ram_bytes:
        raise BadRequest(f"--arena {room.arena_bytes}: {profile.board} has {profile.ram_bytes} bytes of RAM")
    if slots * room.slot_bytes > profile.flash_bytes:
        wanted = f"{slots} slots of {room.slot_bytes} bytes"
        raise BadRequest(
            f"--slot-bytes: {wanted} do not fit the {profile.flash_bytes} bytes of flash of {profile.board}"
        )


def _profile(directory: Path, board: str) -> Profile:
    known = sorted(path.stem for path in directory.glob("*.yaml"))
    if board not in known:
        raise BadRequest(
            f"--board {board}: no profile of that name in {directory}; there are {', '.join(known) or 'none'}"
        )
    return parse_profile((directory / f"{board}.yaml").read_text())


def trusted_keys(named: Sequence[str]) -> Iterator[bytes]:
    """Yield the public keys that `--trust` names: in hex, or in the lines of a file (what follows a # is a comment)."""
    for each in named:
        if re.fullmatch(_KEY, each):
            yield bytes.fromhex(each)
            continue
        try:
            lines = [line.partition("#")[0].strip() for line in Path(each).read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise BadRequest(
                f"--trust {each[:80]}: neither 64 hex digits nor a file that can be read: {error}"
            ) from None
        keys = [line for line in lines if line]
        if not keys or not all(re.fullmatch(_KEY, key) for key in keys):
            raise BadRequest(f"--trust {each}: must hold public keys, 64 hex digits a line (gatewayd keys.export)")
        yield from map(bytes.fromhex, keys)
