import asyncio
import os
import stat
from pathlib import Path

import pytest

from gatewayd.adapters.broker_reload import MosquittoReload
from gatewayd.adapters.credentials import ACCESS, FILE, PASSWORDS, open_credentials
from gatewayd.core.credentials import BrokerUser, Credentials, PreSharedKey
from gatewayd.core.errors import Conflict, NodeError, NotStored
from gatewayd.core.names import DeviceId
from gatewayd.wire.mosquitto import hash_password
from gatewayd.wire.topics import Topics

TOPICS = Topics("gatewayd", "gw")
DOOR = DeviceId("door-1")
USER = BrokerUser(DOOR, (DOOR,), hash_password("secret", bytes(12)))


def _with_user(known: Credentials) -> Credentials:
    return known.with_user(USER, may_replace=False).with_key(PreSharedKey(DOOR, b"k" * 16), may_replace=False)


async def test_a_change_is_on_disk_for_us_and_for_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    files = open_credentials(folder, TOPICS)
    assert files.key_of("door-1") is None
    await files.change(_with_user)
    assert files.key_of("door-1") == b"k" * 16
    assert (folder / PASSWORDS).read_text() == f"door-1:{USER.password}\n"
    assert "topic write gatewayd/gw/device/door-1/up/#" in (folder / ACCESS).read_text()
    assert open_credentials(folder, TOPICS).known() == files.known()


async def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await open_credentials(tmp_path / "credentials", TOPICS).change(_with_user)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "credentials").iterdir()}
    assert modes == {FILE: 0o600, PASSWORDS: 0o600, ACCESS: 0o600}
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700


async def test_a_refused_change_changes_nothing(tmp_path: Path) -> None:
    files = open_credentials(tmp_path, TOPICS)
    await files.change(_with_user)
    with pytest.raises(Conflict):
        await files.change(_with_user)
    assert len(files.known().users) == 1


async def test_changes_at_once_are_made_in_turn(tmp_path: Path) -> None:
    files = open_credentials(tmp_path, TOPICS)

    def adding(number: int) -> object:
        user = BrokerUser(DeviceId(f"d{number}"), (DeviceId(f"d{number}"),), USER.password)
        return files.change(lambda known: known.with_user(user, may_replace=False))

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            coroutine = adding(number)
            assert asyncio.iscoroutine(coroutine)
            tasks.create_task(coroutine)
    assert len(open_credentials(tmp_path, TOPICS).known().users) == 10


async def test_what_the_broker_reads_is_made_anew_at_each_start(tmp_path: Path) -> None:
    await open_credentials(tmp_path, TOPICS).change(_with_user)
    (tmp_path / PASSWORDS).write_text("intruder:x\n")
    open_credentials(tmp_path, TOPICS)
    assert (tmp_path / PASSWORDS).read_text() == f"door-1:{USER.password}\n"


async def test_an_edited_file_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    files = open_credentials(tmp_path, TOPICS)
    await files.change(_with_user)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(NodeError, match="is no JSON"):
        await files.reload()
    assert files.key_of("door-1") is not None
    (tmp_path / FILE).write_text("{}")
    await files.reload()
    assert files.key_of("door-1") is None
    assert (tmp_path / PASSWORDS).read_text() == ""


async def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    files = open_credentials(tmp_path / "credentials", TOPICS)
    (tmp_path / "credentials").rename(tmp_path / "gone")
    with pytest.raises(NotStored, match="No such file"):
        await files.change(_with_user)
    assert files.known() == Credentials()


def test_without_a_pid_file_somebody_else_tells_the_broker() -> None:
    assert "systemctl reload mosquitto" in MosquittoReload(None)()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "mosquitto seems not to run"), ("x", "no process number"), (str(os.getpid()), "is no mosquitto")],
)
def test_no_other_process_is_signalled(tmp_path: Path, content: str | None, words: str) -> None:
    pid_file = tmp_path / "mosquitto.pid"
    if content is not None:
        pid_file.write_text(content)
    assert words in MosquittoReload(pid_file)()
