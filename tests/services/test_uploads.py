from dataclasses import dataclass
from hashlib import sha256

import pytest

from gatewayd.core.errors import BadRequest, Conflict, NotFound, TooLarge
from gatewayd.core.names import Digest
from gatewayd.services.uploads import EXPIRES_S, MAX_UPLOADS, Uploads
from tests.services.world import ManualClock

CONTENT = bytes(range(200))
DIGEST = Digest(sha256(CONTENT).hexdigest())


@dataclass
class Ids:
    count: int = 0

    def __call__(self) -> str:
        self.count += 1
        return f"u{self.count}"


def uploads(clock: ManualClock | None = None) -> Uploads:
    return Uploads(clock=clock or ManualClock(), new_id=Ids(), max_bytes=1000)


async def test_parts_in_order_make_the_file() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    for offset in (0, 80, 160):
        state = service.part(upload, offset=offset, content=CONTENT[offset : offset + 80])
    assert (state.received, state.whole) == (200, False)
    assert (await service.end(upload)).whole
    assert service.content(upload) == CONTENT


async def test_a_part_that_comes_twice_does_no_harm() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    for offset in (0, 0, 100, 0, 100):
        state = service.part(upload, offset=offset, content=CONTENT[offset : offset + 100])
    assert state.received == 200
    assert (await service.end(upload)).whole


def test_a_gap_names_the_part_that_is_due() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    service.part(upload, offset=0, content=CONTENT[:50])
    for offset, content in ((100, CONTENT[100:]), (0, b"another beginning"), (20, CONTENT[20:80])):
        with pytest.raises(Conflict, match="the part at 50 is due"):
            service.part(upload, offset=offset, content=content)


def test_more_than_announced_is_refused_before_it_is_kept() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    with pytest.raises(TooLarge, match="past the announced 200"):
        service.part(upload, offset=0, content=bytes(201))
    with pytest.raises(TooLarge, match=r"1001 bytes are over the limit of 1000"):
        service.begin(size_bytes=1001, digest=DIGEST)


async def test_half_a_file_is_never_given_out() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    service.part(upload, offset=0, content=CONTENT[:199])
    with pytest.raises(Conflict, match="1 bytes are missing; the part at 199 is due"):
        await service.end(upload)
    with pytest.raises(Conflict, match="has not ended"):
        service.content(upload)


async def test_other_bytes_than_announced_are_dropped() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    service.part(upload, offset=0, content=bytes(200))
    with pytest.raises(BadRequest, match="send it again"):
        await service.end(upload)
    with pytest.raises(NotFound):
        service.content(upload)


def test_what_stops_expires_and_makes_room() -> None:
    clock = ManualClock()
    service = uploads(clock)
    names = [service.begin(size_bytes=200, digest=DIGEST).upload for _ in range(MAX_UPLOADS)]
    with pytest.raises(Conflict, match="uploads are on their way"):
        service.begin(size_bytes=200, digest=DIGEST)
    clock.now_s += EXPIRES_S - 1
    service.part(names[0], offset=0, content=CONTENT[:50])
    clock.now_s += 2
    assert service.part(names[0], offset=50, content=CONTENT[50:]).received == 200
    with pytest.raises(NotFound, match="it expired after 300 s"):
        service.part(names[1], offset=0, content=CONTENT)
    service.begin(size_bytes=200, digest=DIGEST)


def test_a_cancelled_one_is_gone() -> None:
    service = uploads()
    upload = service.begin(size_bytes=200, digest=DIGEST).upload
    service.cancel(upload)
    service.cancel(upload)
    with pytest.raises(NotFound):
        service.part(upload, offset=0, content=CONTENT)
