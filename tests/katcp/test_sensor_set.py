from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from armillary.katcp import sensors
from armillary.katcp.sensor_set import SensorSet

T = TypeVar("T")
Event = tuple[str, "sensors.Sensor[Any]", bool]


class Sensor(sensors.Sensor[T]):
    """A sensor whose clock stands still."""

    @staticmethod
    def now() -> float:
        return 0.0


class Log:
    """Remembers what a set reported, and whether the sensor was in the set at that moment."""

    def __init__(self, sensor_set: SensorSet) -> None:
        self.events: list[Event] = []
        self._set = sensor_set
        sensor_set.add_add_callback(self.added)
        sensor_set.add_remove_callback(self.removed)

    def added(self, sensor: sensors.Sensor[Any]) -> None:
        self.events.append(("added", sensor, sensor in self._set))

    def removed(self, sensor: sensors.Sensor[Any]) -> None:
        self.events.append(("removed", sensor, sensor in self._set))

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events


# Two sensors of each name, so that one can be in the place of the other.
POOL = [Sensor(int, name) for name in "abc" for _ in range(2)]
chosen = st.sampled_from(POOL)
names = st.sampled_from(["a", "b", "c", "absent"])


class SensorSetAgainstDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.set = SensorSet()
        self.log = Log(self.set)
        self.model: dict[str, Sensor[int]] = {}

    def model_remove(self, name: str) -> list[Event]:
        return [("removed", self.model.pop(name), False)]

    @rule(sensor=chosen)
    def add(self, sensor: Sensor[int]) -> None:
        expected: list[Event] = []
        present = self.model.get(sensor.name)
        if present is not sensor:
            if present is not None:
                expected += self.model_remove(sensor.name)
            self.model[sensor.name] = sensor
            expected.append(("added", sensor, True))
        self.set.add(sensor)
        assert self.log.take() == expected

    @rule(sensor=chosen)
    def remove(self, sensor: Sensor[int]) -> None:
        if self.model.get(sensor.name) is sensor:
            self.set.remove(sensor)
            assert self.log.take() == self.model_remove(sensor.name)
        else:
            with pytest.raises(KeyError, match=sensor.name):
                self.set.remove(sensor)

    @rule(sensor=chosen)
    def discard(self, sensor: Sensor[int]) -> None:
        self.set.discard(sensor)
        if self.model.get(sensor.name) is sensor:
            assert self.log.take() == self.model_remove(sensor.name)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.model:
            del self.set[name]
            assert self.log.take() == self.model_remove(name)
        else:
            with pytest.raises(KeyError, match=name):
                del self.set[name]

    @rule(name=names)
    def pop(self, name: str) -> None:
        if name in self.model:
            assert self.set.pop(name) is self.model[name]
            assert self.log.take() == self.model_remove(name)
        else:
            with pytest.raises(KeyError, match=name):
                self.set.pop(name)

    @rule(name=names, default=st.sampled_from(["foo", None, 5]))
    def pop_with_default(self, name: str, default: object) -> None:
        assert self.set.pop(name, default) is self.model.get(name, default)
        if name in self.model:
            assert self.log.take() == self.model_remove(name)

    @rule()
    def popitem(self) -> None:
        if self.model:
            name = list(self.model)[-1]
            assert self.set.popitem() == (name, self.model[name])
            assert self.log.take() == self.model_remove(name)
        else:
            with pytest.raises(KeyError, match="empty"):
                self.set.popitem()

    @rule()
    def clear(self) -> None:
        self.set.clear()
        assert self.log.take() == [
            event for name in reversed(list(self.model)) for event in self.model_remove(name)
        ]

    @invariant()
    def nothing_else_was_reported(self) -> None:
        assert self.log.events == []

    @invariant()
    def it_reads_as_the_dict_does(self) -> None:
        assert len(self.set) == len(self.model)
        assert list(self.set) == list(self.set.keys()) == list(self.model)
        assert list(self.set.values()) == list(self.model.values())
        assert list(self.set.items()) == list(self.model.items())
        for name in ("a", "b", "c", "absent"):
            assert (name in self.set) == (name in self.model)
            assert self.set.get(name) is self.model.get(name)
            assert self.set.get(name=name, default=0) is self.model.get(name, 0)

    @invariant()
    def only_the_very_sensors_are_in_it(self) -> None:
        assert [sensor for sensor in POOL if sensor in self.set] == [
            sensor for sensor in POOL if self.model.get(sensor.name) is sensor
        ]


SensorSetAgainstDict.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class TestSensorSet(SensorSetAgainstDict.TestCase):  # type: ignore[misc, valid-type]
    """It reads as a dict in order of addition, changes as a set of objects, and reports every change once."""


def test_a_set_can_be_made_of_sensors() -> None:
    """They are added in order, later ones in the place of those of the same name."""
    first, second, third = Sensor(int, "a"), Sensor(int, "b"), Sensor(int, "a")
    assert list(SensorSet([first, second, third]).values()) == [second, third]


def test_an_absent_name_is_a_key_error() -> None:
    """Indexing names what was not there."""
    with pytest.raises(KeyError, match="x"):
        SensorSet()["x"]


def test_callbacks_run_in_order_until_they_are_removed() -> None:
    """Each kind is called first in, first out, and removing one leaves the others."""
    sensor_set = SensorSet()
    calls: list[str] = []
    callbacks = {word: (lambda sensor, word=word: calls.append(word)) for word in "wxyz"}
    sensor_set.add_add_callback(callbacks["w"])
    sensor_set.add_add_callback(callbacks["x"])
    sensor_set.add_remove_callback(callbacks["y"])
    sensor_set.add_remove_callback(callbacks["z"])
    sensor = Sensor(int, "a")
    sensor_set.add(sensor)
    sensor_set.remove(sensor)
    assert calls == ["w", "x", "y", "z"]
    sensor_set.remove_add_callback(callbacks["w"])
    sensor_set.remove_remove_callback(callbacks["y"])
    sensor_set.add(sensor)
    sensor_set.remove(sensor)
    assert calls[4:] == ["x", "z"]


def test_removing_an_unknown_callback_is_a_value_error() -> None:
    """A callback of one kind is unknown as one of the other kind."""
    sensor_set = SensorSet()
    sensor_set.add_add_callback(print)
    with pytest.raises(ValueError, match="not in list"):
        sensor_set.remove_remove_callback(print)
    sensor_set.remove_add_callback(print)
    with pytest.raises(ValueError, match="not in list"):
        sensor_set.remove_add_callback(print)


def test_a_callback_may_remove_itself() -> None:
    """The others are still called."""
    sensor_set = SensorSet()
    calls: list[str] = []

    def once(sensor: sensors.Sensor[Any]) -> None:
        calls.append("once")
        sensor_set.remove_add_callback(once)

    sensor_set.add_add_callback(once)
    sensor_set.add_add_callback(lambda sensor: calls.append("always"))
    sensor_set.add(Sensor(int, "a"))
    sensor_set.add(Sensor(int, "b"))
    assert calls == ["once", "always", "always"]


def test_a_copy_is_a_dict_of_its_own() -> None:
    """It holds the sensors of its moment, and is not a set."""
    sensor = Sensor(int, "a")
    sensor_set = SensorSet([sensor])
    copy = sensor_set.copy()
    sensor_set.clear()
    assert type(copy) is dict
    assert copy == {"a": sensor}


def test_a_set_is_a_mapping_without_a_hash() -> None:
    """It can be passed where a mapping is read, and is no key, for it changes."""
    sensor_set = SensorSet()
    assert isinstance(sensor_set, Mapping)
    with pytest.raises(TypeError, match="unhashable"):
        hash(sensor_set)
    sensor_set.add(Sensor(int, "a"))
    assert repr(sensor_set) == "<SensorSet of 1 sensors>"
