r"""KATCP messages: one line of type, name, optional message id, and arguments.

Grammar and escapes are those of the KATCP guidelines, revision 5, sections 3 and 4; lines are parsed and
escaped by the ``katcp-codec`` package. Inside armillary the codec's own message class travels
(`WireMessage`); `Message` is what users see, made only where a user looks.
"""

from __future__ import annotations

import functools
import re
from typing import ClassVar, NamedTuple, Self

from katcp_codec import Message as WireMessage
from katcp_codec import MessageType, Parser

from .values import STANDARD_TYPES, KatcpSyntaxError, TypeRegistry

__all__ = [
    "DEFAULT_LIMIT",
    "FAIL",
    "INVALID",
    "MAX_MID",
    "OK",
    "FailReply",
    "InvalidReply",
    "Message",
    "MessageType",
    "Parser",
    "Reply",
    "WireMessage",
    "escape",
    "line",
    "line_tail",
    "unescape",
    "wire_name",
]

# 16 MiB: what the other implementations accept. A smaller limit refuses long bulk subscriptions (20 bytes a
# sensor name); a larger one lets a peer make this program hold more of an unfinished line.
DEFAULT_LIMIT = 16 * 1024**2
MAX_MID = 2**31 - 1

OK = b"ok"
FAIL = b"fail"
INVALID = b"invalid"

_INFORM = MessageType.INFORM
# What cannot stand in an argument as it is (guidelines section 3.2).
_SPECIAL = re.compile(rb"[\\ \0\n\r\x1b\t]")
_ESCAPED = re.compile(rb"\\(.?)", re.DOTALL)
_BY_CODE = {
    b"\\": b"\\",
    b"_": b" ",
    b"0": b"\0",
    b"n": b"\n",
    b"r": b"\r",
    b"e": b"\x1b",
    b"t": b"\t",
    b"@": b"",
}


class FailReply(Exception):
    """A valid request could not be done. Raise it in a handler to answer ``!name fail text``.

    A client raises it for such an answer. The text is ``str(error)``.
    """


class InvalidReply(Exception):
    """A request was malformed or unknown. Raise it in a handler to answer ``!name invalid text``.

    A client raises it for such an answer, and for one whose first argument is no known return code.
    """


class Message:
    """One KATCP message.

    Arguments are given as Python values, encoded by `types`, and kept as bytes.

    Args:
        mtype: request, reply or inform.
        name: a letter, then letters, digits and dashes, all ASCII.
        arguments: the arguments.
        mid: the message id, 1 to 2**31 - 1, or None.

    Raises:
        ValueError: the name or the message id is outside its grammar.
        TypeError: an argument has no KATCP type.
    """

    __slots__ = ("arguments", "mid", "mtype", "name")
    __hash__ = None  # type: ignore[assignment]  # mutable, compared by value

    mtype: MessageType
    name: str
    arguments: list[bytes]
    mid: int | None
    types: ClassVar[TypeRegistry] = STANDARD_TYPES
    """Where the arguments' types are looked up: a subclass may know more of them."""

    def __init__(self, mtype: MessageType, name: str, *arguments: object, mid: int | None = None) -> None:
        wire_name(name)
        if mid is not None and not 1 <= mid <= MAX_MID:
            raise ValueError(f"expected a message id from 1 to {MAX_MID}, got {mid}")
        encode = self.types.encode
        self.mtype = mtype
        self.name = name
        self.arguments = [encode(argument) for argument in arguments]
        self.mid = mid

    @classmethod
    def request(cls, name: str, *arguments: object, mid: int | None = None) -> Self:
        """A request, ``?name``."""
        return cls(MessageType.REQUEST, name, *arguments, mid=mid)

    @classmethod
    def reply(cls, name: str, *arguments: object, mid: int | None = None) -> Self:
        """A reply, ``!name``."""
        return cls(MessageType.REPLY, name, *arguments, mid=mid)

    @classmethod
    def inform(cls, name: str, *arguments: object, mid: int | None = None) -> Self:
        """An inform, ``#name``."""
        return cls(MessageType.INFORM, name, *arguments, mid=mid)

    @classmethod
    def from_wire(cls, wire: WireMessage) -> Self:
        """The message that the codec parsed."""
        message = cls.__new__(cls)
        message.mtype = wire.mtype
        message.name = wire.name.decode("ascii")
        message.arguments = wire.arguments
        message.mid = wire.mid
        return message

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        r"""Parse one line with its terminator (``\n``, ``\r``, or several of them, as in ``\r\n``).

        Raises:
            KatcpSyntaxError: it is not exactly one well-formed message.
        """
        if raw[-1:] not in (b"\n", b"\r"):
            raise KatcpSyntaxError("expected a line with its terminator, got no newline at its end", raw)
        text = raw.rstrip(b"\r\n")
        if b"\n" in text or b"\r" in text:
            raise KatcpSyntaxError("expected one line, got a terminator inside it", raw)
        parsed = Parser(len(raw)).append(raw)
        if len(parsed) != 1:
            raise KatcpSyntaxError(f"expected one message, got {len(parsed)}", raw)
        message = parsed[0]
        if isinstance(message, ValueError):
            raise KatcpSyntaxError(str(message), raw) from message
        return cls.from_wire(message)

    def reply_ok(self) -> bool:
        """Whether this is a reply that says ``ok``."""
        return self.mtype is MessageType.REPLY and self.arguments[:1] == [OK]

    def __bytes__(self) -> bytes:
        return line(self.mtype, self.name.encode("ascii"), self.mid, self.arguments)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (
            self.mtype is other.mtype
            and self.name == other.name
            and self.arguments == other.arguments
            and self.mid == other.mid
        )

    def __repr__(self) -> str:
        arguments = "".join(f", {argument!r}" for argument in self.arguments)
        mid = "" if self.mid is None else f", mid={self.mid}"
        return f"Message(Message.Type.{self.mtype.name}, {self.name!r}{arguments}{mid})"

    Type = MessageType
    OK = OK
    FAIL = FAIL
    INVALID = INVALID


class Reply(NamedTuple):
    """What a request that succeeded brought: unpack it as ``arguments, informs``."""

    arguments: list[bytes]
    """The reply's arguments after ``ok``."""
    informs: list[Message]
    """The informs that belong to the request, in order of arrival."""


def line(mtype: MessageType, name: bytes, mid: int | None, arguments: list[bytes]) -> bytes:
    """The bytes of a message whose name and message id are known to be good."""
    return bytes(WireMessage(mtype, name, mid, arguments, False))


# A program uses few names, many times. More keeps more of them in memory; with fewer, those that were
# forgotten are checked again at each use, which takes two microseconds.
@functools.lru_cache(1024)
def wire_name(name: str) -> bytes:
    """The bytes of a message name.

    Raises:
        ValueError: the name is outside its grammar.
    """
    try:
        return WireMessage(_INFORM, name.encode("ascii"), None, []).name
    except ValueError:
        raise ValueError(f"expected a name of letters, digits and dashes, got {name!r}") from None


def escape(argument: bytes) -> bytes:
    """An argument as it stands in a line. Most need no escape, and are returned as they are."""
    if argument and _SPECIAL.search(argument) is None:
        return argument
    return line_tail([argument])[1:-1]


def unescape(text: bytes) -> bytes:
    """The argument that stands as `text` in a line. What needs an escape and has none is left as it is.

    Raises:
        KatcpSyntaxError: a backslash with no code, or with one that means nothing.
    """

    def meant(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code not in _BY_CODE:
            what = f"{code!r} after a backslash" if code else "a backslash at the end"
            raise KatcpSyntaxError(f"expected an escape, got {what}", text)
        return _BY_CODE[code]

    return _ESCAPED.sub(meant, text)


def line_tail(arguments: list[bytes]) -> bytes:
    """The bytes of a message after its name and message id: the same for every receiver."""
    return bytes(WireMessage(_INFORM, b"x", None, arguments, False))[2:]
