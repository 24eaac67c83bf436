# ruff: noqa: UP045 - a union can be written in two ways, and both are tried
from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.katcp.protocol.values import (
    STANDARD_TYPES,
    Address,
    DeviceStatus,
    KatcpSyntaxError,
    LogLevel,
    Now,
    Timestamp,
    TimestampOrNow,
    TypeInfo,
    TypeRegistry,
)

encode = STANDARD_TYPES.encode
decode = STANDARD_TYPES.decode


class Colour(enum.Enum):
    RED = 1
    DARK_BLUE = 2
    CRIMSON = 1  # noqa: PIE796 - an alias of RED on purpose


class Number(enum.IntEnum):
    ONE = 1
    TWENTY_TWO = 22


class Volume(enum.Enum):
    QUIET = (1, b"pp")
    LOUD = (2, b"Molto Forte")

    def __init__(self, number: int, text: bytes) -> None:
        self.katcp_value = text


class Metres(float):
    pass


class Count(int):
    pass


class Label(str):
    __slots__ = ()


class Blob(bytes):
    pass


class Seconds(Timestamp):
    pass


class Where(Address):
    pass


class Opaque:
    """A class without a KATCP type."""


ports = st.none() | st.integers(0, 65535)
finite = st.floats(allow_nan=False)
VALUES: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(-(10**400), 10**400),
    Count: st.integers().map(Count),
    float: finite,
    Metres: finite.map(Metres),
    Timestamp: finite.map(Timestamp),
    Seconds: finite.map(Seconds),
    bool: st.booleans(),
    str: st.text(),
    Label: st.text().map(Label),
    bytes: st.binary(),
    Blob: st.binary().map(Blob),
    Address: st.builds(Address, st.ip_addresses(), ports),
    Where: st.builds(Where, st.ip_addresses(), ports),
    Colour: st.sampled_from(Colour),
    Number: st.sampled_from(Number),
    Volume: st.sampled_from(Volume),
    Now: st.sampled_from(Now),
    LogLevel: st.sampled_from(LogLevel),
    DeviceStatus: st.sampled_from(DeviceStatus),
    Fraction: st.builds(Fraction, st.integers(-(2**20), 2**20), st.sampled_from([1, 2, 4, 1024])),
}


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_value_comes_back_as_it_was(cls: type, data: st.DataObject) -> None:
    """What is encoded is decoded to an equal value of the same class."""
    value = data.draw(VALUES[cls])
    decoded = decode(cls, encode(value))
    assert decoded == value
    assert type(decoded) is type(value)


@given(st.floats())
def test_every_float_comes_back_bit_by_bit(value: float) -> None:
    """Infinities, the sign of zero and not-a-number survive the wire."""
    decoded = decode(float, encode(value))
    assert repr(decoded) == repr(value)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (123, b"123"),
        (-0, b"0"),
        (10**30, b"1" + b"0" * 30),
        (True, b"1"),
        (False, b"0"),
        (-123.5, b"-123.5"),
        (1e20, b"1e+20"),
        (-0.0, b"-0.0"),
        (math.inf, b"inf"),
        (math.nan, b"nan"),
        (Fraction(5, 4), b"1.25"),
        (Timestamp(123456789), b"123456789.0"),
        (Now.NOW, b"now"),
        ("café", b"caf\xc3\xa9"),
        ("", b""),
        (b"caf\xe9 \x00", b"caf\xe9 \x00"),
        (Address(IPv4Address("1.2.3.4")), b"1.2.3.4"),
        (Address(IPv4Address("1.2.3.4"), 80), b"1.2.3.4:80"),
        (Address(IPv6Address("::1")), b"[::1]"),
        (Address(IPv6Address("::1"), 0), b"[::1]:0"),
        (Colour.DARK_BLUE, b"dark-blue"),
        (Colour.CRIMSON, b"red"),
        (Number.TWENTY_TWO, b"twenty-two"),
        (Volume.LOUD, b"Molto Forte"),
        (DeviceStatus.DEGRADED, b"degraded"),
        (LogLevel.TRACE, b"trace"),
    ],
)
def test_the_text_on_the_wire_is_that_of_the_guidelines(value: object, raw: bytes) -> None:
    """Each type has the text that other implementations read."""
    assert encode(value) == raw


@pytest.mark.parametrize(
    ("cls", "raw", "value"),
    [
        (int, b"+5", 5),
        (int, b" 12 ", 12),
        (float, b"3", 3.0),
        (Timestamp, b"12", Timestamp(12)),
        (Fraction, b"1.25", Fraction(5, 4)),
        (numbers.Real, b"1.5", 1.5),
        (numbers.Integral, b"15", 15),
        (str, b"caf\xc3\xa9", "café"),
        (Address, b"[::1]:80", Address(IPv6Address("::1"), 80)),
    ],
)
def test_texts_that_others_write_are_understood(cls: type, raw: bytes, value: object) -> None:
    """The decoder takes what peers send, not only what the encoder writes."""
    assert decode(cls, raw) == value


@pytest.mark.parametrize(
    ("cls", "raw"),
    [
        (int, b""),
        (int, b"1.0"),
        (int, b"0x10"),
        (int, b"abc"),
        (float, b""),
        (float, b"abc"),
        (float, b"1,5"),
        (Fraction, b"5/4"),
        (Fraction, b"inf"),
        (Fraction, b"-inf"),
        (Fraction, b"nan"),
        (Timestamp, b"now"),
        (Timestamp, b"yesterday"),
        (bool, b""),
        (bool, b"2"),
        (bool, b"true"),
        (bool, b"01"),
        (str, b"caf\xe9"),
        (Colour, b""),
        (Colour, b"RED"),
        (Colour, b"crimson"),
        (Colour, b"dark_blue"),
        (Number, b"1"),
        (Volume, b"loud"),
        (Now, b"later"),
        (LogLevel, b"20"),
    ],
)
def test_a_text_of_another_type_is_a_value_error(cls: type, raw: bytes) -> None:
    """Whatever is wrong with a text, the error is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - some of the texts are Python's own
        decode(cls, raw)


@given(st.sampled_from(list(VALUES)), st.binary(max_size=12))
def test_no_text_brings_anything_but_a_value_or_a_value_error(cls: type, raw: bytes) -> None:
    """Random bytes decode to a value of the class, or raise ValueError, whatever the class."""
    try:
        value = decode(cls, raw)
    except ValueError:
        return
    assert isinstance(value, cls)


def test_the_error_for_a_boolean_says_what_came() -> None:
    """A refused boolean is quoted."""
    with pytest.raises(ValueError, match=r"^boolean must be 0 or 1, not b'yes'$"):
        decode(bool, b"yes")


@pytest.mark.parametrize("value", [None, [], (), {}, {1}, 1j, Opaque(), object])
def test_a_value_of_no_type_is_a_type_error(value: object) -> None:
    """What has no KATCP type cannot be encoded, and the error names its class."""
    with pytest.raises(TypeError, match=rf"^{type(value)} is not registered$"):
        encode(value)


@pytest.mark.parametrize("cls", [type(None), list, complex, Opaque, list[int], Union[int, Opaque], "int"])
def test_a_class_of_no_type_is_a_type_error(cls: Any) -> None:
    """What has no KATCP type cannot be decoded, not even as one of several."""
    with pytest.raises(TypeError, match="is not registered"):
        decode(cls, b"1")


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (int, "integer"),
        (Count, "integer"),
        (bool, "boolean"),
        (float, "float"),
        (Fraction, "float"),
        (Timestamp, "timestamp"),
        (Seconds, "timestamp"),
        (str, "string"),
        (bytes, "string"),
        (Address, "address"),
        (Colour, "discrete"),
        (Number, "discrete"),
        (LogLevel, "discrete"),
    ],
)
def test_the_most_special_type_wins(cls: type, name: str) -> None:
    """A bool is no integer, an IntEnum is discrete, a Timestamp is no float."""
    assert STANDARD_TYPES.get(cls).name == name


@pytest.mark.parametrize(
    ("cls", "default"),
    [
        (int, 0),
        (float, 0.0),
        (bool, False),
        (str, ""),
        (bytes, b""),
        (Timestamp, Timestamp(0)),
        (Address, Address(IPv4Address("0.0.0.0"))),
        (Colour, Colour.RED),
        (Volume, Volume.QUIET),
        (Metres, Metres(0)),
    ],
)
def test_each_type_has_a_default(cls: type, default: object) -> None:
    """A sensor that was never set holds its class's zero, or the first member."""
    value = STANDARD_TYPES.get(cls).default(cls)
    assert value == default
    assert type(value) is cls


# Unions


@pytest.mark.parametrize("cls", [Union[int, bool, None], int | bool | None])
def test_none_in_a_union_means_nothing(cls: Any) -> None:
    """Only the real alternatives are tried."""
    assert decode(cls, b"5") == 5


@pytest.mark.parametrize("cls", [Optional[int], int | None])
def test_an_optional_is_its_only_alternative(cls: Any) -> None:
    """An optional T decodes as T, with the error of T."""
    assert decode(cls, b"5") == 5
    with pytest.raises(ValueError, match="invalid literal for int"):
        decode(cls, b"x")


def test_a_timestamp_or_now_is_either() -> None:
    """The word and the number both decode, each to its own class."""
    assert decode(TimestampOrNow, b"now") is Now.NOW
    stamp = decode(TimestampOrNow, b"12.5")
    assert stamp == Timestamp(12.5)
    assert type(stamp) is Timestamp


def test_a_union_that_nobody_accepts_says_so() -> None:
    """The error names the union and the text."""
    with pytest.raises(ValueError, match=r"^None of the types in .* could decode b'later'$"):
        decode(TimestampOrNow, b"later")


def test_a_union_that_several_accept_is_ambiguous() -> None:
    """A text that two alternatives accept is refused, rather than guessed."""
    assert decode(Union[int, float], b"1.5") == 1.5
    with pytest.raises(ValueError, match=r"^b'123' is ambiguous for int \| float$"):
        decode(Union[int, float], b"123")


def test_an_alternative_that_overflows_does_not_hide_the_others() -> None:
    """A class that cannot hold an infinity leaves it to the one that can."""
    assert decode(Union[Fraction, float], b"inf") == math.inf


# Registries


class Point:
    def __init__(self, x: int = 0) -> None:
        self.x = x


class SubPoint(Point):
    pass


def point_info(cls: type[Point] = Point, name: str = "point") -> TypeInfo[Any]:
    def encoder(cls: type[Point]) -> Callable[[Point], bytes]:
        return lambda point: name.encode() + b":%d" % point.x

    def decoder(cls: type[Point]) -> Callable[[bytes], Point]:
        return lambda raw: cls(int(raw.removeprefix(name.encode() + b":")))

    return TypeInfo(cls, name, encoder, decoder, lambda cls: cls())


def test_a_registration_after_a_failed_look_up_takes_effect() -> None:
    """A registry does not remember that it did not know a class."""
    types = STANDARD_TYPES.copy()
    for action in (
        lambda: types.encode(Point(3)),
        lambda: types.decode(Point, b"point:3"),
        lambda: types.decode(Union[int, Point], b"point:3"),
    ):
        with pytest.raises(TypeError, match="is not registered"):
            action()
    types.register(point_info())
    assert types.encode(Point(3)) == b"point:3"
    assert types.decode(Point, b"point:3").x == 3
    assert types.decode(Union[int, Point], b"point:4").x == 4


def test_a_registered_class_stands_for_its_subclasses() -> None:
    """A subclass is encoded like its base and decoded to itself."""
    types = STANDARD_TYPES.copy()
    types.register(point_info())
    assert types.encode(SubPoint(3)) == b"point:3"
    assert type(types.decode(SubPoint, b"point:3")) is SubPoint


def test_the_latest_registration_that_fits_wins() -> None:
    """A subclass registered later replaces what was found through its base, remembered or not."""
    types = STANDARD_TYPES.copy()
    types.register(point_info())
    assert types.encode(SubPoint(3)) == b"point:3"
    types.register(point_info(SubPoint, "sub"))
    assert types.encode(SubPoint(3)) == b"sub:3"
    assert types.encode(Point(3)) == b"point:3"


@pytest.mark.parametrize(
    "cls", [numbers.Real, numbers.Integral, bool, bytes, str, Address, Timestamp, enum.Enum]
)
def test_a_class_is_registered_once(cls: Any) -> None:
    """Registering the very class again is a ValueError and changes nothing."""
    types = STANDARD_TYPES.copy()
    with pytest.raises(ValueError, match="is already registered"):
        types.register(point_info(cls))
    assert types.get(cls).name == STANDARD_TYPES.get(cls).name


def test_the_standard_types_cannot_be_changed() -> None:
    """What one part of a program registers cannot change another: the standard types are frozen."""
    with pytest.raises(TypeError, match=r"register in a copy\(\)"):
        STANDARD_TYPES.register(point_info())
    with pytest.raises(TypeError, match="is not registered"):
        STANDARD_TYPES.get(Point)


def test_copies_do_not_know_of_each_other() -> None:
    """A type registered in a copy is in that copy, and in the copies made of it later."""
    one, other = STANDARD_TYPES.copy(), STANDARD_TYPES.copy()
    one.register(point_info())
    assert one.copy().encode(Point(1)) == b"point:1"
    with pytest.raises(TypeError, match="is not registered"):
        other.encode(Point(1))


def test_a_new_registry_knows_nothing() -> None:
    """Types are not taken from anywhere but from the registry itself."""
    with pytest.raises(TypeError, match=r"^<class 'int'> is not registered$"):
        TypeRegistry().encode(1)


# Address


@pytest.mark.parametrize("raw", [b"1.2.3.4", b"1.2.3.4:80", b"[::1]", b"[::1]:80", b"[fe80::1%eth0]:65535"])
def test_an_address_says_itself(raw: bytes) -> None:
    """Its bytes and its text are what it was parsed from."""
    address = Address.parse(raw)
    assert bytes(address) == raw
    assert str(address) == raw.decode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"::1",
        b"::1:80",
        b"localhost",
        b"localhost:80",
        b"1.2.3",
        b"1.2.3.4:",
        b"1.2.3.4:x",
        b"1.2.3.4:-1",
        b"1.2.3.4:65536",
        b"1.2.3.4:99999",
        b"1.2.3.4:123456",
        b"1.2.3.4\n",
        b"1.2.3.4:80\n",
        b" 1.2.3.4",
        b"1.2.3.4 ",
        b"[1.2.3.4]",
        b"[::1",
        b"[]",
        b"[::1]:",
        b"[::1]80",
        b"[::1]:65536",
        b"[::1]\n",
        b"[::1]:80\n",
        b"\xff",
        b"[\xff]",
    ],
)
def test_what_is_no_address_is_a_value_error_that_quotes_it(raw: bytes) -> None:
    """Host names, bare IPv6, ports out of range and trailing line ends are refused."""
    with pytest.raises(ValueError, match="could not parse b") as info:
        Address.parse(raw)
    assert repr(raw) in str(info.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    """A port that no socket has is an error of the caller."""
    with pytest.raises(ValueError, match="expected a port from 0 to 65535"):
        Address(IPv4Address("1.2.3.4"), port)


@pytest.mark.parametrize("host", ["1.2.3.4", b"1.2.3.4", 0, None])
def test_a_host_is_an_address_object(host: Any) -> None:
    """Text is not taken for an address, so that no host name slips in."""
    with pytest.raises(TypeError, match="expected an IPv4Address or IPv6Address"):
        Address(host)


def test_addresses_are_equal_by_host_and_port() -> None:
    """Equal ones hash alike; another port, another host, no port or another type makes a difference."""
    address = Address(IPv4Address("127.0.0.1"), 80)
    assert address == Address(IPv4Address("127.0.0.1"), 80)
    assert hash(address) == hash(Address(IPv4Address("127.0.0.1"), 80))
    for other in (
        Address(IPv4Address("127.0.0.1"), 81),
        Address(IPv4Address("127.0.0.2"), 80),
        Address(IPv4Address("127.0.0.1")),
        "127.0.0.1:80",
    ):
        assert address != other


def test_the_repr_of_an_address_can_be_evaluated() -> None:
    """It leaves out a port that is not there."""
    assert repr(Address(IPv4Address("127.0.0.1"), 7148)) == "Address(IPv4Address('127.0.0.1'), 7148)"
    assert repr(Address(IPv6Address("::1"))) == "Address(IPv6Address('::1'))"


def test_an_address_has_its_parts() -> None:
    """Host and port can be read back."""
    address = Address.parse(b"[::1]:0")
    assert address.host == IPv6Address("::1")
    assert address.port == 0
    assert Address.parse(b"1.2.3.4").port is None


# Log levels and errors


@pytest.mark.parametrize(
    ("python", "level"),
    [
        (-1, LogLevel.ALL),
        (0, LogLevel.ALL),
        (4, LogLevel.ALL),
        (5, LogLevel.TRACE),
        (9, LogLevel.TRACE),
        (10, LogLevel.DEBUG),
        (20, LogLevel.INFO),
        (25, LogLevel.INFO),
        (30, LogLevel.WARN),
        (39, LogLevel.WARN),
        (40, LogLevel.ERROR),
        (50, LogLevel.FATAL),
        (59, LogLevel.FATAL),
        (60, LogLevel.FATAL),
        (1000, LogLevel.FATAL),
    ],
)
def test_a_python_level_is_rounded_down_and_never_to_off(python: int, level: LogLevel) -> None:
    """A record at a level between two goes out as the lower one, and no record goes out as ``off``."""
    assert LogLevel.from_python(python) is level


def test_every_log_level_has_a_name_of_its_own() -> None:
    """All eight levels can be asked for on the wire, ``trace`` too."""
    texts = [b"all", b"trace", b"debug", b"info", b"warn", b"error", b"fatal", b"off"]
    assert [encode(level) for level in LogLevel] == texts
    assert [decode(LogLevel, text) for text in texts] == sorted(LogLevel)


def test_a_syntax_error_is_a_value_error_with_the_line() -> None:
    """Whoever catches ValueError gets it, and can show the line."""
    error = KatcpSyntaxError("bad", b"?x")
    assert isinstance(error, ValueError)
    assert (str(error), error.raw) == ("bad", b"?x")
    assert KatcpSyntaxError("bad").raw is None
