"""The manager of the façade of MSL-Network: its start, what it prints, whom it lets in, and its end."""

from __future__ import annotations

import inspect
import re
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
import trio
from msl_process import COMMAND, PATIENCE, RUNNING, ManagerProgram, free_port, manager, messages, run, running

from armillary.network import Service as NativeService
from armillary.network import bound_ports, open_client, run_service, serve_manager
from armillary.network.manager import Manager as NativeManager
from msl.network import (
    ConnectionsTable,
    HostnamesTable,
    UsersTable,
    cryptography,
    filter_run_forever_kwargs,
)
from msl.network import (
    manager as manager_module,
)
from msl.network.constants import HOSTNAME
from msl.network.manager import Manager, run_forever

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"


def log_of(home: Path) -> str:
    """What is in the only log file of a home."""
    (path,) = (home / "logs").iterdir()
    assert re.fullmatch(r"manager-\d{4}(-\d\d){5}\.log", path.name)
    return path.read_text("utf-8")


def rows(program: ManagerProgram) -> list[tuple[int, str]]:
    """Port and message of all that was recorded of connections."""
    with closing(sqlite3.connect(program.home / "manager.sqlite3")) as database:
        return database.execute("SELECT port, message FROM connections ORDER BY pid").fetchall()


def ended(program: ManagerProgram, timeout: float) -> float:
    """How long it took to end."""
    began = time.monotonic()
    program.wait(timeout)
    return time.monotonic() - began


def test_signatures() -> None:
    """The functions and the class take what those of 1.0 take."""
    parameters = inspect.signature(run_forever).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "host": None,
        "port": 1875,
        "auth_hostname": False,
        "auth_login": False,
        "auth_password": None,
        "database": None,
        "disable_tls": False,
        "cert_file": None,
        "key_file": None,
        "key_file_password": None,
        "log_level": "INFO",
        "log_file": None,
    }
    assert {each.kind for each in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert list(inspect.signature(Manager).parameters) == [
        "port",
        "password",
        "login",
        "hostnames",
        "connections_table",
        "users_table",
        "hostnames_table",
        "loop",
    ]
    assert list(inspect.signature(manager_module.Peer).parameters) == ["writer"]


def test_filter() -> None:
    """Of keyword arguments those of run_forever are kept, and a device's password is the manager's."""
    given = dict.fromkeys(inspect.signature(run_forever).parameters, 1)
    assert filter_run_forever_kwargs(**given, username="x", timeout=2, assert_hostname=False) == given
    assert filter_run_forever_kwargs(password_manager="a") == {"auth_password": "a"}
    assert filter_run_forever_kwargs(password_manager="a", auth_password="b") == {"auth_password": "b"}


def test_manager_object(tmp_path: Path) -> None:
    """A manager that nobody has connected to has its settings and tables, and empty registries."""
    database = str(tmp_path / "x.sqlite3")
    with (
        ConnectionsTable(database=database) as connections,
        UsersTable(database=database) as users,
        HostnamesTable(database=database) as hostnames,
    ):
        made = Manager(1875, None, True, None, connections, users, hostnames, None)
        assert str(made) == f"Manager[{HOSTNAME}:1875]"
        assert (made.port, made.password, made.login, made.hostnames) == (1875, None, True, None)
        assert made.users_table is users
        assert made.connections_table is connections
        assert made.hostnames_table is hostnames
        assert made.clients == made.services == made.service_links == made.service_locks == {}
        assert made.client_writers == made.service_writers == {}
        identity = made.identity()
        assert identity["attributes"] == {"identity": "() -> dict", "link": "(service: str) -> bool"}
        assert (identity["hostname"], identity["port"]) == (HOSTNAME, 1875)


async def test_manager_object_with_peers(tmp_path: Path) -> None:
    """The manager object has who is connected, linked and locked, and where from."""
    natives: list[NativeManager] = []
    with ExitStack() as stack:
        database = str(tmp_path / "x.sqlite3")
        kinds = (ConnectionsTable, UsersTable, HostnamesTable)
        connections, users, hostnames = (stack.enter_context(kind(database=database)) for kind in kinds)
        async with trio.open_nursery() as nursery:
            serve = partial(serve_manager, 0, host="127.0.0.1", on_start=natives.append)
            (port,) = bound_ports(await nursery.start(serve))
            made = Manager(port, None, None, None, connections, users, hostnames, None)
            made._native = natives[0]
            run = partial(run_service, NativeService(name="S"), "127.0.0.1", port, trust=None)
            service_name = await nursery.start(run)
            async with (
                open_client("127.0.0.1", port, trust=None, name="C") as client,
                client.link("S") as link,
                link.lock(),
            ):
                name = client.network_name
                assert list(made.clients) == [name]
                assert list(made.services) == ["S"]
                assert made.service_links == made.service_locks == {"S": [name]}
                assert made.identity()["clients"] == made.clients
                assert list(made.service_writers) == [service_name]
                peer = made.client_writers[name]
            nursery.cancel_scope.cancel()
    assert (peer.ip_address, peer.hostname, peer.is_admin) == ("127.0.0.1", "localhost", False)
    assert peer.network_name == name == f"C[{peer.address}]"
    assert peer.address == f"{HOSTNAME}:{peer.port}"
    assert peer.domain == "127.0.0.1"


# -- the start ----------------------------------------------------------------------------------------------


def test_start_with_tls(tmp_path: Path) -> None:
    """The lines of the start are in the order of 1.0, on standard output as in the log file."""
    with manager(tmp_path, tls=True) as program:
        certificate = program.home / "certs" / "localhost.crt"
        database = program.home / "manager.sqlite3"
        expected = [
            f"loaded certificate {certificate}",
            f"loaded the 'connections' table from {database}",
            f"loaded the 'auth_hostnames' table from {database}",
            f"loaded the 'auth_users' table from {database}",
            "not using authentication",
            f"{RUNNING} {HOSTNAME}:{program.port} (TLS ENABLED)",
        ]
        assert messages(program.out) == expected
        assert messages(log_of(program.home)) == expected
        for line in program.out.splitlines():
            assert re.match(rf"{STAMP} \[INFO ] msl\.network - ", line)
        for line in log_of(program.home).splitlines():
            assert re.match(rf"{STAMP} \[INFO    ] msl\.network - ", line)
        assert program.err == ""
        assert certificate.exists()
        assert (program.home / "keys" / "localhost.key").exists()


def test_start_without_tls(tmp_path: Path) -> None:
    """Without TLS there is no certificate, and the log file is the one that is wanted, in a new directory."""
    log = tmp_path / "new" / "my.log"
    with manager(tmp_path, "--log-file", str(log)) as program:
        lines = messages(log.read_text("utf-8"))
        assert lines[0] == f"loaded the 'connections' table from {program.home / 'manager.sqlite3'}"
        assert lines[-1] == f"{RUNNING} {HOSTNAME}:{program.port} (TLS DISABLED)"
        assert not (program.home / "certs").exists()
        assert not (program.home / "logs").exists()


def test_log_is_truncated(tmp_path: Path) -> None:
    """A log file that is there is emptied."""
    log = tmp_path / "my.log"
    log.write_text("old\n" * 1000)
    with manager(tmp_path, "--log-file", str(log), tls=True):
        assert messages(log.read_text())[0].startswith("loaded certificate ")


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--port", "None"], "ValueError: The port must be a positive integer"),
        (["--port", "0"], "ValueError: The port must be a positive integer"),
        (["--port", "-5"], "ValueError: The port must be a positive integer"),
        (["--port", "1e3"], "ValueError: The port must be a positive integer"),
        (["--port", "65536"], "ValueError: The port must be less than 65536"),
        (["--log-level", "X"], "ValueError: Cannot set logging level to 'X'"),
        (["--auth-login", "--auth-hostname"], "Cannot specify multiple authentication methods"),
        (["--auth-login", "--auth-password", "x"], "Cannot specify multiple authentication methods"),
        (["--auth-password", ""], "ValueError: The password of the Manager is empty"),
    ],
)
def test_wrong_options(tmp_path: Path, flags: list[str], error: str) -> None:
    """What cannot be is logged, printed on standard error, and the status is 0 all the same."""
    done = run(tmp_path, "start", "--disable-tls", *flags)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == error
    assert messages(done.stdout)[-1] == error
    assert f"[ERROR] msl.network - {error}" in done.stdout
    assert RUNNING not in done.stdout


def test_empty_users_table(tmp_path: Path) -> None:
    """If nobody could log in, standard error has exactly two lines."""
    done = run(tmp_path, "start", "--auth-login")
    first, second = done.stderr.splitlines()
    assert first == "The 'auth_users' table is empty, no one could log in"
    assert "msl-network user" in second
    assert done.returncode == 0


def test_port_is_taken(tmp_path: Path) -> None:
    """If somebody else listens on the port, that is said, and the status is 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run(tmp_path, "start", "--disable-tls", "--host", "127.0.0.1", "--port", str(port))
    assert done.returncode == 0
    assert done.stderr.startswith(f"OSError: Cannot listen on 127.0.0.1:{port}: ")
    assert RUNNING not in done.stdout


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--cert-file", "nothing.crt"], "FileNotFoundError: "),
        (["--key-file", "nothing.key"], "FileNotFoundError: "),
        (["--disable-tls", "--database", "no.txt"], "DatabaseError: "),
        (["--disable-tls", "--auth-password", "empty.txt"], "ValueError: "),
    ],
)
def test_unusable_files(tmp_path: Path, flags: list[str], error: str) -> None:
    """What raises an exception in run_forever ends the command with status 1, and one line."""
    (tmp_path / "no.txt").write_text("this is no database, but it is long enough to be looked at" * 100)
    (tmp_path / "empty.txt").write_text("\n")
    done = run(tmp_path, "start", *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(error)
    assert "Traceback" not in done.stderr


# -- certificates -------------------------------------------------------------------------------------------


def test_host_has_its_own_certificate(tmp_path: Path) -> None:
    """On one address a manager has a certificate and a key of that name, which -D encrypts and decrypts."""
    flags = ("--host", "127.0.0.1", "-D", "pw with", "blank")
    for _ in range(2):
        with manager(tmp_path, *flags, tls=True) as program:
            certificate = program.home / "certs" / "127.0.0.1.crt"
            key = program.home / "keys" / "127.0.0.1.key"
            assert messages(program.out)[0] == f"loaded certificate {certificate}"
            assert messages(program.out)[-1] == f"{RUNNING} 127.0.0.1:{program.port} (TLS ENABLED)"
            with pytest.raises(TypeError):
                cryptography.load_key(str(key))
            cryptography.load_key(str(key), password="pw with blank")
            client = program.connect(host="127.0.0.1", disable_tls=False, cert_file=str(certificate))
            client.disconnect()
    done = run(tmp_path, "start", "--host", "127.0.0.1")
    assert done.returncode == 1
    assert done.stderr.startswith("SSLError: ")


@pytest.mark.parametrize("words", [["pw with blank"], ["pw", "with", "blank"], ["password.txt"]])
def test_own_key_with_password(tmp_path: Path, words: list[str]) -> None:
    """A key of one's own may be encrypted; the password is one word, or several, or in a file."""
    (tmp_path / "password.txt").write_text("pw with blank\nnot this\n")
    made = run(tmp_path, "keygen", "ecc", "--out", "my.key", "-p", "pw", "with", "blank")
    assert made.stdout == "Created private ECC key 'my.key'\n"
    with manager(tmp_path, "-k", "my.key", "-D", *words, tls=True) as program:
        certificate = program.home / "certs" / "localhost.crt"
        assert messages(program.out)[0] == f"loaded certificate {certificate}"
        program.connect(disable_tls=False, cert_file=str(certificate)).disconnect()


def test_own_certificate_and_key(tmp_path: Path) -> None:
    """A certificate of one's own is shown with its key."""
    run(tmp_path, "keygen", "--out", "my.key")
    run(tmp_path, "certgen", "my.crt", "--key-file", "my.key")
    with manager(tmp_path, "-k", "my.key", "-c", "my.crt", tls=True) as program:
        assert messages(program.out)[0] == "loaded certificate my.crt"
        shown = ssl.get_server_certificate(("127.0.0.1", program.port), timeout=PATIENCE)
        assert shown.strip() == (tmp_path / "my.crt").read_text().strip()


def test_certificate_for_another_name(tmp_path: Path) -> None:
    """A certificate for another name is refused, with a hint, under every name of this computer."""
    key = cryptography.generate_key(path=str(tmp_path / "k.key"), algorithm="ecc")
    name = cryptography.x509.Name(
        [cryptography.x509.NameAttribute(cryptography.x509.NameOID.COMMON_NAME, "elsewhere")]
    )
    certificate = cryptography.generate_certificate(path=str(tmp_path / "c.crt"), key_path=key, name=name)
    with manager(tmp_path, "-c", certificate, "-k", key, tls=True) as program:
        for host in ("localhost", "127.0.0.1", HOSTNAME):
            how = {"host": host, "disable_tls": False, "cert_file": certificate}
            with pytest.raises(ConnectionError, match="set assert_hostname=False"):
                program.connect(**how)
            program.connect(**how, assert_hostname=False).disconnect()


def test_plain_client_of_a_tls_manager(tmp_path: Path) -> None:
    """The manager is silent to who speaks no TLS, and the client ends the wait with a hint."""
    with manager(tmp_path, tls=True) as program:
        with pytest.raises(ConnectionError, match="You have TLS disabled"):
            program.connect(timeout=1)
        assert rows(program) == []


def test_tls_client_of_a_plain_manager(tmp_path: Path) -> None:
    """Who speaks TLS to a manager without it is told so at the end of the message."""
    key = cryptography.generate_key(path=str(tmp_path / "k.key"), algorithm="ecc")
    certificate = cryptography.generate_certificate(path=str(tmp_path / "c.crt"), key_path=key)
    with manager(tmp_path) as program:
        for cert_file in (certificate, None):
            with pytest.raises(ConnectionError, match=r"Try setting disable_tls=True\Z"):
                program.connect(disable_tls=False, cert_file=cert_file, host="127.0.0.1")


def test_two_rows_for_a_client(tmp_path: Path) -> None:
    """One client makes two rows in the table of connections, which are there as soon as it is."""
    with manager(tmp_path, tls=True) as program:
        certificate = str(program.home / "certs" / "localhost.crt")
        client = program.connect(disable_tls=False, cert_file=certificate)
        assert rows(program) == [
            (client.port, "new connection request"),
            (client.port, "connected as a client"),
        ]
        client.disconnect()


def test_locked_database(tmp_path: Path) -> None:
    """While another program keeps the database, clients come in all the same."""
    with manager(tmp_path) as program, closing(sqlite3.connect(program.home / "manager.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        client = program.connect(timeout=PATIENCE)
        assert str(client) in client.identities()["clients"]
        database.rollback()
        client.disconnect()


# -- who may come in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["open sesame"], ["open", "sesame"], ["password.txt"]])
def test_manager_password(tmp_path: Path, words: list[str]) -> None:
    """A manager's password is one word, or several, or in a file, and nobody comes in without it."""
    (tmp_path / "password.txt").write_text("open sesame\n")
    with manager(tmp_path, "--auth-password", *words) as program:
        assert "using a password for authentication" in messages(program.out)
        with pytest.raises(ValueError, match="Wrong Manager password"):
            program.connect(password_manager="open")
        program.connect(password_manager="open sesame").disconnect()


def test_trusted_hostnames(tmp_path: Path) -> None:
    """This computer is trusted as long as no other host is, and not if only another one is."""
    with manager(tmp_path, "--auth-hostname") as program:
        assert "using trusted hosts for authentication" in messages(program.out)
        program.connect().disconnect()
    database = str(tmp_path / "home" / "manager.sqlite3")
    with HostnamesTable(database=database) as table:
        for name in table.hostnames():
            table.delete(name)
        table.insert("elsewhere")
    with (
        manager(tmp_path, "--auth-hostname") as program,
        pytest.raises(ValueError, match="is not a trusted hostname"),
    ):
        program.connect()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A place with an administrator and a user."""
    run(tmp_path, "user", "add", "marie", "--password", "polonium", "--admin")
    run(tmp_path, "user", "add", "pierre", "--password", "radium")
    return tmp_path


def test_login(lab: Path) -> None:
    """Users log in; what an administrator can read of the manager is what it was set up with."""
    with manager(lab, "--auth-login") as program:
        assert "using a login for authentication" in messages(program.out)
        with pytest.raises(ValueError, match="Wrong login password"):
            program.connect(username="pierre", password="polonium")
        with pytest.raises(ValueError, match="Unregistered user"):
            program.connect(username="henri", password="polonium")
        user = program.connect(username="pierre", password="radium")
        with pytest.raises(RuntimeError, match="You must be an administrator"):
            user.admin_request("port")
        admin = program.connect(name="A", username="marie", password="polonium")
        assert admin.admin_request("port") == program.port
        assert admin.admin_request("password") is None
        assert admin.admin_request("login") is True
        assert admin.admin_request("hostnames") is None
        assert admin.admin_request("users_table.usernames") == ["marie", "pierre"]
        assert admin.admin_request("users_table.users") == [["marie", True], ["pierre", False]]
        assert admin.admin_request("users_table.is_user_registered", "pierre") is True
        assert set(admin.admin_request("clients")) == {str(admin), str(user)}
        assert admin.admin_request("services") == {}
        assert admin.admin_request("service_links") == admin.admin_request("service_locks") == {}
        assert HOSTNAME in admin.admin_request("hostnames_table.hostnames")
        (*_, last) = admin.admin_request("connections_table.connections")
        assert last[4:] == [admin.port, "connected as a client"]
        with pytest.raises(RuntimeError, match="'Manager' object has no attribute '_native'"):
            admin.admin_request("_native")
        user.disconnect()
        admin.disconnect()


# -- the end ------------------------------------------------------------------------------------------------


def test_shutdown_by_an_administrator(lab: Path) -> None:
    """A manager that is shut down has ended in five seconds, and by then nobody is connected any more."""
    with manager(lab) as program:
        other = program.connect()
        admin = program.connect(username="marie", password="polonium")
        assert admin.admin_request("shutdown_manager") is None
        assert ended(program, PATIENCE) < 5
        assert program.process.returncode == 0
        assert not other.is_connected()
        assert not admin.is_connected()
        for _ in range(20):
            other.disconnect()
            admin.disconnect()
        assert program.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a manager and its connections in five seconds, and the status is 0."""
    with manager(tmp_path) as program:
        client = program.connect()
        began = time.monotonic()
        assert program.end(number) == 0
        assert time.monotonic() - began < 5
        assert program.err == ""
        assert messages(program.out)[-1] == "the Network Manager has ended"
        client.disconnect()
        assert not client.is_connected()


def test_in_another_thread(tmp_path: Path) -> None:
    """A manager also runs in a thread that is not the main one, and again when it has ended."""
    port = free_port()
    program = tmp_path / "program.py"
    program.write_text(f"""
import threading
from msl.network import UsersTable, connect, manager
with UsersTable() as table:
    table.insert("marie", "polonium", True)
for number in range(2):
    thread = threading.Thread(target=manager.run_forever, kwargs={{"port": {port}, "disable_tls": True}})
    thread.start()
    while True:
        try:
            client = connect(port={port}, disable_tls=True, username="marie", password="polonium")
            break
        except ConnectionError:
            pass
    client.admin_request("shutdown_manager")
    thread.join()
print("done")
""")
    with running([sys.executable, str(program)], tmp_path / "home", tmp_path) as process:
        assert process.wait() == 0
        assert process.out.splitlines()[-1] == "done"
        assert process.err == ""


# -- the log ------------------------------------------------------------------------------------------------


def test_logging_level(lab: Path) -> None:
    """The level is a name in any case, or a number, and an administrator changes it."""
    with manager(lab, "--log-level", "info") as program:
        admin = program.connect(username="marie", password="polonium")
        assert f"{admin} is connected as a client" in messages(program.out)
        assert admin.admin_request("set_logging_level", "warning") is True
        other = program.connect(name="Unseen")
        assert admin.admin_request("set_logging_level", 20) is True
        seen = program.connect(name="Seen")
        assert admin.admin_request("set_logging_level", "loud") is False
        admin.identities()
        log = program.out
        assert f"{seen} is connected" in log
        assert f"{other} is connected" not in log
        assert "[ERROR] msl.network - invalid logging level 'LOUD'" in log
        for client in (admin, other, seen):
            client.disconnect()


def test_numeric_level(tmp_path: Path) -> None:
    """With the level of errors nothing is printed while all is well."""
    log = tmp_path / "my.log"
    port = free_port()
    words = ["start", "--disable-tls", "--port", str(port), "--log-level", "40", "--log-file", str(log)]
    with running([*COMMAND, *words], tmp_path / "home", tmp_path) as program:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert program.end() == 0
        assert program.out == program.err == log.read_text() == ""


def test_nothing_is_left(tmp_path: Path) -> None:
    """A client leaves no thread behind when its manager has ended."""
    before = threading.enumerate()
    with manager(tmp_path) as program:
        client = program.connect()
        program.end()
        client.disconnect()
    deadline = time.monotonic() + PATIENCE
    while threading.enumerate() != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
