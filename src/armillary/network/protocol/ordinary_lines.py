"""The envelope of an ordinary line, all at once: most packets are short, and have nothing odd about them.

Whatever is not plainly good is left to `scanning`, whose answer this one is, in a tenth of its time.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .codec import MAX_DEPTH
from .envelopes import COUNT, LONGEST_VALUE, MOST_KEYS, Envelope, Kind
from .identities import MANAGER
from .packets import DISCONNECT, NOTIFICATION_UID

__all__ = ["scan_ordinary_line"]

# Shorter lines have less of anything than there may be.
_SURELY_FEW = min(MAX_DEPTH, MOST_KEYS)
# Characters whose JSON text is surely not too long, as it has no escapes of the form \\u.
_SURELY_SHORT = LONGEST_VALUE // 4 - 2
_UNSET: Final = msgspec.UNSET


class _Keys(msgspec.Struct, gc=False):
    """The envelope as msgspec reads it; of a key that comes twice, the last one."""

    service: str | msgspec.UnsetType | None = msgspec.UNSET
    attribute: str | msgspec.UnsetType | None = msgspec.UNSET
    uid: str | msgspec.UnsetType | None = msgspec.UNSET
    requester: str | msgspec.UnsetType | None = msgspec.UNSET
    error: bool | msgspec.UnsetType | None = msgspec.UNSET
    more: bool | msgspec.UnsetType | None = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    bin1: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_read_keys = msgspec.json.Decoder(_Keys).decode


def scan_ordinary_line(line: bytes, stream: bool) -> Envelope | None:
    """The envelope of a line that is good beyond doubt, and None for others.

    Args:
        line: with or without its terminator; not longer than what may be looked at at once.
        stream: whether the sender agreed on several replies to one request.
    """
    if (
        (len(line) > _SURELY_FEW and _are_many(line))
        # A key that is written with escapes may come twice without being counted.
        or line.find(b"\\u") >= 0
        # msgspec skips strings without a look at their characters.
        or not (line.isascii() or _is_utf8(line))
    ):
        return None
    try:
        keys = _read_keys(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    service = None if keys.service is _UNSET else keys.service
    attribute = None if keys.attribute is _UNSET else keys.attribute
    uid = "" if keys.uid is _UNSET or keys.uid is None else keys.uid
    requester = None if keys.requester is _UNSET else keys.requester
    has_result = keys.result is not _UNSET
    if (
        (keys.service is not _UNSET and line.count(b'"service"') != 1)
        or (keys.attribute is not _UNSET and line.count(b'"attribute"') != 1)
        or (keys.uid is not _UNSET and line.count(b'"uid"') != 1)
        or (keys.requester is not _UNSET and line.count(b'"requester"') != 1)
        or (has_result and line.count(b'"result"') != 1)
        or (keys.error is not _UNSET and line.count(b'"error"') != 1)
        or (keys.more is not _UNSET and (line.count(b'"more"') != 1 or not stream))
        or keys.bin1 is not _UNSET
        or (isinstance(keys.stream, msgspec.Raw) and not _is_room(line, keys.stream, stream))
        or (len(line) > _SURELY_SHORT and _is_long(service, attribute, uid, requester))
    ):
        return None
    closing = 0
    if has_result:
        kind = Kind.NOTIFICATION if uid == NOTIFICATION_UID else Kind.REPLY
        if kind is Kind.NOTIFICATION and service is None:
            return None
    elif service == MANAGER:
        kind = Kind.MANAGER_REQUEST
        if attribute is None:
            return None
    elif attribute == DISCONNECT:
        kind = Kind.DISCONNECT
    else:
        kind = Kind.REQUEST
        # Where it stands, if it is there, takes a closer look.
        if service is None or attribute is None or uid == NOTIFICATION_UID or keys.requester is not _UNSET:
            return None
        closing = line.rfind(b"}")
    error, more = keys.error is True, keys.more is True
    takes_parts = kind is Kind.REQUEST and keys.stream is not _UNSET
    return Envelope(
        kind, service, attribute, uid, requester, error, more, 0, closing, None, takes_parts=takes_parts
    )


def _are_many(line: bytes) -> bool:
    """Whether arrays and objects may be nested too deeply, or the packet may have too many keys."""
    return line.count(b"[") + line.count(b"{") > MAX_DEPTH or line.count(b":") > MOST_KEYS


def _is_room(line: bytes, value: msgspec.Raw, stream: bool) -> bool:
    """Whether this is surely a number of items, from somebody who may say one."""
    return stream and COUNT.fullmatch(value) is not None and line.count(b'"stream"') == 1


def _is_long(*values: str | None) -> bool:
    """Whether the JSON text of one of them may be longer than allowed."""
    return any(value is not None and len(value) > _SURELY_SHORT for value in values)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
