from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from armillary.network.store import AuditEvent, Bound, EventKind, Store, open_store
from armillary.network.store.bounds import local_text, seconds


@pytest.fixture(autouse=True)
def _in_auckland(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place whose clocks are changed, and far from UTC."""
    monkeypatch.setenv("TZ", "NZST-12NZDT,M9.5.0,M4.1.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store(":memory:", trusted=list) as opened:
        yield opened


NOON = datetime(2024, 6, 15, tzinfo=UTC).timestamp()  # there
DAY = 86_400.0


def connection(when: float, message: str = "connected as a client") -> AuditEvent:
    return AuditEvent(when, EventKind.CONNECTION, message, "10.0.0.7", "lab7", 51022)


def test_what_is_recorded_comes_back(store: Store) -> None:
    """An event has all of its parts when it is asked for."""
    events = [
        connection(NOON),
        AuditEvent(NOON + 0.25, EventKind.LOGIN, "logged in", "10.0.0.7", "lab7", 51022, user="marie"),
        AuditEvent(
            NOON + 1,
            EventKind.LOCK,
            "acquired the exclusive lock",
            "10.0.0.7",
            "lab7",
            51022,
            peer="Bench A[lab7:51022]",
            user="marie",
            subject="DMM",
        ),
        AuditEvent(NOON + 2, EventKind.ADMIN, "asked", subject="users_table.insert"),
    ]
    store.audit.record(events)
    assert events == store.audit.events()


def test_connections_are_rows_of_the_old_library_too(store: Store) -> None:
    """Events about connections, and no others, are in its table: local time, to the second."""
    store.audit.record(
        [connection(NOON + 0.9), AuditEvent(NOON, EventKind.LOCK, "x"), connection(NOON + 61, "bye")]
    )
    expected = [
        (1, "2024-06-15T12:00:00", "10.0.0.7", "lab7", 51022, "connected as a client"),
        (2, "2024-06-15T12:01:01", "10.0.0.7", "lab7", 51022, "bye"),
    ]
    assert expected == store.audit.connections()
    assert ["x", "connected as a client", "bye"] == [event.message for event in store.audit.events()]


# Events at noon of five days in a row, and at the first and last instant of the middle one.
MIDNIGHT = NOON - DAY / 2
TIMES = [NOON - 2 * DAY, NOON - DAY, MIDNIGHT, NOON, MIDNIGHT + DAY - 0.001, NOON + DAY, NOON + 2 * DAY]
EVERYTHING = list(range(len(TIMES)))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, EVERYTHING),
        ("2024-06-15", None, [2, 3, 4, 5, 6]),
        (None, "2024-06-15", [0, 1, 2, 3, 4]),
        ("2024-06-15", "2024-06-15", [2, 3, 4]),
        (" 2024-06-15 ", date(2024, 6, 15), [2, 3, 4]),
        (date(2024, 6, 15), date(2024, 6, 14), []),
        ("2024-06-15T12:00:00", "2024-06-15T12:00:00", [3]),
        ("2024-06-15 12:00", "2024-06-15 12:00", [3]),
        ("2024-06-15T12:00:01", None, [4, 5, 6]),
        (None, "2024-06-15T11:59:59", [0, 1, 2]),
        (datetime(2024, 6, 15, 12), datetime(2024, 6, 15, 12), [3]),
        (datetime(2024, 6, 15, tzinfo=UTC), datetime(2024, 6, 15, 0, 30, tzinfo=UTC), [3]),
        ("2024-06-15T00:00:00+00:00", "2024-06-15T00:00:00Z", [3]),
        (datetime(2024, 6, 14, 19, tzinfo=timezone(timedelta(hours=-5))), NOON, [3]),
        (NOON, NOON, [3]),
        (int(NOON), int(NOON), [3]),
        ("2024", "2024-06-13T12:00:00.000001", None),
        ("2000-01-01", "2000-12-31", []),
    ],
)
def test_bounds_are_included(start: Bound, end: Bound, expected: list[int] | None, store: Store) -> None:
    """Both queries have what lies between two times, themselves included, however they are written."""
    store.audit.record([connection(when, str(number)) for number, when in enumerate(TIMES)])
    if expected is None:
        with pytest.raises(ValueError, match="2024"):
            store.audit.events(start, end)
        with pytest.raises(ValueError, match="2024"):
            store.audit.connections(start, end)
        return
    assert expected == [int(event.message) for event in store.audit.events(start, end)]
    assert expected == [int(row.message) for row in store.audit.connections(start, end)]


@pytest.mark.parametrize("bound", ["", "yesterday", "2024-13-01", "2024-06-15T25:00", "12:00"])
def test_what_is_no_time_is_refused(bound: str, store: Store) -> None:
    """The error says what a time looks like, and what came instead."""
    for ask in (store.audit.events, store.audit.connections):
        with pytest.raises(ValueError, match=r"expected a date or a time like 2024-03-31") as raised:
            ask(end=bound)
        assert repr(bound) in str(raised.value)
    with pytest.raises(ValueError, match="expected a date"):
        store.audit.forget(bound)


def test_an_hour_that_comes_twice_is_meant_both_times() -> None:
    """On the night when clocks go back, a bound in the repeated hour takes in all of it."""
    repeated = "2024-04-07T02:30:00"
    first = seconds(repeated, is_end=False)
    last = seconds(repeated, is_end=True)
    assert first is not None
    assert last is not None
    assert 3600.999999 == pytest.approx(last - first, abs=1e-5)
    assert "2024-04-07T02:30:00" == local_text(first, is_end=False) == local_text(first + 3600, is_end=False)


def test_events_are_found_by_kind_user_and_number(store: Store) -> None:
    """Conditions add up, and a limit keeps the newest, still in order of time."""
    store.audit.record(
        AuditEvent(NOON + number, kind, str(number), user=user)
        for number, (kind, user) in enumerate(
            [
                (EventKind.LOGIN, "marie"),
                (EventKind.LOCK, "marie"),
                (EventKind.LOGIN, "pierre"),
                (EventKind.LOCK, ""),
            ]
        )
    )

    def found(**conditions: object) -> str:
        return "".join(event.message for event in store.audit.events(**conditions))

    assert "02" == found(kinds=[EventKind.LOGIN])
    assert "0123" == found(kinds={EventKind.LOGIN, EventKind.LOCK})
    assert "" == found(kinds=[])
    assert "01" == found(user="marie")
    assert "3" == found(user="")
    assert "1" == found(user="marie", kinds=[EventKind.LOCK])
    assert "23" == found(limit=2)
    assert "1" == found(user="marie", limit=1)
    assert "" == found(limit=0)


def test_events_have_the_order_of_their_time(store: Store) -> None:
    """Also those that were recorded late."""
    store.audit.record([connection(NOON + 2, "c"), connection(NOON, "a")])
    store.audit.record([connection(NOON + 1, "b"), connection(NOON + 2, "d")])
    assert ["a", "b", "c", "d"] == [event.message for event in store.audit.events()]


def test_what_peers_call_themselves_can_be_recorded(store: Store) -> None:
    """No text from a peer is too odd to be recorded, and none is kept whole if it is long."""
    odd = "\ud800 \0 ' ; é \N{SNOWMAN}"
    store.audit.record(
        [AuditEvent(NOON, EventKind.CONNECTION, odd, "1.2.3.4", "x" * 10_000, 1, user=odd, peer=odd)]
    )
    [event] = store.audit.events()
    assert "\\ud800 \0 ' ; é \N{SNOWMAN}" == event.user == event.peer == event.message
    assert 500 == len(event.domain)
    [row] = store.audit.connections()
    assert (event.domain, event.message) == (row.domain, row.message)


def test_old_events_can_be_forgotten(store: Store) -> None:
    """What was before a time goes from both tables; the time itself stays."""
    store.audit.record(
        [*(connection(when) for when in TIMES), AuditEvent(NOON - 3 * DAY, EventKind.LOCK, "x")]
    )
    assert 5 == store.audit.forget("2024-06-15")
    assert TIMES[2:] == [event.time for event in store.audit.events()]
    assert 5 == len(store.audit.connections())
    assert 0 == store.audit.forget("2024-06-15")
    assert 0 == store.audit.forget(None)


def test_recording_is_all_or_nothing(store: Store) -> None:
    """Events of which one cannot be recorded leave no trace, and those after them are recorded."""
    with pytest.raises(OverflowError):
        store.audit.record([connection(NOON), connection(1e30)])
    assert [] == store.audit.events()
    store.audit.record([])
    store.audit.record([connection(NOON)])
    assert 1 == len(store.audit.events())


_RECORDS_AND_DIES = """
import os, signal, sys
from armillary.network.store import AuditEvent, EventKind, open_store
with open_store(sys.argv[1], trusted=list) as store:
    for number in range(50):
        store.audit.record([AuditEvent(number, EventKind.CONNECTION, str(number))] * 3)
        os.write(1, b"%d\\n" % number)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_survives_a_crash(tmp_path: Path) -> None:
    """After a SIGKILL the database opens as if nothing had happened, with every acknowledged event."""
    path = tmp_path / "manager.sqlite3"
    died = subprocess.run(
        [sys.executable, "-c", _RECORDS_AND_DIES, str(path)], stdout=subprocess.PIPE, check=False
    )
    assert -9 == died.returncode
    acknowledged = [int(line) for line in died.stdout.split()]
    assert 50 == len(acknowledged)
    with open_store(path, trusted=list) as store:
        expected = [float(number) for number in acknowledged for _ in range(3)]
        assert expected == [event.time for event in store.audit.events()]
        assert len(expected) == len(store.audit.connections())
