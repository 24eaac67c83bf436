"""Servers for tests: one that says exactly what it is told to, a device of armillary; and a loop for them."""

from __future__ import annotations

import asyncio
import selectors
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from armillary import katcp
from armillary_compat.guest import Guest

# Seconds after which a test gives up waiting for the other end.
PATIENCE = 10.0


class RawPeer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def greet(self, flags: str = "MIB", more: bytes = b"") -> None:
        """Say what a server says to a client that connects, and more in the same packet."""
        self.send(b"#version-connect katcp-protocol 5.1-%b\n" % flags.encode() + more)

    async def line(self) -> bytes:
        """The next line; empty when the client has closed."""
        return await asyncio.wait_for(self._reader.readline(), PATIENCE)

    async def lines(self, count: int) -> list[bytes]:
        return [await self.line() for _ in range(count)]

    async def rest(self) -> bytes:
        """All that comes until the client closes."""
        return await asyncio.wait_for(self._reader.read(), PATIENCE)

    async def has_nothing(self) -> bool:
        """Whether the client has sent nothing, and does not for a moment."""
        try:
            data = await asyncio.wait_for(self._reader.read(1), 0.05)
        except TimeoutError:
            return True
        raise AssertionError(f"expected nothing, got {data!r}")

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Break the connection."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class RawServer:
    """Listens, and hands out its connections one after the other."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[RawPeer] = asyncio.Queue()
        self._peers: list[RawPeer] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(reader, writer)
        self._peers.append(peer)
        self._arrived.put_nowait(peer)

    async def listen(self) -> None:
        # A limit for a server that reads lines of a megabyte.
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, limit=2**26, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        assert self._server is not None
        self._server.close()

    async def accept(self, patience: float = PATIENCE) -> RawPeer:
        return await asyncio.wait_for(self._arrived.get(), patience)

    @property
    def connections(self) -> int:
        """How many were ever accepted."""
        return len(self._peers)

    async def aclose(self) -> None:
        self.stop_listening()
        for peer in self._peers:
            peer.writer.transport.abort()
        # Until the transports have closed their sockets.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@asynccontextmanager
async def raw_server() -> AsyncIterator[RawServer]:
    server = RawServer()
    await server.listen()
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def served(device: katcp.Device, port: int = 0) -> AsyncIterator[int]:
    """Serve a device of armillary on TCP, in the guest of the running loop. Gives the port."""
    is_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(katcp.serve_device, device, port, host="127.0.0.1"))
            is_up.set_result(katcp.bound_ports(listeners)[0])

    task = Guest.current().start_soon(serve)
    try:
        yield await is_up
    finally:
        task.cancel()
        await asyncio.wait([task.future])


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with real sockets that never waits: when nothing is ready, it puts its clock forward."""

    def __init__(self) -> None:
        loop = self
        self.now = 0.0

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                ready = super().select(0)
                if not ready and timeout is not None:
                    loop.now += timeout
                assert ready or timeout is not None, "there is nothing to wait for"
                return ready

        super().__init__(Selector())

    def time(self) -> float:
        return self.now
