"""armillary's side of a `DeviceServer`: the device that it serves, its sessions, and their streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from armillary.katcp.device import Device, RequestHandler
from armillary.katcp.protocol.messages import WireMessage
from armillary.katcp.requests import Deferred
from armillary.katcp.server import DeviceServer as NativeServer
from armillary.katcp.session import Session
from armillary.katcp.standard_requests import StandardRequests
from armillary_compat.streams import HostStream

from ._requests import RequestContext, answer_in_task
from ._samplers import ConnectionSamplers
from ._version import __version__, minor_version
from .core import TYPES, Message
from .sensor import Sensor, SensorSet

if TYPE_CHECKING:
    from armillary.katcp.session import _Suspended
    from armillary_compat.guest import Guest

    from .server import ClientConnection, DeviceServer

__all__ = ["NATIVE_REQUESTS", "ClientStream", "FacadeDevice", "FacadeServer", "FacadeSession"]


def _halt(device: FacadeDevice, ctx: RequestContext) -> None:
    ctx.reply("ok")
    device.owner.halt()


def _version_list(device: FacadeDevice, ctx: RequestContext) -> None:
    device.owner.send_version_info(ctx)


# What answers a request whose method was not overridden: in place, without a task.
NATIVE_REQUESTS: dict[str, Callable[..., Any]] = {
    "help": StandardRequests.request_help,
    "halt": _halt,
    "watchdog": StandardRequests.request_watchdog,
    "version-list": _version_list,
    "client-list": StandardRequests.request_client_list,
    "log-level": StandardRequests.request_log_level,
    "sensor-list": StandardRequests.request_sensor_list,
    "sensor-value": StandardRequests.request_sensor_value,
    "sensor-sampling": StandardRequests.request_sensor_sampling,
}


class FacadeDevice(Device):
    """What armillary serves on behalf of one server.

    Args:
        owner: the server.
        handlers: the requests that its class answers.
    """

    VERSION = BUILD_STATE = "of its owner"
    PROTOCOL = "5.1-MIB"
    LIBRARY = (f"aiokatcp-{minor_version()}", f"aiokatcp-{__version__}")
    types = TYPES

    def __init__(self, owner: DeviceServer, handlers: dict[bytes, RequestHandler]) -> None:
        super().__init__()
        self.owner = owner
        # An instance's own: natively they belong to the class, which here is the owner's.
        self.VERSION = owner.VERSION  # type: ignore[misc]
        self.BUILD_STATE = owner.BUILD_STATE  # type: ignore[misc]
        self.request_handlers = handlers  # type: ignore[misc]

    def make_sensors(self) -> SensorSet:
        return SensorSet()

    def unhandled_request(self, ctx: Any) -> Any:
        return answer_in_task(self.owner, ctx, self.owner.unhandled_request(ctx, ctx.req))

    def status_of(self, sensor: Sensor[Any], reading: Any) -> bytes:
        """The bytes of ``#sensor-status`` for a reading of a sensor."""
        if reading is sensor.reading:
            return self.status_line(sensor)
        return b"#sensor-status" + sensor.encoded_reading(reading)

    # The application announces what changes, with mass_inform("interface-changed").

    def _sensor_added(self, sensor: Any) -> None:
        pass

    def _sensor_removed(self, sensor: Any) -> None:
        for session in self.sessions:
            session.samplers.unsubscribe(sensor.name)


class FacadeServer(NativeServer):
    """One start of a server, until its stop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.logger = logging.getLogger("aiokatcp.server")

    def make_session(self, stream: trio.abc.Stream) -> FacadeSession:
        assert isinstance(stream, ClientStream)
        return FacadeSession(self, stream, next(self.device.serials))


class ClientStream(HostStream):
    """The bytes of one client.

    Args:
        guest: the trio run that reads and writes them.
        connection: the client's connection, which feeds the stream.
    """

    def __init__(self, guest: Guest, connection: ClientConnection) -> None:
        super().__init__(guest)
        self.connection = connection

    def send_nowait(self, data: bytes | memoryview) -> int:
        sent = super().send_nowait(data)
        logger = self.connection.logger
        if sent and logger.isEnabledFor(logging.DEBUG):
            for line in bytes(data).splitlines(keepends=True):
                logger.debug("Sent message %r", line)
        return sent


class FacadeSession(Session):
    """One client of a server.

    Args:
        server: as for `Session`.
        stream: its bytes.
        serial: as for `Session`.
    """

    PROTOCOL_LOG = b"aiokatcp.connection"
    HANDLER_LOG = b"aiokatcp.server"

    device: FacadeDevice
    samplers: ConnectionSamplers  # type: ignore[assignment]  # the same to armillary's requests

    def __init__(self, server: FacadeServer, stream: ClientStream, serial: int) -> None:
        super().__init__(server, stream, serial)
        connection = self.connection = stream.connection
        self.owner = connection.owner
        self.outbox.bound = self.owner.max_backlog
        self.samplers = ConnectionSamplers(connection)
        self.logger = connection.logger  # type: ignore[assignment]
        self._is_hooked = self.owner.hooks_messages
        self._stream = stream
        stream.sink = self.take
        connection.begin_session(self)

    def make_context(self, message: WireMessage) -> RequestContext:
        return RequestContext.of(self, message)

    def answer_message(self, message: Message) -> None:
        """Answer a message: what ``handle_message`` of the server does."""
        wire = WireMessage(message.mtype, message.name.encode("ascii"), message.mid, message.arguments)
        handler = self.owner.task_handlers.get(wire.name)
        suspended = self._call(wire, handler) if wire.mtype is Message.Type.REQUEST else None
        assert suspended is None, "every handler is a task of its own"

    def deferred_done(self, deferred: Deferred, **outcome: Any) -> None:
        if self.gone.is_set():
            self.connection.warn_unsent()
        super().deferred_done(deferred, **outcome)

    def _greet(self) -> None:
        greeting = RequestContext(self.connection, Message.inform("version-connect"))
        self.owner.send_version_info(greeting, send_reply=False)
        self.outbox.flush()

    def nudge(self) -> None:
        self._stream.nudge()

    def _leave(self) -> None:
        super()._leave()
        self._stream.sink = None
        self.connection.end_session()

    def _dispatch(self, message: WireMessage | ValueError) -> _Suspended | None:
        if isinstance(message, ValueError):
            return super()._dispatch(message)
        connection = self.connection
        if connection.logger.isEnabledFor(logging.DEBUG):
            connection.logger.debug("Received message %r", bytes(message))
        if not self._is_hooked:
            return super()._dispatch(message)
        try:
            self.owner.handle_message(connection, Message.from_wire(message))
        except Exception:
            connection.logger.exception("Exception in message handler")
        return None

    def _log_failure(self, ctx: Any, error: Exception) -> None:
        ctx.logger.error("uncaught exception while handling %r", ctx.name, exc_info=error)

    def _log_malformed(self, level: int, error: ValueError) -> None:
        self.logger.log(level, "Malformed message received", exc_info=error)
