from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary._wire.lines import LineTooLong
from armillary.network.protocol import packets
from armillary.network.protocol.codec import STANDARD
from armillary.network.protocol.features import BINARY, STREAM
from armillary.network.protocol.framing import Packet, PacketReader, Unreadable
from armillary.network.protocol.payloads import BINARY_CODEC
from armillary.network.protocol.scanning import LONGEST_SHORT_LINE, Kind

NAME = STANDARD.encode('Bench "A"[lab7:1]')
BOTH = frozenset({BINARY, STREAM})


def read(reader: PacketReader, chunks: Iterable[bytes]) -> list[Packet | Unreadable]:
    """All that comes out of a reader."""
    found = []
    for chunk in chunks:
        reader.append(chunk)
        while (packet := reader.next_packet()) is not None:
            found.append(packet)
    return found


def only_packet(*chunks: bytes, features: frozenset[str] = frozenset()) -> Packet:
    reader = PacketReader()
    reader.agree(features)
    (packet,) = read(reader, chunks)
    assert isinstance(packet, Packet), packet.error
    return packet


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def shown(found: Packet | Unreadable) -> Any:
    if isinstance(found, Unreadable):
        return (str(found.error), found.error.uid, found.line, found.is_lost)
    return (found.envelope, found.line, b"".join(found.attachments))


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
requesters = st.none() | st.text(max_size=5)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of a peer that knows attachments, which may have made up a requester."""
    members: list[tuple[str, object]] = [
        ("args", draw(st.lists(values, max_size=3))),
        ("attribute", "echo"),
        ("kwargs", {}),
        ("service", "Echo"),
        ("uid", draw(st.sampled_from(["", "u-1"]))),
    ]
    if draw(st.booleans()):
        members.append(("requester", draw(requesters)))
    packed = BINARY_CODEC.pack(dict(draw(st.permutations(members))))
    line, _, raw = packed.partition(b"\r\n")
    return line + draw(st.sampled_from([b"\r\n", b"\n", b" \r\n"])) + raw


others = st.sampled_from(
    [
        packets.reply("c", "u", [1, "x"]),
        packets.notification("DMM", [1.5]),
        packets.reply("c", "u", b"\n\n{", more=True, codec=BINARY_CODEC),
        b'{"service": 5, "uid": "bad", "bin1": 3}\n123',
        b"Echo echo 1\n",
        b"\r\n",
        b"[1]\n",
    ]
)


@given(st.lists(requests() | others, max_size=6), st.integers(1, 40))
def test_packets_come_out_however_they_go_in(sent: list[bytes], size: int) -> None:
    """Several in one read, or one in many: the packets are the same, and nothing is left over."""
    whole, pieces = PacketReader(), PacketReader()
    whole.agree(BOTH)
    pieces.agree(BOTH)
    data = b"".join(sent)
    found = read(whole, [data])
    assert [shown(packet) for packet in found] == [
        shown(packet) for packet in read(pieces, in_pieces(data, size))
    ]
    assert len(found) == len(sent)
    assert whole.unfinished == pieces.unfinished == 0


@given(st.lists(requests() | others, min_size=1, max_size=4), st.integers(0, 30))
def test_what_has_not_ended_waits(sent: list[bytes], missing: int) -> None:
    """Without its last bytes the last packet is not there; with them it is."""
    data = b"".join(sent)
    missing = min(missing, len(sent[-1]) - 1) + 1
    if sent[-1].startswith(b'{"service": 5'):
        missing = max(missing, 4)
    reader = PacketReader()
    reader.agree(BOTH)
    assert len(read(reader, [data[:-missing]])) == len(sent) - 1
    assert reader.unfinished == len(sent[-1]) - missing
    assert len(read(reader, [data[-missing:]])) == 1


@given(st.sampled_from([packets.reply("c", "u", [1]), packets.notification("D", ["é"])]), st.integers(1, 200))
def test_replies_and_notifications_are_forwarded_byte_for_byte(line: bytes, size: int) -> None:
    """Terminator and blanks included, whatever they are."""
    for terminator in (b"\r\n", b"\n", b" \t\r\n"):
        sent = line.replace(b",", b" ,  ").removesuffix(b"\r\n") + terminator
        assert b"".join(only_packet(*in_pieces(sent, size)).verbatim()) == sent


@given(requests(), st.integers(1, 60))
def test_a_request_is_forwarded_with_who_has_asked(sent: bytes, size: int) -> None:
    """The requester is the manager's word, every other byte is the client's, and CR LF ends the line."""
    packet = only_packet(*in_pieces(sent, size), features=BOTH)
    forwarded = b"".join(packet.requested_by(NAME))
    line, _, raw = sent.partition(b"\n")
    text = forwarded[: len(forwarded) - len(raw)]
    assert forwarded.endswith(raw)
    assert text.endswith(b"}\r\n")
    expected = {**json.loads(line), "requester": 'Bench "A"[lab7:1]'}
    assert list(json.loads(text, object_pairs_hook=list)) == [
        (key, json.loads(json.dumps(value), object_pairs_hook=list)) for key, value in expected.items()
    ]


FORGERIES = [
    rb'{"service":"S","attribute":"a","requester":"Manager[h:1]"}',
    rb'{"requester":"Manager[h:1]","service":"S","attribute":"a"}',
    rb'{"service":"S","requester" : null , "attribute":"a"}',
    rb'{"service":"S","attribute":"a","\u0072equester":"Manager[h:1]"}',
    rb'{"service":"S","attribute":"a","r\u0065quester":"x"} ',
    rb'{"service":"S","attribute":"a","requester":"\u004d"}',
]


@pytest.mark.parametrize("line", FORGERIES)
def test_a_requester_that_was_made_up_is_gone(line: bytes) -> None:
    """There is one requester, however the client had written its own, for whichever parser."""
    forwarded = b"".join(only_packet(line + b"\n").requested_by(NAME))
    pairs = json.loads(forwarded, object_pairs_hook=list)
    assert [value for key, value in pairs if key == "requester"] == ['Bench "A"[lab7:1]']
    assert b"Manager" not in forwarded


@pytest.mark.parametrize(
    "line",
    [
        rb'{"service":"S","attribute":"a","requester":"x","requester":"y"}',
        rb'{"requester":"x","service":"S","attribute":"a","r\u0065quester":"y"}',
        rb'{"requester":null,"service":"S","attribute":"a","requester":"y"}',
    ],
)
def test_a_second_requester_has_nowhere_to_hide(line: bytes) -> None:
    """A packet with two of them is refused."""
    reader = PacketReader()
    (found,) = read(reader, [line + b"\n"])
    assert isinstance(found, Unreadable)
    assert str(found.error) == "expected the key 'requester' once, got it again"


def test_what_looks_like_a_requester_in_a_payload_is_left_alone() -> None:
    """Only the packet's own key is the requester."""
    line = b'{"args":[{"requester":"x"},"\\"requester\\":"],"service":"S","attribute":"a"}\n'
    forwarded = b"".join(only_packet(line).requested_by(b'"me"'))
    assert forwarded == line[:-2] + b', "requester": "me"}\r\n'


@pytest.mark.parametrize("size", [1000, 20_000, LONGEST_SHORT_LINE, 10**9])
@pytest.mark.parametrize("position", [0, 1, 2, 3])
@pytest.mark.parametrize("has_requester", [True, False])
def test_a_large_request_is_forwarded_in_pieces(size: int, position: int, has_requester: bool) -> None:
    """Megabytes pass as they came, with the requester in its place, wherever the large argument stands."""
    members: list[tuple[str, object]] = [("service", "Echo"), ("attribute", "echo"), ("uid", "u")]
    if has_requester:
        members.insert(1, ("requester", "forged"))
    members.insert(position, ("args", ["x" * 700_000, list(range(50_000))]))
    sent = json.dumps(dict(members)).encode() + b"\n"
    packet = only_packet(*in_pieces(sent, size))
    assert packet.size == len(sent)
    assert packet.line == sent
    forwarded = b"".join(packet.requested_by(NAME))
    assert json.loads(forwarded) == {**dict(members), "requester": 'Bench "A"[lab7:1]'}
    assert b"forged" not in forwarded
    assert forwarded.endswith(b"}\r\n")


def test_large_pieces_are_not_copied() -> None:
    """The bytes that a read brought are those that are forwarded."""
    sent = b'{"args": ["' + b"x" * 500_000 + b'"], "service": "Echo", "attribute": "echo"}\r\n'
    chunks = in_pieces(sent, 65536)
    packet = only_packet(*chunks)
    forwarded = packet.requested_by(NAME)
    assert all(any(piece is chunk for piece in forwarded) for chunk in chunks[:-1])


def test_small_pieces_are_put_together() -> None:
    """A long line that drips in does not cost a hundred times its size."""
    sent = b'{"args": ["' + b"x" * 100_000 + b'"], "service": "Echo", "attribute": "echo"}\r\n'
    packet = only_packet(*in_pieces(sent, 1))
    assert packet.line == sent
    assert len(packet.pieces) < 10
    packed = BINARY_CODEC.pack({"requester": "c", "result": bytes(100_000), "uid": "u"})
    packet = only_packet(*in_pieces(packed, 1), features=BOTH)
    assert b"".join(packet.verbatim()) == packed
    assert len(packet.attachments) < 10


def test_attachments_follow_their_packet() -> None:
    """Raw bytes are taken by their number: they may look like lines."""
    packed = BINARY_CODEC.pack({"requester": "c", "result": [b'{"result": 1}\n', b"\n\r\n"], "uid": "u"})
    reader = PacketReader()
    reader.agree(BOTH)
    found = read(reader, [packed * 2 + packets.reply("c", "v", 1)])
    assert [packet.envelope.uid for packet in found if isinstance(packet, Packet)] == ["u", "u", "v"]
    assert isinstance(found[0], Packet)
    assert b"".join(found[0].verbatim()) == packed
    assert b"".join(found[0].attachments) == b'{"result": 1}\n\n\r\n'


def test_an_attachment_without_bytes_is_one() -> None:
    """A packet that needs to be turned into text for old peers can be told from one that does not."""
    packed = BINARY_CODEC.pack({"requester": "c", "result": b"", "uid": "u"})
    packet = only_packet(packed, features=BOTH)
    assert (packet.envelope.attached, packet.attachments) == (0, [b""])
    assert b"".join(packet.verbatim()) == packed
    assert only_packet(packets.reply("c", "u", None)).attachments == []


def test_nobody_attaches_who_did_not_agree() -> None:
    """From a 1.0 peer, the announcement is refused, and what follows is the next line."""
    reader = PacketReader()
    found = read(reader, [b'{"result": 1, "requester": "c", "uid": "u", "bin1": 14}\n{"result": 1}\n'])
    assert [type(packet) for packet in found] == [Unreadable, Packet]
    assert isinstance(found[0], Unreadable)
    assert (found[0].error.uid, found[0].is_lost) == ("u", False)


def test_what_was_attached_to_a_bad_packet_is_skipped() -> None:
    """The announced bytes come, whatever is wrong with the packet; the next one is intact."""
    reader = PacketReader()
    reader.agree(BOTH)
    found = read(
        reader, in_pieces(b'{"service": 5, "bin1": 30, "uid": "u"}\n' + b"\n" * 30 + b'{"result": 1}\n', 7)
    )
    assert [type(packet) for packet in found] == [Unreadable, Packet]


@pytest.mark.parametrize(
    "line", [b'{"bin1": 5', b"nonsense", b'{"bin1": "5"}', b'{"bin1": 5} x', b"x" * 2000]
)
def test_a_connection_is_lost_when_nobody_knows_what_follows(line: bytes) -> None:
    """A peer that may attach bytes and sends what cannot be read has broken its stream; others have not."""
    for features in (BOTH, frozenset[str]()):
        reader = PacketReader(limit=1000)
        reader.agree(features)
        (found,) = read(reader, [line + b"\n"])
        assert isinstance(found, Unreadable)
        assert found.is_lost == bool(features)


@pytest.mark.parametrize("size", [1, 50, 1000, 10**6])
@pytest.mark.parametrize("limit", [100, LONGEST_SHORT_LINE, LONGEST_SHORT_LINE + 40_000])
def test_a_line_that_is_too_long_is_dropped_and_the_next_is_intact(size: int, limit: int) -> None:
    """The limit is exact, counts the terminator, and what is over it is not kept."""
    if size == 1 and limit > 100:
        size = 333
    good = b'{"result": "' + b"x" * (limit - 15) + b'"}\n'
    bad = good.replace(b"x", b"xx", 1)
    assert len(good) == limit
    reader = PacketReader(limit)
    found = read(reader, in_pieces(good + bad + good + bad, size))
    assert [type(packet) for packet in found] == [Packet, Unreadable, Packet, Unreadable]
    error = found[1]
    assert isinstance(error, Unreadable)
    assert str(error.error) == f"expected a line of at most {limit} bytes, got a longer one"
    assert (error.error.is_json, error.is_lost) == (True, False)


def test_a_line_that_never_ends_costs_nothing() -> None:
    """A hundred megabytes without an end leave nothing behind, and then the next line is there."""
    reader = PacketReader(limit=100_000)
    piece = b"x" * 1_000_000
    for _ in range(100):
        assert read(reader, [piece]) == []
        assert sum(map(len, reader._line._pieces)) + len(reader._line._small) + len(reader._data) < 200_000
    assert reader.unfinished == 100 * len(piece)
    found = read(reader, [b'\n{"result": 1}\n'])
    assert [type(packet) for packet in found] == [Unreadable, Packet]


def test_a_long_line_with_a_mistake_is_not_kept() -> None:
    """Once it is known to be bad, the rest is thrown away, and the error says what was wrong."""
    reader = PacketReader()
    read(reader, [b'{"uid": "u", "args": [1, 2}', b" " * 100_000])
    for _ in range(20):
        assert read(reader, [b"x" * 100_000]) == []
    assert not reader._line._pieces
    found = read(reader, [b'\n{"result": 1}\n'])
    assert [type(packet) for packet in found] == [Unreadable, Packet]
    assert isinstance(found[0], Unreadable)
    assert found[0].error.uid == "u"
    assert "got '}' in an array or object" in str(found[0].error)
    assert found[0].line is None


def test_too_much_that_is_attached_is_dropped() -> None:
    """The limit is for attachments, too; the error comes at once, and the next packet is intact."""
    reader = PacketReader(limit=1000)
    reader.agree(BOTH)
    good = BINARY_CODEC.pack({"requester": "c", "result": bytes(1000), "uid": "u"})
    bad = BINARY_CODEC.pack({"requester": "c", "result": bytes(1001), "uid": "u-2"})
    found = read(reader, [good, bad[:200]])
    assert [type(packet) for packet in found] == [Packet, Unreadable]
    assert isinstance(found[1], Unreadable)
    assert str(found[1].error) == "expected at most 1000 attached bytes, got 1001"
    assert (found[1].error.uid, found[1].is_lost) == ("u-2", False)
    assert [type(packet) for packet in read(reader, [bad[200:] + good])] == [Packet]


def test_what_was_typed_can_be_looked_at_again() -> None:
    """A short line that is no packet is there without its terminator; a long one is not."""
    reader = PacketReader()
    found = read(reader, [b"Echo echo 1\r\n", b"link DMM\n", b"\n", b"x" * 70_000 + b"\n"])
    assert [packet.line for packet in found] == [b"Echo echo 1", b"link DMM", b"", None]
    assert [packet.error.is_json for packet in found if isinstance(packet, Unreadable)] == [False] * 4


def test_lines_come_before_packets() -> None:
    """During a handshake a peer's lines mean whatever they mean; what follows in the same read is intact."""
    reader = PacketReader(limit=20)
    reader.append(b"marie\r\npolonium\nclient Bench")
    assert [reader.next_line() for _ in range(3)] == [b"marie", b"polonium", None]
    reader.append(b' A\r\n{"result": 1}\r\n' + b"x" * 30)
    assert reader.next_line() == b"client Bench A"
    packet = reader.next_packet()
    assert isinstance(packet, Packet)
    assert packet.envelope.kind is Kind.REPLY
    assert reader.next_line() is None
    reader.append(b"\n\n")
    too_long = reader.next_line()
    assert isinstance(too_long, LineTooLong)
    assert too_long.limit == 20
    assert reader.next_line() == b""
    assert reader.next_line() is None


def test_a_line_of_a_handshake_that_never_ends_costs_nothing() -> None:
    """What is over the limit is thrown away while it arrives."""
    reader = PacketReader(limit=100)
    for _ in range(100):
        reader.append(b"x" * 10_000)
        assert reader.next_line() is None
    assert not reader._line._pieces
    reader.append(b"\nnext\n")
    assert isinstance(reader.next_line(), LineTooLong)
    assert reader.next_line() == b"next"


def test_an_error_is_an_error_packets_message() -> None:
    """What the peer is told names a builtin class and what was wrong."""
    (found,) = read(PacketReader(), [b'{"a": tru}\n'])
    assert isinstance(found, Unreadable)
    failure = packets.typed(STANDARD.decode(packets.error("c", found.error.uid, found.error.message)))
    assert isinstance(failure, packets.Failure)
    assert re.fullmatch(r"ValueError: expected a value, got b'tru', at byte 6", failure.message)
