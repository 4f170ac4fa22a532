import base64
import json
from hashlib import sha256

import pytest

from gatewayd.api.verb import Caller, Role
from gatewayd.core.errors import BadRequest, Conflict, NotFound, UnknownModel
from tests.fakes_api import World

ANN = Caller("ann", Role.ADMIN)


async def call(world: World, verb: str, **arguments: object) -> dict[str, object]:
    result = await world.api().call(verb, json.dumps(arguments).encode(), ANN)
    document: dict[str, object] = json.loads(result.model_dump_json())
    return document


async def test_show() -> None:
    world = World()
    shown = await call(world, "models.show", model="kws:stable")
    assert (shown["model"], shown["version"], shown["aliases"], shown["card"]) == ("kws", 1, ["stable"], "")


async def test_what_is_told_of_a_version_is_kept() -> None:
    world = World()
    file = base64.b64encode(b"TFL3").decode()
    row = await call(
        world, "models.add", model="kws", files=[file], licence="MIT", card="# Card", tags=["team=audio", "a=b"],
        samples=base64.b64encode(bytes(32)).decode(),
    )  # fmt: skip
    assert (row["licence"], row["tags"], row["source"]) == ("MIT", {"team": "audio", "a": "b"}, "upload")
    with pytest.raises(BadRequest, match="must be key=value"):
        await call(world, "models.add", model="kws", files=[file], tags=["audio"])


async def test_a_move_with_expect_and_back_again() -> None:
    world = World()
    file = base64.b64encode(b"TFL3").decode()
    await call(world, "models.add", model="kws", files=[file])
    with pytest.raises(Conflict):
        await call(world, "models.alias", model="kws", alias="stable", version=2, expect=2)
    moved = await call(world, "models.alias", model="kws", alias="stable", version=2, expect=1, why="better")
    back = await call(world, "models.back", model="kws", alias="stable", why="worse")
    gone = await call(world, "models.unalias", model="kws", alias="stable")
    assert [(row["version"], row["who"]) for row in (moved, back, gone)] == [(2, "ann"), (1, "ann"), (None, "ann")]
    history = await call(world, "models.history", model="kws", alias="stable")
    assert [move["version"] for move in history["moves"]] == [1, 2, 1, None]  # type: ignore[attr-defined]  # JSON
    assert (await call(world, "models.history", model="kws", alias="canary"))["moves"] == []


async def test_history_of_nothing() -> None:
    with pytest.raises(UnknownModel):
        await call(World(), "models.history", model="vww")


@pytest.mark.parametrize(
    ("at", "version"),
    [("2023-11-14T22:13:19Z", None), ("2023-11-14T22:13:20", 1), ("2023-11-15T00:13:20+02:00", 1), ("2030-01-01", 1)],
)
async def test_when(at: str, version: int | None) -> None:
    meaning = await call(World(), "models.when", model="kws", at=at)
    assert (meaning["alias"], meaning["version"]) == ("stable", version)


@pytest.mark.parametrize(
    ("model", "at", "message"),
    [
        ("kws@1", "2030-01-01", "means the same at all times"),
        ("kws", "yesterday", "write it as"),
        ("kws", "9" * 40, "write it as"),
    ],
)
async def test_when_mistakes(model: str, at: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        await call(World(), "models.when", model=model, at=at)


async def test_retire_and_restore() -> None:
    world = World()
    retired = (await call(world, "models.retire", model="kws@1", why="old"))["retired"]
    assert retired == {"retired_at": "2023-11-14T22:13:22+00:00", "who": "ann", "why": "old"}
    assert (await call(world, "models.restore", model="kws@1"))["retired"] is None
    for verb in ("models.retire", "models.restore"):
        with pytest.raises(BadRequest, match="name a version by its number, as in kws@3"):
            await call(world, verb, model="kws:stable")


async def test_collect() -> None:
    found = await call(World(), "models.collect", dry_run=True)
    assert (found["dry_run"], found["removed_bytes"], found["kept_count"]) == (True, 100, 2)
    assert found["kept"] == [{"digest": "c" * 64, "reason": "device cam-7 holds it"}]


async def test_an_upload_in_parts_becomes_a_version_and_is_forgotten() -> None:
    world, content = World(), bytes(range(256)) * 300
    begun = await call(world, "upload.begin", size_bytes=len(content), digest=sha256(content).hexdigest())
    upload, part_bytes = begun["upload"], begun["part_bytes"]
    assert isinstance(part_bytes, int)
    for offset in range(0, len(content), 50_000):
        part = base64.b64encode(content[offset : offset + 50_000]).decode()
        await call(world, "upload.part", upload=upload, offset=offset, content=part)
    assert (await call(world, "upload.end", upload=upload))["whole"] is True
    row = await call(world, "models.add", model="kws", uploads=[upload])
    assert (row["version"], row["source"], world.catalog.files) == (2, "upload in parts", [content])
    with pytest.raises(NotFound):
        await call(world, "models.add", model="kws", uploads=[upload])
    assert await call(world, "upload.cancel", upload=upload) == {"upload": upload}


async def test_the_largest_part_fits_a_message() -> None:
    world = World()
    begun = await call(world, "upload.begin", size_bytes=2**20, digest="0" * 64)
    assert isinstance(begun["part_bytes"], int)
    part = base64.b64encode(bytes(begun["part_bytes"])).decode()
    assert (await call(world, "upload.part", upload=begun["upload"], offset=0, content=part))["received"] == begun[
        "part_bytes"
    ]


async def test_fetch() -> None:
    row = await call(
        World(), "models.fetch", model="kws", sources=["https://u:pw@example.com/m.tflite?token=x"], digests=["0" * 64]
    )
    assert row["source"] == "https://example.com/m.tflite"


async def test_build() -> None:
    built = await call(World(), "models.build", model="kws@1", **{"for": "int8"})
    assert (built["variant"], built["is_new"], built["fits"]) == ("int8", False, None)
