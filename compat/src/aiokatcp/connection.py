"""A KATCP connection as an asyncio protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from armillary.katcp.protocol.messages import (
    DEFAULT_LIMIT,
    FailReply,
    InvalidReply,
    Parser,
)
from armillary_compat.streams import RECEIVE_BUFFER, HostStream

from ._handlers import wrap_handler
from .core import Address, Message

if TYPE_CHECKING:
    from armillary._runtime.outbox import Outbox

__all__ = [
    "DEFAULT_LIMIT",
    "Connection",
    "ConnectionLoggerAdapter",
    "FailReply",
    "InvalidReply",
    "wrap_handler",
]

logger = logging.getLogger(__name__)


class ConnectionLoggerAdapter(logging.LoggerAdapter[logging.Logger]):
    """Appends the other end's address to each record."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        address = self.extra["address"] if self.extra else ""
        return f"{msg} [{address}]", kwargs


C = TypeVar("C", contravariant=True)


class ConnectionOwner(Protocol[C]):
    """Whom a `Connection` tells of what happens on it."""

    def _connection_made(self, conn: C) -> None: ...

    def _connection_lost(self, conn: C, exc: Exception | None) -> None: ...

    def _eof_received(self, conn: C) -> bool: ...

    def handle_message(self, conn: C, msg: Message) -> None: ...


Owner = TypeVar("Owner", bound="ConnectionOwner[Any]")


class Connection(asyncio.BufferedProtocol, Generic[Owner]):
    """One connection, as an asyncio protocol.

    On its own it parses what arrives and hands each message to ``owner.handle_message``. The connections of
    a `DeviceServer` or `Client` carry the bytes to armillary instead, which hands the messages back.

    Args:
        owner: whom it tells.
        is_server: whether the other end is a client, who is told of malformed lines.
        limit: the longest line accepted, in bytes.
    """

    def __init__(self, owner: Owner, is_server: bool, limit: int) -> None:
        self.owner = owner
        self.is_server = is_server
        self.address: Address | None = None
        """The address of the other end."""
        self.logger: logging.LoggerAdapter[logging.Logger] = ConnectionLoggerAdapter(
            logger, {"address": "unconnected"}
        )
        self._limit = limit
        self._parser = Parser(limit)
        self._buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._drained: asyncio.Future[None] | None = None
        self._is_writing_paused = False
        self._is_closing = False
        self._was_warned = False
        self._error: Exception | None = None
        # Set on connections that armillary reads and writes.
        self._stream: HostStream | None = None
        self._outbox: Outbox | None = None

    # -- the asyncio protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)
        self.address = _address(transport.get_extra_info("peername"))
        self.logger = ConnectionLoggerAdapter(logger, {"address": self.address})
        if self._stream is not None:
            self._stream.connection_made(self._transport)
        self.owner._connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """That many bytes were put there."""
        data = bytes(self._buffer[:nbytes])
        if self._stream is not None:
            self._stream.data_received(data)
            return
        for message in self._parser.append(data):
            if isinstance(message, ValueError):
                self._complain(message)
            else:
                self._hand_over(Message.from_wire(message))

    def eof_received(self) -> bool:
        """The other end will send no more. Return whether our side stays open."""
        if self._stream is not None:
            self._stream.eof_received()
            return True
        if self._parser.buffer_size:
            self.logger.warning("EOF received on connection with partial message")
        stays_open = self.owner._eof_received(self)
        self._is_closing = self._is_closing or not stays_open
        return stays_open

    def pause_writing(self) -> None:
        """The transport holds more than it should."""
        self._is_writing_paused = True
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        """The transport takes more again."""
        self._is_writing_paused = False
        if self._stream is not None:
            self._stream.resume_writing()
        self._settle_drain(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._is_closing = True
        self._error = exc
        self._is_writing_paused = False
        if self._stream is not None:
            self._stream.connection_lost(exc)
        self._settle_drain(exc)
        self._closed.set()
        self.owner._connection_lost(self, exc)

    # -- writing ------------------------------------------------------------------------------------------

    def write_message(self, msg: Message) -> None:
        """Send a message. A connection that is closed or broken drops it, and says so in the log, once."""
        self.write_messages((msg,))

    def write_messages(self, msgs: Iterable[Message]) -> None:
        """Send messages together, as `write_message` does."""
        msgs = tuple(msgs)
        data = b"".join(map(bytes, msgs))
        if self.is_closing() or self._transport is None:
            if data:
                self.warn_unsent()
            return
        if self._outbox is not None:
            self._outbox.send(data)
            self._outbox.flush()
            return
        if self.logger.isEnabledFor(logging.DEBUG):
            for msg in msgs:
                self.logger.debug("Sent message %r", bytes(msg))
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the other end has read enough for more to be sent; at once if it has.

        Raises:
            OSError: the connection broke meanwhile.
        """
        if not self._is_writing_paused:
            return
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        # Shielded: several may wait for the same.
        await asyncio.shield(self._drained)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        if self._transport is None or self._closed.is_set():
            return 0
        # The outbox counts what its stream holds.
        return self._transport.get_write_buffer_size() if self._outbox is None else self._outbox.backlog

    # -- reading ------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Take no more from the system until `resume_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- ending -------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the connection was closed, here or there, or was lost."""
        return self._is_closing

    def close(self) -> None:
        """Send what waits, then close. Returns at once; `wait_closed` waits."""
        self._is_closing = True
        if self._transport is not None and not self._closed.is_set():
            self._transport.close()

    def abort(self) -> None:
        """Close at once, and drop what waits."""
        self._is_closing = True
        # Asyncio's transports do not take it well when they are gone already.
        if self._transport is not None and not self._closed.is_set():
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._closed.wait()

    # -- inside -------------------------------------------------------------------------------------------

    def _hand_over(self, message: Message) -> None:
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug("Received message %r", bytes(message))
        try:
            self.owner.handle_message(self, message)
        except Exception:
            self.logger.exception("Exception in message handler")

    def _complain(self, error: ValueError) -> None:
        """A line was no message."""
        self.logger.warning("Malformed message received", exc_info=error)
        if self.is_server:
            self.write_message(Message.inform("log", "error", time.time(), __name__, str(error)))

    def warn_unsent(self) -> None:
        """Say once that something could not be sent."""
        if self._was_warned:
            return
        self._was_warned = True
        if self._error is None:
            self.logger.warning("Connection closed before message could be sent")
        else:
            self.logger.warning("Connection closed before message could be sent: %s", self._error)

    def _settle_drain(self, error: Exception | None) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            if error is None:
                drained.set_result(None)
            else:
                drained.set_exception(error)
                drained.exception()  # looked at, should those who wait have been cancelled


def _address(peer: Any) -> Address | None:
    """A peer's address, as far as it has one: not over a Unix socket, nor on a loop with hosts of its own."""
    try:
        host, port, *_ = peer
        # Without the scope of a link-local address, which is local, too.
        return Address(ip_address(host.partition("%")[0]), port)
    except (TypeError, ValueError, AttributeError):
        return None
