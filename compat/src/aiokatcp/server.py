"""Device servers on an asyncio loop."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from functools import partial
from typing import Any, ClassVar, cast

import trio

from armillary.katcp.device import RequestHandler
from armillary.katcp.limits import Limits
from armillary.katcp.protocol.messages import DEFAULT_LIMIT, InvalidReply
from armillary.katcp.version import version_informs
from armillary_compat.guest import Guest, GuestTask, Hold
from armillary_compat.streams import HostListener

from ._builtin_requests import BuiltinRequests
from ._client_connection import ClientConnection
from ._log_handler import LogHandler
from ._requests import RequestContext, compile_requests
from ._serving import NATIVE_REQUESTS, FacadeDevice, FacadeServer
from .core import Message
from .sensor import SensorSet

__all__ = ["ClientConnection", "DeviceServer", "RequestContext"]

logger = logging.getLogger(__name__)


class _Run:
    """One start of a server: what it holds until its stop."""

    def __init__(self, server: DeviceServer, guest: Guest, limits: Limits) -> None:
        self.guest = guest
        self.hold: Hold = guest.hold()
        self.listener = HostListener()
        self._is_up: asyncio.Future[None] = server.loop.create_future()
        self.task: GuestTask[None] = guest.start_soon(self._serve, server, limits, name=f"serve {server!r}")

    async def wait_up(self) -> None:
        """Wait until clients are served. Raises what keeps them from it."""
        await asyncio.wait([self._is_up, self.task.future], return_when=asyncio.FIRST_COMPLETED)
        if self.task.future.done():
            await self.task.wait()

    async def _serve(self, server: DeviceServer, limits: Limits) -> None:
        self._is_up.set_result(None)
        try:
            await FacadeServer.serve(
                server._katcp_device, [self.listener], limits, 0.0, trio.TASK_STATUS_IGNORED
            )
        finally:
            # Mostly it is closed by now. But a loop may end without a stop of the servers on it.
            if server.server is not None:
                server.server.close()


class DeviceServer(BuiltinRequests):
    """A KATCP device on an asyncio loop.

    Subclass it, define `VERSION`, `BUILD_STATE` and ``async def request_...`` methods, and `start` it.

    Args:
        host: the address to listen on; every interface if empty.
        port: the TCP port, 0 for a free one.
        limit: the longest line accepted, in bytes.
        max_pending: requests in progress at once, for the whole server. Clients are not read while there are
            as many.
        max_backlog: bytes that a client may leave unread before an inform costs it its connection; twice
            `limit` if None.
        loop: the loop that the server runs on; the current one if None.

    Raises:
        TypeError: `VERSION` or `BUILD_STATE` is not defined.
        ValueError: `limit` or `max_pending` is below 1.
        NameError: an annotation of a request's method names something that does not exist.
    """

    VERSION: ClassVar[str]
    """Name and version of the device's interface."""
    BUILD_STATE: ClassVar[str]
    """Name and version of the software."""

    _katcp_native_handlers: ClassVar[dict[bytes, RequestHandler]]
    _katcp_handlers: ClassVar[dict[bytes, RequestHandler]]
    """The requests by wire name, each answered by a task."""
    _katcp_hooks_messages: ClassVar[bool] = False
    """Whether the class overrides `handle_message`."""
    __is_compiled: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._katcp_hooks_messages = cls.handle_message is not DeviceServer.handle_message
        try:
            cls.__compile_requests()
        except NameError:
            # An annotation may name a class that is defined further down; look again when one is made.
            cls.__is_compiled = False

    @classmethod
    def __compile_requests(cls) -> None:
        cls._katcp_handlers = compile_requests(cls, {})
        cls._katcp_native_handlers = (
            cls._katcp_handlers if cls._katcp_hooks_messages else compile_requests(cls, NATIVE_REQUESTS)
        )
        cls.__is_compiled = True

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limit: int = DEFAULT_LIMIT,
        max_pending: int = 100,
        max_backlog: int | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        for kind in ("VERSION", "BUILD_STATE"):
            if not getattr(self, kind, None):
                raise TypeError(f"{type(self).__name__} does not define {kind}")
        # Two underscores or a prefix: subclasses have private attributes of their own.
        if not self.__is_compiled:
            self.__compile_requests()
        self.loop = asyncio.get_event_loop() if loop is None else loop
        """The loop that the server runs on."""
        self.server: asyncio.AbstractServer | None = None
        """What listens, while the server runs."""
        self.__host = host
        self.__port = port
        self.__limit = limit
        self.__max_pending = max_pending
        self.__max_backlog = 2 * limit if max_backlog is None else max_backlog
        self.__limits()  # checked here, where whoever chose them is told
        self._katcp_device = FacadeDevice(self, self._katcp_native_handlers)
        self._connections: set[ClientConnection] = set()
        self.__service_tasks: list[asyncio.Task[Any]] = []
        # Held while the server starts, and while it stops.
        self.__changing = asyncio.Lock()
        self.__run: _Run | None = None
        self.__stopping: asyncio.Task[None] | None = None
        self.__is_cancelling = False
        self.__stopped = asyncio.Event()
        self.__failure: Exception | None = None

    def __limits(self) -> Limits:
        # No limit for one client, which would cost it its place in the queue.
        return Limits.of(self.__limit, self.__max_pending, self.__max_pending + 1, max(1, self.__max_backlog))

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def sensors(self) -> SensorSet:
        """The device's sensors."""
        return self._katcp_device.sensors

    @property
    def max_backlog(self) -> int:
        """Bytes that a client may leave unread before an inform costs it its connection."""
        return self.__max_backlog

    @max_backlog.setter
    def max_backlog(self, value: int) -> None:
        self.__max_backlog = value
        for session in self._katcp_device.sessions:
            session.outbox.bound = value

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets that listen; none before `start`."""
        return () if self.server is None else tuple(self.server.sockets)  # type: ignore[attr-defined]

    @property
    def service_tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The tasks that run as part of the server."""
        return tuple(self.__service_tasks)

    @property
    def _katcp_guest(self) -> Guest | None:
        """The trio run that serves the clients, while the server runs."""
        return None if self.__run is None else self.__run.guest

    # -- its life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and serve clients until `stop`. If the server is stopping, wait for the end of that first.

        Raises:
            RuntimeError: the server is running; or the running loop is not the server's.
            OSError: the address cannot be listened on; the server is as it was.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("expected to be started on the loop that the server was made for")
        async with self.__changing:
            if self.__run is not None:
                raise RuntimeError("Server is already running")
            run = self.__run = _Run(self, Guest.of(self.loop), self.__limits())
            try:
                # In two steps, because a cancellation must not lose sight of sockets that listen already.
                self.server = await self.loop.create_server(
                    partial(ClientConnection, self, self.__limit),
                    self.__host,
                    self.__port,
                    start_serving=False,
                )
                await run.wait_up()
                await self.server.start_serving()
            except BaseException:
                self.__run = None
                await self.__end_run(run, 0.0)  # noqa: ASYNC102 - asyncio: cancelled once, not for ever
                raise
            self.__stopped.clear()
            self.__failure = None
        if any(task.done() for task in self.__service_tasks):  # it failed before there was a server to halt
            self.__halt_for_service_task()

    def halt(self, cancel: bool = True) -> asyncio.Task[None]:
        """Begin to stop, and return the task that does it.

        Args:
            cancel: whether requests in progress are cancelled, or may finish. They are cancelled if any call
                says so.
        """
        if self.__stopping is None or self.__stopping.done():
            self.__is_cancelling = cancel
            self.__stopping = self.loop.create_task(self.__stop())
        elif cancel and not self.__is_cancelling:
            self.__is_cancelling = True
            self._katcp_device.halt(drain=0.0)
        return self.__stopping

    async def stop(self, cancel: bool = True) -> None:
        """Stop, and wait until it is done. Harmless if the server is not running.

        Args:
            cancel: see `halt`.

        Raises:
            Exception: what `on_stop` or a service task raised.

        If this is cancelled, the server goes on stopping.
        """
        # Shielded also because requests and service tasks, which are cancelled meanwhile, may call this.
        await asyncio.shield(self.halt(cancel))

    async def join(self) -> None:
        """Wait until the server has stopped.

        Raises:
            Exception: what `on_stop` or a service task raised.
        """
        await self.__stopped.wait()
        if self.__stopping is not None:
            _look_at(self.__stopping)  # who joins has heard of it
        if self.__failure is not None:
            raise self.__failure

    async def on_stop(self) -> None:
        """What a subclass does at the end: when clients and requests are gone, before service tasks end."""

    async def __stop(self) -> None:
        async with self.__changing:
            run, self.__run = self.__run, None
            try:
                if run is not None:
                    await self.__stop_running(run)
            finally:
                self.__stopped.set()

    async def __stop_running(self, run: _Run) -> None:
        try:
            await self.__end_run(run, 0.0 if self.__is_cancelling else math.inf)
            await self.on_stop()
        except Exception as error:
            self.__failure = error
            raise
        finally:
            await self.__end_service_tasks()  # noqa: ASYNC102 - as above
        if self.__failure is not None:
            raise self.__failure

    async def __end_run(self, run: _Run, drain: float) -> None:
        """Disconnect the clients, and wait until nothing of them is left."""
        server, self.server = self.server, None
        if server is not None:
            server.close()
        self._katcp_device.halt(drain=drain)
        try:
            if self._katcp_device.servers:
                await run.task.wait()
            else:  # it has not even begun to serve
                run.task.cancel("the server could not start")
                await asyncio.wait([run.task.future])
        finally:
            run.hold.release()

    # -- service tasks ------------------------------------------------------------------------------------

    def add_service_task(self, task: asyncio.Task[Any]) -> None:
        """Let a task run as part of the server: it is cancelled when the server stops.

        If it raises (other than a cancellation), the server halts, and `stop` or `join` raises the same.
        """
        self.__service_tasks.append(task)
        task.add_done_callback(self.__service_task_done)

    def __service_task_done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None:
            if task in self.__service_tasks:
                self.__service_tasks.remove(task)
            return
        error = task.exception()
        logger.warning("Halting the server because task %r raised %s", task.get_name(), error, exc_info=error)
        if self.__run is not None:
            self.__halt_for_service_task()

    def __halt_for_service_task(self) -> None:
        self.halt().add_done_callback(_look_at)

    async def __end_service_tasks(self) -> None:
        """Cancel the service tasks, wait for them, and keep what the first of them raised."""
        tasks, self.__service_tasks = self.__service_tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and self.__failure is None:
                self.__failure = cast("Exception | None", task.exception())

    # -- informs and messages -----------------------------------------------------------------------------

    def mass_inform(self, name: str, *args: Any) -> None:
        """Send an inform to every client.

        Raises:
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        self._katcp_device.mass_inform(name, *args)

    def send_version_info(self, ctx: RequestContext, *, send_reply: bool = True) -> None:
        """Send the informs that a client gets when it connects, and as the answer to ``?version-list``."""
        ctx.informs(version_informs(self._katcp_device), send_reply=send_reply)

    async def unhandled_request(self, ctx: RequestContext, req: Message) -> None:
        """Answer a request that has no handler."""
        raise InvalidReply(f"unknown request {req.name}")

    def handle_message(self, conn: ClientConnection, msg: Message) -> None:
        """Called with each message of a client; here, it answers requests."""
        conn.session.answer_message(msg)

    def _connection_made(self, conn: ClientConnection) -> None:
        if self.__run is None or conn._stream is None:
            conn.abort()
            return
        self._connections.add(conn)
        self.__run.listener.deliver(conn._stream)

    def _connection_lost(self, conn: ClientConnection, exc: Exception | None) -> None:
        self._connections.discard(conn)

    def _eof_received(self, conn: ClientConnection) -> bool:
        return True  # the client may still read

    LogHandler = LogHandler


DeviceServer._katcp_handlers = compile_requests(DeviceServer, {})
DeviceServer._katcp_native_handlers = compile_requests(DeviceServer, NATIVE_REQUESTS)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Its error was logged, and comes out of join: asyncio need not warn that nobody looked at it."""
    if task.done() and not task.cancelled():
        task.exception()
