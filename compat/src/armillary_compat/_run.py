"""One trio run as the guest of one asyncio loop: its start, and its end before the loop's."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol

import outcome
import trio

from . import _trio_internals as internals
from ._interrupts import Interrupts
from ._loop_hooks import hook, unhook
from ._tick import LoopClock, driver_for

__all__ = ["GuestRun", "Tenant"]

# The attribute of a loop that holds its guest run. An attribute and not a table of all loops: what a loop has
# goes when the loop goes.
_ATTRIBUTE = "_armillary_guest_run"


class Tenant(Protocol):
    """A part of a guest run that ends by itself: a task with all that is in it."""

    async def live(self) -> None:
        """The tenant's task. It raises nothing."""

    def end(self) -> None:
        """Cancel that task."""

    def gone(self, error: BaseException | None) -> None:
        """The task has ended, and the run too if this was its last tenant.

        If `error` is given, the task was dropped, or never began, because of it.
        """


class GuestRun:
    """A trio run on `loop`, in the loop's thread, from its first tenant to its last.

    It starts as soon as the loop runs and an earlier run of that loop is over: at once, mostly. Closing the
    loop finishes it first.

    A run may have one tenant after another. The next need not wait until the last one's cleanup is over; it
    may even be part of it, when what is cleaned up makes use of the guest.

    Raises:
        RuntimeError: the loop runs in another thread; or another trio run is active in this one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.driver = driver_for(loop)
        self.interrupts = Interrupts()
        self.is_ending = False
        """Its last tenant has gone: no other can move in."""
        self.is_done = False
        self.newest: Any = None
        """The tenant that moved in last."""
        self._is_started = False
        self._thread = 0
        self._runner: Any = None
        self._nursery: trio.Nursery | None = None
        self._tenants: list[Tenant] = []
        self._last: Tenant | None = None
        self._owners: set[asyncio.Task[None]] = set()
        self._news: asyncio.Future[None] | None = None
        self._when_done: Callable[[], object] | None = None
        self._earlier = GuestRun.of(loop)
        if self._earlier is not None:
            self._earlier._when_done = functools.partial(loop.call_soon, self._start_late)
        elif _is_running_here(loop):
            self._start()
        else:
            loop.call_soon(self._start_late)
        vars(loop)[_ATTRIBUTE] = self
        hook(loop, "close", self._before_close)
        hook(loop, "run_forever", self.activate)

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> GuestRun | None:
        """The loop's run that is not over, if there is one."""
        run: GuestRun | None = vars(loop).get(_ATTRIBUTE)
        return run

    def activate(self) -> None:
        """Make this the run that trio's functions use in this thread.

        It is, unless another loop of this thread was run meanwhile, and had a guest too.

        Raises:
            RuntimeError: this is not the loop's thread.
        """
        if self._runner is not None and internals.current_runner() is not self._runner:
            if self._thread != threading.get_ident():
                raise RuntimeError(f"expected to be called in the thread of {self.loop!r}; this is another")
            internals.set_current_runner(self._runner)

    def move_in(self, tenant: Tenant) -> None:
        """Start the tenant's task, now or when the run starts."""
        self.newest = tenant
        self._tenants.append(tenant)
        if self._nursery is not None:
            self._nursery.start_soon(self._house, tenant)
        self._tell()

    def add_owner(self, owner: asyncio.Task[None]) -> None:
        """Closing the loop will wait for this task of a tenant, which ends when the tenant is gone."""
        self._owners.add(owner)
        owner.add_done_callback(self._drop_owner)

    async def aclose(self) -> None:
        """Cancel all tenants, and those that come meanwhile, and wait until the run is over."""
        if self._earlier is not None:
            await self._earlier.aclose()
        if not self._is_started:
            self._end(asyncio.CancelledError("the loop was closed before its guest could start"))
        while not self.is_done:
            for tenant in list(self._tenants):
                tenant.end()
            self._news = self._news or self.loop.create_future()
            await self._news

    # -- the run's life -----------------------------------------------------------------------------------

    def _start_late(self) -> None:
        self._earlier = None
        if not self.is_done:
            try:
                self._start()
            except Exception as error:  # noqa: BLE001 - goes to whoever waits for the tenants
                self._end(error)

    def _start(self) -> None:
        _make_room()
        self.interrupts = Interrupts.install(self, self.driver.poke)
        try:
            self.driver.start(self._main, self._on_done, self.interrupts)
        except BaseException:
            self.interrupts.uninstall(self)
            raise
        self._is_started = True
        self._thread = threading.get_ident()
        self._runner = internals.current_runner()

    @trio.lowlevel.enable_ki_protection
    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            for tenant in self._tenants:
                self._nursery.start_soon(self._house, tenant)

    @trio.lowlevel.enable_ki_protection
    async def _house(self, tenant: Tenant) -> None:
        try:
            await tenant.live()
        finally:
            if not self.is_done:
                self._move_out(tenant)

    def _move_out(self, tenant: Tenant) -> None:
        self._tenants.remove(tenant)
        if self._tenants:
            tenant.gone(None)
        else:
            self.is_ending = True
            self._last = tenant
        self._tell()

    def _on_done(self, result: outcome.Outcome[Any]) -> None:
        error = result.error if isinstance(result, outcome.Error) else None
        if error is not None:
            message = "the trio run that is a guest of this loop has crashed"
            self.loop.call_exception_handler({"message": message, "exception": error})
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.is_ending = self.is_done = True
        self._earlier = self._nursery = self._runner = self.newest = None
        self.interrupts.uninstall(self)
        if GuestRun.of(self.loop) is self:
            del vars(self.loop)[_ATTRIBUTE]
            self._leave_loop()
        if self._last is not None:
            self._last.gone(None)
        for tenant in self._tenants:
            tenant.gone(error)
        self._tenants.clear()
        self._tell()
        if self._when_done is not None:
            self._when_done()

    def _drop_owner(self, owner: asyncio.Task[None]) -> None:
        self._owners.discard(owner)
        self._leave_loop()

    def _leave_loop(self) -> None:
        """Take the hooks away when nothing is left to wait for, unless a later run needs them."""
        if not self._owners and GuestRun.of(self.loop) is None:
            unhook(self.loop, "close")
            unhook(self.loop, "run_forever")

    def _tell(self) -> None:
        """Tenants came or went, or the run is over."""
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

    def _before_close(self) -> None:
        """A program that runs its loop by hand may close it with all kinds of things unfinished.

        Of asyncio's tasks that leaves a warning. A trio run that is never finished would leave trio unusable
        in this thread.
        """
        loop = self.loop
        if loop.is_running() or loop.is_closed():
            return
        finishing = loop.create_task(self._finish())
        finishing.add_done_callback(lambda _: loop.stop())
        # Not `run_until_complete`: a stop that Ctrl-C has left behind in the loop would end that early.
        while not finishing.done():
            loop.run_forever()

    async def _finish(self) -> None:
        # What is cleaned up may start another run. Owners that were woken before this was end before it.
        while (run := GuestRun.of(self.loop)) is not None:
            await run.aclose()


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop runs in this thread.

    Raises:
        RuntimeError: it runs in another thread.
    """
    if not loop.is_running():
        return False
    if asyncio._get_running_loop() is not loop:
        raise RuntimeError(f"expected to be called in the thread of {loop!r}; this is another")
    return True


def _make_room() -> None:
    """See that no trio run is active in this thread.

    Raises:
        RuntimeError: there is one that is not a guest of ours.
    """
    if trio.lowlevel.in_trio_run() and isinstance(trio.lowlevel.current_clock(), LoopClock):
        # Another loop's, which does not run now. It is active again when that loop is run.
        internals.set_current_runner(None)
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "expected no trio run in this thread but the one that is started here as a guest of the asyncio"
            " loop; there is another. Use armillary's trio functions in that run, or run the asyncio program"
            " in a thread of its own"
        )
