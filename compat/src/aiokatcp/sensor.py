"""Sensors, aggregates of them, and the samplers that tell subscribers of their changes."""

from __future__ import annotations

import abc
import asyncio
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from armillary.katcp.aggregates import AggregateSensor as _NativeAggregate
from armillary.katcp.aggregates import SimpleAggregateSensor as _NativeSimpleAggregate
from armillary.katcp.protocol.readings import Reading, SensorStatus
from armillary.katcp.protocol.sampling import Sampling, SamplingMachine
from armillary.katcp.protocol.sampling import Strategy as _Strategy
from armillary.katcp.protocol.values import Timestamp, TypeRegistry
from armillary.katcp.sensor_set import SensorSet
from armillary.katcp.sensors import Sensor as _NativeSensor

from .core import TYPES, encode

__all__ = [
    "AggregateSensor",
    "ClassicObserver",
    "DeltaObserver",
    "Reading",
    "Sensor",
    "SensorSampler",
    "SensorSet",
    "SimpleAggregateSensor",
]

_T = TypeVar("_T")


class ClassicObserver(Protocol[_T]):
    """Told of a sensor's updates."""

    def __call__(self, sensor: Sensor[_T], reading: Reading[_T], /) -> None: ...


class DeltaObserver(Protocol[_T]):
    """Told of a sensor's updates, and of what it read before: known by the parameter's name."""

    def __call__(self, sensor: Sensor[_T], reading: Reading[_T], /, *, old_reading: Reading[_T]) -> None: ...


def _always_nominal(value: object) -> SensorStatus:
    return SensorStatus.NOMINAL


# Without __slots__: programs keep attributes of their own in sensors.
class Sensor(_NativeSensor[_T]):
    """armillary's sensor, whose type may be any that was registered.

    See `armillary.katcp.Sensor` for the parameters; the parameters of the automatic strategy may be any
    iterable.
    """

    Status: TypeAlias = SensorStatus

    def __init__(
        self,
        sensor_type: type[_T],
        name: str,
        description: str = "",
        units: str = "",
        default: _T | None = None,
        initial_status: SensorStatus = SensorStatus.UNKNOWN,
        *,
        status_func: Callable[[_T], SensorStatus] = _always_nominal,
        auto_strategy: _Strategy | None = None,
        auto_strategy_parameters: Iterable[Any] = (),
        types: TypeRegistry = TYPES,
    ) -> None:
        super().__init__(
            sensor_type,
            name,
            description,
            units,
            default,
            initial_status,
            status_func=status_func,
            auto_strategy=auto_strategy,
            auto_strategy_parameters=tuple(auto_strategy_parameters),
            types=types,
        )

    @staticmethod
    def now() -> float:
        return time.time()  # looked up here: tests of programs replace this module's time


class AggregateSensor(_NativeAggregate[_T], Sensor[_T]):
    """armillary's aggregate as a sensor of this package. Implement `update_aggregate`."""

    def __init__(
        self,
        target: SensorSet,
        sensor_type: type[_T],
        name: str,
        description: str = "",
        units: str = "",
        *,
        auto_strategy: _Strategy | None = None,
        auto_strategy_parameters: Iterable[Any] = (),
        types: TypeRegistry = TYPES,
    ) -> None:
        super().__init__(
            target,
            sensor_type,
            name,
            description,
            units,
            auto_strategy=auto_strategy,
            auto_strategy_parameters=tuple(auto_strategy_parameters),
            types=types,
        )


class SimpleAggregateSensor(_NativeSimpleAggregate[_T], AggregateSensor[_T]):
    """An aggregate kept up to date by adding and removing readings.

    Implement `aggregate_add`, `aggregate_remove` and `aggregate_compute`. At the start, readings are added
    if their status says that their value means something; later they are added and removed whatever their
    status. So look at ``reading.status.valid_value()`` in both methods, or else what was never added is
    taken away.
    """

    def _counts(self, reading: Reading[Any]) -> bool:
        # An aggregate of statuses, such as the number of sensors that failed, lives on these calls.
        return True


class SensorSampler(abc.ABC, Generic[_T]):
    """One subscription to a sensor. Made by `factory`, ended by `close`.

    Args:
        sensor: what is sampled.
        observer: called with the sensor and its reading at once, and whenever the subscriber is to be told.
            With None nothing happens until `observer` is set.
        loop: whose clock and timers are used.
        difference: tell of a value that moved by more than this.
        shortest: seconds between two calls at least.
        longest: seconds between two calls at most; None for no limit.
        always_update: tell of every update.
        is_auto: whether this stands for the ``auto`` strategy.
    """

    __slots__ = (
        "__weakref__",
        "_machine",
        "_observer",
        "_timer",
        "_timer_at",
        "always_update",
        "difference",
        "is_auto",
        "longest",
        "loop",
        "sensor",
        "shortest",
    )

    Strategy: TypeAlias = _Strategy

    def __init__(
        self,
        sensor: Sensor[_T],
        observer: Callable[[Sensor[_T], Reading[_T]], None] | None,
        loop: asyncio.AbstractEventLoop,
        difference: _T | None = None,
        shortest: float = 0.0,
        longest: float | None = None,
        *,
        always_update: bool = False,
        is_auto: bool = False,
    ) -> None:
        self.sensor: Sensor[_T] | None = sensor
        """What is sampled; None once this is closed."""
        self.loop = loop
        self.difference = difference
        self.shortest = Timestamp(shortest)
        self.longest = None if longest is None else Timestamp(longest)
        self.always_update = always_update
        self.is_auto = is_auto
        settings = Sampling(_Strategy.AUTO, (), always_update, cast(Any, difference), shortest, longest)
        self._machine = SamplingMachine(settings)  # which strategy has such settings is nothing to it
        self._observer: Callable[[Sensor[_T], Reading[_T]], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        try:
            self.observer = observer
        except BaseException:
            self.close()  # nobody else could
            raise

    @classmethod
    def factory(
        cls,
        sensor: Sensor[_T],
        observer: Callable[[Sensor[_T], Reading[_T]], None] | None,
        loop: asyncio.AbstractEventLoop,
        strategy: _Strategy,
        *args: bytes,
    ) -> SensorSampler[_T] | None:
        """Sample a sensor as a client asks for.

        Args:
            sensor: see the class.
            observer: see the class.
            loop: see the class.
            strategy: ``AUTO`` is what the sensor prefers.
            args: the strategy's parameters, as they came.

        Returns:
            The sampler, or None if the strategy is to send nothing.

        Raises:
            ValueError: the parameters make no sense.
            TypeError: the strategy does not fit the sensor's type.
        """
        sampling = sensor.sampling(encode(strategy), list(args))
        return None if sampling.strategy is _Strategy.NONE else cls.of(sensor, observer, loop, sampling)

    @staticmethod
    def of(
        sensor: Sensor[_T],
        observer: Callable[[Sensor[_T], Reading[_T]], None] | None,
        loop: asyncio.AbstractEventLoop,
        sampling: Sampling,
    ) -> SensorSampler[_T]:
        """Sample a sensor in a way that was found to make sense for it, and that is not ``none``."""
        return _Sampler(sensor, observer, loop, sampling)

    @property
    @abc.abstractmethod
    def sampling(self) -> Sampling:
        """What was asked for."""

    def parameters(self) -> tuple[Any, ...]:
        """The strategy that was asked for, then its parameters, decoded."""
        return (self.sampling.strategy, *self.sampling.parameters)

    @property
    def observer(self) -> Callable[[Sensor[_T], Reading[_T]], None] | None:
        """Who is told. Setting it tells the new one at once; None makes the sampler pause."""
        return self._observer

    @observer.setter
    def observer(self, observer: Callable[[Sensor[_T], Reading[_T]], None] | None) -> None:
        if self.sensor is None:
            raise RuntimeError("the sampler is closed")
        self._observer = observer
        if observer is None:
            self.sensor.detach(self._sensor_set)
            self._set_timer(None)
        else:
            self.sensor.attach_classic(self._sensor_set)
            self._machine.start(self.sensor.reading, self.loop.time())
            self._set_timer(self._machine.wake_at)
            observer(self.sensor, self.sensor.reading)

    def close(self) -> None:
        """Tell nobody any more. May be called again."""
        if self.sensor is not None:
            self.observer = None
            self.sensor = None

    def __del__(self) -> None:
        if getattr(self, "sensor", None) is not None:  # not there if the constructor failed
            warnings.warn(f"unclosed SensorSampler {self!r}", ResourceWarning, stacklevel=2, source=self)

    def _sensor_set(self, sensor: Any, reading: Reading[_T]) -> None:
        if self._observer is None:
            return  # closed by another observer of this update
        is_due = self._machine.update(reading, self.loop.time())
        # The timer first: the observer may close this sampler, and it may raise.
        self._set_timer(self._machine.wake_at)
        if is_due:
            self._observer(sensor, reading)

    def _wake(self, at: float) -> None:
        self._timer = self._timer_at = None
        assert self.sensor is not None  # closing cancels the timer
        assert self._observer is not None  # so does pausing
        reading = self.sensor.reading
        # The loop may call early by its clock's resolution, which the machine would take for too early.
        is_due = self._machine.wake(reading, max(at, self.loop.time()))
        self._set_timer(self._machine.wake_at)
        if is_due:
            self._observer(self.sensor, reading)

    def _set_timer(self, at: float | None) -> None:
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self.loop.call_at(at, self._wake, at)
        self._timer_at = at


class _Sampler(SensorSampler[_T]):
    """What `SensorSampler.factory` makes: one that knows what it was asked for."""

    __slots__ = ("_sampling",)

    def __init__(
        self,
        sensor: Sensor[_T],
        observer: Callable[[Sensor[_T], Reading[_T]], None] | None,
        loop: asyncio.AbstractEventLoop,
        sampling: Sampling,
    ) -> None:
        self._sampling = sampling
        super().__init__(
            sensor,
            observer,
            loop,
            cast(Any, sampling.difference),
            sampling.shortest,
            sampling.longest,
            always_update=sampling.always,
            is_auto=sampling.strategy is _Strategy.AUTO,
        )

    @property
    def sampling(self) -> Sampling:
        return self._sampling
