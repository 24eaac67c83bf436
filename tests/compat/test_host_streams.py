"""Streams over the host loop's transports, as trio tasks of its guest use them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio
from raw_client import run
from trio.testing import check_two_way_stream, wait_all_tasks_blocked

from armillary._runtime.dial import peer_name
from armillary._runtime.direct import DirectSide, direct_side
from armillary_compat.futures import call_asyncio, call_trio
from armillary_compat.guest import Guest
from armillary_compat.streams import HostListener, HostProtocol, HostStream, open_host_stream

if TYPE_CHECKING:
    from conftest import Host

HERE = "127.0.0.1"
# How the system says that the other end has closed.
GONE = r"Broken pipe|Connection reset"
# More than the buffers of both ends take.
MUCH = b"x" * 16 * 1024**2


def in_guest(host: Host, body: Callable[[], Awaitable[None]]) -> None:
    """Run a trio function in a guest of that loop."""

    async def main() -> None:
        await call_trio(body)

    run(host, main)


@asynccontextmanager
async def listening(address: str = HERE) -> AsyncIterator[tuple[HostListener, int]]:
    """A listener for a block, and its port."""
    guest = Guest.current()
    listener = HostListener()

    async def listen() -> asyncio.Server:
        return await guest.loop.create_server(
            lambda: HostProtocol(HostStream(guest), listener.deliver), address, 0
        )

    server = await call_asyncio(listen)
    try:
        yield listener, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def turns() -> None:
    """Let the loop go round: its transports close their sockets."""
    with trio.CancelScope(shield=True):
        for _ in range(5):
            await call_asyncio(asyncio.sleep, 0)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[HostStream, HostStream]]:
    """Both ends of a connection, closed in the end."""
    async with listening() as (listener, port):
        ours = await open_host_stream(Guest.current(), HERE, port)
        theirs = await listener.accept()
        try:
            yield ours, theirs
        finally:
            await trio.aclose_forcefully(ours)
            await trio.aclose_forcefully(theirs)
            await turns()


@asynccontextmanager
async def half_pair() -> AsyncIterator[tuple[HostStream, socket.socket]]:
    """A stream, and a plain blocking socket at the other end."""
    async with listening() as (listener, port):
        with socket.create_connection((HERE, port)) as other:
            stream = await listener.accept()
            try:
                yield stream, other
            finally:
                await trio.aclose_forcefully(stream)
                await turns()


def reset(other: socket.socket) -> None:
    """Break the connection."""
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()


async def receive_exactly(stream: HostStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        assert data, f"EOF after {len(received)} of {count} bytes"
        received += data
    return bytes(received)


async def clog(stream: HostStream) -> int:
    """Send until nothing more is taken; return how much that was."""
    size = before = calm = 0
    while calm < 10:  # the system may take some more in the meantime
        while sent := stream.send_nowait(b"x" * 65536):
            size += sent
        calm = calm + 1 if before and stream.unsent == before else 0
        before = stream.unsent
        await trio.sleep(0.02)
    return size


# -- what trio asks of streams ------------------------------------------------------------------------------


def test_semantics(host: Host) -> None:
    """They are two-way streams by trio's own checks, with and without a peer that reads."""

    async def body() -> None:
        async with listening() as (listener, port):

            async def make() -> tuple[HostStream, HostStream]:
                return await open_host_stream(Guest.current(), HERE, port), await listener.accept()

            async def make_clogged() -> tuple[HostStream, HostStream]:
                ours, theirs = await make()
                await clog(ours)
                await clog(theirs)
                return ours, theirs

            await check_two_way_stream(make, make_clogged)
            await turns()

    in_guest(host, body)


def test_much_in_both_directions(host: Host) -> None:
    """Megabytes pass both ways at once, in order."""
    data = bytes(range(256)) * 40_000

    async def body() -> None:
        async with pair() as (ours, theirs), trio.open_nursery() as nursery:
            for stream in (ours, theirs):
                nursery.start_soon(stream.send_all, data)

                async def receive(stream: HostStream = stream) -> None:
                    assert await receive_exactly(stream, len(data)) == data

                nursery.start_soon(receive)

    in_guest(host, body)


def test_arguments_of_receiving(host: Host) -> None:
    """At most max_bytes come, and the rest later; without it, all that is there."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            other.sendall(b"abcdefgh")
            assert await receive_exactly(stream, 3) == b"abc"
            assert await stream.receive_some(2) == b"de"
            assert await stream.receive_some() == b"fgh"
            for wrong in (0, -1):
                with pytest.raises(ValueError, match="at least 1"):
                    await stream.receive_some(wrong)

    in_guest(host, body)


# -- back-pressure ------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read(host: Host) -> None:
    """Sending waits until it does; what was given to the stream is counted as unsent meanwhile."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, MUCH)
                await wait_all_tasks_blocked(0.05)
                assert len(nursery.child_tasks) == 1
                assert 0 < stream.unsent < len(MUCH)
                assert stream.send_nowait(b"y") == 0

                def read_all() -> None:
                    left = len(MUCH)
                    while left:
                        left -= len(other.recv(min(left, 10**6)))

                await call_asyncio(asyncio.to_thread, read_all)
            assert stream.unsent == 0
            assert stream.send_nowait(b"y") == 1
            assert other.recv(10) == b"y"

    in_guest(host, body)


def test_nobody_who_receives(host: Host) -> None:
    """What arrives for nobody is bounded: the peer cannot send on. Receiving lets it go on."""

    async def body() -> None:
        async with pair() as (ours, theirs):
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(1000):
                    await ours.send_all(b"x" * 65536)
                    sent += 65536

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await wait_all_tasks_blocked(0.1)
                stuck = sent
                assert stuck < 1000 * 65536
                assert theirs._unread_bytes <= 2 * 256 * 1024
                await wait_all_tasks_blocked(0.1)
                assert sent == stuck
                await receive_exactly(theirs, 1000 * 65536)
            assert sent == 1000 * 65536

    in_guest(host, body)


def test_the_direct_side(host: Host) -> None:
    """Streams have a non-blocking side of their own: all or nothing is taken at once."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            assert isinstance(stream, DirectSide)
            assert direct_side(stream) is stream
            assert stream.send_nowait(b"ab") == 2
            assert stream.send_nowait(memoryview(b"cd")) == 2
            await stream.wait_writable()
            assert other.recv(10) == b"abcd"
            size = await clog(stream)
            assert stream.unsent > 0
            with trio.move_on_after(0.02) as scope:
                await stream.wait_writable()
            assert scope.cancelled_caught

            def drain(left: int) -> None:
                while left:
                    left -= len(other.recv(left))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_asyncio, asyncio.to_thread, drain, size)
                await stream.wait_writable()
                assert stream.unsent == 0
            other.close()
            with pytest.raises(OSError, match=GONE):
                while True:
                    stream.send_nowait(b"x")
                    await stream.wait_writable()
            with pytest.raises(OSError, match=GONE):
                await stream.wait_writable()

    in_guest(host, body)


# -- one at a time ------------------------------------------------------------------------------------------


def test_two_who_receive(host: Host) -> None:
    """The second is told so; and of two who come for the same bytes, none takes their absence for the end."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            with pytest.RaisesGroup(trio.BusyResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
                    nursery.start_soon(stream.receive_some)
            other.sendall(b"a")
            await trio.sleep(0.02)
            received = []

            async def receive() -> None:
                received.append(await stream.receive_some())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(receive)
                await wait_all_tasks_blocked(0.02)
                assert received == [b"a"]
                other.sendall(b"b")
            assert received == [b"a", b"b"]

    in_guest(host, body)


def test_two_who_send(host: Host) -> None:
    """The second is told so, and what the first sends is sent."""

    async def body() -> None:
        async with pair() as (ours, theirs):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, MUCH)
                await wait_all_tasks_blocked(0.02)
                for call in (lambda: ours.send_all(b"y"), ours.wait_send_all_might_not_block):
                    with pytest.raises(trio.BusyResourceError):
                        await call()
                assert await receive_exactly(theirs, len(MUCH)) == MUCH
            await ours.send_all(b"y")
            assert await theirs.receive_some() == b"y"

    in_guest(host, body)


# -- cancellation -------------------------------------------------------------------------------------------


def test_cancelled_receiving(host: Host) -> None:
    """It loses nothing: what arrives later, or is there already, is received by the next call."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            with trio.move_on_after(0.01) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            other.sendall(b"later")
            await trio.sleep(0.02)
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.receive_some()
            assert scope.cancelled_caught
            assert await stream.receive_some() == b"later"

    in_guest(host, body)


def test_cancelled_when_the_bytes_arrive(host: Host) -> None:
    """If a task is cancelled in the same turn in which it gets bytes, either it gets them or the next one
    does.
    """

    async def body() -> None:
        for _ in range(20):
            async with half_pair() as (stream, other):
                received = []
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def receive() -> None:
                            received.append(await stream.receive_some())  # noqa: B023

                        nursery.start_soon(receive)
                        await wait_all_tasks_blocked()
                        other.sendall(b"x")
                        await trio.lowlevel.checkpoint()
                        scope.cancel()
                if not received:
                    received.append(await stream.receive_some())
                assert received == [b"x"]

    in_guest(host, body)


def test_cancelled_sending(host: Host) -> None:
    """It leaves all of it to be sent or nothing, and the stream can be used afterwards."""

    async def body() -> None:
        async with pair() as (ours, theirs):
            with trio.move_on_after(0.02) as scope:
                await ours.send_all(MUCH)
            assert scope.cancelled_caught
            with trio.move_on_after(0.02) as scope:
                await ours.send_all(b"never")  # the stream is still busy with the first
            assert scope.cancelled_caught
            assert await receive_exactly(theirs, len(MUCH)) == MUCH
            await ours.send_all(b"next")
            assert await theirs.receive_some() == b"next"

    in_guest(host, body)


# -- the end ------------------------------------------------------------------------------------------------


def test_end_of_the_other_side(host: Host) -> None:
    """First comes what was sent before it, then nothing, again and again; our side stays open."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            other.sendall(b"last")
            other.shutdown(socket.SHUT_WR)
            assert await receive_exactly(stream, 4) == b"last"
            for _ in range(3):
                assert await stream.receive_some() == b""
            await stream.send_all(b"answer")
            assert other.recv(10) == b"answer"
            await stream.aclose()
            assert other.recv(10) == b""

    in_guest(host, body)


def test_end_while_receiving(host: Host) -> None:
    """A task that waits is told of the end of the other side."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    assert await stream.receive_some() == b""

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                other.shutdown(socket.SHUT_WR)

    in_guest(host, body)


def test_a_broken_connection(host: Host) -> None:
    """Who waits is told at once, who comes later, too; the cause is the system's error."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            errors: list[BaseException | None] = []

            async def fail(call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(trio.BrokenResourceError, match="the connection broke: ") as caught:
                    await call()
                errors.append(caught.value.__cause__)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, stream.receive_some)
                nursery.start_soon(fail, lambda: stream.send_all(MUCH))
                await wait_all_tasks_blocked(0.02)
                reset(other)
            await fail(stream.receive_some)
            await fail(lambda: stream.send_all(b"x"))
            await fail(stream.wait_send_all_might_not_block)
            assert {type(error) for error in errors} <= {ConnectionResetError, BrokenPipeError}
            assert stream.unsent == 0
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

    in_guest(host, body)


def test_what_came_before_the_break(host: Host) -> None:
    """It can still be received."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            other.sendall(b"before")
            await trio.sleep(0.02)
            reset(other)
            await trio.sleep(0.02)
            assert await stream.receive_some(3) == b"bef"
            assert await stream.receive_some() == b"ore"
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

    in_guest(host, body)


def test_closing_while_receiving(host: Host) -> None:
    """The task that waits gets ClosedResourceError, and the other end the end."""

    async def body() -> None:
        async with half_pair() as (stream, other):
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await stream.receive_some()

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                await stream.aclose()
            assert other.recv(1) == b""
            for call in (stream.receive_some, lambda: stream.send_all(b"")):
                with pytest.raises(trio.ClosedResourceError):
                    await call()
            with pytest.raises(OSError, match="Broken pipe"):
                stream.send_nowait(b"x")

    in_guest(host, body)


def test_closing_sends_what_waits(host: Host) -> None:
    """aclose() waits until it has left; several may wait for the same."""

    async def body() -> None:
        async with pair() as (ours, theirs):
            assert ours.send_nowait(MUCH) == len(MUCH)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.aclose)
                nursery.start_soon(ours.aclose)
                await wait_all_tasks_blocked(0.02)
                assert len(nursery.child_tasks) == 2
                assert await receive_exactly(theirs, len(MUCH)) == MUCH
                assert await theirs.receive_some() == b""
            await ours.aclose()

    in_guest(host, body)


def test_closing_is_cancelled(host: Host) -> None:
    """Then what waits is dropped, and the connection is gone at once."""

    async def body() -> None:
        async with pair() as (ours, theirs):
            ours.send_nowait(MUCH)
            with trio.move_on_after(0.02) as scope:
                await ours.aclose()
            assert scope.cancelled_caught
            received = 0
            try:
                while data := await theirs.receive_some():
                    received += len(data)
            except trio.BrokenResourceError:
                pass  # loops differ in how they abort
            assert received < len(MUCH)

    in_guest(host, body)


def test_a_stream_that_was_never_connected(host: Host) -> None:
    """It can be closed."""

    async def body() -> None:
        stream = HostStream(Guest.current())
        assert stream.unsent == 0
        with pytest.raises(OSError, match="Broken pipe"):
            stream.send_nowait(b"x")
        await stream.aclose()
        await stream.aclose()
        assert peer_name(stream) == "gone"

    in_guest(host, body)


# -- names --------------------------------------------------------------------------------------------------


def test_names_of_peers(host: Host, tmp_path: Path) -> None:
    """They are as the rest of armillary has them, and still known when the connection is gone."""

    async def body() -> None:
        for address, start in ((HERE, "127.0.0.1:"), ("::1", "[::1]:")):
            async with listening(address) as (listener, port):
                ours = await open_host_stream(Guest.current(), address, port)
                theirs = await listener.accept()
                assert peer_name(ours) == f"{start}{port}"
                assert theirs.peer_name.startswith(start)
                await ours.aclose()
                await theirs.aclose()
                assert peer_name(ours) == f"{start}{port}"

        path = str(tmp_path / "socket")
        guest = Guest.current()
        listener = HostListener()

        async def listen() -> Any:
            return await guest.loop.create_unix_server(
                lambda: HostProtocol(HostStream(guest), listener.deliver), path
            )

        server = await call_asyncio(listen)
        other = socket.socket(socket.AF_UNIX)
        other.connect(path)
        stream = await listener.accept()
        assert peer_name(stream) == "unix"
        await stream.send_all(b"x")
        assert other.recv(10) == b"x"
        other.close()
        assert await stream.receive_some() == b""
        await stream.aclose()
        server.close()
        await turns()

    in_guest(host, body)


# -- data that goes elsewhere -------------------------------------------------------------------------------


def test_a_sink(host: Host) -> None:
    """It is offered what arrives while a task waits; what it refuses, that task gets; a nudge ends its
    wait.
    """

    async def body() -> None:
        async with half_pair() as (stream, other):
            offered = []

            def sink(data: bytes) -> bool:
                offered.append(data)
                return data != b"refused"

            other.sendall(b"unread")
            await trio.sleep(0.02)
            stream.sink = sink
            assert await stream.receive_some() == b"unread"
            assert offered == []
            received = []

            async def receive() -> None:
                for _ in range(3):
                    received.append(await stream.receive_some())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                other.sendall(b"taken")
                await wait_all_tasks_blocked(0.02)
                assert (offered, received) == ([b"taken"], [])
                other.sendall(b"refused")
                await wait_all_tasks_blocked(0.02)
                assert received == [b"refused"]
                stream.nudge()
                await wait_all_tasks_blocked(0.02)
                assert received == [b"refused", b""]
                other.close()
            assert received == [b"refused", b"", b""]
            stream.nudge()  # nobody waits

    in_guest(host, body)


# -- listeners ----------------------------------------------------------------------------------------------


def test_accepting(host: Host) -> None:
    """Connections are accepted in their order, by whoever asks first; a cancelled one takes none along."""

    async def body() -> None:
        async with listening() as (listener, port):
            accepted = []

            async def accept(number: int) -> None:
                stream = await listener.accept()
                accepted.append((number, stream))
                await stream.send_all(b"%d" % number)
                await stream.aclose()

            with trio.move_on_after(0.01):
                await listener.accept()
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(accept, number)
                await wait_all_tasks_blocked()
                greetings = set()
                for _ in range(3):
                    stream = await open_host_stream(Guest.current(), HERE, port)
                    greetings.add(await stream.receive_some())
                    await stream.aclose()
            assert greetings == {b"0", b"1", b"2"}
            assert listener.refused == 0

    in_guest(host, body)


def test_serving(host: Host) -> None:
    """Trio's accept loop works with it, and ends when it is closed."""

    async def body() -> None:
        async with listening() as (listener, port):

            async def echo(stream: HostStream) -> None:
                await stream.send_all(await stream.receive_some())

            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_listeners, echo, [listener])
                for number in range(5):
                    stream = await open_host_stream(Guest.current(), HERE, port)
                    await stream.send_all(b"%d" % number)
                    assert await stream.receive_some() == b"%d" % number
                    await stream.aclose()
                nursery.cancel_scope.cancel()
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

    in_guest(host, body)


def test_closing_a_listener(host: Host) -> None:
    """Those who accept are told, connections that nobody accepted are ended, and so are those that come
    later.
    """

    async def body() -> None:
        async with listening() as (listener, port):
            async with trio.open_nursery() as nursery:

                async def accept() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await listener.accept()

                nursery.start_soon(accept)
                nursery.start_soon(accept)
                await wait_all_tasks_blocked()
                await listener.aclose()
        async with listening() as (listener, port):
            waiting = await open_host_stream(Guest.current(), HERE, port)
            await trio.sleep(0.02)
            await listener.aclose()
            late = await open_host_stream(Guest.current(), HERE, port)
            for stream in (waiting, late):
                try:
                    assert await stream.receive_some() == b""
                except trio.BrokenResourceError:
                    pass
                await stream.aclose()
            assert listener.refused == 1
            await listener.aclose()
            await turns()

    in_guest(host, body)


def test_a_flood_of_connections(host: Host) -> None:
    """A thousand may wait to be accepted; more are ended at once, and counted."""

    async def body() -> None:
        listener = HostListener()
        streams = []
        for _ in range(1003):
            stream = HostStream(Guest.current())
            stream._transport = mock.Mock()
            streams.append(stream)
            listener.deliver(stream)
        assert listener.refused == 3
        aborted = [stream._transport.abort.called for stream in streams]  # type: ignore[union-attr]
        assert aborted == [False] * 1000 + [True] * 3
        assert await listener.accept() is streams[0]
        listener.deliver(streams[1000])
        assert listener.refused == 3
        await listener.aclose()
        assert not streams[0]._transport.abort.called  # type: ignore[union-attr]
        assert all(stream._transport.abort.called for stream in streams[1:])  # type: ignore[union-attr]

    in_guest(host, body)


# -- connecting ---------------------------------------------------------------------------------------------


def test_nobody_listens(host: Host) -> None:
    """Connecting raises what the system says."""
    with socket.socket() as unused:
        unused.bind((HERE, 0))
        port = unused.getsockname()[1]

        async def body() -> None:
            with pytest.raises(ConnectionRefusedError):
                await open_host_stream(Guest.current(), HERE, port)

        in_guest(host, body)


@pytest.mark.parametrize("turns_before", range(8))
def test_cancelled_connecting(host: Host, turns_before: int) -> None:
    """Whenever it is cancelled, it leaves nothing open: see `run`, which counts sockets."""

    async def body() -> None:
        async with listening() as (listener, port):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def connect() -> None:
                        stream = await open_host_stream(Guest.current(), HERE, port)
                        await stream.aclose()

                    nursery.start_soon(connect)
                    for _ in range(turns_before):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await trio.sleep(0.02)
            await listener.aclose()
            await turns()

    in_guest(host, body)


def test_a_protocol_of_ones_own(host: Host) -> None:
    """Whoever connects may bring a protocol that has more to do, and feeds the stream."""

    class Counting(HostProtocol):
        count = 0

        def buffer_updated(self, nbytes: int) -> None:
            Counting.count += nbytes
            super().buffer_updated(nbytes)

    async def body() -> None:
        async with listening() as (listener, port):
            stream = await open_host_stream(Guest.current(), HERE, port, protocol=Counting)
            theirs = await listener.accept()
            await theirs.send_all(b"12345")
            assert await stream.receive_some() == b"12345"
            assert Counting.count == 5
            await stream.aclose()
            await theirs.aclose()

    in_guest(host, body)
