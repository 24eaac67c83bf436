"""What a crossing costs: over the driver without a thread, and over trio's own guest mode, in turn."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import trio
import uvloop

from armillary_compat.futures import call_asyncio, call_trio
from armillary_compat.guest import Guest

NewLoop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, NewLoop] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
DRIVERS = ("hosted", "stock")
# Operations of a kind in one round. More is steadier and takes longer.
COUNT = 2000


@dataclass
class Row:
    """One kind of crossing, in microseconds for each."""

    target: float
    """How many times cheaper without a thread it should be at least."""
    values: dict[str, list[float]] = field(default_factory=lambda: {driver: [] for driver in DRIVERS})


def rows() -> dict[str, Row]:
    return {
        "asyncio awaits trio, which does not wait": Row(2.0),
        "asyncio awaits trio, one checkpoint": Row(1.5),
        "asyncio awaits trio, 100 calls at once": Row(0.9),
        "trio awaits an asyncio coroutine": Row(2.5),
        "the host sets an event: the call itself": Row(2.5),
        "the host sets an event: until trio runs": Row(2.5),
        "a thread wakes a trio task": Row(1.2),
        "start and stop of a guest": Row(0.8),
    }


async def nothing() -> None:
    """A function of either side that does not wait."""


async def each(operation: Callable[[], Awaitable[object]], count: int = COUNT) -> float:
    """Microseconds for each of many, one after another."""
    start = time.perf_counter()
    for _ in range(count):
        await operation()
    return (time.perf_counter() - start) / count * 1e6


async def events() -> tuple[float, float]:
    """Medians: what `Event.set` costs the host's code, and when the task that waits for it runs."""
    calls, latencies = [], []
    ready = asyncio.Event()
    event = trio.Event()

    async def wait() -> None:
        nonlocal event
        while True:
            await event.wait()
            latencies.append(time.perf_counter() - set_at)
            event = trio.Event()
            ready.set()

    task = Guest.current().start_soon(wait)
    for _ in range(COUNT // 4):
        ready.clear()
        await asyncio.sleep(0.0002)  # both are at rest
        set_at = time.perf_counter()
        event.set()
        calls.append(time.perf_counter() - set_at)
        await ready.wait()
    task.cancel()
    return statistics.median(calls) * 1e6, statistics.median(latencies) * 1e6


async def thread_wakes() -> float:
    """Median time from a thread's call until the trio task that waits for it runs."""
    latencies = []

    def wake(token: trio.lowlevel.TrioToken) -> None:
        for _ in range(COUNT // 10):
            time.sleep(0.0005)
            called_at = time.perf_counter()
            token.run_sync_soon(lambda at=called_at: latencies.append(time.perf_counter() - at))

    await asyncio.to_thread(wake, trio.lowlevel.current_trio_token())
    await asyncio.sleep(0.01)
    return statistics.median(latencies) * 1e6


async def measure(figures: dict[str, float]) -> None:
    with Guest.current().hold():
        await each(lambda: call_trio(nothing), 100)
        figures["asyncio awaits trio, which does not wait"] = await each(lambda: call_trio(nothing))
        checkpoint = trio.lowlevel.checkpoint
        figures["asyncio awaits trio, one checkpoint"] = await each(lambda: call_trio(checkpoint))
        gathered = await each(
            lambda: asyncio.gather(*(call_trio(checkpoint) for _ in range(100))), COUNT // 100
        )
        figures["asyncio awaits trio, 100 calls at once"] = gathered / 100
        figures["trio awaits an asyncio coroutine"] = await call_trio(each, lambda: call_asyncio(nothing))
        call, latency = await events()
        figures["the host sets an event: the call itself"] = call
        figures["the host sets an event: until trio runs"] = latency
        figures["a thread wakes a trio task"] = await thread_wakes()


def runs(
    new_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Coroutine[Any, Any, Any]]
) -> float:
    """Microseconds for a whole `asyncio.run`."""
    start = time.perf_counter()
    for _ in range(COUNT // 20):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    return (time.perf_counter() - start) / (COUNT // 20) * 1e6


def round_of(
    driver: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> tuple[dict[str, float], float]:
    """All figures of one driver on one kind of loop, and what a task costs asyncio itself."""
    os.environ["ARMILLARY_GUEST"] = driver
    figures: dict[str, float] = {}

    async def call_once() -> None:
        await call_trio(nothing)

    async def native() -> float:
        return await each(lambda: asyncio.create_task(nothing()))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(measure(figures))
        task = runner.run(native())
    figures["start and stop of a guest"] = runs(new_loop, call_once) - runs(new_loop, nothing)
    return figures, task


def report(rounds: int) -> None:
    """Print a table for each kind of loop."""
    for name, new_loop in LOOPS.items():
        table = rows()
        tasks = []
        for number in range(rounds):
            for driver in DRIVERS if number % 2 else reversed(DRIVERS):
                figures, task = round_of(driver, new_loop)
                tasks.append(task)
                for figure, value in figures.items():
                    table[figure].values[driver].append(value)
        native = statistics.median(tasks)
        print(f"{name + ' (one task of its own: ' + format(native, '.1f') + ' us)':44}", end="")
        print(f"{'no thread':>12}{'stock':>10}  {'':8}{'ratio':>7}{'target':>8}{'in tasks':>10}")
        for figure, row in table.items():
            ours, stock = (statistics.median(row.values[driver]) for driver in DRIVERS)
            reached = "" if stock / ours >= row.target else "  below"
            both = f"{figure:44}{ours:12.1f}{stock:10.1f}  {'us':8}"
            print(f"{both}{stock / ours:7.2f}{row.target:8.1f}{ours / native:10.1f}{reached}")
        print()
