"""A service while it runs: a trio run, or a part of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from armillary._runtime.groups import single_exception
from armillary._runtime.worker_threads import WorkerThreads, open_worker_threads
from armillary.errors import ConnectionClosed
from armillary.network.calls import Calls
from armillary.network.client import LANGUAGE, OS
from armillary.network.connection import Connection, Continuation
from armillary.network.interface import Interface
from armillary.network.protocol import packets
from armillary.network.protocol.features import CANCEL, EXCEPTION
from armillary.network.protocol.identities import Identity
from armillary.network.protocol.packets import Request
from armillary.network.protocol.splitting import Oversize

from ._codec import CHOSEN
from ._exposed import Exposed
from ._joining import Certificate, limit_of, open_connection_stream, wait_joined
from ._options import Options
from ._prompting import prompt
from ._user_tasks import UserTasks
from .utils import logger

if TYPE_CHECKING:
    from .service import Service

__all__ = ["Serving", "run_interruptibly"]

# As those of clients.
_FEATURES = frozenset({CANCEL, EXCEPTION})
# Methods that run at once. More lets more of them wait for an instrument; fewer makes a slow one hold up the
# others sooner.
_THREADS = 40
# Requests that run or wait. More takes more memory when nobody can keep up; fewer refuses scripts that send
# all of their requests before they wait for a reply.
_PENDING = 100_000


class Serving:
    """One run of one service.

    Args:
        service: which one.
        options: as given to `Service.start`.
        certificate: the certificate that the manager must show; None without TLS.
        attributes: what the service tells its clients of itself.
    """

    def __init__(
        self,
        service: Service,
        options: Options,
        certificate: Certificate | None,
        attributes: dict[str, object],
    ) -> None:
        self._service = service
        self._options = options
        self._certificate = certificate
        self._attributes = attributes
        self._threads: WorkerThreads | None = None
        self._connection: Connection | None = None
        self._tasks = UserTasks(f"{service._msl_device.name} tasks", lambda: self._in_run(self._ends.set))
        self._ends = trio.Event()
        self._ask = _ask_here
        self._is_shut_down = False

    def notify(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Tell everybody who is linked with the service, from any thread.

        What a method tells in this way comes before its result.

        Raises:
            TypeError: it is not JSON serializable.
        """
        line = packets.notification(self._service._msl_device.name, args, kwargs, codec=CHOSEN)
        self._in_run(partial(self._send, line))

    async def run_beside_others(self) -> None:
        """As `run`, in a run that has more to do than to wait until somebody has typed a password."""
        self._ask = _ask_in_thread
        await self.run()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and serve until the connection ends, the service is shut down, or one of its tasks fails.

        Cancellation takes leave of the manager and cancels the tasks. It waits for methods that run, because
        nothing can end their threads.

        Raises what `open_connection_stream` and `wait_joined` raise, and RuntimeError if the service runs
        already.
        """
        state = self._service._msl_device
        if state.serving is not None:
            raise RuntimeError(f"the service {state.name!r} runs already")
        state.serving = self
        try:
            stream = await open_connection_stream(self._options, self._certificate)
            state.connected(stream)
            with single_exception():
                async with (
                    trio.open_nursery() as nursery,
                    open_worker_threads(_THREADS, name=state.name, around=self._batch) as self._threads,
                ):
                    await self._serve(stream, nursery, self._threads, task_status)
                    nursery.cancel_scope.cancel(reason="the service has ended")
        finally:
            self._threads = None
            state.serving = None
            self._service._loop._thread_id = None

    async def _serve(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        threads: WorkerThreads,
        task_status: trio.TaskStatus[None],
    ) -> None:
        service, state = self._service, self._service._msl_device
        calls = Calls(
            Interface(Exposed(service, self._tasks.call)),
            threads,
            nursery,
            concurrency=None,
            most_pending=_PENDING,
            on_shutdown=self._shut_down,
        )
        connection = self._connection = Connection(
            stream,
            nursery,
            identify=self._identify,
            credentials=self._options.credentials(),
            ask=self._ask,
            features=_FEATURES,
            limit=limit_of(self._options),
            codec=CHOSEN,
            on_request=partial(_take, calls),
            on_call_word=calls.take_word,
            on_end=partial(self._connection_ends, calls),
        )
        nursery.start_soon(connection.run, name="armillary network connection")
        await wait_joined(connection, self._options)
        state.network_name = connection.network_name or state.network_name
        service._loop._thread_id = threading.get_ident()
        awaitables, state.tasks = state.tasks, []
        try:
            self._tasks.start(awaitables)
            task_status.started()
            await self._ends.wait()
            if self._is_shut_down:
                await calls.wait_done()
        finally:
            connection.end(ConnectionClosed("the service has ended"))
            with trio.CancelScope(shield=True):
                await connection.closed.wait()  # it has time limits of its own
            await self._tasks.finish(service.shutdown_handler)  # noqa: ASYNC102 - shielded where it must be

    def _identify(self, features: frozenset[str]) -> Identity:
        state = self._service._msl_device
        return Identity("service", state.name, LANGUAGE, OS, self._attributes, state.max_clients, features)

    def _connection_ends(self, calls: Calls, connection: Connection) -> None:
        calls.forget(connection)
        self._ends.set()

    def _shut_down(self) -> None:
        self._is_shut_down = True
        self._ends.set()

    # -- from threads --------------------------------------------------------------------------------------

    def _in_run(self, function: Callable[[], object]) -> None:
        """Have it called in the run. If that is over, or has not begun, nobody is there to hear of it."""
        threads = self._threads
        if threads is not None:
            with suppress(trio.RunFinishedError):
                threads.from_thread(function)

    def _send(self, line: bytes) -> None:
        connection = self._connection
        if connection is not None:
            connection.send(line)

    def _batch(self, deliver: Callable[[], None]) -> None:
        """Send together what comes from threads together."""
        connection = self._connection
        if connection is None:
            deliver()
            return
        connection.outbox.cork()
        deliver()
        connection.outbox.flush()


def run_interruptibly(serving: Serving) -> None:
    """Run it in this thread. Ctrl-C cancels it, and is not raised."""

    async def main() -> None:
        # Ctrl-C is raised in this task, which only waits, and so it is a cancellation to the other one.
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - which is what it is for
            nursery.start_soon(serving.run, name="armillary network service")

    try:
        with single_exception():
            trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        pass


def _take(calls: Calls, connection: Connection, request: Request | Oversize) -> Continuation | None:
    """A client requests something. What is larger than the read limit is dropped: 1.0 does not answer it."""
    if isinstance(request, Oversize):
        logger.error("a request of more than %d bytes was dropped", request.limit)
        return None
    return calls.take(connection, request)


async def _ask_here(text: str, is_secret: bool) -> str:
    """Ask at the terminal. The run stands still meanwhile, which has nothing else to do, and Ctrl-C works."""
    await trio.lowlevel.checkpoint()
    return trio.lowlevel.disable_ki_protection(prompt)(text, is_secret)


async def _ask_in_thread(text: str, is_secret: bool) -> str:
    """Ask at the terminal, while the run goes on. When it is cancelled, the question stays there."""
    return await trio.to_thread.run_sync(prompt, text, is_secret, abandon_on_cancel=True)
