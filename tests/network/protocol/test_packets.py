from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol import packets
from armillary.network.protocol.codec import STANDARD, Codec
from armillary.network.protocol.packets import (
    Failure,
    Notification,
    PacketError,
    Reply,
    Request,
    exception_class,
    message_of,
    traceback_of,
    typed,
)
from armillary.network.protocol.payloads import BINARY_CODEC
from armillary.network.protocol.scanning import Kind, scan_line

MANAGER = "Manager[lab7:1875]"
CLIENT = "Bench A[lab7:51022]"

# Examples of 1.0, as its documentation of the wire has them.
OF_1_0 = [
    (
        packets.request("DMM", "measure", [1, "é"], {"n": 5}, uid="c0ffee-1"),
        '{"args": [1, "é"], "attribute": "measure", "error": false, "kwargs": {"n": 5}, "service": "DMM",'
        ' "uid": "c0ffee-1"}',
    ),
    (
        packets.username_request(MANAGER),
        '{"args": ["Manager[lab7:1875]"], "attribute": "username", "error": false, "kwargs": {},'
        ' "requester": "Manager[lab7:1875]", "uid": ""}',
    ),
    (
        packets.password_request(MANAGER, "marie"),
        '{"args": ["marie"], "attribute": "password", "error": false, "kwargs": {},'
        ' "requester": "Manager[lab7:1875]", "uid": ""}',
    ),
    (
        packets.password_request(MANAGER, MANAGER),
        '{"args": ["Manager[lab7:1875]"], "attribute": "password", "error": false, "kwargs": {},'
        ' "requester": "Manager[lab7:1875]", "uid": ""}',
    ),
    (
        packets.identity_request(MANAGER),
        '{"args": [], "attribute": "identity", "error": false, "kwargs": {},'
        ' "requester": "Manager[lab7:1875]", "uid": ""}',
    ),
    (
        packets.answer("marie", MANAGER),
        '{"error": false, "requester": "Manager[lab7:1875]", "result": "marie", "uid": ""}',
    ),
    (
        packets.answer({"type": "client", "name": "Bench A"}),
        '{"error": false, "requester": null, "result": {"type": "client", "name": "Bench A"}, "uid": ""}',
    ),
    (
        packets.reply(CLIENT, "c0ffee-1", [1.25, "V"]),
        '{"error": false, "requester": "Bench A[lab7:51022]", "result": [1.25, "V"], "uid": "c0ffee-1"}',
    ),
    (
        packets.error(CLIENT, "c0ffee-1", "ValueError: range", ["Traceback (most recent call last):", "..."]),
        '{"error": true, "message": "ValueError: range", "requester": "Bench A[lab7:51022]", "result": null,'
        ' "traceback": ["Traceback (most recent call last):", "..."], "uid": "c0ffee-1"}',
    ),
    (
        packets.notification("DMM", [0.98, "ok"], {"channel": 2}),
        '{"error": false, "result": [[0.98, "ok"], {"channel": 2}], "service": "DMM", "uid": "notification"}',
    ),
    (
        packets.disconnect("DMM[lab7:51030]"),
        '{"service": "DMM[lab7:51030]", "attribute": "__disconnect__"}',
    ),
]


@pytest.mark.parametrize(("line", "example"), OF_1_0)
def test_packets_are_those_of_1_0(line: bytes, example: str) -> None:
    """Keys, their order and their values are those of 1.0; only its blanks are left out."""
    assert (
        line == json.dumps(json.loads(example), ensure_ascii=False, separators=(",", ":")).encode() + b"\r\n"
    )


@pytest.mark.parametrize("features", [[], ["stream", "bin1"]])
def test_what_the_manager_asks_fits_into_one_segment(features: list[str]) -> None:
    """Each question of a handshake is shorter than the 1024 bytes that a simple peer receives at once."""
    for line in (
        packets.identity_request(MANAGER, features),
        packets.username_request(MANAGER),
        packets.password_request(MANAGER, "u" * 256),
    ):
        assert len(line) < 1024


def test_features_are_offered_in_the_keyword_arguments() -> None:
    """The identity request names them, sorted; without any, it is that of 1.0."""
    request = typed(STANDARD.decode(packets.identity_request(MANAGER, {"stream", "bin1"})))
    assert isinstance(request, Request)
    assert request.kwargs == {"features": ["bin1", "stream"]}


def test_what_was_not_agreed_on_is_not_said() -> None:
    """Keys beyond 1.0 are in a packet only if they are asked for."""
    assert b"more" not in packets.reply(CLIENT, "u", 1)
    assert packets.reply(CLIENT, "u", 1, more=True).endswith(b'"uid":"u","more":true}\r\n')
    assert b"exception" not in packets.error(CLIENT, "u", "E: x")
    exception = {"type": "E", "module": "m"}
    assert packets.error(CLIENT, "u", "E: x", exception=exception).endswith(
        b'"uid":"u","exception":{"type":"E","module":"m"}}\r\n'
    )


def test_what_cannot_be_sent_is_an_error_of_the_sender() -> None:
    """Arguments and results that are not JSON serializable raise where they are given."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        packets.request("DMM", "x", [{1}])
    with pytest.raises(TypeError, match="not JSON serializable"):
        packets.reply(CLIENT, "u", b"x")
    with pytest.raises(TypeError, match="not JSON serializable"):
        packets.notification("DMM", (), {"x": 1j})


def test_packets_take_what_their_codec_takes() -> None:
    """With the codec for attachments, bytes are attached."""
    for line in (
        packets.request("DMM", "x", [b"abc"], codec=BINARY_CODEC),
        packets.request("DMM", "x", (), {"y": b"abc"}, codec=BINARY_CODEC),
        packets.reply(CLIENT, "u", b"abc", codec=BINARY_CODEC),
        packets.notification("DMM", [b"abc"], codec=BINARY_CODEC),
    ):
        assert line.endswith(b"}\r\nabc")


names = st.text(max_size=8).filter(lambda text: text.isprintable())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
arguments = st.lists(values, max_size=3)
keywords = st.dictionaries(st.text(max_size=4), values, max_size=3)


@given(names, names, arguments, keywords, names)
def test_a_request_arrives_as_it_was_sent(
    service: str, attribute: str, args: list[Any], kwargs: dict[str, Any], uid: str
) -> None:
    """What a client says is what a service reads, once the manager has said who it was."""
    packet = STANDARD.decode(packets.request(service, attribute, args, kwargs, uid=uid))
    assert typed({**packet, "requester": CLIENT}) == Request(attribute, args, kwargs, uid, CLIENT, service)
    assert typed(packet) == Request(attribute, args, kwargs, uid, None, service)


@given(names, names, values, st.booleans())
def test_a_reply_arrives_as_it_was_sent(requester: str, uid: str, result: Any, more: bool) -> None:
    """What a service answers is what the client reads."""
    packet = STANDARD.decode(packets.reply(requester, f"u{uid}", result, more=more))
    assert typed(packet) == Reply(result, f"u{uid}", requester, more)


@given(names, arguments, keywords)
def test_a_notification_arrives_as_it_was_sent(service: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """What a service emits is what its linked clients read."""
    packet = STANDARD.decode(packets.notification(service, args, kwargs))
    assert typed(packet) == Notification(service, args, kwargs)


@given(names, names, names, st.lists(names, max_size=3))
def test_a_failure_arrives_as_it_was_sent(
    requester: str, uid: str, message: str, traceback: list[str]
) -> None:
    """What goes wrong in a service is told to the client, and to the manager as a reply."""
    line = packets.error(requester, uid, message, traceback)
    assert typed(STANDARD.decode(line)) == Failure(message, traceback, uid, requester, {})
    assert scan_line(line).kind in (Kind.REPLY, Kind.NOTIFICATION)


def test_an_error_says_what_was_raised_where() -> None:
    """The class and the text make the message; the lines of the traceback end with it."""

    def fail() -> None:
        raise ValueError("range")

    try:
        fail()
    except ValueError as error:
        caught = error
    message, lines = message_of(caught), traceback_of(caught)
    assert message == "ValueError: range"
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == message
    assert any("in fail" in line for line in lines)
    assert not any("\n" in line for line in lines)
    failure = typed(
        STANDARD.decode(packets.error(CLIENT, "u", message, lines, exception=exception_class(caught)))
    )
    assert failure == Failure(message, lines, "u", CLIENT, {"type": "ValueError", "module": "builtins"})


def test_an_error_keeps_the_quotes_of_a_missing_key() -> None:
    """A KeyError's text is quoted, as Python quotes it and as peers of 1.0 expect it."""
    assert (
        message_of(KeyError("the 'X' service does not exist"))
        == '''KeyError: "the 'X' service does not exist"'''
    )


def test_an_exception_that_cannot_be_printed_is_told_all_the_same() -> None:
    """A class whose text raises does not keep the caller waiting."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert message_of(Broken()) == "Broken: <exception str() failed>"
    assert traceback_of(Broken())


def test_a_cause_is_part_of_the_traceback() -> None:
    """Whoever reads the traceback sees what led to the exception."""
    try:
        try:
            raise OSError("no port")
        except OSError as error:
            raise ValueError("no reading") from error
    except ValueError as error:
        lines = traceback_of(error)
    assert "OSError: no port" in lines
    assert lines[-1] == "ValueError: no reading"


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        ({"attribute": "x"}, Request("x", [], {}, "", None, None)),
        ({"attribute": "x", "requester": None, "service": None}, Request("x", [], {}, "", None, None)),
        ({"result": None}, Reply(None, "", None)),
        ({"result": 1, "more": "yes"}, Reply(1, "", None)),
        ({"result": 1, "error": False, "extra": 5}, Reply(1, "", None)),
        ({"result": 1, "more": False}, Reply(1, "", None, more=False)),
        ({"result": 1, "more": True, "progress": True}, Reply(1, "", None, more=True, progress=True)),
        ({"result": 1, "progress": "yes"}, Reply(1, "", None)),
        ({"attribute": "x", "stream": 3}, Request("x", [], {}, "", None, None, 3)),
        ({"attribute": "x", "stream": None}, Request("x", [], {}, "", None, None)),
        ({"error": True}, Failure("", [], "", None, {})),
        (
            {"error": True, "message": 5, "traceback": "none", "exception": 1, "uid": "u"},
            Failure("5", [], "u", None, {}),
        ),
        ({"error": True, "result": None, "traceback": [1], "uid": "notification"},
         Failure("", ["1"], "notification", None, {})),
        ({"result": [[], {}], "uid": "notification", "service": "S"}, Notification("S", [], {})),
    ],
)  # fmt: skip
def test_what_is_left_out_is_nothing(packet: dict[str, object], found: object) -> None:
    """No key is needed but those without which a packet means nothing."""
    assert typed(packet) == found


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        ([1], "expected an object as a packet, got an array"),
        (None, "expected an object as a packet, got null"),
        ({}, "expected the key 'attribute' in a packet, got none"),
        ({"attribute": 5}, "expected a string as 'attribute', got a number"),
        ({"attribute": "x", "args": {}}, "expected an array as 'args', got an object"),
        ({"attribute": "x", "kwargs": []}, "expected an object as 'kwargs', got an array"),
        ({"attribute": "x", "requester": 5}, "expected a string as 'requester', got a number"),
        ({"attribute": "x", "service": 5}, "expected a string as 'service', got a number"),
        ({"result": 1, "uid": 5}, "expected a string as 'uid', got a number"),
        ({"result": 1, "requester": 5}, "expected a string as 'requester', got a number"),
        ({"result": 1, "uid": "notification"},
         "expected [args, kwargs] as the result of a notification, got something else"),
        ({"result": [[], {}, 1], "uid": "notification"},
         "expected [args, kwargs] as the result of a notification, got something else"),
        ({"result": [[], {}], "uid": "notification"}, "expected the key 'service' in a packet, got none"),
    ],
)  # fmt: skip
def test_what_is_no_packet_is_told_why(packet: object, text: str) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(PacketError) as caught:
        typed(packet)
    assert str(caught.value) == text


def test_an_error_carries_the_uid_back() -> None:
    """Whoever sent a bad packet can be told which one it was."""
    with pytest.raises(PacketError) as caught:
        typed({"attribute": "x", "args": 5, "uid": "u-1"})
    assert caught.value.uid == "u-1"
    assert caught.value.message == "ValueError: expected an array as 'args', got a number"


def test_any_codec_may_write_packets() -> None:
    """Whoever has a codec of their own, for other classes, writes packets with it."""

    class Texts(Codec):
        def foreign(self, value: Any, path: Any) -> object:
            return str(value)

    class Thing:
        def __str__(self) -> str:
            return "a thing"

    kwargs: Mapping[str, object] = {"t": Thing()}
    request = typed(STANDARD.decode(packets.request("S", "a", [Thing()], kwargs, codec=Texts())))
    assert request == Request("a", ["a thing"], {"t": "a thing"}, "", None, "S")
