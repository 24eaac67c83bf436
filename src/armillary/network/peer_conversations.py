"""What a manager asks of a peer: who it is, when it comes, and whether it is an administrator.

The conversations themselves are pure. Here what they want is sent, looked up, and waited for.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from armillary._wire.lines import LineTooLong

from .managed_peer import ManagedPeer
from .protocol import packets
from .protocol.admin_login import AdminLogin, Deny, Grant
from .protocol.codec import STANDARD
from .protocol.credentials import (
    Action,
    Ask,
    Awaited,
    Close,
    Conversation,
    FindUser,
    Login,
    Pause,
    Record,
    Reject,
    VerifyLogin,
    VerifyManagerPassword,
)
from .protocol.features import PING, agree
from .protocol.handshake import CheckIdentity, Connected, ManagerHandshake
from .protocol.identities import Identity
from .protocol.refusals import Refused
from .protocol.terminal_input import parse_terminal_input
from .protocol.words import ACCEPTED
from .store import User

if TYPE_CHECKING:
    from .peer_session import PeerSession

__all__ = ["Administration", "Introduction", "SessionEnds"]

# Administrative requests of one peer that run at once; the others are refused. Each waits for the database.
_MOST_TASKS = 64


class SessionEnds(Exception):
    """The session is over, for no reason that anybody needs to be told."""


class _Carrier:
    """Carries on conversations with the peer of one session."""

    def __init__(self, session: PeerSession) -> None:
        self.session = session
        self.login: Login | None = None
        """Who has logged in, once somebody has."""

    async def perform(self, conversation: Conversation, actions: Iterable[Action]) -> None:
        """Do what a conversation wants, and what follows from it.

        Raises:
            SessionEnds: it wants that.
        """
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            waiting.extend(await self.perform_one(conversation, action))
        self.session.manager.uncork()

    async def perform_one(self, conversation: Conversation, action: Action) -> list[Action]:
        """Do one thing; return what the conversation wants next because of it."""
        session = self.session
        manager = session.manager
        match action:
            case Ask(attribute, args, features):
                session.send(_question(manager.name, attribute, args, features))
                manager.uncork()
            case Record():
                manager.record_connection(session, action.message)
            case Pause(until):
                manager.counters.login_pauses += 1
                await trio.sleep_until(until)
                return conversation.resume(trio.current_time())
            case FindUser(username):
                is_registered = await manager.is_registered(username)
                manager.counters.logins_refused += not is_registered
                return conversation.found(is_registered, trio.current_time())
            case VerifyLogin(username, password):
                user = await manager.verify_login(username, password)
                self._count_login(user is not None)
                if user is not None:
                    self.verified(user)
                is_admin = user is not None and user.is_admin
                return conversation.verified(user is not None, trio.current_time(), is_admin=is_admin)
            case VerifyManagerPassword(password):
                expected = manager.authentication.password or ""
                # Peers may send halves of surrogate pairs, which UTF-8 does not have.
                given = password.encode("utf-8", "surrogatepass")
                is_right = hmac.compare_digest(given, expected.encode("utf-8"))
                self._count_login(is_right)
                return conversation.verified(is_right, trio.current_time())
            case Reject(error):
                session.is_rejected = True
                # In its own name, which is how devices tell it from an error of a request.
                session.send(packets.error(manager.name, "", error.message))
                raise SessionEnds
            case Close():
                raise SessionEnds
        return []

    def verified(self, user: User) -> None:
        """The peer has said who its user is, and it is true."""

    def _count_login(self, is_right: bool) -> None:
        counters = self.session.manager.counters
        counters.logins_accepted += is_right
        counters.logins_refused += not is_right


class Introduction(_Carrier):
    """The handshake with a peer that has connected."""

    def __init__(self, session: PeerSession) -> None:
        super().__init__(session)
        manager, host = session.manager, session.host
        assert host is not None
        self._handshake = ManagerHandshake(
            manager.authentication.method,
            manager_name=manager.name,
            address=host.ip or host.address,
            throttle=manager.throttle,
            hostname=host.hostname,
            trusted_hostnames=manager.authentication.hostnames,
            features=manager.features,
            time_limit=manager.limits.handshake,
        )

    async def shake_hands(self) -> bool:
        """Let the peer in, if it is who it has to be. Return whether it is in.

        Raises:
            SessionEnds: it has gone, or is to go.
        """
        session, handshake = self.session, self._handshake
        await self.perform(handshake, handshake.start(trio.current_time()))
        while handshake.awaited is Awaited.ANSWER:
            assert handshake.deadline is not None
            with trio.CancelScope(deadline=handshake.deadline) as scope:
                line = await session.next_line()
            now = trio.current_time()
            actions = handshake.timed_out(now) if scope.cancelled_caught else _answer(handshake, line, now)
            await self.perform(handshake, actions)
        if session.peer is None:
            return False
        await session.manager.wait_connection_recorded()
        if PING in session.peer.features:
            session.tell(ACCEPTED, session.peer.network_name, session.manager.limits.ping_interval)
            session.manager.uncork()
        return True

    def closed(self, now: float) -> None:
        """The connection has ended: note that, if nobody was let in."""
        for action in self._handshake.closed(now):
            if isinstance(action, Record):
                self.session.manager.record_connection(self.session, action.message)

    async def perform_one(self, conversation: Conversation, action: Action) -> list[Action]:
        match action:
            case CheckIdentity(value):
                return self._check_identity(value)
            case Connected(_, login):
                self.login = login
                return []
        return await super().perform_one(conversation, action)

    def verified(self, user: User) -> None:
        self.session.role = self.session.manager.roles.of(user.role, is_admin=user.is_admin)

    def _check_identity(self, value: object) -> list[Action]:
        """Register the peer."""
        session, handshake = self.session, self._handshake
        assert session.host is not None
        now = trio.current_time()
        if isinstance(value, str):
            value = parse_terminal_input(value) or value
        try:
            identity = Identity.read(value)
            peer = ManagedPeer(
                type=identity.type,
                name=identity.name,
                address=session.host.address,
                language=identity.language,
                os=identity.os,
                attributes=identity.attributes,
                max_clients=identity.max_clients,
                links_required=identity.links_required,
                features=agree(value, session.manager.features),
                last_heard=now,
                session=session,
            )
            if identity.type == "service":
                session.role.check_serve(peer)
            session.manager.add(peer)
        except (Refused, KeyError, TypeError, ValueError, NameError) as error:
            return handshake.not_identified(error, now)
        session.take_peer(peer)
        return handshake.identified(identity.type, now)


class _AdminCall(NamedTuple):
    """A request that only administrators may make."""

    uid: str
    run: Callable[[], Awaitable[None]]


class Administration(_Carrier):
    """The requests of a peer that only administrators may make, and its login as one.

    Each is answered by a task, while the peer's packets go on being handled.

    Args:
        session: of the peer.
        nursery: runs the tasks.
    """

    def __init__(self, session: PeerSession, nursery: trio.Nursery) -> None:
        super().__init__(session)
        assert session.host is not None
        self._nursery = nursery
        self._tasks = 0
        self._conversation: AdminLogin[_AdminCall] = AdminLogin(
            manager_name=session.manager.name,
            address=session.host.ip or session.host.address,
            throttle=session.manager.throttle,
            is_admin=session.role.administrate,
        )

    @property
    def takes_packet(self) -> bool:
        """Whether the next reply to the manager is an answer to what it has asked."""
        return self._conversation.takes_packet

    @property
    def takes_text(self) -> bool:
        """Whether the next line that is no packet is such an answer."""
        return self._conversation.takes_text

    @property
    def username(self) -> str:
        """Who has logged in; empty if nobody has."""
        return "" if self._conversation.login is None else self._conversation.login.username

    def ask(self, uid: str, attribute: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """The peer wants something that only administrators may have."""
        if self._tasks >= _MOST_TASKS:
            text = f"RuntimeError: {_MOST_TASKS} requests to the manager are being answered"
            self.session.send_error(uid, text)
            return
        call = _AdminCall(uid, partial(self._administrate, uid, attribute, args, kwargs))
        self._go_on(self._conversation.request(call, trio.current_time()))

    def answered(self, value: object, *, is_text: bool) -> None:
        """The peer has answered what it was asked."""
        self._go_on(self._conversation.answered(value, trio.current_time(), is_text=is_text))

    def closed(self, now: float) -> None:
        """The connection has ended."""
        self._conversation.closed(now)

    async def perform_one(self, conversation: Conversation, action: Action) -> list[Action]:
        match action:
            case Grant(request):
                await request.run()
                return []
            case Deny(request, error):
                self.session.send_error(request.uid, error.message)
                return []
        return await super().perform_one(conversation, action)

    def _go_on(self, actions: list[Action]) -> None:
        self._tasks += 1
        self._nursery.start_soon(self._run, actions)

    async def _run(self, actions: list[Action]) -> None:
        """Do what the login wants; deny what waits when time is up."""
        conversation = self._conversation
        try:
            await self.perform(conversation, actions)
        except SessionEnds:
            self.session.end("the login was wrong")
        finally:
            self._tasks -= 1
        deadline = conversation.deadline
        if deadline is not None:
            await trio.sleep_until(deadline)
            if conversation.deadline == deadline:
                await self.perform(conversation, conversation.timed_out(trio.current_time()))

    async def _administrate(self, uid: str, attribute: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        session = self.session
        try:
            session.reply(uid, await session.manager.admin_request(session, attribute, args, kwargs))
        except Refused as refused:
            session.send_error(uid, refused.message)
        except (TypeError, ValueError, AttributeError) as error:
            session.send_error(uid, packets.message_of(error))


def _question(manager: str, attribute: str, args: tuple[str, ...], features: tuple[str, ...]) -> bytes:
    """The request that asks a device for what the handshake wants to know."""
    if attribute == "identity":
        return packets.identity_request(manager, features)
    if attribute == "username":
        return packets.username_request(manager)
    return packets.password_request(manager, args[0])


def _answer(handshake: ManagerHandshake, line: bytes | LineTooLong, now: float) -> list[Action]:
    """What a device has answered: the result of a packet, or else the text of the line."""
    if isinstance(line, LineTooLong):
        return handshake.undecodable(now)
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return handshake.undecodable(now)
    try:
        packet = STANDARD.decode(line)
    except ValueError:
        packet = None
    is_answer = isinstance(packet, dict) and "result" in packet
    return handshake.answered(packet["result"] if is_answer else text, now)
