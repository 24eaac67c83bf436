from __future__ import annotations

import gc
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
import trio
import trio.testing

from armillary._runtime.in_place import resume

variable: ContextVar[str] = ContextVar("variable", default="unset")

Function = Callable[[list[object]], Coroutine[Any, Any, object]]


async def as_a_task(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine as trio does, in a task of its own."""
    results: list[object] = []
    errors: list[Exception] = []

    async def task() -> None:
        try:
            results.append(await coroutine)
        except Exception as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
    if errors:
        raise errors[0]
    return results[0]


async def in_place(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine in this task, as a session runs a handler."""
    context = copy_context()
    try:
        trap = context.run(coroutine.send, None)
    except StopIteration as finished:
        return finished.value
    return await resume(coroutine, trap, context)


# -- what handlers do ----------------------------------------------------------------------------------------


async def sleep_and_return(log: list[object]) -> object:
    """Suspends several times and returns a value."""
    for number in range(3):
        await trio.sleep(1)
        log.append((number, trio.current_time()))
    return "slept"


async def never_suspend(log: list[object]) -> object:
    """Returns without waiting for anything."""
    log.append("ran")
    return "at once"


async def fail_after_a_while(log: list[object]) -> object:
    """Raises after it suspended."""
    await trio.sleep(1)
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


async def fail_at_once(log: list[object]) -> object:
    """Raises before it suspends."""
    raise ValueError("at once")


async def raise_stop_iteration(log: list[object]) -> object:
    """Raises what ends a coroutine from within."""
    await trio.sleep(1)
    raise StopIteration("a value")


async def clean_up_when_cancelled(log: list[object]) -> object:
    """Is cancelled by its caller and tidies up behind a shield."""
    try:
        await trio.sleep(100)
    except trio.Cancelled:
        log.append(("cancelled at", trio.current_time()))
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise
    finally:
        log.append(("left at", trio.current_time()))
    return "not cancelled"


async def turn_cancellation_into_an_error(log: list[object]) -> object:
    """Is cancelled by its caller and fails while it tidies up."""
    try:
        await trio.sleep(100)
    finally:
        raise ValueError("while cancelled")


async def swallow_the_cancellation(log: list[object]) -> object:
    """Is cancelled by its caller and returns a value all the same."""
    try:
        await trio.sleep(100)
    except trio.Cancelled:
        log.append("swallowed")
    return "finished all the same"


async def use_scopes(log: list[object]) -> object:
    """Has time-outs of its own, one inside the other."""
    with trio.move_on_after(5) as outer:
        with trio.move_on_after(2) as inner:
            await trio.sleep(10)
        log.append((inner.cancelled_caught, trio.current_time()))
        await trio.sleep(10)
    log.append((outer.cancelled_caught, trio.current_time()))
    try:
        with trio.fail_after(1):
            await trio.sleep(2)
    except trio.TooSlowError:
        log.append("too slow")
    return trio.current_effective_deadline()


async def use_nurseries(log: list[object]) -> object:
    """Runs tasks of its own, and ends one of them."""

    async def child(seconds: float) -> None:
        await trio.sleep(seconds)
        log.append((seconds, variable.get()))

    variable.set("for the children")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child, 1)
        nursery.start_soon(child, 2)
        nursery.start_soon(child, 100)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    return "joined"


async def fail_in_a_nursery(log: list[object]) -> object:
    """Gets the exceptions of its tasks as a group."""

    async def child() -> None:
        await trio.sleep(1)
        raise ValueError("of a child")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child)
        await trio.sleep(10)
    return "not reached"


async def use_channels(log: list[object]) -> object:
    """Waits for what another task sends."""
    send, receive = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, "over a channel")
        log.append(await receive.receive())
    return "received"


async def use_async_generators(log: list[object]) -> object:
    """Iterates over an async generator, and uses another one as a context manager."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await trio.sleep(1)
            yield number

    @asynccontextmanager
    async def block() -> AsyncIterator[str]:
        await trio.sleep(1)
        try:
            yield "inside"
        finally:
            await trio.sleep(1)
            log.append("left")

    async with block() as text:
        log.append(text)
        log.extend([number async for number in numbers()])
    return "iterated"


async def set_variables(log: list[object]) -> object:
    """Sees the variables of its caller and, after every wait, what it set itself."""
    log.append(variable.get())
    for number in range(3):
        variable.set(f"set {number}")
        await trio.sleep(1)
        log.append(variable.get())
    return variable.get()


@types.coroutine
def _foreign() -> Generator[str, None, None]:
    yield "a message of another async library"


async def await_something_foreign(log: list[object]) -> object:
    """Waits for what trio does not know, and is told so where it waits."""
    await trio.sleep(1)
    try:
        await _foreign()
    except TypeError as error:
        log.append(str(error))
    await trio.sleep(1)
    return "told"


everything = [
    sleep_and_return,
    never_suspend,
    fail_after_a_while,
    fail_at_once,
    raise_stop_iteration,
    clean_up_when_cancelled,
    turn_cancellation_into_an_error,
    swallow_the_cancellation,
    use_scopes,
    use_nurseries,
    fail_in_a_nursery,
    use_channels,
    use_async_generators,
    set_variables,
    await_something_foreign,
]


def described(error: BaseException | None) -> object:
    """An exception with all that it holds and is chained to."""
    if error is None:
        return None
    inside = (
        [described(member) for member in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    )
    return type(error), str(error), described(error.__cause__), inside


async def outcome(
    run: Callable[[Coroutine[Any, Any, object]], Awaitable[object]], function: Function
) -> list[object]:
    """All that can be seen of one run: what it logged, how it ended, and when."""
    log: list[object] = []
    start = trio.current_time()
    result: object = "cancelled"
    variable.set("of the caller")
    with trio.CancelScope(deadline=start + 50) as scope:
        try:
            result = await run(function(log))
        except Exception as error:
            result = described(error)
    took = trio.current_time() - start
    shifted = [
        tuple(part - start if isinstance(part, float) and part > start else part for part in entry)
        if isinstance(entry, tuple)
        else entry
        for entry in log
    ]
    deadline = "deadline" if result == scope.deadline else result
    return [shifted, deadline, took, scope.cancelled_caught, variable.get()]


@pytest.mark.parametrize("function", everything)
async def test_a_coroutine_finished_in_place_does_what_it_does_as_a_task(
    function: Function, autojump_clock: trio.testing.MockClock
) -> None:
    """Waiting, failing, being cancelled, scopes, nurseries and variables: all as in a task of its own."""
    assert await outcome(as_a_task, function) == await outcome(in_place, function)


async def test_the_comparison_can_tell_runs_apart(autojump_clock: trio.testing.MockClock) -> None:
    """The outcomes that are compared hold what each coroutine did, so that equal ones mean something."""
    outcomes = [await outcome(in_place, function) for function in everything]
    assert len(everything) == len({repr(seen) for seen in outcomes})
    cancelled = everything.index(clean_up_when_cancelled)
    assert [[("cancelled at", 50), ("left at", 51)], "cancelled", 51, True, "of the caller"] == outcomes[
        cancelled
    ]
    assert "finished all the same" == outcomes[everything.index(swallow_the_cancellation)][1]


async def test_threads_see_the_variables_of_the_coroutine() -> None:
    """A thread that a coroutine waits for has the coroutine's own variables, set before and after waits."""

    async def handler() -> list[str]:
        seen = []
        for text in ("first", "second"):
            variable.set(text)
            seen.append(await trio.to_thread.run_sync(variable.get))
        return seen

    assert ["first", "second"] == await in_place(handler())
    assert "unset" == variable.get()


async def test_the_task_is_the_one_that_started_the_coroutine() -> None:
    """Before and after its waits the coroutine runs in the task of who resumed it."""
    tasks = []

    async def handler() -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()
        tasks.append(trio.lowlevel.current_task())

    await in_place(handler())
    assert [trio.lowlevel.current_task()] * 2 == tasks


def test_closing_the_outer_coroutine_closes_the_inner_one() -> None:
    """A task that is thrown away takes along the coroutine that it was finishing."""
    closed = False

    async def handler() -> None:
        nonlocal closed
        try:
            await _foreign()
        finally:
            closed = True

    outer = in_place(handler())
    outer.send(None)
    assert not closed
    outer.close()
    assert closed


async def test_scopes_are_in_order_again_afterwards(autojump_clock: trio.testing.MockClock) -> None:
    """After a coroutine was finished in place, whether it failed or not, its task's scopes work as before."""
    with trio.move_on_after(10) as scope:
        for function in (use_scopes, use_nurseries, fail_in_a_nursery):
            try:
                await in_place(function([]))
            except* ValueError:
                pass
        assert 5 + 1 + 3 + 1 == trio.current_time()
        await trio.sleep_forever()
    assert 10 == trio.current_time()
    assert scope.cancelled_caught


async def test_a_cancelled_coroutine_leaves_no_garbage() -> None:
    """What a cancellation leaves is freed at once: thousands of requests may be cancelled in a second."""

    async def handler() -> None:
        await trio.sleep_forever()

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await in_place(handler())

    await cancelled()
    gc.collect()
    gc.disable()
    found = []
    try:
        for _ in range(5):
            await cancelled()
            found.append(gc.collect())
    finally:
        gc.enable()
    # Threads of whoever runs the tests make some now and then, but not every time.
    assert min(found) == 0
