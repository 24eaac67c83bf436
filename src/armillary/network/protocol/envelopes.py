"""What a manager has to know of a packet, and what follows from it.

A packet's *envelope* are the keys that say where it goes. Each of them may come once. Which of two a receiver
believes depends on how it reads JSON: with two uids, a service could answer a request that was sent to
another one.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec

from .codec import json_type
from .identities import MANAGER
from .packets import DISCONNECT, NOTIFICATION_UID, PacketError
from .payloads import ATTACHED

__all__ = ["COUNT", "LONGEST_VALUE", "MOST_KEYS", "NO_VALUE", "Envelope", "EnvelopeKeys", "Kind"]

LONGEST_VALUE = 4096
"""Bytes of JSON text of a value of the envelope.

Names, attributes and uids are much shorter; each pending request keeps some of them.
"""
MOST_KEYS = 256
"""Keys of a packet, each of which costs some microseconds; those of 1.0 have seven at most."""
COUNT = re.compile(rb"0|[1-9][0-9]{0,14}")
"""The JSON text of a number of something."""
NO_VALUE = 0.5
"""Stands for all numbers that no key of the envelope may have."""


class Kind(enum.Enum):
    """What a packet means to a manager."""

    REQUEST = "request"
    """For a service."""
    MANAGER_REQUEST = "manager request"
    """For the manager itself."""
    DISCONNECT = "disconnect"
    """The sender wants to be disconnected."""
    REPLY = "reply"
    """A result or an error, for who has asked."""
    NOTIFICATION = "notification"
    """For everybody who is linked with the service."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What a manager knows of a packet."""

    kind: Kind
    service: str | None
    """Always there in requests and notifications."""
    attribute: str | None
    """Always there in requests."""
    uid: str
    """Empty if the packet has none."""
    requester: str | None
    """Whom a reply is for; None if it does not say, and there is nobody to forward it to then."""
    error: bool
    """Whether it says that something failed."""
    more: bool
    """Whether more replies to the same request follow."""
    attached: int
    """How many raw bytes follow the line."""
    closing: int
    """Of a request: the index of the closing brace, in the line."""
    requester_span: tuple[int, int] | None
    """Of a request: where the value of a `requester` stands that its sender has made up."""
    has_attachments: bool = False
    """Whether values are attached to it; they may be of no bytes together."""
    takes_parts: bool = False
    """Of a request: whether its sender takes several replies to it: items of an iteration, and progress."""


# What a key of the envelope may be, for people and for programs. It may be null, too, which is as good as
# nothing: not all languages can leave out a key. Not so the number of what follows, where a mistake costs too
# much.
_EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "service": ("a string", (str, type(None))),
    "attribute": ("a string", (str, type(None))),
    "uid": ("a string", (str, type(None))),
    "requester": ("a string", (str, type(None))),
    "error": ("true or false", (bool, type(None))),
    "more": ("true or false", (bool, type(None))),
    "stream": ("a number of items", (int, type(None))),
    ATTACHED: ("a number of bytes", (int,)),
}


class EnvelopeKeys:
    """The keys of one packet's envelope, as they are found. Keys that mean nothing to a manager are ignored.

    What is wrong with them is kept, and said when all of them have been seen: the uid may come last.

    Args:
        binary: whether the sender agreed on attachments. From others, the key that announces them is refused.
        stream: whether the sender agreed on several replies to one request. From others, ``"more": true`` and
            ``"stream"`` are refused.
    """

    def __init__(self, *, binary: bool, stream: bool) -> None:
        self._binary = binary
        self._stream = stream
        self._found: dict[str, Any] = {}
        self._requester_span: tuple[int, int] | None = None
        self._objection = ""

    @property
    def uid(self) -> str:
        """The packet's uid, as soon as it is known; empty until then."""
        uid = self._found.get("uid")
        return uid if isinstance(uid, str) else ""

    @property
    def requester(self) -> str:
        """The packet's requester, likewise."""
        requester = self._found.get("requester")
        return requester if isinstance(requester, str) else ""

    def begin(self, key: str) -> bool:
        """There is such a key. Return whether its value matters."""
        if key not in _EXPECTED and key != "result":
            return False
        if key in self._found:
            self.object(f"expected the key {key!r} once, got it again")
        elif key == ATTACHED and not self._binary:
            self.object(f"expected no attachments from a peer that did not agree on them, got {key!r}")
        self._found.setdefault(key, None)
        return key in _EXPECTED

    def take(self, key: str, value: object, start: int, stop: int) -> None:
        """It has this value, which stands from `start` to `stop`."""
        if self._found[key] is not None:
            # It came twice, which is refused already.
            return
        expected, types = _EXPECTED[key]
        if type(value) not in types:
            self.object(f"expected {expected} as {key!r}, got {json_type(value)}")
        elif isinstance(value, str) and not _is_text(value):
            self.object(f"expected text as {key!r}, got half of a surrogate pair in it")
        elif key == "more" and value and not self._stream:
            self.object("expected one reply from a peer that did not agree on several, got 'more'")
        elif key == "stream" and value is not None and not self._stream:
            self.object("expected no 'stream' from a peer that did not agree on several replies, got it")
        else:
            self._found[key] = value
            if key == "requester":
                self._requester_span = (start, stop)

    def object(self, text: str) -> None:
        """Something is wrong with the packet; what was said first counts."""
        self._objection = self._objection or text

    def envelope(self, closing: int) -> Envelope:
        """The envelope, when there are no more keys.

        Args:
            closing: the index of the closing brace.

        Raises:
            PacketError: it is no packet.
        """
        attached = self._found.get(ATTACHED, 0)
        if self._objection:
            raise PacketError(self._objection, uid=self.uid, attached=attached)
        try:
            kind = self._kind()
        except PacketError as error:
            error.attached = attached
            raise
        found, is_request = self._found.get, kind is Kind.REQUEST
        return Envelope(
            kind,
            found("service"),
            found("attribute"),
            self.uid,
            found("requester"),
            found("error") is True,
            found("more") is True,
            attached,
            closing if is_request else 0,
            self._requester_span if is_request else None,
            ATTACHED in self._found,
            is_request and found("stream") is not None,
        )

    def _kind(self) -> Kind:
        """What the keys make the packet. The first rule that fits decides."""
        if "result" in self._found:
            if self.uid == NOTIFICATION_UID:
                self._need("service", "a notification")
                return Kind.NOTIFICATION
            return Kind.REPLY
        if self._found.get("service") == MANAGER:
            self._need("attribute", "a request")
            return Kind.MANAGER_REQUEST
        if self._found.get("attribute") == DISCONNECT:
            return Kind.DISCONNECT
        self._need("service", "a packet without 'result'")
        self._need("attribute", "a request")
        if self.uid == NOTIFICATION_UID:
            raise PacketError(f"expected another uid for a request than {self.uid!r}, which is reserved")
        return Kind.REQUEST

    def _need(self, key: str, what: str) -> None:
        if self._found.get(key) is None:
            uid = "" if self.uid == NOTIFICATION_UID else self.uid
            raise PacketError(f"expected the key {key!r} in {what}, got none", uid=uid)


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
