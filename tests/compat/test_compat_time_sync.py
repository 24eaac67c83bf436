"""`time_sync` and `adjtimex`, as programs of the old API use them."""

from __future__ import annotations

import ctypes
import errno
import sys
import time
from typing import Any
from unittest import mock

import pytest

from aiokatcp import adjtimex
from aiokatcp.sensor import Reading, Sensor
from aiokatcp.time_sync import ClockState, TimeSyncUpdater

Status = Sensor.Status

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has adjtimex")


@pytest.fixture
def sensors() -> dict[str, Sensor[Any]]:
    return {
        "state": Sensor(ClockState, "state"),
        "maxerror": Sensor(float, "maxerror", units="s"),
        "esterror": Sensor(float, "esterror", units="s"),
    }


def kernel(state: int, timex: adjtimex.Timex) -> Any:
    """Let the kernel say this, as tests of programs do."""
    return mock.patch("aiokatcp.adjtimex.get_adjtimex", return_value=(state, timex))


def said(status: int = 0, fraction: int = 0) -> adjtimex.Timex:
    timex = adjtimex.Timex(maxerror=1500, esterror=250, status=status)
    timex.time.tv_sec = 1_700_000_000
    timex.time.tv_usec = fraction
    return timex


@pytest.mark.parametrize(
    ("status", "fraction"), [(0, 250_000), (adjtimex.STA_NANO, 250_000_000), (adjtimex.STA_PLL, 250_000)]
)
def test_what_the_kernel_says_becomes_readings(
    sensors: dict[str, Sensor[Any]], status: int, fraction: int
) -> None:
    """Microseconds become seconds, the state its enum, and the time the kernel's, whichever unit it is in."""
    updater = TimeSyncUpdater(sensors)
    with kernel(adjtimex.TIME_INS, said(status, fraction)):
        updater.update()
    at = pytest.approx(1_700_000_000.25)
    assert sensors["state"].reading == Reading(at, Status.NOMINAL, ClockState.INS)
    assert sensors["maxerror"].reading == Reading(at, Status.NOMINAL, pytest.approx(0.0015))
    assert sensors["esterror"].reading == Reading(at, Status.NOMINAL, pytest.approx(0.00025))


def test_the_sensors_judge_for_themselves() -> None:
    """Their own `status_func` gives the status, and any of the keys may be left out."""
    sensor = Sensor(float, "x", status_func=lambda value: Status.WARN if value > 0.001 else Status.NOMINAL)
    updater = TimeSyncUpdater(sensor_map={"maxerror": sensor})
    with kernel(adjtimex.TIME_OK, said()):
        updater.update()
    assert sensor.status is Status.WARN


def test_without_adjtimex_sensors_are_inactive(sensors: dict[str, Sensor[Any]]) -> None:
    """They keep their values."""
    updater = TimeSyncUpdater(sensors)
    with kernel(adjtimex.TIME_ERROR, said()):
        updater.update()
    with mock.patch("aiokatcp.adjtimex.get_adjtimex", side_effect=NotImplementedError):
        updater.update()
    assert [sensor.status for sensor in sensors.values()] == [Status.INACTIVE] * 3
    assert sensors["state"].value is ClockState.ERROR
    assert sensors["maxerror"].value == pytest.approx(0.0015)


def test_an_unknown_key_is_a_key_error() -> None:
    """It is found when the updater is made."""
    with pytest.raises(KeyError, match="Key 'foo' is not valid"):
        TimeSyncUpdater({"foo": Sensor(float, "foo")})


def test_states() -> None:
    """They are the kernel's numbers, under the same names."""
    names = ["OK", "INS", "DEL", "OOP", "WAIT", "ERROR"]
    assert [state.name for state in ClockState] == names
    assert [state.value for state in ClockState] == [getattr(adjtimex, f"TIME_{name}") for name in names]
    assert list(range(6)) == [state.value for state in ClockState]
    assert adjtimex.TIME_BAD == 5


@linux_only
def test_the_real_clock(sensors: dict[str, Sensor[Any]]) -> None:
    """What this computer's kernel says is current."""
    TimeSyncUpdater(sensors).update()
    for sensor in sensors.values():
        assert sensor.status is Status.NOMINAL
        assert abs(sensor.timestamp - time.time()) < 60


@linux_only
def test_asking_the_kernel() -> None:
    """`get_adjtimex` changes nothing and needs no privilege; `adjtimex` says why it is refused."""
    state, timex = adjtimex.get_adjtimex()
    assert adjtimex.TIME_OK <= state <= adjtimex.TIME_ERROR
    assert timex.tick > 0
    with pytest.raises(OSError, match=r".") as caught:
        adjtimex.adjtimex(adjtimex.Timex(modes=adjtimex.ADJ_TICK, tick=1))
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


def test_a_replaced_system_call_is_used() -> None:
    """`get_adjtimex` calls the `adjtimex` of its module, with nothing to change."""

    def fake(timex: adjtimex.Timex) -> int:
        assert timex.modes == 0
        timex.maxerror = 7
        return adjtimex.TIME_WAIT

    with mock.patch("aiokatcp.adjtimex.adjtimex", fake):
        state, timex = adjtimex.get_adjtimex()
    assert (state, timex.maxerror) == (adjtimex.TIME_WAIT, 7)


def test_structures_and_constants() -> None:
    """Fields have the kernel's names and layout, and the constants its values."""
    assert ctypes.sizeof(adjtimex.Timex) == (208 if ctypes.sizeof(ctypes.c_long) == 8 else 128)
    names = (
        "modes offset freq maxerror esterror status constant precision tolerance time tick ppsfreq jitter "
        "shift stabil jitcnt calcnt errcnt stbcnt tai"
    )
    assert [field[0] for field in adjtimex.Timex._fields_][:20] == names.split()
    assert [field[0] for field in adjtimex.Timeval._fields_] == ["tv_sec", "tv_usec"]
    assert (adjtimex.STA_UNSYNC, adjtimex.STA_NANO, adjtimex.STA_RONLY) == (0x40, 0x2000, 0xFF00)
    assert (adjtimex.ADJ_TICK, adjtimex.ADJ_OFFSET_SS_READ) == (0x4000, 0xA001)
