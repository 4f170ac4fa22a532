"""What the verbs about second opinions need, as a Protocol; see `gatewayd.api.services`."""

from collections.abc import Sequence
from typing import Protocol

from gatewayd.core.names import ModelName
from gatewayd.core.opinion import SecondOpinion


class OpinionsService(Protocol):
    """Second opinions."""

    def all(self) -> Sequence[SecondOpinion]:
        """Return every second opinion that is set."""

    async def set(self, opinion: SecondOpinion) -> None:
        """Have a bigger model asked. Raises: UnknownModel, BadRequest, Conflict."""

    async def unset(self, model: ModelName) -> None:
        """Ask nobody any more. Raises: NotFound."""
