"""Read over long values of JSON that arrive in pieces, at the speed of C, and find their ends.

A loop in Python over the characters or the values of a large packet would keep everybody else waiting. So a
piece is looked at as a whole: what stands in strings is blanked, a few passes in C find out which brackets
are open at its end, and ``msgspec`` says whether what lies between two commas or brackets, completed by the
brackets that are open before and after it, is JSON. What it does not know, the standard library is asked.
"""

from __future__ import annotations

import json
import re
from itertools import repeat

import msgspec

from .codec import MAX_DEPTH, TooDeep

__all__ = ["LONGEST_GAP", "LONGEST_PIECE", "LongText", "Malformed", "Nesting", "end_of_short_value"]

LONGEST_PIECE = 64 * 1024
"""How much is looked at as a whole. Smaller makes more calls for the same bytes, larger holds the loop."""
LONGEST_GAP = 64 * 1024
"""The longest number, or run of blanks, without a comma or a bracket; what is in strings does not count.

They are kept until one comes, and looked at again with every piece. No number has so many digits.
"""

# Most values are short, and are looked at as a whole by the standard library.
_SHORT = 2048
# The end of a value is found sooner in a shorter piece.
_FIRST_PIECE = 8192
# How often pairs of brackets are taken out before the rest is walked over. Fewer leaves lists of points to a
# loop in Python; more is for nothing where values are nested more deeply.
_ROUNDS = 8

_BLANKS = b" " * 256
_CONTROLS = bytes(range(0x20))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_SEPARATORS = bytes(set(range(256)) - set(b",[]{}"))
_RUN = re.compile(rb"\[+|\]+|\{+|\}+")
_SEPARATOR = re.compile(rb"[,\[\]{}]")
_BAD_ESCAPE = re.compile(rb'\\(?!["/bfnrt]|u[0-9a-fA-F]{4})')
_BEGUN_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_LONGEST_BEGUN_ESCAPE = 5

_ARRAY, _OBJECT = b"[{"
_OPENERS = {ord("]"): _ARRAY, ord("}"): _OBJECT}
_CLOSERS = {_ARRAY: b"]", _OBJECT: b"}"}
# What makes JSON of a piece that begins inside of an array or object: after its bracket, or after a value in
# it. That is a string, with which nothing that follows can be confused.
_BEGINNINGS = {
    (_ARRAY, False): b"[",
    (_ARRAY, True): b'[""',
    (_OBJECT, False): b"{",
    (_OBJECT, True): b'{"":""',
}
_OUTER_BEGINNINGS = {_ARRAY: b"[", _OBJECT: b'{"":'}
_DUMMIES = {_ARRAY: b"0", _OBJECT: b'"":0'}
# Of the same length, and nowhere valid where a number of any kind is not.
_WORDS = ((b"-Infinity", b"[       ]"), (b"Infinity", b"[      ]"), (b"NaN", b"[ ]"))

_judge = msgspec.json.Decoder(msgspec.Raw).decode
# Numbers are not made, so that it does not matter how many digits they have.
_judge_exactly = json.JSONDecoder(parse_int=len, parse_float=len).decode
_short_value = json.JSONDecoder(parse_int=len, parse_float=len).raw_decode


class Malformed(ValueError):
    """It is not JSON.

    Attributes:
        offset: about where, in the data that was fed; negative if it was in what was fed before.
    """

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


def end_of_short_value(text: bytes, start: int, depth: int) -> int:
    """The index of what comes behind a good value that begins at `start`; -1 if it is long, or not good.

    Args:
        text: JSON in UTF-8, or the beginning of it.
        start: of an array, an object or a string.
        depth: how many arrays and objects it is inside of.
    """
    piece = text[start : start + _SHORT]
    try:
        _, end = _short_value(piece.decode("latin-1"))
    except (ValueError, RecursionError):
        return -1
    if end > MAX_DEPTH and piece.count(b"[", 0, end) + piece.count(b"{", 0, end) > MAX_DEPTH - depth:
        return -1
    return start + end


class _Mismatch(Exception):
    """Somewhere, a bracket is closed by one of the other kind."""


class _Pieces:
    """Hands what it is fed to `_look`, in pieces of a size that grows with the value."""

    __slots__ = ("_held", "_size")

    def __init__(self) -> None:
        self._size = _FIRST_PIECE
        # An escape that began at the end of the last piece.
        self._held = b""

    def feed(self, data: bytes, start: int) -> int:
        """Read on, from `start`. Return the index of what comes behind the value, or -1 if that is not here.

        Raises:
            Malformed: it is not JSON.
            TooDeep: it is nested too deeply.
        """
        while start < len(data):
            piece = data[start : start + self._size]
            self._size = LONGEST_PIECE
            try:
                end = self._look(piece)
            except Malformed as error:
                error.offset += start
                raise
            if end >= 0:
                return start + end
            start += len(piece)
        return -1

    def _look(self, piece: bytes) -> int:
        raise NotImplementedError

    def _unescaped(self, piece: bytes) -> bytes:
        """The piece, and what was held back of the last one, of the same length but without escapes.

        An escape that only begins at its end is held back.
        """
        text = self._held + piece
        if b"\\" not in text:
            return text
        # From the left, so that what is left begins an escape.
        masked = text.replace(rb"\\", b"__")
        begun = _BEGUN_ESCAPE.search(masked[-_LONGEST_BEGUN_ESCAPE:])
        held = len(begun[0]) if begun else 0
        stop = len(masked) - held
        if bad := _BAD_ESCAPE.search(masked, 0, stop):
            raise Malformed("expected an escape after a backslash, got none", bad.start() - len(self._held))
        self._held = text[stop:]
        return masked[:stop].replace(rb"\"", b"__")


class LongText(_Pieces):
    """A string, from behind its opening quote to behind its closing quote."""

    __slots__ = ()

    def _look(self, piece: bytes) -> int:
        before = len(self._held)
        text = self._unescaped(piece)
        end = text.find(b'"')
        _refuse_controls(text[:end] if end >= 0 else text, -before)
        return -1 if end < 0 else end + 1 - before


class Nesting(_Pieces):
    """An array or object, from behind its opening bracket to behind its closing bracket.

    Args:
        opener: ``[`` or ``{``.
        depth: how many arrays and objects it is inside of.
    """

    __slots__ = ("_follows_value", "_in_string", "_open", "_rest", "_room")

    def __init__(self, opener: bytes, depth: int) -> None:
        super().__init__()
        self._room = MAX_DEPTH - depth
        # The brackets that are open where `_rest` begins: behind one of them, or at the comma after a value.
        self._open = opener
        self._follows_value = False
        # What no comma or bracket has followed yet. What stands in its strings is left out.
        self._rest = b""
        self._in_string = False
        if self._room < 1:
            raise TooDeep

    def _look(self, piece: bytes) -> int:
        before = len(self._held)
        blanked = self._blanked(self._unescaped(piece), before)
        if not blanked:
            return -1
        text = self._rest + blanked
        start = len(self._rest) + before
        if len(text) > LONGEST_GAP:
            self._refuse_gap(text)
        try:
            is_open = self._walked(text)
            if not is_open:
                end = self._end(text)
                self._judge(text[:end], b"")
                return end - start
            self._advance(text, is_open)
        except Malformed as error:
            error.offset -= start
            raise
        return -1

    def _blanked(self, text: bytes, before: int) -> bytes:
        """The text with nothing but blanks in its strings; empty if it is inside of a string throughout."""
        parts = text.split(b'"')
        inside = parts[0 if self._in_string else 1 :: 2]
        if len(text) != len(text.translate(None, _CONTROLS)):
            _refuse_controls(b"".join(inside), -before)
        if self._in_string and len(parts) == 1:
            return b""
        if inside and b"".join(inside).translate(None, _NO_SEPARATORS):
            parts[0 if self._in_string else 1 :: 2] = map(bytes.translate, inside, repeat(_BLANKS))
            text = b'"'.join(parts)
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string
        return text

    def _walked(self, text: bytes) -> bytes:
        try:
            return _walked(self._open, text, self._room)
        except _Mismatch:
            # Says where, unless there is an earlier mistake.
            self._judge(text, b"")
            raise

    def _advance(self, text: bytes, is_open: bytes) -> None:
        """Judge what ends at the last comma or bracket, and keep the rest."""
        comma = text.rfind(b",")
        bracket = max(map(text.rfind, (b"[", b"]", b"{", b"}")))
        ends = b"".join(_CLOSERS[opener] for opener in reversed(is_open))
        if comma > bracket:
            # The value that will follow the comma, so that a comma which follows nothing is found.
            self._judge(text[: comma + 1], _DUMMIES[is_open[-1]] + ends)
            self._follows_value = True
            self._rest = self._without_strings(text[comma:])
        elif bracket >= 0:
            self._judge(text[: bracket + 1], ends)
            self._follows_value = text[bracket] in _OPENERS
            self._rest = self._without_strings(text[bracket + 1 :])
        else:
            self._rest = self._without_strings(text)
        self._open = is_open

    def _without_strings(self, text: bytes) -> bytes:
        """The text, which begins outside of strings, with nothing in its strings."""
        return b'""'.join(text.split(b'"')[::2]) + (b'"' if self._in_string else b"")

    def _refuse_gap(self, text: bytes) -> None:
        separator = _SEPARATOR.search(text, 1)
        end = separator.start() if separator else len(text)
        if end > LONGEST_GAP:
            kept = b'""'.join(text[:end].split(b'"')[::2])
            if len(kept) > LONGEST_GAP:
                raise Malformed(f"expected a comma or a bracket within {LONGEST_GAP} bytes, got none", 0)

    def _end(self, text: bytes) -> int:
        """The index of what comes behind the value."""
        is_open, low, high = self._open, 0, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            if left := _walked(is_open, text[low:middle], self._room):
                is_open, low = left, middle
            else:
                high = middle
        return high

    def _judge(self, text: bytes, end: bytes) -> None:
        """Ask whether the text is JSON between what is open before it and `end`."""
        *outer, inner = self._open
        beginning = (
            b"".join(map(_OUTER_BEGINNINGS.__getitem__, outer)) + _BEGINNINGS[inner, self._follows_value]
        )
        judged = beginning + text + end
        for candidate in (judged, _without_words(judged)):
            try:
                _judge(candidate)
                return
            except (msgspec.DecodeError, RecursionError):
                pass
        try:
            _judge_exactly(judged.decode("latin-1"))
        except RecursionError:
            raise TooDeep from None
        except json.JSONDecodeError as error:
            raise Malformed(_explained(error), error.pos - len(beginning)) from None


def _walked(is_open: bytes, text: bytes, room: int) -> bytes:
    """Which brackets are open behind a text that has nothing in its strings; empty if it closes all of them.

    Raises:
        _Mismatch: a bracket is closed by one of the other kind.
        TooDeep: more of them are open, at any place, than there is room for.
    """
    brackets = text.translate(None, _NO_BRACKETS)
    if not brackets:
        return is_open
    shortened, hidden = _shortened(brackets)
    try:
        if len(is_open) + hidden <= room:
            return _walked_slowly(is_open, shortened, room - hidden)
    except TooDeep:
        if not hidden:
            raise
    return _walked_slowly(is_open, brackets, room)


def _shortened(brackets: bytes) -> tuple[bytes, int]:
    """The brackets without most of the pairs, and how deep those may have been."""
    for hidden in range(_ROUNDS):
        shorter = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(shorter) == len(brackets):
            return brackets, 2 * hidden
        brackets = shorter
    # In one round, a pair of the one kind goes with what it has around it of the other.
    return brackets, 2 * _ROUNDS


def _walked_slowly(is_open: bytes, brackets: bytes, room: int) -> bytes:
    for match in _RUN.finditer(brackets):
        run = match[0]
        opener = _OPENERS.get(run[0])
        if opener is None:
            is_open += run
            if len(is_open) > room:
                raise TooDeep
            continue
        run = run[: len(is_open)]
        if not is_open.endswith(bytes((opener,)) * len(run)):
            raise _Mismatch
        is_open = is_open[: -len(run)]
        if not is_open:
            break
    return is_open


def _explained(error: json.JSONDecodeError) -> str:
    """What the standard library says is wrong, as we say it."""
    got = error.doc[error.pos : error.pos + 1]
    return f"expected JSON, got {got!r} in an array or object where that cannot be ({error.msg})"


def _without_words(text: bytes) -> bytes:
    """The text with something that msgspec knows in the place of Python's words for what is no number."""
    for word, as_good in _WORDS:
        text = text.replace(word, as_good)
    return text


def _refuse_controls(text: bytes, offset: int) -> None:
    """Refuse a text from inside of strings if it has control characters in it."""
    if len(text) != len(text.translate(None, _CONTROLS)):
        raise Malformed("expected no control characters in a string, got one", offset)
