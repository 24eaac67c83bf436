"""Runs that are the same each time, on virtual time, and new ones for a while."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from unittest import mock

import trio
import trio.testing

__all__ = ["Case", "main", "run_cases", "run_seeded"]

Case = Callable[[int], Awaitable[Counter[str]]]
"""Tries what the seed stands for, and returns what has happened, counted."""


def run_seeded(case: Case, seed: int) -> Counter[str]:
    """Run a case on virtual time, its tasks in an order that the seed decides; an error names the seed."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio._core._run._r.seed(seed)
    try:
        # Nobody knows when a thread has done its work.
        with mock.patch.object(trio.to_thread, "run_sync", _run_here):
            return trio.run(case, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


async def _run_here(function: Callable[..., object], *args: object, **options: object) -> object:
    await trio.lowlevel.checkpoint()
    return function(*args)


def run_cases(case: Case, seconds: float, first: int | None = None) -> tuple[int, int, Counter[str]]:
    """Run cases for a while. Return the first seed, how many there were, and what has happened.

    Args:
        case: what is run.
        seconds: of real time.
        first: the first seed; any, if None.
    """
    first = random.SystemRandom().randrange(2**40) if first is None else first
    end = time.monotonic() + seconds
    total: Counter[str] = Counter()
    seed = first
    while time.monotonic() < end:
        total += run_seeded(case, seed)
        seed += 1
    return first, seed - first, total


def main(case: Case) -> None:
    """A program with the arguments ``SECONDS [SEED]``."""
    seconds, *given = sys.argv[1:]
    first, number, total = run_cases(case, float(seconds), int(given[0]) if given else None)
    print(f"{number} cases, seeds {first} to {first + number - 1}: {dict(total)}")  # noqa: T201
