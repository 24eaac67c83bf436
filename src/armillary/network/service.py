"""A service: an object whose public attributes people call through a manager."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text, peer_name
from armillary._runtime.groups import single_exception
from armillary._runtime.worker_threads import WorkerThreads, open_worker_threads
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed

from .calls import Calls, CallStatistics
from .client import LANGUAGE, OS, PORT
from .connection import DEFAULT_LIMIT, AskSomebody, Connection, Continuation
from .interface import Interface
from .protocol import packets
from .protocol.codec import Codec
from .protocol.device_handshake import Credentials
from .protocol.features import BINARY, CANCEL, EXCEPTION, PING, STREAM
from .protocol.identities import Identity
from .protocol.packets import Request
from .protocol.payloads import TEXT_CODEC
from .protocol.splitting import Oversize
from .reconnect import Dial, make_backoff, stay_connected
from .trusting import Trust, dial_manager

__all__ = ["SERVICE_FEATURES", "Service", "run_service", "run_service_on"]

_logger = logging.getLogger("armillary.network")

SERVICE_FEATURES = frozenset({BINARY, CANCEL, EXCEPTION, PING, STREAM})
"""What services can do beyond 1.0, if the manager can, too."""

# Threads for methods that are no coroutine functions: most wait for an instrument, not for a processor. More
# lets more of them wait at once; fewer makes a slow method hold up the others sooner.
THREADS = 40
# A script that sends all of its requests before it waits for a reply sends thousands. More takes more memory
# when nobody can keep up; fewer refuses such scripts.
PENDING = 32_768
# Unsent bytes above which notifications that cannot wait are dropped. More lets a manager that does not read
# take more memory; fewer loses large notifications behind a slow link.
_NOTIFICATION_HIGH_WATER = 64 * 1024 * 1024


class Service:
    """An object that is called through a manager: subclass it, or give it any object.

    ::

        class Dmm(Service):
            def __init__(self):
                super().__init__(name="DMM", concurrency=1)

            def voltage(self, range: float = 10.0) -> float: ...

        await run_service(Dmm(), "lab-pc")

    Public attributes can be asked for by everybody: methods are called, other values are returned. A
    coroutine function runs in the trio run, any other method in a thread; several at once, unless
    `concurrency` says otherwise. Properties are evaluated in a thread as well. A generator, asynchronous or
    not, is iterated by the client (`Link.stream`), or answered as a list to who has not asked for items. What
    a method can know of its caller, and tell it before the end, is in `current_call`. If there is a method
    ``shutdown_service``, the service ends after it was called.

    Args:
        target: whose attributes they are; this object's own if None.
        name: by which the service is asked for; the name of the class if None.
        max_clients: how many clients may be linked with it; None is no limit.
        links_required: whether only clients that are linked with it may call it; others, such as people at a
            terminal, are refused by armillary's manager. That of MSL-Network 1.0 lets everybody.
        ignore: names of attributes that are not told to anybody. They can be asked for nevertheless.
        concurrency: how many methods may run at once. 1 makes a service serial, for hardware that can do one
            thing at a time: calls are carried out one by one in the order in which they came.
    """

    def __init__(
        self,
        target: object | None = None,
        *,
        name: str | None = None,
        max_clients: int | None = None,
        links_required: bool = False,
        ignore: Iterable[str] = (),
        concurrency: int | None = None,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"expected a concurrency of at least 1, got {concurrency}")
        self._target = self if target is None else target
        self._name = type(self._target).__name__ if name is None else name
        self._max_clients = max_clients if max_clients is not None and max_clients > 0 else -1
        self._links_required = links_required
        self._ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
        self._concurrency = concurrency
        self._run: _Run | None = None

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self._name

    @property
    def max_clients(self) -> int:
        """How many clients may be linked with it; -1 is no limit."""
        return self._max_clients

    async def notify(self, *args: object, **kwargs: object) -> None:
        """Tell something to everybody who is linked with the service.

        Waits while the manager is behind. If there is no connection to it, nobody is told.

        Raises:
            TypeError: it cannot be sent.
            ValueError: it is nested too deeply.
        """
        await trio.lowlevel.checkpoint()
        run = self._run
        if run is not None and (connection := run.connection) is not None and connection.reason is None:
            await connection.wait_room()
            run.notify(connection, packets.notification(self._name, args, kwargs, codec=connection.codec))

    def emit_notification(self, *args: object, **kwargs: object) -> None:
        """As `notify`, from any thread, and without waiting.

        What a method tells in this way is told before its result. If much waits to be sent, it is dropped and
        counted.
        """
        run = self._run
        if run is not None and (connection := run.connection) is not None and connection.reason is None:
            line = packets.notification(self._name, args, kwargs, codec=connection.codec)
            if threading.get_ident() == run.thread:
                run.notify(connection, line)
            else:
                run.from_thread(lambda: run.notify(connection, line))

    def statistics(self) -> CallStatistics | None:
        """A look at its calls; None if it does not run."""
        return None if self._run is None else self._run.calls.statistics()


class _Run:
    """One service, while it runs."""

    def __init__(self, service: Service, threads: WorkerThreads, nursery: trio.Nursery) -> None:
        self._service = service
        self._threads = threads
        base = Service if service._target is service else None
        self.interface = Interface(service._target, base, service._ignored)
        self.calls = Calls(
            self.interface,
            threads,
            nursery,
            concurrency=service._concurrency,
            most_pending=PENDING,
            on_shutdown=self._shut_down,
        )
        self.thread = threading.get_ident()
        self.connection: Connection | None = None
        self.is_started = False
        self.is_shut_down = False
        self.changed = trio.Event()
        self.dropped = 0
        self.attributes: dict[str, object] = {}

    def identity(self, features: frozenset[str]) -> Identity:
        service = self._service
        return Identity(
            "service",
            service.name,
            LANGUAGE,
            OS,
            self.attributes,
            service.max_clients,
            features,
            service._links_required,
        )

    def from_thread(self, function: Callable[[], object]) -> None:
        try:
            self._threads.from_thread(function)
        except trio.RunFinishedError:
            pass  # as with any notification that nobody can be told of

    def notify(self, connection: Connection, line: bytes) -> None:
        if connection.outbox.backlog <= _NOTIFICATION_HIGH_WATER:
            connection.send(line)
            return
        if not self.dropped:
            _logger.warning("notifications of %r are dropped: the manager is too slow", self._service.name)
        self.dropped += 1

    def take(self, connection: Connection, request: Request | Oversize) -> Continuation | None:
        """A client asks for something."""
        if not isinstance(request, Oversize):
            return self.calls.take(connection, request)
        uid, requester = request.members.get("uid"), request.members.get("requester")
        if isinstance(uid, str) and isinstance(requester, str):
            text = f"ValueError: the request has more than {request.limit} bytes"
            connection.send(packets.error(requester, uid, text))
        return None

    def batch(self, deliver: Callable[[], None]) -> None:
        """Send together what comes from threads together."""
        connection = self.connection
        if connection is None:
            deliver()
            return
        connection.outbox.cork()
        deliver()
        connection.outbox.flush()

    # -- connections ---------------------------------------------------------------------------------------

    async def use(self, connection: Connection) -> bool:
        """The manager has accepted the service. Return whether it has been shut down."""
        while not (self.is_shut_down or connection.reason is not None):
            self.changed = trio.Event()
            await self.changed.wait()
        if self.is_shut_down:
            await self.calls.wait_done()
        return self.is_shut_down

    def connection_ends(self, connection: Connection) -> None:
        self.calls.forget(connection)
        self.changed.set()

    def _shut_down(self) -> None:
        self.is_shut_down = True
        self.changed.set()


async def run_service(
    service: Service,
    host: str = "localhost",
    port: int | None = PORT,
    *,
    trust: Trust | None = Trust(),  # noqa: B008 - immutable
    credentials: Credentials | None = None,
    ask: AskSomebody | None = None,
    limit: int = DEFAULT_LIMIT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
    codec: Codec = TEXT_CODEC,
    features: Collection[str] = SERVICE_FEATURES,
    reconnect: bool = True,
    backoff: Backoff | None = None,
    dial: Dial | None = None,
    task_status: trio.TaskStatus[str | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Let people call a service through a manager, until cancelled or shut down by its ``shutdown_service``.

    Args:
        service: what they call. It can run in one place at a time.
        host: of the manager, as for `open_client`, and so on.
        port: of the manager, or None.
        trust: whose certificates are trusted; None is no TLS.
        credentials: what to answer on each connection.
        ask: asks a person what `credentials` do not say.
        limit: the largest request accepted, in bytes; a larger one is answered with an error.
        connect_timeout: seconds for each attempt.
        codec: how values are written for managers of 1.0.
        features: what to use beyond 1.0, if the manager can.
        reconnect: whether to wait for a manager that is not there yet, and to register again when the
            connection was lost.
        backoff: the pauses between attempts; `make_backoff` if None.
        dial: makes the stream of each attempt; connects to `host` and `port` if None.
        task_status: started, with the service's network name, when the manager has accepted it.

    Raises:
        Rejected: the manager does not accept the service: its name is taken, or the credentials are wrong.
        ConnectFailed: the manager's certificate is not trusted; or, without `reconnect`, nobody answered.
        ConnectionClosed: without `reconnect`, the connection was lost.

    Cancellation ends coroutine methods and takes leave of the manager at once, and then waits for methods
    that run in threads, since nothing can end them. What the calls of a lost connection have as results,
    nobody gets to know.
    """

    async def dial_manager_at_host() -> trio.abc.Stream:
        return await dial_manager(host, port, trust=trust, timeout=connect_timeout)

    if service._run is not None:
        raise RuntimeError(f"the service {service.name!r} runs already")
    known = Credentials() if credentials is None else credentials
    most = THREADS if service._concurrency is None else min(service._concurrency, THREADS)
    with single_exception():
        async with trio.open_nursery() as nursery:
            async with open_worker_threads(
                most, name=service.name, around=lambda deliver: run.batch(deliver)
            ) as threads:
                run = service._run = _Run(service, threads, nursery)

                def make(stream: trio.abc.Stream, nursery: trio.Nursery) -> Connection:
                    run.connection = Connection(
                        stream,
                        nursery,
                        identify=run.identity,
                        credentials=known,
                        ask=ask,
                        features=features,
                        limit=limit,
                        codec=codec,
                        on_request=run.take,
                        on_call_word=run.calls.take_word,
                        on_end=run.connection_ends,
                    )
                    return run.connection

                async def use(connection: Connection) -> bool:
                    if not run.is_started:
                        run.is_started = True
                        task_status.started(connection.network_name)
                    return await run.use(connection)

                try:
                    run.attributes = await trio.to_thread.run_sync(run.interface.describe)
                    await stay_connected(
                        dial or dial_manager_at_host,
                        make,
                        use,
                        where=address_text(host, port),
                        timeout=connect_timeout,
                        backoff=(backoff or make_backoff()) if reconnect else None,
                        on_failure=partial(_tell_failure, service),
                    )
                    if not run.is_shut_down:
                        assert run.connection is not None
                        assert run.connection.reason is not None
                        raise run.connection.reason
                finally:
                    service._run = None
                    nursery.cancel_scope.cancel(reason="the service has ended")


def _tell_failure(service: Service, error: ConnectFailed) -> None:
    _logger.info("the service %r is not connected: %s", service.name, error)


async def run_service_on(
    service: Service,
    stream: trio.abc.Stream,
    *,
    task_status: trio.TaskStatus[str | None] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """As `run_service` without `reconnect`, on a stream that is connected already, and closed at the end."""

    async def dial() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    await run_service(
        service, peer_name(stream), None, dial=dial, reconnect=False, task_status=task_status, **options
    )
