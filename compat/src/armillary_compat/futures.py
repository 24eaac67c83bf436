"""Crossings: asyncio code that awaits trio, and trio code that awaits asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio
from sniffio import thread_local as sniffed

from ._run import GuestRun
from ._tick import Driver
from .guest import Guest

__all__ = ["call_asyncio", "call_trio", "wait_future"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def call_trio(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a trio async function in the guest of the running asyncio loop; return its result. From asyncio."""
    guest = Guest.current()
    task = guest.start_soon(async_fn, *args)
    guest.run_now()
    return await task.wait()


async def call_asyncio(coroutine_fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Run an asyncio coroutine function as a task of the host loop; return its result. From trio."""
    loop = asyncio.get_running_loop()
    driver, trio_task = _driver(loop), trio.lowlevel.current_task()
    # A loop with eager tasks runs the first step here, and that must not be taken for trio's.
    library, sniffed.name = sniffed.name, None
    try:
        task = loop.create_task(coroutine_fn(*args))
    finally:
        sniffed.name = library
    raise_cancelled: Callable[[], Any] | None = None

    def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal raise_cancelled
        raise_cancelled = raise_cancel
        if not task.cancelling():
            task.cancel()
        return trio.lowlevel.Abort.FAILED

    task.add_done_callback(lambda _: driver.wake(trio_task, outcome.Value(None)))
    await trio.lowlevel.wait_task_rescheduled(abort)
    if task.cancelled() and raise_cancelled is not None:
        raise_cancelled()
    return task.result()


async def wait_future(future: asyncio.Future[T]) -> T:
    """Wait for an asyncio future without owning it; return its result. From trio.

    Cancelling the caller does not cancel the future.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    if future.done():
        await trio.lowlevel.cancel_shielded_checkpoint()
        return future.result()
    driver, trio_task = _driver(future.get_loop()), trio.lowlevel.current_task()

    def done(_: object) -> None:
        driver.wake(trio_task, outcome.Value(None))

    def abort(raise_cancel: object) -> trio.lowlevel.Abort:
        # If there is nothing to remove, the future is done and the loop has the callback queued.
        is_removed = future.remove_done_callback(done)
        return trio.lowlevel.Abort.SUCCEEDED if is_removed else trio.lowlevel.Abort.FAILED

    future.add_done_callback(done)
    await trio.lowlevel.wait_task_rescheduled(abort)
    return future.result()


def _driver(loop: asyncio.AbstractEventLoop) -> Driver:
    run = GuestRun.of(loop)
    assert run is not None, "expected to be called from a trio task of the loop's guest"
    return run.driver
