from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import trio

from armillary.errors import ArmillaryError
from armillary.network.store import (
    AuditEvent,
    EventKind,
    LoginRefused,
    Store,
    StoreUnusable,
    UnknownUser,
    User,
    WrongPassword,
    open_store,
    table_requests,
)
from armillary.network.store.database import open_database

FEW = 10


def open_cheaply(path: Path | str) -> AbstractContextManager[Store]:
    """A store whose hashes are cheap, and that asks no resolver."""
    return open_store(path, iterations=FEW, trusted=lambda: ["localhost"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab" / "manager.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_cheaply(path) as opened:
        yield opened


def event(number: int = 0, kind: EventKind = EventKind.LOCK) -> AuditEvent:
    return AuditEvent(1_700_000_000.0 + number, kind, f"event {number}")


# -- users ---------------------------------------------------------------------------------------------------


def test_a_user_who_is_added_can_log_in(store: Store) -> None:
    """The right password brings what is known of the user."""
    store.users.add("marie", "polonium", is_admin=True)
    store.users.add("pierre", "radium", role="observer")
    assert User("marie", True, None) == store.users.login("marie", "polonium")
    assert User("pierre", False, "observer") == store.users.login("pierre", "radium")
    assert User("marie", True, None) == store.users.get("marie")


def test_who_may_not_log_in_is_told_as_peers_expect_it(store: Store) -> None:
    """Unknown names and wrong passwords have the texts that MSL-Network 1.0 sends."""
    store.users.add("marie", "polonium")
    with pytest.raises(WrongPassword, match=r"^Wrong login password$") as wrong:
        store.users.login("marie", "radium")
    with pytest.raises(UnknownUser, match=r"^Unregistered user$"):
        store.users.login("pierre", "polonium")
    for name in ("", "Marie", "marie ", "mari\udce9"):
        with pytest.raises(UnknownUser):
            store.users.login(name, "polonium")
    assert isinstance(wrong.value, (LoginRefused, ArmillaryError, ValueError))


def test_users_are_listed_by_name_and_by_age(store: Store) -> None:
    """`all` is sorted by name, `names` has the order in which they were added."""
    assert [] == store.users.all()
    assert [] == store.users.names()
    for name in ("pierre", "Zoë", "marie"):
        store.users.add(name, "x")
    assert ["Zoë", "marie", "pierre"] == [user.name for user in store.users.all()]
    assert ["pierre", "Zoë", "marie"] == store.users.names()
    assert None is store.users.get("paul")
    assert None is store.users.get("\udc80")


def test_what_cannot_be_added(store: Store) -> None:
    """Names without text, like a manager's, or taken, and users without a password are refused in words."""
    store.users.add("marie", "x")
    with pytest.raises(ValueError, match=r"^You must specify a username$"):
        store.users.add("", "x")
    with pytest.raises(ValueError, match=r'^A username cannot end with ":<integer>"$'):
        store.users.add("lab:12", "")
    for password in ("", None):
        with pytest.raises(ValueError, match=r"^You must specify a password for 'pierre'$"):
            store.users.add("pierre", password)
    with pytest.raises(ValueError, match=r"^A user with the name 'marie' already exists$"):
        store.users.add("marie", "y")
    with pytest.raises(ValueError, match="is_admin"):
        store.users.add("pierre", "x", role="administrator")
    assert ["marie"] == store.users.names()
    store.users.add("lab:twelve", "x")
    assert User("marie", False) == store.users.login("marie", "x")


def test_a_name_that_is_taken_in_the_very_moment_is_refused(store: Store, path: Path) -> None:
    """Of two programs that add the same user, the later one is refused, and the first password stays."""

    class Racing(str):
        __slots__ = ()

        def encode(self, *arguments: str) -> bytes:
            store.users.add("marie", "first")
            return super().encode(*arguments)

    with open_cheaply(path) as other:
        with pytest.raises(ValueError, match="already exists"):
            other.users.add("marie", Racing("second"))
    assert User("marie", False) == store.users.login("marie", "first")


def test_what_is_given_is_updated_and_nothing_else(store: Store) -> None:
    """Password, rights and role change each by itself."""
    store.users.add("marie", "one", role="observer")
    store.users.update("marie", is_admin=True)
    assert User("marie", True, "observer") == store.users.login("marie", "one")
    store.users.update("marie", password="two")
    assert User("marie", True, "observer") == store.users.login("marie", "two")
    with pytest.raises(WrongPassword):
        store.users.login("marie", "one")
    store.users.update("marie", is_admin=False, role="operator")
    assert User("marie", False, "operator") == store.users.login("marie", "two")
    store.users.update("marie", role="")
    assert User("marie", False, None) == store.users.get("marie")


def test_what_cannot_be_updated(store: Store) -> None:
    """Nobody, nothing, and an empty password are refused in the words of MSL-Network 1.0."""
    store.users.add("marie", "x")
    with pytest.raises(ValueError, match=r"^Cannot update 'paul'\. This user is not in the table\.$"):
        store.users.update("paul", password="x")
    with pytest.raises(ValueError, match=r"^Must specify either the password and/or the admin rights"):
        store.users.update("marie")
    with pytest.raises(ValueError, match=r"^You must specify a password for 'marie'$"):
        store.users.update("marie", password="", is_admin=True)
    with pytest.raises(ValueError, match="is_admin"):
        store.users.update("marie", role="administrator")
    assert User("marie", False) == store.users.login("marie", "x")


def test_a_removed_user_is_gone_with_the_role(store: Store) -> None:
    """Who has the name later has nothing of the one before."""
    store.users.add("marie", "x", is_admin=True, role="observer")
    store.users.remove("marie")
    with pytest.raises(ValueError, match=r"^Cannot delete 'marie'\. This user is not in the table\.$"):
        store.users.remove("marie")
    with pytest.raises(UnknownUser):
        store.users.login("marie", "x")
    store.users.add("marie", "y")
    assert User("marie", False, None) == store.users.login("marie", "y")


def test_a_role_is_lost_with_a_user_that_another_program_replaces(store: Store, path: Path) -> None:
    """Somebody who is removed and added again with MSL-Network 1.0 does not get the old role."""
    store.users.add("marie", "x", role="observer")
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM auth_users")
        other.execute("INSERT INTO auth_users VALUES (NULL, 'marie', x'00', x'00', 0)")
    other.close()
    assert User("marie", False, None) == store.users.get("marie")


def stored_key(path: Path, name: str) -> bytes:
    connection = sqlite3.connect(path)
    (key,) = connection.execute("SELECT key FROM auth_users WHERE username = ?", (name,)).fetchone()
    connection.close()
    return bytes(key)


def test_an_outdated_hash_is_replaced_at_the_next_login(path: Path) -> None:
    """A cheap hash lives until its user logs in; a wrong password changes nothing."""
    with open_store(path, iterations=FEW, trusted=list) as store:
        store.users.add("marie", "polonium")
    old = stored_key(path, "marie")
    with open_store(path, iterations=FEW + 1, trusted=list) as store:
        with pytest.raises(WrongPassword):
            store.users.login("marie", "radium")
        assert old == stored_key(path, "marie")
        store.users.login("marie", "polonium")
        new = stored_key(path, "marie")
        assert new.startswith(b"pbkdf2-sha256$11$")
        store.users.login("marie", "polonium")
        assert new == stored_key(path, "marie")


def test_a_password_that_changes_during_a_login_stays_changed(path: Path) -> None:
    """Replacing an outdated hash does not bring back a password that was changed meanwhile."""

    class Racing(str):
        __slots__ = ()
        encoded = 0

        def encode(self, *arguments: str) -> bytes:
            Racing.encoded += 1
            if Racing.encoded == 3:  # verified, levelled, and now hashed anew
                other.users.update("marie", password="new")
            return super().encode(*arguments)

    with open_store(path, iterations=FEW, trusted=list) as store:
        store.users.add("marie", "old")
    with open_store(path, iterations=FEW + 1, trusted=list) as store, open_cheaply(path) as other:
        store.users.login("marie", Racing("old"))
        assert 3 == Racing.encoded
        store.users.login("marie", "new")
        with pytest.raises(WrongPassword):
            store.users.login("marie", "old")


def test_who_is_replaced_during_a_login_is_not_logged_in(path: Path) -> None:
    """The password of a user who is gone brings nobody the rights of another one of that name."""

    class Racing(str):
        __slots__ = ()

        def encode(self, *arguments: str) -> bytes:
            other.users.remove("marie")
            other.users.add("marie", "new", is_admin=True)
            return super().encode(*arguments)

    with open_cheaply(path) as store, open_cheaply(path) as other:
        store.users.add("marie", "old")
        with pytest.raises(UnknownUser):
            store.users.login("marie", Racing("old"))


def test_a_hash_that_cannot_be_replaced_keeps_nobody_out(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program keeps the database, the right password is still right, and the log says why."""
    with open_store(path, iterations=FEW, trusted=list) as store:
        store.users.add("marie", "polonium")
    with open_store(path, iterations=FEW + 1, trusted=list, busy_timeout=0.01) as store:
        with keeping(path):
            assert User("marie", False) == store.users.login("marie", "polonium")
    assert "outdated hash" in caplog.text
    assert "polonium" not in caplog.text


# -- hosts ---------------------------------------------------------------------------------------------------


def test_a_new_table_trusts_this_computer(tmp_path: Path) -> None:
    """An empty table of hosts is filled when the store is opened, and only then and only if it is empty."""
    with open_store(tmp_path / "a", trusted=lambda: ["one", "two", "one"]) as store:
        assert ["one", "two"] == store.hostnames.names()
        store.hostnames.remove("one")

    def fail() -> list[str]:
        raise AssertionError("asked although there is a host")

    with open_store(tmp_path / "a", trusted=fail) as store:
        assert ["two"] == store.hostnames.names()
        store.hostnames.remove("two")
        assert [] == store.hostnames.names()
    with open_store(tmp_path / "a", trusted=lambda: ["one"]) as store:
        assert ["one"] == store.hostnames.names()
    with open_store(tmp_path / "b") as store:
        assert "localhost" in store.hostnames.names()


def test_hosts_come_and_go(store: Store) -> None:
    """Adding twice is adding once; names are sorted; removing an unknown one is refused in words."""
    for name in ("lab8", "lab7", "lab8"):
        store.hostnames.add(name)
    assert ["lab7", "lab8", "localhost"] == store.hostnames.names()
    store.hostnames.remove("lab8")
    with pytest.raises(ValueError, match=r"^Cannot delete 'lab8'\. This hostname is not in the table\.$"):
        store.hostnames.remove("lab8")
    with pytest.raises(ValueError, match="hostname"):
        store.hostnames.add("")


# -- the file ------------------------------------------------------------------------------------------------


def test_a_new_database_is_its_owners(path: Path) -> None:
    """Directories are made, nobody else can read the file, and what was written is there the next time."""
    with open_cheaply(path) as store:
        store.users.add("marie", "x")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    with open_cheaply(str(path)) as store:
        assert ["marie"] == store.users.names()
    assert [path.name] == os.listdir(path.parent)


def test_an_existing_database_keeps_its_permissions(path: Path) -> None:
    """Who lets a group read the database goes on doing so."""
    with open_cheaply(path):
        pass
    path.chmod(0o640)
    with open_cheaply(path):
        pass
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


def test_a_database_in_memory() -> None:
    """``:memory:`` is a database that no file has."""
    with open_cheaply(":memory:") as store:
        store.users.add("marie", "x")
        assert ["marie"] == store.users.names()
    assert not Path(":memory:").exists()


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """A file with something else in it is an error that names it, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("buy more radium" * 100)
    with pytest.raises(StoreUnusable, match=r"notes\.txt"):
        with open_store(path):
            pass
    assert path.read_text() == "buy more radium" * 100
    with pytest.raises(StoreUnusable, match="unable to open"):
        with open_store(tmp_path):
            pass


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    """A table of the same name with other columns is an error that names both, not a puzzle later on."""
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE connections (time REAL, who TEXT)")
    other.close()
    with pytest.raises(StoreUnusable, match=r"expected a table 'connections' .* got time, who"):
        with open_store(path):
            pass


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


def test_a_database_that_somebody_keeps_is_an_error_after_a_while(path: Path) -> None:
    """Writing gives up after the time-out and has written nothing; reading goes on; later all is well."""
    with open_store(path, busy_timeout=0.05, trusted=list) as store:
        with keeping(path):
            begun = time.perf_counter()
            with pytest.raises(StoreUnusable, match="locked") as raised:
                store.hostnames.add("lab7")
            assert time.perf_counter() - begun >= 0.04
            assert [] == store.hostnames.names()
        assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
        store.hostnames.add("lab8")
        assert ["lab8"] == store.hostnames.names()


def test_a_transaction_that_fails_has_done_nothing(path: Path) -> None:
    """What raises in the middle, whatever it is, leaves the database as it was, and usable."""
    with open_database(path) as database:
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error):
                with database.writing() as connection:
                    connection.execute("INSERT INTO auth_hostnames VALUES ('lab7')")
                    raise error
        with database.reading() as connection:
            assert [] == connection.execute("SELECT * FROM auth_hostnames").fetchall()


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.users.names(),
        lambda store: store.users.add("marie", "x"),
        lambda store: store.users.login("marie", "x"),
        lambda store: store.hostnames.add("lab7"),
        lambda store: store.audit.record([event()]),
        lambda store: store.audit.events(),
        lambda store: store.database.tables(),
    ],
)
def test_a_closed_store_is_closed(path: Path, use: Callable[[Store], object]) -> None:
    """After the block every method says that the database is closed."""
    with open_cheaply(path) as store:
        pass
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        use(store)


def test_closing_waits_for_who_is_at_it(path: Path) -> None:
    """Leaving the block while a worker thread writes lets that transaction come to its end."""
    in_transaction, go_on = threading.Event(), threading.Event()

    def write(store: Store) -> None:
        with store.database.writing() as connection:
            in_transaction.set()
            assert go_on.wait(10)
            connection.execute("INSERT INTO auth_hostnames VALUES ('lab7')")

    with ThreadPoolExecutor() as pool:
        with open_store(path, trusted=list) as store:
            writing = pool.submit(write, store)
            assert in_transaction.wait(10)
            threading.Timer(0.05, go_on.set).start()
        writing.result(10)
    with open_store(path, trusted=list) as store:
        assert ["lab7"] == store.hostnames.names()


def test_many_threads_at_once(store: Store) -> None:
    """Threads that log in, record and ask at the same time get in nobody's way, and nothing is lost."""
    store.users.add("marie", "polonium")

    def work(number: int) -> None:
        for turn in range(20):
            store.audit.record([event(number * 100 + turn), event(number * 100 + turn)])
            assert User("marie", False) == store.users.login("marie", "polonium")
            with pytest.raises(WrongPassword):
                store.users.login("marie", "x")
            store.hostnames.add(f"lab{number}")
            assert store.audit.events(limit=1)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result()
    assert 8 * 20 * 2 == len(store.audit.events())
    assert [f"lab{number}" for number in range(8)] == store.hostnames.names()[:-1]


# -- requests of administrators ------------------------------------------------------------------------------


def test_administrators_ask_in_the_words_of_the_old_library(store: Store, path: Path) -> None:
    """Each request of MSL-Network 1.0 to its tables is answered as there."""
    ask = table_requests(store)
    assert None is ask["users_table.insert"]("pierre", "x", 0)
    ask["users_table.insert"]("marie", "y", "yes")
    assert [("marie", True), ("pierre", False)] == ask["users_table.users"]()
    assert ["pierre", "marie"] == ask["users_table.usernames"]()
    assert True is ask["users_table.is_admin"]("marie")
    assert False is ask["users_table.is_admin"]("pierre") is ask["users_table.is_admin"]("paul")
    assert True is ask["users_table.is_user_registered"]("marie")
    assert False is ask["users_table.is_user_registered"]("paul")
    assert True is ask["users_table.is_password_valid"]("marie", "y")
    assert False is ask["users_table.is_password_valid"]("marie", "x")
    ask["users_table.update"]("marie", is_admin=False)
    ask["users_table.update"]("marie", password="z")
    assert True is ask["users_table.is_password_valid"]("marie", "z")
    ask["users_table.delete"]("pierre")
    assert [("marie", False)] == ask["users_table.users"]()
    ask["hostnames_table.insert"]("lab7")
    ask["hostnames_table.delete"]("localhost")
    assert ["lab7"] == ask["hostnames_table.hostnames"]()
    store.audit.record([event(kind=EventKind.CONNECTION)])
    assert [1] == [row[0] for row in ask["connections_table.connections"](start="2020-01-01")]
    for table in ("connections_table", "hostnames_table", "users_table"):
        assert str(path) == ask[f"{table}.path"]()
        assert {"connections", "auth_hostnames", "auth_users"} <= set(ask[f"{table}.tables"]())
    assert ["hostname"] == ask["users_table.column_names"]("auth_hostnames")
    assert ["TEXT"] == ask["users_table.column_datatypes"]("auth_hostnames")
    assert [(0, "hostname", "TEXT", 1, None, 0)] == ask["users_table.table_info"]("auth_hostnames")
    assert [] == ask["users_table.table_info"]("no such table")


def test_every_request_that_is_allowed_has_an_answer(store: Store) -> None:
    """What the protocol lists of the tables is what the store offers, no more and no less."""
    from armillary.network.protocol.roles import ADMIN_REQUESTS

    listed = {name for name in ADMIN_REQUESTS if "_table." in name}
    assert listed == set(table_requests(store))
