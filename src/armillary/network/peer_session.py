"""One device at a manager, from the handshake to its last packet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from armillary._runtime.direct import receiver_of
from armillary._runtime.outbox import Outbox, OutboxStatistics
from armillary._wire.lines import LineTooLong

from .hosts import PeerHost, find_peer_host
from .managed_peer import ManagedPeer
from .peer_conversations import Administration, Introduction, SessionEnds
from .protocol import packets
from .protocol.codec import STANDARD
from .protocol.features import BINARY, PING
from .protocol.framing import Packet, PacketReader, Unreadable
from .protocol.identities import MANAGER
from .protocol.packets import PacketError
from .protocol.payloads import TEXT_CODEC
from .protocol.refusals import Refused
from .protocol.roles import Role
from .protocol.scanning import Kind
from .protocol.terminal_input import parse_terminal_input
from .protocol.words import (
    CANCEL_CALL,
    CREDIT,
    LOCK_LOST,
    PING_DEVICE,
    UNLINKED,
    WORDS,
    call_word,
    tell_device,
)

if TYPE_CHECKING:
    from .manager import Manager

__all__ = ["PeerSession", "SessionStatistics"]

_logger = logging.getLogger("armillary.network.manager")

# Bytes asked of a stream at once; in the midst of a long line, more.
_RECEIVE = 65536
_RECEIVE_LONG = 4 * _RECEIVE
# Packets handled in a row without letting others run. More makes others wait longer (each takes some
# microseconds); fewer spends a larger part of the time on switching.
_BURST = 128
# Bytes of a line in the handshake: an identity lists what a service offers. Larger lets somebody who has not
# said who he is take more memory; smaller refuses services with thousands of methods.
_INTRODUCTION = 4 * 1024 * 1024
# Seconds for the last packets of a session, such as why it was rejected. Longer lets a peer that does not
# read hold up the end of the manager; shorter cuts off peers behind slow links.
FAREWELL_TIMEOUT = 0.5
# The part of what a peer may leave unread that is little. More counts less of what a stuck peer leaves; less
# counts a large packet that comes behind some small ones.
_LITTLE = 1 / 64


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A look at one peer of a manager."""

    name: str
    """Its network name, or its address as long as it has none."""
    received: int
    """Packets that came from it."""
    malformed: int
    """Lines that were no packets."""
    notifications_dropped: int
    """Notifications that it was not sent, because too many bytes waited to be read by it."""
    outbox: OutboxStatistics


class PeerSession:
    """One connection to a manager. `run` is its life.

    Args:
        manager: whose peer it is.
        stream: the connection.
        nursery: runs its writer; it encloses `run`.
    """

    def __init__(self, manager: Manager, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self.manager = manager
        self.outbox = Outbox(stream, nursery, bound=manager.limits.unread, on_broken=self._on_broken)
        # The position up to which bytes do not count as unread: see `is_behind`.
        self._uncounted = 0
        self.host: PeerHost | None = None
        self.peer: ManagedPeer | None = None
        self.role: Role = manager.roles.of(None)
        """What the peer may do; that of its user, once he has logged in."""
        self.received = 0
        self.malformed = 0
        self.notifications_dropped = 0
        self.notifications = 0
        self.notifications_sent = 0
        self.bytes_received = 0
        self.is_rejected = False
        self._stream = stream
        self._receive = receiver_of(stream)
        # Nobody needs longer lines to introduce themselves.
        self._reader = PacketReader(min(_INTRODUCTION, manager.limits.line))
        # What everybody is told who gets its requests.
        self._quoted_name = b""
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._introduction: Introduction | None = None
        self._administration: Administration | None = None
        self._sent_at_last_ping = 0

    @property
    def name(self) -> str:
        """Its network name, or where it is as long as it has none."""
        if self.peer is not None:
            return self.peer.network_name
        return "somebody" if self.host is None else self.host.address

    @property
    def user(self) -> str:
        """Who is logged in on it."""
        if self._introduction is not None and self._introduction.login is not None:
            return self._introduction.login.username
        return "" if self._administration is None else self._administration.username

    def statistics(self) -> SessionStatistics:
        """A look at the session."""
        return SessionStatistics(
            self.name,
            self.received,
            self.malformed,
            self.notifications_dropped,
            self.outbox.statistics(),
        )

    async def run(self) -> None:
        """Serve the peer until it goes. Nothing of it is left in the registry afterwards."""
        try:
            with self._scope:
                self.host = await find_peer_host(
                    self._stream, aliases=self.manager.aliases, own_hostname=self.manager.hostname
                )
                if await self._is_let_in():
                    async with trio.open_nursery() as self._nursery:
                        await self._serve()
                        self._nursery.cancel_scope.cancel(reason="the peer has gone")
        finally:
            self._leave()
            # Shielded inside, with that deadline.
            await self.outbox.finish(trio.current_time() + FAREWELL_TIMEOUT)  # noqa: ASYNC102

    def take_peer(self, peer: ManagedPeer) -> None:
        """The peer was let in."""
        self.peer = peer
        self._quoted_name = STANDARD.encode(peer.network_name)
        self._reader.agree(peer.features)
        self._reader.limit = self.manager.limits.line

    def end(self, reason: str) -> None:
        """End the session: what waits is sent, for half a second at most."""
        self._scope.cancel(reason=reason)

    def abort(self, reason: str) -> None:
        """End the session at once, and send nothing more."""
        _logger.warning("Disconnecting %s: %s", self.name, reason)
        self.outbox.abort()
        self._scope.cancel(reason=reason)

    # -- sending ------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send a packet, together with the others of this moment."""
        self.manager.cork(self)
        self.outbox.send(data)

    @property
    def is_behind(self) -> bool:
        """Whether the peer leaves more unread than it may. A large packet does not count."""
        outbox = self.outbox
        uncounted = max(0, self._uncounted - (outbox.accepted - outbox.backlog))
        return outbox.backlog - uncounted > self.manager.limits.unread

    def send_packet(self, pieces: Iterable[bytes]) -> None:
        """Send what others have sent to the peer: one packet, with what is attached to it."""
        outbox = self.outbox
        begin = outbox.accepted
        little = self.manager.limits.unread * _LITTLE
        is_first = outbox.backlog <= little
        for piece in pieces:
            self.send(piece)
        if is_first and outbox.accepted - begin > little:
            self._uncounted = outbox.accepted

    def send_notification(self, pieces: Iterable[bytes]) -> None:
        """Send a notification, unless the peer has too much to read: it is dropped then, and counted."""
        if self.is_behind:
            if not self.notifications_dropped:
                _logger.warning(
                    "%s does not read: notifications to it are dropped, %d bytes wait",
                    self.name,
                    self.outbox.backlog,
                )
            self.notifications_dropped += 1
            return
        self.notifications_sent += 1
        self.send_packet(pieces)

    def send_error(self, uid: str, message: str, traceback: Iterable[str] = ()) -> None:
        """Send why something could not be done."""
        self._send_reply(packets.error(self.name, uid, message, list(traceback)))

    def tell(self, word: str, *args: object) -> None:
        """Tell the peer something for which it has agreed on the feature."""
        self.send(tell_device(self.manager.name, word, *args))

    def tell_lock_lost(self, service: str, why: str) -> None:
        """Tell the peer that a lock was taken from it, if it can be told."""
        if self.peer is not None and PING in self.peer.features:
            self.tell(LOCK_LOST, service, why)

    def tell_unlinked(self, service: str, why: str) -> None:
        """Tell the peer that a link has ended, if it can be told."""
        if self.peer is not None and PING in self.peer.features:
            self.tell(UNLINKED, service, why)

    def ping(self, now: float, interval: float) -> None:
        """See that each side hears something from the other in every interval, in seconds."""
        peer = self.peer
        if peer is None or PING not in peer.features:
            return
        sent = self.outbox.accepted
        if peer.last_heard <= now - interval or sent == self._sent_at_last_ping:
            self.tell(PING_DEVICE)
        self._sent_at_last_ping = self.outbox.accepted

    def reply(self, uid: str, result: object) -> None:
        """Send the result of a request to the manager."""
        self._send_reply(packets.reply(self.name, uid, result, codec=TEXT_CODEC))

    def _send_reply(self, data: bytes) -> None:
        """Send the manager's own answer; who asks on and on, and does not read, is disconnected."""
        if self.outbox.backlog > self.manager.limits.unread_replies:
            self.abort("it does not read its replies")
        else:
            self.send(data)

    # -- the end ------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        now = trio.current_time()
        if self.peer is not None:
            self.manager.remove(self.peer)
        if self._administration is not None:
            self._administration.closed(now)
        if self._introduction is not None:
            self._introduction.closed(now)

    def _on_broken(self, error: BaseException) -> None:
        _logger.debug("connection of %s broken: %s", self.name, error.__cause__ or error)
        self._scope.cancel(reason="the connection is broken")

    # -- reading ------------------------------------------------------------------------------------------

    async def next_line(self) -> bytes | LineTooLong:
        """The next line of the handshake."""
        while (line := self._reader.next_line()) is None:
            await self._receive_more()
        return line

    async def _receive_more(self) -> None:
        size = _RECEIVE if self._reader.unfinished < _RECEIVE else _RECEIVE_LONG
        try:
            data = await self._receive(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.outbox.abort()
            raise SessionEnds from None
        if not data:
            raise SessionEnds
        self.bytes_received += len(data)
        self._reader.append(bytes(data))

    async def _is_let_in(self) -> bool:
        self._introduction = Introduction(self)
        try:
            return await self._introduction.shake_hands()
        except SessionEnds:
            return False

    async def _serve(self) -> None:
        """Handle packets until the peer goes."""
        try:
            await self._handle_packets()
        except SessionEnds:
            pass

    async def _handle_packets(self) -> None:
        assert self.peer is not None
        manager, reader, peer = self.manager, self._reader, self.peer
        served = 0
        while True:
            while (item := reader.next_packet()) is not None:
                self.received += 1
                if isinstance(item, Packet):
                    await self._handle(item)
                else:
                    self._handle_unreadable(item)
                served += 1
                if served >= _BURST:
                    served = 0
                    manager.uncork()
                    await trio.lowlevel.checkpoint()
            manager.uncork()
            await self._receive_more()
            peer.last_heard = trio.current_time()

    async def _handle(self, packet: Packet) -> None:
        kind = packet.envelope.kind
        if kind is Kind.REQUEST:
            await self._forward_request(packet)
        elif kind is Kind.REPLY:
            await self._forward_reply(packet)
        elif kind is Kind.NOTIFICATION:
            await self._forward_notification(packet)
        elif kind is Kind.MANAGER_REQUEST:
            try:
                request = STANDARD.decode(packet.line)
            except ValueError as error:  # JSON, and yet nothing for Python: an integer of thousands of digits
                self.send_error(packet.envelope.uid, packets.message_of(error))
            else:
                self._manager_request(request)
        else:
            raise SessionEnds

    def _handle_unreadable(self, item: Unreadable) -> None:
        """A line that is no packet: an answer that somebody types, shorthand, or an error."""
        text = _text_of(item.line)
        if self._administration is not None and self._administration.takes_text:
            self._administration.answered(text, is_text=True)
            return
        packet = parse_terminal_input(text) if text and not item.error.is_json else None
        if packet is None or "attribute" not in packet:
            self.malformed += 1
            # Once: a peer that sends nothing but garbage must not fill the log.
            level = logging.WARNING if self.malformed == 1 else logging.DEBUG
            _logger.log(level, "%s sent what is no packet: %s", self.name, item.error)
            self.send_error(item.error.uid, item.error.message)
            self._tell_who_waits(item.error)
            if item.is_lost:
                raise SessionEnds
        elif packet["attribute"] == packets.DISCONNECT:
            raise SessionEnds
        elif packet["service"] == MANAGER:
            self._manager_request(packet)
        else:
            self._forward_typed(packet)

    def _tell_who_waits(self, error: PacketError) -> None:
        """A reply that is no packet is an answer, too: there will be no other."""
        assert self.peer is not None
        if not error.uid or not error.requester:
            return
        target = self.manager.outstanding.answer(self.peer, error.requester, error.uid)
        if isinstance(target, ManagedPeer):
            text = f"ValueError: the answer of the {self.peer.name!r} Service is no packet: {error}"
            target.session.send_error(error.uid, text)

    def _forward_typed(self, packet: Mapping[str, Any]) -> None:
        """Send on what somebody has typed."""
        try:
            # First, so that nothing counts as forwarded that cannot be sent.
            line = STANDARD.pack({**packet, "requester": self.name})
            service = self._admit(packet["service"], "")
        except Refused as refused:
            self.manager.counters.requests_refused += 1
            self.send_error("", refused.message)
        except (TypeError, ValueError) as error:
            self.send_error("", packets.message_of(error))
        else:
            service.session.send(line)

    # -- forwarding ---------------------------------------------------------------------------------------

    def _admit(self, name: str, uid: str, *, takes_parts: bool = False) -> ManagedPeer:
        """The service that a request goes to, if it may go there. From now on its reply is expected.

        Raises:
            Refused: it may not.
        """
        assert self.peer is not None
        self.role.check_call(self.peer, name)
        service = self.manager.registry.route(self.peer, name)
        if service.session.is_behind:
            raise Refused(RuntimeError, f"the {name!r} Service does not read its requests")
        self.manager.outstanding.forward(self.peer, service, uid, is_streaming=takes_parts)
        return service

    async def _forward_request(self, packet: Packet) -> None:
        envelope = packet.envelope
        assert envelope.service is not None
        pieces = None
        target = self.manager.registry.service(envelope.service)
        if packet.attachments and target is not None and BINARY not in target.features:
            # Before it counts as forwarded: this takes a while, and the service may go meanwhile.
            try:
                pieces = [await self.manager.as_text(packet, self.name)]
            except (TypeError, ValueError) as error:
                self.send_error(envelope.uid, packets.message_of(error))
                return
        try:
            service = self._admit(envelope.service, envelope.uid, takes_parts=envelope.takes_parts)
        except Refused as refused:
            self.manager.counters.requests_refused += 1
            self.send_error(envelope.uid, refused.message)
            return
        service.session.send_packet(packet.requested_by(self._quoted_name) if pieces is None else pieces)

    async def _forward_reply(self, packet: Packet) -> None:
        assert self.peer is not None
        envelope = packet.envelope
        manager = self.manager
        if not envelope.uid and envelope.requester in (manager.name, None):
            if self._administration is not None and self._administration.takes_packet:
                self._administration.answered(_result_of(packet.line), is_text=False)
            return
        if envelope.requester is None:
            _logger.debug("%s sent a reply that is for nobody", self.name)
            return
        target = manager.outstanding.answer(
            self.peer, envelope.requester, envelope.uid, is_last=not envelope.more
        )
        if not isinstance(target, ManagedPeer):
            _logger.debug("a reply of %s reaches nobody: %s", self.name, target.value)
            return
        session: PeerSession = target.session
        if session.outbox.backlog > manager.limits.unread_replies:
            session.abort("it does not read its replies")
        elif packet.attachments and BINARY not in target.features:
            try:
                session.send_packet([await manager.as_text(packet)])
            except (TypeError, ValueError) as error:
                session.send_error(envelope.uid, packets.message_of(error))
        else:
            session.send_packet(packet.verbatim())

    async def _forward_notification(self, packet: Packet) -> None:
        assert self.peer is not None
        assert packet.envelope.service is not None
        try:
            audience = self.manager.registry.audience(self.peer, packet.envelope.service)
        except Refused as refused:
            self.send_error("", refused.message)
            return
        self.notifications += 1
        pieces: list[bytes] = packet.verbatim()
        text: list[bytes] | None = None
        for target in audience:
            session: PeerSession = target.session
            if packet.attachments and BINARY not in target.features:
                try:
                    text = [await self.manager.as_text(packet)] if text is None else text
                except (TypeError, ValueError) as error:
                    self.send_error("", packets.message_of(error))
                    return
                session.send_notification(text)
            else:
                session.send_notification(pieces)

    # -- requests to the manager --------------------------------------------------------------------------

    def _manager_request(self, packet: Mapping[str, Any]) -> None:
        """Answer a request to the manager, or let an administrator's be answered by a task."""
        uid = packet.get("uid") or ""
        attribute = packet["attribute"]
        args, kwargs = packet.get("args") or [], packet.get("kwargs") or {}
        assert self.peer is not None
        if attribute in WORDS and WORDS[attribute] in self.peer.features:
            self._take_word(attribute, args)
            return
        try:
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise PacketError("expected an array as 'args' and an object as 'kwargs'", uid=uid)
            answer = self.manager.public_request(self, attribute, args, kwargs)
        except Refused as refused:
            self.send_error(uid, refused.message)
        except PacketError as error:
            self.send_error(uid, error.message)
        else:
            if answer is not self.manager.NOT_PUBLIC:
                self.reply(uid, answer)
            else:
                if self._administration is None:
                    assert self._nursery is not None
                    self._administration = Administration(self, self._nursery)
                self._administration.ask(uid, attribute, args, kwargs)

    def _take_word(self, word: str, args: Any) -> None:
        """Pass on what a client says of a request that it has made."""
        if word not in (CANCEL_CALL, CREDIT):
            return  # it was a sign of life
        assert self.peer is not None
        outstanding = self.manager.outstanding
        try:
            said = call_word(word, args if isinstance(args, list) else [], has_requester=False)
        except ValueError as error:
            self.send_error("", packets.message_of(error))
            return
        # A word that comes too late is no mistake: the reply was on its way.
        if word == CANCEL_CALL:
            request = outstanding.cancel(self.peer, said.uid)
            if request is not None and request.can_be_cancelled:
                request.service.session.tell(CANCEL_CALL, self.name, said.uid)
        else:
            service = outstanding.asked(self.peer, said.uid)
            if service is not None and WORDS[CREDIT] in service.features:
                service.session.tell(CREDIT, self.name, said.uid, said.number)


def _result_of(line: bytes) -> object:
    """The result in a packet; None if Python cannot read it, though it is JSON."""
    try:
        return STANDARD.decode(line).get("result")
    except ValueError:
        return None


def _text_of(line: bytes | None) -> str:
    """What somebody may have typed."""
    try:
        return "" if line is None else line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""
