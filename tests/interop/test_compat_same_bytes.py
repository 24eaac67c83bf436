"""The same bytes sent to one device, over aiokatcp and over the façade, bring the same bytes back.

What differs on purpose stands in `DIFFERENCES`, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio
from speaking import HOST, Peer, open_peer_server

from armillary.testing import RawPeer

pytestmark = pytest.mark.interop
PROGRAM = "aiokatcp_device.py"
OURS = ["facade", "facade-uvloop"]
LIMIT = 16 * 1024**2

BUILT_IN = rb"client-list|halt|log-level|sensor-list|sensor-sampling|sensor-value|version-list|watchdog|help"
SENTINEL = b"?echo[2147483647]\n"

# Each packet is sent at once, and answered before the next. All packets of a subject have one connection.
SAME: dict[str, list[bytes]] = {
    "lines": [
        b"?watchdog\r",
        b"\r\n \t\n?watchdog[2]  \t\r\n",
        b"?echo[3]\ta  b\tc \n",
        b"?echo a\\_b\\\\c\\0\\n\\r\\e\\t\\@d \\@ \\@\\@\n",
        b"?echo \xff\x80\x0b\x0c\x01\n",
        b"?echo[2147483646]\n",
        b"!echo ok\n#hello\n!no ok\n?echo\n",
        b"?echo " + b"x" * 300_000 + b"\n",
    ],
    "malformed lines": [
        line + b"\n"
        for line in [
            *[b"bad", b"?", b" ?echo", b"?1echo", b"?e_cho", b"?echo[0]", b"?echo[01]", b"?echo[-1]"],
            *[b"?echo[ 1]", b"?echo[]", b"?echo[1", b"?echo[1]x", b"?echo[2147483648]"],
            *[b"?echo[99999999999999999999] a", b"?echo a\\xb", b"?echo \\", b"?echo a\0b", b"?echo a\x1bb"],
        ]
    ],
    "arguments": [
        b"?add 1\n?add[2] 1 2\n?add 1 2 idle moving-fast\n",
        b"?add\n",
        b"?add x\n",
        b"?add 1 x\n",
        b"?add 1 2 Idle\n",
        b"?inherited\n?inherited 4\n",
        b"?inherited 4 5\n",
        b"?watchdog x\n",
        b"?halt x\n",
        b"?log-level loud\n",
        b"?sensor-list \xff\n",
        b"?help a b\n",
    ],
    "results": [
        *[b"?return[3] %b\n" % kind for kind in (b"none", b"nothing", b"one", b"float", b"enum")],
        *[b"?return[3] %b\n" % kind for kind in (b"list", b"none-inside", b"object", b"no-such")],
        *[b"?raise fail%b\n" % words for words in (b"", b" a", b" a\\_b c", b" \\@", b" \xc3\xa9")],
        *[b"?raise invalid%b\n" % words for words in (b"", b" a", b" a b")],
        b"?raise value on\\_purpose\n",
        b"?raise cancelled\n",
        b"?future\n?replaced\n?adopted a b\n",
        b"?no-such\n",
        b"?ECHO a\n",
    ],
    "informs": [
        b"?informs[5] 2\n?informs 0\n?informs[2] 1 0\n",
        b"?write[1]\n",
        b"?read[4]\n",
    ],
    "replies that are not the last word": [
        b"?late[9] %b\n" % kind
        for kind in (b"reply", b"inform", b"informs", b"fail", b"invalid", b"crash", b"cancel")
    ],
    "help": [
        b"?help echo\n?help replaced\n?help inherited\n",
        b"?help nosuch\n?help sensor_list\n",
    ],
    "order": [
        b"?turns 0\n?turns 1\n?turns 0\n?turns 3\n?turns 2\n?watchdog\n?turns 1\n?echo q\n",
        b"?set counter 5\n?sensor-value counter\n?set counter 6\n?log-level\n?sensor-value counter\n",
        b"?echo 1\n?version-list\n?help echo\n?client-list\n?echo 2\n",
        b"".join(b"?echo[%d] %d\n" % (number, number) for number in range(1, 1001)),
        b"".join(b"?watchdog[%d]\n?turns[%d] 0\n" % (number, number) for number in range(1, 301)),
    ],
    "sensors": [
        b"?sensor-list[4]\n",
        b"?sensor-list label\n",
        b"?sensor-list /e/\n",
        b"?sensor-list nobody\n",
        b"?sensor-list /(/\n",
        b"?sensor-value[4]\n?sensor-value label\n?sensor-value /e/\n?sensor-value /x^/\n",
        b"?sensor-value nobody\n?sensor-value /\n",
        b"?sensor-value a b\n",
    ],
    "sampling": [
        b"?sensor-sampling counter\n",
        b"?sensor-sampling counter event\n?sensor-sampling counter\n?sampler counter\n",
        b"?set counter 1\n?set counter 1\n?set counter 2\n",
        b"?sensor-sampling[3] counter auto\n?set counter 2\n?sampler counter\n",
        b"?sensor-sampling counter differential 2\n?set counter 4\n?set counter 5\n?sampler counter\n",
        b"?sensor-sampling level differential 0.5\n?sampler level\n",
        b"?sensor-sampling counter period 3600\n?sampler counter\n",
        b"?sensor-sampling counter event-rate 0.5 3600\n?sampler counter\n",
        b"?sensor-sampling level differential-rate 1 0.5 3600\n?sampler level\n",
        b"?sensor-sampling silent auto\n?sensor-sampling silent\n?sampler silent\n",
        b"?sensor-sampling label,mode,level event\n?sensor-sampling mode\n",
        b"?sensor-sampling label,mode none\n?sensor-sampling mode\n?sensor-sampling level\n",
        b"?sensor-sampling counter none\n?set counter 7\n?sampler counter\n",
        b"?sensor-sampling counter,counter event\n",
        b"?sensor-sampling counter,nobody event\n",
        b"?sensor-sampling counter,label differential 2\n",
        b"?sensor-sampling counter,label\n",
        b"?sensor-sampling counter,,label event\n",
        b"?sensor-sampling nobody\n",
        b"?sensor-sampling nobody event\n",
        b"?sensor-sampling label carrot\n",
        b"?sensor-sampling label event 1\n",
        b"?sensor-sampling label period\n",
        b"?sensor-sampling label period foo\n",
        b"?sensor-sampling label differential 2\n",
        b"?sensor-sampling counter differential 2.5\n",
        b"?sensor-sampling\n",
        b"?sensor-sampling counter\n?sensor-sampling label\n",
    ],
    "logs": [
        b"?log 40 a\\_b\n?log 30 w\n?log 20 i\n?log 50 f\n",
        b"?log-level info\n?log 20 i\n?log 10 d\n",
        b"?log-level fatal\n?log 40 e\n?log 50 f\n",
        b"?log-level off\n?log 50 f\n?log-level warn\n?log 30 w\n",
    ],
    "the rest": [
        b"?version-list[8]\n",
        b"?client-list[3]\n",
        b"?watchdog[4]\n",
        b"?leave close\n",
    ],
}


class Difference(NamedTuple):
    """A packet that is answered differently, on purpose."""

    reason: str
    packet: bytes
    theirs: list[bytes]
    ours: list[bytes]


STRICT = "the façade refuses sampling that makes no sense, or that would keep the server busy"
STATUS = b"#sensor-status 1234567890.5 1 %b nominal %b\n"
FIRST = b"!late ok first\n"
COMPLAINT = b'#log error TIME aiokatcp.connection "Invalid\\_character"\\_at\\_character\\_1\n'

DIFFERENCES = [
    Difference(
        "complaints about lines come where the lines stood, not before all replies",
        b"bad\n?watchdog\nworse\n?watchdog\n",
        [COMPLAINT, COMPLAINT, b"!watchdog ok\n", b"!watchdog ok\n"],
        [COMPLAINT, b"!watchdog ok\n", COMPLAINT, b"!watchdog ok\n"],
    ),
    Difference(
        "what is answered at once is not answered a turn later because it failed",
        b"?echo 1\n?add\n?no-such\n?echo 2\n",
        [
            b"!echo ok 1\n",
            b"!echo ok 2\n",
            b"!add fail missing\\_a\\_required\\_argument:\\_'a'\n",
            b"!no-such invalid unknown\\_request\\_no-such\n",
        ],
        [
            b"!echo ok 1\n",
            b"!add fail missing\\_a\\_required\\_argument:\\_'a'\n",
            b"!no-such invalid unknown\\_request\\_no-such\n",
            b"!echo ok 2\n",
        ],
    ),
    Difference(
        "the text is the same for every way of answering twice",
        b"?late return\n",
        [
            FIRST,
            b"#log error TIME aiokatcp.server "
            b"Traceback...\\nRuntimeError:\\_handler\\_both\\_replied\\_and\\_returned\\_a\\_value\\n\n",
        ],
        [
            FIRST,
            b"#log error TIME aiokatcp.server "
            b"Traceback...\\nRuntimeError:\\_request\\_?late\\_has\\_already\\_been\\_replied\\_to\\n\n",
        ],
    ),
    Difference(
        "the guidelines have the level trace; aiokatcp makes it an alias of all, and then does not find it",
        b"?log-level trace\n?log-level warn\n",
        [
            b"!log-level ok warn\n",
            b"!log-level fail b'trace'\\_is\\_not\\_a\\_valid\\_value\\_for\\_LogLevel\n",
        ],
        [b"!log-level ok trace\n", b"!log-level ok warn\n"],
    ),
    Difference(
        "levels between two others are rounded down, and do not become off",
        b"?log 35 w\n",
        [b"#log off TIME device aiokatcp_device.py:LINE:\\_w\n", b"!log ok\n"],
        [b"#log warn TIME device aiokatcp_device.py:LINE:\\_w\n", b"!log ok\n"],
    ),
    Difference(
        "the façade says what it got",
        b"?sensor-sampling label period 0\n",
        [b"!sensor-sampling fail period\\_must\\_be\\_positive\n"],
        [b"!sensor-sampling fail period\\_must\\_be\\_positive,\\_got\\_0.0\n"],
    ),
    Difference(
        "of two things that are wrong, the façade names the first",
        b"?sensor-sampling nobody carrot\n",
        [b"!sensor-sampling fail b'carrot'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Strategy\n"],
        [b"!sensor-sampling fail Unknown\\_sensor\\_'nobody'\n"],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling level differential nan\n?sensor-sampling level none\n",
        [
            STATUS % (b"level", b"0.0"),
            b"!sensor-sampling ok level differential nan\n",
            b"!sensor-sampling ok level none\n",
        ],
        [
            b"!sensor-sampling fail difference\\_must\\_be\\_a\\_finite\\_number,\\_not\\_nan\n",
            b"!sensor-sampling ok level none\n",
        ],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling label event-rate 5000 1000\n",
        [STATUS % (b"label", b"a\\_b"), b"!sensor-sampling ok label event-rate 5000.0 1000.0\n"],
        [
            b"!sensor-sampling fail expected\\_0\\_<=\\_shortest\\_<=\\_longest,\\_"
            b"got\\_5000.0\\_and\\_1000.0\n"
        ],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling counter differential -1\n",
        [STATUS % (b"counter", b"0"), b"!sensor-sampling ok counter differential -1\n"],
        [b"!sensor-sampling fail difference\\_must\\_not\\_be\\_negative,\\_got\\_-1\n"],
    ),
]


def masked(line: bytes) -> bytes:
    """A line without addresses, times of logging, lines of programs, ways of tracebacks, and texts of
    help.
    """
    line = re.sub(rb"127\.0\.0\.1:\d+", b"ADDRESS", line)
    line = re.sub(rb"^#log (\w+) \d+\.\d+ ", rb"#log \1 TIME ", line)
    line = re.sub(rb"_device\.py:\d+:", b"_device.py:LINE:", line)
    line = re.sub(rb"0x[0-9a-f]+", b"0xADDRESS", line)
    line = re.sub(rb"Traceback\\_\(\S*\\n(?=[A-Za-z])", rb"Traceback...\\n", line)
    return re.sub(rb"^(#help\S* (?:%b)) .*" % BUILT_IN, rb"\1 HELP", line)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawPeer]:
    """A connection whose greeting has been read."""
    async with RawPeer(await trio.open_tcp_stream(HOST, port)).closing() as client:
        await client.receive_until(b"#version-connect part")
        yield client


async def answers(client: RawPeer, packet: bytes) -> list[bytes]:
    """What a server says to a packet, with what has to differ masked."""
    await client.send(packet)
    lines: list[bytes] = []
    for _ in re.findall(rb"^\?[a-zA-Z]", packet.replace(b"\r", b"\n"), re.MULTILINE):
        answer = [b"#"]
        while not answer[-1].startswith((b"!", b"#log error")):
            answer.append(await client.receive())
            if not answer[-1]:
                return [masked(line) for line in lines + answer[1:-1]] + [b"closed"]
        lines += answer[1:]
    if b"leave" not in packet:
        await client.send(SENTINEL)
    lines += (await client.receive_until(b"!echo[2147483647]"))[:-1]
    return [masked(line) for line in lines]


@asynccontextmanager
async def both(ours: str, *arguments: object) -> AsyncIterator[list[tuple[Peer, int]]]:
    """The device over aiokatcp, and the device over the façade, with their ports."""
    async with (
        open_peer_server("aiokatcp", PROGRAM, *arguments) as theirs,
        open_peer_server(ours, PROGRAM, *arguments) as facade,
    ):
        yield [theirs, facade]


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> str:
    """The façade on either kind of loop."""
    environment: str = request.param
    return environment


@pytest.mark.parametrize("subject", SAME)
async def test_packets_are_answered_alike(ours: str, subject: str) -> None:
    """What is answered over aiokatcp to a packet, the façade answers, line for line and byte for byte."""
    with trio.fail_after(60):
        async with both(ours) as ((_, theirs), (_, facade)):
            async with connected(theirs) as reference, connected(facade) as client:
                for packet in SAME[subject]:
                    expected = await answers(reference, packet)
                    assert (packet, await answers(client, packet)) == (packet, expected)


async def test_packets_are_answered_differently(ours: str) -> None:
    """Where they are to differ, each answers as the table says."""
    with trio.fail_after(60):
        async with both(ours) as ((_, theirs), (_, facade)):
            for reason, packet, their_answers, our_answers in DIFFERENCES:
                async with connected(theirs) as client:
                    assert (packet, await answers(client, packet)) == (packet, their_answers), reason
                async with connected(facade) as client:
                    assert (packet, await answers(client, packet)) == (packet, our_answers), reason


async def test_help_is_alike(ours: str) -> None:
    """The same requests are listed with the same words, but that the façade finds the first line that is not
    blank.
    """
    with trio.fail_after(60):
        async with both(ours) as servers:
            told = []
            for _, port in servers:
                async with connected(port) as client:
                    told.append(await answers(client, b"?help[3]\n"))
            theirs, facade = told
            assert b"#help[3] replaced \\@\n" in theirs
            assert [line.replace(b"replaced Replaces.", b"replaced \\@") for line in facade] == theirs


async def test_greetings_are_alike(ours: str) -> None:
    """The greeting is the same to the byte, and so is how others are told."""
    with trio.fail_after(60):
        async with both(ours) as servers:
            told = []
            for _, port in servers:
                async with RawPeer(await trio.open_tcp_stream(HOST, port)).closing() as first:
                    greeting = [await first.receive() for _ in range(4)]
                    async with connected(port):
                        told.append([*greeting, masked(await first.receive())])
            assert told[0] == told[1]
            assert told[0][-1] == b"#client-connected ADDRESS\n"


async def test_the_longest_line_is_as_long(ours: str) -> None:
    """A line of sixteen megabytes is taken, one that is a byte longer refused, and the next one taken."""
    longest = b"?echo " + b"x" * (LIMIT - 7) + b"\n"
    with trio.fail_after(60):
        async with both(ours) as servers:
            for _, port in servers:
                async with connected(port) as client:
                    await client.send(longest)
                    assert await client.receive() == b"!echo ok " + longest[6:]
                    assert await answers(client, b"?echo x" + longest[6:] + b"?echo\n") == [
                        b'#log error TIME aiokatcp.connection "Line\\_too\\_long"\\_at\\_character\\_%d\n'
                        % (LIMIT + 1),
                        b"!echo ok\n",
                    ]


Act = Callable[[Peer, RawPeer, RawPeer], Awaitable[None]]


async def halt_by_a_client(device: Peer, client: RawPeer, idle: RawPeer) -> None:
    await client.send(b"?wait[1]\n")
    await device.wait_event("waiting")
    await client.send(b"?halt[2]\n")


async def halt_with_company(device: Peer, client: RawPeer, idle: RawPeer) -> None:
    await client.send(b"?wait[1]\n?turns[2] 3\n?echo[3] a\n?halt[4]\n?watchdog[5]\n?halt[6]\n")


async def stop_and_cancel(device: Peer, client: RawPeer, idle: RawPeer) -> None:
    await client.send(b"?wait[1]\n")
    await device.wait_event("waiting")
    await device.ask("halt", True)


async def stop_patiently(device: Peer, client: RawPeer, idle: RawPeer) -> None:
    await client.send(b"?wait[1]\n")
    await device.wait_event("waiting")
    await device.ask("halt", False)
    await trio.sleep(0.05)  # aiokatcp's server takes a moment until it takes no more
    await client.send(b"?echo[2]\n?watchdog[3]\n?wait[4]\n")
    await idle.send(b"?echo[5]\n")
    await trio.sleep(0.05)
    await device.ask("go_on")


async def stop_when_full(device: Peer, client: RawPeer, idle: RawPeer) -> None:
    await client.send(b"?wait[1]\n?wait[2]\n?wait[3]\n")
    await device.wait_event("waiting")
    await device.wait_event("waiting")
    await idle.send(b"?echo[5]\n")
    await trio.sleep(0.05)
    await device.ask("go_on")


ENDINGS: list[Act] = [halt_by_a_client, halt_with_company, stop_and_cancel, stop_patiently]


@pytest.mark.parametrize("act", ENDINGS)
async def test_servers_end_alike(ours: str, act: Act) -> None:
    """What clients are told when the server stops: replies, last informs, the farewell, the end; in that
    order.
    """
    with trio.fail_after(60):
        async with both(ours) as servers:
            told = []
            for device, port in servers:
                async with connected(port) as client, connected(port) as idle:
                    await client.receive_until(b"#client-connected")
                    await act(device, client, idle)
                    told.append([await each.receive_until(b"nothing") for each in (client, idle)])
            assert told[0] == told[1]
            assert told[0][1][-1] == b"#disconnect server\\_shutting\\_down\n"


async def test_full_servers_are_alike(ours: str) -> None:
    """With room for two requests, the third waits, and so does another client's; replies come in the same
    order.
    """
    with trio.fail_after(60):
        async with both(ours, 2) as servers:
            told = []
            for device, port in servers:
                async with connected(port) as client, connected(port) as other:
                    await client.receive_until(b"#client-connected")
                    await stop_when_full(device, client, other)
                    told.append(
                        [
                            (await client.receive_until(b"!wait[3]"))[-1],
                            (await other.receive_until(b"!echo[5]")),
                        ]
                    )
            assert told[0] == told[1]


UPDATES = ["0", "1", "1", "6", "7", "12", "2", "2"]


@pytest.mark.parametrize("strategy", [b"auto", b"event", b"differential 5", b"event-rate 0 3600", b"none"])
async def test_updates_are_reported_alike(ours: str, strategy: bytes) -> None:
    """The same updates of a sensor, and its replacement, are reported in the same bytes."""
    with trio.fail_after(60):
        async with both(ours) as servers:
            told = []
            for device, port in servers:
                async with connected(port) as client:
                    lines = await answers(client, b"?sensor-sampling counter %b\n" % strategy)
                    for value in UPDATES:
                        await device.ask("set", "counter", value)
                    await device.ask("set", "counter", "2", "WARN")
                    lines += await answers(client, b"?watchdog\n")
                    await device.ask("replace", "counter")
                    await device.ask("set", "counter", "50")
                    lines += await answers(client, b"?sensor-sampling counter\n")
                    told.append(lines)
            assert told[0] == told[1]
            assert told[0][-1] == b"!sensor-sampling ok counter none\n"
