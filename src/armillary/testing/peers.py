"""A peer that says exactly what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from armillary._runtime.line_stream import LineStream
from armillary.katcp import Message

__all__ = ["RawPeer"]

# More than any message of a test.
_LIMIT = 64 * 1024**2


class RawPeer:
    """One end of a connection, spoken to in bytes: a client for a server under test, or the reverse.

    Args:
        stream: the end that the test holds.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._lines = LineStream(stream, _LIMIT)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        """The next line, with its terminator; empty when the other end has closed its side."""
        line = await self._lines.receive_line()
        return b"" if line is None else line + b"\n"

    async def receive_until(self, start: bytes) -> list[bytes]:
        """Lines up to and including the first that begins with `start`, or up to the end."""
        lines = []
        while line := await self.receive():
            lines.append(line)
            if line.startswith(start):
                break
        return lines

    async def receive_message(self) -> Message:
        """The next line as a message.

        Raises:
            trio.EndOfChannel: the other end has closed its side.
        """
        line = await self.receive()
        if not line:
            raise trio.EndOfChannel
        return Message.parse(line)

    async def greet(self, flags: str = "MIB") -> None:
        """Say what a server says to a client that connects."""
        await self.send(b"#version-connect katcp-protocol 5.1-%b\n" % flags.encode("ascii"))

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[RawPeer]:
        """A block that closes the stream when it is left."""
        try:
            yield self
        finally:
            await trio.aclose_forcefully(self.stream)
