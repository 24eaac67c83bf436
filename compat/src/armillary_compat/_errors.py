"""What a trio task that is called from elsewhere ended with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import trio

__all__ = ["leaves", "without_cancellation"]

_CANCELLATIONS = (trio.Cancelled, asyncio.CancelledError)


def without_cancellation(error: BaseException) -> BaseException | None:
    """What of an exception, or of a group, is more than having been cancelled; None if nothing is."""
    if isinstance(error, BaseExceptionGroup):
        cancelled, rest = error.split(_CANCELLATIONS)
        return error if cancelled is None else rest
    return None if isinstance(error, _CANCELLATIONS) else error


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, of its groups and so on; an exception that is no group is one."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error
