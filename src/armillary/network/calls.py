"""How a service carries out what clients ask for."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from armillary._runtime.in_place import resume
from armillary._runtime.worker_threads import WorkerThreads

from .connection import Connection, Continuation
from .interface import Interface
from .iteration import MOST_COLLECTED, is_iteration, iterate
from .protocol.packets import Request
from .protocol.words import CANCEL_CALL, CallWord
from .running_call import Call, set_current_call

__all__ = ["SHUTDOWN_SERVICE", "CallStatistics", "Calls"]

SHUTDOWN_SERVICE = "shutdown_service"
"""The method that ends a service, if it has it, once it has been carried out and answered."""

# Items taken from a generator, for a list, without letting others run. More holds them up longer; fewer takes
# more turns.
_COLLECT_AT_ONCE = 256
_CANCELLED = "the call was cancelled"


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
        self._waiting: deque[Call] = deque()
        self._running: dict[Call, None] = {}
        # By requester and uid, which are all that clients say of them.
        self._named: dict[tuple[str | None, str], Call] = {}
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
        call = Call(request, connection, self._in_run)
        if len(self._running) + len(self._waiting) >= self._most_pending:
            self._refused += 1
            text = f"the service has {self._most_pending} requests to answer already, which is the limit"
            call.fail(RuntimeError(text))
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
                call.abandon("the connection to the manager has ended")
        for call in [call for call in self._waiting if call.connection is connection]:
            self._forget_name(call)
        self._waiting = deque(call for call in self._waiting if call.connection is not connection)

    def take_word(self, connection: Connection, word: str, said: CallWord) -> None:
        """A client says something of a call of its own."""
        call = self._named.get((said.requester, said.uid))
        if call is None or call.connection is not connection:
            return  # its end is on its way
        if word == CANCEL_CALL:
            call.abandon("the client has cancelled the call")
        else:
            call.add_room(said.number)

    def _in_run(self, function: Callable[[], object]) -> None:
        if threading.get_ident() == self._thread:
            function()
            return
        try:
            self._threads.from_thread(function)
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

    def _begin(self, call: Call, *, in_place: bool) -> Continuation | None:
        self._running[call] = None
        name = call.request.attribute
        function: Any
        if call.is_abandoned:
            # Nobody waits, but the manager may forget the request now.
            call.fail(RuntimeError(_CANCELLED))
            self._end(call)
            return None
        try:
            if self._interface.is_method(name):
                function = getattr(self._interface.target, name)
                if not callable(function):
                    call.answer(function)
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
            call.fail(error)
            self._end(call)
            return None
        self._begin_in_thread(call, function)
        return None

    def _end(self, call: Call) -> None:
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

    def _forget_name(self, call: Call) -> None:
        name = call.request.requester, call.request.uid
        if self._named.get(name) is call:
            del self._named[name]

    # -- coroutines ----------------------------------------------------------------------------------------

    def _begin_in_place(self, call: Call, function: Callable[..., Any]) -> Continuation | None:
        """Run a coroutine up to where it waits; return what goes on with it, or None if it never waits."""
        context = copy_context()
        coroutine: Coroutine[Any, Any, Any] = self._run_coroutine(call, function)
        try:
            trap = context.run(coroutine.send, None)
        except StopIteration:
            return None
        return partial(_resume, coroutine, trap, context)

    async def _run_coroutine(self, call: Call, function: Callable[..., Any]) -> None:
        request = call.request
        set_current_call(call)
        try:
            with call.scope:
                result = await function(*request.args, **request.kwargs)
                if is_iteration(result):
                    await self._iterate(call, result)
                else:
                    call.answer(result)
            if call.scope.cancelled_caught:
                # As above.
                call.fail(RuntimeError(_CANCELLED))
        except (trio.Cancelled, KeyboardInterrupt):
            raise
        except BaseExceptionGroup as group:
            if group.subgroup((trio.Cancelled, KeyboardInterrupt)) is not None:
                raise
            call.fail(_from_here(group))
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - the client is told
            call.fail(_from_here(error))
        finally:
            self._end(call)

    async def _iterate(self, call: Call, items: Any) -> None:
        """Answer with what a generator makes: item by item, or all in a list, as the client wants it."""
        if call.takes_parts and call.request.stream:
            call.add_room(call.request.stream)
            await iterate(items, _ItemSink(call), self._threads)
            call.answer(None, more=False)
        else:
            collected = _ListSink(call)
            await iterate(items, collected, self._threads)
            call.answer(collected.items)

    # -- threads -------------------------------------------------------------------------------------------

    def _begin_in_thread(self, call: Call, function: Callable[..., Any]) -> None:
        work = partial(copy_context().run, self._work, call, function)
        self._threads.run_soon(work, partial(self._after_thread, call))

    def _work(self, call: Call, function: Callable[..., Any]) -> None:
        """Call a function in a thread, and leave what becomes of it in `call`."""
        request = call.request
        set_current_call(call)
        try:
            result = function(*request.args, **request.kwargs)
            if isinstance(result, Coroutine) or is_iteration(result):
                call.outcome = result
            else:
                call.outcome = call.reply(result)
                call.is_done = True
        except BaseException as error:  # noqa: ASYNC103, BLE001 - no task runs in a thread; somebody waits
            call.outcome = call.error(_from_here(error))

    def _after_thread(self, call: Call) -> None:
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

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def is_abandoned(self) -> bool:
        return self._call.is_abandoned

    def put(self, item: object) -> None:
        line = self._call.part(item)
        self._call.in_run(lambda: self._call.connection.send(line))

    async def take_room(self) -> int:
        return await self._call.take_room()


class _ListSink:
    """Keeps the items, for a client that wants one reply."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.items: list[object] = []

    @property
    def is_abandoned(self) -> bool:
        return self._call.is_abandoned

    def put(self, item: object) -> None:
        if len(self.items) >= MOST_COLLECTED:
            raise ValueError(f"more than {MOST_COLLECTED} items: ask for them one by one, as a stream")
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


def _evaluate(target: object, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """The value of something that has to be computed; called, if it can be."""
    value = getattr(target, name)
    return value(*args, **kwargs) if callable(value) else value


def _from_here(error: BaseException) -> BaseException:
    """An exception without the first frames of its traceback: they are this module's, and say nothing."""
    while (frame := error.__traceback__) is not None and frame.tb_frame.f_globals is globals():
        error.__traceback__ = frame.tb_next
    return error
