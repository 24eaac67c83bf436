"""`DeviceServer` as clients see it: which bytes come back for which."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import sniffio
from raw_client import PATIENCE, RawClient, run, served, turns

import aiokatcp
from aiokatcp import (
    Address,
    DeviceServer,
    FailReply,
    InvalidReply,
    Message,
    Now,
    RequestContext,
    Sensor,
    Timestamp,
    TimestampOrNow,
)
from aiokatcp.server import ClientConnection

if TYPE_CHECKING:
    from conftest import Host

TIME = 1234567890.5


class Mode(enum.Enum):
    IDLE = 0
    MOVING_FAST = 1


class Angle(NamedTuple):
    """A type of the application's own."""

    degrees: int
    minutes: int

    def encoded(self) -> bytes:
        return b"%d'%d" % self

    @classmethod
    def decoded(cls, raw: bytes) -> Angle:
        degrees, minutes = raw.split(b"'")
        return cls(int(degrees), int(minutes))


aiokatcp.register_type(Angle, "angle", Angle.encoded, lambda cls: cls.decoded, default=lambda cls: cls(0, 0))


class Plain(DeviceServer):
    """A server with nothing but what every server has."""

    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.3"

    def __init__(self, **options: Any) -> None:
        super().__init__("127.0.0.1", 0, **options)


class Rig(Plain):
    """A server with requests of all kinds, and some sensors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.contexts: list[RequestContext] = []
        for sensor in (
            Sensor(int, "counter", "Counts", default=3),
            Sensor(Mode, "mode", "What it does"),
            Sensor(str, "label", "A name for people", ""),
            Sensor(float, "temperature", "Air temperature", "degC", default=2.5),
            Sensor(Angle, "angle", "", "", Angle(3, 30)),
        ):
            sensor.set_value(sensor.value, Sensor.Status.NOMINAL, TIME)
            self.sensors.add(sensor)

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_add(self, ctx: RequestContext, a: int, b: int = 1) -> int:
        """Add two numbers.

        The second is 1 if it is missing.
        """
        return a + b

    async def request_types(
        self,
        ctx: RequestContext,
        integer: int,
        number: float,
        boolean: bool,
        when: Timestamp,
        mode: Mode,
        address: Address,
        words: str,
        angle: Angle,
    ) -> tuple[object, ...]:
        """Decode and encode an argument of every type."""
        return (integer, number, boolean, when, mode, address, words, angle)

    async def request_when(self, ctx: RequestContext, when: TimestampOrNow) -> str:
        """Take a time or now."""
        return "now" if when is Now.NOW else repr(float(when))

    async def request_maybe(self, ctx: RequestContext, value: float | None = None, *, extra: int = 5) -> Any:
        """Tell whether there is an argument."""
        return (value is not None, extra)

    async def request_fail(self, ctx: RequestContext, *reasons: str) -> None:
        """Fail politely."""
        raise FailReply(*reasons)

    async def request_disown(self, ctx: RequestContext, *reasons: str) -> None:
        """Call the request invalid."""
        raise InvalidReply(*reasons)

    async def request_crash(self, ctx: RequestContext) -> None:
        """Fail with a traceback."""
        raise RuntimeError("crashed on request")

    async def request_return(self, ctx: RequestContext, what: str) -> Any:
        """Return something."""
        return {"none": None, "nothing": (), "one": (1,), "list": [1], "none-inside": (1, None), "text": "é"}[
            what
        ]

    async def request_recite(self, ctx: RequestContext, count: int) -> None:
        """Answer with informs."""
        ctx.informs(("line", number) for number in range(count))

    async def request_mixed(self, ctx: RequestContext) -> str:
        """Send informs in all ways, and return something."""
        ctx.inform("one", 1, Mode.MOVING_FAST)
        ctx.informs([(2.5,), (True, "x")], send_reply=False)
        await ctx.drain()
        return "done"

    async def request_code(self, ctx: RequestContext) -> None:
        """Reply by hand."""
        assert not ctx.replied
        ctx.reply("odd", 5)
        assert ctx.replied

    async def request_sleep(self, ctx: RequestContext, seconds: float) -> None:
        """Reply after some seconds."""
        await asyncio.sleep(seconds)

    async def request_turns(self, ctx: RequestContext, count: int) -> int:
        """Reply after some turns of the loop."""
        await turns(count)
        return count

    async def request_set(self, ctx: RequestContext, value: int) -> None:
        """Set the sensor."""
        self.sensors["counter"].set_value(value, timestamp=TIME)

    async def request_cancel(self, ctx: RequestContext) -> None:
        """Be cancelled by itself."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(PATIENCE)

    async def request_keep(self, ctx: RequestContext) -> None:
        """Keep the context."""
        self.contexts.append(ctx)


GREETING = [
    b"#version-connect katcp-protocol 5.1-MIB\n",
    b"#version-connect katcp-library aiokatcp-%b aiokatcp-%b\n"
    % (aiokatcp.minor_version().encode(), aiokatcp.__version__.encode()),
    b"#version-connect katcp-device rig-1.0 rig-1.0.3\n",
]
TRACEBACK = rb"Traceback\_(most\_recent\_call\_last):\n\_\_File"


# -- what is said without being asked ----------------------------------------------------------------------


def test_greeting(host: Host) -> None:
    """A client is greeted with the versions, before anything else; the others are told of it."""

    async def main() -> None:
        async with served(Plain()) as clients:
            first = await clients.dial_silently()
            assert await first.lines(3) == GREETING
            second = await clients.dial_silently()
            assert await second.lines(3) == GREETING
            assert await first.line() == b"#client-connected %b\n" % second.address
            assert await second.unasked() == []
            second.close()
            third = await clients.dial()
            assert await first.line() == b"#client-connected %b\n" % third.address

    run(host, main)


def test_requests_in_the_first_packet(host: Host) -> None:
    """A client that asks before it has been greeted is greeted first."""

    async def main() -> None:
        async with served(Plain()) as clients:
            client = await clients.dial_silently()
            client.send(b"?watchdog[1]\n?version-list[2]\n")
            listed = [line.replace(b"connect", b"list[2]") for line in GREETING]
            assert await client.lines(8) == [
                *GREETING,
                b"!watchdog[1] ok\n",
                *listed,
                b"!version-list[2] ok 3\n",
            ]

    run(host, main)


def test_informs_to_all(host: Host) -> None:
    """mass_inform sends the same to every client, in the order of the calls; a wrong one is sent to
    nobody.
    """

    async def main() -> None:
        server = Plain()
        server.mass_inform("too-early")
        async with served(server) as clients:
            pair = await clients.dial_pair()
            server.mass_inform("news", "a b", 1, 2.5, True, b"\xff", Timestamp(3), Mode.MOVING_FAST)
            for name in ("two words", "under_score", "", "1st"):
                with pytest.raises(ValueError, match="name"):
                    server.mass_inform(name)
            with pytest.raises(TypeError, match="NoneType"):
                server.mass_inform("news", None)
            server.mass_inform("end")
            for client in pair:
                assert await client.lines(2) == [b"#news a\\_b 1 2.5 1 \xff 3.0 moving-fast\n", b"#end\n"]
        server.mass_inform("too-late")

    run(host, main)


# -- requests and replies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "answers"),
    [
        (b"?watchdog[2]\r", [b"!watchdog[2] ok\n"]),
        (b"\r\n \t\n?watchdog\t \r\n", [b"!watchdog ok\n"]),
        (b"?echo[3]\ta  b\\_c \\@\n", [b"!echo[3] ok a b\\_c \\@\n"]),
        (b"?echo \xff\\0\\n\\r\\e\\t\\\\\n", [b"!echo ok \xff\\0\\n\\r\\e\\t\\\\\n"]),
        (b"?echo\n", [b"!echo ok\n"]),
        (b"?add 1 2\n?add[2] 1\n", [b"!add ok 3\n", b"!add[2] ok 2\n"]),
        (
            b"?types -1 1e3 0 5 moving-fast [::1]:80 caf\\_\xc3\xa9 1'30\n",
            [b"!types ok -1 1000.0 0 5.0 moving-fast [::1]:80 caf\\_\xc3\xa9 1'30\n"],
        ),
        (b"?when now\n?when 5\n", [b"!when ok now\n", b"!when ok 5.0\n"]),
        (b"?maybe\n?maybe 1\n", [b"!maybe ok 0 5\n", b"!maybe ok 1 5\n"]),
        (b"?return none\n?return nothing\n?return one\n", [b"!return ok\n"] * 2 + [b"!return ok 1\n"]),
        (b"?return text\n", [b"!return ok \xc3\xa9\n"]),
        (b"?recite[7] 2\n", [b"#recite[7] line 0\n", b"#recite[7] line 1\n", b"!recite[7] ok 2\n"]),
        (b"?recite 0\n", [b"!recite ok 0\n"]),
        (
            b"?mixed[9]\n",
            [
                b"#mixed[9] one 1 moving-fast\n",
                b"#mixed[9] 2.5\n",
                b"#mixed[9] 1 x\n",
                b"!mixed[9] ok done\n",
            ],
        ),
        (b"?code[1]\n", [b"!code[1] odd 5\n"]),
        (b"?fail on\\_fire\n?fail\n", [b"!fail fail on\\_fire\n", b"!fail fail \\@\n"]),
        (b"?fail a b\n", [b"!fail fail ('a',\\_'b')\n"]),
        (b"?cancel[1]\n", [b"!cancel[1] fail request\\_cancelled\n"]),
        (b"?no-such[5] a\n", [b"!no-such[5] invalid unknown\\_request\\_no-such\n"]),
        (b"?ECHO\n", [b"!ECHO invalid unknown\\_request\\_ECHO\n"]),
    ],
)
def test_answers(host: Host, requests: bytes, answers: list[bytes]) -> None:
    """What is asked, and what is answered, byte for byte."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            client.send(requests)
            assert await client.lines(len(answers)) == answers
            assert await client.unasked() == []

    run(host, main)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"?disown no\n", b"!disown invalid no\n"),
        (b"?add\n", b"!add fail missing\\_a\\_required\\_argument:\\_'a'\n"),
        (b"?add 1 2 3\n", b"!add fail too\\_many\\_arguments\\_for\\_add\n"),
        (b"?maybe 1 2\n", b"!maybe fail too\\_many\\_arguments\\_for\\_maybe\n"),
        (b"?watchdog x\n", b"!watchdog fail too\\_many\\_arguments\\_for\\_watchdog\n"),
        (b"?add[4] x\n", b"!add[4] fail invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'x'\n"),
        (
            b"?types 1 1 2 5 idle 1.2.3.4:80 x 1'30\n",
            b"!types fail boolean\\_must\\_be\\_0\\_or\\_1,\\_not\\_b'2'\n",
        ),
        (
            b"?types 1 1 1 5 Idle 1.2.3.4:80 x 1'30\n",
            b"!types fail b'Idle'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Mode\n",
        ),
    ],
)
def test_refusals(host: Host, request_: bytes, answer: bytes) -> None:
    """Whatever is wrong with a request's arguments is a failure, with the decoder's own words."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            assert await client.ask(request_) == [answer]
            (line,) = await client.ask(b"?when x\n")
            assert line.startswith(b"!when fail None\\_of\\_the\\_types\\_in\\_")

    run(host, main)


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (b"?crash[8]\n", b"RuntimeError:\\_crashed\\_on\\_request\\n\n"),
        (b"?return[8] list\n", b"TypeError:\\_<class\\_'list'>\\_is\\_not\\_registered\\n\n"),
        (b"?return[8] none-inside\n", b"TypeError:\\_<class\\_'NoneType'>\\_is\\_not\\_registered\\n\n"),
    ],
)
def test_failures_that_nobody_meant(
    host: Host, caplog: pytest.LogCaptureFixture, request_: bytes, end: bytes
) -> None:
    """An exception of any other kind is a failure with its traceback, and an error in the log."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            name = request_.split()[0][1:]
            (line,) = await client.ask(request_)
            assert line.startswith(b"!%b fail " % name + TRACEBACK)
            assert line.endswith(end)
            assert await client.ask(b"?watchdog\n") == [b"!watchdog ok\n"]
            (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert (record.name, record.levelname) == ("aiokatcp.server", "ERROR")
            kind = name.removesuffix(b"[8]").decode()
            address = client.address.decode()
            assert record.getMessage() == f"uncaught exception while handling {kind!r} [{address}]"
            assert record.exc_info is not None

    run(host, main)


class Late(Plain):
    """Goes on after its replies."""

    async def request_again(self, ctx: RequestContext) -> None:
        """Reply twice."""
        ctx.reply("ok", "first")
        ctx.reply("ok", "second")

    async def request_inform(self, ctx: RequestContext) -> None:
        """Reply, then inform."""
        ctx.reply("ok", "first")
        ctx.inform("second")

    async def request_informs(self, ctx: RequestContext) -> None:
        """Reply, then inform twice."""
        ctx.reply("ok", "first")
        ctx.informs([("second",), ("third",)])

    async def request_return(self, ctx: RequestContext) -> str:
        """Reply, then return something."""
        ctx.reply("ok", "first")
        return "second"

    async def request_crash(self, ctx: RequestContext) -> None:
        """Reply, then crash."""
        ctx.reply("ok", "first")
        raise ZeroDivisionError("second")

    async def request_fail(self, ctx: RequestContext) -> None:
        """Reply, then fail."""
        ctx.reply("ok", "first")
        raise FailReply("second thoughts")

    async def request_nothing(self, ctx: RequestContext) -> None:
        """Reply, then return nothing."""
        ctx.reply("ok", "first")

    async def request_cancel(self, ctx: RequestContext) -> None:
        """Reply, then be cancelled."""
        ctx.reply("ok", "first")
        raise asyncio.CancelledError


@pytest.mark.parametrize("how", ["again", "inform", "informs", "return", "crash"])
def test_what_comes_after_the_reply(host: Host, how: str) -> None:
    """Reply or inform after a reply, a second reply, or a returned value after a reply: the client sees the
    first reply and then ``#log error <t> aiokatcp.server Traceback...``.
    """

    async def main() -> None:
        async with served(Late()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?%b[5]\n" % how.encode()) == [b"!%b[5] ok first\n" % how.encode()]
            (line,) = await client.unasked()
            words = line.split(b" ")
            assert words[:2] == [b"#log", b"error"]
            assert float(words[2]) == pytest.approx(time.time(), abs=60)
            assert words[3] == b"aiokatcp.server"
            assert words[4].startswith(TRACEBACK)
            if how == "crash":
                assert words[4].endswith(b"ZeroDivisionError:\\_second\\n\n")
            else:
                assert words[4].endswith(b"has\\_already\\_been\\_replied\\_to\\n\n")

    run(host, main)


def test_second_thoughts(host: Host) -> None:
    """A polite failure after the reply is told without a traceback; nothing, and a cancellation, not at
    all.
    """

    async def main() -> None:
        async with served(Late()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?fail\n") == [b"!fail ok first\n"]
            (line,) = await client.unasked()
            words = line.split(b" ")
            assert words[:2] + words[3:] == [b"#log", b"error", b"aiokatcp.server", b"second\\_thoughts\n"]
            assert await client.ask(b"?nothing\n?cancel\n") == [b"!nothing ok first\n", b"!cancel ok first\n"]
            assert await client.unasked() == []

    run(host, main)


def test_garbage_between_requests(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Lines that are no messages are told to who sent them, and disturb no others; so do replies and
    informs.
    """

    async def main() -> None:
        async with served(Rig()) as clients:
            client, other = await clients.dial_pair()
            client.send(
                b"rubbish\n?echo[1] a\n\x00\xff\n!echo ok\n#hello\n?echo[2] a\\x\n?echo[3] b\n?echo[0]\n"
            )
            lines = await client.lines(6)
            complaints = [line for line in lines if line.startswith(b"#log error ")]
            assert [line.split(b" ", 3)[3] for line in complaints] == [
                b'aiokatcp.connection "Invalid\\_character"\\_at\\_character\\_%d\n' % position
                for position in (1, 1, 12, 7)
            ]
            assert [line for line in lines if line not in complaints] == [
                b"!echo[1] ok a\n",
                b"!echo[3] ok b\n",
            ]
            assert await other.unasked() == []

    run(host, main)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "one client's garbage does not fill the log"
    assert warnings[0].getMessage().startswith("Malformed message received [127.0.0.1:")
    assert warnings[0].exc_info is not None


def test_lines_that_are_too_long(host: Host) -> None:
    """A line over the limit is refused when it ends, and the next one is answered."""

    async def main() -> None:
        async with served(Rig(limit=20)) as clients:
            client = await clients.dial()
            client.send(b"?echo " + b"x" * 200_000)
            await turns()
            client.send(b"x\n?echo 1234567890123\n?echo 12345678901234\n?echo y\n")
            lines = await client.lines(4)
            assert [line for line in lines if line[:1] == b"!"] == [
                b"!echo ok 1234567890123\n",
                b"!echo ok y\n",
            ]
            for line in lines:
                assert line[:1] == b"!" or line.endswith(b'"Line\\_too\\_long"\\_at\\_character\\_21\n')

    run(host, main)


def test_a_thousand_requests_in_one_packet(host: Host) -> None:
    """They are answered in the order of their arrival: each handler is a task, and tasks begin in order."""
    requests = [b"?echo[%d] %d\n" % (number, number) for number in range(1, 1001)]

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            client.send(b"".join(requests))
            assert await client.lines(1000) == [b"!echo[%d] ok %d\n" % (n, n) for n in range(1, 1001)]
            client.send(b"".join(requests).replace(b"?echo", b"?watchdog").replace(b" ", b"\n#x "))
            assert await client.lines(1000) == [b"!watchdog[%d] ok\n" % n for n in range(1, 1001)]
            assert await client.unasked() == []

    run(host, main)


def test_requests_overtake_each_other(host: Host) -> None:
    """A reply comes when its handler has ended, whatever was asked before."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            client.send(b"?turns[1] 9\n?turns[2] 0\n?turns[3] 4\n?turns[4] 0\n")
            assert await client.lines(4) == [
                b"!turns[2] ok 0\n",
                b"!turns[4] ok 0\n",
                b"!turns[3] ok 4\n",
                b"!turns[1] ok 9\n",
            ]

    run(host, main)


def test_handlers_begin_in_order(host: Host) -> None:
    """What every server answers itself, and refusals too, come after the effects of what was asked before."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            client.send(
                b"?sensor-value[1] counter\n?set[2] 7\n?sensor-value[3] counter\n?set[4] x\n?watchdog[5]\n"
                b"?set[6] 8\n?log-level[7]\n?nonsense[8]\n?echo[9]\n"
            )
            assert await client.until(b"!echo[9]") == [
                b"#sensor-value[1] 1234567890.5 1 counter nominal 3\n",
                b"!sensor-value[1] ok 1\n",
                b"!set[2] ok\n",
                b"#sensor-value[3] 1234567890.5 1 counter nominal 7\n",
                b"!sensor-value[3] ok 1\n",
                b"!set[4] fail invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'x'\n",
                b"!watchdog[5] ok\n",
                b"!set[6] ok\n",
                b"!log-level[7] ok warn\n",
                b"!nonsense[8] invalid unknown\\_request\\_nonsense\n",
                b"!echo[9] ok\n",
            ]
            client.send(b"?set 9\n?sensor-sampling counter auto\n")
            assert await client.until(b"!sensor-sampling") == [
                b"!set ok\n",
                b"#sensor-status 1234567890.5 1 counter nominal 9\n",
                b"!sensor-sampling ok counter auto\n",
            ]

    run(host, main)


def test_big_messages(host: Host) -> None:
    """Five megabytes pass in both directions, with everything that has to be escaped."""
    long = bytes(range(256)) * 4096 * 5

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            client.send(bytes(Message.request("echo", long, mid=1)) + b"?echo[2] next\n")
            assert await client.line() == bytes(Message.reply("echo", "ok", long, mid=1))
            assert await client.line() == b"!echo[2] ok next\n"

    run(host, main)


# -- what every server answers -----------------------------------------------------------------------------


class Derived(Rig):
    """Inherits requests, replaces one, and adds one."""

    async def request_add(self, ctx: RequestContext, a: int, b: int) -> int:
        """Add two numbers otherwise."""
        return 100 * (a + b) + await super().request_add(ctx, a, b)

    async def request_under_score(self, ctx: RequestContext) -> None:
        """

        Has a name of two words.

        And more to say
            of itself.
        """  # noqa: D212 - not everybody's first line is the first


BUILT_IN = {
    *("client-list", "halt", "help", "log-level", "sensor-list", "sensor-sampling", "sensor-value"),
    *("version-list", "watchdog"),
}


def test_help(host: Host) -> None:
    """Help lists all handlers including inherited ones, sorted; help of a name with underscore is refused."""

    async def main() -> None:
        async with served(Derived()) as clients:
            client = await clients.dial()
            *informs, reply = await client.ask(b"?help[3]\n")
            names = [inform.split()[1].decode() for inform in informs]
            assert names == sorted(names)
            assert BUILT_IN < set(names)
            assert {"echo", "add", "under-score"} < set(names)
            assert reply == b"!help[3] ok %d\n" % len(names)
            assert b"#help[3] add Add\\_two\\_numbers\\_otherwise.\n" in informs
            assert b"#help[3] under-score Has\\_a\\_name\\_of\\_two\\_words.\n" in informs
            assert b"#help[3] echo Reply\\_with\\_the\\_arguments.\n" in informs

            assert await client.ask(b"?help echo\n") == [
                b"#help echo Reply\\_with\\_the\\_arguments.\n",
                b"!help ok 1\n",
            ]
            doc = bytes(Message.inform("help", "under-score", Derived.request_under_score.__doc__))
            assert await client.ask(b"?help under-score\n") == [doc, b"!help ok 1\n"]
            assert await client.ask(b"?help under_score\n?help nobody\n") == [
                b"!help fail request\\_under_score\\_is\\_not\\_known\n",
                b"!help fail request\\_nobody\\_is\\_not\\_known\n",
            ]
            assert await client.ask(b"?add 1 2\n?add 1\n") == [
                b"!add ok 303\n",
                b"!add fail missing\\_a\\_required\\_argument:\\_'b'\n",
            ]

    run(host, main)


def test_lists(host: Host) -> None:
    """Versions, clients and the log level are told as they are."""

    async def main() -> None:
        async with served(Plain()) as clients:
            client, other = await clients.dial_pair()
            versions = [line.replace(b"connect", b"list[4]") for line in GREETING]
            assert await client.ask(b"?version-list[4]\n") == [*versions, b"!version-list[4] ok 3\n"]
            *informs, reply = await client.ask(b"?client-list[5]\n")
            listed = [b"#client-list[5] %b\n" % each.address for each in (client, other)]
            assert sorted(informs) == sorted(listed)
            assert reply == b"!client-list[5] ok 2\n"
            for level in (b"all", b"trace", b"debug", b"info", b"error", b"fatal", b"off", b"warn"):
                assert await client.ask(b"?log-level %b\n" % level) == [b"!log-level ok %b\n" % level]
                assert await other.ask(b"?log-level\n") == [b"!log-level ok %b\n" % level]
            assert await client.ask(b"?log-level loud\n") == [
                b"!log-level fail b'loud'\\_is\\_not\\_a\\_valid\\_value\\_for\\_LogLevel\n"
            ]

    run(host, main)


LISTED = {
    b"angle": b"#sensor-list angle \\@ \\@ angle\n",
    b"counter": b"#sensor-list counter Counts \\@ integer\n",
    b"label": b"#sensor-list label A\\_name\\_for\\_people \\@ string\n",
    b"mode": b"#sensor-list mode What\\_it\\_does \\@ discrete idle moving-fast\n",
    b"temperature": b"#sensor-list temperature Air\\_temperature degC float\n",
}
READ = {
    b"angle": b"#sensor-value 1234567890.5 1 angle nominal 3'30\n",
    b"counter": b"#sensor-value 1234567890.5 1 counter nominal 3\n",
    b"label": b"#sensor-value 1234567890.5 1 label nominal \\@\n",
    b"mode": b"#sensor-value 1234567890.5 1 mode nominal idle\n",
    b"temperature": b"#sensor-value 1234567890.5 1 temperature nominal 2.5\n",
}


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        (b"", sorted(LISTED)),
        (b" label", [b"label"]),
        (b" /e/", [b"angle", b"counter", b"label", b"mode", b"temperature"]),
        (b" /e$/", [b"angle", b"mode", b"temperature"]),
        (b" //", sorted(LISTED)),
        (b" /x^/", []),
    ],
)
def test_sensors_are_listed_and_read(host: Host, argument: bytes, names: list[bytes]) -> None:
    r"""All, one, or those that match. An empty unit is shown as ``\@``, and so is the value of an empty
    string.
    """

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            for request_, told in ((b"sensor-list", LISTED), (b"sensor-value", READ)):
                assert await client.ask(b"?%b%b\n" % (request_, argument)) == [
                    *[told[name] for name in names],
                    b"!%b ok %d\n" % (request_, len(names)),
                ]

    run(host, main)


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (b"nobody", b"Unknown\\_sensor\\_'nobody'"),
        (b"/", b"Unknown\\_sensor\\_'/'"),
        (b"\\@", b"Unknown\\_sensor\\_''"),
        (b"no\\_body's", b'Unknown\\_sensor\\_"no\\_body\'s"'),
        (b"label,mode", b"Unknown\\_sensor\\_'label,mode'"),
        (b"/(/", b"missing\\_),\\_unterminated\\_subpattern\\_at\\_position\\_0"),
    ],
)
def test_sensors_that_are_not_there(host: Host, argument: bytes, reason: bytes) -> None:
    """They are named; a pattern that is none fails with Python's words."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            for request_ in (b"sensor-list", b"sensor-value"):
                assert await client.ask(b"?%b %b\n" % (request_, argument)) == [
                    b"!%b fail %b\n" % (request_, reason)
                ]

    run(host, main)


def test_a_sensor_named_like_a_pattern(host: Host) -> None:
    """A lone slash is an ordinary name."""

    async def main() -> None:
        server = Rig()
        server.sensors.add(Sensor(int, "/", "Odd"))
        async with served(server) as clients:
            client = await clients.dial()
            assert await client.ask(b"?sensor-list /\n") == [
                b"#sensor-list / Odd \\@ integer\n",
                b"!sensor-list ok 1\n",
            ]

    run(host, main)


def test_the_time_of_readings(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """sensor-value etc. use ``time.time()`` of the module at call time."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            monkeypatch.setattr("time.time", lambda: 1234.5)
            clients_sensor = Sensor(int, "new")
            assert clients_sensor.timestamp == 1234.5
            clients.server.sensors.add(clients_sensor)
            clients.server.sensors["counter"].value = 8
            assert await client.ask(b"?sensor-value counter\n?sensor-value new\n") == [
                b"#sensor-value 1234.5 1 counter nominal 8\n",
                b"!sensor-value ok 1\n",
                b"#sensor-value 1234.5 1 new unknown 0\n",
                b"!sensor-value ok 1\n",
            ]
            client.send(b"rubbish\n")
            assert (await client.line()).startswith(b"#log error 1234.5 aiokatcp.connection ")

    run(host, main)


# -- handlers are asyncio's --------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")


class AsyncioRig(Plain):
    """Uses what asyncio has."""

    async def request_task(self, ctx: RequestContext) -> tuple[object, ...]:
        """Use asyncio."""
        task = asyncio.current_task()
        assert task is not None
        assert task in asyncio.all_tasks()
        assert asyncio.get_running_loop() is self.loop
        assert sniffio.current_async_library() == "asyncio"
        timed_out = False
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(PATIENCE)
        except TimeoutError:
            timed_out = True
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
        thread = await asyncio.to_thread(lambda: "thread")
        gathered = await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b"))
        return (timed_out, child.result(), thread, *gathered)

    async def request_variable(self, ctx: RequestContext) -> str:
        """Tell the context variable, and set it."""
        await asyncio.sleep(0)
        before = variable.get()
        variable.set("a handler's")
        return before

    def request_plain(self, ctx: RequestContext, value: int) -> int:
        """Answer without a task."""
        return 2 * value

    def request_future(self, ctx: RequestContext) -> Awaitable[str]:
        """Answer with a future."""
        future: asyncio.Future[str] = self.loop.create_future()
        self.loop.call_soon(future.set_result, "in the future")
        return future

    def request_coroutine(self, ctx: RequestContext) -> Awaitable[str]:
        """Answer with a coroutine."""
        return asyncio.sleep(0, "slept")

    def request_refuse(self, ctx: RequestContext) -> None:
        """Fail without a task."""
        raise FailReply("at once")

    async def unhandled_request(self, ctx: RequestContext, req: Message) -> Any:
        return variable.get()


def test_handlers_are_asyncio_tasks(host: Host) -> None:
    """They have a current task, time-outs, children, threads."""

    async def main() -> None:
        async with served(AsyncioRig()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?task\n") == [b"!task ok 1 child thread a b\n"]

    run(host, main)


def test_context_variables_of_handlers(host: Host) -> None:
    """They are those of the code that called start(); what a handler sets is its own."""

    async def main() -> None:
        server = AsyncioRig()
        variable.set("the starter's")
        await server.start()
        variable.set("somebody's")
        client = await RawClient.connect(server.sockets[0].getsockname())
        await client.until(b"#version-connect katcp-device")
        variable.set("somebody else's")
        assert await client.ask(b"?variable\n?variable\n?unhandled\n?variable\n") == [
            b"!unhandled ok the\\_starter's\n",
            *[b"!variable ok the\\_starter's\n"] * 3,
        ]
        await server.stop()
        client.close()

    run(host, main)


def test_handlers_that_are_no_coroutine_functions(host: Host) -> None:
    """A plain function's result is the answer, and if it is awaitable, what it brings."""

    async def main() -> None:
        async with served(AsyncioRig()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?plain 4\n") == [b"!plain ok 8\n"]
            assert await client.ask(b"?future\n") == [b"!future ok in\\_the\\_future\n"]
            assert await client.ask(b"?coroutine\n") == [b"!coroutine ok slept\n"]
            assert await client.ask(b"?refuse\n") == [b"!refuse fail at\\_once\n"]

    run(host, main)


def test_a_context(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It knows the connection and the request, logs with the address, and answers later, too; but not
    twice.
    """
    caplog.set_level(logging.INFO, "aiokatcp.server")

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            assert await client.ask(b"?keep[7]\n") == [b"!keep[7] ok\n"]
            (ctx,) = server.contexts
            assert ctx.req == ctx.msg == Message.request("keep", mid=7)
            assert isinstance(ctx.conn, ClientConnection)
            assert ctx.conn.owner is server
            assert ctx.conn.is_server
            assert ctx.conn.address == Address.parse(client.address)
            assert ctx.replied
            ctx.logger.info("hello %s", "there")
            (record,) = caplog.records
            assert record.name == "aiokatcp.server"
            assert record.getMessage() == f"hello there [{client.address.decode()}]"
            assert ctx.logger.extra == {"address": ctx.conn.address, "req": ctx.req}
            for again in (
                lambda: ctx.reply("ok"),
                lambda: ctx.inform("x"),
                lambda: ctx.informs([]),
                lambda: ctx.informs([("x",)], send_reply=False),
            ):
                with pytest.raises(RuntimeError, match=r"^request \?keep has already been replied to$"):
                    again()

            fresh = RequestContext(ctx.conn, Message.request("by-hand", "x", mid=8))
            assert not fresh.replied
            with pytest.raises(TypeError, match="NoneType"):
                fresh.reply("ok", None)
            with pytest.raises(TypeError, match="NoneType"):
                fresh.informs([("sent",), (None,)])
            assert not fresh.replied
            fresh.inform("y")
            fresh.informs([("z", 1)])
            assert fresh.replied
            assert await client.lines(3) == [
                b"#by-hand[8] y\n",
                b"#by-hand[8] z 1\n",
                b"!by-hand[8] ok 1\n",
            ]

    run(host, main)
