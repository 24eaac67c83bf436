from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary.katcp.limits import Limits, PendingStatistics, Turnstile
from armillary.testing import DemoDevice, serve_in_memory


def waiter(turnstile: Turnstile, name: str, log: list[str], *, enters: bool) -> Callable[[], Awaitable[None]]:
    """A client that waits for its turn and then enters, or answers at once without entering."""

    async def wait() -> None:
        await turnstile.wait_room()
        assert not turnstile.is_full
        log.append(name)
        if enters:
            turnstile.enter()

    return wait


async def queue(
    nursery: trio.Nursery, turnstile: Turnstile, names: str, log: list[str], *, enters: bool = True
) -> None:
    """Clients come one after the other and wait."""
    for name in names:
        nursery.start_soon(waiter(turnstile, name, log, enters=enters))
        await trio.testing.wait_all_tasks_blocked()


def test_it_is_full_at_its_limit_and_above() -> None:
    """Entering and leaving are counted; what cannot wait may enter beyond the limit."""
    turnstile = Turnstile(2)
    assert [False, False, True, True] == [turnstile.is_full, *(entered(turnstile) for _ in range(3))]
    assert PendingStatistics(running=3, waiting=0, limit=2) == turnstile.statistics()
    assert [True, False, False] == [left(turnstile) for _ in range(3)]
    assert PendingStatistics(running=0, waiting=0, limit=2) == turnstile.statistics()


def entered(turnstile: Turnstile) -> bool:
    turnstile.enter()
    return turnstile.is_full


def left(turnstile: Turnstile) -> bool:
    turnstile.leave()
    return turnstile.is_full


async def test_first_come_first_served() -> None:
    """Each that leaves lets one in: the one that has waited longest."""
    turnstile = Turnstile(2)
    turnstile.enter()
    turnstile.enter()
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        await queue(nursery, turnstile, "abcd", log)
        assert PendingStatistics(running=2, waiting=4, limit=2) == turnstile.statistics()
        for expected in ("a", "ab", "abc", "abcd"):
            turnstile.leave()
            await trio.testing.wait_all_tasks_blocked()
            assert expected == "".join(log)
    assert PendingStatistics(running=2, waiting=0, limit=2) == turnstile.statistics()


async def test_several_that_leave_at_once_let_as_many_in() -> None:
    """Room for three lets the three in that came first, in order."""
    turnstile = Turnstile(3)
    log: list[str] = []
    for _ in range(3):
        turnstile.enter()
    async with trio.open_nursery() as nursery:
        await queue(nursery, turnstile, "abcd", log)
        for _ in range(3):
            turnstile.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ["a", "b", "c"] == log
        turnstile.leave()


async def test_one_that_does_not_enter_lets_the_next_one_through() -> None:
    """A client whose turn comes and whose handler does not wait takes no room from those behind it."""
    turnstile = Turnstile(1)
    turnstile.enter()
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        await queue(nursery, turnstile, "abc", log, enters=False)
        await queue(nursery, turnstile, "de", log)
        turnstile.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ["a", "b", "c", "d"] == log
        turnstile.leave()
    assert ["a", "b", "c", "d", "e"] == log


async def test_one_that_did_not_queue_and_was_quicker_costs_nobody_the_place() -> None:
    """Who is woken and finds no room waits on, and is still the first."""
    turnstile = Turnstile(1)
    turnstile.enter()
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        await queue(nursery, turnstile, "ab", log)
        turnstile.leave()
        turnstile.enter()
        await trio.testing.wait_all_tasks_blocked()
        assert [] == log
        turnstile.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ["a"] == log
        turnstile.leave()
    assert ["a", "b"] == log


async def test_waiting_where_there_is_room_does_not_block() -> None:
    """Who waits although nobody runs goes through, after a checkpoint."""
    turnstile = Turnstile(1)
    with trio.testing.assert_checkpoints():
        await turnstile.wait_room()
    assert PendingStatistics(running=0, waiting=0, limit=1) == turnstile.statistics()


@pytest.mark.parametrize("leave_first", [False, True])
async def test_one_that_is_cancelled_passes_its_turn_on(leave_first: bool) -> None:
    """A client that goes while it waits, even in the moment when its turn comes, holds up nobody."""
    turnstile = Turnstile(1)
    turnstile.enter()
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as leaving:
                await queue(leaving, turnstile, "a", log, enters=False)
                await queue(nursery, turnstile, "b", log)
                if leave_first:
                    turnstile.leave()
                scope.cancel()
                if not leave_first:
                    turnstile.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ["b"] == log[-1:]
    assert PendingStatistics(running=1, waiting=0, limit=1) == turnstile.statistics()


async def test_waiting_cancelled_anywhere_leaves_nobody_in_the_queue(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """Wherever a client is cancelled, the counts are right afterwards and the next one gets through."""
    turnstile = Turnstile(1)

    async def client() -> None:
        while turnstile.is_full:
            await turnstile.wait_room()
        turnstile.enter()
        try:
            await trio.lowlevel.checkpoint()
        finally:
            turnstile.leave()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client)

    async def after() -> None:
        assert PendingStatistics(running=0, waiting=0, limit=1) == turnstile.statistics()
        with trio.fail_after(1):
            await client()

    assert await cancel_everywhere(scenario, after=after) >= 6


async def test_clients_of_a_full_device_all_get_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    """When the one running handler ends, every client that waits is answered, suspending or not."""
    async with (
        serve_in_memory(DemoDevice(), max_pending=1) as served,
        served.open_raw() as busy,
        served.open_raw() as one,
        served.open_raw() as other,
        served.open_raw() as last,
    ):
        await busy.send(b"?sleep 10\n")
        await trio.testing.wait_all_tasks_blocked()
        for peer in (one, other, last):
            await peer.send(b"?echo hello\n")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(11):
            for peer in (one, other, last):
                assert b"!echo ok hello\n" == (await peer.receive_until(b"!"))[-1]
        assert 10 == trio.current_time()


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("line", "limit"),
        ("pending", "max_pending"),
        ("pending_per_client", "max_pending_per_client"),
        ("backlog", "max_backlog"),
    ],
)
def test_a_limit_below_one_is_refused_by_the_name_that_callers_know(field: str, option: str) -> None:
    """Limits are checked when a server starts, and named as its options are."""
    assert 1 == getattr(dataclasses.replace(Limits(), **{field: 1}), field)
    with pytest.raises(ValueError, match=f"^expected {option} of at least 1, got 0$"):
        Limits(**{field: 0})
