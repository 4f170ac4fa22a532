"""Hand-written fakes of where models come from: addresses and compiler plugins."""

from collections.abc import Sequence
from dataclasses import dataclass

from gatewayd.core.command import Note
from gatewayd.core.errors import BadRequest, UnknownModel
from gatewayd.core.names import Digest, ModelRef
from gatewayd.services.building import Built
from tests.api_values import KWS, VERSION
from tests.fake_notes import noted


@dataclass
class FakeFetching:
    """Knows one address."""

    async def files(self, urls: Sequence[str], digests: Sequence[Digest]) -> list[bytes]:
        if len(urls) != len(digests):
            raise BadRequest("digests: each address needs its own")
        return [url.encode() for url in urls]


class FakeBuilding:
    """Builds what is there already."""

    async def build(self, ref: ModelRef, wanted: str, *, who: str, note_of: Note[Built] | None = None) -> Built:
        if ref.name != KWS:
            raise UnknownModel(f"no model {ref.name!r}")
        assert who
        built = Built(VERSION, wanted, is_new=False, is_cached=False, report="there already")
        noted(note_of, built)
        return built
