"""Exceptions that come out of nurseries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["single_exception"]


@contextmanager
def single_exception() -> Iterator[None]:
    """Let the only exception of a group out as itself; let a real group out as a group.

    A block that holds a nursery wraps what its body raises into an ``ExceptionGroup``. The caller of
    ``async with open_client(...)`` who raises a KeyError wants that KeyError back.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        # The group's place in the traceback is noise; what the error itself was chained to is not.
        cause, context, suppressed = error.__cause__, error.__context__, error.__suppress_context__
        try:
            raise error  # noqa: ASYNC123 - kept by hand, below
        finally:
            error.__cause__, error.__context__ = cause, context
            error.__suppress_context__ = suppressed
            del error
