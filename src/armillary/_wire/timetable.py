"""Who is to be woken when: a heap of deadlines that stays as small as what it holds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["Timetable"]

K = TypeVar("K", bound=Hashable)


class Timetable(Generic[K]):
    """At most one deadline for each key.

    Moving a deadline leaves its old entry in the heap until it surfaces. A sampler with a long and a short
    period moves its deadline thousands of times before the long one surfaces, so the heap is rebuilt when
    dead entries outnumber the living: memory stays proportional to the number of keys. An entry lives as long
    as it is the very one remembered for its key; comparing deadlines instead would revive dead entries when a
    key returns to an earlier deadline.
    """

    def __init__(self) -> None:
        self._entries: dict[K, tuple[float, int, K]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()  # equal deadlines come out first in, first out; keys need no order

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, key: K, at: float) -> None:
        """Wake `key` at `at`, and no longer when it was to be woken before."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == at:
            return
        entry = (at, next(self._order), key)
        self._entries[key] = entry
        heapq.heappush(self._heap, entry)
        self._shrink()

    def discard(self, key: K) -> None:
        """Do not wake `key`."""
        if self._entries.pop(key, None) is not None:
            self._shrink()

    def next(self) -> float | None:
        """The earliest deadline, or None when nobody is to be woken."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._entries.get(entry[2]) is entry:
                return entry[0]
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> Iterator[tuple[K, float]]:
        """Take out, one by one, the keys whose deadline has come, each with that deadline.

        Keys may be set again while iterating; one set to a time that has come too is yielded again.
        """
        while (at := self.next()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._entries[key]
            self._shrink()
            yield key, at

    def _shrink(self) -> None:
        # 16: a small heap is not worth rebuilding at every other move; dead entries surface soon enough.
        # 0: an idle timetable keeps nobody's key alive.
        spare = 16 if self._entries else 0
        if len(self._heap) > 2 * len(self._entries) + spare:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
