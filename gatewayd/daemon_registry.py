"""The composition root's part for the registry: where models come from, who builds variants, and who clears up."""

import secrets
import time
from collections.abc import Coroutine
from pathlib import Path

from gatewayd.adapters.artifacts import Artifacts
from gatewayd.adapters.compilers import CompilerLimits, CompilerPrograms
from gatewayd.adapters.http_fetcher import HttpFetcher
from gatewayd.adapters.model_folder import WatchedFolder
from gatewayd.adapters.store import Store
from gatewayd.config import Config
from gatewayd.core.building import ETHOS_U, INT8
from gatewayd.core.record import record
from gatewayd.services.building import Builder, BuilderPorts
from gatewayd.services.catalog import Catalog
from gatewayd.services.collecting import Collector, CollectorPorts
from gatewayd.services.fetching import Fetching
from gatewayd.services.ports import Notify
from gatewayd.services.pushes import Pushes
from gatewayd.services.tracking import Tracking
from gatewayd.services.uploads import Uploads
from gatewayd.services.watching import Watching
from gatewayd.wire.built_models import check_built
from gatewayd.wire.tflite import read_model


@record
class RegistryParts:
    """What surrounds the catalog."""

    collecting: Collector
    uploads: Uploads
    fetching: Fetching
    building: Builder
    watching: Watching | None

    def loops(self) -> dict[str, Coroutine[object, object, None]]:
        """Return what has to run as long as the daemon does."""
        found: dict[str, Coroutine[object, object, None]] = {
            "collecting": self.collecting.run(),
            "uploads": self.uploads.run(),
        }
        return found | ({"watching": self.watching.run()} if self.watching else {})


def registry_parts(
    config: Config,
    store: Store,
    artifacts: Artifacts,
    *,
    catalog: Catalog,
    tracking: Tracking,
    pushes: Pushes,
    notify: Notify,
) -> RegistryParts:
    """Wire them."""
    most = config.limits.max_model_bytes
    pythons = {INT8: _text(config.plugins.int8.python), ETHOS_U: _text(config.plugins.ethos_u.python)}
    compilers = CompilerPrograms(artifacts.path, pythons, limits=CompilerLimits(timeout_s=config.plugins.timeout_s))
    folder = config.sources.folder
    return RegistryParts(
        collecting=Collector(
            CollectorPorts(artifacts, store, store, notify, time.time),
            catalog=catalog,
            tracking=tracking,
            pushes=pushes,
            keep_retired_s=config.registry.keep_retired_s,
            every_s=config.registry.collect_every_s,
        ),
        uploads=Uploads(clock=time.monotonic, new_id=lambda: secrets.token_hex(8), max_bytes=most),
        fetching=Fetching(HttpFetcher(allow_local=config.sources.allow_local_addresses), max_bytes=most),
        building=Builder(
            BuilderPorts(store, artifacts, compilers, check_built, read_model, time.time),
            catalog=catalog,
            tracking=tracking,
        ),
        watching=None if folder is None else _watching(config, folder, catalog, notify),
    )


def _watching(config: Config, folder: Path, catalog: Catalog, notify: Notify) -> Watching:
    watched = WatchedFolder(folder, max_bytes=config.limits.max_model_bytes)
    return Watching(watched, catalog=catalog, notify=notify, every_s=config.sources.look_every_s)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
