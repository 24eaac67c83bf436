"""The manager of a lab network: it knows who is there, and sends packets on to those they are for."""

from __future__ import annotations

import logging
import math
import platform
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import trio

from armillary._runtime.dial import bound_ports, keep_alive, open_listeners, take_bulk
from armillary._runtime.groups import single_exception
from armillary._runtime.sessions import serve_sessions

from .counters import Counters, Traffic
from .locations import localhost_aliases, own_hostname
from .managed_peer import ManagedPeer
from .peer_session import PeerSession, SessionStatistics
from .protocol.features import ALL_FEATURES
from .protocol.framing import DEFAULT_LIMIT, Packet
from .protocol.handshake import HANDSHAKE_LIMIT, Authentication
from .protocol.identities import manager_identity, manager_name
from .protocol.locks import LOCK_LEASE
from .protocol.outstanding import Outstanding, OutstandingStatistics
from .protocol.payloads import to_text
from .protocol.refusals import Refused
from .protocol.registry import Registry, ReleasedLock, ServiceRow
from .protocol.roles import Role, Roles, admin_request
from .protocol.status import STATUS_REQUEST, ManagerStatus, ServiceStatus
from .protocol.throttle import LoginThrottle
from .protocol.words import CANCEL_CALL
from .store import (
    AuditEvent,
    EventKind,
    LoginRefused,
    Recorder,
    Store,
    StoreUnusable,
    User,
    open_recorder,
    table_requests,
)

__all__ = [
    "DEFAULT_PORT",
    "Authenticate",
    "Manager",
    "ManagerLimits",
    "ManagerStatistics",
    "serve_manager",
    "serve_manager_on",
]

_logger = logging.getLogger("armillary.network.manager")
Listeners = list[trio.abc.Listener[Any]]

DEFAULT_PORT = 1875
# Peers that are asked for a sign of life in a row. More holds up the others longer, fewer takes more turns.
_PINGS_AT_ONCE = 256
# Seconds that an administrator waits for the audit's database. More holds him up for longer when it is locked
# by another program; less refuses what a moment later would have been recorded.
_AUDIT_TIMEOUT = 10.0
# Seconds that a peer waits until it is recorded that it has come, in managers that want it. More holds it up
# for longer when the database is locked by another program; less serves it before it is recorded.
_RECORD_TIMEOUT = 0.5
# Logins that are checked at once, each by a worker thread for a fifth of a second. More lets a flood of
# attempts keep all processors busy; fewer makes honest users wait for each other.
_LOGINS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Authenticate:
    """What a manager wants to know before it lets anybody in; nothing by default.

    Args:
        password: everybody has to know this password.
        hostnames: everybody has to come from one of these hosts.
        login: everybody has to log in as one of the store's users.

    Raises:
        ValueError: more than one of them is wanted.
    """

    password: str | None = field(default=None, repr=False)
    hostnames: Collection[str] = ()
    login: bool = False

    def __post_init__(self) -> None:
        if (self.password is not None) + bool(self.hostnames) + self.login > 1:
            raise ValueError("Cannot specify multiple authentication methods")

    @property
    def method(self) -> Authentication:
        """What the handshake calls it."""
        if self.password is not None:
            return Authentication.MANAGER_PASSWORD
        if self.hostnames:
            return Authentication.HOSTNAMES
        return Authentication.LOGIN if self.login else Authentication.NONE


@dataclass(frozen=True, slots=True)
class ManagerLimits:
    """What a manager takes on from one peer."""

    line: int = DEFAULT_LIMIT
    """Bytes of a packet, and of what is attached to it."""
    unread: int = 64 * 1024 * 1024
    """Bytes that a peer may leave unread before notifications to it are dropped, and requests to it refused.

    A packet for which nothing else waits does not count: what comes behind a large one is not lost for that.
    More takes more memory for a peer that is stuck; fewer hurts one that is busy for a moment.
    """
    unread_replies: int = 1024 * 1024 * 1024
    """Bytes that a peer may leave unread before the next reply costs it its connection."""
    handshake: float = HANDSHAKE_LIMIT
    """Seconds that a peer has for the handshake."""
    ping_interval: float = 10.0
    """Seconds after which a peer that was silent is asked for a sign of life, if it can be asked.

    More finds out later who is gone; less makes more traffic with thousands of peers that do nothing. Devices
    take a manager for gone that was silent for three of them.
    """
    lock_lease: float = LOCK_LEASE
    """Seconds of silence after which a peer that can be asked for a sign of life loses its locks.

    Less takes the lock from a program that merely blocks for a while, more keeps an instrument longer from
    those who wait for a machine that is gone.
    """


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """A look at a manager."""

    peers: tuple[SessionStatistics, ...]
    """In the order in which they came."""
    services: tuple[ServiceRow, ...]
    requests: OutstandingStatistics
    counters: Counters
    traffic: Traffic


class Manager:
    """One manager that is being served. Made by `serve_manager`, which gives it to ``on_start``.

    Everything belongs to the thread of the trio run.
    """

    NOT_PUBLIC: Final = object()

    def __init__(
        self,
        *,
        hostname: str,
        port: int,
        aliases: Collection[str],
        authentication: Authenticate,
        roles: Roles,
        store: Store | None,
        recorder: Recorder | None,
        limits: ManagerLimits,
    ) -> None:
        self.hostname = hostname
        self.port = port
        self.name = manager_name(hostname, port)
        self.aliases = aliases
        self.authentication = authentication
        self.roles = roles
        self.limits = limits
        self.features = tuple(sorted(ALL_FEATURES))
        self.throttle = LoginThrottle()
        self.registry: Registry[ManagedPeer] = Registry(self.name, lock_lease=limits.lock_lease)
        self.outstanding: Outstanding[ManagedPeer] = Outstanding(self.name)
        self.counters = Counters()
        self.started_at = time.time()
        self.set_logging_level: Callable[[object], bool] = _set_logging_level
        """What an administrator's request of that name calls."""
        self.serves_when_recorded = False
        """Whether a peer is served only when it is on the disk that it has come, or half a second later."""
        self._store = store
        self._recorder = recorder
        self._requests = {} if store is None else table_requests(store)
        self._logins = trio.CapacityLimiter(_LOGINS_AT_ONCE)
        self._sessions: dict[PeerSession, None] = {}
        self._past_traffic = Traffic()
        self._corked: dict[PeerSession, None] = {}
        self._accepting = trio.CancelScope()

    def statistics(self) -> ManagerStatistics:
        """A look at the manager."""
        return ManagerStatistics(
            peers=tuple([session.statistics() for session in self._sessions]),
            services=tuple(self.registry.table()),
            requests=self.outstanding.statistics(),
            counters=replace(self.counters),
            traffic=self.traffic(),
        )

    def traffic(self) -> Traffic:
        """What went through all connections so far."""
        total = replace(self._past_traffic)
        for session in self._sessions:
            total.add(session)
            total.backlog += session.outbox.backlog
        return total

    @property
    def handshakes(self) -> int:
        """How many connections have not been let in yet."""
        return len([session for session in self._sessions if session.peer is None])

    def shutdown(self) -> None:
        """End as if cancelled. Returns at once."""
        self._accepting.cancel(reason="the manager was asked to shut down")

    # -- what sessions use --------------------------------------------------------------------------------

    def cork(self, session: PeerSession) -> None:
        """What a session is sent leaves with the next `uncork`."""
        if session not in self._corked:
            self._corked[session] = None
            session.outbox.cork()

    def uncork(self) -> None:
        """Send what has been collected."""
        corked, self._corked = self._corked, {}
        for session in corked:
            session.outbox.flush()

    def add(self, peer: ManagedPeer) -> None:
        """Let a peer in. Raises Refused if its name is taken."""
        self.registry.add(peer)
        self.counters.connections_accepted += 1
        _logger.info("%s is connected as a %s", peer.network_name, peer.type)

    def remove(self, peer: ManagedPeer) -> None:
        """A peer has gone: whoever waits for it is told, and nothing of it is left."""
        departure = self.registry.remove(peer)
        if not departure.was_connected:
            return
        removal = self.outstanding.remove(peer)
        if not self._is_ending:
            for unanswered in removal.unanswered:
                unanswered.requester.session.send_error(unanswered.uid, unanswered.error.message)
        for request in removal.to_cancel:
            request.service.session.tell(CANCEL_CALL, request.requester_name, request.uid)
        for released in departure.released_locks:
            self._record_released(released, "released, because a peer has gone")
        if not self._is_ending:
            for linked in departure.unlinked_peers:
                linked.session.tell_unlinked(peer.name, f"the {peer.name!r} service has disconnected")
        self.uncork()
        _logger.info("%s is disconnected", peer.network_name)

    async def as_text(self, packet: Packet, requester: str | None = None) -> bytes:
        """A packet with attachments, for a peer that takes none. A thread does it: it may take long.

        Raises:
            ValueError: the attachments are not what is said of them.
            TypeError: there is no text for them.
        """
        # In the thread, too: putting the pieces of a large packet together.
        return await trio.to_thread.run_sync(lambda: to_text(packet.line, packet.attachments, requester))

    @property
    def _is_ending(self) -> bool:
        """Whether it is the manager that goes, as its peers see for themselves. For a session that leaves."""
        return self._accepting.cancel_called or trio.current_effective_deadline() == -math.inf

    def record_connection(self, session: PeerSession, message: str) -> None:
        """Note what happened to a connection."""
        self._note(session, EventKind.CONNECTION, message)

    async def wait_connection_recorded(self) -> None:
        """Wait until it is recorded that a peer has come, if this manager wants that."""
        if self.serves_when_recorded and self._recorder is not None:
            with trio.move_on_after(_RECORD_TIMEOUT):
                await self._recorder.wait_recorded()

    async def is_registered(self, username: str) -> bool:
        """Whether there is a user of that name."""
        store = self._store
        if store is None:
            await trio.lowlevel.checkpoint()
            return False
        try:
            return await trio.to_thread.run_sync(store.users.get, username) is not None
        except StoreUnusable:
            _logger.exception("nobody can log in")
            return False

    async def verify_login(self, username: str, password: str) -> User | None:
        """The user, if the password is right."""
        store = self._store
        if store is None:
            await trio.lowlevel.checkpoint()
            return None
        try:
            login = partial(store.users.login, username, password)
            return await trio.to_thread.run_sync(login, limiter=self._logins)
        except LoginRefused:
            return None
        except StoreUnusable:
            _logger.exception("nobody can log in")
            return None

    # -- requests to the manager --------------------------------------------------------------------------

    def identity(self) -> dict[str, object]:
        """Who the manager is, and who is connected."""
        return manager_identity(
            hostname=self.hostname,
            port=self.port,
            language=f"Python {platform.python_version()}",
            os=f"{platform.system()} {platform.release()} {platform.machine()}",
            clients=self.registry.clients(),
            services=self.registry.services(),
        )

    def status(self, role: Role) -> ManagerStatus:
        """What goes on, as far as somebody of this role may know."""
        services = {}
        for row in self.registry.table():
            service = self.registry.service(row.name)
            if service is not None and role.may_watch(row.name):
                services[row.name] = ServiceStatus(
                    address=row.address,
                    links=row.links,
                    lock=row.lock,
                    holders=row.holders,
                    forwarded=self.outstanding.forwarded_to(service),
                    answered=self.outstanding.answered_by(service),
                    waiting=self.outstanding.in_flight_at(service),
                )
        return ManagerStatus(trio.current_time(), self.registry.revision, services)

    def public_request(
        self, session: PeerSession, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object:
        """Answer what everybody may ask; `NOT_PUBLIC` if it is something else.

        Raises:
            Refused: the peer may not have it.
        """
        assert session.peer is not None
        peer, registry = session.peer, self.registry
        if attribute == "identity":
            return self.identity()
        if attribute == STATUS_REQUEST:
            return self.status(session.role).answer()
        if attribute not in ("link", "unlink", "acquire_lock", "release_lock"):
            return self.NOT_PUBLIC
        name = _service_name(attribute, args, kwargs)
        if attribute == "link":
            session.role.check_link(peer, name)
            entry = registry.link(peer, name)
            self._note(session, EventKind.LINK, "linked", name)
            return entry
        if attribute == "unlink":
            unlinked = registry.unlink(peer, name)
            if unlinked.was_lock_released:
                self._note(session, EventKind.LOCK, "released by unlinking", name)
            if not unlinked.is_linked and registry.service(name) is not None:
                self._note(session, EventKind.LINK, "unlinked", name)
            return True
        if attribute == "acquire_lock":
            session.role.check_lock(peer, name)
            shared = kwargs.get("shared")
            if not isinstance(shared, bool):
                raise Refused(TypeError, f"expected true or false as 'shared', got {shared!r}")
            linked = registry.acquire_lock(peer, name, shared=shared, now=trio.current_time())
            self._note(session, EventKind.LOCK, f"acquired, {'shared' if shared else 'exclusive'}", name)
            return linked
        unlocked = registry.release_lock(peer, name)
        if unlocked.was_held:
            self._note(session, EventKind.LOCK, "released", name)
        return unlocked.holders

    async def admin_request(
        self, session: PeerSession, attribute: str, args: list[Any], kwargs: dict[str, Any]
    ) -> object:
        """Answer what only administrators may ask, and note that they did.

        Raises:
            Refused: it is not on the list of what may be asked.
            TypeError: the arguments do not fit.
            ValueError: they make no sense.
        """
        request = admin_request(attribute)
        self._note(session, EventKind.ADMIN, "requested", attribute)
        if self._recorder is not None:
            # Before it is done: nothing that an administrator does goes unrecorded.
            with trio.move_on_after(_AUDIT_TIMEOUT) as scope:
                await self._recorder.wait_recorded()
            if scope.cancelled_caught:
                raise Refused(RuntimeError, "the audit cannot be written now, so nothing was done")
        if attribute in self._requests:
            run = partial(self._requests[attribute], *args, **kwargs)
            return await trio.to_thread.run_sync(run)
        if "." in attribute:
            raise Refused(ValueError, "this manager has no database")
        if not request.is_method:
            return self._data(attribute)
        functions: dict[str, Callable[..., object]] = {
            "set_logging_level": self.set_logging_level,
            "shutdown_manager": self.shutdown,
            "force_unlock": partial(self._force_unlock, session),
        }
        return functions[attribute](*args, **kwargs)

    def _data(self, attribute: str) -> object:
        registry = self.registry
        rows = registry.table()
        values: dict[str, object] = {
            "port": self.port,
            # Whether there is one, not which.
            "password": None if self.authentication.password is None else "set",
            "login": True if self.authentication.login else None,
            "hostnames": sorted(self.authentication.hostnames) or None,
            "clients": registry.clients(),
            "services": registry.services(),
            "service_links": {row.name: list(row.links) for row in rows},
            "service_locks": {row.name: list(row.holders) for row in rows},
        }
        return values[attribute]

    def _force_unlock(self, session: PeerSession, service: str) -> list[str]:
        released = self.registry.force_unlock(service)
        for lock in released:
            why = f"taken away by {session.user or session.name}"
            self._record_released(lock, why)
            lock.holder.session.tell_lock_lost(service, f"it was {why}")
        return [lock.holder.network_name for lock in released]

    # -- the audit ----------------------------------------------------------------------------------------

    def _record_released(self, lock: ReleasedLock[ManagedPeer], message: str) -> None:
        self._note(lock.holder.session, EventKind.LOCK, message, lock.service.name)

    def _note(self, session: PeerSession, kind: EventKind, message: str, subject: str = "") -> None:
        if self._recorder is None or session.host is None:
            return
        host = session.host
        self._recorder.note(
            AuditEvent(
                time=time.time(),
                kind=kind,
                message=message,
                ip_address=host.ip,
                domain=host.domain,
                port=host.port,
                peer="" if session.peer is None else session.peer.network_name,
                user=session.user,
                subject=subject,
            )
        )

    # -- its life -----------------------------------------------------------------------------------------

    async def run(self, listeners: Listeners, task_status: trio.TaskStatus[Listeners]) -> None:
        """Accept peers until cancelled or shut down; clients are disconnected first, and then services."""
        with single_exception():
            async with trio.open_nursery() as sessions, trio.open_nursery() as watch:
                watch.start_soon(self._watch_peers)
                await serve_sessions(
                    partial(self._serve_peer, sessions),
                    listeners,
                    accepting=self._accepting,
                    sessions=sessions,
                    begin_drain=self._end_sessions,
                    logger=_logger,
                    task_status=task_status,
                )
                watch.cancel_scope.cancel(reason="the manager has ended")

    async def _watch_peers(self) -> None:
        """Ask silent peers for a sign of life, and take the locks of those who give none."""
        tick = min(self.limits.ping_interval, self.limits.lock_lease) / 2
        while True:
            due = trio.current_time() + tick
            await trio.sleep_until(due)
            now = trio.current_time()
            await self._ping_peers(now)
            if now > due + tick:
                continue  # this process was asleep: what the others have said meanwhile waits to be read
            self._expire_locks(now)

    async def _ping_peers(self, now: float) -> None:
        for number, session in enumerate(tuple(self._sessions), 1):
            session.ping(now, self.limits.ping_interval)
            if number % _PINGS_AT_ONCE == 0:
                self.uncork()
                await trio.lowlevel.checkpoint()
        self.uncork()

    def _expire_locks(self, now: float) -> None:
        for lock in self.registry.expire_locks(now):
            why = f"nothing was heard for {self.limits.lock_lease:.3g} s"
            self._record_released(lock, f"expired: {why}")
            _logger.warning("the lock of %s on %r has expired: %s", lock.holder, lock.service.name, why)
            lock.holder.session.tell_lock_lost(lock.service.name, why)
        self.uncork()

    async def _serve_peer(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> None:
        keep_alive(stream)
        take_bulk(stream)
        session = PeerSession(self, stream, nursery)
        self._sessions[session] = None
        try:
            await session.run()
        finally:
            del self._sessions[session]
            self._past_traffic.add(session)
            if session.peer is None:
                self.counters.connections_refused += session.is_rejected
                self.counters.connections_abandoned += not session.is_rejected

    def _end_sessions(self) -> None:
        ending = sorted(self._sessions, key=lambda one: one.peer is not None and one.peer.type == "service")
        for session in ending:
            session.end("the manager is shutting down")


def _service_name(attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    name = args[0] if args else kwargs.get("service")
    if not isinstance(name, str):
        raise Refused(TypeError, f"expected the name of a service as the argument of {attribute!r}")
    return name


def _set_logging_level(level: object) -> bool:
    name = level.upper() if isinstance(level, str) else level
    if isinstance(name, str) and name.isdecimal():
        name = int(name)
    try:
        logging.getLogger("armillary.network").setLevel(name)  # type: ignore[arg-type]  # says so itself
    except (TypeError, ValueError):
        _logger.error("invalid logging level %r", name)
        return False
    return True


async def serve_manager(
    port: int = DEFAULT_PORT,
    *,
    host: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    authenticate: Authenticate = Authenticate(),
    roles: Roles | None = None,
    store: Store | None = None,
    limits: ManagerLimits = ManagerLimits(),
    backlog: int | None = None,
    on_start: Callable[[Manager], object] = lambda manager: None,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a manager until cancelled, or until an administrator shuts it down.

    ``await nursery.start(serve_manager)`` returns when devices can connect.

    Args:
        port: the TCP port, 0 for a free one.
        host: the address to listen on; every interface if None.
        ssl_context: makes every connection a TLS one; `armillary.network.tls` makes such contexts.
        authenticate: who may come in.
        roles: who may link, call, serve and administrate; as in MSL-Network 1.0 if None.
        store: users, trusted hosts and the audit; without one nobody can log in and nothing is recorded.
        limits: what it takes on from one peer.
        backlog: connections that may wait to be accepted; as many as the system allows if None.
        on_start: called with the manager, before anybody can come in: for its `Manager.statistics`, and for
            `armillary.network.metrics`.
        task_status: started with the listeners.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: logins are wanted, and there is no store.

    Resource handling:
        The listeners and all connections are closed when this returns: clients first, then services. A peer
        that does not read holds that up for half a second at most. The store stays open.

    Error handling:
        Whatever a peer sends, or a broken connection, ends that peer's session at most. Its pending requests
        are answered with an error that names it.
    """
    listeners = await open_listeners(port, host=host, ssl_context=ssl_context, backlog=backlog)
    await serve_manager_on(
        listeners,
        authenticate=authenticate,
        roles=roles,
        store=store,
        limits=limits,
        on_start=on_start,
        task_status=task_status,
    )


async def serve_manager_on(
    listeners: Listeners,
    *,
    authenticate: Authenticate = Authenticate(),
    roles: Roles | None = None,
    store: Store | None = None,
    limits: ManagerLimits = ManagerLimits(),
    on_start: Callable[[Manager], object] = lambda manager: None,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve_manager`, on listeners of your own, which are closed when this returns."""
    if authenticate.login and store is None:
        raise ValueError("expected a store with users, because everybody has to log in, got none")
    # The resolver may take seconds.
    aliases = await trio.to_thread.run_sync(localhost_aliases)
    ports = bound_ports(listeners)

    async def serve(recorder: Recorder | None) -> None:
        manager = Manager(
            hostname=own_hostname(),
            port=ports[0] if ports else 0,
            aliases=aliases,
            authentication=authenticate,
            roles=Roles() if roles is None else roles,
            store=store,
            recorder=recorder,
            limits=limits,
        )
        on_start(manager)
        await manager.run(listeners, task_status)

    if store is None:
        await serve(None)
    else:
        async with open_recorder(store.audit) as recorder:
            await serve(recorder)
