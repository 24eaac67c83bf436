from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from armillary.network.store import (
    AuditEvent,
    EventKind,
    RecorderStatistics,
    Store,
    open_recorder,
    open_store,
)
from armillary.network.store import recorder as recorder_module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manager.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(path, trusted=list, busy_timeout=0.01) as opened:
        yield opened


def event(number: int) -> AuditEvent:
    return AuditEvent(float(number), EventKind.CONNECTION, str(number))


def recorded(store: Store) -> list[str]:
    return [event.message for event in store.audit.events()]


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Let another program write to the database for a block, and not come to an end."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_what_is_noted_is_recorded_without_being_asked_for(store: Store) -> None:
    """`note` returns at once, and after `wait_recorded` the event is in the database."""
    async with open_recorder(store.audit) as recorder:
        recorder.note(event(1))
        assert [] == recorded(store)
        await recorder.wait_recorded()
        assert ["1"] == recorded(store)
        assert RecorderStatistics(recorded=1, waiting=0, lost=0) == recorder.statistics()
        await recorder.wait_recorded()
        recorder.note(event(2))
        recorder.note(event(3))
        await recorder.wait_recorded()
        assert ["1", "2", "3"] == recorded(store)


async def test_events_that_come_together_are_recorded_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is busy, what comes waits, and then goes in one transaction."""
    sizes = []
    is_writing, go_on = threading.Event(), threading.Event()

    def record(events: list[AuditEvent]) -> None:
        sizes.append(len(events))
        is_writing.set()
        assert go_on.wait(10)
        type(store.audit).record(audit, events)

    audit = store.audit
    monkeypatch.setattr(audit, "record", record)
    async with open_recorder(audit) as recorder:
        recorder.note(event(0))
        assert await trio.to_thread.run_sync(is_writing.wait, 10)
        for number in range(1, 2000):
            recorder.note(event(number))
        go_on.set()
        await recorder.wait_recorded()
    assert [1, 1999] == sizes
    assert [str(number) for number in range(2000)] == recorded(store)


async def test_many_may_wait_for_their_events(store: Store) -> None:
    """Each of a hundred tasks finds its own event in the database when it goes on."""

    async def act(number: int) -> None:
        recorder.note(event(number))
        await recorder.wait_recorded()
        assert str(number) in recorded(store)

    async with open_recorder(store.audit) as recorder, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(act, number)
    assert 100 == len(recorded(store))


async def test_leaving_the_block_records_what_was_noted(store: Store) -> None:
    """However the block is left, by its end, an error or a cancellation, the last events are recorded."""
    async with open_recorder(store.audit) as recorder:
        recorder.note(event(1))
    assert ["1"] == recorded(store)
    with pytest.raises(KeyError):
        async with open_recorder(store.audit) as recorder:
            recorder.note(event(2))
            raise KeyError
    assert ["1", "2"] == recorded(store)
    with trio.CancelScope() as scope:
        async with open_recorder(store.audit) as recorder:
            recorder.note(event(3))
            scope.cancel()
            await trio.sleep_forever()
    assert ["1", "2", "3"] == recorded(store)


async def test_nothing_is_recorded_twice_or_not_at_all_wherever_it_is_cancelled(
    store: Store, cancel_everywhere: object
) -> None:
    """Of each event that was noted there is one row, at whatever checkpoint the end came."""
    noted = 0

    async def scenario() -> None:
        nonlocal noted
        async with open_recorder(store.audit) as recorder:
            for _ in range(2):
                recorder.note(event(noted))
                noted += 1
                await recorder.wait_recorded()

    async def check() -> None:
        assert [str(number) for number in range(noted)] == recorded(store)

    assert await cancel_everywhere(scenario, after=check) > 4


async def test_a_database_that_cannot_be_written_is_waited_for(
    store: Store,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While another program keeps the database, events wait in order, and it is logged once."""
    ended, attempts = trio.open_memory_channel[bool](100)

    def record(events: list[AuditEvent]) -> None:
        is_done = False
        try:
            type(store.audit).record(audit, events)
            is_done = True
        finally:
            trio.from_thread.run_sync(ended.send_nowait, is_done)

    audit = store.audit
    monkeypatch.setattr(audit, "record", record)
    monkeypatch.setattr(recorder_module, "_RETRY", 0.001)
    async with open_recorder(audit) as recorder:
        for outage in (1, 2):
            with keeping(path):
                recorder.note(event(outage))
                assert not await attempts.receive()
                assert not await attempts.receive()
                recorder.note(event(outage + 10))
                assert not await attempts.receive()
                assert 2 == recorder.statistics().waiting
            while not await attempts.receive():
                pass  # what was under way when the other program went
            await recorder.wait_recorded()
            assert outage == caplog.text.count("the audit waits for its database")
    assert ["1", "2", "11", "12"] == recorded(store)


async def test_events_beyond_the_bound_are_lost_and_it_is_told(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """The newest are dropped, counted and logged once, and the audit says later that some are missing."""
    async with open_recorder(store.audit, most_waiting=3) as recorder:
        with keeping(path):
            for number in range(10):
                recorder.note(event(number))
            assert RecorderStatistics(recorded=0, waiting=3, lost=7) == recorder.statistics()
        await recorder.wait_recorded()
        assert RecorderStatistics(recorded=3, waiting=0, lost=7) == recorder.statistics()
        recorder.note(event(10))
    assert ["0", "1", "2", "7 events were lost", "10"] == recorded(store)
    [told] = store.audit.events(kinds=[EventKind.AUDIT])
    assert 2.0 == told.time
    assert 1 == caplog.text.count("the audit loses some")


async def test_what_cannot_be_recorded_at_the_end_is_counted_in_the_log(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the block does not wait for ever for a database that somebody keeps."""
    with trio.fail_after(20), keeping(path):
        async with open_recorder(store.audit) as recorder:
            recorder.note(event(1))
            recorder.note(event(2))
    assert "2 events were not recorded" in caplog.text
    assert [] == recorded(store)
