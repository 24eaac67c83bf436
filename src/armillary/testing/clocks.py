"""Virtual time that waits for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
import trio.testing

__all__ = ["threads_take_no_time"]

# Seconds of real time for which virtual time stands still while a thread works and no task does. Longer makes
# tests slow in which a thread waits for something that happens later; shorter lets time-outs expire although
# the thread is only slow, as when a password is hashed on a busy machine.
PATIENCE = 1.0

_Watch = Callable[[], bool]


class _Keeper(trio.abc.Instrument):
    """Makes a clock patient while threads work. There is one in a run, however many blocks want it."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._threshold: float | None = None
        self.watches: list[_Watch] = []

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Look whether that step gave work to a thread, or had its result."""
        is_busy = trio.testing.active_thread_count() > 0 or any(watch() for watch in self.watches)
        if is_busy and self._threshold is None:
            self._threshold = self._clock.autojump_threshold
            self._clock.autojump_threshold = max(PATIENCE, self._threshold)
        elif not is_busy:
            self.release()

    def release(self) -> None:
        """Let the clock jump as before."""
        if self._threshold is not None:
            self._clock.autojump_threshold, self._threshold = self._threshold, None


# Of the present run: two keepers of one clock would each take the other's threshold for the test's.
_keeper: trio.lowlevel.RunVar[_Keeper | None] = trio.lowlevel.RunVar("armillary_clock_keeper", None)


@contextmanager
def threads_take_no_time(is_busy: _Watch) -> Iterator[None]:
    """For a block, let trio's ``MockClock`` not jump while threads work, for up to a second of real time.

    By itself that clock jumps as soon as every task waits, though it be for a thread, and so time-outs
    around work that is done in threads expire at once. With any other clock this does nothing.

    Args:
        is_busy: whether threads work that trio does not know of, as it knows those of ``to_thread``.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        yield
        return
    keeper = _keeper.get()
    if keeper is None:
        keeper = _Keeper(clock)
        trio.lowlevel.add_instrument(keeper)
        _keeper.set(keeper)
    keeper.watches.append(is_busy)
    try:
        yield
    finally:
        keeper.watches.remove(is_busy)
        if not keeper.watches:
            keeper.release()
            trio.lowlevel.remove_instrument(keeper)
            _keeper.set(None)
