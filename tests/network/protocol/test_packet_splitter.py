"""What a manager sends, cut into packets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol.payloads import BINARY_CODEC
from armillary.network.protocol.splitting import Frame, Oversize, PacketSplitter


def packet(**members: object) -> bytes:
    return json.dumps(members).encode() + b"\r\n"


def in_pieces(splitter: PacketSplitter, data: bytes, size: int) -> list[Frame | Oversize]:
    return [
        frame for start in range(0, len(data), size) for frame in splitter.append(data[start : start + size])
    ]


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))),
    st.integers(min_value=1, max_value=50),
)
def test_lines_come_out_however_they_were_cut(lines: list[bytes], size: int) -> None:
    """Whole, byte by byte, several at once: the same lines, and what is unfinished is kept."""
    splitter = PacketSplitter(1000)
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    assert in_pieces(splitter, data, size) == [Frame(line) for line in lines]
    assert splitter.unfinished == 4
    assert splitter.append(b"\n") == [Frame(b"rest")]


@given(st.lists(st.binary(max_size=200) | st.none(), max_size=8), st.integers(min_value=1, max_value=300))
def test_attachments_come_with_their_lines(values: list[bytes | None], size: int) -> None:
    """Raw bytes, whatever they look like, belong to the line before them; the next line stands by itself."""
    splitter = PacketSplitter(100_000, has_attachments=True)
    data = b"".join(BINARY_CODEC.pack({"result": value, "uid": "1"}) for value in values)
    frames = in_pieces(splitter, data, size)
    assert [BINARY_CODEC.unpack(frame.line, (frame.attachment,))["result"] for frame in frames] == values  # type: ignore[union-attr]


def test_only_the_packet_itself_says_what_is_attached() -> None:
    """The word in somebody's data is only that; without the agreement it is that everywhere."""
    nested = packet(result={"bin1": 5}, uid="1")
    assert PacketSplitter(1000, has_attachments=True).append(nested + b"abc\n") == [
        Frame(nested[:-1]),
        Frame(b"abc"),
    ]
    real = packet(result=None, uid="1", bin1=5)
    assert PacketSplitter(1000).append(real + b"abc\n") == [Frame(real[:-1]), Frame(b"abc")]


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize("length", [981, 3000, 50_000])
def test_of_a_line_that_is_too_long_its_last_members_are_known(size: int, length: int) -> None:
    """The uid, and for a request who asks; what follows is intact, and nothing long is kept."""
    reply = packet(error=False, requester="A[b:1]", result="x" * length, uid="c0ffee")
    request = packet(args=["x" * length], attribute="a", service="S", uid="7", requester='A "b"[c:1]')
    splitter = PacketSplitter(1000)
    after = packet(uid="8")
    frames = in_pieces(splitter, reply + request + after, size)
    assert frames == [
        Oversize(1000, {"uid": "c0ffee"}),
        Oversize(1000, {"uid": "7", "requester": 'A "b"[c:1]'}),
        Frame(after[:-1]),
    ]


def test_a_line_of_the_limit_is_not_too_long() -> None:
    """The limit counts the terminator."""
    line = packet(uid="1", result="x" * 50)
    assert PacketSplitter(len(line)).append(line) == [Frame(line[:-1])]
    assert PacketSplitter(len(line) - 1).append(line) == [Oversize(len(line) - 1, {})]


@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_an_attachment_that_is_too_large_is_thrown_away(size: int) -> None:
    """All of its packet but the attachment is known, and the next line is found."""
    large = BINARY_CODEC.pack({"result": b"\n" * 5000, "uid": "1"})
    splitter = PacketSplitter(1000, has_attachments=True)
    oversize, frame = in_pieces(splitter, large + packet(uid="2"), size)
    assert isinstance(oversize, Oversize)
    assert oversize.members["uid"] == "1"
    assert frame == Frame(packet(uid="2")[:-1])


def test_a_line_that_never_ends_takes_no_memory() -> None:
    """Only the end of what is too long is kept."""
    splitter = PacketSplitter(1000)
    for _ in range(1000):
        assert splitter.append(b"x" * 10_000) == []
    assert splitter.unfinished == 10_000_000
    assert len(splitter._tail) + sum(map(len, splitter._pieces)) < 20_000


def test_a_limit_of_nothing() -> None:
    """It is a mistake."""
    with pytest.raises(ValueError, match="at least 1 byte"):
        PacketSplitter(0)
