"""What armillary's manager and devices can do beyond 1.0, and how they agree on it.

The manager offers names in the keyword arguments of its ``identity`` request, which 1.0 devices ignore. A
device that knows some of them says so in its answer, in a key that a 1.0 manager ignores. What is in both is
agreed for the life of the connection; a peer never sees anything of what it has not agreed to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = [
    "ALL_FEATURES",
    "BINARY",
    "CANCEL",
    "EXCEPTION",
    "FEATURES",
    "PING",
    "STATUS",
    "STREAM",
    "agree",
    "announced",
    "announcement",
]

# The key, in the request's keyword arguments and in the answer.
FEATURES = "features"

BINARY = "bin1"
"""Attachments: raw bytes that follow a packet's line (`payloads` says what they are)."""
PING = "ping"
"""The manager may ask whether the device is alive, and locks are held under a lease."""
CANCEL = "cancel"
"""A call can be cancelled while it runs."""
STREAM = "stream"
"""A reply with ``"more": true`` is one of several: items of an iteration, or progress."""
EXCEPTION = "exception"
"""An error packet may say which class of exception was raised."""
STATUS = "status"
"""The manager answers ``status`` (`protocol.status`), which for one of 1.0 is a request of administrators."""

ALL_FEATURES: frozenset[str] = frozenset({BINARY, PING, CANCEL, STREAM, EXCEPTION, STATUS})


def announcement(features: Iterable[str]) -> dict[str, list[str]]:
    """What says `features`: the request's keyword arguments, or what is added to the answer.

    Empty if there are none, so that nothing is said to whom there is nothing to say.
    """
    names = sorted(features)
    return {FEATURES: names} if names else {}


def announced(told: object) -> frozenset[str]:
    """The features that the peer named and that are known here.

    Whatever else stands in their place is no error: it is a name of tomorrow, or a 1.0 peer's own key.

    Args:
        told: the keyword arguments of an ``identity`` request, or the answer to it.
    """
    names = told.get(FEATURES) if isinstance(told, Mapping) else None
    if not isinstance(names, list):
        return frozenset()
    return ALL_FEATURES.intersection(name for name in names if isinstance(name, str))


def agree(told: object, ours: Iterable[str] = ALL_FEATURES) -> frozenset[str]:
    """The features that the peer named and that we want too; the arguments are as for `announced`."""
    return announced(told).intersection(ours)
