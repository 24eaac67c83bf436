"""A client's requests, each with the future of its result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any

from armillary.errors import ArmillaryError, ConnectionClosed
from armillary.network.connection import Connection, PendingCall
from armillary.network.errors import RemoteError, error_of
from armillary.network.protocol.packets import Failure, Reply

from ._errors import ConnectionAborted, RequestFailed
from .constants import DISCONNECT_REQUEST

if TYPE_CHECKING:
    from ._session import Session

__all__ = ["RequestFuture"]


class RequestFuture(Future[Any]):
    """The future of a request's result. Any thread may wait for it.

    Its result is there when the handlers of all notifications that came before the reply have returned,
    unless the thread that calls the handlers is the one that waits for it: then it does not wait for itself.
    Callbacks are called in that thread as well, or at once.

    Attributes:
        request: what was requested, ``SERVICE.attribute``.
    """

    def __init__(self, session: Session, service: str, attribute: str, uid: str, line: bytes) -> None:
        super().__init__()
        self.request = f"{service}.{attribute}"
        self._session = session
        self._service = service
        self._attribute = attribute
        self._uid = uid
        self._line = line
        self._pending: PendingCall | None = None
        self._is_urgent = session.dispatcher.is_here
        self._end: Callable[[], None] | None = None

    # -- for whoever waits ---------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        self._hurry()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._hurry()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Wait for the reply no more; a manager that can be told is told. Returns whether it was in time."""
        is_cancelled = super().cancel()
        if is_cancelled:
            self._session.abandon(self)
        return is_cancelled

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        super().add_done_callback(partial(self._session.call_back, fn))

    def _hurry(self) -> None:
        if not self._is_urgent and self._session.dispatcher.is_here:
            # The portal looks whether it is urgent after it has set the end; so one of us sees the other.
            self._is_urgent = True
            if self._end is not None:
                self._end()

    # -- in the portal -------------------------------------------------------------------------------------

    def send(self, connection: Connection) -> None:
        """Send it, unless nobody wants it any more."""
        if self.cancelled():
            return
        try:
            pending = connection.start_line(self._line, self._service, self._attribute, self._uid)
        except ConnectionError:
            self.refuse()
            return
        finally:
            self._line = b""
        self._pending = pending
        pending.on_settled = partial(self._settled, pending)

    def refuse(self) -> None:
        """The connection has ended before it was sent. Any thread may say so."""
        self._fail(self._aborted(may_have_been_received=False))

    def abandon(self, *, tell: bool) -> None:
        """Nobody waits for the reply any more.

        Args:
            tell: whether the service is to know.
        """
        if self._pending is not None and tell:
            self._pending.abandon()
        elif self._pending is not None:
            self._pending.forget()

    def _settled(self, pending: PendingCall) -> None:
        outcome = pending.outcome
        if isinstance(outcome, Reply):
            self._end_soon(partial(self._succeed, outcome.result))
        elif isinstance(outcome, ConnectionClosed) and self._attribute == DISCONNECT_REQUEST:
            self._end_soon(partial(self._succeed, None))  # that is how it is answered
        else:
            assert outcome is not None
            self._end_soon(partial(self._fail, self._error_of(outcome)))

    def _error_of(self, outcome: Failure | ArmillaryError) -> Exception:
        """What armillary tells, as 1.0 does where it has a word for it."""
        if isinstance(outcome, Failure):
            outcome = error_of(outcome)
        if isinstance(outcome, RemoteError):
            return RequestFailed(self._session.address, outcome)
        if isinstance(outcome, ConnectionClosed):
            error = self._aborted(may_have_been_received=outcome.may_have_been_received)
            error.__cause__ = outcome
            return error
        return outcome

    def _aborted(self, *, may_have_been_received: bool) -> ConnectionAborted:
        text = f"Manager[{self._session.address}] closed the connection"
        return ConnectionAborted(text, may_have_been_received=may_have_been_received)

    def _end_soon(self, end: Callable[[], None]) -> None:
        """Have it end now, or behind the notifications that came before."""
        self._end = end
        if self._is_urgent or self._session.dispatcher.is_idle:
            end()
        else:
            self._session.dispatcher.put(end)

    def _succeed(self, result: Any) -> None:
        try:
            self.set_result(result)
        except InvalidStateError:
            pass  # cancelled, or ended in a hurry

    def _fail(self, error: Exception) -> None:
        try:
            self.set_exception(error)
        except InvalidStateError:
            pass  # as above
