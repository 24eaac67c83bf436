from __future__ import annotations

import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, bound_ports, open_listeners
from armillary._runtime.sessions import serve_sessions
from armillary.errors import ConnectFailed
from armillary.testing import MemoryListener

if TYPE_CHECKING:
    from conftest import Tls

logger = logging.getLogger("tests.sessions")


class Server:
    """What serves: a scope to end the accepting, the sessions' nursery, and how often a drain began."""

    def __init__(self, sessions: trio.Nursery) -> None:
        self.accepting = trio.CancelScope()
        self.sessions = sessions
        self.drains = 0

    def begin_drain(self) -> None:
        self.drains += 1


@asynccontextmanager
async def serving(
    session: Callable[[trio.abc.Stream], Awaitable[object]], *listeners: trio.abc.Listener[Any]
) -> AsyncIterator[Server]:
    """Serve for a block, in the nesting that servers use: the sessions outside, the accepting inside."""
    async with trio.open_nursery() as sessions:
        server = Server(sessions)
        async with trio.open_nursery() as acceptors:
            started = await acceptors.start(
                partial(
                    serve_sessions,
                    session,
                    list(listeners),
                    accepting=server.accepting,
                    sessions=sessions,
                    begin_drain=server.begin_drain,
                    logger=logger,
                )
            )
            assert list(listeners) == started
            yield server
            acceptors.cancel_scope.cancel()
        sessions.cancel_scope.cancel()


async def converse(stream: trio.abc.Stream) -> None:
    """Echo; fail in the way that a client asks for."""
    async for data in stream:
        if data == b"crash":
            raise RuntimeError("a defect")
        if data == b"crash in a group":
            raise ExceptionGroup("defects", [RuntimeError("one"), ValueError("another")])
        if data == b"break":
            raise trio.BrokenResourceError("broken")
        if data == b"be slow":
            raise trio.TooSlowError
        if data == b"leave":
            return
        await stream.send_all(data)


async def echoes(stream: trio.abc.Stream) -> bool:
    await stream.send_all(b"echo")
    return await stream.receive_some() == b"echo"


async def has_ended(stream: trio.abc.Stream) -> bool:
    return await stream.receive_some() == b""


@pytest.mark.parametrize("request_", [b"crash", b"crash in a group"])
async def test_a_defect_in_a_session_is_logged_and_ends_only_that_session(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One session's exception is logged with its peer's address; others and the accept loop go on."""
    listener = MemoryListener()
    async with serving(converse, listener):
        one, other = await listener.connect(), await listener.connect()
        async with one, other:
            assert await echoes(one)
            assert await echoes(other)
            await one.send_all(request_)
            assert await has_ended(one)
            assert await echoes(other)
            async with await listener.connect() as later:
                assert await echoes(later)
    [record] = caplog.records
    assert (logging.ERROR, "session of memory-1 ended by an unexpected error") == (
        record.levelno,
        record.getMessage(),
    )
    assert record.exc_info is not None
    assert record.exc_info[0] in (RuntimeError, ExceptionGroup)


@pytest.mark.parametrize(("request_", "text"), [(b"break", "broken"), (b"be slow", "it was too slow")])
async def test_a_broken_connection_is_no_defect(
    request_: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What networks do to sessions is told at INFO, without a traceback."""
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with serving(converse, listener), await listener.connect() as client:
        await client.send_all(request_)
        assert await has_ended(client)
    [record] = caplog.records
    assert (logging.INFO, f"connection from memory-1 failed: {text}", None) == (
        record.levelno,
        record.getMessage(),
        record.exc_info,
    )


async def test_the_log_names_a_peer_that_is_gone_by_its_address(caplog: pytest.LogCaptureFixture) -> None:
    """A peer that reset its connection is still known in the log by the address that it had."""
    caplog.set_level(logging.INFO)
    [listener] = await open_listeners(0, host="127.0.0.1")
    async with serving(converse, listener) as server:
        client = socket.create_connection(("127.0.0.1", bound_ports([listener])[0]))
        name = "{}:{}".format(*client.getsockname())
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        while server.sessions.child_tasks:  # noqa: ASYNC110 - the system decides when a reset arrives
            await trio.sleep(0.001)
    [record] = caplog.records
    assert record.getMessage().startswith(f"connection from {name} failed: ")


async def test_a_session_that_returns_closes_its_stream() -> None:
    """A session need not close what it was given."""
    listener = MemoryListener()
    async with serving(converse, listener) as server, await listener.connect() as client:
        await client.send_all(b"leave")
        assert await has_ended(client)
        await trio.testing.wait_all_tasks_blocked()
        assert set() == server.sessions.child_tasks


async def test_cancelling_the_accepting_begins_the_drain() -> None:
    """No more clients come, the listener is closed, the drain begins once, and sessions go on."""
    listener = MemoryListener()
    async with serving(converse, listener) as server, await listener.connect() as client:
        assert await echoes(client)
        assert 0 == server.drains
        server.accepting.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == server.drains
        with pytest.raises(ConnectFailed):
            await listener.connect()
        assert await echoes(client)
    assert 1 == server.drains


async def test_cancelling_the_caller_begins_the_drain() -> None:
    """A server that is cancelled from outside begins the drain too, and its sessions' nursery outlives it."""
    listener = MemoryListener()
    async with trio.open_nursery() as outer:
        server = Server(outer)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    partial(
                        serve_sessions,
                        converse,
                        [listener],
                        accepting=server.accepting,
                        sessions=outer,
                        begin_drain=server.begin_drain,
                        logger=logger,
                    )
                )
                client = await listener.connect()
                assert await echoes(client)
                scope.cancel()
        assert 1 == server.drains
        assert await echoes(client)
        with pytest.raises(ConnectFailed):
            await listener.connect()
        await client.aclose()


async def test_an_error_of_the_listener_ends_the_server_and_begins_the_drain() -> None:
    """An exception in the accept loop is the server's own: it comes out, after the sessions were told."""

    class Broken(MemoryListener):
        async def accept(self) -> Any:
            await trio.lowlevel.checkpoint()
            raise ValueError("no such thing as accepting")

    servers = []
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="no such thing"), flatten_subgroups=True):
        async with serving(converse, Broken()) as server:
            servers.append(server)
            await trio.sleep_forever()
    assert 1 == servers[0].drains


async def test_a_tls_peer_that_says_nothing_is_sent_away(
    tls: Tls, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A client has so long to shake hands and no longer, and holds no session up meanwhile."""
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with (
        serving(converse, trio.SSLListener(listener, tls.server)),
        await listener.connect() as silent,
        await listener.connect() as transport,
    ):
        async with trio.SSLStream(transport, tls.client, server_hostname="localhost") as secure:
            assert await echoes(secure)
            assert 0 == trio.current_time()
            assert await has_ended(silent)
            assert HANDSHAKE_TIMEOUT == trio.current_time()
            assert await echoes(secure)
    [record] = caplog.records
    assert "connection from memory-1 failed: it was too slow" == record.getMessage()


async def test_a_tls_peer_that_talks_nonsense_is_told_at_info(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """A handshake that fails is logged with its reason and ends that connection only."""
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with serving(converse, trio.SSLListener(listener, tls.server)) as server:
        async with await listener.connect() as client:
            await client.send_all(b"?help\n" * 10)
            while await client.receive_some():
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert set() == server.sessions.child_tasks
        transport = await listener.connect()
        async with trio.SSLStream(transport, tls.client, server_hostname="localhost") as secure:
            assert await echoes(secure)
    [record] = caplog.records
    assert logging.INFO == record.levelno
    assert record.getMessage().startswith("connection from memory-1 failed: [SSL")


async def test_serving_cancelled_anywhere_leaves_nothing(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """Whenever a server is cancelled, its listener is closed and no session and no stream is left."""

    async def scenario() -> None:
        async with trio.open_nursery() as clients:
            [listener] = await open_listeners(0, host="127.0.0.1")
            async with listener, serving(converse, listener):
                [port] = bound_ports([listener])
                client = await trio.open_tcp_stream("127.0.0.1", port)
                async with client:
                    assert await echoes(client)
                    clients.start_soon(trio.lowlevel.checkpoint)
                    await client.send_all(b"leave")
                    assert await has_ended(client)

    assert await cancel_everywhere(scenario) >= 10
