"""Start a coroutine in the running task, and finish it there if it suspends.

A task for every request costs more than most requests. A coroutine that never suspends needs no task: its
first step, which is all of it, runs here. One that suspends goes on in the task it started in, because its
cancel scopes and nurseries belong to that task; what the task was doing before is somebody else's from then
on. Only the public coroutine protocol is used.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ["resume"]


@types.coroutine
def resume(coroutine: Coroutine[Any, Any, Any], trap: Any, context: Context) -> Generator[Any, Any, Any]:
    """Finish a coroutine whose first step yielded `trap`, and return what it returns.

    Args:
        coroutine: started in this very task by ``context.run(coroutine.send, None)``.
        trap: what that call returned: the coroutine's message to trio.
        context: the context variables that the coroutine runs with.
    """
    while True:
        try:
            argument = yield trap
        except BaseException as error:  # noqa: BLE001, ASYNC103 - handed to the coroutine, which is whom it is for
            step, argument = coroutine.throw, error
        else:
            step = coroutine.send  # type: ignore[assignment]
        try:
            trap = context.run(step, argument)
        except StopIteration as finished:
            return finished.value
        finally:
            # What brings a cancellation has this frame in its traceback: kept here, it would be a cycle.
            del argument
