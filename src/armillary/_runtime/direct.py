"""Bytes into and out of a socket by the system's own non-blocking calls.

Trio's streams have no ``send_nowait``: each ``send_all`` is a checkpoint, and one that is cancelled does not
say how much was sent. For sockets, the operating system's own non-blocking call is faster and says it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import trio

__all__ = ["DirectSide", "DirectSocket", "direct_side", "receiver_of"]


@runtime_checkable
class DirectSide(Protocol):
    """The non-blocking side of a stream. A stream of another kind may have these methods itself."""

    @property
    def unsent(self) -> int:
        """Bytes that `send_nowait` took and that wait inside this program; 0 for a socket."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what can be sent at once; return how many bytes that was, perhaps 0.

        Raises:
            OSError: the connection is broken, or the stream was closed here.
        """

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` may take something, and `unsent` has become 0.

        Raises:
            OSError: the connection broke meanwhile.
            trio.ClosedResourceError: the stream was closed here.
        """


class DirectSocket:
    """The non-blocking side of a `trio.SocketStream`. The stream stays the owner and closes it."""

    __slots__ = ("_socket",)

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = stream.socket

    @property
    def unsent(self) -> int:
        """Nothing: what a socket took is the operating system's."""
        return 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the operating system takes at once; return how many bytes that was, perhaps 0.

        Raises:
            OSError: the connection is broken, or the stream was closed here.
        """
        try:
            return os.write(self._socket.fileno(), data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def receive_some(self, max_bytes: int) -> bytes:
        """As the stream's own, but waits first and asks then: a server's sockets are mostly empty.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
        """
        while True:
            descriptor = self._socket.fileno()
            if descriptor == -1:
                raise trio.ClosedResourceError("the stream was closed")
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, max_bytes)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` may take something."""
        await trio.lowlevel.wait_writable(self._socket)


def receiver_of(stream: trio.abc.Stream) -> Callable[[int], Awaitable[bytes | bytearray]]:
    """The quickest way to receive from a stream."""
    direct = direct_side(stream)
    return direct.receive_some if isinstance(direct, DirectSocket) else stream.receive_some


def direct_side(stream: trio.abc.Stream) -> DirectSide | None:
    """The non-blocking side of a stream, or None for streams that have none (TLS, memory, Windows)."""
    if isinstance(stream, trio.SocketStream):
        return DirectSocket(stream) if os.name == "posix" else None
    return stream if isinstance(stream, DirectSide) else None
