r"""What a manager has to know of a packet, without reading the rest.

A packet's *envelope* are the keys that say where it goes. They may come in any order, and 1.0 peers write
``args`` before ``service``: the whole line has to be looked at before its first byte can be forwarded. That
is done here at the speed of C, without making values of the payload. Short lines are scanned at once
(`scan_line`); of long ones, each piece when it comes (`EnvelopeScanner`), so that nobody else has to wait.
Both come to the same answer: a line that passes is JSON to the last byte, as the standard library's ``json``
reads it, in UTF-8, and nested no deeper than `codec.MAX_DEPTH`.

The keys of the envelope may come once. Which of two a receiver believes depends on how it reads JSON: with
two uids, a service could answer a request that was sent to another one.
"""

from __future__ import annotations

import codecs
import enum
import json
import re
from typing import Any, Final

import msgspec

from .codec import MAX_DEPTH, STANDARD, TooDeep
from .identities import MANAGER
from .nesting import LONGEST_GAP, LongText, Malformed, Nesting, end_of_short_value
from .packets import DISCONNECT, NOTIFICATION_UID, PacketError
from .payloads import ATTACHED

__all__ = [
    "LONGEST_SHORT_LINE",
    "LONGEST_VALUE",
    "MOST_KEYS",
    "Envelope",
    "EnvelopeScanner",
    "Kind",
    "scan_line",
]

LONGEST_SHORT_LINE = 64 * 1024
"""Longer lines are scanned in pieces. Larger holds the loop longer, smaller costs more for each byte."""
LONGEST_VALUE = 4096
"""Bytes of JSON text of a key, and of a value of the envelope.

Names, attributes and uids are much shorter; each pending request keeps some of them.
"""
MOST_KEYS = 256
"""Keys of a packet, each of which costs some microseconds; those of 1.0 have seven at most."""


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


# What a key of the envelope may be, for error texts. It may be null, too, which is as good as nothing: not
# all languages can leave out a key. Not so the number of what follows, where a mistake costs too much.
_EXPECTED = {
    "service": "a string",
    "attribute": "a string",
    "uid": "a string",
    "requester": "a string",
    "error": "true or false",
    "more": "true or false",
    ATTACHED: "a number of bytes",
}
_MEANT = frozenset({*_EXPECTED, "result"})

_SPACE = re.compile(rb"[ \t\n\r]*+")
_INSIDE = rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_STRING = re.compile(rb'"' + _INSIDE + rb'"')
_BEGUN_STRING = re.compile(rb'"' + _INSIDE + rb"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
_WORD = re.compile(rb'[^ \t\n\r,:\[\]{}"]*+')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_WORDS = {b"true": True, b"false": False, b"null": None}
_NUMBERS = frozenset({b"NaN", b"Infinity", b"-Infinity"})
_COUNT = re.compile(rb"0|[1-9][0-9]{0,14}")
_ANOTHER = 0.5  # stands for numbers that no key of the envelope may have
_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE = b'":,{}'
_TYPES: dict[str, tuple[type, ...]] = {
    "service": (str, type(None)),
    "attribute": (str, type(None)),
    "uid": (str, type(None)),
    "requester": (str, type(None)),
    "error": (bool, type(None)),
    "more": (bool, type(None)),
    ATTACHED: (int,),
}
_SURELY_FEW = min(MAX_DEPTH, MOST_KEYS)
# Characters whose JSON text, without escapes of the form \\u, is not longer than allowed, nor is the line's.
_SURELY_SHORT = LONGEST_VALUE // 4 - 2


class _State(enum.Enum):
    """What is expected next."""

    OBJECT = "an object"
    FIRST_KEY = "a key or '}'"
    KEY = "a key"
    COLON = "':'"
    VALUE = "a value"
    LONG_VALUE = "the rest of a value"
    COMMA = "',' or '}'"
    END = "the end of the line"
    NO_OBJECT = "the rest of what is no object"


class EnvelopeScanner:
    """Scans one line that comes in pieces. What it keeps of them is bounded, however long the line is.

    Args:
        binary: whether the sender agreed on attachments. From others, the key that announces them is refused.
        stream: whether the sender agreed on several replies to one request. From others, ``"more": true`` is
            refused.
    """

    def __init__(self, *, binary: bool = False, stream: bool = False) -> None:
        self._binary = binary
        self._stream = stream
        self._state = _State.OBJECT
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        # What has not been understood yet, and where it stands in the line.
        self._text = b""
        self._start = 0
        self._key = ""
        self._keys = 0
        self._long_value: Nesting | LongText | None = None
        self._after_long_value = _State.COMMA
        self._found: dict[str, Any] = {}
        self._span: tuple[int, int] | None = None
        self._closing = 0
        # The first thing that is wrong with the packet although it is JSON.
        self._objection = ""

    @property
    def uid(self) -> str:
        """The packet's uid, as soon as it is known; empty until then."""
        uid = self._found.get("uid")
        return uid if isinstance(uid, str) else ""

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            PacketError: it is not JSON, whatever follows.
        """
        bad = self._bad_utf8(data)
        self._text += data if bad < 0 else data[:bad]
        try:
            self._read()
        except Malformed as error:
            raise self._malformed(str(error), error.offset) from None
        except TooDeep as error:
            raise PacketError(str(error), uid=self.uid, attached=None) from None
        if bad >= 0:
            raise self._malformed("expected UTF-8, got something else", len(self._text))

    def finish(self) -> Envelope:
        """The line is over.

        Raises:
            PacketError: it is no packet.
        """
        if self._utf8.getstate()[0]:
            raise self._malformed("expected UTF-8, got half a character", len(self._text))
        if self._state is _State.NO_OBJECT:
            raise _no_object(self._text)
        if self._state is not _State.END:
            raise self._malformed(f"expected {self._state.value}, got the end of the line", len(self._text))
        attached = self._found.get(ATTACHED, 0)
        if self._objection:
            raise PacketError(self._objection, uid=self.uid, attached=attached)
        try:
            return _classified(self._found, self._closing, self._span)
        except PacketError as error:
            error.attached = attached
            raise

    def _bad_utf8(self, data: bytes) -> int:
        """The index of what is not UTF-8, or -1."""
        begun = len(self._utf8.getstate()[0])
        if not begun and data.isascii():
            return -1
        try:
            self._utf8.decode(data)
        except UnicodeDecodeError as error:
            return max(error.start - begun, 0)
        return -1

    def _read(self) -> None:
        text, index = self._text, 0
        if self._state is _State.NO_OBJECT:
            self._text = text[: LONGEST_SHORT_LINE + 1]
            return
        while True:
            if self._state is _State.LONG_VALUE:
                assert self._long_value is not None
                after = self._long_value.feed(text, index)
                if after < 0:
                    # It keeps what it needs.
                    index = len(text)
                    break
                self._state, self._after_long_value = self._after_long_value, _State.COMMA
            else:
                space = _SPACE.match(text, index)
                assert space is not None
                index = space.end()
                if index == len(text) or (after := self._read_token(text, index)) < 0:
                    break
            index = after
        self._text = text[index:]
        self._start += index

    def _read_token(self, text: bytes, index: int) -> int:
        """Understand what stands at `index`. Return the index of what follows, or -1 if more is needed."""
        state = self._state
        if state is _State.VALUE:
            return self._read_value(text, index)
        sign = text[index]
        if state in (_State.KEY, _State.FIRST_KEY) and sign == _QUOTE:
            return self._read_key(text, index)
        if state in (_State.COMMA, _State.FIRST_KEY) and sign == _CLOSE:
            self._closing = self._start + index
            self._state = _State.END
        elif state is _State.COLON and sign == _COLON:
            self._state = _State.VALUE
        elif state is _State.COMMA and sign == _COMMA:
            self._state = _State.KEY
        elif state is _State.OBJECT:
            self._state = _State.FIRST_KEY if sign == _OPEN else _State.NO_OBJECT
            return index + 1 if sign == _OPEN else -1
        else:
            raise self._malformed(f"expected {state.value}, got {text[index : index + 1]!r}", index)
        return index + 1

    def _read_key(self, text: bytes, index: int) -> int:
        token = self._short_string(text, index)
        if token == b"":
            return -1
        self._keys += 1
        if self._keys > MOST_KEYS:
            raise self._malformed(f"expected at most {MOST_KEYS} keys, got more", index)
        self._state = _State.COLON
        if token is None:
            self._key = ""
            self._long_value, self._after_long_value = LongText(), _State.COLON
            self._state = _State.LONG_VALUE
            return index + 1
        self._key = key = _decoded(token)
        if key in _MEANT:
            if key in self._found:
                self._object(f"expected the key {key!r} once, got it again")
            elif key == ATTACHED and not self._binary:
                self._object(f"expected no attachments from a peer that did not agree on them, got {key!r}")
            self._found.setdefault(key, None)
        return index + len(token)

    def _read_value(self, text: bytes, index: int) -> int:
        sign = text[index]
        is_meant = self._key in _EXPECTED
        if sign not in b'"[{':
            return self._read_word(text, index)
        if is_meant and sign == _QUOTE:
            token = self._short_string(text, index)
            if token is not None:
                return self._take(_decoded(token), index, index + len(token)) if token else -1
            self._object(f"expected at most {LONGEST_VALUE} bytes as {self._key!r}, got more")
        elif is_meant:
            self._object(f"expected {_EXPECTED[self._key]} as {self._key!r}, got an array or an object")
        if (end := end_of_short_value(text, index, 1)) >= 0:
            self._state = _State.COMMA
            return end
        self._long_value = LongText() if sign == _QUOTE else Nesting(text[index : index + 1], 1)
        self._state = _State.LONG_VALUE
        return index + 1

    def _read_word(self, text: bytes, index: int) -> int:
        match = _WORD.match(text, index)
        assert match is not None
        word, end = match[0], match.end()
        if len(word) > LONGEST_GAP:
            raise self._malformed(
                f"expected a number of at most {LONGEST_GAP} bytes, got a longer one", index
            )
        if end == len(text):
            return -1
        if word in _WORDS:
            return self._take(_WORDS[word], index, end)
        if _COUNT.fullmatch(word):
            return self._take(int(word), index, end)
        if word in _NUMBERS or _NUMBER.fullmatch(word):
            return self._take(_ANOTHER, index, end)
        got = repr(word[:50]) if word else repr(text[index : index + 1])
        raise self._malformed(f"expected a value, got {got}", index)

    def _short_string(self, text: bytes, index: int) -> bytes | None:
        """The string that begins at `index`, with its quotes; empty if more is needed, None if it is long."""
        if match := _STRING.match(text, index):
            return match[0] if len(match[0]) <= LONGEST_VALUE else None
        begun = text[index : index + LONGEST_VALUE + 1]
        if not _BEGUN_STRING.match(begun):
            raise self._malformed(
                "expected a string, got one with a control character or a false escape in it", index
            )
        return b"" if len(begun) <= LONGEST_VALUE else None

    def _take(self, value: object, index: int, end: int) -> int:
        """Remember a value of the envelope."""
        self._state = _State.COMMA
        key = self._key
        if key not in _EXPECTED:
            return end
        if self._found[key] is not None:
            # It came twice, which is refused already.
            return end
        if type(value) not in _TYPES[key]:
            self._object(f"expected {_EXPECTED[key]} as {key!r}, got {_shown(value)}")
        elif isinstance(value, str) and not _is_text(value):
            self._object(f"expected text as {key!r}, got half of a surrogate pair in it")
        elif key == "more" and value and not self._stream:
            self._object("expected one reply from a peer that did not agree on several, got 'more'")
        else:
            self._found[key] = value
            if key == "requester":
                self._span = (self._start + index, self._start + end)
        return end

    def _object(self, text: str) -> None:
        self._objection = self._objection or text

    def _malformed(self, text: str, index: int) -> PacketError:
        return PacketError(
            f"{text}, at byte {self._start + index}", uid=self.uid, is_json=False, attached=None
        )


def _no_object(text: bytes) -> PacketError:
    """What is wrong with a line that does not begin as an object."""
    try:
        if len(text) <= LONGEST_SHORT_LINE:
            return PacketError(f"expected an object, got {_shown(STANDARD.decode(text))}")
        why = "it is too long"
    except ValueError as error:
        why = str(error)
    return PacketError(f"expected an object, got what is not JSON: {why}", is_json=False, attached=None)


def _classified(found: dict[str, Any], closing: int, span: tuple[int, int] | None) -> Envelope:
    """What the envelope makes the packet; the rules in their order.

    Raises:
        PacketError: a key is missing, or the uid is reserved.
    """
    service, attribute, uid = found.get("service"), found.get("attribute"), found.get("uid") or ""
    if "result" in found:
        if uid == NOTIFICATION_UID:
            kind = Kind.NOTIFICATION
            _need("service", service, "a notification", "")
        else:
            kind = Kind.REPLY
    elif service == MANAGER:
        kind = Kind.MANAGER_REQUEST
        _need("attribute", attribute, "a request", uid)
    elif attribute == DISCONNECT:
        kind = Kind.DISCONNECT
    else:
        kind = Kind.REQUEST
        _need("service", service, "a packet without 'result'", uid)
        _need("attribute", attribute, "a request", uid)
        if uid == NOTIFICATION_UID:
            raise PacketError(f"expected another uid for a request than {uid!r}, which is reserved")
    is_request = kind is Kind.REQUEST
    return Envelope(
        kind,
        service,
        attribute,
        uid,
        found.get("requester"),
        found.get("error") or False,
        found.get("more") or False,
        found.get(ATTACHED) or 0,
        closing if is_request else 0,
        span if is_request else None,
        ATTACHED in found,
    )


def _need(key: str, value: object, what: str, uid: str) -> None:
    if value is None:
        raise PacketError(f"expected the key {key!r} in {what}, got none", uid=uid)


def _decoded(token: bytes) -> str:
    """The text of a string that is known to be good."""
    if b"\\" not in token:
        return token[1:-1].decode("utf-8")
    text = json.loads(token)
    assert isinstance(text, str)
    return text


def _shown(value: object) -> str:
    """What JSON calls a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case list():
            return "an array"
    return "a number"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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


_read_keys = msgspec.json.Decoder(_Keys).decode
_UNSET: Final = msgspec.UNSET


def scan_line(line: bytes, *, binary: bool = False, stream: bool = False) -> Envelope:
    """Scan a line that is there as a whole, with or without its terminator.

    The arguments are as for `EnvelopeScanner`, and so is the answer; of almost every line of 1.0 it is found
    ten times faster.

    Raises:
        PacketError: it is no packet.
    """
    if len(line) <= LONGEST_SHORT_LINE and (envelope := _scan_ordinary_line(line, stream)) is not None:
        return envelope
    scanner = EnvelopeScanner(binary=binary, stream=stream)
    scanner.feed(line)
    return scanner.finish()


def _scan_ordinary_line(line: bytes, stream: bool) -> Envelope | None:
    """The envelope of a line that is good beyond doubt; None for others."""
    if (
        # Most lines have fewer bytes than there may be of anything.
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
    return Envelope(kind, service, attribute, uid, requester, error, more, 0, closing, None)


def _are_many(line: bytes) -> bool:
    """Whether arrays and objects may be nested too deeply, or the packet may have too many keys."""
    return line.count(b"[") + line.count(b"{") > MAX_DEPTH or line.count(b":") > MOST_KEYS


def _is_long(*values: str | None) -> bool:
    """Whether the JSON text of one of them may be longer than allowed."""
    return any(value is not None and len(value) > _SURELY_SHORT for value in values)
