"""One trio run in a thread of its own, for synchronous callers.

There is one such thread in a process, however many leases of it: a hundred would cost a hundred times the
memory and the sockets, and no call would be faster. It starts with the first lease and ends with the last.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple

import anyio
import anyio.from_thread
import trio

from ._errors import without_cancellation

__all__ = ["Lease", "hold_portal"]

# How long a caller waits for the portal's thread to have nothing to do, in seconds, before it goes the other
# way. That is what one turn of it takes: a longer wait has others to thank for, and shorter ones are in vain.
_MOMENT = 0.0002

# Seconds after which it is clear that nobody has the lock of the idle thread, though it is taken: who has it
# sends a line, without waiting. More makes the portal stand still for longer; less disturbs such a caller.
_LOST = 1.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger(__name__)

# How long the end of the last lease, and the exit of the interpreter, wait for the cleanup of what still runs
# in the portal, in seconds. Longer lets a peer that does not answer hold up the program; shorter cuts off the
# good-byes of those that do.
_PATIENCE = 2.0


def hold_portal() -> Lease:
    """Take a lease of the process's portal, whose thread is started if this is the only one.

    The caller releases it. Leases do not survive a fork; a forked child takes its own.

    Raises:
        RuntimeError: called in the portal's own thread while it ends.
    """
    return _process.take()


class Lease:
    """The right to use the portal, until it is released. Also a ``with`` block. Any thread may use it."""

    __slots__ = ("_thread",)

    def __init__(self, thread: _PortalThread) -> None:
        self._thread: _PortalThread | None = thread

    @property
    def portal(self) -> anyio.from_thread.BlockingPortal:
        """The portal of anyio, on trio: for its context managers and its ``start_task``.

        Raises:
            RuntimeError: the lease was released, or taken before a fork.
        """
        return self._valid().portal

    def post(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have ``function(*args)`` called soon in the portal's thread, in the order of the posts.

        This is the quick way in: the function hands a request to a task that is there already, and that task
        completes a `concurrent.futures.Future`. It must not block. What it raises is logged and dropped.

        Raises:
            RuntimeError: the lease was released, or taken before a fork.
        """
        self._valid().token.run_sync_soon(_call_and_log, function, args)

    def call_while_idle(self, function: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Call ``function(*args)`` here, if the portal's thread has nothing to do.

        That thread stands still until the function has returned, so it may use what belongs to the portal,
        for a moment, but nothing of trio's. It spares two threads the way to each other and back.

        Returns:
            Whether it was called. Otherwise `post` it.

        Raises:
            RuntimeError: the lease was released, or taken before a fork.
        """
        idle = self._valid().idle
        if not idle.acquire(timeout=_MOMENT):
            return False
        try:
            function(*args)
        finally:
            idle.release()
        return True

    def call(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run a trio async function in the portal, and wait for its result.

        It runs with a copy of the caller's context variables. An exception that is raised here while it runs,
        as by Ctrl-C, cancels it, and is not kept waiting by its cleanup.

        Raises:
            RuntimeError: the lease was released, or taken before a fork; or this is the portal's own thread.
            concurrent.futures.CancelledError: the portal was shut down meanwhile.
        """
        thread = self._valid()
        if thread is threading.current_thread():
            raise RuntimeError(
                "expected a call from outside of the portal's thread: it would wait for itself"
            )
        call = _Call(async_fn, args)
        try:
            call.start_soon(thread)
            return call.future.result()
        except BaseException:
            if not call.future.done():
                thread.cancel(call.scope)
            raise

    def start(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> Future[T]:
        """Run a trio async function in the portal, as `call` does, and do not wait for it.

        Returns:
            The future of its result. To cancel that does nothing.

        Raises:
            RuntimeError: the lease was released, or taken before a fork.
        """
        thread = self._valid()
        call = _Call(async_fn, args)
        call.future.set_running_or_notify_cancel()
        call.start_soon(thread)
        return call.future

    def release(self) -> None:
        """Give the lease back. With the last one, what runs in the portal is cancelled, and the thread ends.

        Waits for that, for two seconds at most, and not in the portal's own thread. Releasing twice does
        nothing.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            _process.give_back(thread)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _valid(self) -> _PortalThread:
        if self._thread is None:
            raise RuntimeError("expected a lease of the portal that is held; this one was released")
        if self._thread.is_lost:
            raise RuntimeError(
                "expected a lease of the portal that was taken in this process; this one was taken before the"
                " fork, which does not copy threads"
            )
        return self._thread


class _Process:
    """What a process knows of its portal. The only state of this module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: _PortalThread | None = None
        self._leases = 0
        self._is_prepared = False

    def take(self) -> Lease:
        current = threading.current_thread()
        if isinstance(current, _PortalThread) and current is not self._thread:
            raise RuntimeError("expected the portal to be running; this is its thread, and it is ending")
        with self._lock:
            if self._thread is None:
                if not self._is_prepared:
                    atexit.register(self._exit)
                    self._is_prepared = True
                self._thread = _PortalThread.started()
            self._leases += 1
            return Lease(self._thread)

    def give_back(self, thread: _PortalThread) -> None:
        with self._lock:
            if thread is not self._thread:
                return  # from before a fork, or from before the interpreter's exit
            self._leases -= 1
            if not self._leases:
                self._thread = None
                # With the lock: a new portal does not start before the old one has ended.
                thread.stop()

    def forget(self) -> None:
        """In a forked child: the thread is not there, and the lock may be held by one that is not either."""
        if self._thread is not None:
            self._thread.is_lost = True
        self._lock = threading.Lock()
        self._thread = None
        self._leases = 0

    def _exit(self) -> None:
        """The interpreter exits. The thread is a daemon, which would be stopped in the middle of anything."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.stop()
            except KeyboardInterrupt:
                pass


class _PortalThread(threading.Thread):
    """The thread.

    Not one of anyio's: the interpreter, before it exits, waits for these to end, and only then asks anybody
    to end them.
    """

    def __init__(self) -> None:
        super().__init__(name="armillary portal", daemon=True)
        self.is_lost = False
        """This is a forked child, and the thread is its parent's."""
        self.portal: anyio.from_thread.BlockingPortal
        self.token: trio.lowlevel.TrioToken
        self.nursery: trio.Nursery
        self.idle = threading.Lock()
        """Held by this thread, except while it waits for something to do."""
        self._ready: Future[None] = Future()

    @classmethod
    def started(cls) -> _PortalThread:
        """A thread that takes calls."""
        thread = cls()
        thread.start()
        try:
            thread._ready.result()
        except BaseException:  # it could not start; or Ctrl-C, and it will start only now
            thread._ready.add_done_callback(thread._end_unused)
            raise
        return thread

    def stop(self) -> None:
        """Cancel everything, and wait for a while until it has ended."""
        self.cancel(self.nursery.cancel_scope)
        if self is not threading.current_thread():
            self.join(_PATIENCE)

    def cancel(self, scope: trio.CancelScope) -> None:
        """Cancel a scope of the portal, from any thread."""
        try:
            self.token.run_sync_soon(scope.cancel)
        except trio.RunFinishedError:
            pass  # it has ended

    def _end_unused(self, ready: Future[None]) -> None:
        if ready.exception() is None:
            self.cancel(self.nursery.cancel_scope)

    def run(self) -> None:
        try:
            anyio.run(self._serve, backend="trio")
        except BaseException as error:  # noqa: ASYNC103 - there is no task here; it goes to who started us
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self.idle.acquire()
        trio.lowlevel.add_instrument(_Idleness(self.idle))
        with trio.CancelScope():
            async with trio.open_nursery() as self.nursery:
                async with anyio.from_thread.BlockingPortal() as self.portal:
                    self.token = trio.lowlevel.current_trio_token()
                    self._ready.set_result(None)
                    await trio.sleep_forever()


class _Idleness(trio.abc.Instrument):
    """Releases a lock while the run waits."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def before_io_wait(self, timeout: float) -> None:
        self._lock.release()

    def after_io_wait(self, timeout: float) -> None:
        # If it does not come, Ctrl-C has struck between a caller's taking it and doing anything. Then it is
        # released before the next wait, as ever.
        self._lock.acquire(timeout=_LOST)


class _Call(Generic[T]):
    """One function's run in the portal."""

    def __init__(self, async_fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        self._async_fn = async_fn
        self._args = args
        self.scope = trio.CancelScope()
        self.future: Future[T] = Future()

    def start_soon(self, thread: _PortalThread) -> None:
        """Start it, with a copy of the caller's context variables."""
        thread.token.run_sync_soon(copy_context().run, self._start, thread.nursery)

    def _start(self, nursery: trio.Nursery) -> None:
        try:
            nursery.start_soon(self._run, name=self._async_fn)
        except RuntimeError:  # the nursery is closed
            self.future.set_exception(CancelledError("the portal was shut down"))

    async def _run(self) -> None:
        try:
            with self.scope:
                self.future.set_result(await self._async_fn(*self._args))
            if self.scope.cancelled_caught:
                self.future.set_exception(CancelledError("the call was cancelled"))
        except BaseException as error:  # noqa: BLE001, ASYNC103 - the task ends here, and its caller gets it
            rest = without_cancellation(error)
            self.future.set_exception(rest or CancelledError("the portal was shut down"))


def _call_and_log(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        logger.exception("%r, which was posted to the portal, raised an exception", function)


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)
