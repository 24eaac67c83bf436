"""How the figures are measured: each group in a lab of its own."""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from .lab import Lab
from .processes import Program

__all__ = ["GROUPS", "Effort", "Group"]

Values = AsyncGenerator[tuple[str, float], None]
# Enough to keep every program busy, and what a 1.0 service still takes at once.
PIPELINED = 2000
BIG = 10_000_000
# 1 MiB of them.
FLOATS = 131_072
CLIENTS = 10


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done for a figure."""

    seconds: float
    notifications: int
    connects: int
    idle: int
    many: int


async def echo(lab: Lab, effort: Effort) -> Values:
    service = await lab.service()
    client = await lab.client()
    programs = [lab.manager, service, client]
    await client.ask("one_at_a_time", 0.3)
    before = _used(programs)
    elapsed, taken = await client.ask("one_at_a_time", effort.seconds)
    manager, everybody = _used_since(programs, before)
    yield "one at a time", len(taken) / elapsed
    yield "one at a time, p50", _percentile(taken, 50)
    yield "one at a time, p99", _percentile(taken, 99)
    yield "one at a time, manager's CPU", manager / len(taken)
    yield "one at a time, CPU of all", everybody / len(taken)
    for method, figure in (("coroutine", "pipelined, async def"), ("plain", "pipelined, def")):
        await client.ask("pipelined", method, PIPELINED, 0.3)
        before = _used(programs)
        elapsed, done = await client.ask("pipelined", method, PIPELINED, effort.seconds)
        manager, everybody = _used_since(programs, before)
        yield figure, done / elapsed
        if method == "coroutine":
            yield f"{figure}, manager's CPU", manager / done
        yield f"{figure}, CPU of all", everybody / done
    await client.ask("big", BIG, 0)
    yield (
        "10 MB of text there and back",
        2 * BIG / statistics.median(await client.ask("big", BIG, effort.seconds)),
    )
    await client.ask("array", FLOATS, 2)
    yield "1 MB of float64 there and back", statistics.median(await client.ask("array", FLOATS, 10))


async def crowd(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    clients = await lab.clients(CLIENTS)
    await _together([_asker(client, "one_at_a_time", 0.3) for client in clients])
    before = lab.manager.processor_time()
    answers = await _together([_asker(client, "one_at_a_time", effort.seconds) for client in clients])
    used = lab.manager.processor_time() - before
    taken = [each for _, taken in answers for each in taken]
    yield "10 clients", sum(len(taken) / elapsed for elapsed, taken in answers)
    yield "10 clients, p99", _percentile(taken, 99)
    yield "10 clients, manager's CPU", used / len(taken)


async def beside(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    await lab.service("Big")
    small, big = await lab.client(), await lab.client("Big")
    await small.ask("one_at_a_time", 0.3)
    await big.ask("big", BIG, 0)
    (_, taken), streamed = await _together(
        [_asker(small, "one_at_a_time", effort.seconds), _asker(big, "big", BIG, effort.seconds)]
    )
    yield "small call beside 10 MB ones, p50", _percentile(taken, 50)
    yield "small call beside 10 MB ones, p99", _percentile(taken, 99)
    yield "10 MB ones meanwhile", 2 * BIG / statistics.median(streamed)


async def notifications(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    clients = await lab.clients(CLIENTS)
    for client in clients:
        await client.ask("listen", effort.notifications)
    before = lab.manager.processor_time()
    begin = await clients[0].ask("tell", effort.notifications)
    last = max([await client.ask("heard") for client in clients])
    deliveries = CLIENTS * effort.notifications
    yield "notifications to 10 clients", deliveries / (last - begin)
    yield "notifications, manager's CPU", (lab.manager.processor_time() - before) / deliveries


async def connect(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    client = await lab.client()
    await client.ask("connects", 3)
    yield "connecting", statistics.median(await client.ask("connects", effort.connects))


async def memory(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    client = await lab.client()
    # The first ones pay for what all share: buffers, tables, code that is run for the first time.
    await client.ask("idle", 50)
    await trio.sleep(0.5)
    before = lab.manager.memory()
    await client.ask("idle", effort.idle)
    await trio.sleep(0.5)
    yield "idle client in the manager", (lab.manager.memory() - before) / effort.idle


async def many(lab: Lab, effort: Effort) -> Values:
    await lab.service()
    asker, *holders = await lab.clients(3)
    each = effort.many // len(holders)
    yield (
        "5,000 idle clients connect",
        max(await _together([_asker(holder, "idle", each, limit=300) for holder in holders])),
    )
    answers = [await asker.ask("identities") for _ in range(5)]
    assert all(clients >= each * len(holders) for _, clients in answers)
    yield "5,000 idle clients, identities", max(seconds for seconds, _ in answers)


@dataclass(frozen=True, slots=True)
class Group:
    """What is measured in one lab."""

    measure: Callable[[Lab, Effort], Values]
    figures: tuple[str, ...]
    tls: tuple[bool, ...] = (False, True)
    has_peer: bool = True
    is_steady: bool = False
    """Whether one round says as much as several."""


GROUPS = {
    "echo": Group(
        echo,
        (
            "one at a time",
            "one at a time, p50",
            "one at a time, p99",
            "one at a time, manager's CPU",
            "one at a time, CPU of all",
            "pipelined, async def",
            "pipelined, async def, manager's CPU",
            "pipelined, async def, CPU of all",
            "pipelined, def",
            "pipelined, def, CPU of all",
            "10 MB of text there and back",
            "1 MB of float64 there and back",
        ),
    ),
    "crowd": Group(crowd, ("10 clients", "10 clients, p99", "10 clients, manager's CPU")),
    "beside": Group(
        beside,
        (
            "small call beside 10 MB ones, p50",
            "small call beside 10 MB ones, p99",
            "10 MB ones meanwhile",
        ),
    ),
    "notifications": Group(notifications, ("notifications to 10 clients", "notifications, manager's CPU")),
    "connect": Group(connect, ("connecting",), tls=(True,)),
    "memory": Group(memory, ("idle client in the manager",), tls=(True,), is_steady=True),
    "many": Group(
        many,
        ("5,000 idle clients connect", "5,000 idle clients, identities"),
        has_peer=False,
        is_steady=True,
    ),
}


def _asker(program: Program, *command: Any, **options: Any) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        return await program.ask(*command, **options)

    return ask


async def _together(functions: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Their results, of all at the same time."""
    results: list[Any] = [None] * len(functions)

    async def run(index: int) -> None:
        results[index] = await functions[index]()

    async with trio.open_nursery() as nursery:
        for index in range(len(functions)):
            nursery.start_soon(run, index)
    return results


def _used(programs: Sequence[Program]) -> list[float]:
    return [program.processor_time() for program in programs]


def _used_since(programs: Sequence[Program], before: Sequence[float]) -> tuple[float, float]:
    """Processor time of the first one, the manager, and of all."""
    used = [now - then for now, then in zip(_used(programs), before, strict=True)]
    return used[0], sum(used)


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
