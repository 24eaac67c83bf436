"""Crossings between asyncio and trio: results, exceptions, cancellations, context variables."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import sniffio
import trio
import trio.testing

from armillary_compat.futures import call_asyncio, call_trio, wait_future
from armillary_compat.guest import Guest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.usefixtures("driver")


async def settle() -> None:
    """Let the guest come to rest."""
    await call_trio(trio.testing.wait_all_tasks_blocked)


class TrioSide:
    """A trio function that waits, cleans up at leisure, and tells what it saw."""

    def __init__(self, then: Callable[[], Any] | None = None) -> None:
        self.log = list[str]()
        self.then = then
        self.ended = asyncio.Event()

    async def run(self) -> Any:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.log.append("cancelled")
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)
            self.log.append("ended")
            self.ended.set()
            if self.then is None:
                raise
            return self.then()


class AsyncioSide:
    """The same for an asyncio coroutine function."""

    def __init__(self, then: Callable[[], Any] | None = None) -> None:
        self.log = list[str]()
        self.then = then
        self.task: asyncio.Task[Any] | None = None
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def run(self) -> Any:
        self.task = asyncio.current_task()
        self.begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            await asyncio.sleep(0.02)
            await self.may_end.wait()
            self.log.append("ended")
            if self.then is None:
                raise
            return self.then()


def throw(error: BaseException) -> Any:
    raise error


# -- results and exceptions -------------------------------------------------------------------------------


def test_results(host: Host) -> None:
    """Arguments and results cross both ways."""

    async def on_asyncio(first: int, second: int) -> int:
        await asyncio.sleep(0)
        return first - second

    async def on_trio(first: int, second: int) -> int:
        await trio.lowlevel.checkpoint()
        return await call_asyncio(on_asyncio, first, second)

    async def main() -> None:
        assert await call_trio(on_trio, 9, 4) == 5
        with Guest.current().hold():
            calls = [call_trio(on_trio, number, 1) for number in range(100)]
            assert await asyncio.gather(*calls) == [number - 1 for number in range(100)]

    host.run(main)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), ExceptionGroup("x", [KeyError("y")]), BaseException("z"), StopAsyncIteration()],
    ids=lambda error: type(error).__name__,
)
def test_exceptions(host: Host, error: BaseException) -> None:
    """Exceptions cross both ways as they are."""

    async def on_asyncio() -> None:
        raise error

    async def on_trio() -> None:
        with pytest.raises(type(error)) as caught:
            await call_asyncio(on_asyncio)
        assert caught.value is error
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await call_trio(on_trio)
        assert caught.value is error

    host.run(main)


def test_no_garbage(host: Host) -> None:
    """Exceptions and cancellations that cross leave nothing to the garbage collector."""

    async def on_asyncio() -> None:
        raise KeyError

    async def on_trio() -> None:
        await call_asyncio(on_asyncio)

    async def in_a_scope() -> None:
        with trio.move_on_after(0.0001):
            await call_asyncio(asyncio.sleep, 60)

    async def several() -> None:
        for _ in range(5):
            with contextlib.suppress(KeyError):
                await call_trio(on_trio)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call_trio(trio.sleep, 60), 0.0001)
            await call_trio(in_a_scope)

    async def main() -> None:
        with Guest.current().hold():
            await several()
            gc.collect()
            gc.disable()
            try:
                await several()
                assert gc.collect() == 0
            finally:
                gc.enable()

    with asyncio.Runner(loop_factory=host.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("driver", ["hosted"], indirect=True)
def test_a_function_that_does_not_wait(host: Host) -> None:
    """A trio function that does not wait for anything costs no turn of the loop."""
    log = list[str]()

    async def on_trio() -> None:
        log.append("trio")

    async def main() -> None:
        with Guest.current().hold():
            await settle()
            asyncio.get_running_loop().call_soon(log.append, "next turn")
            for _ in range(3):
                await call_trio(on_trio)
        await asyncio.sleep(0)

    host.run(main)
    assert log == ["trio", "trio", "trio", "next turn"]


def test_outside_of_a_guest(host: Host) -> None:
    """Trio code that is no guest, and asyncio code without a guest, are told what was expected."""
    expected = "expected to be called from a trio task that is a guest of an asyncio loop"

    async def on_trio() -> None:
        with pytest.raises(RuntimeError, match=expected):
            await call_asyncio(asyncio.sleep, 0)

    async def on_asyncio() -> None:
        with pytest.raises(RuntimeError, match=expected):
            await wait_future(asyncio.get_running_loop().create_future())

    trio.run(on_trio)
    host.run(on_asyncio)


# -- asyncio cancels trio ---------------------------------------------------------------------------------


async def by_cancel(call: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.create_task(call)
    await settle()
    task.cancel()
    return await task


async def by_cancelling_twice(call: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.create_task(call)
    await settle()
    task.cancel()
    await asyncio.sleep(0.005)
    task.cancel()
    return await task


async def by_wait_for(call: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.wait_for(call, 0.01)


async def by_timeout(call: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(0.01):
        return await call


async def by_gather(call: Coroutine[Any, Any, Any]) -> Any:
    gathered = asyncio.gather(call, asyncio.sleep(3600))
    await settle()
    gathered.cancel()
    return await gathered


async def by_task_group(call: Coroutine[Any, Any, Any]) -> Any:
    async def fail() -> None:
        await settle()
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
            group.create_task(fail())
    except* LookupError:
        pass
    return await task


async def by_itself(call: Coroutine[Any, Any, Any]) -> Any:
    """Cancelled before it waits: the call's first wait is the first to hear of it."""

    async def run() -> Any:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        return await call

    return await asyncio.create_task(run())


ways = pytest.mark.parametrize(
    "way", [by_cancel, by_cancelling_twice, by_wait_for, by_timeout, by_gather, by_task_group, by_itself]
)


@ways
def test_cancelling_the_caller(host: Host, way: Any) -> None:
    """Cancelling who awaits a trio function cancels it, waits for its real end, and raises CancelledError."""
    side = TrioSide()

    async def main() -> None:
        hold = Guest.current().hold()
        with pytest.raises((asyncio.CancelledError, TimeoutError)) as caught:
            await way(call_trio(side.run))
        if way is by_gather:  # does not wait for its children, whatever they are
            await side.ended.wait()
        assert side.log == ["cancelled", "ended"]
        assert isinstance(caught.value, TimeoutError) == (way in (by_wait_for, by_timeout))
        hold.release()

    host.run(main)


@ways
def test_a_trio_function_that_takes_no_notice(host: Host, way: Any) -> None:
    """A trio function that returns a value although it was cancelled does not swallow the cancellation."""
    side = TrioSide(lambda: "a value")

    async def main() -> None:
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await way(call_trio(side.run))

    host.run(main)
    assert side.log == ["cancelled", "ended"]


@pytest.mark.parametrize("way", [by_cancel, by_cancelling_twice, by_timeout, by_itself])
def test_a_trio_function_whose_cleanup_fails(host: Host, way: Any) -> None:
    """What a trio function raises while it is being cancelled is raised instead of the CancelledError."""
    error = KeyError("in the cleanup")
    side = TrioSide(lambda: throw(error))

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            await way(call_trio(side.run))
        assert caught.value is error

    host.run(main)


# -- trio cancels asyncio ---------------------------------------------------------------------------------


def test_a_scope_around_asyncio(host: Host) -> None:
    """Cancelling the scope around an asyncio coroutine cancels its task and waits for its real end."""

    async def on_trio() -> None:
        side = AsyncioSide()
        with trio.move_on_after(0.01) as scope:
            await call_asyncio(side.run)
        assert side.log == ["cancelled", "ended"]
        assert scope.cancelled_caught
        assert side.task is not None
        assert side.task.cancelled()

        side = AsyncioSide()
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.01):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call_asyncio, side.run)
                    nursery.start_soon(call_asyncio, AsyncioSide().run)
        assert side.log == ["cancelled", "ended"]

    async def main() -> None:
        await call_trio(on_trio)

    host.run(main)


def test_a_coroutine_that_takes_no_notice(host: Host) -> None:
    """A coroutine that returns a value although it was cancelled has its value returned to trio."""

    async def on_trio() -> None:
        with trio.move_on_after(0.01) as scope:
            assert await call_asyncio(AsyncioSide(lambda: 42).run) == 42
        assert scope.cancel_called
        assert not scope.cancelled_caught

    async def main() -> None:
        await call_trio(on_trio)

    host.run(main)


def test_a_coroutine_whose_cleanup_fails(host: Host) -> None:
    """What a coroutine raises while it is being cancelled is raised in trio."""
    error = KeyError("in the cleanup")

    async def on_trio() -> None:
        with pytest.raises(KeyError) as caught:
            with trio.move_on_after(0.01):
                await call_asyncio(AsyncioSide(lambda: throw(error)).run)
        assert caught.value is error

    async def main() -> None:
        await call_trio(on_trio)

    host.run(main)


def test_cancelled_before_it_began(host: Host) -> None:
    """In a scope that is cancelled already, an asyncio coroutine does not begin."""
    side = AsyncioSide()

    async def on_trio() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await call_asyncio(side.run)
        assert scope.cancelled_caught

    async def main() -> None:
        await call_trio(on_trio)

    host.run(main)
    assert side.task is None


def test_cancelled_only_once(host: Host) -> None:
    """A task that asyncio has cancelled is not cancelled again by trio: its cleanup runs to its end."""
    side = AsyncioSide()

    async def on_trio() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_asyncio, side.run)
                await call_asyncio(side.begun.wait)
                side.may_end.clear()
                assert side.task is not None
                side.task.cancel()
                await trio.sleep(0.005)
                assert side.log == ["cancelled"]
                scope.cancel()
                asyncio.get_running_loop().call_later(0.01, side.may_end.set)
        assert scope.cancelled_caught

    async def main() -> None:
        await call_trio(on_trio)

    host.run(main)
    assert side.log == ["cancelled", "ended"]


def test_a_third_party(host: Host) -> None:
    """If somebody else cancels the asyncio task, trio sees asyncio's CancelledError, and its caller too."""
    side = AsyncioSide()

    async def on_trio() -> None:
        try:
            await call_asyncio(side.run)
        except asyncio.CancelledError:
            side.log.append("trio saw it")
            raise

    async def main() -> None:
        guest = Guest.current()
        with guest.hold():
            task = guest.start_soon(on_trio)
            await side.begun.wait()
            assert side.task is not None
            side.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task.wait()
            assert task.future.cancelled()
            assert Guest.current() is guest

    host.run(main)
    assert side.log == ["cancelled", "ended", "trio saw it"]


def test_done_and_cancelled_at_once(host: Host) -> None:
    """A result that was there before the cancellation is kept."""

    async def main() -> None:
        guest = Guest.current()
        release = asyncio.Event()
        scope = trio.CancelScope()

        async def on_asyncio() -> str:
            await release.wait()
            # The task ends now; its callbacks come after this one.
            asyncio.get_running_loop().call_soon(scope.cancel)
            return "kept"

        async def on_trio() -> str:
            with scope:
                return await call_asyncio(on_asyncio)

        with guest.hold():
            task = guest.start_soon(on_trio)
            await settle()
            release.set()
            assert await task.wait() == "kept"

    host.run(main)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_cancellation_crosses_many_times(host: Host, depth: int) -> None:
    """A cancellation goes through any number of crossings, and each side cleans up, innermost first."""
    log = list[int]()

    async def on_asyncio(level: int) -> None:
        try:
            await call_trio(on_trio, level)
        finally:
            await asyncio.sleep(0.001)
            log.append(level)

    async def on_trio(level: int) -> None:
        try:
            if level < depth:
                await call_asyncio(on_asyncio, level + 1)
            else:
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.001)
            log.append(-level)

    async def main() -> None:
        task = asyncio.create_task(on_asyncio(0))
        await settle()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    host.run(main)
    assert log == [sign * level for level in range(depth, -1, -1) for sign in (-1, 1)]


# -- futures of somebody else -----------------------------------------------------------------------------


def test_wait_future(host: Host) -> None:
    """`wait_future` gives the future's result or exception, before or after it is done."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest.current()
        with guest.hold():
            for is_done_before in (True, False):
                futures: list[asyncio.Future[str]] = [loop.create_future() for _ in range(3)]

                def complete(futures: list[asyncio.Future[str]] = futures) -> None:
                    futures[0].set_result("result")
                    futures[1].set_exception(KeyError("x"))
                    futures[2].cancel()

                if is_done_before:
                    complete()
                tasks = [guest.start_soon(wait_future, future) for future in futures]
                if not is_done_before:
                    await settle()
                    complete()
                assert await tasks[0].wait() == "result"
                with pytest.raises(KeyError):
                    await tasks[1].wait()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[2].wait()

    host.run(main)


def test_wait_future_cancelled(host: Host) -> None:
    """Cancelling who waits for a future leaves the future alone, even if it is done at that moment."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest.current()
        with guest.hold():
            future: asyncio.Future[str] = loop.create_future()
            task = guest.start_soon(wait_future, future)
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task.wait()
            assert not future.done()

            task = guest.start_soon(wait_future, future)
            await settle()
            future.set_result("kept")  # its callbacks are queued by now
            task.cancel()
            assert await task.wait() == "kept"

            cancelled = guest.start_soon(wait_future, future)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled.wait()

    host.run(main)


# -- what code can tell about where it runs ---------------------------------------------------------------


def test_context_variables(host: Host) -> None:
    """Context variables cross both ways, by copy: nobody sees what the other side changes."""
    variable = contextvars.ContextVar("variable", default="default")

    async def on_asyncio() -> str:
        found = variable.get()
        variable.set("from asyncio, again")
        return found

    async def on_trio() -> list[str]:
        found = [variable.get()]
        variable.set("from trio")
        found.append(await call_asyncio(on_asyncio))
        return [*found, variable.get()]

    async def main() -> None:
        variable.set("from asyncio")
        for _ in range(2):
            assert await call_trio(on_trio) == ["from asyncio", "from trio", "from trio"]
            assert variable.get() == "from asyncio"

    host.run(main)


def test_detection(host: Host) -> None:
    """Libraries recognise asyncio in asyncio code and trio in trio code, before and after each crossing."""

    async def on_asyncio() -> list[str]:
        await anyio.lowlevel.checkpoint()
        return [sniffio.current_async_library()]

    async def on_trio() -> list[str]:
        found = [sniffio.current_async_library(), *await call_asyncio(on_asyncio)]
        await anyio.sleep(0.001)
        return [*found, sniffio.current_async_library()]

    def in_a_callback(seen: list[str | None]) -> None:
        seen.append(sniffio.thread_local.name)

    async def main() -> None:
        seen: list[str | None] = []
        assert sniffio.current_async_library() == "asyncio"
        for _ in range(2):
            asyncio.get_running_loop().call_soon(in_a_callback, seen)
            assert await call_trio(on_trio) == ["trio", "asyncio", "trio"]
            assert sniffio.current_async_library() == "asyncio"
            await anyio.sleep(0.001)
        assert seen == [None, None]

    host.run(main)


def test_what_works_in_a_coroutine(host: Host) -> None:
    """In a coroutine that trio awaits, the current task, time-outs and task groups of asyncio work."""

    async def on_asyncio() -> str:
        assert asyncio.current_task() in asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call_trio(trio.sleep, 0.001)) for _ in range(3)]
        assert [task.result() for task in tasks] == [None] * 3
        return "worked"

    async def on_trio() -> str:
        with trio.fail_after(60):
            assert math.isfinite(trio.current_effective_deadline())
            return await call_asyncio(on_asyncio)

    async def main() -> None:
        assert await call_trio(on_trio) == "worked"

    host.run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_eager_tasks() -> None:
    """On a loop with eager tasks, a coroutine's first step is recognised as asyncio's, too."""

    async def on_asyncio() -> tuple[str, bool]:
        task = asyncio.current_task()
        return sniffio.current_async_library(), task is not None

    async def on_trio() -> tuple[str, bool]:
        return await call_asyncio(on_asyncio)

    async def main() -> None:
        # uvloop has no eager tasks.
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        assert await call_trio(on_trio) == ("asyncio", True)
        with Guest.current().hold():
            assert await call_trio(on_trio) == ("asyncio", True)

    asyncio.run(main(), debug=True)
