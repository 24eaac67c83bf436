"""Clients of the façade of MSL-Network: connecting, asking the manager, and leaving it."""

from __future__ import annotations

import builtins
import concurrent.futures
import getpass
import inspect
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from msl_lab import PATIENCE, Echo, _bounded, eventually, open_lab  # noqa: F401

from armillary.network import Authenticate, open_store
from msl.network import connect, filter_client_connect_kwargs
from msl.network.client import Client, Link


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "armillary portal"]


def test_signatures() -> None:
    """The functions take what those of 1.0 take."""
    assert str(inspect.signature(connect)).partition(" ->")[0].replace("'", "") == (
        "(*, name: str = Client, host: str = localhost, port: int = 1875, timeout: float | None = 10, "
        "username: str | None = None, password: str | None = None, password_manager: str | None = None, "
        "read_limit: int | None = None, disable_tls: bool = False, cert_file: str | None = None, "
        "assert_hostname: bool = True, auto_save: bool = False)"
    )
    parameters = {
        name: list(inspect.signature(getattr(Client, name)).parameters)[1:]
        for name in ("admin_request", "disconnect", "link", "unlink", "identities", "spawn")
    }
    assert parameters == {
        "admin_request": ["attrib", "args", "kwargs"],
        "disconnect": ["timeout"],
        "link": ["service", "timeout"],
        "unlink": ["link", "timeout"],
        "identities": ["as_string", "indent", "timeout"],
        "spawn": ["name"],
    }


def test_filter() -> None:
    """Of keyword arguments those of connect are kept, and a manager's password is one for connecting."""
    assert filter_client_connect_kwargs(name="a", host=None, log_level=1, auth_password="x") == {
        "name": "a",
        "host": None,
        "password_manager": "x",
    }
    both = filter_client_connect_kwargs(auth_password="x", password_manager="y")
    assert both == {"password_manager": "y"}


def test_what_a_client_says_of_itself() -> None:
    """A client has a name, ports and texts, and after its end as well."""
    with open_lab() as lab:
        client = lab.connect(name="Bench A")
        assert client.name == "Bench A"
        assert client.address_manager == lab.address
        assert isinstance(client.port, int)
        assert repr(client) == f"<Bench A manager={lab.address} port={client.port}>"
        assert list(client.identities()["clients"]) == [str(client)]
        assert client.identity() == {
            "type": "client",
            "name": "Bench A",
            "language": client.identities()["clients"][str(client)]["language"],
            "os": client.identities()["clients"][str(client)]["os"],
        }
        network_name, port = str(client), client.port
        client.disconnect()
        assert repr(client) == "<Bench A disconnected>"
        assert (str(client), client.port, client.loop_thread_id) == (network_name, port, None)


def test_before_there_was_a_connection() -> None:
    """A client that never was connected knows nothing, and can be disconnected."""
    client = Client("new")
    assert (str(client), client.port, client.address_manager) == ("<UNKNOWN>", None, None)
    assert client.loop_thread_id is None
    assert not client.is_connected()
    client.disconnect()
    with pytest.raises(ConnectionError):
        client.identities()


def test_thread_of_the_loop() -> None:
    """The thread that speaks with the manager is another one than the caller's, and has an ident."""
    with open_lab() as lab:
        client = lab.connect()
        assert client.loop_thread_id == client._loop._thread_id
        assert client.loop_thread_id not in (None, threading.get_ident())
        client.disconnect()
        assert client.loop_thread_id is None
        assert client._loop._thread_id is None


def test_manager_has_forgotten_a_client_when_disconnect_returns() -> None:
    """Who asks right afterwards does not see it, and a service that wants one client takes the next."""
    with open_lab() as lab:
        lab.serve(Echo(max_clients=1))
        watcher = lab.connect(name="Watcher")
        for _ in range(20):
            client = lab.connect()
            client.link("Echo")
            client.disconnect()
            assert list(watcher.identities()["clients"]) == [str(watcher)]


def test_disconnecting_again_does_nothing() -> None:
    """Twenty times more are silent, and so are those of a client whose manager has gone."""
    with open_lab() as lab:
        client, other = lab.connect(), lab.connect()
        for _ in range(21):
            client.disconnect()
        lab.stop()
        eventually(lambda: not other.is_connected())
        for _ in range(21):
            other.disconnect()


def test_thirty_clients_share_a_thread_which_ends_with_them() -> None:
    """However many clients there are, one thread serves them, and none is left when they have gone."""
    eventually(lambda: not portal_threads())  # those of earlier tests
    with open_lab() as lab:
        lab.serve(Echo())
        clients = [lab.connect(name=f"c{number}") for number in range(30)]
        links = [client.link("Echo") for client in clients]
        assert [link.echo(number)[0] for number, link in enumerate(links)] == [[n] for n in range(30)]
        assert len(clients[0].identities()["clients"]) == 30
        assert len(portal_threads()) == 1
        assert len({client.loop_thread_id for client in clients}) == 1
        for client in clients:
            client.disconnect()
        eventually(lambda: not portal_threads())


def test_identities_as_text() -> None:
    """The text has a line for everything, sorted and indented."""
    with open_lab() as lab:
        lab.serve(Echo(max_clients=3, ignore_attributes=["echo", "thread", "tell", "sleep", "fail"]))
        client = lab.connect(name="A")
        everything = client.identities()
        system = f"os: {everything['os']}"
        language = f"language: {everything['language']}"
        assert client.identities(as_string=True, indent=1).splitlines() == [
            f"Manager[{everything['hostname']}:{lab.port}]",
            " attributes:",
            "  identity() -> dict",
            "  link(service: str) -> bool",
            f" {language}",
            f" {system}",
            "Clients [1]:",
            f" {client}",
            f"  {language}",
            f"  {system}",
            "Services [1]:",
            f" Echo[{everything['services']['Echo']['address']}]",
            "  attributes:",
            "   computed() -> 17",
            "   constant() -> 2.5",
            "   set_logging_level(level: Union[str, int]) -> bool",
            "   shutdown_service(*args: 'Any') -> 'Any'",
            "   unserializable() -> 'complex'",
            f"  {language}",
            "  max_clients: 3",
            f"  {system}",
        ]


def test_spawn_connects_another_one_in_the_same_way() -> None:
    """A spawned client has the same manager, and a name of its own."""
    with open_lab() as lab:
        client = lab.connect(name="first")
        other, named = client.spawn(), client.spawn(name="third")
        try:
            assert [other.name, named.name] == ["Client", "third"]
            assert len(client.identities()["clients"]) == 3
            client.disconnect()
            assert other.is_connected()
        finally:
            other.disconnect()
            named.disconnect()


def test_admin_requests_are_never_asynchronous() -> None:
    """The keyword argument is an error, whatever its value."""
    with open_lab() as lab:
        client = lab.connect()
        for value in (True, False):
            with pytest.raises(ValueError, match="Cannot make asynchronous requests to a Manager"):
                client.admin_request("port", asynchronous=value)


def test_a_request_can_be_made_by_its_private_name() -> None:
    """Programs use `_new_request`, of a service and of the manager, asynchronous or not."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        assert client._new_request("Manager", "link", "Echo")["max_clients"] == -1
        assert client._new_request("Echo", "echo", 1, x=2) == [[1], {"x": 2}]
        future = client._new_request("Echo", "echo", 3, asynchronous=True, timeout=1e-9)
        assert future.request == "Echo.echo"
        assert future.result(PATIENCE) == [[3], {}]
        with pytest.raises(RuntimeError, match="Nobody"):
            client._new_request("Manager", "acquire_lock", "Nobody", shared=False)


def test_names_of_parameters_do_not_get_in_the_way() -> None:
    """A service's method may have parameters that are called as those of a request."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        named: dict[str, Any] = {"service": 1, "attribute": 2, "target": 3, "args": 4, "kwargs": 5, "name": 6}
        assert link.echo(**named) == [[], named]


def test_large_requests() -> None:
    """110 MB there and back arrive, while smaller requests go on."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        text = "x" * 110_000_000
        large = link.echo(text, asynchronous=True)
        small = [link.echo(number, asynchronous=True) for number in range(3)]
        assert [future.result(PATIENCE)[0] for future in small] == [[0], [1], [2]]
        assert len(large.result(PATIENCE)[0][0]) == len(text)


def test_reply_above_the_read_limit() -> None:
    """A client with a read limit gets an error instead of a larger reply, and goes on."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect(read_limit=5000).link("Echo")
        with pytest.raises(Exception, match="more than 5000 bytes"):
            link.echo("x" * 6000, timeout=PATIENCE)
        assert link.echo("x", timeout=PATIENCE) == [["x"], {}]


def test_password_of_the_manager_is_prompted_in_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a password somebody is asked for it, with the manager's name."""
    asked = []

    def ask(text: str) -> str:
        asked.append((text, threading.get_ident()))
        return "radium"

    monkeypatch.setattr(getpass, "getpass", ask)
    with open_lab(authenticate=Authenticate(password="radium")) as lab:
        lab.connect()
        ((text, thread),) = asked
        assert text.startswith("Enter the password for Manager[")
        assert text.endswith(f":{lab.port}] > ")
        assert thread == threading.get_ident()
        lab.connect(password_manager="radium")
        assert len(asked) == 1


def test_user_is_prompted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a username somebody is asked for it, and then for that user's password."""
    asked = []

    def ask(text: str) -> str:
        asked.append(text)
        return "marie"

    def ask_secretly(text: str) -> str:
        asked.append(text)
        return "polonium"

    monkeypatch.setattr(builtins, "input", ask)
    monkeypatch.setattr(getpass, "getpass", ask_secretly)
    with login_lab(tmp_path) as lab:
        client = lab.connect()
        assert asked[0].startswith("Enter a username for Manager[")
        assert asked[1:] == ["Enter the password for marie > "]
        assert client.admin_request("users_table.usernames") == ["marie", "pierre"]


def test_user_of_an_admin_request_is_prompted_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager without logins wants to know who administrates: the thread that asks is asked."""
    threads = []

    def answer(text: str) -> str:
        threads.append(threading.get_ident())
        return "marie" if "username" in text else "polonium"

    monkeypatch.setattr(builtins, "input", answer)
    monkeypatch.setattr(getpass, "getpass", answer)
    with login_lab(tmp_path, login=False) as lab:
        client, other = lab.connect(), lab.connect(username="pierre", password="x")
        assert client.admin_request("users_table.usernames") == ["marie", "pierre"]
        assert threads == [threading.get_ident()] * 2
        with pytest.raises(RuntimeError, match="You must be an administrator"):
            other.admin_request("users_table.usernames")
        assert other.is_connected()
        assert client.admin_request("shutdown_manager") is None
        eventually(lambda: not other.is_connected())
        assert not client.is_connected()


def login_lab(directory: Path, *, login: bool = True) -> Any:
    """A manager with two users, one of whom is an administrator."""
    path = directory / "manager.sqlite3"
    with open_store(path, iterations=1) as store:
        store.users.add("marie", "polonium", is_admin=True)
        store.users.add("pierre", "x")
    return open_lab(authenticate=Authenticate(login=login), store_path=path)


def run_program(text: str, *arguments: object, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", text, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_program_that_forgets_its_client_ends_quietly() -> None:
    """Nobody has to disconnect before the program ends."""
    program = """
import sys
from msl.network import connect
client = connect(port=int(sys.argv[1]), disable_tls=True)
client.link("Echo").notification_handler = print
connect(port=int(sys.argv[1]), disable_tls=True)
"""
    with open_lab() as lab:
        lab.serve(Echo())
        watcher = lab.connect()
        done = run_program(program, lab.port)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        eventually(lambda: list(watcher.identities()["clients"]) == [str(watcher)])


def test_forked_child_is_told_that_the_client_is_its_parents() -> None:
    """A client does not survive a fork in the child, which gets an error, and can connect one of its own."""
    program = """
import os, sys, warnings
warnings.simplefilter("ignore")  # about forking with threads
from msl.network import connect
options = dict(port=int(sys.argv[1]), disable_tls=True)
client = connect(**options)
link = client.link("Echo")
child = os.fork()
if not child:
    try:
        link.echo(1, timeout=5)
    except RuntimeError as error:
        assert "fork" in str(error), error
        own = connect(**options)
        assert own.link("Echo").echo(1) == [[1], {}]
        own.disconnect()
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert link.echo(2) == [[2], {}]
client.disconnect()
"""
    with open_lab() as lab:
        lab.serve(Echo())
        done = run_program(program, lab.port)
        assert (done.returncode, done.stderr) == (0, "")


def test_interrupted_wait_leaves_the_client_usable() -> None:
    """Ctrl-C while a program waits for a reply is raised there, and the client goes on."""
    program = """
import signal, sys, threading, time
from msl.network import connect
client = connect(port=int(sys.argv[1]), disable_tls=True)
link = client.link("Echo")
main = threading.main_thread().ident
threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT]).start()
try:
    link.sleep(30)
except KeyboardInterrupt:
    assert link.echo(1) == [[1], {}]
    client.disconnect()
    print("interrupted")
"""
    with open_lab() as lab:
        lab.serve(Echo())
        done = run_program(program, lab.port, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_disconnect_fails_what_is_pending() -> None:
    """Who waits for a reply when the client leaves does not wait for ever."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        future = client.link("Echo").sleep(1, asynchronous=True)
        begin = time.monotonic()
        client.disconnect()
        with pytest.raises(ConnectionAbortedError, match=rf"Manager\[{lab.address}] closed the connection"):
            future.result(PATIENCE)
        assert time.monotonic() - begin < 0.9


def test_handler_of_the_end() -> None:
    """A client's shutdown handler is called once, when it is not connected any more."""
    with open_lab() as lab:
        client = lab.connect()
        called: concurrent.futures.Future[bool] = concurrent.futures.Future()
        client.shutdown_handler = lambda: called.set_result(client.is_connected())  # type: ignore[method-assign]
        lab.stop()
        assert called.result(PATIENCE) is False


def test_only_links_can_be_unlinked() -> None:
    """Whatever else is given is a TypeError."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        with pytest.raises(TypeError, match=r"Must pass in a Link object, received <class 'int'>"):
            client.unlink(1)  # type: ignore[arg-type]
        link = client.link("Echo")
        assert isinstance(link, Link)
        client.unlink(link)
        assert link._client is None
        assert client._links == []


def test_manager_that_does_not_read() -> None:
    """A program that makes asynchronous requests faster than they are read waits, and fills no memory."""
    text = "x" * 4_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connecting = threading.Thread(target=connect_to_a_stuck_manager, args=(port, text, made := []))
        connecting.start()
        manager, _ = server.accept()
        with manager, manager.makefile("rb") as lines:
            ask = {"args": [], "attribute": "identity", "error": False, "kwargs": {}, "uid": ""}
            manager.sendall(line({**ask, "requester": f"Manager[stuck:{port}]"}))
            assert json.loads(lines.readline())["result"]["type"] == "client"
            probe = json.loads(lines.readline())
            answer = {"error": False, "result": True, "uid": probe["uid"], "requester": "Client[stuck:1]"}
            manager.sendall(line(answer))
            eventually(lambda: len(made) * len(text) > 64 * 1024 * 1024)
            time.sleep(0.5)
            assert len(made) <= 64 * 1024 * 1024 // len(text) + 4
        connecting.join(PATIENCE)
        assert not connecting.is_alive()
        for future in made:
            assert isinstance(future.exception(PATIENCE), ConnectionAbortedError)


def connect_to_a_stuck_manager(port: int, text: str, made: list[Any]) -> None:
    client = connect(port=port, disable_tls=True)
    try:
        while True:
            made.append(client._new_request("Nobody", "hear", text, asynchronous=True))
    except ConnectionError:
        client.disconnect()


def line(packet: dict[str, Any]) -> bytes:
    return json.dumps(packet).encode() + b"\r\n"
