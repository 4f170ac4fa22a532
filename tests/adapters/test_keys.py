import json
from pathlib import Path

import pytest

from gatewayd.adapters.keys import MAX_KEYS, Keys, open_keys
from gatewayd.core.errors import BadRequest, Conflict, NodeError, NotFound
from gatewayd.core.keys import KeyState
from gatewayd.wire.manifest import key_ring, read_manifest
from tests.wire.test_manifest import MANIFEST


def opened(folder: Path) -> Keys:
    return open_keys(folder / "keys", wall_clock=lambda: 1.7e9)


def states(keys: Keys) -> list[KeyState]:
    return [key.state for key in keys.known()]


def test_the_first_start_makes_a_key_that_later_starts_find(tmp_path: Path) -> None:
    first, again = opened(tmp_path), opened(tmp_path)
    assert first.known() == again.known()
    assert states(first) == [KeyState.SIGNING]
    signed = first.sign(MANIFEST)
    assert again.read(signed) == MANIFEST
    assert read_manifest(signed, key_ring([first.known()[0].public])) == MANIFEST


def test_only_the_owner_may_read_the_secrets(tmp_path: Path) -> None:
    opened(tmp_path)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "keys.json").stat().st_mode & 0o777 == 0o600


async def test_a_rotation_without_a_gap(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    old = keys.known()[0]
    signed_before = keys.sign(MANIFEST)
    new = await keys.add()
    assert keys.sign(MANIFEST) == signed_before
    await keys.sign_with(new.id)
    assert states(keys) == [KeyState.TRUSTED, KeyState.SIGNING]
    assert keys.read(signed_before) == MANIFEST
    await keys.revoke(old.id)
    with pytest.raises(BadRequest, match="not trusted here"):
        keys.read(signed_before)
    assert opened(tmp_path).known() == keys.known()
    assert (tmp_path / "keys" / "trusted.txt").read_text() == f"{new.public.hex()}  # {new.id} signing\n"


async def test_what_cannot_be_done_with_a_key(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    signing = keys.known()[0].id
    with pytest.raises(Conflict, match="signs now"):
        await keys.revoke(signing)
    with pytest.raises(NotFound, match=f"there are: {signing}"):
        await keys.revoke("0" * 16)
    gone = (await keys.add()).id
    await keys.revoke(gone)
    with pytest.raises(Conflict, match="was revoked"):
        await keys.sign_with(gone)


async def test_there_is_an_end_to_keys(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    for _ in range(MAX_KEYS - 1):
        await keys.add()
    with pytest.raises(Conflict, match="revoke one"):
        await keys.add()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"keys": []}', '{"keys": [{"secret": "00", "state": "signing", "made_at": 1}]}']
)
def test_a_damaged_file_is_no_reason_to_make_a_new_key(tmp_path: Path, content: str) -> None:
    opened(tmp_path)
    (tmp_path / "keys" / "keys.json").write_text(content)
    with pytest.raises(NodeError, match="restore it from a backup"):
        opened(tmp_path)


def test_a_file_without_public_halves_is_completed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    path = tmp_path / "keys" / "keys.json"
    whole = path.read_text()
    rows = [{name: value for name, value in row.items() if name != "public"} for row in json.loads(whole)["keys"]]
    path.write_text(json.dumps({"keys": rows}))
    assert opened(tmp_path).known() == first.known()
    assert path.read_text() == whole


def test_halves_that_do_not_belong_together_sign_nothing(tmp_path: Path) -> None:
    opened(tmp_path)
    path = tmp_path / "keys" / "keys.json"
    document = json.loads(path.read_text())
    document["keys"][0]["secret"] = "11" * 32
    path.write_text(json.dumps(document))
    with pytest.raises(NodeError, match=r"do not belong together: restore keys\.json"):
        opened(tmp_path).sign(MANIFEST)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(NodeError, match=r"no key can be made: .*No such file"):
        opened(tmp_path)
    python.write_text("#!/bin/sh\necho no entropy >&2; exit 1\n")
    python.chmod(0o700)
    with pytest.raises(NodeError, match="no key can be made: no entropy"):
        opened(tmp_path)
    assert not (tmp_path / "keys" / "keys.json").exists()


def test_two_signing_keys_are_damage_too(tmp_path: Path) -> None:
    opened(tmp_path)
    path = tmp_path / "keys" / "keys.json"
    rows = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": rows * 2}))
    with pytest.raises(NodeError):
        opened(tmp_path)
