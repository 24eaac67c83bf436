"""A client that finds its server again."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text, open_stream
from armillary._runtime.groups import single_exception
from armillary._runtime.mailbox import Mailbox
from armillary._wire.backoff import Backoff
from armillary.errors import ArmillaryError, ConnectFailed, ConnectionClosed

from .client import Client, keep_connection_alive, wait_negotiated
from .connection import Connection
from .informs import InformHub
from .mirror import Mirrors
from .protocol.lifecycle import ClientEvent, ClientState, Lifecycle
from .protocol.messages import DEFAULT_LIMIT
from .protocol.values import STANDARD_TYPES, TypeRegistry

__all__ = ["PersistentClient", "open_persistent_client"]

# States that may wait for a reader of `PersistentClient.states`. More is of no use to anybody; fewer loses
# states when a reader is busy for some seconds and its server comes and goes.
_STATES = 100

Dial = Callable[[], Awaitable[trio.abc.Stream]]
StateCallback = Callable[[ClientState], object]


class PersistentClient(Client):
    """A client that connects again, for as long as its block lasts. Made by `open_persistent_client`.

    Informs, callbacks and mirrors go on over reconnections. Requests do not: one that gets no reply because
    the connection ended fails with `ConnectionClosed` and is never repeated on its own.
    """

    def __init__(
        self,
        types: TypeRegistry,
        dial: Dial,
        where: str,
        backoff: Backoff,
        *,
        reconnects: bool = True,
        hub: InformHub | None = None,
        mirrors: Mirrors | None = None,
    ) -> None:
        super().__init__(types, hub=hub, mirrors=mirrors)
        self._dial = dial
        self._where = where
        self._backoff = backoff
        self._lifecycle = Lifecycle(reconnects=reconnects)
        self._life = trio.CancelScope()
        self._underway: Connection | None = None
        self._state_changed = trio.Event()
        self._callbacks: list[StateCallback] = []
        self._state_mailboxes: dict[Mailbox[ClientState], None] = {}
        self.last_error: Exception | None = None
        """Why there is no connection; None while there is one."""
        self.connections = 0
        """How many times a server was found so far."""

    @property
    def state(self) -> ClientState:
        """Where the client is between two connections."""
        return self._lifecycle.state

    async def wait_connected(self) -> None:
        """Wait until requests can be made. They may have become impossible again when this returns.

        Raises:
            ConnectionClosed: the client was closed.
            Exception: `last_error`, of a client that does not connect again.
        """
        await self.wait_state(ClientState.CONNECTED, ClientState.CLOSED)
        if self.state is ClientState.CLOSED:
            assert self.last_error is not None
            raise self.last_error

    async def wait_disconnected(self) -> None:
        """Wait until there is no connection."""
        await self.wait_state(ClientState.SLEEPING, ClientState.CONNECTING, ClientState.CLOSED)

    async def wait_state(self, *states: ClientState) -> ClientState:
        """Wait until the client is in one of these states, and return it."""
        await trio.lowlevel.checkpoint()
        while self.state not in states:
            await self._state_changed.wait()
        return self.state

    @contextmanager
    def states(self) -> Iterator[Mailbox[ClientState]]:
        """Iterate over the states: the present one, then each as it comes.

        ::

            with client.states() as states:
                async for state in states:
                    print(state.name)

        A reader that falls 100 states behind loses the oldest. The loop ends after `CLOSED`.
        """
        mailbox: Mailbox[ClientState] = Mailbox(_STATES)
        mailbox.put(self.state)
        self._state_mailboxes[mailbox] = None
        try:
            yield mailbox
        finally:
            del self._state_mailboxes[mailbox]

    def add_state_callback(self, callback: StateCallback) -> None:
        """Call ``callback(state)`` at once with every new state, before those who wait for it run."""
        self._callbacks.append(callback)

    def remove_state_callback(self, callback: StateCallback) -> None:
        """Undo `add_state_callback`. Raises ValueError if it was not there."""
        self._callbacks.remove(callback)

    def close(self) -> None:
        """Begin to close: nothing more can be asked, and no attempt to connect follows.

        The client is CLOSED at once if there is no connection, and when it is down if there is one. `run`
        then returns. Leaving the block of `open_persistent_client` does all that and waits.
        """
        self._mirrors.close()
        self._hub.close()
        if self._lifecycle.is_closing or self.state is ClientState.CLOSED:
            return
        self._lifecycle.is_closing = True
        reason = ConnectionClosed("the client was closed")
        self.last_error = reason
        if self._underway is not None:
            self._underway.end(reason)
        self._advance(ClientEvent.CLOSE)
        self._life.cancel(reason="the client was closed")

    async def run(self, limit: int, connect_timeout: float, keep_alive: float) -> None:
        """Connect, and connect again, until closed or cancelled. Part of `open_persistent_client`."""
        try:
            with self._life:
                while True:
                    stream = await self._connect()
                    if stream is not None:
                        await self._use(stream, limit, connect_timeout, keep_alive)
                    if self.state is ClientState.CLOSED:
                        break
                    await trio.sleep(self._backoff.next())
                    self._advance(ClientEvent.TIMER)
        finally:
            if self.state is not ClientState.CLOSED:  # cancelled
                self.last_error = ConnectionClosed("the client was closed")
                self._advance(ClientEvent.CLOSE)
                self._advance(ClientEvent.STREAM_DOWN)
            for mailbox in self._state_mailboxes:
                mailbox.close()

    def make_connection(self, stream: trio.abc.Stream, nursery: trio.Nursery, limit: int) -> Connection:
        """The connection that a stream is used for."""
        return Connection(stream, nursery, self._hub, self._mids, self._types, limit)

    async def _connect(self) -> trio.abc.Stream | None:
        try:
            stream = await self._dial()
        except ConnectFailed as error:
            self.last_error = error
            self._advance(ClientEvent.FAILED)
            return None
        self._advance(ClientEvent.STREAM_UP)
        return stream

    async def _use(self, stream: trio.abc.Stream, limit: int, timeout: float, keep_alive: float) -> None:
        """Negotiate, serve the connection, and return when it has ended."""
        try:
            async with trio.open_nursery() as nursery:
                connection = self._underway = self.make_connection(stream, nursery, limit)
                connection.on_negotiated = self._connection_negotiated
                connection.on_end = self._connection_ends
                nursery.start_soon(connection.run, name="armillary katcp connection")
                try:
                    await wait_negotiated(connection, timeout, self._where)
                except ArmillaryError as error:
                    if not self._lifecycle.is_closing:
                        self.last_error = error
                else:
                    nursery.start_soon(keep_connection_alive, connection, keep_alive)
                    nursery.start_soon(self._mirrors.run, connection)
                    await connection.closed.wait()
                    nursery.cancel_scope.cancel(reason="the connection has ended")
        finally:
            self._underway = None
            if trio.current_effective_deadline() == -math.inf:  # cancelled: no attempt will follow
                self._advance(ClientEvent.CLOSE)
            self._advance(ClientEvent.STREAM_DOWN)

    def _connection_negotiated(self, connection: Connection) -> None:
        """Requests can be made on it."""
        self._connection = connection
        self.last_error = None
        self.connections += 1
        self._backoff.reset()
        self._advance(ClientEvent.NEGOTIATED)
        if connection.reason is None:
            self._mirrors.begin()

    def _connection_ends(self, connection: Connection) -> None:
        """The connection has begun to end: nothing more can be asked on it."""
        self.last_error = connection.reason
        self._advance(ClientEvent.LOST if connection.was_lost else ClientEvent.PARTED)
        self._mirrors.end()

    def _advance(self, event: ClientEvent) -> None:
        if self._lifecycle.advance(event):
            state = self.state
            for callback in tuple(self._callbacks):
                callback(state)
            for mailbox in self._state_mailboxes:
                mailbox.put(state)
            changed, self._state_changed = self._state_changed, trio.Event()
            changed.set()


@asynccontextmanager
async def open_persistent_client(
    host: str,
    port: int | None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    keep_alive: float = math.inf,
    types: TypeRegistry = STANDARD_TYPES,
    backoff: Backoff | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[PersistentClient]:
    """Stay connected to a server for the length of a block, through its absences.

    The block begins at once, connected or not: await `PersistentClient.wait_connected` where that matters.

    Args:
        host: as for `open_client`.
        port: as for `open_client`.
        ssl_context: as for `open_client`.
        limit: as for `open_client`.
        connect_timeout: seconds for each attempt to connect, and for the server to say its protocol.
        keep_alive: as for `open_client`.
        types: as for `open_client`.
        backoff: the delays between attempts; uniformly random in 0.5-1 s, then 1-2 s, up to 30-60 s, and
            from the start again after a success, if None.
        dial: makes the stream of each attempt; connects to `host` and `port` if None. It raises
            `ConnectFailed` when it cannot.

    Nothing that happens to a connection raises in the block. Leaving the block closes the connection as
    `open_client` does, and lets the block's own exception out as it is.
    """

    async def dial_host() -> trio.abc.Stream:
        return await open_stream(host, port, ssl_context=ssl_context, timeout=connect_timeout)

    where = address_text(host, port)
    # Not for secrets: spreads the attempts of many clients.
    backoff = Backoff(random.uniform) if backoff is None else backoff
    client = PersistentClient(types, dial_host if dial is None else dial, where, backoff)
    with single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run, limit, connect_timeout, keep_alive)
            try:
                yield client
            finally:
                client.close()
                nursery.cancel_scope.cancel(reason="the client's block was left")
