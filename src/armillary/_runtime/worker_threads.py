"""Threads for functions that block, kept from one function to the next.

A thread for each call costs more than most calls, and so does waking the run for each result. Here the
threads wait for work, and the results that come together are brought to the run together.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["WorkerThreads", "open_worker_threads"]

Job = Callable[[], object]


class WorkerThreads:
    """At most so many threads, started when there is work for them. Made by `open_worker_threads`."""

    def __init__(self, most: int, name: str, around: Callable[[Callable[[], None]], object]) -> None:
        if most < 1:
            raise ValueError(f"expected at least 1 thread, got {most}")
        self.most = most
        """How many functions may run at once."""
        self._name = name
        self._around = around
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[tuple[Job, Callable[[], object]] | None] = queue.SimpleQueue()
        # Threads append, the run takes. Both are atomic.
        self._news: deque[Callable[[], object]] = deque()
        self._is_announced = False
        self._unfinished = 0
        self._threads = 0
        self._is_closing = False
        self._ended = trio.Event()

    @property
    def unfinished(self) -> int:
        """Functions that run or wait for a thread."""
        return self._unfinished

    @property
    def is_busy(self) -> bool:
        """Whether a thread works, or is to end and has not yet."""
        return self._unfinished > 0 or (self._is_closing and self._threads > 0)

    def run_soon(self, job: Job, done: Callable[[], object]) -> None:
        """Run `job` in a thread, when there is one, and then `done` in the run. Neither may raise.

        What comes when the threads are being closed is run nevertheless: it may be what cleans up.
        """
        self._unfinished += 1
        if self._is_closing or self._unfinished > self._threads < self.most:
            # Daemonic, as trio's own are: a program that is told to end at once does.
            threading.Thread(target=self._work, name=f"{self._name}_{self._threads}", daemon=True).start()
            self._threads += 1
        self._jobs.put((job, done))
        if self._is_closing:
            # The others may have been told to end before it came; then this thread is for it alone.
            self._jobs.put(None)

    def from_thread(self, function: Callable[[], object]) -> None:
        """Have `function` called in the run, from any thread, without waiting for it. It may not raise.

        The order is kept: what a job has asked for in this way happens before its `done`.
        """
        self._news.append(function)
        if not self._is_announced:
            self._is_announced = True
            self._token.run_sync_soon(self._deliver)

    async def aclose(self) -> None:
        """Wait until every thread has ended, though the caller be cancelled: nothing can end them sooner."""
        self._is_closing = True
        if self._threads:
            for _ in range(self._threads):
                self._jobs.put(None)
            with trio.CancelScope(shield=True):
                await self._ended.wait()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _deliver(self) -> None:
        self._is_announced = False
        if self._news:
            self._around(self._deliver_all)

    def _deliver_all(self) -> None:
        news = self._news
        # What is announced meanwhile comes again: others want their turn.
        for _ in range(len(news)):
            news.popleft()()

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            job()
            self.from_thread(lambda done=done: self._finish(done))  # type: ignore[misc]
            del task, job, done
        self.from_thread(self._thread_ended)

    def _finish(self, done: Callable[[], object]) -> None:
        self._unfinished -= 1
        done()

    def _thread_ended(self) -> None:
        self._threads -= 1
        if not self._threads:
            self._ended.set()


def _plainly(deliver: Callable[[], None]) -> None:
    deliver()


@asynccontextmanager
async def open_worker_threads(
    most: int, *, name: str, around: Callable[[Callable[[], None]], object] = _plainly
) -> AsyncIterator[WorkerThreads]:
    """Threads for the length of a block. Leaving it waits for what they do.

    Args:
        most: how many functions may run at once. What comes on top waits, in order.
        name: of the threads, with a number behind it, from 0.
        around: calls what it is given, once, with whatever is to be done before and after a batch of results.
    """
    threads = WorkerThreads(most, name, around)
    try:
        yield threads
    finally:
        await threads.aclose()  # noqa: ASYNC102 - shielded inside
