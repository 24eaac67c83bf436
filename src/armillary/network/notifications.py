"""What services tell everybody who is linked with them, waiting to be read."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

__all__ = ["NOTIFICATION_BOUND", "Note", "Notifications", "NotificationStatistics", "Overflow"]

# Some seconds of a busy instrument. More lets a loop that has stopped reading take more memory; fewer loses
# notifications that come in a burst while the loop waits for something else.
NOTIFICATION_BOUND = 1000


class Overflow(enum.Enum):
    """Who loses when more notifications wait than may."""

    NEWEST_WIN = "the oldest one that waits is dropped"
    OLDEST_WIN = "the one that has just come is dropped"


class Note(NamedTuple):
    """One notification: what the service gave to its ``notify``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """A look at what waits."""

    waiting: int
    """Notifications that have come and were not read yet."""
    bound: int
    """How many may wait."""
    dropped: int
    """Notifications that were dropped, because the reader was too slow."""


class Notifications:
    """The notifications of a service since this was made, in their order. Made by `Link.notifications`.

    Read them with ``async for``; one task reads at a time. The loop ends when there will be no more.
    """

    def __init__(self, bound: int, overflow: Overflow) -> None:
        if bound < 1:
            raise ValueError(f"expected a bound of at least 1, got {bound}")
        self._waiting: deque[Note] = deque()
        self._bound = bound
        self._overflow = overflow
        self._dropped = 0
        self._news = trio.Event()
        self._is_closed = False

    def put(self, note: Note) -> None:
        """A notification has come."""
        if len(self._waiting) == self._bound:
            self._dropped += 1
            if self._overflow is Overflow.OLDEST_WIN:
                return
            self._waiting.popleft()
        self._waiting.append(note)
        self._news.set()

    def close(self) -> None:
        """No more will come. The reader gets those that wait, then the end."""
        self._is_closed = True
        self._news.set()

    def statistics(self) -> NotificationStatistics:
        """A look at it."""
        return NotificationStatistics(len(self._waiting), self._bound, self._dropped)

    def __aiter__(self) -> Notifications:
        return self

    async def __anext__(self) -> Note:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._waiting:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._waiting:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = trio.Event()
            await self._news.wait()
        return self._waiting.popleft()
