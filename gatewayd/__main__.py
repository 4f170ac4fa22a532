"""The `gatewayd` program: argv to exit code. Each command imports only what it needs."""

import argparse
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatewayd import __version__
from gatewayd.cli import command as client

if TYPE_CHECKING:
    from gatewayd.config import Config

DEFAULT_CONFIG = Path("/etc/gatewayd/gatewayd.yaml")


INTERRUPTED, UNREAD = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""What a shell shows for a program that a signal ended."""

_NOT_WRITTEN = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 done, 1 failed, 2 usage, 130 interrupted, 141 nobody reads its output)."""
    _prepare_output()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has gone, as `head` does; the last flush at the end of the process must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except OSError as error:
        if error.errno not in _NOT_WRITTEN or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"gatewayd: the output cannot be written: {error.strerror}\n")
        return 1


def _prepare_output() -> None:
    """Have somewhere to write, where the caller closed the output, and show what its encoding lacks as escapes."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in {"utf-8", "utf8"}:
            stream.reconfigure(errors="backslashreplace")


def _run(argv: Sequence[str] | None) -> int:
    given = _words(sys.argv[1:] if argv is None else list(argv))
    parser = _parser(given)
    arguments = parser.parse_args(given)
    if arguments.check_config is not None:
        return _check_config(arguments.check_config)
    run = getattr(arguments, "run", None)
    if run is None:
        parser.print_help()
        return 2
    code: int = run(arguments)
    return code


def _words(given: list[str]) -> list[str]:
    """Return the words of a command; one written as in messages and topics (`devices.approve`) is taken apart."""
    first = given[0] if given else ""
    return [*first.split("."), *given[1:]] if re.fullmatch(r"[a-z-]+(\.[a-z-]+)+", first) else given


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the arguments of those that `given` can mean.

    The others' packages stay out: most of what a short command takes is importing.
    """
    parser = argparse.ArgumentParser(prog="gatewayd", description="TinyML as a Service on an edge node.")
    parser.add_argument("--version", action="version", version=f"gatewayd {__version__}")
    parser.add_argument(
        "--check-config", metavar="FILE", type=Path, help="say what is wrong with a config file, and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    daemon = commands.add_parser("run", help="run the daemon in the foreground")
    daemon.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="config file (default: %(default)s)")
    daemon.set_defaults(run=_run_daemon)
    doctor = commands.add_parser(
        "doctor", help="tell which engines work, which accelerators are there, what is missing"
    )
    doctor.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="config file (default: %(default)s)")
    doctor.set_defaults(run=_run_doctor)
    for name, (summary, add) in _PROGRAMS.items():
        added = commands.add_parser(name, help=summary)
        if given[:1] in ([name], ["completion"]):
            add(added)
    if not given or given[0] not in ("run", "doctor", *_PROGRAMS):
        client.add_commands(commands, given)
        client.add_completion(commands, parser)
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    from gatewayd.init_command import add_arguments, run  # noqa: PLC0415 - other commands do without it

    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_simulator(parser: argparse.ArgumentParser) -> None:
    from gatewayd.sim.command import add_arguments, run  # noqa: PLC0415 - other commands do without it

    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    from gatewayd.demo.command import add_arguments, run  # noqa: PLC0415 - as above

    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_study(parser: argparse.ArgumentParser) -> None:
    from gatewayd.simulate.command import add_arguments, run  # noqa: PLC0415 - as above

    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_mqtt_user(parser: argparse.ArgumentParser) -> None:
    from gatewayd.mqtt_user_command import add_arguments, run  # noqa: PLC0415 - as above

    add_arguments(parser)
    parser.set_defaults(run=run)


_PROGRAMS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "init": ("write a config and a broker's configuration that let devices join safely", _add_init),
    "mqtt-user": ("add or remove a user of the broker that is no device", _add_mqtt_user),
    "sim-device": ("run one simulated board", _add_simulator),
    "simulate": ("play a placement scenario: the daemon's policy beside others", _add_study),
    "demo": ("show the main job on simulated boards", _add_demo),
}


def _check_config(path: Path) -> int:
    config = _loaded(path)
    if config is None:
        return 1
    sys.stdout.write(f"{path}: ok\n" + "".join(f"{each}\n" for each in _ports(config)))
    return 0


def _ports(config: "Config") -> list[str]:
    import importlib.util  # noqa: PLC0415 - clients start without it

    from gatewayd.listeners import listeners  # noqa: PLC0415 - clients start without pydantic

    has_dtls = importlib.util.find_spec("mbedtls") is not None
    return [f"listens on {each}" for each in listeners(config, has_dtls=has_dtls)]


def _run_daemon(arguments: argparse.Namespace) -> int:
    from gatewayd import frugal  # noqa: PLC0415 - as below

    frugal.begin()
    with frugal.without_authorities():
        from gatewayd.daemon import run  # noqa: PLC0415 - clients start without the daemon's packages

    config = _loaded(arguments.config)
    return 1 if config is None else run(config, arguments.config)


def _loaded(path: Path) -> "Config | None":
    """Read and check a config; None when something is wrong, which is told."""
    from gatewayd.config import ConfigError, load_config  # noqa: PLC0415 - clients start without pydantic
    from gatewayd.config.files import check_files  # noqa: PLC0415 - as above

    try:
        config = load_config(path)
        check_files(config, source=str(path))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return None
    return config


def _run_doctor(arguments: argparse.Namespace) -> int:
    """Print what was found; exit code 1 when an engine of the config does not work or there is none."""
    import asyncio  # noqa: PLC0415 - clients start without it

    from gatewayd.adapters.doctor import examine, render  # noqa: PLC0415 - as above
    from gatewayd.config import Config, ConfigError, load_config  # noqa: PLC0415 - as above
    from gatewayd.parts import engine_specs  # noqa: PLC0415 - as above

    is_default = arguments.config == DEFAULT_CONFIG and not arguments.config.exists()
    try:
        config = Config() if is_default else load_config(arguments.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    engines, found = asyncio.run(examine(engine_specs(config), config.accelerators.root or Path("/")))
    sys.stdout.write("\n".join([*render(engines, found), *_ports(config)]) + "\n")
    return 0 if engines and not any(each.problem for each in engines) else 1


if __name__ == "__main__":
    sys.exit(main())
