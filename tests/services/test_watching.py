"""The watched folder from the files on disk to the registry: the folder is real, admission is this world's."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from gatewayd.adapters.model_folder import PATIENCE_LOOKS, WatchedFolder
from gatewayd.core.errors import NodeError
from gatewayd.core.events import InputRefused
from gatewayd.core.names import Alias, parse_model_ref
from gatewayd.services.watching import Watching
from tests.services.world import MODEL, World, world


@dataclass
class Drop:
    w: World
    folder: Path
    watching: Watching

    def put(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return sha256(content).hexdigest()

    def manifest(self, digest: str, *, name: str = "kws.yaml", extra: str = "", end: str = "...\n") -> None:
        text = f"model: kws\nfiles:\n  - {{name: kws.tflite, sha256: '{digest}'}}\n{extra}"
        (self.folder / name).write_text(text + end)

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.watching.look()

    def result(self, name: str = "kws.result.json") -> dict[str, object]:
        document: dict[str, object] = json.loads((self.folder / name).read_text())
        return document

    def numbers(self) -> list[int]:
        return [version.number for version in self.w.catalog.versions()]


@asynccontextmanager
async def drop(root: Path) -> AsyncIterator[Drop]:
    folder = root / "models"
    folder.mkdir(exist_ok=True)
    async with world(root) as w:
        watched = WatchedFolder(folder, max_bytes=1000)
        yield Drop(w, folder, Watching(watched, catalog=w.catalog, notify=w.events.append, every_s=5))


async def test_a_complete_model_is_admitted_once_with_all_that_its_manifest_says(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        extra = (
            "labels: [a, b, c]\nlicence: Apache-2.0\ntags: {team: audio}\nalias: canary\ncard: '# Card'\nnote: new\n"
        )
        d.manifest(d.put("kws.tflite", b"one"), extra=extra)
        await d.look(4)
        version = d.w.catalog.resolve(parse_model_ref("kws:canary"))
        assert d.numbers() == [1]
        assert (version.signature.labels, version.about.licence) == (("a", "b", "c"), "Apache-2.0")
        assert (version.about.tags, version.about.card, version.note) == ((("team", "audio"),), "# Card", "new")
        assert version.about.source.startswith("folder:kws.yaml sha256:")
        result = d.result()
        assert (result["ok"], result["model"], result["version"]) == (True, "kws", 1)


async def test_nothing_half_written_is_ever_admitted_wherever_the_writing_stopped(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        digest = d.put("kws.tflite", b"a whole model")
        d.manifest(digest, extra="note: all of it\n")
        manifest = (d.folder / "kws.yaml").read_bytes()
        (d.folder / "kws.yaml").unlink()
        (d.folder / "kws.tflite").unlink()
        for length in range(len(manifest) - 1):
            (d.folder / "kws.yaml").write_bytes(manifest[:length])
            d.put("kws.tflite", b"a whole model")
            await d.look()
            assert d.numbers() == [], manifest[:length]
        (d.folder / "kws.yaml").write_bytes(manifest)
        for length in range(len(b"a whole model")):
            d.put("kws.tflite", b"a whole model"[:length])
            await d.look()
            assert d.numbers() == []
        d.put("kws.tflite", b"a whole model")
        await d.look()
        assert d.numbers() == [1]


async def test_a_manifest_that_still_changes_waits(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        digest = d.put("kws.tflite", b"one")
        for note in ("a", "b", "c"):
            d.manifest(digest, extra=f"note: {note}\n")
            await d.look(1)
        assert d.numbers() == []
        await d.look(1)
        assert d.w.catalog.versions()[0].note == "c"


async def test_a_changed_manifest_is_another_version(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        d.manifest(d.put("kws.tflite", b"one"))
        await d.look()
        d.manifest(d.put("kws.tflite", b"two"))
        await d.look()
        assert d.numbers() == [1, 2]
        assert d.result()["version"] == 2


async def test_a_power_cut_between_admission_and_result_makes_no_second_version(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        d.manifest(d.put("kws.tflite", b"one"))
        await d.look()
        (d.folder / "kws.result.json").unlink()
    async with drop(tmp_path) as d:
        await d.look()
        assert d.numbers() == [1]
        assert d.result()["version"] == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("labels: [a]\n", "labels: 1 names for an output of 3 elements"),
        ("version: 7\n", "version: kws@7 is wanted, the next number is 1"),
        ("colour: red\n", "manifest: unknown key 'colour'"),
        ("samples: {name: ../x, sha256: '" + "0" * 64 + "'}\n", "manifest.samples.name: must be a plain file name"),
    ],
)
async def test_a_refusal_is_written_beside_it_and_told(tmp_path: Path, extra: str, message: str) -> None:
    async with drop(tmp_path) as d:
        d.manifest(d.put("kws.tflite", b"one"), extra=extra)
        await d.look()
        error = d.result()["error"]
        assert isinstance(error, dict)
        assert message in error["message"]
        assert isinstance(d.w.events[-1], InputRefused)
        assert (d.numbers(), d.w.events[-1].where) == ([], "folder")


async def test_a_digest_that_never_comes_true_is_told_in_the_end(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        d.manifest("0" * 64)
        d.put("kws.tflite", b"one")
        await d.look(PATIENCE_LOOKS)
        assert not (d.folder / "kws.result.json").exists()
        await d.look(3)
        assert "kws.tflite" in str(d.result()["error"])


async def test_links_pipes_and_large_files_are_not_read(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        (tmp_path / "secret").write_bytes(b"one")
        (d.folder / "kws.tflite").symlink_to(tmp_path / "secret")
        d.manifest(sha256(b"one").hexdigest())
        os.mkfifo(d.folder / "pipe.yaml")
        await d.look(3)
        (d.folder / "kws.tflite").unlink()
        d.manifest(d.put("kws.tflite", bytes(1001)))
        await d.look(3)
        assert d.numbers() == []


async def test_a_folder_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        d.folder.rmdir()
        with pytest.raises(NodeError, match="check that the folder is there"):
            await d.look()


async def test_the_alias_is_moved_as_the_manifest_says(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        await d.w.add(b"first")
        d.manifest(d.put("kws.tflite", b"two"), extra="alias: stable\n")
        await d.look()
        assert d.w.catalog.aliases(MODEL) == {Alias("stable"): 2}
        assert (await d.w.catalog.alias_history(MODEL))[-1].why == "as kws.yaml says"


async def test_a_manifest_without_its_last_line_is_told_in_the_end_and_may_still_get_it(tmp_path: Path) -> None:
    async with drop(tmp_path) as d:
        d.manifest(d.put("kws.tflite", b"one"), end="")
        await d.look(PATIENCE_LOOKS + 2)
        assert "does not end with a line" in str(d.result()["error"])
        d.manifest(d.put("kws.tflite", b"one"))
        await d.look()
        assert d.result()["ok"] is True
