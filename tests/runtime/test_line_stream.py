from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary._runtime.line_stream import LineStream
from armillary._wire.lines import LineTooLong
from armillary.testing import FaultyStream, bounded_stream_pair


async def all_lines(lines: LineStream) -> list[bytes | str]:
    """Every line up to the end, and a mark in the place of those that were too long."""
    received: list[bytes | str] = []
    while True:
        try:
            line = await lines.receive_line()
        except LineTooLong:
            received.append("too long")
            continue
        if line is None:
            return received
        received.append(line)


@pytest.mark.parametrize("piece", [None, 1, 2, 3])
async def test_lines_come_out_one_by_one_however_they_arrive(piece: int | None) -> None:
    """Cut anywhere by the network, the lines are the same, and what follows the last of them is dropped."""
    left, right = bounded_stream_pair()
    faulty = FaultyStream(right)
    faulty.piece = piece
    lines = LineStream(faulty, 100)
    async with left, lines.stream:
        await left.send_all(b"one\n\ntwo\nthree\nunfinished")
        await left.send_eof()
        assert [b"one", b"", b"two", b"three"] == await all_lines(lines)
        assert None is await lines.receive_line()


async def test_terminators_are_the_owners_choice() -> None:
    """Every terminator that was named ends a line; one that was not is part of it."""
    left, right = bounded_stream_pair()
    lines = LineStream(right, 100, b"\r\n")
    async with left, right:
        await left.send_all(b"a\rb\nc\r\nd;\n")
        await left.send_eof()
        assert [b"a", b"b", b"c", b"", b"d;"] == await all_lines(lines)


@pytest.mark.parametrize("piece", [None, 1])
async def test_a_line_that_is_too_long_raises_and_the_next_ones_are_intact(piece: int | None) -> None:
    """The limit counts the terminator; a longer line is an error in its place, and not the end."""
    left, right = bounded_stream_pair()
    faulty = FaultyStream(right)
    faulty.piece = piece
    async with left, right:
        await left.send_all(b"123\n1234\n" + b"x" * 10_000 + b"\n321\n")
        await left.send_eof()
        assert [b"123", "too long", "too long", b"321"] == await all_lines(LineStream(faulty, 4))


async def test_no_more_is_read_while_lines_are_left() -> None:
    """A peer that sends without end is held up while its lines are not taken."""
    left, right = bounded_stream_pair(100)
    lines = LineStream(right, 100)
    async with left, right, trio.open_nursery() as nursery:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await left.send_all(b"0123456789\n")
                sent += 1

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert 9 == sent
        for _ in range(9):
            await lines.receive_line()
        await trio.testing.wait_all_tasks_blocked()
        assert 18 == sent
        nursery.cancel_scope.cancel()


async def test_a_line_that_is_there_is_a_checkpoint() -> None:
    """Taking one of many lines lets others run."""
    left, right = bounded_stream_pair()
    lines = LineStream(right, 100)
    async with left, right:
        await left.send_all(b"one\ntwo\n")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await lines.receive_line()


async def test_a_broken_connection_comes_out_as_such() -> None:
    """A reset is no end of the conversation."""
    left, right = bounded_stream_pair()
    faulty = FaultyStream(right)
    faulty.cut_after = 6
    async with left, right:
        await left.send_all(b"one\ntwo\n")
        lines = LineStream(faulty, 100)
        assert b"one" == await lines.receive_line()
        with pytest.raises(trio.BrokenResourceError):
            await lines.receive_line()


async def test_a_line_that_is_sent_gets_its_end() -> None:
    """Two line streams understand each other, and closing one closes its stream."""
    left, right = bounded_stream_pair()
    sender, receiver = LineStream(left, 100), LineStream(right, 100)
    await sender.send_line(b"hello")
    await sender.send_line(b"")
    assert [b"hello", b""] == [await receiver.receive_line(), await receiver.receive_line()]
    await sender.aclose()
    assert None is await receiver.receive_line()
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")
    await receiver.aclose()


async def test_receiving_cancelled_anywhere_loses_no_line(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """A reader that is cancelled, while it waits or while lines are left, finds every line next time."""
    received: list[bytes | None] = []
    message = b"one\ntwo\nthree\nfour\n"

    async def scenario() -> None:
        for _ in range(4):
            received.append(await lines.receive_line())

    async def after() -> None:
        while len(received) < 4:
            received.append(await lines.receive_line())
        assert [b"one", b"two", b"three", b"four"] == received
        received.clear()
        await left.send_all(message)

    left, right = bounded_stream_pair()
    faulty = FaultyStream(right)
    faulty.piece = 6
    lines = LineStream(faulty, 100)
    async with left, right:
        await left.send_all(message)
        assert await cancel_everywhere(scenario, after=after) >= 6
