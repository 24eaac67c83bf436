"""One call of a service, from its request to its last word, and what the method that carries it out sees."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio

from .connection import Connection
from .protocol import packets
from .protocol.features import EXCEPTION, STREAM
from .protocol.packets import Request
from .protocol.words import MOST_CREDIT

__all__ = ["Call", "CurrentCall", "current_call", "current_request", "set_current_call"]

# Unsent bytes above which progress that cannot wait is dropped: the next one says more.
_PROGRESS_HIGH_WATER = 1024 * 1024

_current: ContextVar[CurrentCall] = ContextVar("armillary_network_call")


@dataclass(eq=False, slots=True)
class Call:
    """One call.

    Args:
        request: what was asked.
        connection: on which, and on which it is answered.
        in_run: calls a function in the trio run, from any thread, after those that it was given before.
    """

    request: Request
    connection: Connection
    in_run: Callable[[Callable[[], object]], object]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    """Around the coroutine, if it is one."""
    is_done: bool = field(default=False, init=False)
    """Whether it was carried out, without an error."""
    is_abandoned: bool = field(default=False, init=False)
    """Whether nobody waits for its end any more."""
    outcome: Any = field(default=None, init=False)
    """What a thread leaves for the run: the bytes of the reply, or what makes the result there."""
    _room: int = field(default=0, init=False)
    _has_room: trio.Event | None = field(default=None, init=False)

    @property
    def takes_parts(self) -> bool:
        """Whether its client can be told something before the end."""
        return self.request.stream is not None and STREAM in self.connection.features

    def abandon(self, reason: str) -> None:
        """Nobody waits any more: a coroutine is cancelled, a thread can know of it."""
        self.is_abandoned = True
        self.scope.cancel(reason=reason)

    # -- what is sent --------------------------------------------------------------------------------------

    def answer(self, result: object, *, more: bool | None = None) -> None:
        """Send the result. Raises TypeError or ValueError if it cannot be sent."""
        self.is_done = True
        self.connection.send(self.reply(result, more=more))

    def fail(self, error: BaseException) -> None:
        """Send why there is no result."""
        self.connection.send(self.error(error))

    def emit_progress(self, value: object) -> None:
        """See `CurrentCall.emit_progress`."""
        if self.takes_parts and not self.is_abandoned:
            line = self.part(value, progress=True)
            self.in_run(lambda: self._send_progress(line))

    def _send_progress(self, line: bytes) -> None:
        if self.connection.outbox.backlog <= _PROGRESS_HIGH_WATER:
            self.connection.send(line)

    def reply(self, result: object, *, more: bool | None = None) -> bytes:
        """The packet with the result."""
        request = self.request
        return packets.reply(request.requester, request.uid, result, more=more, codec=self.connection.codec)

    def part(self, value: object, *, progress: bool = False) -> bytes:
        """The packet with something that comes before the end."""
        request = self.request
        return packets.reply(
            request.requester, request.uid, value, more=True, progress=progress, codec=self.connection.codec
        )

    def error(self, error: BaseException) -> bytes:
        """The packet that says why there is no result."""
        request = self.request
        return packets.error(
            request.requester,
            request.uid,
            packets.message_of(error),
            packets.traceback_of(error),
            exception=packets.exception_class(error) if EXCEPTION in self.connection.features else None,
        )

    # -- room for items ------------------------------------------------------------------------------------

    def add_room(self, number: int) -> None:
        """Its client has room for so many items more."""
        self._room = min(self._room + number, MOST_CREDIT)
        if self._has_room is not None:
            self._has_room.set()

    async def take_room(self) -> int:
        """Wait until there is room for items, and return for how many: all there is."""
        await trio.lowlevel.checkpoint()
        while not self._room:
            self._has_room = trio.Event()
            await self._has_room.wait()
        room, self._room = self._room, 0
        return room


class CurrentCall:
    """One call, as the method sees it that carries it out. Given by `current_call`; any thread may use it."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def request(self) -> Request:
        """What was asked, and by whom."""
        return self._call.request

    @property
    def requester(self) -> str | None:
        """The network name of who has called."""
        return self._call.request.requester

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the result any more.

        Coroutines are cancelled then. Nothing can end a method in a thread: one that takes long looks here
        from time to time, and returns.
        """
        return self._call.is_abandoned

    @property
    def wants_progress(self) -> bool:
        """Whether the caller listens to progress."""
        return self._call.takes_parts

    def emit_progress(self, value: object) -> None:
        """Tell the caller how far the call has come: any value. Nobody waits, and nobody has to listen.

        It arrives before the result. If the manager is behind, it is dropped: the next one says more.

        Raises:
            TypeError: it cannot be sent.
            ValueError: it is nested too deeply.
        """
        self._call.emit_progress(value)

    async def progress(self, value: object) -> None:
        """As `emit_progress`, in a coroutine: others have their turn."""
        self._call.emit_progress(value)
        await trio.lowlevel.checkpoint()


def current_call() -> CurrentCall:
    """The call that the running method of a service carries out.

    Raises:
        LookupError: this is no method of a service that a client has called.
    """
    return _current.get()


def current_request() -> Request:
    """What the running method of a service was asked, and by whom: its ``requester``.

    Raises:
        LookupError: this is no method of a service that a client has called.
    """
    return _current.get().request


def set_current_call(call: Call) -> None:
    """What runs in this context from now on carries out this call."""
    _current.set(CurrentCall(call))
