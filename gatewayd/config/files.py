"""What a config names outside itself: files, folders, interpreters, and ports that meet. Looked at before anything starts.

It reads no content and opens no socket; whether a port is free shows when it is bound.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatewayd.config.errors import ConfigError
from gatewayd.config.root import Config

_CREDENTIALS = Path("/run/credentials")
_SHARED_WITH_LOOPBACK = {"127.0.0.1", "localhost", "0.0.0.0"}  # noqa: S104 - compared with, never bound


def check_files(config: Config, *, source: str, environ: Mapping[str, str] = os.environ) -> None:
    """Look for all that `config` names; `source` is what the error calls it.

    Raises: ConfigError with every problem.
    """
    problems = (*_files(config, environ), *_folders(config), *_engines(config), *_ports(config))
    if problems:
        raise ConfigError(source, problems)


def _files(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    tls = config.mqtt.tls
    named = {"mqtt.password_file": config.mqtt.password_file, "joining.ca_file": config.joining.ca_file}
    if tls is not None:
        named |= {
            "mqtt.tls.ca_file": tls.ca_file,
            "mqtt.tls.cert_file": tls.cert_file,
            "mqtt.tls.key_file": tls.key_file,
        }
    for option, path in named.items():
        if path is not None and not _comes_later(path, environ):
            yield from _readable(option, path)


def _comes_later(path: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether systemd makes the file when it starts the service, so that nobody else can look for it."""
    return path.is_relative_to(_CREDENTIALS) and "CREDENTIALS_DIRECTORY" not in environ


def _readable(option: str, path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{option}: there is no file {path}: make it, or name another one"
    elif not path.is_file():
        yield f"{option}: {path} is not a file: name a file"
    elif not os.access(path, os.R_OK):
        yield f"{option}: {path} may not be read by this user: give it the right to"


def _folders(config: Config) -> Iterator[str]:
    folder = config.devices.profiles_dir
    if folder is None:
        return
    if not folder.is_dir():
        yield f"devices.profiles_dir: there is no folder {folder}: make it, or write null for the packaged profiles"
    elif next(folder.glob("*.yaml"), None) is None:
        yield f"devices.profiles_dir: {folder} holds no *.yaml: put profiles there, or write null for the packaged ones"


def _engines(config: Config) -> Iterator[str]:
    for number, engine in enumerate(config.engines):
        option = f"engines[{number}].python"
        if engine.python is None:
            continue
        if not engine.python.exists():
            yield f"{option}: there is no {engine.python}: make that environment, or write null for the daemon's own Python"
        elif not engine.python.is_file() or not os.access(engine.python, os.X_OK):
            yield f"{option}: {engine.python} is no program that this user may run: name a Python interpreter"


def _ports(config: Config) -> Iterator[str]:
    broker = config.mqtt.embedded
    if not broker.enabled or config.http.host not in _SHARED_WITH_LOOPBACK:
        return
    for name, port in (("port", broker.port), ("port_v5", broker.port_v5)):
        if port == config.http.port:
            yield f"http.port: {port} is mqtt.embedded.{name} too: give one of them another port"
