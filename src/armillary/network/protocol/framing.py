"""A manager's side of a connection, as bytes: lines while a peer introduces itself, packets afterwards.

A packet is read whole before it goes anywhere, because what says where may stand at its end. It is kept in
the pieces in which it came, and forwarded in pieces, so that nothing large is copied or looked at in one go.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from armillary._wire.lines import LineTooLong

from .features import BINARY, STREAM
from .packets import TERMINATOR, PacketError
from .scanning import LONGEST_SHORT_LINE, Envelope, EnvelopeScanner, scan_line

__all__ = ["DEFAULT_LIMIT", "Packet", "PacketReader", "Unreadable"]

DEFAULT_LIMIT = 512 * 1024**2
"""The longest line, and the most that may be attached to it, in bytes.

Smaller refuses packets that managers of 1.0, which have no limit, forward: there are some of 110 MB. Larger
lets one peer make the manager hold more.
"""
# Smaller pieces of a long line are put together. Larger copies more; smaller costs memory and calls for each.
_SMALL_PIECE = 16 * 1024


class Packet(msgspec.Struct, eq=False):
    """One packet, not read but understood."""

    envelope: Envelope
    """Where it goes."""
    pieces: list[bytes]
    """The line with its terminator."""
    attachments: list[bytes]
    """The raw bytes that followed it, in any pieces.

    Empty if nothing was attached. Of what was attached and has no bytes, there is one piece without any.
    """

    @property
    def line(self) -> bytes:
        """The line in one piece: a copy, if it is long."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes, attachments included."""
        return sum(map(len, self.pieces)) + sum(map(len, self.attachments))

    def verbatim(self) -> list[bytes]:
        """What a reply or a notification is forwarded as: every byte as it came."""
        return self.pieces + self.attachments

    def requested_by(self, requester: bytes) -> list[bytes]:
        r"""What a request is forwarded as: with the requester, and ended by ``\r\n``.

        A requester that the sender has made up is replaced: there is no other place for it to hide, since a
        packet that has the key twice is refused.

        Args:
            requester: the JSON text of the sender's network name.
        """
        envelope = self.envelope
        closing = envelope.closing
        if span := envelope.requester_span:
            start, stop, addition = *span, requester
        else:
            start, stop, addition = closing, closing, b', "requester": ' + requester
        if len(self.pieces) == 1:
            line = self.pieces[0]
            spliced = [line[:start] + addition + line[stop:closing] + b"}" + TERMINATOR]
        else:
            spliced = [*_between(self.pieces, 0, start), addition, *_between(self.pieces, stop, closing)]
            spliced.append(b"}" + TERMINATOR)
        return spliced + self.attachments


class Unreadable(msgspec.Struct, eq=False):
    """A line that is no packet."""

    error: PacketError
    """What is wrong with it."""
    line: bytes | None = None
    """The line without its terminator, in case somebody has typed it; None if it is too long for that."""
    is_lost: bool = False
    """Whether nobody can say where the next line begins, because raw bytes may follow this one.

    The connection cannot go on then.
    """


class PacketReader:
    """Bytes in; lines or packets out, one at a time, so that others can have their turn between them.

    Append what a read brought, some 64 KiB, and take out what is in it before appending more. Each call takes
    microseconds for an ordinary packet, and a fraction of a millisecond for a piece of a long one. A line
    that outgrows the limit is thrown away while it arrives.

    Args:
        limit: see `DEFAULT_LIMIT`. It may be changed between two packets.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._binary = False
        self._stream = False
        self._data = b""
        self._index = 0
        # The line that has not ended yet; once it is long, what scans it, and what it found to be wrong.
        self._line = _Pieces()
        self._scanner: EnvelopeScanner | None = None
        self._error: PacketError | None = None
        # Attached bytes that have not come yet, and the packet that waits for them. Without one, they are
        # dropped.
        self._missing = 0
        self._attached = _Pieces()
        self._packet: Packet | None = None

    @property
    def unfinished(self) -> int:
        """Bytes received of what has not ended yet, including any that were thrown away."""
        waiting = 0 if self._packet is None else self._packet.size
        return waiting + self._line.size + self._attached.size + len(self._data) - self._index

    def agree(self, features: frozenset[str]) -> None:
        """From the next packet on, the peer may use what was agreed on in the handshake."""
        self._binary = BINARY in features
        self._stream = STREAM in features

    def append(self, data: bytes) -> None:
        """Take what a read brought."""
        self._data = data if self._index == len(self._data) else self._data[self._index :] + data
        self._index = 0

    def next_line(self) -> bytes | LineTooLong | None:
        """The next line without its terminator, whatever it means; None if there is none yet."""
        piece = self._next_piece()
        if piece is None:
            return None
        size = self._line.size + len(piece)
        pieces = [*self._line.take(), piece]
        return _without_terminator(b"".join(pieces)) if size <= self.limit else LineTooLong(self.limit)

    def next_packet(self) -> Packet | Unreadable | None:
        """The next packet, or what stands in its place; None if there is none yet."""
        while True:
            if self._missing and not self._take_attached():
                return None
            if self._packet is not None:
                packet, self._packet = self._packet, None
                packet.attachments = self._attached.take() or [b""]
                return packet
            piece = self._next_piece()
            if piece is None:
                if self._line.size > LONGEST_SHORT_LINE:
                    self._scan_long_line()
                return None
            found = self._ended(piece)
            if isinstance(found, Unreadable) or not found.envelope.has_attachments:
                return found
            self._packet, self._missing = found, found.envelope.attached

    def _next_piece(self) -> bytes | None:
        """What came of a line, up to its end; None if that has not come, and then the line keeps what has."""
        end = self._data.find(b"\n", self._index) + 1
        if end:
            piece = self._data[self._index : end]
            self._index = end
            return piece
        self._line.add(self._data[self._index :])
        self._data, self._index = b"", 0
        if self._line.size > self.limit:
            self._line.drop()
        return None

    def _ended(self, piece: bytes) -> Packet | Unreadable:
        """What the line is that `piece` ends."""
        size = self._line.size + len(piece)
        line = b""
        try:
            if size > self.limit:
                too_long = PacketError(str(LineTooLong(self.limit)), attached=None)
                if self._scanner is not None:
                    too_long.uid, too_long.requester = self._scanner.uid, self._scanner.requester
                raise too_long
            if size > LONGEST_SHORT_LINE and self._line.size:
                packet = self._ended_long_line(piece)
            else:
                line = b"".join([*self._line.take(), piece]) if self._line.size else piece
                packet = Packet(scan_line(line, binary=self._binary, stream=self._stream), [line], [])
            if packet.envelope.attached > self.limit:
                too_much = PacketError(
                    f"expected at most {self.limit} attached bytes, got {packet.envelope.attached}",
                    uid=packet.envelope.uid,
                    attached=packet.envelope.attached,
                )
                too_much.requester = packet.envelope.requester or ""
                raise too_much
            return packet
        except PacketError as error:
            self._line.take()
            self._scanner = self._error = None
            # They come, whatever the line was.
            self._missing = error.attached or 0 if self._binary else 0
            typed = _without_terminator(line) if line and len(line) <= LONGEST_SHORT_LINE else None
            return Unreadable(error, typed, is_lost=self._binary and error.attached is None)

    def _ended_long_line(self, piece: bytes) -> Packet:
        self._line.add(piece, is_last=True)
        self._scan_long_line()
        if self._error is not None:
            raise self._error
        assert self._scanner is not None
        scanner, self._scanner = self._scanner, None
        return Packet(scanner.finish(), self._line.take(), [])

    def _scan_long_line(self) -> None:
        """Scan what came of a long line."""
        if self._error is not None:
            return
        if self._scanner is None:
            self._scanner = EnvelopeScanner(binary=self._binary, stream=self._stream)
        try:
            for piece in self._line.unseen():
                self._scanner.feed(piece)
        except PacketError as error:
            self._error = error
            self._line.drop()

    def _take_attached(self) -> bool:
        """Take what came of what is attached. Return whether that is all."""
        piece = self._data[self._index : self._index + self._missing]
        self._index += len(piece)
        self._missing -= len(piece)
        if self._packet is not None:
            self._attached.add(piece, is_last=not self._missing)
        return not self._missing


class _Pieces:
    """Bytes, kept in pieces that are not too small."""

    __slots__ = ("_is_dropped", "_pieces", "_seen", "_small", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._small = bytearray()
        self._seen = 0
        self._is_dropped = False
        self.size = 0
        """Bytes added so far."""

    def add(self, piece: bytes, *, is_last: bool = False) -> None:
        self.size += len(piece)
        if self._is_dropped:
            return
        if self._small or len(piece) < _SMALL_PIECE:
            self._small += piece
            if len(self._small) >= _SMALL_PIECE or is_last:
                self._pieces.append(bytes(self._small))
                self._small.clear()
        else:
            self._pieces.append(piece)

    def drop(self) -> None:
        """Keep nothing more of this line but its size."""
        self._pieces.clear()
        self._small.clear()
        self._is_dropped = True

    def unseen(self) -> Iterator[bytes]:
        """The pieces that were not asked for before, except a small one that may grow."""
        while self._seen < len(self._pieces):
            self._seen += 1
            yield self._pieces[self._seen - 1]

    def take(self) -> list[bytes]:
        """All pieces; none are left."""
        pieces, self._pieces = self._pieces, []
        if self._small:
            pieces.append(bytes(self._small))
            self._small.clear()
        self._seen = self.size = 0
        self._is_dropped = False
        return pieces


def _between(pieces: list[bytes], start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` to `stop`, in pieces that are not copied if they are whole."""
    for piece in pieces:
        if start < len(piece) and stop > 0 and (cut := piece[max(start, 0) : stop]):
            yield cut
        start -= len(piece)
        stop -= len(piece)


def _without_terminator(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
