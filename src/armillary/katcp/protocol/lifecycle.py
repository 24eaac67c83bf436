"""The states of a client that reconnects, and what leads from one to another.

Invariants, which the tests check after every step:

1. The state changes only as `TRANSITIONS` says; an event that means nothing in a state changes nothing.
2. Requests can be made in CONNECTED and in no other state.
3. There is a connection, or an attempt at one, in CONNECTING, NEGOTIATING, CONNECTED and DISCONNECTING, and
   never more than one.
4. The last error is None in CONNECTED, and is not None in SLEEPING and CLOSED.
5. CLOSED is final: no connection, no timer, no task is left.
"""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "ClientEvent", "ClientState", "Lifecycle"]


class ClientState(enum.Enum):
    """Where a client is between two connections."""

    SLEEPING = enum.auto()
    """Waiting before the next attempt."""
    CONNECTING = enum.auto()
    """Making a connection."""
    NEGOTIATING = enum.auto()
    """Connected, and waiting to hear which protocol the server speaks."""
    CONNECTED = enum.auto()
    """Requests can be made."""
    DISCONNECTING = enum.auto()
    """Closing the connection."""
    CLOSED = enum.auto()
    """The client's block was left, or its only connection has ended."""


class ClientEvent(enum.Enum):
    """What happens to a client."""

    STREAM_UP = enum.auto()
    """The connection is made."""
    FAILED = enum.auto()
    """The connection could not be made."""
    NEGOTIATED = enum.auto()
    """The server speaks our protocol."""
    PARTED = enum.auto()
    """The server said good-bye, closed its side, or speaks another protocol; or we want to close."""
    LOST = enum.auto()
    """The connection broke."""
    STREAM_DOWN = enum.auto()
    """The connection is closed."""
    TIMER = enum.auto()
    """The wait is over."""
    CLOSE = enum.auto()
    """The client's block is left."""


_S, _E = ClientState, ClientEvent
TRANSITIONS: dict[tuple[ClientState, ClientEvent], ClientState] = {
    (_S.CONNECTING, _E.STREAM_UP): _S.NEGOTIATING,
    (_S.CONNECTING, _E.FAILED): _S.SLEEPING,
    (_S.CONNECTING, _E.CLOSE): _S.CLOSED,
    (_S.NEGOTIATING, _E.NEGOTIATED): _S.CONNECTED,
    (_S.NEGOTIATING, _E.PARTED): _S.DISCONNECTING,
    (_S.NEGOTIATING, _E.LOST): _S.SLEEPING,
    (_S.NEGOTIATING, _E.CLOSE): _S.DISCONNECTING,
    (_S.CONNECTED, _E.PARTED): _S.DISCONNECTING,
    (_S.CONNECTED, _E.LOST): _S.SLEEPING,
    (_S.CONNECTED, _E.CLOSE): _S.DISCONNECTING,
    (
        _S.DISCONNECTING,
        _E.STREAM_DOWN,
    ): _S.SLEEPING,  # CLOSED once CLOSE has been seen, or without reconnection
    (_S.SLEEPING, _E.TIMER): _S.CONNECTING,
    (_S.SLEEPING, _E.CLOSE): _S.CLOSED,
}


class Lifecycle:
    """One client's state. Begins in CONNECTING: a client tries as soon as its block is entered.

    Args:
        reconnects: whether there is another attempt after one that failed or a connection that ended. If
            not, CLOSED takes the place of SLEEPING.
    """

    def __init__(self, *, reconnects: bool = True) -> None:
        self.state = ClientState.CONNECTING
        self.reconnects = reconnects
        self.is_closing = False
        """Whether CLOSE has been seen, or is about to be: no attempt will follow."""

    def advance(self, event: ClientEvent) -> bool:
        """Let an event happen. Return whether the state changed."""
        if event is ClientEvent.CLOSE:
            self.is_closing = True
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            return False
        if target is ClientState.SLEEPING and (self.is_closing or not self.reconnects):
            target = ClientState.CLOSED
        self.state = target
        return True
