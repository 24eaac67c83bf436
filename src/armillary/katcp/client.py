"""A client: requests, informs and mirrored sensors, as blocks in the caller's nursery."""

from __future__ import annotations

import enum
import math
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text, open_stream
from armillary._runtime.groups import single_exception
from armillary._runtime.mailbox import Mailbox
from armillary.errors import ConnectFailed, ConnectionClosed

from .connection import ClientStatistics, Connection, PendingRequest
from .informs import INFORM_BOUND, InformHub
from .mirror import MirroredSensors, Mirrors
from .protocol.conversation import MessageIds, ProtocolError
from .protocol.messages import DEFAULT_LIMIT, FailReply, Message, Reply
from .protocol.mirroring import SensorDescription
from .protocol.readings import STATUS_BY_TEXT, Reading
from .protocol.values import STANDARD_TYPES, TYPE_BY_NAME, TypeRegistry

__all__ = ["Client", "open_client", "open_client_on"]


class Client:
    """A client of one server. Made by `open_client` and its relatives.

    Requests may be made by any number of tasks at once; their order on the wire is the order of the calls.
    None has a time-out: use ``trio.fail_after``. Everything belongs to the thread of the trio run.
    """

    def __init__(
        self, types: TypeRegistry, *, hub: InformHub | None = None, mirrors: Mirrors | None = None
    ) -> None:
        self._types = types
        self._mids = MessageIds()
        self._hub = InformHub(types) if hub is None else hub
        self._connection: Connection | None = None
        self._mirrors = Mirrors(self._hub) if mirrors is None else mirrors

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self._connection is not None and self._connection.is_usable

    @property
    def protocol_flags(self) -> frozenset[str]:
        """The flags of the server's protocol, e.g. ``B`` for bulk sampling; of the last connection."""
        return frozenset() if self._connection is None else self._connection.flags

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """What the server said of itself: ``katcp-device`` to its version and build state, and so on."""
        return {} if self._connection is None else dict(self._connection.versions)

    def statistics(self) -> ClientStatistics | None:
        """A look at the present connection, or at the last one; None if there has been none."""
        return None if self._connection is None else self._connection.statistics()

    async def request(self, name: str, *arguments: object) -> Reply:
        """Make a request and return what follows ``ok`` in its reply, with the informs that belong to it.

        Cancellation abandons the request: it may still be carried out, and its reply is dropped.

        Args:
            name: the request's name.
            arguments: encoded as their classes say.

        Raises:
            FailReply: the server said ``fail``.
            InvalidReply: the server said ``invalid``, or something that is no return code.
            ConnectionClosed: there is no connection, or it ended before the reply came;
                ``may_have_been_received`` says which.
            ValueError: the name is outside its grammar; nothing was sent.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        await self._wait_room()
        return await self.start_request(name, *arguments).wait()

    async def request_raw(self, name: str, *arguments: object) -> tuple[Message, list[Message]]:
        """As `request`, but return the reply as it came, whatever it says, and the informs."""
        await self._wait_room()
        return await self.start_request(name, *arguments).wait_raw()

    def start_request(self, name: str, *arguments: object) -> PendingRequest:
        """Send a request without waiting for its reply, to have many on their way from one task.

        Nothing limits what is sent this way: `request` waits while the server is behind, this does not.

        Raises:
            ConnectionClosed: there is no connection; nothing was sent.
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type.
        """
        connection = self._usable_connection()
        return PendingRequest(connection, connection.start(name, arguments))

    async def sensor_reading(self, name: str, sensor_type: type | None = None) -> Reading[Any]:
        """Ask for a sensor's reading.

        Args:
            name: the sensor's name.
            sensor_type: what its value is decoded as. If None, the server is asked for its type in the same
                breath, and values of discrete and string sensors are bytes.

        Raises:
            FailReply: there is no such sensor, or the name matches more than one.
            ValueError: the value is not of that type.
            ConnectionClosed: as for `request`.
        """
        described = self.start_request("sensor-list", name) if sensor_type is None else None
        _, informs = await self.request("sensor-value", name)
        if described is not None:
            _, descriptions = await described.wait()
            sensor_type = described_type(descriptions)
        return only_reading(informs, sensor_type, self._types)

    async def sensor_value(self, name: str, sensor_type: type | None = None) -> Any:
        """As `sensor_reading`, but return the value alone.

        Raises:
            ValueError: the sensor's status says that its value means nothing.
        """
        return meaningful_value(name, await self.sensor_reading(name, sensor_type))

    def informs(self, name: str, *, bound: int = INFORM_BOUND) -> AbstractContextManager[Mailbox[Message]]:
        """Iterate over the informs of a name that belong to no request.

        ::

            with client.informs("log") as logs:
                async for message in logs:
                    print(message.arguments)

        Args:
            name: the informs' name.
            bound: how many may wait for the loop. When more do, the oldest are dropped and counted in
                ``statistics().dropped``.

        The loop ends when the client is closed; with `open_client`, when the connection ends.
        """
        return self._hub.mailbox(name, bound)

    def add_inform_callback(self, name: str, callback: Callable[..., object]) -> None:
        """Call `callback` with each inform of a name that belongs to no request.

        Its arguments are decoded by the callback's annotations (bytes without one). What it raises, and an
        inform that cannot be decoded, is logged and disturbs nobody.
        """
        self._hub.add_callback(name, callback)

    def remove_inform_callback(self, name: str, callback: Callable[..., object]) -> None:
        """Undo `add_inform_callback`; silent if there is nothing to undo."""
        self._hub.unsubscribe(name, callback)

    def mirror_sensors(
        self,
        *,
        filter: Callable[[SensorDescription], bool] | None = None,
        rename: Callable[[str], str | Sequence[str]] | None = None,
        strategy: str | Callable[[SensorDescription], str] = "auto",
        enum_types: Sequence[type[enum.Enum]] = (),
    ) -> AbstractAsyncContextManager[MirroredSensors]:
        """Keep a set of sensors in step with the server's, through additions, removals and changes of type.

        ::

            async with client.mirror_sensors() as sensors:
                await sensors.wait_synced()
                print(sensors["temperature"].value)
                async for change in sensors.changes():
                    ...

        Args:
            filter: whether to mirror a sensor; all if None.
            rename: gives the name, or several names, that a sensor has here.
            strategy: how the sensors are sampled, e.g. ``"event"`` or ``"period 2"``, or a function that
                says it for each. Mirrors of one client share one subscription: where they want a sensor
                sampled differently, the first one's wish stands, and a warning is logged.
            enum_types: enums for discrete sensors: one with the same values in the same order is used. For
                others an enum is made.

        Without a connection the mirrored sensors keep their values and are ``unreachable``. Do not ask for
        ``?sensor-sampling`` on a client that mirrors.
        """
        return self._mirrors.open(self._types, filter, rename, strategy, tuple(enum_types))

    def _usable_connection(self) -> Connection:
        if self._connection is None or not self._connection.is_usable:
            reason = None if self._connection is None else self._connection.reason
            raise ConnectionClosed(
                "not connected" if reason is None else f"not connected: {reason}"
            ) from reason
        return self._connection

    async def _wait_room(self) -> None:
        # A cancellation ends the connection too, and may be seen there first: say Cancelled, not closed.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._connection is not None:
            await self._connection.wait_room()


def described_type(informs: Sequence[Message]) -> type:
    """What the values of a sensor are decoded as, by the answer to ``?sensor-list`` for it alone.

    Raises:
        FailReply: the answer does not name exactly one sensor.
        ValueError: it is malformed.
    """
    arguments = _only(informs).arguments
    if len(arguments) < 4:
        raise ValueError(f"expected name, description, units and type of a sensor, got {arguments}")
    # Discrete values stay bytes, as strings do: the server does not say what they mean.
    return TYPE_BY_NAME.get(arguments[3].decode("utf-8", "replace"), bytes)


def only_reading(informs: Sequence[Message], sensor_type: Any, types: TypeRegistry) -> Reading[Any]:
    """The reading in the answer to ``?sensor-value`` for one sensor.

    Raises:
        FailReply: the answer does not name exactly one sensor.
        ValueError: it is malformed, or the value is not of that type.
    """
    arguments = _only(informs).arguments
    if len(arguments) != 5 or arguments[3] not in STATUS_BY_TEXT:
        raise ValueError(f"expected timestamp, 1, name, status and value of a sensor, got {arguments}")
    return Reading(
        timestamp=float(arguments[0]),
        status=STATUS_BY_TEXT[arguments[3]],
        value=types.decode(sensor_type, arguments[4]),
    )


def meaningful_value(name: str, reading: Reading[Any]) -> Any:
    """The value of a reading. Raises ValueError if its status says that it means nothing."""
    if not reading.status.valid_value():
        raise ValueError(f"sensor {name} has no value: its status is {reading.status.name.lower()}")
    return reading.value


def _only(informs: Sequence[Message]) -> Message:
    if len(informs) != 1:
        raise FailReply(f"Server returned {len(informs)} sensors, but only 1 expected")
    return informs[0]


@asynccontextmanager
async def open_client(
    host: str,
    port: int | None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    keep_alive: float = math.inf,
    types: TypeRegistry = STANDARD_TYPES,
) -> AsyncIterator[Client]:
    """Connect to a server for the length of a block.

    Args:
        host: a name or an IP address; with `port` None, the path of a Unix socket.
        port: the TCP port, or None.
        ssl_context: makes the connection a TLS one.
        limit: the longest line accepted, in bytes.
        connect_timeout: seconds for connecting, for TLS, and for the server to say which protocol it speaks.
        keep_alive: when the server has said nothing for that many seconds, ask ``?watchdog``; if that is not
            answered in as many, the connection is taken for lost. Infinite: never ask.
        types: how arguments are encoded and values decoded.

    Raises:
        ConnectFailed: no connection could be made, or the server went before it said its protocol.
        ProtocolError: the server speaks another protocol.

    A connection that ends inside the block raises nothing by itself: pending requests fail with
    `ConnectionClosed`, and so does the next one. Leaving the block sends what requests are on their way (for
    half a second at most), closes the connection, and lets the block's own exception out as it is.
    """
    where = address_text(host, port)
    deadline = trio.current_time() + connect_timeout
    stream = await open_stream(host, port, ssl_context=ssl_context, timeout=connect_timeout)
    async with open_client_on(
        stream,
        limit=limit,
        connect_timeout=deadline - trio.current_time(),
        keep_alive=keep_alive,
        types=types,
        where=where,
    ) as client:
        yield client


@asynccontextmanager
async def open_client_on(
    stream: trio.abc.Stream,
    *,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    keep_alive: float = math.inf,
    types: TypeRegistry = STANDARD_TYPES,
    where: str | None = None,
) -> AsyncIterator[Client]:
    """As `open_client`, on a stream that is connected already. The stream is closed with the block."""
    client = Client(types)
    with single_exception():
        async with trio.open_nursery() as nursery:
            connection = Connection(stream, nursery, client._hub, client._mids, types, limit)
            client._connection = connection
            connection.on_end = lambda _: client._mirrors.end()
            nursery.start_soon(connection.run, name="armillary katcp connection")
            try:
                await wait_negotiated(connection, connect_timeout, where or connection.peer)
                if connection.reason is None:
                    client._mirrors.begin()
                nursery.start_soon(keep_connection_alive, connection, keep_alive)
                nursery.start_soon(_mirror_until_closed, client, connection)
                yield client
            finally:
                client._mirrors.close()
                client._hub.close()
                connection.end(ConnectionClosed("the client was closed"))
                nursery.cancel_scope.cancel(reason="the client's block was left")


async def _mirror_until_closed(client: Client, connection: Connection) -> None:
    """Keep mirrors in step while the connection lasts; its end is theirs, and that of loops over informs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client._mirrors.run, connection)
        await connection.closed.wait()
        nursery.cancel_scope.cancel(reason="the connection has ended")
    client._mirrors.close()
    client._hub.close()


async def wait_negotiated(connection: Connection, timeout: float, where: str) -> None:
    """Wait until the server has said which protocol it speaks.

    Raises:
        ProtocolError: it speaks another one.
        ConnectFailed: it went first, or said nothing for `timeout` seconds.
    """
    with trio.move_on_after(timeout) as scope:
        await connection.negotiated.wait()
    if scope.cancelled_caught:
        error = ConnectFailed(f"could not connect to {where}: no #version-connect in {timeout:.3g} s")
        connection.end(error)
        raise error
    if connection.reason is not None and not connection.is_negotiated:
        if isinstance(connection.reason, ProtocolError):
            raise connection.reason
        raise ConnectFailed(f"could not connect to {where}: {connection.reason}") from connection.reason


async def keep_connection_alive(connection: Connection, interval: float) -> None:
    """Ask ``?watchdog`` when the server was quiet; end the connection when it stays so."""
    if interval == math.inf:
        return
    while True:
        quiet_at = connection.last_heard + interval
        await trio.sleep_until(max(quiet_at, trio.current_time()))
        if connection.reason is not None:
            return
        if connection.last_heard + interval > trio.current_time():
            continue
        answered = PendingRequest(connection, connection.start("watchdog", ()))
        with trio.move_on_after(interval) as scope:
            try:
                await answered.wait_raw()
            except ConnectionClosed:
                return
        if scope.cancelled_caught and connection.last_heard + interval <= trio.current_time():
            connection.end(ConnectionClosed(f"the server said nothing for {2 * interval:g} s"), lost=True)
            return
