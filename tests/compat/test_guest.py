"""The guest: one run for each loop, its tasks, its clock and its turns."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import selectors
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import async_solipsism
import outcome
import pytest
import trio
import trio.testing

from armillary_compat._tick import HostDriver
from armillary_compat.guest import Guest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.usefixtures("driver")

# The stock driver sleeps in a thread, and so on real time.
only_hosted = pytest.mark.parametrize("driver", ["hosted"], indirect=True)


async def forever() -> None:
    await trio.sleep_forever()


async def settle() -> None:
    """Give the guest time to come to rest."""
    await Guest.current().start_soon(trio.testing.wait_all_tasks_blocked).wait()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with real descriptors that never waits: it puts its clock forward instead."""

    def __init__(self) -> None:
        loop = self
        self.now = 0.0

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                ready = super().select(0)
                if not ready and timeout is not None:
                    loop.now += timeout
                assert ready or timeout is not None, "there is nothing to wait for"
                return ready

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


# -- one run for each loop --------------------------------------------------------------------------------


def test_one_guest(host: Host) -> None:
    """A loop has one guest, in the loop's own thread, and everybody on that loop shares it."""

    async def whereabouts() -> tuple[int, int]:
        return threading.get_ident(), id(trio.lowlevel.current_root_task())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second, third = Guest.current(), Guest.current(), Guest.of(loop)
        assert first is second is third
        assert first.loop is loop
        tasks = [guest.start_soon(whereabouts) for guest in (first, second)]
        found = {await task.wait() for task in tasks}
        assert [thread for thread, _ in found] == [threading.get_ident()]

    host.run(main)


def test_without_a_loop() -> None:
    """Asking for the current guest where no asyncio loop runs is an error, as for the current loop."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        Guest.current()


def test_clock(host: Host) -> None:
    """The guest's clock is the loop's clock."""

    async def sleep_until(when: float) -> None:
        await trio.sleep_until(when)

    async def main() -> None:
        guest = Guest.current()
        loop = asyncio.get_running_loop()
        with guest.hold():
            await settle()
            before = loop.time()
            assert before <= trio.current_time() <= loop.time()
            when = loop.time() + 0.02
            await guest.start_soon(sleep_until, when).wait()
            assert loop.time() >= when - 0.001  # uvloop counts milliseconds

    host.run(main)


@only_hosted
def test_virtual_time() -> None:
    """On a loop with virtual time, trio sleeps on virtual time, and an hour takes none."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest.current()
        with guest.hold():
            sleeps = [guest.start_soon(trio.sleep, seconds) for seconds in (3600, 60, 0.25)]
            await sleeps[2].wait()
            assert loop.time() == 0.25
            await sleeps[1].wait()
            assert loop.time() == 60
            await sleeps[0].wait()
            assert loop.time() == 3600

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())


@only_hosted
def test_virtual_time_and_rounding() -> None:
    """On a clock that stands still, a deadline that is a rounding error away is reached all the same."""

    async def many_sleeps() -> None:
        for number in range(1, 300):
            await trio.sleep(number / 7)
            with trio.move_on_after(number / 11):
                await trio.sleep_forever()

    async def main() -> None:
        await asyncio.sleep(80_000 / 3)
        await Guest.current().start_soon(many_sleeps).wait()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())


@only_hosted
def test_an_idle_guest_schedules_nothing() -> None:
    """An idle guest schedules nothing on its loop."""

    async def main() -> None:
        guest = Guest.current()
        guest.start_soon(forever)
        # Deadlines that came and went leave nothing either.
        await asyncio.wait_for(guest.start_soon(trio.sleep, 1).wait(), 5)
        task = guest.start_soon(trio.sleep, 10)
        await settle()
        task.cancel()
        await settle()
        assert asyncio.get_running_loop().time() == 1
        await asyncio.get_running_loop().create_future()

    loop = async_solipsism.EventLoop()
    main_task = loop.create_task(main())
    with pytest.raises(async_solipsism.SleepForeverError):
        loop.run_forever()
    assert loop.time() == 1
    main_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(main_task)
    loop.close()


@only_hosted
def test_distant_deadlines() -> None:
    """A deadline of many days ahead is kept, and so is one that is moved nearer or further by the host."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest.current()
        with guest.hold():
            await guest.start_soon(trio.sleep, 1_000_000).wait()
            assert loop.time() == 1_000_000
            scope = trio.CancelScope(deadline=loop.time() + 500_000)

            async def in_scope() -> float:
                with scope:
                    await trio.sleep_forever()
                return trio.current_time()

            task = guest.start_soon(in_scope)
            await settle()
            scope.deadline = loop.time() + 900_000
            await asyncio.sleep(600_000)
            assert not task.future.done()
            scope.deadline = loop.time() + 10
            assert await task.wait() == loop.time() == 1_600_010

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


@only_hosted
def test_timers_that_round(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that the loop's timers round off is met with few wake-ups, and never too early."""
    wake_ups = 0
    take_due_turn = HostDriver._take_due_turn

    def count(driver: HostDriver) -> None:
        nonlocal wake_ups
        wake_ups += 1
        take_due_turn(driver)

    async def sleeper() -> None:
        for milliseconds in (1.2, 2.4, 3.6, 4.5):
            start = trio.current_time()
            await trio.sleep(milliseconds / 1000)
            assert trio.current_time() >= start + milliseconds / 1000 - 1e-6

    async def main() -> None:
        await Guest.current().start_soon(sleeper).wait()

    monkeypatch.setattr(HostDriver, "_take_due_turn", count)
    host.run(main)
    assert 1 <= wake_ups <= 12


# -- the synchronous API in the loop's callbacks ----------------------------------------------------------


def test_synchronous_calls(host: Host) -> None:
    """In the loop's callbacks the synchronous parts of trio work: events, scopes, nurseries, the time."""
    event, scope, log = trio.Event(), trio.CancelScope(), list[str]()

    async def wait_event() -> None:
        await event.wait()
        log.append("event")

    async def in_scope() -> None:
        with scope:
            await trio.sleep_forever()
        log.append("scope")

    async def child() -> None:
        log.append("child")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest.current()
        nurseries: list[trio.Nursery] = []

        async def parent() -> None:
            async with trio.open_nursery() as nursery:
                nurseries.append(nursery)
                await event.wait()

        tasks = [guest.start_soon(function) for function in (wait_event, in_scope, parent)]
        await settle()
        loop.call_soon(scope.cancel)
        loop.call_soon(nurseries[0].start_soon, child)
        loop.call_soon(event.set)
        loop.call_soon(trio.current_time)
        for task in tasks:
            await task.wait()

    host.run(main)
    assert sorted(log) == ["child", "event", "scope"]


def test_trio_io(host: Host) -> None:
    """Trio's own sockets, worker threads and processes work in a guest."""

    async def use_everything() -> list[Any]:
        ours, theirs = trio.socket.socketpair()
        with ours, theirs:
            received: list[Any] = []
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def receive() -> None:
                    received.append(await ours.recv(10))

                await trio.testing.wait_all_tasks_blocked()
                await theirs.send(b"bytes")
        received.append(await trio.to_thread.run_sync(trio.from_thread.run_sync, threading.get_ident))
        result = await trio.run_process([sys.executable, "-Ic", "print(6)"], capture_stdout=True)
        received.append(result.stdout.strip())
        return received

    async def main() -> None:
        found = await Guest.current().start_soon(use_everything).wait()
        assert found == [b"bytes", threading.get_ident(), b"6"]

    host.run(main)


@only_hosted
def test_trio_sockets_without_descriptors() -> None:
    """On a loop that knows no file descriptors, a trio socket says so; nothing hangs."""

    async def receive() -> None:
        ours, theirs = trio.socket.socketpair()
        with ours, theirs:
            await ours.recv(1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="streams over the loop's own transports do"):
            await Guest.current().start_soon(receive).wait()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())


@only_hosted
def test_all_tasks_blocked() -> None:
    """What the host wakes meanwhile does not make trio think that all its tasks were blocked in peace."""
    scope = trio.CancelScope()

    async def wait_in_peace() -> float:
        await trio.testing.wait_all_tasks_blocked(cushion=5)
        return trio.current_time()

    async def in_scope() -> None:
        with scope:
            await trio.sleep_forever()

    async def main() -> None:
        guest, loop = Guest.current(), asyncio.get_running_loop()
        guest.start_soon(in_scope)
        await settle()
        task = guest.start_soon(wait_in_peace)
        for number in range(6):
            await asyncio.sleep(2)
            if number % 2:
                scope.deadline = loop.time() + 1000 + number
            else:
                await guest.start_soon(trio.lowlevel.checkpoint).wait()
        disturbed = loop.time()
        assert await task.wait() == loop.time() == disturbed + 5

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


# -- turns ------------------------------------------------------------------------------------------------


def test_run_now(host: Host, driver: str) -> None:
    """`run_now` runs what the caller has just made runnable, before it returns; the stock driver later."""

    async def main() -> None:
        guest, event, log = Guest.current(), trio.Event(), list[str]()

        async def wait() -> None:
            await event.wait()
            log.append("woken")

        async def run_now_inside() -> None:
            Guest.current().end()  # asks for a turn, too
            Guest.current().run_now()
            log.append("inside")

        task = guest.start_soon(wait)
        await settle()
        event.set()
        assert log == []
        guest.run_now()
        assert log == (["woken"] if driver == "hosted" else [])
        guest.run_now()
        await task.wait()
        assert log == ["woken"]
        await guest.start_soon(run_now_inside).wait()
        assert log == ["woken", "inside"]

    host.run(main)


def test_wake(host: Host, driver: str) -> None:
    """`wake` gives a result to a task that waits, and runs it before it returns; the stock driver later."""

    async def main() -> None:
        guest = Guest.current()
        waiting: list[trio.lowlevel.Task] = []

        async def wait() -> Any:
            waiting.append(trio.lowlevel.current_task())
            return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

        with guest.hold():
            for result, expected in [(outcome.Value("value"), "value"), (None, None)]:
                task = guest.start_soon(wait)
                await settle()
                guest.wake(waiting.pop(), result)
                assert task.future.done() == (driver == "hosted")
                assert await task.wait() == expected
            task = guest.start_soon(wait)
            await settle()
            guest.wake(waiting.pop(), outcome.Error(KeyError("x")))
            with pytest.raises(KeyError):
                await task.wait()

    host.run(main)


def test_wake_after_the_end(host: Host) -> None:
    """A guest that has ended wakes the tasks of its successor."""

    async def main() -> None:
        first = Guest.current()
        await first.aclose()
        waiting: list[trio.lowlevel.Task] = []

        async def wait() -> Any:
            waiting.append(trio.lowlevel.current_task())
            return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

        task = first.start_soon(wait)
        await settle()
        first.wake(waiting.pop(), outcome.Value(5))
        assert await task.wait() == 5

    host.run(main)


def test_a_busy_guest_lets_the_host_in(host: Host) -> None:
    """A trio task that never sleeps and an asyncio task that never sleeps take turns."""
    counts = {"trio": 0, "asyncio": 0}

    async def busy() -> None:
        while True:
            counts["trio"] += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        task = Guest.current().start_soon(busy)
        while counts["trio"] < 100:
            counts["asyncio"] += 1
            await asyncio.sleep(0)
        task.cancel()

    host.run(main)
    assert counts["asyncio"] >= 50


# -- tasks ------------------------------------------------------------------------------------------------


def test_a_task_begins_soon(host: Host) -> None:
    """A task begins soon and not now, with its name, and its future has what it returns."""
    log = list[str]()

    async def work(first: int, second: int) -> int:
        log.append(trio.lowlevel.current_task().name)
        return first + second

    async def main() -> None:
        guest = Guest.current()
        task = guest.start_soon(work, 3, 4)
        named = guest.start_soon(work, 1, 2, name="a name")
        assert log == []
        assert isinstance(task.future, asyncio.Future)
        assert await task.future == await task.wait() == 7
        assert await named.wait() == 3

    host.run(main)
    assert sorted(name.rpartition(".")[2] for name in log) == ["a name", "work"]


def test_tasks_started_inside(host: Host) -> None:
    """A trio task can start another one, and so can a callback, at any time."""

    async def inner(number: int) -> int:
        return number

    async def main() -> None:
        guest = Guest.current()

        async def outer() -> list[Any]:
            return [guest.start_soon(inner, 1), guest.start_soon(inner, 2)]

        tasks = await guest.start_soon(outer).wait()
        asyncio.get_running_loop().call_soon(lambda: tasks.append(guest.start_soon(inner, 3)))
        await asyncio.sleep(0)
        assert [await task.wait() for task in tasks] == [1, 2, 3]

    host.run(main)


def test_context(host: Host) -> None:
    """A task gets a copy of the caller's context variables, or of those that it is given."""
    variable = contextvars.ContextVar("variable", default="default")

    async def change() -> str:
        found = variable.get()
        variable.set("changed in a trio task")
        return found

    async def main() -> None:
        variable.set("the caller's")
        given = contextvars.copy_context()
        given.run(variable.set, "given")
        for _ in range(2):  # the first time, the guest's run has not begun
            guest = Guest.current()
            with guest.hold():
                implicit, explicit = guest.start_soon(change), guest.start_soon(change, context=given)
                variable.set("set later")
                assert await implicit.wait() == "the caller's"
                assert await explicit.wait() == "given"
                assert given[variable] == "given"
                assert variable.get() == "set later"
                variable.set("the caller's")

    host.run(main)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        BaseException("not even an Exception"),
        trio.TrioInternalError("x"),
        ExceptionGroup("x", [KeyError("y")]),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_task_raises(host: Host, error: BaseException) -> None:
    """What a task raises goes to its future, and never ends the guest."""

    async def fail() -> None:
        raise error

    async def main() -> None:
        guest = Guest.current()
        bystander = guest.start_soon(forever)
        with pytest.raises(type(error)) as caught:
            await guest.start_soon(fail).wait()
        assert caught.value is error
        await settle()
        assert not bystander.future.done()
        assert Guest.current() is guest

    host.run(main)


def test_an_exception_that_nobody_looks_at(host: Host) -> None:
    """A task's exception that nobody looks at is reported by the loop, as asyncio's are."""
    reported: list[dict[str, Any]] = []

    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        guest = Guest.current()
        with guest.hold():
            guest.start_soon(fail)
            await settle()
            gc.collect()

    host.run(main)
    assert [str(context["exception"]) for context in reported] == ["unseen"]
    assert "never retrieved" in reported[0]["message"]


def test_system_exit(host: Host) -> None:
    """SystemExit in a trio task ends the program, as in an asyncio task."""

    async def leave() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sys.exit, 3)  # type: ignore[arg-type]

    async def exit_now() -> None:
        sys.exit(3)

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exit_now)

    for function in (exit_now, in_a_nursery):

        async def main(function: Any = function) -> None:
            task = Guest.current().start_soon(function)
            with pytest.raises(BaseException):  # noqa: B017, PT011 - asyncio cancels what is left
                await asyncio.sleep(60)
            with pytest.raises((SystemExit, BaseExceptionGroup)):
                task.future.result()

        with pytest.raises(SystemExit) as exit:
            host.run(main)
        assert exit.value.code == 3


def test_cancel(host: Host) -> None:
    """A task that is cancelled has ended when its future is done, and not before; the future is cancelled."""
    log = list[str]()

    async def slow_to_end() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            log.append(str(cancelled))
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)
            log.append("ended")
            raise

    async def main() -> None:
        guest = Guest.current()
        for begin in (settle, lambda: asyncio.sleep(0)):  # cancelled while it waits, and before it begins
            log.clear()
            with guest.hold():
                task = guest.start_soon(slow_to_end)
                await begin()
                task.cancel("for a reason")
                task.cancel()
                assert not task.future.done()
                with pytest.raises(asyncio.CancelledError):
                    await task.wait()
                assert task.future.cancelled()
                assert "for a reason" in log[0]
                assert log[1:] == ["ended"]
            guest = Guest.current()

    host.run(main)


def test_cancelling_the_future(host: Host) -> None:
    """Cancelling a task's future cancels the task; the future tells how the task really ended."""

    async def stubborn() -> str:
        try:
            await trio.sleep_forever()
        finally:
            return "anyway"  # noqa: B012

    async def main() -> None:
        guest = Guest.current()
        with guest.hold():
            for function, expected in ((forever, None), (stubborn, "anyway")):
                task = guest.start_soon(function)
                await settle()
                assert task.future.cancel() is False
                assert not task.future.done()
                await asyncio.wait([task.future])
                assert task.future.cancelled() == (expected is None)
                assert task.future.cancel() is False
                if expected is not None:
                    assert task.future.result() == expected

    host.run(main)


# -- holds ------------------------------------------------------------------------------------------------


def test_holds(host: Host) -> None:
    """A guest lives while somebody holds it or a task runs in it, and ends with its last user."""

    async def main() -> None:
        guest = Guest.current()
        hold = guest.hold()
        hold.release()
        assert Guest.current() is not guest

        guest = Guest.current()
        first, second = guest.hold(), guest.hold()
        first.release()
        first.release()
        assert Guest.current() is guest
        task = guest.start_soon(trio.sleep, 0.01)
        with second:
            pass
        assert Guest.current() is guest
        await task.wait()
        assert Guest.current() is not guest

    host.run(main)


def test_the_successor(host: Host) -> None:
    """A guest that is ending takes no more tasks and no holds: its successor does, at once."""
    log = list[str]()

    async def slow_to_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
                log.append("the first is gone")

    async def main() -> None:
        first = Guest.current()
        task = first.start_soon(slow_to_end)
        await settle()
        first.end()
        await settle()
        assert await first.start_soon(trio.sleep, 0, name="through the first").wait() is None
        with first.hold():
            second = Guest.current()
            assert second is not first
            await second.start_soon(trio.sleep, 0).wait()
            log.append("the second is there")
            with pytest.raises(asyncio.CancelledError):
                await task.wait()
            assert Guest.current() is second

    host.run(main)
    assert log == ["the second is there", "the first is gone"]


def test_aclose(host: Host) -> None:
    """`aclose` cancels everything in a guest and waits for its end; then the thread has no trio run."""

    async def main() -> None:
        guest = Guest.current()
        task = guest.start_soon(forever)
        await settle()
        assert trio.lowlevel.in_trio_run()
        await guest.aclose()
        assert task.future.cancelled()
        assert not trio.lowlevel.in_trio_run()
        await guest.aclose()
        with pytest.raises(RuntimeError, match="must be called from async context"):
            trio.current_time()
        assert math.isfinite(await Guest.current().start_soon(time_of).wait())

    async def time_of() -> float:
        return trio.current_time()

    host.run(main)


def test_a_cancelled_aclose(host: Host) -> None:
    """A cancelled `aclose` stops waiting; the guest goes on ending."""
    log, may_end = list[str](), trio.Event()

    async def slow_to_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await may_end.wait()
                log.append("ended")

    async def main() -> None:
        guest = Guest.current()
        task = guest.start_soon(slow_to_end)
        await settle()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(guest.aclose(), 0.01)
        assert log == []
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task.wait()
        assert log == ["ended"]

    host.run(main)


def test_the_bridge_needs_no_facade() -> None:
    """Importing the bridge imports no façade and no event loop but asyncio's."""
    code = "import sys, armillary_compat.futures; print({'aiokatcp', 'uvloop', 'anyio'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output == "set()\n"
