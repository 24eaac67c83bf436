"""What a request handler gets, and the handlers of a class as armillary's tables have them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from armillary.katcp.device import RequestHandler, request_methods
from armillary.katcp.protocol.messages import FailReply, WireMessage
from armillary.katcp.requests import Deferred
from armillary.katcp.requests import RequestContext as NativeContext

from ._handlers import compile_arguments
from .connection import ConnectionLoggerAdapter
from .core import Message

if TYPE_CHECKING:
    from armillary.katcp.device import Device

    from ._client_connection import ClientConnection
    from ._serving import FacadeSession
    from .server import DeviceServer

__all__ = ["RequestContext", "answer_in_task", "compile_requests"]

_logger = logging.getLogger("aiokatcp.server")
Native = Callable[..., Any]


class RequestContext(NativeContext):
    """One request that a client made, and the way to answer it.

    Args:
        conn: the client's connection.
        req: the request.
    """

    __slots__ = ("_logger", "_message")

    session: FacadeSession

    def __init__(self, conn: ClientConnection, req: Message) -> None:
        wire = WireMessage(req.mtype, req.name.encode("ascii"), req.mid, req.arguments)
        super().__init__(conn.session, wire)
        self._message: Message | None = req
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @classmethod
    def of(cls, session: FacadeSession, wire: WireMessage) -> RequestContext:
        """The context of a request as it came."""
        ctx = cls.__new__(cls)
        NativeContext.__init__(ctx, session, wire)
        ctx._message = None
        ctx._logger = None
        return ctx

    @property
    def conn(self) -> ClientConnection:
        """The client's connection."""
        return self.session.connection

    @property
    def req(self) -> Message:
        """The request."""
        if self._message is None:
            self._message = Message.from_wire(self._wire)
        return self._message

    @property
    def msg(self) -> Message:
        """The request."""
        return self.req

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logs with the client's address; ``extra`` has the request, too."""
        if self._logger is None:
            extra = {"address": self.conn.address, "req": self.req}
            self._logger = ConnectionLoggerAdapter(_logger, extra)
        return self._logger

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be sent; at once if it has.

        Raises:
            OSError: the connection broke meanwhile.
        """
        await self.conn.drain()


def compile_requests(cls: type[DeviceServer], natives: dict[str, Native]) -> dict[bytes, RequestHandler]:
    """The table of requests that a class of servers answers.

    Args:
        cls: a `DeviceServer` with its ``request_...`` methods.
        natives: what answers, inside of armillary, the requests whose methods a class did not override.

    Raises:
        TypeError: a method has no docstring, takes too little, or has an annotation that is no KATCP type.
    """
    handlers: dict[bytes, RequestHandler] = {}
    for name, function, help_text in request_methods(cls):
        native = natives.get(name) if getattr(function, "_is_native", False) else None
        handlers[name.encode("ascii")] = RequestHandler(
            name=name,
            function=_in_task(name, function) if native is None else native,
            # armillary's own take a strategy as its bytes; those of the class decode what they get.
            decode=_undecoded if native is None else compile_arguments(name, native, 2),
            may_suspend=inspect.iscoroutinefunction(native),
            needs_room=native is None or inspect.iscoroutinefunction(native),
            help=help_text,
            timeout_hint=0.0,
        )
    return dict(sorted(handlers.items()))


def _in_task(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Answer a request with a method of a server, as a task of the server's loop."""
    decode = compile_arguments(name, function, 2)

    def start(device: Device, ctx: RequestContext, arguments: list[bytes]) -> Any:
        server = ctx.session.connection.owner
        try:
            values = decode(arguments)
        except FailReply as error:
            if not ctx.session.has_unstarted:
                raise
            return answer_in_task(server, ctx, _raise(error))  # not before those that came earlier
        return answer_in_task(server, ctx, function(server, ctx, *values))

    return start


def _undecoded(arguments: list[bytes]) -> list[Any]:
    return [arguments]


async def _raise(error: Exception) -> None:
    raise error


def answer_in_task(server: DeviceServer, ctx: RequestContext, awaitable: Any) -> Any:
    """What a handler returned, or, if that has to be awaited, an answer that a task will make."""
    if type(awaitable) is not CoroutineType:
        if not inspect.isawaitable(awaitable):
            return awaitable
        awaitable = _await(awaitable)
    deferred = ctx.defer(lambda: task.cancelling() or task.cancel())
    task = server.loop.create_task(_Answering(awaitable, deferred))
    ctx.session.latest = awaitable
    return deferred


class _Answering(Coroutine[Any, Any, Any]):
    """A handler's coroutine, whose end answers its request.

    A coroutine around it would not do: a task that is cancelled before its first step never enters one, and
    a callback of the task costs another turn of the loop for every request.
    """

    __slots__ = ("_coroutine", "_deferred")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], deferred: Deferred) -> None:
        self._coroutine = coroutine
        self._deferred = deferred

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()
        self._abandon()

    def __await__(self) -> Any:
        raise RuntimeError("expected to be run by a task")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # frames and names, for debuggers and reprs

    def _step(self, step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except StopIteration as finished:
            result = finished.value
        except asyncio.CancelledError:
            self._abandon()
            raise
        except Exception as error:  # noqa: BLE001 - a handler's failure is its client's reply
            self._deferred.fail(error)
            result = None
        except BaseException as error:
            self._deferred.fail(RuntimeError(f"the handler was left by {error!r}"))
            raise
        self._deferred.answer(result)
        raise StopIteration(result)

    def _abandon(self) -> None:
        deferred = self._deferred
        if not deferred.is_settled:
            cast(RequestContext, deferred.ctx).logger.info("request %r cancelled", deferred.ctx.name)
            deferred.abandon()


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
