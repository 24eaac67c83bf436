"""Questions of the manager, which somebody answers at the terminal, in a thread that waits anyway."""

from __future__ import annotations

import getpass
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import trio

__all__ = ["PromptDesk", "prompt"]


def prompt(text: str, is_secret: bool) -> str:
    """Ask whoever sits at the terminal."""
    return getpass.getpass(text) if is_secret else input(text)


class _Question:
    """One of them, on its way to a thread and back."""

    def __init__(self, text: str, is_secret: bool) -> None:
        self._text = text
        self._is_secret = is_secret
        self._token = trio.lowlevel.current_trio_token()
        self._answered = trio.Event()
        self._answer: str | None = None

    async def wait(self) -> str:
        """The answer.

        Raises:
            RuntimeError: the thread has left without one.
        """
        await self._answered.wait()
        if self._answer is None:
            raise RuntimeError("nobody has answered")
        return self._answer

    def answer_here(self) -> None:
        """Ask in this thread."""
        try:
            self._answer = prompt(self._text, self._is_secret)
        finally:
            self.leave()

    def leave(self) -> None:
        """That was all."""
        try:
            self._token.run_sync_soon(self._answered.set)
        except trio.RunFinishedError:
            pass  # nobody waits for it any more


class PromptDesk:
    """Where threads wait for a future, and are asked meanwhile what the manager wants to know."""

    def __init__(self) -> None:
        self._waiting: list[SimpleQueue[_Question | None]] = []

    def wait(self, future: Future[Any], timeout: float | None = None) -> None:
        """Wait until the future is done.

        Raises:
            TimeoutError: it is not in `timeout` seconds.
        """
        orders: SimpleQueue[_Question | None] = SimpleQueue()
        self._waiting.append(orders)
        Future.add_done_callback(future, lambda _: orders.put(None))
        deadline = None if timeout is None else monotonic() + timeout
        try:
            while (question := _next(orders, deadline)) is not None:
                question.answer_here()
        finally:
            self._waiting.remove(orders)
            _leave_all(orders)

    async def ask(self, text: str, is_secret: bool) -> str:
        """Ask in a thread that waits; in another one if none does. In the portal."""
        waiting = next(iter(self._waiting), None)
        if waiting is None:
            return await trio.to_thread.run_sync(prompt, text, is_secret, abandon_on_cancel=True)
        question = _Question(text, is_secret)
        waiting.put(question)
        return await question.wait()


def _next(orders: SimpleQueue[_Question | None], deadline: float | None) -> _Question | None:
    if deadline is None:
        return orders.get()
    try:
        return orders.get(timeout=max(0.0, deadline - monotonic()))
    except Empty:
        raise TimeoutError from None


def _leave_all(orders: SimpleQueue[_Question | None]) -> None:
    """Whoever has asked meanwhile gets no answer."""
    while not orders.empty():
        question = orders.get()
        if question is not None:
            question.leave()
