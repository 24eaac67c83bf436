"""The errors that every part of armillary shares, named by cause: you, the peer, or the network.

`ArmillaryError` is the root of everything armillary raises on purpose, except that arguments which make no
sense raise the builtin `ValueError` or `TypeError`, and using something after closing it raises trio's
`ClosedResourceError`.
"""

from __future__ import annotations

__all__ = ["ArmillaryError", "ConnectFailed", "ConnectionClosed", "PeerError"]


class ArmillaryError(Exception):
    """Root of the errors that armillary raises on purpose."""


class PeerError(ArmillaryError):
    """The peer said something that its protocol does not allow, and the conversation cannot go on.

    You do not get this for a request that the peer refused politely: that is a reply.
    """


class ConnectFailed(ArmillaryError, ConnectionError):
    """No connection could be made: nobody listens, the name is unknown, or the deadline passed.

    `__cause__` holds what the operating system or the TLS library said. You do not get this once a
    connection has been up: losing it is `ConnectionClosed`.
    """


class ConnectionClosed(ArmillaryError, ConnectionError):
    """The connection is gone: the peer closed it, or the network did, or there never was one.

    Attributes:
        may_have_been_received: whether the request that failed may have reached the peer. False means
            that not one of its bytes left this program, so repeating it is safe. True means that nobody
            can know.
    """

    def __init__(self, text: str, *, may_have_been_received: bool = False) -> None:
        super().__init__(text)
        self.may_have_been_received = may_have_been_received
