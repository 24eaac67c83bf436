from __future__ import annotations

import ctypes
import errno
import sys
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing

from armillary.katcp import Sensor, SensorStatus
from armillary.katcp import adjtimex as binding
from armillary.katcp.clock import ClockGroup, ClockState, TimeSyncUpdater
from armillary.katcp.groups import Above, sample_group

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has adjtimex")

Reader = Callable[[], tuple[int, binding.Timex]]


def kernel(
    state: int = binding.TIME_OK,
    *,
    maxerror: int = 1500,
    esterror: int = 250,
    status: int = 0,
    fraction: int = 0,
) -> Reader:
    """A reader to whom the kernel says this, at 1700000000 s."""
    timex = binding.Timex(maxerror=maxerror, esterror=esterror, status=status)
    timex.time.tv_sec = 1_700_000_000
    timex.time.tv_usec = fraction
    return lambda: (state, timex)


def missing() -> tuple[int, binding.Timex]:
    raise NotImplementedError("no adjtimex here")


def refused() -> tuple[int, binding.Timex]:
    raise PermissionError(errno.EPERM, "no")


def updated(group: ClockGroup) -> ClockGroup:
    group.apply(group.read())
    return group


def test_layout() -> None:
    """The structure has the size that the kernel's has."""
    assert ctypes.sizeof(binding.Timex) == (208 if ctypes.sizeof(ctypes.c_long) == 8 else 128)


@linux_only
def test_real_binding() -> None:
    """The kernel's time field is now: the structure is laid out as the kernel lays it out."""
    state, timex = binding.get_adjtimex()
    assert binding.TIME_OK <= state <= binding.TIME_ERROR
    fraction = timex.time.tv_usec * (1e-9 if timex.status & binding.STA_NANO else 1e-6)
    assert abs(timex.time.tv_sec + fraction - time.time()) < 60
    assert timex.maxerror >= 0
    assert timex.tick > 0


@linux_only
def test_refusal_is_an_os_error() -> None:
    """What the kernel refuses is an OSError with its error number: here, a tick that no clock has."""
    with pytest.raises(OSError, match=r".") as caught:
        binding.adjtimex(binding.Timex(modes=binding.ADJ_TICK, tick=1))
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


def test_off_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off Linux, asking the kernel raises NotImplementedError."""
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(NotImplementedError, match="not available on sunos5"):
        binding.get_adjtimex()


def test_readings() -> None:
    """The errors are in seconds, the state is the kernel's."""
    group = updated(ClockGroup("time.", read=kernel(binding.TIME_OK, maxerror=1500, esterror=250)))
    assert [sensor.name for sensor in group.sensors] == ["time.state", "time.maxerror", "time.esterror"]
    assert [sensor.units for sensor in group.sensors] == ["", "s", "s"]
    assert group.state.value is ClockState.OK
    assert group.maxerror.value == pytest.approx(0.0015)
    assert group.esterror.value == pytest.approx(0.00025)
    assert all(sensor.status is SensorStatus.NOMINAL for sensor in group.sensors)


@pytest.mark.parametrize(("status", "fraction"), [(0, 250_000), (binding.STA_NANO, 250_000_000)])
def test_timestamp(status: int, fraction: int) -> None:
    """The timestamps are the kernel's, whether it counts micro- or nanoseconds."""
    group = updated(ClockGroup(read=kernel(status=status, fraction=fraction)))
    assert [sensor.timestamp for sensor in group.sensors] == pytest.approx(
        [1_700_000_000.25] * 3, rel=0, abs=1e-6
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ClockState.OK, SensorStatus.NOMINAL),
        (ClockState.INS, SensorStatus.WARN),
        (ClockState.DEL, SensorStatus.WARN),
        (ClockState.OOP, SensorStatus.WARN),
        (ClockState.WAIT, SensorStatus.NOMINAL),
        (ClockState.ERROR, SensorStatus.ERROR),
    ],
)
def test_state_status(state: ClockState, status: SensorStatus) -> None:
    """A leap second to come is a warning, a clock that is not synchronised an error."""
    group = updated(ClockGroup(read=kernel(state.value)))
    assert (group.state.value, group.state.status) == (state, status)


def test_thresholds() -> None:
    """Errors beyond their limits are WARN or ERROR, and the limits are the caller's to choose."""
    group = updated(
        ClockGroup(
            maxerror=Above(warn=0.001, error=0.01),
            esterror=Above(warn=1e-6, error=1e-4),
            read=kernel(maxerror=1500, esterror=250),
        )
    )
    assert group.maxerror.status is SensorStatus.WARN
    assert group.esterror.status is SensorStatus.ERROR


def test_never_synchronised() -> None:
    """What the kernel says of a clock that nobody synchronises is ERROR with the default limits."""
    group = updated(ClockGroup(read=kernel(binding.TIME_ERROR, maxerror=16_000_000, esterror=16_000_000)))
    assert {sensor.status for sensor in group.sensors} == {SensorStatus.ERROR}
    assert group.maxerror.value == pytest.approx(16.0)


def test_missing_adjtimex() -> None:
    """Where there is no adjtimex, the sensors are INACTIVE and keep their values."""
    readers = [missing, kernel(maxerror=1500)]
    group = ClockGroup(read=lambda: readers.pop()())
    updated(updated(group))
    assert {sensor.status for sensor in group.sensors} == {SensorStatus.INACTIVE}
    assert group.state.value is ClockState.OK
    assert group.maxerror.value == pytest.approx(0.0015)


async def test_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Where the kernel refuses to tell, the sensors are FAILURE and sampling goes on."""
    group = ClockGroup(read=refused)
    async with trio.open_nursery() as nursery:
        await nursery.start(sample_group, group)
        assert {sensor.status for sensor in group.sensors} == {SensorStatus.FAILURE}
        nursery.cancel_scope.cancel()


@linux_only
async def test_real_clock(autojump_clock: trio.testing.MockClock) -> None:
    """On this machine, all of the kernel's clock can be read."""
    group = ClockGroup()
    async with trio.open_nursery() as nursery:
        await nursery.start(sample_group, group)
        assert all(sensor.status.valid_value() for sensor in group.sensors)
        assert abs(group.state.timestamp - time.time()) < 60
        nursery.cancel_scope.cancel()


def test_updater_some_keys() -> None:
    """An updater sets just the sensors it was given, with statuses of their own making."""
    sensor = Sensor(float, "worst", units="s", status_func=Above(warn=0.001).status)
    updater = TimeSyncUpdater({"maxerror": sensor}, read=kernel(maxerror=1500))
    updater.update()
    assert sensor.value == pytest.approx(0.0015)
    assert sensor.status is SensorStatus.WARN
    assert sensor.timestamp == 1_700_000_000.0


def test_updater_unknown_key() -> None:
    """A sensor under a key that means nothing is refused."""
    with pytest.raises(KeyError, match="Key 'foo' is not valid"):
        TimeSyncUpdater({"foo": Sensor(float, "foo")})
