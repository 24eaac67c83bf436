"""A lab in which everything happens at once, in memory: thousands of steps, the same for each seed.

``test_chaos_in_memory.py SECONDS [SEED]``, as a program, tries new seeds for as long, or those from that one
on, and prints the seed of what it finds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from chaos_peer import Customer, Instrument, Tally, quick_backoff
from seeded import main, run_cases, run_seeded

from armillary.network.errors import Rejected
from armillary.network.manager import Manager, ManagerLimits
from armillary.network.reconnect import open_persistent_client
from armillary.network.service import run_service
from armillary.testing import Lab, open_lab
from armillary.testing.streams import BoundedStream

STEPS = 150
# Seconds of virtual time: between two steps on average, and for everything to end once nothing happens.
STEP = 1.0
SETTLE = 120.0
SERVICES = {"instrument A": None, "instrument B": 2, "instrument C": 1}
CLIENTS = 4
CUSTOMERS = 3


class Line(trio.abc.Stream):
    """A connection that can stand still, as towards a program that is suspended, and be reset."""

    def __init__(self, inner: BoundedStream, rng: random.Random) -> None:
        self.inner = inner
        self.is_closed = False
        self._rng = rng
        self._goes_on = trio.Event()
        self._goes_on.set()

    @property
    def peer_name(self) -> str:
        return self.inner.peer_name

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._goes_on.wait()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._goes_on.wait()
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self.inner.receive_some(self._rng.choice([10, 1000, max_bytes, max_bytes]))
        await self._goes_on.wait()
        return data

    async def aclose(self) -> None:
        self.is_closed = True
        self._goes_on.set()
        await self.inner.aclose()

    def stand_still(self) -> None:
        if self._goes_on.is_set() and not self.is_closed:
            self._goes_on = trio.Event()

    def go_on(self) -> None:
        self._goes_on.set()

    def reset(self) -> None:
        self.go_on()
        self.inner.reset()


class Chaos:
    """What happens to everybody."""

    def __init__(self, lab: Lab, nursery: trio.Nursery, rng: random.Random) -> None:
        self.lab = lab
        self.nursery = nursery
        self.rng = rng
        self.tally = Tally()
        self.happened: Counter[str] = Counter()
        self.is_quiet = False
        self.lines: list[Line] = []
        self.customers: list[Customer] = []
        self.lives: list[trio.CancelScope] = []
        """Of services and clients; cancelling one ends its present life."""

    async def dial(self) -> Line:
        line = Line(await self.lab.connect(), self.rng)
        self.lines = [other for other in self.lines if not other.is_closed] + [line]
        return line

    # -- those to whom it happens --------------------------------------------------------------------------

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """One life of somebody, and the pause before the next one."""
        with trio.CancelScope() as scope:  # noqa: ASYNC100 - the block waits
            self.lives.append(scope)
            yield
        self.lives.remove(scope)
        await trio.sleep(self.rng.uniform(0, 10))

    async def keep_service(self, name: str, max_clients: int | None) -> None:
        while not self.is_quiet:
            async with self.life():
                birth = self.rng.randrange(2**60)
                instrument = Instrument(name, max_clients=max_clients, birth=birth)
                try:
                    await run_service(
                        instrument, "lab", None, dial=self.dial, backoff=quick_backoff(self.rng)
                    )
                except Rejected:
                    pass  # the manager does not know yet that the last one has gone

    async def keep_client(self, name: str) -> None:
        life = 0
        while not self.is_quiet:
            life += 1
            async with self.life():
                async with (
                    open_persistent_client(
                        "lab", None, name=name, dial=self.dial, backoff=quick_backoff(self.rng)
                    ) as client,
                    trio.open_nursery() as nursery,
                ):
                    alone = trio.Lock()
                    customers = [
                        Customer(
                            f"{name}-{life}-{number}",
                            client,
                            list(SERVICES),
                            self.rng,
                            self.tally,
                            pace=0.5,
                            has_threads=False,
                            alone=alone,
                        )
                        for number in range(CUSTOMERS)
                    ]
                    self.customers += customers
                    try:
                        for customer in customers:
                            nursery.start_soon(customer.run)
                        await trio.sleep_forever()
                    finally:
                        for customer in customers:
                            self.customers.remove(customer)

    # -- what happens --------------------------------------------------------------------------------------

    async def step(self) -> None:
        """One thing."""
        rng = self.rng
        await trio.sleep(rng.expovariate(1 / STEP))
        what = rng.choice([*["reset", "stand still", "cancel"] * 6, *["end", "end and reset"] * 3, "restart"])
        self.happened[what] += 1
        match what:
            case "restart":
                ended = self.lab.manager
                await self.lab.restart_manager(absence=rng.choice([0.0, rng.uniform(0, 5)]))
                check_empty(ended)
            case "cancel" if self.customers:
                rng.choice(self.customers).visit.cancel()
            case "reset" if self.lines:
                rng.choice(self.lines).reset()
            case "stand still" if self.lines:
                self.nursery.start_soon(self.stand_still, rng.choice(self.lines))
            case "end" | "end and reset" if self.lives:
                if what == "end and reset" and self.lines:
                    rng.choice(self.lines).reset()
                rng.choice(self.lives).cancel()

    async def stand_still(self, line: Line) -> None:
        line.stand_still()
        await trio.sleep(self.rng.choice([0.0, self.rng.uniform(0, 10), self.rng.uniform(0, 100)]))
        line.go_on()

    async def settle(self) -> None:
        """Leave everybody in peace; every call has to come to its end, and nothing may be left of any."""
        self.is_quiet = True  # who ends from now on does not come back
        manager = self.lab.manager
        with trio.move_on_after(SETTLE):
            for line in self.lines:
                line.go_on()
            for customer in self.customers:
                customer.is_stopping = True
            while self.tally.pending or any(row.links for row in manager.registry.table()):  # noqa: ASYNC110
                await trio.sleep(1)
        assert not self.tally.pending
        assert not self.tally.wrong, self.tally.wrong
        assert {row.name for row in manager.registry.table()} <= set(SERVICES)
        assert [(row.links, row.lock) for row in manager.registry.table() if row.links or row.lock] == []
        assert manager.statistics().requests.in_flight == 0


def check_empty(manager: Manager) -> None:
    """Nothing is left of anybody."""
    assert manager.registry.peers() == []
    assert manager.registry._linked_with == {}
    assert manager.registry._leases._locks == {}
    statistics = manager.statistics()
    assert (statistics.peers, statistics.services) == ((), ())
    assert statistics.requests.in_flight == 0
    assert manager.outstanding._requesters == {}
    assert manager.outstanding._services == {}


async def happen(seed: int) -> Counter[str]:
    """One case. Return what has happened, and what has become of calls."""
    rng = random.Random(seed)
    limits = ManagerLimits(ping_interval=5.0, lock_lease=rng.choice([10.0, 60.0]))
    async with open_lab(buffer=rng.choice([200, 65536]), limits=limits) as lab:
        async with trio.open_nursery() as nursery:
            chaos = Chaos(lab, nursery, rng)
            for name, max_clients in SERVICES.items():
                nursery.start_soon(chaos.keep_service, name, max_clients)
            for number in range(CLIENTS):
                nursery.start_soon(chaos.keep_client, f"client {number}")
            for _ in range(STEPS):
                await chaos.step()
            await chaos.settle()
            nursery.cancel_scope.cancel(reason="everybody goes")
        await trio.sleep(2)
        check_empty(lab.manager)
        assert len(trio.lowlevel.current_task().child_nurseries) == 1
    return chaos.happened + chaos.tally.ended


def test_chaos() -> None:
    """Whatever happens to whom, every call ends, as it should or with its cause, and nothing is left."""
    total: Counter[str] = Counter()
    for seed in range(3):
        total += run_seeded(happen, seed)
    expected = ["answered", "failed", "cancelled", "ServiceGone", "ConnectionClosed", "LockLost", "refused"]
    assert [kind for kind in expected if not total[kind]] == []


def test_new_chaos_for_some_seconds() -> None:
    """The same with cases that nobody has tried before; an error says which seed it was."""
    _, number, _ = run_cases(happen, 2.0)
    assert number > 0


if __name__ == "__main__":
    main(happen)
