"""How much one device server takes on, in all and from each client."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from .protocol.messages import DEFAULT_LIMIT

__all__ = ["Limits", "PendingStatistics", "Turnstile"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a device server; `armillary.katcp.serve_device` says what each is for."""

    line: int = DEFAULT_LIMIT
    pending: int = 100
    pending_per_client: int = 25
    backlog: int = 2 * DEFAULT_LIMIT

    @classmethod
    def of(cls, line: int, pending: int, pending_per_client: int | None, backlog: int | None) -> Limits:
        """The limits as `serve_device` takes them, where None depends on another."""
        return cls(
            line=line,
            pending=pending,
            # Four clients that are as busy as they may be leave nothing to a fifth; fewer would keep a single
            # one from using a server that is otherwise idle.
            pending_per_client=max(1, pending // 4) if pending_per_client is None else pending_per_client,
            # One reply as long as a line may be, and the informs meanwhile.
            backlog=2 * line if backlog is None else backlog,
        )

    def __post_init__(self) -> None:
        for name, value in (
            ("limit", self.line),
            ("max_pending", self.pending),
            ("max_pending_per_client", self.pending_per_client),
            ("max_backlog", self.backlog),
        ):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}")


@dataclass(frozen=True, slots=True)
class PendingStatistics:
    """A look at a `Turnstile`."""

    running: int
    """Requests whose handler is waiting for something."""
    waiting: int
    """Clients that are not read until a handler finishes."""
    limit: int
    """How many may run."""


class Turnstile:
    """Counts the handlers that are suspended, and lets clients wait for their turn, first come first served.

    Only a handler that suspends counts: one that answers at once occupies nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._waiting: deque[trio.Event] = deque()
        self._is_reserved = False
        self.idle: trio.Event | None = None
        """Set when the last one leaves, if somebody has put an event here to wait for that."""

    @property
    def is_full(self) -> bool:
        return self.running >= self.limit

    @property
    def is_taken(self) -> bool:
        """Whether who comes now has to queue: there is no room, or it is for the one who waits longest."""
        return self.running >= self.limit or self._is_reserved

    def statistics(self) -> PendingStatistics:
        """A look at it."""
        return PendingStatistics(self.running, len(self._waiting), self.limit)

    def enter(self) -> None:
        """Count one in. Callers have seen that there is room, or run what cannot wait."""
        self.running += 1

    def leave(self) -> None:
        """Count one out, and wake who has waited longest."""
        self.running -= 1
        self._wake_first()
        if not self.running and self.idle is not None:
            self.idle.set()

    async def wait_room(self) -> None:
        """Wait until there is room; callers who use it enter before they wait for anything else.

        The next in line is woken by whoever goes through, because that one may enter or not: its handler
        need not suspend. Cancellation passes the turn on.
        """
        turn = trio.Event()
        self._waiting.append(turn)
        self._wake_first()
        try:
            await turn.wait()
            while self.is_full:  # somebody who did not queue was quicker, which must not happen twice
                self._is_reserved = True
                turn = self._waiting[0] = trio.Event()
                await turn.wait()
        finally:
            if self._waiting[0] is turn:
                self._is_reserved = False
            self._waiting.remove(turn)
            self._wake_first()

    def _wake_first(self) -> None:
        if self._waiting and not self.is_full:
            self._waiting[0].set()
