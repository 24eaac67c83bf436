"""The same bytes sent to servers of aiokatcp and of armillary, with equal devices, bring the same bytes back.

What differs on purpose stands in `DIFFERENCES`, each with its reason.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio
from parity_device import TIME, ParityDevice
from speaking import HOST, open_peer_server, served

from armillary.katcp import STANDARD_TYPES, SensorStatus
from armillary.testing import RawPeer

pytestmark = pytest.mark.interop
SERVER = ("aiokatcp", "aiokatcp_server.py")
LIMIT = 16 * 1024**2

# Each script has a connection of its own, and is sent line by line, each after the answer to the one before.
SAME: dict[str, list[bytes]] = {
    "lines": [
        b"?watchdog\r",
        b"\r\n \t\n?watchdog[2]  \t\r\n",
        b"?echo[3]\ta  b\tc \n",
        b"?echo a\\_b\\\\c\\0\\n\\r\\e\\t\\@d \\@ \\@\\@\n",
        b"?echo \xff\x80\x0b\x0c\x01\n",
        b"?watchdog[2147483647]\n",
        b"!echo ok\n#hello\n!no ok\n",
    ],
    "malformed lines": [
        b"bad\n",
        b"?\n",
        b" ?echo\n",
        b"?1echo\n",
        b"?e_cho\n",
        b"?echo[0]\n",
        b"?echo[01]\n",
        b"?echo[-1]\n",
        b"?echo[ 1]\n",
        b"?echo[]\n",
        b"?echo[1\n",
        b"?echo[1]x\n",
        b"?echo[2147483648]\n",
        b"?echo[99999999999999999999] a\n",
        b"?echo a\\xb\n",
        b"?echo \\\n",
        b"?echo a\0b\n",
        b"?echo a\x1bb\n",
        b"bad\n?watchdog\nworse\n?watchdog\n",
    ],
    "arguments": [
        b"?add 1 2\n?add 1\n",
        b"?add +5\n?add 1_000\n?add \\_5\n?add 99999999999999999999999999\n",
        b"?types -1 1e3 0 2.5 fault 1.2.3.4 caf\\_e\n",
        b"?types -1 inf 1 5 moving-fast [::1]:80 \\@\n",
        b"?types 1 nan 1 nan idle 1.2.3.4:80 x\n",
        b"?types 1 1_0.5 1 5 idle 1.2.3.4:80 \xc3\xa9\n",
        b"?when now\n?when 5\n",
        b"?either\n?either 1\n",
        b"?recite[7] 3\n?recite 0\n",
    ],
    "refusals": [
        b"?no-such\n?no-such[5] a\n?ECHO a\n?Watchdog\n",
        b"?add\n?add 1 2 3\n?watchdog x\n?halt x\n",
        b"?refuse on\\_fire\n?refuse \\@\n?disown no\n",
    ],
    "sensor-list": [
        b"?sensor-list[4]\n",
        b"?sensor-list label\n?sensor-list[9] colour\n",
        b"?sensor-list /e$/\n?sensor-list //\n?sensor-list /x^/\n",
        b"?sensor-list /\n?sensor-list nobody\n?sensor-list no\\_body's\n?sensor-list \\@\n",
        b"?sensor-list label,since\n",
        b"?sensor-list /(/\n",
        b"?sensor-list a b\n",
    ],
    "sensor-value": [
        b"?sensor-value[4]\n",
        b"?sensor-value label\n?sensor-value[9] colour\n",
        b"?sensor-value /e$/\n?sensor-value //\n?sensor-value /x^/\n",
        b"?sensor-value nobody\n?sensor-value /(/\n",
    ],
    "sensor-sampling": [
        b"?sensor-sampling label\n?sensor-sampling label event\n?sensor-sampling label\n",
        b"?sensor-sampling label event\n?sensor-sampling label none\n?sensor-sampling label\n",
        b"?sensor-sampling[3] label auto\n?sensor-sampling label\n?sensor-sampling label auto\n",
        b"?sensor-sampling lazy auto\n?sensor-sampling lazy\n",
        b"?sensor-sampling since period 3600\n?sensor-sampling since\n",
        b"?sensor-sampling temperature differential 2\n?sensor-sampling temperature\n",
        b"?sensor-sampling counter differential 2\n?sensor-sampling counter\n",
        b"?sensor-sampling label event-rate 0.5 3600\n?sensor-sampling label\n",
        b"?sensor-sampling label event-rate 0.5 inf\n?sensor-sampling label\n",
        b"?sensor-sampling temperature differential-rate 1 0.5 3600\n",
        b"?sensor-sampling\n",
        b"?sensor-sampling nobody\n?sensor-sampling nobody event\n",
        b"?sensor-sampling label carrot\n?sensor-sampling label Event\n",
        b"?sensor-sampling label event 1\n?sensor-sampling label period\n?sensor-sampling label period foo\n",
        b"?sensor-sampling label differential 2\n?sensor-sampling since differential 2\n",
        b"?sensor-sampling counter differential 2.5\n",
    ],
    "sensor-sampling of many": [
        b"?sensor-sampling since,label event\n?sensor-sampling label\n?sensor-sampling since,label none\n",
        b"?sensor-sampling since,since event\n",
        b"?sensor-sampling since,nobody event\n?sensor-sampling since\n",
        b"?sensor-sampling since,label\n",
        b"?sensor-sampling since,,label event\n?sensor-sampling since, event\n",
        b"?sensor-sampling temperature,label differential 2\n?sensor-sampling temperature\n",
        b"?sensor-sampling temperature,counter differential 2\n",
        b"?sensor-sampling counter,temperature differential 2\n?sensor-sampling counter\n",
        b"?sensor-sampling lazy,label auto\n",
    ],
    "the rest": [
        b"?log-level\n?log-level info\n?log-level\n?log-level all\n?log-level off\n?log-level warn\n",
        b"?client-list[3]\n",
        b"?help[3] echo\n?help add\n?help nosuch\n?help sensor_list\n",
    ],
}


class Difference(NamedTuple):
    """A script that the two servers answer differently, on purpose."""

    reason: str
    script: bytes
    theirs: list[bytes]
    ours: list[bytes]


WRONG_ARGUMENT = "armillary says which argument is wrong"
STRICT = "armillary refuses sampling that makes no sense, or that would keep the server busy"
UNKNOWN = b"unknown\\_request\\_"
STATUS = b"#sensor-status 1234567890.5 1 %b unknown %b\n"

DIFFERENCES = [
    Difference(
        WRONG_ARGUMENT,
        b"?add 1 x\n",
        [b"!add fail invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'x'\n"],
        [b"!add fail argument\\_2\\_(b):\\_invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'x'\n"],
    ),
    Difference(
        WRONG_ARGUMENT,
        b"?types 1 1 2 5 idle 1.2.3.4:80 x\n",
        [b"!types fail boolean\\_must\\_be\\_0\\_or\\_1,\\_not\\_b'2'\n"],
        [b"!types fail argument\\_3\\_(boolean):\\_boolean\\_must\\_be\\_0\\_or\\_1,\\_not\\_b'2'\n"],
    ),
    Difference(
        WRONG_ARGUMENT,
        b"?types 1 1 1 now idle 1.2.3.4:80 x\n",
        [b"!types fail could\\_not\\_convert\\_string\\_to\\_float:\\_b'now'\n"],
        [b"!types fail argument\\_4\\_(time):\\_could\\_not\\_convert\\_string\\_to\\_float:\\_b'now'\n"],
    ),
    Difference(
        WRONG_ARGUMENT,
        b"?types 1 1 1 5 moving_fast 1.2.3.4:80 x\n",
        [b"!types fail b'moving_fast'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Mode\n"],
        [
            b"!types fail argument\\_5\\_(mode):\\_"
            b"b'moving_fast'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Mode\n"
        ],
    ),
    Difference(
        "armillary says which argument is wrong, and what an address looks like",
        b"?types 1 1 1 5 idle ::1 x\n",
        [b"!types fail could\\_not\\_parse\\_'::1'\\_as\\_an\\_address\n"],
        [
            b"!types fail argument\\_6\\_(address):\\_could\\_not\\_parse\\_b'::1'\\_as\\_an\\_address:\\_"
            b"expected\\_1.2.3.4:80\\_or\\_[::1]:80\n"
        ],
    ),
    Difference(
        "armillary takes no port that cannot exist",
        b"?types 1 1 1 5 idle 1.2.3.4:99999 x\n",
        [b"!types ok 1 1.0 1 5.0 idle 1.2.3.4:99999 x\n"],
        [
            b"!types fail argument\\_6\\_(address):\\_"
            b"could\\_not\\_parse\\_b'1.2.3.4:99999'\\_as\\_an\\_address:\\_"
            b"expected\\_a\\_port\\_from\\_0\\_to\\_65535,\\_got\\_99999\n"
        ],
    ),
    Difference(
        WRONG_ARGUMENT,
        b"?sensor-list \xff\n",
        [
            b"!sensor-list fail 'utf-8'\\_codec\\_can't\\_decode\\_byte\\_0xff\\_in\\_position\\_0:\\_"
            b"invalid\\_start\\_byte\n"
        ],
        [
            b"!sensor-list fail argument\\_1\\_(name):\\_"
            b"'utf-8'\\_codec\\_can't\\_decode\\_byte\\_0xff\\_in\\_position\\_0:\\_invalid\\_start\\_byte\n"
        ],
    ),
    Difference(
        WRONG_ARGUMENT,
        b"?log-level bogus\n",
        [b"!log-level fail b'bogus'\\_is\\_not\\_a\\_valid\\_value\\_for\\_LogLevel\n"],
        [
            b"!log-level fail argument\\_1\\_(level):\\_"
            b"b'bogus'\\_is\\_not\\_a\\_valid\\_value\\_for\\_LogLevel\n"
        ],
    ),
    Difference(
        "the guidelines have the level trace; aiokatcp makes it an alias of all, and then does not find it",
        b"?log-level trace\n?log-level warn\n",
        [
            b"!log-level fail b'trace'\\_is\\_not\\_a\\_valid\\_value\\_for\\_LogLevel\n",
            b"!log-level ok warn\n",
        ],
        [b"!log-level ok trace\n", b"!log-level ok warn\n"],
    ),
    Difference(
        "armillary says what it got",
        b"?sensor-sampling label period 0\n",
        [b"!sensor-sampling fail period\\_must\\_be\\_positive\n"],
        [b"!sensor-sampling fail period\\_must\\_be\\_positive,\\_got\\_0.0\n"],
    ),
    Difference(
        "of two things that are wrong, armillary names the first",
        b"?sensor-sampling nobody carrot\n",
        [b"!sensor-sampling fail b'carrot'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Strategy\n"],
        [b"!sensor-sampling fail Unknown\\_sensor\\_'nobody'\n"],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling temperature differential nan\n",
        [
            STATUS % (b"temperature", b"0.0"),
            b"!sensor-sampling ok temperature differential nan\n",
        ],
        [b"!sensor-sampling fail difference\\_must\\_be\\_a\\_finite\\_number,\\_not\\_nan\n"],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling temperature differential -1\n",
        [
            STATUS % (b"temperature", b"0.0"),
            b"!sensor-sampling ok temperature differential -1.0\n",
        ],
        [b"!sensor-sampling fail difference\\_must\\_not\\_be\\_negative,\\_got\\_-1.0\n"],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling label event-rate 5000 1000\n",
        [STATUS % (b"label", b"\\@"), b"!sensor-sampling ok label event-rate 5000.0 1000.0\n"],
        [
            b"!sensor-sampling fail expected\\_0\\_<=\\_shortest\\_<=\\_longest,\\_"
            b"got\\_5000.0\\_and\\_1000.0\n"
        ],
    ),
    Difference(
        STRICT,
        b"?sensor-sampling label event-rate inf inf\n",
        [STATUS % (b"label", b"\\@"), b"!sensor-sampling ok label event-rate inf inf\n"],
        [b"!sensor-sampling fail shortest\\_must\\_be\\_a\\_finite\\_number,\\_not\\_inf\n"],
    ),
    Difference(
        "armillary has the flag T, and is not aiokatcp",
        b"?version-list\n",
        [
            b"#version-list katcp-protocol 5.1-MIB\n",
            b"#version-list katcp-library aiokatcp-2.3 aiokatcp-2.3.0\n",
            b"#version-list katcp-device parity-1.0 parity-1.0.3\n",
            b"!version-list ok 3\n",
        ],
        [
            b"#version-list katcp-protocol 5.1-MIBT\n",
            b"#version-list katcp-library armillary-VERSION armillary-VERSION\n",
            b"#version-list katcp-device parity-1.0 parity-1.0.3\n",
            b"!version-list ok 3\n",
        ],
    ),
    Difference(
        "the guidelines ask for it",
        b"?restart x\n",
        [b"!restart invalid " + UNKNOWN + b"restart\n"],
        [b"!restart fail too\\_many\\_arguments\\_for\\_restart\n"],
    ),
    Difference(
        "the flag T promises it",
        b"?request-timeout-hint\n?request-timeout-hint echo\n",
        [b"!request-timeout-hint invalid " + UNKNOWN + b"request-timeout-hint\n"] * 2,
        [
            b"!request-timeout-hint ok 0\n",
            b"#request-timeout-hint echo 0.0\n",
            b"!request-timeout-hint ok 1\n",
        ],
    ),
    Difference(
        "katcp-python's clients know it",
        b"?sensor-sampling label event\n?sensor-sampling-clear\n?sensor-sampling label\n",
        [
            STATUS % (b"label", b"\\@"),
            b"!sensor-sampling ok label event\n",
            b"!sensor-sampling-clear invalid " + UNKNOWN + b"sensor-sampling-clear\n",
            b"!sensor-sampling ok label event\n",
        ],
        [
            STATUS % (b"label", b"\\@"),
            b"!sensor-sampling ok label event\n",
            b"!sensor-sampling-clear ok\n",
            b"!sensor-sampling ok label none\n",
        ],
    ),
]

EXTRA_REQUESTS = {b"request-timeout-hint", b"restart", b"sensor-sampling-clear"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Malformed lines are logged by both servers, as they should be."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawPeer]:
    """A connection whose greeting has been read."""
    async with RawPeer(await trio.open_tcp_stream(HOST, port)).closing() as peer:
        await peer.receive_until(b"#version-connect katcp-device")
        yield peer


async def answers(port: int, script: bytes) -> list[bytes]:
    """What a server says to a script, with what has to differ masked."""
    lines = []
    async with connected(port) as peer:
        for sent in re.findall(rb"[^\n]*\n|[^\n]+$", script):
            await peer.send(sent)
            if sent.strip() and sent[:1] not in b"!#":
                lines.append(await peer.receive())
                while not lines[-1].startswith((b"!", b"#log")):
                    lines.append(await peer.receive())
        await peer.send(b"?watchdog[1234567]\n")
        lines += (await peer.receive_until(b"!watchdog[1234567]"))[:-1]
    return [masked(line) for line in lines]


def masked(line: bytes) -> bytes:
    """A line without addresses, times of logging, names of loggers, and armillary's version."""
    line = re.sub(rb"127\.0\.0\.1:\d+", b"ADDRESS", line)
    line = re.sub(rb"^#log (\w+) \d+\.\d+ \S+ ", rb"#log \1 TIME LOGGER ", line)
    return re.sub(rb"armillary-[0-9.a-z]+", b"armillary-VERSION", line)


@asynccontextmanager
async def both(sensors: int = 0) -> AsyncIterator[tuple[int, int]]:
    """The ports of a server of aiokatcp and of one of armillary, with equal devices."""
    async with open_peer_server(*SERVER, sensors) as (_, theirs), served(ParityDevice(sensors)) as ours:
        yield theirs, ours


@pytest.mark.parametrize("subject", SAME)
async def test_servers_answer_alike(subject: str) -> None:
    """What aiokatcp's server answers to a script, armillary's answers, byte for byte."""
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            for script in SAME[subject]:
                assert (script, await answers(ours, script)) == (script, await answers(theirs, script))


async def test_servers_differ_as_decided() -> None:
    """Where the servers are to differ, each answers as the table says."""
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            for reason, script, their_answers, our_answers in DIFFERENCES:
                assert (script, await answers(theirs, script)) == (script, their_answers), reason
                assert (script, await answers(ours, script)) == (script, our_answers), reason


async def test_armillary_has_all_requests_and_more() -> None:
    """Every request that aiokatcp's device answers, armillary's does, and the three more that it should."""

    async def requests(port: int) -> set[bytes]:
        *informs, reply = await answers(port, b"?help\n")
        assert reply == b"!help ok %d\n" % len(informs)
        assert informs == sorted(informs)
        return {inform.split()[1] for inform in informs}

    with trio.fail_after(20):
        async with both() as (theirs, ours):
            assert await requests(ours) == await requests(theirs) | EXTRA_REQUESTS


async def test_tracebacks_end_alike() -> None:
    """A handler that crashes fails with its traceback; only where it leads through differs."""
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            (their_reply,) = await answers(theirs, b"?crash[8]\n")
            (our_reply,) = await answers(ours, b"?crash[8]\n")
    start = b"!crash[8] fail Traceback\\_(most\\_recent\\_call\\_last):\\n\\_\\_File"
    assert their_reply.startswith(start)
    assert our_reply.startswith(start)
    end = b'raise\\_RuntimeError("crashed\\_on\\_request")\\nRuntimeError:\\_crashed\\_on\\_request\\n\n'
    assert their_reply.endswith(end)
    assert our_reply.endswith(end)


async def test_replies_to_a_burst_come_in_the_same_order() -> None:
    """Requests in one packet that need not wait are answered in their order by both."""
    burst = b"".join(b"?echo[%d] %d\n?add[%d] %d\n" % (n, n, n + 1, n) for n in range(1, 200, 2))
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            told = []
            for port in (theirs, ours):
                async with connected(port) as peer:
                    await peer.send(burst)
                    told.append([await peer.receive() for _ in range(200)])
            assert told[0] == told[1]


async def test_the_longest_line_is_as_long() -> None:
    """A line of sixteen megabytes is taken, one that is a byte longer refused, and the next one taken."""
    longest = b"?watchdog" + b" " * (LIMIT - 10) + b"\n"
    too_long = b"?watchdog" + b" " * (LIMIT - 9) + b"\n"
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            for port in (theirs, ours):
                assert await answers(port, longest) == [b"!watchdog ok\n"]
                assert await answers(port, too_long + b"?watchdog[5]\n") == [
                    b'#log error TIME LOGGER "Line\\_too\\_long"\\_at\\_character\\_16777217\n',
                    b"!watchdog[5] ok\n",
                ]


async def test_clients_are_announced_alike() -> None:
    """A client is told of the one that comes after it, and not when that one goes."""
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            for port in (theirs, ours):
                async with connected(port) as first:
                    async with connected(port):
                        announced = await first.receive()
                        assert masked(announced) == b"#client-connected ADDRESS\n"
                    await first.send(b"?watchdog\n")
                    assert await first.receive() == b"!watchdog ok\n"


async def test_servers_end_alike() -> None:
    """``?halt`` is answered first, then the running request cancelled; then come the farewell and the end."""
    with trio.fail_after(20):
        async with both() as (theirs, ours):
            told = []
            for port in (theirs, ours):
                async with connected(port) as peer:
                    await peer.send(b"?sleep[1] 3600\n?halt[2]\n")
                    told.append(await peer.receive_until(b"nothing"))
            assert (
                told[0]
                == told[1]
                == [
                    b"!halt[2] ok\n",
                    b"!sleep[1] fail request\\_cancelled\n",
                    b"#disconnect server\\_shutting\\_down\n",
                ]
            )


# Values and statuses that a sensor has one after the other.
UPDATES = [
    ("0", "NOMINAL"),
    ("1", "NOMINAL"),
    ("1", "NOMINAL"),
    ("6", "NOMINAL"),
    ("6", "WARN"),
    ("inf", "ERROR"),
]
UPDATES += [("inf", "ERROR"), ("-0.0", "FAILURE"), ("0", "FAILURE"), ("1e20", "INACTIVE"), ("0", "UNKNOWN")]
NO_NUMBERS = [("0", "NOMINAL"), ("nan", "NOMINAL"), ("nan", "NOMINAL"), ("nan", "WARN"), ("0", "WARN")]


async def reports(strategy: bytes, updates: list[tuple[str, str]]) -> list[list[bytes]]:
    """What aiokatcp's server, and then armillary's, reports of a sensor that is updated."""
    device = ParityDevice()
    told = []
    async with open_peer_server(*SERVER) as (peer, theirs), served(device) as ours:
        for port in (theirs, ours):
            async with connected(port) as raw:
                await raw.send(b"?sensor-sampling temperature " + strategy + b"\n")
                await raw.receive_until(b"!sensor-sampling")
                for value, status in updates:
                    if port == theirs:
                        await peer.ask("set", "temperature", value, status)
                    else:
                        decoded = STANDARD_TYPES.decode(float, value.encode())
                        device.sensors["temperature"].set_value(decoded, SensorStatus[status], TIME)
                await raw.send(b"?watchdog\n")
                told.append((await raw.receive_until(b"!watchdog"))[:-1])
    return told


@pytest.mark.parametrize(
    ("strategy", "count"), [(b"auto", 11), (b"event", 8), (b"differential 5", 7), (b"event-rate 0 3600", 8)]
)
async def test_updates_are_reported_alike(strategy: bytes, count: int) -> None:
    """The same updates of a sensor are reported by both, in the same bytes."""
    with trio.fail_after(20):
        theirs, ours = await reports(strategy, UPDATES)
        assert ours == theirs
        assert len(ours) == count


@pytest.mark.parametrize("strategy", [b"auto", b"event"])
async def test_no_numbers_are_reported_alike(strategy: bytes) -> None:
    """A value that is no number differs from every other, itself included, for both."""
    with trio.fail_after(20):
        theirs, ours = await reports(strategy, NO_NUMBERS)
        assert ours == theirs
        assert len(ours) == 5


async def test_no_number_is_a_large_change() -> None:
    """A differential strategy reports a value that is no number, which aiokatcp's keeps to itself."""
    with trio.fail_after(20):
        theirs, ours = await reports(b"differential 5", NO_NUMBERS)
        assert [line.split()[-2:] for line in theirs] == [[b"nominal", b"0.0"], [b"warn", b"nan"]]
        assert [line.split()[-2:] for line in ours] == [
            [b"nominal", b"0.0"],
            [b"nominal", b"nan"],
            [b"nominal", b"nan"],
            [b"warn", b"nan"],
            [b"warn", b"0.0"],
        ]
