"""Trio as the guest of an asyncio loop: one run for each loop, in the loop's thread, on the loop's clock.

Code of the host side starts trio tasks with `Guest.start_soon`; the synchronous parts of trio's API work in
the loop's callbacks while the guest runs. The two sides of one call are in `armillary_compat.futures`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import outcome
import trio

from ._errors import leaves, without_cancellation
from ._run import GuestRun
from ._tick import Driver

__all__ = ["Guest", "GuestTask", "Hold"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Guest:
    """A trio run on an asyncio loop, as its users see it. Get it by `current` or `of`.

    It ends when its last user has gone: `hold` makes one, and each task of `start_soon` is one while it runs.
    It also ends, with its tasks cancelled and their cleanup awaited, when `asyncio.run` ends or when the loop
    is closed. Use it in the loop's thread only.
    """

    def __init__(self, run: GuestRun) -> None:
        self.loop = run.loop
        self._run = run
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._unstarted: list[tuple[Context, Callable[[], object]]] = []
        self._tasks: set[GuestTask[Any]] = set()
        self._users = 0
        self._is_ending = False
        self._ended = _Ended(self)
        run.move_in(self)

    @classmethod
    def current(cls) -> Guest:
        """The guest of the running asyncio loop; started if there is none, or if it is ending.

        Raises:
            RuntimeError: no asyncio loop is running; or another trio run is active in this thread.
        """
        return cls.of(asyncio.get_running_loop())

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Guest:
        """The guest of `loop`, as `current`. If the loop is not running, the guest starts when it does.

        Raises:
            RuntimeError: the loop runs in another thread; or another trio run is active in this one.
        """
        run = GuestRun.of(loop)
        if run is None or run.is_ending:
            return cls(GuestRun(loop))
        run.activate()
        newest: Guest = run.newest
        return cls(run) if newest._is_ending else newest

    def hold(self) -> Hold:
        """Keep the guest running until the hold is released."""
        guest = self._open()
        guest._users += 1
        return Hold(guest)

    def start_soon(
        self,
        async_fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        context: Context | None = None,
    ) -> GuestTask[T]:
        """Start a trio task. It begins soon, not now.

        Args:
            async_fn: a trio async function.
            args: its arguments.
            name: the task's name; by default the function's.
            context: the task gets a copy of these context variables; by default of the caller's.

        Raises:
            RuntimeError: another trio run is active in this thread, and so a new guest cannot start.

        What the task raises goes to its future, and never ends the guest. A guest that is ending takes no
        more tasks: this one is started in its successor.
        """
        guest = self._open()
        task: GuestTask[T] = GuestTask(guest)
        guest._users += 1
        guest._tasks.add(task)
        nursery = guest._nursery
        if nursery is not None and context is None:
            nursery.start_soon(task._run, async_fn, args, name=name or async_fn)
        else:

            def start() -> None:
                assert guest._nursery is not None
                guest._nursery.start_soon(task._run, async_fn, args, name=name or async_fn)

            context = copy_context() if context is None else context
            if nursery is None:
                guest._unstarted.append((context, start))
            else:
                context.run(start)
        return task

    def run_now(self) -> None:
        """Run the trio tasks that the caller has just made runnable, before this returns.

        Without it they run at the loop's next turn. It does nothing inside a trio task, and with the stock
        driver. May raise KeyboardInterrupt or SystemExit, as any code of a loop may.
        """
        self._driver().run_now()

    def wake(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any] | None = None) -> None:
        """As `trio.lowlevel.reschedule` and then `run_now`, for less.

        Args:
            task: it waits in `trio.lowlevel.wait_task_rescheduled`.
            result: what that returns or raises; by default it returns None.
        """
        self._driver().wake(task, outcome.Value(None) if result is None else result)

    async def aclose(self) -> None:
        """Cancel everything in the guest and wait until it has ended, with all cleanup.

        Called from asyncio. If cancelled, the guest goes on ending.
        """
        self.end()
        await asyncio.shield(self._ended)

    def end(self) -> None:
        """Cancel everything in the guest. It takes no more tasks; its cleanup goes on after this returns."""
        if self._ended.done():
            return
        if not self._is_ending:
            self._is_ending = True
            self._run.activate()
            self._scope.cancel(reason="the guest of the asyncio loop was told to end")
        self._run.driver.poke()

    # -- the run's tenant ---------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def live(self) -> None:
        """The task that holds all others. Called by the run."""
        self._run.add_owner(self.loop.create_task(self._own(), name="the owner of the trio guest"))
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                for context, start in self._unstarted:
                    context.run(start)
                self._unstarted.clear()
                await trio.sleep_forever()

    def gone(self, error: BaseException | None) -> None:
        """Nothing runs any more. Called by the run."""
        self._is_ending = True
        for task in list(self._tasks):
            task._fail(error or RuntimeError("the guest ended without this task"))
        self._tasks.clear()
        self._unstarted.clear()
        self._ended.complete()

    async def _own(self) -> None:
        """Belongs to the loop's tasks: cancelled with them, and not finished before the guest is."""
        await self._ended

    def _open(self) -> Guest:
        """This guest, or its successor if it is ending."""
        if self._is_ending:
            return Guest.of(self.loop)
        self._run.activate()
        return self

    def _driver(self) -> Driver:
        """Of the run that this guest's tasks, or its successor's, are in."""
        run = GuestRun.of(self.loop) if self._run.is_done else None
        return (run or self._run).driver

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self.end()


class Hold:
    """A user of a guest, until it is released. Also a ``with`` block."""

    __slots__ = ("_guest",)

    def __init__(self, guest: Guest) -> None:
        self._guest: Guest | None = guest

    def release(self) -> None:
        """Be a user no more. The guest ends with its last user. Releasing twice does nothing."""
        guest, self._guest = self._guest, None
        if guest is not None:
            guest._leave()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class GuestTask(Generic[T]):
    """A trio task, as the host side sees it."""

    __slots__ = ("_guest", "_scope", "future")

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._scope = trio.CancelScope()
        self.future: asyncio.Future[T] = _TaskFuture(self._scope, loop=guest.loop)
        """The task's end: done when the task has really ended, and not before.

        Cancelling it cancels the trio task, and returns False since it is not cancelled by that alone.
        """

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the trio task. It ends when its cleanup is done, and its future with it."""
        self._guest._run.activate()
        self._scope.cancel(reason=reason)

    async def wait(self) -> T:
        """The task's result.

        Cancelling the caller cancels the task and waits for its real end. Then CancelledError is raised, or
        what the task raised while it was being cancelled.
        """
        future = self.future
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                error = future.exception()
                if error is not None:
                    raise error  # noqa: B904, ASYNC104 - the cancellation is its context, not its cause
            raise
        finally:
            # This frame is in the traceback of an exception that the future holds: no cycle of the two.
            del future, self

    @trio.lowlevel.enable_ki_protection
    async def _run(self, async_fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        future = cast(_TaskFuture[T], self.future)
        try:
            with self._scope:
                future.set_result(await _unprotected(async_fn, args))
            if self._scope.cancelled_caught:
                future.complete_cancelled()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - the task ends here, and its future gets it
            self._fail(error)
        finally:
            self._guest._tasks.discard(self)
            self._guest._leave()
            del future, self  # as in `wait`

    def _fail(self, error: BaseException) -> None:
        """The task ended with an exception: trio's cancellation of the whole guest, or one of its own."""
        future = cast(_TaskFuture[T], self.future)
        rest = without_cancellation(error)
        if rest is None:
            future.complete_cancelled()
        elif not future.done():
            future.set_exception(rest)
            for leaf in leaves(rest):
                if isinstance(leaf, KeyboardInterrupt | SystemExit):
                    self._guest._run.interrupts.deliver(leaf)
                    future.exception()  # it is known: the loop need not report it as well
                    break


@trio.lowlevel.disable_ki_protection
async def _unprotected(async_fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
    """The caller's function is not ours: a second Ctrl-C may be raised in it."""
    return await async_fn(*args)


class _TaskFuture(asyncio.Future[T]):
    """Only the trio task's end completes it: being cancelled by a waiter cancels the trio task.

    A waiter that asyncio cancels asks this first, is told False, and so gets its CancelledError when the
    future is done. No second future stands in between, as with `asyncio.shield`.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._scope = scope

    def cancel(self, msg: Any | None = None) -> bool:
        if not self.done():
            # Not now: asyncio.Runner cancels its main task in a signal handler, in the middle of anything.
            reason = "the asyncio task that waits for this one was cancelled"
            self.get_loop().call_soon(functools.partial(self._scope.cancel, reason))
        return False

    def complete_cancelled(self) -> None:
        super().cancel()


class _Ended(asyncio.Future[None]):
    """Done when the guest has ended. Being cancelled by the owner's task ends the guest."""

    __slots__ = ("_guest",)

    def __init__(self, guest: Guest) -> None:
        super().__init__(loop=guest.loop)
        self._guest = guest

    def cancel(self, msg: Any | None = None) -> bool:
        if not self.done():
            self.get_loop().call_soon(self._guest.end)
        return False

    def complete(self) -> None:
        self.set_result(None)
