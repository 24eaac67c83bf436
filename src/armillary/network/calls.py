"""How a service carries out what clients ask for."""

from __future__ import annotations

import inspect
import threading
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
from .iteration import MOST_COLLECTED, is_iteration, iterate
from .protocol import packets
from .protocol.features import EXCEPTION, STREAM
from .protocol.packets import Request
from .protocol.words import CANCEL_CALL, MOST_CREDIT, CallWord

__all__ = ["SHUTDOWN_SERVICE", "CallStatistics", "Calls", "CurrentCall", "current_call", "current_request"]

SHUTDOWN_SERVICE = "shutdown_service"
"""The method that ends a service, if it has it, once it has been carried out and answered."""

# Items taken from a generator, for a list, without letting others run. More holds them up longer; fewer takes
# more turns.
_COLLECT_AT_ONCE = 256
_CANCELLED = "the call was cancelled"
# Unsent bytes above which progress that cannot wait is dropped: the next one says more.
_PROGRESS_HIGH_WATER = 1024 * 1024

_current: ContextVar[CurrentCall] = ContextVar("armillary_network_call")


def current_call() -> CurrentCall:
    """The call that the running method of a service carries out.

    Raises:
        LookupError: this is no method of a service that a client has called.
    """
    return _current.get()


def current_request() -> Request:
    """What the running method of a service was asked, and by whom: its ``requester``.

    Raises:
        LookupError: this is no method of a service that a client has called.
    """
    return _current.get().request


class CurrentCall:
    """One call, as the method sees it that carries it out. Given by `current_call`; any thread may use it."""

    __slots__ = ("_call", "_calls")

    def __init__(self, calls: Calls, call: _Call) -> None:
        self._calls = calls
        self._call = call

    @property
    def request(self) -> Request:
        """What was asked, and by whom."""
        return self._call.request

    @property
    def requester(self) -> str | None:
        """The network name of who has called."""
        return self._call.request.requester

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the result any more.

        Coroutines are cancelled then. Nothing can end a method in a thread: one that takes long looks here
        from time to time, and returns.
        """
        return self._call.is_abandoned

    @property
    def wants_progress(self) -> bool:
        """Whether the caller listens to progress."""
        return self._call.takes_parts

    def emit_progress(self, value: object) -> None:
        """Tell the caller how far the call has come: any value. Nobody waits, and nobody has to listen.

        It arrives before the result. If the manager is behind, it is dropped: the next one says more.

        Raises:
            TypeError: it cannot be sent.
            ValueError: it is nested too deeply.
        """
        self._calls.emit_progress(self._call, value)

    async def progress(self, value: object) -> None:
        """As `emit_progress`, in a coroutine: others have their turn."""
        self.emit_progress(value)
        await trio.lowlevel.checkpoint()


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
    is_abandoned: bool = field(default=False, init=False)
    """Whether nobody waits for its end any more."""
    room: int = field(default=0, init=False)
    """How many items more of an iteration its client has room for."""
    has_room: trio.Event | None = field(default=None, init=False)
    """Set when it has room again, if somebody waits for that."""

    @property
    def takes_parts(self) -> bool:
        """Whether its client can be told something before the end."""
        return self.request.stream is not None and STREAM in self.connection.features

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
        # By requester and uid, which are all that clients say of them.
        self._named: dict[tuple[str | None, str], _Call] = {}
        self._is_pumping = False
        self._done = 0
        self._refused = 0
        self._all_done = trio.Event()
        self._thread = threading.get_ident()

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
        if request.uid:
            self._named[request.requester, request.uid] = call
        if self._is_full or self._waiting:
            self._waiting.append(call)
            return None
        return self._begin(call, in_place=True)

    def forget(self, connection: Connection) -> None:
        """A connection has ended, and with it those who have asked. What runs in threads runs on."""
        for call in (*self._waiting, *self._running):
            if call.connection is connection:
                call.is_abandoned = True
                call.scope.cancel(reason="the connection to the manager has ended")
        for call in [call for call in self._waiting if call.connection is connection]:
            self._forget_name(call)
        self._waiting = deque(call for call in self._waiting if call.connection is not connection)

    def take_word(self, connection: Connection, word: str, said: CallWord) -> None:
        """A client says something of a call of its own."""
        call = self._named.get((said.requester, said.uid))
        if call is None or call.connection is not connection:
            return  # its end is on its way
        if word == CANCEL_CALL:
            call.is_abandoned = True
            call.scope.cancel(reason="the client has cancelled the call")
            return
        call.room = min(call.room + said.number, MOST_CREDIT)
        if call.has_room is not None:
            call.has_room.set()

    def emit_progress(self, call: _Call, value: object) -> None:
        """Tell a call's client how far it has come, from any thread."""
        if not call.takes_parts or call.is_abandoned:
            return
        line = _part(call, value, progress=True)
        if threading.get_ident() == self._thread:
            _send_progress(call, line)
        else:
            try:
                self._threads.from_thread(partial(_send_progress, call, line))
            except trio.RunFinishedError:
                pass  # nobody is there to be told

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
        if call.is_abandoned:
            # Nobody waits, but the manager may forget the request now.
            self._fail(call, RuntimeError(_CANCELLED))
            self._end(call)
            return None
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
                if inspect.isasyncgenfunction(function):
                    self._nursery.start_soon(self._run_coroutine, call, _calling(function))
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
        self._forget_name(call)
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

    def _forget_name(self, call: _Call) -> None:
        name = call.request.requester, call.request.uid
        if self._named.get(name) is call:
            del self._named[name]

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
        _current.set(CurrentCall(self, call))
        try:
            with call.scope:
                result = await function(*request.args, **request.kwargs)
                if is_iteration(result):
                    await self._iterate(call, result)
                else:
                    self._answer(call, result)
            if call.scope.cancelled_caught:
                # As above.
                self._fail(call, RuntimeError(_CANCELLED))
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

    async def _iterate(self, call: _Call, items: Any) -> None:
        """Answer with what a generator makes: item by item, or all in a list, as the client wants it."""
        if call.takes_parts and call.request.stream:
            call.room += min(call.request.stream, MOST_CREDIT)
            await iterate(items, _ItemSink(call, self._threads, self._thread), self._threads)
            call.is_done = True
            call.connection.send(_reply(call, None, more=False))
        else:
            collected = _ListSink(call)
            await iterate(items, collected, self._threads)
            self._answer(call, collected.items)

    # -- threads -------------------------------------------------------------------------------------------

    def _begin_in_thread(self, call: _Call, function: Callable[..., Any]) -> None:
        work = partial(copy_context().run, self._work, call, function)
        self._threads.run_soon(work, partial(self._after_thread, call))

    def _work(self, call: _Call, function: Callable[..., Any]) -> None:
        """Call a function in a thread, and leave what becomes of it in `call`."""
        request = call.request
        _current.set(CurrentCall(self, call))
        try:
            result = function(*request.args, **request.kwargs)
            if isinstance(result, Coroutine) or is_iteration(result):
                call.outcome = result
            else:
                call.outcome = _reply(call, result)
                call.is_done = True
        except BaseException as error:  # noqa: ASYNC103, BLE001 - no task runs in a thread; somebody waits
            call.outcome = _error(call, error)

    def _after_thread(self, call: _Call) -> None:
        outcome, call.outcome = call.outcome, None
        if isinstance(outcome, bytes):
            call.connection.send(outcome)
            self._end(call)
        else:
            made = outcome if isinstance(outcome, Coroutine) else _made(outcome)
            self._nursery.start_soon(self._run_coroutine, call, lambda *_, **__: made)


async def _resume(coroutine: Coroutine[Any, Any, Any], trap: Any, context: Context) -> None:
    await resume(coroutine, trap, context)


class _ItemSink:
    """Sends each item at once."""

    def __init__(self, call: _Call, threads: WorkerThreads, thread: int) -> None:
        self._call = call
        self._threads = threads
        self._thread = thread

    @property
    def is_abandoned(self) -> bool:
        return self._call.is_abandoned

    def put(self, item: object) -> None:
        line = _part(self._call, item)
        if threading.get_ident() == self._thread:
            self._call.connection.send(line)
        else:
            self._threads.from_thread(partial(self._call.connection.send, line))

    async def take_room(self) -> int:
        await trio.lowlevel.checkpoint()
        call = self._call
        while not call.room:
            call.has_room = trio.Event()
            await call.has_room.wait()
        room, call.room = call.room, 0
        return room


class _ListSink:
    """Keeps the items, for a client that wants one reply."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self.items: list[object] = []

    @property
    def is_abandoned(self) -> bool:
        return self._call.is_abandoned

    def put(self, item: object) -> None:
        if len(self.items) >= MOST_COLLECTED:
            text = f"more than {MOST_COLLECTED} items: ask for them one by one, as a stream"
            raise ValueError(text)
        self.items.append(item)

    async def take_room(self) -> int:
        await trio.lowlevel.checkpoint()
        return _COLLECT_AT_ONCE


def _calling(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function that calls a plain one."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


async def _made(value: object) -> object:
    return value


def _send_progress(call: _Call, line: bytes) -> None:
    if call.connection.outbox.backlog <= _PROGRESS_HIGH_WATER:
        call.connection.send(line)


def _part(call: _Call, value: object, *, progress: bool = False) -> bytes:
    request = call.request
    return packets.reply(
        request.requester, request.uid, value, more=True, progress=progress, codec=call.connection.codec
    )


def _evaluate(target: object, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """The value of something that has to be computed; called, if it can be."""
    value = getattr(target, name)
    return value(*args, **kwargs) if callable(value) else value


def _reply(call: _Call, result: object, *, more: bool | None = None) -> bytes:
    request = call.request
    return packets.reply(request.requester, request.uid, result, more=more, codec=call.connection.codec)


def _error(call: _Call, error: BaseException) -> bytes:
    request = call.request
    # The first frames are this module's, and say nothing to anybody.
    while (frame := error.__traceback__) is not None and frame.tb_frame.f_globals is globals():
        error.__traceback__ = frame.tb_next
    return packets.error(
        request.requester,
        request.uid,
        packets.message_of(error),
        packets.traceback_of(error),
        exception=packets.exception_class(error) if EXCEPTION in call.connection.features else None,
    )
