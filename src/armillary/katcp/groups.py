"""Groups of sensors that are measured together, and the task that keeps them fresh."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import trio

from .protocol.readings import SensorStatus
from .sensors import Sensor

__all__ = ["Above", "Below", "GuardedGroup", "SensorGroup", "mark", "sample_group"]

M = TypeVar("M")

_logger = logging.getLogger(__name__)


class SensorGroup(Protocol[M]):
    """Sensors that one measurement sets.

    Measuring and setting are apart because measuring may block, so it runs in a worker thread, and sensors
    belong to the thread that runs trio.
    """

    @property
    def sensors(self) -> Sequence[Sensor[Any]]:
        """The sensors, always the same ones: add them to a device once."""
        ...

    def read(self) -> M:
        """Measure. May block, may run in any thread, touches no sensor and changes nothing in the group.

        The last point is for a read that was abandoned: it may end at any time, beside or after a newer one.

        Raises:
            OSError: nothing can be measured now.
        """
        ...

    def apply(self, measured: M, /) -> None:
        """Set the sensors to what `read` returned. Called in trio's thread."""
        ...


@dataclass(frozen=True, slots=True)
class Above:
    """Limits for a quantity that should be small, in its unit. Without a limit, that status is never given.

    Raises:
        ValueError: `warn` lies above `error`.
    """

    warn: float | None = None
    """Values above this one are WARN."""
    error: float | None = None
    """Values above this one are ERROR."""

    def __post_init__(self) -> None:
        if self.warn is not None and self.error is not None and not self.warn <= self.error:
            raise ValueError(f"expected warn <= error, got {self.warn} and {self.error}")

    def status(self, value: float) -> SensorStatus:
        """The status of `value`: fits a sensor's `status_func`."""
        if self.error is not None and value > self.error:
            return SensorStatus.ERROR
        if self.warn is not None and value > self.warn:
            return SensorStatus.WARN
        return SensorStatus.NOMINAL

    def scaled(self, factor: float) -> Above:
        """The same limits, each multiplied by a positive number."""
        return Above(
            None if self.warn is None else self.warn * factor,
            None if self.error is None else self.error * factor,
        )


@dataclass(frozen=True, slots=True)
class Below:
    """Limits for a quantity that should be large, in its unit. Without a limit, that status is never given.

    Raises:
        ValueError: `warn` lies below `error`.
    """

    warn: float | None = None
    """Values below this one are WARN."""
    error: float | None = None
    """Values below this one are ERROR."""

    def __post_init__(self) -> None:
        if self.warn is not None and self.error is not None and not self.warn >= self.error:
            raise ValueError(f"expected warn >= error, got {self.warn} and {self.error}")

    def status(self, value: float) -> SensorStatus:
        """The status of `value`: fits a sensor's `status_func`."""
        if self.error is not None and value < self.error:
            return SensorStatus.ERROR
        if self.warn is not None and value < self.warn:
            return SensorStatus.WARN
        return SensorStatus.NOMINAL


def mark(sensors: Iterable[Sensor[Any]], status: SensorStatus, timestamp: float | None = None) -> None:
    """Give sensors a status and keep their values.

    Args:
        sensors: which ones.
        status: their new status.
        timestamp: since when, in seconds since 1970-01-01 UTC; each sensor's own clock if None.
    """
    for sensor in sensors:
        sensor.set_value(sensor.value, status, timestamp)


class GuardedGroup(Generic[M]):
    """A group whose `read` never raises OSError: its sensors become FAILURE instead, and keep their values.

    A failure is logged when it begins, when its cause changes, and when it is over.
    """

    def __init__(self, group: SensorGroup[M]) -> None:
        self._group = group
        self._cause: tuple[type[OSError], int | None] | None = None

    @property
    def sensors(self) -> Sequence[Sensor[Any]]:
        """The sensors of the group inside."""
        return self._group.sensors

    def read(self) -> M | OSError:
        """What the group inside measured, or why it could not."""
        try:
            return self._group.read()
        except OSError as error:
            return error

    def apply(self, measured: M | OSError, /) -> None:
        """Set the sensors, or mark them FAILURE."""
        if isinstance(measured, OSError):
            # Not the message: it may hold something that differs every time.
            cause = (type(measured), measured.errno)
            if cause != self._cause:
                _logger.warning("Cannot read %s: %s", _title(self.sensors), measured)
            self._cause = cause
            mark(self.sensors, SensorStatus.FAILURE)
            return
        if self._cause is not None:
            _logger.info("Can read %s again", _title(self.sensors))
            self._cause = None
        self._group.apply(measured)


def _title(sensors: Sequence[Sensor[Any]]) -> str:
    first = sensors[0].name if sensors else "a group without sensors"
    return first if len(sensors) < 2 else f"{first} and {len(sensors) - 1} more"


async def sample_group(
    group: SensorGroup[M],
    *,
    period: float = 1.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a group's sensors fresh until cancelled.

    The group is read at once and then on a grid of times, `period` apart on the run's clock. A read that
    takes longer than a period makes the group miss the times that passed meanwhile, and no others. While a
    read hangs, the sensors keep their last readings, whose timestamps tell their age.

    `task_status` is told after the first round. Should that first read fail, it is told all the same, with
    the sensors FAILURE: a device need not wait for a broken disk.

    Cancellation takes effect at once and leaves the sensors as they are. A read in progress is abandoned
    to its worker thread, and what it returns is dropped.

    Args:
        group: what to read. An OSError from it makes its sensors FAILURE, and sampling goes on.
        period: seconds from one read to the next.
        task_status: for `trio.Nursery.start`.

    Raises:
        ValueError: the period is not a positive, finite number.
        Exception: what else the group raised, or an observer of one of its sensors.
    """
    if not (period > 0 and math.isfinite(period)):
        raise ValueError(f"period must be a positive number of seconds, got {period}")
    guarded = GuardedGroup(group)
    start = trio.current_time()
    ticks = 0
    while True:
        # Abandoned on cancel: a dead network disk blocks its reader for minutes or for ever, and must not
        # hold up the end of the program.
        guarded.apply(await trio.to_thread.run_sync(guarded.read, abandon_on_cancel=True))
        if ticks == 0:
            task_status.started()
        # Counted from the start, so that rounding does not add up.
        ticks = max(ticks + 1, math.ceil((trio.current_time() - start) / period))
        await trio.sleep_until(start + ticks * period)
