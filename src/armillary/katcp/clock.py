"""How well this computer's clock is synchronised, as sensors.

The kernel knows, whichever program (ntpd, chrony, systemd-timesyncd, ptp) steers it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .adjtimex import STA_NANO, Timex, get_adjtimex
from .groups import Above, mark
from .protocol.readings import SensorStatus
from .sensors import Sensor

__all__ = [
    "ESTERROR_LIMITS",
    "MAXERROR_LIMITS",
    "ClockGroup",
    "ClockReading",
    "ClockState",
    "TimeSyncUpdater",
]

# Seconds by which the clock can be wrong at worst. The kernel lets it grow by 0.5 ms per second from one
# correction to the next. Smaller: a healthy clock warns under systemd-timesyncd, which corrects every 34
# minutes and so lets it reach 1.02 s. Larger: a lost time server is noticed late; at 16 s the kernel itself
# gives the clock up.
MAXERROR_LIMITS = Above(warn=2.0, error=8.0)

# Seconds by which the clock is probably wrong. Smaller: a clock set over a busy internet line warns. Larger:
# times from two hosts no longer tell which of two events in the same second came first.
ESTERROR_LIMITS = Above(warn=0.1, error=1.0)


class ClockState(enum.Enum):
    """What the kernel says of its clock."""

    OK = 0
    """Synchronised."""
    INS = 1
    """Synchronised; a leap second will be inserted at the end of the day."""
    DEL = 2
    """Synchronised; a second will be left out at the end of the day."""
    OOP = 3
    """The leap second is being inserted now: this second's times occur twice."""
    WAIT = 4
    """The leap second is over."""
    ERROR = 5
    """Not synchronised."""


_STATE_STATUS = {
    ClockState.OK: SensorStatus.NOMINAL,
    # The clock is right, but an operator wants to know before the second comes.
    ClockState.INS: SensorStatus.WARN,
    ClockState.DEL: SensorStatus.WARN,
    ClockState.OOP: SensorStatus.WARN,
    ClockState.WAIT: SensorStatus.NOMINAL,
    ClockState.ERROR: SensorStatus.ERROR,
}


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the kernel said of its clock, at one moment."""

    timestamp: float
    """When, by that clock, in seconds since 1970-01-01 UTC."""
    state: ClockState
    maxerror: float
    """Seconds by which the clock can be wrong at worst."""
    esterror: float
    """Seconds by which the clock is probably wrong."""


class TimeSyncUpdater:
    """Sets sensors of yours from the kernel's view of its clock.

    Args:
        sensors: any of ``state`` (a sensor of `ClockState`), ``maxerror`` and ``esterror`` (of float,
            seconds). Their own `status_func` gives the statuses.
        read: asks the kernel; like `armillary.katcp.adjtimex.get_adjtimex`.

    Raises:
        KeyError: `sensors` has another key.
    """

    def __init__(
        self,
        sensors: Mapping[str, Sensor[Any]],
        *,
        read: Callable[[], tuple[int, Timex]] = get_adjtimex,
    ) -> None:
        for key in sensors:
            if key not in ("state", "maxerror", "esterror"):
                raise KeyError(f"Key {key!r} is not valid")
        self._sensors = dict(sensors)
        self._read = read

    def update(self) -> None:
        """Ask the kernel and set the sensors. Takes microseconds, so it may be called in trio's thread.

        Where there is no adjtimex, the sensors keep their values and become INACTIVE.

        Raises:
            OSError: the kernel refused; the sensors are unchanged.
        """
        self.apply(self.read())

    def read(self) -> ClockReading | None:
        """Ask the kernel; None where there is no adjtimex.

        Raises:
            OSError: the kernel refused.
        """
        try:
            state, timex = self._read()
        except NotImplementedError:
            return None
        fraction = timex.time.tv_usec * (1e-9 if timex.status & STA_NANO else 1e-6)
        return ClockReading(
            timex.time.tv_sec + fraction, ClockState(state), timex.maxerror * 1e-6, timex.esterror * 1e-6
        )

    def apply(self, measured: ClockReading | None, /) -> None:
        """Set the sensors to what `read` returned."""
        if measured is None:
            mark(self._sensors.values(), SensorStatus.INACTIVE)
            return
        for key, sensor in self._sensors.items():
            sensor.set_value(getattr(measured, key), timestamp=measured.timestamp)


class ClockGroup:
    """The synchronisation of this computer's clock: a group for `sample_group`.

    The sensors are ``state``, ``maxerror`` and ``esterror``, after the prefix. Their timestamps are the
    kernel's. Where there is no adjtimex (off Linux) they are INACTIVE.

    Args:
        prefix: goes before the sensors' names.
        maxerror: limits for the worst error, in seconds.
        esterror: limits for the probable error, in seconds.
        read: asks the kernel; like `armillary.katcp.adjtimex.get_adjtimex`.
    """

    def __init__(
        self,
        prefix: str = "clock.",
        *,
        maxerror: Above = MAXERROR_LIMITS,
        esterror: Above = ESTERROR_LIMITS,
        read: Callable[[], tuple[int, Timex]] = get_adjtimex,
    ) -> None:
        self.state: Sensor[ClockState] = Sensor(
            ClockState,
            f"{prefix}state",
            "Synchronisation of this host's clock, as the kernel sees it",
            status_func=_STATE_STATUS.__getitem__,
            default=ClockState.ERROR,  # not the first of them, OK, which nobody has said yet
        )
        self.maxerror: Sensor[float] = Sensor(
            float,
            f"{prefix}maxerror",
            "Largest possible error of this host's clock",
            "s",
            status_func=maxerror.status,
        )
        self.esterror: Sensor[float] = Sensor(
            float,
            f"{prefix}esterror",
            "Estimated error of this host's clock",
            "s",
            status_func=esterror.status,
        )
        self._updater = TimeSyncUpdater(
            {"state": self.state, "maxerror": self.maxerror, "esterror": self.esterror}, read=read
        )

    @property
    def sensors(self) -> Sequence[Sensor[Any]]:
        """State, worst error, probable error."""
        return (self.state, self.maxerror, self.esterror)

    def read(self) -> ClockReading | None:
        """Ask the kernel. Raises OSError if it refuses."""
        return self._updater.read()

    def apply(self, measured: ClockReading | None, /) -> None:
        """Set the sensors to what `read` returned."""
        self._updater.apply(measured)
