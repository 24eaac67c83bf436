"""Many operations of every kind at once, a fixed number of each: all must end, each in exactly one way.

Nothing here is timed. A wake-up that is lost shows as an operation that does not end, and a driver that gets
along without it by luck would still have to do as many operations as the stock driver does.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from armillary_compat.futures import call_asyncio, call_trio, wait_future
from armillary_compat.guest import Guest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.usefixtures("driver")

# Seconds after which an operation counts as hung; they take milliseconds.
HUNG = 30


def loose_ends(loop: asyncio.AbstractEventLoop) -> tuple[list[str], list[str]]:
    """What still runs on both sides but the test itself and the guest's own tasks."""
    current = asyncio.current_task()
    host = [task.get_name() for task in asyncio.all_tasks(loop) if task is not current]
    guest = Guest.of(loop)
    assert guest._nursery is not None
    return (
        [name for name in host if "owner" not in name],
        [task.name for task in guest._nursery.child_tasks],
    )


class Operations:
    """One of each kind, with random waits; each counts itself when it has come to its end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.problems: list[dict[str, Any]] = []

    def moment(self) -> float:
        return self.random.random() * 0.002

    async def sleep(self) -> None:
        await trio.sleep(self.moment())

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def coroutine(self) -> None:
        await call_asyncio(asyncio.sleep, self.moment())

    async def deadline(self) -> None:
        with trio.move_on_after(self.moment()) as scope:
            await call_asyncio(asyncio.sleep, HUNG)
        assert scope.cancelled_caught

    async def thread(self) -> None:
        assert await trio.to_thread.run_sync(trio.from_thread.run_sync, lambda: 7) == 7

    async def socket(self) -> None:
        ours, theirs = trio.socket.socketpair()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                assert await theirs.recv(10) == b"x"

            await trio.sleep(self.moment())
            await ours.send(b"x")
        for end in (ours, theirs):
            if self.random.random() < 0.5:
                end.close()
            else:
                os.close(end.detach())  # behind trio's back; the number is soon another socket's

    async def channel(self) -> None:
        send, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery, send, receive:
            nursery.start_soon(send.send, 5)
            assert await receive.receive() == 5

    async def future(self) -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(self.moment(), future.set_result, 3)
        assert await wait_future(future) == 3

    async def host_event(self) -> None:
        event = trio.Event()
        asyncio.get_running_loop().call_later(self.moment(), event.set)
        await event.wait()

    async def nested(self) -> None:
        await call_asyncio(call_trio, self.sleep)


KINDS = [
    Operations.sleep,
    Operations.checkpoint,
    Operations.coroutine,
    Operations.deadline,
    Operations.thread,
    Operations.socket,
    Operations.channel,
    Operations.future,
    Operations.host_event,
    Operations.nested,
]
# Of each kind. More finds rarer faults and takes longer.
EACH = 60


@pytest.mark.parametrize("seed", [1, 2])
def test_every_kind_at_once(host: Host, seed: int) -> None:
    """Every operation of every kind ends, whatever else goes on at the same time."""
    operations = Operations(seed)
    foreign = 0

    async def one(kind: Any) -> None:
        await asyncio.wait_for(call_trio(kind, operations), HUNG)
        operations.done[kind.__name__] += 1

    async def caller(kinds: list[Any]) -> None:
        for kind in kinds:
            await one(kind)

    def from_a_thread(token: trio.lowlevel.TrioToken) -> None:
        nonlocal foreign
        generator = random.Random(seed)
        for _ in range(EACH):
            woken = threading.Event()
            token.run_sync_soon(woken.set)
            assert woken.wait(HUNG), "a wake-up was lost"
            foreign += 1
            threading.Event().wait(generator.random() * 0.002)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: operations.problems.append(context))
        guest = Guest.current()
        with guest.hold():
            await call_trio(trio.lowlevel.checkpoint)
            thread = threading.Thread(target=from_a_thread, args=[trio.lowlevel.current_trio_token()])
            thread.start()
            work = KINDS * EACH
            operations.random.shuffle(work)
            async with asyncio.TaskGroup() as group:
                for start in range(8):
                    group.create_task(caller(work[start::8]))
            await asyncio.to_thread(thread.join)
            assert loose_ends(loop) == ([], [])

    host.run(main)
    assert operations.done == {kind.__name__: EACH for kind in KINDS}
    assert foreign == EACH
    assert operations.problems == []


class Call:
    """A call that is cancelled at a random moment, and what can be known about it from outside."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator
        self.scope = trio.CancelScope()
        self.begun = 0
        self.ended = 0
        self.returned = False
        self.was_cancelled = False

    async def on_trio(self) -> str:
        self.begun += 1
        try:
            with self.scope:
                for _ in range(self.random.randrange(4)):
                    match self.random.randrange(4):
                        case 0:
                            await trio.lowlevel.checkpoint()
                        case 1:
                            await trio.lowlevel.checkpoint()
                        case 2:
                            await call_asyncio(self.on_asyncio)
                        case 3:
                            async with trio.open_nursery() as nursery:
                                nursery.start_soon(call_asyncio, self.on_asyncio)
                                nursery.start_soon(trio.lowlevel.checkpoint)
                return "result"
            return "scope"
        finally:
            if self.random.random() < 0.3:
                with trio.CancelScope(shield=True):
                    await call_asyncio(self.on_asyncio)
            self.ended += 1

    async def on_asyncio(self) -> None:
        self.begun += 1
        try:
            for _ in range(self.random.randrange(3)):
                await asyncio.sleep(0)
        finally:
            try:
                if self.random.random() < 0.3:
                    await asyncio.sleep(0)
            finally:
                self.ended += 1

    async def run(self) -> str:
        try:
            return await call_trio(self.on_trio)
        except asyncio.CancelledError:
            return "cancelled"
        finally:
            assert self.begun == self.ended, "the call came back before everything in it had ended"


# More finds rarer races and takes longer.
CALLS = 2000


@pytest.mark.parametrize("seed", [3, 4])
def test_cancelled_at_random_moments(host: Host, driver: str, seed: int) -> None:
    """A call that is cancelled at any moment, from either side, ends in exactly one way, and completely."""
    generator = random.Random(seed)
    outcomes: Counter[str] = Counter()
    problems: list[dict[str, Any]] = []
    calls = CALLS if driver == "hosted" else CALLS // 5

    async def one() -> None:
        call = Call(generator)
        task = asyncio.create_task(call.run())
        side = generator.choice(["asyncio", "trio", "both", "neither"])
        for _ in range(generator.randrange(10)):
            await asyncio.sleep(0)
        if side in ("asyncio", "both"):
            task.cancel()
        if side in ("trio", "both"):
            call.scope.cancel()
        if side == "both" and generator.random() < 0.5:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task], timeout=HUNG)
        assert task.done(), "the call does not end"
        outcome = "never begun" if task.cancelled() else task.result()
        if side == "neither":
            assert outcome == "result"
        if side == "trio":
            assert outcome in ("result", "scope")
        outcomes[outcome] += 1

    async def several(count: int) -> None:
        for _ in range(count):
            await one()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        with Guest.current().hold():
            await call_trio(trio.lowlevel.checkpoint)
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(several(calls // 10))
            assert loose_ends(loop) == ([], [])

    with asyncio.Runner(loop_factory=host.new_event_loop) as runner:
        runner.run(main())
    assert sum(outcomes.values()) == calls
    assert {"result", "scope", "cancelled"} <= set(outcomes), "the moments are not random enough"
    assert problems == []
