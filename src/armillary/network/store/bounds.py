"""From when until when: the bounds of what is asked for."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TypeAlias

__all__ = ["Bound", "local_text", "seconds"]

Bound: TypeAlias = "str | float | date | datetime | None"
"""A time: ISO 8601 text, a date or a datetime, in local time unless it says otherwise; seconds since 1970; or
None for no bound. A date alone is the whole day, and a text without a fraction of a second the whole
second."""

_REST_OF_SECOND = timedelta(microseconds=999_999)


def local_text(bound: Bound, *, is_end: bool) -> str | None:
    """A bound in local time, to compare with texts like ``2024-03-31T12:30:00``.

    Raises:
        ValueError: it is no time.
    """
    moment = _local(bound, is_end=is_end)
    return None if moment is None else moment.isoformat()


def seconds(bound: Bound, *, is_end: bool) -> float | None:
    """A bound in seconds since 1970. Of an hour that the clocks passed twice, all of it is meant.

    Raises:
        ValueError: it is no time.
    """
    if isinstance(bound, (int, float)):
        return float(bound)
    moment = _local(bound, is_end=is_end)
    return None if moment is None else moment.replace(fold=int(is_end)).timestamp()


def _local(bound: Bound, *, is_end: bool) -> datetime | None:
    """A bound as a datetime without a time zone."""
    match bound:
        case None:
            return None
        case int() | float():
            return datetime.fromtimestamp(bound)
        case datetime():
            return _without_zone(bound)
        case date():
            return datetime.combine(bound, time.max if is_end else time.min)
    text = bound.strip()
    try:
        return _local(date.fromisoformat(text), is_end=is_end)
    except ValueError:
        pass
    try:
        moment = _without_zone(datetime.fromisoformat(text))
    except ValueError:
        raise ValueError(
            f"expected a date or a time like 2024-03-31 or 2024-03-31T12:30:00, got {bound!r}"
        ) from None
    return moment + _REST_OF_SECOND if is_end and not moment.microsecond else moment


def _without_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone().replace(tzinfo=None)
