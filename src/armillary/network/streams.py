"""What comes of a call before its end: the items of an iteration, and progress."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import trio

from armillary.errors import PeerError

from .pending_calls import PendingCall
from .protocol.packets import Reply

__all__ = ["WINDOW", "ProgressLink", "Stream", "open_stream_of"]

_logger = logging.getLogger("armillary.network")

WINDOW = 16
"""Items of a stream that may be on their way, or wait to be read.

More lets items come in bursts between slow reads, and takes as much more memory; fewer makes a generator wait
for each item's way through the manager.
"""


class Starter(Protocol):
    """Sends a request, as a link does."""

    def __call__(
        self,
        attribute: str,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        room: int | None,
        on_part: Callable[[Reply], object] | None,
    ) -> PendingCall: ...


class Stream:
    """What a service's generator makes, in its order. Made by `Link.stream`.

    Read it with ``async for``; one task reads at a time.
    """

    def __init__(self, on_progress: Callable[[Any], object] | None) -> None:
        self._on_progress = on_progress
        self._items: deque[Any] = deque()
        self._news = trio.Event()
        self._read = 0
        self._pending: PendingCall | None = None
        self._has_ended = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<stream, {len(self._items)} items wait>"

    def attach(self, pending: PendingCall) -> None:
        """The request was sent."""
        self._pending = pending

    def take(self, part: Reply) -> None:
        """A part of the reply has come."""
        if part.progress:
            if self._on_progress is not None:
                tell_progress(self._on_progress, part.result)
            return
        pending = self._pending
        assert pending is not None
        if len(self._items) >= WINDOW:
            # Whoever sends on and on must not fill our memory.
            pending.abandon()
            pending.settle(
                PeerError(f"{pending.service}.{pending.attribute} sent more items than it was asked for")
            )
            return
        self._items.append(part.result)
        self._news.set()

    def ended(self) -> None:
        """The last word has come."""
        self._news.set()

    def abandon(self) -> None:
        """Nobody reads on: close the generator."""
        self._is_closed = True
        self._items.clear()
        self._news.set()
        if self._pending is not None and self._pending.outcome is None:
            self._pending.abandon()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._items:
            await trio.lowlevel.cancel_shielded_checkpoint()
        pending = self._pending
        assert pending is not None
        while not self._items:
            if self._is_closed:
                raise trio.ClosedResourceError("the stream's block was left")
            if pending.outcome is not None:
                self._finish(pending)
                break
            self._news = trio.Event()
            await self._news.wait()
        item = self._items.popleft()
        self._read += 1
        # Half at a time: not a word for each item, and the generator does not run dry.
        if self._read == WINDOW // 2:
            self._read = 0
            pending.grant(WINDOW // 2)
        return item

    def _finish(self, pending: PendingCall) -> None:
        """The call is done: iterate over its result, if it was no generator's end."""
        if self._has_ended:
            raise StopAsyncIteration
        self._has_ended = True
        result = pending.result()
        outcome = pending.outcome
        if isinstance(outcome, Reply) and outcome.more is not None:
            raise StopAsyncIteration
        if not isinstance(result, list):
            raise TypeError(
                f"{pending.service}.{pending.attribute} returned what cannot be iterated: "
                f"{type(result).__name__}"
            )
        self._items.extend(result)
        if not self._items:
            raise StopAsyncIteration


@asynccontextmanager
async def open_stream_of(
    start: Starter,
    attribute: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    on_progress: Callable[[Any], object] | None,
) -> AsyncIterator[Stream]:
    """A call whose result is iterated over inside a block: see `Link.stream`."""
    await trio.lowlevel.checkpoint_if_cancelled()
    stream = Stream(on_progress)
    pending = start(attribute, args, kwargs, room=WINDOW, on_part=stream.take)
    pending.on_settled = stream.ended
    stream.attach(pending)
    try:
        yield stream
    finally:
        stream.abandon()


class ProgressLink:
    """A link whose calls tell how far they have come. Made by `Link.with_progress`."""

    def __init__(self, start: Starter, callback: Callable[[Any], object]) -> None:
        self._start = start
        self._callback = callback

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return partial(self.call, name)

    async def call(self, attribute: str, /, *args: object, **kwargs: object) -> Any:
        """As `Link.call`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        callback = self._callback

        def take(part: Reply) -> None:
            if part.progress:
                tell_progress(callback, part.result)

        return await self._start(attribute, args, kwargs, room=0, on_part=take).wait()

    @asynccontextmanager
    async def stream(self, attribute: str, /, *args: object, **kwargs: object) -> AsyncIterator[Stream]:
        """As `Link.stream`."""
        async with open_stream_of(self._start, attribute, args, kwargs, self._callback) as stream:
            yield stream


def tell_progress(callback: Callable[[Any], object], value: object) -> None:
    """Call back. What it raises is logged: the connection and the call go on."""
    try:
        callback(value)
    except Exception:
        _logger.exception("a callback for progress failed")
