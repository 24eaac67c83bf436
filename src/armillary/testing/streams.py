"""Listeners and streams without sockets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from armillary.errors import ConnectFailed

__all__ = ["BoundedStream", "MemoryListener", "bounded_stream_pair"]

# What socket buffers hold, roughly: so much can be sent to a peer that does not read. More hides
# back-pressure from a test; less makes every large message wait for its reader.
BUFFER = 65536

_Pair = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class BoundedStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory whose sender waits while the other end does not read.

    Trio's own memory streams take everything at once, which no network does. Made by `bounded_stream_pair`
    and `MemoryListener.connect`.

    Args:
        inner: the end that carries the bytes.
        sending: how much of what this end sent is not read yet; shared with the other end.
        receiving: the same of what the other end sent.
        peer_name: what this end's owner is told of the other end's address.
    """

    def __init__(self, inner: _Pair, sending: _Level, receiving: _Level, peer_name: str) -> None:
        self._inner = inner
        self._sending = sending
        self._receiving = receiving
        self.peer_name = peer_name
        self._is_sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._only_sender():
            view = memoryview(data)
            if not view:
                await self._inner.send_all(view)
            while view:
                room = await self._sending.wait_room()
                piece, view = view[:room], view[room:]
                await self._inner.send_all(piece)
                self._sending.add(len(piece))

    async def wait_send_all_might_not_block(self) -> None:
        with self._only_sender():
            await self._sending.wait_room()
            await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        with self._only_sender():
            await self._inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._inner.receive_some(max_bytes)
        if self._receiving.is_reset:
            raise trio.BrokenResourceError("the connection was reset")
        self._receiving.add(-len(data))
        return bytes(data)

    def reset(self) -> None:
        """Break the connection for both ends, as a peer does that crashes."""
        for level in (self._sending, self._receiving):
            level.is_reset = True
            level.open_wide()
        self._inner.send_stream.close()
        self._inner.receive_stream.close()

    async def aclose(self) -> None:
        # Whoever waits for room finds out by sending that nobody is left.
        self._receiving.open_wide()
        self._sending.open_wide()
        await self._inner.aclose()

    @contextmanager
    def _only_sender(self) -> Iterator[None]:
        """Refuse a second sender even while the first waits for room, as sockets do."""
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            yield
        finally:
            self._is_sending = False


class _Level:
    """Bytes sent and not read in one direction, and those who wait for it to fall."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._level = 0
        self._is_open_wide = False
        self.is_reset = False
        self._fell = trio.Event()

    def add(self, count: int) -> None:
        self._level += count
        if count < 0:
            fell, self._fell = self._fell, trio.Event()
            fell.set()

    def open_wide(self) -> None:
        self._is_open_wide = True
        self._fell.set()

    async def wait_room(self) -> int:
        while self._level >= self._bound and not self._is_open_wide:
            await self._fell.wait()
        return self._bound if self._is_open_wide else self._bound - self._level


def bounded_stream_pair(
    bound: int = BUFFER, *, names: tuple[str, str] = ("memory-client", "memory-server")
) -> tuple[BoundedStream, BoundedStream]:
    """Two ends of a connection in memory.

    Args:
        bound: bytes that may be under way in each direction before the sender waits.
        names: the addresses of the two ends: each end is told the other's.

    Both ends must be closed, like sockets.
    """
    left, right = memory_stream_pair()
    to_right, to_left = _Level(bound), _Level(bound)
    return (
        BoundedStream(left, to_right, to_left, names[1]),
        BoundedStream(right, to_left, to_right, names[0]),
    )


class MemoryListener(trio.abc.Listener[BoundedStream]):
    """A listener to connect to without a port.

    Args:
        bound: bytes that may be under way in each direction of a connection.
    """

    def __init__(self, bound: int = BUFFER) -> None:
        self._bound = bound
        self._arrivals, self._queue = trio.open_memory_channel[BoundedStream](1000)
        self._serial = itertools.count(1)

    async def connect(self, peer_name: str | None = None) -> BoundedStream:
        """Connect.

        Args:
            peer_name: what whoever listens is told of this end's address; a name of its own if None.

        Raises:
            ConnectFailed: the listener was closed.
        """
        name = f"memory-{next(self._serial)}" if peer_name is None else peer_name
        client, server = bounded_stream_pair(self._bound, names=(name, "memory-server"))
        try:
            await self._arrivals.send(server)
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(client)
            raise ConnectFailed("could not connect: the listener is closed") from None
        return client

    async def accept(self) -> BoundedStream:
        try:
            return await self._queue.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("the listener was closed") from None

    async def aclose(self) -> None:
        # Nobody will accept those that wait; as with sockets, their other ends find out.
        try:
            while True:
                await trio.aclose_forcefully(self._queue.receive_nowait())
        except (trio.WouldBlock, trio.ClosedResourceError):
            self._queue.close()
        await trio.lowlevel.checkpoint()
