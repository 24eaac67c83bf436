"""A manager's side of a handshake: who is there, and may it come in?

The manager speaks first. It asks for nothing, for the manager's password, or for a username and its password,
and then for an identity. A peer that is let in is not told so; one that is not gets an error before the
connection is closed. Everything that happens is written into the connections table.

Pure: see `credentials`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from .credentials import Action, Awaited, Close, Conversation, Ended, Login, Record, Reject, Steps
from .peers import PeerType
from .refusals import Refused
from .throttle import LoginThrottle

__all__ = ["Authentication", "CheckIdentity", "Connected", "ManagerHandshake"]

# Somebody at a terminal has to read three questions and type the answers. Smaller than ten seconds would even
# break devices that take their time; larger lets whoever says nothing keep a connection for longer.
HANDSHAKE_LIMIT = 60.0


class Authentication(enum.Enum):
    """What a manager wants to know before it lets anybody in."""

    NONE = enum.auto()
    """Nothing."""
    MANAGER_PASSWORD = enum.auto()
    """One password that everybody has."""
    HOSTNAMES = enum.auto()
    """That the peer's hostname is in a list."""
    LOGIN = enum.auto()
    """A user's name and password."""


@dataclass(frozen=True, slots=True)
class CheckIdentity(Action):
    """Look at the peer's identity and register it, and call ``identified`` or ``not_identified``."""

    value: object = field(repr=False)  # some peers are one answer behind, and then this is a password


@dataclass(frozen=True, slots=True)
class Connected(Action):
    """The peer is in."""

    type: PeerType
    login: Login | None
    """Who has logged in; None if nobody was asked to."""


class ManagerHandshake(Conversation):
    """One handshake, from the connection's beginning to its end.

    Call `start`, do what it says, in that order, and tell the outcome as the records say; and so on. Whatever
    happens, call `closed` when the connection has ended.

    Args:
        authentication: what the manager wants to know.
        manager_name: ``Manager[HOST:PORT]``.
        address: the peer's address, to which failed logins count.
        throttle: of the manager.
        hostname: the peer's hostname.
        trusted_hostnames: who may come in, if the manager wants to know hostnames.
        features: what is offered to the peer.
        time_limit: seconds that the peer may take for all of its answers together.
    """

    def __init__(
        self,
        authentication: Authentication,
        *,
        manager_name: str,
        address: str,
        throttle: LoginThrottle,
        hostname: str = "",
        trusted_hostnames: Collection[str] = (),
        features: tuple[str, ...] = (),
        time_limit: float = HANDSHAKE_LIMIT,
    ) -> None:
        super().__init__(manager_name=manager_name, address=address, throttle=throttle, time_limit=time_limit)
        self._authentication = authentication
        self._hostname = hostname
        self._trusted_hostnames = trusted_hostnames
        self._features = features
        # Whether there is something to record when the connection ends: not before it has begun, and not once
        # it was recorded that it would.
        self._is_open = False

    # -- what the caller says ------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The connection is there."""
        self._is_open = True
        self._do(Record("new connection request"))
        return self._start(self._guarded(), now)

    def identified(self, peer_type: PeerType, now: float) -> list[Action]:
        """The identity in `CheckIdentity` is that of a peer which is registered now."""
        return self._tell(Awaited.IDENTITY, peer_type, now)

    def not_identified(self, error: Exception, now: float) -> list[Action]:
        """The identity in `CheckIdentity` is none, or that peer may not come in, because of this."""
        refused = error if isinstance(error, Refused) else Refused.of(error)
        return self._tell(Awaited.IDENTITY, refused, now)

    def timed_out(self, now: float) -> list[Action]:
        """The deadline has passed. Means nothing if there is none."""
        if self.awaited is not Awaited.ANSWER:
            return []
        text = f"The handshake was not completed within {self._time_limit:g} seconds"
        return self._proceed(Ended(self._premature, Refused(TimeoutError, text)), now)

    def closed(self, now: float) -> list[Action]:
        """The connection has ended, whoever has ended it. Means nothing the second time."""
        record = "disconnected" if self._steps is None else self._premature
        self._abandon(now)
        if self._is_open:
            self._is_open = False
            self._do(Record(record))
        return self._take_actions()

    # -- steps ---------------------------------------------------------------------------------------------

    def _guarded(self) -> Steps[None]:
        """The steps, with an end that everybody hears of."""
        try:
            yield from self._shake_hands()
        except Ended as end:
            self._do(Record(end.record))
            self._do(Close() if end.error is None else Reject(end.error))
            if not end.record.startswith("rejected"):
                self._is_open = False

    def _shake_hands(self) -> Steps[None]:
        login = None
        if self._authentication is Authentication.MANAGER_PASSWORD:
            yield from self._ask_manager_password()
        elif self._authentication is Authentication.HOSTNAMES:
            if self._hostname not in self._trusted_hostnames:
                text = f"{self._hostname!r} is not a trusted hostname"
                raise Ended("rejected: untrusted hostname", Refused(ValueError, text))
        elif self._authentication is Authentication.LOGIN:
            login = yield from self._log_in()
        identity = yield from self._ask("identity", features=self._features)
        self._do(CheckIdentity(identity))
        verdict = yield Awaited.IDENTITY
        if isinstance(verdict, Refused):
            raise Ended("rejected: invalid identity", verdict)
        self._do(Record(f"connected as a {verdict}"))
        self._do(Connected(verdict, login))

    @property
    def _premature(self) -> str:
        if self._missing in ("username", "password"):
            return f"connection closed before receiving the {self._missing}"
        return "connection closed prematurely"
