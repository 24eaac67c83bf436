"""How long to wait before the next attempt: doubling, capped and randomised."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]

# Half a second: a peer that restarts is found again quickly. Smaller hammers a host that is down;
# larger makes every short interruption visible.
FIRST = 0.5
# A minute: what an operator will wait after pulling a cable before suspecting the program. Larger saves
# a few packets; smaller keeps thousands of clients knocking at a dead host.
LONGEST = 60.0


class Backoff:
    """A sequence of delays in seconds.

    The base doubles before each delay up to `longest`, and the delay is drawn uniformly from the upper half
    of the base, so that a thousand clients of a restarted server do not come back in the same instant.
    With the defaults the delays lie in 0.5-1, 1-2, 2-4, ... 30-60 seconds.

    Args:
        uniform: draws a float between its two arguments, e.g. ``random.Random().uniform``.
        first: the base before the first doubling, in seconds.
        longest: no base, and so no delay, is longer than this many seconds.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], *, first: float = FIRST, longest: float = LONGEST
    ) -> None:
        if not 0 < first <= longest:
            raise ValueError(f"expected 0 < first <= longest, got first={first}, longest={longest}")
        self._uniform = uniform
        self._first = first
        self._longest = longest
        self._base = first

    def next(self) -> float:
        """The delay before the next attempt, in seconds."""
        self._base = min(self._base * 2, self._longest)
        return self._uniform(self._base / 2, self._base)

    def reset(self) -> None:
        """Start over, because an attempt succeeded."""
        self._base = self._first
