"""Subclasses of `DeviceServer`: what they may define, what they may override, and what they may not."""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from raw_client import run, served, until

from aiokatcp import (
    DeviceServer,
    FailReply,
    InvalidReply,
    Message,
    RequestContext,
    Sensor,
    SensorSampler,
)
from aiokatcp.core import LogLevel
from aiokatcp.server import ClientConnection

if TYPE_CHECKING:
    from conftest import Host

Strategy = SensorSampler.Strategy
STATUS = b"#sensor-status 1234567890.5 1 counter nominal %d\n"


class Plain(DeviceServer):
    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.3"

    def __init__(self, **options: Any) -> None:
        super().__init__("127.0.0.1", 0, **options)
        sensor = Sensor(int, "counter", "Counts")
        sensor.set_value(3, timestamp=1234567890.5)
        self.sensors.add(sensor)


# -- built-in requests --------------------------------------------------------------------------------------


class Wrapping(Plain):
    """Has every built-in request answered by its base class, and keeps what that returned."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[Any] = []

    def keep(self, ctx: RequestContext, value: Any) -> Any:
        self.returned.append((value, ctx.replied))
        return value

    async def request_help(self, ctx: RequestContext, name: str | None = None) -> None:
        """Help."""
        return self.keep(ctx, await super().request_help(ctx, name))

    async def request_halt(self, ctx: RequestContext) -> None:
        """Halt."""
        return self.keep(ctx, await super().request_halt(ctx))

    async def request_watchdog(self, ctx: RequestContext) -> None:
        """Watch."""
        return self.keep(ctx, await super().request_watchdog(ctx))

    async def request_version_list(self, ctx: RequestContext) -> None:
        """List versions."""
        return self.keep(ctx, await super().request_version_list(ctx))

    async def request_client_list(self, ctx: RequestContext) -> None:
        """List clients."""
        return self.keep(ctx, await super().request_client_list(ctx))

    async def request_log_level(self, ctx: RequestContext, level: LogLevel | None = None) -> LogLevel:
        """Log."""
        return self.keep(ctx, await super().request_log_level(ctx, level))

    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """List sensors."""
        return self.keep(ctx, await super().request_sensor_list(ctx, name))

    async def request_sensor_value(self, ctx: RequestContext, name: str | None = None) -> None:
        """Read sensors."""
        return self.keep(ctx, await super().request_sensor_value(ctx, name))

    async def request_sensor_sampling(
        self, ctx: RequestContext, name: str, strategy: Strategy | None = None, *args: bytes
    ) -> tuple[Any, ...]:
        """Sample sensors."""
        return self.keep(ctx, await super().request_sensor_sampling(ctx, name, strategy, *args))


ANSWERS: list[tuple[bytes, list[bytes], Any]] = [
    (b"?help watchdog\n", [b"#help watchdog Watch.\n", b"!help ok 1\n"], (None, True)),
    (b"?watchdog[4]\n", [b"!watchdog[4] ok\n"], (None, False)),
    (
        b"?version-list[4]\n",
        [
            b"#version-list[4] katcp-protocol 5.1-MIB\n",
            b"#version-list[4] katcp-library aiokatcp-2.3 aiokatcp-2.3.0\n",
            b"#version-list[4] katcp-device rig-1.0 rig-1.0.3\n",
            b"!version-list[4] ok 3\n",
        ],
        (None, True),
    ),
    (b"?log-level\n", [b"!log-level ok warn\n"], (LogLevel.WARN, False)),
    (b"?log-level info\n", [b"!log-level ok info\n"], (LogLevel.INFO, False)),
    (
        b"?sensor-list[4]\n",
        [b"#sensor-list[4] counter Counts \\@ integer\n", b"!sensor-list[4] ok 1\n"],
        (1, False),
    ),
    (b"?sensor-list /x/\n", [b"!sensor-list ok 0\n"], (0, False)),
    (
        b"?sensor-value[4]\n",
        [b"#sensor-value[4] 1234567890.5 1 counter nominal 3\n", b"!sensor-value[4] ok 1\n"],
        (None, True),
    ),
    (
        b"?sensor-sampling counter\n",
        [b"!sensor-sampling ok counter none\n"],
        (("counter", Strategy.NONE), False),
    ),
    (
        b"?sensor-sampling[4] counter event\n",
        [STATUS % 3, b"!sensor-sampling[4] ok counter event\n"],
        (("counter", Strategy.EVENT), False),
    ),
    (
        b"?sensor-sampling counter event-rate 1 2\n",
        [STATUS % 3, b"!sensor-sampling ok counter event-rate 1.0 2.0\n"],
        (("counter", Strategy.EVENT_RATE, 1.0, 2.0), False),
    ),
    (
        b"?sensor-sampling counter\n",
        [b"!sensor-sampling ok counter event-rate 1.0 2.0\n"],
        (("counter", Strategy.EVENT_RATE, 1.0, 2.0), False),
    ),
    (
        b"?sensor-sampling counter none\n",
        [b"!sensor-sampling ok counter none\n"],
        (("counter", Strategy.NONE), False),
    ),
]


def test_overrides_may_ask_their_base_class(host: Host) -> None:
    """Every built-in request, called by an override, answers as without one, and returns what it is known
    for.
    """

    async def main() -> None:
        server = Wrapping()
        async with served(server) as clients:
            client = await clients.dial()
            for request, lines, returned in ANSWERS:
                assert await client.ask(request) == lines
                assert server.returned.pop() == returned
            assert await client.ask(b"?client-list[4]\n") == [
                b"#client-list[4] %b\n" % client.address,
                b"!client-list[4] ok 1\n",
            ]
            assert await client.ask(b"?sensor-list nobody\n?sensor-value nobody\n") == [
                b"!sensor-list fail Unknown\\_sensor\\_'nobody'\n",
                b"!sensor-value fail Unknown\\_sensor\\_'nobody'\n",
            ]
            assert await client.ask(b"?sensor-sampling nobody event\n") == [
                b"!sensor-sampling fail Unknown\\_sensor\\_'nobody'\n"
            ]
            assert await client.ask(b"?sensor-sampling counter period\n?help nobody\n") == [
                b"!help fail request\\_nobody\\_is\\_not\\_known\n",
                b"!sensor-sampling fail expected\\_1\\_strategy\\_arguments,\\_found\\_0\n",
            ]
            client.send(b"?halt[9]\n")
            assert await client.rest() == [b"!halt[9] ok\n", b"#disconnect server\\_shutting\\_down\n"]
            assert server.returned.pop(0) == (None, True)
            assert server.returned == [(None, False)]
            await server.join()

    run(host, main)


class Embellishing(Plain):
    """Adds to what its base class answers."""

    async def request_watchdog(self, ctx: RequestContext) -> str:  # type: ignore[override]
        """Bark."""
        await super().request_watchdog(ctx)
        return "woof"

    async def request_halt(self, ctx: RequestContext) -> str:  # type: ignore[override]
        """Halt with a word."""
        await super().request_halt(ctx)
        ctx.inform("farewell")
        return "bye"

    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """List one more."""
        count = await super().request_sensor_list(ctx, name)
        ctx.inform("extra", "Not there", "", "string")
        return count + 1

    async def request_everything(self, ctx: RequestContext) -> None:
        """Answer with all readings."""
        await self.request_sensor_value(ctx)

    async def request_subscribe(self, ctx: RequestContext) -> None:
        """Subscribe the client to the sensor."""
        await self.request_sensor_sampling(ctx, "counter", Strategy.AUTO)


def test_overrides_may_add_to_it(host: Host) -> None:
    """An override may send more, and return something else; other handlers may call built-in ones."""

    async def main() -> None:
        async with served(Embellishing()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?watchdog\n") == [b"!watchdog ok woof\n"]
            assert await client.ask(b"?sensor-list[2]\n") == [
                b"#sensor-list[2] counter Counts \\@ integer\n",
                b"#sensor-list[2] extra Not\\_there \\@ string\n",
                b"!sensor-list[2] ok 2\n",
            ]
            assert await client.ask(b"?everything[3]\n") == [
                b"#everything[3] 1234567890.5 1 counter nominal 3\n",
                b"!everything[3] ok 1\n",
            ]
            assert await client.ask(b"?subscribe\n") == [STATUS % 3, b"!subscribe ok\n"]
            client.send(b"?halt[4]\n")
            assert await client.rest() == [
                b"#halt[4] farewell\n",
                b"!halt[4] ok bye\n",
                b"#disconnect server\\_shutting\\_down\n",
            ]

    run(host, main)


def test_a_built_in_request_cancelled_inside_an_override(host: Host) -> None:
    """An override that waits for its base class, which waits for the client, can be cancelled."""

    class Impatient(Plain):
        async def request_sensor_value(self, ctx: RequestContext, name: str | None = None) -> None:
            """Give up soon."""
            try:
                async with asyncio.timeout(0.05):
                    await super().request_sensor_value(ctx, name)
            except TimeoutError:
                raise FailReply("too slow") from None

    async def main() -> None:
        server = Impatient(max_backlog=100_000)
        for number in range(300):
            server.sensors.add(Sensor(str, f"many.{number:03}", default="x" * 100_000))
        async with served(server) as clients:
            client = await clients.dial()
            client.stop_reading()
            client.send(b"?sensor-value\n")
            await asyncio.sleep(0.1)
            client.read_on()
            assert (await client.until(b"!"))[-1] == b"!sensor-value fail too\\_slow\n"

    run(host, main)


# -- hooks --------------------------------------------------------------------------------------------------


class Hooked(Plain):
    """Looks at every message."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Message] = []
        self.postponed = 0

    def handle_message(self, conn: ClientConnection, msg: Message) -> None:
        assert isinstance(conn, ClientConnection)
        self.seen.append(msg)
        match msg.name:
            case "swallowed":
                pass
            case "broken":
                raise ZeroDivisionError("on purpose")
            case "mine":
                conn.write_message(Message.reply("mine", "ok", mid=msg.mid))
            case "postponed":
                self.loop.call_later(0.01, super().handle_message, conn, msg)
            case "renamed":
                super().handle_message(conn, Message.request("echo", *msg.arguments, mid=msg.mid))
            case _:
                super().handle_message(conn, msg)

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_postponed(self, ctx: RequestContext) -> None:
        """Reply."""
        self.postponed += 1


def test_an_overridden_handle_message(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It is told of every message, of any kind, and decides what becomes of it; its exceptions are logged."""

    async def main() -> None:
        server = Hooked()
        async with served(server) as clients:
            client = await clients.dial()
            packet = b"?echo[1] a\n?swallowed[2]\n?broken[3]\n?mine[4]\n!reply ok\n#inform x\n?renamed[5] b\n"
            client.send(packet)
            assert sorted(await client.lines(3)) == [b"!echo[1] ok a\n", b"!echo[5] ok b\n", b"!mine[4] ok\n"]
            assert server.seen == [Message.parse(line) for line in packet.splitlines(keepends=True)]
            assert await client.ask(b"?postponed[6]\n") == [b"!postponed[6] ok\n"]
            client.send(b"rubbish\n?sensor-value[7]\n?watchdog[8]\n?nonsense[9]\n?echo[10]\n")
            assert (await client.line()).startswith(b"#log error ")
            assert sorted(await client.lines(5)) == [
                b"!echo[10] ok\n",
                b"!nonsense[9] invalid unknown\\_request\\_nonsense\n",
                b"!sensor-value[7] ok 1\n",
                b"!watchdog[8] ok\n",
                b"#sensor-value[7] 1234567890.5 1 counter nominal 3\n",
            ]
            assert server.seen[-1] == Message.request("echo", mid=10)

    run(host, main)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("Exception in message handler [127.0.0.1:")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "on purpose"


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_a_message_that_is_handled_too_late(host: Host, how: str) -> None:
    """When the server is stopping, or the client has gone, the base class does nothing with it."""

    async def main() -> None:
        server = Hooked()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?postponed\n")
            await until(lambda: server.seen)
            if how == "stop":
                await server.stop()
            else:
                client.reset()
            await asyncio.sleep(0.05)
            assert server.postponed == 0

    run(host, main)


class Adopting(Plain):
    """Answers requests that it has no handlers for."""

    async def unhandled_request(self, ctx: RequestContext, req: Message) -> Any:
        assert ctx.req is req
        match req.name:
            case "value":
                return tuple(req.arguments)
            case "by-hand":
                ctx.reply("ok", "by hand")
            case "polite":
                raise FailReply("no")
            case "slow":
                await asyncio.sleep(0.01)
                return 5
            case "crash":
                raise ZeroDivisionError
            case "nothing":
                return None
            case _:
                await super().unhandled_request(ctx, req)
        return None


def test_an_overridden_unhandled_request(host: Host) -> None:
    """It answers as handlers do, and may leave the rest to its base class."""

    async def main() -> None:
        async with served(Adopting()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?value[1] a b\n?by-hand[2]\n?nothing[3]\n") == [
                b"!value[1] ok a b\n",
                b"!by-hand[2] ok by\\_hand\n",
                b"!nothing[3] ok\n",
            ]
            assert await client.ask(b"?polite\n?slow\n") == [b"!polite fail no\n", b"!slow ok 5\n"]
            assert (await client.ask(b"?crash\n"))[0].startswith(b"!crash fail Traceback")
            assert await client.ask(b"?other\n") == [b"!other invalid unknown\\_request\\_other\n"]
            client.send(b"!value ok\n#value\n")
            assert await client.unasked() == []

    run(host, main)


class Versioned(Plain):
    """Has a version more."""

    def send_version_info(self, ctx: RequestContext, *, send_reply: bool = True) -> None:
        assert ctx.req.mtype is Message.Type.REQUEST
        assert send_reply == (ctx.req.name == "version-list")
        super().send_version_info(ctx, send_reply=False)
        ctx.inform("part", "part-1")
        if send_reply:
            ctx.reply("ok", 4)


def test_an_overridden_send_version_info(host: Host) -> None:
    """It makes both the greeting and the answer to ?version-list."""

    async def main() -> None:
        async with served(Versioned()) as clients:
            client = await clients.dial_silently()
            greeting = await client.lines(4)
            assert greeting[3] == b"#version-connect part part-1\n"
            *informs, reply = await client.ask(b"?version-list[5]\n")
            assert informs == [line.replace(b"connect", b"list[5]") for line in greeting]
            assert reply == b"!version-list[5] ok 4\n"

    run(host, main)


# -- classes ------------------------------------------------------------------------------------------------


class Base(Plain):
    async def request_one(self, ctx: RequestContext) -> str:
        """One, of the base."""
        return "base"

    async def request_two(self, ctx: RequestContext) -> str:
        """Two, of the base."""
        return "base"


class Mixin:
    async def request_two(self, ctx: RequestContext) -> str:
        """Two, of the mixin."""
        return "mixin"

    async def request_three(self, ctx: RequestContext) -> str:
        """Three, of the mixin."""
        return "mixin"


class Nearer(Mixin, Base):
    async def request_one(self, ctx: RequestContext) -> str:
        """One, of the derived."""
        return "derived-" + await super().request_one(ctx)


class Nearest(Nearer):
    pass


def test_handlers_are_inherited(host: Host) -> None:
    """A class has the handlers of its bases, mixins included; the nearest counts; bases stay as they are."""

    async def main() -> None:
        for kind, answers in {
            Base: [b"!one ok base\n", b"!two ok base\n", b"!three invalid unknown\\_request\\_three\n"],
            Nearest: [b"!one ok derived-base\n", b"!two ok mixin\n", b"!three ok mixin\n"],
        }.items():
            async with served(kind()) as clients:
                client = await clients.dial()
                assert sorted(await client.ask(b"?one\n?two\n?three\n")) == sorted(answers)

    run(host, main)


def test_handlers_stay_methods(host: Host) -> None:
    """What a class defines stays what it is: it may be called directly."""

    async def main() -> None:
        server = Nearest()
        ctx: Any = object()
        assert await server.request_one(ctx) == "derived-base"
        assert Base.request_two.__name__ == "request_two"
        with pytest.raises(InvalidReply, match=r"^unknown request x$"):
            await server.unhandled_request(ctx, Message.request("x"))

    run(host, main)


class Earlier(Plain):
    """Its annotations are strings, as everywhere in this module; one names a class that comes later."""

    async def request_fork(
        self, ctx: RequestContext, fork: Fork, count: int | None = None
    ) -> tuple[Any, ...]:
        """Reply with what it got."""
        assert isinstance(fork, Fork)
        return (fork, -1 if count is None else count)


class Wrong(Plain):
    """Names something that does not exist."""

    async def request_x(self, ctx: RequestContext, a: Nothing) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Do it."""


class Fork(enum.Enum):
    LEFT = 1
    RIGHT = 2


def test_annotations_that_are_strings(host: Host) -> None:
    """They are looked up where the class was written, at the latest when a server is made."""

    async def main() -> None:
        async with served(Earlier()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?fork left\n?fork right 5\n") == [
                b"!fork ok left -1\n",
                b"!fork ok right 5\n",
            ]
            assert await client.ask(b"?fork up\n") == [
                b"!fork fail b'up'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Fork\n"
            ]
        with pytest.raises(NameError, match="Nothing"):
            Wrong()

    run(host, main)


def test_classes_that_are_refused_when_made() -> None:
    """A handler without a docstring, with too few parameters, with a type that has no KATCP type."""
    with pytest.raises(TypeError, match=r"^request_x must have a docstring$"):

        class NoDocstring(Plain):
            async def request_x(self, ctx: RequestContext) -> None: ...

    with pytest.raises(TypeError, match=r"^Handler must accept at least 2 positional argument\(s\)$"):

        class NoContext(Plain):
            async def request_x(self) -> None:
                """Do it."""

    with pytest.raises(TypeError, match=r"<class 'list'> is not registered$"):

        class NoType(Plain):
            async def request_x(self, ctx: RequestContext, a: list) -> None:  # type: ignore[type-arg]
                """Do it."""

    with pytest.raises(ValueError, match=r"^Parameter cannot be named _msg$"):

        class ForbiddenName(Plain):
            async def request_x(self, ctx: RequestContext, _msg: int) -> None:
                """Do it."""


def test_what_is_no_handler(host: Host) -> None:
    """Attributes that are no functions, and a name with nothing behind the prefix."""

    class Odd(Plain):
        request_number: ClassVar[int] = 5

        async def request_(self) -> None: ...

    async def main() -> None:
        async with served(Odd()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?number\n") == [b"!number invalid unknown\\_request\\_number\n"]

    run(host, main)


def test_versions_are_required(host: Host) -> None:
    """A class without VERSION or BUILD_STATE, or with empty ones, cannot be used."""

    class NoVersion(DeviceServer):
        BUILD_STATE = "x-1"

    class NoBuildState(DeviceServer):
        VERSION = "x-1"

    class EmptyVersion(NoVersion):
        VERSION = ""

    async def main() -> None:
        for kind, missing in (
            (NoVersion, "VERSION"),
            (NoBuildState, "BUILD_STATE"),
            (EmptyVersion, "VERSION"),
            (DeviceServer, "VERSION"),
        ):
            with pytest.raises(TypeError, match=rf"^{kind.__name__} does not define {missing}$"):
                kind("127.0.0.1", 0)

    run(host, main)


class Crowded(Plain):
    """Has attributes of its own, with names that anybody would choose."""

    NAMES: ClassVar[list[str]] = [
        *["_device", "_guest", "_handlers", "_host", "_limit", "_limits", "_lock", "_loop", "_max_pending"],
        *["_native", "_port", "_requests", "_run", "_samplers", "_sensors", "_serve", "_server"],
        *["_service_tasks", "_session", "_sessions", "_start", "_state", "_stop", "_stopped", "_stopping"],
        *["_task", "_tasks", "_clients", "_failure", "_closed", "_queue", "guest", "device", "clients"],
        *["handlers", "session", "state", "stopped", "task", "tasks", "queue", "lock", "session_count"],
    ]

    def __init__(self) -> None:
        for name in self.NAMES:
            setattr(self, name, name)
        super().__init__()
        for name in self.NAMES:
            assert getattr(self, name) == name
            setattr(self, name, name)


def test_attributes_of_subclasses(host: Host) -> None:
    """A subclass may call its own attributes as it likes: nothing of the server's is hit."""

    async def main() -> None:
        server = Crowded()
        async with served(server) as clients:
            client = await clients.dial()
            assert await client.ask(b"?sensor-sampling counter event\n") == [
                STATUS % 3,
                b"!sensor-sampling ok counter event\n",
            ]
            server.add_service_task(asyncio.create_task(asyncio.sleep(60)))
            server.mass_inform("news")
            assert await client.line() == b"#news\n"
        assert [getattr(server, name) for name in Crowded.NAMES] == Crowded.NAMES

    run(host, main)


@pytest.mark.parametrize("options", [{"limit": 0}, {"max_pending": 0}, {"max_pending": -1}])
def test_limits_that_let_nothing_through(host: Host, options: dict[str, int]) -> None:
    """They are refused where they are chosen, and not by a server that never answers."""

    async def main() -> None:
        with pytest.raises(ValueError, match=f"^expected {next(iter(options))} of at least 1, got "):
            Plain(**options)

    run(host, main)


def test_what_a_server_is_told(host: Host) -> None:
    """The backlog is twice the limit unless told; it may be changed at any time; the loop is the running
    one.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = Plain()
        assert server.max_backlog == 2 * 16 * 1024**2
        assert server.loop is loop
        assert Plain(limit=100, loop=loop).max_backlog == 200
        assert Plain(max_backlog=5).max_backlog == 5
        server.max_backlog = 7
        assert server.max_backlog == 7
        with pytest.raises(TypeError):
            DeviceServer("127.0.0.1", 0, 100)  # type: ignore[misc]

    run(host, main)


# -- connections --------------------------------------------------------------------------------------------


class Connected(Plain):
    """Does things to its clients' connections."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def request_close(self, ctx: RequestContext) -> str:
        """Close the client's connection."""
        ctx.inform("before")
        ctx.conn.close()
        assert ctx.conn.is_closing()
        await ctx.conn.wait_closed()
        self.done.append("closed")
        return "never arrives"

    async def request_reply_and_close(self, ctx: RequestContext) -> None:
        """Close the client's connection with a word."""
        ctx.reply("fail", "out")
        ctx.conn.close()

    async def request_reply_and_abort(self, ctx: RequestContext) -> None:
        """Abort the client's connection with a word."""
        ctx.reply("fail", "out at once")
        ctx.conn.abort()
        assert ctx.conn.is_closing()

    async def request_pause(self, ctx: RequestContext) -> None:
        """Read nothing of the client for a moment."""
        ctx.conn.pause_reading()
        self.loop.call_later(0.1, ctx.conn.resume_reading)

    async def request_write(self, ctx: RequestContext) -> None:
        """Write messages by hand."""
        ctx.conn.write_message(Message.inform("news", 1))
        ctx.conn.write_messages([Message.inform("news", 2), Message.inform("news", 3)])

    async def request_flood(self, ctx: RequestContext, size: int) -> int:
        """Send so much, and wait until most of it has left."""
        ctx.inform("x" * size)
        assert ctx.conn.get_write_buffer_size() > 0
        await ctx.drain()
        self.done.append("drained")
        return ctx.conn.get_write_buffer_size()

    async def request_outlive(self, ctx: RequestContext) -> str:
        """Go on when the client has gone."""
        self.done.append("begun")
        await until(ctx.conn.is_closing)
        ctx.inform("nobody hears this")
        ctx.conn.write_message(Message.inform("news", "nor this"))
        await ctx.drain()
        self.done.append("outlived")
        return "nor that"


def test_closing_a_client(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """What was sent before arrives; what comes after is dropped, with one warning; the server goes on."""

    async def main() -> None:
        server = Connected()
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            client.send(b"?close[3]\n")
            assert await client.rest() == [b"#close[3] before\n"]
            await until(lambda: server.done == ["closed"])
            assert await other.ask(b"?client-list\n") == [
                b"#client-list %b\n" % other.address,
                b"!client-list ok 1\n",
            ]
            assert [record.getMessage() for record in caplog.records] == [
                f"Connection closed before message could be sent [{client.address.decode()}]"
            ]
            for request, answer in (
                (b"?reply-and-close\n", b"!reply-and-close fail out\n"),
                (b"?reply-and-abort\n", b"!reply-and-abort fail out\\_at\\_once\n"),
            ):
                client = await clients.dial()
                client.send(request)
                assert await client.rest() == [answer]

    run(host, main)


def test_a_client_that_is_not_read(host: Host) -> None:
    """pause_reading and resume_reading work in a server, too."""

    async def main() -> None:
        async with served(Connected()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?pause\n") == [b"!pause ok\n"]
            began = asyncio.get_running_loop().time()
            client.send(b"?watchdog\n")
            assert await client.line() == b"!watchdog ok\n"
            assert asyncio.get_running_loop().time() - began > 0.05

    run(host, main)


def test_writing_by_hand(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Messages written to a connection come in order with what else is sent; all of it is logged, once."""
    caplog.set_level(logging.DEBUG, "aiokatcp")

    async def main() -> None:
        server = Connected()
        async with served(server) as clients:
            client = await clients.dial()
            caplog.clear()
            assert await client.ask(b"?write[5]\n") == [
                b"#news 1\n",
                b"#news 2\n",
                b"#news 3\n",
                b"!write[5] ok\n",
            ]
            server.mass_inform("news", "x" * 300_000)
            await client.line()
            suffix = f" [{client.address.decode()}]"
            assert [record.getMessage() for record in caplog.records] == [
                r"Received message b'?write[5]\n'" + suffix,
                r"Sent message b'#news 1\n'" + suffix,
                r"Sent message b'#news 2\n'" + suffix,
                r"Sent message b'#news 3\n'" + suffix,
                r"Sent message b'!write[5] ok\n'" + suffix,
                rf"Sent message b'#news {'x' * 300_000}\n'" + suffix,
            ]
            assert {record.name for record in caplog.records} == {"aiokatcp.connection"}

    run(host, main)


def test_draining_in_a_handler(host: Host) -> None:
    """ctx.drain() waits until the client has read most of what it was sent."""

    async def main() -> None:
        server = Connected()
        async with served(server) as clients:
            client = await clients.dial()
            client.stop_reading()
            client.send(b"?flood[1] 8000000\n")
            await asyncio.sleep(0.1)
            assert server.done == []
            client.read_on()
            assert len(await client.line()) == 8_000_000 + len(b"#flood[1] \n")
            await until(lambda: server.done == ["drained"])
            assert (await client.line()).startswith(b"!flood[1] ok ")

    run(host, main)


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_handler_outlives_its_client(host: Host, caplog: pytest.LogCaptureFixture, is_reset: bool) -> None:
    """It runs to its end; what it sends is dropped with one warning; the server serves others meanwhile."""

    async def main() -> None:
        server = Connected()
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            client.send(b"?outlive\n")
            await until(lambda: server.done == ["begun"])
            if is_reset:
                client.reset()
            else:
                client.close()
                server.mass_inform("news")  # the first that does not arrive breaks the connection
                await other.line()
                server.mass_inform("news")
                await other.line()
            assert await other.ask(b"?watchdog\n") == [b"!watchdog ok\n"]
            await until(lambda: server.done == ["begun", "outlived"])

    run(host, main)
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(texts) == 1
    assert texts[0].startswith("Connection closed before message could be sent: [Errno ")


def test_a_client_that_has_closed_its_side(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It gets the replies that are still to come, and then the connection is closed."""

    class Slow(Plain):
        async def request_slow(self, ctx: RequestContext) -> str:
            """Take a moment."""
            await asyncio.sleep(0.05)
            return "at last"

    async def main() -> None:
        async with served(Slow()) as clients:
            client = await clients.dial()
            client.send(b"?slow\n?watchdog\n?part")
            client.half_close()
            assert await client.rest() == [b"!watchdog ok\n", b"!slow ok at\\_last\n"]
            assert [record.getMessage() for record in caplog.records] == [
                f"EOF received on connection with partial message [{client.address.decode()}]"
            ]

    run(host, main)
