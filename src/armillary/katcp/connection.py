"""A client's side of one connection, from the server's greeting to the last reply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from armillary._runtime.dial import peer_name
from armillary._runtime.direct import receiver_of
from armillary._runtime.outbox import Outbox, OutboxStatistics
from armillary.errors import ConnectionClosed

from .informs import InformHub
from .protocol.conversation import Conversation, MessageIds, Pending, ProtocolError
from .protocol.messages import Message, Parser, Reply, WireMessage
from .protocol.values import TypeRegistry

__all__ = ["CLOSE_TIMEOUT", "ClientStatistics", "Connection", "ConnectionLogger", "PendingRequest"]

_logger = logging.getLogger("armillary.katcp.client")

_RECEIVE = 262144
# Unsent bytes above which requests wait, and at which they go on. More lets requests to a stuck server take
# more memory; fewer makes many small requests wait for each other.
_HIGH_WATER = 1024 * 1024
_LOW_WATER = 256 * 1024
# Seconds for requests that are on their way, and for TLS, to say good-bye. Longer holds up a program that
# wants to end; shorter cuts off the last request behind a slow link.
CLOSE_TIMEOUT = 0.5
# Messages handled in a row without letting others run.
_BURST = 500


class ConnectionLogger(logging.LoggerAdapter[logging.Logger]):
    """Appends the server's address to each record."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{msg} [{self.extra['peer'] if self.extra else ''}]", kwargs


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """A look at a client's connection."""

    pending: int
    """Requests without a reply."""
    unexpected: int
    """Replies that belonged to no request, late ones to abandoned requests included."""
    malformed: int
    """Lines from the server that were no messages."""
    outbox: OutboxStatistics
    """What was sent, and what waits."""


class Connection:
    """One connection to a server.

    `run` is its life. It never raises for a connection that ends: `closed` is set, pending requests fail, and
    `reason` says why.

    Args:
        stream: connected; closed when `run` returns.
        nursery: runs the writer; it encloses `run`.
        hub: gets the informs that belong to no request.
        mids: where message ids come from.
        types: how arguments are encoded.
        limit: the longest line accepted, in bytes.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        hub: InformHub,
        mids: MessageIds,
        types: TypeRegistry,
        limit: int,
    ) -> None:
        self._stream = stream
        self._hub = hub
        self._parser = Parser(limit)
        self._conversation = Conversation(mids, types)
        self._scope = trio.CancelScope()
        self.outbox = Outbox(stream, nursery, on_broken=self._on_broken)
        self.peer = peer_name(stream)
        """The server's address."""
        self.logger: logging.LoggerAdapter[logging.Logger] = ConnectionLogger(_logger, {"peer": self.peer})
        """Gets what is odd about the connection, and at DEBUG each message."""
        self.is_negotiated = False
        """Whether the server has said that it speaks our protocol."""
        self.negotiated = trio.Event()
        """Set when the server has said which protocol it speaks, or when the connection has ended."""
        self.closed = trio.Event()
        """Set when the connection has ended."""
        self.reason: Exception | None = None
        """Why the connection ended, or is about to: a `ProtocolError` or a `ConnectionClosed`."""
        self.was_lost = False
        """Whether it broke, as opposed to being closed by somebody."""
        self.on_negotiated: Callable[[Connection], object] | None = None
        """Called once, when the server has said that it speaks our protocol, before anything else it says."""
        self.on_end: Callable[[Connection], object] | None = None
        """Called once, when the connection begins to end."""
        self.malformed = 0
        """Lines from the server that were no messages."""
        self.last_heard = trio.current_time()
        """When the server last sent anything, on the run's clock."""

    @property
    def flags(self) -> frozenset[str]:
        """The flags of the server's protocol; empty until it has said them."""
        return self._conversation.flags or frozenset()

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        return self._conversation.versions

    def statistics(self) -> ClientStatistics:
        """A look at the connection."""
        return ClientStatistics(
            pending=self._conversation.pending,
            unexpected=self._conversation.unexpected,
            malformed=self.malformed,
            outbox=self.outbox.statistics(),
        )

    @property
    def is_usable(self) -> bool:
        """Whether requests can be made."""
        return self.is_negotiated and self.reason is None

    @property
    def pending(self) -> int:
        """Requests without a reply."""
        return self._conversation.pending

    async def run(self) -> None:
        """Read until the connection ends; then close the stream and fail what is pending."""
        try:
            with self._scope:
                await self._read()
        finally:
            self.end(ConnectionClosed("the client was closed"))
            # Shielded inside, with that deadline.
            await self.outbox.finish(trio.current_time() + CLOSE_TIMEOUT)  # noqa: ASYNC102
            self.fail_pending()
            self.closed.set()
            self.negotiated.set()
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()

    def end(self, reason: Exception, *, lost: bool = False) -> None:
        """Begin to end the connection, if nothing else has."""
        if self.reason is None:
            self.reason = reason
            self.was_lost = lost
            if self.on_end is not None:
                self.on_end(self)
            self._scope.cancel(reason=str(reason))

    async def wait_room(self) -> None:
        """Wait until the server has read most of what it was sent."""
        if self.outbox.backlog > _HIGH_WATER:
            await self.outbox.drain(_LOW_WATER)

    def start(self, name: str, arguments: tuple[object, ...]) -> Pending:
        """Send a request; `Pending.on_done` is called when it has its reply or will get none.

        Raises:
            ConnectionClosed: the connection has ended; nothing was sent.
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type.
        """
        if self.reason is not None:
            raise ConnectionClosed(f"not connected: {self.reason}") from self.reason
        alone = self._conversation.pending == 0
        pending = self._conversation.start(name, arguments)
        self._send_outgoing()
        if alone:
            # Others may follow in the same breath; but a request that is alone should not wait for them.
            self.outbox.flush()
        else:
            self.send_soon()
        return pending

    def send_soon(self) -> None:
        """Have what waits sent together with what follows in the same breath."""
        self.outbox.uncork()

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for this reply any more."""
        self._conversation.abandon(pending)

    def error_for(self, pending: Pending) -> ConnectionClosed:
        """What a request that got no reply raises."""
        received = pending.position is not None and self.outbox.may_have_left > pending.position
        text = "it may have been received" if received else "it was not sent"
        error = ConnectionClosed(
            f"the connection to {self.peer} ended before the reply to ?{pending.name.decode('ascii')} came "
            f"({self.reason}); {text}",
            may_have_been_received=received,
        )
        error.__cause__ = self.reason
        return error

    def receive(self, message: WireMessage) -> None:
        """Take a message from the server."""
        try:
            inform = self._conversation.receive(message)
        except ProtocolError as error:
            self.end(error)
            return
        if inform is None:
            return
        if not self.is_negotiated and self._conversation.flags is not None:
            self.is_negotiated = True
            self.negotiated.set()
            if self.on_negotiated is not None:
                self.on_negotiated(self)
        self._hub.dispatch(inform)
        if inform.name == b"disconnect":
            text = b" ".join(inform.arguments).decode("utf-8", "replace")
            self.end(ConnectionClosed(f"the server disconnected: {text}"))

    def fail_pending(self) -> None:
        """Have those who wait for replies told that none will come. Called when the connection has ended."""
        for pending in self._conversation.take_pending():
            if pending.on_done is not None:
                pending.on_done()

    def take(self, data: bytes) -> bool:
        """Receive what a read brought, from outside of trio's tasks: for streams that can hand it over so.

        Only while the reading task waits for it.

        Returns:
            True: the data was taken.
        """
        self.last_heard = trio.current_time()
        self._receive_all(self._parser.append(data))
        self._send_outgoing()
        self.outbox.flush()
        return True

    async def _read(self) -> None:
        receive_some = receiver_of(self._stream)
        logger = self.logger
        while True:
            try:
                data = await receive_some(_RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._on_broken(error)
                return
            self.last_heard = trio.current_time()
            if not data:
                if self._parser.buffer_size:
                    logger.warning("EOF received on connection with partial message")
                self.end(ConnectionClosed("the server closed the connection"))
                return
            messages = self._parser.append(data)
            while len(messages) > _BURST:
                self._receive_all(messages[:_BURST])
                del messages[:_BURST]
                await trio.lowlevel.checkpoint()
            self._receive_all(messages)
            if self.reason is not None and not self.was_lost:
                return
            self._send_outgoing()
            self.outbox.flush()

    def _receive_all(self, messages: list[WireMessage | ValueError]) -> None:
        """Take messages from the server, and lines that were none."""
        receive = self.receiver()
        is_traced = self.logger.isEnabledFor(logging.DEBUG)
        for message in messages:
            if self.reason is not None and not self.was_lost:
                return  # one of us said good-bye: what was said after that concerns nobody
            if isinstance(message, ValueError):
                self._complain(message)
                continue
            if is_traced:
                self.logger.debug("Received message %r", bytes(message))
            receive(message)

    def receiver(self) -> Callable[[WireMessage], object]:
        """What takes the messages of one read."""
        return self.receive

    def _complain(self, error: ValueError) -> None:
        """A line was no message."""
        # Once: a server that sends nothing but garbage must not fill the log.
        level = logging.DEBUG if self.malformed else logging.WARNING
        self.malformed += 1
        self._log_malformed(level, error)

    def _log_malformed(self, level: int, error: ValueError) -> None:
        self.logger.log(level, "Malformed message received: %s", error)

    def _send_outgoing(self) -> None:
        """Give the outbox what is to be sent now, corked: the caller says when it is to leave."""
        self.outbox.cork()
        for pending, encoded in self._conversation.outgoing():
            pending.position = self.outbox.accepted
            self.outbox.send(encoded)
            if self.logger.logger.isEnabledFor(logging.DEBUG):
                self.logger.debug("Sent message %r", encoded)

    def _on_broken(self, error: BaseException) -> None:
        self.outbox.abort()
        cause = error.__cause__ or error
        reason = ConnectionClosed(f"the connection broke: {cause}")
        reason.__cause__ = cause
        self.end(reason, lost=True)


class PendingRequest:
    """A request that was sent, and whose reply is awaited separately: see `Client.start_request`."""

    def __init__(self, connection: Connection, pending: Pending) -> None:
        self._connection = connection
        self._pending = pending
        self._done = trio.Event()
        pending.on_done = self._done.set

    async def wait_raw(self) -> tuple[Message, list[Message]]:
        """Wait for the reply and return it as it came, with the informs that belong to it.

        Cancellation abandons the request: it may still be carried out, and its reply is dropped.

        Raises:
            ConnectionClosed: the connection ended first.
        """
        pending = await self.settle()
        assert pending.reply is not None
        return (
            Message.from_wire(pending.reply),
            [Message.from_wire(inform) for inform in pending.informs],
        )

    async def wait(self) -> Reply:
        """Wait for the reply and return what follows its ``ok``, with the informs that belong to it.

        Cancellation abandons the request: it may still be carried out, and its reply is dropped.

        Raises:
            FailReply: the server said ``fail``.
            InvalidReply: the server said ``invalid``, or something that is no return code.
            ConnectionClosed: the connection ended first.
        """
        return (await self.settle()).result()

    async def settle(self) -> Pending:
        """Wait for the reply and return the request with it, whatever it says, and its informs unconverted.

        Raises:
            ConnectionClosed: the connection ended first.
        """
        try:
            await self._done.wait()
        except BaseException:
            self.abandon()
            raise
        if self._pending.reply is None:
            raise self._connection.error_for(self._pending)
        return self._pending

    def abandon(self) -> None:
        """Wait for the reply no more. It is dropped when it comes."""
        self._connection.abandon(self._pending)
