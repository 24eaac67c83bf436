"""Serve a device to KATCP clients."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import trio

from armillary._runtime.dial import open_listeners
from armillary._runtime.groups import single_exception
from armillary._runtime.sessions import serve_sessions

from .announcer import Announcer
from .device import Device
from .limits import Limits, Turnstile
from .protocol.messages import DEFAULT_LIMIT
from .requests import Deferred
from .session import Session

__all__ = ["DeviceServer", "serve_device", "serve_device_on"]

_logger = logging.getLogger("armillary.katcp.server")
Listeners = list[trio.abc.Listener[Any]]


async def serve_device(
    device: Device,
    port: int | str | Path,
    *,
    host: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    drain: float = 0.0,
    limit: int = DEFAULT_LIMIT,
    max_pending: int = 100,
    max_pending_per_client: int | None = None,
    max_backlog: int | None = None,
    backlog: int | None = None,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a device until cancelled, or until a client asks it to halt.

    ``await nursery.start(serve_device, device, 7147)`` returns when clients can connect.

    Args:
        device: what is served. It may be served on several ports at once.
        port: a TCP port, 0 for a free one; or the path of a Unix socket.
        host: the address to listen on; every interface if None.
        ssl_context: makes every connection a TLS one.
        drain: seconds that running requests get to finish when the server ends. Those that are still
            running then are cancelled and answered ``fail request cancelled``.
        limit: the longest line accepted, in bytes. A longer one is answered with a ``#log`` and skipped.
        max_pending: requests whose handlers may wait for something at once, for the whole server. More
            lets busy clients use more memory; fewer makes them wait for each other.
        max_pending_per_client: the same for one client; a quarter of `max_pending` if None. A client at
            its limit is not read until one of its requests has finished; the others do not notice.
            Requests with plain ``def`` handlers count in neither.
        max_backlog: bytes that a client may leave unread, twice `limit` if None. One with more is
            disconnected, and the log says so.
        backlog: connections that may wait to be accepted; as many as the system allows if None.
        task_status: started with the listeners, when clients can connect.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: a limit is below 1.

    Resource handling:
        The listeners and all connections are closed when this returns. On cancellation the listeners
        close, running requests get `drain` seconds, and every client gets ``#disconnect``; a client that
        does not read holds that up for half a second at most.

    Error handling:
        A handler's exception is its client's reply. A broken connection, or a defect in a session, ends
        that session only and is logged. What ``device.on_restart()`` raises comes out of here.
    """
    limits = Limits.of(limit, max_pending, max_pending_per_client, max_backlog)
    listeners = await open_listeners(port, host=host, ssl_context=ssl_context, backlog=backlog)
    await DeviceServer.serve(device, listeners, limits, drain, task_status)


async def serve_device_on(
    device: Device,
    listeners: Listeners,
    *,
    drain: float = 0.0,
    limit: int = DEFAULT_LIMIT,
    max_pending: int = 100,
    max_pending_per_client: int | None = None,
    max_backlog: int | None = None,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve_device`, on listeners of your own. They are closed when this returns.

    Raises:
        ValueError: a limit is below 1; nothing was done, and the listeners are still open.
    """
    limits = Limits.of(limit, max_pending, max_pending_per_client, max_backlog)
    await DeviceServer.serve(device, listeners, limits, drain, task_status)


class DeviceServer:
    """One `serve_device`: the listeners, the sessions, and the limits that they share.

    Args:
        device: what is served.
        limits: what it takes on.
        drain: seconds for running requests at the end.
        nursery: runs the sessions and what outlives them: their writers.
    """

    def __init__(self, device: Device, limits: Limits, drain: float, nursery: trio.Nursery) -> None:
        self.device = device
        self.limits = limits
        self.nursery = nursery
        self.logger = _logger
        self.announcer = Announcer(device)
        self.turnstile = Turnstile(limits.pending)
        self.sessions: dict[Session, None] = {}
        self.deferred: dict[Deferred, None] = {}
        """Requests whose answer is made elsewhere, those of clients that are gone included."""
        self._drain = drain
        self._deferred_settled = trio.Event()
        self._accepting = trio.CancelScope()
        self._is_ending = False
        self._ready = trio.Event()
        self._ready.set()

    @classmethod
    async def serve(
        cls,
        device: Device,
        listeners: Listeners,
        limits: Limits,
        drain: float,
        task_status: trio.TaskStatus[Listeners],
    ) -> None:
        """One server's life: returns when its last session has ended."""
        server: DeviceServer | None = None
        try:
            with single_exception():
                async with trio.open_nursery() as nursery:
                    server = cls(device, limits, drain, nursery)
                    device.servers[server] = None
                    await server._accept(listeners, task_status)
        finally:
            if server is not None:
                del device.servers[server]

    async def _accept(self, listeners: Listeners, task_status: trio.TaskStatus[Listeners]) -> None:
        """Accept clients until cancelled or halted; the enclosing nursery waits for their sessions."""
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self.announcer.run)
            await serve_sessions(
                self._serve_client,
                listeners,
                accepting=self._accepting,
                sessions=self.nursery,
                begin_drain=self._begin_drain,
                logger=self.logger,
                task_status=task_status,
            )
            helpers.cancel_scope.cancel(reason="the server is ending")

    def make_session(self, stream: trio.abc.Stream) -> Session:
        """The session of one client."""
        return Session(self, stream, next(self.device.serials))

    async def _serve_client(self, stream: trio.abc.Stream) -> None:
        session = self.make_session(stream)
        if self._is_ending:  # accepted in the last moment
            session.begin_drain("server shutting down", -float("inf"))
        await session.run()

    def halt(self, drain: float | None = None) -> None:
        """End as if cancelled, without being cancelled.

        Args:
            drain: seconds for running requests, instead of those that the server was given.
        """
        if drain is not None:
            self._drain = drain
        if self._is_ending:
            self._begin_drain()  # with less time than before, perhaps
        self._accepting.cancel(reason="the device was asked to halt")

    def restart(self) -> None:
        """Disconnect every client, await the device's `on_restart`, then greet clients again."""
        if self._ready.is_set() and not self._is_ending:
            self._ready = trio.Event()
            self.nursery.start_soon(self._restart)

    async def wait_ready(self) -> None:
        """Wait while the device restarts."""
        if not self._ready.is_set():
            await self._ready.wait()

    async def _restart(self) -> None:
        deadline = trio.current_time() + self._drain
        leaving = tuple(self.sessions)
        for session in leaving:
            session.begin_drain("device restarting", deadline)
        if self.deferred:
            self.nursery.start_soon(self._end_deferred, deadline)
        for session in leaving:
            await session.gone.wait()
        await self.device.on_restart()
        self._ready.set()

    def _begin_drain(self) -> None:
        self._is_ending = True
        deadline = trio.current_time() + self._drain
        for session in tuple(self.sessions):
            session.begin_drain("server shutting down", deadline)
        if self.deferred:
            self.nursery.start_soon(self._end_deferred, deadline)

    def deferred_done(self, deferred: Deferred) -> None:
        """Its answer was made. Called by the session."""
        del self.deferred[deferred]
        if not self.deferred:
            self._deferred_settled.set()

    async def _end_deferred(self, deadline: float) -> None:
        """Wait for answers that are made elsewhere, and at the deadline ask for them to be given up."""
        # Shielded: who makes them is not a task of ours, and has to end before we do.
        with trio.CancelScope(shield=True):
            with trio.CancelScope(deadline=deadline):
                await self._wait_deferred()
            for deferred in tuple(self.deferred):
                deferred.cancel()
            await self._wait_deferred()

    async def _wait_deferred(self) -> None:
        while self.deferred:
            if self._deferred_settled.is_set():
                self._deferred_settled = trio.Event()
            await self._deferred_settled.wait()
