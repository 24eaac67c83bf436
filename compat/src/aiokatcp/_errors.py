"""Why there is no connection, as the errors that callers catch."""

from __future__ import annotations

import errno
import os

import trio

from armillary.errors import ArmillaryError, ConnectionClosed

__all__ = ["ClientClosed", "ConnectionLost", "NotConnected", "failure_of"]

_STREAM_ENDED = (trio.BrokenResourceError, trio.ClosedResourceError)


class NotConnected(ConnectionClosed, BrokenPipeError):
    """There is no connection to make a request on; nothing was sent."""

    def __init__(self) -> None:
        super().__init__("Not connected")


class ConnectionLost(ConnectionClosed, ConnectionResetError):
    """The server closed the connection, or never got as far as saying its protocol."""

    def __init__(self) -> None:
        super().__init__(os.strerror(errno.ECONNRESET), may_have_been_received=True)


class ClientClosed(ConnectionClosed, ConnectionAbortedError):
    """The client was closed by its own program."""

    def __init__(self) -> None:
        super().__init__(os.strerror(errno.ECONNABORTED), may_have_been_received=True)


def failure_of(error: BaseException | None) -> Exception:
    """What a caller is told when armillary says `error`.

    That is what lies beneath it, if that is not armillary's own: what the operating system said, mostly. A
    server that speaks another protocol is told as it is.
    """
    if isinstance(error, ArmillaryError) and isinstance(error, ValueError):
        return error
    while isinstance(error, ArmillaryError):
        error = error.__cause__
    if not isinstance(error, Exception) or isinstance(error, _STREAM_ENDED):
        return ConnectionLost()
    return error
