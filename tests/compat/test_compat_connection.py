"""`Connection` by itself: an asyncio protocol that tells its owner of messages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from raw_client import RawClient, run, turns, until

from aiokatcp import Address, Connection, FailReply, InvalidReply, Message
from aiokatcp.connection import DEFAULT_LIMIT, ConnectionLoggerAdapter

if TYPE_CHECKING:
    from conftest import Host

LOGGER = "aiokatcp.connection"


class Owner:
    """Keeps what it is told.

    Args:
        stays_open: what it answers when the other end will send no more.
        on_message: called with each message.
    """

    def __init__(
        self, *, stays_open: bool = False, on_message: Callable[[Any, Message], object] = lambda c, m: None
    ) -> None:
        self.told: list[Any] = []
        self.connection: Any = None
        self._stays_open = stays_open
        self._on_message = on_message

    def _connection_made(self, conn: Any) -> None:
        self.connection = conn
        self.told.append("made")

    def _connection_lost(self, conn: Any, exc: Exception | None) -> None:
        assert conn is self.connection
        self.told.append(("lost", exc))

    def _eof_received(self, conn: Any) -> bool:
        self.told.append("eof")
        return self._stays_open

    def handle_message(self, conn: Any, msg: Message) -> None:
        assert conn is self.connection
        self.told.append(msg)
        self._on_message(conn, msg)

    @property
    def messages(self) -> list[Message]:
        return [told for told in self.told if isinstance(told, Message)]


@asynccontextmanager
async def linked(
    owner: Owner, *, is_server: bool = True, limit: int = DEFAULT_LIMIT
) -> AsyncIterator[tuple[Any, RawClient]]:
    """A connection of that owner, and the client at its other end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(owner, is_server, limit), "127.0.0.1", 0)
    client = await RawClient.connect(server.sockets[0].getsockname())
    await until(lambda: owner.connection is not None)
    connection: Connection[Owner] = owner.connection
    try:
        yield connection, client
    finally:
        client.writer.transport.abort()
        connection.abort()
        await connection.wait_closed()
        server.close()
        await turns()


def inform(*arguments: Any) -> Message:
    return Message.inform("news", *arguments)


async def nothing(client: RawClient, connection: Any) -> None:
    """See that the client has been sent nothing up to now."""
    connection.write_message(inform("end"))
    assert await client.line() == b"#news end\n"


def texts(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What was logged by connections at that level."""
    return [
        record.getMessage() for record in caplog.records if (record.name, record.levelno) == (LOGGER, level)
    ]


# -- messages ---------------------------------------------------------------------------------------------


def test_messages_go_to_the_owner(host: Host) -> None:
    """Each line is a message for the owner, whichever bytes end it and however they come; blank ones are
    not.
    """
    stream = b"?ab[3] x\\_y \\@\n!ok\r\n\t \r\n#inf \xff 2 \n\n?z\r"

    async def main() -> None:
        for size in (1, 5, len(stream)):
            owner = Owner()
            async with linked(owner) as (connection, client):
                for start in range(0, len(stream), size):
                    client.send(stream[start : start + size])
                    await turns(2)
                await until(lambda owner=owner: len(owner.messages) == 4)
                assert owner.told == [
                    "made",
                    Message.request("ab", "x y", "", mid=3),
                    Message.reply("ok"),
                    Message.inform("inf", b"\xff", 2),
                    Message.request("z"),
                ]
                assert not connection.is_closing()

    run(host, main)


def test_what_a_connection_is(host: Host) -> None:
    """It has its owner, the other end's address, its kind, and a logger that names that address."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner, is_server=False) as (connection, client):
            assert isinstance(connection, asyncio.BufferedProtocol)
            assert connection.owner is owner
            assert connection.is_server is False
            assert connection.address == Address.parse(client.address)
            assert isinstance(connection.logger, ConnectionLoggerAdapter)
            assert connection.logger.process("text", {})[0] == f"text [{connection.address}]"
            assert connection.get_write_buffer_size() == 0

    run(host, main)
    assert DEFAULT_LIMIT == 16 * 1024**2
    assert [str(FailReply("a")), str(InvalidReply("a", 1)), str(FailReply())] == ["a", "('a', 1)", ""]


def test_a_line_that_is_too_long(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A too-long line does not disturb the next one on the same connection; exactly one warning."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner, limit=10) as (_, client):
            client.send(b"?" + b"x" * 5000)
            await turns()
            client.send(b"x" * 5000 + b"\n?abc\n")
            await until(lambda: owner.messages)
            assert owner.messages == [Message.request("abc")]
            assert (await client.line()).endswith(b' "Line\\_too\\_long"\\_at\\_character\\_11\n')
            assert texts(caplog, logging.WARNING) == [
                f"Malformed message received [{client.address.decode()}]"
            ]
            client.send(b"?abcdefgh\n?abcdefghi\n?end\n")  # ten bytes with the terminator, and eleven
            await until(lambda: len(owner.messages) == 3)
            assert owner.messages[1:] == [Message.request("abcdefgh"), Message.request("end")]

    run(host, main)


@pytest.mark.parametrize("is_server", [True, False])
def test_malformed_input(host: Host, caplog: pytest.LogCaptureFixture, is_server: bool) -> None:
    """Malformed input: exactly one warning; a server-side connection also answers #log, a client-side one
    writes nothing.
    """

    async def main() -> None:
        owner = Owner()
        async with linked(owner, is_server=is_server) as (connection, client):
            client.send(b"?good\nrubbish\n?more\n")
            await until(lambda: len(owner.messages) == 2)
            if is_server:
                words = (await client.line()).split(b" ")
                assert words[:2] + words[3:] == [
                    b"#log",
                    b"error",
                    b"aiokatcp.connection",
                    b'"Invalid\\_character"\\_at\\_character\\_1\n',
                ]
                assert float(words[2]) == pytest.approx(time.time(), abs=60)
            await nothing(client, connection)
            assert not connection.is_closing()

    run(host, main)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("Malformed message received [127.0.0.1:")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == '"Invalid character" at character 1'


def test_an_exception_in_the_owner(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the owner's handle_message is one ERROR record and does not close the connection."""

    def refuse(connection: Any, message: Message) -> None:
        if message.name == "bad":
            raise ZeroDivisionError("on purpose")

    async def main() -> None:
        owner = Owner(on_message=refuse)
        async with linked(owner) as (connection, client):
            client.send(b"?bad\n?good\n")
            await until(lambda: len(owner.messages) == 2)
            assert not connection.is_closing()
            await nothing(client, connection)

    run(host, main)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage().startswith("Exception in message handler [127.0.0.1:")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "on purpose"


def test_debug_records(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Debug records hold the address suffix and the repr of the bytes."""
    caplog.set_level(logging.DEBUG, LOGGER)

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            client.send(b"?caf\xe9\n?ok[2]  a\t\xff \n")
            await until(lambda: owner.messages)
            connection.write_messages([inform(b"\xff "), Message.reply("ok", "ok", mid=2)])
            await client.until(b"!")
            suffix = f" [{client.address.decode()}]"
            assert [text for text in texts(caplog, logging.DEBUG) if "log" not in text] == [
                r"Received message b'?ok[2] a \xff\n'" + suffix,
                r"Sent message b'#news \xff\\_\n'" + suffix,
                r"Sent message b'!ok[2] ok\n'" + suffix,
            ]

    run(host, main)


# -- writing ----------------------------------------------------------------------------------------------


def test_written_messages_arrive(host: Host) -> None:
    """Messages leave in the order in which they were written, and several with one write of the transport."""

    async def main() -> None:
        owner = Owner(on_message=lambda connection, message: connection.write_message(inform(message.name)))
        async with linked(owner) as (connection, client):
            connection.write_messages(inform(number) for number in range(3))
            connection.write_messages([])
            connection.write_message(Message.reply("a", "ok", mid=5))
            client.send(b"?x\n?y\n")
            assert await client.lines(6) == [
                b"#news 0\n",
                b"#news 1\n",
                b"#news 2\n",
                b"!a[5] ok\n",
                b"#news x\n",
                b"#news y\n",
            ]

    run(host, main)


def test_several_messages_are_one_write() -> None:
    """What is written together goes to the transport together."""
    connection, transport = made(("10.0.0.1", 80))
    connection.write_messages([inform(1), inform(2)])
    transport.write.assert_called_once_with(b"#news 1\n#news 2\n")


def test_a_peer_that_vanished(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """After the peer vanished, several writes give exactly one warning record, whose text ends with the
    address.
    """

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            address = client.address.decode()
            client.close()
            await connection.wait_closed()
            for _ in range(3):
                connection.write_message(inform())
                connection.write_messages([inform(), inform()])
            assert texts(caplog, logging.WARNING) == [
                f"Connection closed before message could be sent [{address}]"
            ]
            assert owner.told == ["made", "eof", ("lost", None)]

    run(host, main)


def test_a_connection_that_broke(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """If the connection broke with an exception, it is in the text."""

    async def main() -> None:
        owner = Owner(stays_open=True)
        async with linked(owner) as (connection, client):
            address = client.address.decode()
            client.reset()
            await connection.wait_closed()
            connection.write_message(inform())
            connection.write_message(inform())
            assert texts(caplog, logging.WARNING) == [
                "Connection closed before message could be sent: [Errno 104] Connection reset by peer"
                f" [{address}]"
            ]
            kind, error = owner.told[-1]
            assert (kind, type(error)) == ("lost", ConnectionResetError)

    run(host, main)


def made(peername: Any) -> tuple[Any, mock.Mock]:
    """A connection over a transport that is none, and that transport."""
    transport = mock.Mock()
    transport.get_extra_info.return_value = peername
    transport.is_closing.return_value = False
    connection: Any = Connection(mock.Mock(), True, 1000)
    connection.connection_made(transport)
    connection.owner._connection_made.assert_called_once_with(connection)
    return connection, transport


def test_the_text_of_a_broken_pipe(caplog: pytest.LogCaptureFixture) -> None:
    """As users see it: the error, and an IPv6 address in brackets."""
    connection, transport = made(("::1", 1, 0, 0))
    error = BrokenPipeError(32, "Broken pipe")
    connection.connection_lost(error)
    connection.write_message(inform())
    connection.write_message(inform())
    assert [record.getMessage() for record in caplog.records] == [
        "Connection closed before message could be sent: [Errno 32] Broken pipe [[::1]:1]"
    ]
    transport.write.assert_not_called()
    connection.owner._connection_lost.assert_called_once_with(connection, error)


def test_addresses() -> None:
    """IPv4, IPv6, and IPv6 with a scope, which only this host understands."""
    for peername, address in [
        (("10.0.0.1", 80), Address(ip_address("10.0.0.1"), 80)),
        (("::1", 1, 0, 0), Address(ip_address("::1"), 1)),
        (("fe80::1%eth0", 2, 0, 3), Address(ip_address("fe80::1"), 2)),
    ]:
        assert made(peername)[0].address == address


# -- back-pressure ----------------------------------------------------------------------------------------

LONG = "x" * 1024**2 * 8


def test_drain_waits_for_the_reader(host: Host) -> None:
    """drain() blocks for a long message until the reader takes it, and returns at once with nothing
    unsent.
    """

    async def main() -> None:
        async with linked(Owner()) as (connection, client):
            await asyncio.wait_for(connection.drain(), 1)
            client.stop_reading()
            connection.write_message(inform(LONG))
            draining = [asyncio.create_task(connection.drain()) for _ in range(2)]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in draining)
            assert 0 < connection.get_write_buffer_size() <= len(LONG) + 7
            client.read_on()
            assert len(await client.line()) == len(LONG) + 7
            await asyncio.gather(*draining)
            assert connection.get_write_buffer_size() == 0

    run(host, main)


def test_drain_of_a_connection_that_breaks(host: Host) -> None:
    """drain() raises BrokenPipeError or ConnectionResetError if the peer goes away meanwhile."""

    async def main() -> None:
        owner = Owner(stays_open=True)
        async with linked(owner) as (connection, client):
            client.stop_reading()
            connection.write_message(inform(LONG))
            draining = [asyncio.create_task(connection.drain()) for _ in range(2)]
            await turns()
            client.reset()
            for task in draining:
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    await task
            assert connection.is_closing()
            assert connection.get_write_buffer_size() == 0
            await connection.drain()

    run(host, main)


def test_drain_of_a_connection_that_is_aborted(host: Host) -> None:
    """drain() returns quietly when the connection is aborted locally."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            client.stop_reading()
            connection.write_message(inform(LONG))
            draining = asyncio.create_task(connection.drain())
            await turns()
            connection.abort()
            assert connection.is_closing()
            await draining
            await connection.wait_closed()
            assert owner.told == ["made", ("lost", None)]

    run(host, main)


def test_drain_can_be_cancelled(host: Host) -> None:
    """One who waits in drain() and is cancelled does not take the others along."""

    async def main() -> None:
        async with linked(Owner()) as (connection, client):
            client.stop_reading()
            connection.write_message(inform(LONG))
            first, second = (asyncio.create_task(connection.drain()) for _ in range(2))
            await turns()
            first.cancel()
            await turns()
            assert first.cancelled()
            assert not second.done()
            client.read_on()
            await client.line()
            await second

    run(host, main)


def test_paused_reading(host: Host) -> None:
    """pause_reading really stops delivery, and resume delivers; either may be called twice."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            connection.pause_reading()
            connection.pause_reading()
            client.send(b"?a\n?b\n")
            await asyncio.sleep(0.05)
            assert owner.messages == []
            connection.resume_reading()
            connection.resume_reading()
            await until(lambda: len(owner.messages) == 2)

    run(host, main)


# -- ending -----------------------------------------------------------------------------------------------


def test_closing_sends_what_waits(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """close() sends what was written before; what is written after is dropped with a warning."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            client.stop_reading()
            connection.write_message(inform(LONG))
            connection.close()
            connection.write_message(inform("late"))
            connection.close()
            client.read_on()
            assert [len(line) for line in await client.rest()] == [len(LONG) + 7]
            await connection.wait_closed()
            await connection.wait_closed()
            assert owner.told == ["made", ("lost", None)]

    run(host, main)
    assert len(texts(caplog, logging.WARNING)) == 1


def test_is_closing_after_close(host: Host) -> None:
    """is_closing() is true straight after close(), and stays true."""

    async def main() -> None:
        async with linked(Owner()) as (connection, client):
            assert not connection.is_closing()
            connection.close()
            assert connection.is_closing()
            await connection.wait_closed()
            assert connection.is_closing()
            assert await client.line() == b""
            for harmless in (connection.close, connection.abort, connection.pause_reading):
                harmless()
            connection.resume_reading()

    run(host, main)


def test_is_closing_after_the_end_of_the_other_side(host: Host) -> None:
    """is_closing() is true after the remote EOF has been seen, and stays true."""

    async def main() -> None:
        owner = Owner()
        async with linked(owner) as (connection, client):
            client.half_close()
            await until(lambda: "eof" in owner.told)
            assert connection.is_closing()
            assert await client.line() == b""
            await connection.wait_closed()
            assert connection.is_closing()

    run(host, main)


def test_an_owner_that_keeps_its_side_open(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """If the owner wants so, the connection writes on when the other end will send no more."""

    async def main() -> None:
        owner = Owner(stays_open=True)
        async with linked(owner) as (connection, client):
            client.send(b"?whole\n?part")
            client.half_close()
            await until(lambda: "eof" in owner.told)
            assert owner.messages == [Message.request("whole")]
            assert not connection.is_closing()
            connection.write_message(inform("yes"))
            connection.close()
            assert await client.rest() == [b"#news yes\n"]
            assert texts(caplog, logging.WARNING) == [
                f"EOF received on connection with partial message [{client.address.decode()}]"
            ]

    run(host, main)


def test_ending_inside_a_message(host: Host) -> None:
    """An owner may close or abort the connection while it is told of a message."""

    async def main() -> None:
        for end in (Connection.close, Connection.abort):
            owner = Owner(on_message=lambda connection, message, end=end: end(connection))
            async with linked(owner) as (connection, client):
                client.send(b"?a\n")
                assert await client.line() == b""
                await connection.wait_closed()
                assert owner.told == ["made", Message.request("a"), ("lost", None)]

    run(host, main)


def test_a_connection_without_a_transport(caplog: pytest.LogCaptureFixture) -> None:
    """Before it is made, a connection does nothing, and breaks nothing."""
    connection: Any = Connection(mock.Mock(), True, 1000)
    assert connection.get_write_buffer_size() == 0
    assert not connection.is_closing()
    connection.pause_reading()
    connection.resume_reading()
    connection.write_message(inform())
    assert len(caplog.records) == 1


def test_big_messages(host: Host) -> None:
    """Messages of five megabytes pass in both directions, and so does what follows them."""
    long = bytes(range(256)) * 4096 * 5

    async def main() -> None:
        owner = Owner(on_message=lambda connection, message: connection.write_message(message))
        async with linked(owner, is_server=False) as (_, client):
            sent = bytes(Message.request("long", long, mid=7))
            assert len(sent) > len(long) > 5 * 10**6
            client.send(sent + b"?short\n")
            assert await client.line() == sent
            assert await client.line() == b"?short\n"
            assert owner.messages[0].arguments == [long]

    run(host, main)
