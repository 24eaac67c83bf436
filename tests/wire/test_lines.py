from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary._wire.lines import LineSplitter, LineTooLong

TOO_LONG = "too long"
Lines = list[bytes | str]

# Few letters and many line ends, so that short examples hold lines of every interesting length.
texts = st.lists(st.sampled_from([b"a", b"b", b"\xff", b"\r", b"\n", b"xyz"]), max_size=40).map(b"".join)
limits = st.integers(1, 8)
terminators = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\r", b"\nb"])


def naive(data: bytes, limit: int, ends: bytes) -> Lines:
    """What a splitter that sees everything at once, and takes its time, says."""
    lines: Lines = []
    current = b""
    for number in data:
        byte = bytes([number])
        if byte in [ends[i : i + 1] for i in range(len(ends))]:
            lines.append(current if len(current) + 1 <= limit else TOO_LONG)
            current = b""
        else:
            current += byte
    return lines


def shown(lines: Iterable[bytes | LineTooLong]) -> Lines:
    return [TOO_LONG if isinstance(line, LineTooLong) else line for line in lines]


def fed(splitter: LineSplitter, chunks: Iterable[bytes]) -> Lines:
    return [line for chunk in chunks for line in shown(splitter.append(chunk))]


@given(texts, limits, terminators)
def test_a_whole_text_is_cut_as_the_naive_model_cuts_it(data: bytes, limit: int, ends: bytes) -> None:
    """Fed at once, the lines and the overlong ones come out in order."""
    assert shown(LineSplitter(limit, ends).append(data)) == naive(data, limit, ends)


@given(texts, limits, terminators)
def test_a_text_fed_byte_by_byte_gives_the_same_lines(data: bytes, limit: int, ends: bytes) -> None:
    """Where the network cuts the bytes does not matter: one at a time is as good as all at once."""
    chunks = [data[i : i + 1] for i in range(len(data))]
    assert fed(LineSplitter(limit, ends), chunks) == naive(data, limit, ends)


@given(st.lists(texts, max_size=6), limits, terminators)
def test_a_text_fed_in_any_pieces_gives_the_same_lines(chunks: list[bytes], limit: int, ends: bytes) -> None:
    """Pieces of any size, empty ones included, give the lines of the whole."""
    assert fed(LineSplitter(limit, ends), chunks) == naive(b"".join(chunks), limit, ends)


@given(texts, texts, limits, terminators)
def test_something_after_a_line_waits_for_its_own_end(
    data: bytes, after: bytes, limit: int, ends: bytes
) -> None:
    """What follows the last line end yields nothing until it ends too, and then stands by itself."""
    rest = re.sub(b"[\r\nb]", b"", after)
    splitter = LineSplitter(limit, ends)
    fed(splitter, [data + ends[:1]])
    assert fed(splitter, [rest]) == []
    assert splitter.unfinished == len(rest)
    assert fed(splitter, [ends[-1:]]) == [rest if len(rest) < limit else TOO_LONG]
    assert splitter.unfinished == 0


@given(st.lists(texts, max_size=6), limits, terminators)
def test_unfinished_counts_the_bytes_since_the_last_line_end(
    chunks: list[bytes], limit: int, ends: bytes
) -> None:
    """`unfinished` is the length of what came after the last terminator, kept or thrown away."""
    splitter = LineSplitter(limit, ends)
    fed(splitter, chunks)
    tail = re.split(b"[" + re.escape(ends) + b"]", b"".join(chunks))[-1]
    assert splitter.unfinished == len(tail)


def test_the_limit_counts_the_terminator() -> None:
    """A line of exactly the limit, terminator included, is taken, and one byte more is not."""
    assert shown(LineSplitter(10).append(b"123456789\n")) == [b"123456789"]
    assert shown(LineSplitter(10).append(b"1234567890\n")) == [TOO_LONG]


def test_an_overlong_line_is_one_error_that_says_the_limit() -> None:
    """However long it grows, a line yields one `LineTooLong`, when it ends, and costs nothing after it."""
    splitter = LineSplitter(4)
    assert fed(splitter, [b"x" * 1000] * 3) == []
    error, after = splitter.append(b"x\nabc\n")
    assert isinstance(error, LineTooLong)
    assert error.limit == 4
    assert "at most 4 bytes" in str(error)
    assert after == b"abc"


def test_a_line_that_never_ends_is_not_kept() -> None:
    """Only the count of an overlong line grows, not what is held of it."""
    splitter = LineSplitter(100)
    for _ in range(1000):
        splitter.append(b"x" * 99)
    assert splitter.unfinished == 99_000
    assert sum(map(len, splitter._pieces)) == 0


def test_return_and_newline_each_end_a_line() -> None:
    """With both as terminators, CR LF is one line followed by an empty one."""
    assert shown(LineSplitter(10, b"\r\n").append(b"a\rb\nc\r\n")) == [b"a", b"b", b"c", b""]


@pytest.mark.parametrize(("limit", "ends"), [(0, b"\n"), (-1, b"\n"), (1, b"")])
def test_a_splitter_that_could_never_give_a_line_is_refused(limit: int, ends: bytes) -> None:
    """A limit below one byte and an empty set of terminators are errors of the caller."""
    with pytest.raises(ValueError, match="expected"):
        LineSplitter(limit, ends)
