"""Ctrl-C while trio is a guest: it reaches the host's program, as it would without a guest.

Trio's own handler would send the KeyboardInterrupt into the guest's main task, and the program would go on
without noticing. Python's default handler would raise it in the middle of trio's scheduler. So while a guest
runs, a handler of ours stands in the place of Python's default one; any other handler (that of
`asyncio.Runner`, say) is left where it is.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

import trio

__all__ = ["Interrupts"]


class Interrupts:
    """Keeps Ctrl-C out of the turns of trio's scheduler, and delivers it at their end.

    Get one by `install`, and call `uninstall` as often.
    """

    __slots__ = ("_exit", "_is_installed", "_is_pressed", "_users", "in_turn")

    def __init__(self) -> None:
        self.in_turn = False
        """True while trio's scheduler runs. Set it as the first thing of a turn."""
        self._is_installed = False
        self._is_pressed = False
        self._exit: BaseException | None = None
        self._users: dict[object, Callable[[], None]] = {}

    @classmethod
    def install(cls, user: object, poke: Callable[[], None]) -> Interrupts:
        """The one that handles Ctrl-C in this thread, put in place of Python's default handler if need be.

        Args:
            user: whoever calls `uninstall` later.
            poke: queues a turn of the scheduler. Called when Ctrl-C may have cost a queued one.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
        if isinstance(handler, Interrupts):
            found = handler
        else:
            found = cls()
            if handler is signal.default_int_handler:
                signal.signal(signal.SIGINT, found)
                found._is_installed = True
        found._users[user] = poke
        return found

    def uninstall(self, user: object) -> None:
        """The last user's call gives Python its default handler back."""
        self._users.pop(user, None)
        if self._is_installed and not self._users:
            self._is_installed = False
            if signal.getsignal(signal.SIGINT) is self:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: at once outside of a turn, at its end inside one.

        A second Ctrl-C within one turn means that the turn does not end: it is raised where it arrives,
        except in trio's own code.
        """
        if not self.in_turn:
            # It may have arrived between the loop's taking a queued turn and the turn's beginning.
            for poke in self._users.values():
                poke()
        elif not self._is_pressed or trio.lowlevel.currently_ki_protected():
            self._is_pressed = True
            return
        else:
            self._is_pressed = False
        raise KeyboardInterrupt

    def deliver(self, error: BaseException) -> None:
        """Raise `error`, a KeyboardInterrupt or SystemExit out of a task, after this turn."""
        self._exit = error

    def end_turn(self) -> None:
        """The last thing of a turn that is a callback of the loop: what was kept back comes out of it."""
        self.in_turn = False
        if self._exit is not None or self._is_pressed:
            _raise(self._take())

    def end_turn_inside(self, loop: asyncio.AbstractEventLoop) -> None:
        """The same for a turn that the host's code takes, in the middle of a task or of a protocol.

        Ctrl-C is not meant for that task. What has ended a task of trio's comes out at once, as asyncio lets
        it out at once, and counts on that when it ends a loop. A protocol would hand either to its transport,
        and not every loop's transports pass it on.
        """
        self.in_turn = False
        if self._exit is not None and asyncio.current_task(loop) is not None:
            _raise(self._take())
        if self._exit is not None or self._is_pressed:
            loop.call_soon(_raise, self._take())

    def _take(self) -> BaseException:
        error = self._exit or KeyboardInterrupt()
        self._exit = None
        self._is_pressed = False
        return error


def _raise(error: BaseException) -> None:
    try:
        raise error
    finally:
        del error
