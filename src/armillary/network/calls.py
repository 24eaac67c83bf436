"""How a service carries out what clients ask for."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from armillary._runtime.in_place import resume
from armillary._runtime.worker_threads import WorkerThreads

from .connection import Connection, Continuation
from .interface import Interface
from .protocol import packets
from .protocol.features import EXCEPTION
from .protocol.packets import Request

__all__ = ["SHUTDOWN_SERVICE", "Calls", "CallStatistics", "current_request"]

SHUTDOWN_SERVICE = "shutdown_service"
"""The method that ends a service, if it has it, once it has been carried out and answered."""

_request: ContextVar[Request] = ContextVar("armillary_network_request")


def current_request() -> Request:
    """What the running method of a service was asked, and by whom: its ``requester``.

    Raises:
        LookupError: this is no method of a service that a client has called.
    """
    return _request.get()


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """What a service has to do, and has done."""

    running: int
    """Calls that run, those included for which nobody waits any more."""
    waiting: int
    """Calls that wait for others to end."""
    done: int
    """Calls that have ended."""
    refused: int
    """Calls that were refused because too many waited."""


@dataclass(eq=False, slots=True)
class _Call:
    request: Request
    connection: Connection
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    """Around the coroutine, if it is one."""
    is_done: bool = field(default=False, init=False)
    """Whether it was carried out, without an error."""
    outcome: Any = field(default=None, init=False)
    """What a thread leaves for the run: the bytes of the reply, or a coroutine that makes the result."""


class Calls:
    """The calls of one service. They outlive a connection; their replies do not.

    Methods that are coroutine functions run in the run, the others in threads. A coroutine that never waits
    costs no task: it runs where its request was read.

    Args:
        interface: what can be called.
        threads: run what is no coroutine function.
        nursery: runs what has waited for its turn.
        concurrency: how many calls may run at once. None is no limit, except that of the threads.
        most_pending: how many calls may run and wait together; more are refused at once.
        on_shutdown: called when ``shutdown_service`` was carried out and answered.
    """

    def __init__(
        self,
        interface: Interface,
        threads: WorkerThreads,
        nursery: trio.Nursery,
        *,
        concurrency: int | None,
        most_pending: int,
        on_shutdown: Callable[[], object],
    ) -> None:
        self._interface = interface
        self._threads = threads
        self._nursery = nursery
        self._concurrency = concurrency
        self._most_pending = most_pending
        self._on_shutdown = on_shutdown
        self._waiting: deque[_Call] = deque()
        self._running: dict[_Call, None] = {}
        self._is_pumping = False
        self._done = 0
        self._refused = 0
        self._all_done = trio.Event()

    def statistics(self) -> CallStatistics:
        """A look at them."""
        queued = max(0, self._threads.unfinished - self._threads.most)
        return CallStatistics(
            len(self._running) - queued, len(self._waiting) + queued, self._done, self._refused
        )

    def take(self, connection: Connection, request: Request) -> Continuation | None:
        """Carry out a request, now or later. What is returned is to be awaited, in this very task."""
        call = _Call(request, connection)
        if len(self._running) + len(self._waiting) >= self._most_pending:
            self._refused += 1
            text = f"the service has {self._most_pending} requests to answer already, which is the limit"
            self._fail(call, RuntimeError(text))
            return None
        if self._is_full or self._waiting:
            self._waiting.append(call)
            return None
        return self._begin(call, in_place=True)

    def forget(self, connection: Connection) -> None:
        """A connection has ended, and with it those who have asked. What runs in threads runs on."""
        self._waiting = deque(call for call in self._waiting if call.connection is not connection)
        for call in self._running:
            if call.connection is connection:
                call.scope.cancel(reason="the connection to the manager has ended")

    async def wait_done(self) -> None:
        """Wait until nothing runs."""
        await trio.lowlevel.checkpoint()
        while self._running:
            self._all_done = trio.Event()
            await self._all_done.wait()

    @property
    def _is_full(self) -> bool:
        return self._concurrency is not None and len(self._running) >= self._concurrency

    # -- beginning and ending ------------------------------------------------------------------------------

    def _begin(self, call: _Call, *, in_place: bool) -> Continuation | None:
        self._running[call] = None
        name = call.request.attribute
        function: Any
        try:
            if self._interface.is_method(name):
                function = getattr(self._interface.target, name)
                if not callable(function):
                    self._answer(call, function)
                    self._end(call)
                    return None
                if inspect.iscoroutinefunction(function):
                    if in_place:
                        return self._begin_in_place(call, function)
                    self._nursery.start_soon(self._run_coroutine, call, function)
                    return None
            else:
                function = partial(_evaluate, self._interface.target, name)
        except Exception as error:  # noqa: BLE001 - the client's mistake, or the user's
            self._fail(call, error)
            self._end(call)
            return None
        self._begin_in_thread(call, function)
        return None

    def _end(self, call: _Call) -> None:
        del self._running[call]
        self._done += 1
        if call.request.attribute == SHUTDOWN_SERVICE and call.is_done:
            self._on_shutdown()
        if self._waiting and not self._is_pumping:
            self._is_pumping = True
            while self._waiting and not self._is_full:
                self._begin(self._waiting.popleft(), in_place=False)
            self._is_pumping = False
        if not self._running:
            self._all_done.set()

    def _answer(self, call: _Call, result: object) -> None:
        call.is_done = True
        call.connection.send(_reply(call, result))

    def _fail(self, call: _Call, error: BaseException) -> None:
        call.connection.send(_error(call, error))

    # -- coroutines ----------------------------------------------------------------------------------------

    def _begin_in_place(self, call: _Call, function: Callable[..., Any]) -> Continuation | None:
        """Run a coroutine up to where it waits; return what goes on with it, or None if it never waits."""
        context = copy_context()
        coroutine: Coroutine[Any, Any, Any] = self._run_coroutine(call, function)
        try:
            trap = context.run(coroutine.send, None)
        except StopIteration:
            return None
        return partial(_resume, coroutine, trap, context)

    async def _run_coroutine(self, call: _Call, function: Callable[..., Any]) -> None:
        request = call.request
        _request.set(request)
        try:
            with call.scope:
                self._answer(call, await function(*request.args, **request.kwargs))
            if call.scope.cancelled_caught:
                # Nobody waits, but the manager may forget the request now.
                self._fail(call, RuntimeError("the call was cancelled"))
        except (trio.Cancelled, KeyboardInterrupt):
            raise
        except BaseExceptionGroup as group:
            if group.subgroup((trio.Cancelled, KeyboardInterrupt)) is not None:
                raise
            self._fail(call, group)
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - the client is told
            self._fail(call, error)
        finally:
            self._end(call)

    # -- threads -------------------------------------------------------------------------------------------

    def _begin_in_thread(self, call: _Call, function: Callable[..., Any]) -> None:
        work = partial(copy_context().run, _work, call, function)
        self._threads.run_soon(work, partial(self._after_thread, call))

    def _after_thread(self, call: _Call) -> None:
        outcome, call.outcome = call.outcome, None
        if isinstance(outcome, bytes):
            call.connection.send(outcome)
            self._end(call)
        else:
            self._nursery.start_soon(self._run_coroutine, call, lambda *_, **__: outcome)


async def _resume(coroutine: Coroutine[Any, Any, Any], trap: Any, context: Context) -> None:
    await resume(coroutine, trap, context)


def _work(call: _Call, function: Callable[..., Any]) -> None:
    """Call a function in a thread, and leave what becomes of it in `call`."""
    request = call.request
    _request.set(request)
    try:
        result = function(*request.args, **request.kwargs)
        if isinstance(result, Coroutine):
            call.outcome = result
        else:
            call.outcome = _reply(call, result)
            call.is_done = True
    except BaseException as error:  # noqa: ASYNC103, BLE001 - no task runs in a thread; somebody waits
        call.outcome = _error(call, error)


def _evaluate(target: object, name: str, *args: Any, **kwargs: Any) -> Any:
    """The value of something that has to be computed; called, if it can be."""
    value = getattr(target, name)
    return value(*args, **kwargs) if callable(value) else value


def _reply(call: _Call, result: object) -> bytes:
    request = call.request
    return packets.reply(request.requester, request.uid, result, codec=call.connection.codec)


def _error(call: _Call, error: BaseException) -> bytes:
    request = call.request
    # The first frame is this module's, and says nothing to anybody.
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    return packets.error(
        request.requester,
        request.uid,
        packets.message_of(error),
        packets.traceback_of(error),
        exception=packets.exception_class(error) if EXCEPTION in call.connection.features else None,
    )
