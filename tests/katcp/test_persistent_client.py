"""A client that is run by hand: its states from outside of tasks, one attempt only, and what is hooked in."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from armillary import katcp
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.katcp import ClientState, PersistentClient, ProtocolError, SyncState
from armillary.katcp.connection import Connection
from armillary.katcp.protocol.messages import WireMessage
from armillary.testing import FaultyStream, MemoryListener, RawPeer, bounded_stream_pair


def made(dial: Callable[[], Any], **options: Any) -> PersistentClient:
    """A client as those make it who run it themselves."""
    return PersistentClient(katcp.STANDARD_TYPES, dial, "memory", Backoff(max), **options)


@asynccontextmanager
async def running(client: PersistentClient) -> AsyncIterator[trio.Event]:
    """Run a client beside a block, which has to end it. Gives what is set when it has ended."""
    ended = trio.Event()

    async def run() -> None:
        await client.run(katcp.DEFAULT_LIMIT, math.inf, math.inf)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield ended


async def refuse() -> trio.abc.Stream:
    raise ConnectFailed("refused")


def test_made_without_a_run() -> None:
    """A client can be made, given callbacks, looked at, and closed, where there is no trio run at all."""
    seen: list[ClientState] = []
    client = made(refuse)
    client.add_state_callback(seen.append)
    client.add_inform_callback("news", print)
    assert (ClientState.CONNECTING, False, frozenset(), None) == (
        client.state,
        client.is_connected,
        client.protocol_flags,
        client.last_error,
    )
    client.close()
    client.close()
    assert [ClientState.CLOSED] == seen
    assert isinstance(client.last_error, ConnectionClosed)
    trio.run(client.run, katcp.DEFAULT_LIMIT, math.inf, math.inf)
    assert [ClientState.CLOSED] == seen


async def test_close(autojump_clock: Any) -> None:
    """Closing takes effect before it returns, and run returns when the connection is down."""
    listener = MemoryListener()
    client = made(listener.connect)
    seen: list[tuple[ClientState, bool]] = []
    client.add_state_callback(lambda state: seen.append((state, client.is_connected)))
    async with running(client) as ended:
        server = RawPeer(await listener.accept())
        async with server.closing():
            await server.greet()
            await client.wait_connected()
            pending = client.start_request("farewell")
            client.close()
            assert (ClientState.DISCONNECTING, False) == seen[-1]
            assert "the client was closed" == str(client.last_error)
            with pytest.raises(ConnectionClosed, match="not connected"):
                client.start_request("y")
            await ended.wait()
            assert [b"?farewell[1]\n", b""] == [await server.receive(), await server.receive()]
            with pytest.raises(ConnectionClosed):
                await pending.wait()
    assert ["NEGOTIATING", "CONNECTED", "DISCONNECTING", "CLOSED"] == [state.name for state, _ in seen]
    with pytest.raises(ConnectionClosed, match="the client was closed"):
        await client.wait_connected()


@pytest.mark.parametrize("moment", ["dialling", "negotiating", "sleeping"])
async def test_close_without_connection(autojump_clock: Any, moment: str) -> None:
    """A client that has no connection is closed at once, and leaves no stream open."""
    ours, theirs = bounded_stream_pair()

    async def dial() -> trio.abc.Stream:
        if moment == "sleeping":
            raise ConnectFailed("refused")
        if moment == "dialling":
            await trio.sleep_forever()
        return ours

    client = made(dial)
    async with running(client) as ended:
        await trio.testing.wait_all_tasks_blocked()
        client.close()
        assert (ClientState.DISCONNECTING if moment == "negotiating" else ClientState.CLOSED) is client.state
        await ended.wait()
        assert ClientState.CLOSED is client.state
        assert "the client was closed" == str(client.last_error)
        if moment == "negotiating":
            assert b"" == await theirs.receive_some()


async def test_closed_in_a_callback(autojump_clock: Any) -> None:
    """A callback may close the client, whatever it is called for."""
    for last in (ClientState.NEGOTIATING, ClientState.CONNECTED, ClientState.DISCONNECTING):
        listener = MemoryListener()
        client = made(listener.connect)
        client.add_state_callback(lambda state, last=last, client=client: state is last and client.close())
        async with running(client) as ended:
            server = RawPeer(await listener.accept())
            async with server.closing():
                with suppress(trio.BrokenResourceError):  # the client may be gone already
                    await server.send(b"#version-connect katcp-protocol 5.0\n#disconnect bye\n")
                await ended.wait()
                assert ClientState.CLOSED is client.state
                assert "the client was closed" == str(client.last_error)


async def test_one_attempt(autojump_clock: Any) -> None:
    """Without reconnection there is one attempt, and why it failed is kept, also by close."""
    client = made(refuse, reconnects=False)
    async with running(client) as ended:
        with pytest.raises(ConnectFailed, match="refused"):
            await client.wait_connected()
        await ended.wait()
    assert (ClientState.CLOSED, "refused") == (client.state, str(client.last_error))
    client.close()
    assert "refused" == str(client.last_error)
    assert 0 == trio.current_time()


async def test_one_connection(autojump_clock: Any) -> None:
    """Without reconnection the client is closed when its connection ends."""
    for greeting, reason in (
        (b"#version-connect katcp-protocol 5.0-MI\n#disconnect bye\n", "the server disconnected: bye"),
        (b"#version-connect katcp-protocol 4.0\n", "Unknown protocol version 4.0"),
    ):
        listener = MemoryListener()
        client = made(listener.connect, reconnects=False)
        async with running(client) as ended:
            server = RawPeer(await listener.accept())
            async with server.closing():
                await server.send(greeting)
                await ended.wait()
        assert ClientState.CLOSED is client.state
        assert reason == str(client.last_error)
        with pytest.raises((ConnectionClosed, ProtocolError), match=reason):
            await client.wait_connected()


async def test_connected_before_what_follows_the_greeting(autojump_clock: Any) -> None:
    """What comes in one read with the greeting finds the client connected, its mirrors told, and a reply."""
    listener = MemoryListener()
    client = made(listener.connect)
    told: list[str] = []
    client.add_state_callback(lambda state: told.append(state.name))
    client.add_inform_callback("early", lambda: told.append(f"early {client.is_connected}"))
    client.add_inform_callback("late", lambda: told.append(f"late {client._mirrors.engine.state.name}"))
    async with running(client) as ended:
        server = RawPeer(await listener.accept())
        async with server.closing():
            await server.send(
                b"#early\n#version-connect katcp-protocol 5.0-MI\n#late\n#disconnect bye\n#gone\n"
            )
            await client.wait_disconnected()
            client.close()
            await ended.wait()
    assert ["NEGOTIATING", "early False", "CONNECTED", "late SYNCING", "DISCONNECTING"] == told[:5]
    assert SyncState.CLOSED is client._mirrors.engine.state


async def test_protocol_without_flags(autojump_clock: Any) -> None:
    """A server that speaks our protocol without any flag is connected to, and may go at once."""
    listener = MemoryListener()
    client = made(listener.connect, reconnects=False)
    async with running(client):
        server = RawPeer(await listener.accept())
        async with server.closing():
            await server.send(b"#version-connect katcp-protocol 5.0\n#disconnect bye\n")
    assert ClientState.CLOSED is client.state
    assert 1 == client.connections
    assert "the server disconnected: bye" == str(client.last_error)


async def test_protocol_is_said_once(autojump_clock: Any) -> None:
    """What the server says of its protocol later changes nothing under way."""
    listener = MemoryListener()
    client = made(listener.connect)
    async with running(client):
        server = RawPeer(await listener.accept())
        async with server.closing():
            await server.greet("MI")
            await client.wait_connected()
            await server.send(b"#version-connect katcp-protocol 4.0-M\n")
            await trio.testing.wait_all_tasks_blocked()
            assert (True, frozenset("MI")) == (client.is_connected, client.protocol_flags)
            client.close()


async def test_mirror_knows_the_end_at_once(autojump_clock: Any) -> None:
    """Mirrored sensors are unreachable as soon as the connection begins to end, not when it is down."""
    ours, theirs = bounded_stream_pair()
    faulty = FaultyStream(ours)
    server = RawPeer(theirs)
    await server.greet()
    async with server.closing(), katcp.open_client_on(faulty) as client, client.mirror_sensors() as sensors:
        assert b"?sensor-list[1]\n" == await server.receive()
        await server.send(b"!sensor-list[1] ok 0\n")
        await sensors.wait_synced()
        faulty.sends_nothing = True
        client.start_request("x")
        await trio.testing.wait_all_tasks_blocked()
        await server.send(b"#disconnect bye\n")
        await trio.testing.wait_all_tasks_blocked()
        assert not client.is_connected
        assert SyncState.DISCONNECTED is sensors.state
        assert 0 == trio.current_time()


async def test_cause_of_a_broken_connection(autojump_clock: Any) -> None:
    """The error of a connection that broke names what broke it as its cause."""
    ours, theirs = bounded_stream_pair()
    faulty = FaultyStream(ours)
    await RawPeer(theirs).greet()
    async with katcp.open_client_on(faulty) as client:
        await faulty.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert client._connection is not None
        assert isinstance(client._connection.reason, ConnectionClosed)
        assert isinstance(client._connection.reason.__cause__, trio.BrokenResourceError)
    await theirs.aclose()


async def test_eof_in_mid_line(autojump_clock: Any, caplog: Any) -> None:
    """Half a line before the end of the connection is worth a warning."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.greet()
    async with katcp.open_client_on(ours) as client:
        await server.send(b"#half")
        await theirs.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not client.is_connected
    assert ["EOF received on connection with partial message [memory-server]"] == [
        record.getMessage() for record in caplog.records
    ]


async def test_traffic_is_logged(autojump_clock: Any, caplog: Any) -> None:
    """At DEBUG, each message is logged as it went over the wire."""
    caplog.set_level(logging.DEBUG, "armillary.katcp.client")
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.greet()
    async with server.closing(), katcp.open_client_on(ours) as client:
        pending = client.start_request("x", "a b")
        await server.send(b"#x[1]   in\n!x[1] ok\n")
        await pending.wait()
    assert [
        r"Received message b'#version-connect katcp-protocol 5.1-MIB\n'",
        r"Sent message b'?x[1] a\\_b\n'",
        r"Received message b'#x[1] in\n'",
        r"Received message b'!x[1] ok\n'",
    ] == [record.getMessage().rpartition(" [")[0] for record in caplog.records]


async def test_a_request_alone_is_sent_at_once(autojump_clock: Any) -> None:
    """Over a socket, a request with no other under way leaves within the call; others leave together."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    streams: list[trio.SocketStream] = []

    async def greet() -> None:
        streams.append(await listener.accept())
        await streams[0].send_all(b"#version-connect katcp-protocol 5.0-MI\n")

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with katcp.open_client("127.0.0.1", listener.socket.getsockname()[1]) as client:
            sent = []
            for _ in range(3):
                client.start_request("x")
                sent.append(bytes_sent(client))
            await trio.testing.wait_all_tasks_blocked()
            assert [6, 6, 6, 18] == [*sent, bytes_sent(client)]
        await streams[0].aclose()


def bytes_sent(client: katcp.Client) -> int:
    statistics = client.statistics()
    assert statistics is not None
    return statistics.outbox.bytes_sent


async def test_taken_from_outside_of_tasks(autojump_clock: Any) -> None:
    """What a stream hands over itself is received as what a task reads, in the same order."""
    listener = MemoryListener()
    kept: list[Connection] = []

    class Kept(PersistentClient):
        def make_connection(self, stream: trio.abc.Stream, nursery: trio.Nursery, limit: int) -> Connection:
            kept.append(super().make_connection(stream, nursery, limit))
            return kept[-1]

    client = Kept(katcp.STANDARD_TYPES, listener.connect, "memory", Backoff(max))
    news: list[bytes] = []
    client.add_inform_callback("news", news.append)
    async with running(client):
        server = RawPeer(await listener.accept())
        async with server.closing():
            await server.greet()
            await client.wait_connected()
            (connection,) = kept
            pending = client.start_request("x")
            assert connection.take(b"#news 1\n#ne")
            await server.send(b"ws 2\n")
            await trio.testing.wait_all_tasks_blocked()
            assert connection.take(b"#x[1] a\n!x[1] ok\n")
            reply = await pending.wait()
            assert [[b"a"]] == [inform.arguments for inform in reply.informs]
            assert connection.take(b"#news 3\n#disconnect bye\n#news 4\n")
            assert not client.is_connected
            assert [b"1", b"2", b"3"] == news
            client.close()


async def test_pending_requests_may_fail_at_once(autojump_clock: Any) -> None:
    """Those who wait can be told that no reply will come before the connection is down."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.greet("M")
    async with server.closing(), katcp.open_client_on(ours) as client:
        first, second = client.start_request("x"), client.start_request("y")
        connection = client._connection
        assert connection is not None
        connection.end(ConnectionClosed("on purpose"))
        connection.fail_pending()
        assert 0 == connection.pending
        for pending in (first, second):
            with pytest.raises(ConnectionClosed, match="on purpose"):
                await pending.wait()


async def test_strays(autojump_clock: Any) -> None:
    """Messages that belong to nothing are handed to whoever asked for them; others are not."""
    for flags, stray in (
        ("MI", [b"?ask\n", b"?ask[5]\n", b"!x ok\n", b"!x[7] ok\n", b"#x[7] a\n"]),
        ("M", [b"?ask\n", b"!y ok\n", b"!x[7] ok\n"]),
    ):
        ours, theirs = bounded_stream_pair()
        server = RawPeer(theirs)
        await server.greet(flags)
        async with server.closing(), katcp.open_client_on(ours) as client:
            assert client._connection is not None
            strays: list[WireMessage] = []
            client._connection._conversation.on_stray = strays.append
            pending = client.start_request("x")
            own = (b"#x[1] a\n", b"!x[1] ok\n") if flags == "MI" else (b"#x a\n", b"!x ok\n")
            await server.send(b"#news\n" + own[0] + b"".join(stray) + own[1])
            assert [[b"a"]] == [inform.arguments for inform in (await pending.wait()).informs]
            assert stray == [bytes(message) for message in strays]
