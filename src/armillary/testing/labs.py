"""A manager, services and clients of a lab network, in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio

from armillary._runtime.groups import single_exception
from armillary._runtime.worker_threads import WorkerThreads
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network import (
    Client,
    Credentials,
    PersistentClient,
    Service,
    open_client_on,
    open_persistent_client,
    run_service,
    run_service_on,
    serve_manager_on,
)
from armillary.network.manager import Manager

from .clocks import threads_take_no_time
from .peers import RawPeer
from .streams import BUFFER, BoundedStream, MemoryListener

__all__ = ["Lab", "open_lab"]


class Lab:
    """A lab network in memory, with its manager. Made by `open_lab`.

    Everybody connects from the host ``lab``, each from a port of their own, so that the third who connects
    is called e.g. ``Client[lab:3]``, unless `connect` is told otherwise.

    Attributes:
        nursery: of the block; what is started in it ends with the block.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        threads: dict[Service, WorkerThreads],
        buffer: int,
        credentials: Credentials | None,
        options: dict[str, Any],
    ) -> None:
        self.nursery = nursery
        self._buffer = buffer
        self._credentials = credentials
        self._options = options
        self._listener = MemoryListener(buffer)
        self._ports = itertools.count(1)
        self._threads = threads
        self._manager: Manager | None = None
        self._manager_scope = trio.CancelScope()
        self._manager_ended = trio.Event()
        self._manager_ended.set()

    # -- the manager ---------------------------------------------------------------------------------------

    @property
    def manager(self) -> Manager:
        """The present manager, or the last one: what it says of itself is in its ``statistics()``."""
        assert self._manager is not None
        return self._manager

    @property
    def is_running(self) -> bool:
        """Whether there is a manager: none after `stop_manager`, or when an administrator has ended it."""
        return not self._manager_ended.is_set()

    async def start_manager(self, **options: Any) -> None:
        """Start another manager when the last one has ended; it knows nothing of what that one knew.

        Args:
            options: what is to be different from what `open_lab` was told.

        Raises:
            RuntimeError: there is one.
        """
        if self.is_running:
            raise RuntimeError("there is a manager already")
        self._options = {**self._options, **options}
        self._listener = MemoryListener(self._buffer)
        self._manager_scope, self._manager_ended = trio.CancelScope(), trio.Event()
        await self.nursery.start(self._serve, self._listener, self._manager_scope, self._manager_ended)

    async def stop_manager(self) -> None:
        """End the manager, as Ctrl-C does. Until there is another one, nobody can connect."""
        self._manager_scope.cancel(reason="the test has stopped the manager")
        await self.wait_stopped()

    async def wait_stopped(self) -> None:
        """Wait until there is no manager."""
        await self._manager_ended.wait()

    async def restart_manager(self, *, absence: float = 0.0, **options: Any) -> None:
        """Stop the manager and start another.

        Args:
            absence: seconds of the run's clock between the two.
            options: as for `start_manager`.
        """
        await self.stop_manager()
        await trio.sleep(absence)
        await self.start_manager(**options)

    async def _serve(
        self,
        listener: MemoryListener,
        scope: trio.CancelScope,
        ended: trio.Event,
        *,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        try:
            with scope:
                await serve_manager_on(
                    [listener], on_start=self._take_manager, task_status=task_status, **self._options
                )
        finally:
            ended.set()

    def _take_manager(self, manager: Manager) -> None:
        self._manager = manager

    # -- its peers -----------------------------------------------------------------------------------------

    async def connect(self, *, host: str = "lab", port: int | None = None) -> BoundedStream:
        """A bare connection to the manager, to be wrapped or abused. The caller closes it.

        Args:
            host: where it comes from, for the manager: ``localhost`` is its own computer.
            port: likewise; the next number if None.

        Raises:
            ConnectFailed: there is no manager.
        """
        if not self.is_running:
            raise ConnectFailed("could not connect: there is no manager")
        return await self._listener.connect(f"{host}:{next(self._ports) if port is None else port}")

    @asynccontextmanager
    async def open_raw(self, stream: trio.abc.Stream | None = None) -> AsyncIterator[RawPeer]:
        """Connect and speak in bytes, for a block. The manager speaks first.

        Args:
            stream: the connection; a new one if None.
        """
        connected = await self.connect() if stream is None else stream
        async with RawPeer(connected).closing() as peer:
            yield peer

    async def start(
        self, service: Service, *, stream: trio.abc.Stream | None = None, **options: Any
    ) -> trio.CancelScope:
        """Run a service until the scope that is returned is cancelled, or the lab's block is left.

        Returns when the manager has accepted it. From then on it stays with its manager through absences, as
        `armillary.network.run_service` does, after pauses that are the same in every run.

        Args:
            service: what is run.
            stream: its only connection, e.g. a `FaultyStream`. The service ends when that is lost, and
                nothing is raised.
            options: as for `armillary.network.run_service`.

        Raises:
            Rejected: the manager does not accept it.
            ConnectFailed: there is no manager, with a `stream` or with ``reconnect=False``.
        """
        if stream is not None:
            run = partial(run_service_on, service, stream)
        else:
            run = partial(run_service, service, "lab", None)
            options = {"dial": self.connect, "backoff": _steady_backoff(), **options}
        scope = trio.CancelScope()
        options = self._with_credentials(options)
        await self.nursery.start(self._run, service, scope, partial(run, **options))
        running = service._run
        if running is not None:
            self._threads[service] = running._threads
        return scope

    async def _run(
        self, service: Service, scope: trio.CancelScope, run: Any, *, task_status: trio.TaskStatus[Any]
    ) -> None:
        try:
            with scope:
                await run(task_status=task_status)
        except ConnectionClosed:
            pass  # it was not to connect again, so it has ended, and its clients were told
        finally:
            self._threads.pop(service, None)

    @asynccontextmanager
    async def client(
        self, name: str = "Client", *, stream: trio.abc.Stream | None = None, **options: Any
    ) -> AsyncIterator[Client]:
        """Connect a client for a block.

        Args:
            name: what it calls itself.
            stream: its connection, e.g. a `FaultyStream`; a new one if None.
            options: as for `armillary.network.open_client_on`.

        Raises:
            Rejected: the manager does not let it in.
            ConnectFailed: there is no manager.
        """
        connected = await self.connect() if stream is None else stream
        async with open_client_on(connected, name=name, **self._with_credentials(options)) as client:
            yield client

    def persistent_client(
        self, name: str = "Client", **options: Any
    ) -> AbstractAsyncContextManager[PersistentClient]:
        """Keep a client connected for a block, through absences of the manager.

        The pauses between attempts are the longest that they may be, so that they are the same in every run.

        Args:
            name: what it calls itself.
            options: as for `armillary.network.open_persistent_client`; with `dial`, its streams are yours.
        """
        options = {"dial": self.connect, "backoff": _steady_backoff(), **options}
        return open_persistent_client("lab", None, name=name, **self._with_credentials(options))

    def _with_credentials(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"credentials": self._credentials, **options}


def _steady_backoff() -> Backoff:
    """Pauses of 1, 2, 4... up to 60 seconds."""
    return Backoff(max)


@asynccontextmanager
async def open_lab(
    *services: Service, credentials: Credentials | None = None, buffer: int = BUFFER, **options: Any
) -> AsyncIterator[Lab]:
    """A manager with services for the length of a block, without ports.

    ::

        async def test_waits(autojump_clock) -> None:
            async with open_lab(Shutter()) as lab, lab.client() as client, client.link("Shutter") as shutter:
                assert await shutter.open_for(3600) == "closed"

    Virtual time stands still while a ``def`` method, a login or the database keeps a thread busy, for up to a
    second of real time, so that time-outs expire only by what the test waits for.

    Args:
        services: what runs from the beginning; `Lab.start` starts others.
        credentials: what services and clients answer if they are told nothing else.
        buffer: bytes that may be under way in each direction of a connection before its sender waits.
        options: as for `armillary.network.serve_manager_on`: ``authenticate``, ``roles``, ``store``,
            ``limits``.

    Raises:
        Rejected: the manager does not accept a service.

    Leaving the block ends everything as cancelling it does. What the block raises comes out as it is.
    """
    threads: dict[Service, WorkerThreads] = {}

    def is_busy() -> bool:
        return any(each.is_busy for each in threads.values())

    with threads_take_no_time(is_busy), single_exception():
        async with trio.open_nursery() as nursery:
            lab = Lab(nursery, threads, buffer, credentials, options)
            await lab.start_manager()
            for service in services:
                await lab.start(service)
            yield lab
            nursery.cancel_scope.cancel(reason="the test's block was left")
