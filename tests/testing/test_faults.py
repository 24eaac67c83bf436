from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary.testing import FaultyStream, bounded_stream_pair


def faulty_pair(bound: int = 100) -> tuple[trio.abc.Stream, FaultyStream]:
    """An honest end, and one that can misbehave."""
    left, right = bounded_stream_pair(bound)
    return left, FaultyStream(right)


async def new_pair() -> tuple[FaultyStream, FaultyStream]:
    left, right = bounded_stream_pair()
    return FaultyStream(left), FaultyStream(right)


async def clogged_pair() -> tuple[FaultyStream, FaultyStream]:
    left, right = bounded_stream_pair(100)
    await left.send_all(bytes(100))
    await right.send_all(bytes(100))
    return FaultyStream(left), FaultyStream(right)


async def test_a_faulty_stream_without_a_fault_is_a_good_stream() -> None:
    """Trio's own checks of streams that can be full."""
    await trio.testing.check_two_way_stream(new_pair, clogged_pair)


async def test_delay_holds_up_each_receive_and_each_send(autojump_clock: trio.testing.MockClock) -> None:
    """A slow network takes its time in both directions, and may become a quick one."""
    left, faulty = faulty_pair()
    async with left, faulty:
        faulty.delay = 3
        await left.send_all(b"x")
        assert b"x" == await faulty.receive_some()
        assert 3 == trio.current_time()
        await faulty.send_all(b"y")
        await faulty.wait_send_all_might_not_block()
        assert 9 == trio.current_time()
        faulty.delay = 0
        await faulty.send_all(b"z")
        assert 9 == trio.current_time()


async def test_piece_cuts_what_is_received() -> None:
    """Nothing longer than a piece is received at once, nothing is lost, and who asks for less gets less."""
    left, faulty = faulty_pair()
    faulty.piece = 3
    async with left, faulty:
        await left.send_all(b"abcdefgh")
        received = [bytes(await faulty.receive_some(size)) for size in (100, 2, 1, 100)]
        assert [b"abc", b"de", b"f", b"gh"] == received


async def test_garbage_comes_before_anything_else_and_once() -> None:
    """Garbage is in front of what the peer sent, cut like it, and then over."""
    left, faulty = faulty_pair()
    async with left, faulty:
        await left.send_all(b"hello")
        faulty.garbage = b"\xff\x00"
        faulty.piece = 1
        received = b"".join([await faulty.receive_some() for _ in range(3)])
        assert b"\xff\x00h" == received
        faulty.piece = None
        assert b"ello" == await faulty.receive_some()
        await left.aclose()
        assert b"" == await faulty.receive_some()


async def test_cut_after_resets_after_so_many_bytes() -> None:
    """The bytes before the cut arrive, then both ends have lost the connection, without a further byte."""
    left, faulty = faulty_pair()
    faulty.cut_after = 7
    async with left, faulty:
        await left.send_all(b"hello\nworld\n")
        assert b"hello\nw" == await faulty.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="the connection was cut"):
            await faulty.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="the connection was cut"):
            await faulty.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await left.send_all(b"x")


async def test_cut_after_the_last_byte_needs_no_further_one() -> None:
    """A cut at the end of a line resets at once, and does not wait for the next line to begin."""
    left, faulty = faulty_pair()
    faulty.cut_after = 6
    async with left, faulty:
        await left.send_all(b"hello\n")
        assert b"hello\n" == await faulty.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await faulty.receive_some()


@pytest.mark.parametrize("kind", ["receive", "send", "stalled receive", "stalled send"])
async def test_a_cut_reaches_who_waits(kind: str) -> None:
    """A task that waits to receive or to send, stalled or not, finds the connection reset."""
    left, faulty = faulty_pair()
    async with left, faulty, trio.open_nursery() as nursery:
        faulty.reads_nothing = faulty.sends_nothing = kind.startswith("stalled")

        async def wait() -> None:
            with pytest.raises(trio.BrokenResourceError, match="the connection was cut"):
                await (faulty.receive_some() if "receive" in kind else faulty.send_all(bytes(1000)))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await faulty.cut()


async def test_what_was_cut_is_lost_though_it_had_arrived() -> None:
    """A reset throws away what had been received and not read."""
    left, faulty = faulty_pair()
    faulty.piece = 1
    async with left, faulty:
        await left.send_all(b"abc")
        assert b"a" == await faulty.receive_some()
        await faulty.cut()
        with pytest.raises(trio.BrokenResourceError):
            await faulty.receive_some()


async def test_a_closed_stream_is_no_cut_one() -> None:
    """Closing a stalled stream here frees who waits, and says that it was closed here."""
    left, faulty = faulty_pair()
    faulty.reads_nothing = True
    async with left, faulty, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await faulty.receive_some()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await faulty.aclose()


async def test_a_stream_that_reads_nothing_holds_its_sender_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A program that has forgotten its socket receives nothing, and still can send."""
    left, faulty = faulty_pair()
    faulty.reads_nothing = True
    async with left, faulty:
        with trio.move_on_after(100) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(faulty.receive_some)
                await faulty.send_all(b"still here")
                assert b"still here" == await left.receive_some()
                await left.send_all(bytes(1000))
        assert scope.cancelled_caught


async def test_a_stream_that_sends_nothing_still_receives(autojump_clock: trio.testing.MockClock) -> None:
    """Towards a peer that never reads nothing leaves, and what it says arrives."""
    left, faulty = faulty_pair()
    faulty.sends_nothing = True
    async with left, faulty:
        await left.send_all(b"hello")
        assert b"hello" == await faulty.receive_some()
        with trio.move_on_after(100) as scope:
            await faulty.send_all(b"x")
        assert scope.cancelled_caught


async def test_every_use_is_a_checkpoint_though_bytes_are_left() -> None:
    """Reading byte by byte what has arrived lets others run between."""
    left, faulty = faulty_pair()
    faulty.piece = 1
    async with left, faulty:
        await left.send_all(b"abc")
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                await faulty.receive_some()


async def test_receiving_cancelled_anywhere_loses_nothing(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """A receive that is cancelled has neither taken nor doubled a byte, of the garbage either."""
    left, faulty = faulty_pair(1000)
    received = bytearray()

    async def scenario() -> None:
        received.clear()
        faulty.piece = 2
        faulty.garbage = b"garbage "
        await left.send_all(b"sense")
        for _ in range(7):
            received.extend(await faulty.receive_some())

    async def after() -> None:
        faulty.piece = None
        with trio.move_on_after(0.01):
            while True:
                received.extend(await faulty.receive_some())
        assert bytes(received) in (b"garbage sense", b"garbage ")

    async with left, faulty:
        assert await cancel_everywhere(scenario, after=after) >= 8
