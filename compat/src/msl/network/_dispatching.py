"""The thread in which a client's program is called: handlers of notifications, and callbacks of futures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from .utils import logger

__all__ = ["Dispatcher"]

# Notifications that wait for a handler. More lets a handler that is too slow take more memory; fewer loses
# notifications that come in a burst.
_BOUND = 100_000


class Dispatcher:
    """Calls functions one after the other, in a thread of its own, which starts with the first.

    Everything but `is_here` belongs to the portal's thread. A function that raises is logged, and the next
    one is called.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Two counters, each with one thread that writes it, need no lock.
        self._begun = 0
        self._ended = 0
        self._dropped = 0

    @property
    def is_idle(self) -> bool:
        """Whether every function has returned."""
        return self._begun == self._ended

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    def offer(self, function: Callable[[], object]) -> None:
        """As `put`, for what is dropped if too much waits."""
        if self._begun - self._ended < _BOUND:
            self.put(function)
            return
        if not self._dropped:
            logger.warning("%s: notifications are dropped: the handler is too slow", self._name)
        self._dropped += 1

    def put(self, function: Callable[[], object]) -> None:
        """Call it when those before it have returned."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter exits, and starts no thread any more
            self._thread = thread
        self._begun += 1
        self._functions.put(function)

    def close(self) -> None:
        """Nothing more comes: the thread ends when it has called what waits."""
        self._functions.put(None)

    def _run(self) -> None:
        while (function := self._functions.get()) is not None:
            try:
                function()
            except BaseException as error:  # noqa: ASYNC103, BLE001 - users write these; no task runs here
                logger.exception("%s: %r was raised and ignored", self._name, error)
            self._ended += 1
            del function
