from collections.abc import Callable, Coroutine

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.core.device import Lost
from gatewayd.core.errors import Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.quarantine import FAILURES, KEPT_OUT_S, MAX_DEVICES, WITHIN_S, Quarantine
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import scripted_device
from tests.lwm2m_server import running_server

ONE = DeviceId("dev-1")
ERROR = KeyError("oops")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_device_is_kept_out_for_a_while_after_some_failures_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    quarantine = Quarantine(clock)
    told = [quarantine.failed(ONE, "lwm2m birth dev-1", ERROR) for _ in range(FAILURES)]
    assert told[:-1] == [None] * (FAILURES - 1)
    assert "devices forget dev-1" in str(told[-1])
    assert len(caplog.records) == 2, "once with its traceback, once that it is out"
    assert caplog.records[0].exc_info is not None
    with pytest.raises(Overloaded, match="quarantined"):
        quarantine.check(ONE)
    quarantine.check(DeviceId("dev-2"))
    assert (len(quarantine), quarantine.failures) == (1, FAILURES)
    clock.now_s = KEPT_OUT_S
    quarantine.check(ONE)
    assert len(quarantine) == 0


def test_rare_failures_keep_nobody_out() -> None:
    clock = Clock()
    quarantine = Quarantine(clock)
    for _ in range(3 * FAILURES):
        clock.now_s += WITHIN_S / (FAILURES - 1) + 1
        assert quarantine.failed(ONE, "task", ERROR) is None


def test_somebody_may_let_it_in() -> None:
    quarantine = Quarantine(Clock())
    for _ in range(FAILURES):
        quarantine.failed(ONE, "task", ERROR)
    quarantine.release(ONE)
    quarantine.check(ONE)


def test_it_remembers_so_many_devices() -> None:
    quarantine = Quarantine(Clock())
    for number in range(MAX_DEVICES + FAILURES):
        quarantine.failed(DeviceId(f"dev-{number}"), "task", ERROR)
    assert len(quarantine._of) == MAX_DEVICES  # noqa: SLF001 - there is nothing else to see it by


async def test_a_device_whose_tasks_fail_is_told_to_come_later_and_others_go_on() -> None:
    async def guard(work: Coroutine[object, object, None], failed: Callable[[Exception], None]) -> None:
        if "boom-1" in repr(getattr(work, "cr_frame").f_locals["self"]):  # noqa: B009 - a coroutine's frame has no type
            work.close()
            failed(ERROR)
        else:
            await work

    async with (
        running_server(guard=guard) as server,
        scripted_device(server.address) as broken,
        scripted_device(server.address) as well,
    ):
        for device in (broken, well):
            device.tree = our_board()
        await well.register("dev-2", OUR_LINKS)
        for _ in range(FAILURES):
            assert (await broken.register("boom-1", OUR_LINKS)).code == codes.CREATED
            assert (await broken.deregister()).code in {codes.DELETED, codes.NOT_FOUND}
        assert any(isinstance(each, Lost) and "quarantined" in each.reason for each in server.events)
        answer = await broken.register("boom-1", OUR_LINKS)
        assert (answer.code, answer.opt.max_age) == (codes.SERVICE_UNAVAILABLE, 30)
        assert (await well.update()).code == codes.CHANGED
        server.link.forget(DeviceId("boom-1"), wholly=False)
        assert (await broken.register("boom-1", OUR_LINKS)).code == codes.CREATED
