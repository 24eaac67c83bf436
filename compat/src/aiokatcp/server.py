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

    def __init__(self, server: DeviceServer, guest: Guest) -> None:
        self.guest = guest
        self.hold: Hold = guest.hold()
        self.listener = HostListener()
        self._is_up: asyncio.Future[None] = server.loop.create_future()
        self.task: GuestTask[None] = guest.start_soon(self._serve, server, name=f"serve {server!r}")

    async def wait_up(self) -> None:
        """Wait until clients are served. Raises what keeps them from it."""
        await asyncio.wait([self._is_up, self.task.future], return_when=asyncio.FIRST_COMPLETED)
        if self.task.future.done():
            await self.task.wait()

    async def _serve(self, server: DeviceServer) -> None:
        self._is_up.set_result(None)
        limits = server._limits()
        try:
            await FacadeServer.serve(server._device, [self.listener], limits, 0.0, trio.TASK_STATUS_IGNORED)
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
    """

    VERSION: ClassVar[str]
    """Name and version of the device's interface."""
    BUILD_STATE: ClassVar[str]
    """Name and version of the software."""

    _handlers: ClassVar[dict[bytes, RequestHandler]]
    task_handlers: ClassVar[dict[bytes, RequestHandler]]
    """The requests by wire name, each answered by a task."""
    hooks_messages: ClassVar[bool] = False
    """Whether the class overrides `handle_message`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.hooks_messages = cls.handle_message is not DeviceServer.handle_message
        cls.task_handlers = compile_requests(cls, {})
        cls._handlers = cls.task_handlers if cls.hooks_messages else compile_requests(cls, NATIVE_REQUESTS)

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
        self.loop = asyncio.get_event_loop() if loop is None else loop
        """The loop that the server runs on."""
        self.server: asyncio.AbstractServer | None = None
        """What listens, while the server runs."""
        self._host = host
        self._port = port
        self._limit = limit
        self._max_pending = max_pending
        self._max_backlog = 2 * limit if max_backlog is None else max_backlog
        self._limits()  # checked here, where whoever chose them is told
        self._device = FacadeDevice(self, self._handlers)
        self._connections: set[ClientConnection] = set()
        self._service_tasks: list[asyncio.Task[Any]] = []
        # Held while the server starts, and while it stops.
        self._changing = asyncio.Lock()
        self._run: _Run | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._is_cancelling = False
        self._stopped = asyncio.Event()
        self._failure: Exception | None = None

    def _limits(self) -> Limits:
        # No limit for one client, which would cost it its place in the queue.
        return Limits.of(self._limit, self._max_pending, self._max_pending + 1, max(1, self._max_backlog))

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def sensors(self) -> SensorSet:
        """The device's sensors."""
        return self._device.sensors

    @property
    def max_backlog(self) -> int:
        """Bytes that a client may leave unread before an inform costs it its connection."""
        return self._max_backlog

    @max_backlog.setter
    def max_backlog(self, value: int) -> None:
        self._max_backlog = value
        for session in self._device.sessions:
            session.outbox.bound = value

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets that listen; none before `start`."""
        return () if self.server is None else tuple(self.server.sockets)  # type: ignore[attr-defined]

    @property
    def service_tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The tasks that run as part of the server."""
        return tuple(self._service_tasks)

    @property
    def guest(self) -> Guest | None:
        """The trio run that serves the clients, while the server runs."""
        return None if self._run is None else self._run.guest

    # -- its life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and serve clients until `stop`. If the server is stopping, wait for the end of that first.

        Raises:
            RuntimeError: the server is running; or the running loop is not the server's.
            OSError: the address cannot be listened on; the server is as it was.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("expected to be started on the loop that the server was made for")
        async with self._changing:
            if self._run is not None:
                raise RuntimeError("Server is already running")
            run = self._run = _Run(self, Guest.of(self.loop))
            try:
                # In two steps, because a cancellation must not lose sight of sockets that listen already.
                self.server = await self.loop.create_server(
                    partial(ClientConnection, self, self._limit),
                    self._host,
                    self._port,
                    start_serving=False,
                )
                await run.wait_up()
                await self.server.start_serving()
            except BaseException:
                self._run = None
                await self._end_run(run, 0.0)  # noqa: ASYNC102 - asyncio: cancelled once, not for ever
                raise
            self._stopped.clear()
            self._failure = None
        if any(task.done() for task in self._service_tasks):  # it failed before there was a server to halt
            self._halt_for_service_task()

    def halt(self, cancel: bool = True) -> asyncio.Task[None]:
        """Begin to stop, and return the task that does it.

        Args:
            cancel: whether requests in progress are cancelled, or may finish. They are cancelled if any call
                says so.
        """
        if self._stopping is None or self._stopping.done():
            self._is_cancelling = cancel
            self._stopping = self.loop.create_task(self._stop())
        elif cancel and not self._is_cancelling:
            self._is_cancelling = True
            self._device.halt(drain=0.0)
        return self._stopping

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
        await self._stopped.wait()
        if self._stopping is not None:
            _look_at(self._stopping)  # who joins has heard of it
        if self._failure is not None:
            raise self._failure

    async def on_stop(self) -> None:
        """What a subclass does at the end: when clients and requests are gone, before service tasks end."""

    async def _stop(self) -> None:
        async with self._changing:
            run, self._run = self._run, None
            try:
                if run is not None:
                    await self._stop_running(run)
            finally:
                self._stopped.set()

    async def _stop_running(self, run: _Run) -> None:
        try:
            await self._end_run(run, 0.0 if self._is_cancelling else math.inf)
            await self.on_stop()
        except Exception as error:
            self._failure = error
            raise
        finally:
            await self._end_service_tasks()  # noqa: ASYNC102 - as above
        if self._failure is not None:
            raise self._failure

    async def _end_run(self, run: _Run, drain: float) -> None:
        """Disconnect the clients, and wait until nothing of them is left."""
        server, self.server = self.server, None
        if server is not None:
            server.close()
        self._device.halt(drain=drain)
        try:
            if self._device.servers:
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
        self._service_tasks.append(task)
        task.add_done_callback(self._service_task_done)

    def _service_task_done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None:
            if task in self._service_tasks:
                self._service_tasks.remove(task)
            return
        error = task.exception()
        logger.warning("Halting the server because task %r raised %s", task.get_name(), error, exc_info=error)
        if self._run is not None:
            self._halt_for_service_task()

    def _halt_for_service_task(self) -> None:
        self.halt().add_done_callback(_look_at)

    async def _end_service_tasks(self) -> None:
        """Cancel the service tasks, wait for them, and keep what the first of them raised."""
        tasks, self._service_tasks = self._service_tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and self._failure is None:
                self._failure = cast("Exception | None", task.exception())

    # -- informs and messages -----------------------------------------------------------------------------

    def mass_inform(self, name: str, *args: Any) -> None:
        """Send an inform to every client.

        Raises:
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        self._device.mass_inform(name, *args)

    def send_version_info(self, ctx: RequestContext, *, send_reply: bool = True) -> None:
        """Send the informs that a client gets when it connects, and as the answer to ``?version-list``."""
        ctx.informs(version_informs(self._device), send_reply=send_reply)

    async def unhandled_request(self, ctx: RequestContext, req: Message) -> None:
        """Answer a request that has no handler."""
        raise InvalidReply(f"unknown request {req.name}")

    def handle_message(self, conn: ClientConnection, msg: Message) -> None:
        """Called with each message of a client; here, it answers requests."""
        conn.session.answer_message(msg)

    def _connection_made(self, conn: ClientConnection) -> None:
        if self._run is None or conn._stream is None:
            conn.abort()
            return
        self._connections.add(conn)
        self._run.listener.deliver(conn._stream)

    def _connection_lost(self, conn: ClientConnection, exc: Exception | None) -> None:
        self._connections.discard(conn)

    def _eof_received(self, conn: ClientConnection) -> bool:
        return True  # the client may still read

    LogHandler = LogHandler


DeviceServer.task_handlers = compile_requests(DeviceServer, {})
DeviceServer._handlers = compile_requests(DeviceServer, NATIVE_REQUESTS)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Its error was logged, and comes out of join: asyncio need not warn that nobody looked at it."""
    if task.done() and not task.cancelled():
        task.exception()
