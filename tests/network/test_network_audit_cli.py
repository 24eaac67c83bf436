"""``armillary network audit``: what the database remembers, in a table or as JSON."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command_lab import HOST, command_lab

from armillary.cli import main
from armillary.network import open_client, open_store
from armillary.network.cli.auditing import KINDS
from armillary.network.locations import Home
from armillary.network.store import AuditEvent, EventKind
from armillary.testing import DemoService

NOON = datetime(2024, 3, 31, 12, 0, 0)
EVENTS = [
    AuditEvent(
        NOON.timestamp(),
        EventKind.CONNECTION,
        "connected as a client",
        "10.0.0.7",
        "lab7",
        51022,
        peer="Bench A[lab7:51022]",
    ),
    AuditEvent(
        NOON.timestamp() + 60, EventKind.LOGIN, "wrong\x1b[2J name", "10.0.0.7", "lab7", 51022, user="marie"
    ),
    AuditEvent(NOON.timestamp() + 3600, EventKind.LOCK, "acquired, exclusive", "10.0.0.8", subject="DMM"),
    AuditEvent(
        NOON.timestamp() + 86400, EventKind.ADMIN, "requested", "10.0.0.7", "lab7", 51022, user="marie"
    ),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Where the default database is, by the environment, with four events in it."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    with open_store(home.database, trusted=lambda: ["trusted"]) as store:
        store.audit.record(EVENTS)
    return home


def run(*arguments: object, status: int = 0) -> str:
    """Run the command, and return what it printed, errors last."""
    result = CliRunner().invoke(main, ["network", "audit", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.stdout + result.stderr


def kinds(*arguments: object) -> list[str]:
    """What kinds of events it printed."""
    return [event["kind"] for event in json.loads(run("--json", *arguments))]


def test_the_table(home: Home) -> None:
    """Everything is there, the oldest first, in local time, and nothing of it moves a terminal's cursor."""
    lines = [" ".join(line.split()) for line in run().splitlines()]
    assert lines == [
        "TIME KIND FROM PEER USER ABOUT WHAT",
        "2024-03-31 12:00:00 connection lab7:51022 Bench A[lab7:51022] connected as a client",
        "2024-03-31 12:01:00 login lab7:51022 marie wrong\\x1b[2J name",
        "2024-03-31 13:00:00 lock 10.0.0.8 DMM acquired, exclusive",
        "2024-04-01 12:00:00 admin lab7:51022 marie requested",
    ]


def test_the_objects(home: Home) -> None:
    """Programs get all of it, and an empty array for nothing."""
    shown: list[dict[str, Any]] = json.loads(run("--json"))
    assert [AuditEvent(**{**each, "kind": EventKind(each["kind"])}) for each in shown] == EVENTS
    assert run("--json", "--start", "2030-01-01") == "[]\n"
    assert run("--start", "2030-01-01").split() == ["TIME", "KIND", "FROM", "PEER", "USER", "ABOUT", "WHAT"]


def test_what_was_asked_for(home: Home) -> None:
    """Bounds are included, a date is the whole day, kinds may be several, and the limit keeps the newest."""
    assert kinds("--end", "2024-03-31") == ["connection", "login", "lock"]
    assert kinds("--start", "2024-03-31T12:01:00", "--end", "2024-03-31T13:00:00") == ["login", "lock"]
    assert kinds("--kind", "lock", "--kind", "admin") == ["lock", "admin"]
    assert kinds("--user", "marie") == ["login", "admin"]
    assert kinds("--limit", 2) == ["lock", "admin"]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--start", "noon"], 2, "expected a date or a time like 2024-03-31"),
        (["--end", "2024-13-01"], 2, "expected a date or a time like 2024-03-31"),
        (["--kind", "nonsense"], 2, "nonsense"),
        (["--limit", "0"], 2, "0"),
        (["--database", "."], 2, "is a directory"),
        (["--database", "/proc/none/x"], 1, "/proc/none"),
    ],
)
def test_what_cannot_be(arguments: list[str], status: int, expected: str, home: Home) -> None:
    """What makes no sense ends with an error in words."""
    assert expected in run(*arguments, status=status)


def test_every_kind_can_be_asked_for() -> None:
    """The command knows all kinds of events without importing the database."""
    assert KINDS == tuple(kind.value for kind in EventKind)


async def test_what_a_manager_has_recorded(tmp_path: Path) -> None:
    """A client that connects, links and locks is found in another database, while the manager runs."""
    database = tmp_path / "lab.sqlite3"
    with open_store(database, trusted=lambda: ["trusted"]) as store:
        async with command_lab(DemoService(), store=store) as lab:
            async with open_client(HOST, lab.port, trust=None, name="Bench") as client:
                async with client.link("Demo") as demo, demo.lock():
                    pass
        shown = json.loads(run("--json", "--database", database))
    about_bench = [(event["kind"], event["message"]) for event in shown if event["peer"].startswith("Bench[")]
    assert ("link", "linked") in about_bench
    assert ("lock", "acquired, exclusive") in about_bench
    assert ("lock", "released") in about_bench
