from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from armillary.network.protocol.codec import MAX_DEPTH, STANDARD, Codec, Path, TooDeep, path_keys

# Characters of every kind, lone surrogates included.
texts = st.text(st.characters() | st.sampled_from('"\\/\b\n\t\x00\x7f\ud800\udc00\u2028😀é'), max_size=8)
floats = st.floats() | st.sampled_from([0.0, -0.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 0.1])
integers = st.integers() | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**40, 0])
scalars = st.none() | st.booleans() | integers | floats | texts
keys = texts | integers | floats | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(texts, inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=20,
)


def encoded(value: object) -> bytes:
    """What json writes. Lone surrogates, which it cannot, are escaped."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


@given(values)
@example([float("nan"), None, "null"])
@example({1: {True: [None, 1.5]}, "1": (1, (2,))})
@example({"\ud83d": "\ude00", "x": "\ud83d\ude00"})
@example([[1.5], [math.inf]])
def test_what_is_written_is_what_json_writes(value: Any) -> None:
    """Whoever reads it with json, finds what they would find in json's own text, to the last digit."""
    assert repr(json.loads(STANDARD.encode(value))) == repr(json.loads(encoded(value)))


@given(values)
def test_what_json_writes_is_read_as_json_reads_it(value: Any) -> None:
    """Values, their classes, and the order of keys are those that json finds."""
    for text in (encoded(value), json.dumps(value).encode()):
        assert repr(STANDARD.decode(text)) == repr(json.loads(text))


SIGNS = rb"""{ } [ ] " : , \ 0 1 - . e+5 NaN Infinity -Infinity null 1e400 -0 \u00e9 \ud800 "a" 123"""
signs = st.sampled_from([*SIGNS.split(), b" ", b"\t", b"\n", b"\x00", b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf"])


def read(decode: Any, text: Any) -> str:
    """What a reader makes of a text, or that it refuses it."""
    try:
        return repr(decode(text))
    except ValueError:
        return "refused"


@given(st.lists(signs, max_size=8).map(b"".join))
def test_any_bytes_are_read_as_json_reads_them(text: bytes) -> None:
    """The same value comes out, or the same refusal."""
    assert read(STANDARD.decode, text) == read(lambda raw: json.loads(raw.decode("utf-8")), text)


@given(values)
def test_text_has_no_line_feed_and_is_utf_8(value: Any) -> None:
    """A text is one line, whatever is in it, and non-ASCII characters are not escaped."""
    text = STANDARD.encode(value)
    assert b"\n" not in text
    text.decode("utf-8")


def test_other_characters_are_not_escaped() -> None:
    """Non-ASCII characters stand as they are, also in a packet that needs json for something else."""
    assert STANDARD.encode(["é😀"]) == '["é😀"]'.encode()
    assert STANDARD.encode(["é😀\ud800", math.nan]) == '["é😀\\ud800",NaN]'.encode()


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int = 1


class Struct(msgspec.Struct):
    x: int = 1


UNKNOWN = [
    b"x",
    bytearray(b"x"),
    memoryview(b"x"),
    {1},
    frozenset(),
    1j,
    object(),
    datetime.datetime(2020, 1, 1),
    datetime.date(2020, 1, 1),
    datetime.timedelta(1),
    decimal.Decimal("1.5"),
    uuid.UUID(int=1),
    Color.RED,
    Point(),
    Struct(),
    msgspec.Raw(b"1"),
    range(3),
    ...,
    print,
    Point,
]


@pytest.mark.parametrize("value", UNKNOWN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [1, v], lambda v: {"a": (v,)}, lambda v: [{"a": [[v]]}]]
)
def test_what_json_does_not_know_is_refused_in_its_words(value: object, wrap: Any) -> None:
    """Bytes, sets, dates and the like are not JSON serializable, even those that msgspec would write."""
    with pytest.raises(TypeError) as expected:
        json.dumps(wrap(value))
    with pytest.raises(TypeError, match="not JSON serializable") as caught:
        STANDARD.encode(wrap(value))
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("key", [(1, 2), b"x", Color.RED, 1j])
def test_keys_that_json_does_not_know_are_refused_in_its_words(key: object) -> None:
    """JSON has no such keys, wherever they are."""
    for value in ({key: 1}, [{"a": {key: [object]}}]):
        with pytest.raises(TypeError, match="keys must be str, int, float, bool or None, not "):
            STANDARD.encode(value)


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Whole(int):
    def __repr__(self) -> str:
        return "something else"


class Real(float):
    def __repr__(self) -> str:
        return "something else"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    A = "a"


class Pair(NamedTuple):
    x: int
    y: Any


@pytest.mark.parametrize(
    "value",
    [
        Text("x"),
        Whole(5),
        Real(1.5),
        Real("nan"),
        Level.LOW,
        Name.A,
        Pair(1, Text("y")),
        collections.OrderedDict(a=Whole(1)),
        collections.defaultdict(list, {"a": [Real(2.5)]}),
        {Text("k"): 1, Whole(2): 2, Level.LOW: 3},
        [None, Real("inf"), Pair(1, Pair(2, 3))],
    ],
)
def test_subclasses_are_written_as_json_writes_them(value: object) -> None:
    """A subclass is the value that it is made of, at the top as deep inside."""
    for wrapped in (value, [value], {"a": [value, 1.5]}):
        assert repr(STANDARD.decode(STANDARD.encode(wrapped))) == repr(json.loads(json.dumps(wrapped)))


class Reading:
    def __init__(self, value: object) -> None:
        self.value = value

    def to_json(self) -> object:
        return {"value": self.value}


class Record(dict[str, Any]):
    def to_json(self) -> object:
        return sorted(self)


def test_to_json_is_honoured_at_any_depth() -> None:
    """An object says itself what it becomes, which may hold other such objects."""
    value = {"a": [Reading((1, Reading(None)))], "b": Record(y=1, x=2)}
    assert STANDARD.decode(STANDARD.encode(value)) == {
        "a": [{"value": [1, {"value": None}]}],
        "b": ["x", "y"],
    }
    assert STANDARD.encode(Reading(1.5)) == b'{"value":1.5}'


def test_what_to_json_raises_is_raised() -> None:
    """The reason why an object cannot say what it becomes is its own."""

    class Broken:
        def to_json(self) -> object:
            raise OSError("no reading")

    with pytest.raises(OSError, match="no reading"):
        STANDARD.encode([Broken()])


def test_a_class_with_to_json_is_no_object_with_it() -> None:
    """The class itself is not JSON serializable, though its instances are."""
    with pytest.raises(TypeError, match="Object of type type is not JSON serializable"):
        STANDARD.encode([Reading])


def test_what_is_written_is_not_changed() -> None:
    """Tuples, subclasses and objects with ``to_json`` are still what they were."""
    inner = [1, (2,), Reading(3)]
    value = {"a": inner, 5: Text("x")}
    STANDARD.encode(value)
    assert list(value) == ["a", 5]
    assert type(value[5]) is Text
    assert inner[1] == (2,)
    assert type(inner[2]) is Reading


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("leaf", [1, math.nan, None, Reading(0)])
def test_the_depth_that_is_written_has_a_limit_that_is_exact(kind: type, leaf: object) -> None:
    """As many arrays and objects inside each other as allowed are written, one more is not."""
    STANDARD.encode([leaf, nested(MAX_DEPTH - 1, kind)])
    with pytest.raises(TooDeep, match=f"at most {MAX_DEPTH} arrays and objects inside each other, got more"):
        STANDARD.encode([leaf, nested(MAX_DEPTH, kind)])


def test_what_contains_itself_is_refused_at_once() -> None:
    """A ring is told from a value, however many ways lead around in it."""
    ring: list[Any] = [1]
    ring += [ring, ring, {"a": ring}]
    with pytest.raises(TooDeep):
        STANDARD.encode({"ring": ring})

    class Endless:
        def to_json(self) -> object:
            return [self]

    with pytest.raises(TooDeep):
        STANDARD.encode(Endless())


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_a_tower_of_brackets_is_an_error_and_not_a_crash(text: str) -> None:
    """Text that is nested too deeply for Python is refused as what it is."""
    with pytest.raises(ValueError, match=r"inside each other|Expecting"):
        STANDARD.decode(text)


def test_integers_with_very_many_digits_are_refused_as_python_refuses_them() -> None:
    """Python neither writes nor reads them, so as not to be kept busy."""
    with pytest.raises(ValueError, match=r"Exceeds the limit \(4300 digits\)"):
        STANDARD.encode([10**5000])
    with pytest.raises(ValueError, match=r"Exceeds the limit \(4300 digits\)"):
        STANDARD.decode(b"[" + b"1" * 5000 + b"]")


def test_text_that_is_not_utf_8_is_refused() -> None:
    """Neither Latin-1, nor UTF-16, nor encoded surrogates are read."""
    for text in (b'"\xe9"', '["x"]'.encode("utf-16"), b'"\xed\xa0\x80"'):
        with pytest.raises(UnicodeDecodeError):
            STANDARD.decode(text)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda text: text.decode()])
def test_text_may_be_of_any_class_that_holds_text(kind: Any) -> None:
    """Bytes of every kind and str are read, on the fast way and on the other."""
    assert STANDARD.decode(kind(b'{"a":[1]}')) == {"a": [1]}
    assert STANDARD.decode(kind(b"[Infinity]")) == [math.inf]


def test_a_packet_is_a_line() -> None:
    r"""What is packed ends with ``\r\n`` and is unpacked with or without it."""
    line = STANDARD.pack({"result": None, "é": 1})
    assert line == '{"result":null,"é":1}\r\n'.encode()
    assert STANDARD.unpack(line) == STANDARD.unpack(line[:-2]) == {"result": None, "é": 1}


def test_a_codec_may_know_more_classes() -> None:
    """A subclass is told the object and where it stands, and its answer is made plain in turn."""
    seen = []

    class Complex(Codec):
        def foreign(self, value: Any, path: Path) -> object:
            seen.append(path_keys(path))
            if isinstance(value, complex):
                return (value.real, value.imag)
            return super().foreign(value, path)

    assert Complex().encode({"a": [0, 1j], 5: {"b": (2j,)}}) == b'{"a":[0,[0.0,1.0]],"5":{"b":[[0.0,2.0]]}}'
    assert seen == [["a", 1], ["5", "b", 0]]
    with pytest.raises(TypeError, match=re.escape("Object of type set is not JSON serializable")):
        Complex().encode([{1}])
