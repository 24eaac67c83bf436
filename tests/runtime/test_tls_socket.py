"""TLS on sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from armillary._runtime.direct import DirectSide, direct_side
from armillary._runtime.outbox import Outbox
from armillary._runtime.tls_socket import TlsListener, TlsSocketStream, transport_of

if TYPE_CHECKING:
    from conftest import Tls

Pair = tuple[TlsSocketStream, TlsSocketStream]


async def socket_pair(*, buffer: int | None = None) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for each in (client, server):
        each.setblocking(False)
        if buffer is not None:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await trio.lowlevel.checkpoint()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(client)),
        trio.SocketStream(trio.socket.from_stdlib_socket(server)),
    )


async def make_pair(tls: Tls, *, buffer: int | None = None) -> Pair:
    """Two ends of a TLS connection, after the handshake."""
    left, right = await socket_pair(buffer=buffer)
    client = TlsSocketStream(left, tls.client, server_hostname="localhost")
    server = TlsSocketStream(right, tls.server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


@asynccontextmanager
async def paired(tls: Tls, *, buffer: int | None = None) -> AsyncIterator[Pair]:
    client, server = await make_pair(tls, buffer=buffer)
    async with client, server:
        yield client, server


async def test_it_is_a_stream(tls: Tls) -> None:
    """What trio asks of every stream holds."""

    async def make() -> Pair:
        return await make_pair(tls)

    async def make_clogged() -> Pair:
        pair = await make_pair(tls, buffer=100_000)
        for each in pair:
            # The system moves what it has to the other end, and has room again, for a while.
            for _ in range(100):
                each.send_nowait(bytes(1_000_000))
                await trio.sleep(0.001)
        return pair

    await trio.testing.check_two_way_stream(make, make_clogged)


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 32768, 1_000_000, 5_000_000])
async def test_bytes_arrive_as_they_were_sent(tls: Tls, size: int) -> None:
    """Whatever is sent arrives, however many records it takes, in both directions at once."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    async def send(stream: TlsSocketStream) -> None:
        await stream.send_all(data)

    async def receive(stream: TlsSocketStream) -> None:
        received = bytearray()
        while len(received) < size:
            received += await stream.receive_some(70_000)
        assert received == data

    async with paired(tls) as pair, trio.open_nursery() as nursery:
        for each in pair:
            nursery.start_soon(send, each)
            nursery.start_soon(receive, each)


async def test_no_more_than_was_asked_for(tls: Tls) -> None:
    """A read brings as many bytes as it may, and the rest stays for the next one."""
    async with paired(tls) as (client, server):
        await client.send_all(bytes(40_000))
        received = []
        while sum(received) < 40_000:
            received.append(len(await server.receive_some(1000)))
        assert max(received) <= 1000
        await client.send_all(bytes(40_000))
        total = 0
        while total < 40_000:
            total += len(await server.receive_some())


async def test_the_non_blocking_side(tls: Tls) -> None:
    """What the system takes is sent at once; what it does not take is offered again and arrives once."""
    async with paired(tls, buffer=200_000) as (client, server), trio.open_nursery() as nursery:
        assert isinstance(direct_side(client), DirectSide)
        received = bytearray()

        async def receive() -> None:
            while data := await server.receive_some():
                received.extend(data)

        data = bytes(range(251)) * 20_000
        view = memoryview(data)
        while sent := client.send_nowait(view):
            view = view[sent:]
        assert 0 < len(view) < len(data)
        assert 0 < client.unsent <= 16384
        assert client.send_nowait(b"more") == 0
        nursery.start_soon(receive)
        while view:
            await client.wait_writable()
            assert client.unsent == 0
            view = view[client.send_nowait(view) :]
        await client.wait_writable()
        await client.aclose()
    assert received == data


async def test_an_outbox_over_it(tls: Tls) -> None:
    """Small and large pieces go through an outbox in their order, over a connection that is often full."""
    pieces = [bytes([number % 256]) * (number * 37 % 50_000) for number in range(400)]
    async with paired(tls, buffer=200_000) as (client, server), trio.open_nursery() as nursery:
        outbox = Outbox(client, nursery)

        async def receive() -> None:
            received = bytearray()
            while len(received) < sum(map(len, pieces)):
                received += await server.receive_some(5000)
            assert received == b"".join(pieces)

        nursery.start_soon(receive)
        for number, piece in enumerate(pieces):
            if number % 7 == 0:
                outbox.cork()
            outbox.send(piece)
            if number % 7 == 6:
                outbox.flush()
            if number % 50 == 0:
                await trio.lowlevel.checkpoint()
        await outbox.finish(trio.current_time() + 30)


async def test_the_end(tls: Tls) -> None:
    """The other end gets what was sent, and then the end; a connection that just stops ends as well."""
    async with paired(tls) as (client, server):
        await client.send_all(b"bye")
        await client.aclose()
        assert await server.receive_some() == b"bye"
        assert await server.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await client.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"more")
        with pytest.raises(OSError, match=r"Bad file descriptor|closed"):
            client.send_nowait(b"more")
        with pytest.raises(trio.ClosedResourceError):
            await client.wait_writable()
        await client.aclose()
    async with paired(tls) as (client, server):
        transport = transport_of(client)
        assert isinstance(transport, ssl.SSLSocket)
        transport.shutdown(socket.SHUT_RDWR)
        assert await server.receive_some() == b""


async def test_a_reset(tls: Tls) -> None:
    """A connection that is reset has ended for who reads, and is broken for who writes."""
    async with paired(tls) as (client, server):
        transport = transport_of(client)
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await server.send_all(bytes(100_000))
        client._is_broken = True  # as if it had broken: no good-bye
        await client.aclose()
        assert await server.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(bytes(100_000))


async def test_garbage_instead_of_a_handshake(tls: Tls) -> None:
    """A peer that does not speak TLS is a broken connection, whose cause is the library's error."""
    left, right = await socket_pair()
    server = TlsSocketStream(right, tls.server, server_side=True)
    async with left, server:
        await left.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError) as caught:
            await server.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_garbage_after_the_handshake(tls: Tls) -> None:
    """Bytes that are no TLS record break the connection."""
    async with paired(tls) as (client, server):
        plain = socket.socket(fileno=socket.dup(transport_of(client).fileno()))
        with plain:
            plain.send(b"garbage" * 100)
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_a_handshake_that_is_cancelled(tls: Tls) -> None:
    """A handshake with a silent peer can be cancelled; closing then leaves nothing open."""
    left, right = await socket_pair()
    server = TlsSocketStream(right, tls.server, server_side=True)
    async with left:
        with trio.move_on_after(0.05) as scope:
            await server.do_handshake()
        assert scope.cancelled_caught
        await server.aclose()
        assert await left.receive_some() == b""


async def test_no_handshake_at_all(tls: Tls) -> None:
    """A stream may be closed before its handshake; one that is used before it shakes hands by itself."""
    left, right = await socket_pair()
    async with left:
        server = TlsSocketStream(right, tls.server, server_side=True)
        await server.aclose()
        assert await left.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await server.do_handshake()
    left, right = await socket_pair()
    client = TlsSocketStream(left, tls.client, server_hostname="localhost")
    server = TlsSocketStream(right, tls.server, server_side=True)
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"hello")
        assert await server.receive_some() == b"hello"


async def test_closing_wakes_who_waits(tls: Tls) -> None:
    """Whoever waits for bytes of a stream that is closed here is told so."""
    async with paired(tls) as (client, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


async def test_a_listener(tls: Tls) -> None:
    """A listener's connections are TLS ones, also for trio's own TLS."""
    (inner,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = TlsListener(inner, tls.server)
    async with trio.open_nursery() as nursery:

        async def echo(stream: TlsSocketStream) -> None:
            async with stream:
                while data := await stream.receive_some():
                    await stream.send_all(data)

        await nursery.start(trio.serve_listeners, echo, [listener])
        transport = await trio.open_tcp_stream("127.0.0.1", inner.socket.getsockname()[1])
        async with trio.SSLStream(transport, tls.client, server_hostname="localhost") as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_what_is_known_of_the_other_end(tls: Tls) -> None:
    """The certificate and the version can be asked for after the handshake."""
    async with paired(tls) as (client, server):
        assert client.version() == server.version() == "TLSv1.3"
        assert client.getpeercert(binary_form=True)
        assert client.getpeercert()
        assert server.getpeercert() is None
