"""Failed logins slow down the address that they come from.

The first few attempts are free, since people mistype. After that many failures, there is a pause before the
next attempt, and each further failure doubles it. An attempt counts as a failure while it is being checked,
so that guessing over many connections at once is no faster than over one.

Invariants, which the tests check after every step:

1. While an address has fewer failures than are free, these and its attempts that are being checked are
   together never more than that. Once it has as many, at most one attempt is being checked.
2. No attempt is let through before the pause after the last failure is over.
3. Besides addresses with attempts that are being checked, no more than the limit are remembered.
"""

from __future__ import annotations

import enum
import ipaddress

__all__ = ["LoginThrottle", "Outcome", "address_key"]

# Fewer punish those who mistype, or start several programs with an old password; more are guesses for free.
FREE = 5
# Seconds of the first pause. Smaller matters to nobody who guesses, larger annoys those who mistype.
FIRST = 1.0
# Half a minute: some three thousand guesses a day. Larger keeps everybody else at that address out for longer
# when somebody's program tries a wrong password again and again.
LONGEST = 30.0
# A quarter of an hour without a failure. Smaller lets somebody who guesses patiently start over sooner.
FORGET_AFTER = 900.0
# Each takes about half a kilobyte. Smaller lets whoever has that many addresses have his failures forgotten.
ADDRESSES = 4096
# Seconds until another attempt may be let through because one that was being checked has ended: about as long
# as it takes to check a password. Smaller asks in vain more often.
RETRY = 0.25
# More names than that are counted as one: nobody mistypes as many.
NAMES = 16


class Outcome(enum.Enum):
    """How an attempt ended."""

    FAILED = enum.auto()
    """Wrong, or given up before that was known."""
    NEUTRAL = enum.auto()
    """Nothing was learned of a password."""
    SUCCEEDED = enum.auto()
    """Right."""


class _Address:
    __slots__ = ("checking", "failures", "last_failure", "not_before")

    def __init__(self) -> None:
        self.failures: dict[str | None, int] = {}
        self.last_failure = 0.0
        self.not_before = 0.0
        self.checking = 0


class LoginThrottle:
    """Which attempts to log in may be checked now.

    Args:
        free: attempts that may fail before there are pauses.
        first: the pause after that many failures, in seconds.
        longest: no pause is longer than this many seconds.
        forget_after: seconds without a failure after which earlier ones do not count.
        addresses: how many addresses are remembered; beyond, the one that was quiet for longest is forgotten.
    """

    def __init__(
        self,
        *,
        free: int = FREE,
        first: float = FIRST,
        longest: float = LONGEST,
        forget_after: float = FORGET_AFTER,
        addresses: int = ADDRESSES,
    ) -> None:
        if free < 1 or addresses < 1 or not 0 < first <= longest:
            raise ValueError("expected free >= 1, addresses >= 1 and 0 < first <= longest")
        self._free = free
        self._first = first
        self._longest = longest
        self._forget_after = forget_after
        self._limit = addresses
        # Where attempts are being checked, of which there are no more than connections.
        self._busy: dict[str, _Address] = {}
        # The others, of which there may be many; the one that was quiet for longest comes first.
        self._quiet: dict[str, _Address] = {}

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._busy) + len(self._quiet)

    def admit(self, address: str, now: float) -> float:
        """Let an attempt be checked, or say after how many seconds to ask again.

        If 0 is returned, the attempt counts as being checked until `settle` is called.
        """
        key = address_key(address)
        one = self._busy.get(key) or self._quiet.get(key) or _Address()
        self._expire(one, now)
        failures = sum(one.failures.values())
        if failures >= self._free:
            wait = max(one.not_before - now, RETRY if one.checking else 0.0)
        else:
            wait = RETRY if failures + one.checking >= self._free else 0.0
        if wait > 0:
            return wait
        one.checking += 1
        self._quiet.pop(key, None)
        self._busy[key] = one
        return 0.0

    def settle(self, address: str, username: str | None, outcome: Outcome, now: float) -> None:
        """An attempt that was let through has ended.

        Args:
            address: where it came from.
            username: who it was for. A success excuses earlier failures of the same one only: who has an
                account does not thereby get more guesses at others'. None for the manager's password, and for
                names that nobody has.
            outcome: how it ended.
            now: seconds, of the same clock as always.
        """
        key = address_key(address)
        one = self._busy[key]
        self._expire(one, now)
        one.checking -= 1
        if outcome is Outcome.FAILED:
            name = username if username in one.failures or len(one.failures) < NAMES else None
            one.failures[name] = one.failures.get(name, 0) + 1
            one.last_failure = now
            beyond = sum(one.failures.values()) - self._free
            if beyond >= 0:
                # More than 60 doublings are longer than any limit, and some powers are no floats.
                one.not_before = now + min(self._first * 2.0 ** min(beyond, 60), self._longest)
        elif outcome is Outcome.SUCCEEDED:
            one.failures.pop(username, None)
        if not one.checking:
            del self._busy[key]
            if one.failures:
                self._remember(key, one)

    def failures(self, address: str, now: float) -> int:
        """How many failures count against an address."""
        key = address_key(address)
        one = self._busy.get(key) or self._quiet.get(key)
        if one is None:
            return 0
        self._expire(one, now)
        return sum(one.failures.values())

    def forget_expired(self, now: float) -> None:
        """Forget addresses that were quiet for long enough. Nothing but memory depends on it."""
        for key, one in list(self._quiet.items()):
            self._expire(one, now)
            if not one.failures:
                del self._quiet[key]

    def _expire(self, one: _Address, now: float) -> None:
        if now - one.last_failure >= self._forget_after:
            one.failures.clear()

    def _remember(self, key: str, one: _Address) -> None:
        self._quiet[key] = one
        if len(self._quiet) > self._limit:
            del self._quiet[next(iter(self._quiet))]


def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, or the 64 bits of an IPv6 address that name a network.

    Whoever has one IPv6 address usually has all of its network. Other texts count as themselves.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)
