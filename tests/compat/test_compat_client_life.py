"""The asyncio client's life: connecting, losing connections, closing."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import async_solipsism
import pytest
from clients import ABORTED, RESET, Story, asked, connected, error_of, logged, until
from raw_server import PATIENCE, RawPeer, RawServer, VirtualTimeLoop, raw_server

import aiokatcp
from aiokatcp import Client, ProtocolError

if TYPE_CHECKING:
    from conftest import Host


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
                record.getMessage() for record in logged(caplog) if record.levelno >= logging.WARNING
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
    assert not any("Failed to connect" in record.getMessage() for record in logged(caplog))


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
                record.getMessage() for record in logged(caplog) if record.name == "aiokatcp.client"
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
            task = asyncio.ensure_future(Kept.connect("127.0.0.1", server.port))
            peer = await server.accept()
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
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
    assert any("Server disconnected: no more [" in record.getMessage() for record in logged(caplog))


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


def test_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts come after 0.5-1 s, 1-2 s, and so on up to 30-60 s; after a success, from the start."""
    monkeypatch.setenv("ARMILLARY_GUEST", "hosted")  # the other driver sleeps on real time

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


def test_simulated_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client works on a loop that has neither real sockets nor real time, as tests of programs use."""
    monkeypatch.setenv("ARMILLARY_GUEST", "hosted")

    async def main() -> None:
        client = Client("127.0.0.1", 1)
        story = Story(client)
        await asyncio.sleep(400)
        assert {"No socket listening on 127.0.0.1:1"} == {str(error) for error in story.errors}
        assert 12 <= len(story.errors) <= 20
        arrived: asyncio.Queue[RawPeer] = asyncio.Queue()
        server = await asyncio.start_server(lambda r, w: arrived.put_nowait(RawPeer(r, w)), "127.0.0.1", 1)
        peer = await arrived.get()
        peer.greet()
        await client.wait_connected()
        task = asked(client, "x")
        assert b"?x[1]\n" == await peer.line()
        peer.send(b"!x[1] ok\n")
        assert ([], []) == await task
        client.close()
        await client.wait_closed()
        assert b"" == await peer.rest()
        peer.close()
        server.close()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
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
    assert [] == [record for record in logged(caplog) if record.name.startswith(("aiokatcp", "armillary"))]


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
    assert [] == [record for record in logged(caplog) if record.levelno >= logging.WARNING]


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
            await asyncio.wait_for(client.wait_closed(), 0.4)
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
            told: list[str] = []
            client.add_connected_callback(client.close)
            client.add_connected_callback(lambda: told.append(f"connected {client.is_connected}"))
            client.add_disconnected_callback(lambda: told.append(f"disconnected: {client.last_exc}"))
            client.add_inform_callback("news", lambda: told.append("news"))
            waiting = asyncio.ensure_future(client.wait_connected())
            peer = await server.accept()
            peer.greet(more=b"#news\n")
            await client.wait_closed()
            assert [f"disconnected: {ABORTED}", "connected False"] == told
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
