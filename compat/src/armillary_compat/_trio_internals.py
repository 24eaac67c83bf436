"""All that the bridge knows of trio's private parts, in one place.

Trio's guest mode waits for I/O in a helper thread, and so each wake-up of the guest costs two changes of
thread. Trio's scheduler itself needs none: it is a generator that yields how long it may sleep, and is sent
the I/O events. `Scheduler` drives that generator; what else trio would wait for is put into the host's hands:
trio's epoll object is a file descriptor like any other, and wake-ups from threads are the host's own
``call_soon_threadsafe``.

`missing_names` tells what a trio lacks of all this; the stock driver is used then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

import outcome
import trio

__all__ = [
    "NOTHING_NEW",
    "WOKEN",
    "Host",
    "Scheduler",
    "current_runner",
    "missing_names",
    "set_current_runner",
]

# What `Scheduler` and its two helpers use, by the module and the class that has it. Methods and attributes
# alike are attributes of the class, because all of these are classes with slots.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "_run": {
        "GuestState": ("guest_tick", "runner", "unrolled_run_gen"),
        "Runner": (
            "clock",
            "entry_queue",
            "force_guest_tick_asap",
            "guest_tick_scheduled",
            "io_manager",
            "main_task_outcome",
            "reschedule",
        ),
    },
    "_io_epoll": {
        "EpollIOManager": (
            "_epoll",
            "_registered",
            "close",
            "force_wakeup",
            "get_events",
            "notify_closing",
            "process_events",
            "statistics",
            "wait_readable",
            "wait_writable",
        ),
    },
    "_entry_queue": {"EntryQueue": ("wakeup",)},
    "_wakeup_socketpair": {
        "WakeupSocketpair": (
            "close",
            "drain",
            "wait_woken",
            "wakeup_on_signals",
            "wakeup_thread_and_signal_safe",
        )
    },
    "_run_context": {"GLOBAL_RUN_CONTEXT": ()},
}

NOTHING_NEW: Iterable[Any] = ()
"""Sent to the scheduler: it slept as long as it wanted to."""


class _Woken:
    """Not empty, because trio takes what is false for "the time is up"; and there is nothing in it."""

    def __iter__(self) -> Any:
        return iter(())


WOKEN: Iterable[Any] = _Woken()
"""Sent to the scheduler: it did not sleep as long as it wanted to, and there are no I/O events."""


@functools.cache
def missing_names() -> tuple[str, ...]:
    """The private names that this trio does not have, dotted; empty if it has all that `Scheduler` needs."""
    import importlib

    missing = []
    for module_name, owners in NAMES.items():
        full_name = f"trio._core.{module_name}"
        try:
            module = importlib.import_module(full_name)
        except (ImportError, AttributeError):  # on another system, or of another trio
            missing.append(full_name)
            continue
        for owner_name, attributes in owners.items():
            owner = getattr(module, owner_name, None)
            if owner is None:
                missing.append(f"{full_name}.{owner_name}")
            missing += [
                f"{full_name}.{owner_name}.{name}"
                for name in attributes
                if owner is not None and not hasattr(owner, name)
            ]
    return tuple(missing)


def current_runner() -> Any:
    """Trio's runner of this thread, or None; None, too, if this trio keeps it elsewhere."""
    context = _run_context()
    return None if context is None else context.__dict__.get("runner")


def set_current_runner(runner: Any) -> None:
    """Make `runner` this thread's; None for no runner."""
    context = _run_context()
    if context is None:
        return
    if runner is None:
        context.__dict__.pop("runner", None)
    else:
        context.runner = runner


@functools.cache
def _run_context() -> Any:
    try:
        from trio._core._run_context import GLOBAL_RUN_CONTEXT
    except ImportError:
        return None
    return GLOBAL_RUN_CONTEXT


class Host(Protocol):
    """What the scheduler asks of whoever drives it."""

    def turn_soon(self) -> None:
        """Take a turn soon: something became runnable, or a deadline moved. Called in the host's thread."""

    def call_soon_threadsafe(self, function: Callable[[], object]) -> object:
        """Call `function` in the host's thread. Called from any thread and from signal handlers."""

    def watch(self, descriptor: int) -> None:
        """Take a turn whenever `descriptor` is readable, until `unwatch`."""

    def unwatch(self, descriptor: int) -> None:
        """Stop watching."""


class Scheduler:
    """The scheduler of one guest run, between `start_guest_run` and the run's end.

    Args:
        first: the first function that `start_guest_run` wants to have called. It is not called any more.
        host: drives it.

    Raises:
        LookupError: `first` is not what was expected.
    """

    def __init__(self, first: Callable[[], object], host: Host) -> None:
        from trio._core._run import GuestState

        state = getattr(first, "__self__", None)
        if not isinstance(state, GuestState) or state.runner.io_manager._registered:
            raise LookupError(f"expected trio's first turn, before any waiting; got {first!r}")
        self._thread = _run_context()
        runner: Any = state.runner
        self._runner = runner
        self._generator: Generator[float, Any, None] = state.unrolled_run_gen
        runner.io_manager = self._io = _HostedIO(runner.io_manager, host)
        runner.entry_queue.wakeup.close()
        runner.entry_queue.wakeup = wakeup = _HostedWakeup(runner, host)
        self.wake_up = wakeup.arrive
        """Have the run look for what threads want of it, although no thread has said so."""

    def turn(self, events: Iterable[Any]) -> float:
        """Run what is runnable; return how many seconds may pass until the next turn, 0 for none.

        Args:
            events: from `events`, or `WOKEN`, or `NOTHING_NEW`.

        Raises:
            StopIteration: this was the last turn. `outcome` tells how the run ended.
            trio.TrioInternalError: this was the last turn; the scheduler is broken.
        """
        runner = self._runner
        if self._thread.__dict__.get("runner") is not runner:
            self._thread.runner = runner  # that of another loop of this thread, which does not run now
        # Meanwhile, and if there is more to do, trio need not ask for a turn.
        runner.guest_tick_scheduled = True
        timeout = self._generator.send(events)
        if timeout > 0:
            runner.guest_tick_scheduled = False
        return timeout

    def events(self) -> Any:
        """I/O events that are there. The system is not asked before a task has waited for some."""
        return self._io.manager.get_events(0) if self._io.is_watched else NOTHING_NEW

    def reschedule(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any]) -> None:
        """As `trio.lowlevel.reschedule`, but the caller takes care of the turn."""
        self._runner.guest_tick_scheduled = True
        self._runner.reschedule(task, result)

    def outcome(self) -> outcome.Outcome[Any]:
        """How the run's main task ended."""
        ended: outcome.Outcome[Any] = self._runner.main_task_outcome
        return ended


class _HostedIO:
    """Trio's I/O manager, watched by the host instead of a thread."""

    def __init__(self, manager: Any, host: Host) -> None:
        self.manager = manager
        self._host = host
        self.is_watched = False
        self.force_wakeup = host.turn_soon
        self.process_events = manager.process_events
        self.notify_closing = manager.notify_closing
        self.statistics = manager.statistics

    async def wait_readable(self, source: Any) -> None:
        self._watch()
        await self.manager.wait_readable(source)

    async def wait_writable(self, source: Any) -> None:
        self._watch()
        await self.manager.wait_writable(source)

    def _watch(self) -> None:
        """Only once somebody waits: there are loops, of tests mostly, that know no real descriptors."""
        if not self.is_watched:
            self._host.watch(self.manager._epoll.fileno())
            self.is_watched = True

    def close(self) -> None:
        if self.is_watched:
            self.is_watched = False
            self._host.unwatch(self.manager._epoll.fileno())
        self.manager.close()


class _HostedWakeup:
    """Stands in for the socket pair by which other threads wake trio: they wake the host.

    Trio's task that calls what threads want to have called looks into its queue before each wait. So there is
    nothing to remember for it when it does not wait: it has yet to look.
    """

    def __init__(self, runner: Any, host: Host) -> None:
        self._runner = runner
        self._host = host
        self._waiting: trio.lowlevel.Task | None = None
        self._is_on_its_way = False

    def wakeup_thread_and_signal_safe(self) -> None:
        if self._is_on_its_way:
            return
        self._is_on_its_way = True
        try:
            self._host.call_soon_threadsafe(self.arrive)
        except BaseException:
            self._is_on_its_way = False
            raise

    def arrive(self) -> None:
        self._is_on_its_way = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._runner.reschedule(waiting)

    async def wait_woken(self) -> None:
        self._waiting = trio.lowlevel.current_task()

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            self._waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def drain(self) -> None:
        """Nothing is stored."""

    def wakeup_on_signals(self) -> None:
        """Never: the host has its own way of waking up on signals."""

    def close(self) -> None:
        """Nothing is open."""
