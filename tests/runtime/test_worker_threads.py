"""Threads for functions that block."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
import trio.testing

from armillary._runtime.worker_threads import open_worker_threads


async def test_results_come_back_to_the_run_in_order() -> None:
    """What one thread is given it does in order, and `done` is called in the run's own thread."""
    done: list[tuple[int, int]] = []
    jobs: list[int] = []
    finished = trio.Event()

    def take(number: int) -> None:
        done.append((number, threading.get_ident()))
        if number == 99:
            finished.set()

    async with open_worker_threads(1, name="test") as threads:
        for number in range(100):
            threads.run_soon(partial(jobs.append, number), partial(take, number))
        await finished.wait()
        assert threads.unfinished == 0
    assert jobs == list(range(100))
    assert done == [(number, threading.get_ident()) for number in range(100)]


async def test_only_so_many_run_at_once_and_they_are_kept() -> None:
    """With two threads, two functions run at once; a third waits, and gets one of the same threads."""
    both = threading.Barrier(2, timeout=10)
    seen: set[int] = set()
    count = 0
    finished = trio.Event()

    def job() -> None:
        both.wait()
        seen.add(threading.get_ident())

    def done() -> None:
        nonlocal count
        count += 1
        if count == 6:
            finished.set()

    async with open_worker_threads(2, name="test") as threads:
        for _ in range(6):
            threads.run_soon(job, done)
        with trio.fail_after(10):
            await finished.wait()
    assert len(seen) == 2


async def test_threads_start_only_when_there_is_work() -> None:
    """One function after the other needs one thread."""
    seen = set()
    async with open_worker_threads(40, name="test_lazy") as threads:
        for _ in range(5):
            done = trio.Event()
            threads.run_soon(lambda: seen.add(threading.current_thread().name), done.set)
            await done.wait()
    assert seen == {"test_lazy_0"}


async def test_what_a_job_asks_for_happens_before_its_end() -> None:
    """The order of what a thread says and of its result is kept."""
    told: list[object] = []
    finished = trio.Event()
    async with open_worker_threads(1, name="test") as threads:

        def job() -> None:
            for number in range(50):
                threads.from_thread(partial(told.append, number))

        def done() -> None:
            told.append("done")
            finished.set()

        threads.run_soon(job, done)
        await finished.wait()
    assert told == [*range(50), "done"]


async def test_results_that_come_together_are_taken_together() -> None:
    """What happened while the run was busy is one batch, inside `around`."""
    batches: list[int] = []
    results: list[int] = []
    finished = trio.Event()

    def around(deliver: object) -> None:
        assert callable(deliver)
        before = len(results)
        deliver()
        batches.append(len(results) - before)

    ready = threading.Event()

    def last() -> None:
        results.append(99)
        finished.set()

    async with open_worker_threads(1, name="test", around=around) as threads:
        for number in range(20):
            threads.run_soon(lambda: None, partial(results.append, number))
        threads.run_soon(ready.set, last)
        ready.wait(10)  # the run stands still meanwhile
        await finished.wait()
    assert results == [*range(20), 99]
    assert max(batches) >= 20


async def test_leaving_waits_for_what_runs_though_it_is_cancelled() -> None:
    """A function in a thread is never left behind, and its `done` is still called."""
    go, began, done = threading.Event(), trio.Event(), []
    with trio.CancelScope() as scope:
        async with open_worker_threads(1, name="test_left") as threads:

            def job() -> None:
                threads.from_thread(began.set)
                go.wait(10)

            threads.run_soon(job, partial(done.append, 1))
            await began.wait()
            scope.cancel()
            threading.Timer(0.05, go.set).start()
            await trio.sleep_forever()
    assert go.is_set()
    assert done == [1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test_left")]


async def test_at_least_one_thread() -> None:
    """None at all is a mistake."""
    with pytest.raises(ValueError, match="at least 1 thread"):
        async with open_worker_threads(0, name="test"):
            pass
