"""A device's connection to a manager, from the manager's first question to the good-bye."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import trio

from armillary._runtime.dial import peer_name
from armillary._runtime.direct import receiver_of
from armillary._runtime.outbox import Outbox, OutboxStatistics
from armillary.errors import ArmillaryError, ConnectFailed, ConnectionClosed, PeerError

from .errors import PacketTooLarge, Rejected, ServiceGone, absent_service
from .pending_calls import PendingCall
from .protocol import packets
from .protocol.codec import Codec
from .protocol.credentials import Action
from .protocol.device_handshake import (
    Answer,
    Credentials,
    Decline,
    DeviceHandshake,
    DeviceState,
    Identify,
    Prompt,
)
from .protocol.features import BINARY, CANCEL, PING, STREAM
from .protocol.identities import MANAGER, Identity
from .protocol.packets import Failure, Notification, PacketError, Reply, Request
from .protocol.payloads import BINARY_CODEC, TEXT_CODEC
from .protocol.roles import PUBLIC_REQUESTS
from .protocol.scanning import Kind, scan_line
from .protocol.splitting import Frame, Oversize, PacketSplitter
from .protocol.words import (
    ACCEPTED,
    CANCEL_CALL,
    CREDIT,
    LOCK_LOST,
    PING_DEVICE,
    PONG,
    UNLINKED,
    WORDS,
    CallWord,
    call_word,
    tell_manager,
)

__all__ = [
    "CLOSE_TIMEOUT",
    "DEFAULT_LIMIT",
    "AskSomebody",
    "Connection",
    "ConnectionStatistics",
    "PendingCall",
    "wait_accepted",
]

_logger = logging.getLogger("armillary.network")

# Bytes. Smaller refuses the hundred megabytes that people do send; larger lets a peer that never ends its
# line fill this program's memory with as much.
DEFAULT_LIMIT = 256 * 1024 * 1024
# Seconds for what is on its way, for the manager to take its leave, and for TLS. Longer holds up a program
# that wants to end; shorter cuts off the last request behind a slow link.
CLOSE_TIMEOUT = 0.5

# Bytes asked of a stream at once; in the midst of a long packet, more.
_RECEIVE = 65536
_RECEIVE_LONG = 4 * _RECEIVE
# Unsent bytes above which calls wait, and at which they go on. More lets calls to a stuck manager take more
# memory; fewer makes many small calls wait for each other.
_HIGH_WATER = 1024 * 1024
_LOW_WATER = 256 * 1024
# Packets handled in a row without letting others run.
_BURST = 200
# How many of the manager's intervals between two signs of life it may be silent before it is taken for gone.
# More finds out later; fewer mistakes a busy manager for a dead one.
_SILENT_INTERVALS = 3
# Seconds for what has come while this program was stopped to be read, before the silence counts.
_SECOND_LOOK = 1.0
# Uids of requests whose replies nobody waits for begin with it.
_TOLD = "-"

AskSomebody = Callable[[str, bool], Awaitable[str]]
"""Asks a person for a user's name or a password: gets the question, and whether the answer is a secret."""
Continuation = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A look at a device's connection."""

    pending: int
    """Requests without a reply."""
    unexpected: int
    """Replies that belonged to no request, late ones to abandoned requests included."""
    malformed: int
    """Lines from the manager that were no packets, or too large."""
    outbox: OutboxStatistics
    """What was sent, and what waits."""


class Connection:
    """One connection of a device to a manager.

    `run` is its life. It never raises for a connection that ends: `closed` is set, pending requests fail, and
    `reason` says why.

    Args:
        stream: connected; closed when `run` returns.
        nursery: runs the writer; it encloses `run`.
        identify: makes what the device says of itself, given what was agreed upon.
        credentials: what it answers when it is asked for a user or a password.
        ask: asks a person what `credentials` do not say. If None, the connection ends then.
        features: what the device can do beyond 1.0.
        limit: the largest packet accepted, in bytes.
        codec: how values are written for a manager that did not agree on attachments.
        on_request: called with each request of a client. What it returns, if that is not None, is awaited in
            the reading task while another task reads on.
        on_notification: called with each notification.
        on_call_word: called with what clients say of calls that they have made: that they cancel them, or
            that they have room for more items of an iteration.
        on_lock_lost: called with the name of a service whose lock the manager has taken away, and why it has.
        on_unlinked: called with the name of a service that has gone with its links, and why they have ended.
        on_end: called once, when the connection begins to end.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        identify: Callable[[frozenset[str]], Identity],
        credentials: Credentials,
        ask: AskSomebody | None = None,
        features: Collection[str] = (),
        limit: int = DEFAULT_LIMIT,
        codec: Codec = TEXT_CODEC,
        on_request: Callable[[Connection, Request | Oversize], Continuation | None] | None = None,
        on_notification: Callable[[Notification], object] | None = None,
        on_call_word: Callable[[Connection, str, CallWord], object] | None = None,
        on_lock_lost: Callable[[str, str], object] | None = None,
        on_unlinked: Callable[[str, str], object] | None = None,
        on_end: Callable[[Connection], object] | None = None,
    ) -> None:
        self._stream = stream
        self._identify = identify
        self._ask = ask
        self._on_request = on_request
        self._on_notification = on_notification
        self._on_call_word = on_call_word
        self._on_lock_lost = on_lock_lost
        self._on_unlinked = on_unlinked
        self._on_end = on_end
        self._handshake = DeviceHandshake(credentials, features=features)
        self._splitter = PacketSplitter(limit)
        self._frames: deque[Frame | Oversize] = deque()
        self._scope = trio.CancelScope()
        self._tasks: trio.Nursery | None = None
        self._pending: dict[str, PendingCall] = {}
        # Managers of 1.0 answer these without a uid, one after the other.
        self._admin: deque[PendingCall] = deque()
        self._last_uid = 0
        self._unexpected = 0
        self._malformed = 0
        self.codec: Codec = codec
        """How values are written."""
        self.outbox = Outbox(stream, nursery, on_broken=self._on_broken)
        self.peer = peer_name(stream)
        """The manager's address."""
        self.network_name: str | None = None
        """What the manager calls this device, once it has answered it something."""
        self.accepted = trio.Event()
        """Set when the manager has accepted the device, or when the connection has ended."""
        self.is_accepted = False
        self.is_asking = False
        """Whether a person has been asked for a user's name or a password, and has not answered."""
        self.answered_at = trio.current_time()
        """When a person last answered, or the connection was made."""
        self.closed = trio.Event()
        """Set when the connection has ended."""
        self.reason: ArmillaryError | None = None
        """Why the connection ended, or is about to."""
        self.was_lost = False
        """Whether it broke, or the manager closed it, as opposed to being closed here."""
        self.last_heard = trio.current_time()
        """When the manager last sent anything, on the run's clock."""

    @property
    def is_usable(self) -> bool:
        """Whether requests can be made."""
        return self.is_accepted and self.reason is None

    @property
    def manager_name(self) -> str | None:
        """What the manager calls itself, ``Manager[HOST:PORT]``, once it has said so."""
        return self._handshake.manager_name

    @property
    def features(self) -> frozenset[str]:
        """What was agreed upon beyond 1.0."""
        return self._handshake.features

    def statistics(self) -> ConnectionStatistics:
        """A look at the connection."""
        return ConnectionStatistics(
            len(self._pending), self._unexpected, self._malformed, self.outbox.statistics()
        )

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the connection ends; then take leave, close the stream and fail what is pending."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._tasks:
                    self._tasks.start_soon(self._read, name="armillary network reader")
        finally:
            self._tasks = None
            self.end(ConnectionClosed("the connection was closed"))
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._part()
            self._fail_pending()
            self.closed.set()
            self.accepted.set()
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()

    def end(self, reason: ArmillaryError, *, lost: bool = False) -> None:
        """Begin to end the connection, if nothing else has."""
        if self.reason is None:
            self.reason = reason
            self.was_lost = lost
            if self._on_end is not None:
                self._on_end(self)
            self._scope.cancel(reason=str(reason))

    async def wait_room(self) -> None:
        """Wait until the manager has read most of what it was sent."""
        if self.outbox.backlog > _HIGH_WATER:
            await self.outbox.drain(_LOW_WATER)

    async def _part(self) -> None:
        """Send what waits, and, if the manager listens, wait until it has forgotten this device."""
        is_polite = not self.was_lost and self._handshake.state is not DeviceState.REJECTED
        if is_polite:
            self.outbox.send(packets.disconnect(self.network_name or "device"))
        await self.outbox.finish(trio.current_time() + CLOSE_TIMEOUT)  # noqa: ASYNC102 - see the caller
        if is_polite and self.outbox.broken is None:
            try:
                while await self._stream.receive_some(_RECEIVE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def _on_broken(self, error: BaseException) -> None:
        self.outbox.abort()
        cause = error.__cause__ or error
        reason = ConnectionClosed(f"the connection to the manager broke: {cause}")
        reason.__cause__ = cause
        self.end(reason, lost=True)

    # -- asking --------------------------------------------------------------------------------------------

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        room: int | None = None,
        on_part: Callable[[Reply], object] | None = None,
    ) -> PendingCall:
        """Send a request.

        Args:
            service: who is asked.
            attribute: for what.
            args: of a method.
            kwargs: of a method.
            room: for how many items of an iteration; None for one reply, and no progress. Managers that
                cannot do that are asked for one reply.
            on_part: called with each part of the reply before its end.

        Raises:
            ConnectionClosed: the connection has ended; nothing was sent.
            TypeError: an argument cannot be sent.
            ValueError: it is nested too deeply.
        """
        self.check_open()
        self._last_uid += 1
        uid = str(self._last_uid)
        if room is not None and STREAM not in self.features:
            room = None
        line = packets.request(service, attribute, args, kwargs, uid=uid, stream=room, codec=self.codec)
        alone = not self._pending
        if alone:
            # Others may follow in the same breath; but a request that is alone should not wait for them.
            self.outbox.cork()
        pending = self.start_line(line, service, attribute, uid, on_part)
        if alone:
            self.outbox.flush()
        return pending

    def start_line(
        self,
        line: bytes,
        service: str,
        attribute: str,
        uid: str,
        on_part: Callable[[Reply], object] | None = None,
    ) -> PendingCall:
        """Send a request whose packet was made elsewhere: in another thread, for one.

        Args:
            line: the packet.
            service: who is asked, as it says.
            attribute: for what.
            uid: no other request's. Those that are made here are numbers.
            on_part: as for `start`.

        Raises:
            ConnectionClosed: the connection has ended; nothing was sent.
        """
        self.check_open()
        pending = PendingCall(self, service, attribute, uid, self.outbox.accepted, on_part)
        self._pending[uid] = pending
        if service == MANAGER and attribute not in PUBLIC_REQUESTS:
            self._admin.append(pending)
        self.outbox.send(line)
        return pending

    def check_open(self) -> None:
        """Raise ConnectionClosed if the connection has begun to end."""
        if self.reason is not None:
            raise ConnectionClosed(f"not connected to the manager: {self.reason}") from self.reason

    def tell(self, service: str, attribute: str, args: Sequence[object] = ()) -> None:
        """Send a request whose reply nobody waits for."""
        self._last_uid += 1
        self.send(packets.request(service, attribute, args, uid=f"{_TOLD}{self._last_uid}", codec=self.codec))

    def forget(self, pending: PendingCall) -> None:
        """Nobody waits for this reply any more."""
        self._pending.pop(pending.uid, None)

    def abandon(self, pending: PendingCall) -> None:
        """As `forget`, and tell whoever may still work on it."""
        if self._pending.pop(pending.uid, None) is None or pending.service == MANAGER:
            return
        if CANCEL in self.features:
            self.send(tell_manager(CANCEL_CALL, pending.uid))

    def send(self, data: bytes) -> None:
        """Send a packet. Once the connection begins to end it is dropped."""
        if self.reason is None:
            self.outbox.send(data)

    def _fail_pending(self) -> None:
        pending, self._pending = self._pending, {}
        for call in pending.values():
            if call.service == MANAGER and call.attribute == "shutdown_manager" and self._has_left(call):
                call.settle(
                    Reply(result=None, uid=call.uid, requester=None, more=False)
                )  # all the answer there is
            else:
                call.settle(self._closed_error(call))

    def _has_left(self, call: PendingCall) -> bool:
        return self.outbox.may_have_left > call.position

    def _closed_error(self, call: PendingCall) -> ConnectionClosed:
        received = self._has_left(call)
        error = ConnectionClosed(
            f"the connection to the manager ended before {call.service}.{call.attribute} was answered "
            f"({self.reason}); {'it may have been received' if received else 'it was not sent'}",
            may_have_been_received=received,
        )
        error.__cause__ = self.reason
        return error

    # -- reading -------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        receive = receiver_of(self._stream)
        frames = self._frames
        served = 0
        while True:
            self.outbox.cork()
            while frames:
                continuation = self._take(frames.popleft())
                if continuation is not None:
                    assert self._tasks is not None
                    self.outbox.flush()
                    self._tasks.start_soon(self._read, name="armillary network reader")
                    await continuation()
                    return
                served += 1
                if served >= _BURST or self.outbox.backlog > _HIGH_WATER:
                    served = 0
                    self.outbox.flush()
                    await trio.lowlevel.checkpoint()
                    await self.wait_room()
                    self.outbox.cork()
            self.outbox.flush()
            served = 0
            try:
                data = await receive(_RECEIVE if self._splitter.unfinished < _RECEIVE else _RECEIVE_LONG)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._on_broken(error)
                return
            self.last_heard = trio.current_time()
            if not data:
                self._manager_closed()
                return
            frames.extend(self._splitter.append(bytes(data)))

    def _manager_closed(self) -> None:
        rejection = self._handshake.rejection
        if rejection is not None:
            self.end(Rejected(rejection), lost=True)
        else:
            self.end(ConnectionClosed("the manager closed the connection"), lost=True)

    def _take(self, frame: Frame | Oversize) -> Continuation | None:
        """Take what the manager has sent; return what is to be awaited because of it."""
        if self.reason is not None:
            return None
        if isinstance(frame, Oversize):
            return self._take_oversize(frame)
        if not frame.line.strip():
            return None
        try:
            # Only a codec for attachments can read those that we have agreed upon.
            packet = packets.typed(self.codec.unpack(frame.line, (frame.attachment,)))
        except ValueError as error:
            self._take_malformed(error, frame.line)
            return None
        if type(packet) is Reply:
            self._take_reply(packet)
        elif type(packet) is Notification:
            if self._on_notification is not None:
                self._on_notification(packet)
        elif type(packet) is Request:
            if packet.service is None and not packet.uid:
                self._take_question(packet)
            else:
                return self._take_request(packet)
        elif isinstance(packet, Failure):
            self._take_failure(packet)
        return None

    def _take_request(self, request: Request) -> Continuation | None:
        self._hear(request.uid, request.requester)
        return None if self._on_request is None else self._on_request(self, request)

    def _take_reply(self, reply: Reply) -> None:
        if self.network_name is None:
            self._hear(reply.uid, reply.requester)
            self.network_name = reply.requester
        if reply.more:
            self._take_part(reply)
            return
        pending = self._pending_of(reply.uid)
        if pending is not None:
            pending.settle(reply)

    def _take_part(self, reply: Reply) -> None:
        pending = self._pending.get(reply.uid)
        if pending is not None:
            pending.take_part(reply)
        else:
            self._unexpected += 1

    def _take_failure(self, failure: Failure) -> None:
        if not self.is_accepted:
            self._hear(failure.uid, failure.requester, failure.message)
        if not failure.uid and (service := absent_service(failure.message)) is not None:
            # A manager of 1.0 does not say which request it means. No earlier one will be answered either.
            self._fail_absent(service, failure)
            return
        pending = self._pending_of(failure.uid)
        if pending is not None:
            pending.settle(failure)
        elif not failure.uid and self.reason is None:
            self._complain("the manager says: %s", failure.message)

    def _pending_of(self, uid: str) -> PendingCall | None:
        """The request that a reply belongs to, which is done then."""
        if self._admin:
            admin = next((call for call in self._admin if call.uid == uid or not uid), None)
            if admin is not None:
                self._admin.remove(admin)
                uid = admin.uid
        pending = self._pending.pop(uid, None)
        if pending is None and not uid.startswith(_TOLD):
            self._unexpected += 1
        return pending

    def _fail_absent(self, service: str, failure: Failure) -> None:
        for call in [call for call in self._pending.values() if call.service == service]:
            self.forget(call)
            call.settle(ServiceGone(failure.message, failure.traceback, may_have_been_received=True))

    def _take_oversize(self, oversize: Oversize) -> Continuation | None:
        self._complain("a packet of more than %d bytes was thrown away", oversize.limit)
        uid = oversize.members.get("uid")
        if "requester" in oversize.members:
            return None if self._on_request is None else self._on_request(self, oversize)
        if isinstance(uid, str) and (pending := self._pending_of(uid)) is not None:
            text = f"the answer of {pending.service}.{pending.attribute} has more than {oversize.limit} bytes"
            pending.settle(PacketTooLarge(text))
        return None

    def _take_malformed(self, error: ValueError, line: bytes) -> None:
        self._complain("the manager sent what is no packet: %s", error)
        try:
            # The manager looks at no more than this: arguments and results can be anything.
            envelope = scan_line(line, binary=True, stream=True)
        except PacketError:
            uid = error.uid if isinstance(error, PacketError) else ""
        else:
            uid = envelope.uid
            if envelope.kind is Kind.REQUEST and self._on_request is not None:
                self.send(packets.error(envelope.requester, uid, f"ValueError: {error}"))
                return
        if uid and (pending := self._pending_of(uid)) is not None:
            pending.settle(
                PeerError(f"the answer of {pending.service}.{pending.attribute} is no packet: {error}")
            )

    def _complain(self, text: str, *args: object) -> None:
        # Once: a manager that sends nothing but garbage must not fill the log.
        level = logging.DEBUG if self._malformed else logging.WARNING
        self._malformed += 1
        _logger.log(level, f"{text} [%s]", *args, self.peer)

    # -- answering the manager -----------------------------------------------------------------------------

    def _hear(self, uid: str, requester: str | None, error: str | None = None) -> None:
        """Something has come that is no question: that may say whether the device was let in."""
        handshake = self._handshake
        if self.is_accepted or handshake.state is DeviceState.REJECTED:
            return
        handshake.received(uid=uid, requester=requester, error=error)
        if handshake.rejection is not None:
            self.end(Rejected(handshake.rejection), lost=True)
            return
        self.is_accepted = True
        self.accepted.set()

    def _take_question(self, question: Request) -> None:
        if question.attribute in WORDS and WORDS[question.attribute] in self.features:
            self._take_word(question)
            return
        try:
            actions = self._handshake.asked(
                question.attribute, question.args, question.kwargs, question.requester
            )
        except PeerError as error:
            self.end(error)
        else:
            self._carry_out(actions)

    def _take_word(self, said: Request) -> None:
        """The manager tells something beyond 1.0."""
        word, args = said.attribute, said.args
        try:
            if word == PING_DEVICE:
                self.send(tell_manager(PONG))
            elif word == ACCEPTED:
                self._take_acceptance(said)
            elif word in (LOCK_LOST, UNLINKED):
                service, why = args
                tell = self._on_lock_lost if word == LOCK_LOST else self._on_unlinked
                if tell is not None:
                    tell(str(service), str(why))
            elif word in (CANCEL_CALL, CREDIT) and self._on_call_word is not None:
                self._on_call_word(self, word, call_word(word, args, has_requester=True))
        except ValueError as error:
            self._complain("the manager says what makes no sense: %s", error)

    def _take_acceptance(self, said: Request) -> None:
        name, interval = said.args
        if not isinstance(name, str) or not isinstance(interval, int | float) or not interval > 0:
            raise ValueError(f"expected a name and a number of seconds in {said.attribute!r}")
        self._hear(said.uid, said.requester)
        if self.network_name is None and self._tasks is not None:
            self.network_name = name
            self._tasks.start_soon(
                self._end_when_silent, interval * _SILENT_INTERVALS, name="armillary network silence"
            )

    async def _end_when_silent(self, limit: float) -> None:
        """End the connection when the manager, which says something in every interval, does not."""
        while True:
            await trio.sleep_until(self.last_heard + limit)
            if trio.current_time() < self.last_heard + limit:
                continue
            await trio.sleep(_SECOND_LOOK)
            if trio.current_time() >= self.last_heard + limit:
                self.end(ConnectionClosed(f"the manager was silent for {limit:.3g} s"), lost=True)

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Answer(value, requester):
                    self.send(packets.answer(value, requester))
                case Identify(features):
                    self._say_who(features)
                case Decline(error, requester):
                    self.send(packets.error(requester, "", error.message))
                case Prompt(text, is_secret):
                    self._prompt(text, is_secret=is_secret)

    def _say_who(self, features: frozenset[str]) -> None:
        is_first = not self._last_uid
        if BINARY in features:
            self.codec = BINARY_CODEC
            self._splitter.has_attachments = True
        self.send(packets.answer(self._identify(features).answer()))
        if is_first and PING not in features:
            # Managers of 1.0 do not say that a device is in. So ask for nothing, which is answered to who is.
            self.tell(MANAGER, "unlink", [""])

    def _prompt(self, text: str, *, is_secret: bool) -> None:
        if self._ask is None or self._tasks is None:
            self.end(ConnectFailed(f"the manager asks, and nobody is there to answer: {text.rstrip(' >')}"))
        else:
            self._tasks.start_soon(self._ask_somebody, self._ask, text, is_secret)

    async def _ask_somebody(self, ask: AskSomebody, text: str, is_secret: bool) -> None:
        self.is_asking = True
        try:
            answer = await ask(text, is_secret)
        except Exception as error:  # noqa: BLE001 - users write this; the connection cannot go on without it
            reason = ConnectFailed(f"nobody answered what the manager asked: {error}")
            reason.__cause__ = error
            self.end(reason)
        else:
            self.answered_at = trio.current_time()
            self._carry_out(self._handshake.prompted(answer))
            self.outbox.uncork()
        finally:
            self.is_asking = False


async def wait_accepted(connection: Connection, timeout: float, where: str) -> None:
    """Wait until the manager has accepted the device. The time that a person takes to answer does not count.

    Raises:
        Rejected: the manager does not let it in.
        ConnectFailed: the connection ended first, or nothing came of it in `timeout` seconds.
    """
    while not connection.accepted.is_set():
        now = trio.current_time()
        with trio.move_on_at((now if connection.is_asking else connection.answered_at) + timeout) as scope:
            await connection.accepted.wait()
        is_late = trio.current_time() >= connection.answered_at + timeout
        if scope.cancelled_caught and is_late and not connection.is_asking:
            hint = "" if connection.manager_name else "; perhaps it expects TLS"
            error = ConnectFailed(f"could not connect to {where}: no answer in {timeout:.3g} s{hint}")
            connection.end(error)
            raise error
    if not connection.is_accepted:
        reason = connection.reason
        if isinstance(reason, ConnectFailed):
            raise reason
        raise ConnectFailed(f"could not connect to {where}: {reason}") from reason
