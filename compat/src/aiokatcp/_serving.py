"""armillary's side of a `DeviceServer`: the device that it serves, its sessions, and their streams."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

import trio

from armillary.katcp.device import Device, RequestHandler
from armillary.katcp.protocol.messages import FailReply, InvalidReply, WireMessage
from armillary.katcp.requests import Deferred
from armillary.katcp.server import DeviceServer as NativeServer
from armillary.katcp.session import FAREWELL_TIMEOUT, Session
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

    from ._client_connection import ClientConnection
    from .server import DeviceServer

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


_NATIVE_NAMES = frozenset([name.encode("ascii") for name in NATIVE_REQUESTS])


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

    def halt(self, drain: float | None = None) -> None:
        self._is_ending = True  # now, and not when the listener has been left
        super().halt(drain)

    def _begin_drain(self) -> None:
        """Take no more requests; disconnect the clients when the running ones have ended.

        All of them then, because what a request has to say to all at its end is for all.
        """
        self._is_ending = True
        for session in self.sessions:
            cast(FacadeSession, session).take_no_more()
        self.nursery.start_soon(self._end_sessions, trio.current_time() + self._drain)

    async def _end_sessions(self, deadline: float) -> None:
        try:
            with trio.CancelScope(deadline=deadline):
                while self.turnstile.running:
                    idle = self.turnstile.idle
                    if idle is None or idle.is_set():
                        idle = self.turnstile.idle = trio.Event()
                    with trio.move_on_after(FAREWELL_TIMEOUT):
                        await idle.wait()
                        continue
                    for session in tuple(self.sessions):
                        cast(FacadeSession, session).abort_if_stuck()
        finally:
            # Shielded: who makes the answers is not a task of ours, and has to end before we do.
            with trio.CancelScope(shield=True):
                self._cancel_deferred()
                await self._wait_deferred()
            for session in tuple(self.sessions):
                session.begin_drain("server shutting down", -math.inf)

    def _cancel_deferred(self) -> None:
        for deferred in tuple(self.deferred):
            deferred.cancel()


class ClientStream(HostStream):
    """The bytes of one client.

    Args:
        guest: the trio run that reads and writes them.
        connection: the client's connection, which feeds the stream.
    """

    def __init__(self, guest: Guest, connection: ClientConnection) -> None:
        super().__init__(guest)
        self.connection = connection
        self._unlogged = b""  # the part of a message that has been sent

    def send_nowait(self, data: bytes | memoryview) -> int:
        sent = super().send_nowait(data)
        logger = self.connection.logger
        if sent and logger.isEnabledFor(logging.DEBUG):
            *messages, self._unlogged = (self._unlogged + bytes(data)).split(b"\n")
            for message in messages:
                logger.debug("Sent message %r", message + b"\n")
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
        self._is_hooked = self.owner._katcp_hooks_messages
        self._stream = stream
        self._sent_before = -1
        self.latest: CoroutineType[Any, Any, Any] | None = None
        """The handler that was made a task last."""
        stream.sink = self.take
        connection.begin_session(self)

    def make_context(self, message: WireMessage) -> RequestContext:
        return RequestContext.of(self, message)

    def answer_message(self, message: Message) -> None:
        """Answer a message: what ``handle_message`` of the server does. Too late, it does nothing."""
        if self._is_draining or self.gone.is_set():
            return
        wire = WireMessage(message.mtype, message.name.encode("ascii"), message.mid, message.arguments)
        handler = self.owner._katcp_handlers.get(wire.name)
        suspended = self._call(wire, handler) if wire.mtype is Message.Type.REQUEST else None
        assert suspended is None, "every handler is a task of its own"

    @property
    def has_unstarted(self) -> bool:
        """Whether a handler has not begun yet that was asked for earlier than what comes now."""
        return self.latest is not None and inspect.getcoroutinestate(self.latest) == inspect.CORO_CREATED

    def take_no_more(self) -> None:
        """Answer the requests in progress, and take no others."""
        self._is_draining = True
        self._unanswered.clear()

    def abort_if_stuck(self) -> None:
        """End at once if the client has read nothing since the last call: requests may wait for that."""
        sent = self.outbox.bytes_sent
        if self.outbox.backlog and sent == self._sent_before:
            self.abort("the client does not read")
        self._sent_before = sent

    def send_informs(self, encoded: bytes) -> None:
        self.outbox.send(encoded)  # what a handler sends to a client that does not read is its own affair

    def deferred_done(self, deferred: Deferred, **outcome: Any) -> None:
        if self.gone.is_set():
            self.connection.warn_unsent()
            error = outcome.get("error")
            if error is not None and not isinstance(error, FailReply | InvalidReply):
                self._log_failure(deferred.ctx, error)
        super().deferred_done(deferred, **outcome)

    def _greet(self) -> None:
        greeting = RequestContext(self.connection, Message.request("version-connect"))
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
            if message.name in _NATIVE_NAMES and message.mtype is Message.Type.REQUEST and self.has_unstarted:
                return self._call(message, self.owner._katcp_handlers[message.name])
            return super()._dispatch(message)
        try:
            self.owner.handle_message(connection, Message.from_wire(message))
        except Exception:
            connection.logger.exception("Exception in message handler")
        return None

    def _fail(self, ctx: RequestContext, error: Exception) -> None:  # type: ignore[override]
        if ctx.replied and isinstance(error, FailReply | InvalidReply):
            self._log_to_client(b"error", self.HANDLER_LOG, str(error).encode("utf-8", "replace"))
        else:
            super()._fail(ctx, error)

    def _log_failure(self, ctx: Any, error: Exception) -> None:
        ctx.logger.error("uncaught exception while handling %r", ctx.name, exc_info=error)

    def _log_malformed(self, level: int, error: ValueError) -> None:
        self.logger.log(level, "Malformed message received", exc_info=error)
