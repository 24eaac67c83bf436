from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary._runtime.dial import peer_name
from armillary.errors import ConnectFailed
from armillary.testing import MemoryListener, bounded_stream_pair
from armillary.testing.streams import BUFFER, BoundedStream


async def clogged_pair() -> tuple[BoundedStream, BoundedStream]:
    left, right = bounded_stream_pair(100)
    await left.send_all(bytes(100))
    await right.send_all(bytes(100))
    return left, right


async def new_pair() -> tuple[BoundedStream, BoundedStream]:
    return bounded_stream_pair()


async def test_a_bounded_stream_does_all_that_trio_asks_of_a_stream() -> None:
    """Trio's own checks of streams that can be half closed and can be full."""
    await trio.testing.check_half_closeable_stream(new_pair, clogged_pair)


async def test_a_sender_waits_while_the_other_end_does_not_read() -> None:
    """So much goes out as the bound allows; what is read makes as much room."""
    left, right = bounded_stream_pair(100)
    message = os.urandom(250)
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, message)
        await trio.testing.wait_all_tasks_blocked()
        assert message[:100] == await right.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert message[100:130] == await right.receive_some(30)
        await trio.testing.wait_all_tasks_blocked()
        assert message[130:230] == await right.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert message[230:] == await right.receive_some()


async def test_the_two_directions_have_room_of_their_own() -> None:
    """A full direction does not hold up the other."""
    left, right = bounded_stream_pair(100)
    async with left, right:
        await left.send_all(bytes(100))
        await right.send_all(b"x" * 100)
        assert b"x" * 100 == await left.receive_some()


async def test_without_a_bound_there_is_room_as_in_a_socket() -> None:
    """The default holds some tens of kilobytes and no more."""
    left, right = bounded_stream_pair()
    async with left, right:
        await left.send_all(bytes(BUFFER))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send_all, b"x")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught


async def test_closing_either_end_frees_a_sender_that_waits() -> None:
    """A sender that waits for room learns that the stream is closed, here or there."""
    for closed, error in ((0, trio.ClosedResourceError), (1, trio.BrokenResourceError)):
        ends = bounded_stream_pair(10)
        async with ends[0], ends[1], trio.open_nursery() as nursery:

            async def send(end: trio.abc.Stream = ends[0], error: type[Exception] = error) -> None:
                with pytest.raises(error):
                    await end.send_all(bytes(100))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await ends[closed].aclose()


async def test_a_send_cancelled_anywhere_takes_no_room_with_it(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """What was not sent leaves the room that it would have taken, so that the next sender is not held up."""
    left, right = bounded_stream_pair(10)
    received = bytearray()

    async def scenario() -> None:
        await left.send_all(bytes(10))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, bytes(10))
            received.extend(await right.receive_some())

    async def after() -> None:
        with trio.move_on_after(0.01):
            while True:
                await right.receive_some()
        with trio.fail_after(1):
            await left.send_all(b"0123456789")
        assert b"0123456789" == await right.receive_some()

    async with left, right:
        assert await cancel_everywhere(scenario, after=after) >= 4


async def test_both_ends_are_told_the_name_of_the_other() -> None:
    """Names are given per pair; those of a listener's clients are numbered."""
    left, right = bounded_stream_pair(names=("a", "b"))
    assert ("b", "a") == (peer_name(left), peer_name(right))
    listener = MemoryListener()
    clients = [await listener.connect(), await listener.connect()]
    servers = [await listener.accept(), await listener.accept()]
    assert ["memory-server"] * 2 == [peer_name(client) for client in clients]
    assert ["memory-1", "memory-2"] == [peer_name(server) for server in servers]


async def test_a_memory_listener_connects_its_clients() -> None:
    """Clients are accepted in the order in which they came, with the room that the listener was made with."""
    listener = MemoryListener(10)
    async with listener:
        client = await listener.connect()
        server = await listener.accept()
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"0123456789abc")
            await trio.testing.wait_all_tasks_blocked()
            assert b"0123456789" == await server.receive_some()


async def test_a_closed_memory_listener_refuses_and_lets_nobody_wait() -> None:
    """Connecting fails, accepting ends, and clients that nobody accepted are disconnected."""
    listener = MemoryListener()
    unaccepted = await listener.connect()
    async with trio.open_nursery() as nursery:
        await listener.accept()

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    other = MemoryListener()
    unaccepted = await other.connect()
    await other.aclose()
    await other.aclose()
    assert b"" == await unaccepted.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await unaccepted.send_all(b"x")
    with pytest.raises(ConnectFailed, match="the listener is closed"):
        await other.connect()
    with pytest.raises(trio.ClosedResourceError):
        await other.accept()
