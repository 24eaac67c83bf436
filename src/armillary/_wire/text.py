"""What peers say, as text for people: what must not reach a terminal as it is, and times."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["printable", "utc"]


def printable(raw: bytes | str) -> str:
    r"""A text in one line, with ``\x..`` or the like for what is no text or would command the terminal."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def utc(timestamp: float) -> str:
    """A time as ``2026-01-31T12:34:56.789Z``; as the number that it is, if no calendar has it.

    Args:
        timestamp: seconds since 1970-01-01 UTC.
    """
    try:
        moment = datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):  # NaN, infinity, beyond the year 9999
        return repr(float(timestamp))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
