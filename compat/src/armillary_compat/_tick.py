"""Who gives the guest its turns: the host's own callbacks, or trio's guest mode as it comes.

`HostDriver` needs no thread, but private names of trio. `StockDriver` needs none, and pays two changes of
thread for each time the guest wakes up.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import os
import select
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import outcome
import trio
from sniffio import thread_local as sniffed

from . import _trio_internals as internals
from ._interrupts import Interrupts
from ._rehearsal import rehearse

__all__ = ["Driver", "HostDriver", "LoopClock", "StockDriver", "driver_for", "why_not_hosted"]

logger = logging.getLogger(__name__)

# Trio sleeps no longer than this at a time, in seconds, and then looks when the next deadline is. A timer of
# the host's needs no such limit.
_LONGEST_SLEEP = 24 * 60 * 60
# How far from its time, in seconds, a timer of the host still counts as on time. Smaller than what any loop
# can tell apart makes a turn for nothing; larger makes deadlines late.
_TOLERANCE = 1e-6
# Added to a timer that is set once more because it came too early: what uvloop rounds off, in seconds.
_ROUNDED_OFF = 0.0005


class LoopClock(trio.abc.Clock):
    """The host loop's clock as trio's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.deadline = math.inf
        """The next deadline that trio sleeps for, when it last asked how long to sleep."""
        self.reached = -math.inf
        """A time that counts as past, although the loop's clock is a rounding error short of it."""

    def start_clock(self) -> None:
        """It runs already."""

    def current_time(self) -> float:
        return max(self._loop.time(), self.reached)

    def deadline_to_sleep_time(self, deadline: float) -> float:
        self.deadline = deadline
        return deadline - self.current_time()


Main = Callable[[], Awaitable[None]]
OnDone = Callable[[outcome.Outcome[Any]], object]


class Driver(Protocol):
    """Starts a guest run on a loop, and gives it its turns until it ends."""

    def start(self, main: Main, on_done: OnDone, interrupts: Interrupts) -> None:
        """Start the run in the running thread, which is the loop's.

        Args:
            main: the run's main function.
            on_done: called in the same thread, with how `main` ended, when the run is over.
            interrupts: keeps Ctrl-C out of the turns.
        """

    def run_now(self) -> None:
        """Take a turn that the host's code asked for now, and not at the loop's next turn."""

    def wake(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any]) -> None:
        """As `trio.lowlevel.reschedule`, and take the turn now if possible. For the host's code."""

    def poke(self) -> None:
        """Queue a turn even if one is queued: Ctrl-C may have cost that one."""


class HostDriver:
    """Turns are callbacks of the host loop. Nothing is scheduled while the guest has nothing to do.

    Args:
        loop: the host.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interrupts = Interrupts()
        self._clock = LoopClock(loop)
        # Turns belong to no caller: trio's tasks have contexts of their own.
        self._context = contextvars.Context()
        self._scheduler: internals.Scheduler | None = None
        self._on_done: OnDone | None = None
        self._queued: asyncio.Handle | None = None
        self._is_asked_for = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._sleeps_until = math.inf

    def start(self, main: Main, on_done: OnDone, interrupts: Interrupts) -> None:
        self._on_done = on_done
        self._interrupts = interrupts
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._take_over,
            done_callback=on_done,
            host_uses_signal_set_wakeup_fd=True,
            clock=self._clock,
        )

    def _take_over(self, first: Callable[[], object]) -> None:
        self._scheduler = internals.Scheduler(first, self)
        self._queued = self._loop.call_soon(self._take_turn, context=self._context)

    # -- what the scheduler asks for ----------------------------------------------------------------------

    def turn_soon(self) -> None:
        if self._queued is None:
            self._is_asked_for = True
            self._queued = self._loop.call_soon(self._take_turn, context=self._context)

    def call_soon_threadsafe(self, function: Callable[[], object]) -> object:
        return self._loop.call_soon_threadsafe(self._call_and_run, function)

    def watch(self, descriptor: int) -> None:
        try:
            self._loop.add_reader(descriptor, self._take_events)
        except Exception as error:
            raise RuntimeError(
                "this event loop cannot wait for file descriptors, so trio's sockets, pipes and processes do"
                " not work in it; streams over the loop's own transports do"
            ) from error

    def unwatch(self, descriptor: int) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(descriptor)

    # -- turns --------------------------------------------------------------------------------------------

    def run_now(self) -> None:
        if self._is_asked_for and not self._interrupts.in_turn:
            assert self._queued is not None
            self._queued.cancel()
            self._turn(internals.WOKEN, is_inside=True)

    def wake(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any]) -> None:
        if self._scheduler is None:
            return  # the run has crashed, and the task with it
        self._scheduler.reschedule(task, result)
        if self._queued is None and not self._interrupts.in_turn:
            self._turn(internals.WOKEN, is_inside=True)

    def poke(self) -> None:
        if self._queued is not None:
            self._queued.cancel()
        self._is_asked_for = True
        self._queued = self._loop.call_soon(self._take_turn, context=self._context)

    def _call_and_run(self, function: Callable[[], object]) -> None:
        function()
        self.run_now()

    def _take_turn(self) -> None:
        self._turn(internals.WOKEN if self._is_asked_for else internals.NOTHING_NEW)

    def _take_events(self) -> None:
        # A turn that is queued takes them with it.
        if self._queued is None:
            self._turn(None)

    def _take_due_turn(self) -> None:
        """The timer went off. It may have been set for an earlier deadline, or have been rounded down."""
        was_set_for, self._timer, self._timer_at = self._timer_at, None, math.inf
        if self._queued is not None:
            return
        early = self._sleeps_until - self._loop.time()
        if early > _TOLERANCE:
            extra = _ROUNDED_OFF if was_set_for >= self._sleeps_until else 0.0
            self._timer_at = self._sleeps_until
            self._timer = self._loop.call_later(early + extra, self._take_due_turn, context=self._context)
            return
        # Or a rounding error leaves trio's deadline in the future: for ever, on a clock that stands still.
        self._clock.reached = self._sleeps_until
        self._turn(internals.NOTHING_NEW)

    def _turn(self, otherwise: Iterable[Any] | None, *, is_inside: bool = False) -> None:
        """Run what is runnable, and see to the next turn.

        Args:
            otherwise: what to send to the scheduler if there are no I/O events; None for no turn then.
            is_inside: the host's code takes the turn; it is not kept waiting by a look for events.
        """
        interrupts = self._interrupts
        interrupts.in_turn = True
        library, sniffed.name = sniffed.name, "trio"
        try:
            self._queued = None
            self._is_asked_for = False
            scheduler = self._scheduler
            if scheduler is not None:
                events = (None if is_inside else scheduler.events()) or otherwise
                if events is not None:
                    self._rest(scheduler.turn(events))
        except StopIteration:
            assert scheduler is not None
            self._end(scheduler.outcome())
        except trio.TrioInternalError as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                interrupts.deliver(error.__cause__)
            self._end(outcome.Error(error))
        except BaseException:
            self.poke()
            raise
        finally:
            sniffed.name = library
            if is_inside:
                interrupts.end_turn_inside(self._loop)
            else:
                interrupts.end_turn()

    def _rest(self, timeout: float) -> None:
        if timeout <= 0:
            if self._queued is None:
                self._queued = self._loop.call_soon(self._take_turn, context=self._context)
            return
        until = self._clock.deadline
        # Trio also sleeps for less than until the next deadline: to see whether all tasks are blocked. What
        # differs by a rounding error is the deadline.
        sleeps_until = self._clock.current_time() + timeout
        if timeout < _LONGEST_SLEEP and sleeps_until < until - _TOLERANCE:
            until = sleeps_until
        self._sleeps_until = until
        # A timer that goes off too early is cheaper than a new one for each deadline that moves away.
        if self._timer is not None and (until < self._timer_at or until == math.inf):
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf
        if self._timer is None and until < math.inf:
            self._timer_at = until
            self._timer = self._loop.call_at(until, self._take_due_turn, context=self._context)

    def _end(self, result: outcome.Outcome[Any]) -> None:
        self._scheduler = None
        if self._timer is not None:
            self._timer.cancel()
        assert self._on_done is not None
        self._on_done(result)


class StockDriver:
    """Trio's guest mode as it comes, with Ctrl-C kept out of its turns.

    Args:
        loop: the host.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interrupts = Interrupts()
        # Kept here and not in the loop's callbacks, so that a Ctrl-C at the wrong moment loses none.
        self._calls: deque[Callable[[], object]] = deque()
        self._runner: Any = None
        self._is_over = False

    def start(self, main: Main, on_done: OnDone, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

        def done(result: outcome.Outcome[Any]) -> None:
            self._runner = None
            self._is_over = True
            on_done(result)

        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self._call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._call_soon,
            done_callback=done,
            host_uses_signal_set_wakeup_fd=True,
            clock=LoopClock(self._loop),
        )
        self._runner = internals.current_runner()

    def run_now(self) -> None:
        """Nothing: the turn takes place when trio's thread has noticed that it is wanted."""

    def wake(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any]) -> None:
        if not self._is_over:
            self._enter()
            trio.lowlevel.reschedule(task, result)

    def poke(self) -> None:
        self._loop.call_soon(self._take_turn)

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._calls.append(function)
        self._loop.call_soon(self._take_turn)

    def _call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        self._calls.append(function)
        self._loop.call_soon_threadsafe(self._take_turn)

    def _take_turn(self) -> None:
        self._interrupts.in_turn = True
        try:
            self._enter()
            if self._calls:
                self._calls.popleft()()
        finally:
            self._interrupts.end_turn()

    def _enter(self) -> None:
        """Another loop of this thread may have run meanwhile, and had a guest too."""
        if self._runner is not None and internals.current_runner() is not self._runner:
            internals.set_current_runner(self._runner)


def driver_for(loop: asyncio.AbstractEventLoop) -> Driver:
    """The driver without a thread, where trio and the system allow it.

    The environment variable ``ARMILLARY_GUEST`` set to ``stock`` chooses trio's guest mode as it comes.
    """
    if os.environ.get("ARMILLARY_GUEST") == "stock" or why_not_hosted() is not None:
        return StockDriver(loop)
    return HostDriver(loop)


@functools.cache
def why_not_hosted() -> str | None:
    """What keeps this trio from being driven without a thread; None if nothing does.

    Logged, once, if it is more than the system that trio runs on.
    """
    if not hasattr(select, "epoll"):
        return "this system has no epoll"
    missing = internals.missing_names()
    reason = f"it has no {', '.join(missing)}" if missing else rehearse()
    if reason is not None:
        logger.warning(
            "trio %s runs in asyncio loops with a helper thread, since %s", trio.__version__, reason
        )
    return reason
