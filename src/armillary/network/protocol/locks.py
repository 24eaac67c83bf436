"""Locks on services: who holds them, and for how long after the last sign of life.

A lock is exclusive, which only the sole linked peer can have, or shared, to which each linked peer adds its
own hold. Peers that can be pinged hold theirs under a lease, so that a machine which was unplugged or put to
sleep does not keep an instrument from everybody else. Who cannot be pinged (any 1.0 peer) needs no lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from .features import PING
from .peers import Peer

__all__ = ["LOCK_LEASE", "Leases", "ServiceLock"]

P = TypeVar("P", bound=Peer)

# A minute, several pings long. Smaller takes the lock from a program that merely blocks for a while, larger
# keeps an instrument longer from those who wait for a machine that is gone. A program that dies is not meant:
# its connection breaks, and its locks end with it.
LOCK_LEASE = 60.0


class ServiceLock(Generic[P]):
    """The lock of one service: free, held by one peer exclusively, or shared by some. False if it is free."""

    __slots__ = ("_holders", "is_shared")

    def __init__(self) -> None:
        self._holders: dict[P, None] = {}
        self.is_shared = False
        """Whether the one who came last to hold it shares it."""

    def __bool__(self) -> bool:
        return bool(self._holders)

    def __iter__(self) -> Iterator[P]:
        """Who holds it, the first one first."""
        return iter(self._holders)

    def __contains__(self, peer: object) -> bool:
        return peer in self._holders

    @property
    def kind(self) -> str | None:
        """``exclusive``, ``shared``, or None if it is free."""
        if not self._holders:
            return None
        return "shared" if self.is_shared else "exclusive"

    def hold(self, peer: P, *, shared: bool) -> None:
        """Let a linked peer hold it. Exclusively only if no other peer is linked: the caller has looked."""
        self._holders[peer] = None
        self.is_shared = shared

    def release(self, peer: P) -> bool:
        """End a peer's hold. Return whether it had one."""
        if peer not in self._holders:
            return False
        del self._holders[peer]
        return True


class Leases(Generic[P]):
    """Until when those who hold locks under a lease may keep them.

    A lease lasts from the holder's last sign of life, which its record has. Working one out costs as much as
    there are holders, which are few, and a sign of life costs nothing here, because there are many.

    Args:
        length: seconds.
    """

    def __init__(self, length: float) -> None:
        if not length > 0:
            raise ValueError(f"expected a lease of more than 0 seconds, got {length}")
        self.length = length
        self._locks: dict[P, int] = {}

    def __contains__(self, peer: object) -> bool:
        return peer in self._locks

    def held(self, peer: P) -> None:
        """A peer holds one lock more."""
        if PING in peer.features:
            self._locks[peer] = self._locks.get(peer, 0) + 1

    def released(self, peer: P) -> None:
        """A peer holds one lock less."""
        locks = self._locks.get(peer)
        if locks is None:
            return
        if locks > 1:
            self._locks[peer] = locks - 1
        else:
            del self._locks[peer]

    def next_expiry(self) -> float | None:
        """When the next lease ends if nothing is heard; None if nobody holds a lock under a lease."""
        if not self._locks:
            return None
        return min(peer.last_heard for peer in self._locks) + self.length

    def expired(self, now: float) -> list[P]:
        """Whose lease has ended."""
        return [peer for peer in self._locks if peer.last_heard + self.length <= now]
