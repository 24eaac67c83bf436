"""Watchers: who is told of a server's sensors, and the one that mirrors them."""

from __future__ import annotations

import asyncio
import enum
import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from armillary.katcp.mirror import find_enum
from armillary.katcp.protocol.mirroring import SensorDescription, SyncState
from armillary.katcp.protocol.readings import SensorStatus
from armillary.katcp.protocol.values import TYPE_BY_NAME

from ._connecting import AsHost
from .core import TYPES, get_decoder
from .sensor import Sensor, SensorSet

if TYPE_CHECKING:
    from .client import Client

__all__ = ["AbstractSensorWatcher", "SensorWatcher", "SyncState", "WatcherAdapter", "adapter_for"]

# Made enums remembered by a watcher. With fewer than are in use, equal lists of values get different types.
_ENUMS = 1024


class AbstractSensorWatcher:
    """Somebody who wants to be told of a server's sensors. Override what you want to hear.

    Do not override ``__eq__`` or ``__hash__``. What a method raises is logged, and disturbs nobody else.
    """

    def filter(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> bool:
        """Whether to be told of this sensor at all."""
        return True

    def sensor_added(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> None:
        """The server has this sensor, or its description has changed.

        Args:
            name: the sensor's name.
            description: what it is, for people.
            units: the unit of its value.
            type_name: the KATCP name of its type.
            args: for a discrete sensor, its values.
        """

    def sensor_removed(self, name: str) -> None:
        """The server does not have it any more, or `filter` does not want what it has become."""

    def sensor_updated(self, name: str, value: bytes, status: SensorStatus, timestamp: float) -> None:
        """It has this reading now."""

    def batch_start(self) -> None:
        """Additions, removals and updates that came together follow."""

    def batch_stop(self) -> None:
        """They are complete."""

    def state_updated(self, state: SyncState) -> None:
        """How this watcher stands to the server has changed. It begins with ``DISCONNECTED``."""


class SensorWatcher(AbstractSensorWatcher):
    """Mirrors a server's sensors in a `SensorSet`.

    Args:
        client: whose logger is used.
        enum_types: enums for discrete sensors: one with the same values in the same order is used. For others
            an enum is made.
    """

    SENSOR_TYPES: ClassVar[dict[str, type]] = {**TYPE_BY_NAME, "discrete": enum.Enum}

    def __init__(self, client: Client, enum_types: Sequence[type[enum.Enum]] = ()) -> None:
        self.sensors = SensorSet()
        """The mirrored sensors."""
        self.synced = asyncio.Event()
        """Set while every wanted sensor is known and subscribed."""
        self.logger = client.logger
        self._names: dict[str, tuple[str, ...]] = {}
        self._find_enum = functools.lru_cache(_ENUMS)(functools.partial(find_enum, TYPES, tuple(enum_types)))

    def rewrite_name(self, name: str) -> str | Sequence[str]:
        """The name, or the several names, that a sensor has here."""
        return name

    def make_type(self, type_name: str, parameters: Sequence[bytes]) -> type:
        """The class of a sensor's values.

        Raises:
            KeyError: the type has an unknown name.
            ValueError: a discrete type has no values.
        """
        if type_name == "discrete":
            return self._find_enum(tuple(parameters))
        return self.SENSOR_TYPES[type_name]

    def set_sensor_value(
        self, sensor: Sensor[Any], value: Any, status: SensorStatus, timestamp: float
    ) -> None:
        """Give a mirrored sensor a reading that came."""
        sensor.set_value(value, status, timestamp)

    def sensor_added(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> None:
        try:
            sensor_type = self.make_type(type_name, args)
        except (KeyError, ValueError):
            self.logger.warning("Type %s is not recognised, skipping sensor %s", type_name, name)
            self._drop(name)
            return
        for local in self._names_of(name):
            self.sensors.add(Sensor(sensor_type, local, description, units))

    def sensor_removed(self, name: str) -> None:
        self._drop(name)

    def sensor_updated(self, name: str, value: bytes, status: SensorStatus, timestamp: float) -> None:
        for local in self._names.get(name) or self._names_of(name):
            sensor: Any = self.sensors.get(local)
            if sensor is None:
                self.logger.warning("Received update for unknown sensor %s", name)
                continue
            try:
                decoded = get_decoder(sensor.stype)(value)
            except ValueError as error:
                self.logger.warning(
                    "Sensor %s: value %r does not match type %s: %s", name, value, sensor.type_name, error
                )
                return
            self.set_sensor_value(sensor, decoded, status, timestamp)

    def _names_of(self, name: str) -> tuple[str, ...]:
        """The names of a sensor here; asked for once."""
        names = self._names.get(name)
        if names is None:
            renamed = self.rewrite_name(name)
            names = self._names[name] = (renamed,) if isinstance(renamed, str) else tuple(renamed)
        return names

    def _drop(self, name: str) -> None:
        for local in self._names_of(name):
            self.sensors.pop(local, None)
        del self._names[name]

    def state_updated(self, state: SyncState) -> None:
        if state is SyncState.SYNCED:
            self.synced.set()
        else:
            self.synced.clear()
        if state is SyncState.DISCONNECTED:
            now = time.time()
            for sensor in tuple(self.sensors.values()):
                sensor.set_value(sensor.value, SensorStatus.UNREACHABLE, now)


class WatcherAdapter:
    """A watcher as armillary's mirroring knows them.

    Args:
        watcher: who is told.
    """

    def __init__(self, watcher: AbstractSensorWatcher) -> None:
        self._watcher = watcher
        # Nothing is called as often: straight through.
        self.sensor_updated: Callable[[str, bytes, SensorStatus, float], None] = watcher.sensor_updated

    def filter(self, sensor: SensorDescription) -> bool:
        name, description, units, type_name, parameters = sensor
        with AsHost():
            return self._watcher.filter(name, description, units, type_name, *parameters)

    def strategy(self, sensor: SensorDescription) -> str:
        return "auto"

    def sensor_added(self, sensor: SensorDescription) -> None:
        name, description, units, type_name, parameters = sensor
        with AsHost():
            self._watcher.sensor_added(name, description, units, type_name, *parameters)

    def sensor_removed(self, name: str) -> None:
        with AsHost():
            self._watcher.sensor_removed(name)

    def state_updated(self, state: SyncState) -> None:
        with AsHost():
            self._watcher.state_updated(state)


class _BatchAdapter(WatcherAdapter):
    """The same for a watcher that wants to know which changes came together."""

    def batch_start(self) -> None:
        with AsHost():
            self._watcher.batch_start()

    def batch_stop(self) -> None:
        with AsHost():
            self._watcher.batch_stop()


def adapter_for(watcher: AbstractSensorWatcher) -> WatcherAdapter:
    """A watcher that does not override them is spared the calls around each batch."""
    kind = type(watcher)
    hears_batches = (
        kind.batch_start is not AbstractSensorWatcher.batch_start
        or kind.batch_stop is not AbstractSensorWatcher.batch_stop
    )
    return _BatchAdapter(watcher) if hears_batches else WatcherAdapter(watcher)
