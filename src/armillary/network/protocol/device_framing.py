"""Cut what a manager sends a device into packets: lines, and the raw bytes that may follow them.

Never more than one packet of a stated size is held, and of one that is larger only its end is kept: that is
where its uid is, so that whoever waits for it can be told.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .codec import STANDARD
from .payloads import ATTACHED

__all__ = ["Frame", "Oversize", "PacketSplitter"]

# Where the uid of a packet that was too long is looked for. Smaller would miss it behind a long name; larger
# keeps more of what is thrown away.
_TAIL = 8192

_KEY = f'"{ATTACHED}"'.encode("ascii")
# The last members of a packet as services and managers write it; the brace is the packet's own.
_LAST_MEMBERS = re.compile(
    rb'"uid"\s*:\s*"[^"\\]*"\s*(?:,\s*"requester"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)\s*)?\}\s*\Z'
)
_ATTACHMENT = re.compile(rb"%s\s*:\s*(\d{1,15})\s*," % _KEY)


class Frame(NamedTuple):
    """One packet, undecoded."""

    line: bytes
    attachment: bytes = b""


class Oversize(NamedTuple):
    """Stands in the place of a packet that was larger than the limit; what follows it is intact."""

    limit: int
    members: dict[str, Any]
    """What is known of the packet: its last members, or all of them without what was attached."""


class PacketSplitter:
    """Bytes in, packets out.

    Args:
        limit: the largest packet accepted, in bytes: its line with its terminator, or its attachment.
        has_attachments: whether a line that says so is followed by raw bytes.
    """

    def __init__(self, limit: int, *, has_attachments: bool = False) -> None:
        if limit < 1:
            raise ValueError(f"expected a limit of at least 1 byte, got {limit}")
        self._limit = limit
        self.has_attachments = has_attachments
        """May be set before the first line that has one."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._line: bytes | None = None  # the one that the attachment belongs to
        self._missing = 0
        self._tail = b""  # of a line that is thrown away

    @property
    def unfinished(self) -> int:
        """Bytes received of a packet that has not ended yet."""
        return self._size + (0 if self._line is None else len(self._line))

    def append(self, data: bytes) -> list[Frame | Oversize]:
        """Take what a read brought and return the packets that it finished, in order."""
        frames: list[Frame | Oversize] = []
        start = 0
        while start < len(data):
            if self._line is not None:
                piece = data[start : start + self._missing]
                start += len(piece)
                frame = self._take_attached(piece)
            else:
                stop = data.find(b"\n", start)
                if stop < 0:
                    self._keep(data[start:])
                    break
                frame = self._end_line(data[start:stop])
                start = stop + 1
            if frame is not None:
                frames.append(frame)
        return frames

    def _end_line(self, end: bytes) -> Frame | Oversize | None:
        if self._size + len(end) + 1 > self._limit:
            self._keep(end)
            return self._end_long_line()
        if self._pieces:
            self._pieces.append(end)
            end = b"".join(self._pieces)
            self._pieces.clear()
        self._size = 0
        if self.has_attachments and _KEY in end and (size := _attached_size(end)):
            self._line, self._missing = end, size
            return None
        return Frame(end)

    def _end_long_line(self) -> Oversize:
        if not self._tail:  # its last byte is the first one too many
            self._tail = b"".join(self._pieces)[-_TAIL:]
        found = _LAST_MEMBERS.search(self._tail)
        members = _members(b"{" + found[0]) if found is not None else {}
        attached = _ATTACHMENT.findall(self._tail) if self.has_attachments else []
        if attached and int(attached[-1]):
            # Thrown away as well, whose packet is known to be too large.
            self._line, self._missing = b"", int(attached[-1])
        self._pieces.clear()
        self._size = 0
        self._tail = b""
        return Oversize(self._limit, members)

    def _take_attached(self, piece: bytes) -> Frame | Oversize | None:
        assert self._line is not None
        self._missing -= len(piece)
        self._size += len(piece)
        if self._line and self._size + self._missing <= self._limit:
            self._pieces.append(piece)
        if self._missing:
            return None
        line, size, attachment = self._line, self._size, b"".join(self._pieces)
        self._line = None
        self._size = 0
        self._pieces.clear()
        if not line:
            return None
        return Frame(line, attachment) if size <= self._limit else Oversize(self._limit, _members(line))

    def _keep(self, piece: bytes) -> None:
        """Keep a piece of a line that has not ended, or the end of it if it is too long."""
        self._size += len(piece)
        if self._size < self._limit:
            self._pieces.append(piece)
            return
        self._tail = (self._tail + b"".join(self._pieces)[-_TAIL:] + piece[-_TAIL:])[-_TAIL:]
        self._pieces.clear()


def _attached_size(line: bytes) -> int:
    """How many bytes follow a line that has the word somewhere; 0 if it is not a member of the packet."""
    size = _members(line).get(ATTACHED)
    return size if type(size) is int and size > 0 else 0


def _members(text: bytes) -> dict[str, Any]:
    try:
        packet = STANDARD.decode(text)
    except ValueError:
        return {}
    return packet if isinstance(packet, dict) else {}
