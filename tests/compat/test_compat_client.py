"""The asyncio client's requests, against servers that say exactly what they are told."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from clients import asked, connected, error_of, logged
from raw_server import raw_server

import aiokatcp
from aiokatcp import Client, FailReply, InvalidReply, Message, Sensor
from armillary.errors import ArmillaryError

if TYPE_CHECKING:
    from conftest import Host


# -- requests ---------------------------------------------------------------------------------------------


def test_request(host: Host) -> None:
    """A request goes out as one line, and brings what follows ok and the informs with its message id."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            task = asked(client, "sensor-list", "a b", 5, True, 1.5, b"\0")
            assert b"?sensor-list[1] a\\_b 5 1 1.5 \\0\n" == await peer.line()
            peer.send(b"#sensor-list[1] x\n#other y\n#sensor-list[7] z\n!sensor-list[1] ok 1 \\@\n")
            assert ([b"1", b""], [Message.inform("sensor-list", "x", mid=1)]) == await task
            client.close()
            await client.wait_closed()

    host.run(main)


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (b"!x[1] fail on\\_fire\n", FailReply, "on fire"),
        (b"!x[1] fail \xff\n", FailReply, "\ufffd"),
        (b"!x[1] fail\n", FailReply, ""),
        (b"!x[1] invalid why\n", InvalidReply, "why"),
        (b"!x[1] carrot why\n", InvalidReply, "why"),
        (b"!x[1]\n", InvalidReply, ""),
    ],
)
def test_refusals(host: Host, reply: bytes, error: type[Exception], text: str) -> None:
    """The code fail raises FailReply, all else but ok InvalidReply, and text that is no UTF-8 is readable."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                task = asked(client, "x")
                await peer.line()
                peer.send(reply)
                raised = await error_of(task)
                assert (error, text) == (type(raised), str(raised))

    host.run(main)


def test_request_raw(host: Host) -> None:
    """request_raw brings the reply as it came, whatever it says."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                task = asyncio.ensure_future(client.request_raw("x", 1))
                assert b"?x[1] 1\n" == await peer.line()
                peer.send(b"#x[1] a\n!x[1] fail \\_\n")
                reply, informs = await task
                assert Message.reply("x", "fail", " ", mid=1) == reply
                assert [Message.inform("x", "a", mid=1)] == informs
                assert isinstance(reply, Message)

    host.run(main)


def test_bad_requests_send_nothing(host: Host) -> None:
    """A bad name or an argument without a type raises, and nothing is sent."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                with pytest.raises(ValueError, match="bad name"):
                    await client.request("bad name")
                with pytest.raises(TypeError, match="<class 'NoneType'> is not registered"):
                    await client.request("x", None)
                with pytest.raises(TypeError, match="<class 'list'> is not registered"):
                    await client.request("x", [1])
                assert await peer.has_nothing()

    host.run(main)


def test_many_at_once(host: Host) -> None:
    """A thousand requests at once leave in order, and each gets its own reply, whatever their order."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                tasks = [asked(client, "x", number) for number in range(1000)]
                lines = await peer.lines(1000)
                assert [b"?x[%d] %d\n" % (number + 1, number) for number in range(1000)] == lines
                peer.send(b"".join(b"!x[%d] ok %d\n" % (mid, mid - 1) for mid in range(1000, 0, -1)))
                replies = await asyncio.gather(*tasks)
                assert [[b"%d" % number] for number in range(1000)] == [reply for reply, _ in replies]

    host.run(main)


def test_sending_never_blocks(host: Host) -> None:
    """Requests to a server that does not read wait in the client, and all arrive when it reads."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                tasks = [asked(client, "x", bytes([65 + number]) * 1_000_000) for number in range(20)]
                await asyncio.sleep(0.05)
                peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
                for mid in range(1, 21):
                    line = await peer.line()
                    assert line == b"?x[%d] %b\n" % (mid, bytes([64 + mid]) * 1_000_000)
                    peer.send(b"!x[%d] ok\n" % mid)
                await asyncio.gather(*tasks)

    host.run(main)


def test_byte_by_byte(host: Host) -> None:
    """Messages are put together again however they were cut."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            peer = await server.accept()
            task = None
            for byte in b"\n#version-connect katcp-protocol 5.1-MI\r\n":
                peer.send(bytes([byte]))
                await asyncio.sleep(0.001)
            async with client:
                await client.wait_connected()
                task = asked(client, "x")
                await peer.line()
                for byte in b"#x[1] in\\_form\r\n!x[1] ok 1\r\n":
                    peer.send(bytes([byte]))
                    await asyncio.sleep(0.001)
                reply, informs = await task
                assert [b"1"] == reply
                assert [[b"in form"]] == [inform.arguments for inform in informs]

    host.run(main)


def test_cancelled_request(host: Host, caplog: Any) -> None:
    """A cancelled request is forgotten: its late reply is dropped, with a line at DEBUG."""
    caplog.set_level(logging.DEBUG, "aiokatcp.client")

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                first, second = asked(client, "a"), asked(client, "b")
                await peer.lines(2)
                first.cancel()
                await asyncio.wait([first])
                assert first.cancelled()
                peer.send(b"#a[1] late\n!a[1] ok\n!b[2] ok\n")
                assert ([], []) == await second

    host.run(main)
    late = [record.getMessage() for record in logged(caplog) if "unknown message ID" in record.getMessage()]
    assert 2 == len(late)
    assert late[1].startswith(
        "Received b'!a[1] ok\\n' with unknown message ID 1 (possibly cancelled request) ["
    )


def test_reply_in_the_turn_of_the_cancellation(host: Host) -> None:
    """A reply that is there as its request is cancelled disturbs nobody."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                first, second = asked(client, "a"), asked(client, "b")
                await peer.lines(2)
                client.add_inform_callback("now", lambda: first.cancel())
                peer.send(b"!a[1] ok\n#now\n!b[2] ok\n")
                assert ([], []) == await second
                await asyncio.wait([first])
                third = asked(client, "c")
                assert b"?c[3]\n" == await peer.line()
                peer.send(b"!c[3] ok\n")
                await third

    host.run(main)


def test_server_without_message_ids(host: Host) -> None:
    """A server without message ids is asked one thing at a time, and informs are matched by name."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server, "M")
            async with client:
                others: list[bytes] = []
                client.add_inform_callback("b", others.append)
                first, second = asked(client, "a", 1), asked(client, "b", 2)
                assert b"?a 1\n" == await peer.line()
                assert await peer.has_nothing()
                peer.send(b"#a one\n#b other\n#a two\n!a ok\n")
                assert b"?b 2\n" == await peer.line()
                peer.send(b"!b ok\n")
                assert [[b"one"], [b"two"]] == [inform.arguments for inform in (await first)[1]]
                assert ([], []) == await second
                assert [b"other"] == others
                assert frozenset("M") == client.protocol_flags

    host.run(main)


def test_message_ids_go_on(host: Host) -> None:
    """Message ids are not used again after a reconnection."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                tasks = [asked(client, "x"), asked(client, "x")]
                await peer.lines(2)
                peer.close()
                await asyncio.wait(tasks)
                peer = await server.accept()
                peer.greet()
                await client.wait_connected()
                task = asked(client, "x")
                assert b"?x[3]\n" == await peer.line()
                peer.send(b"!x[1] ok\n!x[3] ok mine\n")
                assert ([b"mine"], []) == await task

    host.run(main)


def test_not_connected(host: Host) -> None:
    """Without the server's greeting, or without a connection, a request raises BrokenPipeError at once."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            peer = await server.accept()
            for _ in range(3):
                with pytest.raises(BrokenPipeError, match=r"^Not connected$") as caught:
                    await client.request("bad name")
                assert isinstance(caught.value, ArmillaryError)
                await asyncio.sleep(0.01)
            assert not client.is_connected
            assert await peer.has_nothing()
            client.close()
            with pytest.raises(BrokenPipeError, match="Not connected"):
                await client.request_raw("x")
            await client.wait_closed()
            with pytest.raises(BrokenPipeError, match="Not connected"):
                await client.request("x")

    host.run(main)


# -- sensors ----------------------------------------------------------------------------------------------


def test_sensor_value(host: Host) -> None:
    """A sensor's reading is decoded; without a type, the type is asked for in the same breath."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                reading = asyncio.ensure_future(client.sensor_reading("t", float))
                assert b"?sensor-value[1] t\n" == await peer.line()
                peer.send(b"#sensor-value[1] 2.5 1 t warn 21\n!sensor-value[1] ok 1\n")
                assert aiokatcp.Reading(2.5, Sensor.Status.WARN, 21.0) == await reading

                for type_name, text, expected in (
                    (b"integer", b"5", 5),
                    (b"discrete", b"on", b"on"),
                    (b"string", b"x", b"x"),
                ):
                    value = asyncio.ensure_future(client.sensor_value("t"))
                    lines = await peer.lines(2)
                    assert [b"?sensor-list", b"?sensor-value"] == [line.partition(b"[")[0] for line in lines]
                    mids = tuple(line.partition(b"[")[2].partition(b"]")[0] for line in lines)
                    peer.send(
                        b"#sensor-list[%b] t \\@ \\@ %b\n!sensor-list[%b] ok 1\n"
                        % (mids[0], type_name, mids[0])
                    )
                    peer.send(
                        b"#sensor-value[%b] 1 1 t nominal %b\n!sensor-value[%b] ok 1\n"
                        % (mids[1], text, mids[1])
                    )
                    assert expected == await value

    host.run(main)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"!sensor-value[1] ok 0\n", FailReply, "Server returned 0 sensors, but only 1 expected"),
        (
            b"#sensor-value[1] 1 1 a nominal 1\n#sensor-value[1] 1 1 b nominal 1\n!sensor-value[1] ok 2\n",
            FailReply,
            "Server returned 2 sensors, but only 1 expected",
        ),
        (b"!sensor-value[1] fail Unknown\\_sensor\n", FailReply, "Unknown sensor"),
        (b"#sensor-value[1] 1 1 t failure 1\n!sensor-value[1] ok 1\n", ValueError, "failure"),
        (b"#sensor-value[1] 1 1 t nominal x\n!sensor-value[1] ok 1\n", ValueError, "invalid literal"),
        (b"#sensor-value[1] 1 1 t carrot 1\n!sensor-value[1] ok 1\n", ValueError, "carrot"),
        (b"#sensor-value[1] 1 1 t\n!sensor-value[1] ok 1\n", ValueError, "expected"),
    ],
)
def test_no_sensor_value(host: Host, answer: bytes, error: type[Exception], text: str) -> None:
    """What is not exactly one reading with a meaning raises."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                value = asyncio.ensure_future(client.sensor_value("t", int))
                await peer.line()
                peer.send(answer)
                raised = await error_of(value)
                assert error is type(raised)
                assert text in str(raised)

    host.run(main)
