"""A request that was sent, and whose reply has not come yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio

from armillary.errors import ArmillaryError

from .errors import error_of
from .protocol.packets import Failure, Reply
from .protocol.words import CREDIT, tell_manager

__all__ = ["PendingCall"]


class Asker(Protocol):
    """The connection on which a request was sent."""

    def abandon(self, pending: PendingCall) -> None:
        """Nobody waits for the reply, and whoever works on it may know."""

    def forget(self, pending: PendingCall) -> None:
        """Nobody waits for the reply."""

    def send(self, data: bytes) -> None:
        """Send a packet."""


class PendingCall:
    """A request that was sent, and whose reply is awaited separately. Made by `Connection.start`."""

    __slots__ = (
        "_connection",
        "_done",
        "_on_part",
        "attribute",
        "on_settled",
        "outcome",
        "position",
        "service",
        "uid",
    )

    def __init__(
        self,
        connection: Asker,
        service: str,
        attribute: str,
        uid: str,
        position: int,
        on_part: Callable[[Reply], object] | None = None,
    ) -> None:
        self._connection = connection
        self.service = service
        self.attribute = attribute
        self.uid = uid
        self.position = position
        """Where it begins in the stream of bytes that was sent."""
        self.outcome: Reply | Failure | ArmillaryError | None = None
        """The last word, once there is one."""
        self.on_settled: Callable[[], object] | None = None
        """Called when the last word is there, instead of waiting for it."""
        self._on_part = on_part
        self._done: trio.Event | None = None

    async def wait(self) -> Any:
        """Wait for the result.

        Cancellation abandons the request, see `abandon`.

        Raises:
            RemoteError: the service, or the manager, answered with an error.
            ConnectionClosed: the connection ended first; ``may_have_been_received`` says what is known.
            PacketTooLarge: the reply was larger than the limit.
        """
        if self.outcome is None:
            self._done = trio.Event()
            try:
                await self._done.wait()
            except BaseException:
                self.abandon()
                raise
        else:
            await trio.lowlevel.checkpoint()
        return self.result()

    def result(self) -> Any:
        """The result of what is done. Raises what `wait` raises."""
        outcome = self.outcome
        if type(outcome) is Reply:
            return outcome.result
        if isinstance(outcome, Failure):
            raise error_of(outcome)
        assert isinstance(outcome, ArmillaryError)
        raise outcome

    def abandon(self) -> None:
        """Wait for the reply no more. It is dropped when it comes.

        A service that can be told is told: it cancels the call. Elsewhere, it is carried out nevertheless.
        """
        self._connection.abandon(self)

    def forget(self) -> None:
        """As `abandon`, but nobody is told."""
        self._connection.forget(self)

    def grant(self, number: int) -> None:
        """Let so many items more of an iteration come."""
        if self.outcome is None:
            self._connection.send(tell_manager(CREDIT, self.uid, number))

    def take_part(self, part: Reply) -> None:
        """An item of the iteration, or progress, has come."""
        if self._on_part is not None:
            self._on_part(part)

    def settle(self, outcome: Reply | Failure | ArmillaryError) -> None:
        """This is the last word."""
        self.outcome = outcome
        if self._done is not None:
            self._done.set()
        if self.on_settled is not None:
            self.on_settled()
