"""Clients and services of MSL-Network 1.0 with armillary's manager, and with each other's."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from speaking import HOST, Peer, open_peer

from armillary._runtime.dial import bound_ports
from armillary._runtime.groups import single_exception
from armillary.network import (
    Authenticate,
    LinkRefused,
    LockRefused,
    ManagerLimits,
    RemoteError,
    Service,
    ServiceGone,
    Store,
    Trust,
    open_client,
    open_store,
    run_service,
    serve_manager,
)
from armillary.network.locations import Home
from armillary.network.manager import Manager
from armillary.network.tls.contexts import manager_context
from armillary.network.tls.own import manager_certificate

pytestmark = pytest.mark.interop

# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 60.0
_BIN = Path(__file__).resolve().parents[2] / ".peers" / "msl_network" / "bin"

VALUES: list[Any] = [
    None,
    True,
    0,
    -17,
    2**53,
    2**63,
    1.5,
    -1e300,
    5e-324,
    "",
    'é "quoted" \\ \u2028 \0 \n \U0001f52c',
    [],
    {},
    [[1, [2.5, None]], {"a": {"b": [True]}}],
    {"result": 1, "error": True, "uid": "notification", "requester": None},
    list(range(1000)),
]


class Ours(Service):
    """What others call."""

    pi = 3.14

    @property
    def temperature(self) -> float:
        return 21.5

    def echo(self, *args: object, **kwargs: object) -> object:
        return args, kwargs

    async def add(self, x: int, y: int = 1) -> int:
        return x + y

    def fail(self) -> None:
        raise ValueError("range")

    def not_json(self) -> object:
        return object()

    async def sleep(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    def tell(self, count: int) -> int:
        for number in range(count):
            self.emit_notification(number, n=number)
        return count

    def shutdown_service(self) -> str:
        return "bye"


class TheirError(Exception):
    """What their client has raised: the name of its class, and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class TheirClients:
    """A process with clients of 1.0, which are called by name."""

    def __init__(self, peer: Peer, port: int) -> None:
        self.peer = peer
        self.port = port

    async def connect(self, name: str, **options: Any) -> str:
        """Connect a client, and return its network name."""
        options = {"name": name, "host": HOST, "port": self.port, "disable_tls": True, **options}
        network_name: str = await self._ask("open_client", name, options)
        return network_name

    async def link(self, name: str, client: str, service: str) -> dict[str, Any]:
        """Link, and return the service's attributes."""
        attributes: dict[str, Any] = await self._ask("link", name, client, service)
        return attributes

    async def do(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a client, or with a link one of its service."""
        return await self._ask("do", name, method, args, kwargs)

    async def begin(self, name: str, link: str, method: str, *args: Any) -> None:
        """Call a method of a service and do not wait: see `finish`."""
        await self.peer.ask("begin", name, link, method, args)

    async def finish(self, name: str) -> Any:
        """The result."""
        return await self._ask("finish", name)

    async def _ask(self, order: str, *arguments: Any) -> Any:
        kind, *facts = await self.peer.ask(order, *arguments)
        if kind == "raised":
            raise TheirError(*facts)
        return facts[0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "ours.sqlite3", iterations=1000) as opened:
        opened.users.add("marie", "polonium", is_admin=True)
        opened.users.add("pierre", "radium")
        yield opened


@asynccontextmanager
async def our_manager(**options: Any) -> AsyncIterator[tuple[Manager, int]]:
    """Our manager, for a block, and its port. What the test waits for in the block is bounded."""
    managers: list[Manager] = []
    with single_exception(), trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(serve_manager, 0, host=HOST, on_start=managers.append, **options)
            )
            yield managers[0], bound_ports(listeners)[0]
            nursery.cancel_scope.cancel(reason="the test's block was left")


@asynccontextmanager
async def their_clients(home: Path, port: int) -> AsyncIterator[TheirClients]:
    """Clients of 1.0, for a block."""
    async with open_peer("msl_network", "msl_client.py", home) as peer:
        yield TheirClients(peer, port)


@asynccontextmanager
async def their_service(
    home: Path, port: int, *, name: str = "Theirs", max_clients: int | None = None, **options: Any
) -> AsyncIterator[Peer]:
    """A service of 1.0, for a block, whether it is registered yet or not."""
    told = {
        "service": {"name": name, "max_clients": max_clients},
        "start": {"host": HOST, "port": port, "disable_tls": True, **options},
    }
    async with open_peer("msl_network", "msl_service.py", home, json.dumps(told)) as peer:
        yield peer


@asynccontextmanager
async def our_service(port: int, **options: Any) -> AsyncIterator[trio.Nursery]:
    """Our service, for a block. Of the nursery, it is the only task."""
    with single_exception():
        async with trio.open_nursery() as nursery:
            run = partial(run_service, Ours(), HOST, port, **{"trust": None, **options})
            await nursery.start(run)
            yield nursery
            nursery.cancel_scope.cancel(reason="the test's block was left")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    while not condition():  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.01)


async def registered(manager: Manager, name: str) -> None:
    """Wait until there is such a service."""
    await eventually(lambda: name in manager.registry.services())


async def gone(manager: Manager, name: str) -> None:
    """Wait until there is no such service or client."""
    await eventually(
        lambda: name not in manager.registry.services() and name not in manager.registry.clients()
    )


# -- calls ---------------------------------------------------------------------------------------------------


async def check_their_client(theirs: TheirClients, service: str) -> None:
    """Whatever a client of 1.0 does with a service."""
    client = await theirs.connect("Bench A")
    attributes = await theirs.link("link", "Bench A", service)
    assert (attributes["pi"], attributes["temperature"]) == (3.14, 21.5)
    assert attributes["add"].startswith("(x: ")
    for value in VALUES:
        assert await theirs.do("link", "echo", value, key=value) == [[value], {"key": value}]
    assert await theirs.do("link", "add", 20, y=22) == 42
    assert await theirs.do("link", "pi") == 3.14
    assert await theirs.do("link", "temperature") == 21.5
    assert await theirs.peer.ask("many", "link", "add", 200) == list(range(1, 201))
    for method, text in (
        ("fail", "ValueError: range"),
        ("not_json", "TypeError: "),
        ("_private", "PermissionError: Cannot request a private attribute"),
        ("nothing", "object has no attribute 'nothing'"),
    ):
        with pytest.raises(TheirError, match=text) as caught:
            await theirs.do("link", method)
        assert caught.value.name == "RuntimeError"
        assert f"Manager[{HOST}:{theirs.port}] returned the following exception:" in str(caught.value)
    assert await theirs.do("link", "tell", 100) == 100
    assert await theirs.peer.ask("heard", "link") == [[[number], {"n": number}] for number in range(100)]
    assert await theirs.peer.ask("large", "link", 5_000_000) is True
    assert list((await theirs.do("Bench A", "identities"))["clients"]) == [client]
    text = await theirs.do("Bench A", "identities", as_string=True)
    assert f"  {client}\n" in text
    assert "      add(x: " in text


async def check_our_client(port: int, service: str) -> None:
    """The same from our side."""
    async with open_client(HOST, port, trust=None, name="Bench B") as client, client.link(service) as link:
        assert (link.service_attributes["pi"], link.service_attributes["temperature"]) == (3.14, 21.5)
        for value in VALUES:
            assert await link.echo(value, key=value) == [[value], {"key": value}]
        assert await link.add(20, y=22) == 42
        assert (await link.pi(), await link.temperature()) == (3.14, 21.5)
        calls = [link.start_call("add", number) for number in range(200)]
        assert [await call.wait() for call in calls] == list(range(1, 201))
        for method, name in (
            ("fail", "ValueError"),
            ("not_json", "TypeError"),
            ("_private", "PermissionError"),
            ("nothing", "AttributeError"),
        ):
            with pytest.raises(RemoteError) as caught:
                await link.call(method)
            assert caught.value.type_name == name
        notes = link.notifications()
        assert await link.tell(100) == 100
        heard = [await anext(notes) for _ in range(100)]
        assert [(note.args, note.kwargs) for note in heard] == [((n,), {"n": n}) for n in range(100)]
        text = "é" * 5_000_000
        assert await link.echo(text) == [[text], {}]


async def test_their_client_and_ours_with_their_service(tmp_path: Path) -> None:
    """Values of many types, errors, notifications in order and ten megabytes; then it is shut down."""
    async with our_manager() as (manager, port), their_service(tmp_path, port) as service:
        async with their_clients(tmp_path, port) as theirs:
            await registered(manager, "Theirs")
            await check_their_client(theirs, "Theirs")
            await check_our_client(port, "Theirs")
            assert await theirs.do("link", "shutdown_service") == "bye"
            assert await service.wait_event("ended") == []
            await gone(manager, "Theirs")


async def test_their_client_with_our_service(tmp_path: Path) -> None:
    """The same with our service, up to `shutdown_service`, which ends it; then the client disconnects."""
    async with our_manager() as (manager, port), our_service(port) as nursery:
        async with their_clients(tmp_path, port) as theirs:
            await check_their_client(theirs, "Ours")
            assert await theirs.do("link", "shutdown_service") == "bye"
            await eventually(lambda: not nursery.child_tasks)
            await gone(manager, "Ours")
            client = await theirs.do("Bench A", "__str__")
            assert client in manager.registry.clients()
            await theirs.do("Bench A", "disconnect")
            await gone(manager, client)
            assert await theirs.do("Bench A", "is_connected") is False
            with pytest.raises(TheirError, match="ConnectionError"):
                await theirs.do("Bench A", "identities")


async def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    """Infinities and what is no number go there and back, as 1.0 writes them."""
    async with our_manager() as (manager, port), their_service(tmp_path, port), our_service(port):
        async with their_clients(tmp_path, port) as theirs:
            await registered(manager, "Theirs")
            await theirs.connect("Bench A")
            for service in ("Ours", "Theirs"):
                await theirs.link("link", "Bench A", service)
                (sent, nan), _ = await theirs.do("link", "echo", [float("inf"), float("-inf")], float("nan"))
                assert sent == [float("inf"), float("-inf")]
                assert nan != nan
        async with open_client(HOST, port, trust=None) as client, client.link("Theirs") as link:
            (sent, nan), _ = await link.echo([float("inf"), float("-inf")], float("nan"))
            assert sent == [float("inf"), float("-inf")]
            assert nan != nan


async def test_arrays_and_bytes_for_those_who_cannot_take_them(tmp_path: Path) -> None:
    """What our ends send as it is, those of 1.0 get as lists and base64, there and back."""
    numpy = pytest.importorskip("numpy")
    async with our_manager() as (manager, port), their_service(tmp_path, port):
        await registered(manager, "Theirs")
        async with open_client(HOST, port, trust=None) as client, client.link("Theirs") as link:
            array = numpy.arange(6.0).reshape(2, 3)
            assert await link.echo(array, b"\x00\xff") == [[array.tolist(), "AP8="], {}]


async def test_what_is_new_is_not_for_them(tmp_path: Path) -> None:
    """Pings and leases do not concern those of 1.0, and a stream comes to them as a list."""
    limits = ManagerLimits(ping_interval=0.02, lock_lease=0.1)
    async with our_manager(limits=limits) as (manager, port), their_service(tmp_path, port):
        async with our_service(port), their_clients(tmp_path, port) as theirs:
            await registered(manager, "Theirs")
            name = await theirs.connect("Bench")
            for service in ("Ours", "Theirs"):
                await theirs.link(service, "Bench", service)
                assert await theirs.do(service, "acquire_lock") == [name]
            await trio.sleep(0.5)
            holders = {row.name: list(row.holders) for row in manager.registry.table()}
            assert holders == {"Ours": [name], "Theirs": [name]}
            assert await theirs.do("Ours", "count", 1000) == list(range(1000))
            assert await theirs.do("Theirs", "add", 1) == 2


# -- links and locks -----------------------------------------------------------------------------------------


async def test_links_of_their_clients(tmp_path: Path) -> None:
    """A full service refuses another client, of either kind, until one of those who are linked leaves."""
    async with (
        our_manager() as (manager, port),
        their_service(tmp_path, port, max_clients=2),
        their_clients(tmp_path, port) as theirs,
    ):
        await registered(manager, "Theirs")
        names = [await theirs.connect(name) for name in ("One", "Two", "Three")]
        await theirs.link("first", "One", "Theirs")
        await theirs.link("second", "Two", "Theirs")
        await theirs.link("first again", "One", "Theirs")
        full = "The maximum number of Clients are already linked with 'Theirs'"
        with pytest.raises(TheirError, match=full) as caught:
            await theirs.link("third", "Three", "Theirs")
        assert all(name in str(caught.value) for name in names[:2])
        async with open_client(HOST, port, trust=None) as client:
            with pytest.raises(LinkRefused, match=full):
                async with client.link("Theirs"):
                    pytest.fail("it is full")
            await theirs.do("second", "unlink")
            async with client.link("Theirs") as link:
                assert await link.add(1) == 2
                with pytest.raises(TheirError, match=full):
                    await theirs.link("third", "Three", "Theirs")
        await theirs.link("third", "Three", "Theirs")
        with pytest.raises(TheirError, match="the 'Nothing' service does not exist"):
            await theirs.link("none", "Three", "Nothing")


async def test_locks_of_their_clients(tmp_path: Path) -> None:
    """Exclusive and shared ones, refused and given back, and dropped with their holder's connection."""
    async with (
        our_manager() as (manager, port),
        our_service(port),
        their_clients(tmp_path, port) as theirs,
        open_client(HOST, port, trust=None, name="Ours") as client,
    ):
        one, two = [await theirs.connect(name) for name in ("One", "Two")]
        await theirs.link("first", "One", "Ours")
        assert await theirs.do("first", "acquire_lock") == [one]
        await theirs.link("sibling", "One", "Ours")
        with pytest.raises(TheirError, match="'Ours' service is locked"):
            await theirs.link("second", "Two", "Ours")
        with pytest.raises(LinkRefused, match="locked"):
            async with client.link("Ours"):
                pytest.fail("it is locked")
        assert await theirs.do("first", "release_lock") == []
        await theirs.link("second", "Two", "Ours")
        with pytest.raises(TheirError, match=r"cannot acquire an exclusive lock, there are 2 links"):
            await theirs.do("first", "acquire_lock")
        assert await theirs.do("first", "acquire_lock", shared=True) == [one, two]
        assert await theirs.do("second", "acquire_lock", shared=True) == [one, two]
        assert await theirs.do("first", "release_lock") == [two]
        with pytest.raises(LinkRefused, match="locked"):
            async with client.link("Ours"):
                pytest.fail("it is locked")
        await theirs.do("Two", "disconnect")
        await gone(manager, two)
        async with client.link("Ours") as link:
            for linked in ("first", "sibling"):
                with pytest.raises(LockRefused, match="there are 2 links"):
                    async with link.lock():
                        pytest.fail("somebody else is linked")
                await theirs.do(linked, "unlink")
            async with link.lock():
                with pytest.raises(TheirError, match="'Ours' service is locked"):
                    await theirs.link("third", "One", "Ours")


# -- who may come in -----------------------------------------------------------------------------------------


async def test_the_managers_password(tmp_path: Path) -> None:
    """The right one lets clients and services of 1.0 in, and the wrong one neither."""
    async with (
        our_manager(authenticate=Authenticate(password="open sesame")) as (manager, port),
        their_service(tmp_path, port, password_manager="open sesame"),
        their_service(tmp_path, port, name="Wrong", password_manager="wrong") as wrong,
        their_clients(tmp_path, port) as theirs,
    ):
        await registered(manager, "Theirs")
        await theirs.connect("Right", password_manager="open sesame")
        with pytest.raises(TheirError, match=r"^ValueError: ValueError: Wrong Manager password$"):
            await theirs.connect("Wrong", password_manager="open")
        assert await wrong.wait_event("ended") == ["ValueError", "ValueError: Wrong Manager password"]
        await theirs.link("link", "Right", "Theirs")
        assert await theirs.do("link", "add", 1) == 2


async def test_trusted_hosts(tmp_path: Path) -> None:
    """This computer is ``localhost`` for a manager that goes by hosts; others are turned away."""
    async with our_manager(authenticate=Authenticate(hostnames=["localhost"])) as (_, port):
        async with their_clients(tmp_path, port) as theirs:
            await theirs.connect("Here")
            async with our_manager(authenticate=Authenticate(hostnames=["lab7"])) as (_, other):
                with pytest.raises(TheirError, match="'localhost' is not a trusted hostname"):
                    await theirs.connect("Stranger", port=other)


async def test_logins(tmp_path: Path, store: Store) -> None:
    """Users of our database log in, as clients and as services; others are told what 1.0 tells them."""
    async with (
        our_manager(authenticate=Authenticate(login=True), store=store) as (manager, port),
        their_service(tmp_path, port, username="pierre", password="radium"),
        their_clients(tmp_path, port) as theirs,
    ):
        await theirs.connect("Right", username="marie", password="polonium")
        await registered(manager, "Theirs")
        await theirs.link("link", "Right", "Theirs")
        assert await theirs.do("link", "add", 1) == 2
        # Who has logged in at the door is asked for no password.
        assert await theirs.do("Right", "admin_request", "users_table.usernames") == ["marie", "pierre"]
        with pytest.raises(TheirError, match=r"^ValueError: ValueError: Wrong login password$"):
            await theirs.connect("Wrong", username="marie", password="radium")
        with pytest.raises(TheirError, match=r"^ValueError: ValueError: Unregistered user$"):
            await theirs.connect("Nobody", username="irene", password="radium")
    messages = [row.message for row in store.audit.connections()]
    assert messages.count("connected as a client") == 1
    assert {"rejected: wrong login password", "rejected: unregistered user"} <= set(messages)


async def test_a_name_is_taken(tmp_path: Path) -> None:
    """Their second service of one name ends, and the first one goes on."""
    async with our_manager() as (manager, port), their_service(tmp_path, port):
        await registered(manager, "Theirs")
        async with their_service(tmp_path, port) as second:
            await second.wait_event("ended")
        async with open_client(HOST, port, trust=None) as client, client.link("Theirs") as link:
            assert await link.add(1) == 2


# -- administration ------------------------------------------------------------------------------------------


async def test_their_administrator(tmp_path: Path, store: Store) -> None:
    """It logs in on the way, gets what is on the list and nothing else, and ends the manager."""
    async with our_manager(store=store) as (manager, port), their_clients(tmp_path, port) as theirs:
        await theirs.connect("Root", username="marie", password="polonium")
        await theirs.connect("User", username="pierre", password="radium")
        ask = partial(theirs.do, "Root", "admin_request")
        assert await ask("users_table.users") == [["marie", True], ["pierre", False]]
        assert await ask("users_table.is_admin", "pierre") is False
        assert await ask("port") == port
        assert await ask("login") is None
        messages = [row[-1] for row in await ask("connections_table.connections", start="2020-01-01")]
        assert messages.count("connected as a client") == 2
        for attribute in (
            "_store",
            "__class__",
            "users_table.database.path",
            "users_table.__init__.__globals__",
            "connections_table._note",
            "clients.clear",
            "registry",
            "run",
        ):
            with pytest.raises(TheirError, match="AttributeError") as caught:
                await ask(attribute)
            assert caught.value.name == "RuntimeError"
        with pytest.raises(TheirError, match="You must be an administrator"):
            await theirs.do("User", "admin_request", "users_table.usernames")
        assert await theirs.do("User", "is_connected") is True
        assert await ask("shutdown_manager") is None
        await eventually(lambda: not manager.registry.clients())
        for name in ("Root", "User"):
            # The one if it has noticed already, the other if it notices meanwhile.
            with pytest.raises(TheirError, match=r"ConnectionError|ConnectionAbortedError"):
                await theirs.do(name, "identities")


# -- what dies -----------------------------------------------------------------------------------------------


async def test_a_killed_service(tmp_path: Path) -> None:
    """Whoever waits for it, of either kind, is told so at once and goes on; its name is free again."""
    async with (
        our_manager() as (manager, port),
        their_clients(tmp_path, port) as theirs,
        open_client(HOST, port, trust=None) as client,
    ):
        await theirs.connect("Bench")
        async with their_service(tmp_path, port) as service:
            await registered(manager, "Theirs")
            await theirs.link("link", "Bench", "Theirs")
            async with client.link("Theirs") as link:
                await theirs.begin("call", "link", "sleep", 1000)
                pending = link.start_call("sleep", 1000)
                await link.echo()
                await eventually(lambda: manager.outstanding.statistics().in_flight == 2)
                service.kill()
                with trio.fail_after(5):
                    with pytest.raises(ServiceGone):
                        await pending.wait()
                    with pytest.raises(TheirError, match="'Theirs' Service disconnected") as caught:
                        await theirs.finish("call")
                    assert caught.value.name == "RuntimeError"
                    with pytest.raises(TheirError, match="the 'Theirs' Service is not connected"):
                        await theirs.do("link", "echo")
        async with their_service(tmp_path, port):
            await registered(manager, "Theirs")
            await theirs.link("link", "Bench", "Theirs")
            assert await theirs.do("link", "add", 1) == 2


async def test_a_killed_client(tmp_path: Path) -> None:
    """What it had locked is free at once, and the service that was at work for it goes on."""
    async with our_manager() as (manager, port), their_service(tmp_path, port):
        await registered(manager, "Theirs")
        async with their_clients(tmp_path, port) as theirs:
            name = await theirs.connect("Bench")
            await theirs.link("link", "Bench", "Theirs")
            await theirs.do("link", "acquire_lock")
            await theirs.begin("call", "link", "sleep", 0.2)
            await eventually(lambda: manager.outstanding.statistics().in_flight == 1)
            theirs.peer.kill()
        await gone(manager, name)
        async with open_client(HOST, port, trust=None) as client, client.link("Theirs") as link:
            async with link.lock():
                assert await link.sleep(0.3) == 0.3


async def test_a_killed_manager(tmp_path: Path) -> None:
    """Their pending call fails at once, and their service ends."""
    with trio.fail_after(PATIENCE):
        async with started(tmp_path, *our_start("--disable-tls")) as (process, port):
            async with their_service(tmp_path, port) as service, their_clients(tmp_path, port) as theirs:
                await theirs.connect("Bench")
                while "Theirs" not in (await theirs.do("Bench", "identities"))["services"]:
                    pass
                await theirs.link("link", "Bench", "Theirs")
                await theirs.begin("call", "link", "sleep", 0.3)
                await theirs.do("link", "echo")
                process.kill()
                with pytest.raises(TheirError, match="closed the connection") as caught:
                    await theirs.finish("call")
                assert caught.value.name == "ConnectionAbortedError"
                assert await service.wait_event("ended") == []


async def test_who_asks_too_late(tmp_path: Path) -> None:
    """A reply that comes after the client's own time-out disturbs nobody."""
    async with our_manager() as (_, port), our_service(port), their_clients(tmp_path, port) as theirs:
        await theirs.connect("Bench")
        await theirs.link("link", "Bench", "Ours")
        with pytest.raises(TheirError, match="TimeoutError"):
            await theirs.do("link", "sleep", 0.2, timeout=0.05)
        assert await theirs.do("link", "sleep", 0.3) == 0.3
        assert await theirs.do("link", "add", 1) == 2


# -- the command, and files of either ------------------------------------------------------------------------


async def run_theirs(home: Path, *arguments: object) -> str:
    """Run a command of 1.0 to its end, and return what it prints."""
    return await _run([_BIN / "msl-network", *arguments], home)


async def run_ours(home: Path, *arguments: object) -> str:
    """Run a command of ours to its end, and return what it prints."""
    return await _run([sys.executable, "-m", "armillary", "network", *arguments], home)


async def _run(command: list[object], home: Path) -> str:
    words = [str(word) for word in command]
    done = await trio.run_process(words, env=_variables(home), capture_stdout=True, stdin=subprocess.DEVNULL)
    return done.stdout.decode()


def _variables(home: Path) -> dict[str, str]:
    return {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore"}


@asynccontextmanager
async def started(home: Path, *command: object) -> AsyncIterator[tuple[trio.Process, int]]:
    """A manager of either kind as a process, for a block, and its port."""
    run = partial(
        trio.run_process,
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_variables(home),
        check=False,
    )
    with single_exception():
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            printed = b""
            while not (found := re.search(rb"Network Manager running on \S+:(\d+) ", printed)):
                received = await process.stdout.receive_some()
                assert received, printed.decode()
                printed += received
            nursery.start_soon(_drain, process.stdout)
            try:
                yield process, int(found[1])
            finally:
                process.terminate()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    """Let nobody wait for a pipe that nobody reads."""
    async for _ in stream:
        pass


def our_start(*options: object) -> list[object]:
    return [sys.executable, "-m", "armillary", "network", "start", "--host", HOST, "--port", 0, *options]


async def test_over_tls(tmp_path: Path) -> None:
    """Clients and services of 1.0 trust our certificate at first use, or by its file, and ours theirs."""
    own = manager_certificate(Home(tmp_path / "ours"), host=HOST)
    context = manager_context(own.certificate, own.key)
    tls: dict[str, Any] = {"disable_tls": False}
    async with (
        our_manager(ssl_context=context) as (manager, port),
        their_service(tmp_path / "service", port, **tls, cert_file=str(own.certificate)),
        their_clients(tmp_path / "client", port) as theirs,
    ):
        await registered(manager, "Theirs")
        await theirs.connect("First", **tls, auto_save=True)
        await theirs.connect("Again", **tls)
        await theirs.connect("File", **tls, cert_file=str(own.certificate))
        assert (tmp_path / "client" / "certs" / f"{HOST}.crt").read_bytes() == own.certificate.read_bytes()
        await theirs.link("link", "Again", "Theirs")
        assert await theirs.peer.ask("large", "link", 5_000_000) is True
        trust = Trust(home=Home(tmp_path / "ours"))
        async with our_service(port, trust=trust):
            await theirs.link("ours", "Again", "Ours")
            assert await theirs.peer.ask("large", "ours", 5_000_000) is True
            async with open_client(HOST, port, trust=trust) as client, client.link("Theirs") as link:
                assert await link.add(1) == 2
        with pytest.raises(TheirError, match="You have TLS disabled"):
            await theirs.connect("Plain", timeout=0.2)


async def test_the_command_with_files_of_theirs(tmp_path: Path) -> None:
    """An encrypted key, a certificate and a user that 1.0 has made are good for ours, which is shut down."""
    home, key, certificate = tmp_path / "home", tmp_path / "lab.key", tmp_path / "lab.crt"
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_theirs, home, "user", "add", "marie", "--password", "polonium", "--admin")
            await run_theirs(home, "keygen", "ecc", "--password", "two words", "--out", key)
            await run_theirs(home, "certgen", certificate, "-k", key, "-p", "two words")
        options = ["--auth-login", "-c", certificate, "-k", key, "-D", "two words"]
        async with started(home, *our_start(*options)) as (process, port):
            async with their_clients(home, port) as theirs:
                login = {"username": "marie", "password": "polonium"}
                await theirs.connect("Root", disable_tls=False, cert_file=str(certificate), **login)
                names = await theirs.do("Root", "admin_request", "users_table.usernames")
                assert names == ["marie"]
                assert await theirs.do("Root", "admin_request", "shutdown_manager") is None
                assert await process.wait() == 0
    with open_store(Home(home).database) as store:
        assert [row.message for row in store.audit.connections()][-1] == "disconnected"


async def test_a_database_of_their_manager(tmp_path: Path) -> None:
    """What their manager has recorded is there for ours, which goes on where that one ended."""
    home = tmp_path
    with trio.fail_after(PATIENCE):
        await run_theirs(home, "user", "add", "marie", "--password", "polonium", "--admin")
        port = _free_port()
        theirs_start = [_BIN / "msl-network", "start", "--disable-tls", "--auth-login", "--port", port]
        login = {"username": "marie", "password": "polonium"}
        async with started(home, *theirs_start) as (process, port), their_clients(home, port) as theirs:
            await theirs.connect("Before", **login)
            assert await theirs.do("Before", "admin_request", "shutdown_manager") is None
            await process.wait()
        with open_store(Home(home).database) as store:
            before = store.audit.connections()
        assert "connected as a client" in [row.message for row in before]
        async with started(home, *our_start("--disable-tls", "--auth-login")) as (_, port):
            async with their_clients(home, port) as theirs:
                await theirs.connect("After", **login)
                rows = await theirs.do("After", "admin_request", "connections_table.connections")
                assert [tuple(row) for row in rows[: len(before)]] == [tuple(row) for row in before]
                assert rows[-1][-1] == "connected as a client"


async def test_their_manager_with_files_of_ours(tmp_path: Path) -> None:
    """A key and a certificate of ours are good for their manager, and it knows the users that we add."""
    home, key, certificate = tmp_path / "home", tmp_path / "lab.key", tmp_path / "lab.crt"
    with trio.fail_after(PATIENCE):
        await run_ours(home, "keygen", "--password", "two words", "--out", key)
        await run_ours(home, "certgen", certificate, "-k", key, "-p", "two words")
        await run_ours(home, "user", "add", "pierre", "--password", "radium")
        assert "pierre" in await run_theirs(home, "user", "list")
        options = ["-c", certificate, "-k", key, "-D", "two words", "--port", _free_port()]
        async with started(home, _BIN / "msl-network", "start", *options) as (_, port):
            trust = Trust(certificate=certificate)
            async with (
                open_client("localhost", port, trust=trust) as client,
                their_clients(home, port) as theirs,
            ):
                await theirs.connect("Bench", host="localhost", disable_tls=False, cert_file=str(certificate))
                assert len((await client.identities())["clients"]) == 2
