"""The end of a program that runs until somebody ends it."""

from __future__ import annotations

import signal

import trio

__all__ = ["cancel_on_signal"]


async def cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Cancel `scope` on Ctrl-C (SIGINT) or SIGTERM, once; then the signals have their old meaning again.

    A KeyboardInterrupt, which trio raises by default, would come out of whatever happens to run. This way
    the end is a cancellation like any other, and a second Ctrl-C still gets through to a program that is
    stuck. Call it in the main thread: only there can Python's signal handlers be set.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            scope.cancel(reason=f"{signal.Signals(number).name} was received")
            return
