"""One database, used by MSL-Network 1.0 and by us in turns."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msl_peer import run_command, run_peer

from armillary.network.locations import Home
from armillary.network.store import AuditEvent, EventKind, User, WrongPassword, open_store

pytestmark = pytest.mark.interop

_FILL = """
from types import SimpleNamespace
from msl.network import ConnectionsTable, HostnamesTable, UsersTable
(path,) = given
with UsersTable(database=path) as users:
    users.insert("marie", "polonium", True)
    users.insert("Zoë é", "pàß wörd", False)
with HostnamesTable(database=path) as hostnames:
    hostnames.insert("lab7")
    names = hostnames.hostnames()
with ConnectionsTable(database=path) as connections:
    peer = SimpleNamespace(ip_address="10.0.0.7", domain="lab7.example.org", port=51022)
    connections.insert(peer, "connected as a client")
    connections.insert(peer, "disconnected")
    rows = connections.connections()
answer = [names, rows]
"""

_LOOK = """
from msl.network import ConnectionsTable, HostnamesTable, UsersTable
path, logins = given
with UsersTable(database=path) as users:
    answer = {
        "users": users.users(),
        "valid": [users.is_password_valid(*login) for login in logins],
        "salts": [len(record[3]) for record in users.records()],
    }
with HostnamesTable(database=path) as hostnames:
    answer["hostnames"] = hostnames.hostnames()
with ConnectionsTable(database=path, as_datetime=True) as connections:
    answer["connections"] = [[*row[:1], row[1].isoformat(), *row[2:]] for row in connections.connections()]
"""

_CHANGE = """
from types import SimpleNamespace
from msl.network import ConnectionsTable, HostnamesTable, UsersTable
(path,) = given
with UsersTable(database=path) as users:
    users.update("marie", password="radium")
    users.update("pierre", is_admin=True)
    users.delete("irene")
    users.insert("irene", "new", False)
with HostnamesTable(database=path) as hostnames:
    hostnames.delete("lab7")
    hostnames.insert("lab8")
with ConnectionsTable(database=path) as connections:
    connections.insert(SimpleNamespace(ip_address="::1", domain="x", port=1), "theirs")
answer = None
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manager.sqlite3"


def schema(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return dict(rows)


def test_a_database_of_the_old_library_works(tmp_path: Path, path: Path) -> None:
    """Its users log in with their passwords, its hosts are trusted, its connections are found by time."""
    names, rows = run_peer(tmp_path, _FILL, str(path))
    before = path.stat().st_mode
    with open_store(path) as store:
        assert [User("Zoë é", False), User("marie", True)] == store.users.all()
        assert User("marie", True) == store.users.login("marie", "polonium")
        assert User("Zoë é", False) == store.users.login("Zoë é", "pàß wörd")
        with pytest.raises(WrongPassword):
            store.users.login("marie", "pàß wörd")
        assert names == store.hostnames.names()
        assert [tuple(row) for row in rows] == store.audit.connections()
        day = rows[0][1][:10]
        assert 2 == len(store.audit.connections(day, rows[-1][1]))
        assert [] == store.audit.connections(end="2020-01-01")
    assert before == path.stat().st_mode


def test_logging_in_replaces_the_old_hash_and_only_then(tmp_path: Path, path: Path) -> None:
    """Who has logged in here cannot log in there any more, which says so; who has not can do both."""
    run_peer(tmp_path, _FILL, str(path))
    with open_store(path) as store:
        store.users.login("marie", "polonium")
        store.users.login("marie", "polonium")
        logins = [["marie", "polonium"], ["marie", ""], ["Zoë é", "pàß wörd"]]
        seen = run_peer(tmp_path, _LOOK, str(path), logins)
    assert [False, False, True] == seen["valid"]
    assert [16, 16] == seen["salts"]


def test_the_old_library_can_open_our_database(tmp_path: Path, path: Path) -> None:
    """It reads and changes all but our passwords, what it sets is good here, and nobody inherits a role."""
    events = [AuditEvent(1_700_000_000.0, EventKind.CONNECTION, "ours", "10.0.0.7", "lab7", 51022)]
    events.append(AuditEvent(1_700_000_001.0, EventKind.LOCK, "not for them"))
    with open_store(path, trusted=lambda: ["lab7"]) as store:
        store.users.add("marie", "polonium", is_admin=True)
        store.users.add("pierre", "x", role="observer")
        store.users.add("irene", "y", role="observer")
        store.audit.record(events)
        [ours] = store.audit.connections()
    seen = run_peer(tmp_path, _LOOK, str(path), [["marie", "polonium"]])
    assert [["irene", False], ["marie", True], ["pierre", False]] == seen["users"]
    assert [False] == seen["valid"]
    assert ["lab7"] == seen["hostnames"]
    assert [list(ours)] == seen["connections"]

    run_peer(tmp_path, _CHANGE, str(path))
    with open_store(path) as store:
        assert User("marie", True) == store.users.login("marie", "radium")
        assert User("pierre", True, "observer") == store.users.login("pierre", "x")
        assert User("irene", False, None) == store.users.login("irene", "new")
        assert ["lab8"] == store.hostnames.names()
        assert ["ours", "theirs"] == [row.message for row in store.audit.connections()]
        assert ["ours", "not for them"] == [event.message for event in store.audit.events()]


def test_our_tables_are_theirs_to_the_letter(tmp_path: Path) -> None:
    """The three tables are made by the statements of MSL-Network 1.0, and left as they are in its files."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    run_peer(tmp_path, _FILL, str(theirs))
    made = schema(theirs)
    for path in (theirs, ours):
        with open_store(path):
            pass
        assert made.items() <= schema(path).items()
        assert {"armillary_audit", "armillary_roles"} == set(schema(path)) - set(made)


def test_both_commands_share_one_database(tmp_path: Path) -> None:
    """What one command line adds, the other one lists."""
    path = Home(tmp_path).database
    assert "marie has been added\n" == run_command(tmp_path, "user", "add", "marie", "-p", "polonium", "is")
    with open_store(path) as store:
        assert User("marie", False) == store.users.login("marie", "polonium is")
        store.users.add("pierre", "x", is_admin=True)
        store.hostnames.add("lab7")
    listed: Any = run_command(tmp_path, "user", "list").splitlines()[-2:]
    assert [["marie", "False"], ["pierre", "True"]] == [line.split() for line in listed]
    assert "  lab7\n" in run_command(tmp_path, "hostname", "list")
