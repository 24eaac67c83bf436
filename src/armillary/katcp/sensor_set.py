"""A device's sensors by name, with callbacks when they come and go."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar, overload

from .sensors import Sensor

__all__ = ["SensorSet"]

T = TypeVar("T")
_MISSING = object()


class SensorSet(Mapping[str, Sensor[Any]]):
    """Sensors by name: read it as a mapping, change it as a set.

    Sensors keep the order in which they were added. ``in`` takes a name or a sensor; a sensor is in the
    set only if it is that very object.
    """

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __init__(self, sensors: Iterable[Sensor[Any]] = ()) -> None:
        self._sensors: dict[str, Sensor[Any]] = {}
        self._add_callbacks: list[Callable[[Sensor[Any]], Any]] = []
        self._remove_callbacks: list[Callable[[Sensor[Any]], Any]] = []
        for sensor in sensors:
            self.add(sensor)

    def add_add_callback(self, callback: Callable[[Sensor[Any]], Any]) -> None:
        """Call ``callback(sensor)`` after each addition."""
        self._add_callbacks.append(callback)

    def add_remove_callback(self, callback: Callable[[Sensor[Any]], Any]) -> None:
        """Call ``callback(sensor)`` after each removal."""
        self._remove_callbacks.append(callback)

    def remove_add_callback(self, callback: Callable[[Sensor[Any]], Any]) -> None:
        """Undo `add_add_callback`. Raises ValueError if it was not there."""
        self._add_callbacks.remove(callback)

    def remove_remove_callback(self, callback: Callable[[Sensor[Any]], Any]) -> None:
        """Undo `add_remove_callback`. Raises ValueError if it was not there."""
        self._remove_callbacks.remove(callback)

    def add(self, sensor: Sensor[Any]) -> None:
        """Add a sensor. One of the same name is removed first; adding what is there does nothing."""
        present = self._sensors.get(sensor.name)
        if present is sensor:
            return
        if present is not None:
            self._remove(present)
        self._sensors[sensor.name] = sensor
        for callback in tuple(self._add_callbacks):
            callback(sensor)

    def remove(self, sensor: Sensor[Any]) -> None:
        """Remove a sensor. Raises KeyError unless that very object is in the set."""
        if self._sensors.get(sensor.name) is not sensor:
            raise KeyError(sensor.name)
        self._remove(sensor)

    def discard(self, sensor: Sensor[Any]) -> None:
        """Remove a sensor if that very object is in the set."""
        if self._sensors.get(sensor.name) is sensor:
            self._remove(sensor)

    def clear(self) -> None:
        """Remove all sensors, the newest first."""
        while self._sensors:
            self.popitem()

    @overload
    def get(self, name: str) -> Sensor[Any] | None: ...

    @overload
    def get(self, name: str, default: T) -> Sensor[Any] | T: ...

    def get(self, name: str, default: Any = None) -> Any:
        """The sensor of that name, or `default`."""
        return self._sensors.get(name, default)

    @overload
    def pop(self, name: str) -> Sensor[Any]: ...

    @overload
    def pop(self, name: str, default: T) -> Sensor[Any] | T: ...

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Remove and return the sensor of that name, or return `default`; KeyError without one."""
        sensor = self._sensors.get(name)
        if sensor is None:
            if default is _MISSING:
                raise KeyError(name)
            return default
        self._remove(sensor)
        return sensor

    def popitem(self) -> tuple[str, Sensor[Any]]:
        """Remove and return the newest name and sensor. Raises KeyError if the set is empty."""
        if not self._sensors:
            raise KeyError("the sensor set is empty")
        name, sensor = next(reversed(self._sensors.items()))
        self._remove(sensor)
        return name, sensor

    def copy(self) -> dict[str, Sensor[Any]]:
        """The sensors as they are now, as a plain dict."""
        return dict(self._sensors)

    def keys(self) -> KeysView[str]:
        return self._sensors.keys()

    def values(self) -> ValuesView[Sensor[Any]]:
        return self._sensors.values()

    def items(self) -> ItemsView[str, Sensor[Any]]:
        return self._sensors.items()

    def _remove(self, sensor: Sensor[Any]) -> None:
        del self._sensors[sensor.name]
        for callback in tuple(self._remove_callbacks):
            callback(sensor)

    def __getitem__(self, name: str) -> Sensor[Any]:
        return self._sensors[name]

    def __delitem__(self, name: str) -> None:
        self._remove(self._sensors[name])

    def __contains__(self, item: object) -> bool:
        if isinstance(item, Sensor):
            return self._sensors.get(item.name) is item
        return item in self._sensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._sensors)

    def __len__(self) -> int:
        return len(self._sensors)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sensors>"
