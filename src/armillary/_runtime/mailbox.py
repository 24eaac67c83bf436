"""A bounded queue between whoever has news and one task that reads it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

__all__ = ["Mailbox", "MailboxStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """A look at a mailbox."""

    waiting: int
    """Items that were put and not taken yet."""
    bound: int
    """How many may wait."""
    dropped: int
    """Items that were dropped, the oldest first, because the reader was too slow."""


class Mailbox(Generic[T]):
    """Items for one reader. Putting never waits: when `bound` items wait, the oldest is dropped and counted.

    Read it with ``async for``; the loop ends when the mailbox is closed and empty. One task reads at a time.
    """

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"expected a bound of at least 1, got {bound}")
        self._items: deque[T] = deque(maxlen=bound)
        self._bound = bound
        self._dropped = 0
        self._news = trio.Event()
        self._is_closed = False

    def put(self, item: T) -> None:
        """Leave an item."""
        if len(self._items) == self._bound:
            self._dropped += 1
        self._items.append(item)
        self._news.set()

    def close(self) -> None:
        """No more items will come. The reader gets those that wait, then the end."""
        self._is_closed = True
        self._news.set()

    def statistics(self) -> MailboxStatistics:
        """A look at it."""
        return MailboxStatistics(len(self._items), self._bound, self._dropped)

    def __aiter__(self) -> Mailbox[T]:
        return self

    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._items:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._items:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = trio.Event()
            await self._news.wait()
        return self._items.popleft()
