"""Sensors computed from other sensors of a set."""

from __future__ import annotations

import abc
import weakref
from typing import Any, TypeVar

from .protocol.readings import Reading, SensorStatus
from .protocol.sampling import Strategy
from .protocol.values import STANDARD_TYPES, TypeRegistry
from .sensor_set import SensorSet
from .sensors import Sensor

__all__ = ["AggregateSensor", "SimpleAggregateSensor"]

T = TypeVar("T")


class AggregateSensor(Sensor[T], abc.ABC):
    """A sensor whose reading follows the sensors of a set.

    Implement `update_aggregate`. The set and its sensors hold the aggregate weakly: it can be collected
    while they live, and a removed sensor can be collected while the aggregate lives.

    Args:
        target: the set to follow. The aggregate may itself be in it: it never follows itself.
        sensor_type: as for `Sensor`.
        name: as for `Sensor`.
        description: as for `Sensor`.
        units: as for `Sensor`.
        auto_strategy: as for `Sensor`.
        auto_strategy_parameters: as for `Sensor`.
        types: as for `Sensor`.
    """

    __slots__ = ("_link", "target")

    def __init__(
        self,
        target: SensorSet,
        sensor_type: type[T],
        name: str,
        description: str = "",
        units: str = "",
        *,
        auto_strategy: Strategy | None = None,
        auto_strategy_parameters: tuple[float, ...] = (),
        types: TypeRegistry = STANDARD_TYPES,
    ) -> None:
        super().__init__(
            sensor_type,
            name,
            description,
            units,
            auto_strategy=auto_strategy,
            auto_strategy_parameters=auto_strategy_parameters,
            types=types,
        )
        self.target = target
        self._link = _Link(self, target)
        for sensor in target.values():
            if self.filter_aggregate(sensor):
                sensor.attach(self._link.child_changed)
        self._update(None, None, None)

    @abc.abstractmethod
    def update_aggregate(
        self,
        updated_sensor: Sensor[Any] | None,
        reading: Reading[Any] | None,
        old_reading: Reading[Any] | None,
    ) -> Reading[T] | None:
        """Compute the reading; None keeps the present one.

        Called with ``(None, None, None)`` from the constructor, ``(sensor, reading, None)`` when a sensor
        is added, ``(sensor, None, reading)`` when one is removed, ``(sensor, new, old)`` when one is set.
        The returned reading is set with `set_value`: its status and timestamp as they are, its value as
        what the sensor's type makes of it.
        """

    def filter_aggregate(self, sensor: Sensor[Any]) -> bool:
        """Whether to follow `sensor`: all but itself. The answer must never change for one sensor."""
        return sensor is not self

    def _update(
        self,
        updated_sensor: Sensor[Any] | None,
        reading: Reading[Any] | None,
        old_reading: Reading[Any] | None,
    ) -> None:
        updated = self.update_aggregate(updated_sensor, reading, old_reading)
        if updated is not None and updated is not self.reading:
            self.set_value(updated.value, updated.status, updated.timestamp)

    def _sensor_added(self, sensor: Sensor[Any]) -> None:
        if self.filter_aggregate(sensor):
            sensor.attach(self._link.child_changed)
            self._update(sensor, sensor.reading, None)

    def _sensor_removed(self, sensor: Sensor[Any]) -> None:
        if self.filter_aggregate(sensor):
            sensor.detach(self._link.child_changed)
            self._update(sensor, None, sensor.reading)


class _Link:
    """What the target and its sensors hold of an aggregate: callbacks that end with it."""

    def __init__(self, aggregate: AggregateSensor[Any], target: SensorSet) -> None:
        self._aggregate = weakref.ref(aggregate)
        # One bound method, not a new one each time: detach() finds it by identity and equality alike.
        self.child_changed = self._child_changed
        target.add_add_callback(self._child_added)
        target.add_remove_callback(self._child_removed)
        weakref.finalize(aggregate, self._unhook, weakref.ref(target)).atexit = False

    def _unhook(self, target: weakref.ref[SensorSet]) -> None:
        alive = target()
        if alive is not None:
            alive.remove_add_callback(self._child_added)
            alive.remove_remove_callback(self._child_removed)
            for sensor in alive.values():
                sensor.detach(self.child_changed)

    def _child_added(self, sensor: Sensor[Any]) -> None:
        aggregate = self._aggregate()
        if aggregate is not None:
            aggregate._sensor_added(sensor)

    def _child_removed(self, sensor: Sensor[Any]) -> None:
        aggregate = self._aggregate()
        if aggregate is not None:
            aggregate._sensor_removed(sensor)

    def _child_changed(
        self, sensor: Sensor[Any], reading: Reading[Any], *, old_reading: Reading[Any]
    ) -> None:
        aggregate = self._aggregate()
        if aggregate is not None:
            aggregate._update(sensor, reading, old_reading)


class SimpleAggregateSensor(AggregateSensor[T]):
    """An aggregate kept up to date by adding and removing readings.

    Implement `aggregate_add`, `aggregate_remove` and `aggregate_compute`. What they work on must exist
    before ``super().__init__`` is called.

    Only readings whose status says that their value means something are added, and only what was added is
    removed, so neither method needs to look at the status.
    """

    __slots__ = ()

    @abc.abstractmethod
    def aggregate_add(self, sensor: Sensor[Any], reading: Reading[Any]) -> bool:
        """Count a reading in. Return whether the aggregate may have changed."""

    @abc.abstractmethod
    def aggregate_remove(self, sensor: Sensor[Any], reading: Reading[Any]) -> bool:
        """Count a reading out. Return whether the aggregate may have changed."""

    @abc.abstractmethod
    def aggregate_compute(self) -> tuple[SensorStatus, T]:
        """The status and value of what is counted in now."""

    def _counts(self, reading: Reading[Any]) -> bool:
        """Whether a reading that comes or goes after the start is counted."""
        return reading.status.valid_value()

    def update_aggregate(
        self,
        updated_sensor: Sensor[Any] | None,
        reading: Reading[Any] | None,
        old_reading: Reading[Any] | None,
    ) -> Reading[T] | None:
        changed = False
        if updated_sensor is None:
            for sensor in self.target.values():
                if self.filter_aggregate(sensor) and sensor.status.valid_value():
                    self.aggregate_add(sensor, sensor.reading)
            changed = True
        else:
            if old_reading is not None and self._counts(old_reading):
                changed |= self.aggregate_remove(updated_sensor, old_reading)
            if reading is not None and self._counts(reading):
                changed |= self.aggregate_add(updated_sensor, reading)
        if not changed:
            return None
        status, value = self.aggregate_compute()
        timestamp = reading.timestamp if reading is not None and old_reading is not None else self.now()
        # A child's late reading, or a clock set back, must not turn the aggregate's time back.
        return Reading(max(timestamp, self.reading.timestamp), status, value)
