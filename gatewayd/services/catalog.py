"""The model registry's verbs: admit a version, list, resolve, move aliases.

A version is admitted after static reading and a trial in child processes; its rows are written last, after its bytes.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gatewayd.core.errors import BadRequest, ModelRefused, UnknownModel
from gatewayd.core.events import AliasMoved, ModelAdded
from gatewayd.core.model import Signature, Structure, Variant, Version
from gatewayd.core.names import STABLE, Alias, ModelName, ModelRef
from gatewayd.core.registry import AliasMove, Registry
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.services.ports import Artifacts, Clock, ModelReader, ModelTrial, Notify, RegistryStore

# A version is one model for a handful of target classes; each file is tried in child processes.
MAX_FILES = 8
MAX_TRIALS = 2


@dataclass(frozen=True, slots=True)
class CatalogPorts:
    """What the catalog needs from outside; `wall_clock` gives seconds since 1970."""

    store: RegistryStore
    artifacts: Artifacts
    read_model: ModelReader
    trial: ModelTrial
    notify: Notify
    wall_clock: Clock


class Catalog:
    """The registry in memory (a value that is replaced on change) with its durable rows behind it."""

    def __init__(self, ports: CatalogPorts) -> None:
        self._ports = ports
        self._registry = Registry()
        # Admission and alias moves read, decide and write: one at a time, or two could take one number.
        self._change = asyncio.Lock()
        # Each trial starts a process per engine: many uploads at once must not take the machine from the requests.
        self._trying = asyncio.Semaphore(MAX_TRIALS)

    async def load(self) -> None:
        """Read everything from the store; call once before serving."""
        registry = Registry()
        for version in await self._ports.store.load_versions():
            registry = registry.with_version(version)
        for (model, alias), number in (await self._ports.store.load_aliases()).items():
            registry = registry.with_alias(model, alias, number)
        self._registry = registry

    def versions(self) -> tuple[Version, ...]:
        """Return every version, by model and number."""
        return self._registry.versions()

    def aliases(self, model: ModelName) -> Mapping[Alias, int]:
        """Return where the model's aliases point."""
        return self._registry.aliases(model)

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref` names now. Raises: UnknownModel."""
        return self._registry.resolve(ref)

    async def alias_history(self, model: ModelName) -> Sequence[AliasMove]:
        """Return every recorded move, oldest first."""
        return await self._ports.store.alias_history(model)

    async def add(
        self,
        *,
        model: ModelName,
        files: Sequence[bytes],
        labels: Sequence[str],
        preprocessing: str,
        note: str,
        who: str,
    ) -> Version:
        """Admit `files` as the variants of the next version; the first version becomes `stable`.

        Raises: BadRequest (no files, labels that do not fit), ModelRefused (which file, which check), TooLarge.
        """
        if not 1 <= len(files) <= MAX_FILES:
            raise BadRequest(f"files: give 1 to {MAX_FILES} model files, not {len(files)}")
        structures = [await self._read(index, content) for index, content in enumerate(files)]
        _check_distinct(structures)
        signature = _signature_of(structures, labels=tuple(labels), preprocessing=preprocessing)
        variants = [await self._tried(index, files[index], read) for index, read in enumerate(structures)]
        async with self._change:
            number = self._registry.next_number(model)
            version = Version(model, number, signature, tuple(variants), self._ports.wall_clock(), note)
            moves = [self._first_move(version, who=who)] if number == 1 else []
            await self._ports.store.add_version(version, moves=moves)
            self._registry = self._registry.with_version(version)
            for move in moves:
                self._registry = self._registry.with_alias(model, move.alias, number)
        self._ports.notify(ModelAdded(model, number))
        return version

    async def move_alias(self, model: ModelName, alias: Alias, version: int, *, who: str, why: str) -> AliasMove:
        """Point `alias` at `version`. Raises: UnknownModel."""
        async with self._change:
            self._registry.resolve(ModelRef(model, version=version))
            move = AliasMove(model, alias, version, self._ports.wall_clock(), who, why)
            await self._ports.store.move_alias(move)
            self._registry = self._registry.with_alias(model, alias, version)
        self._ports.notify(AliasMoved(model, alias, version))
        return move

    def _first_move(self, version: Version, *, who: str) -> AliasMove:
        return AliasMove(version.model, STABLE, version.number, version.created_at, who, "first version")

    async def _read(self, index: int, content: bytes) -> Structure:
        try:
            return await asyncio.to_thread(self._ports.read_model, content)
        except ModelRefused as error:
            raise ModelRefused(f"files[{index}]: {error}") from error

    async def _tried(self, index: int, content: bytes, structure: Structure) -> Variant:
        digest = await self._ports.artifacts.put(content)
        async with self._trying:
            trial = await self._ports.trial.try_model(digest, structure)
        if not any(verdict.runs for verdict in trial.verdicts):
            reasons = "; ".join(f"{v.place.value} ({v.engine}): {v.reason}" for v in trial.verdicts) or "no engine here"
            raise ModelRefused(f"files[{index}]: nothing can run it: {reasons}")
        return Variant(
            name=_variant_name(structure),
            digest=digest,
            size_bytes=len(content),
            structure=structure,
            verdicts=trial.verdicts,
            arena_bytes=trial.arena_bytes,
            self_test=trial.self_test,
        )


def variant_of(version: Version, digest: str | None) -> Variant:
    """Return the variant with that artifact. Raises: UnknownModel when the version has none."""
    for variant in version.variants:
        if variant.digest == digest:
            return variant
    raise UnknownModel(f"{version} has no artifact {str(digest)[:12]}")


def _variant_name(structure: Structure) -> str:
    kinds = {DType.FP32: "float32", DType.INT8: "int8", DType.UINT8: "uint8", DType.INT16: "int16"}
    first = structure.inputs[0].dtype if structure.inputs else DType.FP32
    return f"tflite-{kinds.get(first, first.value.lower())}"


def _check_distinct(structures: Sequence[Structure]) -> None:
    seen: dict[str, int] = {}
    for index, structure in enumerate(structures):
        name = _variant_name(structure)
        first = seen.setdefault(name, index)
        if first != index:
            raise BadRequest(f"files[{index}]: files[{first}] is a {name} variant already; give one file per kind")


def _signature_of(structures: Sequence[Structure], *, labels: tuple[str, ...], preprocessing: str) -> Signature:
    first = structures[0]
    for index, structure in enumerate(structures[1:], start=1):
        for kind, ours, theirs in (
            ("inputs", structure.inputs, first.inputs),
            ("outputs", structure.outputs, first.outputs),
        ):
            if _shapes(ours) != _shapes(theirs):
                raise BadRequest(
                    f"files[{index}]: its {kind} are {_shapes(ours)}, those of files[0] are {_shapes(theirs)}"
                )
    outputs = tuple(_real(spec) for spec in first.outputs)
    if labels and (not outputs or math.prod(outputs[0].shape) != len(labels)):
        size = math.prod(outputs[0].shape) if outputs else 0
        raise BadRequest(f"labels: {len(labels)} names for an output of {size} elements")
    return Signature(tuple(_real(spec) for spec in first.inputs), outputs, labels, preprocessing)


def _shapes(specs: Sequence[TensorSpec]) -> list[list[int]]:
    return [list(spec.shape) for spec in specs]


def _real(spec: TensorSpec) -> TensorSpec:
    keeps = spec.dtype in {DType.BOOL, DType.INT32, DType.INT64}
    return replace(spec, dtype=spec.dtype if keeps else DType.FP32, quantization=None)
