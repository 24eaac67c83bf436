"""How a service's generator becomes many replies to one call, at the pace of whoever reads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

import trio
from outcome import Outcome, capture

from armillary._runtime.worker_threads import WorkerThreads

__all__ = ["MOST_COLLECTED", "Sink", "is_iteration", "iterate"]

MOST_COLLECTED = 100_000
"""Items of a list that is made for a client which did not ask for them one by one.

More lets a generator that never ends take more memory; fewer refuses longer lists.
"""

Iteration = AsyncGenerator[Any, Any] | Generator[Any, Any, Any]


class Sink(Protocol):
    """Who takes the items of an iteration."""

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody wants more of them."""

    def put(self, item: object) -> None:
        """Take one; from a thread, if the generator runs in one.

        Raises:
            TypeError: it cannot be sent.
            ValueError: likewise.
        """

    async def take_room(self) -> int:
        """Wait until there is room for items, and return for how many: for one at least, and all there is."""


def is_iteration(result: object) -> bool:
    """Whether a method has returned a generator."""
    return isinstance(result, AsyncGenerator | Generator)


async def iterate(items: Iteration, sink: Sink, threads: WorkerThreads) -> None:
    """Put every item into the sink, none before there is room for it, and close the generator.

    A generator that is not asynchronous runs in threads, not always in the same one. Cancellation closes the
    generator, once what it does in a thread has come to the next item.
    """
    if isinstance(items, AsyncGenerator):
        await _iterate(items, sink)
    else:
        await _iterate_in_threads(items, sink, threads)


async def _iterate(items: AsyncGenerator[Any, Any], sink: Sink) -> None:
    async with aclosing(items):
        while True:
            for _ in range(await sink.take_room()):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                sink.put(item)


async def _iterate_in_threads(items: Generator[Any, Any, Any], sink: Sink, threads: WorkerThreads) -> None:
    try:
        is_over = False
        while not is_over:
            room = await sink.take_room()
            is_over = await _run(threads, partial(_produce, items, sink, room))
    finally:
        await _run(threads, items.close)  # noqa: ASYNC102 - shielded inside


def _produce(items: Generator[Any, Any, Any], sink: Sink, room: int) -> bool:
    """Put so many items into the sink, in a thread. Return whether that was all."""
    for _ in range(room):
        if sink.is_abandoned:
            return True
        try:
            item = next(items)
        except StopIteration:
            return True
        sink.put(item)
    return False


async def _run(threads: WorkerThreads, function: Callable[[], Any]) -> Any:
    """Run a function in a thread, and wait for it even if cancelled: nothing can end it sooner."""
    outcomes: list[Outcome[Any]] = []
    done = trio.Event()
    threads.run_soon(lambda: outcomes.append(capture(function)), done.set)
    with trio.CancelScope(shield=True):
        await done.wait()
    return outcomes[0].unwrap()
