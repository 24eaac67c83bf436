from __future__ import annotations

import base64
import json
import math
import random
import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from armillary.network.protocol.codec import MAX_DEPTH, STANDARD, TooDeep
from armillary.network.protocol.payloads import (
    ATTACHED,
    BINARY_CODEC,
    LONG_TEXT,
    PARTS,
    TEXT_CODEC,
    BinaryCodec,
    to_text,
)
from armillary.network.protocol.scanning import scan_line

TYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
CODES = [f"{order}{code}" for order in "<>" for code in TYPES]
dtypes = st.sampled_from(CODES).map(np.dtype)
shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn, types: st.SearchStrategy[np.dtype[Any]] = dtypes) -> np.ndarray[Any, Any]:
    """Arrays of every type, in C order, in Fortran order and in none: sliced, reversed, frozen."""
    array = draw(npst.arrays(draw(types), draw(shapes)))
    array = np.array(array, order=draw(st.sampled_from("CF")))
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([1, 2, -1]))]
    if draw(st.booleans()):
        array = array.T
    array.flags.writeable = draw(st.booleans())
    return array


attachments = arrays() | st.binary(max_size=20) | st.binary(max_size=20).map(bytearray)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
values = st.recursive(
    scalars | attachments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit, arrays with type, shape, order and all."""
    if isinstance(one, np.ndarray):
        # An array in neither order comes in C order.
        is_fortran = one.flags.f_contiguous and not one.flags.c_contiguous
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.dtype.str == other.dtype.str
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
            and (other.flags.f_contiguous if is_fortran else other.flags.c_contiguous)
            and other.flags.writeable
        )
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(is_same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(is_same(a, b) for a, b in zip(one, other, strict=True))
        )
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


def split(packed: bytes) -> tuple[bytes, bytes]:
    """The line and what follows it."""
    line, terminator, rest = packed.partition(b"\r\n")
    assert terminator
    return line + terminator, rest


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def as_text(value: Any) -> Any:
    """The text form, made by numpy and base64."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return {key: as_text(item) for key, item in value.items()} if isinstance(value, dict) else value


def has_complex_array(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "c"
    if isinstance(value, list | dict):
        return any(has_complex_array(item) for item in (value.values() if isinstance(value, dict) else value))
    return False


@given(values, st.integers(1, 30))
def test_what_is_attached_comes_back_as_it_was(value: Any, size: int) -> None:
    """Bytes and arrays return to their places, with their class, type, shape and order, to the last bit."""
    packet = {"result": [value], "uid": "u"}
    line, raw = split(BINARY_CODEC.pack(packet))
    assert is_same(packet, BINARY_CODEC.unpack(line, in_pieces(raw, size)))


@given(values)
def test_the_line_says_how_many_bytes_follow(value: Any) -> None:
    """A manager that reads the envelope and nothing else knows where the next line begins."""
    line, raw = split(BINARY_CODEC.pack({"requester": "c", "result": value, "uid": "u"}))
    assert scan_line(line, binary=True).attached == len(raw)
    assert (ATTACHED in json.loads(line)) == (PARTS in json.loads(line))


@given(values, st.integers(1, 30))
def test_the_text_form_is_lists_and_base64(value: Any, size: int) -> None:
    """What 1.0 peers get is what ``tolist()`` and base64 make, whoever makes it."""
    packet = {"result": value, "uid": "u"}
    line, raw = split(BINARY_CODEC.pack(packet))
    if has_complex_array(value):
        with pytest.raises(TypeError, match="complex is not JSON serializable"):
            TEXT_CODEC.pack(packet)
        with pytest.raises(TypeError, match="complex is not JSON serializable"):
            to_text(line, in_pieces(raw, size))
        return
    expected = repr(json.loads(json.dumps(as_text(packet))))
    if not raw and ATTACHED.encode() not in line:
        assert repr(STANDARD.unpack(line)) == expected
        return
    text = to_text(line, in_pieces(raw, size))
    assert text.endswith(b"\r\n")
    assert repr(STANDARD.unpack(text)) == expected
    assert repr(STANDARD.unpack(TEXT_CODEC.pack(packet))) == expected


@given(arrays(dtypes.filter(lambda dtype: dtype.kind != "c")))
def test_lists_hold_the_very_numbers(array: np.ndarray[Any, Any]) -> None:
    """Made an array of the same type again, the lists of the text form are the array."""
    line, raw = split(BINARY_CODEC.pack({"result": array}))
    text = STANDARD.unpack(to_text(line, [raw]))["result"]
    again = np.array(text, dtype=array.dtype).reshape(array.shape)
    assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")


@given(values)
def test_without_numpy_arrays_are_lists(value: Any) -> None:
    """A program that has no numpy gets nested lists, and bytes as bytes."""
    packed = BINARY_CODEC.pack({"result": value})
    line, raw = split(packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        found = BINARY_CODEC.unpack(line, [raw])["result"]
        assert repr(found) == repr(without_numpy(value))
        assert BINARY_CODEC.pack({"x": b"y"}).endswith(b"\r\ny")


def without_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [without_numpy(item) for item in value]
    return {key: without_numpy(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_the_bytes_are_these() -> None:
    """The form on the wire, to the byte: programs in other languages may rely on it."""
    packet = {
        "args": [np.arange(6, dtype=">i2").reshape(2, 3), "é"],
        "kwargs": {"raw": b"\n\r\x00", "f": np.array([[1.0, 2.0]] * 2, order="F")},
        "uid": "u",
    }
    assert BINARY_CODEC.pack(packet) == (
        b'{"args":[null,"\xc3\xa9"],"kwargs":{"raw":null,"f":null},"uid":"u","bin1":47,"bin1_parts":['
        b'[["args",0],12,"array",">i2",[2,3],"C"],[["kwargs","raw"],3,"bytes"],'
        b'[["kwargs","f"],32,"array","<f8",[2,2],"F"]]}\r\n'
        + struct.pack(">6h", 0, 1, 2, 3, 4, 5)
        + b"\n\r\x00"
        + struct.pack("<4d", 1.0, 1.0, 2.0, 2.0)
    )


def test_a_packet_without_attachments_is_an_ordinary_line() -> None:
    """Nothing of the binary form is seen where nothing is attached."""
    packet = {"result": [1.5, None, math.nan], "uid": "u"}
    assert BINARY_CODEC.pack(packet) == TEXT_CODEC.pack(packet) == STANDARD.pack(packet)
    assert BINARY_CODEC.pack({"result": 1}) == b'{"result":1}\r\n'


@pytest.mark.parametrize("codec", [BINARY_CODEC, TEXT_CODEC])
def test_scalars_of_numpy_are_numbers(codec: Any) -> None:
    """A single number needs no attachment, whatever class it is of."""
    values = [
        np.float64(1.1),
        np.float32(1.1),
        np.float16(0.1),
        np.int8(-5),
        np.uint64(2**64 - 1),
        np.bool_(True),
    ]
    expected = [1.1, 1.100000023841858, 0.0999755859375, -5, 2**64 - 1, True]
    assert repr(codec.unpack(codec.pack({"result": values}))["result"]) == repr(expected)


def test_a_memoryview_comes_back_as_bytes() -> None:
    """Whatever a view is a view of, its bytes arrive; in C order if it is in none."""
    view = memoryview(b"abcdef")[::2]
    line, raw = split(BINARY_CODEC.pack({"result": view}))
    assert BINARY_CODEC.unpack(line, [raw]) == {"result": b"ace"}
    assert json.loads(TEXT_CODEC.pack({"result": view})) == {"result": "YWNl"}


def test_a_view_of_a_file_is_an_array(tmp_path: Any) -> None:
    """An array in a mapped file is attached as any other."""
    array = np.memmap(tmp_path / "data", dtype="<f4", mode="w+", shape=(2, 2))
    array[:] = 1.5
    line, raw = split(BINARY_CODEC.pack({"result": array}))
    assert is_same(np.full((2, 2), 1.5, dtype="<f4"), BINARY_CODEC.unpack(line, [raw])["result"])


def test_to_json_may_return_what_is_attached() -> None:
    """An object that says what it becomes may become an array, or hold one."""

    class Spectrum:
        def to_json(self) -> object:
            return {"counts": np.arange(3, dtype="<u2"), "raw": b"x"}

    line, raw = split(BINARY_CODEC.pack({"result": [Spectrum()]}))
    assert raw == struct.pack("<3H", 0, 1, 2) + b"x"
    found = BINARY_CODEC.unpack(line, [raw])["result"][0]
    assert is_same(np.arange(3, dtype="<u2"), found["counts"])
    assert json.loads(TEXT_CODEC.pack({"result": Spectrum()})) == {
        "result": {"counts": [0, 1, 2], "raw": "eA=="}
    }


def test_what_is_attached_is_copied() -> None:
    """A program may go on writing into its array, and into what it received."""
    array = np.zeros(3)
    packed = BINARY_CODEC.pack({"result": array})
    array[:] = 1
    line, raw = split(packed)
    first, second = BINARY_CODEC.unpack(line, [raw])["result"], BINARY_CODEC.unpack(line, [raw])["result"]
    assert not first.any()
    first[:] = 2
    assert not second.any()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([Ellipsis]), "array with elements of type object is not JSON serializable"),
        (
            np.zeros(2, dtype=[("a", "<i4")]),
            "array with elements of type [('a', '<i4')] is not JSON serializable",
        ),
        (np.array(["a"]), "array with elements of type <U1 is not JSON serializable"),
        (np.array([b"a"]), "array with elements of type |S1 is not JSON serializable"),
        (
            np.array(["2020"], dtype="M8[D]"),
            "array with elements of type datetime64[D] is not JSON serializable",
        ),
        (np.zeros(1, dtype="V3"), "array with elements of type |V3 is not JSON serializable"),
        (np.ma.masked_array([1], [True]), "array of type MaskedArray is not JSON serializable"),
        (np.rec.array([1]), "array of type recarray is not JSON serializable"),
        (np.complex64(1), "Object of type complex64 is not JSON serializable"),
        (np.datetime64("2020"), "Object of type datetime64 is not JSON serializable"),
        ({1}, "Object of type set is not JSON serializable"),
    ],
    ids=str,
)
@pytest.mark.parametrize("codec", [BINARY_CODEC, TEXT_CODEC])
def test_what_is_not_numbers_is_refused(value: object, text: str, codec: Any) -> None:
    """Arrays of objects, structures, text, times, and those that mean more than their elements, are none."""
    with pytest.raises(TypeError) as caught:
        codec.pack({"result": [value]})
    assert text in str(caught.value)


def test_the_standard_codec_refuses_arrays_as_json_does() -> None:
    """Programs that were written for 1.0 get the errors of 1.0, also for bytes."""
    for value in (np.zeros(1), np.float32(1), b"x", bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(TypeError) as expected:
            json.dumps(value)
        with pytest.raises(TypeError) as caught:
            STANDARD.encode([value])
        assert str(caught.value) == str(expected.value)


def test_only_packets_have_attachments() -> None:
    """A value by itself has nowhere to attach anything."""
    with pytest.raises(TypeError, match="Object of type bytes is not JSON serializable"):
        BinaryCodec().encode([b"x"])


def test_what_is_attached_deep_inside_is_found_up_to_the_limit() -> None:
    """Attachments do not widen the limit of nesting."""
    value: Any = b"x"
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    line, raw = split(BINARY_CODEC.pack({"result": value}))
    assert BINARY_CODEC.unpack(line, [raw]) == {"result": value}
    with pytest.raises(TooDeep):
        BINARY_CODEC.pack({"result": [value]})


GOOD = {"result": [None, {"a": None}], ATTACHED: 24, PARTS: [[["result", 0], 24, "array", "<f8", [3], "C"]]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({ATTACHED: 25}, "expected 25 attached bytes, got 24"),
        ({ATTACHED: None}, "expected a number as 'bin1' and an array as 'bin1_parts', got others"),
        ({ATTACHED: True}, "expected a number as 'bin1' and an array as 'bin1_parts', got others"),
        ({PARTS: None}, "expected a number as 'bin1' and an array as 'bin1_parts', got others"),
        ({PARTS: []}, "expected parts of 24 bytes together, got 0"),
        ({PARTS: [[["result", 0], 23, "bytes"]]}, "expected parts of 24 bytes together, got 23"),
        ({PARTS: [[["result", 0], 25, "bytes"]]}, "expected parts of 24 bytes together, got more"),
        ({PARTS: [[["result", 0], -1, "bytes"]]}, "expected a path, a length and a kind as a part"),
        ({PARTS: [[["result", 0], 24, "pickle"]]}, "expected a path, a length and a kind as a part"),
        ({PARTS: [5]}, "expected a path, a length and a kind as a part, got 5"),
        ({PARTS: [[["result", 0], 24, "bytes", 1]]}, "expected the type, shape and order of an array"),
        ({PARTS: [[["result", 0], 24, "array"]]}, "expected the type, shape and order of an array"),
        ({PARTS: [[["result", 0], 24, "array", "O", [3], "C"]]}, "expected a type of numbers"),
        ({PARTS: [[["result", 0], 24, "array", "<f9", [3], "C"]]}, "expected a type of numbers"),
        ({PARTS: [[["result", 0], 24, "array", "<f8,<f8", [3], "C"]]}, "expected a type of numbers"),
        ({PARTS: [[["result", 0], 24, "array", 5, [3], "C"]]}, "expected a type of numbers"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", 3, "C"]]}, "as a shape, got 3"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [-3], "C"]]}, "expected lengths as a shape, got [-3]"),
        (
            {PARTS: [[["result", 0], 24, "array", "<f8", [3.0], "C"]]},
            "expected lengths as a shape, got [3.0]",
        ),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [2**70], "C"]]}, "expected lengths as a shape"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [1] * 33, "C"]]}, "expected at most 32 lengths"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [4], "C"]]}, "expected 32 bytes for an array, got 24"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [2**62, 2**62], "C"]]}, "bytes for an array, got 24"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [3], "K"]]}, "expected 'C' or 'F' as the order"),
        ({PARTS: [[["result", 0], 24, "array", "<f8", [3], ["C"]]]}, "expected 'C' or 'F' as the order"),
        ({PARTS: [[[], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["nothing"], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", 2], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", -2], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", "0"], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", False], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", 1], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", 0, 0], 24, "bytes"]]}, "expected the path to a null"),
        ({PARTS: [[["result", [0]], 24, "bytes"]]}, "expected the path to a null"),
        (
            {PARTS: [[["result", 0], 12, "bytes"], [["result", 0], 12, "bytes"]]},
            "expected the path to a null",
        ),
    ],
)
def test_parts_that_are_not_as_described_are_refused(changes: dict[str, Any], text: str) -> None:
    """Whatever a peer writes about its attachments, a mistake is an error that says what was expected."""
    line = json.dumps({**GOOD, **changes}).encode()
    for read in (BINARY_CODEC.unpack, to_text):
        with pytest.raises(ValueError, match=r"^expected ") as caught:
            read(line, [bytes(24)])
        assert text in str(caught.value)


@pytest.mark.parametrize("line", [b"[1]", b"5", b"{", b'{"result": 1}'])
def test_what_is_no_packet_with_attachments_has_no_text_form(line: bytes) -> None:
    """Turning into text what is not in the binary form is an error."""
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        to_text(line, [])


def test_a_few_bytes_cannot_fill_the_memory() -> None:
    """An array without elements, but of a milliard rows, is not made into a milliard lists."""
    line = json.dumps(
        {"result": None, ATTACHED: 0, PARTS: [[["result"], 0, "array", "<f8", [10**9, 0], "C"]]}
    )
    with pytest.raises(ValueError, match="expected at most 65536 empty lists"):
        to_text(line.encode(), [])
    assert BINARY_CODEC.unpack(line.encode(), [])["result"].shape == (10**9, 0)
    small = line.replace(str(10**9), str(2**16)).encode()
    assert json.loads(to_text(small, []))["result"] == [[]] * 2**16


def test_the_text_form_may_name_a_requester() -> None:
    """A manager that turns a request into text says who has asked, whatever the sender had made up."""
    line, raw = split(BINARY_CODEC.pack({"args": [b"x"], "requester": "forged", "uid": "u"}))
    text = to_text(line, [raw], requester="Bench A[lab7:1]")
    assert json.loads(text) == {"args": ["eA=="], "requester": "Bench A[lab7:1]", "uid": "u"}
    assert json.loads(to_text(line, [raw]))["requester"] == "forged"


def test_random_damage_never_crashes() -> None:
    """Lines and bytes that were damaged on the way are refused, or read as something."""
    rng = random.Random(1)
    packet = {"result": [np.arange(6.0).reshape(2, 3), {"a": b"xyz"}, "text"], "uid": "u"}
    line, raw = split(BINARY_CODEC.pack(packet))
    refused = 0
    for _ in range(2000):
        start = rng.randrange(len(line))
        bad = line[:start] + bytes([rng.choice(b'0123456789"[]{},:CFabx<>')]) + line[start + 1 :]
        for read in (BINARY_CODEC.unpack, to_text):
            try:
                read(bad, [raw])
            except ValueError:
                refused += 1
    assert refused > 1000


LONG = LONG_TEXT * "é"


def test_a_long_text_is_attached() -> None:
    """A long text that is an argument or the result follows the line as UTF-8; JSON elsewhere."""
    line, _, raw = BINARY_CODEC.pack({"args": [1, LONG], "kwargs": {"t": LONG}, "uid": "1"}).partition(
        b"\r\n"
    )
    assert json.loads(line) == {
        "args": [1, None],
        "kwargs": {"t": None},
        "uid": "1",
        "bin1": 4 * LONG_TEXT,
        "bin1_parts": [[["args", 1], 2 * LONG_TEXT, "text"], [["kwargs", "t"], 2 * LONG_TEXT, "text"]],
    }
    assert raw == 2 * LONG.encode()
    assert b"bin1" not in BINARY_CODEC.pack({"result": LONG[1:]})
    assert b"bin1" not in BINARY_CODEC.pack({"result": [LONG]})
    assert b"bin1" not in BINARY_CODEC.pack({"args": "", "kwargs": {1: LONG}})


@given(
    st.lists(values | st.just(LONG), max_size=3),
    st.dictionaries(st.text(max_size=3), values | st.just(LONG), max_size=3),
    values | st.just(LONG),
)
def test_long_texts_beside_others_come_back(args: list[Any], kwargs: dict[str, Any], result: Any) -> None:
    """Texts are attached beside bytes and arrays, and everything comes back to its place."""
    packet = {"args": args, "kwargs": kwargs, "result": result}
    line, _, raw = BINARY_CODEC.pack(packet).partition(b"\r\n")
    assert is_same(BINARY_CODEC.unpack(line, [raw]), BINARY_CODEC.unpack(line, [raw[:1], raw[1:]]))
    came = BINARY_CODEC.unpack(line, [raw])
    for one, other in zip(
        [*args, *kwargs.values(), result],
        [*came["args"], *came["kwargs"].values(), came["result"]],
        strict=True,
    ):
        assert is_same(one, other)


def test_the_text_form_of_a_long_text_is_a_string() -> None:
    """Peers that take no attachments get a long text as JSON; what JSON alone can say stays JSON."""
    line, _, raw = BINARY_CODEC.pack({"result": LONG}).partition(b"\r\n")
    assert json.loads(to_text(line, [raw])) == {"result": LONG}
    odd = LONG + "\ud800"
    packed = BINARY_CODEC.pack({"result": odd})
    assert b"bin1" not in packed
    assert json.loads(packed) == {"result": odd}


def test_a_text_that_is_not_utf_8_is_refused() -> None:
    """Attached bytes that are said to be a text, and are none, are an error."""
    line = b'{"result":null,"bin1":2,"bin1_parts":[[["result"],2,"text"]]}'
    for read in (BINARY_CODEC.unpack, to_text):
        with pytest.raises(ValueError, match="utf-8"):
            read(line, [b"\xff\xff"])
