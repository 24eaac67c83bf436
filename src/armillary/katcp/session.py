"""One client of a device server, from its greeting to its last line."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import trio

from armillary._runtime.dial import peer_name
from armillary._runtime.direct import receiver_of
from armillary._runtime.in_place import resume
from armillary._runtime.outbox import Outbox, OutboxStatistics

from .protocol.messages import (
    FAIL,
    INVALID,
    OK,
    FailReply,
    InvalidReply,
    MessageType,
    Parser,
    WireMessage,
    line,
)
from .requests import Deferred, RequestContext
from .samplers import Samplers
from .version import version_informs

if TYPE_CHECKING:
    from .device import Device, RequestHandler
    from .server import DeviceServer

__all__ = ["Session", "SessionLogger", "SessionStatistics"]

# Bytes asked of the socket at once: what they hold is parsed at once. More lets a client of tiny messages
# make more objects; fewer makes more calls. In the midst of a long line nothing is parsed, so more is asked.
_RECEIVE = 65536
_RECEIVE_LONG = 4 * _RECEIVE
# Requests answered in a row without letting others run. More makes other clients wait longer (each request
# takes a few microseconds); fewer spends a larger part of the time on switching.
_BURST = 128
# Unsent bytes above which a client's requests wait; they go on at a quarter of it. More lets one client's
# answers take more memory; fewer stops reading a client that would soon have caught up.
_HIGH_WATER = 1024 * 1024
# Seconds for the last lines of a session to leave. Longer lets a client that does not read hold up the end of
# the server; shorter cuts off clients behind slow links.
FAREWELL_TIMEOUT = 0.5
# Seconds for the running requests of a client that has closed its side for writing (``printf ... | nc``).
# Longer lets the requests of clients that are simply gone run on; shorter loses slow replies.
HALF_CLOSED_GRACE = 30.0

_REPLY = MessageType.REPLY
_REQUEST = MessageType.REQUEST


class SessionLogger(logging.LoggerAdapter[logging.Logger]):
    """Appends the client's address to each record."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{msg} [{self.extra['peer'] if self.extra else ''}]", kwargs


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A look at one client of a device."""

    peer: str
    """The client's address."""
    pending: int
    """Its requests whose handler is waiting for something."""
    sampled: int
    """Sensors that it has subscribed to."""
    malformed: int
    """Lines from it that were no messages."""
    outbox: OutboxStatistics
    """What it was sent, and what waits."""


class _Suspended(NamedTuple):
    """A handler that waits for something, and how to go on with it."""

    ctx: RequestContext
    coroutine: Coroutine[Any, Any, Any]
    trap: Any
    context: Context


class Session:
    """One client of a device server.

    `run` is its life. One task reads requests and answers them where it reads; when a handler suspends,
    that task stays with the handler and another one reads on. So an idle client costs one task, and a
    request whose handler does not wait costs none.
    """

    PROTOCOL_LOG: ClassVar[bytes] = b"armillary.katcp.session"
    """The logger that the client is told of in a ``#log`` about a malformed line."""
    HANDLER_LOG: ClassVar[bytes] = b"armillary.katcp.server"
    """The same, about a handler that fails after its reply."""

    __slots__ = (
        "_closed_for_reading",
        "_deferred",
        "_deferred_settled",
        "_farewell",
        "_high_water",
        "_is_draining",
        "_is_nudged",
        "_max_pending",
        "_nursery",
        "_parser",
        "_receive",
        "_room",
        "_sampling_lock",
        "_scope",
        "_turnstile",
        "_unanswered",
        "device",
        "gone",
        "logger",
        "malformed",
        "outbox",
        "peer",
        "pending",
        "samplers",
        "serial",
        "server",
    )

    def __init__(self, server: DeviceServer, stream: trio.abc.Stream, serial: int) -> None:
        limits = server.limits
        self.server = server
        self.device: Device = server.device
        self.serial = serial
        """Larger than that of every session that began before."""
        self.peer = peer_name(stream)
        """The client's address."""
        self.logger = SessionLogger(server.logger, {"peer": self.peer})
        self.outbox = Outbox(stream, server.nursery, bound=limits.backlog, on_broken=self._on_broken)
        self.samplers = Samplers(self)
        self.pending = 0
        """Requests whose handler is waiting for something."""
        self._receive = receiver_of(stream)
        self._parser = Parser(limits.line)
        self._unanswered: deque[WireMessage | ValueError] = deque()
        self._turnstile = server.turnstile
        self._max_pending = limits.pending_per_client
        # Below the backlog that costs a client its connection, so that a long reply alone never does.
        self._high_water = min(_HIGH_WATER, limits.backlog // 2)
        self._room: trio.Event | None = None
        self._sampling_lock: trio.Lock | None = None
        self._nursery: trio.Nursery | None = None
        self._deferred: dict[Deferred, None] = {}
        self._deferred_settled: trio.Event | None = None
        # Shielded: the end of the server reaches a session as a drain with a reason, not as a cancellation.
        self._scope = trio.CancelScope(shield=True)
        self._farewell: str | None = None
        self._is_draining = False
        self._is_nudged = False
        self._closed_for_reading = False
        self.malformed = 0
        """Lines that were no messages."""
        self.gone = trio.Event()
        """Set when nothing of the session is left."""

    @property
    def sampling_lock(self) -> trio.Lock:
        """Held while the client's sampling is changed, so that two changes do not mix."""
        if self._sampling_lock is None:
            self._sampling_lock = trio.Lock()
        return self._sampling_lock

    async def run(self) -> None:
        """Serve the client until it goes or is sent away. Leaves no task, observer or pending request."""
        device = self.device
        device.sessions[self] = None
        self.server.sessions[self] = None
        try:
            with self._scope:
                await self.server.wait_ready()
                self._greet()
                self.server.announcer.client_connected(self)
                async with trio.open_nursery() as self._nursery:
                    await self._read()
        finally:
            self._leave()
            if self._is_draining:
                # The server has asked them to stop, and waits for them as well.
                with trio.CancelScope(shield=True):
                    await self._wait_deferred()
            if self._farewell is not None:
                self.outbox.send(
                    line(MessageType.INFORM, b"disconnect", None, [self._farewell.encode("utf-8")])
                )
            # Shielded inside, with that deadline.
            await self.outbox.finish(trio.current_time() + FAREWELL_TIMEOUT)  # noqa: ASYNC102
            self.gone.set()

    def statistics(self) -> SessionStatistics:
        """A look at the session."""
        return SessionStatistics(
            peer=self.peer,
            pending=self.pending,
            sampled=len(self.samplers),
            malformed=self.malformed,
            outbox=self.outbox.statistics(),
        )

    def begin_drain(self, reason: str, deadline: float) -> None:
        """Take no more requests; end when the running ones have finished, or at `deadline`."""
        self._farewell = reason
        self._is_draining = True
        self._unanswered.clear()
        if self.pending:
            self._scope.deadline = min(self._scope.deadline, deadline)
        else:
            self._scope.cancel(reason=reason)

    def abort(self, reason: str) -> None:
        """End at once, and send nothing more."""
        self._leave()
        self.outbox.abort()
        self._scope.cancel(reason=reason)

    def send_async_inform(self, encoded: bytes) -> None:
        """Send lines that nobody asked for; a client that has too many of them unread is sent away."""
        outbox = self.outbox
        outbox.send(encoded)
        # While its sampling is changed, a client gets many lines at once that it did ask for.
        if outbox.is_over_bound and not (self._sampling_lock is not None and self._sampling_lock.locked()):
            # A burst is not sent before others had their turn; that is not the client's fault.
            outbox.flush()
            if outbox.is_over_bound:
                self._disconnect_slow_client()

    def send_informs(self, encoded: bytes) -> None:
        """Send the informs of a request; one that sends on to a client that does not read loses it."""
        if self.outbox.is_over_bound:
            self._disconnect_slow_client()
        self.outbox.send(encoded)

    async def wait_turn(self) -> None:
        """Let others run, and wait until the client has read most of what it was sent."""
        await trio.lowlevel.checkpoint()
        await self.wait_drained()

    @property
    def is_behind(self) -> bool:
        """Whether the client has much unread, so that `wait_drained` waits."""
        return self.outbox.backlog > self._high_water

    async def wait_drained(self) -> None:
        """Wait until the client has read most of what it was sent."""
        self.outbox.flush()
        if self.outbox.backlog > self._high_water:
            await self.outbox.drain(self._high_water // 4)

    def make_context(self, message: WireMessage) -> RequestContext:
        """What the handler of a request gets."""
        return RequestContext(self, message)

    def close(self) -> None:
        """Send what waits, and end, without a word to the client."""
        self._scope.cancel(reason="closed by the server")

    def start_task(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task that ends with the session."""
        if self._nursery is not None:
            self._nursery.start_soon(task)

    def _greet(self) -> None:
        encode = self.device.types.encode
        for arguments in version_informs(self.device):
            self.outbox.send(
                line(
                    MessageType.INFORM, b"version-connect", None, [encode(argument) for argument in arguments]
                )
            )
        self.outbox.flush()

    def _leave(self) -> None:
        """Be no client of the device any more: nobody sends to this session from now on."""
        self.device.sessions.pop(self, None)
        self.server.sessions.pop(self, None)
        self.samplers.clear()

    def _disconnect_slow_client(self) -> None:
        if self in self.device.sessions:
            self.logger.warning(
                "Disconnecting client because it is too slow: %d bytes unread", self.outbox.backlog
            )
            self.abort("the client is too slow")

    def _on_broken(self, error: BaseException) -> None:
        self.logger.debug("connection broken: %s", error.__cause__ or error)
        self._scope.cancel(reason="the connection is broken")

    # -- reading ------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read and answer requests, until the client goes or a handler suspends in this task."""
        outbox = self.outbox
        unanswered = self._unanswered
        turnstile, most = self._turnstile, self._max_pending
        receive, parser = self._receive, self._parser
        served = 0
        outbox.cork()
        while True:
            while unanswered:
                if (self.pending >= most or turnstile.is_taken) and self._may_wait(unanswered[0]):
                    await self._wait_room()
                    outbox.cork()
                    continue
                suspended = self._dispatch(unanswered.popleft())
                if suspended is not None:
                    outbox.flush()
                    await self._finish(suspended)
                    return
                served += 1
                if served >= _BURST or outbox.backlog > self._high_water:
                    served = 0
                    await trio.lowlevel.checkpoint()
                    await self.wait_drained()
                    outbox.cork()
            await self.wait_drained()
            try:
                data = await receive(_RECEIVE if parser.buffer_size < _RECEIVE else _RECEIVE_LONG)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                outbox.abort()
                self._on_broken(error)
                return
            if not data and not self._is_nudged:
                await self._client_closed()
                return
            self._is_nudged = False
            if not self._is_draining:
                outbox.cork()
                served = 0
                unanswered.extend(parser.append(data))

    def _may_wait(self, message: WireMessage | ValueError) -> bool:
        """Whether a message has to wait while there is no room for handlers that suspend."""
        if isinstance(message, ValueError) or message.mtype is not _REQUEST:
            return False
        handler = self.device.request_handlers.get(message.name)
        # A plain function never waits, so ?watchdog is answered however busy the device is.
        return handler is None or handler.needs_room

    def take(self, data: bytes) -> bool:
        """Answer what a read brought, from outside of trio's tasks: for streams that can hand it over so.

        Only while the reading task waits for it. What needs a task, or has to wait, is left to that task.

        Returns:
            Whether the data was taken; if not, it goes to the reading task.
        """
        if self._unanswered or self._is_draining or self.is_behind:
            return False
        messages = self._parser.append(data)
        self.outbox.cork()
        for position, message in enumerate(messages):
            if position == _BURST or not self._is_immediate(message):
                self._unanswered.extend(messages[position:])
                break
            self._dispatch(message)
        self.outbox.flush()
        if self._unanswered or self.is_behind:
            self._is_nudged = True
            self.nudge()
        return True

    def nudge(self) -> None:
        """End the reading task's wait, with nothing; for a stream that hands its data to `take`."""
        raise NotImplementedError

    def _is_immediate(self, message: WireMessage | ValueError) -> bool:
        """Whether a message can be answered here and now."""
        if isinstance(message, ValueError) or message.mtype is not _REQUEST:
            return True
        handler = self.device.request_handlers.get(message.name)
        if handler is None or handler.may_suspend:
            return False
        return not handler.needs_room or (self.pending < self._max_pending and not self._turnstile.is_taken)

    async def _wait_room(self) -> None:
        self.outbox.flush()
        if self.pending >= self._max_pending:
            self._room = trio.Event()
            await self._room.wait()
        else:
            await self._turnstile.wait_room()

    async def _client_closed(self) -> None:
        """The client will send no more: let its requests finish, and end."""
        if self.outbox.broken is not None:
            return  # a reset, which a write was told of first
        if self._parser.buffer_size and not self._closed_for_reading:
            self.logger.warning("EOF received on connection with partial message")
        self._closed_for_reading = True
        self.samplers.clear()
        if self.pending:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + HALF_CLOSED_GRACE)
            await self._wait_deferred()
        if self.pending:
            return  # the last of them comes back here
        with trio.move_on_after(HALF_CLOSED_GRACE):
            await self.outbox.drain()
        self._scope.cancel(reason="the client closed the connection")

    # -- answering ----------------------------------------------------------------------------------------

    def _dispatch(self, message: WireMessage | ValueError) -> _Suspended | None:
        """Answer one message, or return the handler that has to wait for something."""
        if isinstance(message, ValueError):
            self._complain(message)
            return None
        if message.mtype is not _REQUEST:
            self.logger.debug("ignored %r", message)
            return None
        return self._call(message, self.device.request_handlers.get(message.name))

    def _call(self, message: WireMessage, handler: RequestHandler | None) -> _Suspended | None:
        """Answer a request with its handler; None stands for the device's ``unhandled_request``."""
        ctx = self.make_context(message)
        context = copy_context()
        result: Any
        try:
            if handler is None:
                result = self.device.unhandled_request(ctx)
            else:
                values = handler.decode(message.arguments)
                result = context.run(handler.function, self.device, ctx, *values)
            if type(result) is Deferred:
                return None
            if type(result) is CoroutineType or hasattr(result, "__await__"):
                coroutine = result if type(result) is CoroutineType else _await(result)
                try:
                    trap = context.run(coroutine.send, None)
                except StopIteration as finished:
                    result = finished.value
                else:
                    return _Suspended(ctx, coroutine, trap, context)
        except Exception as error:  # noqa: BLE001 - a handler's failure is its client's reply
            self._fail(ctx, error)
        else:
            self._answer(ctx, result)
        return None

    async def _finish(self, suspended: _Suspended) -> None:
        """Go on with a handler that suspended, while another task reads on."""
        ctx, coroutine, trap, context = suspended
        assert self._nursery is not None
        self.pending += 1
        self._turnstile.enter()
        self._nursery.start_soon(self._read)
        try:
            result = await resume(coroutine, trap, context)
        except Exception as error:  # noqa: BLE001 - a handler's failure is its client's reply
            self._fail(ctx, error)
        except BaseException:
            if not ctx.replied:
                ctx.reply_encoded([FAIL, b"request cancelled"])
            raise
        else:
            self._answer(ctx, result)
            # The slot is kept meanwhile, so that a client that does not read gets no more replies made.
            await self.wait_drained()
        finally:
            self._request_done()
        await self._end_if_idle()

    def deferred_begins(self, deferred: Deferred) -> None:
        """The answer comes later, and reading goes on. Called by `Deferred`."""
        self.pending += 1
        self._turnstile.enter()
        self._deferred[deferred] = None
        self.server.deferred[deferred] = None

    def deferred_done(
        self,
        deferred: Deferred,
        *,
        result: object = None,
        error: Exception | None = None,
        is_cancelled: bool = False,
    ) -> None:
        """Send the answer to a request that was deferred. Called by `Deferred`."""
        ctx = deferred.ctx
        self.outbox.cork()
        if self.gone.is_set():
            self.logger.debug("the reply to ?%s came when the client had gone", ctx.name)
        elif error is not None:
            self._fail(ctx, error)
        elif not is_cancelled:
            self._answer(ctx, result)
        elif not ctx.replied:
            ctx.reply_encoded([FAIL, b"request cancelled"])
        del self._deferred[deferred]
        self.server.deferred_done(deferred)
        # Those that come in the same breath leave together.
        if self._deferred:
            self.outbox.uncork()
        else:
            self.outbox.flush()
            if self._deferred_settled is not None:
                self._deferred_settled.set()
        self._request_done()
        if self._farewell is not None and not self.pending:
            self._scope.cancel(reason=self._farewell)

    async def _wait_deferred(self) -> None:
        """Wait until every answer that comes later has been made."""
        while self._deferred:
            if self._deferred_settled is None or self._deferred_settled.is_set():
                self._deferred_settled = trio.Event()
            await self._deferred_settled.wait()

    def _request_done(self) -> None:
        self.pending -= 1
        self._turnstile.leave()
        if self._room is not None:
            self._room.set()
            self._room = None

    async def _end_if_idle(self) -> None:
        """End a session that waited only for its last request."""
        if self.pending:
            return
        if self._farewell is not None:
            self._scope.cancel(reason=self._farewell)
        elif self._closed_for_reading:
            await self._client_closed()

    def _answer(self, ctx: RequestContext, result: Any) -> None:
        """Send the reply that a handler's result stands for."""
        try:
            if ctx.replied:
                if result is not None:
                    raise RuntimeError(f"request ?{ctx.name} has already been replied to")
                return
            if result is None:
                ctx.reply_encoded([OK])
            elif type(result) is tuple:
                encode = self.device.types.encode
                ctx.reply_encoded([OK, *[encode(item) for item in result]])
            else:
                ctx.reply_encoded([OK, self.device.types.encode(result)])
        except Exception as error:  # noqa: BLE001 - what cannot be encoded is the handler's failure
            self._fail(ctx, error)

    def _fail(self, ctx: RequestContext, error: Exception) -> None:
        """Send the reply that a handler's exception stands for."""
        if not ctx.replied and isinstance(error, FailReply | InvalidReply):
            code = FAIL if isinstance(error, FailReply) else INVALID
            ctx.reply_encoded([code, str(error).encode("utf-8", "replace")])
            return
        text = "".join(traceback.format_exception(error)).encode("utf-8", "replace")
        self._log_failure(ctx, error)
        if ctx.replied:
            self._log_to_client(b"error", self.HANDLER_LOG, text)
        else:
            ctx.reply_encoded([FAIL, text])

    def _log_failure(self, ctx: RequestContext, error: Exception) -> None:
        self.logger.error("error in the handler of ?%s", ctx.name, exc_info=error)

    def _complain(self, error: ValueError) -> None:
        """Tell the client that a line was no message."""
        # Once for a client: one that sends nothing but garbage must not fill the log.
        level = logging.WARNING if not self.malformed else logging.DEBUG
        self.malformed += 1
        self._log_malformed(level, error)
        self._log_to_client(b"error", self.PROTOCOL_LOG, str(error).encode("utf-8"))

    def _log_malformed(self, level: int, error: ValueError) -> None:
        self.logger.log(level, "Malformed message received: %s", error)

    def _log_to_client(self, level: bytes, source: bytes, text: bytes) -> None:
        now = repr(time.time()).encode("ascii")
        self.outbox.send(line(MessageType.INFORM, b"log", None, [level, now, source, text]))


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
