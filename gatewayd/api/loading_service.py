"""What the verbs about loading need of the services."""

from typing import Protocol

from gatewayd.core.model import Version
from gatewayd.core.names import ModelName, ModelRef


class LoadingService(Protocol):
    """What is in the node's memory."""

    def is_loaded(self, version: Version) -> bool:
        """Whether a worker holds it."""

    async def load(self, ref: ModelRef) -> Version:
        """Load what `ref` names. Raises: UnknownModel, NoPlacement, NodeError."""

    async def unload(self, model: ModelName) -> int:
        """Let the model's workers go. Raises: UnknownModel, Conflict."""
