"""Crossings: asyncio code that awaits trio, and trio code that awaits asyncio.

Results and exceptions cross as they are, cancellations as the other side's own, context variables by copy.
Whoever is cancelled waits until the other side has really ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar, TypeVarTuple

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
    """Run a trio async function in the guest of the running loop, and return its result. From asyncio.

    It begins at once. What it does before it first waits for something is done before anything else of the
    loop runs; a function that never waits costs no turn of the loop.

    If the caller is cancelled, so is the function. When it has ended, CancelledError is raised here, or what
    the function raised while it was being cancelled; what it returned, if it did, is dropped.

    Without another user, a guest is started for this call and ends with it. `Guest.hold` makes many calls
    cheap.

    Raises:
        RuntimeError: another trio run is active in this thread.
    """
    guest = Guest.current()
    task = guest.start_soon(async_fn, *args)
    guest.run_now()
    try:
        return await task.wait()
    finally:
        # This frame is in the traceback of an exception that the task holds: no cycle of the two.
        del task


async def call_asyncio(coroutine_fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Run an asyncio coroutine function as a task of the host loop, and return its result. From trio.

    If the caller is cancelled, so is the task, once. When it has ended as cancelled, trio's Cancelled is
    raised here; a task that takes no notice has its result returned, or its exception raised.

    Raises:
        RuntimeError: the caller is not in a guest.
        asyncio.CancelledError: somebody else cancelled the task.
    """
    loop, driver = _host()
    trio_task = trio.lowlevel.current_task()
    # A loop with eager tasks runs the first step here, and that must not be taken for trio's.
    library, sniffed.name = sniffed.name, None
    try:
        task = loop.create_task(coroutine_fn(*args))
    finally:
        sniffed.name = library
    canceller = _Canceller(task)
    task.add_done_callback(lambda _: driver.wake(trio_task, outcome.Value(None)))
    try:
        await trio.lowlevel.wait_task_rescheduled(canceller.abort)
        if canceller.raise_cancelled is not None and task.cancelled():
            canceller.raise_cancelled()
        return task.result()
    finally:
        del task, canceller  # as above


class _Canceller:
    """Cancels an asyncio task when trio wants to, and keeps what trio wants raised then."""

    __slots__ = ("_task", "raise_cancelled")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.raise_cancelled: Callable[[], NoReturn] | None = None

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self.raise_cancelled = raise_cancel
        # The end of `asyncio.run` may have cancelled it already. Another time would interrupt its cleanup.
        if not self._task.cancelling():
            self._task.cancel()
        return trio.lowlevel.Abort.FAILED


async def wait_future(future: asyncio.Future[T]) -> T:
    """Wait for an asyncio future of the host loop, and return its result. From trio.

    If the caller is cancelled, the future is not: it is somebody else's.

    Raises:
        RuntimeError: the caller is not in a guest.
        asyncio.CancelledError: the future was cancelled.
    """
    _, driver = _host()
    trio_task = trio.lowlevel.current_task()
    await trio.lowlevel.checkpoint_if_cancelled()
    if future.done():
        await trio.lowlevel.cancel_shielded_checkpoint()
        return future.result()

    def wake(_: object) -> None:
        driver.wake(trio_task, outcome.Value(None))

    def abort(raise_cancel: object) -> trio.lowlevel.Abort:
        # If there is nothing to remove, the future is done and the loop is about to call it.
        is_removed = future.remove_done_callback(wake)
        return trio.lowlevel.Abort.SUCCEEDED if is_removed else trio.lowlevel.Abort.FAILED

    future.add_done_callback(wake)
    await trio.lowlevel.wait_task_rescheduled(abort)
    return future.result()


def _host() -> tuple[asyncio.AbstractEventLoop, Driver]:
    """The loop that the running trio task is a guest of."""
    loop = asyncio._get_running_loop()
    run = None if loop is None else GuestRun.of(loop)
    if loop is None or run is None:
        raise RuntimeError("expected to be called from a trio task that is a guest of an asyncio loop")
    return loop, run.driver
