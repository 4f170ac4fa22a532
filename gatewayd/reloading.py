"""SIGHUP: read the config again, all of it or nothing, and take over what can change while the daemon runs.

Taken over are tokens, the devices' credentials, the log's level, who may join, and what request classes weigh. For the rest the
log names the options that wait for a restart; the parts that read them are running.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatewayd.adapters import systemd
from gatewayd.adapters.broker_reload import MosquittoReload
from gatewayd.adapters.certificate_ends import days_left, utc_now
from gatewayd.adapters.logs import configure_logging
from gatewayd.assembly import Core
from gatewayd.config import Config, load_config
from gatewayd.config.files import check_files
from gatewayd.core.errors import GatewayError
from gatewayd.edges.http_guard import Guard
from gatewayd.parts import http_guard, tokens_of

logger = logging.getLogger(__name__)

_LOOK_S = 86_400.0
_WARN_DAYS = 30
TAKEN_OVER = ("log.level", "devices.join", "requests.classes", "http.tokens_file")


class Reload:
    """Waits to be asked. `path` None: the config came from no file. `guard` is the HTTP API's, whose tokens change.

    Raises: OSError, BadRequest (the file of tokens).
    """

    def __init__(self, config: Config, path: Path | None) -> None:
        self.guard: Guard = http_guard(config)
        self.succeeded = True
        self._started_with = config
        self._path = path
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Read the config soon; asked twice meanwhile, it is read once."""
        self._asked.set()

    def is_good(self) -> float:
        """Return 1 when the last reload was taken over (or there was none), else 0."""
        return float(self.succeeded)

    async def run(self, core: Core) -> None:
        """Reload whenever asked, until cancelled."""
        while True:
            tell_ends(self._started_with)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._asked.wait()
            if not self._asked.is_set():
                continue
            self._asked.clear()
            systemd.notify("RELOADING=1", systemd.monotonic_usec())
            self.succeeded = await self._reloaded(core)
            systemd.notify("READY=1")

    async def _reloaded(self, core: Core) -> bool:
        if self._path is None:
            logger.warning("nothing to reload: the config came from no file")
            return False
        try:
            config = await asyncio.to_thread(_read, self._path)
            tokens = await asyncio.to_thread(tokens_of, config)
            before = core.credentials.known()
            await core.credentials.reload()
        except (GatewayError, OSError) as error:
            told = {"fields": {"reason": str(error)}}
            logger.error("config not reloaded, the old one holds", extra=told)  # noqa: TRY400 - the message says all
            return False
        has_tokens = bool(tokens)
        if has_tokens == bool(self.guard.tokens):  # closing or opening the whole API is a restart's business
            self.guard.replace_tokens(tokens)
        if core.credentials.known() != before:
            MosquittoReload(config.joining.mosquitto_pid_file)()
        self._take_over(config, core)
        logger.info("config reloaded", extra={"fields": {"path": self._path, "tokens": len(tokens)}})
        waiting = [each for each in differing(self._started_with, config) if not each.startswith(TAKEN_OVER)]
        if has_tokens != bool(self.guard.tokens):
            waiting.append("http.tokens_file")
        if waiting:
            logger.warning("options that need a restart: %s", ", ".join(waiting))
        return True

    def _take_over(self, config: Config, core: Core) -> None:
        configure_logging(config.log.level)
        core.tracking.open_join(allowed=config.devices.join == "open")
        core.classes.clear()
        core.classes.update(config.requests.settings)


def tell_ends(config: Config) -> None:
    """Warn of certificates that end soon: devices and clients stay out from that day on."""
    http, joining = config.http.tls, config.joining
    named = {"http.tls.cert_file": http.cert_file if http else None, "joining.ca_file": joining.ca_file}
    for option, path in named.items():
        left = None if path is None else days_left(path, now=utc_now())
        if left is not None and left < _WARN_DAYS:
            logger.warning(
                "certificate ends soon", extra={"fields": {"option": option, "file": path, "days_left": f"{left:.0f}"}}
            )


def differing(old: Config, new: Config) -> list[str]:
    """Return the options that differ, by their YAML path, in order."""
    return list(_differing(old.model_dump(), new.model_dump(), ""))


def _differing(old: Mapping[str, object], new: Mapping[str, object], above: str) -> Iterator[str]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differing(before, after, f"{above}{name}.")
        elif before != after:
            yield f"{above}{name}"


def _read(path: Path) -> Config:
    config = load_config(path)
    check_files(config, source=str(path))
    return config
