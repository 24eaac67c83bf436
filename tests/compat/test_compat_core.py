"""Messages and types, as programs of the old API use them."""

from __future__ import annotations

import enum
import numbers
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiokatcp._version import __version__, minor_version
from aiokatcp.core import (
    Address,
    DeviceStatus,
    KatcpSyntaxError,
    LogLevel,
    Message,
    Now,
    Timestamp,
    TimestampOrNow,
    TypeInfo,
    decode,
    encode,
    get_decoder,
    get_type,
    register_type,
)


class Number(enum.IntEnum):
    ONE = 1
    TWENTY_TWO = 22


class Word(enum.Enum):
    QUIET = "pp"
    LOUD = "ff"

    def __init__(self, text: str) -> None:
        self.katcp_value = text.encode()


class Metres(float):
    pass


class Count(int):
    pass


class Name(str):
    pass


class Blob(bytes):
    pass


def test_the_version_is_that_of_the_api() -> None:
    """The version counts as the API's does, and the minor version is its first two parts."""
    assert __version__.startswith("2.3.")
    assert minor_version() == "2.3"


# Types


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123, b"123"),
        (-5, b"-5"),
        (10**30, b"1" + b"0" * 30),
        (1e20, b"1e+20"),
        (-123.5, b"-123.5"),
        (float("inf"), b"inf"),
        (-0.0, b"-0.0"),
        (Fraction(5, 4), b"1.25"),
        (True, b"1"),
        (False, b"0"),
        ("café", "café".encode()),
        (b"caf\xc3", b"caf\xc3"),
        (Timestamp(123456789), b"123456789.0"),
        (Now.NOW, b"now"),
        (DeviceStatus.DEGRADED, b"degraded"),
        (Number.TWENTY_TWO, b"twenty-two"),
        (Word.QUIET, b"pp"),
        (Address(IPv4Address("1.2.3.4")), b"1.2.3.4"),
        (Address(IPv6Address("::1"), 80), b"[::1]:80"),
        (Metres(1.5), b"1.5"),
    ],
)
def test_a_value_is_encoded_and_comes_back(value: Any, text: bytes) -> None:
    """Every kind of value has its text, and the text decodes to an equal value of that class."""
    assert encode(value) == text
    assert get_type(type(value)).encode(value) == text
    if type(value) is not Fraction:
        assert decode(type(value), text) == value
    assert type(decode(type(value), text)) is type(value)


@pytest.mark.parametrize(
    ("cls", "text", "value"),
    [
        (int, b" +1_000 ", 1000),
        (float, b" 1_0.5 ", 10.5),
        (numbers.Integral, b"5", 5),
        (Fraction, b"1.25", Fraction(5, 4)),
        (Timestamp, b"12", Timestamp(12)),
        (TimestampOrNow, b"now", Now.NOW),
        (TimestampOrNow, b"12", Timestamp(12)),
        (Optional[int], b"3", 3),  # noqa: UP045 - as programs still write it
        (int | None, b"3", 3),
        (Union[int, Address, None], b"1.2.3.4", Address(IPv4Address("1.2.3.4"))),
        (int | DeviceStatus, b"ok", DeviceStatus.OK),
    ],
)
def test_a_text_is_decoded(cls: Any, text: bytes, value: object) -> None:
    """Numbers may be written as Python reads them; of a union exactly one alternative must accept."""
    assert decode(cls, text) == value
    assert get_decoder(cls)(text) == value


@pytest.mark.parametrize("cls", [Metres, Count, Name, Blob])
def test_a_subclass_is_decoded_to_itself(cls: type[Any]) -> None:
    """What a program derives from a number or a string comes back as it."""
    assert type(decode(cls, b"1")) is cls


@pytest.mark.parametrize(
    ("cls", "text", "reason"),
    [
        (int, b"1.5", "invalid literal for int"),
        (float, b"x", "could not convert string to float: b'x'"),
        (Fraction, b"5/4", "could not convert string to float"),
        (Fraction, b"inf", "could not convert"),
        (bool, b"2", "^boolean must be 0 or 1, not b'2'$"),
        (bool, b"true", "boolean must be 0 or 1"),
        (str, b"\xff", "can't decode byte 0xff"),
        (DeviceStatus, b"OK", "b'OK' is not a valid value for DeviceStatus"),
        (Number, b"1", "is not a valid value for Number"),
        (Timestamp, b"now", "could not convert"),
        (TimestampOrNow, b"then", "^None of the types in .* could decode b'then'$"),
        (Union[int, float], b"123", "^b'123' is ambiguous for "),
    ],
)
def test_a_text_of_another_type_is_a_value_error(cls: Any, text: bytes, reason: str) -> None:
    """What is wrong is in the error, which is a ValueError for every type."""
    with pytest.raises(ValueError, match=reason):
        decode(cls, text)


@pytest.mark.parametrize("cls", [dict, None, list[int], "int", Union[int, dict], Any])
def test_a_class_that_is_no_type_is_a_type_error(cls: Any) -> None:
    """A class that nobody registered is the program's mistake, not the text's."""
    for look_up in (lambda: decode(cls, b"1"), lambda: get_decoder(cls), lambda: get_type(cls)):
        with pytest.raises(TypeError):
            look_up()


@pytest.mark.parametrize("value", [None, [1], (), {}, 1j, bytearray()])
def test_a_value_without_a_type_is_a_type_error(value: object) -> None:
    """None and lists above all cannot be encoded, and the error names the class."""
    with pytest.raises(TypeError, match=f"^{type(value)} is not registered$"):
        encode(value)


@pytest.mark.parametrize(
    ("cls", "base", "name", "default"),
    [
        (int, numbers.Integral, "integer", 0),
        (float, numbers.Real, "float", 0.0),
        (Fraction, numbers.Real, "float", 0),
        (bool, bool, "boolean", False),
        (str, str, "string", ""),
        (bytes, bytes, "string", b""),
        (Timestamp, Timestamp, "timestamp", 0.0),
        (Address, Address, "address", Address(IPv4Address("0.0.0.0"))),
        (Word, enum.Enum, "discrete", Word.QUIET),
        (Number, enum.Enum, "discrete", Number.ONE),
    ],
)
def test_what_is_known_of_a_type(cls: type[Any], base: type[Any], name: str, default: object) -> None:
    """A type tells the class that was registered, its wire name, its coders, and a default of the class."""
    info = get_type(cls)
    assert isinstance(info, TypeInfo)
    assert (info.type_, info.name, info.default(cls)) == (base, name, default)
    assert type(info.default(cls)) is cls
    text = info.encode(default)
    assert info.decode(cls, text) == info.get_decoder(cls)(text) == default
    assert get_type(cls) is info


# Types of one's own


def registered(cls: type[Any], name: str = "own", **options: Any) -> TypeInfo[Any]:
    def get_decoder(actual: type[Any]) -> Callable[[bytes], Any]:
        return lambda raw: actual(raw[1:].decode())

    register_type(cls, name, lambda value: f"<{value.text}".encode(), get_decoder, **options)
    return get_type(cls)


class Own:
    def __init__(self, text: str = "none") -> None:
        self.text = text


def fresh() -> type[Any]:
    """A class that no other test has registered."""
    return type("Fresh", (Own,), {})


def test_a_registered_type_is_one_as_any_other() -> None:
    """It can be encoded, decoded, sent in a message, and stand in a union."""
    cls = fresh()
    with pytest.raises(TypeError, match="is not registered"):
        Message.request("x", cls("a b"))
    info = registered(cls)
    assert encode(cls("a b")) == b"<a b"
    assert decode(cls, b"<c").text == "c"
    assert decode(int | cls, b"<c").text == "c"
    assert Message.request("x", cls("a b"), 3).arguments == [b"<a b", b"3"]
    assert (info.type_, info.name, info.default(cls).text) == (cls, "own", "none")


def test_a_registration_after_a_failed_look_up_takes_effect() -> None:
    """Nothing remembers that a class had no type."""
    cls = fresh()
    for look_up in (lambda: encode(cls()), lambda: get_decoder(cls), lambda: get_type(cls)):
        with pytest.raises(TypeError):
            look_up()
    registered(cls)
    assert encode(cls()) == b"<none"
    assert get_decoder(cls)(b"<x").text == "x"


def test_a_subclass_is_of_its_bases_type_until_it_has_its_own() -> None:
    """The superclass registered last wins, and its coders are given the actual class."""
    base = fresh()
    derived = type("Derived", (base,), {})
    info = registered(base, "base", default=lambda cls: cls("default of " + cls.__name__))
    assert get_type(derived) is info
    assert type(decode(derived, b"<x")) is derived
    assert info.default(derived).text == "default of Derived"
    assert registered(derived, "derived").name == "derived"
    assert get_type(derived).name == "derived"
    assert get_type(base).name == "base"


def test_a_base_registered_later_wins() -> None:
    """Order of registration counts, not how close the class is."""
    base = fresh()
    derived = type("Derived", (base,), {})
    registered(derived, "derived")
    registered(base, "base")
    assert get_type(derived).name == "base"


def test_registering_twice_is_a_value_error() -> None:
    """For standard types as for others; a subclass is another class."""
    cls = fresh()
    registered(cls)
    for taken in (cls, numbers.Real, str, enum.Enum, Address):
        with pytest.raises(ValueError, match="is already registered"):
            registered(taken)


def test_a_type_can_be_made_by_hand() -> None:
    """The constructor takes what `register_type` takes, the default included."""
    info: TypeInfo[int] = TypeInfo(
        int, "hex", lambda value: b"%x" % value, lambda cls: lambda raw: cls(raw, 16), lambda cls: cls(7)
    )
    assert (info.type_, info.name) == (int, "hex")
    assert info.encode(255) == b"ff"
    assert info.get_decoder(int)(b"ff") == 255
    assert info.decode(int, b"ff") == 255
    assert info.default(int) == 7


# Single types


def test_addresses() -> None:
    """Host and port, text and bytes, equality and hash."""
    address = Address(ip_address("127.0.0.1"), 7148)
    assert (address.host, address.port) == (IPv4Address("127.0.0.1"), 7148)
    assert (str(address), bytes(address)) == ("127.0.0.1:7148", b"127.0.0.1:7148")
    assert repr(address) == "Address(IPv4Address('127.0.0.1'), 7148)"
    assert repr(Address(ip_address("::1"))) == "Address(IPv6Address('::1'))"
    assert address == Address(ip_address("127.0.0.1"), 7148)
    assert hash(address) == hash(Address(ip_address("127.0.0.1"), 7148))
    assert address != Address(ip_address("127.0.0.1"))
    assert address != "127.0.0.1:7148"
    with pytest.raises(TypeError):
        Address("127.0.0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:80", "[fe80::1%eth0]:1"])
def test_an_address_is_parsed(text: str) -> None:
    """All four forms, and a scope."""
    assert str(Address.parse(text.encode())) == text


@pytest.mark.parametrize(
    "raw", [b"", b"::1", b"[127.0.0.1]", b"1.2.3.4:", b"1.2.3.4:-1", b"foo", b"[::1", b"\xff"]
)
def test_what_is_no_address_is_a_value_error(raw: bytes) -> None:
    """Host names among them."""
    with pytest.raises(ValueError, match="could not parse"):
        Address.parse(raw)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, LogLevel.ALL),
        (10, LogLevel.DEBUG),
        (20, LogLevel.INFO),
        (25, LogLevel.INFO),
        (30, LogLevel.WARN),
        (40, LogLevel.ERROR),
        (49, LogLevel.ERROR),
        (50, LogLevel.FATAL),
        (1000, LogLevel.FATAL),
    ],
)
def test_python_levels_are_rounded_down(level: int, expected: LogLevel) -> None:
    """A record at a level of one's own has the level below, and is never off."""
    assert LogLevel.from_python(level) is expected


def test_every_log_level_has_a_word() -> None:
    """All eight go over the wire and come back, trace among them."""
    words = [b"all", b"trace", b"debug", b"info", b"warn", b"error", b"fatal", b"off"]
    assert [encode(decode(LogLevel, word)) for word in words] == words
    assert (LogLevel.ALL, LogLevel.DEBUG, LogLevel.OFF) == (0, 10, 60)


# Messages


def test_a_message() -> None:
    """What it is made of, and how it looks."""
    message = Message.reply("fail", "on fire", mid=234)
    assert (message.mtype, message.name, message.arguments, message.mid) == (
        Message.Type.REPLY,
        "fail",
        [b"on fire"],
        234,
    )
    assert bytes(message) == b"!fail[234] on\\_fire\n"
    assert repr(message) == "Message(Message.Type.REPLY, 'fail', b'on fire', mid=234)"
    assert repr(Message.inform("x")) == "Message(Message.Type.INFORM, 'x', mid=None)"
    with pytest.raises(AttributeError):
        message.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unhashable"):
        hash(message)


def test_the_makers_of_messages() -> None:
    """Each kind has one, and answers take name and id from what they answer."""
    request = Message.request("x", 1, 2.5, mid=5)
    assert request == Message(Message.Type.REQUEST, "x", 1, 2.5, mid=5)
    assert Message.inform("x", "a") == Message(Message.Type.INFORM, "x", "a")
    assert Message.reply_to_request(request, Message.OK, 3) == Message.reply("x", "ok", 3, mid=5)
    assert Message.inform_reply(request, True) == Message.inform("x", True, mid=5)
    for made in (request, Message.reply_to_request(request), Message.inform_reply(request)):
        assert type(made) is Message


def test_only_a_reply_that_says_ok_is_ok() -> None:
    """The constants are what stands first in a reply."""
    assert Message.reply("x", Message.OK, 3).reply_ok()
    for other in (
        Message.reply("x", Message.FAIL),
        Message.reply("x", Message.INVALID),
        Message.reply("x"),
        Message.inform("x", Message.OK),
    ):
        assert not other.reply_ok()


@pytest.mark.parametrize(
    "other",
    [
        Message.reply("x", "a", mid=1),
        Message.request("y", "a", mid=1),
        Message.request("x", "b", mid=1),
        Message.request("x", "a"),
        5,
    ],
)
def test_messages_are_equal_in_everything_or_not_at_all(other: object) -> None:
    """Type, name, arguments and id are compared, and anything else is unequal."""
    message = Message.request("x", "a", mid=1)
    assert message == Message.request("x", b"a", mid=1)
    assert message != other


@pytest.mark.parametrize("mid", [0, -1, 2**31])
def test_a_message_id_out_of_range_is_a_value_error(mid: int) -> None:
    """Ids are 1 to 2**31 - 1."""
    assert Message.request("x", mid=2**31 - 1).mid == 2**31 - 1
    with pytest.raises(ValueError, match=f"{mid}"):
        Message.request("x", mid=mid)


@pytest.mark.parametrize("name", ["", "1x", "a b", "x[1]", "café", "a_b"])
def test_a_bad_name_is_a_value_error(name: str) -> None:
    """Names are ASCII letters, digits and dashes."""
    with pytest.raises(ValueError, match="name"):
        Message.request(name)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"?watchdog[2]\r", Message.request("watchdog", mid=2)),
        (b"?x\r\n", Message.request("x")),
        (b"?x a \t \n", Message.request("x", "a")),
        (b"#x a\\@b\\_ \\@\n", Message.inform("x", "ab ", "")),
        (b"!x a\x0b\x0c\xff\n", Message.reply("x", b"a\x0b\x0c\xff")),
        (
            b"?hello caf\xc3\xa9 _bin\\_ary\xff\\0\\n\\r\\t\\\\\\e 123 234.5 1 0 \\@\n",
            Message.request("hello", "café", b"_bin ary\xff\0\n\r\t\\\x1b", 123, 234.5, True, False, ""),
        ),
    ],
)
def test_a_line_is_parsed(raw: bytes, message: Message) -> None:
    """CR and CR LF end a line as LF does; blanks at its end mean nothing."""
    parsed = Message.parse(raw)
    assert parsed == message
    assert type(parsed) is Message
    assert all(type(argument) is bytes for argument in parsed.arguments)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b" \t\n",
        b"?x",
        b"?x\n?y\n",
        b"x\n",
        b" ?x\n",
        b"?x[0]\n",
        b"?x[a]\n",
        b"?x[2147483648]\n",
        b"?x a\x1b\n",
        b"?x \\q\n",
        b"?x \\\n",
    ],
)
def test_what_is_no_line_is_a_syntax_error(raw: bytes) -> None:
    """The error is a ValueError and holds the line."""
    with pytest.raises(KatcpSyntaxError) as caught:
        Message.parse(raw)
    assert isinstance(caught.value, ValueError)
    assert caught.value.raw == raw


def test_a_syntax_error_of_ones_own() -> None:
    """The line is optional."""
    assert KatcpSyntaxError("what").raw is None
    assert str(KatcpSyntaxError("what", b"raw")) == "what"


@given(st.binary(max_size=20))
def test_an_argument_is_escaped_and_comes_back(argument: bytes) -> None:
    """`unescape_argument` undoes `escape_argument`, whose text is one word of a line."""
    text = Message.escape_argument(argument)
    assert Message.unescape_argument(text) == argument
    assert Message.parse(b"?x " + text + b"\n").arguments == [argument]


@pytest.mark.parametrize("text", [b"\\", b"a\\", b"\\x"])
def test_a_bad_escape_is_a_syntax_error(text: bytes) -> None:
    """A backslash needs a code that means something."""
    with pytest.raises(KatcpSyntaxError):
        Message.unescape_argument(text)
