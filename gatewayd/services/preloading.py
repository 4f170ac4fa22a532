"""What the node holds in memory as aliases move: a version is loaded before one names it, and let go when none does."""

import contextlib

from gatewayd.core.errors import (
    Conflict,
    DeadlineExceeded,
    EngineMissing,
    ModelRefused,
    NodeError,
    Overloaded,
    WorkerDied,
)
from gatewayd.core.model import Place, Version
from gatewayd.core.names import STABLE, Alias, Digest, ModelRef
from gatewayd.core.registry import Registry
from gatewayd.services.ports import NodeRuntime

PRELOAD_S = 15.0  # an alias does not wait longer for its version to be loaded; protects the changes that wait behind it


class Preloading:
    """Loads and lets go on `runtime`; None: nothing runs on the node, and nothing is done."""

    def __init__(self, runtime: NodeRuntime | None) -> None:
        self._runtime = runtime

    async def stable(self, registry: Registry, limit: int) -> None:
        """Load what `stable` points at, at most `limit` of them."""
        models = sorted({version.model for version in registry.versions()})
        stable = [model for model in models if STABLE in registry.aliases(model)]
        for model in stable[:limit]:
            await self.attempt(registry.resolve(ModelRef(model)))

    async def attempt(self, version: Version) -> None:
        """Load the version; when that fails, who asks for it first will see what is wrong."""
        with contextlib.suppress(NodeError, ModelRefused):
            await self._load(version)

    async def load_or_refuse(self, version: Version, alias: Alias) -> None:
        """Load the version before `alias` names it. Raises: Conflict when it cannot be loaded any more."""
        try:
            await self._load(version)
        except (Overloaded, EngineMissing, DeadlineExceeded):
            return  # the node is busy or lacks an engine, which says nothing about the version
        except (WorkerDied, ModelRefused) as error:
            raise Conflict(f"{alias} stays where it is: {version} does not load on the node: {error}") from error

    def let_go(self, registry: Registry, version: Version) -> None:
        """Let the version's workers end when they have answered, but for files that a version with an alias has too."""
        if self._runtime is None:
            return
        named = _named(registry)
        for variant in version.runnable(Place.NODE):
            if variant.digest not in named:
                self._runtime.retire(variant.digest)

    async def _load(self, version: Version) -> None:
        variants = version.runnable(Place.NODE)
        if variants and self._runtime is not None:
            await self._runtime.preload(variants[0], timeout_s=PRELOAD_S)


def _named(registry: Registry) -> set[Digest]:
    """Return the artifacts of all versions that an alias names."""
    return {
        variant.digest
        for version in registry.versions()
        if version.number in registry.aliases(version.model).values()
        for variant in version.variants
    }
