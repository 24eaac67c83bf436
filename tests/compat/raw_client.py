"""Clients for tests, who send and get bytes as they are; and what must be gone when a test is over."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiokatcp import DeviceServer

if TYPE_CHECKING:
    from conftest import Host

S = TypeVar("S", bound=DeviceServer)

# Seconds after which a test gives up. Far more than anything here takes on a busy machine.
PATIENCE = 20.0
# Of the lines that clients get here: messages of five megabytes, with whatever has to be escaped.
LONGEST = 2**24


class RawClient:
    """One connection, seen from the client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: tuple[Any, ...]) -> RawClient:
        """Connect to a socket's address."""
        return cls(*await asyncio.open_connection(*address[:2], limit=LONGEST))

    @property
    def address(self) -> bytes:
        """Its own, as the server tells others of it."""
        host, port = self.writer.get_extra_info("sockname")[:2]
        return f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()

    def send(self, data: bytes) -> None:
        """Send bytes, in one packet if they fit into one."""
        self.writer.write(data)

    async def line(self) -> bytes:
        """The next line; empty when the server has closed."""
        return await self._reader.readline()

    async def lines(self, count: int) -> list[bytes]:
        """The next lines."""
        return [await self.line() for _ in range(count)]

    async def until(self, start: bytes) -> list[bytes]:
        """Lines up to one that begins so."""
        lines = [await self.line()]
        while not lines[-1].startswith(start):
            assert lines[-1], f"closed; got {lines} and nothing that begins with {start!r}"
            lines.append(await self.line())
        return lines

    async def ask(self, requests: bytes) -> list[bytes]:
        """Send requests, and return what comes until there are as many replies."""
        self.send(requests)
        lines: list[bytes] = []
        for _ in re.findall(rb"^\?", requests, re.MULTILINE):
            lines += await self.until(b"!")
        return lines

    async def unasked(self) -> list[bytes]:
        """What has come meanwhile: before the reply to a ``?watchdog`` that is sent now."""
        self.send(b"?watchdog[2147483647]\n")
        return (await self.until(b"!watchdog[2147483647]"))[:-1]

    async def rest(self) -> list[bytes]:
        """All lines until the server closes."""
        return (await self._reader.read()).splitlines(keepends=True)

    def stop_reading(self) -> None:
        """Let the server's bytes pile up."""
        self.writer.transport.pause_reading()

    def read_on(self) -> None:
        """Undo `stop_reading`."""
        self.writer.transport.resume_reading()

    def half_close(self) -> None:
        """Send no more, but read on."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close in good order."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Served(Generic[S]):
    """A server that is running, and its clients."""

    def __init__(self, server: S) -> None:
        self.server = server
        self._address = server.sockets[0].getsockname()
        self._clients: list[RawClient] = []

    async def dial(self) -> RawClient:
        """A client that has read its greeting."""
        client = await self.dial_silently()
        await client.until(b"#version-connect katcp-device ")
        return client

    async def dial_silently(self) -> RawClient:
        """A client that has read nothing yet."""
        client = await RawClient.connect(self._address)
        self._clients.append(client)
        return client

    async def dial_pair(self) -> tuple[RawClient, RawClient]:
        """Two clients, of whom the first has been told of the second."""
        first, second = await self.dial(), await self.dial()
        assert await first.line() == b"#client-connected " + second.address + b"\n"
        return first, second

    def dial_deaf(self) -> socket.socket:
        """A client with a small buffer, of which nobody reads. Whoever asked for it closes it."""
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(self._address)
        deaf.setblocking(False)
        return deaf

    def hang_up(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.writer.transport.abort()


@asynccontextmanager
async def served(server: S) -> AsyncIterator[Served[S]]:
    """Run a server for a block, and let it have clients; stop it if nobody has."""
    await server.start()
    block = Served(server)
    try:
        yield block
    finally:
        await server.stop()
        block.hang_up()


async def turns(count: int = 10) -> None:
    """Let the loop go round a few times: callbacks of callbacks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that says nothing when it begins to."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def _alone() -> None:
    """Wait until this is the only task."""
    async with asyncio.timeout(1):
        while (tasks := asyncio.all_tasks()) != {asyncio.current_task()}:
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                raise AssertionError(f"left behind: {tasks}") from None


def run(host: Host, main: Callable[[], Coroutine[Any, Any, None]], *, leaves_tasks: bool = False) -> None:
    """Run a test's coroutine function, and see that nothing is left of it.

    Args:
        host: the kind of loop.
        main: the test.
        leaves_tasks: whether tasks may be left, for the end of the loop to deal with. Sockets may not.
    """

    async def tidily() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()
        if not leaves_tasks:
            await _alone()

    before = _sockets()
    host.run(tidily)
    gc.collect()  # whatever warns when it is forgotten, warns here
    assert _sockets() == before


def _sockets() -> int:
    """How many sockets this program has open."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
        except OSError:
            pass  # what listed the others
    return count
