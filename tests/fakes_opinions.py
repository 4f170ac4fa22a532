"""Second opinions without anybody who gives them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.errors import NotFound
from gatewayd.core.names import ModelName
from gatewayd.core.opinion import SecondOpinion


@dataclass(slots=True)
class FakeOpinions:
    """Remembers what was set."""

    kept: dict[ModelName, SecondOpinion] = field(default_factory=dict)

    def all(self) -> tuple[SecondOpinion, ...]:
        return tuple(self.kept.values())

    async def set(self, opinion: SecondOpinion) -> None:
        self.kept[opinion.model] = opinion

    async def unset(self, model: ModelName) -> None:
        if self.kept.pop(model, None) is None:
            raise NotFound(f"{model} has no second opinion")


@dataclass(slots=True)
class OpinionsInMemory:
    """An `OpinionStore` that forgets at the end of the test."""

    rows: Sequence[SecondOpinion] = ()

    async def load_opinions(self) -> Sequence[SecondOpinion]:
        return self.rows

    async def save_opinions(self, opinions: Sequence[SecondOpinion]) -> None:
        self.rows = tuple(opinions)
