"""The fixture `cancel_everywhere` can fail: without that, the tests that use it would prove nothing."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

CancelEverywhere = Callable[..., Awaitable[int]]


async def test_every_checkpoint_is_tried_once_and_then_none(cancel_everywhere: CancelEverywhere) -> None:
    """Each run gets one checkpoint further than the one before; the last one completes."""
    runs: list[list[int]] = []

    async def scenario() -> None:
        passed: list[int] = []
        runs.append(passed)
        for number in range(3):
            await trio.lowlevel.checkpoint()
            passed.append(number)

    after = 0

    async def count() -> None:
        nonlocal after
        after += 1

    assert 3 == await cancel_everywhere(scenario, after=count)
    assert [[], [0], [0, 1], [0, 1, 2]] == runs
    assert 4 == after


async def test_the_checkpoints_of_tasks_inside_count_too(cancel_everywhere: CancelEverywhere) -> None:
    """A cancellation falls also where only a task that the scenario started is under way."""

    async def child() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    assert await cancel_everywhere(scenario) >= 6


async def test_a_shielded_scenario_completes_every_time(cancel_everywhere: CancelEverywhere) -> None:
    """What does not react to its cancellation is cancelled at the next place all the same, and ends."""
    completed = 0

    async def scenario() -> None:
        nonlocal completed
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        completed += 1

    assert 2 == await cancel_everywhere(scenario)
    assert 3 == completed


async def test_a_task_that_is_left_is_found(
    cancel_everywhere: CancelEverywhere, autojump_clock: trio.testing.MockClock
) -> None:
    """A task started in somebody else's nursery, which goes on, is a leftover."""
    async with trio.open_nursery() as nursery:

        async def scenario() -> None:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()

        with pytest.raises(AssertionError, match=r"left when cancelled at checkpoint 1(.|\n)*sleep_forever"):
            await cancel_everywhere(scenario)
        nursery.cancel_scope.cancel()


async def test_a_task_that_ends_soon_enough_is_no_leftover(
    cancel_everywhere: CancelEverywhere, autojump_clock: trio.testing.MockClock
) -> None:
    """What tasks outside need for their ending they get, up to the time that the test allows."""
    async with trio.open_nursery() as nursery:

        async def scenario() -> None:
            nursery.start_soon(trio.sleep, 3)
            await trio.lowlevel.checkpoint()

        assert 1 == await cancel_everywhere(scenario, settle=4)
        with pytest.raises(AssertionError):
            await cancel_everywhere(scenario, settle=2)


async def test_a_socket_that_is_left_open_is_found(
    cancel_everywhere: CancelEverywhere, autojump_clock: trio.testing.MockClock
) -> None:
    """A socket that is closed only when nothing goes wrong is a leftover when something does."""
    opened: list[socket.socket] = []

    async def scenario() -> None:
        opened.append(socket.socket())
        await trio.lowlevel.checkpoint()
        opened.pop().close()

    with pytest.raises(AssertionError, match="left when cancelled at checkpoint 1"):
        await cancel_everywhere(scenario)
    opened.pop().close()


async def test_an_error_says_where_the_scenario_was_cancelled(cancel_everywhere: CancelEverywhere) -> None:
    """An exception that a cancellation brings about comes out, with the place in a note."""

    async def scenario() -> None:
        await trio.lowlevel.checkpoint()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise RuntimeError("confused") from None

    with pytest.raises(RuntimeError, match="confused") as caught:
        await cancel_everywhere(scenario)
    assert ["cancelled at checkpoint 2: True"] == caught.value.__notes__
