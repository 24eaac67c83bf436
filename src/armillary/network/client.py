"""A client: links with services, by name, through a manager."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text
from armillary._runtime.groups import single_exception
from armillary.errors import ConnectionClosed

from .connection import DEFAULT_LIMIT, AskSomebody, Connection, ConnectionStatistics, wait_accepted
from .link import Link, open_link
from .protocol.codec import Codec
from .protocol.device_handshake import Credentials
from .protocol.features import BINARY, CANCEL, EXCEPTION, PING, STREAM
from .protocol.identities import Identity
from .protocol.packets import Notification
from .protocol.payloads import TEXT_CODEC
from .service_link import ServiceLink, request_of_manager
from .trusting import Trust, dial_manager

__all__ = ["PORT", "Client", "open_client", "open_client_on"]

PORT = 1875
"""Where managers listen."""
CLIENT_FEATURES = frozenset({BINARY, CANCEL, EXCEPTION, PING, STREAM})
"""What clients can do beyond 1.0, if the manager can, too."""


class Client:
    """A client of one manager. Made by `open_client` and its relatives.

    Everything belongs to the thread of the trio run. Requests may be made by any number of tasks at once;
    their order on the wire is the order of the calls. None has a time-out: use ``trio.fail_after``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        """What the client calls itself. Others may be called the same."""
        self.connection: Connection | None = None
        """The present connection, or the last one."""
        self._links: dict[str, ServiceLink] = {}

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self.connection is not None and self.connection.is_usable

    @property
    def network_name(self) -> str | None:
        """``NAME[HOST:PORT]``, as the manager knows this client; of the last connection."""
        return None if self.connection is None else self.connection.network_name

    @property
    def manager_name(self) -> str | None:
        """What the manager calls itself, ``Manager[HOST:PORT]``."""
        return None if self.connection is None else self.connection.manager_name

    def statistics(self) -> ConnectionStatistics | None:
        """A look at the present connection, or at the last one; None if there has been none."""
        return None if self.connection is None else self.connection.statistics()

    def link(self, service: str) -> AbstractAsyncContextManager[Link]:
        """Link with a service for the length of a block.

        ::

            async with client.link("DMM") as dmm:
                print(await dmm.voltage())

        Several links with one service are one for the manager; it ends with the last of the blocks.

        Raises:
            ServiceGone: there is no such service.
            LinkRefused: the service is locked, has as many clients as it wants, or the user may not.
            ConnectionClosed: there is no connection, or it ended first.
        """
        return open_link(self, self._links, service)

    async def identities(self) -> dict[str, Any]:
        """Who is connected to the manager, and what it says of itself.

        `identities_as_text` makes something for people of it.

        Raises:
            ConnectionClosed: there is no connection, or it ended first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        answer = await request_of_manager(self.usable_connection(), "identity")
        return answer if isinstance(answer, dict) else {}

    async def admin(self, attribute: str, /, *args: object, **kwargs: object) -> Any:
        """Ask the manager for something that only administrators may have.

        If this connection has not logged in, the manager asks for a user first: give `open_client` the
        credentials, or somebody to ask.

        Args:
            attribute: a dotted path, e.g. ``users_table.usernames``, or ``shutdown_manager``.
            args: for what the path names.
            kwargs: likewise.

        Raises:
            RemoteError: the manager refused it, or it failed. After wrong credentials the connection ends.
            ConnectionClosed: there is no connection, or it ended first, except by ``shutdown_manager``, which
                returns None then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await request_of_manager(self.usable_connection(), attribute, args, kwargs)

    def usable_connection(self) -> Connection:
        """The connection, if requests can be made.

        Raises:
            ConnectionClosed: they cannot.
        """
        connection = self.connection
        if connection is None or not connection.is_usable:
            reason = None if connection is None else connection.reason
            raise ConnectionClosed(
                "not connected to the manager"
                if reason is None
                else f"not connected to the manager: {reason}"
            ) from reason
        return connection

    async def establish(self, shared: ServiceLink) -> None:
        """Link with a service now, or raise."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await shared.establish(self.usable_connection())

    def take_notification(self, notification: Notification) -> None:
        """A service has told something."""
        shared = self._links.get(notification.service)
        if shared is not None:
            shared.take(notification)

    def lock_lost(self, service: str, why: str) -> None:
        """The manager has taken a lock away."""
        shared = self._links.get(service)
        if shared is not None:
            shared.lock_taken(why)

    def unlinked(self, service: str, why: str) -> None:
        """A service has gone, and its links with it."""
        shared = self._links.get(service)
        if shared is not None:
            shared.service_gone(why, links_again=False)

    def connection_ends(self, connection: Connection) -> None:
        """Links and locks went with it."""
        for shared in self._links.values():
            shared.connection_ended(connection.reason)

    def close_readers(self) -> None:
        """Loops over notifications end."""
        for shared in self._links.values():
            shared.close_readers()

    def identity(self, features: frozenset[str]) -> Identity:
        """What the client says of itself."""
        return Identity("client", self.name, LANGUAGE, OS, features=features)


LANGUAGE = f"Python {platform.python_version()}"
"""What devices say that they are written in."""
OS = f"{platform.system()} {platform.release()} {platform.machine()}"
"""What devices say that they run on."""


@asynccontextmanager
async def open_client(
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
) -> AsyncIterator[Client]:
    """Connect to a manager for the length of a block.

    Args:
        host: of the manager: a name or an IP address; with `port` None, the path of a Unix socket.
        port: of the manager, or None.
        name: what the client calls itself.
        trust: whose certificates are trusted; None is no TLS, for managers that were started without it.
        credentials: what to answer when the manager asks for a user or a password.
        ask: asks a person for what `credentials` do not say: ``await ask(question, is_secret)``. If None,
            such a question ends the connection.
        limit: the largest packet accepted, in bytes.
        connect_timeout: seconds for connecting and TLS, and as many for the manager to let the client in. The
            time that a person takes to answer does not count.
        codec: how values are written for managers of 1.0.
        features: what to use beyond 1.0, if the manager can.

    Raises:
        ConnectFailed: no connection could be made; for reasons of TLS, one of its kinds in `tls.trust`.
        Rejected: the manager does not let the client in.

    A connection that ends inside the block raises nothing by itself: pending calls fail with
    `ConnectionClosed`, and so does the next one. Leaving the block sends what is on its way (for half a
    second at most), takes leave, closes the connection, and lets the block's own exception out as it is.
    """
    stream = await dial_manager(host, port, trust=trust, timeout=connect_timeout)
    async with open_client_on(
        stream,
        name=name,
        credentials=credentials,
        ask=ask,
        limit=limit,
        connect_timeout=connect_timeout,
        codec=codec,
        features=features,
        where=address_text(host, port),
    ) as client:
        yield client


@asynccontextmanager
async def open_client_on(
    stream: trio.abc.Stream,
    *,
    name: str = "Client",
    credentials: Credentials | None = None,
    ask: AskSomebody | None = None,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    codec: Codec = TEXT_CODEC,
    features: Collection[str] = CLIENT_FEATURES,
    where: str | None = None,
) -> AsyncIterator[Client]:
    """As `open_client`, on a stream that is connected already. The stream is closed with the block."""
    client = Client(name)

    def ends(connection: Connection) -> None:
        client.connection_ends(connection)
        client.close_readers()

    with single_exception():
        async with trio.open_nursery() as nursery:
            connection = client.connection = Connection(
                stream,
                nursery,
                identify=client.identity,
                credentials=credentials or Credentials(),
                ask=ask,
                features=features,
                limit=limit,
                codec=codec,
                on_notification=client.take_notification,
                on_lock_lost=client.lock_lost,
                on_unlinked=client.unlinked,
                on_end=ends,
            )
            nursery.start_soon(connection.run, name="armillary network connection")
            try:
                await wait_accepted(connection, connect_timeout, where or connection.peer)
                yield client
            finally:
                connection.end(ConnectionClosed("the client was closed"))
                nursery.cancel_scope.cancel(reason="the client's block was left")
