"""Defects of the managers of MSL-Network 1.0 that this one does not have: who goes, who talks nonsense, who
does not read.

====== =========================================== ==========================================================
number the defect                                  the tests
====== =========================================== ==========================================================
1      callers of a service that dies wait         `test_who_waits_for_a_service_that_breaks_is_told_at_once`,
       for ever                                    `test_when_the_manager_goes_no_service_is_blamed`,
                                                   ``test_manager.test_a_service_that_dies_fails_its_calls``
2      a request to a service that has gone is     `test_a_request_to_a_service_that_has_gone`,
       answered without its uid                    ``test_network_client.test_a_service_that_is_not_...``
5      a malformed packet leaves a ghost, with     `test_nonsense_of_a_client_is_answered`,
       its links, its locks and its name           `test_nonsense_of_a_service_is_answered`,
                                                   `test_nonsense_as_an_identity_is_refused`,
                                                   `test_a_line_that_never_ends`,
                                                   `test_an_identity_that_could_not_be_told_to_others`,
                                                   `test_a_typed_request_that_cannot_be_sent_was_none`,
                                                   `test_attachments_that_are_not_what_is_said_of_them`
6      a client that does not read holds up its    `test_a_stuck_client_costs_nobody_anything`,
       service, and takes its name with it         `test_a_stuck_service_costs_nobody_anything`,
                                                   `test_replies_that_nobody_reads_end_the_connection`,
                                                   `test_who_asks_and_never_reads_is_disconnected`
11     no limits: for the handshake, of a line,    `test_nobody_takes_for_ever_to_come_in`,
       for the name of a host; no keep-alive       ``test_manager.test_a_handshake_has_a_deadline``,
                                                   `test_a_line_that_is_too_long`,
                                                   `test_a_line_that_never_ends`,
                                                   `test_the_name_of_a_host_is_waited_for_by_nobody_else`,
                                                   `test_dead_computers_are_noticed`
====== =========================================== ==========================================================
"""

from __future__ import annotations

import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from watched_lab import Device, WatchedLab, assert_nothing_unexpected, open_watched_lab

from armillary.errors import ConnectionClosed
from armillary.network import hosts
from armillary.network.client import open_client
from armillary.network.errors import RemoteError, ServiceGone
from armillary.network.manager import ManagerLimits, serve_manager
from armillary.network.protocol.features import BINARY
from armillary.network.protocol.outstanding import Stray
from armillary.network.protocol.payloads import ATTACHED
from armillary.network.service import Service

NOTE = json.dumps({"error": False, "result": [["x" * 1000], {}], "service": "DMM", "uid": "notification"})


class Slow(Service):
    """Is asked, and does not answer in time."""

    async def wait(self) -> None:
        await trio.sleep_forever()

    async def echo(self, value: Any) -> Any:
        return value


# -- 1 and 2: services that go -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["closed", "reset", "disconnects"])
async def test_who_waits_for_a_service_that_breaks_is_told_at_once(way: str, autojump_clock: object) -> None:
    """All pending calls fail at once, with its name, whoever has made them; calls elsewhere go on."""
    async with open_watched_lab() as lab, lab.service("Other") as other, lab.client() as client:
        async with lab.service() as service, lab.open_client() as native, trio.open_nursery() as nursery:
            failed: list[RemoteError] = []

            async def call() -> None:
                with pytest.raises(ServiceGone, match="'DMM'") as caught:
                    await link.read()
                assert caught.value.may_have_been_received
                failed.append(caught.value)

            async with native.link("DMM") as link:
                for _ in range(20):
                    nursery.start_soon(call)
                await client.request("DMM", "read", uid="by hand")
                await client.send(b"DMM read\n")
                await client.request("Other", "read", uid="elsewhere")
                await trio.testing.wait_all_tasks_blocked()
                assert lab.manager.outstanding.statistics().in_flight == 23
                began = trio.current_time()
                if way == "closed":
                    await service.stream.aclose()
                elif way == "reset":
                    service.stream.reset()
                else:
                    await service.tell(service="DMM[lab7:51030]", attribute="__disconnect__")
                told = [await client.hear(), await client.hear()]
                await trio.testing.wait_all_tasks_blocked()
                assert len(failed) == 20
            assert trio.current_time() == began
        for packet in told:
            assert packet["message"].startswith("ConnectionAbortedError: the 'DMM' Service disconnected")
        assert {packet["uid"] for packet in told} == {"by hand", ""}
        assert lab.manager.outstanding.statistics().unanswered == 22
        await other.hear()
        await other.tell(error=False, result=1, requester=client.name, uid="elsewhere")
        assert (await client.hear())["result"] == 1
        await lab.assert_clean(["Other", "Bench"])


async def test_a_request_to_a_service_that_has_gone(autojump_clock: object) -> None:
    """The ordinary case, a service is restarted while one is linked: an error, and everything goes on."""
    async with open_watched_lab() as lab:
        running = await lab.start_service(Slow())
        async with lab.open_client() as client:
            async with client.link("Slow") as link:
                assert await link.echo(1) == 1
                running.cancel()
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(ServiceGone, match="'Slow'") as caught:
                    await link.echo(2)
                assert not caught.value.may_have_been_received
                await lab.start_service(Slow())
                assert await link.echo(3) == 3
                assert client.is_connected
            async with client.link("Slow") as again:
                assert await again.echo(4) == 4


async def test_when_the_manager_goes_no_service_is_blamed(autojump_clock: object) -> None:
    """Calls that are pending then fail because the connection has ended, and not because a service has."""
    async with open_watched_lab() as lab, trio.open_nursery() as nursery:
        for name in ("A", "B", "C"):
            await lab.start_service(Slow(name=name))
        failed: list[ConnectionClosed] = []

        async def call(number: int) -> None:
            async with lab.open_client(f"Client {number}") as client:
                async with client.link("ABC"[number % 3]) as link:
                    with pytest.raises(ConnectionClosed) as caught:
                        await link.wait()
                    failed.append(caught.value)

        for number in range(12):
            nursery.start_soon(call, number)
        await trio.testing.wait_all_tasks_blocked()
        assert lab.manager.outstanding.statistics().in_flight == 12
        await lab.stop_manager()
        await trio.testing.wait_all_tasks_blocked()
        assert [error.may_have_been_received for error in failed] == [True] * 12


# -- 5: nonsense ---------------------------------------------------------------------------------------------

DEEP = b"[" * 5000 + b"]" * 5000
HUGE = b"1" * 5000
NONSENSE = {
    "no JSON": b"what is this",
    "half of an object": b'{"service": "DMM", "attribute": ',
    "an array": b"[1, 2]",
    "a number": b"42",
    "null": b"null",
    "blank": b"  \t",
    "NUL": b"\x00\x00",
    "bad UTF-8": b"\xff\xfe\xfd",
    "bad UTF-8 in a packet": b'{"service": "DMM", "attribute": "\xff", "uid": "1"}',
    "no service": b'{"attribute": "read", "uid": "1"}',
    "no attribute": b'{"service": "DMM", "uid": "1"}',
    "nothing": b"{}",
    "a number as the service": b'{"service": 1, "attribute": "read"}',
    "an object as the attribute": b'{"service": "DMM", "attribute": {}}',
    "an array as the uid": b'{"service": "DMM", "attribute": "read", "uid": []}',
    "a number as the requester": b'{"result": 1, "requester": 5, "uid": "1"}',
    "two uids": b'{"service": "DMM", "attribute": "read", "uid": "1", "uid": "2"}',
    "half of a surrogate pair": b'{"service": "\\ud800", "attribute": "read"}',
    "the uid of notifications": b'{"service": "DMM", "attribute": "read", "uid": "notification"}',
    "a notification of nobody": b'{"result": [[], {}], "uid": "notification"}',
    "a notification of another": b'{"result": [[], {}], "uid": "notification", "service": "Nobody"}',
    "deep nesting": b'{"service": "DMM", "attribute": "read", "args": ' + DEEP + b"}",
    "deep nesting to the manager": b'{"service": "Manager", "attribute": "link", "args": ' + DEEP + b"}",
    "a tower": b'{"a":' * 20000,
    "a huge integer": b'{"service": "Manager", "attribute": "identity", "args": [' + HUGE + b"]}",
    "arguments that are none": b'{"service": "Manager", "attribute": "link", "args": "DMM"}',
    "a link with a number": b'{"service": "Manager", "attribute": "link", "args": [7]}',
    "a link with nothing": b'{"service": "Manager", "attribute": "link"}',
    "a lock of no kind": b'{"service": "Manager", "attribute": "acquire_lock", "args": ["DMM"]}',
    "control characters": b'{"service": "DMM", "attribute": "a\x01b"}',
    "attachments of who cannot have any": b'{"service": "DMM", "attribute": "read", "bin1": 5}',
    "two packets in one line": b'{"service": "Manager", "attribute": "identity"} {"a": 1}',
    "a byte order mark": b'\xef\xbb\xbf{"service": "Manager", "attribute": "identity"}',
}
# What a service may say of itself, and others could not be told.
NESTED = b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"


@asynccontextmanager
async def _others(lab: WatchedLab) -> AsyncIterator[None]:
    """Two peers that work with each other, and do so still when the block ends."""
    async with lab.service("Steady") as service, lab.client("Witness") as client:
        for uid in ("before", "after"):
            await client.request("Steady", "read", uid=uid)
            assert (await service.hear())["uid"] == uid
            await service.tell(error=False, result=uid, requester=client.name, uid=uid)
            assert (await client.hear())["result"] == uid
            if uid == "before":
                yield


async def _say(device: Device, nonsense: bytes) -> dict[str, Any]:
    """Say something in two pieces, and hear what the manager thinks of it."""
    middle = len(nonsense) // 2
    await device.send(nonsense[:middle])
    await trio.testing.wait_all_tasks_blocked()
    await device.send(nonsense[middle:] + b"\n")
    packet = await device.hear()
    assert packet["error"] is True
    assert packet["result"] is None
    assert packet["traceback"] == []
    name, colon, text = packet["message"].partition(": ")
    assert name in ("ValueError", "TypeError", "KeyError", "PermissionError")
    assert colon
    assert text
    return packet


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_of_a_client_is_answered(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It gets an error, keeps its link and its lock, and takes both with it when it goes."""
    async with open_watched_lab() as lab, lab.service() as service:
        async with _others(lab), lab.client() as client:
            await client.ask("Manager", "link", "DMM")
            await client.ask("Manager", "acquire_lock", "DMM", shared=False)
            before = lab.manager.outstanding.statistics()
            await _say(client, nonsense)
            assert lab.manager.outstanding.statistics() == before
            (row, _) = lab.manager.registry.table()
            assert (row.links, row.holders, row.lock) == ((client.name,), (client.name,), "exclusive")
            await client.request("DMM", "read", uid="after")
            assert (await service.hear())["uid"] == "after"
            await service.tell(error=False, result=1, requester=client.name, uid="after")
            assert (await client.hear())["result"] == 1
        await lab.assert_clean(["DMM"])
    assert_nothing_unexpected(caplog)


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_of_a_service_is_answered(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It gets an error and stays who it is; when it goes, its name is free and nobody is linked with it."""
    async with open_watched_lab() as lab, lab.client() as client:
        async with _others(lab), lab.service() as service:
            await client.ask("Manager", "link", "DMM")
            await client.request("DMM", "read", uid="7")
            assert (await service.hear())["uid"] == "7"
            await _say(service, nonsense)
            await service.tell(error=False, result="late", requester=client.name, uid="7")
            assert (await client.hear())["result"] == "late"
        await lab.assert_clean(["Bench"])
        async with lab.service():
            assert (await client.ask("Manager", "link", "DMM"))["error"] is False
    assert_nothing_unexpected(caplog)


IDENTITIES = {
    "no object": b"[1, 2]",
    "text": b"hello there",
    "no type": b'{"result": {"name": "DMM"}}',
    "an unknown type": b'{"result": {"type": "x", "name": "DMM"}}',
    "no name": b'{"result": {"type": "client"}}',
    "an empty name": b'{"result": {"type": "client", "name": ""}}',
    "a name of two lines": b'{"result": {"type": "client", "name": "a\\nb"}}',
    "half of a surrogate pair": b'{"result": {"type": "client", "name": "\\ud800"}}',
    "an endless name": b'{"result": {"type": "client", "name": "' + b"x" * 100_000 + b'"}}',
    "no attributes": b'{"result": {"type": "service", "name": "DMM"}}',
    "attributes that are none": b'{"result": {"type": "service", "name": "DMM", "attributes": [1]}}',
    "half a client": b'{"result": {"type": "service", "name": "DMM", "attributes": {}, "max_clients": 0.5}}',
    "deep nesting": b'{"result": ' + DEEP + b"}",
    "deep attributes": b'{"result": {"type": "service", "name": "DMM", "attributes": ' + NESTED + b"}}",
    "a huge integer": b'{"result": {"type": "client", "name": "x", "language": ' + HUGE + b"}}",
    "the manager's name": b'{"result": {"type": "service", "name": "Manager", "attributes": {}}}',
}


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
async def test_nonsense_as_an_identity_is_refused(identity: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The manager says in its own name what is wrong with it, closes, and has registered nobody."""
    async with open_watched_lab() as lab, _others(lab):
        async with lab.device() as device:
            name = (await device.hear())["requester"]
            await device.send(identity + b"\r\n")
            refusal = await device.hear()
            assert (refusal["error"], refusal["uid"], refusal["requester"]) == (True, "", name)
            assert refusal["message"].partition(":")[0] in (
                "ValueError",
                "TypeError",
                "KeyError",
                "NameError",
            )
            assert await device.line() == b""
        await lab.assert_clean(["Steady", "Witness"])
    assert_nothing_unexpected(caplog)


@pytest.mark.parametrize(("depth", "is_let_in"), [(1, True), (200, True), (253, False), (500, False)])
async def test_an_identity_that_could_not_be_told_to_others(
    depth: int, is_let_in: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a service says of itself, asking who is there and linking with it harms nobody."""
    async with open_watched_lab() as lab, lab.client() as client, lab.device() as device:
        await device.hear()
        await device.send(
            b'{"result": {"type": "service", "name": "Odd", "language": "\\ud800", "attributes": '
            b'{"a": %b, "b": NaN, "c": "\\ud800", "\\ud800": -1e999}}, "uid": ""}\n'
            % (b"[" * depth + b"]" * depth)
        )
        await trio.testing.wait_all_tasks_blocked()
        assert (lab.manager.registry.service("Odd") is not None) is is_let_in
        linked = await client.ask("Manager", "link", "Odd", uid="3")
        assert (linked["uid"], linked["error"]) == ("3", not is_let_in)
        answer = await client.ask("Manager", "identity", uid="4")
        assert ("Odd" in answer["result"]["services"]) is is_let_in
    assert_nothing_unexpected(caplog)


async def test_a_typed_request_that_cannot_be_sent_was_none() -> None:
    """An argument that JSON does not have is an error, and the service owes no reply for it."""
    async with open_watched_lab() as lab, lab.service() as service, lab.client() as client:
        await client.send(b"DMM read 1j\n")
        assert (await client.hear())["message"].startswith("TypeError: ")
        assert lab.manager.outstanding.statistics().forwarded == 0
        await service.tell(error=False, result="forged", requester=client.name, uid="")
        assert (await client.ask("Manager", "unlink", "nobody", uid="next"))["uid"] == "next"
        assert lab.manager.outstanding.statistics().strays[Stray.NOT_ASKED] == 1


@pytest.mark.parametrize("what", ["request", "reply", "notification"])
async def test_attachments_that_are_not_what_is_said_of_them(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Attachments that cannot be made text for a peer of 1.0 are an error for whoever waits, and no more."""
    async with open_watched_lab() as lab, lab.device() as modern, lab.client() as client:
        kind = "client" if what == "request" else "service"
        await modern.identify(kind, "Modern", attributes={}, features=[BINARY])
        (name,) = (peer.network_name for peer in lab.manager.registry.peers() if peer.name == "Modern")
        async with lab.service() as service:
            packet: dict[str, Any]
            if what == "request":
                packet = {"service": "DMM", "attribute": "read", "args": [], "kwargs": {}, "uid": "7"}
            elif what == "reply":
                await client.request("Modern", "read", uid="7")
                await modern.hear()
                packet = {"error": False, "result": 1, "requester": client.name, "uid": "7"}
            else:
                assert (await client.ask("Manager", "link", "Modern"))["error"] is False
                packet = {"error": False, "result": [[], {}], "service": "Modern", "uid": "notification"}
            packet[ATTACHED] = 3
            await modern.send(json.dumps(packet).encode() + b"\nabc")
            told = await (client if what == "reply" else modern).hear()
            assert (told["error"], told["uid"]) == (True, "" if what == "notification" else "7")
            assert (await modern.ask("Manager", "identity", uid="8"))["requester"] == name
            assert lab.manager.outstanding.statistics().in_flight == 0
            assert service.name == ""
    assert_nothing_unexpected(caplog)


async def test_a_line_that_is_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """It is thrown away while it comes, its sender is told, with the uid if it came early, and goes on."""
    async with open_watched_lab(limits=ManagerLimits(line=100_000)) as lab, _others(lab):
        async with lab.service() as service, lab.client() as client:
            await client.send(b'{"uid": "5", "service": "DMM", "attribute": "read", "args": ["')
            for _ in range(100):
                await client.send(b"x" * 10_000)
            await client.send(b'"], "kwargs": {}}\r\n')
            failure = await client.hear()
            assert (failure["uid"], failure["error"]) == ("5", True)
            assert "100000" in failure["message"]
            await client.request("DMM", "read", uid="after")
            assert (await service.hear())["uid"] == "after"
    assert_nothing_unexpected(caplog)


@pytest.mark.parametrize("is_in", [True, False], ids=["connected", "in the handshake"])
async def test_a_line_that_never_ends(is_in: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it is kept beyond the limit, others go on meanwhile, and nothing is left at its end."""
    async with open_watched_lab(limits=ManagerLimits(line=100_000)) as lab, lab.device() as device:
        if is_in:
            await device.identify("client", "Endless")
        async with _others(lab):
            tracemalloc.start()
            try:
                await device.send(b'{"args": "')
                for _ in range(1000):
                    await device.send(b"x" * 10_000)
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert kept < 1_000_000
        await device.stream.aclose()
        await lab.assert_clean()
    assert_nothing_unexpected(caplog)


# -- 6: who does not read ------------------------------------------------------------------------------------


async def test_a_stuck_client_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Others get every notification and their replies; what it does not get is bounded, counted, told once.

    When it goes, the service stays who it is.
    """
    count = 2000
    limits = ManagerLimits(unread=100_000)
    async with open_watched_lab(limits=limits) as lab, lab.service() as service:
        async with lab.client("Quick") as quick:
            async with lab.client("Stuck") as stuck:
                for client in (stuck, quick):
                    await client.ask("Manager", "link", "DMM")

                async def emit() -> None:
                    for number in range(count):
                        await service.send(NOTE.encode() + b"\r\n")
                        if number == count // 2:
                            assert (await service.hear())["uid"] == "1"
                            await service.tell(error=False, result=1, requester=quick.name, uid="1")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(emit)
                    await quick.request("DMM", "read", uid="1")
                    heard = [await quick.hear() for _ in range(count + 1)]
                assert [packet["uid"] for packet in heard].count("notification") == count
                assert heard[count // 2 + 1]["uid"] == "1"
                (row,) = (peer for peer in lab.manager.statistics().peers if peer.name == stuck.name)
                assert row.notifications_dropped > count / 2
                assert row.outbox.highest_backlog < limits.unread + 2 * len(NOTE)
            await lab.assert_linked("DMM", [quick.name])
            await service.send(NOTE.encode() + b"\r\n")
            assert (await quick.hear())["uid"] == "notification"
        await lab.assert_clean(["DMM"])
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert "Stuck[" in caplog.text
    assert "does not read" in caplog.text


async def test_a_stuck_service_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Requests that would only pile up are refused at once, with its name; other services are reached."""
    limits = ManagerLimits(unread=100_000)
    async with open_watched_lab(limits=limits) as lab, lab.service(), lab.client() as client, _others(lab):
        refused = 0
        for number in range(100):
            await client.request("DMM", "read", "x" * 10_000, uid=str(number))
        await trio.testing.wait_all_tasks_blocked()
        await client.request("Manager", "identity", uid="last")
        while (answer := await client.hear())["uid"] != "last":
            assert answer["message"] == "RuntimeError: the 'DMM' Service does not read its requests"
            refused += 1
        statistics = lab.manager.outstanding.statistics()
        assert statistics.in_flight + refused == 100
        assert 10 < statistics.in_flight < 30
        (row,) = (peer for peer in lab.manager.statistics().peers if peer.name.startswith("DMM["))
        assert row.outbox.highest_backlog < limits.unread + 2 * 10_100
    assert_nothing_unexpected(caplog)


async def test_replies_that_nobody_reads_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A reply is never dropped: who lets too many wait is disconnected, and the service goes on."""
    limits = ManagerLimits(unread=50_000, unread_replies=200_000)
    async with open_watched_lab(limits=limits) as lab, lab.service() as service, _others(lab):
        async with lab.client("Stuck") as stuck:
            for number in range(50):
                await stuck.request("DMM", "read", uid=str(number))
                await service.hear()
            for number in range(50):
                await service.tell(error=False, result="x" * 10_000, requester=stuck.name, uid=str(number))
            await trio.testing.wait_all_tasks_blocked()
            assert "Stuck" not in [peer.name for peer in lab.manager.registry.peers()]
        assert (await service.ask("Manager", "identity"))["error"] is False
        assert lab.manager.outstanding.statistics().strays[Stray.LATE] > 10
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "Disconnecting Stuck[" in warning.getMessage()


@pytest.mark.parametrize("line", [b"identity\n", b"\n", b'{"service": "X", "attribute": "x"}\n'])
async def test_who_asks_and_never_reads_is_disconnected(
    line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The manager's own answers pile up no more than others' replies do."""
    limits = ManagerLimits(unread=50_000, unread_replies=200_000)
    async with open_watched_lab(limits=limits) as lab, _others(lab):
        async with lab.client("Stuck") as stuck:
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(1000):
                    await stuck.send(line * 50)
            await trio.testing.wait_all_tasks_blocked()
        assert "Stuck" not in [peer.name for peer in lab.manager.registry.peers()]
    (warning,) = (record for record in caplog.records if "Disconnecting" in record.getMessage())
    assert "Stuck[" in warning.getMessage()
    assert_nothing_unexpected(caplog)


# -- 11: limits ----------------------------------------------------------------------------------------------


async def test_nobody_takes_for_ever_to_come_in(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Who drips a byte now and then has no more time than who says nothing."""
    async with open_watched_lab(limits=ManagerLimits(handshake=20)) as lab, lab.device() as device:
        await device.hear()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await device.send(b"c")
                    await trio.sleep(1)

            nursery.start_soon(drip)
            refusal = await device.hear()
            assert refusal["message"].startswith("TimeoutError: ")
            assert await device.line() == b""
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(20)
        await lab.assert_clean()
    assert_nothing_unexpected(caplog)


async def test_the_name_of_a_host_is_waited_for_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the resolver thinks about one peer, others come in; and it may not think for ever."""
    asked: list[object] = []

    async def resolve(address: object, flags: int) -> tuple[str, str]:
        asked.append(address)
        if len(asked) == 1:
            await trio.sleep_forever()
        return ("quick.example.org", "0")

    monkeypatch.setattr(trio.socket, "getnameinfo", resolve)
    monkeypatch.setattr(hosts, "RESOLVE_TIMEOUT", 0.5)
    monkeypatch.setattr("armillary.network.manager.localhost_aliases", lambda: frozenset({"localhost"}))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_manager, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        slow = Device(await trio.open_tcp_stream("127.0.0.1", port))
        async with slow.stream:
            with trio.fail_after(10):
                while not asked:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                async with open_client("127.0.0.1", port, trust=None) as client:
                    assert client.network_name is not None
                    assert client.network_name.startswith("Client[quick:")
                assert (await slow.hear())["attribute"] == "identity"
        nursery.cancel_scope.cancel()


async def test_dead_computers_are_noticed() -> None:
    """Both ends have the system ask whether the other computer is still there."""
    managers: list[Any] = []
    async with trio.open_nursery() as nursery:
        serve = partial(serve_manager, 0, host="127.0.0.1", on_start=managers.append)
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        async with open_client("127.0.0.1", port, trust=None) as client:
            (session,) = managers[0]._sessions
            assert client.connection is not None
            for stream in (session._stream, client.connection._stream):
                assert stream.socket.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE)
        nursery.cancel_scope.cancel()
