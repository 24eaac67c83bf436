"""A guest run of a millisecond, to see whether this trio can be driven without a thread.

That trio has all the private names says little about what they do, and a run that is given no turn hangs
without a word. So each way of waking a run is tried once in a process, with no loop and nothing to wait for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

import trio

from . import _trio_internals as internals

__all__ = ["rehearse"]

# Turns after which a run that still does not sleep is taken for broken. A good one needs ten.
_TURNS = 100


def rehearse() -> str | None:
    """What does not work, in words; None if everything does.

    In a thread of its own, since the caller's may have a trio run.
    """
    problems: list[str] = []

    def play() -> None:
        try:
            _Stage().play()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            problems.append(f"a rehearsal failed: {error!r}")

    thread = threading.Thread(target=play, name="armillary guest rehearsal")
    thread.start()
    thread.join()
    return problems[0] if problems else None


class _Stage:
    """A host without a loop."""

    def __init__(self) -> None:
        self._scheduler: internals.Scheduler | None = None
        self._is_asked = False
        self._calls: list[Callable[[], object]] = []
        self._watched: list[int] = []
        self._is_over = False
        self._scope = trio.CancelScope()

    def turn_soon(self) -> None:
        self._is_asked = True

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        self._calls.append(function)

    def watch(self, descriptor: int) -> None:
        self._watched.append(descriptor)

    def unwatch(self, descriptor: int) -> None:
        self._watched.remove(descriptor)

    def play(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                self._play(ours, theirs)
            finally:
                self._end()

    def _play(self, ours: socket.socket, theirs: socket.socket) -> None:
        first, second = trio.Event(), trio.Event()

        async def main() -> str:
            with self._scope:
                await first.wait()
                await second.wait()
                await trio.lowlevel.wait_readable(ours)
                with trio.move_on_after(0):
                    await trio.sleep_forever()
            return "over"

        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._take_over,
            done_callback=print,  # called by the turns that this replaces
            host_uses_signal_set_wakeup_fd=True,
        )
        assert self._scheduler is not None
        self._take_turns()
        first.set()
        self._check(self._is_asked, "the host's code woke a task, and no turn was asked for")
        self._take_turns()
        trio.lowlevel.current_trio_token().run_sync_soon(second.set)
        self._check(len(self._calls) == 1, "a thread woke the run, and nothing was called in the host's")
        self._take_turns()
        self._check(len(self._watched) == 1, "a task waited for a socket, and nothing was watched")
        theirs.send(b".")
        self._take_turns(self._scheduler.events())
        self._check(self._is_over, "the run did not end")
        self._check(not self._watched, "the run ended, and its descriptor is still watched")
        self._check(self._scheduler.outcome().unwrap() == "over", "the run has no result")

    def _end(self) -> None:
        """After a failure, give the run turns that nobody asked for: one that is dropped complains later."""
        self._scope.cancel()
        for _ in range(_TURNS):
            if self._is_over or self._scheduler is None:
                return
            self._scheduler.wake_up()
            self._take_turns()

    def _take_over(self, first: Callable[[], object]) -> None:
        self._scheduler = internals.Scheduler(first, self)

    def _take_turns(self, events: Iterable[Any] = internals.WOKEN) -> None:
        assert self._scheduler is not None
        self._is_asked = False
        try:
            for _ in range(_TURNS):
                if self._scheduler.turn(events) > 0:
                    if not self._calls:
                        return
                    self._calls.pop()()
                events = internals.NOTHING_NEW
        except StopIteration:
            self._is_over = True
            return
        raise AssertionError("the run does not come to rest")

    @staticmethod
    def _check(is_good: bool, otherwise: str) -> None:
        if not is_good:
            raise AssertionError(otherwise)
