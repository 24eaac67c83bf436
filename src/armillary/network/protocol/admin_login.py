"""Who asks a manager for what only administrators may have is asked for a login, on the same connection.

If that is an administrator's, the connection is an administrator's until it ends. If it is somebody else's,
nothing changes, and if it is wrong, the connection ends.

Pure: see `credentials`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .credentials import Action, Awaited, Close, Conversation, Ended, Login, Record, Reject, Steps
from .refusals import Refused
from .throttle import LoginThrottle

__all__ = ["AdminLogin", "Deny", "Grant"]

R = TypeVar("R")

# Somebody may have to look the password up. Larger keeps a request without an answer for longer.
ADMIN_LOGIN_LIMIT = 120.0
# Requests that wait for a login. Smaller refuses scripts that send several at once, larger remembers more of
# a peer that never answers.
WAITING_REQUESTS = 64


@dataclass(frozen=True, slots=True)
class Grant(Action, Generic[R]):
    """Carry out this request."""

    request: R


@dataclass(frozen=True, slots=True)
class Deny(Action, Generic[R]):
    """Answer this request with this error. The connection stays."""

    request: R
    error: Refused


class AdminLogin(Conversation, Generic[R]):
    """Whether one connection is an administrator's, and how it becomes one.

    Args:
        manager_name: ``Manager[HOST:PORT]``.
        address: the peer's address, to which failed logins count.
        throttle: of the manager.
        is_admin: whether the peer has logged in as an administrator already.
        time_limit: seconds that the peer may take for both of its answers together.
    """

    def __init__(
        self,
        *,
        manager_name: str,
        address: str,
        throttle: LoginThrottle,
        is_admin: bool = False,
        time_limit: float = ADMIN_LOGIN_LIMIT,
    ) -> None:
        super().__init__(manager_name=manager_name, address=address, throttle=throttle, time_limit=time_limit)
        self.is_admin = is_admin
        """Whether every request is granted."""
        self.login: Login | None = None
        """The administrator who has logged in here; None if `is_admin` was given, or is not true yet."""
        self._waiting: list[R] = []
        # Packets that will come too late for us: the next ones that come are these, since devices answer one
        # question after the other. Who types has been told that it is too late.
        self._overdue = 0
        self._is_over = False

    @property
    def takes_packet(self) -> bool:
        """Whether the peer's next packet with a ``result`` and our name is for us."""
        return self.awaited is Awaited.ANSWER or self._overdue > 0

    @property
    def takes_text(self) -> bool:
        """Whether the peer's next line is for us if it is not a packet."""
        return self.awaited is Awaited.ANSWER

    def request(self, request: R, now: float) -> list[Action]:
        """The peer asks for something that only administrators may have."""
        if self.is_admin:
            return [Grant(request)]
        if self._is_over:
            return []
        if len(self._waiting) >= WAITING_REQUESTS:
            text = f"{WAITING_REQUESTS} requests wait already until you have logged in as an administrator"
            return [Deny(request, Refused(PermissionError, text))]
        self._waiting.append(request)
        if self._steps is not None:
            return []
        return self._start(self._guarded(), now)

    def answered(self, value: object, now: float, *, is_text: bool = False) -> list[Action]:
        """The peer has answered: the ``result`` of a packet, or the text of a line that has none."""
        if self._overdue and not is_text:
            self._overdue -= 1
            return []
        return super().answered(value, now)

    def timed_out(self, now: float) -> list[Action]:
        """The deadline has passed: what waits is denied. Means nothing if there is none."""
        if self.awaited is not Awaited.ANSWER:
            return []
        self._overdue += 1
        self._abandon(now)
        text = f"Nobody has logged in as an administrator within {self._time_limit:g} seconds"
        self._deny(Refused(TimeoutError, text))
        return self._take_actions()

    def closed(self, now: float) -> None:
        """The connection has ended."""
        self._abandon(now)
        self._take_waiting()
        self._overdue = 0
        self._is_over = True

    def _guarded(self) -> Steps[None]:
        try:
            login = yield from self._log_in()
        except Ended as end:
            self._is_over = True
            self._do(Record(end.record))
            self._do(Close() if end.error is None else Reject(end.error))
            return
        if not login.is_admin:
            text = "You must be an administrator to send this request to the Manager"
            self._deny(Refused(ValueError, text))
            return
        self.is_admin = True
        self.login = login
        for request in self._take_waiting():
            self._do(Grant(request))

    def _deny(self, error: Refused) -> None:
        for request in self._take_waiting():
            self._do(Deny(request, error))

    def _take_waiting(self) -> list[R]:
        waiting, self._waiting = self._waiting, []
        return waiting
