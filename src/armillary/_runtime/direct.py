"""Bytes into and out of a socket without waiting.

Trio's streams have no ``send_nowait``: each ``send_all`` is a checkpoint, and one that is cancelled does not
say how much was sent. For sockets, the operating system's own non-blocking call is faster and says it.
"""

from __future__ import annotations

import os

import trio

__all__ = ["DirectSocket", "direct_socket"]


class DirectSocket:
    """The non-blocking side of a `trio.SocketStream`. The stream stays the owner and closes it."""

    __slots__ = ("_socket",)

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = stream.socket

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the operating system takes at once; return how many bytes that was, perhaps 0.

        Raises:
            OSError: the connection is broken, or the stream was closed here.
        """
        try:
            return os.write(self._socket.fileno(), data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` may take something."""
        await trio.lowlevel.wait_writable(self._socket)


def direct_socket(stream: trio.abc.Stream) -> DirectSocket | None:
    """The non-blocking side of a stream, or None for streams that have none (TLS, memory, Windows)."""
    if isinstance(stream, trio.SocketStream) and os.name == "posix":
        return DirectSocket(stream)
    return None
