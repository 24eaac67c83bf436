"""Sampling strategies as pure machines (guidelines revision 5, section 4.6; table in `_SETTINGS`).

A `SamplingMachine` is told of readings and of the time, and says whether to report now and when it wants to
be woken. It never looks at a clock and sends nothing.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

from .readings import Reading, SensorStatus
from .values import enum_text

__all__ = ["Sampling", "SamplingMachine", "Strategy"]

# The shortest period anybody may ask for, in seconds. Shorter (or zero, or NaN) lets one request keep the
# server busy for ever; longer would refuse the fastest sampling that telescopes use.
SHORTEST_PERIOD = 0.001


class Strategy(enum.Enum):
    """When a subscriber is told of a sensor."""

    NONE = 0
    """Never."""
    AUTO = 1
    """As the sensor prefers; on every update where it has no preference."""
    PERIOD = 2
    """On a grid of times, whether it changed or not."""
    EVENT = 3
    """When the value or the status changes."""
    DIFFERENTIAL = 4
    """When the value moves by more than a difference, or the status changes."""
    EVENT_RATE = 5
    """As `EVENT`, but not sooner than SHORT and not later than LONG after the last report.

    LONG may be infinite: then nothing is reported that did not change.
    """
    DIFFERENTIAL_RATE = 6
    """As `DIFFERENTIAL`, but not sooner than SHORT and not later than LONG after the last report."""


_BY_TEXT = {enum_text(strategy): strategy for strategy in Strategy}
_PARAMETERS: dict[Strategy, tuple[str, ...]] = {
    Strategy.NONE: (),
    Strategy.AUTO: (),
    Strategy.PERIOD: ("period",),
    Strategy.EVENT: (),
    Strategy.DIFFERENTIAL: ("difference",),
    Strategy.EVENT_RATE: ("shortest", "longest"),
    Strategy.DIFFERENTIAL_RATE: ("difference", "shortest", "longest"),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """A strategy with its parameters, checked for one type of sensor."""

    strategy: Strategy
    """What was asked for, `AUTO` included."""
    parameters: tuple[float, ...] = ()
    """What was asked for, decoded."""
    always: bool = False
    """Report every update."""
    difference: float | None = None
    """Report a value that moved by more than this since the last report."""
    shortest: float = 0.0
    """Seconds between two reports at least."""
    longest: float | None = None
    """Seconds between two reports at most; None for no limit."""

    @property
    def words(self) -> tuple[object, ...]:
        """The strategy's wire name, then its parameters: what the reply to a query echoes."""
        return (enum_text(self.strategy), *self.parameters)

    @classmethod
    def parse(cls, sensor_type: type, name: bytes, parameters: list[bytes]) -> Sampling:
        """Decode and check what a client asked for.

        Args:
            sensor_type: the sensor's Python class: differences are decoded as it, and only exactly ``int``
                and ``float`` have them.
            name: the strategy's wire name.
            parameters: its parameters; times in seconds.

        Raises:
            ValueError: no such strategy, a wrong number of parameters, or one that makes no sense.
            TypeError: a differential strategy for a sensor that is neither integer nor float.
        """
        try:
            strategy = _BY_TEXT[name]
        except KeyError:
            raise ValueError(f"{name!r} is not a valid value for Strategy") from None
        names = _PARAMETERS[strategy]
        if len(parameters) != len(names):
            raise ValueError(f"expected {len(names)} strategy arguments, found {len(parameters)}")
        _check_type(sensor_type, strategy)
        values = {
            key: sensor_type(raw) if key == "difference" else float(raw)
            for key, raw in zip(names, parameters, strict=True)
        }
        return cls.of(strategy, tuple(values.values()))

    @classmethod
    def of(cls, strategy: Strategy, parameters: tuple[float, ...] = ()) -> Sampling:
        """Check parameters that are numbers already.

        Raises:
            ValueError: their number is wrong, or one of them makes no sense.
        """
        names = _PARAMETERS[strategy]
        if len(parameters) != len(names):
            raise ValueError(f"expected {len(names)} strategy arguments, found {len(parameters)}")
        values = dict(zip(names, parameters, strict=True))
        for key, value in values.items():
            if key == "longest" and value == math.inf:
                continue  # no upper bound
            try:
                finite = math.isfinite(value)
            except OverflowError:  # beyond a float's range: a difference between integers, but no time
                finite = key == "difference"
            if not finite:
                raise ValueError(f"{key} must be a finite number, not {value}")
        difference = values.get("difference")
        if difference is not None and difference < 0:
            raise ValueError(f"difference must not be negative, got {difference}")
        period = values.get("period")
        shortest = values.get("shortest", period or 0.0)
        longest = values.get("longest", period)
        if longest is not None:
            _check_period(longest)
            if not 0 <= shortest <= longest:
                raise ValueError(f"expected 0 <= shortest <= longest, got {shortest} and {longest}")
        always = strategy is Strategy.AUTO
        return cls(
            strategy, parameters, always, difference, shortest, None if longest == math.inf else longest
        )

    def as_auto(self, sensor_type: type) -> Sampling:
        """This strategy, standing for ``auto`` because a sensor of that type prefers it.

        Raises:
            TypeError: a differential strategy for a sensor that is neither integer nor float.
        """
        _check_type(sensor_type, self.strategy)
        if self.strategy is Strategy.NONE:
            return self
        return Sampling(Strategy.AUTO, (), self.always, self.difference, self.shortest, self.longest)


def _check_type(sensor_type: type, strategy: Strategy) -> None:
    if "difference" in _PARAMETERS[strategy] and sensor_type not in (int, float):
        raise TypeError("differential strategies only valid for integer and float sensors")


def _check_period(value: float) -> None:
    if value <= 0:
        raise ValueError(f"period must be positive, got {value}")
    if value < SHORTEST_PERIOD:
        raise ValueError(f"period must be at least {SHORTEST_PERIOD} s, got {value}")


class SamplingMachine:
    """One subscriber's view of one sensor.

    Every method that returns True asks for the reading just given to be sent. `wake_at` is when `wake` is
    to be called, on the same clock as ``now``, or None.

    Reports count from the time they were due, not from when they were sent, so rates do not drift; a late
    one never makes the next come early.
    """

    __slots__ = (
        "_always",
        "_difference",
        "_last_status",
        "_last_time",
        "_last_value",
        "_longest",
        "_pending",
        "_shortest",
        "wake_at",
    )

    def __init__(self, sampling: Sampling) -> None:
        self._always = sampling.always
        self._difference = sampling.difference
        self._shortest = sampling.shortest
        self._longest = sampling.longest
        self._last_time = 0.0
        self._last_value: Any = None
        self._last_status = SensorStatus.UNKNOWN
        self._pending = False
        self.wake_at: float | None = None

    @property
    def needs_time(self) -> bool:
        """Whether ``now`` matters to `update`; where it does not, anything may be passed."""
        return self._shortest > 0 or self._longest is not None

    def start(self, reading: Reading[Any], now: float) -> bool:
        """The subscription begins: its first report goes out at once."""
        return self._report(reading, now, now)

    def update(self, reading: Reading[Any], now: float) -> bool:
        """The sensor was set."""
        if self._pending or not self._changed(reading):
            return False
        if self._shortest == 0 or now >= self._last_time + self._shortest:
            return self._report(reading, now, now)
        self._pending = True
        self.wake_at = self._last_time + self._shortest
        return False

    def wake(self, reading: Reading[Any], now: float) -> bool:
        """`wake_at` has come, and `reading` is the sensor's latest."""
        if self.wake_at is None or now < self.wake_at:
            return False
        return self._report(reading, self.wake_at, now)

    def _changed(self, reading: Reading[Any]) -> bool:
        if self._always or reading.status != self._last_status:
            return True
        if self._difference is None:
            return bool(reading.value != self._last_value)
        # Not >: with a NaN it is a change. But an infinity that stays, whose difference is NaN too, is none.
        return (
            reading.value != self._last_value
            and not abs(reading.value - self._last_value) <= self._difference
        )

    def _report(self, reading: Reading[Any], at: float, now: float) -> bool:
        self._last_value = reading.value
        self._last_status = reading.status
        self._last_time = at
        self._pending = False
        self.wake_at = None if self._longest is None else max(now, at + self._longest)
        return True
