"""A stream that misbehaves on purpose."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .streams import BoundedStream

__all__ = ["FaultyStream"]


class FaultyStream(trio.abc.Stream):
    """Wraps a stream and does to it what networks and peers do.

    Every fault is an attribute that may be set at any time. All faults concern what this end receives,
    except those that say otherwise.

    Args:
        inner: the stream; closed with this one.

    Attributes:
        delay: seconds before each receive and each send, on the run's clock.
        piece: at most this many bytes are received at once; 1 delivers byte by byte.
        garbage: bytes to be received before anything else, once.
        cut_after: after so many more bytes received, the connection is reset, in mid-line if it so falls.
        reads_nothing: receive nothing: wait, as a program does that has forgotten its socket.
        sends_nothing: send nothing: wait, as towards a peer that never reads.
    """

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._received: deque[bytes] = deque()
        self._is_cut = False
        self._ended = trio.Event()
        self.delay = 0.0
        self.piece: int | None = None
        self.garbage = b""
        self.cut_after: int | None = None
        self.reads_nothing = False
        self.sends_nothing = False

    @property
    def peer_name(self) -> str:
        """The address of the other end."""
        return getattr(self._inner, "peer_name", "memory")

    async def cut(self) -> None:
        """Reset the connection now, for both ends."""
        self._is_cut = True
        self._ended.set()
        if isinstance(self._inner, BoundedStream):
            self._inner.reset()
        elif isinstance(self._inner, trio.SocketStream):
            # Closing with nothing to linger for resets the connection.
            self._inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self._inner)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._resetting():
            await self._misbehave(self.sends_nothing)
            await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._resetting():
            await self._misbehave(self.sends_nothing)
            await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._resetting():
            await self._misbehave(self.reads_nothing)
            if self.cut_after == 0:
                await self.cut()
            if self.garbage:
                self._received.appendleft(self.garbage)
                self.garbage = b""
            if not self._received or self._ended.is_set():
                data = bytes(await self._inner.receive_some(max_bytes))
                if not data:
                    return b""
                self._received.append(data)
        data = self._received.popleft()
        limits = [limit for limit in (self.piece, self.cut_after, max_bytes) if limit is not None]
        size = min([len(data), *limits])
        if size < len(data):
            self._received.appendleft(data[size:])
        if self.cut_after is not None:
            self.cut_after -= size
        return data[:size]

    async def aclose(self) -> None:
        self._ended.set()
        await self._inner.aclose()

    async def _misbehave(self, forever: bool) -> None:
        if forever:
            await self._ended.wait()
        elif self.delay:
            await trio.sleep(self.delay)
        else:
            await trio.lowlevel.checkpoint()

    @contextmanager
    def _resetting(self) -> Iterator[None]:
        """What is closed because it was cut looks like a reset, not like something closed here."""
        try:
            yield
        except trio.ClosedResourceError:
            if self._is_cut:
                raise trio.BrokenResourceError("the connection was cut") from None
            raise
