from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary._wire.backoff import Backoff


def lowest(low: float, high: float) -> float:
    return low


def highest(low: float, high: float) -> float:
    return high


def test_the_default_delays_double_from_half_a_second_to_a_minute() -> None:
    """With the defaults the delays lie in 0.5-1, 1-2, 2-4, ... 30-60 seconds."""
    shortest, longest = Backoff(lowest), Backoff(highest)
    ranges = [(shortest.next(), longest.next()) for _ in range(9)]
    assert ranges == [
        (0.5, 1),
        (1, 2),
        (2, 4),
        (4, 8),
        (8, 16),
        (16, 32),
        (30, 60),
        (30, 60),
        (30, 60),
    ]


def test_reset_starts_over() -> None:
    """After a success the sequence begins with its first delay again."""
    backoff = Backoff(highest)
    before = [backoff.next() for _ in range(4)]
    backoff.reset()
    assert [backoff.next() for _ in range(4)] == before


def test_two_sequences_with_different_randomness_differ() -> None:
    """Clients with generators of their own do not come back in the same instant."""
    one, other = Backoff(random.Random(1).uniform), Backoff(random.Random(2).uniform)
    assert [one.next() for _ in range(3)] != [other.next() for _ in range(3)]


@given(
    first=st.floats(0.001, 10),
    factor=st.floats(1, 1000),
    seed=st.integers(0, 2**32),
    attempts=st.integers(1, 30),
)
def test_every_delay_is_in_the_upper_half_of_its_base(
    first: float, factor: float, seed: int, attempts: int
) -> None:
    """The n-th delay lies in the upper half of min(first * 2**n, longest)."""
    longest = first * factor
    backoff = Backoff(random.Random(seed).uniform, first=first, longest=longest)
    for attempt in range(1, attempts + 1):
        base = min(first * 2**attempt, longest)
        delay = backoff.next()
        assert base / 2 <= delay <= base


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1), (math.nan, 1), (1, math.nan)])
def test_limits_that_make_no_sense_are_refused(first: float, longest: float) -> None:
    """The first base must be positive and not above the longest."""
    with pytest.raises(ValueError, match="expected 0 < first <= longest"):
        Backoff(lowest, first=first, longest=longest)
