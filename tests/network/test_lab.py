"""A manager, services and clients together, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from armillary.network.errors import LockRefused, RemoteError, ServiceGone
from armillary.network.service import Service
from armillary.testing import Lab


class Bench(Service):
    """What a laboratory offers."""

    scale = 2.5

    async def wait(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    def double(self, value: Any) -> Any:
        return value * 2

    async def tell(self, count: int) -> int:
        for number in range(count):
            self.emit_notification(number, last=number == count - 1)
        return count

    def fail(self) -> None:
        raise LookupError("no such channel")


@pytest.fixture
def lab_services() -> list[Service]:
    return [Bench()]


async def test_calls(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Coroutines and functions are called by name, constants read by calling, and errors raised as errors."""
    async with lab.client() as client, client.link("Bench") as bench:
        assert await bench.double(21) == 42
        assert await bench.wait(3) == 3
        assert await bench.scale() == 2.5
        with pytest.raises(RemoteError, match="no such channel") as caught:
            await bench.fail()
        assert caught.value.type_name == "LookupError"


async def test_arrays_and_bytes(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """What both ends have agreed on travels as it is, bit by bit."""
    numpy = pytest.importorskip("numpy")
    async with lab.client() as client, client.link("Bench") as bench:
        array = numpy.linspace(0, 1, 10_000).reshape(100, 100)
        numpy.testing.assert_array_equal(await bench.double(array), array * 2)
        assert await bench.double(b"\x00\xff") == b"\x00\xff\x00\xff"


async def test_notifications_come_before_the_reply(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Everybody who is linked hears every notification, in order, and before the result that follows."""
    async with lab.client("One") as one, lab.client("Two") as two:
        async with one.link("Bench") as asking, two.link("Bench") as listening:
            mine, theirs = asking.notifications(), listening.notifications()
            assert await asking.tell(10) == 10
            assert mine.statistics().waiting == 10
            heard = [note async for note in _first(theirs, 10)]
    assert [(note.args, note.kwargs) for note in heard] == [
        ((number,), {"last": number == 9}) for number in range(10)
    ]


async def _first(notes: Any, count: int) -> AsyncIterator[Any]:
    async for note in notes:
        yield note
        count -= 1
        if not count:
            return


async def test_locks(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Who holds the lock alone is not joined by others, and gives it back with the block."""
    async with lab.client("One") as one, lab.client("Two") as two, one.link("Bench") as mine:
        async with mine.lock():
            with pytest.raises(Exception, match="locked"):
                async with two.link("Bench"):
                    pass
        async with two.link("Bench"):
            with pytest.raises(LockRefused):
                async with mine.lock():
                    pass


async def test_a_service_that_ends(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Whoever waits for a service that goes is told so at once."""
    scope = await lab.start(Bench(name="Bench 2"))
    began = trio.current_time()
    async with lab.client() as client, client.link("Bench 2") as bench, trio.open_nursery() as nursery:
        nursery.start_soon(_expect_gone, bench)
        await trio.sleep(1)
        scope.cancel()
    assert trio.current_time() - began < 10


async def _expect_gone(bench: Any) -> None:
    with pytest.raises((ServiceGone, RemoteError)):
        await bench.wait(1000)


async def test_many_at_once(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """A hundred clients with ten calls each get their own results."""

    async def work(number: int) -> None:
        async with lab.client(f"Client {number}") as client, client.link("Bench") as bench:
            async with trio.open_nursery() as calls:
                for call in range(10):
                    calls.start_soon(check, bench, number * 100 + call)

    async def check(bench: Any, value: int) -> None:
        assert await bench.double(value) == 2 * value

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(work, number)
