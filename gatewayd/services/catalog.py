"""The model registry's verbs: admit a version, list, resolve, move aliases.

A version is admitted after static reading and a trial in child processes; its rows are written last, after its bytes.
What is known of a version never changes; aliases and retirement stand beside it.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gatewayd.core.command import Note
from gatewayd.core.engine import Format, format_of
from gatewayd.core.errors import BadRequest, Conflict, GatewayError, ModelRefused, UnknownModel
from gatewayd.core.events import AliasMoved, ModelAdded, VersionRetired
from gatewayd.core.model import NOTHING_SAID, About, Signature, Structure, Variant, Vector, Version
from gatewayd.core.names import STABLE, Alias, ModelName, ModelRef
from gatewayd.core.record import record
from gatewayd.core.registry import AliasMove, Registry, Retirement, place_at, place_before
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.services.keeping import Hold, Keeper
from gatewayd.services.ports import (
    Artifacts,
    Clock,
    ModelReader,
    ModelTrial,
    NodeRuntime,
    Notify,
    ReferenceRuns,
    RegistryStore,
)
from gatewayd.services.preloading import Preloading
from gatewayd.services.vectors import MAX_SAMPLES_BYTES, check_samples, make_vectors, sample_input

# A version is one model for a handful of target classes; each file is tried in child processes.
MAX_FILES = 8
MAX_TRIALS = 2


@record
class CatalogPorts:
    """What the catalog needs from outside; `wall_clock` gives seconds since 1970."""

    store: RegistryStore
    artifacts: Artifacts
    read_model: ModelReader
    trial: ModelTrial
    notify: Notify
    wall_clock: Clock
    runtime: NodeRuntime | None = None
    reference: ReferenceRuns | None = None


class Catalog:
    """The registry in memory (a value that is replaced on change) with its durable rows behind it."""

    def __init__(self, ports: CatalogPorts) -> None:
        self._ports = ports
        self.keeper = Keeper(ports.artifacts)
        self._preloading = Preloading(ports.runtime)
        self._registry = Registry()
        # How often each alias was moved since the start: tells who waits for `_change` that somebody was faster.
        self._moves: Counter[tuple[ModelName, Alias]] = Counter()
        # Admission and alias moves read, decide and write: one at a time, or two could take one number.
        self._change = asyncio.Lock()
        # Each trial starts a process per engine: many uploads at once must not take the machine from the requests.
        self._trying = asyncio.Semaphore(MAX_TRIALS)

    async def load(self) -> None:
        """Read everything from the store; call once before serving."""
        store = self._ports.store
        versions, aliases = await store.load_versions(), await store.load_aliases()
        self._registry = Registry.of(versions, aliases, await store.load_retirements())

    def versions(self) -> tuple[Version, ...]:
        """Return every version, by model and number."""
        return self._registry.versions()

    def aliases(self, model: ModelName) -> Mapping[Alias, int]:
        """Return where the model's aliases point."""
        return self._registry.aliases(model)

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref` names now. Raises: UnknownModel."""
        return self._registry.resolve(ref)

    def retirement(self, version: Version) -> Retirement | None:
        """Return when, by whom and why the version was retired; None when it is in use."""
        return self._registry.retirement(version)

    def check_in_use(self, version: Version) -> None:
        """Raises: Conflict when the version is retired."""
        self._registry.check_in_use(version)

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
        about: About = NOTHING_SAID,
        samples: bytes = b"",
        note_of: Note[Version] | None = None,
    ) -> Version:
        """Admit `files` as the variants of the next version; the first version becomes `stable`.

        `samples` are float32 values of the only input, one sample after the other; each variant's answers to the first
        few are kept as test vectors.

        Raises: BadRequest (no files, labels or samples that do not fit), ModelRefused (which file, which check), TooLarge.
        """
        if not 1 <= len(files) <= MAX_FILES:
            raise BadRequest(f"files: give 1 to {MAX_FILES} model files, not {len(files)}")
        with self.keeper.holding() as hold:
            try:
                structures = [await self._read(index, content, hold) for index, content in enumerate(files)]
                names = [_variant_name(content, read) for content, read in zip(files, structures, strict=True)]
                _check_distinct(names)
                signature = _signature_of(structures, labels=tuple(labels), preprocessing=preprocessing)
                check_samples(signature, samples)
                blob = await self.keeper.put(samples, hold) if samples else None
                tried = [
                    await self._tried(index, names[index], files[index], read, hold)
                    for index, read in enumerate(structures)
                ]
                variants = [await self._with_vectors(variant, signature, samples) for variant in tried]
            except GatewayError:
                await self._drop(hold)
                raise
            draft = Version(model, 1, signature, tuple(variants), 0.0, note, about, blob)
            return await self._admit(draft, who=who, note_of=note_of)

    async def extend(
        self,
        base: Version,
        built: Variant,
        content: bytes,
        *,
        note: str,
        who: str,
        note_of: Note[Version] | None = None,
    ) -> Version:
        """Admit the next version: all that `base` is, and one more variant. A variant without verdicts is tried.

        Raises: BadRequest when it takes or gives other tensors than `base`, ModelRefused, NodeError.
        """
        structure = built.structure
        for theirs, ours in ((structure.inputs, base.signature.inputs), (structure.outputs, base.signature.outputs)):
            if _shapes(theirs) != _shapes(ours):
                raise BadRequest(f"{built.name} has the shapes {_shapes(theirs)}, {base} has {_shapes(ours)}")
        with self.keeper.holding() as hold:
            for digest in base.digests():
                self.keeper.hold(digest, hold)
            if built.verdicts:
                await self.keeper.put(content, hold)
            else:
                built = await self._tried(0, built.name, content, structure, hold)
            samples = await self._samples(base)
            built = await self._with_vectors(built, base.signature, samples)
            draft = replace(base, variants=(*base.variants, built), note=note)
            return await self._admit(draft, who=who, note_of=note_of)

    async def _admit(self, draft: Version, *, who: str, note_of: Note[Version] | None) -> Version:
        model = draft.model
        async with self._change:
            number = self._registry.next_number(model)
            version = replace(draft, number=number, created_at=self._ports.wall_clock())
            moves = [self._first_move(version, who=who)] if number == 1 else []
            await self._ports.store.noting(note_of and note_of(version)).add_version(version, moves=moves)
            self._registry = self._registry.with_version(version)
            for move in moves:
                self._registry = self._registry.with_alias(model, move.alias, number)
                self._moves[model, move.alias] += 1
        self._ports.notify(ModelAdded(model, number))
        if moves:
            await self._preloading.attempt(version)
        return version

    async def preload_stable(self, limit: int) -> None:
        """Load what `stable` points at on the node, at most `limit` of them: the first request need not wait for it."""
        await self._preloading.stable(self._registry, limit)

    async def move_alias(
        self,
        model: ModelName,
        alias: Alias,
        version: int | None,
        *,
        who: str,
        why: str,
        expect: int | None = None,
        note_of: Note[AliasMove] | None = None,
    ) -> AliasMove:
        """Point `alias` at `version`, loaded on the node before, or remove it (None); what no alias names any more goes.

        `expect` is the version it has to point at now (0: at none); left out, nobody else may move it while this call
        waits its turn. Of two operators at once one wins.

        Raises: UnknownModel; Conflict when the version is retired or does not load on the node any more, or somebody else
        was faster, naming who: the alias stays.
        """
        seen = self._moves[model, alias]
        async with self._change:
            await self._check_unmoved(model, alias, seen=seen, expect=expect)
            if version is None and alias not in self._registry.aliases(model):
                raise UnknownModel(f"{model} has no alias {alias!r} to remove")
            return await self._move(AliasMove(model, alias, version, self._ports.wall_clock(), who, why), note_of)

    async def move_back(
        self, model: ModelName, alias: Alias, *, who: str, why: str, note_of: Note[AliasMove] | None = None
    ) -> AliasMove:
        """Point `alias` where it pointed before its last move. Raises: UnknownModel; Conflict when there is no such place."""
        seen = self._moves[model, alias]
        async with self._change:
            await self._check_unmoved(model, alias, seen=seen, expect=None)
            now = self._registry.resolve(ModelRef(model, alias=alias)).number
            before = place_before(await self._ports.store.alias_history(model), alias)
            if before is None:
                raise Conflict(f"{model}:{alias} has been nowhere else before {now}: move it to a version by number")
            reason = why or f"back from {now}"
            return await self._move(AliasMove(model, alias, before, self._ports.wall_clock(), who, reason), note_of)

    async def meaning_at(self, model: ModelName, alias: Alias, at: float) -> AliasMove | None:
        """Return the move that decided what the alias meant at wall time `at`; None when it did not exist yet."""
        return place_at(await self._ports.store.alias_history(model), alias, at)

    async def retire(
        self, model: ModelName, number: int, *, who: str, why: str, note_of: Note[Retirement] | None = None
    ) -> Version:
        """Take a version out of use: no alias and no new push names it; what runs goes on.

        Raises: UnknownModel; Conflict when it is retired already or an alias names it.
        """
        async with self._change:
            retirement = Retirement(model, number, self._ports.wall_clock(), who, why)
            registry = self._registry.with_retired(retirement)
            await self._ports.store.noting(note_of and note_of(retirement)).retire(retirement)
            self._registry = registry
        self._ports.notify(VersionRetired(model, number, retired=True))
        return registry.resolve(ModelRef(model, version=number))

    async def bring_back(self, model: ModelName, number: int, *, note_of: Note[Version] | None = None) -> Version:
        """Take a retired version into use again.

        Raises: UnknownModel; Conflict when it is not retired, or its artifacts were collected meanwhile.
        """
        async with self._change, self.keeper.turn:
            registry = self._registry.without_retirement(model, number)
            version = registry.resolve(ModelRef(model, version=number))
            for digest in sorted(version.digests()):
                if not await self._ports.artifacts.has(digest):
                    raise Conflict(
                        f"{version} cannot come back: artifact {digest[:12]} was collected; add its files again"
                    )
            await self._ports.store.noting(note_of and note_of(version)).bring_back(model, number)
            self._registry = registry
        self._ports.notify(VersionRetired(model, number, retired=False))
        return version

    async def _move(self, move: AliasMove, note_of: Note[AliasMove] | None) -> AliasMove:
        before = self._registry.aliases(move.model).get(move.alias)
        registry = self._registry.with_alias(move.model, move.alias, move.version)
        if move.version is not None:
            target = registry.resolve(ModelRef(move.model, version=move.version))
            await self._preloading.load_or_refuse(target, move.alias)
        await self._ports.store.noting(note_of and note_of(move)).move_alias(move)
        self._registry = registry
        self._moves[move.model, move.alias] += 1
        if before is not None:
            self._preloading.let_go(registry, registry.resolve(ModelRef(move.model, version=before)))
        self._ports.notify(AliasMoved(move.model, move.alias, move.version))
        return move

    async def _check_unmoved(self, model: ModelName, alias: Alias, *, seen: int, expect: int | None) -> None:
        now = self._registry.aliases(model).get(alias)
        is_as_expected = self._moves[model, alias] == seen if expect is None else (now or 0) == expect
        if is_as_expected:
            return
        moves = [move for move in await self._ports.store.alias_history(model) if move.alias == alias]
        last = f", moved there by {moves[-1].who}" if moves else ""
        why = f" ({moves[-1].why})" if moves and moves[-1].why else ""
        place = f"points at {now}" if now else "points at nothing"
        raise Conflict(f"{model}:{alias} {place} now{last}{why}: look again, then repeat with expect {now or 0}")

    async def _with_vectors(self, variant: Variant, signature: Signature, samples: bytes) -> Variant:
        if not samples or self._ports.reference is None:
            return variant
        async with self._trying:
            return replace(variant, vectors=await make_vectors(self._ports.reference, variant, signature, samples))

    async def vector_inputs(self, version: Version, variant: Variant) -> list[tuple[Vector, bytes]]:
        """Return the variant's test vectors, each with its input as the variant stores it. Raises: NotFound, NodeError."""
        samples = await self._samples(version) if variant.vectors else b""
        spec, stored = version.signature.inputs[0], variant.structure.inputs[0]
        return [(each, sample_input(spec, stored, samples, each.sample)) for each in variant.vectors]

    async def _samples(self, version: Version) -> bytes:
        if version.samples is None:
            return b""
        return await self._ports.artifacts.read(version.samples, 0, MAX_SAMPLES_BYTES)

    async def _drop(self, hold: Hold) -> None:
        """Remove what a refused admission stored, unless a version names it."""
        stored, hold[:] = list(hold), []
        self.keeper.release(stored)
        await self.keeper.remove(
            dict.fromkeys(stored),
            needed=lambda: {digest for version in self._registry.versions() for digest in version.digests()},
        )

    def _first_move(self, version: Version, *, who: str) -> AliasMove:
        return AliasMove(version.model, STABLE, version.number, version.created_at, who, "first version")

    async def _read(self, index: int, content: bytes, hold: Hold) -> Structure:
        try:
            if format_of(content) is Format.ONNX:
                digest = await self.keeper.put(content, hold)
                async with self._trying:
                    return await self._ports.trial.describe(digest)
            return await asyncio.to_thread(self._ports.read_model, content)
        except ModelRefused as error:
            raise ModelRefused(f"files[{index}]: {error}") from error

    async def _tried(self, index: int, name: str, content: bytes, structure: Structure, hold: Hold) -> Variant:
        digest = await self.keeper.put(content, hold)
        async with self._trying:
            trial = await self._ports.trial.try_model(digest, structure)
        if not any(verdict.runs for verdict in trial.verdicts):
            reasons = "; ".join(f"{v.place.value} ({v.engine}): {v.reason}" for v in trial.verdicts) or "no engine here"
            raise ModelRefused(f"files[{index}]: nothing can run it: {reasons}")
        return Variant(
            name=name,
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


def _variant_name(content: bytes, structure: Structure) -> str:
    kinds = {DType.FP32: "float32", DType.INT8: "int8", DType.UINT8: "uint8", DType.INT16: "int16"}
    first = structure.inputs[0].dtype if structure.inputs else DType.FP32
    return f"{format_of(content).value}-{kinds.get(first, first.value.lower())}"


def _check_distinct(names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
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
