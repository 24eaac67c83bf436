"""TLS on a socket, by the TLS library's own calls.

`trio.SSLStream` works over any stream; its price is that each byte goes through two buffers in this program
and each call through the scheduler. On a socket the library reads and writes by itself. A connection takes a
fraction of the memory then, and has a non-blocking side.
"""

from __future__ import annotations

import operator
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

import trio

__all__ = ["TlsListener", "TlsSocketStream", "transport_of"]

T = TypeVar("T")

# Bytes that a TLS record carries at most. A read that brings less has brought all there was.
_RECORD = 16384


class TlsSocketStream(trio.abc.Stream):
    """A TLS connection over a TCP or Unix connection, which it takes over.

    The hands are shaken by `do_handshake`, or else by the first bytes that are to be sent or received.

    Args:
        transport: the connection; it is not to be used any more.
        context: what is trusted and shown.
        server_side: whether the other end connects to us.
        server_hostname: whom a client wants to speak with.

    One task receives and one sends at a time, and they do not disturb each other.
    """

    def __init__(
        self,
        transport: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self._transport: trio.SocketStream | None = transport
        self._context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        # Until the handshake, there is none.
        self._tls: ssl.SSLSocket | None = None
        # Whether the library may hold bytes of a record that were not asked for yet.
        self._has_more = False
        # A record that the library has begun to send, and wants to be given again.
        self._held = b""
        self._writing_has_to_read = False
        self._is_broken = False
        self._is_sending = False

    @property
    def socket(self) -> trio.socket.SocketType | ssl.SSLSocket:
        """For its address and its options."""
        if self._tls is not None:
            return self._tls
        assert self._transport is not None
        return self._transport.socket

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The certificate of the other end, after the handshake, as `ssl.SSLSocket.getpeercert` gives it."""
        return self._secured().getpeercert(binary_form)

    def version(self) -> str | None:
        """The version of the protocol, as in ``TLSv1.3``, after the handshake."""
        return self._secured().version()

    # -- beginning and ending ------------------------------------------------------------------------------

    async def do_handshake(self) -> None:
        """Shake hands; nothing if that was done.

        Raises:
            trio.BrokenResourceError: it failed; the cause says why.
            trio.ClosedResourceError: the stream was closed.

        Cancellation leaves the stream fit for nothing but to be closed.
        """
        await trio.lowlevel.checkpoint()
        if self._tls is None:
            self._tls = self._take_over()
            await self._retry(self._tls.do_handshake)

    def _take_over(self) -> ssl.SSLSocket:
        transport, self._transport = self._transport, None
        if transport is None or transport.socket.fileno() == -1:
            raise trio.ClosedResourceError("the stream was closed")
        plain = socket.socket(fileno=transport.socket.detach())
        try:
            plain.setblocking(False)
            return self._context.wrap_socket(
                plain,
                server_side=self._server_side,
                server_hostname=self._server_hostname,
                do_handshake_on_connect=False,
            )
        except (OSError, ValueError) as error:  # the latter of a name that cannot be one
            plain.close()
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def aclose(self) -> None:
        """Say good-bye, if the other end takes it at once, and close. It is not waited for."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.socket.close()
            return
        tls = self._tls
        if tls is None or tls.fileno() == -1:
            return
        if not self._is_broken:
            try:
                tls.unwrap()
            except (OSError, ValueError):
                pass  # it would like to hear an answer, or there is nobody left to hear it
        trio.lowlevel.notify_closing(tls)
        tls.close()

    # -- receiving -----------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; empty when the other end has ended the connection.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
        """
        most = 4 * _RECORD if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError(f"expected to receive at least 1 byte, got {most}")
        if self._tls is None:
            await self.do_handshake()
        tls = self._secured()
        descriptor = tls.fileno()
        if descriptor == -1:
            raise trio.ClosedResourceError("the stream was closed")
        if self._has_more:
            await trio.lowlevel.checkpoint()
        else:
            # First, and not when there turns out to be nothing: most sockets are empty most of the time.
            await trio.lowlevel.wait_readable(descriptor)
        asked = min(most, _RECORD)
        try:
            data = tls.recv(asked)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            data = await self._retry(lambda: tls.recv(asked))
        except OSError as error:
            raise self._broken(error) from error
        self._has_more = len(data) == asked
        if not data or len(data) == most:
            return data
        return self._receive_more(tls, data, most)

    def _receive_more(self, tls: ssl.SSLSocket, data: bytes, most: int) -> bytes:
        """What has come in other records: of a long message, or of many short ones."""
        pieces, size = [data], len(data)
        while size < most:
            asked = min(most - size, _RECORD)
            try:
                data = tls.recv(asked)
            except OSError:
                # There is no more, or the next read says what is wrong.
                self._has_more = False
                break
            # The end is kept for the next read, too.
            self._has_more = not data or len(data) == asked
            if not data:
                break
            pieces.append(data)
            size += len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- sending -------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that were taken, and of whose record some is not the operating system's yet."""
        return len(self._held)

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Take what can be sent at once; return how many bytes that was, perhaps 0.

        Raises:
            OSError: the connection is broken, or the stream was closed here.
        """
        view = memoryview(data)
        taken = 0
        while taken < len(view) and self._flush():
            # By records: of more, the library would not say how much has left when the rest has to wait.
            record = view[taken : taken + _RECORD]
            if not self._offer(record):
                # It has to be offered again as it is, whatever else is to be sent then.
                self._held = bytes(record)
            taken += len(record)
        return taken

    def _flush(self) -> bool:
        """Offer again what was not sent; return whether there is nothing left of it."""
        if self._held and self._offer(self._held):
            self._held = b""
        return not self._held

    def _offer(self, record: bytes | memoryview) -> bool:
        """Send a record, if there is room for it."""
        try:
            self._secured().send(record)
        except ssl.SSLWantWriteError:
            self._writing_has_to_read = False
            return False
        except ssl.SSLWantReadError:
            self._writing_has_to_read = True
            return False
        except OSError:
            self._is_broken = True
            raise
        return True

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` may take something, and what it took before is the operating system's.

        Raises:
            OSError: the connection broke meanwhile.
            trio.ClosedResourceError: the stream was closed here.
        """
        await self._wait_writable()
        while not self._flush():
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        tls = self._secured()
        if tls.fileno() == -1:
            raise trio.ClosedResourceError("the stream was closed")
        if self._writing_has_to_read:
            await trio.lowlevel.wait_readable(tls)
        else:
            await trio.lowlevel.wait_writable(tls)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: the stream was closed here.
        """
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending")
        self._is_sending = True
        try:
            await self.do_handshake()
            await self._send_all(memoryview(data))
        finally:
            self._is_sending = False

    async def _send_all(self, view: memoryview) -> None:
        if self._secured().fileno() == -1:
            raise trio.ClosedResourceError("the stream was closed")
        try:
            view = view[self.send_nowait(view) :]
            while view or self._held:
                await self.wait_writable()
                view = view[self.send_nowait(view) :]
        except OSError as error:
            raise self._broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """As `wait_writable`."""
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending")
        try:
            await self.wait_writable()
        except OSError as error:
            raise self._broken(error) from error

    # -- inside --------------------------------------------------------------------------------------------

    def _secured(self) -> ssl.SSLSocket:
        if self._tls is None:
            raise trio.ClosedResourceError("the stream was closed, or there was no handshake")
        return self._tls

    async def _retry(self, operation: Callable[[], T]) -> T:
        """Do what may have to wait."""
        tls = self._secured()
        while True:
            if tls.fileno() == -1:
                raise trio.ClosedResourceError("the stream was closed")
            try:
                return operation()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
            except (OSError, ValueError) as error:  # certificates that make no sense are a ValueError
                raise self._broken(error) from error

    def _broken(self, error: Exception) -> trio.BrokenResourceError:
        self._is_broken = True
        return trio.BrokenResourceError(f"the connection broke: {error}")


class TlsListener(trio.abc.Listener[TlsSocketStream]):
    """Makes every connection that a listener accepts a TLS one. The handshake is left to whoever gets it."""

    def __init__(
        self, transport_listener: trio.abc.Listener[trio.SocketStream], context: ssl.SSLContext
    ) -> None:
        self.transport_listener = transport_listener
        self._context = context

    async def accept(self) -> TlsSocketStream:
        """As the listener inside."""
        return TlsSocketStream(await self.transport_listener.accept(), self._context, server_side=True)

    async def aclose(self) -> None:
        """Close the listener inside."""
        await self.transport_listener.aclose()


def transport_of(stream: trio.abc.Stream) -> Any:
    """The socket below a stream, for its addresses and options; None if there is none."""
    if isinstance(stream, trio.SSLStream):
        return transport_of(stream.transport_stream)
    return stream.socket if isinstance(stream, trio.SocketStream | TlsSocketStream) else None
