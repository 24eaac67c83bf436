"""A manager and its peers, line by line, in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from armillary import testing
from armillary.network.manager import Authenticate, ManagerLimits
from armillary.network.store import Store, open_store
from armillary.testing import RawPeer
from armillary.testing.streams import BoundedStream


class Device:
    """A peer of the manager, spoken for by the test.

    Attributes:
        name: its network name, once it is connected.
    """

    def __init__(self, stream: BoundedStream) -> None:
        self.stream = stream
        self._peer = RawPeer(stream)
        self.name = ""

    async def tell(self, **packet: Any) -> None:
        """Send a packet."""
        await self.send(json.dumps(packet).encode() + b"\r\n")

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._peer.send(data)

    async def line(self) -> bytes:
        """The next line; empty at the end."""
        return await self._peer.receive()

    async def hear(self) -> dict[str, Any]:
        """The next packet."""
        line = await self._peer.receive()
        assert line.endswith(b"\r\n"), line
        packet: dict[str, Any] = json.loads(line)
        return packet

    async def identify(self, kind: str, name: str, **more: Any) -> None:
        """Answer who one is, and wait until the manager knows."""
        question = await self.hear()
        assert question["attribute"] == "identity"
        identity = {"type": kind, "name": name, "language": "Test 1", "os": "Test", **more}
        await self.tell(error=False, requester=None, result=identity, uid="")
        await self.ask("Manager", "identity", uid="hello")

    async def ask(
        self, service: str, attribute: str, *args: Any, uid: str = "1", **kwargs: Any
    ) -> dict[str, Any]:
        """Make a request and hear the answer."""
        await self.request(service, attribute, *args, uid=uid, **kwargs)
        return await self.hear()

    async def request(self, service: str, attribute: str, *args: Any, uid: str = "1", **kwargs: Any) -> None:
        """Make a request."""
        await self.tell(args=args, attribute=attribute, error=False, kwargs=kwargs, service=service, uid=uid)


class Lab:
    """A manager whose peers are spoken for by the test."""

    def __init__(self, lab: testing.Lab) -> None:
        self._lab = lab

    @asynccontextmanager
    async def device(self) -> AsyncIterator[Device]:
        """Somebody who has connected and said nothing."""
        stream = await self._lab.connect()
        try:
            yield Device(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def client(self, name: str = "Bench") -> AsyncIterator[Device]:
        """A client."""
        async with self.device() as device:
            await device.identify("client", name)
            identity = (await device.ask("Manager", "identity"))["result"]
            device.name = next(full for full in reversed(identity["clients"]) if full.startswith(name))
            yield device

    @asynccontextmanager
    async def service(self, name: str = "DMM", **more: Any) -> AsyncIterator[Device]:
        """A service."""
        async with self.device() as device:
            await device.identify("service", name, attributes={"read": "(n=1) -> float"}, **more)
            yield device


@asynccontextmanager
async def open_lab(**options: Any) -> AsyncIterator[Lab]:
    """A manager, for a block."""
    async with testing.open_lab(**options) as lab:
        yield Lab(lab)


@pytest.fixture
def store() -> Any:
    with open_store(":memory:", iterations=1000, trusted=lambda: ["trusted"]) as opened:
        yield opened


async def test_a_request_goes_there_and_its_reply_back() -> None:
    """The service gets the request with who has asked, and the client the very bytes of the reply."""
    async with open_lab() as lab, lab.service() as service, lab.client() as client:
        await client.request("DMM", "read", 3, uid="c0ffee", scale="é")
        request = await service.hear()
        assert request == {
            "args": [3],
            "attribute": "read",
            "error": False,
            "kwargs": {"scale": "é"},
            "service": "DMM",
            "uid": "c0ffee",
            "requester": client.name,
        }
        reply = json.dumps({"uid": "c0ffee", "result": 1.5, "requester": client.name, "error": False})
        await service.send(reply.encode() + b"  \n")
        assert await client.line() == reply.encode() + b"  \n"


async def test_nobody_makes_up_a_requester() -> None:
    """Whatever a client says as the requester, the service sees the client's own name, and only that."""
    async with open_lab() as lab, lab.service() as service, lab.client() as client:
        await client.tell(
            service="DMM", attribute="read", requester="Admin[x:1]", uid="1", args=[], kwargs={}
        )
        line = await service.line()
        assert line.count(b"requester") == 1
        assert json.loads(line)["requester"] == client.name


async def test_nobody_answers_for_another() -> None:
    """A reply from who was not asked reaches nobody; the service's own still does."""
    async with open_lab() as lab, lab.service() as service, lab.service("Other") as other:
        async with lab.client() as client:
            await client.request("DMM", "read", uid="7")
            await service.hear()
            await other.tell(error=False, result="forged", requester=client.name, uid="7")
            await other.ask("Manager", "identity")
            await service.tell(error=False, result="true", requester=client.name, uid="7")
            assert (await client.hear())["result"] == "true"


async def test_nobody_notifies_for_another() -> None:
    """Notifications reach those who are linked, and only from the service that they name."""
    async with open_lab() as lab, lab.service() as service, lab.client() as client:
        assert (await client.ask("Manager", "link", "DMM"))["error"] is False
        async with lab.client("Stranger") as stranger:
            await stranger.tell(error=False, result=[[1], {}], service="DMM", uid="notification")
            refused = await stranger.hear()
            assert refused["message"].startswith("PermissionError: ")
            note = b'{"error": false, "result": [[2], {}], "service": "DMM", "uid": "notification"}\n'
            await service.send(note)
            assert await client.line() == note


async def test_a_service_that_dies_fails_its_calls() -> None:
    """Whoever waits for a service that goes is told so at once, with its name and the request's uid."""
    async with open_lab() as lab, lab.client() as client:
        async with lab.service() as service:
            await client.request("DMM", "read", uid="a")
            await client.request("DMM", "read", uid="b")
            await service.hear()
        failures = [await client.hear(), await client.hear()]
        assert [failure["uid"] for failure in failures] == ["a", "b"]
        assert all("'DMM'" in failure["message"] and failure["error"] for failure in failures)
        missing = await client.ask("DMM", "read", uid="c")
        assert missing["uid"] == "c"
        assert missing["message"].startswith("KeyError: ")


@pytest.mark.parametrize(
    ("garbage", "uid"),
    [
        (b"not json at all\n", ""),
        (b"[1, 2]\n", ""),
        (b'{"uid": "5"}\n', "5"),
        (b'{"service": 3, "attribute": "x", "uid": "6"}\n', "6"),
        (b'{"service": "Manager", "attribute": "link", "args": 3, "uid": "7"}\n', "7"),
        (b"\xff\xfe\n", ""),
        (b'{"args": ' + b"[" * 5000 + b"]" * 5000 + b', "service": "DMM", "attribute": "x"}\n', ""),
        (b"\n", ""),
    ],
)
@pytest.mark.parametrize("by_byte", [False, True], ids=["whole", "in pieces"])
async def test_garbage_is_answered(garbage: bytes, uid: str, by_byte: bool) -> None:
    """What is no packet gets an error packet, the connection goes on, and the registry is as it was."""
    async with open_lab() as lab, lab.service() as service, lab.client() as client:
        step = 7 if by_byte else len(garbage)
        for start in range(0, len(garbage), step):
            await client.send(garbage[start : start + step])
        failure = await client.hear()
        assert failure["error"] is True
        assert failure["result"] is None
        assert failure["uid"] == uid
        await client.request("DMM", "read", uid="after")
        assert (await service.hear())["uid"] == "after"


async def test_nothing_is_left_of_who_goes() -> None:
    """A client that vanishes gives up its links and locks at once; a late reply to it reaches nobody."""
    async with open_lab() as lab, lab.service(max_clients=1) as service, lab.client("Second") as second:
        async with lab.client("First") as first:
            await first.ask("Manager", "link", "DMM")
            assert (await first.ask("Manager", "acquire_lock", "DMM", shared=False))["result"] == [first.name]
            await first.request("DMM", "read", uid="1")
            request = await service.hear()
            assert (await second.ask("Manager", "link", "DMM"))["message"].startswith("PermissionError")
        await service.tell(error=False, result=1, requester=request["requester"], uid="1")
        await trio.testing.wait_all_tasks_blocked()
        assert (await second.ask("Manager", "link", "DMM"))["error"] is False
        identity = (await second.ask("Manager", "identity"))["result"]
        assert list(identity["clients"]) == [second.name]


async def test_names_of_services_are_taken_once() -> None:
    """A second service of a name is told so and disconnected; the name is free when the first goes."""
    async with open_lab() as lab:
        async with lab.service(), lab.device() as second:
            await second.hear()
            await second.tell(result={"type": "service", "name": "DMM", "attributes": {}}, uid="")
            assert (await second.hear())["message"] == (
                "NameError: A 'DMM' service is already running on the Manager"
            )
            assert await second.line() == b""
        await trio.testing.wait_all_tasks_blocked()
        async with lab.service():
            pass


async def test_typed_lines() -> None:
    """People at a terminal answer in words and ask in shorthand: three in one segment, answered in order."""
    async with open_lab() as lab, lab.service() as service, lab.device() as terminal:
        await terminal.hear()
        await terminal.send(b"client Ada at home\n")
        await terminal.send(b"identity\nlink DMM\nDMM read 3 scale=2\n")
        identity = (await terminal.hear())["result"]
        (name,) = identity["clients"]
        assert name.startswith("Ada at home[")
        assert (await terminal.hear())["result"]["attributes"] == {"read": "(n=1) -> float"}
        request = await service.hear()
        assert (request["args"], request["kwargs"], request["requester"]) == ([3], {"scale": 2}, name)
        await service.tell(error=False, result="done", requester=name, uid="")
        assert (await terminal.hear())["result"] == "done"
        await terminal.send(b"exit\n")
        assert await terminal.line() == b""


async def test_manager_password() -> None:
    """The manager's password lets in, as text or as JSON; a wrong one is refused with 1.0's words."""
    async with open_lab(authenticate=Authenticate(password="polonium")) as lab:
        async with lab.device() as device:
            question = await device.hear()
            assert (question["attribute"], question["args"][0][:8]) == ("password", "Manager[")
            await device.send(b"polonium\n")
            await device.identify("client", "x")
        async with lab.device() as device:
            await device.hear()
            await device.tell(result="radium", uid="", error=False, requester=None)
            assert (await device.hear())["message"] == "ValueError: Wrong Manager password"
            assert await device.line() == b""


@pytest.mark.parametrize(
    ("username", "password", "message"),
    [
        ("marie", "polonium", None),
        ("marie", "radium", "ValueError: Wrong login password"),
        ("pierre", "polonium", "ValueError: Unregistered user"),
    ],
)
async def test_login(store: Store, username: str, password: str, message: str | None) -> None:
    """Users of the store log in; others are told what 1.0 tells them."""
    store.users.add("marie", "polonium")
    async with open_lab(authenticate=Authenticate(login=True), store=store) as lab, lab.device() as device:
        assert (await device.hear())["attribute"] == "username"
        await device.tell(result=username, uid="", error=False, requester=None)
        answer = await device.hear()
        if "result" not in answer:
            assert (answer["attribute"], answer["args"]) == ("password", [username])
            await device.tell(result=password, uid="", error=False, requester=None)
            if message is None:
                await device.identify("client", "x")
                return
            answer = await device.hear()
        assert answer["message"] == message
        assert await device.line() == b""


async def test_administration(store: Store) -> None:
    """An administrator logs in on the connection, asks for what is listed, and for nothing else."""
    store.users.add("root", "toor", is_admin=True)
    async with open_lab(store=store) as lab, lab.client() as client:
        await client.request("Manager", "users_table.usernames", uid="42")
        assert (await client.hear())["attribute"] == "username"
        await client.tell(result="root", uid="", error=False, requester=None)
        assert (await client.hear())["args"] == ["root"]
        await client.tell(result="toor", uid="", error=False, requester=None)
        assert await client.hear() == {
            "error": False,
            "requester": client.name,
            "result": ["root"],
            "uid": "42",
        }
        refused = await client.ask("Manager", "_recorder._audit", uid="43")
        assert (refused["uid"], refused["message"][:15]) == ("43", "AttributeError:")
        assert (await client.ask("Manager", "login"))["result"] is None
        await client.request("Manager", "shutdown_manager")
        while await client.line():
            pass
    messages = [event.message for event in store.audit.events()]
    assert "requested" in messages


async def test_nobody_logs_in(autojump_clock: Callable[[], object], store: Store) -> None:
    """A request that needs an administrator is denied, with its uid, when nobody has logged in in time."""
    async with open_lab(store=store) as lab, lab.client() as client:
        await client.request("Manager", "port", uid="42")
        assert (await client.hear())["attribute"] == "username"
        denied = await client.hear()
        assert (denied["uid"], denied["message"][:12]) == ("42", "TimeoutError")
        assert (await client.ask("Manager", "identity"))["error"] is False


async def test_connections_are_recorded(store: Store) -> None:
    """One connection makes two rows when it comes, and one when it goes."""
    async with open_lab(store=store) as lab:
        async with lab.client():
            pass
        await trio.testing.wait_all_tasks_blocked()
    assert [row.message for row in store.audit.connections()] == [
        "new connection request",
        "connected as a client",
        "disconnected",
    ]


async def test_who_does_not_read_costs_nobody_else(autojump_clock: Callable[[], object]) -> None:
    """Notifications to a linked client that does not read are dropped; the others get every one."""
    limits = ManagerLimits(unread=100_000)
    async with open_lab(limits=limits) as lab, lab.service() as service:
        async with lab.client("Stuck") as stuck, lab.client("Quick") as quick:
            for client in (stuck, quick):
                await client.ask("Manager", "link", "DMM")
            note = json.dumps(
                {"error": False, "result": [["x" * 1000], {}], "service": "DMM", "uid": "notification"}
            ).encode()
            async with trio.open_nursery() as nursery:

                async def emit() -> None:
                    for _ in range(1000):
                        await service.send(note + b"\n")

                nursery.start_soon(emit)
                for _ in range(1000):
                    assert await quick.line() == note + b"\n"
            assert (await quick.ask("Manager", "identity"))["error"] is False


async def test_a_handshake_has_a_deadline(autojump_clock: Callable[[], object]) -> None:
    """Who says nothing is disconnected after a minute, and not before."""
    async with open_lab() as lab, lab.device() as device:
        await device.hear()
        with trio.move_on_after(59):
            await device.hear()
            raise AssertionError("too early")
        assert (await device.hear())["message"].startswith("TimeoutError: ")
        assert await device.line() == b""


async def test_large_packets_are_forwarded(autojump_clock: Callable[[], object]) -> None:
    """Megabytes go there and back unchanged, and others are answered meanwhile."""
    async with open_lab() as lab, lab.service() as service, lab.client() as client:
        text = "ä" * 3_000_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.request, "DMM", "echo", text, uid="big"))
            async with lab.client("Other") as other:
                assert (await other.ask("Manager", "identity"))["error"] is False
            received = b""
            while not received.endswith(b"\n"):
                received += await service.stream.receive_some()
            assert json.loads(received)["args"] == [text]


async def test_what_comes_behind_a_large_packet_is_forwarded(autojump_clock: Callable[[], object]) -> None:
    """One packet that takes its time costs nobody a request or a notification; more of them do."""
    limits = ManagerLimits(unread=100_000)
    async with open_lab(limits=limits) as lab, lab.service() as service, lab.client() as client:
        await client.ask("Manager", "link", "DMM")
        text = "x" * 3_000_000
        await client.request("DMM", "echo", text, uid="large")
        await client.request("DMM", "echo", uid="behind")
        heard = [await service.hear() for _ in range(2)]
        assert [packet["uid"] for packet in heard] == ["large", "behind"]
        told = {"error": False, "result": [[text], {}], "service": "DMM", "uid": "notification"}
        await service.tell(**told)
        await service.tell(**{**told, "result": [[1], {}]})
        assert [len(str((await client.hear())["result"])) > 100 for _ in range(2)] == [True, False]
        for uid in ("1", "2", "3"):
            await client.request("DMM", "echo", text, uid=uid)
        refused = await client.hear()
        assert (refused["uid"], refused["message"]) == (
            "3",
            "RuntimeError: the 'DMM' Service does not read its requests",
        )
