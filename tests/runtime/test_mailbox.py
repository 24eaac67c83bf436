from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from armillary._runtime.mailbox import Mailbox, MailboxStatistics


async def take(mailbox: Mailbox[int], count: int) -> list[int]:
    return [await anext(mailbox) for _ in range(count)]


@pytest.mark.parametrize("bound", [0, -1])
def test_a_mailbox_without_room_is_refused(bound: int) -> None:
    """A bound below 1 makes no sense."""
    with pytest.raises(ValueError, match=f"expected a bound of at least 1, got {bound}"):
        Mailbox[int](bound)


async def test_items_come_out_in_the_order_in_which_they_were_put() -> None:
    """First in, first out, and the look at it counts them."""
    mailbox = Mailbox[int](5)
    for item in range(3):
        mailbox.put(item)
    assert MailboxStatistics(waiting=3, bound=5, dropped=0) == mailbox.statistics()
    assert [0, 1, 2] == await take(mailbox, 3)
    assert MailboxStatistics(waiting=0, bound=5, dropped=0) == mailbox.statistics()


async def test_the_oldest_are_dropped_and_counted_when_there_are_too_many() -> None:
    """A slow reader gets the newest items, and can see how many it has missed."""
    mailbox = Mailbox[int](3)
    for item in range(8):
        mailbox.put(item)
    assert MailboxStatistics(waiting=3, bound=3, dropped=5) == mailbox.statistics()
    assert [5, 6, 7] == await take(mailbox, 3)


async def test_a_reader_waits_for_news() -> None:
    """A reader of an empty mailbox sleeps until something is put, each time anew."""
    mailbox = Mailbox[int](1)
    got: list[int] = []

    async def read() -> None:
        async for item in mailbox:
            got.append(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for item in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert list(range(item)) == got
            mailbox.put(item)
        await trio.testing.wait_all_tasks_blocked()
        assert [0, 1, 2] == got
        mailbox.close()


async def test_a_closed_mailbox_gives_what_waits_and_then_the_end() -> None:
    """Closing loses nothing; the loop ends after the last item, and so does every later one."""
    mailbox = Mailbox[int](5)
    mailbox.put(1)
    mailbox.put(2)
    mailbox.close()
    assert [1, 2] == [item async for item in mailbox]
    assert [] == [item async for item in mailbox]


async def test_closing_wakes_a_reader_that_waits() -> None:
    """A reader of an empty mailbox gets the end as soon as it comes."""
    mailbox = Mailbox[int](5)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert [] == [item async for item in mailbox]

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()


async def test_taking_an_item_is_a_checkpoint() -> None:
    """A full mailbox does not keep its reader from letting others run."""
    mailbox = Mailbox[int](5)
    mailbox.put(1)
    with trio.testing.assert_checkpoints():
        await anext(mailbox)


async def test_a_cancelled_reader_does_not_take_an_item_with_it() -> None:
    """A reader that is cancelled before it looks leaves the items for the next."""
    mailbox = Mailbox[int](5)
    mailbox.put(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(mailbox)
    assert scope.cancelled_caught
    assert [1] == await take(mailbox, 1)


async def test_reading_cancelled_anywhere_loses_no_item(
    cancel_everywhere: Callable[..., Awaitable[int]],
) -> None:
    """Wherever a reader is cancelled, every item is read once: by it, or by who reads next."""
    mailbox = Mailbox[int](100)
    put: list[int] = []
    got: list[int] = []

    async def scenario() -> None:
        put.clear()
        got.clear()

        async def deliver() -> None:
            with trio.CancelScope(shield=True):
                for item in range(4):
                    mailbox.put(item)
                    put.append(item)
                    for _ in range(item):
                        await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            for _ in range(4):
                got.append(await anext(mailbox))

    async def after() -> None:
        got.extend(await take(mailbox, mailbox.statistics().waiting))
        assert put == got

    assert await cancel_everywhere(scenario, after=after) >= 6
