"""How guests end, whatever the program does with its loops, and what they leave behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from armillary_compat.futures import call_asyncio, call_trio
from armillary_compat.guest import Guest, GuestTask

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.usefixtures("driver")


class Scene:
    """A guest with something of everything in it, and a log of what its cleanup came to."""

    def __init__(self) -> None:
        self.log = list[str]()
        self.task: GuestTask[None] | None = None

    async def set_up(self) -> None:
        """Returns when everything runs; nobody closes anything."""
        up = trio.Event()
        self.task = Guest.current().start_soon(self.serve, up)
        await Guest.current().start_soon(up.wait).wait()

    async def serve(self, up: trio.Event) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(call_asyncio, self.handler, up)
                [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, self.session, [listener])
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
                await call_asyncio(asyncio.sleep, 0.01)  # a new asyncio task, after all were cancelled
                self.log.append("trio")

    async def session(self, stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async def handler(self, up: trio.Event) -> None:
        up.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            await call_trio(trio.sleep, 0.01)  # even another trio task, while the guest ends
            self.log.append("asyncio")

    def assert_cleaned_up(self) -> None:
        assert self.log == ["asyncio", "trio"]
        assert self.task is not None
        assert self.task.future.cancelled()
        assert not trio.lowlevel.in_trio_run()
        trio.run(trio.sleep, 0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def ident(value: int) -> int:
    await trio.lowlevel.checkpoint()
    return value


# -- the ends of asyncio.run ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_asyncio_run(host: Host, how: str) -> None:
    """When `asyncio.run` ends, what is in the guest is cancelled and cleans up; nobody closes anything."""
    scene = Scene()

    async def main() -> str:
        await scene.set_up()
        if how == "raises":
            raise KeyError("x")
        return how

    if how == "raises":
        with pytest.raises(KeyError):
            host.run(main)
    else:
        assert host.run(main) == "returns"
    scene.assert_cleaned_up()


def test_main_returns_at_once(host: Host) -> None:
    """The same if the guest had no chance to begin."""
    begun = list[str]()

    async def begin() -> None:
        begun.append("begun")
        await trio.sleep_forever()

    async def main() -> GuestTask[None]:
        return Guest.current().start_soon(begin)

    assert host.run(main).future.cancelled()
    assert not trio.lowlevel.in_trio_run()


def test_users_that_end_with_the_loop(host: Host) -> None:
    """When `asyncio.run` cancels everybody, a user's cleanup can go on using the guest."""
    log = list[str]()

    async def main() -> None:
        hold = Guest.current().hold()

        async def user() -> None:
            try:
                await call_trio(trio.sleep_forever)
            finally:
                for number in range(5):
                    log.append(f"{number} {await call_trio(ident, number)}")
                hold.release()

        asyncio.current_task().user = asyncio.create_task(user())  # type: ignore[union-attr]
        await call_trio(trio.testing.wait_all_tasks_blocked)

    host.run(main)
    assert log == [f"{number} {number}" for number in range(5)]
    assert not trio.lowlevel.in_trio_run()


def test_a_stubborn_task(host: Host) -> None:
    """`asyncio.run` waits for a trio task that takes its time to end."""
    log = list[str]()

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
        log.append("done")

    async def main() -> None:
        Guest.current().start_soon(stubborn)
        await asyncio.sleep(0.01)

    host.run(main)
    assert log == ["done"]


# -- loops that are run by hand ---------------------------------------------------------------------------


def test_closing_a_loop(host: Host) -> None:
    """Closing a loop finishes its guest first, and trio works in that thread afterwards."""
    scene = Scene()
    loop = host.new_event_loop()
    loop.run_until_complete(scene.set_up())
    assert trio.lowlevel.in_trio_run()
    loop.close()
    assert loop.is_closed()
    assert scene.log[-1] == "trio"
    assert scene.task is not None
    assert scene.task.future.cancelled()
    assert not trio.lowlevel.in_trio_run()
    trio.run(trio.sleep, 0)
    loop.close()


def test_the_loop_is_as_it_was(host: Host) -> None:
    """When the guest has ended, nothing of it is left on the loop, and what others put there is."""
    loop = host.new_event_loop()
    closes = list[str]()

    def close() -> None:
        closes.append("called")
        type(loop).close(loop)

    loop.close = close  # type: ignore[method-assign]
    before = dict(vars(loop))

    async def main() -> None:
        guest = Guest.current()
        assert vars(loop)["close"] is not close
        await guest.aclose()

    loop.run_until_complete(main())
    after = {name: value for name, value in vars(loop).items() if name in before or "armillary" in name}
    assert after["close"] is close
    assert "run_forever" not in vars(loop)
    assert set(after) == set(before)
    loop.run_until_complete(call_trio(ident, 1))
    loop.run_until_complete(Guest.of(loop).start_soon(ident, 2).future)
    loop.close()
    assert closes == ["called"]
    assert not trio.lowlevel.in_trio_run()


def test_several_runs_of_one_loop(host: Host) -> None:
    """Several `run_until_complete` of one loop have one guest, and its tasks go on from one to the next."""
    loop = host.new_event_loop()
    send, receive = trio.open_memory_channel[int](10)
    received = list[int]()

    async def consume() -> None:
        async for number in receive:
            received.append(number)

    async def main(number: int) -> Guest:
        send.send_nowait(number)
        assert await call_trio(ident, number) == number
        return Guest.current()

    async def begin() -> GuestTask[None]:
        return Guest.current().start_soon(consume)

    task = loop.run_until_complete(begin())
    guests = {loop.run_until_complete(main(number)) for number in range(5)}
    assert len(guests) == 1
    send.close()
    loop.run_until_complete(task.future)
    assert received == list(range(5))
    loop.close()


def test_before_the_loop_runs(host: Host) -> None:
    """A guest that is asked for before its loop runs starts when it does."""
    loop = host.new_event_loop()
    guest = Guest.of(loop)
    assert Guest.of(loop) is guest
    tasks = [guest.start_soon(ident, number) for number in range(3)]
    assert not trio.lowlevel.in_trio_run()

    async def main() -> list[int]:
        return [await task.wait() for task in tasks]

    assert loop.run_until_complete(main()) == [0, 1, 2]
    loop.close()


def test_a_loop_that_never_runs(host: Host) -> None:
    """A loop that is closed without having run cancels what its guest was to do."""
    loop = host.new_event_loop()
    guest = Guest.of(loop)
    hold, task = guest.hold(), guest.start_soon(ident, 1)
    loop.close()
    assert task.future.cancelled()
    hold.release()
    assert not trio.lowlevel.in_trio_run()


def test_cleanup_that_starts_another_guest(host: Host) -> None:
    """Closing a loop finishes those guests, too, that only its cleanup has started."""
    log = list[str]()
    loop = host.new_event_loop()

    async def endless(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append(name)
            if name != "third":
                Guest.of(loop).start_soon(endless, {"first": "second", "second": "third"}[name])

    async def main() -> None:
        Guest.current().start_soon(endless, "first")
        await call_trio(trio.testing.wait_all_tasks_blocked)

    loop.run_until_complete(main())
    loop.close()
    assert log == ["first", "second", "third"]
    assert not trio.lowlevel.in_trio_run()


def test_a_loop_that_is_stopped_in_between(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Closing a loop also finishes what is left to do when a guest has just ended."""

    class Stop(trio.abc.Instrument):
        def after_run(self) -> None:
            asyncio.get_running_loop().stop()

    async def main() -> None:
        guest = Guest.current()
        guest.start_soon(trio.sleep_forever)
        await call_trio(trio.sleep, 0)
        trio.lowlevel.add_instrument(Stop())
        asyncio.get_running_loop().call_soon(guest.end)

    loop = host.new_event_loop()
    loop.run_until_complete(main())
    loop.run_forever()
    assert not trio.lowlevel.in_trio_run()
    loop.close()
    del loop
    gc.collect()
    assert caplog.records == []


# -- many loops -------------------------------------------------------------------------------------------


def test_hundreds_of_loops(host: Host, driver: str) -> None:
    """Loops one after another, by the hundred, leave nothing behind: no thread, descriptor, or loop."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    threads: set[threading.Thread] = set()
    threads_before = set(threading.enumerate())

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await call_trio(ident, 7) == 7
        Guest.current().start_soon(trio.sleep_forever)
        threads.update(threading.enumerate())

    def run(count: int) -> None:
        for number in range(count):
            if number % 2:
                with asyncio.Runner(loop_factory=host.new_event_loop) as runner:
                    runner.run(main())
            else:
                loop = host.new_event_loop()
                loop.run_until_complete(main())
                loop.close()

    run(4)
    gc.collect()
    before = descriptors()
    run(300)
    gc.collect()
    assert descriptors() == before
    assert [loop() for loop in loops] == [None] * 304
    if driver == "hosted":
        assert threads <= threads_before
    assert sys.get_asyncgen_hooks() == (None, None)


def test_loops_in_threads(host: Host) -> None:
    """Loops in several threads have a guest each, and they know nothing of each other."""
    results: dict[int, list[int]] = {}
    together = threading.Barrier(8)

    async def main(number: int) -> None:
        together.wait()
        Guest.current().start_soon(trio.sleep_forever)
        results[number] = [await call_trio(ident, number) for _ in range(20)]

    def run(number: int) -> None:
        with asyncio.Runner(loop_factory=host.new_event_loop) as runner:
            runner.run(main(number))

    threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number] * 20 for number in range(8)}


def test_loops_that_take_turns(host: Host) -> None:
    """Two loops of one thread that are run in turn have a guest each."""
    log = list[str]()

    class Side:
        def __init__(self, name: str) -> None:
            self.name = name
            self.loop = host.new_event_loop()
            self.event = trio.Event()
            self.seen = asyncio.Event()

        async def wait(self) -> None:
            while True:
                await self.event.wait()
                self.event = trio.Event()
                log.append(self.name)
                await trio.lowlevel.checkpoint()
                self.seen.set()

        async def begin(self) -> None:
            Guest.current().start_soon(self.wait)
            await call_trio(trio.testing.wait_all_tasks_blocked)

        async def poke(self) -> None:
            self.seen.clear()
            self.event.set()  # nothing but trio's own function: it must find its own run
            await self.seen.wait()

    first, second = Side("first"), Side("second")
    for side in (first, second):
        side.loop.run_until_complete(side.begin())
    for side in (first, second, first, first, second):
        side.loop.run_until_complete(side.poke())
    first.loop.close()
    second.loop.run_until_complete(second.poke())
    second.loop.close()
    assert log == ["first", "second", "first", "first", "second", "second"]
    assert not trio.lowlevel.in_trio_run()


# -- errors -----------------------------------------------------------------------------------------------


def test_a_foreign_run(host: Host) -> None:
    """Where another trio run is active in the thread, the error says what was expected."""

    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"expected no trio run in this thread but .* there is another"
        ):
            Guest.current()
        loop = asyncio.get_running_loop()
        assert "close" not in vars(loop)

    async def trio_main() -> None:
        host.run(main)

    trio.run(trio_main)

    async def deferred() -> None:
        with pytest.raises(RuntimeError, match="expected no trio run in this thread"):
            await task.wait()

    async def trio_main_again() -> None:
        loop.run_until_complete(deferred())

    loop = host.new_event_loop()
    task = Guest.of(loop).start_soon(ident, 1)
    trio.run(trio_main_again)
    assert loop.run_until_complete(call_trio(ident, 2)) == 2
    loop.close()


def test_another_thread(host: Host) -> None:
    """A guest that is used from another thread than its loop's says so, and is not harmed."""
    caught: list[BaseException] = []

    def attempt(function: Callable[[], object]) -> None:
        def run() -> None:
            with pytest.raises(RuntimeError, match="expected to be called in the thread of") as error:
                function()
            caught.append(error.value)
            trio.run(trio.sleep, 0)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        attempt(lambda: Guest.of(loop))
        guest = Guest.current()
        await call_trio(ident, 1)
        attempt(lambda: guest.start_soon(ident, 1))
        attempt(lambda: Guest.of(loop))
        assert await call_trio(ident, 2) == 2

    async def held() -> None:
        with Guest.current().hold():
            await main()

    host.run(held)
    assert len(caught) == 3


def test_a_posted_crash(host: Host) -> None:
    """If trio ends the run by an internal error, the loop reports it, and the next guest works."""
    reported: list[dict[str, Any]] = []

    def explode() -> None:
        raise AssertionError("inside of trio")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        guest = Guest.current()
        waiting = guest.start_soon(trio.sleep_forever)
        await call_trio(trio.testing.wait_all_tasks_blocked)
        # What is posted to a run's token must not raise.
        trio.lowlevel.current_trio_token().run_sync_soon(explode)
        with pytest.raises(asyncio.CancelledError):
            await waiting.wait()
        await guest.aclose()
        assert isinstance(reported[0]["exception"], trio.TrioInternalError)
        assert await call_trio(ident, 3) == 3

    host.run(main)
    assert len(reported) == 1
    assert not trio.lowlevel.in_trio_run()


CRASH = """
import asyncio, trio, warnings
from armillary_compat.futures import call_trio
from armillary_compat.guest import Guest

async def break_trio():
    with trio.move_on_after(0.01):
        await trio.lowlevel.wait_task_rescheduled(lambda raise_cancel: None)  # not an Abort

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: print("reported:", context["message"]))
    guest = Guest.current()
    tasks = [guest.start_soon(trio.sleep_forever), guest.start_soon(break_trio)]
    for task in tasks:
        try:
            await task.wait()
        except trio.TrioInternalError as error:
            print("raised:", type(error).__name__)
    await guest.aclose()
    await call_trio(trio.sleep, 0)
    print("again")

warnings.simplefilter("ignore")
asyncio.run(main())
trio.run(trio.sleep, 0)
"""


def test_a_crash() -> None:
    """If trio breaks in the middle of things, whoever waits for a task is told, and the next guest works."""
    # What trio drops then complains when it is collected: in a process of its own.
    result = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "reported: the trio run that is a guest of this loop has crashed",
        "raised: TrioInternalError",
        "raised: TrioInternalError",
        "again",
    ]


ABANDONED = """
import asyncio, sys, trio
from armillary_compat.guest import Guest

async def main():
    Guest.current().start_soon(trio.sleep_forever)
    await asyncio.sleep(0.01)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


def test_a_loop_that_is_never_closed() -> None:
    """A program that never closes its loop ends in silence."""
    result = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
