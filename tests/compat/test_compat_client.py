"""The asyncio client: requests, states and callbacks, against servers that say exactly what they are told."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import logging
import os
import socket
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import sniffio
from raw_server import PATIENCE, RawPeer, RawServer, VirtualTimeLoop, raw_server

import aiokatcp
from aiokatcp import Client, FailReply, InvalidReply, Message, ProtocolError, Sensor
from armillary.errors import ArmillaryError

if TYPE_CHECKING:
    from conftest import Host

RESET = os.strerror(errno.ECONNRESET)
ABORTED = os.strerror(errno.ECONNABORTED)


async def connected(server: RawServer, flags: str = "MIB", **options: Any) -> tuple[Client, RawPeer]:
    """A client whose connection is up, and the server's side of it."""
    client = Client("127.0.0.1", server.port, **options)
    peer = await server.accept()
    peer.greet(flags)
    await asyncio.wait_for(client.wait_connected(), PATIENCE)
    return client, peer


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for says nothing when it happens
            await asyncio.sleep(0.001)


def asked(client: Client, *request: Any) -> asyncio.Task[Any]:
    """A request in a task of its own."""
    return asyncio.ensure_future(client.request(*request))


async def error_of(awaitable: Any) -> Exception:
    """What it raises."""
    try:
        await asyncio.wait_for(awaitable, PATIENCE)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class Story:
    """Writes down what a client's callbacks are told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[str] = []
        self.errors: list[Exception] = []
        client.add_connected_callback(self.connected)
        client.add_disconnected_callback(self.disconnected)
        client.add_failed_connect_callback(self.failed)

    def connected(self) -> None:
        assert self.client.is_connected
        assert self.client.last_exc is None
        self.told.append("connected")

    def disconnected(self) -> None:
        assert not self.client.is_connected
        self.told.append(f"disconnected: {self.client.last_exc}")

    def failed(self, error: Exception) -> None:
        assert not self.client.is_connected
        assert error is self.client.last_exc
        self.errors.append(error)
        self.told.append(f"failed: {error}")


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
    late = [record.getMessage() for record in caplog.records if "unknown message ID" in record.getMessage()]
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


# -- connecting and losing connections --------------------------------------------------------------------


def test_connects_at_once(host: Host) -> None:
    """A client connects without being awaited, and is connected when the server has said its protocol."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            assert ("127.0.0.1", server.port, True) == (client.host, client.port, client.auto_reconnect)
            assert client.loop is asyncio.get_running_loop()
            assert (False, None, frozenset()) == (
                client.is_connected,
                client.last_exc,
                client.protocol_flags,
            )
            peer = await server.accept()
            peer.send(b"#version-connect katcp-library x y\n#version-connect katcp-device a\n")
            await asyncio.sleep(0.02)
            assert not client.is_connected
            peer.send(b"#version-connect katcp-protocol 5.3-BIZ\n")
            await client.wait_connected()
            assert (True, None, frozenset("BIZ")) == (
                client.is_connected,
                client.last_exc,
                client.protocol_flags,
            )
            assert ["connected"] == story.told
            await client.wait_connected()
            client.close()
            await client.wait_closed()
            assert b"" == await peer.rest()

    host.run(main)


def test_connected_before_anything_else(host: Host) -> None:
    """Informs in the same packet as the greeting find the client connected, and its callbacks called."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            client.add_inform_callback("early", lambda: story.told.append(f"early {client.is_connected}"))
            client.add_inform_callback("news", lambda: story.told.append(f"news {client.is_connected}"))
            peer = await server.accept()
            peer.send(b"#early\n")
            peer.greet(more=b"#news\n")
            async with client:
                await until(lambda: len(story.told) == 3)
                assert ["early False", "connected", "news True"] == story.told

    host.run(main)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"4.1-MIB", "Unknown protocol version 4.1"),
        (b"carrot", "Unparsable katcp-protocol 'carrot'"),
    ],
)
def test_bad_protocol(host: Host, caplog: Any, said: bytes, text: str) -> None:
    """A server that speaks another protocol is left, with a warning, and tried again."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            peer = await server.accept()
            peer.send(b"#version-connect katcp-protocol %b\n#news\n" % said)
            assert b"" == await peer.rest()
            await client.wait_disconnected()
            assert [f"failed: {text}"] == story.told
            assert isinstance(client.last_exc, ProtocolError)
            assert isinstance(client.last_exc, ValueError)
            assert said.decode() == client.last_exc.version
            again = await server.accept()
            again.greet()
            await client.wait_connected()
            client.close()
            await client.wait_closed()
            assert [f"Failed to connect to 127.0.0.1:{server.port}: {text} [127.0.0.1:{server.port}]"] == [
                record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
            ]

    host.run(main)


def test_bad_protocol_at_the_only_attempt(host: Host, caplog: Any) -> None:
    """Without auto_reconnect the ProtocolError comes out of wait_connected, before and after it happened."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port, auto_reconnect=False)
            waiting = asyncio.ensure_future(client.wait_connected())
            peer = await server.accept()
            peer.send(b"#version-connect katcp-protocol 4.0\n")
            before = await error_of(waiting)
            assert isinstance(before, ProtocolError)
            await client.wait_closed()
            assert before is await error_of(client.wait_connected())
            assert before is client.last_exc
            assert b"" == await peer.rest()
            await asyncio.sleep(0.02)
            assert 1 == server.connections

    host.run(main)
    assert not any("Failed to connect" in record.getMessage() for record in caplog.records)


def test_nobody_listens(host: Host, caplog: Any) -> None:
    """A refused connection is warned about, remembered, told to the callbacks, and tried again."""

    async def main() -> None:
        async with raw_server() as server:
            server.stop_listening()
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            await until(lambda: story.errors)
            (error,) = story.errors
            assert isinstance(error, ConnectionRefusedError)
            assert errno.ECONNREFUSED == error.errno
            assert [f"Failed to connect to 127.0.0.1:{server.port}: {error}"] == [
                record.getMessage() for record in caplog.records if record.name == "aiokatcp.client"
            ]
            await server.listen()
            peer = await server.accept()
            peer.greet()
            await client.wait_connected()
            client.close()
            await client.wait_closed()

    host.run(main)


def test_connect(host: Host) -> None:
    """Client.connect returns a connected client; without auto_reconnect it raises why it could not."""

    async def main() -> None:
        async with raw_server() as server:
            task = asyncio.ensure_future(Client.connect("127.0.0.1", server.port))
            peer = await server.accept()
            assert not task.done()
            peer.greet()
            client = await task
            assert client.is_connected
            client.close()
            await client.wait_closed()

            eof = asyncio.ensure_future(Client.connect("127.0.0.1", server.port, auto_reconnect=False))
            (await server.accept()).close()
            raised = await error_of(eof)
            assert isinstance(raised, ConnectionResetError)
            assert RESET == str(raised)

            server.stop_listening()
            with pytest.raises(ConnectionRefusedError):
                await Client.connect("127.0.0.1", server.port, auto_reconnect=False)
            with pytest.raises(socket.gaierror):
                await Client.connect("no.such.host.invalid", 1, auto_reconnect=False)
            if host.name == "asyncio":  # uvloop takes it for port 0
                with pytest.raises(OverflowError):
                    await Client.connect("127.0.0.1", 65536, auto_reconnect=False)

    host.run(main)


def test_cancelled_connect(host: Host) -> None:
    """Cancelling connect closes the client: it does not try for ever."""

    class Kept(Client):
        made: ClassVar[list[Client]] = []

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.made.append(self)

    async def main() -> None:
        async with raw_server() as server:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(Kept.connect("127.0.0.1", server.port), 0.05)
            peer = await server.accept()
            assert b"" == await peer.rest()
            client = Kept.made.pop()
            await asyncio.wait_for(client.wait_closed(), PATIENCE)
            assert isinstance(client.last_exc, ConnectionAbortedError)

    host.run(main)


def test_disconnect(host: Host, caplog: Any) -> None:
    """#disconnect ends the connection at once, whatever was said after it."""
    caplog.set_level(logging.INFO, "aiokatcp.client")

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server, auto_reconnect=False)
            story = Story(client)
            client.add_inform_callback(
                "disconnect", lambda reason: story.told.append(f"{reason.decode()} {client.is_connected}")
            )
            client.add_inform_callback("late", lambda: story.told.append("late"))
            task = asked(client, "x")
            await peer.line()
            peer.send(b"#disconnect no\\_more\n#late\n!x[1] ok\n")
            raised = await error_of(task)
            assert isinstance(raised, ConnectionResetError)
            with pytest.raises(BrokenPipeError):
                await client.request("y")
            await client.wait_disconnected()
            assert [f"disconnected: {RESET}", "no more False"] == story.told
            with pytest.raises(ConnectionResetError, match=RESET):
                await client.wait_connected()
            await client.wait_closed()
            assert b"" == await peer.rest()

    host.run(main)
    assert any("Server disconnected: no more [" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("way", ["eof", "reset"])
def test_lost_connection(host: Host, way: str) -> None:
    """Every request under way fails with the same error, before the callbacks, which are called once."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            story = Story(client)
            tasks = [asked(client, "x"), asked(client, "y")]
            done: list[bool] = []
            client.add_disconnected_callback(lambda: done.append(client.last_exc is not None))
            await peer.lines(2)
            if way == "eof":
                peer.close()
            else:
                peer.reset()
            errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
            first = errors[0]
            assert first is errors[1]
            assert isinstance(first, ConnectionResetError)
            assert first is client.last_exc
            assert RESET in str(first)
            assert (errno.ECONNRESET if way == "reset" else None) == first.errno
            await client.wait_disconnected()
            assert [f"disconnected: {first}"] == story.told
            assert [True] == done
            assert isinstance(client.logger, logging.Logger)
            client.close()
            await client.wait_closed()

    host.run(main)


def test_reconnects(host: Host) -> None:
    """A client that lost its server finds it again, through all states in order."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            story = Story(client)
            peer.close()
            await client.wait_disconnected()
            assert not client.is_connected
            again = await server.accept()
            again.greet("M")
            await client.wait_connected()
            assert [f"disconnected: {RESET}", "connected"] == story.told
            assert client.last_exc is None
            assert frozenset("M") == client.protocol_flags
            client.close()
            await client.wait_closed()

    host.run(main)


def test_backoff() -> None:
    """Attempts come after 0.5-1 s, 1-2 s, and so on up to 30-60 s; after a success, from the start."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with raw_server() as server:
            server.stop_listening()
            client = Client("127.0.0.1", server.port)
            attempts: list[float] = []
            client.add_failed_connect_callback(lambda error: attempts.append(loop.time()))
            await asyncio.sleep(400)
            count = len(attempts)
            gaps = [attempts[number + 1] - attempts[number] for number in range(count - 1)]
            assert 12 <= count <= 20
            for number, gap in enumerate(gaps):
                most = min(2.0**number, 60.0)
                assert most / 2 <= gap <= most + 0.01
            # Not always the same.
            assert len({round(gap, 3) for gap in gaps[6:]}) > 1

            await server.listen()
            peer = await server.accept(patience=100)
            peer.greet()
            await client.wait_connected()
            server.stop_listening()
            peer.close()
            await client.wait_disconnected()
            start = loop.time()
            attempts.clear()
            await asyncio.sleep(1.1)
            assert 0.5 <= attempts[0] - start <= 1.01
            client.close()
            await client.wait_closed()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


# -- closing ----------------------------------------------------------------------------------------------


def test_close(host: Host) -> None:
    """Closing takes effect at once: requests fail, callbacks are called; and it may be called again."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            story = Story(client)
            tasks = [asked(client, "x"), asked(client, "y")]
            await peer.lines(2)
            client.close()
            assert not client.is_connected
            assert isinstance(client.last_exc, ConnectionAbortedError)
            assert ABORTED == str(client.last_exc)
            assert [f"disconnected: {ABORTED}"] == story.told
            client.close()
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert client.last_exc is errors[0] is errors[1]
            await client.wait_closed()
            await client.wait_closed()
            await client.wait_disconnected()
            client.close()
            assert client.last_exc is await error_of(client.wait_connected())
            assert 1 == len(story.told)
            assert b"" == await peer.rest()

    host.run(main)


def test_close_sends_what_is_on_its_way(host: Host) -> None:
    """A request that was made before close is sent all the same."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            tasks = [asked(client, "x", bytes([65 + number]) * 300_000) for number in range(5)]
            await asyncio.sleep(0)
            client.close()
            sent = await peer.rest()
            assert 5 == sent.count(b"\n")
            assert 1_500_000 < len(sent)
            await client.wait_closed()
            await asyncio.wait(tasks)
            assert all(isinstance(task.exception(), ConnectionAbortedError) for task in tasks)

    host.run(main)


def test_close_while_connecting(host: Host, caplog: Any) -> None:
    """Closing a client that was not connected yet is told to the failed-connect callbacks, unwarned."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            waiting = asyncio.ensure_future(client.wait_connected())
            await asyncio.sleep(0)
            client.close()
            assert [f"failed: {ABORTED}"] == story.told
            assert client.last_exc is await error_of(waiting)
            await client.wait_closed()

            client = Client("127.0.0.1", server.port)
            story = Story(client)
            peer = await server.accept()
            await asyncio.sleep(0.02)  # the server says nothing
            client.close()
            assert [f"failed: {ABORTED}"] == story.told
            assert b"" == await peer.rest()
            await client.wait_closed()
            assert 1 == len(story.told)

    host.run(main)
    assert [] == [record for record in caplog.records if record.name.startswith(("aiokatcp", "armillary"))]


@pytest.mark.parametrize("turns", range(14))
def test_close_at_any_moment(host: Host, caplog: Any, turns: int) -> None:
    """Close at any moment around connecting leaves no connection, no task and no warning behind."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            for _ in range(turns):
                await asyncio.sleep(0)
            client.close()
            await asyncio.wait_for(client.wait_closed(), PATIENCE)
            assert isinstance(client.last_exc, ConnectionAbortedError)
            await asyncio.sleep(0.01)
            for _ in range(server.connections):
                peer = await server.accept()
                assert b"" == await peer.rest()

    host.run(main)
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_close_while_sleeping(host: Host) -> None:
    """A client that waits before its next attempt is closed at once."""

    async def main() -> None:
        async with raw_server() as server:
            server.stop_listening()
            client = Client("127.0.0.1", server.port)
            story = Story(client)
            await until(lambda: story.errors)
            client.close()
            assert isinstance(client.last_exc, ConnectionAbortedError)
            await asyncio.wait_for(client.wait_closed(), 0.2)
            assert 1 == len(story.told)

    host.run(main)


def test_close_keeps_the_error_of_the_only_attempt(host: Host) -> None:
    """A client that is closed already, because its only attempt failed, keeps that error."""

    async def main() -> None:
        async with raw_server() as server:
            server.stop_listening()
            client = Client("127.0.0.1", server.port, auto_reconnect=False)
            error = await error_of(client.wait_connected())
            client.close()
            assert error is client.last_exc
            await client.wait_closed()

    host.run(main)


def test_close_in_a_callback(host: Host) -> None:
    """A connected callback may close the client; the rest of the packet concerns nobody."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            client.add_connected_callback(client.close)
            story = Story(client)
            story.connected = lambda: None  # type: ignore[method-assign]
            client.remove_connected_callback(client._connected_callbacks[1])
            client.add_connected_callback(lambda: story.told.append(f"connected {client.is_connected}"))
            client.add_inform_callback("news", lambda: story.told.append("news"))
            waiting = asyncio.ensure_future(client.wait_connected())
            peer = await server.accept()
            peer.greet(more=b"#news\n")
            await client.wait_closed()
            assert [f"disconnected: {ABORTED}", "connected False"] == story.told
            await waiting  # it was connected
            assert b"" == await peer.rest()

    host.run(main)


def test_block(host: Host) -> None:
    """Entering the block does not wait; leaving it closes and waits."""

    async def main() -> None:
        async with raw_server() as server:
            async with Client("127.0.0.1", server.port) as client:
                assert not client.is_connected
                peer = await server.accept()
                peer.greet()
                await client.wait_connected()
            assert isinstance(client.last_exc, ConnectionAbortedError)
            assert b"" == await asyncio.wait_for(peer.rest(), 1)
            await client.wait_closed()

    host.run(main)


def test_forgotten_client(host: Host) -> None:
    """A client that its program forgets open warns, and its connection is closed."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            client.add_connected_callback(lambda: None)
            client.add_inform_callback("x", lambda: None)
            client.add_sensor_watcher(aiokatcp.SensorWatcher(client))
            assert b"?sensor-list[1]\n" == await peer.line()
            with pytest.warns(ResourceWarning, match=r"^unclosed Client <aiokatcp.client.Client object"):  # noqa: PT031
                del client
                gc.collect()
            assert b"" == await peer.rest()

    host.run(main)


def test_closed_client_is_forgotten_quietly(host: Host) -> None:
    """A client that was closed does not warn, be it that it is still closing."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                client.close()
                del client
                gc.collect()
                assert b"" == await peer.rest()

    host.run(main)


def test_end_of_the_loop_closes(host: Host) -> None:
    """The end of asyncio.run closes a client that is still open: its connection too."""
    kept: list[Client] = []
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    listener = socket.create_server(("127.0.0.1", 0))

    async def main() -> None:
        client = Client("127.0.0.1", listener.getsockname()[1])
        kept.append(client)
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        connection, _ = await loop.sock_accept(listener)
        await loop.sock_sendall(connection, b"#version-connect katcp-protocol 5.0-MI\n")
        await client.wait_connected()
        connections.append(connection)

    connections: list[socket.socket] = []
    host.run(main)
    (connection,) = connections
    connection.setblocking(True)
    connection.settimeout(PATIENCE)
    assert b"" == connection.recv(10)
    connection.close()
    listener.close()
    assert not kept[0].is_connected
    assert isinstance(kept[0].last_exc, ConnectionError)


# -- callbacks --------------------------------------------------------------------------------------------


def test_order_of_callbacks(host: Host, caplog: Any) -> None:
    """Callbacks run in the order of registration; one that fails is logged and keeps none from running."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            told: list[str] = []

            def failing() -> None:
                raise KeyError("mine")

            def once() -> None:
                told.append("once")
                client.remove_connected_callback(once)
                client.add_connected_callback(lambda: told.append("added"))

            client.add_connected_callback(lambda: told.append("first"))
            client.add_connected_callback(failing)
            client.add_connected_callback(once)
            client.add_connected_callback(lambda: told.append("last"))
            client.add_disconnected_callback(lambda: told.append("down 1"))
            client.add_disconnected_callback(failing)
            client.add_disconnected_callback(lambda: told.append("down 2"))
            for remove in (
                client.remove_connected_callback,
                client.remove_disconnected_callback,
                client.remove_failed_connect_callback,
            ):
                with pytest.raises(ValueError, match="not in list"):
                    remove(print)
            peer = await server.accept()
            peer.greet()
            await client.wait_connected()
            assert ["first", "once", "last"] == told
            told.clear()
            peer.close()
            await client.wait_disconnected()
            assert ["down 1", "down 2"] == told
            told.clear()
            (await server.accept()).greet()
            await client.wait_connected()
            assert ["first", "last", "added"] == told
            client.close()
            await client.wait_closed()

    host.run(main)
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert 4 == len(records)
    for record in records:
        assert "aiokatcp.client" == record.name
        assert record.getMessage().startswith("Exception raised from callback")
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], KeyError)


def test_callbacks_are_plain_asyncio_code(host: Host) -> None:
    """Callbacks run in the loop's thread, on the loop, with the context of whoever made the client."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    told: list[Any] = []

    def look() -> None:
        try:
            library = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            library = "none"
        told.append((variable.get(), library, asyncio.get_running_loop()))
        tasks.append(asyncio.create_task(in_task()))

    async def in_task() -> None:
        told.append((variable.get(), sniffio.current_async_library(), asyncio.get_running_loop()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    class Watcher(aiokatcp.AbstractSensorWatcher):
        def state_updated(self, state: aiokatcp.SyncState) -> None:
            look()

        def sensor_added(self, *args: Any) -> None:
            look()

        def batch_start(self) -> None:
            look()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with raw_server() as server:
            token = variable.set("mine")
            client = Client("127.0.0.1", server.port)
            variable.reset(token)
            client.add_connected_callback(look)
            client.add_failed_connect_callback(lambda error: look())
            client.add_inform_callback("news", look)
            peer = await server.accept()
            peer.greet(more=b"#news\n")
            await client.wait_connected()
            peer.send(b"#news\n")
            await until(lambda: len(told) == 6)
            client.add_disconnected_callback(look)
            peer.close()
            await until(lambda: len(told) == 8)
            server.stop_listening()
            await until(lambda: len(told) == 10)
            await asyncio.gather(*tasks)
            for value, library, running in told:
                assert running is loop
                assert "mine" == value
                assert library in ("none", "asyncio")
            assert 5 == sum(library == "asyncio" for _, library, _ in told)

            told.clear()
            await server.listen()
            peer = await server.accept()
            token = variable.set("mine")
            client.add_sensor_watcher(Watcher())
            variable.reset(token)
            peer.greet()
            assert b"?sensor-list[1]\n" == await peer.line()
            peer.send(b"#sensor-list[1] a \\@ \\@ integer\n!sensor-list[1] ok 1\n")
            assert b"?sensor-sampling[2] a auto\n" == await peer.line()
            await asyncio.gather(*tasks)
            assert {("mine", loop)} == {(value, running) for value, _, running in told}
            assert {"none", "asyncio"} == {library for _, library, _ in told}
            client.close()
            await client.wait_closed()
            await asyncio.gather(*tasks)

    host.run(main)


# -- informs ----------------------------------------------------------------------------------------------


def test_inform_callbacks(host: Host, caplog: Any) -> None:
    """Callbacks get decoded arguments, after the class's method; one that fails is logged."""
    told: list[Any] = []

    class Listener(Client):
        def inform_my_news(self, count: int, name: str = "nobody", *rest: float) -> None:
            told.append((count, name, rest))
            if count == 2:
                raise FailReply("two is too many")
            if count == 3:
                raise KeyError("three")

    def same(value: bytes) -> None:
        told.append(value)

    class Equal:
        """Equal to others, as bound methods are."""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, *arguments: bytes) -> None:
            told.append(len(arguments))

    async def main() -> None:
        async with raw_server() as server:
            client = Listener("127.0.0.1", server.port)
            async with client:
                client.add_inform_callback("my-news", same)
                client.add_inform_callback("my-news", Equal())
                peer = await server.accept()
                peer.greet(
                    more=b"#my-news 1 x 2.5\n#my-news 2\n#my-news 3\n#my-news x\n#my-news[5] 1\n#end\n"
                )
                ended = asyncio.Event()
                client.add_inform_callback("end", ended.set)
                await asyncio.wait_for(ended.wait(), PATIENCE)
                assert [
                    *[(1, "x", (2.5,)), 3],
                    *[(2, "nobody", ()), b"2", 1],
                    *[(3, "nobody", ()), b"3", 1],
                    *[b"x", 1],
                ] == told
                client.remove_inform_callback("my-news", same)
                client.remove_inform_callback("my-news", same)
                client.remove_inform_callback("my-news", Equal())
                client.remove_inform_callback("other", same)
                told.clear()
                ended.clear()
                peer.send(b"#my-news 4\n#end\n")
                await asyncio.wait_for(ended.wait(), PATIENCE)
                assert [(4, "nobody", ())] == told

    host.run(main)
    suffix_at = [record.getMessage().rpartition(" [127.0.0.1:")[0] for record in caplog.records]
    assert [
        "Exception raised from callback",
        "error in inform my-news: two is too many",
        "unhandled exception in inform my-news",
        "error in inform my-news: invalid literal for int() with base 10: b'x'",
    ] == suffix_at
    assert [True, False, True, False] == [record.exc_info is not None for record in caplog.records]


def test_inform_methods_are_inherited(host: Host) -> None:
    """Methods for informs are inherited, overridden and mixed in as methods are."""
    told: list[str] = []

    class Mixin:
        def inform_extra(self) -> None:
            told.append("extra")

    class Base(Client):
        def inform_a(self) -> None:
            told.append("base a")

        def inform_b(self) -> None:
            told.append("base b")

    class Derived(Mixin, Base):
        def inform_b(self) -> None:
            super().inform_b()
            told.append("derived b")

        def inform_disconnect(self, reason: str) -> None:
            told.append(f"before {self.is_connected}")
            super().inform_disconnect(reason)
            told.append(f"after {self.is_connected}")

        def inform_version_connect(self, api: str, version: str, build_state: str | None = None) -> None:
            super().inform_version_connect(api, version, build_state)
            told.append(f"{api} {version} {build_state} {self.is_connected}")

    async def main() -> None:
        async with raw_server() as server:
            async with Derived("127.0.0.1", server.port) as client:
                peer = await server.accept()
                peer.greet(more=b"#a\n#b\n#extra\n#disconnect bye\n")
                await until(lambda: "after False" in told)
                assert [
                    "katcp-protocol 5.1-MIB None True",
                    *["base a", "base b", "derived b", "extra", "before True", "after False"],
                ] == told
                assert client.last_exc is not None

    host.run(main)


def test_bad_inform_method() -> None:
    """A method whose parameter has no KATCP type is refused when its class is made."""
    with pytest.raises(TypeError):

        class Bad(Client):
            def inform_x(self, argument: list[int]) -> None:
                pass


def test_overridden_handlers_of_informs(host: Host) -> None:
    """handle_inform and unhandled_inform may be overridden; what they raise is logged and disturbs nobody."""
    told: list[str] = []

    class Nosy(Client):
        def handle_inform(self, msg: Message) -> None:
            told.append(f"handle {msg.name}")
            if msg.name == "bad":
                raise KeyError("bad")
            super().handle_inform(msg)

        def unhandled_inform(self, msg: Message) -> None:
            told.append(f"unhandled {msg.name}")

        def inform_known(self) -> None:
            told.append("known")

    async def main() -> None:
        async with raw_server() as server, Nosy("127.0.0.1", server.port) as client:
            client.add_inform_callback("called", lambda: told.append("called"))
            peer = await server.accept()
            peer.greet(more=b"#known\n#bad\n#called\n#nobody\n#x[5]\n")
            await until(lambda: "unhandled nobody" in told)
            assert [
                "handle version-connect",
                *["handle known", "known", "handle bad"],
                *["handle called", "unhandled called", "called"],
                *["handle nobody", "unhandled nobody"],
            ] == told
            assert client.is_connected

    host.run(main)


def test_overridden_handle_message(host: Host, caplog: Any) -> None:
    """handle_message may be overridden: it sees every message, may change or drop it, and may fail."""
    told: list[str] = []

    class Tapped(Client):
        def handle_message(self, conn: aiokatcp.Connection[Any], msg: Message) -> None:
            assert isinstance(conn, aiokatcp.Connection)
            assert conn.address == aiokatcp.Address.parse(b"127.0.0.1:%d" % self.port)
            told.append(repr(bytes(msg)))
            if msg.name == "dropped":
                return
            if msg.name == "bad":
                raise KeyError("bad")
            if msg.name == "changed":
                msg = Message.inform("news", "changed")
            super().handle_message(conn, msg)

    async def main() -> None:
        async with raw_server() as server, Tapped("127.0.0.1", server.port) as client:
            news: list[bytes] = []
            client.add_inform_callback("news", news.append)
            client.add_inform_callback("dropped", news.append)
            peer = await server.accept()
            peer.greet(more=b"#news 1\n#dropped 2\n#bad\n#changed\n")
            await client.wait_connected()
            task = asked(client, "x", 1)
            assert b"?x[1] 1\n" == await peer.line()
            peer.send(b"#x[1] 5\n!x[1] ok\n")
            assert ([], [Message.inform("x", 5, mid=1)]) == await task
            assert [b"1", b"changed"] == news
            assert 7 == len(told)
            assert "b'!x[1] ok\\n'" == told[-1]

    host.run(main)
    (record,) = caplog.records
    assert "aiokatcp.connection" == record.name
    assert record.getMessage().startswith("Exception in message handler [127.0.0.1:")


# -- logs -------------------------------------------------------------------------------------------------


def test_what_belongs_to_nothing(host: Host, caplog: Any) -> None:
    """Requests from a server and replies to nothing are logged, and disturb nobody."""
    caplog.set_level(logging.DEBUG, "aiokatcp.client")

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                caplog.clear()
                peer.send(b"?please x\n?please[4]\n!reply ok\n!reply[9] ok\n#inform[9] x\n#nobody\n")
                await until(lambda: len(caplog.records) == 6)
                assert client.is_connected

    host.run(main)
    assert [
        ("INFO", "Received unexpected request please from server"),
        ("INFO", "Received unexpected request please from server"),
        ("INFO", "Received unexpected REPLY (reply) from server without message ID"),
        ("DEBUG", r"Received b'!reply[9] ok\n' with unknown message ID 9 (possibly cancelled request)"),
        ("DEBUG", r"Received b'#inform[9] x\n' with unknown message ID 9 (possibly cancelled request)"),
        ("DEBUG", "unknown inform nobody"),
    ] == [
        (record.levelname, record.getMessage().rpartition(" [127.0.0.1:")[0]) for record in caplog.records[:6]
    ]


def test_traffic_is_logged(host: Host, caplog: Any) -> None:
    """At DEBUG, each message is logged as it went over the wire, with the server's address."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                caplog.set_level(logging.DEBUG, "aiokatcp.connection")
                task = asked(client, "x", "a b")
                await peer.line()
                peer.send(b"!x[1]   ok\n")
                await task
            suffix = f" [127.0.0.1:{server.port}]"
            assert [
                rf"Sent message b'?x[1] a\\_b\n'{suffix}",
                rf"Received message b'!x[1] ok\n'{suffix}",
            ] == [record.getMessage() for record in caplog.records if record.name == "aiokatcp.connection"]

    host.run(main)


def test_garbage(host: Host, caplog: Any) -> None:
    """Garbage is logged once, never answered, and ends nothing; half a line at the end is logged, too."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server, limit=100)
            async with client:
                task = asked(client, "x")
                await peer.line()
                peer.send(b"garbage\n#" + b"x" * 200 + b"\n#bad\\escape\n\n \t\n!x[1] ok\n")
                assert ([], []) == await task
                assert await peer.has_nothing()
                peer.send(b"#half")
                peer.close()
                await client.wait_disconnected()

    host.run(main)
    records = [record for record in caplog.records if record.name == "aiokatcp.connection"]
    assert ["Malformed message received", "EOF received on connection with partial message"] == [
        record.getMessage().rpartition(" [127.0.0.1:")[0] for record in records
    ]
    assert records[0].exc_info is not None
    assert '"Invalid character" at character 1' == str(records[0].exc_info[1])


def test_logger(host: Host) -> None:
    """The client's logger adds the server's address while there is a connection."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            assert isinstance(client.logger, logging.LoggerAdapter)
            text, _ = client.logger.process("hello", {})
            assert f"hello [127.0.0.1:{server.port}]" == text
            client.close()
            await client.wait_closed()
            assert logging.getLogger("aiokatcp.client") is client.logger
            assert b"" == await peer.rest()

    host.run(main)


# -- loops ------------------------------------------------------------------------------------------------


def test_loop_argument(host: Host) -> None:
    """A loop may be given; without one, there has to be a running one."""

    async def main() -> None:
        async with raw_server() as server:
            client, _ = await connected(server, loop=asyncio.get_running_loop())
            async with client:
                assert client.loop is asyncio.get_running_loop()

    host.run(main)
    with pytest.raises(RuntimeError, match="no running event loop"):
        Client("127.0.0.1", 1)


def test_loop_that_is_not_running_yet(host: Host) -> None:
    """A client may be made for a loop before it runs, and connects when it does."""

    async def main(server: RawServer, client: Client) -> None:
        peer = await server.accept()
        peer.greet()
        await client.wait_connected()
        client.close()
        await client.wait_closed()
        await server.aclose()

    loop = host.new_event_loop()
    try:
        server = RawServer()
        loop.run_until_complete(server.listen())
        client = Client("127.0.0.1", server.port, loop=loop)
        assert not client.is_connected
        loop.run_until_complete(main(server, client))
    finally:
        loop.close()


def test_guest_ends_with_the_client(host: Host) -> None:
    """When the last client is closed, no task of ours is left in the loop."""

    async def main() -> None:
        async with raw_server() as server:
            before = asyncio.all_tasks()
            client, _ = await connected(server)
            client.close()
            await client.wait_closed()
            await until(lambda: asyncio.all_tasks() <= before)

    host.run(main)
