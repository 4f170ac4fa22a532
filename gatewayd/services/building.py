"""Building a variant for a device or a target class: capabilities → plugin → artifact → admission → does it fit.

Versions never change, so what was built makes a new version: all that the old one is, and one more variant.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial

from gatewayd.core.building import (
    ETHOS_U,
    INT8,
    NPU_CONFIGS,
    TARGETS,
    Build,
    Recipe,
    build_key,
    is_source,
    recipe,
    target_of,
)
from gatewayd.core.command import Note
from gatewayd.core.errors import BadRequest, Conflict, UnknownDevice
from gatewayd.core.fit import fit
from gatewayd.core.model import Place, Variant, Verdict, Version
from gatewayd.core.names import DeviceId, ModelRef
from gatewayd.core.record import record
from gatewayd.core.tensor import DType
from gatewayd.services.catalog import Catalog
from gatewayd.services.keeping import Hold
from gatewayd.services.ports import Artifacts, BuildStore, Clock, Compilers, ModelCheck, ModelReader
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)


@record
class Built:
    """What a build led to. `is_new` false: the variant was there; `is_cached`: the plugin did not have to run.

    `device` is the one it was built for (None: a target class), `obstacles` why nothing of the version fits it.
    """

    version: Version
    variant: str
    is_new: bool
    is_cached: bool
    report: str
    device: DeviceId | None = None
    obstacles: tuple[str, ...] = ()


@record
class BuilderPorts:
    """What building needs from outside; `wall_clock` gives seconds since 1970."""

    store: BuildStore
    artifacts: Artifacts
    compilers: Compilers
    check: ModelCheck
    read_model: ModelReader
    wall_clock: Clock


class Builder:
    """Builds one variant at a time: a compiler takes a core and memory that inference needs."""

    def __init__(self, ports: BuilderPorts, *, catalog: Catalog, tracking: Tracking) -> None:
        self._ports = ports
        self._catalog = catalog
        self._tracking = tracking
        self._turn = asyncio.Lock()

    async def build(self, ref: ModelRef, wanted: str, *, who: str, note_of: Note[Built] | None = None) -> Built:
        """Build the variant that `wanted` (a device or a target) calls for, unless it is there.

        Raises: UnknownModel; BadRequest (no such target, nothing to build from); Conflict (retired, the device has not
        reported); EngineMissing saying what to install; ModelRefused when the result is not what it has to be.
        """
        device, target = self._target(wanted)
        async with self._turn:
            version = self._catalog.resolve(ref)
            self._catalog.check_in_use(version)
            if target in NPU_CONFIGS and not _has_integers(version):
                version = (await self._build(version, INT8, who=who)).version
            note = None if note_of is None else lambda built: note_of(self._for_device(device, built))
            built = await self._build(version, target, who=who, note_of=note)
        return self._for_device(device, built)

    def _target(self, wanted: str) -> tuple[DeviceId | None, str]:
        if wanted in TARGETS:
            return None, wanted
        try:
            view = self._tracking.device(DeviceId(wanted))
        except UnknownDevice as error:
            raise BadRequest(
                f"for: {wanted[:80]!r} is neither a device nor a target; targets: {', '.join(TARGETS)}"
            ) from error
        if view.report is None:
            raise Conflict(f"device {view.id} has not reported what it is: build for a target, or when it is back")
        return view.id, target_of(view.report.capabilities)

    async def _build(self, version: Version, target: str, *, who: str, note_of: Note[Built] | None = None) -> Built:
        name = f"tflite-{INT8}" if target == INT8 else target
        if any(variant.name == name for variant in version.variants):
            return Built(version, name, is_new=False, is_cached=False, report=f"{version} has the variant already")
        wanted = recipe(version, target)
        with self._catalog.keeper.holding() as hold:
            for digest in version.digests():
                self._catalog.keeper.hold(digest, hold)
            build, content, is_cached = await self._made(version, wanted, hold)
            found = await asyncio.to_thread(self._ports.check, wanted.plugin, content)
            report = f"{build.report}; {found}"
            if (later := self._with(version, build)) is not None:
                return Built(later, name, is_new=False, is_cached=is_cached, report=report)
            variant = await self._variant(wanted, build, content, report)
            built = partial(Built, variant=name, is_new=True, is_cached=is_cached, report=report)
            admitted = await self._catalog.extend(
                version,
                variant,
                content,
                note=f"{version} with {name}: {report}"[:500],
                who=who,
                note_of=None if note_of is None else lambda admitted: note_of(built(admitted)),
            )
        pairs = {"version": admitted, "from": version, "variant": name, "cached": is_cached}
        logger.info("built", extra={"fields": pairs})
        return built(admitted)

    async def _made(self, version: Version, wanted: Recipe, hold: Hold) -> tuple[Build, bytes, bool]:
        plugin_version = await self._ports.compilers.version(wanted.plugin)
        samples = version.samples if wanted.plugin == INT8 else None
        key = build_key(wanted, plugin_version=plugin_version, samples=samples)
        known = await self._ports.store.find_build(key)
        if known is not None and await self._ports.artifacts.has(known.artifact):
            size = (await self._ports.artifacts.digests())[known.artifact]
            return known, await self._ports.artifacts.read(known.artifact, 0, size), True
        compiled = await self._ports.compilers.compile(wanted, samples)
        await asyncio.to_thread(self._ports.check, wanted.plugin, compiled.content)
        artifact = await self._catalog.keeper.put(compiled.content, hold)
        build = Build(key, artifact, f"{plugin_version}: {compiled.report}")
        await self._ports.store.save_build(build, built_at=self._ports.wall_clock())
        return build, compiled.content, False

    async def _variant(self, wanted: Recipe, build: Build, content: bytes, report: str) -> Variant:
        structure = await asyncio.to_thread(self._ports.read_model, content)
        verdicts: tuple[Verdict, ...] = ()
        if wanted.plugin == ETHOS_U:
            reason = f"{report}; compiled for {wanted.variant}, not run here: the node has no such NPU"
            verdicts = (Verdict(Place.DEVICE, wanted.variant, runs=True, reason=reason),)
        return Variant(wanted.variant, build.artifact, len(content), structure, verdicts)

    def _with(self, version: Version, build: Build) -> Version | None:
        """Return the newest version in use that is `version` with the build's artifact: building twice makes one."""
        needed = version.digests() | {build.artifact}
        for other in reversed(self._catalog.versions()):
            is_same = other.model == version.model and needed <= other.digests()
            if is_same and self._catalog.retirement(other) is None:
                return other
        return None

    def _for_device(self, device: DeviceId | None, built: Built) -> Built:
        return replace(built, device=device, obstacles=self._obstacles(device, built.version))

    def _obstacles(self, device: DeviceId | None, version: Version) -> tuple[str, ...]:
        report = None if device is None else self._tracking.device(device).report
        if report is None:
            return ()
        found = fit(version, report.capabilities)
        return () if found.variant is not None else found.reasons


def _has_integers(version: Version) -> bool:
    kinds = {DType.INT8, DType.INT16, DType.UINT8}
    sources = filter(is_source, version.variants)
    return any(spec.dtype in kinds for variant in sources for spec in variant.structure.inputs)
