r"""Bytes, numpy arrays and long texts in packets: raw among those who agreed on ``bin1``, JSON for others.

**The binary form.** A packet's line is JSON as ever, with ``null`` in the place of each attached value, and
with two more keys::

    {"args":[null,3],...,"bin1":824,"bin1_parts":[[["args",0],800,"array","<f8",[10,10],"C"],
    [["kwargs","raw"],24,"bytes"]]}\r\n

Directly behind the line's LF follow exactly as many raw bytes as ``bin1`` says; the next line starts behind
them. Whoever only forwards packets reads that number and nothing else. ``bin1_parts`` says what the bytes
are: they are the parts, one after the other and with nothing in between, and each part is described by

1. the keys and indexes that lead from the packet to the value's place,
2. how many bytes it has,
3. what it is: ``"bytes"``, ``"bytearray"``, ``"text"`` (in UTF-8) or ``"array"``, and for an array
4. its type as numpy writes it: ``<`` or ``>`` for the byte order, or ``|`` where there is none; then ``b``
   (boolean), ``i``, ``u``, ``f`` or ``c`` (complex), and the number of bytes of an element,
5. its shape,
6. ``"C"`` if the last index varies fastest in the bytes, ``"F"`` if the first does.

An array comes back with its type, shape, order and every bit. If its memory is neither in C nor in Fortran
order, it is copied into C order first. A memoryview comes back as bytes. Scalars of numpy become numbers.
Texts are attached if they are long, and an argument, or the result, themselves: nobody on their way has to
look for the end of a string in them.

**The text form**, for peers that did not agree: bytes are base64 (RFC 4648, section 4), and arrays are nested
lists as ``tolist()`` makes them. `to_text` turns a packet from the binary form into the text form.

Nobody needs numpy: without it, arrays that arrive are nested lists.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

from .arrays import ArrayForm, is_array, is_of_numpy, plain_number
from .codec import Codec, Foreign, Path, Plain, path_keys, quick_text

__all__ = ["ATTACHED", "BINARY_CODEC", "PARTS", "TEXT_CODEC", "BinaryCodec", "TextCodec", "to_text"]

ATTACHED = "bin1"
"""The key that says how many raw bytes follow the line."""
PARTS = "bin1_parts"
"""The key that says what they are."""
LONG_TEXT = 16 * 1024
"""Characters of a text that is attached.

Fewer costs more texts a description of their own; more has longer texts searched for their end.
"""


class TextCodec(Codec):
    """JSON with bytes in base64 and arrays as lists, for peers that take no attachments."""

    def foreign(self, value: Any, path: Path) -> object:
        """Base64, nested lists, or the number that a scalar of numpy is."""
        if isinstance(value, memoryview):
            value = value.tobytes()
        if isinstance(value, bytes | bytearray):
            return base64.b64encode(value).decode("ascii")
        if not is_of_numpy(value):
            return super().foreign(value, path)
        if not is_array(value):
            return plain_number(value)
        form, _ = ArrayForm.of(value)
        _refuse_complex(form)
        return value.tolist()


class BinaryCodec(Codec):
    """JSON with attachments, for peers that agreed on them.

    Only packets have attachments: `encode` refuses bytes and arrays.
    """

    def pack(self, packet: dict[str, object]) -> bytes:
        """The line, and the raw bytes behind it. What is attached is copied and may change afterwards."""
        attachments = _Attachments(self.foreign)
        packet = attachments.take_texts(packet)
        if not attachments.parts and (text := quick_text(packet)) is not None:
            return text + b"\r\n"
        plain = Plain(attachments.add)
        value = plain.of(packet)
        if not attachments.parts:
            return plain.encode(value) + b"\r\n"
        line = plain.encode({**value, ATTACHED: attachments.size, PARTS: attachments.parts})
        return b"".join([line, b"\r\n", *attachments.buffers])

    def unpack(self, line: bytes, attachments: Iterable[bytes] = ()) -> Any:
        """The packet with its attachments in their places. Its arrays can be written to.

        Raises:
            ValueError: it is not JSON, or the attachments are not what is said of them.
        """
        packet = self.decode(line)
        if isinstance(packet, dict) and (ATTACHED in packet or PARTS in packet):
            _put_back(packet, attachments, _value)
        return packet


TEXT_CODEC = TextCodec()
"""For peers that did not agree on attachments."""
BINARY_CODEC = BinaryCodec()
"""For peers that did."""


def to_text(line: bytes, attachments: Iterable[bytes], requester: str | None = None) -> bytes:
    r"""The bytes of a packet in the text form, ``\r\n`` included, made of its binary form.

    This takes some milliseconds for each megabyte: a manager does it in a thread.

    Args:
        line: with or without its terminator.
        attachments: the raw bytes that followed the line, in any pieces.
        requester: what the packet says as its ``requester`` from now on; None leaves it alone.

    Raises:
        ValueError: it is not JSON, or the attachments are not what is said of them.
        TypeError: there is no text for complex numbers.
    """
    packet = TEXT_CODEC.decode(line)
    if not isinstance(packet, dict):
        raise ValueError("expected a packet, got JSON that is not an object")
    _put_back(packet, attachments, _text)
    if requester is not None:
        packet["requester"] = requester
    return TEXT_CODEC.pack(packet)


class _Attachments:
    """What is attached to one packet."""

    def __init__(self, otherwise: Foreign) -> None:
        self.parts: list[object] = []
        self.buffers: list[bytes | bytearray | memoryview] = []
        self.size = 0
        self._otherwise = otherwise

    def add(self, value: Any, path: Path) -> object:
        """Attach `value` if that can be; return what stands in its place."""
        if isinstance(value, memoryview):
            self._add(path, value.tobytes(), "bytes")
        elif isinstance(value, bytes | bytearray):
            self._add(path, value, "bytearray" if isinstance(value, bytearray) else "bytes")
        elif not is_of_numpy(value):
            return self._otherwise(value, path)
        elif not is_array(value):
            return plain_number(value)
        else:
            form, data = ArrayForm.of(value)
            self._add(path, data, "array", *form)
        return None

    def take_texts(self, packet: dict[str, object]) -> dict[str, object]:
        """Attach long texts; return the packet that is left."""
        args, kwargs, result = packet.get("args"), packet.get("kwargs"), packet.get("result")
        if isinstance(args, list | tuple) and any(map(_is_long, args)):
            left = [self._without_text(value, "args", index) for index, value in enumerate(args)]
            packet = {**packet, "args": left}
        if isinstance(kwargs, dict) and any(map(_is_long, kwargs.values())) and _are_texts(kwargs):
            left_by_name = {key: self._without_text(value, "kwargs", key) for key, value in kwargs.items()}
            packet = {**packet, "kwargs": left_by_name}
        if _is_long(result):
            packet = {**packet, "result": self._without_text(result, "result")}
        return packet

    def _without_text(self, value: object, *keys: str | int) -> object:
        if not isinstance(value, str) or not _is_long(value):
            return value
        try:
            data = value.encode("utf-8")
        except UnicodeEncodeError:
            return value  # JSON has an escape for a lone surrogate, and UTF-8 has nothing
        self.parts.append([list(keys), len(data), "text"])
        self.buffers.append(data)
        self.size += len(data)
        return None

    def _add(self, path: Path, data: bytes | bytearray | memoryview, *what: object) -> None:
        self.parts.append([path_keys(path), len(data), *what])
        self.buffers.append(data)
        self.size += len(data)


def _is_long(value: object) -> bool:
    return type(value) is str and len(value) >= LONG_TEXT


def _are_texts(keys: Iterable[object]) -> bool:
    return all(type(key) is str for key in keys)


_Make = Callable[[bytearray, list[Any]], object]


def _put_back(packet: dict[str, Any], attachments: Iterable[bytes], make: _Make) -> None:
    """Put in its place what `make` makes of each part, given its bytes and what is said of them."""
    data = bytearray().join(attachments)
    size, parts = packet.pop(ATTACHED, None), packet.pop(PARTS, None)
    if type(size) is not int or not isinstance(parts, list):
        raise ValueError(f"expected a number as {ATTACHED!r} and an array as {PARTS!r}, got others")
    if size != len(data):
        raise ValueError(f"expected {size} attached bytes, got {len(data)}")
    start = 0
    for part in parts:
        path, length, what = _described(part)
        stop = start + length
        if stop > len(data):
            raise ValueError(f"expected parts of {len(data)} bytes together, got more")
        # The only part needs no copy.
        value = make(data if length == len(data) else data[start:stop], what)
        _put(packet, path, value)
        start = stop
    if start != len(data):
        raise ValueError(f"expected parts of {len(data)} bytes together, got {start}")


def _described(part: Any) -> tuple[list[Any], int, list[Any]]:
    match part:
        case [list(path), int(length), "bytes" | "bytearray" | "text" | "array", *_] if length >= 0:
            return path, length, part[2:]
    raise ValueError(f"expected a path, a length and a kind as a part, got {part!r:.100}")


def _put(packet: dict[str, Any], path: list[Any], value: object) -> None:
    place: Any = packet
    try:
        *above, key = path
        for step in above:
            place = place[_key(place, step)]
        if place[_key(place, key)] is None:
            place[key] = value
            return
    except (LookupError, ValueError):
        pass
    raise ValueError(f"expected the path to a null as a part's place, got {path!r:.100}")


def _key(place: object, key: object) -> Any:
    """The key or index, if it is one that leads into `place`."""
    if isinstance(place, dict) and isinstance(key, str):
        return key
    if isinstance(place, list) and type(key) is int and key >= 0:
        return key
    raise LookupError


def _value(data: bytearray, what: list[Any]) -> object:
    match what:
        case ["bytes"]:
            return bytes(data)
        case ["bytearray"]:
            return data
        case ["text"]:
            return str(data, "utf-8")
        case ["array", dtype, shape, order]:
            return ArrayForm.read(dtype, shape, order).array(data)
    raise ValueError(f"expected the type, shape and order of an array, got {what!r:.100}")


def _text(data: bytearray, what: list[Any]) -> object:
    match what:
        case ["bytes"] | ["bytearray"]:
            return base64.b64encode(data).decode("ascii")
        case ["text"]:
            return str(data, "utf-8")
        case ["array", dtype, shape, order]:
            form = ArrayForm.read(dtype, shape, order)
            _refuse_complex(form)
            return form.lists(data)
    raise ValueError(f"expected the type, shape and order of an array, got {what!r:.100}")


def _refuse_complex(form: ArrayForm) -> None:
    if form.dtype[1] == "c":
        raise TypeError("array with elements of type complex is not JSON serializable")
