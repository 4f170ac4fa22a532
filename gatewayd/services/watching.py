"""The watched folder: what is complete there is admitted, and the result is written beside it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from gatewayd.core.errors import BadRequest, Conflict, GatewayError, NodeError
from gatewayd.core.events import InputRefused
from gatewayd.core.model import Version
from gatewayd.core.names import ModelRef
from gatewayd.core.source import FolderModel, ModelManifest
from gatewayd.services.catalog import Catalog
from gatewayd.services.ports import ModelFolder, Notify

logger = logging.getLogger(__name__)

WHO = "folder"


class Watching:
    """Looks into the folder every `every_s`."""

    def __init__(self, folder: ModelFolder, *, catalog: Catalog, notify: Notify, every_s: float) -> None:
        self._folder = folder
        self._catalog = catalog
        self._notify = notify
        self._every_s = every_s

    async def run(self) -> None:
        """Look and admit until cancelled. A folder that cannot be read or written is tried again."""
        while True:
            try:
                await self.look()
            except NodeError as error:
                logger.warning("watched folder: %s", error)
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Admit what is complete. Raises: NodeError when the folder cannot be read or written."""
        for found in await self._folder.scan():
            await self._folder.finish(found, await self._result(found))

    async def _result(self, found: FolderModel) -> Mapping[str, object]:
        try:
            version = await self._admitted(found)
        except NodeError:
            raise  # the disk's fault, not the file's: tried again at the next look
        except GatewayError as error:
            self._notify(InputRefused(WHO, error.code, f"{found.manifest_name}: {error}"))
            return {"ok": False, "error": {"code": error.code, "message": str(error)}}
        return {"ok": True, "model": version.model, "version": version.number}

    async def _admitted(self, found: FolderModel) -> Version:
        manifest = found.manifest
        if manifest is None:
            raise BadRequest(found.problem)
        source = f"folder:{found.manifest_name} sha256:{found.digest}"
        version = self._admitted_before(manifest, source)
        if version is None:
            version = await self._add(manifest, found, source)
        alias = manifest.alias
        if alias is not None and self._catalog.aliases(version.model).get(alias) != version.number:
            why = f"as {found.manifest_name} says"
            await self._catalog.move_alias(version.model, alias, version.number, who=WHO, why=why)
        return version

    async def _add(self, manifest: ModelManifest, found: FolderModel, source: str) -> Version:
        due = max((v.number for v in self._catalog.versions() if v.model == manifest.model), default=0) + 1
        if manifest.version not in {None, due}:
            raise Conflict(f"version: {manifest.model}@{manifest.version} is wanted, the next number is {due}")
        return await self._catalog.add(
            model=manifest.model,
            files=found.files,
            labels=manifest.labels,
            preprocessing=manifest.preprocessing,
            note=manifest.note,
            who=WHO,
            about=replace(manifest.about, source=source),
            samples=found.samples,
        )

    def _admitted_before(self, manifest: ModelManifest, source: str) -> Version | None:
        """Return the version of this very manifest: its result may not have been written before a power cut."""
        numbers = [v.number for v in self._catalog.versions() if v.model == manifest.model and v.about.source == source]
        return self._catalog.resolve(ModelRef(manifest.model, version=numbers[-1])) if numbers else None
