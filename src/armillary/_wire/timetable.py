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
    dead entries outnumber the living: memory stays proportional to the number of keys.
    """

    def __init__(self) -> None:
        self._deadlines: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()  # equal deadlines come out first in, first out; keys need no order

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, key: K, at: float) -> None:
        """Wake `key` at `at`, and no longer when it was to be woken before."""
        if self._deadlines.get(key) == at:
            return
        self._deadlines[key] = at
        heapq.heappush(self._heap, (at, next(self._order), key))
        if len(self._heap) > 2 * len(self._deadlines) + 16:
            self._rebuild()

    def discard(self, key: K) -> None:
        """Do not wake `key`."""
        if self._deadlines.pop(key, None) is not None and not self._deadlines:
            self._heap.clear()

    def next(self) -> float | None:
        """The earliest deadline, or None when nobody is to be woken."""
        heap = self._heap
        while heap:
            at, _, key = heap[0]
            if self._deadlines.get(key) == at:
                return at
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> Iterator[tuple[K, float]]:
        """Take out, one by one, the keys whose deadline has come, each with that deadline.

        Keys may be set again while iterating; one set to a time that has come too is yielded again.
        """
        while (at := self.next()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._deadlines[key]
            yield key, at

    def _rebuild(self) -> None:
        self._heap = [entry for entry in self._heap if self._deadlines.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)
