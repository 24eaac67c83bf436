"""Peers that know nothing of armillary: a person with netcat or with ``openssl s_client``, and LabVIEW."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio

from armillary.network.client import open_client
from armillary.network.errors import RemoteError, ServiceGone
from armillary.network.manager import Authenticate, serve_manager
from armillary.network.service import Service, run_service
from armillary.network.store import open_store
from armillary.testing import RawPeer

# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 30.0


class BasicMath(Service):
    """A service whose name has a blank in it."""

    def __init__(self) -> None:
        super().__init__(name="Basic Math")

    async def add(self, x: float, y: float = 0) -> float:
        return x + y

    def describe(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [list(args), kwargs]

    async def divide(self, x: float, y: float) -> float:
        return x / y

    async def announce(self, text: str) -> str:
        await self.notify(text, loud=True)
        return "announced"


class Place:
    """A manager on a real port, with a service."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open_client(self, name: str = "Native") -> Any:
        """One of armillary's clients, for a block."""
        return open_client("127.0.0.1", self.port, trust=None, name=name)


@asynccontextmanager
async def open_place(
    ssl_context: ssl.SSLContext | None = None, *, has_service: bool = True, **options: Any
) -> AsyncIterator[Place]:
    """A manager, and unless its connections are encrypted or refused, a service, for a block."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_manager, 0, host="127.0.0.1", ssl_context=ssl_context, **options)
            (listener,) = await nursery.start(serve)
            transport = listener if ssl_context is None else listener.transport_listener
            place = Place(transport.socket.getsockname()[1])
            if has_service:
                run = partial(run_service, BasicMath(), "127.0.0.1", place.port, trust=None, reconnect=False)
                await nursery.start(run)
            yield place
            nursery.cancel_scope.cancel(reason="the test's block was left")


# -- a person with netcat ------------------------------------------------------------------------------------


class Person:
    """Somebody who types lines, and reads what comes.

    Args:
        send: takes what was typed.
        receive: the next line that comes; empty at the end.
        enter: what the enter key makes of the end of a line.
    """

    def __init__(
        self, send: Callable[[bytes], Any], receive: Callable[[], Any], enter: bytes = b"\n"
    ) -> None:
        self._send = send
        self._receive = receive
        self._enter = enter

    async def type(self, *lines: str) -> None:
        """Type lines, or paste several."""
        await self._send(b"".join(line.encode() + self._enter for line in lines))

    async def read(self) -> dict[str, Any]:
        """The next packet."""
        line = await self._receive()
        assert line.endswith(b"\n")
        packet: dict[str, Any] = json.loads(line)
        return packet

    async def ask(self, line: str) -> dict[str, Any]:
        """Type a line, and read the answer."""
        await self.type(line)
        return await self.read()

    async def read_end(self) -> None:
        """There is nothing more to read."""
        assert await self._receive() == b""


@asynccontextmanager
async def netcat(place: Place, enter: bytes = b"\n") -> AsyncIterator[Person]:
    """A person at a plain connection, for a block."""
    async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
        peer = RawPeer(stream)
        yield Person(peer.send, peer.receive, enter)


@pytest.mark.parametrize("enter", [b"\n", b"\r\n"], ids=["LF", "CR LF"])
async def test_a_person_with_netcat(enter: bytes) -> None:
    """Everything that one can type: who one is, who is there, a link, requests, and the end."""
    async with open_place() as place, netcat(place, enter) as person:
        question = await person.read()
        assert (question["attribute"], question["args"], question["uid"]) == ("identity", [], "")
        await person.type('client "Ada at home"')

        identity = (await person.ask("identity"))["result"]
        (name,) = identity["clients"]
        assert name.startswith("Ada at home[")
        assert list(identity["services"]) == ["Basic Math"]
        assert (await person.ask("Manager identity"))["result"] == identity

        entry = (await person.ask("link Basic Math"))["result"]
        assert entry["attributes"]["add"] == "(x: float, y: float = 0) -> float"

        answer = await person.ask('"Basic Math" add 1 2')
        assert (answer["result"], answer["requester"], answer["uid"]) == (3, name, "")
        assert (await person.ask('"Basic Math" add x=1 y=2.5'))["result"] == 3.5
        assert (await person.ask('"Basic Math" describe 1 [2,3] "4 5" true None n=-6 s="7 8"'))["result"] == [
            [1, [2, 3], "4 5", True, None],
            {"n": -6, "s": "7 8"},
        ]
        failed = await person.ask('"Basic Math" divide 1 0')
        assert failed["message"] == "ZeroDivisionError: division by zero"
        assert any("in divide" in line for line in failed["traceback"])
        assert (await person.ask("DMM read"))["message"].startswith("KeyError: ")
        assert (await person.ask("nonsense"))["message"].startswith("ValueError: ")
        assert (await person.ask(""))["message"].startswith("ValueError: ")

        assert (await person.ask("Manager unlink 'Basic Math'"))["result"] is True
        await person.type("disconnect")
        await person.read_end()
        async with place.open_client() as client:
            assert list((await client.identities())["clients"]) == [client.network_name]


async def test_what_is_pasted_is_answered_in_order() -> None:
    """Several lines in one segment are several requests, and one line may come in many."""
    async with open_place() as place, netcat(place) as person:
        await person.type("client", "identity", "link Basic Math", '"Basic Math" add 1 2')
        assert (await person.read())["attribute"] == "identity"
        answers = [(await person.read())["result"] for _ in range(3)]
        assert list(answers[0]["services"]) == ["Basic Math"]
        assert "max_clients" in answers[1]
        assert answers[2] == 3
    async with open_place() as place, await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
        peer = RawPeer(stream)
        for byte in b'client\nManager link "Basic Math"\r\n':
            await peer.send(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert json.loads(await peer.receive())["attribute"] == "identity"
        assert "max_clients" in json.loads(await peer.receive())["result"]


async def test_a_person_reads_notifications() -> None:
    """Who has typed ``link`` sees what the service tells."""
    async with open_place() as place, netcat(place) as person:
        await person.read()
        await person.type("client Reader")
        await person.ask("link Basic Math")
        async with place.open_client() as client, client.link("Basic Math") as link:
            assert await link.announce("tea") == "announced"
        assert await person.read() == {
            "error": False,
            "result": [["tea"], {"loud": True}],
            "service": "Basic Math",
            "uid": "notification",
        }


async def test_a_person_is_kept_out_by_a_lock() -> None:
    """Typed requests respect locks, and a person can hold one."""
    async with open_place() as place, netcat(place) as person:
        await person.read()
        await person.type("client Ada")
        async with place.open_client() as client:
            async with client.link("Basic Math") as link, link.lock():
                assert (await person.ask("link Basic Math"))["message"].startswith("PermissionError: ")
                refused = await person.ask('"Basic Math" add 1 2')
                assert refused["message"].startswith("PermissionError: 'Basic Math' service is locked")
            await person.ask("link Basic Math")
            (holder,) = (await person.ask('Manager acquire_lock "Basic Math" shared=false'))["result"]
            assert holder.startswith("Ada[")
            with pytest.raises(RemoteError, match="locked"):
                async with client.link("Basic Math"):
                    pytest.fail("it was linked")
            assert (await person.ask('Manager release_lock "Basic Math"'))["result"] == []
            assert (await person.ask('"Basic Math" add 1 2'))["result"] == 3


async def test_a_person_logs_in() -> None:
    """Name and password are typed as they are, blanks and digits included; wrong ones end the connection."""
    with open_store(":memory:", iterations=1000) as store:
        store.users.add("marie curie", "po 210")
        store.users.add("pierre", "1859")
        options: dict[str, Any] = {"authenticate": Authenticate(login=True), "store": store}
        async with open_place(has_service=False, **options) as place:
            for name, password in (("marie curie", "po 210"), ("pierre", "1859")):
                async with netcat(place, b"\r\n") as person:
                    assert (await person.read())["attribute"] == "username"
                    assert (await person.ask(name))["args"] == [name]
                    assert (await person.ask(password))["attribute"] == "identity"
                    await person.type("client")
                    (client,) = (await person.ask("identity"))["result"]["clients"]
                    assert client.startswith("Client[")
                    await person.type("exit")
                    await person.read_end()
            async with netcat(place) as person:
                await person.read()
                await person.ask("pierre")
                assert (await person.ask("1860"))["message"] == "ValueError: Wrong login password"
                await person.read_end()


async def test_a_person_administrates() -> None:
    """Who asks for more is asked who he is, types that, and gets what he has asked for."""
    with open_store(":memory:", iterations=1000) as store:
        store.users.add("root", "t00r", is_admin=True)
        async with open_place(has_service=False, store=store) as place, netcat(place) as person:
            await person.read()
            await person.type("client")
            assert (await person.ask("Manager users_table.usernames"))["attribute"] == "username"
            assert (await person.ask("root"))["args"] == ["root"]
            assert (await person.ask("t00r"))["result"] == ["root"]
            added = await person.ask('Manager users_table.insert ada "l ovelace" is_admin=false')
            assert (added["error"], added["result"]) == (False, None)
            assert (await person.ask("Manager users_table.is_password_valid ada 'l ovelace'"))[
                "result"
            ] is True
            assert (await person.ask("Manager shutdown_manager"))["result"] is None
            await person.read_end()


# -- a person with openssl s_client --------------------------------------------------------------------------


@asynccontextmanager
async def s_client(place: Place, authority: str, *options: str) -> AsyncIterator[Person]:
    """A person at ``openssl s_client``, which is a process, for a block. It verifies the certificate."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl on this computer")
    command = [program, "s_client", "-connect", f"127.0.0.1:{place.port}", "-quiet", *options]
    command += ["-CAfile", authority, "-verify_return_error", "-verify_hostname", "localhost"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    peer = RawPeer(trio.StapledStream(process.stdin, process.stdout))
    try:
        async with process.stdin, process.stdout:
            yield Person(peer.send, peer.receive)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("options", [[], ["-crlf"], ["-tls1_2"]], ids=["plain", "crlf", "TLS 1.2"])
async def test_a_person_with_openssl(options: list[str], tls: Any) -> None:
    """As with netcat, over TLS, to the good-bye."""
    async with open_place(tls.server, has_service=False) as place:
        async with s_client(place, str(tls.authority), *options) as person:
            assert (await person.read())["attribute"] == "identity"
            await person.type("client Ada", "identity", "link DMM", "DMM read 1")
            (name,) = (await person.read())["result"]["clients"]
            assert name.startswith("Ada[")
            assert (await person.read())["message"].startswith("KeyError: ")
            assert (await person.read())["message"].startswith("KeyError: ")
            await person.type("exit")
            await person.read_end()


async def test_a_person_with_openssl_logs_in_and_pastes_much(tls: Any) -> None:
    """A password over TLS, and a line of a megabyte in both directions."""
    async with open_place(
        tls.server, has_service=False, authenticate=Authenticate(password="po 210")
    ) as place:
        async with s_client(place, str(tls.authority)) as person:
            question = await person.read()
            assert (question["attribute"], question["args"][0][:8]) == ("password", "Manager[")
            assert (await person.ask("po 210"))["attribute"] == "identity"
            await person.type("client Ada")
            (name,) = (await person.ask("identity"))["result"]["clients"]
            attribute = "x" * 1_000_000
            packet = json.dumps({"service": "Manager", "attribute": "link", "args": [attribute], "uid": "7"})
            answer = await person.ask(packet)
            assert (answer["uid"], answer["requester"]) == ("7", name)
            assert attribute in answer["message"]


async def test_openssl_at_a_manager_without_tls() -> None:
    """The two do not understand each other: the program ends, and the manager has forgotten it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl on this computer")
    async with open_place(has_service=False) as place:
        done = await trio.run_process(
            [program, "s_client", "-connect", f"127.0.0.1:{place.port}", "-quiet"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode != 0
        assert b"wrong version number" in done.stderr.lower()
        async with place.open_client() as client:
            assert list((await client.identities())["clients"]) == [client.network_name]


# -- LabVIEW -------------------------------------------------------------------------------------------------


class LabView:
    """What the VIs do, with nothing but a blocking socket and JSON, in lines with CR LF, one thing at a time.

    It says nothing before it is asked, knows no links and no notifications, sends keyword arguments only, and
    looks at nothing of a packet but what it needs.
    """

    def __init__(self, port: int, username: str = "", password: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._answers = {"username": username, "password": password}
        self._uid = 0

    def close(self) -> None:
        self._socket.close()

    def read(self) -> dict[str, Any]:
        """Read to the next CR LF, as *TCP Read* does in its CRLF mode."""
        line = bytearray()
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise EOFError(bytes(line))
            line += byte
        packet: dict[str, Any] = json.loads(line)
        return packet

    def write(self, packet: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(packet, separators=(",", ":")).encode() + b"\r\n")

    def shake_hands(self, identity: dict[str, Any]) -> None:
        """Answer by the attribute's name until the identity was asked for."""
        while True:
            request = self.read()
            attribute = request["attribute"]
            result = identity if attribute == "identity" else self._answers[attribute]
            self._reply(request, result)
            if attribute == "identity":
                return

    def request(self, service: str, attribute: str, **kwargs: Any) -> Any:
        """Ask, and wait for the answer; an error is a RuntimeError."""
        self._uid += 1
        self.write(
            {
                "service": service,
                "attribute": attribute,
                "args": [],
                "kwargs": kwargs,
                "uid": str(self._uid),
                "error": False,
            }
        )
        answer = self.read()
        assert answer["uid"] == str(self._uid)
        if answer["error"]:
            raise RuntimeError(answer["message"])
        return answer["result"]

    def serve(self, functions: dict[str, Callable[..., Any]]) -> None:
        """Carry out requests one by one until the manager closes."""
        while True:
            try:
                request = self.read()
            except EOFError:
                return
            try:
                result = functions[request["attribute"]](*request["args"], **request["kwargs"])
            except Exception as error:
                self._fail(request, str(error))
            else:
                self._reply(request, result)

    def notify(self, service: str, *args: Any) -> None:
        self.write({"error": False, "result": [args, {}], "service": service, "uid": "notification"})

    def _reply(self, request: dict[str, Any], result: Any) -> None:
        self.write(
            {"result": result, "requester": request["requester"], "uid": request["uid"], "error": False}
        )

    def _fail(self, request: dict[str, Any], text: str) -> None:
        self.write(
            {
                "error": True,
                "message": f"Error 5001: {text}",
                "traceback": [],
                "result": None,
                "requester": request["requester"],
                "uid": request["uid"],
            }
        )


CLIENT = {"type": "client", "name": "VI", "language": "LabVIEW 10.0", "os": "Windows 7"}


@contextmanager
def labview(port: int, **credentials: str) -> Iterator[LabView]:
    """A VI, for a block."""
    device = LabView(port, **credentials)
    try:
        yield device
    finally:
        device.close()


def _ask_basic_math(port: int) -> dict[str, Any]:
    with labview(port) as device:
        device.shake_hands(CLIENT)
        answers: dict[str, Any] = {
            "identity": device.request("Manager", "identity"),
            "sum": [device.request("Basic Math", "add", x=number, y=1) for number in range(100)],
            "text": device.request("Basic Math", "describe", unit="µΩ"),
        }
        for name, service, attribute in (("error", "Basic Math", "divide"), ("absent", "DMM", "read")):
            with pytest.raises(RuntimeError) as caught:
                device.request(service, attribute, x=1, y=0)
            answers[name] = str(caught.value)
        device.write({"service": "VI", "attribute": "__disconnect__"})
        with pytest.raises(EOFError):
            device.read()
        return answers


async def test_labview_as_a_client() -> None:
    """It asks without linking, with keyword arguments, and reads results and errors in its lines."""
    async with open_place() as place:
        answers = await trio.to_thread.run_sync(_ask_basic_math, place.port)
    assert answers["sum"] == list(range(1, 101))
    assert answers["text"] == [[], {"unit": "µΩ"}]
    assert answers["error"] == "ZeroDivisionError: division by zero"
    assert answers["absent"].startswith("KeyError: ")
    ((name, entry),) = answers["identity"]["clients"].items()
    assert name.startswith("VI[")
    assert (entry["language"], entry["os"]) == ("LabVIEW 10.0", "Windows 7")


def _serve_vi(port: int) -> None:
    with labview(port) as device:
        device.shake_hands(
            {
                "type": "service",
                "name": "VI service",
                "attributes": {"scale": "(x, factor)", "fail": "()", "announce": "()"},
                "language": "LabVIEW 10.0",
                "os": "Windows 7",
            }
        )

        def announce() -> str:
            for number in range(3):
                device.notify("VI service", number)
            return "told"

        def fail() -> None:
            raise ValueError("no instrument")

        def die() -> None:
            raise KeyboardInterrupt

        functions = {"scale": lambda x, factor=2: x * factor, "fail": fail, "announce": announce, "die": die}
        try:
            device.serve(functions)
        except KeyboardInterrupt:
            pass


async def test_labview_as_a_service() -> None:
    """Our clients link with it, call it, read its errors and notifications, and are told when it dies."""
    async with open_place(has_service=False) as place, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, _serve_vi, place.port)
        async with place.open_client() as client:
            while "VI service" not in (await client.identities())["services"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            async with client.link("VI service") as link:
                assert link.service_language == "LabVIEW 10.0"
                assert link.service_attributes == {"scale": "(x, factor)", "fail": "()", "announce": "()"}
                notes = link.notifications()
                assert await link.scale(21) == 42
                assert await link.scale(x="é", factor=3) == "ééé"
                results: dict[int, int] = {}

                async def call(number: int) -> None:
                    results[number] = await link.scale(number, factor=10)

                async with trio.open_nursery() as calls:
                    for number in range(50):
                        calls.start_soon(call, number)
                assert results == {number: 10 * number for number in range(50)}
                with pytest.raises(RemoteError, match="Error 5001: no instrument"):
                    await link.fail()
                assert await link.announce() == "told"
                assert [(await anext(notes)).args for _ in range(3)] == [(0,), (1,), (2,)]
                async with link.lock():
                    assert await link.scale(1) == 2
                with pytest.raises(ServiceGone, match="'VI service'"):
                    await link.die()


def _ask_vi(port: int) -> list[Any]:
    with labview(port) as device:
        device.shake_hands(CLIENT)
        while "VI service" not in device.request("Manager", "identity")["services"]:
            pass
        results = [device.request("VI service", "scale", x=number) for number in range(100)]
        with pytest.raises(RuntimeError, match="'VI service' Service disconnected"):
            device.request("VI service", "die")
        return results


async def test_labview_asks_labview() -> None:
    """Two peers of which neither knows more than the wire work together through our manager."""
    async with open_place(has_service=False) as place, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, _serve_vi, place.port)
        results = await trio.to_thread.run_sync(_ask_vi, place.port)
        assert results == [2 * number for number in range(100)]


def _log_in_vi(port: int, password: str) -> str:
    with labview(port, username="marie", password=password) as device:
        try:
            device.shake_hands(CLIENT)
        except KeyError:
            return "refused"
        return str(next(iter(device.request("Manager", "identity")["clients"])))


async def test_labview_logs_in() -> None:
    """It answers what it is asked by name, and is let in, or told why not."""
    with open_store(":memory:", iterations=1000) as store:
        store.users.add("marie", "polonium")
        async with open_place(has_service=False, authenticate=Authenticate(login=True), store=store) as place:
            name = await trio.to_thread.run_sync(_log_in_vi, place.port, "polonium")
            assert name.startswith("VI[")
            # What it reads then has no attribute: it is the reason.
            assert await trio.to_thread.run_sync(_log_in_vi, place.port, "radium") == "refused"
