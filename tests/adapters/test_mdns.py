import asyncio
import importlib.util

import pytest

from gatewayd.adapters import mdns
from gatewayd.adapters.mdns import Service, advertise
from gatewayd.core.errors import NodeError

NAME = "test-gw"


@pytest.mark.skipif(
    importlib.util.find_spec("zeroconf") is None, reason="zeroconf is not installed (pip install zeroconf)"
)
async def test_what_is_announced_is_found() -> None:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415 - an optional package

    services = [Service("_gatewayd._tcp", NAME, 8443, {"tls": "1"}), Service("_mqtt._tcp", NAME, 8883)]
    looking = AsyncZeroconf(interfaces=["127.0.0.1"])
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            announcing = tasks.create_task(advertise(services, host="test-host", addresses=["127.0.0.1"]))
            for service in services:
                info = AsyncServiceInfo(f"{service.kind}.local.", f"{NAME}.{service.kind}.local.")
                while not await info.async_request(looking.zeroconf, 500):
                    pass
                assert (info.port, info.parsed_addresses(), info.server) == (
                    service.port,
                    ["127.0.0.1"],
                    "test-host.local.",
                )
            announcing.cancel()
    finally:
        await looking.async_close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NodeError, match=r"pip install 'gatewayd\[mdns\]'"):
        mdns.check_available()
