from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary._runtime.direct import DirectSocket, direct_side, receiver_of
from armillary.testing import bounded_stream_pair


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = socket.socketpair()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(left)),
        trio.SocketStream(trio.socket.from_stdlib_socket(right)),
    )


async def test_only_sockets_have_a_non_blocking_side() -> None:
    """A socket's stream has one; streams in memory, and whatever wraps a socket, have none."""
    left, right = socket_pair()
    memory = bounded_stream_pair()[0]
    async with left, right:
        assert isinstance(direct_side(left), DirectSocket)
        assert None is direct_side(memory)
        assert None is direct_side(trio.StapledStream(left, left))
        assert memory.receive_some == receiver_of(memory)


async def test_a_full_socket_takes_nothing_until_it_is_writable() -> None:
    """Sending says how much was taken, 0 when the socket is full, and waiting ends when it takes more."""
    left, right = socket_pair()
    direct = DirectSocket(left)
    async with left, right, trio.open_nursery() as nursery:
        while direct.send_nowait(bytes(10_000)) == 10_000:
            pass
        assert 0 == direct.send_nowait(b"x")
        nursery.start_soon(direct.wait_writable)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert 1 == len(nursery.child_tasks)
        while nursery.child_tasks:
            await right.receive_some()
        assert 0 < direct.send_nowait(b"x")


async def test_receiving_brings_what_was_sent_and_then_the_end() -> None:
    """The receiver of a socket reads as its stream does: bytes, and nothing when the peer has closed."""
    left, right = socket_pair()
    async with left:
        receive = receiver_of(left)
        async with right:
            await right.send_all(b"abc")
            assert [b"ab", b"c"] == [await receive(2), await receive(2)]
        assert b"" == await receive(2)


async def test_receiving_is_a_checkpoint() -> None:
    """A peer that sends without a pause does not keep its reader from letting others run."""
    left, right = socket_pair()
    async with left, right:
        await right.send_all(b"abc")
        with trio.testing.assert_checkpoints():
            await receiver_of(left)(10)


async def test_receiving_cancelled_anywhere_loses_nothing(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """A receive that is cancelled has not taken a byte."""
    left, right = socket_pair()
    receive = receiver_of(left)
    received = b""

    async def scenario() -> None:
        nonlocal received
        received += await receive(10)

    async with left, right:
        await right.send_all(b"abc")
        assert await cancel_everywhere(scenario) >= 1
    assert b"abc" == received


async def test_a_reset_is_a_broken_resource() -> None:
    """A connection reset by its peer fails as trio's own streams do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(accepted)) as stream:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(trio.BrokenResourceError):
            await receiver_of(stream)(10)


async def test_receiving_from_a_stream_that_was_closed_here_says_so() -> None:
    """Closing the stream ends a receive that waits, and later ones, as for trio's own streams."""
    left, right = socket_pair()
    receive = receiver_of(left)
    async with left, right, trio.open_nursery() as nursery:

        async def waiting() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive(10)

        nursery.start_soon(waiting)
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await receive(10)
