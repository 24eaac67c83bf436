"""Records what happens without making anybody wait for the disk."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from armillary._runtime.groups import single_exception

from .audit import Audit, AuditEvent, EventKind
from .database import StoreUnusable

__all__ = ["Recorder", "RecorderStatistics", "open_recorder"]

_logger = logging.getLogger(__name__)

# Events that may wait for a disk that is full or a database that somebody keeps: an hour of a busy manager's,
# some tens of megabytes. More costs memory; with fewer, more of a long failure is missing from the audit.
_MOST_WAITING = 100_000

# Seconds until the next attempt after one that failed.
_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """What a recorder has done so far."""

    recorded: int
    """Events that are on the disk."""
    waiting: int
    """Events that are not yet."""
    lost: int
    """Events that were not recorded, and never will be, because too many were waiting."""


class Recorder:
    """Notes events at once and records them a moment later, all that have come meanwhile together.

    Made by `open_recorder`. When too many wait, the newest are lost: they are counted, it is logged once, and
    an event says so when there is room again.
    """

    def __init__(self, audit: Audit, most_waiting: int) -> None:
        self._audit = audit
        self._most_waiting = most_waiting
        self._waiting: deque[AuditEvent] = deque()
        self._noted = 0
        self._recorded = 0
        self._lost = 0
        self._lost_and_untold = 0
        self._wake = trio.Event()
        self._parked = trio.lowlevel.ParkingLot()
        # Its own, so that logins, which keep all other worker threads busy, hold up no audit.
        self._limiter = trio.CapacityLimiter(1)

    def note(self, event: AuditEvent) -> None:
        """Let an event be recorded. It may be lost if the process is killed in the next few milliseconds."""
        if len(self._waiting) >= self._most_waiting:
            if not self._lost_and_untold:
                _logger.error(
                    "more than %d events wait to be recorded: the audit loses some", self._most_waiting
                )
            self._lost += 1
            self._lost_and_untold += 1
            return
        self._waiting.append(event)
        self._noted += 1
        self._wake.set()

    async def wait_recorded(self) -> None:
        """Wait until all that was noted so far is on the disk.

        For what must not happen unless it is known that it did: this does not return as long as the database
        cannot be used.
        """
        noted = self._noted
        if self._recorded >= noted:
            await trio.lowlevel.checkpoint()
        while self._recorded < noted:
            await self._parked.park()

    def statistics(self) -> RecorderStatistics:
        """What happened so far."""
        return RecorderStatistics(self._recorded, len(self._waiting), self._lost)

    async def _run(self) -> None:
        has_failed = False
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._record_waiting()
                has_failed = False
            except StoreUnusable as error:
                if not has_failed:
                    _logger.error("the audit waits for its database: %s", error)
                has_failed = True
                await trio.sleep(_RETRY)
                self._wake.set()

    async def _record_waiting(self) -> None:
        """Record all that waits; what could not be recorded goes on waiting."""
        while self._waiting:
            batch = list(self._waiting)
            if self._lost_and_untold:
                text = f"{self._lost_and_untold} events were lost"
                told, batch = self._lost_and_untold, [*batch, _lost(batch[-1], text)]
            else:
                told = 0
            await trio.to_thread.run_sync(self._audit.record, batch, limiter=self._limiter)
            self._lost_and_untold -= told
            for _ in range(len(batch) - bool(told)):
                self._waiting.popleft()
                self._recorded += 1
            self._parked.unpark_all()


def _lost(last: AuditEvent, text: str) -> AuditEvent:
    return AuditEvent(last.time, EventKind.AUDIT, text)


@asynccontextmanager
async def open_recorder(audit: Audit, *, most_waiting: int = _MOST_WAITING) -> AsyncIterator[Recorder]:
    """Record events in the background of a block.

    What was noted is recorded before the block is left, also when it is cancelled; if the database cannot be
    used then, it is logged how many events are missing. That takes no longer than the database's own
    time-out.
    """
    recorder = Recorder(audit, most_waiting)
    try:
        with single_exception():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(recorder._run)
                yield recorder
                nursery.cancel_scope.cancel(reason="the recorder's block was left")
    finally:
        with trio.CancelScope(shield=True):
            try:
                await recorder._record_waiting()
            except StoreUnusable as error:
                _logger.error("%d events were not recorded: %s", len(recorder._waiting), error)
