"""What waits to be sent on one stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from .direct import DirectSide, direct_side

__all__ = ["Outbox", "OutboxStatistics"]

# How much is handed to the operating system at once. Smaller makes more system calls; larger copies more
# bytes than a socket buffer takes and has to copy the rest again.
_CHUNK = 256 * 1024
# Bytes sent in a row without letting others run, where the system takes everything at once. More makes them
# wait longer (half a millisecond for each 256 KiB with TLS); fewer spends more of the time on switching.
_IN_A_ROW = 256 * 1024


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """A look at an outbox."""

    backlog: int
    """Bytes accepted and not sent yet."""
    highest_backlog: int
    """The most bytes that ever waited."""
    bytes_sent: int
    """Bytes handed to the stream so far."""
    bytes_dropped: int
    """Bytes accepted and never sent, because the connection ended."""
    bound: float
    """The backlog at which `Outbox.is_over_bound` asks the owner to act."""


class Outbox:
    """Bytes for one stream, sent in order, together where they come together.

    `send` never waits. What it takes is sent by a writer task that starts when there is something to do and
    ends when there is nothing left, so an idle connection costs no task. `flush` sends what it can at once.
    Between `cork` and `flush` no writer is started: a reader answers everything that one read brought and
    sends the answers together.

    The bound is a number of bytes and the policy is the owner's: to wait in `drain` before sending more, or
    to look at `is_over_bound` after sending and end the connection.

    A broken stream never raises here. Bytes are dropped and counted from then on, and `on_broken` is called
    once, with the error.

    Args:
        stream: where the bytes go. The outbox never closes it.
        nursery: runs the writer. It encloses the outbox's owner, who calls `finish` or `abort` before it
            leaves: the writer is shielded, so that ending a session does not cut a line in two.
        bound: the backlog, in bytes, above which `is_over_bound` is true.
        on_broken: called once with what the stream raised.
    """

    __slots__ = (
        "_backlog",
        "_bytes_dropped",
        "_bytes_sent",
        "_corked",
        "_direct",
        "_highest_backlog",
        "_in_flight",
        "_is_torn",
        "_nursery",
        "_on_broken",
        "_pieces",
        "_stream",
        "_waiters",
        "_writer",
        "bound",
        "broken",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        bound: float = math.inf,
        on_broken: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._stream = stream
        self._direct = direct_side(stream)
        self._nursery: trio.Nursery | None = nursery
        self.bound = bound
        """The backlog, in bytes, above which `is_over_bound` is true."""
        self._on_broken = on_broken
        self._pieces: deque[bytes | memoryview] = deque()
        self._backlog = 0
        self._highest_backlog = 0
        self._bytes_sent = 0
        self._bytes_dropped = 0
        self._in_flight = 0
        self._corked = False
        self._writer: trio.CancelScope | None = None
        self._waiters: list[tuple[int, trio.Event]] = []
        self._is_torn = False
        self.broken: BaseException | None = None
        """What the stream raised, once it has."""

    @property
    def backlog(self) -> int:
        """Bytes accepted and not sent yet."""
        return self._backlog + self._unsent

    @property
    def accepted(self) -> int:
        """Bytes ever accepted: the position, in the stream of bytes, of what is accepted next."""
        return self._bytes_sent + self._bytes_dropped + self._backlog

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the stream so far."""
        return self._bytes_sent

    @property
    def may_have_left(self) -> int:
        """The position up to which bytes may have left this program: more than were surely sent, perhaps.

        A stream that is not a socket does not say how much of what it was given it had sent when it broke.
        """
        return self._bytes_sent + self._in_flight

    @property
    def is_over_bound(self) -> bool:
        """Whether more waits than the bound allows."""
        return self.backlog > self.bound

    @property
    def _unsent(self) -> int:
        """Bytes that the stream took and has not sent yet."""
        return 0 if self._direct is None or self.broken is not None else self._direct.unsent

    def statistics(self) -> OutboxStatistics:
        """A look at the outbox."""
        return OutboxStatistics(
            backlog=self.backlog,
            highest_backlog=self._highest_backlog,
            bytes_sent=self._bytes_sent,
            bytes_dropped=self._bytes_dropped,
            bound=self.bound,
        )

    def send(self, data: bytes) -> None:
        """Accept bytes to be sent, never waiting."""
        if self.broken is not None:
            self._bytes_dropped += len(data)
            return
        self._pieces.append(data)
        self._backlog += len(data)
        if self._backlog > self._highest_backlog:
            self._highest_backlog = self._backlog
        if self._writer is None and not self._corked:
            self._start_writer()

    def cork(self) -> None:
        """Start no writer until `flush`."""
        self._corked = True

    def uncork(self) -> None:
        """Leave what waits to the writer."""
        self._corked = False
        if self._pieces and self._writer is None:
            self._start_writer()

    def flush(self) -> None:
        """Send what can be sent at once, and leave the rest to the writer."""
        self._corked = False
        if self._pieces:
            if self._direct is not None:
                self._send_directly()
            if self._writer is None and (self._pieces or self._unsent):
                self._start_writer()

    def flush_elsewhere(self) -> bool:
        """As `flush`, in another thread while the run stands still: nothing of trio's is used.

        Returns:
            Whether nothing is left. Otherwise `flush` is to be called in the run.
        """
        self._corked = False
        if self._direct is not None and self._writer is None and not self._waiters and self.broken is None:
            try:
                self._offer(self._direct)
            except OSError:
                return False  # as `flush` will find out
        return not (self._pieces or self._unsent)

    async def drain(self, down_to: int = 0) -> None:
        """Wait until at most `down_to` bytes wait, or until the connection is broken.

        Cancellation leaves everything as it is.
        """
        await trio.lowlevel.checkpoint()
        self.flush()
        if self.backlog > down_to:
            drained = trio.Event()
            waiter = (down_to, drained)
            self._waiters.append(waiter)
            try:
                await drained.wait()
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def finish(self, deadline: float) -> None:
        """Send what waits, though the caller is cancelled, and take no longer than until `deadline`.

        The last call: nothing may be sent afterwards.

        Args:
            deadline: on the run's clock, in seconds.
        """
        self._nursery = None
        if self._writer is not None:
            self._writer.deadline = deadline
        with trio.CancelScope(deadline=deadline, shield=True):
            if self._writer is not None:
                await self.drain()
            elif not self._is_torn:
                await self._write()
        self._drop()

    def abort(self) -> None:
        """Send nothing more: drop what waits, and stop the writer."""
        self._break(trio.ClosedResourceError("the connection was aborted"), tell=False)
        if self._writer is not None:
            self._writer.cancel()

    def _start_writer(self) -> None:
        if self._nursery is not None:
            # `finish` gives it a deadline, `abort` cancels it.
            self._writer = trio.CancelScope(shield=True)
            self._nursery.start_soon(self._run_writer, self._writer, name="armillary outbox writer")

    async def _run_writer(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._write()
        self._writer = None
        if scope.cancelled_caught:
            self._is_torn = True
            self._drop()

    async def _write(self) -> None:
        """Send until nothing waits."""
        while self._pieces or self._unsent:
            if self._direct is not None:
                if not self._send_directly():
                    try:
                        await self._direct.wait_writable()
                    except (trio.ClosedResourceError, OSError) as error:
                        self._break(error)
                    else:
                        self._wake()
                else:
                    await trio.lowlevel.checkpoint()
            else:
                chunk = self._next_chunk()
                self._in_flight = len(chunk)
                try:
                    await self._stream.send_all(chunk)
                except Exception as error:  # noqa: BLE001 - whatever a stream raises ends its session, not us
                    self._break(error)
                if self._pieces:  # not dropped while they were being sent
                    self._pieces.popleft()
                    self._in_flight = 0
                    self._sent(len(chunk))

    def _send_directly(self) -> bool:
        """Send a good deal without waiting, until the socket is full. Return whether any was sent."""
        assert self._direct is not None
        try:
            return self._offer(self._direct)
        except OSError as error:
            self._break(error)
            return True

    def _offer(self, direct: DirectSide) -> bool:
        progress = False
        room = _IN_A_ROW
        while self._pieces and room > 0:
            chunk = self._next_chunk()
            room -= len(chunk)
            sent = direct.send_nowait(chunk)
            if sent == len(chunk):
                self._pieces.popleft()
            elif sent:
                self._pieces[0] = memoryview(chunk)[sent:]
            if sent:
                progress = True
                self._sent(sent)
            if sent < len(chunk):
                break
        return progress

    def _next_chunk(self) -> bytes | memoryview:
        """Join the first pieces into one of a good size, still the first; a long one is cut to be sent."""
        pieces = self._pieces
        first = pieces[0]
        if len(first) > _CHUNK:
            view = memoryview(first)
            pieces[0] = view[_CHUNK:]
            pieces.appendleft(view[:_CHUNK])
            return pieces[0]
        if len(pieces) == 1:
            return first
        if self._backlog <= _CHUNK:
            joined = b"".join(pieces)
            pieces.clear()
        else:
            batch = []
            size = 0
            while pieces and size + len(pieces[0]) <= _CHUNK:
                size += len(pieces[0])
                batch.append(pieces.popleft())
            joined = b"".join(batch)
        pieces.appendleft(joined)
        return joined

    def _sent(self, count: int) -> None:
        self._bytes_sent += count
        self._backlog -= count
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        backlog = self.backlog
        for down_to, drained in self._waiters:
            if backlog <= down_to:
                drained.set()

    def _drop(self) -> None:
        self._bytes_dropped += self._backlog
        self._backlog = 0
        self._pieces.clear()
        self._wake()

    def _break(self, error: BaseException, *, tell: bool = True) -> None:
        if self.broken is None:
            self.broken = error
            self._drop()
            if tell and self._on_broken is not None:
                self._on_broken(error)
