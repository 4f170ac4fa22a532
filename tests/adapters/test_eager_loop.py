import asyncio
import os
import time
from collections.abc import Coroutine

from gatewayd.adapters.eager_loop import EagerLoop


def _run(work: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        runner.run(work)


def _loop() -> EagerLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EagerLoop)
    return loop


def _nothing() -> None:
    """Nothing is expected in particular."""


def _expected(count: int) -> tuple[int, list[str], asyncio.Future[None]]:
    """Expect an eventfd that holds `count`: return it, who took what came, and what is done then."""
    loop, descriptor, seen = _loop(), os.eventfd(count, os.EFD_NONBLOCK), list[str]()
    came: asyncio.Future[None] = loop.create_future()

    def told() -> None:
        os.eventfd_read(descriptor)
        seen.append("told")
        came.set_result(None)

    loop.add_reader(descriptor, seen.append, "read in a turn")
    loop.expect(60, descriptor, told)
    return descriptor, seen, came


def test_what_is_expected_comes_while_awake() -> None:
    async def work() -> None:
        loop, descriptor = _loop(), os.eventfd(0, os.EFD_NONBLOCK)
        came: asyncio.Future[int] = loop.create_future()

        def take() -> None:
            came.set_result(os.eventfd_read(descriptor))

        loop.add_reader(descriptor, take)
        writer = loop.run_in_executor(None, os.eventfd_write, descriptor, 7)
        loop.expect(60, descriptor, take)
        assert await came == 7
        loop.remove_reader(descriptor)
        os.close(descriptor)
        await writer

    _run(work())


def test_what_is_expected_is_told_a_turn_earlier() -> None:
    async def work() -> None:
        descriptor, seen, came = _expected(1)
        await came
        assert seen == ["told"]
        _loop().remove_reader(descriptor)
        os.close(descriptor)

    _run(work())


def test_callbacks_that_never_end_keep_nobody_out() -> None:
    async def work() -> None:
        loop, descriptor = _loop(), os.eventfd(1, os.EFD_NONBLOCK)
        came: asyncio.Future[int] = loop.create_future()

        def take() -> None:
            came.set_result(os.eventfd_read(descriptor))
            loop.remove_reader(descriptor)

        loop.add_reader(descriptor, take)
        turns = 0
        while not came.done():
            await asyncio.sleep(0)
            turns += 1
            assert turns < 20
        os.close(descriptor)

    _run(work())


def test_callbacks_in_between_do_not_make_it_forget() -> None:
    async def work() -> None:
        descriptor, seen, came = _expected(0)
        for _ in range(10):
            await asyncio.sleep(0)
        os.eventfd_write(descriptor, 1)
        await came
        assert seen == ["told"]
        _loop().remove_reader(descriptor)
        os.close(descriptor)

    _run(work())


def test_what_comes_beside_it_is_not_lost() -> None:
    async def work() -> None:
        loop, expected, other = _loop(), os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(1, os.EFD_NONBLOCK)
        both: asyncio.Future[int] = loop.create_future()
        loop.add_reader(expected, lambda: os.eventfd_read(expected))
        loop.add_reader(other, lambda: both.set_result(os.eventfd_read(other)))
        loop.expect(60, expected, _nothing)
        assert await both == 1
        for descriptor in (expected, other):
            loop.remove_reader(descriptor)
            os.close(descriptor)

    _run(work())


def test_what_does_not_come_is_slept_for() -> None:
    async def work() -> None:
        loop, is_over = _loop(), asyncio.Event()
        loop.call_later(0.3, is_over.set)
        loop.expect(0.001, -1, _nothing)
        cpu_s = time.process_time()
        await is_over.wait()
        assert time.process_time() - cpu_s < 0.25, "awake for a moment, asleep for the rest"

    _run(work())


def test_timers_are_kept_while_awake() -> None:
    async def work() -> None:
        loop, is_over = _loop(), asyncio.Event()
        loop.call_later(0.001, is_over.set)
        loop.expect(60, -1, _nothing)
        async with asyncio.timeout(20):
            await is_over.wait()

    _run(work())


def test_callbacks_go_first() -> None:
    async def work() -> None:
        loop, seen = _loop(), list[str]()
        loop.expect(60, -1, _nothing)
        loop.call_soon(seen.append, "callback")
        await asyncio.sleep(0)
        assert seen == ["callback"]

    _run(work())


def test_work_that_can_wait_is_done_while_something_is_awaited() -> None:
    async def work() -> None:
        loop, descriptor, seen = _loop(), os.eventfd(0, os.EFD_NONBLOCK), list[str]()

        def take() -> None:
            os.eventfd_read(descriptor)
            seen.append("answer")
            came.set_result(None)

        def later() -> None:
            seen.append("work")
            os.eventfd_write(descriptor, 1)

        came: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, take)
        loop.call_meanwhile(later)
        loop.expect(60, descriptor, take)
        await came
        assert seen == ["work", "answer"]
        loop.remove_reader(descriptor)
        os.close(descriptor)

    _run(work())


def test_work_that_can_wait_does_not_wait_for_ever() -> None:
    async def work() -> None:
        loop, is_done = _loop(), asyncio.Event()
        loop.call_meanwhile(is_done.set)
        async with asyncio.timeout(20):
            await is_done.wait()

    _run(work())


def test_what_comes_goes_before_work_that_can_wait() -> None:
    async def work() -> None:
        loop, descriptor, seen = _loop(), os.eventfd(1, os.EFD_NONBLOCK), list[str]()
        is_done = asyncio.Event()

        def take() -> None:
            os.eventfd_read(descriptor)
            seen.append("came")

        def later() -> None:
            seen.append("work")
            is_done.set()

        loop.add_reader(descriptor, take)
        loop.call_meanwhile(later)
        await is_done.wait()
        assert seen == ["came", "work"]
        loop.remove_reader(descriptor)
        os.close(descriptor)

    _run(work())


def test_a_defect_in_work_that_can_wait_is_told_and_harms_nobody() -> None:
    async def work() -> None:
        loop, told, is_done = _loop(), list[dict[str, object]](), asyncio.Event()
        loop.set_exception_handler(lambda _, context: told.append(context))
        loop.call_meanwhile(iter(()).__next__)
        loop.call_meanwhile(is_done.set)
        await is_done.wait()
        assert [type(each["exception"]) for each in told] == [StopIteration]

    _run(work())
