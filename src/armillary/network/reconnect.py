"""Clients and services that stay with their manager through its absences.

Who starts first does not matter, and neither does who restarts. Between attempts there are pauses that grow,
so that a manager which comes back is not overrun. What was pending when a connection was lost has failed, and
is never repeated here: only the caller can know whether it may be carried out twice.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text
from armillary._runtime.groups import single_exception
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed

from .client import CLIENT_FEATURES, PORT, Client
from .connection import DEFAULT_LIMIT, AskSomebody, Connection, wait_accepted
from .errors import LinkRefused, Rejected, ServiceGone
from .protocol.codec import Codec
from .protocol.device_handshake import Credentials
from .protocol.payloads import TEXT_CODEC
from .service_link import ServiceLink
from .tls.trust import NoTls, TrustError
from .trusting import Trust, dial_manager

__all__ = ["Dial", "PersistentClient", "make_backoff", "open_persistent_client", "stay_connected"]

_logger = logging.getLogger("armillary.network")

# Seconds between two looks whether a service is there, and still the same one. Longer finds out later that it
# was restarted, and misses its notifications until then; shorter asks the manager more often.
LOOK_INTERVAL = 5.0
# The same while it is not there, or does not let us in.
WAIT_INTERVAL = 0.5

Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes the stream of an attempt; raises `ConnectFailed` when it cannot."""


def is_final(error: ConnectFailed, *, was_connected: bool) -> bool:
    """Whether trying again makes no sense, as long as nobody has changed something."""
    if isinstance(error, Rejected):
        # The manager may not have noticed yet that the last connection of this name is gone.
        return not (was_connected and error.type_name == "NameError")
    return isinstance(error, TrustError | NoTls)


def make_backoff() -> Backoff:
    """The pauses between attempts, in seconds: 0.5-1, then 1-2, up to 30-60."""
    return Backoff(random.uniform)  # not for secrets: spreads the attempts of many devices


async def stay_connected(
    dial: Dial,
    make: Callable[[trio.abc.Stream, trio.Nursery], Connection],
    use: Callable[[Connection], Awaitable[bool]],
    *,
    where: str,
    timeout: float,
    backoff: Backoff | None,
    on_failure: Callable[[ConnectFailed], object] = lambda error: None,
) -> None:
    """Connect, and connect again, until `use` has had enough.

    Args:
        dial: makes the stream of each attempt.
        make: makes a connection of it.
        use: called with each connection that the manager has accepted. It returns when that has ended, or
            True if there is to be no other.
        where: the manager's address, for error texts.
        timeout: seconds for the manager to accept the device.
        backoff: the pauses between attempts; if None, there is only one.
        on_failure: called with what has failed, before another attempt.

    Raises:
        ConnectFailed: the only attempt failed, or no other can succeed.
    """
    was_connected = False
    while True:
        failure: ConnectFailed | None = None
        try:
            stream = await dial()
        except ConnectFailed as error:
            failure = error
        else:
            async with trio.open_nursery() as nursery:
                connection = make(stream, nursery)
                nursery.start_soon(connection.run, name="armillary network connection")
                try:
                    await wait_accepted(connection, timeout, where)
                    was_connected = True
                    if backoff is not None:
                        backoff.reset()
                    is_over = await use(connection)
                except ConnectFailed as error:
                    failure = error
                    is_over = False
                connection.end(ConnectionClosed("the connection was closed"))
                await connection.closed.wait()
            if is_over:
                return
        if failure is not None:
            if backoff is None or is_final(failure, was_connected=was_connected):
                raise failure
            on_failure(failure)
        if backoff is None:
            return
        await trio.sleep(backoff.next())


class PersistentClient(Client):
    """A `Client` that connects again when its connection ends. Made by `open_persistent_client`.

    Without a connection, everything that asks raises `ConnectionClosed` at once, except that entering the
    block of `link` waits until the manager and the service are there. A link is made again on each new
    connection, and when its service was restarted, and loops over its notifications go on; what was told
    meanwhile is lost. For locks, see `Link.lock`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.connections = 0
        """How many connections there were, the present one included."""
        self.last_error: ConnectFailed | ConnectionClosed | None = None
        """Why there is no connection; None if there is one, or was none yet."""
        self._changed = trio.Event()
        self._look = trio.Event()

    async def wait_connected(self) -> None:
        """Wait until there is a connection."""
        await trio.lowlevel.checkpoint()
        while not self.is_connected:
            await self._changed.wait()

    async def wait_disconnected(self) -> None:
        """Wait until there is no connection."""
        await trio.lowlevel.checkpoint()
        while self.is_connected:
            await self._changed.wait()

    async def establish(self, shared: ServiceLink) -> None:
        """Link with a service as soon as it is there."""
        while True:
            await self.wait_connected()
            try:
                await shared.establish(self.usable_connection())
            except ServiceGone:
                await trio.sleep(WAIT_INTERVAL)
            except ConnectionClosed:
                await self.wait_disconnected()
            else:
                return

    async def use(self, connection: Connection) -> bool:
        """The manager has accepted the client: have the links again, for as long as this lasts."""
        self.connection = connection
        self.last_error = None
        self.connections += 1
        self._change()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_links, connection)
            await connection.closed.wait()
            nursery.cancel_scope.cancel(reason="the connection has ended")
        return False

    def failed(self, error: ConnectFailed) -> None:
        """An attempt was in vain."""
        self.last_error = error
        _logger.debug("client %r: %s", self.name, error)

    def unlinked(self, service: str, why: str) -> None:
        """A service has gone, and its links with it: have them again as soon as it is back."""
        shared = self._links.get(service)
        if shared is not None:
            shared.service_gone(why, links_again=True)
            self._look.set()

    def connection_ends(self, connection: Connection) -> None:
        """There is no connection from now on."""
        super().connection_ends(connection)
        if connection is self.connection:
            reason = connection.reason
            self.last_error = reason if isinstance(reason, ConnectFailed | ConnectionClosed) else None
            self._change()

    async def _keep_links(self, connection: Connection) -> None:
        while True:
            has_all = True
            for shared in list(self._links.values()):
                try:
                    await shared.refresh(connection)
                except (ServiceGone, LinkRefused):
                    has_all = False  # it may come, or let us in, later
                except ConnectionClosed:
                    return
            with trio.move_on_after(LOOK_INTERVAL if has_all else WAIT_INTERVAL):
                await self._look.wait()
                # The service that has gone will not be back before that.
                self._look = trio.Event()
                await trio.sleep(WAIT_INTERVAL)

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@asynccontextmanager
async def open_persistent_client(
    host: str = "localhost",
    port: int | None = PORT,
    *,
    name: str = "Client",
    trust: Trust | None = Trust(),  # noqa: B008 - immutable
    credentials: Credentials | None = None,
    ask: AskSomebody | None = None,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    codec: Codec = TEXT_CODEC,
    features: Collection[str] = CLIENT_FEATURES,
    backoff: Backoff | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[PersistentClient]:
    """Stay connected to a manager for the length of a block, through its absences.

    The block begins at once, connected or not: entering a link waits for it, and so does
    `PersistentClient.wait_connected`.

    Args:
        host: as for `open_client`, and so on.
        port: of the manager, or None.
        name: what the client calls itself.
        trust: whose certificates are trusted; None is no TLS.
        credentials: what to answer on each connection. What a person was asked for is remembered there.
        ask: asks a person.
        limit: the largest packet accepted, in bytes.
        connect_timeout: seconds for each attempt.
        codec: how values are written for managers of 1.0.
        features: what to use beyond 1.0, if the manager can.
        backoff: the pauses between attempts; `make_backoff` if None.
        dial: makes the stream of each attempt; connects to `host` and `port` if None.

    Raises:
        ConnectFailed: no attempt can succeed: the manager does not accept the client (`Rejected`), or its
            certificate is not trusted. The block is cancelled then, and this comes out of it.

    Nothing else that happens to a connection raises in the block. Leaving it closes the connection as
    `open_client` does, and lets the block's own exception out as it is.
    """

    async def dial_manager_at_host() -> trio.abc.Stream:
        return await dial_manager(host, port, trust=trust, timeout=connect_timeout)

    client = PersistentClient(name)
    known = Credentials() if credentials is None else credentials

    def make(stream: trio.abc.Stream, nursery: trio.Nursery) -> Connection:
        return Connection(
            stream,
            nursery,
            identify=client.identity,
            credentials=known,
            ask=ask,
            features=features,
            limit=limit,
            codec=codec,
            on_notification=client.take_notification,
            on_lock_lost=client.lock_lost,
            on_unlinked=client.unlinked,
            on_end=client.connection_ends,
        )

    async def run() -> None:
        await stay_connected(
            dial or dial_manager_at_host,
            make,
            client.use,
            where=address_text(host, port),
            timeout=connect_timeout,
            backoff=make_backoff() if backoff is None else backoff,
            on_failure=client.failed,
        )

    with single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, name="armillary persistent client")
            try:
                yield client
            finally:
                client.close_readers()
                nursery.cancel_scope.cancel(reason="the client's block was left")
