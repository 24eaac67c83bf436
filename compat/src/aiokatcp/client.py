"""Clients on an asyncio loop."""

from __future__ import annotations

import asyncio
import logging
import math
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, overload

from armillary.katcp.client import described_type, meaningful_value, only_reading
from armillary.katcp.protocol.conversation import Pending, ProtocolError
from armillary.katcp.protocol.lifecycle import ClientState
from armillary.katcp.protocol.messages import DEFAULT_LIMIT, WireMessage
from armillary_compat.guest import Guest

from ._connecting import ClientEngine
from ._errors import ClientClosed, NotConnected, failure_of
from ._informing import InformReceiver, is_overridden
from ._watching import AbstractSensorWatcher, SensorWatcher, SyncState, WatcherAdapter, adapter_for
from .connection import Connection, ConnectionLoggerAdapter
from .core import TYPES, Message
from .sensor import Reading

__all__ = ["AbstractSensorWatcher", "Client", "ProtocolError", "SensorWatcher", "SyncState"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_S = TypeVar("_S", bound="Client")

_WITHOUT_CONNECTION = frozenset({ClientState.SLEEPING, ClientState.CONNECTING, ClientState.CLOSED})


class Client(InformReceiver):
    """A client that connects to a server at once, and again whenever the connection is lost.

    Subclasses may have methods ``inform_<name>`` (underscores stand for dashes), plain functions that are
    called with the decoded arguments of each inform of that name which belongs to no request.

    Made in a running loop. Close it with `close`, or use it as an asynchronous context manager.

    Args:
        host: a name or an IP address.
        port: the TCP port.
        auto_reconnect: whether to try again after a failure. If not, there is exactly one attempt.
        limit: the longest line accepted, in bytes.
        loop: the loop that the client runs on; the running one if None.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        auto_reconnect: bool = True,
        limit: int = DEFAULT_LIMIT,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop() if loop is None else loop
        """The loop that the client runs on."""
        self.host = host
        self.port = port
        self.auto_reconnect = auto_reconnect
        self.last_exc: Exception | None = None
        """Why there is no connection; None while there is one, and until the first attempt has ended."""
        self.logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = logger
        """The module's logger; while there is a connection, one that adds the server's address."""
        super().__init__()
        self._limit = limit
        self._state = ClientState.CONNECTING
        self._connected_callbacks: list[Callable[[], None]] = []
        self._disconnected_callbacks: list[Callable[[], None]] = []
        self._failed_connect_callbacks: list[Callable[[Exception], None]] = []
        self._connect_waiters: list[asyncio.Future[None]] = []
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self._closed = asyncio.Event()
        self._watchers: dict[AbstractSensorWatcher, WatcherAdapter] = {}
        guest = Guest.of(self.loop)
        self._engine = ClientEngine(self, guest)
        # Holds the guest for as long as it runs: until the client is closed, and nothing of it is left.
        self._task = guest.start_soon(
            self._engine.run,
            limit,
            math.inf,
            math.inf,
            name=f"client of {host}:{port}",
        )

    def __del__(self) -> None:
        engine: ClientEngine | None = self.__dict__.get("_engine")  # not there if the constructor failed
        if engine is None or engine.is_closing or engine.state is ClientState.CLOSED:
            return
        warnings.warn(f"unclosed Client {self!r}", ResourceWarning, stacklevel=2, source=self)
        if not self.loop.is_closed():
            # Not now: the collector runs wherever it likes.
            self.loop.call_soon_threadsafe(engine.close)

    # -- its life -----------------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls: type[_S],
        host: str,
        port: int,
        *,
        auto_reconnect: bool = True,
        limit: int = DEFAULT_LIMIT,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> _S:
        """Make a client and wait until it is connected. The arguments are those of the class.

        Cancellation closes the client.

        Raises:
            OSError: the only attempt failed.
            ProtocolError: at the only attempt, the server turned out to speak another protocol.
        """
        client = cls(host, port, auto_reconnect=auto_reconnect, limit=limit, loop=loop)
        try:
            await client.wait_connected()
        except BaseException:
            client.close()
            raise
        return client

    async def __aenter__(self: _S) -> _S:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()

    def close(self) -> None:
        """Begin to close, for good. Returns at once; `wait_closed` waits. May be called again."""
        was_over = self._engine.is_closing or self._state is ClientState.CLOSED
        self._engine.close()
        if not was_over and not isinstance(self.last_exc, ClientClosed):
            self.last_exc = ClientClosed()

    async def wait_closed(self) -> None:
        """Wait until the client is closed, and nothing of it is left."""
        await self._closed.wait()
        await asyncio.wait([self._task.future])

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self._state is ClientState.CONNECTED

    @property
    def protocol_flags(self) -> frozenset[str]:
        """The letters of the server's protocol, e.g. ``B`` for bulk sampling; of the last connection."""
        return self._engine.protocol_flags

    async def wait_connected(self) -> None:
        """Wait until there is a connection. It may be lost again before the caller runs.

        Raises:
            OSError: the client was closed, or the only attempt failed.
            ProtocolError: at the only attempt, the server turned out to speak another protocol.
        """
        if self.is_connected:
            return
        if self._state is ClientState.CLOSED:
            assert self.last_exc is not None
            raise self.last_exc
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._connect_waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._connect_waiters:
                self._connect_waiters.remove(waiter)

    async def wait_disconnected(self) -> None:
        """Wait until there is no connection to the server, not even one that cannot be used yet."""
        await self._disconnected.wait()

    # -- requests -----------------------------------------------------------------------------------------

    async def request_raw(self, name: str, *args: Any) -> tuple[Message, list[Message]]:
        """Make a request, and return the reply as it came, whatever it says, and the request's informs.

        Cancellation abandons the request: it may still be carried out, and its reply is dropped.

        Args:
            name: the request's name.
            args: its arguments, encoded as their classes say.

        Raises:
            BrokenPipeError: there is no connection.
            OSError: the connection ended before the reply came (a ConnectionError, most often).
            ValueError: the name is outside its grammar; nothing was sent.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        pending = await self._ask(name, args)
        assert pending.reply is not None
        from_wire = Message.from_wire
        return from_wire(pending.reply), [from_wire(inform) for inform in pending.informs]

    async def request(self, name: str, *args: Any) -> tuple[list[bytes], list[Message]]:
        """As `request_raw`, but return what follows ``ok`` in the reply, and the request's informs.

        Raises:
            FailReply: the server said ``fail``.
            InvalidReply: the server said ``invalid``, or something that is no return code.
            OSError: as for `request_raw`.
            ValueError: as for `request_raw`.
            TypeError: as for `request_raw`.
        """
        pending = await self._ask(name, args)
        from_wire = Message.from_wire
        return pending.check(), [from_wire(inform) for inform in pending.informs]

    async def _ask(self, name: str, args: tuple[Any, ...]) -> Pending:
        """Make a request, and return it when it has its reply."""
        link = self._engine.link
        if link is None or not link.is_usable:
            raise NotConnected
        answered: asyncio.Future[None] = self.loop.create_future()
        pending = link.start(name, args)

        def wake() -> None:
            if answered.done():
                return
            if pending.reply is None:
                assert self.last_exc is not None
                answered.set_exception(self.last_exc)
            else:
                answered.set_result(None)

        pending.on_done = wake
        if link.reason is not None:  # it broke as this was sent
            wake()
        try:
            await answered
        except asyncio.CancelledError:
            link.abandon(pending)
            raise
        return pending

    @overload
    async def sensor_reading(self, sensor_name: str, sensor_type: None = None) -> Reading[Any]: ...

    @overload
    async def sensor_reading(self, sensor_name: str, sensor_type: type[_T]) -> Reading[_T]: ...

    async def sensor_reading(self, sensor_name: str, sensor_type: Any = None) -> Reading[Any]:
        """Ask for a sensor's reading.

        Args:
            sensor_name: the sensor's name.
            sensor_type: what its value is decoded as. If None, the server is asked for its type in the same
                breath, and values of discrete and string sensors are bytes.

        Raises:
            FailReply: there is no such sensor, or the name matches more than one.
            ValueError: the value is not of that type.
            OSError: as for `request_raw`.
        """
        if sensor_type is not None:
            _, readings = await self.request("sensor-value", sensor_name)
        else:
            (_, descriptions), (_, readings) = await asyncio.gather(
                self.request("sensor-list", sensor_name), self.request("sensor-value", sensor_name)
            )
            sensor_type = described_type(descriptions)
        return only_reading(readings, sensor_type, TYPES)

    @overload
    async def sensor_value(self, sensor_name: str, sensor_type: None = None) -> Any: ...

    @overload
    async def sensor_value(self, sensor_name: str, sensor_type: type[_T]) -> _T: ...

    async def sensor_value(self, sensor_name: str, sensor_type: Any = None) -> Any:
        """As `sensor_reading`, but return the value alone.

        Raises:
            ValueError: the sensor's status says that its value means nothing.
        """
        return meaningful_value(sensor_name, await self.sensor_reading(sensor_name, sensor_type))

    # -- messages -----------------------------------------------------------------------------------------

    def inform_disconnect(self, reason: str) -> None:
        """The server says that it will close the connection."""
        self.logger.info("Server disconnected: %s", reason)
        self._engine.server_parts(reason)

    def handle_message(self, conn: Connection[Any], msg: Message) -> None:
        """Take a message of the server. A subclass that overrides this sees each of them first.

        Args:
            conn: the connection that it came on.
            msg: the message.
        """
        wire = WireMessage(msg.mtype, msg.name.encode("ascii"), msg.mid, msg.arguments)
        link = self._engine.link
        if link is not None:
            link.receive(wire)

    @property
    def _sees_messages(self) -> bool:
        """Whether `handle_message` is to be called with each message."""
        return is_overridden(self, Client, "handle_message")

    def _is_mirrors(self, name: str) -> bool:
        return self._engine.hub.is_awaited(name)

    # -- callbacks ----------------------------------------------------------------------------------------

    def add_connected_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` whenever there is a connection again, in the order of registration.

        Here and below, what a callback raises is logged, and callbacks may be added and removed inside one.
        """
        self._connected_callbacks.append(callback)

    def remove_connected_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_connected_callback`. Raises ValueError if it was not there."""
        self._connected_callbacks.remove(callback)

    def add_disconnected_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` whenever the connection is lost or closed, in the order of registration."""
        self._disconnected_callbacks.append(callback)

    def remove_disconnected_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_disconnected_callback`. Raises ValueError if it was not there."""
        self._disconnected_callbacks.remove(callback)

    def add_failed_connect_callback(self, callback: Callable[[Exception], None]) -> None:
        """Call ``callback(last_exc)`` whenever an attempt to connect has failed, in that order, too."""
        self._failed_connect_callbacks.append(callback)

    def remove_failed_connect_callback(self, callback: Callable[[Exception], None]) -> None:
        """Undo `add_failed_connect_callback`. Raises ValueError if it was not there."""
        self._failed_connect_callbacks.remove(callback)

    # -- sensors ------------------------------------------------------------------------------------------

    def add_sensor_watcher(self, watcher: AbstractSensorWatcher) -> None:
        """Tell a watcher of the server's sensors, now and whenever they change. Adding twice is adding once.

        Do not ask for ``?sensor-sampling`` on a client that ever had a watcher.
        """
        if watcher not in self._watchers:
            adapter = self._watchers[watcher] = adapter_for(watcher)
            self._engine.mirrors.add(adapter)

    def remove_sensor_watcher(self, watcher: AbstractSensorWatcher) -> None:
        """Tell it nothing more; silent if it was not there."""
        adapter = self._watchers.pop(watcher, None)
        if adapter is not None:
            self._engine.mirrors.remove(adapter)

    # -- inside -------------------------------------------------------------------------------------------

    def _state_changed(self, state: ClientState) -> None:
        """Tell everybody who waits for it, in an order that is documented. Called by the engine."""
        before, self._state = self._state, state
        has_failed = before in (ClientState.CONNECTING, ClientState.NEGOTIATING) and state not in (
            ClientState.NEGOTIATING,
            ClientState.CONNECTED,
        )
        if state is ClientState.CONNECTED:
            self.last_exc = None
        elif self._engine.is_closing:
            if not isinstance(self.last_exc, ClientClosed):
                self.last_exc = ClientClosed()
        elif has_failed or before is ClientState.CONNECTED:
            self.last_exc = failure_of(self._engine.last_error)
        if state in _WITHOUT_CONNECTION:
            self._disconnected.set()
            if before in (ClientState.NEGOTIATING, ClientState.CONNECTED):
                self.logger.warning("connection lost: %s", self.last_exc)
            self.logger = logger
        else:
            self._disconnected.clear()
            if state is ClientState.NEGOTIATING:
                self.logger = ConnectionLoggerAdapter(logger, {"address": self._engine.address})

        if state is ClientState.CONNECTED:
            self._wake_connect_waiters(None)
            for callback in tuple(self._connected_callbacks):
                self._run_callback(callback)
        elif state is ClientState.CLOSED:
            self._closed.set()
            self._wake_connect_waiters(self.last_exc)
        if before is ClientState.CONNECTED:
            self._engine.fail_pending()
            for callback in tuple(self._disconnected_callbacks):
                self._run_callback(callback)
        elif has_failed:
            assert self.last_exc is not None
            error = self.last_exc
            if self.auto_reconnect and not self._engine.is_closing:
                self.logger.warning("Failed to connect to %s:%d: %s", self.host, self.port, error)
            for failed_callback in tuple(self._failed_connect_callbacks):
                self._run_callback(failed_callback, error)

    def _wake_connect_waiters(self, error: Exception | None) -> None:
        waiters, self._connect_waiters = self._connect_waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
