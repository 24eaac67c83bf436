from __future__ import annotations

import concurrent.futures
import functools
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary._runtime import outbox as outbox_module
from armillary._runtime.outbox import Outbox, OutboxStatistics
from armillary.testing import bounded_stream_pair

# The largest piece that an outbox hands to a stream.
CHUNK = 256 * 1024


class Recorder(trio.abc.SendStream):
    """Takes everything and remembers in which pieces it came."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.error: Exception | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.pieces.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Stubborn(Recorder):
    """Takes ten seconds for every piece and cannot be cancelled in the middle."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        self.pieces.append(bytes(data))


class NeverFull:
    """The non-blocking side of a socket that takes ten bytes whenever it is asked."""

    unsent = 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        return min(10, len(data))

    async def wait_writable(self) -> None:
        raise AssertionError("never full")


def socket_pair(buffer: int | None = None) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a real connection, with buffers as small as the system allows if `buffer` is small."""
    left, right = socket.socketpair()
    if buffer is not None:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    # A SocketStream wants a socket of any kind that streams.
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(left)),
        trio.SocketStream(trio.socket.from_stdlib_socket(right)),
    )


async def tcp_pair(buffer: int) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a real connection over the loopback interface, the first with a small send buffer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.socket()
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        left.connect(server.getsockname())
        right, _ = server.accept()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(left)),
        trio.SocketStream(trio.socket.from_stdlib_socket(right)),
    )


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(min(65536, count - len(received)))
        assert data, f"the end after {len(received)} of {count} bytes"
        received += data
    return bytes(received)


async def receive_everything(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


@asynccontextmanager
async def both_ends(
    left: trio.abc.AsyncResource, right: trio.abc.AsyncResource
) -> AsyncIterator[trio.Nursery]:
    """A nursery for an outbox, and streams that are closed in the end."""
    async with left, right, trio.open_nursery() as nursery:
        yield nursery


def in_memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return bounded_stream_pair(1000)


def on_a_socket() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return socket_pair(4096)


on_every_stream = pytest.mark.parametrize("pair", [in_memory, on_a_socket])
Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


# -- order and company ---------------------------------------------------------------------------------------


@on_every_stream
async def test_bytes_leave_in_the_order_in_which_they_were_accepted(pair: Pair) -> None:
    """What was sent first arrives first, whether flushed, corked or left to the writer."""
    left, right = pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.send(b"1")
        outbox.send(b"2")
        outbox.flush()
        outbox.cork()
        outbox.send(b"3")
        await trio.testing.wait_all_tasks_blocked()
        outbox.send(b"4")
        outbox.flush()
        outbox.send(b"5")
        assert b"12345" == await receive_exactly(right, 5)


async def test_what_is_corked_leaves_together() -> None:
    """Between cork and flush nothing is sent, and then everything in one piece."""
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(trio.StapledStream(recorder, trio.testing.MemoryReceiveStream()), nursery)
        outbox.cork()
        for piece in (b"one ", b"two ", b"three"):
            outbox.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        assert [] == recorder.pieces
        outbox.flush()
        await trio.testing.wait_all_tasks_blocked()
    assert [b"one two three"] == recorder.pieces


async def test_flush_sends_on_a_socket_without_waiting() -> None:
    """A flush on a socket that has room needs no task and no checkpoint."""
    left, right = socket_pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.cork()
        outbox.send(b"at once")
        outbox.flush()
        assert 0 == outbox.backlog
        assert set() == nursery.child_tasks
        assert b"at once" == await receive_exactly(right, 7)


@on_every_stream
async def test_an_idle_outbox_has_no_task(pair: Pair) -> None:
    """The writer lives while something waits to be sent, and no longer; it comes back when needed."""
    left, right = pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        for _ in range(2):
            outbox.send(bytes(200_000))
            await trio.testing.wait_all_tasks_blocked()
            assert 1 == len(nursery.child_tasks)
            assert bytes(200_000) == await receive_exactly(right, 200_000)
            await trio.testing.wait_all_tasks_blocked()
            assert set() == nursery.child_tasks


async def test_an_empty_message_changes_nothing() -> None:
    """Sending no bytes sends no bytes, and ends."""
    left, right = socket_pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.send(b"")
        outbox.send(b"x")
        outbox.send(b"")
        await outbox.drain()
        assert b"x" == await right.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert set() == nursery.child_tasks


# -- long messages -------------------------------------------------------------------------------------------


async def test_a_long_message_is_cut_into_chunks() -> None:
    """Ten megabytes are handed over in pieces of a good size; short messages around them are joined."""
    message = os.urandom(10_000_000)
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(trio.StapledStream(recorder, trio.testing.MemoryReceiveStream()), nursery)
        outbox.send(b"before ")
        outbox.send(b"it ")
        outbox.send(message)
        outbox.send(b"after ")
        outbox.send(b"it")
        await outbox.drain()
    assert b"before it " + message + b"after it" == b"".join(recorder.pieces)
    assert CHUNK == max(len(piece) for piece in recorder.pieces)
    assert math.ceil(10_000_000 / CHUNK) + 1 >= len(recorder.pieces)


@pytest.mark.parametrize("pair", [bounded_stream_pair, socket_pair])
async def test_a_long_message_arrives_whole(pair: Pair) -> None:
    """Ten megabytes through a pipe that holds a few kilobytes come out as they went in."""
    message = os.urandom(10_000_000)
    left, right = pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.send(message)
        assert message == await receive_exactly(right, len(message))
        await outbox.drain()
        assert 0 == outbox.backlog


# What one turn of an owner does: send messages of these sizes, corked or not, and then perhaps wait.
turns = st.lists(
    st.tuples(
        st.lists(st.one_of(st.integers(0, 100), st.integers(0, 10_000)), max_size=4),
        st.booleans(),
        st.sampled_from(["go on", "flush", "checkpoint", "drain", "drain a little"]),
    ),
    max_size=12,
)


async def send_and_compare(
    left: trio.abc.Stream, right: trio.abc.Stream, plan: list[tuple[list[int], bool, str]], reads: list[int]
) -> None:
    """Carry a plan out while a reader takes bytes in pieces of some sizes, and compare the two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "_CHUNK", 1000)  # so that messages of a few kilobytes are long ones
        await _send_and_compare(left, right, plan, reads)


async def _send_and_compare(
    left: trio.abc.Stream, right: trio.abc.Stream, plan: list[tuple[list[int], bool, str]], reads: list[int]
) -> None:
    sent = bytearray()
    received = bytearray()

    async def read() -> None:
        turn = 0
        while data := await right.receive_some(reads[turn % len(reads)]):
            received.extend(data)
            turn += 1

    async with right, trio.open_nursery() as readers:
        readers.start_soon(read)
        async with left, trio.open_nursery() as nursery:
            outbox = Outbox(left, nursery)
            number = 0
            for sizes, corked, then in plan:
                if corked:
                    outbox.cork()
                for size in sizes:
                    number += 1
                    message = (b"%d," % number * size)[:size]
                    sent += message
                    outbox.send(message)
                if then == "flush":
                    outbox.flush()
                elif then == "checkpoint":
                    await trio.lowlevel.checkpoint()
                elif then == "drain":
                    await outbox.drain()
                    assert 0 == outbox.backlog
                elif then == "drain a little":
                    await outbox.drain(1000)
                    assert outbox.backlog <= 1000
                assert len(sent) == outbox.bytes_sent + outbox.backlog
                assert len(sent) == outbox.accepted
            await outbox.finish(math.inf)
            assert OutboxStatistics(
                backlog=0,
                highest_backlog=outbox.statistics().highest_backlog,
                bytes_sent=len(sent),
                bytes_dropped=0,
                bound=math.inf,
            ) == outbox.statistics()  # fmt: skip
    assert sent == received


# In pieces of which sizes a reader takes what comes.
reading = st.lists(st.integers(100, 5000), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(turns, reading)
async def test_no_byte_is_lost_or_doubled_on_a_socket(
    plan: list[tuple[list[int], bool, str]], reads: list[int]
) -> None:
    """Whatever part of a message a nearly full socket takes, the reader gets each byte once and in order."""
    left, right = await tcp_pair(2048)
    await send_and_compare(left, right, plan, reads)


@settings(max_examples=80, deadline=None)
@given(turns, reading, st.integers(300, 4000))
async def test_no_byte_is_lost_or_doubled_in_memory(
    plan: list[tuple[list[int], bool, str]], reads: list[int], room: int
) -> None:
    """However little room there is, the reader gets each byte once and in order."""
    left, right = bounded_stream_pair(room)
    await send_and_compare(left, right, plan, reads)


# -- back-pressure -------------------------------------------------------------------------------------------


@on_every_stream
async def test_drain_waits_until_little_enough_is_left(pair: Pair) -> None:
    """A sender that drains down to a mark goes on when so much has been read, not before and not later."""
    left, right = pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.send(bytes(1_000_000))
        await trio.testing.wait_all_tasks_blocked()
        stuck = outbox.backlog
        assert stuck > 900_000 - CHUNK
        backlogs: list[int] = []

        async def drain(mark: int) -> None:
            await outbox.drain(mark)
            backlogs.append(outbox.backlog)

        for mark in (0, 300_000, stuck):
            nursery.start_soon(drain, mark)
        await trio.testing.wait_all_tasks_blocked()
        assert [stuck] == backlogs
        await receive_exactly(right, 1_000_000 - 300_000 + CHUNK)
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == len(backlogs)
        assert 0 < backlogs[1] <= 300_000
        await receive_exactly(right, 300_000 - CHUNK)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 == backlogs[2]


async def test_drain_of_nothing_is_a_checkpoint() -> None:
    """A loop of drains lets others run even if nothing waits."""
    left, right = in_memory()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        with trio.testing.assert_checkpoints():
            await outbox.drain()


async def test_drain_sends_what_was_corked() -> None:
    """A drain after a cork does not wait for a flush that nobody will make."""
    left, right = in_memory()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.cork()
        outbox.send(b"corked")
        await outbox.drain()
        assert b"corked" == await receive_exactly(right, 6)


async def test_the_bound_is_the_owners_to_look_at() -> None:
    """Above the bound the outbox says so, goes on accepting, and says so no more when it has been read."""
    left, right = in_memory()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery, bound=5000)
        outbox.send(bytes(5000))
        assert not outbox.is_over_bound
        outbox.send(b"x")
        assert outbox.is_over_bound
        assert bytes(5000) + b"x" == await receive_exactly(right, 5001)
        await outbox.drain()
        assert not outbox.is_over_bound
        assert OutboxStatistics(0, 5001, 5001, 0, 5000) == outbox.statistics()


# -- broken streams ------------------------------------------------------------------------------------------


@on_every_stream
async def test_a_broken_stream_drops_and_counts_and_is_told_once(pair: Pair) -> None:
    """When the peer is gone nothing raises: what waits and what comes is dropped and counted."""
    left, right = pair()
    errors: list[BaseException] = []
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery, on_broken=errors.append)
        outbox.send(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        sent = outbox.bytes_sent
        await right.aclose()
        await outbox.drain()
        outbox.send(b"into the void")
        outbox.flush()
        await outbox.drain()
        await outbox.finish(math.inf)
        assert [outbox.broken] == errors
        assert isinstance(outbox.broken, trio.BrokenResourceError | OSError)
        assert OutboxStatistics(0, 100_000, sent, 100_013 - sent, math.inf) == outbox.statistics()
        assert 100_013 == outbox.accepted
        await trio.testing.wait_all_tasks_blocked()
        assert set() == nursery.child_tasks


async def test_any_exception_of_a_stream_breaks_the_outbox_only() -> None:
    """A stream that fails in its own way reaches `on_broken`, not the nursery."""
    recorder = Recorder()
    recorder.error = ValueError("a stream of another library")
    errors: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        stream = trio.StapledStream(recorder, trio.testing.MemoryReceiveStream())
        outbox = Outbox(stream, nursery, on_broken=errors.append)
        outbox.send(b"x")
        await outbox.drain()
    assert [recorder.error] == errors


async def test_closing_the_stream_here_breaks_the_outbox() -> None:
    """A socket that is closed under a waiting writer ends the writer, and a later flush finds it broken."""
    left, right = socket_pair(4096)
    async with both_ends(left, right) as nursery:
        waiting, later = Outbox(left, nursery), Outbox(left, nursery)
        waiting.send(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        await left.aclose()
        await waiting.drain()
        later.cork()
        later.send(b"x")
        later.flush()
        assert isinstance(waiting.broken, trio.ClosedResourceError)
        assert isinstance(later.broken, OSError)


@on_every_stream
async def test_abort_stops_in_the_middle_of_a_send(pair: Pair) -> None:
    """An abort drops what waits, ends the writer at once, wakes those who drain, and is no breakage."""
    left, right = pair()
    errors: list[BaseException] = []
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery, on_broken=errors.append)
        outbox.send(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        sent = outbox.bytes_sent
        nursery.start_soon(outbox.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == len(nursery.child_tasks)
        outbox.abort()
        outbox.send(b"too late")
        await trio.testing.wait_all_tasks_blocked()
        assert set() == nursery.child_tasks
        assert isinstance(outbox.broken, trio.ClosedResourceError)
        assert [] == errors
        assert OutboxStatistics(0, 100_000, sent, 100_008 - sent, math.inf) == outbox.statistics()
        await outbox.finish(math.inf)


# -- the end -------------------------------------------------------------------------------------------------


@on_every_stream
@pytest.mark.parametrize("corked", [False, True])
async def test_finish_sends_the_rest_though_its_caller_is_cancelled(pair: Pair, corked: bool) -> None:
    """A cancelled session still gets its last lines out, with a writer under way or without."""
    left, right = pair()
    message = os.urandom(100_000)
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        if corked:
            outbox.cork()
        outbox.send(message)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(functools.partial(in_cancelled_scope, outbox.finish, trio.current_time() + 60))
        assert message == await receive_exactly(right, len(message))
        await trio.testing.wait_all_tasks_blocked()
        assert (len(message), 0) == (outbox.bytes_sent, outbox.statistics().bytes_dropped)


async def in_cancelled_scope(function: Callable[[float], Awaitable[None]], argument: float) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await function(argument)


@pytest.mark.parametrize("corked", [False, True])
async def test_finish_gives_up_at_its_deadline(autojump_clock: trio.testing.MockClock, corked: bool) -> None:
    """A peer that does not read holds the end up until the deadline, and then the rest is dropped."""
    left, right = bounded_stream_pair(1000)
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        if corked:
            outbox.cork()
        outbox.send(bytes(3000))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await outbox.finish(before + 5)
        assert 5 == trio.current_time() - before
        assert OutboxStatistics(0, 3000, 0, 3000, math.inf) == outbox.statistics()
        await trio.testing.wait_all_tasks_blocked()
        assert set() == nursery.child_tasks


async def test_a_peer_that_reads_as_fast_as_we_send_does_not_stretch_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A socket that always takes a little more does not keep a finish going past its deadline."""
    monkeypatch.setattr(outbox_module, "direct_side", lambda stream: NeverFull())
    left, right = in_memory()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.cork()
        outbox.send(bytes(1000))
        await outbox.finish(trio.current_time())
        assert OutboxStatistics(0, 1000, 10, 990, math.inf) == outbox.statistics()


@on_every_stream
async def test_a_line_that_was_cut_is_the_last_one(pair: Pair) -> None:
    """After a finish that ran out of time nothing follows the bytes that were cut off, whoever sends more."""
    left, right = pair()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.send(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        await outbox.finish(trio.current_time())
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await receive_everything(right))

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        outbox.send(b"late")
        await outbox.finish(math.inf)
        await left.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert b"" == received[0].strip(b"\0")


async def test_a_send_that_outlives_the_deadline_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """A stream that cannot be cancelled in mid-send ends its send when it can, and the writer with it."""
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        stream = trio.StapledStream(stubborn, trio.testing.MemoryReceiveStream())
        outbox = Outbox(stream, nursery)
        outbox.send(bytes(CHUNK))
        outbox.send(b"never sent")
        await trio.testing.wait_all_tasks_blocked()
        await outbox.finish(trio.current_time() + 5)
        assert OutboxStatistics(0, CHUNK + 10, 0, CHUNK + 10, math.inf) == outbox.statistics()
    assert 10 == trio.current_time()
    assert [CHUNK] == [len(piece) for piece in stubborn.pieces]


async def test_the_writer_outlives_the_cancellation_of_its_nursery() -> None:
    """Ending a session does not cut a line in two: the writer goes on until the owner finishes or aborts."""
    left, right = in_memory()
    message = os.urandom(50_000)
    async with left, right, trio.open_nursery() as outer:
        finished = trio.Event()

        async def owner() -> None:
            async with trio.open_nursery() as nursery:
                outbox = Outbox(left, nursery)
                outbox.send(message)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
                await outbox.finish(math.inf)
            finished.set()

        outer.start_soon(owner)
        assert message == await receive_exactly(right, len(message))
        await finished.wait()


# -- cancellation everywhere ---------------------------------------------------------------------------------


@on_every_stream
async def test_a_drain_cancelled_anywhere_leaves_nothing(
    pair: Pair, cancel_everywhere: Callable[..., Awaitable[int]]
) -> None:
    """Cancelling a drain at any checkpoint leaves no waiter behind, and every byte still arrives once."""
    left, right = pair()
    message = os.urandom(20_000)
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)

        async def scenario() -> None:
            outbox.send(message)
            async with trio.open_nursery() as readers:
                readers.start_soon(trio.lowlevel.checkpoint)
                await outbox.drain(10_000)
                await outbox.drain()

        async def after() -> None:
            assert message == received.pop()
            assert [] == outbox._waiters
            assert 0 == outbox.backlog

        received: list[bytes] = []

        async def receive() -> None:
            while True:
                received.append(await receive_exactly(right, len(message)))

        nursery.start_soon(receive)
        assert await cancel_everywhere(scenario, after=after) >= 4
        assert 0 == outbox.statistics().bytes_dropped
        nursery.cancel_scope.cancel()


async def test_a_finish_cancelled_anywhere_sends_everything(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """Wherever a session is cancelled while it ends, what it accepted arrives, and no task is left."""
    accepted = bytearray()
    received = bytearray()

    async def scenario() -> None:
        nonlocal accepted, received
        accepted, received = bytearray(), bytearray()
        left, right = bounded_stream_pair(1000)

        async def receive() -> None:
            with trio.CancelScope(shield=True):
                async for data in right:
                    received.extend(data)

        async with right, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async with left, trio.open_nursery() as writers:
                outbox = Outbox(left, writers)
                try:
                    for piece in (bytes(500), os.urandom(3000)):
                        outbox.send(piece)
                        accepted += piece
                        await trio.lowlevel.checkpoint()
                finally:
                    outbox.send(b"bye")
                    accepted += b"bye"
                    await outbox.finish(math.inf)

    async def after() -> None:
        assert accepted == received

    assert await cancel_everywhere(scenario, after=after) >= 10


# -- from another thread -------------------------------------------------------------------------------------


async def test_another_thread_sends_while_the_run_stands_still() -> None:
    """What a socket takes at once is sent there, and the rest is left to the run."""
    left, right = socket_pair(4096)
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)

        def send(data: bytes) -> bool:
            outbox.cork()
            outbox.send(data)
            return outbox.flush_elsewhere()

        assert in_a_thread(lambda: send(b"small"))
        assert outbox.backlog == 0
        assert await receive_exactly(right, 5) == b"small"
        assert not in_a_thread(lambda: send(bytes(1_000_000)))
        assert not in_a_thread(lambda: send(b"behind"))
        outbox.flush()
        assert await receive_exactly(right, 1_000_006) == bytes(1_000_000) + b"behind"
        await outbox.finish(trio.current_time() + 1)


async def test_another_thread_leaves_it_to_the_run_to_find_out_that_the_stream_is_broken() -> None:
    """The error is told in the run, once, when that tries to send."""
    left, right = socket_pair()
    errors: list[BaseException] = []
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery, on_broken=errors.append)
        await right.aclose()
        outbox.cork()
        outbox.send(b"in vain")
        assert not in_a_thread(outbox.flush_elsewhere)
        assert errors == []
        outbox.flush()
        assert len(errors) == 1
        assert outbox.statistics().bytes_dropped == len(b"in vain")
        await outbox.finish(trio.current_time())


async def test_another_thread_leaves_streams_without_a_non_blocking_side_to_the_run() -> None:
    """Only trio can send on these."""
    left, right = in_memory()
    async with both_ends(left, right) as nursery:
        outbox = Outbox(left, nursery)
        outbox.cork()
        outbox.send(b"hello")
        assert not in_a_thread(outbox.flush_elsewhere)
        outbox.flush()
        assert await receive_exactly(right, 5) == b"hello"
        await outbox.finish(trio.current_time() + 1)


def in_a_thread(function: Callable[[], bool]) -> bool:
    """Call it in another thread, and wait for that without letting the run go on."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result(10)
