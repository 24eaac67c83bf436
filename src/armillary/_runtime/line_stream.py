"""Lines in and out of a stream."""

from __future__ import annotations

from collections import deque

import trio

from armillary._wire.lines import LineSplitter, LineTooLong

__all__ = ["LineStream"]

_RECEIVE = 65536


class LineStream:
    """A stream read by the line, never holding more than one unfinished line and one read's lines.

    Args:
        stream: owned from now on: `aclose` closes it.
        limit: the longest line accepted, in bytes, its terminator included.
        terminators: the bytes that end a line, each on its own.
    """

    def __init__(self, stream: trio.abc.Stream, limit: int, terminators: bytes = b"\n") -> None:
        self.stream = stream
        self._splitter = LineSplitter(limit, terminators)
        self._lines: deque[bytes | LineTooLong] = deque()

    async def receive_line(self) -> bytes | None:
        """The next line without its terminator, or None when the peer has closed its side.

        What follows the last terminator is dropped with the end. Cancellation loses nothing.

        Raises:
            LineTooLong: the line was longer than the limit; the next call returns the line after it.
            trio.BrokenResourceError: the connection broke.
        """
        if self._lines:
            await trio.lowlevel.checkpoint()
        while not self._lines:
            data = await self.stream.receive_some(_RECEIVE)
            if not data:
                return None
            self._lines.extend(self._splitter.append(bytes(data)))
        line = self._lines.popleft()
        if isinstance(line, LineTooLong):
            raise line
        return line

    async def send_line(self, line: bytes) -> None:
        r"""Send a line; the ``\n`` is added. Cancellation may leave part of it sent."""
        await self.stream.send_all(line + b"\n")

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()
