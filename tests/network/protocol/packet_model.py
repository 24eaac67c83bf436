"""What an envelope is, said slowly: by the standard library, with a loop for each rule."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from armillary.network.protocol.codec import MAX_DEPTH
from armillary.network.protocol.packets import PacketError
from armillary.network.protocol.scanning import MOST_KEYS, Envelope, EnvelopeScanner, Kind

TEXTS = ("service", "attribute", "uid", "requester")
FLAGS = ("error", "more")
ONCE = {*TEXTS, *FLAGS, "bin1", "result", "stream"}


class Pairs(list[tuple[str, Any]]):
    """An object, every key of it."""


class Number(str):
    """A number, as it is written."""


_decode = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=Number
).decode


def depth_of(value: object) -> int:
    if isinstance(value, Pairs):
        return 1 + max((depth_of(item) for _, item in value), default=0)
    if isinstance(value, list):
        return 1 + max((depth_of(item) for item in value), default=0)
    return 0


def is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_count(number: str) -> bool:
    return number.isdigit() and len(number) <= 15 and (number == "0" or number[0] != "0")


def naive_envelope(line: bytes, *, binary: bool = False, stream: bool = False) -> Envelope | None:
    """The envelope without its positions; None if the line is to be refused."""
    try:
        packet = _decode(line.decode("utf-8"))
    except ValueError:
        return None
    if not isinstance(packet, Pairs) or len(packet) > MOST_KEYS or depth_of(packet) > MAX_DEPTH:
        return None
    keys = [key for key, _ in packet]
    if any(keys.count(key) > 1 for key in ONCE):
        return None
    found = dict(packet)
    texts = [found.get(key) for key in TEXTS]
    if not all(text is None or (type(text) is str and is_text(text)) for text in texts):
        return None
    if not all(found.get(key) in (None, True, False) for key in FLAGS):
        return None
    if found.get("more") and not stream:
        return None
    attached = found.get("bin1", Number("0"))
    if "bin1" in found and not binary:
        return None
    if type(attached) is not Number or not is_count(attached):
        return None
    room = found.get("stream")
    if room is not None and (type(room) is not Number or not stream or not is_count(room)):
        return None
    service, attribute, uid, requester = texts
    uid = uid or ""
    if "result" in found:
        kind = Kind.NOTIFICATION if uid == "notification" else Kind.REPLY
        if kind is Kind.NOTIFICATION and service is None:
            return None
    elif service == "Manager":
        kind = Kind.MANAGER_REQUEST
        if attribute is None:
            return None
    elif attribute == "__disconnect__":
        kind = Kind.DISCONNECT
    else:
        kind = Kind.REQUEST
        if service is None or attribute is None or uid == "notification":
            return None
    error, more = found.get("error") is True, found.get("more") is True
    announced = "bin1" in found
    takes_parts = kind is Kind.REQUEST and room is not None
    return Envelope(
        kind, service, attribute, uid, requester, error, more, int(attached), 0, None, announced, takes_parts
    )


def without_positions(envelope: Envelope) -> Envelope:
    return Envelope(
        envelope.kind,
        envelope.service,
        envelope.attribute,
        envelope.uid,
        envelope.requester,
        envelope.error,
        envelope.more,
        envelope.attached,
        0,
        None,
        envelope.has_attachments,
        envelope.takes_parts,
    )


def scanned(
    line: bytes, sizes: Iterable[int] = (), *, binary: bool = False, stream: bool = False
) -> Envelope | PacketError:
    """What the incremental scanner says of a line that comes in pieces of these sizes, and a last one."""
    scanner = EnvelopeScanner(binary=binary, stream=stream)
    start = 0
    try:
        for size in sizes:
            scanner.feed(line[start : start + size])
            start += size
        scanner.feed(line[start:])
        return scanner.finish()
    except PacketError as error:
        return error
