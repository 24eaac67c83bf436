from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio
import trio.testing

from armillary.katcp import Sensor, SensorStatus
from armillary.katcp.groups import Above, Below, mark, sample_group
from armillary.katcp.measured import RateGroup, ValueGroup


class Thermometer:
    """A group of one sensor; it tells who waits for it when it was applied."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.sensor = Sensor(float, "temperature", units="degC")
        self.sensors = (self.sensor,)
        self.read = read
        self.applied_at: list[float] = []
        self.on_apply: Callable[[], None] = lambda: None

    def apply(self, measured: float) -> None:
        self.sensor.set_value(measured)
        self.applied_at.append(trio.current_time())
        self.on_apply()


class FakeClock:
    """Stands for the module `time`; it moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def failing(*numbers: int) -> Callable[[], float]:
    """A reader that fails with these error numbers, one for each call; 0 reads 5.0, as do all later calls."""
    remaining = list(numbers)

    def read() -> float:
        number = remaining.pop(0) if remaining else 0
        if number:
            raise OSError(number, "broken")
        return 5.0

    return read


async def rounds(group: Thermometer, number: int, period: float = 1.0) -> None:
    """Sample `group` until it was applied `number` times.

    Nobody sleeps beside it: the clock would jump to the end of that sleep while a worker thread reads.
    """
    async with trio.open_nursery() as nursery:

        def count() -> None:
            if len(group.applied_at) >= number:
                nursery.cancel_scope.cancel()

        group.on_apply = count
        nursery.start_soon(partial(sample_group, group, period=period))


async def test_grid(autojump_clock: trio.testing.MockClock) -> None:
    """A group is read at once and then once per period."""
    group = Thermometer(lambda: 21.5)
    start = trio.current_time()
    await rounds(group, 4, period=0.5)
    assert [at - start for at in group.applied_at] == pytest.approx([0, 0.5, 1.0, 1.5])
    assert group.sensor.value == 21.5
    assert group.sensor.status is SensorStatus.NOMINAL


async def test_no_burst(autojump_clock: trio.testing.MockClock) -> None:
    """After a round that took several periods, the next one is on the grid, and none is made up for."""
    group = Thermometer(lambda: 21.5)
    start = trio.current_time()

    def take_long() -> None:
        if len(group.applied_at) == 2:
            autojump_clock.jump(3.25)
        if len(group.applied_at) == 4:
            scope.cancel()

    group.on_apply = take_long
    with trio.CancelScope() as scope:
        await sample_group(group, period=1.0)
    assert [at - start for at in group.applied_at] == pytest.approx([0, 1, 5, 6])


async def test_started_after_first_reading(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever started the sampling finds the first reading there."""
    group = Thermometer(lambda: 21.5)
    async with trio.open_nursery() as nursery:
        await nursery.start(sample_group, group)
        assert group.sensor.value == 21.5
        nursery.cancel_scope.cancel()


async def test_started_in_spite_of_failure(autojump_clock: trio.testing.MockClock) -> None:
    """A group that cannot be read at first has started all the same, as FAILURE."""
    group = Thermometer(failing(*[errno.EIO] * 100))
    async with trio.open_nursery() as nursery:
        await nursery.start(sample_group, group)
        assert group.sensor.status is SensorStatus.FAILURE
        nursery.cancel_scope.cancel()


async def test_failure_keeps_value_and_recovers(autojump_clock: trio.testing.MockClock) -> None:
    """A read that fails makes the sensors FAILURE with their last values, and the next good one ends that."""
    group = Thermometer(failing(0, errno.EIO, 0))
    seen = []
    group.sensor.attach(lambda sensor, reading: seen.append((reading.value, reading.status)))
    await rounds(group, 2)
    assert seen == [(5.0, SensorStatus.NOMINAL), (5.0, SensorStatus.FAILURE), (5.0, SensorStatus.NOMINAL)]


async def test_failure_logged_per_change(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is logged when it begins, when its cause changes and when it ends, not every period."""
    caplog.set_level(logging.INFO, "armillary.katcp.groups")
    eio, enodev = errno.EIO, errno.ENODEV
    await rounds(Thermometer(failing(eio, eio, eio, enodev, enodev, 0)), 3)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"Cannot read temperature: [Errno {eio}] broken"),
        ("WARNING", f"Cannot read temperature: [Errno {enodev}] broken"),
        ("INFO", "Can read temperature again"),
    ]


async def test_other_errors_end_sampling(autojump_clock: trio.testing.MockClock) -> None:
    """An error that is not an OSError is a mistake in the group and comes out as itself."""

    def read() -> float:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        await sample_group(Thermometer(read))


async def test_cancel_while_read_hangs(autojump_clock: trio.testing.MockClock) -> None:
    """Cancelling ends the sampling at once, even while a read hangs, and drops what that read returns."""
    hanging = threading.Event()
    release = threading.Event()
    ended = threading.Event()

    def read() -> float:
        hanging.set()
        release.wait()
        ended.set()
        return 99.0

    group = Thermometer(read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sample_group, group)
        await trio.to_thread.run_sync(hanging.wait)
        nursery.cancel_scope.cancel()
    assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(ended.wait)
    await trio.testing.wait_all_tasks_blocked()
    assert group.sensor.status is SensorStatus.UNKNOWN


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan"), float("inf")])
async def test_period_checked(autojump_clock: trio.testing.MockClock, period: float) -> None:
    """A period that makes no sense is refused before anything is read."""
    with pytest.raises(ValueError, match="period must be a positive number of seconds"):
        await sample_group(Thermometer(lambda: 1.0), period=period)


@pytest.mark.parametrize(
    ("limits", "values", "statuses"),
    [
        (Above(10, 20), [10, 10.1, 20, 20.1], "nominal warn warn error"),
        (Below(20, 10), [20, 19.9, 10, 9.9], "nominal warn warn error"),
        (Above(warn=10), [10, 1e9], "nominal warn"),
        (Below(error=10), [10, -1e9], "nominal error"),
        (Above(), [-1e9, 1e9], "nominal nominal"),
        (Above(1, 2).scaled(4), [4, 5, 9], "nominal warn error"),
        (Above(warn=1).scaled(4), [4, 1e9], "nominal warn"),
    ],
)
def test_limits(limits: Above | Below, values: Sequence[float], statuses: str) -> None:
    """Limits themselves are still good; beyond them the status is what the limit says."""
    assert [limits.status(value).name.lower() for value in values] == statuses.split()


def test_limits_in_order() -> None:
    """Limits whose warning would come after the error are refused."""
    with pytest.raises(ValueError, match="expected warn <= error, got 3 and 2"):
        Above(3, 2)
    with pytest.raises(ValueError, match="expected warn >= error, got 2 and 3"):
        Below(2, 3)


def test_mark() -> None:
    """Marking changes the status and the time, not the value."""
    sensor = Sensor(int, "count", default=7)
    mark([sensor], SensorStatus.INACTIVE, 12.0)
    assert (sensor.value, sensor.status, sensor.timestamp) == (7, SensorStatus.INACTIVE, 12.0)


def test_values_gone_and_back() -> None:
    """What is gone is INACTIVE with its last value, and back as soon as it is measured again."""
    values: list[float | None] = [1.0, 2.0]
    first, second = sensors = [Sensor(float, "first"), Sensor(float, "second")]
    clock = FakeClock()
    group = ValueGroup(sensors, lambda: list(values), clock)
    group.apply(group.read())
    values[0] = None
    clock.now += 1
    group.apply(group.read())
    assert (first.value, first.status, first.timestamp) == (1.0, SensorStatus.INACTIVE, 1001.0)
    assert (second.value, second.status, second.timestamp) == (2.0, SensorStatus.NOMINAL, 1001.0)
    values[0] = 3.0
    group.apply(group.read())
    assert (first.value, first.status) == (3.0, SensorStatus.NOMINAL)


def rate_after(*readings: tuple[float, float] | None, largest: float = float("inf")) -> tuple[float, str]:
    """Value and status of a rate sensor after these pairs of counters."""
    sensor = Sensor(float, "rate")
    remaining = list(readings)
    group = RateGroup([sensor], lambda: [remaining.pop(0)], FakeClock(), factor=8.0, largest=largest)
    while remaining:
        group.apply(group.read())
    return sensor.value, sensor.status.name.lower()


def test_rate() -> None:
    """A rate is unknown after one reading and the counters' growth after two."""
    assert rate_after((100, 10.0)) == (0.0, "unknown")
    assert rate_after((100, 10.0), (150, 12.0)) == (200.0, "nominal")


def test_rate_after_reset() -> None:
    """A counter that was reset makes no rate, least of all a negative one; the next round goes on from it."""
    assert rate_after((100, 10.0), (150, 12.0), (5, 13.0)) == (200.0, "nominal")
    assert rate_after((100, 10.0), (150, 12.0), (5, 13.0), (6, 14.0)) == (8.0, "nominal")


def test_rate_without_time() -> None:
    """Two readings at the same moment make no rate."""
    assert rate_after((100, 10.0), (150, 10.0)) == (0.0, "unknown")


def test_rate_gone_and_back() -> None:
    """What was gone needs two readings to have a rate again: nobody knows what happened in between."""
    assert rate_after((100, 10.0), (150, 12.0), None) == (200.0, "inactive")
    assert rate_after((100, 10.0), (150, 12.0), None, (900, 14.0)) == (200.0, "inactive")
    assert rate_after((100, 10.0), (150, 12.0), None, (900, 14.0), (901, 15.0)) == (8.0, "nominal")


def test_rate_bounded() -> None:
    """A rate that cannot be is the largest one that can."""
    assert rate_after((0, 0.0), (2, 1.0), largest=8.0) == (8.0, "nominal")
