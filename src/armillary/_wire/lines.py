"""Cut a stream of bytes into lines, never holding more than one line of a stated length."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LineSplitter", "LineTooLong"]


class LineTooLong(ValueError):
    """Stands in the place of a line that was longer than the limit; what follows it is intact.

    Attributes:
        limit: the longest line that would have been accepted, in bytes, its terminator included.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"expected a line of at most {limit} bytes, got a longer one")
        self.limit = limit


class LineSplitter:
    """Bytes in, lines out, without their terminator.

    A line that outgrows the limit is thrown away while it arrives, so a line that never ends costs no
    memory; one `LineTooLong` takes its place when its terminator comes. Each byte is looked at once: the
    rest of an unfinished line is kept in pieces and joined when the line ends.

    Args:
        limit: the longest line accepted, in bytes, the terminator included.
        terminators: the bytes that end a line, each on its own.
    """

    def __init__(self, limit: int, terminators: bytes = b"\n") -> None:
        if limit < 1:
            raise ValueError(f"expected a limit of at least 1 byte, got {limit}")
        if not terminators:
            raise ValueError("expected at least one terminator, got none")
        self._limit = limit
        self._first = terminators[:1]
        # Every other terminator is turned into the first by one C-level pass.
        self._fold = bytes.maketrans(terminators, self._first * len(terminators))
        self._folds = len(terminators) > 1
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def unfinished(self) -> int:
        """Bytes received of the line that has not ended yet, including any thrown away as too long."""
        return self._size

    def append(self, data: bytes) -> Iterable[bytes | LineTooLong]:
        """Take what a read brought and return the lines that it finished, in order."""
        folded = data.translate(self._fold) if self._folds else data
        *ends, rest = folded.split(self._first)
        lines: list[bytes | LineTooLong] = []
        for end in ends:
            if self._size + len(end) + 1 > self._limit:
                lines.append(LineTooLong(self._limit))
            elif self._pieces:
                self._pieces.append(end)
                lines.append(b"".join(self._pieces))
            else:
                lines.append(end)
            self._pieces.clear()
            self._size = 0
        self._size += len(rest)
        if self._size >= self._limit:
            self._pieces.clear()
        elif rest:
            self._pieces.append(rest)
        return lines
