"""Coroutines of asyncio's that users have written, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import trio

from .utils import logger

__all__ = ["UserTasks"]

# Seconds for tasks that were cancelled. Longer holds up a service whose tasks take no notice; shorter leaves
# behind those that clean up.
_PATIENCE = 5.0


class UserTasks:
    """The tasks of one service, from `start` to `finish`. Its thread starts when it is needed.

    Args:
        name: of the thread.
        on_failure: called, in the thread, when a task has raised an exception.
    """

    def __init__(self, name: str, on_failure: Callable[[], object]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: Future[None] | None = None

    def start(self, awaitables: Sequence[Awaitable[Any]]) -> None:
        """Run them, if there are any."""
        if awaitables:
            self._tasks = self._submit(self._run_all(awaitables))

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, for a thread that waits."""
        return self._submit(coroutine).result()

    async def finish(self, shutdown_handler: Callable[[], object]) -> None:
        """Call the handler, and wait until all tasks have ended. Cancellation cancels them, and then waits.

        The handler is called in the loop's thread if there are tasks, and here otherwise.
        """
        try:
            if self._tasks is None:
                _call_and_log(shutdown_handler)
                await trio.lowlevel.checkpoint()
            else:
                handled = self._submit(_in_loop(shutdown_handler))
                with trio.CancelScope(shield=True):
                    await _ended(handled)
                await _ended(self._tasks)
        finally:
            with trio.CancelScope(shield=True):
                if self._tasks is not None:
                    self._tasks.cancel()
                await self._close()

    def _submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run_loop, name=self._name, daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _run_all(self, awaitables: Sequence[Awaitable[Any]]) -> None:
        try:
            # A group cancels the others when one fails, and waits for them.
            async with asyncio.TaskGroup() as group:
                for awaitable in awaitables:
                    group.create_task(_await(awaitable))
        except* Exception as errors:  # noqa: BLE001 - users write these
            logger.error("%s: a task has failed", self._name, exc_info=errors.exceptions[0])
            self._on_failure()

    def _run_loop(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            with suppress(RuntimeError):
                _cancel_all(loop)
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _close(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            await trio.to_thread.run_sync(thread.join, _PATIENCE)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))


async def _await(awaitable: Awaitable[Any]) -> None:
    try:
        await awaitable
    except SystemExit as error:
        # It would end the thread, and nothing else.
        raise RuntimeError("the task wants the program to exit") from error


async def _in_loop(function: Callable[[], object]) -> None:
    _call_and_log(function)


def _call_and_log(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:  # noqa: BLE001 - users write these
        logger.exception("the shutdown handler has failed")


async def _ended(future: Future[None]) -> None:
    """Wait until a future of the other thread is done."""
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()

    def tell(_: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    future.add_done_callback(tell)
    await ended.wait()
