"""What a manager and its devices tell each other beyond 1.0: small requests that nobody answers.

================= =================== ===================================== ========
word              from, to            arguments                             feature
================= =================== ===================================== ========
``__accepted__``  manager to device   the device's network name             ``ping``
``__ping__``      manager to device                                         ``ping``
``__pong__``      device to manager                                         ``ping``
``__lock_lost__`` manager to client   the service, and why                  ``ping``
``__unlinked__``  manager to client   the service, and why                  ``ping``
``__cancel__``    client to manager   the uid                               ``cancel``
``__cancel__``    manager to service  the requester, the uid                ``cancel``
``__credit__``    client to manager   the uid, how many items more          ``stream``
``__credit__``    manager to service  the requester, the uid, and how many  ``stream``
================= =================== ===================================== ========

Each is said only to who has agreed on its feature. From a device it is a request to ``Manager``, from a
manager it is one without a service, as its questions in the handshake are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .codec import json_type
from .features import CANCEL, PING, STREAM
from .packets import from_manager, request

__all__ = [
    "ACCEPTED",
    "CANCEL_CALL",
    "CREDIT",
    "LOCK_LOST",
    "MOST_CREDIT",
    "PING_DEVICE",
    "PONG",
    "UNLINKED",
    "WORDS",
    "CallWord",
    "call_word",
    "tell_device",
    "tell_manager",
]

ACCEPTED = "__accepted__"
"""The device was let in."""
PING_DEVICE = "__ping__"
"""Say something, if you are alive."""
PONG = "__pong__"
"""Something that is said to somebody who wants to hear something."""
LOCK_LOST = "__lock_lost__"
"""The client does not hold this lock any more, though it has not released it."""
UNLINKED = "__unlinked__"
"""The client is not linked with this service any more, though it has not unlinked: the service has gone."""
CANCEL_CALL = "__cancel__"
"""Nobody waits for the reply to this request any more."""
CREDIT = "__credit__"
"""The client has room for so many items more of this iteration."""

WORDS = {
    ACCEPTED: PING,
    PING_DEVICE: PING,
    PONG: PING,
    LOCK_LOST: PING,
    UNLINKED: PING,
    CANCEL_CALL: CANCEL,
    CREDIT: STREAM,
}
"""The words, each with the feature that it belongs to."""

MOST_CREDIT = 1_000_000
"""How many items a client may ask for at once.

More would let a service fill everybody's memory with what one client does not read; fewer makes a client that
reads in large portions wait for the service more often.
"""


class CallWord(NamedTuple):
    """What a word says of one call."""

    requester: str
    """The client's network name; empty in what the client itself says."""
    uid: str
    number: int
    """Of a credit."""


def tell_manager(word: str, *args: object) -> bytes:
    """The packet by which a device tells its manager something."""
    return request("Manager", word, args)


def tell_device(manager: str, word: str, *args: object) -> bytes:
    """The packet by which a manager, which has this full name, tells a device something."""
    return from_manager(manager, word, args, {})


def call_word(word: str, args: Sequence[object], *, has_requester: bool) -> CallWord:
    """What ``__cancel__`` or ``__credit__`` says.

    Args:
        word: which of the two.
        args: of the packet.
        has_requester: whether a manager says it.

    Raises:
        ValueError: it makes no sense.
    """
    names = args[: 1 + has_requester]
    rest = args[1 + has_requester :]
    if len(names) < 1 + has_requester or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"expected {'a requester and ' * has_requester}a uid as arguments of {word!r}")
    number = 0
    if word == CREDIT:
        given = rest[0] if rest else None
        if type(given) is not int:
            raise ValueError(f"expected a number of items in {word!r}, got {json_type(given)}")
        if not 1 <= given <= MOST_CREDIT:
            raise ValueError(f"expected 1 to {MOST_CREDIT} items in {word!r}, got {given}")
        number = given
    return CallWord(str(names[0]) if has_requester else "", str(names[-1]), number)
