"""Who is connected to a manager, who is linked with which service, and who holds which lock.

Invariants, which the tests check after every step:

1. No two connected peers have the same network name, no two services the same name, and no service is called
   ``Manager``.
2. A link joins a connected peer with a connected service, both ends know of it, and it counts how often that
   peer has asked for it.
3. A service never has more linked peers than its ``max_clients``, if that is positive.
4. Whoever holds a lock of a service is linked with it.
5. An exclusive lock has one holder, and no other peer is linked with that service.
6. Nobody becomes linked with a service while it is locked.
7. Whoever is not linked with a service can send it requests only while it is not locked exclusively, is not
   full, and does not require links.
8. A lease runs for exactly those who hold a lock and can be pinged. Once leases have been checked, none of
   them was silent for as long as a lease.
9. What is refused changes nothing.
10. Of a peer that was removed nothing is left: no name, no link, no lock, no lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from .identities import MANAGER, service_is_running
from .locks import LOCK_LEASE, Leases, ServiceLock
from .peers import Peer
from .refusals import Refused

__all__ = ["Departure", "Registry", "ReleasedLock", "ServiceRow", "Unlinked", "Unlocked"]

P = TypeVar("P", bound=Peer)


class ReleasedLock(NamedTuple, Generic[P]):
    """A lock that somebody lost without asking for it."""

    service: P
    holder: P
    shared: bool


class Unlinked(NamedTuple):
    """What ``unlink`` has done."""

    is_linked: bool
    """Whether the peer is linked still, because it has asked for the link more often."""
    was_lock_released: bool
    """Whether it held the lock and has lost it."""


class Unlocked(NamedTuple):
    """What ``release_lock`` has done."""

    holders: list[str]
    """Network names of those who hold the lock still."""
    was_held: bool
    """Whether the peer held it."""


class Departure(NamedTuple, Generic[P]):
    """What else ended when a peer went."""

    was_connected: bool
    """False if the peer was not there, or not any more; nothing has changed then."""
    freed_names: tuple[str, ...] = ()
    """Its network name, and the name of a service: both can be taken again."""
    unlinked_peers: tuple[P, ...] = ()
    """Who was linked with this service."""
    unlinked_services: tuple[P, ...] = ()
    """What this peer was linked with."""
    released_locks: tuple[ReleasedLock[P], ...] = ()
    """Locks that it held, and those that were held on it."""


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service, its links and its lock, as people are shown them."""

    name: str
    network_name: str
    address: str
    language: str
    os: str
    max_clients: int
    links: tuple[str, ...]
    lock: str | None
    """``exclusive``, ``shared`` or None."""
    holders: tuple[str, ...]


class _Service(Generic[P]):
    """What the registry knows of one service besides its record."""

    __slots__ = ("audience", "links", "lock", "peer")

    def __init__(self, peer: P) -> None:
        self.peer = peer
        self.links: dict[P, int] = {}
        self.lock: ServiceLock[P] = ServiceLock()
        self.audience: tuple[P, ...] | None = ()

    @property
    def is_full(self) -> bool:
        return 0 < self.peer.max_clients <= len(self.links)

    def full(self) -> Refused:
        return Refused(
            PermissionError,
            f"The maximum number of Clients are already linked with {self.peer.name!r}{self.linked_text()}",
        )

    def linked_text(self) -> str:
        names = sorted(_names(self.links))
        return "\n  ".join(["\nThe linked Clients are:", *names])


class Registry(Generic[P]):
    """The peers of one manager, their links and their locks.

    Every method takes effect at once and as a whole; none of them waits. Peers are `P`, records that the
    program makes and hands in with `add`.

    Args:
        manager_name: ``Manager[HOST:PORT]``, for error texts.
        lock_lease: seconds of silence after which `expire_locks` takes the locks from who can be pinged.
    """

    def __init__(self, manager_name: str, *, lock_lease: float = LOCK_LEASE) -> None:
        self._manager_name = manager_name
        self._peers: dict[str, P] = {}
        self._services: dict[str, _Service[P]] = {}
        # Only of those who are linked with something: most of five thousand idle clients are not.
        self._linked_with: dict[P, dict[_Service[P], None]] = {}
        self._leases: Leases[P] = Leases(lock_lease)
        # Both are what an identity answers with; kept, so that asking for it copies and builds nothing.
        self._client_entries: dict[str, Mapping[str, object]] = {}
        self._service_entries: dict[str, Mapping[str, object]] = {}
        self.revision = 0
        """Changes whenever a peer comes or goes: what was made of `clients` and `services` is stale then."""

    # -- peers ---------------------------------------------------------------------------------------------

    def add(self, peer: P) -> None:
        """Let a peer in.

        Raises:
            Refused: its name, or its network name, belongs to somebody else.
        """
        # Requests to that name go to the manager itself, so such a service could never be asked anything.
        if peer.type == "service" and (peer.name in self._services or peer.name == MANAGER):
            raise Refused.of(service_is_running(peer.name))
        if peer.network_name in self._peers:
            raise Refused(NameError, f"{peer.network_name} is already connected to the Manager")
        self._peers[peer.network_name] = peer
        if peer.type == "service":
            self._services[peer.name] = _Service(peer)
            self._service_entries[peer.name] = peer.entry()
        else:
            self._client_entries[peer.network_name] = peer.entry()
        self.revision += 1

    def remove(self, peer: P) -> Departure[P]:
        """Let a peer go, with its names, links and locks; of a service, also those that others have with it.

        Removing a peer that is not there, or a record whose name belongs to another by now, does nothing.
        """
        if self._peers.get(peer.network_name) is not peer:
            return Departure(was_connected=False)
        released: list[ReleasedLock[P]] = []
        left = self._linked_with.pop(peer, {})
        for service in left:
            released += self._drop_link(service, peer)
        del self._peers[peer.network_name]
        freed = [peer.network_name]
        linked: tuple[P, ...] = ()
        if peer.type == "service":
            service = self._services.pop(peer.name)
            del self._service_entries[peer.name]
            freed.append(peer.name)
            linked = tuple(service.links)
            for other in linked:
                released += self._drop_link(service, other)
                self._forget_link(other, service)
        else:
            del self._client_entries[peer.network_name]
        self.revision += 1
        return Departure(
            was_connected=True,
            freed_names=tuple(freed),
            unlinked_peers=linked,
            unlinked_services=tuple(service.peer for service in left if service.peer is not peer),
            released_locks=tuple(released),
        )

    def peer(self, network_name: str) -> P | None:
        """Who has this network name."""
        return self._peers.get(network_name)

    def service(self, name: str) -> P | None:
        """The service of this name."""
        service = self._services.get(name)
        return None if service is None else service.peer

    def peers(self) -> list[P]:
        """Everybody, in the order in which they came."""
        return list(self._peers.values())

    def clients(self) -> dict[str, Mapping[str, object]]:
        """Clients by network name, as in the manager's identity. A copy, whose values must not be changed."""
        return dict(self._client_entries)

    def services(self) -> dict[str, Mapping[str, object]]:
        """Services by name, as in the manager's identity. A copy, whose values must not be changed."""
        return dict(self._service_entries)

    def table(self) -> list[ServiceRow]:
        """Every service with its links and its lock, in the order in which the services came."""
        return [
            ServiceRow(
                name=service.peer.name,
                network_name=service.peer.network_name,
                address=service.peer.address,
                language=service.peer.language,
                os=service.peer.os,
                max_clients=service.peer.max_clients if service.peer.max_clients > 0 else -1,
                links=tuple(_names(service.links)),
                lock=service.lock.kind,
                holders=tuple(_names(service.lock)),
            )
            for service in self._services.values()
        ]

    # -- links ---------------------------------------------------------------------------------------------

    def link(self, peer: P, name: str) -> Mapping[str, object]:
        """Link a peer with a service, once more if it is linked already. Return the service's entry.

        Raises:
            Refused: there is no such service, or it is locked or full and the peer is not linked yet.
        """
        self._check_connected(peer)
        service = self._services.get(name)
        if service is None:
            raise Refused(
                KeyError, f"the {name!r} service does not exist, cannot link with {peer.network_name}"
            )
        if peer not in service.links:
            if service.lock:
                raise Refused(PermissionError, f"{name!r} service is locked")
            if service.is_full:
                raise service.full()
            service.audience = None
            self._linked_with.setdefault(peer, {})[service] = None
        service.links[peer] = service.links.get(peer, 0) + 1
        return self._service_entries[name]

    def unlink(self, peer: P, name: str) -> Unlinked:
        """Undo one `link`. The last one ends the link, and with it the peer's hold of the lock.

        Fine for a service that does not exist any more: its links went with it.

        Raises:
            Refused: the peer is not linked with that service.
        """
        service = self._services.get(name)
        if service is None:
            return Unlinked(is_linked=False, was_lock_released=False)
        count = service.links.get(peer, 0)
        if not count:
            raise Refused(KeyError, f"cannot unlink {peer.network_name}, it was not linked with {name!r}")
        if count > 1:
            service.links[peer] = count - 1
            return Unlinked(is_linked=True, was_lock_released=False)
        released = self._drop_link(service, peer)
        self._forget_link(peer, service)
        return Unlinked(is_linked=False, was_lock_released=bool(released))

    def linked(self, name: str) -> list[str]:
        """Network names of those who are linked with a service, the first one first. None of no service."""
        service = self._services.get(name)
        return [] if service is None else _names(service.links)

    # -- locks ---------------------------------------------------------------------------------------------

    def acquire_lock(self, peer: P, name: str, *, shared: bool, now: float) -> list[str]:
        """Let a linked peer hold a service's lock; if it does so already, change the lock's kind.

        Args:
            peer: who asks.
            name: of the service.
            shared: whether the others who are linked may hold it as well.
            now: the manager's clock; asking is a sign of life.

        Returns:
            The network names of all who are linked with the service.

        Raises:
            Refused: there is no such service, the peer is not linked with it, or it wants for itself alone
                what others are linked with.
        """
        self._check_connected(peer)
        service = self._services.get(name)
        if service is None:
            raise Refused(
                KeyError, f"{name!r} service does not exist, {peer.network_name} cannot acquire a lock"
            )
        if peer not in service.links:
            raise Refused(
                PermissionError,
                f"{peer.network_name} cannot acquire a lock because it is not linked with the {name!r} "
                "service",
            )
        if not shared and len(service.links) > 1:
            raise Refused(
                PermissionError,
                f"{peer.network_name} cannot acquire an exclusive lock, there are {len(service.links)} links "
                f"with the {name!r} service{service.linked_text()}",
            )
        peer.last_heard = max(peer.last_heard, now)
        if peer not in service.lock:
            self._leases.held(peer)
        service.lock.hold(peer, shared=shared)
        return _names(service.links)

    def release_lock(self, peer: P, name: str) -> Unlocked:
        """End a peer's hold of a service's lock, if it has one.

        Raises:
            Refused: there is no such service.
        """
        service = self._services.get(name)
        if service is None:
            raise Refused(
                KeyError, f"{name!r} service does not exist, {peer.network_name} cannot release the lock"
            )
        released = self._release(service, [peer])
        return Unlocked(_names(service.lock), was_held=bool(released))

    def force_unlock(self, name: str) -> list[ReleasedLock[P]]:
        """Take a service's lock from whoever holds it; links stay. Whether one may do so is not checked here.

        Raises:
            Refused: there is no such service.
        """
        service = self._services.get(name)
        if service is None:
            raise Refused(KeyError, f"the {name!r} service does not exist, cannot release its lock")
        return self._release(service, list(service.lock))

    def next_expiry(self) -> float | None:
        """When to ask `expire_locks`, if nothing is heard until then; None if no lock is under a lease.

        It can only become later by signs of life, and earlier by `acquire_lock`.
        """
        return self._leases.next_expiry()

    def expire_locks(self, now: float) -> list[ReleasedLock[P]]:
        """Take the locks from those who can be pinged and were silent for a lease. Their links stay."""
        released = []
        for peer in self._leases.expired(now):
            for service in self._linked_with[peer]:
                released += self._release(service, [peer])
        return released

    # -- traffic -------------------------------------------------------------------------------------------

    def route(self, requester: P, name: str) -> P:
        """The service that a request goes to.

        Whoever is linked may always ask, since nobody else is linked with what is locked exclusively. Others
        may as well, as LabVIEW and people at a terminal do, unless somebody would be disturbed.

        Raises:
            Refused: there is no such service, or the requester would have to be linked with it.
        """
        service = self._services.get(name)
        if service is None:
            raise Refused(KeyError, f"the {name!r} Service is not connected to {self._manager_name}")
        if requester not in service.links:
            if service.lock and not service.lock.is_shared:
                holder = next(iter(service.lock))
                raise Refused(
                    PermissionError, f"{name!r} service is locked exclusively by {holder.network_name}"
                )
            if service.is_full:
                raise service.full()
            if service.peer.links_required:
                raise Refused(
                    PermissionError,
                    f"{requester.network_name} must be linked with the {name!r} service to send it requests",
                )
        return service.peer

    def audience(self, sender: P, name: str) -> tuple[P, ...]:
        """Who gets a notification.

        Args:
            sender: from whom the notification came.
            name: the service that it claims to be of.

        Raises:
            Refused: the sender is another.
        """
        service = self._services.get(name)
        if service is None or service.peer is not sender:
            raise Refused(
                PermissionError, f"{sender.network_name} cannot send notifications of the {name!r} service"
            )
        if service.audience is None:
            # Made when links have changed rather than for every notification; never changes while sending.
            service.audience = tuple(service.links)
        return service.audience

    # -- inside --------------------------------------------------------------------------------------------

    def _check_connected(self, peer: P) -> None:
        if self._peers.get(peer.network_name) is not peer:
            raise ValueError(f"{peer.network_name} is not connected")

    def _drop_link(self, service: _Service[P], peer: P) -> list[ReleasedLock[P]]:
        del service.links[peer]
        service.audience = None
        return self._release(service, [peer])

    def _forget_link(self, peer: P, service: _Service[P]) -> None:
        linked_with = self._linked_with[peer]
        del linked_with[service]
        if not linked_with:
            del self._linked_with[peer]

    def _release(self, service: _Service[P], peers: Iterable[P]) -> list[ReleasedLock[P]]:
        released = []
        shared = service.lock.is_shared
        for peer in peers:
            if service.lock.release(peer):
                self._leases.released(peer)
                released.append(ReleasedLock(service.peer, peer, shared))
        return released


def _names(peers: Iterable[P]) -> list[str]:
    return [peer.network_name for peer in peers]
