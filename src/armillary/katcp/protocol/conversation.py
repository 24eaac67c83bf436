"""A client's side of one connection: which reply belongs to which request.

Pure: messages in, bytes out. The rules are those of the KATCP guidelines, revision 5, section 3: every
request gets one reply of its name and message id, preceded by the informs that belong to it. A server without
message ids (flag I) is asked one thing at a time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from armillary.errors import PeerError

from .messages import (
    MAX_MID,
    FailReply,
    InvalidReply,
    Message,
    MessageType,
    Reply,
    WireMessage,
    line,
    wire_name,
)
from .values import TypeRegistry

__all__ = ["Conversation", "MessageIds", "Pending", "ProtocolError"]

_REQUEST = MessageType.REQUEST
_REPLY = MessageType.REPLY
_INFORM = MessageType.INFORM
_VERSION = re.compile(r"(\d+)\.(\d+)(?:-(.+))?")


class ProtocolError(PeerError, ValueError):
    """The server does not speak a version of KATCP that we do. ``version`` holds what it said."""

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version


class MessageIds(Iterator[int]):
    """Message ids: 1, 2, ... 2**31 - 1, 1, ... never one that is in use, on however many connections."""

    def __init__(self, start: int = 1) -> None:
        self._next = start
        self._in_use: set[int] = set()

    def __next__(self) -> int:
        while self._next in self._in_use:
            self._advance()
        mid = self._next
        self._in_use.add(mid)
        self._advance()
        return mid

    def release(self, mid: int) -> None:
        """Let an id be used again, when its turn comes."""
        self._in_use.discard(mid)

    def _advance(self) -> None:
        self._next = self._next % MAX_MID + 1


class Pending:
    """A request without its reply."""

    __slots__ = ("arguments", "informs", "is_abandoned", "mid", "name", "on_done", "position", "reply")

    def __init__(self, name: bytes, arguments: list[bytes]) -> None:
        self.name = name
        self.arguments = arguments
        self.mid: int | None = None
        self.informs: list[WireMessage] = []
        self.reply: WireMessage | None = None
        """The reply, once it is there."""
        self.position: int | None = None
        """Where the request begins in the stream of bytes sent; None until it was given out."""
        self.is_abandoned = False
        """Nobody waits for the reply any more."""
        self.on_done: Callable[[], object] | None = None
        """Called when the reply is there."""

    def result(self) -> Reply:
        """What the reply says.

        Raises:
            FailReply: it says ``fail``.
            InvalidReply: it says anything else but ``ok``.
        """
        return Reply(self.check(), [Message.from_wire(inform) for inform in self.informs])

    def check(self) -> list[bytes]:
        """As `result`, without looking at the informs: there may be thousands."""
        assert self.reply is not None
        code, *rest = self.reply.arguments or [b""]
        if code == b"ok":
            return rest
        text = rest[0].decode("utf-8", "replace") if rest else ""
        raise (FailReply if code == b"fail" else InvalidReply)(text)


class Conversation:
    """Requests out, replies in, on one connection.

    Args:
        mids: where message ids come from; shared by the connections of a client that reconnects, so that a
            late reply can never be taken for another request's.
        types: how arguments are encoded.
    """

    def __init__(self, mids: MessageIds, types: TypeRegistry) -> None:
        self._mids = mids
        self._types = types
        self._by_mid: dict[int, Pending] = {}
        self._owed: set[int] = set()
        self._serial: deque[Pending] = deque()
        self._ready: deque[Pending] = deque()
        self.flags: frozenset[str] | None = None
        """The letters of ``katcp-protocol``, once the server has said them."""
        self.versions: dict[str, tuple[str, ...]] = {}
        """What the server said in ``#version-connect``: name, then version and build state."""
        self.unexpected = 0
        """Replies that belong to no request, late ones to abandoned requests included."""
        self.on_stray: Callable[[WireMessage], object] | None = None
        """Called with what belongs to nothing: replies and informs of no request of ours, requests."""

    @property
    def pending(self) -> int:
        """Requests without a reply."""
        return len(self._by_mid) + len(self._serial)

    def start(self, name: str, arguments: Iterable[object]) -> Pending:
        """Begin a request. What is to be sent for it comes out of `outgoing`.

        Raises:
            ValueError: the name is outside its grammar.
            TypeError: an argument has no KATCP type.
        """
        encode = self._types.encode
        pending = Pending(wire_name(name), [encode(argument) for argument in arguments])
        if self.flags is not None and "I" in self.flags:
            pending.mid = next(self._mids)
            self._by_mid[pending.mid] = pending
            self._ready.append(pending)
        else:
            self._serial.append(pending)
            if len(self._serial) == 1:
                self._ready.append(pending)
        return pending

    def outgoing(self) -> Iterator[tuple[Pending, bytes]]:
        """Take the requests that are to be sent now, with their bytes."""
        while self._ready:
            pending = self._ready.popleft()
            yield pending, line(_REQUEST, pending.name, pending.mid, pending.arguments)

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for this reply any more; when it comes it is dropped."""
        if pending.reply is not None:
            return
        pending.is_abandoned = True
        if pending.mid is not None:
            # The id stays in use until the late reply comes, which then finds no other request. A server
            # that never answers costs one integer for each request given up.
            self._by_mid.pop(pending.mid, None)
            self._owed.add(pending.mid)
        elif pending in self._serial and self._serial[0] is not pending:
            self._serial.remove(pending)

    def receive(self, message: WireMessage) -> WireMessage | None:
        """Take a message. Return it if it is an inform that belongs to no request.

        Raises:
            ProtocolError: the server speaks another protocol.
        """
        if message.mid is not None:
            self._receive_with_mid(message)
            return None
        if message.mtype is _INFORM:
            if self._serial and self._serial[0].name == message.name:
                self._serial[0].informs.append(message)
                return None
            if message.name == b"version-connect":
                self._receive_version(message)
            return message
        if message.mtype is _REPLY:
            if self._serial and self._serial[0].name == message.name:
                pending = self._serial.popleft()
                if self._serial:
                    self._ready.append(self._serial[0])
                self._finish(pending, message)
            else:
                self.unexpected += 1
                self._stray(message)
        else:
            self._stray(message)
        return None

    def take_pending(self) -> list[Pending]:
        """The connection is lost: take every request that will get no reply, in order."""
        lost = [*self._by_mid.values(), *self._serial]
        for mid in (*self._by_mid, *self._owed):
            self._mids.release(mid)
        self._owed.clear()
        self._by_mid.clear()
        self._serial.clear()
        self._ready.clear()
        return lost

    def _receive_with_mid(self, message: WireMessage) -> None:
        assert message.mid is not None
        pending = self._by_mid.get(message.mid)
        if message.mtype is _INFORM:
            if pending is not None:
                pending.informs.append(message)
            else:
                self._stray(message)
        elif message.mtype is _REPLY:
            if pending is None:
                self.unexpected += 1
                self._stray(message)
            else:
                del self._by_mid[message.mid]
                self._finish(pending, message)
            self._owed.discard(message.mid)
            self._mids.release(message.mid)
        else:
            self._stray(message)

    def _finish(self, pending: Pending, reply: WireMessage) -> None:
        pending.reply = reply
        if pending.is_abandoned:
            self.unexpected += 1
        elif pending.on_done is not None:
            pending.on_done()

    def _stray(self, message: WireMessage) -> None:
        if self.on_stray is not None:
            self.on_stray(message)

    def _receive_version(self, message: WireMessage) -> None:
        name, *versions = [argument.decode("utf-8", "replace") for argument in message.arguments] or [""]
        self.versions[name] = tuple(versions)
        if name == "katcp-protocol" and self.flags is None:  # what it says later changes nothing under way
            self.flags = parse_protocol(versions[0] if versions else "")


def parse_protocol(version: str) -> frozenset[str]:
    """The flags of a ``katcp-protocol`` version such as ``5.1-MIB``.

    Raises:
        ProtocolError: it is no version, or one whose major number is not 5.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ProtocolError(f"Unparsable katcp-protocol {version!r}", version)
    major, minor, flags = match.groups()
    if int(major) != 5:
        raise ProtocolError(f"Unknown protocol version {major}.{minor}", version)
    return frozenset(flags or "")
