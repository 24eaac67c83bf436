"""A client's side of one connection, from the server's greeting to the last reply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import trio

from armillary._runtime.dial import peer_name
from armillary._runtime.direct import receiver_of
from armillary._runtime.outbox import Outbox, OutboxStatistics
from armillary.errors import ConnectionClosed

from .informs import InformHub
from .protocol.conversation import Conversation, MessageIds, Pending, ProtocolError
from .protocol.messages import Message, Parser, Reply
from .protocol.values import TypeRegistry

__all__ = ["CLOSE_TIMEOUT", "ClientStatistics", "Connection", "PendingRequest"]

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
        self.negotiated = trio.Event()
        """Set when the server has said which protocol it speaks, or when the connection has ended."""
        self.closed = trio.Event()
        """Set when the connection has ended."""
        self.reason: Exception | None = None
        """Why the connection ended, or is about to: a `ProtocolError` or a `ConnectionClosed`."""
        self.was_lost = False
        """Whether it broke, as opposed to being closed by somebody."""
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
        return self._conversation.flags is not None and self.reason is None

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
            self._fail_pending()
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
        return pending

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

    async def _read(self) -> None:
        conversation = self._conversation
        dispatch = self._hub.dispatch
        receive = receiver_of(self._stream)
        while True:
            try:
                data = await receive(_RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._on_broken(error)
                return
            self.last_heard = trio.current_time()
            if not data:
                self.end(ConnectionClosed("the server closed the connection"))
                return
            for count, message in enumerate(self._parser.append(data), start=1):
                if isinstance(message, ValueError):
                    # Once: a server that sends nothing but garbage must not fill the log.
                    level = logging.DEBUG if self.malformed else logging.WARNING
                    self.malformed += 1
                    _logger.log(level, "Malformed message received: %s [%s]", message, self.peer)
                    continue
                try:
                    inform = conversation.receive(message)
                except ProtocolError as error:
                    self.end(error)
                    return
                if inform is not None:
                    if inform.name == b"disconnect":
                        text = b" ".join(inform.arguments).decode("utf-8", "replace")
                        dispatch(inform)
                        self.end(ConnectionClosed(f"the server disconnected: {text}"))
                        return
                    dispatch(inform)
                if count % _BURST == 0:
                    await trio.lowlevel.checkpoint()
            if conversation.flags is not None and not self.negotiated.is_set():
                self.negotiated.set()
            self._send_outgoing()

    def _send_outgoing(self) -> None:
        for pending, encoded in self._conversation.outgoing():
            pending.position = self.outbox.accepted
            self.outbox.send(encoded)

    def _on_broken(self, error: BaseException) -> None:
        self.outbox.abort()
        self.end(ConnectionClosed(f"the connection broke: {error.__cause__ or error}"), lost=True)

    def _fail_pending(self) -> None:
        for pending in self._conversation.take_pending():
            if pending.on_done is not None:
                pending.on_done()


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
