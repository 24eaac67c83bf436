"""The base class of devices: sensors, and the requests that a class defines."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .protocol.handlers import Decoder, compile_decoder
from .protocol.messages import MessageType, line, wire_name
from .protocol.readings import Reading
from .protocol.values import STANDARD_TYPES, LogLevel, TypeRegistry
from .sensor_set import SensorSet
from .sensors import Sensor
from .standard_requests import StandardRequests
from .version import LIBRARY, PROTOCOL

if TYPE_CHECKING:
    from .limits import PendingStatistics
    from .requests import RequestContext
    from .server import DeviceServer
    from .session import Session, SessionStatistics

__all__ = ["Device", "RequestHandler", "request_methods", "request_timeout_hint"]

F = TypeVar("F", bound=Callable[..., Any])
_PREFIX = "request_"


@dataclass(frozen=True, slots=True)
class RequestHandler:
    """One request that a device answers."""

    name: str
    """The request's name on the wire."""
    function: Callable[..., Any]
    """Called with the device, the `RequestContext`, and the decoded arguments."""
    decode: Decoder
    """Decodes the request's arguments."""
    may_suspend: bool
    """Whether the function is an ``async def``, which only a task of trio can run."""
    needs_room: bool
    """Whether it may take a while, and has to wait for its turn."""
    help: str
    """Its docstring."""
    timeout_hint: float
    """Seconds after which a client may give up on it; 0 for no hint."""


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """A look at a device that is being served."""

    clients: tuple[SessionStatistics, ...]
    """Its clients, in order of arrival."""
    pending: tuple[PendingStatistics, ...]
    """For each ``serve_device`` of it, the requests that run and the clients that wait."""


def request_timeout_hint(seconds: float) -> Callable[[F], F]:
    """Decorate a request handler with how long a client should be ready to wait for it.

    Args:
        seconds: told to clients that ask ``?request-timeout-hint``; it limits nothing here.
    """
    if not seconds > 0:
        raise ValueError(f"expected a positive number of seconds, got {seconds}")

    def decorate(function: F) -> F:
        function.request_timeout_hint = seconds  # type: ignore[attr-defined]
        return function

    return decorate


class Device(StandardRequests):
    """A KATCP device. Subclass it, define `VERSION`, `BUILD_STATE` and ``request_...`` methods, and serve it.

    A method ``request_set_gain(self, ctx, channel: int, gain: float = 1.0)`` answers ``?set-gain``. Its
    docstring is the request's help. Arguments are decoded by their annotations (bytes without one), and
    what it returns is the reply: None for ``ok``, a tuple for ``ok`` and several values, anything else for
    ``ok`` and that value. It raises `FailReply` to fail politely; any other exception fails with its
    traceback. ``async def`` handlers of one client run concurrently; a plain ``def`` is answered at once
    and must not block.

    A device does nothing until it is served, and can be served on several ports at once.

    Attributes:
        sensors: the device's sensors. Add to it and remove from it at any time; clients are told.
        log_level: the least level of ``#log`` informs, set by ``?log-level``.
        types: where types of handler arguments and values are looked up. A class attribute.
    """

    VERSION: ClassVar[str] = ""
    """Name and version of the device's interface, e.g. ``"dish-1.2"``."""
    BUILD_STATE: ClassVar[str] = ""
    """Name and version of the software, e.g. ``"dish-1.2.7"``."""
    PROTOCOL: ClassVar[str] = PROTOCOL
    """What the device says of the protocol it speaks: the version, a dash, and a letter for each feature."""
    LIBRARY: ClassVar[tuple[str, str]] = LIBRARY
    """What it says of the library it is made with: two names with versions."""
    types: ClassVar[TypeRegistry] = STANDARD_TYPES

    request_handlers: ClassVar[dict[bytes, RequestHandler]] = {}
    """The requests that this class answers, by wire name."""
    # Handlers whose annotations name what did not exist when the class was made.
    _unresolved: ClassVar[dict[bytes, Callable[..., Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _compile_requests(cls)

    def __init__(self) -> None:
        for kind in ("VERSION", "BUILD_STATE"):
            if not getattr(self, kind):
                raise TypeError(f"{type(self).__name__} does not define {kind}")
        if self._unresolved:
            _compile_requests(type(self), strict=True)
        self.sensors = self.make_sensors()
        self.log_level = LogLevel.WARN
        # Whose clients are told what: entered by sessions and servers for as long as they live.
        self.sessions: dict[Session, None] = {}
        self.servers: dict[DeviceServer, None] = {}
        self.serials = itertools.count()
        self._last_line: tuple[Reading[Any] | None, bytes] = (None, b"")
        self.sensors.add_add_callback(self._sensor_added)
        self.sensors.add_remove_callback(self._sensor_removed)

    def make_sensors(self) -> SensorSet:
        """The empty set that becomes `sensors`; a place for a class of your own."""
        return SensorSet()

    async def on_restart(self) -> None:
        """What ``?restart`` does between disconnecting the clients and letting them back. Nothing, here."""

    async def unhandled_request(self, ctx: RequestContext) -> Any:
        """Answer a request that has no handler; ``ctx.request`` holds it. Here: ``invalid``."""
        return self._unknown_request(ctx)

    def mass_inform(self, name: str, *arguments: object) -> None:
        """Send an inform to every client, never waiting.

        A client with more than ``max_backlog`` bytes unread is disconnected instead.

        Raises:
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        encode = self.types.encode
        encoded = line(
            MessageType.INFORM, wire_name(name), None, [encode(argument) for argument in arguments]
        )
        for session in tuple(self.sessions):
            session.send_async_inform(encoded)

    def statistics(self) -> DeviceStatistics:
        """A look at the device's servers and clients."""
        return DeviceStatistics(
            clients=tuple([session.statistics() for session in self.sessions]),
            pending=tuple([server.turnstile.statistics() for server in self.servers]),
        )

    def halt(self, *, drain: float | None = None) -> None:
        """End every ``serve_device`` of this device, as ``?halt`` does. Returns at once.

        Args:
            drain: seconds for running requests, instead of those given to ``serve_device``.
        """
        for server in tuple(self.servers):
            server.halt(drain)

    def restart(self) -> None:
        """Disconnect every client, await `on_restart`, and go on, as ``?restart`` does. Returns at once."""
        for server in tuple(self.servers):
            server.restart()

    def status_line(self, sensor: Sensor[Any]) -> bytes:
        """The bytes of ``#sensor-status`` for a sensor's current reading, made once for all subscribers.

        Subscribers of one sensor are told one after the other, so remembering one line is enough.
        """
        reading, encoded = self._last_line
        if reading is not sensor.reading:
            encoded = b"#sensor-status" + sensor.encoded_reading()
            self._last_line = (sensor.reading, encoded)
        return encoded

    def _sensor_added(self, sensor: Sensor[Any]) -> None:
        for server in self.servers:
            server.announcer.sensor_changed(sensor.name, "added")

    def _sensor_removed(self, sensor: Sensor[Any]) -> None:
        for session in self.sessions:
            session.samplers.unsubscribe(sensor.name)
        for server in self.servers:
            server.announcer.sensor_changed(sensor.name, "removed")


def request_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any], str]]:
    """The methods of a class and its bases that answer requests: wire name, function and docstring.

    Raises:
        TypeError: one of them has no docstring.
    """
    for attribute in dir(cls):
        if not attribute.startswith(_PREFIX) or attribute == _PREFIX:
            continue
        function = inspect.getattr_static(cls, attribute)
        if not inspect.isfunction(function):
            continue
        if not function.__doc__:
            raise TypeError(f"{attribute} must have a docstring")
        yield attribute.removeprefix(_PREFIX).replace("_", "-"), function, function.__doc__


def _compile_requests(cls: type[Device], *, strict: bool = False) -> None:
    """Fill ``cls.request_handlers`` from the methods of the class and its bases."""
    handlers: dict[bytes, RequestHandler] = {}
    unresolved: dict[bytes, Callable[..., Any]] = {}
    for name, function, help_text in request_methods(cls):
        try:
            decode = compile_decoder(name, function, 2, cls.types)
        except NameError:
            # An annotation may name a class that is defined further down; look again when one is made.
            if strict:
                raise
            unresolved[name.encode("ascii")] = function
            continue
        handlers[name.encode("ascii")] = RequestHandler(
            name=name,
            function=function,
            decode=decode,
            may_suspend=inspect.iscoroutinefunction(function),
            needs_room=inspect.iscoroutinefunction(function),
            help=help_text,
            timeout_hint=getattr(function, "request_timeout_hint", 0.0),
        )
    cls.request_handlers = dict(sorted(handlers.items()))
    cls._unresolved = unresolved
