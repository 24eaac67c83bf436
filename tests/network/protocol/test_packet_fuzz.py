"""A manager's way of reading packets under fire: random packets, damaged in random ways, in random pieces.

pytest runs some hundreds of seeded cases. ``python tests/network/protocol/test_packet_fuzz.py 600`` tries new
ones for as many seconds, and prints the seed of what it finds.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

import pytest
from packet_maker import Maker
from packet_model import naive_envelope, scanned, without_positions

from armillary.network.protocol import nesting
from armillary.network.protocol.codec import STANDARD
from armillary.network.protocol.features import BINARY, STREAM
from armillary.network.protocol.framing import Packet, PacketReader, Unreadable
from armillary.network.protocol.packets import PacketError, typed
from armillary.network.protocol.scanning import Envelope, Kind, scan_line
from armillary.network.protocol.terminal_input import parse_terminal_input

NAME = b'"Bench A[lab7:1]"'


def fire(seed: int) -> tuple[int, int]:
    """One case: some lines on one connection. Return how many were packets, and how many were none."""
    rng = random.Random(seed)
    maker = Maker(rng)
    features = frozenset(feature for feature in (BINARY, STREAM) if rng.random() < 0.5)
    binary, stream = BINARY in features, STREAM in features
    lines = [maker.line() for _ in range(rng.randrange(1, 5))]
    for line in lines:
        naive = naive_envelope(line, binary=binary, stream=stream)
        for found in (
            at_once(line, binary, stream),
            scanned(line, binary=binary, stream=stream),
            scanned(line, maker.sizes(len(line)), binary=binary, stream=stream),
        ):
            assert (None if isinstance(found, PacketError) else without_positions(found)) == naive, line
    reader = PacketReader(rng.choice([200, 100_000]))
    reader.agree(features)
    sent = b"".join(line + bytes(attached(line, binary)) for line in lines)
    start = 0
    found = []
    for size in [*maker.sizes(len(sent)), len(sent)]:
        reader.append(sent[start : start + size])
        start += size
        while (packet := reader.next_packet()) is not None:
            found.append(packet)
            check(packet)
            if isinstance(packet, Unreadable) and packet.is_lost:
                return sum(isinstance(item, Packet) for item in found), len(found)
    assert len(found) == len(lines), sent
    assert reader.unfinished == 0
    packets = sum(isinstance(item, Packet) for item in found)
    return packets, len(found) - packets


def at_once(line: bytes, binary: bool, stream: bool) -> Envelope | PacketError:
    try:
        return scan_line(line, binary=binary, stream=stream)
    except PacketError as error:
        return error


def attached(line: bytes, binary: bool) -> int:
    """How many raw bytes the sender of a line has to send behind it."""
    if not binary:
        return 0
    found = at_once(line, True, True)
    return found.attached or 0


def check(found: Packet | Unreadable) -> None:
    """What is done with everything that comes out of a reader."""
    if isinstance(found, Unreadable):
        text = (found.line or b"").decode("utf-8", "replace")
        packet = parse_terminal_input(text)
        assert packet is None or "attribute" in packet or "type" in packet
        assert found.error.message.startswith("ValueError: expected ")
        return
    assert STANDARD.decode(found.line) is not None
    if found.envelope.kind is Kind.REQUEST:
        forwarded = b"".join(found.requested_by(NAME)[: -len(found.attachments) or None])
        assert forwarded.endswith(b"}\r\n")
        pairs = json.loads(forwarded, object_pairs_hook=list)
        assert [value for key, value in pairs if key == "requester"] == ["Bench A[lab7:1]"]
        try:
            request = typed(STANDARD.decode(forwarded))
        except PacketError:
            return
        assert getattr(request, "requester", None) == "Bench A[lab7:1]"
    else:
        assert b"".join(found.verbatim()).startswith(found.line)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Look at values in smaller pieces, so that more of them are cut."""

    def set_size(size: int) -> None:
        monkeypatch.setattr(nesting, "_SHORT", size)
        monkeypatch.setattr(nesting, "_FIRST_PIECE", size + 1)
        monkeypatch.setattr(nesting, "LONGEST_PIECE", size + 1)

    return set_size


@pytest.mark.parametrize("size", [0, 7, 100, 2048])
def test_nothing_that_a_peer_sends_is_misunderstood(size: int, small_pieces: Callable[[int], None]) -> None:
    """Each line is what the naive model says it is, comes out once, and is forwarded with one requester."""
    small_pieces(size)
    packets = others = 0
    for seed in range(250):
        good, bad = fire(1000 * size + seed)
        packets += good
        others += bad
    assert min(packets, others) > 50


if __name__ == "__main__":
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**40)
    end = time.monotonic() + float(sys.argv[1])
    seed = first
    while time.monotonic() < end:
        nesting._SHORT, nesting._FIRST_PIECE = (0, 9) if seed % 2 else (2048, 8192)
        nesting.LONGEST_PIECE = 9 if seed % 2 else 65536
        try:
            fire(seed)
        except BaseException:
            print(f"seed {seed}, first {first}")  # noqa: T201
            raise
        seed += 1
    print(f"{seed - first} cases, seeds {first} to {seed - 1}")  # noqa: T201
