"""Loading models on the node before they are needed, and letting their workers go: the model repository's verbs."""

from gatewayd.core.errors import Conflict, NoPlacement
from gatewayd.core.model import Place, Variant, Version
from gatewayd.core.names import ModelName, ModelRef
from gatewayd.services.catalog import Catalog
from gatewayd.services.ports import NodeLoader

LOAD_TIMEOUT_S = 60.0  # start of a worker and reading of the largest model on a slow node


class Loading:
    """What is in the node's memory. A model that is not is loaded by its next request."""

    def __init__(self, catalog: Catalog, loader: NodeLoader) -> None:
        self._catalog = catalog
        self._loader = loader

    def is_loaded(self, version: Version) -> bool:
        """Whether a worker holds the variant that the node would run."""
        variant = _node_variant(version)
        return variant is not None and variant.digest in self._loader.loaded()

    async def load(self, ref: ModelRef) -> Version:
        """Load what `ref` names. Raises: UnknownModel, NoPlacement (the node cannot run it), and what loading raises."""
        version = self._catalog.resolve(ref)
        variant = _node_variant(version)
        if variant is None:
            raise NoPlacement(f"{version} runs on devices only: there is nothing to load on the node")
        await self._loader.preload(variant, timeout_s=LOAD_TIMEOUT_S)
        return version

    async def unload(self, model: ModelName) -> int:
        """Let the workers of all versions of a model go; return how many there were.

        Raises: UnknownModel; Conflict when one is at work.
        """
        self._catalog.resolve(ModelRef(model))
        ours = {v.digest for version in self._catalog.versions() if version.model == model for v in version.variants}
        loaded = [digest for digest in self._loader.loaded() if digest in ours]
        busy = [digest for digest in loaded if not self._loader.unload(digest)]
        if busy:
            raise Conflict(f"{model} is being asked right now: {len(busy)} of its workers are busy; try again")
        return len(loaded)


def _node_variant(version: Version) -> Variant | None:
    return next(iter(version.runnable(Place.NODE)), None)
