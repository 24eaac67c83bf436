"""The registry beside a naive model of it: anything in any order, and its invariants after every step.

The model has a few plain collections and looks everything up by going through them. The numbers of the checks
are those of the invariants in `armillary.network.protocol.registry`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from armillary.network.protocol.peers import Peer
from armillary.network.protocol.refusals import Refused
from armillary.network.protocol.registry import Registry

LEASE = 10.0
NAMES = ("DMM", "Scope")
names = st.sampled_from(NAMES)
# Mostly those who are there, and sometimes one who is not any more.
peers = st.runner().flatmap(lambda machine: st.sampled_from(machine.present + machine.gone[-1:]))


class Registries(RuleBasedStateMachine):
    """Peers come, go, link and lock."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[Peer] = Registry("Manager[lab7:1875]", lock_lease=LEASE)
        self.now = 0.0
        self.present: list[Peer] = []
        self.gone: list[Peer] = []
        self.links: Counter[tuple[Peer, Peer]] = Counter()
        """(peer, service): how often it was linked."""
        self.locks: dict[tuple[Peer, Peer], bool] = {}
        """(peer, service): whether the lock is shared."""

    # -- the model -----------------------------------------------------------------------------------------

    def service(self, name: str) -> Peer | None:
        return next((peer for peer in self.present if peer.type == "service" and peer.name == name), None)

    def linked(self, service: Peer) -> list[Peer]:
        return [peer for (peer, other), count in self.links.items() if other is service and count]

    def holders(self, service: Peer) -> list[Peer]:
        return [peer for peer, other in self.locks if other is service]

    def is_full(self, service: Peer) -> bool:
        return 0 < service.max_clients <= len(self.linked(service))

    def forget(self, peer: Peer, service: Peer) -> None:
        del self.links[peer, service]
        self.locks.pop((peer, service), None)

    def everything(self) -> Any:
        """What anybody can see of the registry."""
        registry = self.registry
        seen = (registry.clients(), registry.services(), registry.table(), registry.next_expiry())
        return (*seen, registry.revision, registry.peers())

    def expect(self, allowed: bool, function: Callable[[], Any]) -> Any:
        """9: do it; if it is not allowed, check that it is refused and that this changes nothing."""
        if allowed:
            return function()
        before = self.everything()
        with pytest.raises(Refused):
            function()
        assert before == self.everything()
        return None

    # -- what happens --------------------------------------------------------------------------------------

    @initialize(
        max_clients=st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
        can_be_pinged=st.lists(st.booleans(), min_size=3, max_size=3),
    )
    def begin(self, max_clients: tuple[int, int], can_be_pinged: list[bool]) -> None:
        for port, (name, limit) in enumerate(zip(NAMES, max_clients, strict=True), 1):
            self.come("service", name, port, limit, False, False)
        for port, pinged in enumerate(can_be_pinged, 1):
            self.come("client", "C", port, -1, False, pinged)

    @rule(
        kind=st.sampled_from(["client", "service"]),
        name=st.sampled_from([*NAMES, "Manager", "C"]),
        port=st.integers(1, 4),
        max_clients=st.integers(-1, 2),
        links_required=st.booleans(),
        can_be_pinged=st.booleans(),
    )
    def come(
        self, kind: Any, name: str, port: int, max_clients: int, links_required: bool, can_be_pinged: bool
    ) -> None:
        peer = Peer(
            kind,
            name,
            f"lab7:{port}",
            max_clients=max_clients,
            links_required=links_required,
            features=frozenset({"ping"} if can_be_pinged else ()),
            last_heard=self.now,
        )
        allowed = all(other.network_name != peer.network_name for other in self.present)
        if kind == "service":
            allowed = allowed and self.service(name) is None and name != "Manager"
        self.expect(allowed, lambda: self.registry.add(peer))
        if allowed:
            self.present.append(peer)

    @rule(peer=peers)
    def go(self, peer: Peer) -> None:
        departure = self.registry.remove(peer)
        if peer not in self.present:
            assert not departure.was_connected
            assert departure == type(departure)(was_connected=False)
            return
        ended = [pair for pair in self.links if peer in pair]
        released = {pair for pair in self.locks if peer in pair}
        assert departure.was_connected
        assert {peer.network_name} | ({peer.name} if peer.type == "service" else set()) == set(
            departure.freed_names
        )
        assert [other for other, service in ended if service is peer and other is not peer] == list(
            departure.unlinked_peers
        )
        assert {service for other, service in ended if other is peer and service is not peer} == set(
            departure.unlinked_services
        )
        assert released == {(lock.holder, lock.service) for lock in departure.released_locks}
        assert all(self.locks[lock.holder, lock.service] is lock.shared for lock in departure.released_locks)
        self.present.remove(peer)
        self.gone.append(peer)
        for pair in ended:
            self.forget(*pair)

    @rule(peer=peers, name=names)
    def link(self, peer: Peer, name: str) -> None:
        if peer not in self.present:
            return
        service = self.service(name)
        allowed = service is not None and (
            bool(self.links[peer, service]) or (not self.holders(service) and not self.is_full(service))
        )
        entry = self.expect(allowed, lambda: self.registry.link(peer, name))
        if allowed and service is not None:
            assert service.entry() == entry
            self.links[peer, service] += 1
        self.links += Counter()  # looking up a count has not made a link

    @rule(peer=peers, name=names)
    def unlink(self, peer: Peer, name: str) -> None:
        service = self.service(name)
        allowed = service is None or bool(self.links.get((peer, service)))
        result = self.expect(allowed, lambda: self.registry.unlink(peer, name))
        if service is not None and allowed:
            self.links[peer, service] -= 1
            assert bool(self.links[peer, service]) is result.is_linked
            if not result.is_linked:
                assert ((peer, service) in self.locks) is result.was_lock_released
                self.forget(peer, service)

    @rule(peer=peers, name=names, shared=st.booleans())
    def acquire(self, peer: Peer, name: str, shared: bool) -> None:
        if peer not in self.present:
            return
        service = self.service(name)
        linked = [] if service is None else self.linked(service)
        allowed = peer in linked and (shared or len(linked) == 1)
        result = self.expect(
            allowed, lambda: self.registry.acquire_lock(peer, name, shared=shared, now=self.now)
        )
        if allowed and service is not None:
            assert [other.network_name for other in linked] == result
            self.locks[peer, service] = shared

    @rule(peer=peers, name=names, shared=st.booleans())
    def link_and_acquire(self, peer: Peer, name: str, shared: bool) -> None:
        self.link(peer, name)
        self.acquire(peer, name, shared)

    @rule(peer=peers, name=names)
    def release(self, peer: Peer, name: str) -> None:
        service = self.service(name)
        result = self.expect(service is not None, lambda: self.registry.release_lock(peer, name))
        if service is not None:
            assert (self.locks.pop((peer, service), None) is not None) is result.was_held
            assert {other.network_name for other in self.holders(service)} == set(result.holders)

    @rule(name=names)
    def force(self, name: str) -> None:
        service = self.service(name)
        result = self.expect(service is not None, lambda: self.registry.force_unlock(name))
        if service is not None:
            assert [lock.holder for lock in result] == self.holders(service)
            for lock in result:
                del self.locks[lock.holder, service]

    @rule(peer=peers)
    def hear(self, peer: Peer) -> None:
        peer.last_heard = self.now

    @rule(seconds=st.floats(0.1, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.registry.next_expiry() is not None)
    @rule()
    def wait_for_the_next_expiry(self) -> None:
        expiry = self.registry.next_expiry()
        assert expiry is not None
        self.now = max(self.now, expiry)
        assert self.expire()

    @rule()
    def check_leases(self) -> None:
        self.expire()

    def expire(self) -> bool:
        """Let locks expire; return whether one did."""
        expected = {
            pair: shared
            for pair, shared in self.locks.items()
            if "ping" in pair[0].features and pair[0].last_heard + LEASE <= self.now
        }
        released = self.registry.expire_locks(self.now)
        assert expected == {(lock.holder, lock.service): lock.shared for lock in released}
        for pair in expected:
            del self.locks[pair]
        # 8: nobody who holds a lock under a lease was silent for as long as that.
        assert all(self.now - peer.last_heard < LEASE for peer in self.leased())
        return bool(released)

    def leased(self) -> set[Peer]:
        return {peer for peer, _ in self.locks if "ping" in peer.features}

    # -- what is true afterwards ---------------------------------------------------------------------------

    @invariant()
    def names_are_unique(self) -> None:
        """1."""
        assert self.present == self.registry.peers()
        network_names = [peer.network_name for peer in self.present]
        assert len(network_names) == len(set(network_names))
        services = [peer.name for peer in self.present if peer.type == "service"]
        assert services == list(self.registry.services())
        assert len(services) == len(set(services))
        assert "Manager" not in services
        assert all(self.registry.peer(peer.network_name) is peer for peer in self.present)
        assert all(self.registry.service(name) is self.service(name) for name in NAMES)

    @invariant()
    def links_are_those_of_the_model(self) -> None:
        """2 and 3: nothing but those links, known at both ends, and as often as they were asked for."""
        registry = self.registry
        counts = {
            (peer, service.peer): count
            for service in registry._services.values()
            for peer, count in service.links.items()
        }
        assert {pair: count for pair, count in self.links.items() if count} == counts
        assert {peer for pair in counts for peer in pair} <= set(self.present)
        assert {
            (peer, service.peer) for peer, services in registry._linked_with.items() for service in services
        } == set(counts)
        for row in self.registry.table():
            service = self.service(row.name)
            assert service is not None
            linked = [peer.network_name for peer in self.linked(service)]
            assert linked == list(row.links) == self.registry.linked(row.name)
            assert linked == [peer.network_name for peer in self.registry.audience(service, row.name)]
            assert row.max_clients == (service.max_clients if service.max_clients > 0 else -1)
            assert service.max_clients <= 0 or len(linked) <= service.max_clients

    @invariant()
    def locks_are_those_of_the_model(self) -> None:
        """4 and 5."""
        for row in self.registry.table():
            service = self.service(row.name)
            assert service is not None
            holders = self.holders(service)
            assert {peer.network_name for peer in holders} == set(row.holders)
            assert set(row.holders) <= set(row.links)
            kinds = {self.locks[peer, service] for peer in holders}
            assert {None: set(), "exclusive": {False}, "shared": {True}}[row.lock] == kinds
            if row.lock == "exclusive":
                assert 1 == len(row.holders) == len(row.links)

    @invariant()
    def nobody_becomes_linked_while_it_is_locked(self) -> None:
        """6: to ask is enough, since a refusal changes nothing, and those who are linked are not asked."""
        stranger = Peer("client", "stranger", "elsewhere:1")
        self.registry.add(stranger)
        try:
            for row in self.registry.table():
                service = self.service(row.name)
                assert service is not None
                if row.lock is not None or self.is_full(service):
                    self.expect(False, lambda name=row.name: self.registry.link(stranger, name))
        finally:
            assert self.registry.remove(stranger).was_connected

    @invariant()
    def requests_reach_whom_they_may(self) -> None:
        """7."""
        for name in NAMES:
            service = self.service(name)
            for peer in self.present:
                allowed = service is not None and (
                    peer in self.linked(service)
                    or not (
                        service.links_required
                        or self.is_full(service)
                        or False in {self.locks[other, service] for other in self.holders(service)}
                    )
                )
                assert self.expect(allowed, lambda peer=peer, name=name: self.registry.route(peer, name)) is (
                    service if allowed else None
                )

    @invariant()
    def leases_run_for_those_who_hold_locks(self) -> None:
        """8: for them and nobody else, until the last of their locks is released."""
        held = Counter(peer for peer, _ in self.locks if "ping" in peer.features)
        assert held == self.registry._leases._locks
        expected = min((peer.last_heard + LEASE for peer in self.leased()), default=None)
        assert expected == self.registry.next_expiry()

    @invariant()
    def nothing_is_left_of_who_has_gone(self) -> None:
        """10: no name, no link, no lock, no lease, wherever the registry keeps anything."""
        registry = self.registry
        kept = {
            *registry._peers.values(),
            *registry._linked_with,
            *registry._leases._locks,
            *(service.peer for service in registry._services.values()),
            *(service.peer for linked in registry._linked_with.values() for service in linked),
            *(peer for service in registry._services.values() for peer in service.links),
            *(peer for service in registry._services.values() for peer in service.lock),
            *(peer for service in registry._services.values() for peer in service.audience or ()),
        }
        assert kept <= set(self.present)
        assert all(registry._linked_with.values())
        clients = {peer.network_name for peer in self.present if peer.type == "client"}
        assert clients == set(registry.clients())


TestRegistries = Registries.TestCase
# Several peers must be linked, hold locks and be silent before some mistakes would show.
TestRegistries.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
