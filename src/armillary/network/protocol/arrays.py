"""What an array of numpy is besides its bytes, and how to make of both an array again, or nested lists."""

from __future__ import annotations

import math
import re
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy

__all__ = ["ArrayForm", "is_array", "is_of_numpy", "plain_number"]

# numpy 1 knows no more dimensions.
_MOST_DIMENSIONS = 32
# An array without elements costs nothing on the wire, and as many lists as the lengths before its empty one
# say. Smaller refuses shapes that somebody may have; larger lets a packet of a few bytes fill the memory.
_MOST_EMPTY_LISTS = 2**16

_DTYPE = re.compile(r"([<>|])([biufc]\d{1,2})")
# For numpy's kind and size: struct's code, and how many of them make an element.
_ELEMENTS = {
    "b1": ("?", 1),
    "i1": ("b", 1),
    "i2": ("h", 1),
    "i4": ("i", 1),
    "i8": ("q", 1),
    "u1": ("B", 1),
    "u2": ("H", 1),
    "u4": ("I", 1),
    "u8": ("Q", 1),
    "f2": ("e", 1),
    "f4": ("f", 1),
    "f8": ("d", 1),
    "c8": ("f", 2),
    "c16": ("d", 2),
}


class ArrayForm(NamedTuple):
    """The type, shape and order of an array."""

    dtype: str
    """As numpy writes it, with its byte order: ``<f8``."""
    shape: tuple[int, ...]
    order: str
    """``C`` if the last index varies fastest in the bytes, ``F`` if the first does."""

    @classmethod
    def of(cls, array: numpy.ndarray[Any, Any]) -> tuple[ArrayForm, memoryview]:
        """The form of an array and its bytes: its own memory if that is in one piece, else a copy in C order.

        Raises:
            TypeError: its elements are no numbers, or it is of a class that means more than its elements.
        """
        if type(array).__name__ not in ("ndarray", "memmap"):
            raise TypeError(
                f"array of type {type(array).__name__} is not JSON serializable, nor can it be attached"
            )
        dtype = array.dtype.str
        if array.dtype.names is not None or not _is_known(dtype):
            raise TypeError(
                f"array with elements of type {array.dtype} is not JSON serializable, nor can it be attached:"
                " expected numbers or booleans"
            )
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        # Where the byte order is not the machine's, elements have no buffer that others understand.
        data: memoryview = array.ravel("F" if order == "F" else "C").view("u1").data
        return cls(dtype, array.shape, order), data

    @classmethod
    def read(cls, dtype: object, shape: object, order: object) -> ArrayForm:
        """The form that a peer described.

        Raises:
            ValueError: there is no such form.
        """
        if not isinstance(dtype, str) or not _is_known(dtype):
            raise ValueError(
                f"expected a type of numbers, as numpy writes it, for an array, got {dtype!r:.50}"
            )
        if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
            raise ValueError(f"expected at most {_MOST_DIMENSIONS} lengths as a shape, got {shape!r:.50}")
        if not all(type(length) is int and 0 <= length <= sys.maxsize for length in shape):
            raise ValueError(f"expected lengths as a shape, got {shape!r:.50}")
        if order not in ("C", "F"):
            raise ValueError(f"expected 'C' or 'F' as the order of an array, got {order!r:.50}")
        return cls(dtype, tuple(shape), str(order))

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return math.prod(self.shape) * int(self.dtype[2:])

    def array(self, data: bytearray) -> Any:
        """The array, in the memory of `data`; nested lists if there is no numpy.

        Raises:
            ValueError: `data` is not of the right size, or numpy cannot have such a shape.
        """
        self._check(data)
        try:
            import numpy
        except ImportError:
            return self.lists(data)
        if not data:
            # An empty buffer is none, for numpy.
            return numpy.empty(self.shape, self.dtype, "F" if self.order == "F" else "C")
        return numpy.ndarray(self.shape, self.dtype, data, order="F" if self.order == "F" else "C")

    def lists(self, data: bytes | bytearray) -> Any:
        """Nested lists of Python's numbers; the number itself if there are no dimensions.

        Raises:
            ValueError: `data` is not of the right size, or it would be a great many lists of nothing.
        """
        self._check(data)
        if 0 in self.shape and math.prod(self.shape[: self.shape.index(0)]) > _MOST_EMPTY_LISTS:
            raise ValueError(
                f"expected at most {_MOST_EMPTY_LISTS} empty lists, got the shape {list(self.shape)}"
            )
        code, components = _ELEMENTS[self.dtype[1:]]
        byte_order = self.dtype[0] if self.dtype[0] != "|" else "<"
        flat: list[Any] = list(struct.unpack(f"{byte_order}{math.prod(self.shape) * components}{code}", data))
        if components == 2:
            flat = [complex(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]
        return _nested(flat, 0, self.shape, self._steps()) if self.shape else flat[0]

    def _check(self, data: bytes | bytearray) -> None:
        if len(data) != self.size:
            raise ValueError(f"expected {self.size} bytes for an array, got {len(data)}")

    def _steps(self) -> list[int]:
        """For each index: how many elements further the next one is."""
        steps = []
        step = 1
        for length in self.shape if self.order == "F" else reversed(self.shape):
            steps.append(step)
            step *= length
        return steps if self.order == "F" else steps[::-1]


def _nested(flat: list[Any], start: int, shape: tuple[int, ...], steps: list[int]) -> list[Any]:
    length, *inner = shape
    step, *inner_steps = steps
    if not inner:
        return flat[start : start + length * step : step]
    return [_nested(flat, start + i * step, tuple(inner), inner_steps) for i in range(length)]


def _is_known(dtype: str) -> bool:
    match = _DTYPE.fullmatch(dtype)
    return match is not None and match[2] in _ELEMENTS


def is_of_numpy(value: object) -> bool:
    """Whether it is an array or a scalar of numpy. Where numpy was never imported, nothing is."""
    module = sys.modules.get("numpy")
    return module is not None and isinstance(value, module.ndarray | module.generic)


def is_array(value: object) -> bool:
    """Whether something of numpy's is an array."""
    return isinstance(value, sys.modules["numpy"].ndarray)


def plain_number(scalar: Any) -> object:
    """The number, or the boolean, of Python that a scalar of numpy is.

    Raises:
        TypeError: it is none that JSON has.
    """
    number = scalar.item()
    if not isinstance(number, int | float):
        raise TypeError(f"Object of type {type(scalar).__name__} is not JSON serializable")
    return number
