"""Bytes over the host loop's own transports, as trio's streams and listeners.

A trio socket inside a guest run costs a second selector and two wake-ups for each read. A transport of the
host costs one callback, and works on every loop: uvloop's, and those of tests that have no sockets at all.
"""

from __future__ import annotations

import asyncio
import errno
import operator
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import trio
from outcome import Value

from armillary._runtime.dial import address_text

from .futures import call_asyncio

if TYPE_CHECKING:
    from .guest import Guest

__all__ = ["HostListener", "HostProtocol", "HostStream", "open_host_stream"]

# Bytes received and not taken by a trio task, above which the transport is asked to stop reading. More takes
# more memory for a connection whose owner is busy; fewer stops and starts reading more often.
_UNREAD = 256 * 1024
# What a transport may read at once. More costs each connection that much memory; less makes more calls for
# large messages.
RECEIVE_BUFFER = 64 * 1024
# Connections that were made and that no trio task has accepted. Fewer refuses a burst that the accept loop
# would have taken in its next turn; more lets clients queue up behind an accept loop that is stuck.
_UNACCEPTED = 1000


class HostStream(trio.abc.Stream):
    """One connection of the host loop, read and written by trio tasks of its guest.

    A protocol feeds it: `HostProtocol`, or one that has more to do with its connection. It has a non-blocking
    side (`armillary._runtime.direct.DirectSide`), so that replies leave by one direct call.

    Args:
        guest: the trio run whose tasks read. It is run at once when something arrives for a task that waits.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._transport: asyncio.Transport | None = None
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._is_reading_paused = False
        self._is_writing_paused = False
        self._is_sending = False
        self._at_eof = False
        self._is_closed = False
        self._is_lost = False
        self._error: Exception | None = None
        self._reader: trio.lowlevel.Task | None = None
        self._writers: trio.Event | None = None
        self._gone: trio.Event | None = None
        self.sink: Callable[[bytes], bool] | None = None
        """Offered what arrives while a task waits for it; it takes it, or returns False."""
        self.peer_name = "gone"
        """Who is at the other end: ``1.2.3.4:80``, ``[::1]:80`` or ``unix``."""

    # -- what the protocol tells --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The connection is there. Nothing is buffered in it: the outbox of its owner is the buffer."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self.peer_name = _peer_name(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived. A task that waits for them runs before this returns."""
        reader = self._reader
        if reader is not None:
            if self.sink is not None and self.sink(data):
                return
            self._reader = None
            self._guest.wake(reader, Value(data))
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _UNREAD and not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def nudge(self) -> None:
        """Let the task that waits in `receive_some` go on, with nothing."""
        self._wake_reader()

    def eof_received(self) -> None:
        """The other end will send no more. Our side stays open."""
        self._at_eof = True
        self._wake_reader()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone: closed by us, or broken."""
        self._is_lost = True
        self._error = error
        self._is_writing_paused = False
        self._wake_reader()
        self._wake_writers()
        if self._gone is not None:
            self._gone.set()

    def pause_writing(self) -> None:
        """The system takes no more."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Everything has left."""
        self._is_writing_paused = False
        self._wake_writers()

    # -- trio's side --------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they came, or nothing when the other end has closed its side.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
            trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"expected max_bytes of at least 1, got {max_bytes}")
        if self._needs_no_wait:
            await trio.lowlevel.checkpoint()
        data = b"" if self._needs_no_wait else await self._wait_data()  # another task may have taken it
        data = data or self._take_unread()
        if max_bytes is not None and len(data) > max_bytes:
            self._unread.appendleft(data[max_bytes:])
            self._unread_bytes += len(data) - max_bytes
            data = data[:max_bytes]
        return data

    @property
    def _needs_no_wait(self) -> bool:
        return bool(self._unread) or self._at_eof or self._is_closed or self._is_lost

    async def _wait_data(self) -> bytes:
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._reader = trio.lowlevel.current_task()

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        return cast(bytes, await trio.lowlevel.wait_task_rescheduled(abort))

    def _take_unread(self) -> bytes:
        if self._is_closed:
            raise trio.ClosedResourceError("the stream was closed")
        if self._unread:
            data = b"".join(self._unread)
            self._unread.clear()
            self._unread_bytes = 0
            if self._is_reading_paused and self._transport is not None:
                self._is_reading_paused = False
                self._transport.resume_reading()
            return data
        if self._error is not None:
            raise trio.BrokenResourceError(f"the connection broke: {self._error}") from self._error
        return b""

    @property
    def unsent(self) -> int:
        """Bytes that `send_nowait` took and that wait in the transport."""
        if self._transport is None or self._is_lost:
            return 0
        return self._transport.get_write_buffer_size()

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send at once, all or nothing: what the system does not take waits in the transport.

        Raises:
            OSError: the connection is broken, or the stream was closed here.
        """
        if self._is_writing_paused:
            return 0
        transport = self._transport
        if transport is None or self._is_closed or self._is_lost or transport.is_closing():
            raise self._lost_error()
        transport.write(data)
        return len(data)

    async def wait_writable(self) -> None:
        """Wait until everything that was sent has left.

        Raises:
            OSError: the connection broke, or the stream was closed here.
        """
        await trio.lowlevel.checkpoint()
        while self._is_writing_paused or self.unsent:
            if self._writers is None:
                self._writers = trio.Event()
            await self._writers.wait()
        if self._is_lost or self._is_closed:
            raise self._lost_error()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, and wait until it has left.

        Cancellation leaves all of it to be sent or nothing.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
            trio.BusyResourceError: another task is sending.
        """
        with self._sending():
            await self._wait_sent()
            try:
                self.send_nowait(bytes(data))
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            await self._wait_sent()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until everything that was sent has left.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
            trio.BusyResourceError: another task is sending.
        """
        with self._sending():
            await self._wait_sent()

    @contextmanager
    def _sending(self) -> Iterator[None]:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            yield
        finally:
            self._is_sending = False

    async def _wait_sent(self) -> None:
        try:
            await self.wait_writable()
        except OSError as error:
            if self._is_closed:
                raise trio.ClosedResourceError("the stream was closed") from None
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def aclose(self) -> None:
        """Send what waits, and close. If cancelled, close at once."""
        self._is_closed = True
        self._wake_reader()
        transport = self._transport
        if transport is None or self._is_lost:
            await trio.lowlevel.checkpoint()
            return
        if self._gone is None:
            self._gone = trio.Event()
        transport.close()
        try:
            await self._gone.wait()
        finally:
            if not self._is_lost:
                transport.abort()

    def _wake_reader(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            self._guest.wake(reader, Value(b""))

    def _wake_writers(self) -> None:
        if self._writers is not None:
            self._writers.set()
            self._writers = None

    def _lost_error(self) -> OSError:
        if isinstance(self._error, OSError):
            return self._error
        return BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class HostProtocol(asyncio.BufferedProtocol):
    """The plain way from a transport to a `HostStream`."""

    def __init__(self, stream: HostStream, on_connect: Callable[[HostStream], object] | None = None) -> None:
        self.stream = stream
        self._on_connect = on_connect
        self._buffer = memoryview(bytearray(RECEIVE_BUFFER))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream.connection_made(cast(asyncio.Transport, transport))
        if self._on_connect is not None:
            self._on_connect(self.stream)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.stream.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        self.stream.eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream.connection_lost(exc)

    def pause_writing(self) -> None:
        self.stream.pause_writing()

    def resume_writing(self) -> None:
        self.stream.resume_writing()


class HostListener(trio.abc.Listener[HostStream]):
    """Connections that a server of the host loop accepted, for trio's accept loops.

    It does not own that server: whoever made it stops it from accepting.
    """

    def __init__(self) -> None:
        self._arrived: deque[HostStream] = deque()
        self._news = trio.Event()
        self._is_closed = False
        self.refused = 0
        """Connections that were ended at once because a thousand others were waiting to be accepted."""

    def deliver(self, stream: HostStream) -> None:
        """A connection was made: called by its protocol."""
        if self._is_closed or len(self._arrived) >= _UNACCEPTED:
            self.refused += 1
            _abort(stream)
            return
        self._arrived.append(stream)
        self._news.set()

    async def accept(self) -> HostStream:
        """The next connection.

        Raises:
            trio.ClosedResourceError: the listener is closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            if self._is_closed:
                raise trio.ClosedResourceError("the listener was closed")
            if self._news.is_set():
                self._news = trio.Event()
            await self._news.wait()
        return self._arrived.popleft()

    async def aclose(self) -> None:
        """Accept no more; connections that nobody accepted are ended."""
        self._is_closed = True
        self._news.set()
        while self._arrived:
            _abort(self._arrived.popleft())
        await trio.lowlevel.checkpoint()


async def open_host_stream(
    guest: Guest,
    host: str,
    port: int,
    *,
    protocol: Callable[[HostStream], asyncio.BaseProtocol] = HostProtocol,
) -> HostStream:
    """Connect over the host loop's own transports. Called by a trio task of its guest.

    Args:
        guest: the guest that the caller is in.
        host: a name or an IP address.
        port: the TCP port.
        protocol: makes the protocol that feeds the stream.

    Raises:
        OSError: nobody answered, or the answer was no.

    The caller closes the stream. Cancellation leaves nothing open.
    """
    stream = HostStream(guest)

    async def connect() -> Any:
        return await guest.loop.create_connection(lambda: protocol(stream), host, port)

    try:
        await call_asyncio(connect)
    except BaseException:
        _abort(stream)
        raise
    return stream


def _abort(stream: HostStream) -> None:
    if stream._transport is not None:
        stream._transport.abort()


def _peer_name(transport: asyncio.BaseTransport) -> str:
    address = transport.get_extra_info("peername")
    if not isinstance(address, tuple):
        return "unix" if address is not None else "gone"
    host, port = address[:2]
    return address_text(host.partition("%")[0], port)  # the scope of a link-local address is local, too
