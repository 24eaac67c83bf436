from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packet_model import naive_envelope, scanned, without_positions

from armillary.network.protocol import nesting
from armillary.network.protocol.codec import MAX_DEPTH
from armillary.network.protocol.nesting import LONGEST_GAP
from armillary.network.protocol.packets import PacketError
from armillary.network.protocol.scanning import (
    LONGEST_SHORT_LINE,
    LONGEST_VALUE,
    MOST_KEYS,
    Envelope,
    EnvelopeScanner,
    Kind,
    scan_line,
)

REQUEST = (
    b'{"args": [1, "\xc3\xa9"], "attribute": "measure", "error": false, "kwargs": {"n": 5},'
    b' "service": "DMM", "uid": "c0ffee-1"}\r\n'
)
REPLY = b'{"error": false, "requester": "Bench A[lab7:51022]", "result": [1.25, "V"], "uid": "c0ffee-1"}\r\n'

texts = st.sampled_from(
    ["", "DMM", "Manager", "__disconnect__", "notification", "c0ffee-1", "é", "\ud800", 'a"\\\n', "😀", "uid"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", '"', "\\", "[,]", "{", "}", "NaN", "\n", "\ud83d", "uid", '"uid"', "\x7f"])
    | st.text(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "uid", "", "é", '"']), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.one_of(
    st.tuples(st.sampled_from(["service", "attribute", "uid", "requester"]), texts | st.none()),
    st.tuples(st.sampled_from(["error", "more"]), st.booleans() | st.none()),
    st.tuples(st.sampled_from(["bin1", "stream"]), st.integers(0, 10**16)),
    st.tuples(st.just("stream"), st.sampled_from([None, -1, 0.0, 1.5, 10**14, True, "1"])),
    st.tuples(
        st.sampled_from(["result", "args", "kwargs", "", "é", "service", "uid", "bin1", "error"]), values
    ),
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r")])


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """An object with keys that mean something, some of them twice or of the wrong type."""
    comma, colon = draw(separators)
    ascii_only = draw(st.booleans())
    written = [
        json.dumps(key, ensure_ascii=ascii_only)
        + colon
        + json.dumps(value, ensure_ascii=ascii_only, separators=(comma, colon))
        for key, value in draw(st.lists(members, max_size=7))
    ]
    text = "{" + comma.join(written) + "}" + draw(st.sampled_from(["", "\n", "\r\n", " \r\n"]))
    if draw(st.booleans()):
        text = text.replace('"requester"', r'"r\u0065quester"')
    return text.encode("utf-8", "backslashreplace")


SIGNS = rb"""{ } [ ] " : , \ 0 1 - . e NaN Infinity -Infinity null true \u00e9 \ud800 \u12 '' [[ [{"": ]}"""
damages = st.sampled_from([*SIGNS.split(), b"", b" ", b"\t", b"\r", b"\n", b"\x01", b"\xc3\xa9", b"\xff"])


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """A line in which some bytes were replaced."""
    line = draw(lines())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(line)))
        line = line[:start] + draw(damages) + line[start + draw(st.integers(0, 2)) :]
    return line


any_line = lines() | damaged_lines() | st.lists(damages, max_size=12).map(b"".join)
agreements = st.fixed_dictionaries({"binary": st.booleans(), "stream": st.booleans()})


def at_once(line: bytes, **agreed: bool) -> Envelope | PacketError:
    try:
        return scan_line(line, **agreed)
    except PacketError as error:
        return error


def is_same(one: Envelope | PacketError, other: Envelope | PacketError) -> bool:
    if isinstance(one, PacketError) and isinstance(other, PacketError):
        return (one.uid, one.is_json, one.attached) == (other.uid, other.is_json, other.attached)
    return one == other


@given(any_line, agreements)
@example(rb'{"result":1,"requester":"a","requester":null}', {"binary": False, "stream": False})
@example(rb'{"args":[[{"a":5}.1]],"service":"a","attribute":"b"}', {"binary": False, "stream": False})
def test_a_line_is_understood_as_the_naive_model_understands_it(line: bytes, agreed: dict[str, bool]) -> None:
    """What the standard library reads, and the rules on the envelope allow, passes; nothing else does."""
    naive = naive_envelope(line, **agreed)
    found = at_once(line, **agreed)
    assert (None if isinstance(found, PacketError) else without_positions(found)) == naive


@given(any_line, agreements, st.lists(st.integers(1, 9)))
@example(
    rb'{"args":[[{"a":5}.1]],"service":"a","attribute":"b"}', {"binary": False, "stream": False}, [1] * 50
)
def test_it_does_not_matter_how_a_line_comes(line: bytes, agreed: dict[str, bool], sizes: list[int]) -> None:
    """Whole, byte by byte, in pieces, or at once on the short way: the answer is the same."""
    found = at_once(line, **agreed)
    assert is_same(scanned(line, **agreed), found)
    assert is_same(scanned(line, [1] * len(line), **agreed), found)
    assert is_same(scanned(line, sizes, **agreed), found)


@given(lines(), st.binary(min_size=1, max_size=5))
def test_nothing_but_blanks_may_follow_a_packet(line: bytes, after: bytes) -> None:
    """Something behind the closing brace is an error, unless it is white space."""
    if isinstance(at_once(line), Envelope):
        found = at_once(line + after)
        assert isinstance(found, PacketError) == bool(after.strip(b" \t\r\n"))


@given(lines())
def test_positions_are_those_of_the_brace_and_of_the_requester(line: bytes) -> None:
    """What will be replaced or put in is exactly where the scanner says."""
    found = at_once(line)
    if not isinstance(found, Envelope) or found.kind is not Kind.REQUEST:
        return
    assert line[found.closing : found.closing + 1] == b"}"
    assert not line[found.closing + 1 :].strip()
    if found.requester_span is not None:
        start, stop = found.requester_span
        assert json.loads(line[start:stop]) == found.requester
    else:
        assert "requester" not in json.loads(line)


@given(values, st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 8, 64]))
def test_values_are_read_over_in_pieces_of_any_size(value: Any, first: int, size: int, piece: int) -> None:
    """Strings, escapes, numbers and brackets may be cut anywhere, inside of a read as between two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_SHORT", 0)
        patch.setattr(nesting, "_FIRST_PIECE", piece)
        patch.setattr(nesting, "LONGEST_PIECE", piece)
        for ascii_only in (True, False):
            text = json.dumps([value, value], ensure_ascii=ascii_only).encode("utf-8", "backslashreplace")
            line = b'{"args":' + text + b',"service":"DMM","attribute":"a"}\r\n'
            found = scanned(line, [first] + [size] * (len(line) // size))
            assert isinstance(found, Envelope), found
            assert found.closing == len(line) - 3


@pytest.mark.parametrize(
    ("line", "envelope"),
    [
        (REQUEST, Envelope(Kind.REQUEST, "DMM", "measure", "c0ffee-1", None, False, False, 0, 118 - 3, None)),
        (
            REPLY,
            Envelope(Kind.REPLY, None, None, "c0ffee-1", "Bench A[lab7:51022]", False, False, 0, 0, None),
        ),
        (
            b'{"error": false, "result": [[0.98], {"n": 2}], "service": "DMM", "uid": "notification"}\n',
            Envelope(Kind.NOTIFICATION, "DMM", None, "notification", None, False, False, 0, 0, None),
        ),
        (
            b'{"error": true, "message": "E: range", "requester": "B[l:1]", "result": null, "uid": "u"}',
            Envelope(Kind.REPLY, None, None, "u", "B[l:1]", True, False, 0, 0, None),
        ),
        (
            b'{"service": "Manager", "attribute": "link", "args": ["DMM"], "uid": "1"}',
            Envelope(Kind.MANAGER_REQUEST, "Manager", "link", "1", None, False, False, 0, 0, None),
        ),
        (
            b'{"service": "DMM[lab7:51030]", "attribute": "__disconnect__"}\r\n',
            Envelope(
                Kind.DISCONNECT, "DMM[lab7:51030]", "__disconnect__", "", None, False, False, 0, 0, None
            ),
        ),
        (
            b'{"attribute": "__disconnect__"}',
            Envelope(Kind.DISCONNECT, None, "__disconnect__", "", None, False, False, 0, 0, None),
        ),
        (
            b'{"error": false, "requester": null, "result": {"type": "client"}, "uid": ""}',
            Envelope(Kind.REPLY, None, None, "", None, False, False, 0, 0, None),
        ),
    ],
)
def test_the_packets_of_1_0_are_classified(line: bytes, envelope: Envelope) -> None:
    """Requests, replies, notifications, errors and farewells, as 1.0 peers write them."""
    assert scan_line(line) == envelope
    assert scanned(line) == envelope


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"result": 1, "service": "Manager", "attribute": "__disconnect__"}, Kind.REPLY),
        ({"result": 1, "service": "Manager", "attribute": "x", "uid": "notification"}, Kind.NOTIFICATION),
        ({"service": "Manager", "attribute": "__disconnect__"}, Kind.MANAGER_REQUEST),
        ({"service": "DMM", "attribute": "__disconnect__"}, Kind.DISCONNECT),
        ({"service": "manager", "attribute": "disconnect"}, Kind.REQUEST),
    ],
)
def test_the_first_rule_that_fits_decides(keys: dict[str, object], kind: Kind) -> None:
    """A result makes a reply or a notification; then comes the manager, then the farewell, then services."""
    assert scan_line(json.dumps(keys).encode()).kind is kind


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "expected an object, got the end of the line, at byte 0"),
        (b"  \r\n", "expected an object, got the end of the line, at byte 4"),
        (b"Echo echo 1",
         "expected an object, got what is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[1, 2]", "expected an object, got an array"),
        (b'"text"', "expected an object, got a string"),
        (b"123\r\n", "expected an object, got a number"),
        (b"null", "expected an object, got null"),
        (b"true", "expected an object, got a boolean"),
        (b'{"a" 1}', "expected ':', got b'1', at byte 5"),
        (b"{'a': 1}", """expected a key or '}', got b"'", at byte 1"""),
        (b'{"a": 1, }', "expected a key, got b'}', at byte 9"),
        (b'{"a": 1 "b": 2}', """expected ',' or '}', got b'"', at byte 8"""),
        (b'{"a": tru}', "expected a value, got b'tru', at byte 6"),
        (b'{"a": }', "expected a value, got b'}', at byte 6"),
        (b'{"a": 01}', "expected a value, got b'01', at byte 6"),
        (b'{"a": 1} x', "expected the end of the line, got b'x', at byte 9"),
        (b'{"a": [1', "expected the rest of a value, got the end of the line, at byte 8"),
        (b'{"a": "x', "expected the rest of a value, got the end of the line, at byte 8"),
        (b'{"a"', "expected ':', got the end of the line, at byte 4"),
        (b'{"a": 1\x00}', "expected a value, got b'1\\x00', at byte 6"),
        (b'{"a": "\xff"}', "expected UTF-8, got something else, at byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "expected UTF-8, got something else, at byte 7"),
        (b'{"uid": "\xc3"}', "expected UTF-8, got something else, at byte 9"),
        (b'{"\x01": 1}',
         "expected a string, got one with a control character or a false escape in it, at byte 1"),
        (b'{"a": "\x01"}', "expected no control characters in a string, got one, at byte 7"),
        (b'{"a": "\\x"}', "expected an escape after a backslash, got none, at byte 7"),
        (b'{"a": [1, 2}', "expected JSON, got '}' in an array or object where that cannot be"
         " (Expecting ',' delimiter), at byte 11"),
        (b'{"a": {"b": 1]}', "expected JSON, got ']' in an array or object where that cannot be"
         " (Expecting ',' delimiter), at byte 13"),
        (b'{"a": [1,,2]}', "expected JSON, got ',' in an array or object where that cannot be"
         " (Expecting value), at byte 9"),
        (b"{}", "expected the key 'service' in a packet without 'result', got none"),
        (b'{"service": "DMM"}', "expected the key 'attribute' in a request, got none"),
        (b'{"service": "Manager"}', "expected the key 'attribute' in a request, got none"),
        (b'{"attribute": "x"}', "expected the key 'service' in a packet without 'result', got none"),
        (b'{"result": 1, "uid": "notification"}', "expected the key 'service' in a notification, got none"),
        (b'{"service": "a", "attribute": "b", "uid": "notification"}',
         "expected another uid for a request than 'notification', which is reserved"),
        (b'{"service": 5, "attribute": "b"}', "expected a string as 'service', got a number"),
        (b'{"service": "a", "attribute": ["b"]}',
         "expected a string as 'attribute', got an array"),
        (b'{"service": "a", "attribute": "b", "uid": true}', "expected a string as 'uid', got a boolean"),
        (b'{"result": 1, "requester": 1.5}', "expected a string as 'requester', got a number"),
        (b'{"result": 1, "error": "no"}', "expected true or false as 'error', got a string"),
        (b'{"result": 1, "error": 0}', "expected true or false as 'error', got a number"),
        (rb'{"service": "\ud800", "attribute": "b"}',
         "expected text as 'service', got half of a surrogate pair in it"),
        (b'{"uid": "a", "result": 1, "uid": "b"}', "expected the key 'uid' once, got it again"),
        (rb'{"uid": "a", "result": 1, "\u0075id": "b"}', "expected the key 'uid' once, got it again"),
        (b'{"result": 1, "bin1": 5}',
         "expected no attachments from a peer that did not agree on them, got 'bin1'"),
        (b'{"result": 1, "more": true}',
         "expected one reply from a peer that did not agree on several, got 'more'"),
        (b'{"service": "a", "attribute": "b", "stream": 16}',
         "expected no 'stream' from a peer that did not agree on several replies, got it"),
        (b'{"service": "a", "attribute": "b", "stream": "16"}',
         "expected a number of items as 'stream', got a string"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_packet_is_told_why(line: bytes, text: str) -> None:
    """The error says what was expected, what came instead, and where."""
    with pytest.raises(PacketError) as caught:
        scan_line(line)
    assert str(caught.value) == text
    assert caught.value.message == f"ValueError: {text}"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"result": 1, "bin1": "5"}', "expected a number of bytes as 'bin1', got a string"),
        (b'{"result": 1, "bin1": null}', "expected a number of bytes as 'bin1', got null"),
        (b'{"result": 1, "bin1": -5}', "expected a number of bytes as 'bin1', got a number"),
        (b'{"result": 1, "bin1": 5.0}', "expected a number of bytes as 'bin1', got a number"),
        (b'{"result": 1, "bin1": true}', "expected a number of bytes as 'bin1', got a boolean"),
        (b'{"result": 1, "bin1": 1234567890123456}', "expected a number of bytes as 'bin1', got a number"),
    ],
)
def test_how_many_bytes_follow_must_be_beyond_doubt(line: bytes, text: str) -> None:
    """Whatever is not plainly a number of bytes is refused, and it is said that nobody knows what follows."""
    with pytest.raises(PacketError, match=re.escape(text)) as caught:
        scan_line(line, binary=True)
    assert caught.value.attached is None


def test_an_error_knows_the_uid_and_what_is_attached() -> None:
    """Whoever waits for a reply can be told, and the bytes behind a bad packet can be skipped."""
    line = b'{"service": 5, "attribute": "b", "bin1": 17, "uid": "u-1"}'
    with pytest.raises(PacketError) as caught:
        scan_line(line, binary=True)
    assert (caught.value.uid, caught.value.attached, caught.value.is_json) == ("u-1", 17, True)


def test_what_was_agreed_on_is_understood() -> None:
    """Attachments and replies of which more follow come from those who agreed on them."""
    line = b'{"requester": "c", "result": 1, "uid": "u", "bin1": 17, "more": true}'
    envelope = scan_line(line, binary=True, stream=True)
    assert (envelope.attached, envelope.more) == (17, True)
    line = line.replace(b', "bin1": 17', b"")
    assert scan_line(line, stream=True).more
    assert scan_line(line, stream=True) == scanned(line, stream=True)


def test_more_that_is_false_is_everybodys() -> None:
    """``"more": false`` announces nothing, so that nobody needs to have agreed on it."""
    assert not scan_line(b'{"requester": "c", "result": 1, "more": false}').more


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
@pytest.mark.parametrize(("opener", "closer"), [(b"[", b"]"), (b'{"":', b"}"), (b'[{"":', b"}]")])
@pytest.mark.parametrize("tail", [b"", b", 1", b", [[[[[[]]]]]]"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_depth_has_a_limit_that_is_exact(
    depth: int, opener: bytes, closer: bytes, tail: bytes, size: int
) -> None:
    """As many arrays and objects inside each other as allowed pass, one more does not, however they come."""
    levels = opener.count(b"[") + opener.count(b"{")
    inside = (depth - 1) // levels
    nested = opener * inside + b"1" + closer * inside
    spare = depth - 1 - inside * levels
    nested = b"[" * spare + nested + b"]" * spare
    # The tail is as deep as its brackets, on the second level.
    line = b'{"args": [' + nested + tail + b'], "service": "a", "attribute": "b"}'
    found = scanned(line, [size] * (len(line) // size))
    if depth == MAX_DEPTH:
        assert isinstance(found, PacketError)
        assert str(found) == f"expected at most {MAX_DEPTH} arrays and objects inside each other, got more"
    else:
        assert isinstance(found, Envelope)
    assert is_same(at_once(line), found)


def test_a_tower_of_brackets_is_refused_and_not_a_crash() -> None:
    """A million open brackets get an error."""
    with pytest.raises(PacketError, match="inside each other"):
        scan_line(b'{"args": ' + b"[" * 1_000_000)


@pytest.mark.parametrize("size", [1000, LONGEST_SHORT_LINE, 10_000_000])
@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("kind", [b" ", b"1"])
@pytest.mark.parametrize("before", [b"[", b'["' + b"x" * 70_000 + b'", ', b"[1, {}"])
def test_a_gap_has_a_limit_that_is_exact(size: int, excess: int, kind: bytes, before: bytes) -> None:
    """So many digits or blanks pass and no more, wherever the pieces are cut; what is in strings is free."""
    if before == b"[1, {}" and kind == b"1":
        before = b"[1, {},"
    is_after_comma = before[-2:] == b", " or before[-1:] == b","
    blanks = 1 if before[-1:] == b" " else 0
    gap = kind * (LONGEST_GAP - is_after_comma - blanks + excess)
    line = b'{"args": ' + before + (gap if kind == b"1" or before[-1:] == b"}" else gap[:-1] + b"1") + b"]"
    line += b', "service": "a", "attribute": "b"}'
    found = scanned(line, [size] * (len(line) // size))
    assert isinstance(found, PacketError if excess else Envelope), found


@pytest.mark.parametrize("key", ["service", "attribute", "uid", "requester"])
@pytest.mark.parametrize("filler", ["x", "é", "\\n", "\\u00e9"])
def test_values_of_the_envelope_have_a_limit_that_is_exact(key: str, filler: str) -> None:
    """A name may have so many bytes of text and no more; the error still finds the uid."""
    size = len(filler.encode())
    for excess in (0, 1):
        text = filler * ((LONGEST_VALUE - 2) // size) + "x" * ((LONGEST_VALUE - 2) % size + excess)
        keys = {"service": '"a"', "attribute": '"b"', key: f'"{text}"', "uid": '"u"'}
        if key == "uid":
            keys["uid"] = f'"{text}"'
        line = ("{" + ", ".join(f'"{name}": {value}' for name, value in keys.items()) + "}").encode()
        for found in (at_once(line), scanned(line, [1] * 6000), scanned(line, [5000])):
            if excess:
                assert isinstance(found, PacketError)
                assert str(found) == f"expected at most {LONGEST_VALUE} bytes as {key!r}, got more"
                assert found.uid == ("" if key == "uid" else "u")
            else:
                assert isinstance(found, Envelope), found


def test_other_keys_may_be_of_any_length() -> None:
    """A key that is too long to mean anything is read over."""
    line = b'{"' + b"k" * 100_000 + b'": 1, "result": 2, "requester": "c", "uid": "u"}'
    assert scan_line(line).uid == "u"
    assert scanned(line, [1000] * 101) == scan_line(line)


@pytest.mark.parametrize("count", [MOST_KEYS, MOST_KEYS + 1])
def test_the_number_of_keys_has_a_limit_that_is_exact(count: int) -> None:
    """So many keys pass and no more, the same one being counted each time."""
    for key in ("k", "k%d"):
        keys = [key % i if "%" in key else key for i in range(count - 2)]
        line = ("{" + "".join(f'"{k}": 1, ' for k in keys) + '"service": "a", "attribute": "b"}').encode()
        for found in (at_once(line), scanned(line)):
            assert isinstance(found, Envelope if count == MOST_KEYS else PacketError)


@pytest.mark.parametrize(
    "payload",
    [
        "x" * 300_000,
        'é\n\\"' * 60_000,
        [math.pi] * 20_000,
        [math.nan, math.inf, -math.inf, 1] * 10_000,
        [[1, [2, {"a": "],{"}]]] * 15_000,
        [{"id": i, "name": f"row {i}", "ok": True, "v": [None, 1e300]} for i in range(5_000)],
        ["", "a,b", "[", "NaN"] * 10_000,
    ],
    ids=["text", "escapes", "floats", "words", "nested", "rows", "strings"],
)
@pytest.mark.parametrize("size", [997, 16 * 1024, 64 * 1024, 10**9])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_large_packets_are_understood_in_pieces(payload: object, size: int, ascii_only: bool) -> None:
    """Hundreds of kilobytes of anything pass, in pieces of any size, but not with one wrong byte."""
    text = json.dumps([payload], ensure_ascii=ascii_only).encode()
    line = b'{"args": ' + text + b', "service": "DMM", "attribute": "echo", "uid": "u"}\r\n'
    found = scanned(line, [size] * (len(line) // size))
    assert found == Envelope(Kind.REQUEST, "DMM", "echo", "u", None, False, False, 0, len(line) - 3, None)
    middle = len(line) // 2
    bad = line[:middle] + b"\x02" + line[middle:]
    assert isinstance(scanned(bad, [size] * (len(line) // size)), PacketError)


@pytest.mark.parametrize("before", [b"", b'"x", ', b'["y"], {"k": ', b"1.5, "])
@pytest.mark.parametrize(
    "mistake", [b",,", b"1 2", b"]", b"}", b'"a" "b"', b":", b"nul", b"1.", b"{}1", b"--1", b"\\n"]
)
def test_a_mistake_in_a_large_packet_is_found(before: bytes, mistake: bytes) -> None:
    """What is wrong in the midst of a large payload is wrong, whatever was cut before it."""
    for filling in (b"1, " * 30_000, b'"text, [of] {any} kind", ' * 4_000, b"[[1], {}], " * 9_000):
        line = (
            b'{"args": ['
            + filling
            + before
            + mistake
            + b", "
            + filling
            + b'1], "service": "a", "attribute": "b"}'
        )
        for size in (1000, 64 * 1024):
            assert isinstance(scanned(line, [size] * (len(line) // size)), PacketError)


def test_a_scanner_keeps_little_of_a_large_packet() -> None:
    """Ten megabytes go by, and less than one read of them is kept."""
    scanner = EnvelopeScanner()
    scanner.feed(b'{"args": ["')
    for piece in (b"x" * 65536, b'", "y", 1.5, [1], {"a": "b"}, "', b"\\n\\u00e9" * 8192):
        for _ in range(50):
            scanner.feed(piece)
            nested = scanner._long_value
            assert isinstance(nested, nesting.Nesting)
            assert len(scanner._text) + len(nested._rest) + len(nested._held) < 100


GOOD_PAYLOADS = rb"""
    [] {} [[],[]] [{}] {"a":[]} [1,"a",null] ["\\","\"]","\u00e9"] {"a":{"b":[1,{"c":2}]},"d":3} [-0.5e+7]
    [NaN,-Infinity] [""] [[[]],[[[1]]]] {"":""} [{"a":1},{"a":2}] [true,false] ["[","{",",","]"] [0] [1E5]
""".split()
WRONG = rb"""
    [,1] [1,] [,] {,} {,"a":1} {"a":1,} [1,,2] [[],] [[]1] [{}{}] [{}.5] [[]e1] [1]2 {"a"} {"a":} {"a":1,2}
    {1:2} {[]:1} ["a":1] [1:2] [}] {] [1} {"a":1] [[1]} [nul] [truefalse] [01] [1.] [.5] [+1] [-] [1e] [NaN1]
    [1NaN] [-NaN] {NaN:1} [Infinity-] ["\x"] ["\u12g4"] ["\"] ["a]["b"] ["a""b"] [""1] [1""] {"a""b"}
    {"a":1"b":2} {"a":[]"b":2} [\n] ['a']
"""
RAW = [
    b'["\x01"]',
    b'["\t"]',
    b'["\xff"]',
    b'["\xc3"]',
    b'["\xed\xa0\x80"]',
    b"[1\x00]",
    b"[1\x0b]",
    b"[1 2]",
]
BAD_PAYLOADS = [*WRONG.split(), *RAW]


@pytest.mark.parametrize("payload", GOOD_PAYLOADS + BAD_PAYLOADS)
@pytest.mark.parametrize("ends", [b"%s", b"[%s]", b'{"k":%s}', b"[1,%s,2]", b'[[[%s],"x"],{}]'])
def test_a_payload_is_json_or_it_is_refused(payload: bytes, ends: bytes) -> None:
    """Each mistake is found, and each good value passes, at once and cut in any way, on every level."""
    line = b'{"args":' + ends % payload + b',"service":"a","attribute":"b"}'
    expected = Envelope if payload in GOOD_PAYLOADS else PacketError
    assert isinstance(at_once(line), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_SHORT", 0)
        assert isinstance(scanned(line), expected)
        for size in (1, 2, 3, 5):
            for first in range(1, size + 1):
                assert isinstance(scanned(line, [first] + [size] * len(line)), expected), (first, size)


@pytest.mark.parametrize("inner", [b"[[]]", b"[[],[[]]]", b'[{"a":[[{}]]}]', b"[[[[[[[[[[[1]]]]]]]]]]]"])
@pytest.mark.parametrize("kind", [b"[", b'{"":'])
def test_the_limit_of_depth_holds_for_what_opens_and_closes_at_once(inner: bytes, kind: bytes) -> None:
    """A small tower on top of a high one counts, though it comes and goes with one read."""
    depth = deepest = 0
    for sign in inner:
        depth += (sign in b"[{") - (sign in b"]}")
        deepest = max(deepest, depth)
    for excess in (0, 1):
        scanner = EnvelopeScanner()
        scanner.feed(b'{"args": ' + kind * (MAX_DEPTH - 1 - deepest + excess))
        if excess:
            with pytest.raises(PacketError, match="inside each other"):
                scanner.feed(inner)
        else:
            scanner.feed(inner)


@pytest.mark.parametrize(
    "beginning",
    [b'{"uid": "', b'{"', b'{"args": "', b'{"args": ["', b'{"args": [', b'{"args": 1', b"", b"{", b"["],
)
@pytest.mark.parametrize("filling", [b"x", b" ", b"1", b"\xc3\xa9", b"\\n", b"["])
def test_a_line_that_never_ends_keeps_little(beginning: bytes, filling: bytes) -> None:
    """Megabytes of the same are read over, or refused; either way they are not kept."""
    scanner = EnvelopeScanner()
    try:
        scanner.feed(beginning)
        for _ in range(100):
            scanner.feed(filling * 20_000)
            long_value = scanner._long_value
            kept = len(long_value._rest) if isinstance(long_value, nesting.Nesting) else 0
            assert len(scanner._text) + kept <= 2 * LONGEST_SHORT_LINE
    except PacketError:
        pass
