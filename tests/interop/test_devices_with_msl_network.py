"""Armillary's clients and services with the manager, the services and the clients of MSL-Network 1.0."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from armillary._runtime.groups import single_exception
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network.client import Client, open_client
from armillary.network.errors import LinkRefused, LockRefused, Rejected, RemoteError, ServiceGone
from armillary.network.locations import Home
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.protocol.identities import identities_as_text
from armillary.network.reconnect import open_persistent_client
from armillary.network.service import Service, run_service
from armillary.network.tls.trust import CertificateRefused, accept
from armillary.network.trusting import Trust

pytestmark = pytest.mark.interop

_ENVIRONMENT = Path(__file__).resolve().parents[2] / ".peers" / "msl_network" / "bin"
# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 60.0

THEIR_SERVICE = """
import sys, time
from msl.network import Service
class Theirs(Service):
    pi = 3.14
    def echo(self, *args, **kwargs): return args, kwargs
    def fail(self): raise ValueError("range")
    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds
    def tell(self, count):
        for number in range(count):
            self.emit_notification_threadsafe(number, n=number)
        return count
    def shutdown_service(self): return "bye"
Theirs(name="Theirs", max_clients=None).start(host="127.0.0.1", port=int(sys.argv[1]), disable_tls=True)
"""

THEIR_CLIENT = """
import json, sys
from msl.network import connect
client = connect(name="Theirs", host="127.0.0.1", port=int(sys.argv[1]), disable_tls=True)
link = client.link("Ours")
told = []
link.notification_handler = lambda *args, **kwargs: told.append([args, kwargs])
answer = {
    "attributes": link.service_attributes,
    "echo": link.echo(1, "\\u00e9", x=[None, 2.5]),
    "coroutine": link.coroutine(2),
    "pi": link.pi(),
    "temperature": link.temperature(),
    "many": [future.result() for future in [link.echo(n, asynchronous=True) for n in range(200)]][-1],
    "large": len(link.echo("x" * 5_000_000)[0][0]),
    "count": link.tell(5),
}
answer["told"] = told
answer["lock"] = link.acquire_lock() == [str(client)]
answer["released"] = link.release_lock()
for name in ("fail", "_private", "nothing"):
    try:
        getattr(link, name)()
    except RuntimeError as error:
        answer[name] = str(error)
answer["bye"] = link.shutdown_service()
client.disconnect()
print(json.dumps(answer))
"""


class Ours(Service):
    """What their client calls."""

    pi = 3.14

    @property
    def temperature(self) -> float:
        return 21.5

    def echo(self, *args: object, **kwargs: object) -> object:
        return args, kwargs

    async def coroutine(self, number: int) -> int:
        await trio.sleep(0.01)
        return number * 2

    def fail(self) -> None:
        raise ValueError("range")

    def tell(self, count: int) -> int:
        for number in range(count):
            self.emit_notification(number, n=number)
        return count

    def shutdown_service(self) -> str:
        return "bye"


def program(name: str) -> str:
    path = _ENVIRONMENT / name
    if not path.exists():
        pytest.fail("there is no .peers/msl_network: run `make peers`")
    return str(path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@asynccontextmanager
async def running(home: Path, command: list[str], until: bytes | None = None) -> AsyncIterator[trio.Process]:
    """Run one of their programs for a block; it begins when the program has printed `until`."""
    variables = {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore"}

    async def drain(stream: trio.abc.ReceiveStream) -> None:
        async for _ in stream:  # or it would wait for somebody to read what it logs
            pass

    with single_exception():
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                env=variables,
            )
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            output = b""
            while until is not None and until not in output:
                data = await process.stdout.receive_some()
                assert data, f"the program has ended: {output.decode()}"
                output += data
            nursery.start_soon(drain, process.stdout)
            try:
                yield process
            finally:
                process.kill()


@asynccontextmanager
async def their_manager(
    home: Path, *options: str, port: int | None = None, tls: bool = False
) -> AsyncIterator[int]:
    """Their manager, for a block, which gets its port."""
    port = free_port() if port is None else port
    command = [
        program("msl-network"),
        "start",
        "-p",
        str(port),
        *options,
        *([] if tls else ["--disable-tls"]),
    ]
    async with running(home, command, b"Network Manager running on"):
        yield port


@asynccontextmanager
async def their_service(home: Path, port: int) -> AsyncIterator[trio.Process]:
    """Their service, for a block, whether it is registered yet or not."""
    async with running(home, [program("python"), "-c", THEIR_SERVICE, str(port)]) as process:
        yield process


async def add_user(home: Path, name: str, password: str, *options: str) -> None:
    await trio.run_process(
        [program("msl-network"), "user", "add", name, "-p", password, *options],
        env={**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore"},
        capture_stdout=True,
    )


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what no event tells of."""
    while not await condition():  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.02)


async def has_service(client: Client, name: str) -> bool:
    return name in (await client.identities())["services"]


async def test_our_client_with_their_manager_and_service(tmp_path: Path) -> None:
    """Calls, constants, errors, notifications, locks and identities."""
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port, their_service(tmp_path, port):
            async with open_client("127.0.0.1", port, trust=None, name="Bench A") as client:
                await eventually(lambda: has_service(client, "Theirs"))
                async with client.link("Theirs") as link:
                    assert link.service_attributes["pi"] == 3.14
                    assert await link.echo(1, "é", x=[None, 2.5]) == [[1, "é"], {"x": [None, 2.5]}]
                    assert await link.pi() == 3.14
                    with pytest.raises(RemoteError, match="range") as caught:
                        await link.fail()
                    assert caught.value.type_name == "ValueError"
                    with pytest.raises(RemoteError, match="private"):
                        await link.call("_private")
                    notes = link.notifications()
                    assert await link.tell(5) == 5
                    assert [(await anext(notes)).args for _ in range(5)] == [(n,) for n in range(5)]
                    calls = [link.start_call("echo", number) for number in range(500)]
                    assert [(await call.wait())[0][0] for call in calls] == list(range(500))
                    with trio.move_on_after(0.05) as scope:
                        await link.sleep(0.3)
                    assert scope.cancelled_caught
                    assert await link.echo() == [[], {}]
                    async with link.lock(), open_client("127.0.0.1", port, trust=None) as other:
                        with pytest.raises(LinkRefused, match="locked"):
                            async with other.link("Theirs"):
                                pytest.fail("it is locked")
                    async with open_client("127.0.0.1", port, trust=None) as other, other.link("Theirs"):
                        with pytest.raises(LockRefused):
                            async with link.lock():
                                pytest.fail("somebody else is linked")
                        async with link.lock(shared=True):
                            pass
                text = identities_as_text(await client.identities())
                assert client.network_name is not None
                assert client.network_name in text
                with pytest.raises(ServiceGone):
                    async with client.link("Nothing"):
                        pytest.fail("it does not exist")


async def test_a_large_message_there_and_back(tmp_path: Path) -> None:
    """Twenty megabytes of text come back as they were, beside small calls."""
    text = "é" * 10_000_000
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port, their_service(tmp_path, port):
            async with open_client("127.0.0.1", port, trust=None) as client:
                await eventually(lambda: has_service(client, "Theirs"))
                async with client.link("Theirs") as link:
                    large, small = link.start_call("echo", text), link.start_call("echo", 1)
                    assert await small.wait() == [[1], {}]
                    assert await large.wait() == [[text], {}]


async def test_their_service_dies_while_it_is_called(tmp_path: Path) -> None:
    """A 1.0 manager answers nothing for the pending call; the next call fails both, and the client lives."""
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port, open_client("127.0.0.1", port, trust=None) as client:
            async with their_service(tmp_path, port) as process:
                await eventually(lambda: has_service(client, "Theirs"))
                async with client.link("Theirs") as link:
                    pending = link.start_call("sleep", 30)
                    await link.echo()
                    process.kill()

                    async def is_gone() -> bool:
                        return not await has_service(client, "Theirs")

                    await eventually(is_gone)
                    for call in (link.start_call("echo"), pending):
                        with pytest.raises(ServiceGone):
                            await call.wait()
                    assert client.is_connected


async def test_their_client_with_our_service(tmp_path: Path) -> None:
    """Everything that a 1.0 client does with a service, up to `shutdown_service`, which ends ours."""
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port, trio.open_nursery() as nursery:
            await nursery.start(partial(run_service, Ours(), "127.0.0.1", port, trust=None))
            done = await trio.run_process(
                [program("python"), "-c", THEIR_CLIENT, str(port)],
                capture_stdout=True,
                env={**os.environ, "MSL_NETWORK_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"},
            )
    answer = json.loads(done.stdout.splitlines()[-1])
    attributes = answer.pop("attributes")
    assert attributes["pi"] == 3.14
    assert attributes["coroutine"] == "(number: int) -> int"
    messages = [answer.pop(name) for name in ("fail", "_private", "nothing")]
    assert "ValueError: range" in messages[0]
    assert 'raise ValueError("range")' in messages[0]
    assert "PermissionError: Cannot request a private attribute" in messages[1]
    assert "AttributeError: 'Ours' object has no attribute 'nothing'" in messages[2]
    assert answer == {
        "echo": [[1, "é"], {"x": [None, 2.5]}],
        "coroutine": 4,
        "pi": 3.14,
        "temperature": 21.5,
        "many": [[199], {}],
        "large": 5_000_000,
        "count": 5,
        "told": [[[number], {"n": number}] for number in range(5)],
        "lock": True,
        "released": [],
        "bye": "bye",
    }


async def test_a_name_is_taken_at_their_manager(tmp_path: Path) -> None:
    """Our second service of one name is told so; the first one goes on."""
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port, trio.open_nursery() as nursery:
            await nursery.start(partial(run_service, Ours(), "127.0.0.1", port, trust=None))
            with pytest.raises(Rejected, match="already running"):
                await run_service(Ours(), "127.0.0.1", port, trust=None)
            async with open_client("127.0.0.1", port, trust=None) as client, client.link("Ours") as link:
                assert await link.coroutine(2) == 4
            nursery.cancel_scope.cancel()


async def test_tls_with_trust_on_first_use(tmp_path: Path) -> None:
    """The first certificate is refused by default, stored if somebody says so, and trusted from then on."""
    ours = Home(tmp_path / "ours")
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path / "theirs", tls=True) as port, trio.open_nursery() as nursery:
            with pytest.raises(CertificateRefused):
                async with open_client("localhost", port, trust=Trust(home=ours)):
                    pytest.fail("it is trusted")
            for trust in (Trust(accept, ours), Trust(home=ours)):
                async with open_client("localhost", port, trust=trust) as client:
                    assert client.is_connected
            await nursery.start(partial(run_service, Ours(), "localhost", port, trust=Trust(home=ours)))
            async with (
                open_client("localhost", port, trust=Trust(home=ours)) as client,
                client.link("Ours") as link,
            ):
                text = "x" * 1_000_000
                assert await link.echo(text) == [[text], {}]
            with pytest.raises(ConnectFailed, match="perhaps it expects TLS"):
                async with open_client("localhost", port, trust=None, connect_timeout=0.3):
                    pytest.fail("it speaks without TLS")
            nursery.cancel_scope.cancel()


async def test_a_login_and_what_administrators_may(tmp_path: Path) -> None:
    """With `--auth-login`, credentials are needed; an administrator asks for users, and stops the manager."""
    await add_user(tmp_path, "marie", "polonium", "--admin")
    await add_user(tmp_path, "pierre", "radium")
    marie, pierre = Credentials("marie", "polonium"), Credentials("pierre", "radium")
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path, "--auth-login") as port:
            connect = partial(open_client, "127.0.0.1", port, trust=None)
            for wrong, text in (
                (Credentials("marie", "x"), "Wrong login password"),
                (Credentials("nobody", "x"), "Unregistered user"),
            ):
                with pytest.raises(Rejected, match=text):
                    async with connect(credentials=wrong):
                        pytest.fail("it was let in")
            async with connect(credentials=pierre) as client:
                with pytest.raises(RemoteError):
                    await client.admin("users_table.usernames")
            async with connect(credentials=marie) as client, connect(credentials=pierre) as other:
                assert await client.admin("users_table.usernames") == ["marie", "pierre"]
                with pytest.raises(RemoteError):
                    await client.admin("users_table.nothing")
                assert await client.admin("port") == port
                assert await client.admin("shutdown_manager") is None
                with pytest.raises(ConnectionClosed):
                    await other.admin("port")


async def test_an_administrator_logs_in_on_the_way(tmp_path: Path) -> None:
    """Without a login at the door, the manager asks for one in the middle of an admin request."""
    await add_user(tmp_path, "marie", "polonium", "--admin")
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path) as port:
            async with open_client(
                "127.0.0.1", port, trust=None, credentials=Credentials("marie", "polonium")
            ) as client:
                assert await client.admin("users_table.is_admin", "marie") is True
                assert await client.admin("login") is None


async def test_the_managers_password(tmp_path: Path) -> None:
    """With `--auth-password`, the right one lets in and the wrong one does not."""
    with trio.fail_after(PATIENCE):
        async with their_manager(tmp_path, "--auth-password", "open sesame") as port:
            good = Credentials(password_manager="open sesame")
            async with open_client("127.0.0.1", port, trust=None, credentials=good) as client:
                assert client.is_connected
            with pytest.raises(Rejected, match="Wrong Manager password"):
                async with open_client(
                    "127.0.0.1", port, trust=None, credentials=Credentials(password_manager="x")
                ):
                    pytest.fail("it was let in")


async def test_their_manager_is_restarted(tmp_path: Path) -> None:
    """Our client and service find each other again at a manager that was killed and started anew."""
    port = free_port()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_service, Ours(), "127.0.0.1", port, trust=None))
            async with open_persistent_client("127.0.0.1", port, trust=None) as client:
                async with their_manager(tmp_path, port=port), client.link("Ours") as link:
                    assert await link.coroutine(2) == 4
                await client.wait_disconnected()
                async with their_manager(tmp_path, port=port), client.link("Ours") as link:
                    assert await link.coroutine(3) == 6
            nursery.cancel_scope.cancel()
