"""`SensorSampler`: the strategies on an asyncio loop's clock, virtual and real."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import async_solipsism
import pytest

from aiokatcp.sensor import Reading, Sensor, SensorSampler

Status = Sensor.Status
Strategy = SensorSampler.Strategy

Reports = list[tuple[float, Any, str]]


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on a loop whose time passes only while everybody sleeps."""
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())


class Subscriber:
    """What one subscriber was told, in seconds since it subscribed."""

    def __init__(self, sensor: Sensor[Any]) -> None:
        self.sensor = sensor
        self.loop = asyncio.get_running_loop()
        self.start = self.loop.time()
        self.reports: Reports = []

    def __call__(self, sensor: Sensor[Any], reading: Reading[Any]) -> None:
        assert sensor is self.sensor
        assert reading is sensor.reading
        self.reports.append((self.loop.time() - self.start, reading.value, reading.status.name))

    @property
    def values(self) -> list[Any]:
        return [value for _, value, _ in self.reports]

    @property
    def told(self) -> list[tuple[float, Any]]:
        return [(at, value) for at, value, _ in self.reports]

    def take(self) -> Reports:
        reports, self.reports = self.reports, []
        return reports


@contextlib.contextmanager
def sampled(
    sensor: Sensor[Any], strategy: Strategy, *parameters: bytes
) -> Iterator[tuple[SensorSampler[Any], Subscriber]]:
    """A sampler that is closed in the end, and its subscriber."""
    subscriber = Subscriber(sensor)
    sampler = SensorSampler.factory(sensor, subscriber, subscriber.loop, strategy, *parameters)
    assert sampler is not None
    try:
        yield sampler, subscriber
    finally:
        sampler.close()


# What the factory makes of a request


@pytest.mark.parametrize(
    ("strategy", "parameters", "expected", "settings"),
    [
        (Strategy.AUTO, [], (), (None, 0.0, None, True, True)),
        (Strategy.EVENT, [], (), (None, 0.0, None, False, False)),
        (Strategy.PERIOD, [b"2"], (2.0,), (None, 2.0, 2.0, False, False)),
        (Strategy.DIFFERENTIAL, [b"3"], (3,), (3, 0.0, None, False, False)),
        (Strategy.EVENT_RATE, [b"1", b"2.5"], (1.0, 2.5), (None, 1.0, 2.5, False, False)),
        (Strategy.EVENT_RATE, [b"1", b"inf"], (1.0, math.inf), (None, 1.0, None, False, False)),
        (Strategy.DIFFERENTIAL_RATE, [b"3", b"1", b"2"], (3, 1.0, 2.0), (3, 1.0, 2.0, False, False)),
    ],
)
def test_what_a_sampler_tells_of_itself(
    host: Any,
    strategy: Strategy,
    parameters: list[bytes],
    expected: tuple[Any, ...],
    settings: tuple[Any, ...],
) -> None:
    """The strategy with its decoded parameters, what they mean, the sensor, the observer and the loop."""

    async def main() -> None:
        sensor = Sensor(int, "x")
        with sampled(sensor, strategy, *parameters) as (sampler, subscriber):
            assert isinstance(sampler, SensorSampler)
            assert sampler.parameters() == (strategy, *expected)
            assert settings == (
                sampler.difference,
                sampler.shortest,
                sampler.longest,
                sampler.always_update,
                sampler.is_auto,
            )
            assert sampler.sensor is sensor
            assert sampler.observer is subscriber
            assert sampler.loop is asyncio.get_running_loop()
        assert sampler.sensor is None
        assert sampler.observer is None
        assert sampler.parameters() == (strategy, *expected)

    host.run(main)


def test_no_strategy_is_no_sampler() -> None:
    """NONE is None, and nobody is told anything; so is AUTO for a sensor that prefers NONE."""

    async def main() -> None:
        for sensor, strategy in (
            (Sensor(int, "x"), Strategy.NONE),
            (Sensor(int, "x", auto_strategy=Strategy.NONE), Strategy.AUTO),
        ):
            subscriber = Subscriber(sensor)
            assert SensorSampler.factory(sensor, subscriber, subscriber.loop, strategy) is None
            assert subscriber.reports == []

    virtually(main)


def test_auto_is_what_the_sensor_prefers() -> None:
    """It behaves as the sensor's own strategy, and calls itself auto; strategies asked for by name stay."""

    async def main() -> None:
        sensor = Sensor(
            float,
            "x",
            auto_strategy=Strategy.DIFFERENTIAL_RATE,
            auto_strategy_parameters=(2.0, 1.0, math.inf),
        )
        with sampled(sensor, Strategy.AUTO) as (sampler, subscriber):
            assert sampler.parameters() == (Strategy.AUTO,)
            assert sampler.is_auto
            assert not sampler.always_update
            assert (sampler.difference, sampler.shortest, sampler.longest) == (2.0, 1.0, None)
            sensor.value = 1.0  # the status changes from unknown
            await asyncio.sleep(5)
            sensor.value = 2.5
            sensor.value = 3.5
            await asyncio.sleep(1000)
            assert subscriber.told == [(0.0, 0.0), (1.0, 1.0), (5.0, 3.5)]
        with sampled(sensor, Strategy.EVENT) as (sampler, _):
            assert sampler.parameters() == (Strategy.EVENT,)

    virtually(main)


@pytest.mark.parametrize(
    ("kind", "strategy", "parameters", "error", "text"),
    [
        (int, Strategy.PERIOD, [], ValueError, "expected 1 strategy arguments, found 0"),
        (int, Strategy.NONE, [b"1"], ValueError, "expected 0 strategy arguments, found 1"),
        (int, Strategy.PERIOD, [b"foo"], ValueError, "could not convert string to float: b'foo'"),
        (int, Strategy.PERIOD, [b"0"], ValueError, "period must be positive"),
        (int, Strategy.PERIOD, [b"nan"], ValueError, "period must be a finite number"),
        (int, Strategy.EVENT_RATE, [b"5", b"1"], ValueError, "shortest <= longest"),
        (int, Strategy.DIFFERENTIAL, [b"1.5"], ValueError, "invalid literal for int"),
        (float, Strategy.DIFFERENTIAL, [b"-1"], ValueError, "must not be negative"),
        (bool, Strategy.DIFFERENTIAL, [b"1"], TypeError, "only valid for integer and float sensors"),
        (str, Strategy.DIFFERENTIAL_RATE, [b"1", b"1", b"2"], TypeError, "only valid for integer and float"),
    ],
)
def test_a_request_that_makes_no_sense(
    kind: type[Any], strategy: Strategy, parameters: list[bytes], error: type[Exception], text: str
) -> None:
    """It is refused before anybody is told anything."""

    async def main() -> None:
        sensor = Sensor(kind, "x")
        subscriber = Subscriber(sensor)
        with pytest.raises(error, match=text):
            SensorSampler.factory(sensor, subscriber, subscriber.loop, strategy, *parameters)
        sensor.value = sensor.value
        assert subscriber.reports == []

    virtually(main)


def test_only_the_factory_makes_samplers() -> None:
    """The class is abstract."""
    with pytest.raises(TypeError, match="abstract"):
        SensorSampler(Sensor(int, "x"), None, None)  # type: ignore[abstract,arg-type]


# When a subscriber is told


def test_auto_tells_of_every_update() -> None:
    """The same value and status, too."""

    async def main() -> None:
        sensor = Sensor(int, "x", default=1)
        with sampled(sensor, Strategy.AUTO) as (_, subscriber):
            for value in (1, 1, 2):
                sensor.value = value
            assert subscriber.values == [1, 1, 1, 2]

    virtually(main)


def test_event_tells_of_changes() -> None:
    """Of the value or the status, not of the timestamp; NaN always differs."""

    async def main() -> None:
        sensor = Sensor(float, "x", default=1.0, initial_status=Status.NOMINAL)
        with sampled(sensor, Strategy.EVENT) as (_, subscriber):
            subscriber.take()
            sensor.set_value(1.0, Status.NOMINAL, 5)
            assert subscriber.take() == []
            sensor.set_value(1.0, Status.WARN)
            sensor.set_value(2.0, Status.WARN)
            assert [report[1:] for report in subscriber.take()] == [(1.0, "WARN"), (2.0, "WARN")]
            sensor.value = math.nan
            sensor.value = math.nan
            assert len(subscriber.take()) == 2

    virtually(main)


def test_differential_compares_with_the_last_report() -> None:
    """Strictly more than the difference, from what was told and not from what was set."""

    async def main() -> None:
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        with sampled(sensor, Strategy.DIFFERENTIAL, b"2") as (_, subscriber):
            for value in (1, 2, 3, 5, 6):
                sensor.value = value
            sensor.set_value(6, Status.WARN)
            assert subscriber.values == [0, 3, 6, 6]

    virtually(main)


def test_period_tells_on_its_grid() -> None:
    """Changed or not, and a change between two points of it shows at the next one."""

    async def main() -> None:
        sensor = Sensor(int, "x")
        with sampled(sensor, Strategy.PERIOD, b"2") as (_, subscriber):
            await asyncio.sleep(3)
            sensor.value = 1
            await asyncio.sleep(0.5)
            sensor.value = 2
            await asyncio.sleep(3)
            assert subscriber.told == [(0.0, 0), (2.0, 0), (4.0, 2), (6.0, 2)]

    virtually(main)


def test_event_rate_tells_neither_too_soon_nor_too_late() -> None:
    """A change within SHORT is told at its end with the latest value, changed back or not; LONG counts on."""

    async def main() -> None:
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        with sampled(sensor, Strategy.EVENT_RATE, b"1", b"10") as (_, subscriber):
            sensor.value = 1
            sensor.value = 2
            await asyncio.sleep(0.75)
            sensor.value = 3
            await asyncio.sleep(5.25)
            sensor.value = 4
            sensor.value = 5
            sensor.value = 4
            await asyncio.sleep(25)
            assert subscriber.told == [(0.0, 0), (1.0, 3), (6.0, 4), (7.0, 4), (17.0, 4), (27.0, 4)]

    virtually(main)


def test_what_is_told_again_has_its_old_timestamp() -> None:
    """LONG repeats the reading as it is."""

    async def main() -> None:
        sensor = Sensor(int, "x")
        sensor.set_value(1, timestamp=5.0)
        stamps: list[float] = []
        sampler = SensorSampler.factory(
            sensor,
            lambda sensor, reading: stamps.append(reading.timestamp),
            asyncio.get_running_loop(),
            Strategy.EVENT_RATE,
            b"1",
            b"2",
        )
        assert sampler is not None
        await asyncio.sleep(5)
        sampler.close()
        assert stamps == [5.0, 5.0, 5.0]

    virtually(main)


def test_differential_rate_is_both() -> None:
    """A small change waits for LONG, a large one for SHORT."""

    async def main() -> None:
        sensor = Sensor(float, "x", initial_status=Status.NOMINAL)
        with sampled(sensor, Strategy.DIFFERENTIAL_RATE, b"2.0", b"1", b"10") as (_, subscriber):
            sensor.value = 1.5
            await asyncio.sleep(10.5)
            sensor.value = 5.0
            await asyncio.sleep(1)
            assert subscriber.told == [(0.0, 0.0), (10.0, 1.5), (11.0, 5.0)]

    virtually(main)


class Clock:
    """The clock and the timers of a loop, run by hand."""

    def __init__(self, resolution: float = 0.0) -> None:
        self.now = 0.0
        self._resolution = resolution
        self._timers: list[Clock.Timer] = []

    class Timer:
        def __init__(self, at: float, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
            self.at, self.callback, self.args, self.cancelled = at, callback, args, False

        def cancel(self) -> None:
            self.cancelled = True

    @property
    def loop(self) -> Any:
        return self

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[..., None], *args: Any) -> Clock.Timer:
        timer = Clock.Timer(at, callback, args)
        self._timers.append(timer)
        return timer

    @property
    def timers(self) -> list[float]:
        return [timer.at for timer in self._timers if not timer.cancelled]

    def run_late(self, now: float) -> None:
        """Call what is due, having been away until now."""
        self.now = now
        while due := [t for t in self._timers if not t.cancelled and t.at <= now + self._resolution]:
            self._timers.remove(due[0])
            due[0].callback(*due[0].args)


def test_a_timer_that_comes_early_by_the_clocks_resolution_counts() -> None:
    """Loops call what is due within their clock's resolution; the report is not lost, and not late."""
    clock = Clock(resolution=1e-3)
    told: list[float] = []
    sampler = SensorSampler.factory(
        Sensor(int, "x"), lambda *_: told.append(clock.now), clock.loop, Strategy.PERIOD, b"10"
    )
    assert sampler is not None
    for now in (9.9995, 19.9995):
        clock.run_late(now)
    assert told == [0.0, 9.9995, 19.9995]
    assert clock.timers == [30.0]
    sampler.close()
    assert clock.timers == []


def test_a_loop_that_was_away_causes_no_burst() -> None:
    """However many reports were missed, two go out, and the next one is due a period after them."""
    clock = Clock()
    told: list[float] = []
    sampler = SensorSampler.factory(
        Sensor(int, "x"), lambda *_: told.append(clock.now), clock.loop, Strategy.PERIOD, b"10"
    )
    assert sampler is not None
    clock.run_late(1000.0)
    assert told == [0.0, 1000.0, 1000.0]
    assert clock.timers == [1010.0]
    sampler.close()


def test_without_times_there_are_no_timers() -> None:
    """Strategies without a rate never ask the loop for one, and there is never more than one."""
    clock = Clock()
    for strategy, parameters, timers in (
        (Strategy.AUTO, [], 0),
        (Strategy.EVENT, [], 0),
        (Strategy.DIFFERENTIAL, [b"0"], 0),
        (Strategy.EVENT_RATE, [b"0", b"inf"], 0),
        (Strategy.EVENT_RATE, [b"1", b"5"], 1),
    ):
        sensor = Sensor(float, "x")
        sampler = SensorSampler.factory(sensor, lambda *_: None, clock.loop, strategy, *parameters)
        assert sampler is not None
        for value in range(10):
            sensor.value = float(value)
        assert len(clock.timers) == timers
        sampler.close()
        assert clock.timers == []


def test_period_on_real_loops(host: Any) -> None:
    """Each report comes when it is due, or later by what the machine is busy with, and the grid is kept."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        enough = loop.create_future()

        def observe(sensor: Any, reading: Any) -> None:
            times.append(loop.time())
            if len(times) == 6:
                enough.set_result(None)

        sampler = SensorSampler.factory(Sensor(int, "x"), observe, loop, Strategy.PERIOD, b"0.02")
        assert sampler is not None
        async with asyncio.timeout(10):
            await enough
        sampler.close()
        # The coarser of the two loops' clocks counts milliseconds.
        assert all(at >= times[0] + number * 0.02 - 0.002 for number, at in enumerate(times))

    host.run(main)


def test_event_rate_on_real_loops(host: Any) -> None:
    """A held-back change comes by itself, and nothing comes after that."""

    async def main() -> None:
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        with sampled(sensor, Strategy.EVENT_RATE, b"0.02", b"inf") as (sampler, subscriber):
            for value in range(1, 5):
                sensor.value = value
            assert subscriber.values == [0]
            told = asyncio.Event()
            record = subscriber.__call__
            sampler.observer = lambda sensor, reading: (record(sensor, reading), told.set())[0]
            assert subscriber.values == [0, 4]
            told.clear()
            sensor.value = 5
            assert subscriber.values == [0, 4]
            async with asyncio.timeout(10):
                await told.wait()
            assert subscriber.values == [0, 4, 5]

    host.run(main)


# Who is told


def test_without_an_observer_nothing_happens() -> None:
    """Parameters can be checked first; whoever is set then is told at once, and so is who comes after him."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sensor = Sensor(int, "x")
        sampler = SensorSampler.factory(sensor, None, loop, Strategy.PERIOD, b"2")
        assert sampler is not None
        assert sampler.observer is None
        await asyncio.sleep(5)
        sensor.value = 3
        first, second = Subscriber(sensor), Subscriber(sensor)
        sampler.observer = first
        await asyncio.sleep(3)
        sampler.observer = second
        await asyncio.sleep(3)
        assert first.told == [(0.0, 3), (2.0, 3)]
        assert second.told == [(3.0, 3), (5.0, 3)]
        sampler.observer = None
        sensor.value = 4
        await asyncio.sleep(10)
        sampler.observer = first
        sampler.close()
        assert first.told[2:] == [(16.0, 4)]
        assert second.told[2:] == []

    virtually(main)


@pytest.mark.parametrize("parameters", [[b"1", b"10"], [b"0", b"inf"]])
def test_a_closed_sampler_tells_nobody(parameters: list[bytes]) -> None:
    """Neither of what it held back nor of what comes; closing again does nothing, and opening is refused."""

    async def main() -> None:
        sensor = Sensor(int, "x")
        with sampled(sensor, Strategy.EVENT_RATE, *parameters) as (sampler, subscriber):
            sensor.value = 1
            subscriber.take()
            sampler.close()
            sensor.value = 2
            await asyncio.sleep(100)
            assert subscriber.reports == []
            sampler.close()
            with pytest.raises(RuntimeError, match="closed"):
                sampler.observer = subscriber
            assert subscriber.reports == []

    virtually(main)


@pytest.mark.parametrize("how", ["set", "timer", "start"])
def test_an_observer_may_close_its_sampler(how: str) -> None:
    """From an update, from the timer, or from the very first report: that report is the last."""

    async def main() -> None:
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        told: list[int] = []
        loop = asyncio.get_running_loop()

        def observe(_: Any, reading: Any) -> None:
            told.append(reading.value)
            if how == "start" or len(told) == 2:
                sampler.close()

        sampler = SensorSampler.factory(sensor, None, loop, Strategy.EVENT_RATE, b"0.5", b"2")
        assert sampler is not None
        sampler.observer = observe
        await asyncio.sleep(1)
        if how == "set":
            sensor.value = 1
        await asyncio.sleep(10)
        sensor.value = 2
        await asyncio.sleep(10)
        assert sampler.sensor is None
        assert len(told) == (1 if how == "start" else 2)

    virtually(main)


def test_a_sampler_closed_by_another_subscriber_is_closed_at_once() -> None:
    """It is told nothing of the very update that closed it, and leaves no timer behind."""
    clock = Clock()
    sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
    told: list[int] = []
    closing = False

    def closes(_: Any, reading: Any) -> None:
        if closing:
            other.close()

    def observe(_: Any, reading: Any) -> None:
        told.append(reading.value)

    first = SensorSampler.factory(sensor, closes, clock.loop, Strategy.EVENT)
    other = SensorSampler.factory(sensor, observe, clock.loop, Strategy.EVENT_RATE, b"1", b"10")
    assert first is not None
    assert other is not None
    closing = True
    sensor.value = 1
    assert told == [0]
    assert clock.timers == []
    first.close()


def test_an_observer_that_fails_at_once_subscribes_nobody() -> None:
    """When the first report cannot be made, there is no sampler that nobody could close."""
    clock = Clock()
    sensor = Sensor(int, "x")
    told: list[int] = []

    def observe(_: Any, reading: Any) -> None:
        told.append(reading.value)
        raise LookupError

    with pytest.raises(LookupError):
        SensorSampler.factory(sensor, observe, clock.loop, Strategy.PERIOD, b"1")
    sensor.value = 1
    assert told == [0]
    assert clock.timers == []


def test_an_observers_error_does_not_stop_the_reports() -> None:
    """It comes out of the assignment, or goes to the loop if a timer was the cause; the next report comes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[Any] = []
        loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        told: list[Any] = []

        def observe(_: Any, reading: Any) -> None:
            told.append((loop.time() - start, reading.value))
            if len(told) > 1:
                raise LookupError(reading.value)

        start = loop.time()
        sampler = SensorSampler.factory(sensor, observe, loop, Strategy.EVENT_RATE, b"1", b"10")
        assert sampler is not None
        await asyncio.sleep(5)
        with pytest.raises(LookupError):
            sensor.value = 1
        assert errors == []
        await asyncio.sleep(25)
        sampler.close()
        assert told == [(0.0, 0), (5.0, 1), (15.0, 1), (25.0, 1)]
        assert [type(error) for error in errors] == [LookupError, LookupError]

    virtually(main)


def test_two_subscribers_of_one_sensor() -> None:
    """Each has its own strategy, and one that leaves takes nothing from the other."""

    async def main() -> None:
        sensor = Sensor(int, "x", initial_status=Status.NOMINAL)
        with (
            sampled(sensor, Strategy.EVENT) as (_, event),
            sampled(sensor, Strategy.DIFFERENTIAL, b"5") as (differential, rare),
        ):
            sensor.value = 3
            sensor.value = 6
            differential.close()
            sensor.value = 60
            assert (event.values, rare.values) == ([0, 3, 6, 60], [0, 6])

    virtually(main)


# Left behind


def test_a_sampler_left_behind_is_a_resource_warning() -> None:
    """When sensor and sampler are collected unclosed; the sensor alone keeps its sampler."""
    clock = Clock()
    sensor = Sensor(int, "x")
    sampler = SensorSampler.factory(sensor, lambda *_: None, clock.loop, Strategy.AUTO)
    alive = weakref.ref(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del sampler
        gc.collect()
    assert alive() is not None
    with pytest.warns(ResourceWarning, match="unclosed SensorSampler <"):  # noqa: PT031 - from either of them
        del sensor
        gc.collect()
    assert alive() is None


def test_a_closed_sampler_is_collected_silently() -> None:
    """And so is one whose parameters were refused."""
    clock = Clock()
    sensor = Sensor(int, "x")
    sampler = SensorSampler.factory(sensor, lambda *_: None, clock.loop, Strategy.PERIOD, b"1")
    assert sampler is not None
    sampler.close()
    with pytest.raises(ValueError, match="strategy arguments"):
        SensorSampler.factory(sensor, None, clock.loop, Strategy.PERIOD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del sampler, sensor
        gc.collect()
