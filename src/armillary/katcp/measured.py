"""Two groups of sensors that need only a function: one for values, one for rates of counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from .groups import mark
from .protocol.readings import SensorStatus
from .sensors import Sensor

__all__ = ["Clock", "Counters", "RateGroup", "ValueGroup"]

Counters: TypeAlias = Sequence[tuple[float, float] | None]
"""For each sensor, a counter and what it is counted against; None for what is gone."""


class Clock(Protocol):
    """The part of the module `time` that is used.

    Not the run's clock: the kernel's counters, which are read in worker threads, follow this one.
    """

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never set."""
        ...


class ValueGroup:
    """Sensors set to what a function returns.

    Args:
        sensors: the sensors.
        measure: returns their values, in their order, with None for what is gone: that sensor becomes
            INACTIVE and keeps its value. Called in a worker thread; may raise OSError.
        clock: the module `time`, or what stands for it.
    """

    def __init__(
        self,
        sensors: Iterable[Sensor[Any]],
        measure: Callable[[], Sequence[float | None]],
        clock: Clock = time,
    ) -> None:
        self.sensors = tuple(sensors)
        self._measure = measure
        self._clock = clock

    def read(self) -> tuple[float, Sequence[float | None]]:
        """The time and the values. Raises what the function raises."""
        timestamp = self._clock.time()
        return timestamp, self._measure()

    def apply(self, measured: tuple[float, Sequence[float | None]], /) -> None:
        """Set the sensors to what `read` returned."""
        timestamp, values = measured
        for sensor, value in zip(self.sensors, values, strict=True):
            if value is None:
                mark([sensor], SensorStatus.INACTIVE, timestamp)
            else:
                sensor.set_value(value, timestamp=timestamp)


class RateGroup:
    """Sensors set to how fast counters grow.

    A rate needs two readings: after the first, after what was gone is back, and after a counter was reset,
    its sensor stays as it is for one round.

    Args:
        sensors: the sensors.
        measure: returns two counters for each sensor, in their order, with None for what is gone: that
            sensor becomes INACTIVE and keeps its value. The rate is the growth of the first counter for
            each unit by which the second grew. Called in a worker thread; may raise OSError.
        clock: the module `time`, or what stands for it. For timestamps only.
        factor: multiplies all rates.
        largest: rates above this one are set to it.
    """

    def __init__(
        self,
        sensors: Iterable[Sensor[float]],
        measure: Callable[[], Counters],
        clock: Clock = time,
        *,
        factor: float = 1.0,
        largest: float = float("inf"),
    ) -> None:
        self.sensors = tuple(sensors)
        self._measure = measure
        self._clock = clock
        self._factor = factor
        self._largest = largest
        self._previous: Counters = [None] * len(self.sensors)

    def read(self) -> tuple[float, Counters]:
        """The time and the counters. Raises what the function raises."""
        timestamp = self._clock.time()
        return timestamp, self._measure()

    def apply(self, measured: tuple[float, Counters], /) -> None:
        """Set the sensors to the rates since the last call."""
        timestamp, counters = measured
        for sensor, new, old in zip(self.sensors, counters, self._previous, strict=True):
            if new is None:
                mark([sensor], SensorStatus.INACTIVE, timestamp)
            elif old is not None and new[0] >= old[0] and new[1] > old[1]:
                rate = self._factor * (new[0] - old[0]) / (new[1] - old[1])
                sensor.set_value(min(rate, self._largest), timestamp=timestamp)
        self._previous = counters
