"""JSON out and in: what the standard library's ``json`` writes and reads, faster.

Almost every packet goes through ``msgspec``. The standard library has the last word where the two differ:
``NaN`` and ``Infinity`` are written and read as these words; keys that are no strings become what ``json``
makes of them; numbers that are too large are infinite; lone surrogates can be read, and are escaped when
they are written. Tuples become lists. An object with a ``to_json()`` method becomes what that returns, at any
depth. Whatever else ``json`` refuses, such as bytes, sets and dates, is refused here with the same words.

Unlike ``json``, text is UTF-8 and nothing else, and the depth of nesting that is written has a limit of its
own instead of Python's, which depends on who calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

__all__ = [
    "MAX_DEPTH",
    "STANDARD",
    "Codec",
    "Foreign",
    "Path",
    "Plain",
    "TooDeep",
    "json_type",
    "path_keys",
    "quick_text",
]

MAX_DEPTH = 256
"""Arrays and objects inside each other, the outermost included.

The standard library's reader gives up somewhere below 1000, depending on who calls it. A limit near that
would let packets pass that their receiver cannot read; nothing that people measure comes near this one.
"""

Path = tuple["Path", str | int] | None
"""Where a value stands: in what, and under which key or index; None is the whole. See `path_keys`."""
Foreign = Callable[[Any, Path], object]
"""Makes of an object that JSON does not have something that it has, or raises `TypeError`."""

# What JSON has as it is. Only these very classes: msgspec and json see subclasses with different eyes.
_SCALARS = frozenset({str, int, float, bool, type(None)})
_KEYS = frozenset({str, int})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_encode_exactly = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_decode_exactly = json.JSONDecoder().decode


class TooDeep(ValueError):
    """A value, or a text, is nested too deeply."""

    def __init__(self) -> None:
        super().__init__(f"expected at most {MAX_DEPTH} arrays and objects inside each other, got more")


def path_keys(path: Path) -> list[str | int]:
    """The keys and indexes that lead to a place, from the outside in."""
    keys: list[str | int] = []
    while path is not None:
        path, key = path
        keys.append(key)
    return keys[::-1]


def quick_text(value: object) -> bytes | None:
    """The JSON text of a value of JSON's own classes, in UTF-8; None if it needs a closer look."""
    try:
        if not _is_plain(value, MAX_DEPTH):
            return None
        text = _encode(value)
    except (ValueError, RecursionError):
        return None
    # What msgspec has no word for is null too.
    return None if b"null" in text else text


class Codec:
    """The standard library's JSON. Codecs hold no state: `STANDARD` serves everybody.

    A subclass may know more classes of objects, by overriding `foreign`, or other ways of putting them on the
    wire, by overriding `pack` and `unpack`.
    """

    def encode(self, value: object) -> bytes:
        """The JSON text of a value, in UTF-8.

        Raises:
            TypeError: something in it is "not JSON serializable".
            TooDeep: it is nested too deeply, or contains itself.
            ValueError: it holds an integer of more digits than Python writes.
        """
        text = quick_text(value)
        if text is not None:
            return text
        plain = Plain(self.foreign)
        return plain.encode(plain.of(value))

    def decode(self, text: bytes | bytearray | memoryview | str) -> Any:
        """The value of a JSON text.

        Raises:
            ValueError: it is not JSON, or not UTF-8.
            TooDeep: it is nested more deeply than Python can follow, which is beyond `MAX_DEPTH`.
        """
        try:
            return _decode(text)
        except RecursionError:
            raise TooDeep from None
        except (msgspec.DecodeError, ValueError):  # the one is the other since msgspec 0.21
            pass
        try:
            return _decode_exactly(text if isinstance(text, str) else str(text, "utf-8"))
        except RecursionError:
            raise TooDeep from None

    def pack(self, packet: dict[str, object]) -> bytes:
        """The bytes of a packet as they go over the wire. They raise what `encode` raises."""
        return self.encode(packet) + b"\r\n"

    def unpack(self, line: bytes, attachments: Iterable[bytes] = ()) -> Any:
        """The value of what `pack` wrote.

        Args:
            line: with or without its terminator.
            attachments: the raw bytes that followed the line, in any pieces.

        Raises:
            ValueError: it cannot be read.
        """
        return self.decode(line)

    def foreign(self, value: Any, path: Path) -> object:
        """What an object becomes that is of none of JSON's classes, nor of a subclass.

        Raises:
            TypeError: it cannot be expressed.
        """
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class Plain:
    """Makes of values others that consist of JSON's own classes, and of those the text.

    What is plain already is not copied.

    Args:
        foreign: see `Codec.foreign`.
    """

    __slots__ = ("_foreign", "_has_floats", "_has_odd_keys")

    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign
        self._has_floats = False
        self._has_odd_keys = False

    def encode(self, plain: Any) -> bytes:
        """The text of what `of` returned, in UTF-8.

        Raises:
            TypeError: a dict has keys that JSON has not.
            ValueError: it holds an integer of more digits than Python writes.
        """
        if not self._has_odd_keys:
            try:
                text = _encode(plain)
            except (UnicodeEncodeError, RecursionError):
                pass
            else:
                if not self._has_floats or b"null" not in text:
                    return text
        try:
            # Only lone surrogates have no UTF-8; the escape that Python has for them is JSON's.
            return _encode_exactly(plain).encode("utf-8", "backslashreplace")
        except RecursionError:
            raise TooDeep from None

    def of(self, value: Any) -> Any:
        """The value, or a copy in which everything is of JSON's own classes.

        Raises:
            TypeError: something in it cannot be expressed.
            TooDeep: it is nested too deeply, or contains itself.
        """
        try:
            return self._of(value, None, 0)
        except RecursionError:
            raise TooDeep from None

    def _of(self, value: Any, path: Path, depth: int) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            if kind is float:
                self._has_floats = True
            return value
        if kind is dict:
            return self._dict(value, path, depth)
        if kind is list or kind is tuple:
            return self._list(value, path, depth)
        return self._other(value, path, depth)

    def _list(self, value: Any, path: Path, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise TooDeep
        kinds = set(map(type, value))
        if float in kinds:
            self._has_floats = True
        if kinds <= _SCALARS:
            return value
        plain = value
        for index, item in enumerate(value):
            if type(item) in _SCALARS:
                continue
            made = self._of(item, (path, index), depth + 1)
            if made is not item:
                if plain is value:
                    plain = list(value)
                plain[index] = made
        return plain

    def _dict(self, value: dict[Any, Any], path: Path, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if not _KEYS.issuperset(map(type, value)):
            # json knows which others it takes, and what becomes of them.
            self._has_odd_keys = True
        kinds = set(map(type, value.values()))
        if float in kinds:
            self._has_floats = True
        if kinds <= _SCALARS:
            return value
        plain = value
        for key, item in value.items():
            if type(item) in _SCALARS:
                continue
            made = self._of(item, (path, key if type(key) is str else _json_key(key)), depth + 1)
            if made is not item:
                if plain is value:
                    plain = dict(value)
                plain[key] = made
        return plain

    def _other(self, value: Any, path: Path, depth: int) -> Any:
        if not isinstance(value, type) and callable(to_json := getattr(value, "to_json", None)):
            return self._of(to_json(), path, depth)
        # What a subclass adds to JSON's own class is lost, as json loses it.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            self._has_floats = True
            return float.__float__(value)
        if isinstance(value, list | tuple):
            return self._list(list(value), path, depth)
        if isinstance(value, dict):
            return self._dict(dict(value.items()), path, depth)
        return self._of(self._foreign(value, path), path, depth)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether `value` is of JSON's own classes throughout, and nested no deeper than `depth`."""
    kind = type(value)
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return kind in _SCALARS
    if not depth:
        return False
    if _SCALARS.issuperset(map(type, items)):
        return True
    # As a generator in all(), this takes a third longer.
    for item in items:  # noqa: SIM110
        if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
            return False
    return True


def _json_key(key: object) -> str:
    """The text that the key of a dict becomes.

    Raises:
        TypeError: JSON has no such keys.
    """
    (text,) = json.loads(_encode_exactly({key: 0}))
    assert isinstance(text, str)
    return text


def json_type(value: object) -> str:
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
        case dict():
            return "an object"
    return "a number"


STANDARD = Codec()
"""What 1.0 peers, and programs that were written for 1.0, expect."""
