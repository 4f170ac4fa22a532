import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from gatewayd.adapters.artifacts import Artifacts, open_artifacts
from gatewayd.core.errors import BadRequest, NodeError, NotFound, TooLarge
from gatewayd.core.names import Digest
from gatewayd.services import ports

CONTENT = bytes(range(256)) * 8
DIGEST = Digest(sha256(CONTENT).hexdigest())


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_put_names_the_bytes_by_their_digest(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path / "new" / "artifacts") as artifacts:
        assert await artifacts.put(CONTENT, expected=DIGEST) == DIGEST
        assert artifacts.path(DIGEST).read_bytes() == CONTENT
        assert files(tmp_path / "new" / "artifacts") == [f"{DIGEST[:2]}/{DIGEST}"]
        assert await artifacts.has(DIGEST)
        assert await artifacts.size(DIGEST) == len(CONTENT)


async def test_the_same_bytes_are_stored_once(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        await artifacts.put(CONTENT)
        inode = artifacts.path(DIGEST).stat().st_ino
        await artifacts.put(CONTENT)
        assert artifacts.path(DIGEST).stat().st_ino == inode


async def test_puts_at_once_leave_one_file(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        assert set(await asyncio.gather(*(artifacts.put(CONTENT) for _ in range(20)))) == {DIGEST}
    assert files(tmp_path) == [f"{DIGEST[:2]}/{DIGEST}"]


async def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        await artifacts.put(CONTENT)
        artifacts.path(DIGEST).write_bytes(b"rot")
        await artifacts.put(CONTENT)
        assert artifacts.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 10, CONTENT[:10]), (2040, 100, CONTENT[2040:]), (2048, 1, b""), (10**12, 5, b""), (0, 0, b"")],
)
async def test_read_is_bounded(tmp_path: Path, offset: int, length: int, expected: bytes) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        await artifacts.put(CONTENT)
        assert await artifacts.read(DIGEST, offset, length) == expected


async def test_read_never_returns_more_than_the_limit(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        await artifacts.put(CONTENT)
    async with open_artifacts(tmp_path, max_bytes=100) as artifacts:
        assert await artifacts.read(DIGEST, 0, 10**15) == CONTENT[:100]


async def test_unknown_is_not_found(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        assert not await artifacts.has(DIGEST)
        with pytest.raises(NotFound, match=DIGEST):
            await artifacts.read(DIGEST, 0, 1)
        with pytest.raises(NotFound, match=DIGEST):
            await artifacts.size(DIGEST)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
async def test_negative_range_is_refused(tmp_path: Path, offset: int, length: int) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        with pytest.raises(BadRequest, match="must not be negative"):
            await artifacts.read(DIGEST, offset, length)


async def test_a_path_is_no_digest(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        with pytest.raises(BadRequest):
            artifacts.path(Digest("../../etc/passwd"))


async def test_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path, max_bytes=10) as artifacts:
        with pytest.raises(TooLarge, match="the artifact has 11 bytes, the limit is 10"):
            await artifacts.put(bytes(11))
        await artifacts.put(bytes(10))
    assert len(files(tmp_path)) == 1


async def test_other_bytes_than_expected_are_refused(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        with pytest.raises(BadRequest, match="fetch them again"):
            await artifacts.put(CONTENT + b"!", expected=DIGEST)
    assert files(tmp_path) == []


async def test_leftovers_of_interrupted_writes_go(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        await artifacts.put(CONTENT)
    leftover = tmp_path / DIGEST[:2] / "tmpabc.part"
    leftover.write_bytes(CONTENT[:100])
    async with open_artifacts(tmp_path) as artifacts:
        assert await artifacts.has(DIGEST)
    assert files(tmp_path) == [f"{DIGEST[:2]}/{DIGEST}"]


async def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / DIGEST[:2] / DIGEST
    async with open_artifacts(tmp_path) as artifacts:
        (blocked / "in the way").mkdir(parents=True)
        with pytest.raises(NodeError, match="check its rights and the free space"):
            await artifacts.put(CONTENT)
    assert files(tmp_path) == []


async def test_unusable_root_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NodeError, match=r"artifact directory .*/file: .*exists"):
        async with open_artifacts(tmp_path / "file"):
            pass


def satisfies_the_port(artifacts: Artifacts) -> ports.Artifacts:
    """Say it where the type checker reads it."""
    return artifacts


async def test_what_is_stored_is_listed_and_can_be_removed(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        digests = [await artifacts.put(bytes(size)) for size in (10, 20)]
        (tmp_path / DIGEST[:2]).mkdir(exist_ok=True)
        (tmp_path / DIGEST[:2] / "notes.txt").write_text("not ours")
        assert await artifacts.digests() == dict(zip(digests, (10, 20), strict=True))
        await artifacts.remove(digests[0])
        await artifacts.remove(digests[0])
        await artifacts.remove(DIGEST)
        assert await artifacts.digests() == {digests[1]: 20}
        with pytest.raises(BadRequest):
            await artifacts.remove(Digest("../x"))
