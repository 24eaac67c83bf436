from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.katcp.protocol.messages import (
    MAX_MID,
    Message,
    MessageType,
    Parser,
    Reply,
    WireMessage,
    escape,
    line,
    line_tail,
    unescape,
    wire_name,
)
from armillary.katcp.protocol.values import STANDARD_TYPES, KatcpSyntaxError, TypeInfo, TypeRegistry

ESCAPES = {
    b"\\": rb"\\",
    b" ": rb"\_",
    b"\0": rb"\0",
    b"\n": rb"\n",
    b"\r": rb"\r",
    b"\x1b": rb"\e",
    b"\t": rb"\t",
}
SIGNS = {MessageType.REQUEST: b"?", MessageType.REPLY: b"!", MessageType.INFORM: b"#"}

mtypes = st.sampled_from(MessageType)
names = st.from_regex(re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,20}", re.ASCII), fullmatch=True)
mids = st.none() | st.integers(1, MAX_MID) | st.sampled_from([1, 9, 10, MAX_MID])
# Any bytes, and besides some that are made of little else than what must be escaped.
arguments = st.lists(
    st.binary(max_size=20)
    | st.lists(st.sampled_from([*ESCAPES, b"@", b"e", b"_", b"\x0b", b"\x0c", b"\xff"])).map(b"".join)
    | st.just(b""),
    max_size=6,
)
blanks = st.text(" \t", min_size=1, max_size=4).map(str.encode)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    return Message(draw(mtypes), draw(names), *draw(arguments), mid=draw(mids))


def escaped(argument: bytes) -> bytes:
    pieces = (argument[i : i + 1] for i in range(len(argument)))
    return b"".join(ESCAPES.get(piece, piece) for piece in pieces) or rb"\@"


def naive_bytes(message: Message) -> bytes:
    """The line as the grammar has it, built piece by piece."""
    head = SIGNS[message.mtype] + message.name.encode()
    if message.mid is not None:
        head += b"[" + str(message.mid).encode() + b"]"
    return b" ".join([head, *map(escaped, message.arguments)]) + b"\n"


@given(messages())
def test_the_bytes_are_those_of_the_grammar(message: Message) -> None:
    r"""Exactly the seven forbidden bytes are escaped, and an empty argument is ``\@``."""
    assert bytes(message) == naive_bytes(message)


@given(messages(), st.sampled_from([b"\n", b"\r"]))
def test_a_message_comes_back_as_it_was(message: Message, end: bytes) -> None:
    """Parsing the bytes gives an equal message, whichever line end it had."""
    assert Message.parse(bytes(message)[:-1] + end) == message


@given(messages(), st.data())
def test_blanks_and_empty_escapes_mean_nothing(message: Message, data: st.DataObject) -> None:
    r"""Runs of spaces and tabs separate as one does, trailing ones are harmless, ``\@`` adds nothing."""
    head, *rest = bytes(message)[:-1].split(b" ")
    loose = head
    for argument in rest:
        loose += data.draw(blanks) + argument + data.draw(st.sampled_from([b"", rb"\@", rb"\@\@"]))
    loose += data.draw(blanks | st.just(b"")) + b"\n"
    assert Message.parse(loose) == message


@given(messages())
def test_a_message_cannot_be_torn_apart(message: Message) -> None:
    """Whatever its arguments hold, a message is one line of as many words as it has parts."""
    raw = bytes(message)
    assert raw.endswith(b"\n")
    body = raw[:-1]
    assert not set(body) & set(b"\0\n\r\t\x1b")
    assert body.count(b" ") == len(message.arguments)


@given(st.lists(messages(), max_size=5), st.integers(1, 7))
def test_a_stream_of_messages_is_parsed_however_it_is_cut(sent: list[Message], size: int) -> None:
    """Whole, byte by byte or in pieces, with blank lines between, the parser gives what was sent."""
    raw = b"\r \t\n".join(bytes(message) for message in sent)
    for step in (len(raw) or 1, 1, size):
        parser = Parser(1000)
        got = [wire for i in range(0, len(raw), step) for wire in parser.append(raw[i : i + step])]
        assert [Message.from_wire(wire) for wire in got] == sent
        assert parser.buffer_size == 0


@given(st.binary(max_size=30).map(lambda body: b"?" + body + b"\n") | st.binary(max_size=30))
def test_no_bytes_bring_anything_but_a_message_or_a_syntax_error(raw: bytes) -> None:
    """Random lines parse to a message that can be written again, or raise KatcpSyntaxError with the line."""
    try:
        message = Message.parse(raw)
    except KatcpSyntaxError as error:
        assert error.raw == raw  # noqa: PT017 - either way is right
    else:
        assert Message.parse(bytes(message)) == message


def test_the_guidelines_example() -> None:
    """Values of all kinds are encoded and escaped in one line, and come back as bytes."""
    message = Message.request("hello", "café", b"_bin ary\xff\0\n\r\t\\\x1b", 123, 234.5, True, False, "")
    raw = b"?hello caf\xc3\xa9 _bin\\_ary\xff\\0\\n\\r\\t\\\\\\e 123 234.5 1 0 \\@\n"
    assert bytes(message) == raw
    assert message.arguments[2:] == [b"123", b"234.5", b"1", b"0", b""]
    assert Message.parse(raw) == message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"?x\r\n", Message.request("x")),  # as telnet ends a line
        (b"?x a\n\n", Message.request("x", "a")),
        (b"?watchdog[2]\r", Message.request("watchdog", mid=2)),
        (b"!fail[234] on\\_fire\n", Message.reply("fail", "on fire", mid=234)),
        (b"#x[2147483647]\n", Message.inform("x", mid=2147483647)),
        (b"?x \t a  b \t\n", Message.request("x", "a", "b")),
        (b"?x \n", Message.request("x")),
        (b"?x a\\@b \\@\\@ \\@\n", Message.request("x", "ab", "", "")),
        (b"?x \x0b\x0c\x01\x7f\x80\xff\n", Message.request("x", b"\x0b\x0c\x01\x7f\x80\xff")),
        (b"?Upper-Case-9-\n", Message.request("Upper-Case-9-")),
        (b"?x [1] ?y #\n", Message.request("x", "[1]", "?y", "#")),
    ],
)
def test_what_a_line_may_look_like(raw: bytes, message: Message) -> None:
    r"""CR or CR LF at the end, trailing blanks, ``\v`` and ``\f`` in arguments, the largest id are fine."""
    assert Message.parse(raw) == message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\r",
        b" \t\n",
        b"?x",  # no line end
        b"?x a",
        b"?x\n?y\n",  # two messages
        b"?x a\nb\n",  # a line end inside
        b"?x a\rb\n",
        b"?x\r\n?y\r\n",
        b"x\n",
        b" ?x\n",
        b"?\n",
        b"? x\n",
        b"?1x\n",
        b"?-x\n",
        b"?x_y\n",
        b"?x! a\n",
        b"?caf\xc3\xa9\n",
        b"?x[0]\n",
        b"?x[01]\n",
        b"?x[-1]\n",
        b"?x[+1]\n",
        b"?x[1.0]\n",
        b"?x[a]\n",
        b"?x[]\n",
        b"?x[ 1]\n",
        b"?x[1 ]\n",
        b"?x [1\n?",
        b"?x[1\n",
        b"?x[1]a\n",
        b"?x[2147483648]\n",
        b"?x[99999999999999999999]\n",
        b"?x a\x1bb\n",
        b"?x \x1b\n",
        b"?x a\0\n",
        b"?x \\\n",
        b"?x a\\ b\n",
        b"?x \\q\n",
        b"?x \\N\n",
    ],
)
def test_what_is_no_line_is_a_syntax_error(raw: bytes) -> None:
    """Each rule of the grammar, broken, is a KatcpSyntaxError that holds the line."""
    with pytest.raises(KatcpSyntaxError) as info:
        Message.parse(raw)
    assert info.value.raw == raw


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"x\n", '"Invalid character" at character 1'),
        (b"?x a\x1b\n", '"Invalid character" at character 5'),
        (b"?x[2147483648]\n", '"Message ID overflowed" at character'),
    ],
)
def test_a_syntax_error_says_what_is_wrong_and_where(raw: bytes, text: str) -> None:
    """The text is what other servers send to their clients, positions counted from one."""
    with pytest.raises(KatcpSyntaxError, match=re.escape(text)):
        Message.parse(raw)


def test_an_overlong_line_is_one_error_and_the_next_line_is_fine() -> None:
    """The limit counts the line end; what follows an overlong line parses as if nothing had been."""
    parser = Parser(10)
    fits, refused, after = parser.append(b"?abcdefgh\n?abcdefghi" + b"j" * 100 + b"\n?ok\n?par")
    assert bytes(fits) == b"?abcdefgh\n"
    assert isinstance(refused, ValueError)
    assert str(refused) == '"Line too long" at character 11'
    assert bytes(after) == b"?ok\n"
    assert parser.buffer_size == 4


@pytest.mark.parametrize("name", ["", "1x", "-x", "x_y", "x y", "x\n", "café", "x[1]", "?x"])
def test_a_name_outside_its_grammar_is_refused(name: str) -> None:
    """A message that could not be sent cannot be made."""
    with pytest.raises(ValueError, match="expected a name of letters, digits and dashes"):
        Message.request(name)


@pytest.mark.parametrize("mid", [0, -1, 2**31, 2**64, 10**30])
def test_a_message_id_out_of_range_is_refused(mid: int) -> None:
    """Message ids are 1 to 2**31 - 1, and the error is a ValueError."""
    with pytest.raises(ValueError, match="expected a message id from 1 to 2147483647"):
        Message.request("x", mid=mid)


@pytest.mark.parametrize("argument", [None, [], ("a",), 1j])
def test_an_argument_without_a_type_is_refused(argument: object) -> None:
    """What cannot be encoded is a TypeError where the message is made."""
    with pytest.raises(TypeError, match="is not registered"):
        Message.request("x", "fine", argument)


def test_the_makers_of_each_kind() -> None:
    """`request`, `reply` and `inform` make messages of their type."""
    assert Message.request("x", 1, mid=2) == Message(Message.Type.REQUEST, "x", 1, mid=2)
    assert Message.reply("x", 1, mid=2) == Message(Message.Type.REPLY, "x", 1, mid=2)
    assert Message.inform("x", 1, mid=2) == Message(Message.Type.INFORM, "x", 1, mid=2)
    assert [bytes(make("x"))[:1] for make in (Message.request, Message.reply, Message.inform)] == [
        b"?",
        b"!",
        b"#",
    ]


@pytest.mark.parametrize(
    "other",
    [
        Message.reply("test", "a", mid=1),
        Message.request("test2", "a", mid=1),
        Message.request("Test", "a", mid=1),
        Message.request("test", "b", mid=1),
        Message.request("test", "a", "", mid=1),
        Message.request("test", mid=1),
        Message.request("test", "a", mid=2),
        Message.request("test", "a"),
        b"?test[1] a\n",
        5,
        None,
    ],
)
def test_messages_are_equal_only_in_everything(other: Any) -> None:
    """A difference in type, name, arguments or id, and any other class, makes unequal."""
    message = Message.request("test", "a", mid=1)
    assert message == Message.request("test", b"a", mid=1)
    assert message != other
    assert not message == other  # noqa: SIM201 - the other operator


def test_a_message_has_no_hash() -> None:
    """It is mutable and compared by value, so it cannot be a key."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Message.request("x"))


def test_the_repr_of_a_message_shows_all_of_it() -> None:
    """Type, name, arguments and, if there is one, the id."""
    reply = Message.reply("fail", "on fire", mid=234)
    assert repr(reply) == "Message(Message.Type.REPLY, 'fail', b'on fire', mid=234)"
    assert repr(Message.inform("x")) == "Message(Message.Type.INFORM, 'x')"


@pytest.mark.parametrize(
    ("message", "ok"),
    [
        (Message.reply("x", "ok"), True),
        (Message.reply("x", "ok", "more", mid=1), True),
        (Message.reply("x"), False),
        (Message.reply("x", "OK"), False),
        (Message.reply("x", "fail", "ok"), False),
        (Message.reply("ok"), False),
        (Message.request("x", "ok"), False),
        (Message.inform("x", "ok"), False),
    ],
)
def test_only_a_reply_that_says_ok_is_ok(message: Message, ok: bool) -> None:
    """A request or an inform that says so is not."""
    assert message.reply_ok() is ok


class Kelvin:
    """A class that the guidelines do not know."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def test_a_subclass_may_know_more_types() -> None:
    """Arguments are encoded by the registry of the message's class, and what it makes is of that class."""
    registry = STANDARD_TYPES.copy()
    registry.register(
        TypeInfo(Kelvin, "kelvin", lambda cls: lambda value: b"%gK" % value.degrees, *[Any] * 2)
    )

    class OwnMessage(Message):
        __slots__ = ()
        types: ClassVar[TypeRegistry] = registry

    message = OwnMessage.request("cool", Kelvin(4.5), 1)
    assert message.arguments == [b"4.5K", b"1"]
    assert type(OwnMessage.parse(bytes(message))) is OwnMessage
    assert OwnMessage.parse(bytes(message)) == message
    with pytest.raises(TypeError, match="is not registered"):
        Message.request("cool", Kelvin(4.5))


@given(st.binary(max_size=20))
def test_what_is_escaped_comes_back(argument: bytes) -> None:
    """An argument's text in a line is that of the grammar, and `unescape` undoes it."""
    assert escape(argument) == escaped(argument)
    assert unescape(escape(argument)) == argument


@pytest.mark.parametrize(
    ("text", "argument"),
    [(rb"\@", b""), (rb"a\@b\@", b"ab"), (b"", b""), (b"a b\\_\n", b"a b \n"), (b"\xff", b"\xff")],
)
def test_unescaping_is_lenient(text: bytes, argument: bytes) -> None:
    r"""``\@`` may stand anywhere, and what should have been escaped is left as it is."""
    assert unescape(text) == argument


@pytest.mark.parametrize("text", [b"\\", b"a\\", b"\\q", b"\\N", b"\\\n", b"\\ ", b"a\\\\\\"])
def test_an_escape_that_means_nothing_is_a_syntax_error(text: bytes) -> None:
    """The error holds the text."""
    with pytest.raises(KatcpSyntaxError, match="expected an escape, got") as info:
        unescape(text)
    assert info.value.raw == text


def test_the_return_codes_are_bytes() -> None:
    """The constants compare with arguments as they came."""
    assert (Message.OK, Message.FAIL, Message.INVALID) == (b"ok", b"fail", b"invalid")


@given(messages())
def test_the_codecs_message_and_ours_are_the_same(message: Message) -> None:
    """`from_wire` keeps the four parts, and `line` writes them."""
    wire = WireMessage(message.mtype, message.name.encode(), message.mid, message.arguments)
    assert Message.from_wire(wire) == message
    assert line(message.mtype, message.name.encode(), message.mid, message.arguments) == bytes(message)


@given(names, arguments, mids)
def test_a_tail_fits_behind_any_head(name: str, parts: list[bytes], mid: int | None) -> None:
    """The tail made once, put after any name and id, completes the line of that inform."""
    head = name.encode() if mid is None else b"%s[%d]" % (name.encode(), mid)
    assert b"#" + head + line_tail(parts) == bytes(Message.inform(name, *parts, mid=mid))


@given(st.text(max_size=8) | st.text("aZ9-_[", max_size=8))
def test_a_wire_name_is_ascii_letters_digits_and_dashes(name: str) -> None:
    """A name within the grammar becomes its bytes; any other is a ValueError that quotes it."""
    if re.fullmatch("[a-zA-Z][a-zA-Z0-9-]*", name):
        assert wire_name(name) == name.encode()
    else:
        with pytest.raises(ValueError, match=re.escape(f"letters, digits and dashes, got {name!r}")):
            wire_name(name)


def test_a_reply_unpacks_into_arguments_and_informs() -> None:
    """Callers write ``arguments, informs = ...``."""
    arguments, informs = Reply([b"1"], [Message.inform("x")])
    assert arguments == [b"1"]
    assert informs == [Message.inform("x")]
