"""``?sensor-sampling`` of a `DeviceServer`: who is told of what and when."""

from __future__ import annotations

import asyncio
import enum
import gc
import logging
import math
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import async_solipsism
import pytest
from raw_client import RawClient, Served, run, served, turns, until

from aiokatcp import DeviceServer, RequestContext, Sensor, SensorSampler
from aiokatcp.server import ClientConnection

if TYPE_CHECKING:
    from conftest import Host

Status = Sensor.Status
Strategy = SensorSampler.Strategy
TIME = 1234567890.5
# Seconds without any report after which a client has been told everything: longer than any rate here.
QUIET = 1000.0


class Mode(enum.Enum):
    IDLE = 0
    BUSY = 1


class Rig(DeviceServer):
    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.3"

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        super().__init__(host, port, **options)
        for sensor in (
            Sensor(int, "counter"),
            Sensor(float, "level"),
            Sensor(str, "label", default="x"),
            Sensor(Mode, "mode"),
            Sensor(float, "lazy", auto_strategy=Strategy.DIFFERENTIAL, auto_strategy_parameters=[10.0]),
            Sensor(int, "silent", auto_strategy=Strategy.NONE),
        ):
            sensor.set_value(sensor.value, timestamp=TIME)
            self.sensors.add(sensor)

    def set(self, name: str, value: Any, status: Status = Status.NOMINAL) -> None:
        self.sensors[name].set_value(value, status, TIME)


def report(name: str, value: object, status: str = "nominal", timestamp: float = TIME) -> bytes:
    return f"#sensor-status {timestamp!r} 1 {name} {status} {value}\n".encode()


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on a loop whose time passes only while everybody sleeps, and that has no real sockets."""
    with asyncio.Runner(debug=True, loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())
    gc.collect()  # whatever warns when it is forgotten, warns here


class Story:
    """What a client is told of one sensor, with the seconds since it subscribed."""

    def __init__(self, server: Rig, client: RawClient) -> None:
        self.server = server
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.told: list[tuple[float, bytes]] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while line := await self.client.line():
            self.told.append((round(self.loop.time() - self.began, 3), line))

    async def at(self, seconds: float, name: str, value: Any, status: Status = Status.NOMINAL) -> None:
        """Set a sensor at that time."""
        await asyncio.sleep(self.began + seconds - self.loop.time())
        self.server.set(name, value, status)

    async def end(self, seconds: float) -> list[tuple[float, bytes]]:
        """What was told up to that time."""
        await asyncio.sleep(self.began + seconds - self.loop.time())
        self._listening.cancel()
        await asyncio.wait([self._listening])
        return self.told


def tell_story(
    request_: bytes, script: Callable[[Story], Coroutine[Any, Any, list[tuple[float, bytes]]]]
) -> list[tuple[float, bytes]]:
    """Subscribe, let things happen, and return what the client was told after the reply."""
    told: list[tuple[float, bytes]] = []

    async def main() -> None:
        async with served(Rig("test.invalid", 7147)) as clients:
            client = await clients.dial()
            await client.ask(b"?sensor-sampling " + request_ + b"\n")
            told.extend(await script(Story(clients.server, client)))

    virtually(main)
    return told


# -- strategies ---------------------------------------------------------------------------------------------


def test_period() -> None:
    """Reports on the grid regardless of changes; a change between grid points shows at the next one."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(3, "counter", 1)
        await story.at(12, "counter", 2)
        await story.at(14, "counter", 3, Status.WARN)
        return await story.end(35)

    assert tell_story(b"counter period 10", script) == [
        (10, report("counter", 1)),
        (20, report("counter", 3, "warn")),
        (30, report("counter", 3, "warn")),
    ]


def test_periods_do_not_drift() -> None:
    """The hundredth report is due a hundred periods after the first."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        return await story.end(10.05)

    told = tell_story(b"counter period 0.1", script)
    assert [at for at, _ in told] == [pytest.approx(0.1 * n, abs=0.001) for n in range(1, 101)]


def test_event() -> None:
    """No report for the same value, but one for a status change."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(1, "counter", 0)
        await story.at(2, "counter", 5)
        await story.at(3, "counter", 5)
        await story.at(4, "counter", 5, Status.ERROR)
        await story.at(5, "counter", 5, Status.ERROR)
        await story.at(6, "counter", 0)
        return await story.end(QUIET)

    assert tell_story(b"counter event", script) == [
        (2, report("counter", 5)),
        (4, report("counter", 5, "error")),
        (6, report("counter", 0)),
    ]


def test_auto() -> None:
    """A report for the same value."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(1, "counter", 0)
        await story.at(2, "counter", 0)
        await story.at(2, "counter", 1)
        return await story.end(QUIET)

    assert tell_story(b"counter auto", script) == [
        (1, report("counter", 0)),
        (2, report("counter", 0)),
        (2, report("counter", 1)),
    ]


def test_differential() -> None:
    """Differential compares with the last reported value, strictly."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        for second, value in enumerate([2, 3, 5, 6, 9, 3, 2]):
            await story.at(second, "counter", value)
        await story.at(8, "counter", 2, Status.WARN)
        return await story.end(QUIET)

    assert tell_story(b"counter differential 3", script) == [
        (2, report("counter", 5)),
        (4, report("counter", 9)),
        (5, report("counter", 3)),
        (8, report("counter", 2, "warn")),
    ]


def test_differential_of_a_float() -> None:
    """The difference is a float, too; a value that is no number differs from every other."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        for second, value in enumerate([0.5, 0.75, math.nan, math.nan, 1.0]):
            await story.at(second, "level", value)
        return await story.end(QUIET)

    assert tell_story(b"level differential 0.5", script) == [
        (1, report("level", 0.75)),
        (2, report("level", math.nan)),
        (3, report("level", math.nan)),
        (4, report("level", 1.0)),
    ]


def test_event_rate() -> None:
    """A second change within SHORT is reported once at exactly last+SHORT with the latest value; LONG
    counts from the last report and resends unchanged values with their old timestamp.
    """

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(15, "counter", 1)
        await story.at(16, "counter", 2)
        await story.at(18, "counter", 3)
        await story.at(27, "counter", 3)
        return await story.end(150)

    assert tell_story(b"counter event-rate 10 50", script) == [
        (15, report("counter", 1)),
        (25, report("counter", 3)),
        (75, report("counter", 3)),
        (125, report("counter", 3)),
    ]


def test_event_rate_of_a_change_that_was_undone() -> None:
    """What changed within SHORT and changed back is reported all the same."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(1, "counter", 1)
        await story.at(2, "counter", 0)
        return await story.end(40)

    assert tell_story(b"counter event-rate 10 1000", script) == [(10, report("counter", 0))]


def test_differential_rate() -> None:
    """A second change within SHORT is reported once at exactly last+SHORT with the latest value, if it
    was large enough; LONG counts from the last report.
    """

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(12, "level", 4.0)
        await story.at(13, "level", 6.0)
        await story.at(14, "level", 10.0)
        await story.at(15, "level", 9.0)
        await story.at(30, "level", 11.0)
        return await story.end(130)

    assert tell_story(b"level differential-rate 5 10 50", script) == [
        (13, report("level", 6.0)),
        (63, report("level", 11.0)),
        (113, report("level", 11.0)),
    ]


def test_long_without_bound() -> None:
    """LONG may be infinite: then only changes are reported."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(1, "counter", 1)
        await story.at(1000, "counter", 2)
        return await story.end(10_000)

    assert tell_story(b"counter event-rate 10 inf", script) == [
        (10, report("counter", 1)),
        (1000, report("counter", 2)),
    ]


def test_the_preference_of_a_sensor() -> None:
    """``auto`` is what the sensor prefers."""

    async def script(story: Story) -> list[tuple[float, bytes]]:
        await story.at(1, "lazy", 10.0)
        await story.at(2, "lazy", 10.5)
        return await story.end(QUIET)

    assert tell_story(b"lazy auto", script) == [(2, report("lazy", 10.5))]


def test_none() -> None:
    """Nothing more is reported."""

    async def main() -> None:
        async with served(Rig("test.invalid", 7147)) as clients:
            client = await clients.dial()
            await client.ask(b"?sensor-sampling counter period 10\n?sensor-sampling counter none\n")
            clients.server.set("counter", 5)
            await asyncio.sleep(QUIET)
            assert await client.unasked() == []

    virtually(main)


def test_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are ``time.time()`` of when the value was set, while timers use the loop's clock."""

    async def main() -> None:
        async with served(Rig("test.invalid", 7147)) as clients:
            client = await clients.dial()
            monkeypatch.setattr("time.time", lambda: 1500000000.25)
            clients.server.sensors["counter"].value = 5
            began = asyncio.get_running_loop().time()
            await client.ask(b"?sensor-sampling counter period 100\n")
            assert await client.line() == report("counter", 5, timestamp=1500000000.25)
            assert asyncio.get_running_loop().time() - began == pytest.approx(100, abs=0.1)

    virtually(main)


def test_a_whole_life_on_virtual_time() -> None:
    """Starting, serving and stopping take no real time where time is virtual, even with a client that is
    deaf.
    """

    async def main() -> None:
        server = Rig("test.invalid", 7147, max_pending=2)
        async with served(server) as clients:
            first, second = await clients.dial_pair()
            assert await first.ask(b"?client-list\n") == [
                b"#client-list %b\n" % first.address,
                b"#client-list %b\n" % second.address,
                b"!client-list ok 2\n",
            ]
            second.stop_reading()
            for _ in range(50):
                server.mass_inform("news", "x" * 10_000)
            assert len(await first.lines(50)) == 50
            began = asyncio.get_running_loop().time()
            await server.stop()
            assert asyncio.get_running_loop().time() - began == pytest.approx(0.5, abs=0.1)
            assert await first.rest() == [b"#disconnect server\\_shutting\\_down\n"]

    virtually(main)


# -- asking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"counter none", b"counter none"),
        (b"counter auto", b"counter auto"),
        (b"counter event", b"counter event"),
        (b"counter period 2", b"counter period 2.0"),
        (b"counter differential 2", b"counter differential 2"),
        (b"level differential 2", b"level differential 2.0"),
        (b"label event-rate 0.5 3600", b"label event-rate 0.5 3600.0"),
        (b"mode event-rate 0 3600", b"mode event-rate 0.0 3600.0"),
        (b"level differential-rate 1 0.5 3600", b"level differential-rate 1.0 0.5 3600.0"),
        (b"lazy auto", b"lazy auto"),
        (b"silent auto", b"silent none"),
    ],
)
def test_strategies_that_are_set(host: Host, request_: bytes, reply: bytes) -> None:
    """The reading is sent at once, but for none; the reply and a query tell the strategy, decoded."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            name = request_.split()[0]
            assert await client.ask(b"?sensor-sampling %b\n" % name) == [
                b"!sensor-sampling ok %b none\n" % name
            ]
            for _ in range(2):  # setting it again reports again
                *reports, line = await client.ask(b"?sensor-sampling[3] %b\n" % request_)
                assert line == b"!sensor-sampling[3] ok %b\n" % reply
                values = {b"counter": 0, b"level": 0.0, b"label": "x", b"mode": "idle", b"lazy": 0.0}
                assert reports == ([] if b"none" in reply else [report(name.decode(), values[name])])
            assert await client.ask(b"?sensor-sampling %b\n" % name) == [b"!sensor-sampling ok %b\n" % reply]

    run(host, main)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"nobody", b"Unknown\\_sensor\\_'nobody'"),
        (b"nobody event", b"Unknown\\_sensor\\_'nobody'"),
        (b"counter carrot", b"b'carrot'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Strategy"),
        (b"counter Event", b"b'Event'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Strategy"),
        (b"counter event 1", b"expected\\_0\\_strategy\\_arguments,\\_found\\_1"),
        (b"counter period", b"expected\\_1\\_strategy\\_arguments,\\_found\\_0"),
        (b"counter period foo", b"could\\_not\\_convert\\_string\\_to\\_float:\\_b'foo'"),
        (b"counter differential 2.5", b"invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'2.5'"),
        (
            b"label differential 2",
            b"differential\\_strategies\\_only\\_valid\\_for\\_integer\\_and\\_float\\_sensors",
        ),
    ],
)
def test_strategies_that_are_refused(host: Host, request_: bytes, reason: bytes) -> None:
    """The reason is told, and nothing is changed."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            await client.ask(b"?sensor-sampling counter event\n")
            assert await client.ask(b"?sensor-sampling %b\n" % request_) == [
                b"!sensor-sampling fail %b\n" % reason
            ]
            assert await client.ask(b"?sensor-sampling counter\n") == [b"!sensor-sampling ok counter event\n"]
            assert (await client.ask(b"?sensor-sampling\n"))[0].startswith(b"!sensor-sampling fail missing")

    run(host, main)


@pytest.mark.parametrize(
    "words",
    [
        *(f"counter period {value}" for value in ("0", "-1", "nan", "inf", "1e-9")),
        *(f"counter event-rate {values}" for values in ("5 1", "-1 1", "nan 1", "0 nan", "0 0", "inf inf")),
        *(f"level differential {value}" for value in ("-1", "nan", "inf")),
        "level differential-rate -1 0 1",
    ],
)
def test_sampling_that_makes_no_sense(host: Host, words: str) -> None:
    """Parameters that would keep the server busy, or that mean nothing, are refused."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            (reply,) = await client.ask(b"?sensor-sampling %b\n" % words.encode())
            assert reply.startswith(b"!sensor-sampling fail ")
            assert await client.unasked() == []

    run(host, main)


def test_many_at_once(host: Host) -> None:
    """The readings come in the order of the list, then the reply that echoes the list; queries do not
    split.
    """

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?sensor-sampling[5] mode,counter,label event\n") == [
                report("mode", "idle"),
                report("counter", 0),
                report("label", "x"),
                b"!sensor-sampling[5] ok mode,counter,label event\n",
            ]
            assert await client.ask(b"?sensor-sampling mode,counter\n") == [
                b"!sensor-sampling fail Unknown\\_sensor\\_'mode,counter'\n"
            ]
            assert await client.ask(b"?sensor-sampling label,mode none\n") == [
                b"!sensor-sampling ok label,mode none\n"
            ]
            for name, strategy in ((b"mode", b"none"), (b"counter", b"event"), (b"label", b"none")):
                assert await client.ask(b"?sensor-sampling %b\n" % name) == [
                    b"!sensor-sampling ok %b %b\n" % (name, strategy)
                ]

    run(host, main)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"counter,label,counter event", b"Duplicate\\_sensor\\_name"),
        (b"counter,nobody event", b"Unknown\\_sensor\\_'nobody'"),
        (b"counter,,label event", b"Unknown\\_sensor\\_''"),
        (
            b"counter,label differential 2",
            b"differential\\_strategies\\_only\\_valid\\_for\\_integer\\_and\\_float\\_sensors",
        ),
        (
            b"level,counter differential 2.5",
            b"invalid\\_literal\\_for\\_int()\\_with\\_base\\_10:\\_b'2.5'",
        ),
        (b"counter,label period", b"expected\\_1\\_strategy\\_arguments,\\_found\\_0"),
    ],
)
def test_many_of_which_one_fails(host: Host, request_: bytes, reason: bytes) -> None:
    """Bulk failure leaves the first sensors' strategies untouched, and reports nothing."""

    async def main() -> None:
        async with served(Rig()) as clients:
            client = await clients.dial()
            await client.ask(b"?sensor-sampling counter auto\n")
            assert await client.ask(b"?sensor-sampling[2] %b\n" % request_) == [
                b"!sensor-sampling[2] fail %b\n" % reason
            ]
            for name, strategy in ((b"counter", b"auto"), (b"label", b"none"), (b"level", b"none")):
                assert await client.ask(b"?sensor-sampling %b\n" % name) == [
                    b"!sensor-sampling ok %b %b\n" % (name, strategy)
                ]

    run(host, main)


def test_thousands_at_once(host: Host) -> None:
    """Ten thousand names in one request; others are served meanwhile; requests of one client do not mix."""

    async def main() -> None:
        server = Rig()
        names = [f"many.{number:05}" for number in range(10_000)]
        for name in names:
            sensor = Sensor(int, name)
            sensor.set_value(0, timestamp=TIME)
            server.sensors.add(sensor)
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            listed = ",".join(names).encode()
            client.send(
                b"?sensor-sampling[1] %b event\n?sensor-sampling[2] many.00000 none\n" % listed
                + b"?sensor-sampling[3] many.00000\n?sensor-sampling[4] many.09999\n"
            )
            asyncio.get_running_loop().call_soon(other.send, b"?watchdog[9]\n")
            lines = await client.until(b"!sensor-sampling[4]")
            assert lines == [
                *[report(name, 0) for name in names],
                b"!sensor-sampling[1] ok %b event\n" % listed,
                b"!sensor-sampling[2] ok many.00000 none\n",
                b"!sensor-sampling[3] ok many.00000 none\n",
                b"!sensor-sampling[4] ok many.09999 event\n",
            ]
            assert await other.line() == b"!watchdog[9] ok\n"
            for name in names[:3]:
                server.set(name, 5)
            assert await client.unasked() == [report(name, 5) for name in names[1:3]]

    run(host, main)


def test_a_sensor_that_goes_while_thousands_are_subscribed_to(host: Host) -> None:
    """It is not left subscribed, and the others are."""

    async def main() -> None:
        server = Rig()
        names = [f"many.{number:04}" for number in range(1000)]
        sensors = [Sensor(int, name) for name in names]
        for sensor in sensors:
            sensor.set_value(0, timestamp=TIME)
            server.sensors.add(sensor)
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?sensor-sampling %b event\n" % ",".join(names).encode())
            await client.line()
            for sensor in (sensors[0], sensors[500], sensors[999]):
                server.sensors.remove(sensor)
            (reply,) = (await client.until(b"!"))[-1:]
            assert reply.startswith(b"!sensor-sampling ok many.0000,")
            for sensor in [*sensors[498:502], sensors[0], sensors[999]]:
                sensor.set_value(1, timestamp=TIME)
            assert await client.unasked() == [report(f"many.{number:04}", 1) for number in (498, 499, 501)]

    run(host, main)


# -- the life of a subscription -----------------------------------------------------------------------------


def test_each_client_has_its_own(host: Host) -> None:
    """Clients subscribe to one sensor in different ways, and one that goes leaves the others theirs."""

    async def main() -> None:
        async with served(Rig()) as clients:
            server = clients.server
            first, second = await clients.dial_pair()
            await first.ask(b"?sensor-sampling counter event\n")
            await second.ask(b"?sensor-sampling counter auto\n")
            server.set("counter", 0)
            server.set("counter", 1)
            assert await first.unasked() == [report("counter", 1)]
            assert await second.unasked() == [report("counter", 0), report("counter", 1)]
            first.close()
            await until(lambda: len(server._connections) == 1)
            server.set("counter", 2)
            assert await second.unasked() == [report("counter", 2)]
            third = await clients.dial()
            assert await third.ask(b"?sensor-sampling counter\n") == [b"!sensor-sampling ok counter none\n"]

    run(host, main)


def test_sensors_that_go(host: Host) -> None:
    """Removing or replacing a sensor drops its samplers silently; one of the same name is not subscribed
    to.
    """

    async def main() -> None:
        async with served(Rig()) as clients:
            server = clients.server
            client = await clients.dial()
            await client.ask(b"?sensor-sampling counter event\n")
            old = server.sensors["counter"]
            server.sensors.add(Sensor(int, "counter", default=5))
            assert await client.ask(b"?sensor-sampling counter\n") == [b"!sensor-sampling ok counter none\n"]
            old.set_value(1)
            server.set("counter", 6)
            await client.ask(b"?sensor-sampling counter event\n")
            del server.sensors["counter"]
            assert await client.ask(b"?sensor-sampling counter\n") == [
                b"!sensor-sampling fail Unknown\\_sensor\\_'counter'\n"
            ]
            server.sensors.add(old)
            old.set_value(2)
            assert await client.unasked() == []

    run(host, main)


def test_subscriptions_leave_nothing(host: Host) -> None:
    """When a client goes, by itself or with the server, its samplers are closed and can be forgotten."""

    async def main() -> None:
        server = Rig()
        remembered = []
        for is_stopped in (False, True):
            async with served(server) as clients:
                client = await clients.dial()
                await client.ask(b"?sensor-sampling counter period 3600\n?sensor-sampling label auto\n")
                (connection,) = server._connections
                for name in ("counter", "label"):
                    sampler = connection.get_sampler(server.sensors[name])
                    assert sampler is not None
                    remembered.append(weakref.ref(sampler))
                del sampler
                if not is_stopped:
                    client.half_close()
                    await client.rest()
                    assert connection.get_sampler(server.sensors["counter"]) is None
                del connection
        gc.collect()
        assert [reference() for reference in remembered] == [None] * 4

    run(host, main)


def test_samplers_of_the_application(host: Host) -> None:
    """A connection's sampler of a sensor can be set and read; the old one is closed."""

    class Sampling(Rig):
        async def request_subscribe(self, ctx: RequestContext, name: str) -> None:
            """Subscribe by hand."""
            assert isinstance(ctx.conn, ClientConnection)
            assert isinstance(ctx.conn.samplers_lock, asyncio.Lock)
            sensor = self.sensors[name]
            async with ctx.conn.samplers_lock:
                old = ctx.conn.get_sampler(sensor)
                new = SensorSampler.factory(sensor, ctx.conn.sensor_update, self.loop, Strategy.EVENT)
                ctx.conn.set_sampler(sensor, new)
                assert ctx.conn.get_sampler(sensor) is new
                assert old is None or old.sensor is None

        async def request_unsubscribe(self, ctx: RequestContext, name: str) -> None:
            """Unsubscribe by hand."""
            sensor = self.sensors[name]
            sampler = ctx.conn.get_sampler(sensor)
            ctx.conn.set_sampler(sensor, None)
            assert ctx.conn.get_sampler(sensor) is None
            assert sampler is None or sampler.sensor is None

    async def main() -> None:
        async with served(Sampling()) as clients:
            client = await clients.dial()
            assert await client.ask(b"?subscribe counter\n?sensor-sampling counter\n") == [
                report("counter", 0),
                b"!subscribe ok\n",
                b"!sensor-sampling ok counter event\n",
            ]
            await client.ask(b"?sensor-sampling counter period 3600\n")
            assert await client.ask(b"?subscribe counter\n") == [report("counter", 0), b"!subscribe ok\n"]
            clients.server.set("counter", 1)
            assert await client.ask(b"?unsubscribe counter\n") == [
                report("counter", 1),
                b"!unsubscribe ok\n",
            ]
            clients.server.set("counter", 2)
            assert await client.ask(b"?sensor-sampling counter\n?unsubscribe counter\n") == [
                b"!sensor-sampling ok counter none\n",
                b"!unsubscribe ok\n",
            ]

    run(host, main)


# -- clients that are too slow ------------------------------------------------------------------------------


def flood(clients: Served[Rig], how: str) -> None:
    """Send until a client is sent away, without letting anybody else run."""
    for number in range(100_000):
        if not clients.server._connections:
            return
        text = f"{number}" + "x" * 1000
        if how == "mass_inform":
            clients.server.mass_inform("news", text)
        else:
            clients.server.sensors["label"].value = text
    raise AssertionError("the client is still there")


@pytest.mark.parametrize("how", ["mass_inform", "a sensor assignment"])
def test_a_client_that_is_too_slow(host: Host, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """Exceeding max_backlog removes the client from the server's connection set synchronously, in
    mass_inform and in a sensor assignment.
    """

    async def main() -> None:
        async with served(Rig(max_backlog=32768)) as clients:
            deaf = clients.dial_deaf()
            deaf.send(b"?sensor-sampling label auto\n")
            await until(lambda: clients.server._connections)
            await asyncio.sleep(0.05)
            flood(clients, how)
            (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert record.getMessage().startswith("Disconnecting client because it is too slow")
            clients.server.mass_inform("news")
            client = await clients.dial()
            assert await client.ask(b"?client-list\n") == [
                b"#client-list %b\n" % client.address,
                b"!client-list ok 1\n",
            ]
            deaf.close()

    run(host, main)


def test_max_backlog_may_be_changed(host: Host) -> None:
    """It counts for the clients that are there, too."""

    async def main() -> None:
        async with served(Rig()) as clients:
            deaf = clients.dial_deaf()
            await until(lambda: clients.server._connections)
            await asyncio.sleep(0.05)
            clients.server.mass_inform("news", "x" * 8_000_000)
            assert len(clients.server._connections) == 1
            clients.server.max_backlog = 1000
            clients.server.mass_inform("news", "x")
            assert not clients.server._connections
            deaf.close()

    run(host, main)


def test_a_burst_is_no_fault_of_the_client(host: Host) -> None:
    """More than max_backlog at once is fine if the client reads: the socket takes it, or most of it."""

    async def main() -> None:
        async with served(Rig(max_backlog=30_000)) as clients:
            client = await clients.dial()
            for number in range(20):
                clients.server.mass_inform("news", number, "x" * 5000)
            assert len(await client.unasked()) == 20

    run(host, main)


def test_replies_are_not_counted(host: Host) -> None:
    """What a client has asked for may be longer than max_backlog: replies, their informs, and first
    reports.
    """

    class Verbose(Rig):
        async def request_recite(self, ctx: RequestContext, count: int) -> None:
            """Send many informs, one by one."""
            for number in range(count):
                ctx.inform(number, "x" * 10_000)

        async def request_reply(self, ctx: RequestContext) -> str:
            """Reply with much."""
            return "x" * 5_000_000

    async def main() -> None:
        server = Verbose(max_backlog=32768)
        names = [f"many.{number:04}" for number in range(2000)]
        for name in names:
            server.sensors.add(Sensor(str, name, default="x" * 1000))
        async with served(server) as clients:
            client = await clients.dial()
            client.stop_reading()
            client.send(b"?recite[1] 1000\n?reply[2]\n?sensor-value[3]\n")
            client.send(b"?sensor-sampling[4] %b event\n" % ",".join(names).encode())
            await asyncio.sleep(0.1)
            client.read_on()
            assert len(await client.until(b"!recite[1] ok")) == 1001
            lines = await client.until(b"!sensor-value[3] ok")
            if not any(line.startswith(b"!sensor-sampling") for line in lines):
                lines += await client.until(b"!sensor-sampling[4] ok")
            starts = [line.split(b" ")[0] for line in lines]
            assert starts.count(b"!reply[2]") == 1
            assert starts.count(b"#sensor-value[3]") == 2006
            assert starts.count(b"#sensor-status") == 2000

    run(host, main)


def test_others_do_not_notice_a_slow_client(host: Host) -> None:
    """While one does not read, the rest gets everything at once."""

    async def main() -> None:
        async with served(Rig()) as clients:
            deaf = clients.dial_deaf()
            deaf.send(b"?sensor-sampling label auto\n")
            client = await clients.dial()
            await client.ask(b"?sensor-sampling label auto\n")
            for number in range(300):
                clients.server.set("label", f"{number}-" + "x" * 10_000)
                await turns(1)
                assert (await client.line()).split(b" ")[5].startswith(b"%d-" % number)
            deaf.close()

    run(host, main)
