"""Peers, links and locks: what is allowed, what is refused and with which words, what goes with whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from armillary.network.protocol.locks import LOCK_LEASE
from armillary.network.protocol.peers import Peer
from armillary.network.protocol.refusals import Refused
from armillary.network.protocol.registry import Departure, Registry, ReleasedLock, Unlinked, Unlocked

MANAGER = "Manager[lab7:1875]"


def client(name: str, port: int = 50_000, *features: str) -> Peer:
    return Peer("client", name, f"lab7:{port}", language="Python", os="Linux", features=frozenset(features))


def service(name: str, port: int = 60_000, max_clients: int = -1, *, links_required: bool = False) -> Peer:
    return Peer(
        "service",
        name,
        f"lab8:{port}",
        attributes={"read": "() -> float"},
        max_clients=max_clients,
        links_required=links_required,
    )


@dataclass
class Lab:
    """A registry with the service DMM and three clients."""

    registry: Registry[Peer]
    dmm: Peer
    a: Peer
    b: Peer
    c: Peer

    def link(self, *clients: Peer) -> None:
        for one in clients:
            self.registry.link(one, "DMM")

    def lock(self, one: Peer, *, shared: bool, now: float = 0.0) -> list[str]:
        return self.registry.acquire_lock(one, "DMM", shared=shared, now=now)


def open_lab(max_clients: int = -1, *, links_required: bool = False, features: tuple[str, ...] = ()) -> Lab:
    registry: Registry[Peer] = Registry(MANAGER)
    dmm = service("DMM", max_clients=max_clients, links_required=links_required)
    a, b, c = client("A", 1, *features), client("B", 2, *features), client("C", 3, *features)
    for peer in (dmm, a, b, c):
        registry.add(peer)
    return Lab(registry, dmm, a, b, c)


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(Refused) as info:
        function()
    return info.value.message


# -- peers -------------------------------------------------------------------------------------------------


def test_a_taken_service_name_is_refused_until_its_owner_has_gone() -> None:
    """A second service of a name is told that there is one; once that has gone, the name is free."""
    lab = open_lab()
    second = service("DMM", 60_001)
    expected = "NameError: A 'DMM' service is already running on the Manager"
    assert expected == refusal(lambda: lab.registry.add(second))
    assert lab.registry.peer(second.network_name) is None
    lab.registry.remove(lab.dmm)
    lab.registry.add(second)
    assert lab.registry.service("DMM") is second


def test_a_service_cannot_be_called_manager() -> None:
    """Nobody takes the name under which the manager itself is asked."""
    registry: Registry[Peer] = Registry(MANAGER)
    expected = "NameError: A 'Manager' service is already running on the Manager"
    assert expected == refusal(lambda: registry.add(service("Manager")))


def test_clients_may_share_a_name_but_no_network_name() -> None:
    """Two clients of one name differ by their addresses; the same name from the same address is refused."""
    lab = open_lab()
    lab.registry.add(client("A", 4))
    expected = "NameError: A[lab7:1] is already connected to the Manager"
    assert expected == refusal(lambda: lab.registry.add(client("A", 1)))


def test_identity_lists_peers_as_1_0_does() -> None:
    """The lists of an identity have exactly the keys and values of 1.0."""
    lab = open_lab(max_clients=0)
    lab.registry.remove(lab.b)
    lab.registry.remove(lab.c)
    assert {
        "A[lab7:1]": {"name": "A", "address": "lab7:1", "language": "Python", "os": "Linux"}
    } == lab.registry.clients()
    assert {
        "DMM": {
            "attributes": {"read": "() -> float"},
            "address": "lab8:60000",
            "language": "unknown",
            "os": "unknown",
            "max_clients": -1,
        }
    } == lab.registry.services()


def test_a_snapshot_does_not_change_and_says_when_it_is_stale() -> None:
    """What `clients` has returned stays as it was, and the revision changes when a peer comes or goes."""
    lab = open_lab()
    before, revision = lab.registry.clients(), lab.registry.revision
    lab.link(lab.a)
    assert revision == lab.registry.revision
    lab.registry.remove(lab.a)
    assert "A[lab7:1]" in before
    assert "A[lab7:1]" not in lab.registry.clients()
    assert revision != lab.registry.revision


def test_snapshots_of_many_clients_build_nothing() -> None:
    """The entry of a client is made once, and every snapshot has the very same one."""
    registry: Registry[Peer] = Registry(MANAGER)
    peers = [client("idle", port) for port in range(5_000)]
    for peer in peers:
        registry.add(peer)
    first, second = registry.clients(), registry.clients()
    assert 5_000 == len(first)
    assert all(second[name] is entry for name, entry in first.items())
    assert peers == registry.peers()


def test_a_stale_record_removes_nobody() -> None:
    """Removing twice, or with the record of an earlier peer of that name, changes nothing."""
    lab = open_lab()
    assert lab.registry.remove(lab.dmm).was_connected
    assert Departure(was_connected=False) == lab.registry.remove(lab.dmm)
    again = service("DMM")
    lab.registry.add(again)
    assert not lab.registry.remove(lab.dmm).was_connected
    assert lab.registry.service("DMM") is again


def test_a_removed_peer_can_do_nothing_more() -> None:
    """A request that is handled after its sender was removed leaves no link and no lock behind."""
    lab = open_lab()
    lab.link(lab.a)
    lab.registry.remove(lab.a)
    with pytest.raises(ValueError, match="not connected"):
        lab.link(lab.a)
    with pytest.raises(ValueError, match="not connected"):
        lab.lock(lab.a, shared=False)
    assert [] == lab.registry.linked("DMM")


# -- links -------------------------------------------------------------------------------------------------


def test_linking_answers_with_the_entry_of_the_service() -> None:
    """Who links is told the service's entry as it stands in the identity."""
    lab = open_lab(max_clients=1)
    assert lab.registry.services()["DMM"] == lab.registry.link(lab.a, "DMM")
    assert 1 == lab.registry.services()["DMM"]["max_clients"]


def test_linking_with_nothing_is_refused() -> None:
    """There is no link with a service that is not there."""
    lab = open_lab()
    expected = "KeyError: \"the 'X' service does not exist, cannot link with A[lab7:1]\""
    assert expected == refusal(lambda: lab.registry.link(lab.a, "X"))


def test_a_full_service_refuses_others_and_lets_its_own_link_again() -> None:
    """Beyond max_clients nobody links, with the names of those who do; who is linked may link again."""
    lab = open_lab(max_clients=2)
    lab.link(lab.b, lab.a)
    expected = (
        "PermissionError: The maximum number of Clients are already linked with 'DMM'\n"
        "The linked Clients are:\n  A[lab7:1]\n  B[lab7:2]"
    )
    assert expected == refusal(lambda: lab.registry.link(lab.c, "DMM"))
    lab.link(lab.a)
    lab.registry.remove(lab.b)
    lab.link(lab.c)
    assert ["A[lab7:1]", "C[lab7:3]"] == lab.registry.linked("DMM")


@pytest.mark.parametrize("shared", [False, True])
def test_a_locked_service_refuses_new_links_and_lets_its_own_link_again(shared: bool) -> None:
    """While somebody holds a lock of either kind, nobody new links, even if there is room."""
    lab = open_lab(max_clients=2)
    lab.link(lab.a)
    lab.lock(lab.a, shared=shared)
    assert "PermissionError: 'DMM' service is locked" == refusal(lambda: lab.registry.link(lab.b, "DMM"))
    lab.link(lab.a)
    lab.registry.release_lock(lab.a, "DMM")
    lab.link(lab.b)


def test_a_link_lasts_until_it_was_undone_as_often_as_it_was_made() -> None:
    """Two links of one client share one here: undoing the first leaves the other alone."""
    lab = open_lab()
    lab.link(lab.a, lab.a)
    assert Unlinked(is_linked=True, was_lock_released=False) == lab.registry.unlink(lab.a, "DMM")
    assert ["A[lab7:1]"] == lab.registry.linked("DMM")
    assert Unlinked(is_linked=False, was_lock_released=False) == lab.registry.unlink(lab.a, "DMM")
    assert [] == lab.registry.linked("DMM")


def test_unlinking_without_a_link_is_refused() -> None:
    """Who is not linked cannot unlink."""
    lab = open_lab()
    expected = "KeyError: \"cannot unlink A[lab7:1], it was not linked with 'DMM'\""
    assert expected == refusal(lambda: lab.registry.unlink(lab.a, "DMM"))


def test_unlinking_from_a_service_that_has_gone_is_fine() -> None:
    """The link ended with the service, so there is nothing to complain about."""
    lab = open_lab()
    lab.link(lab.a)
    lab.registry.remove(lab.dmm)
    assert Unlinked(is_linked=False, was_lock_released=False) == lab.registry.unlink(lab.a, "DMM")


def test_a_service_may_link_with_another_and_with_itself() -> None:
    """Services link as clients do, and go without leaving anything behind."""
    lab = open_lab()
    scope = service("Scope", 60_001)
    lab.registry.add(scope)
    lab.registry.link(scope, "DMM")
    lab.registry.link(scope, "Scope")
    lab.registry.link(lab.a, "Scope")
    departure = lab.registry.remove(scope)
    assert ("Scope[lab8:60001]", "Scope") == departure.freed_names
    assert (lab.a,) == departure.unlinked_peers
    assert (lab.dmm,) == departure.unlinked_services
    assert [] == lab.registry.linked("DMM")


# -- locks -------------------------------------------------------------------------------------------------


def test_locking_answers_with_all_who_are_linked() -> None:
    """Each linked client adds its own hold of a shared lock, and is told who is linked."""
    lab = open_lab()
    lab.link(lab.a, lab.b)
    assert ["A[lab7:1]", "B[lab7:2]"] == lab.lock(lab.a, shared=True)
    assert ["A[lab7:1]", "B[lab7:2]"] == lab.lock(lab.b, shared=True)
    assert Unlocked(["B[lab7:2]"], was_held=True) == lab.registry.release_lock(lab.a, "DMM")
    assert Unlocked(["B[lab7:2]"], was_held=False) == lab.registry.release_lock(lab.a, "DMM")
    assert Unlocked([], was_held=True) == lab.registry.release_lock(lab.b, "DMM")


def test_locking_nothing_and_unlocking_nothing_are_refused() -> None:
    """A service that is not there has no lock."""
    lab = open_lab()
    registry = lab.registry
    assert "KeyError: \"'X' service does not exist, A[lab7:1] cannot acquire a lock\"" == refusal(
        lambda: registry.acquire_lock(lab.a, "X", shared=True, now=0.0)
    )
    assert "KeyError: \"'X' service does not exist, A[lab7:1] cannot release the lock\"" == refusal(
        lambda: registry.release_lock(lab.a, "X")
    )
    assert "KeyError: \"the 'X' service does not exist, cannot release its lock\"" == refusal(
        lambda: registry.force_unlock("X")
    )


def test_locking_without_a_link_is_refused_and_unlocking_is_not() -> None:
    """Acquiring needs a link; releasing says who still holds the lock, to anybody."""
    lab = open_lab()
    expected = (
        "PermissionError: A[lab7:1] cannot acquire a lock because it is not linked with the 'DMM' service"
    )
    assert expected == refusal(lambda: lab.lock(lab.a, shared=True))
    assert Unlocked([], was_held=False) == lab.registry.release_lock(lab.a, "DMM")


def test_an_exclusive_lock_needs_to_be_alone() -> None:
    """With others linked, an exclusive lock is refused with their names, and a shared one stays as it was."""
    lab = open_lab()
    lab.link(lab.b, lab.a)
    lab.lock(lab.a, shared=True)
    expected = (
        "PermissionError: A[lab7:1] cannot acquire an exclusive lock, "
        "there are 2 links with the 'DMM' service\n"
        "The linked Clients are:\n  A[lab7:1]\n  B[lab7:2]"
    )
    assert expected == refusal(lambda: lab.lock(lab.a, shared=False))
    assert "shared" == lab.registry.table()[0].lock


def test_the_sole_linked_client_may_change_the_kind_of_its_lock() -> None:
    """Asking again succeeds with either kind, and the last one counts."""
    lab = open_lab()
    lab.link(lab.a)
    for shared, kind in [(False, "exclusive"), (False, "exclusive"), (True, "shared"), (False, "exclusive")]:
        assert ["A[lab7:1]"] == lab.lock(lab.a, shared=shared)
        row = lab.registry.table()[0]
        assert (kind, ("A[lab7:1]",)) == (row.lock, row.holders)
    assert Unlocked([], was_held=True) == lab.registry.release_lock(lab.a, "DMM")
    assert lab.registry.table()[0].lock is None


def test_unlinking_drops_the_lock() -> None:
    """The hold of a lock ends with the link, and only with the last one."""
    lab = open_lab()
    lab.link(lab.a, lab.a)
    lab.lock(lab.a, shared=False)
    assert Unlinked(is_linked=True, was_lock_released=False) == lab.registry.unlink(lab.a, "DMM")
    assert Unlinked(is_linked=False, was_lock_released=True) == lab.registry.unlink(lab.a, "DMM")
    lab.link(lab.b)


def test_a_client_that_goes_frees_everything_at_once() -> None:
    """One call ends a client's links and locks, says so, and the next client links in the same instant."""
    lab = open_lab(max_clients=1)
    lab.link(lab.a)
    lab.lock(lab.a, shared=False)
    assert Departure(
        was_connected=True,
        freed_names=("A[lab7:1]",),
        unlinked_services=(lab.dmm,),
        released_locks=(ReleasedLock(lab.dmm, lab.a, shared=False),),
    ) == lab.registry.remove(lab.a)
    lab.link(lab.b)


def test_a_service_that_goes_says_whom_it_leaves() -> None:
    """Those who were linked or held locks are told of; the same name later begins without links and locks."""
    lab = open_lab()
    lab.link(lab.a, lab.b, lab.c)
    lab.lock(lab.b, shared=True)
    lab.lock(lab.c, shared=True)
    assert Departure(
        was_connected=True,
        freed_names=("DMM[lab8:60000]", "DMM"),
        unlinked_peers=(lab.a, lab.b, lab.c),
        released_locks=(
            ReleasedLock(lab.dmm, lab.b, shared=True),
            ReleasedLock(lab.dmm, lab.c, shared=True),
        ),
    ) == lab.registry.remove(lab.dmm)
    lab.registry.add(service("DMM"))
    row = lab.registry.table()[0]
    assert ((), None, ()) == (row.links, row.lock, row.holders)


def test_a_lock_can_be_taken_by_force() -> None:
    """Forcing a lock open tells who has lost it; links stay, and new ones are possible."""
    lab = open_lab()
    lab.link(lab.a)
    lab.lock(lab.a, shared=False)
    assert [ReleasedLock(lab.dmm, lab.a, shared=False)] == lab.registry.force_unlock("DMM")
    assert [] == lab.registry.force_unlock("DMM")
    lab.link(lab.b)
    assert ["A[lab7:1]", "B[lab7:2]"] == lab.registry.linked("DMM")


# -- leases ------------------------------------------------------------------------------------------------


def test_a_lock_ends_a_lease_after_the_last_sign_of_life() -> None:
    """A holder that can be pinged and was silent for a lease loses its locks, but not its links."""
    lab = open_lab(features=("ping",))
    lab.link(lab.a)
    lab.lock(lab.a, shared=False, now=100.0)
    assert 100.0 + LOCK_LEASE == lab.registry.next_expiry()
    lab.a.last_heard = 110.0
    assert [] == lab.registry.expire_locks(100.0 + LOCK_LEASE)
    assert 110.0 + LOCK_LEASE == lab.registry.next_expiry()
    expected = [ReleasedLock(lab.dmm, lab.a, shared=False)]
    assert expected == lab.registry.expire_locks(110.0 + LOCK_LEASE)
    assert ["A[lab7:1]"] == lab.registry.linked("DMM")
    assert lab.registry.next_expiry() is None
    lab.link(lab.b)


def test_one_lease_covers_all_locks_of_a_peer() -> None:
    """Each of a silent peer's locks ends; releasing one of them leaves the other under the lease."""
    lab = open_lab(features=("ping",))
    scope = service("Scope", 60_001)
    lab.registry.add(scope)
    lab.link(lab.a)
    lab.registry.link(lab.a, "Scope")
    lab.lock(lab.a, shared=True)
    lab.lock(lab.a, shared=True)
    lab.registry.acquire_lock(lab.a, "Scope", shared=False, now=0.0)
    lab.registry.release_lock(lab.a, "DMM")
    assert LOCK_LEASE == lab.registry.next_expiry()
    lab.lock(lab.a, shared=True)
    lost = {lock.service.name for lock in lab.registry.expire_locks(LOCK_LEASE)}
    assert {"DMM", "Scope"} == lost


def test_the_next_expiry_is_that_of_whoever_was_silent_for_longest() -> None:
    """Of several who hold locks, the first to expire says when to look."""
    lab = open_lab(features=("ping",))
    lab.link(lab.a, lab.b)
    lab.lock(lab.a, shared=True, now=5.0)
    lab.lock(lab.b, shared=True, now=3.0)
    assert 3.0 + LOCK_LEASE == lab.registry.next_expiry()
    lost = lab.registry.expire_locks(3.0 + LOCK_LEASE)
    assert [ReleasedLock(lab.dmm, lab.b, shared=True)] == lost
    assert 5.0 + LOCK_LEASE == lab.registry.next_expiry()


def test_who_cannot_be_pinged_keeps_its_lock() -> None:
    """A 1.0 client says nothing for as long as it likes, and holds its lock."""
    lab = open_lab()
    lab.link(lab.a)
    lab.lock(lab.a, shared=False)
    assert lab.registry.next_expiry() is None
    assert [] == lab.registry.expire_locks(1e9)
    assert "exclusive" == lab.registry.table()[0].lock


def test_an_earlier_clock_does_not_shorten_a_lease() -> None:
    """Acquiring a lock never makes the last sign of life older."""
    lab = open_lab(features=("ping",))
    lab.link(lab.a)
    lab.a.last_heard = 50.0
    lab.lock(lab.a, shared=False, now=40.0)
    assert 50.0 + LOCK_LEASE == lab.registry.next_expiry()


def test_a_lease_has_a_length() -> None:
    """A lease of no time is refused when the registry is made."""
    with pytest.raises(ValueError, match="lease"):
        Registry(MANAGER, lock_lease=0)


# -- traffic -----------------------------------------------------------------------------------------------


def test_requests_need_no_link_as_long_as_nobody_is_disturbed() -> None:
    """LabVIEW and terminal peers ask without linking, beside those who are linked or share a lock."""
    lab = open_lab(max_clients=3)
    assert lab.dmm is lab.registry.route(lab.c, "DMM")
    lab.link(lab.a, lab.b)
    lab.lock(lab.a, shared=True)
    assert lab.dmm is lab.registry.route(lab.c, "DMM")


def test_requests_to_a_service_that_is_not_there_say_so() -> None:
    """The error names the service and the manager."""
    lab = open_lab()
    expected = "KeyError: \"the 'X' Service is not connected to Manager[lab7:1875]\""
    assert expected == refusal(lambda: lab.registry.route(lab.a, "X"))


def test_nobody_reaches_a_service_that_another_has_locked() -> None:
    """An exclusive lock keeps the requests of all others away."""
    lab = open_lab()
    lab.link(lab.a)
    lab.lock(lab.a, shared=False)
    assert lab.dmm is lab.registry.route(lab.a, "DMM")
    expected = "PermissionError: 'DMM' service is locked exclusively by A[lab7:1]"
    assert expected == refusal(lambda: lab.registry.route(lab.b, "DMM"))


def test_nobody_reaches_a_full_service_without_a_link() -> None:
    """A service with as many links as it takes answers only those."""
    lab = open_lab(max_clients=1)
    lab.link(lab.a)
    assert lab.dmm is lab.registry.route(lab.a, "DMM")
    expected = (
        "PermissionError: The maximum number of Clients are already linked with 'DMM'\n"
        "The linked Clients are:\n  A[lab7:1]"
    )
    assert expected == refusal(lambda: lab.registry.route(lab.b, "DMM"))


def test_a_service_can_insist_on_links() -> None:
    """A service that requires links answers nobody else."""
    lab = open_lab(links_required=True)
    expected = "PermissionError: A[lab7:1] must be linked with the 'DMM' service to send it requests"
    assert expected == refusal(lambda: lab.registry.route(lab.a, "DMM"))
    lab.link(lab.a)
    assert lab.dmm is lab.registry.route(lab.a, "DMM")


def test_notifications_go_to_those_who_are_linked_now() -> None:
    """The audience changes with links, and what was handed out does not change."""
    lab = open_lab()
    assert () == lab.registry.audience(lab.dmm, "DMM")
    lab.link(lab.a, lab.b)
    before = lab.registry.audience(lab.dmm, "DMM")
    assert (lab.a, lab.b) == before
    assert lab.registry.audience(lab.dmm, "DMM") is before
    lab.registry.remove(lab.a)
    assert (lab.a, lab.b) == before
    assert (lab.b,) == lab.registry.audience(lab.dmm, "DMM")


def test_nobody_notifies_in_the_name_of_another() -> None:
    """A notification comes from the service that it names, or it is refused."""
    lab = open_lab()
    scope = service("Scope", 60_001)
    lab.registry.add(scope)
    lab.link(lab.a)
    for forger in (scope, lab.b):
        expected = f"PermissionError: {forger} cannot send notifications of the 'DMM' service"
        assert expected == refusal(lambda forger=forger: lab.registry.audience(forger, "DMM"))
    expected = "PermissionError: DMM[lab8:60000] cannot send notifications of the 'X' service"
    assert expected == refusal(lambda: lab.registry.audience(lab.dmm, "X"))


def test_the_table_shows_links_and_locks() -> None:
    """What people are shown has every service with its links, in order, and its lock."""
    lab = open_lab(max_clients=0)
    lab.link(lab.b, lab.a)
    lab.lock(lab.a, shared=True)
    (row,) = lab.registry.table()
    assert ("DMM", "DMM[lab8:60000]", "lab8:60000") == (row.name, row.network_name, row.address)
    assert (-1, "unknown", "unknown") == (row.max_clients, row.language, row.os)
    assert (("B[lab7:2]", "A[lab7:1]"), "shared", ("A[lab7:1]",)) == (row.links, row.lock, row.holders)
