from pathlib import Path

from gatewayd.adapters.store import open_store
from gatewayd.core.names import DeviceId
from gatewayd.core.registration import StoredPackage, StoredRegistration

ONE = StoredRegistration(DeviceId("dev-1"), "loc1", "127.0.0.1|5683", "", "ep=dev-1&lt=60", "</3/0>")
TWO = StoredRegistration(DeviceId("dev-2"), "loc2", "", "id-2", "ep=dev-2", "")


async def test_registrations_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        await store.save_registrations([ONE, TWO], [])
        await store.save_registrations([StoredRegistration(ONE.device, "loc9", "", "", "ep=dev-1", "")], [TWO.device])
    async with open_store(path) as store:
        assert [each.location for each in await store.load_registrations()] == ["loc9"]


async def test_packages_outlive_the_process(tmp_path: Path) -> None:
    package = StoredPackage(DeviceId("dev-1"), 0, "kws", 2, "ab" * 32)
    async with open_store(tmp_path / "db") as store:
        await store.save_package(StoredPackage(DeviceId("dev-1"), 0, "kws", 1, "cd" * 32))
        await store.save_package(package)
        assert list(await store.load_packages()) == [package]
