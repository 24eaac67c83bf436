"""Sensors, sets of them and aggregates, as programs of the old API use them."""

from __future__ import annotations

import enum
import gc
import time
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest import mock

import pytest

import aiokatcp.sensor
from aiokatcp.core import Address, Timestamp, decode, encode, register_type
from aiokatcp.sensor import (
    AggregateSensor,
    Reading,
    Sensor,
    SensorSampler,
    SensorSet,
    SimpleAggregateSensor,
)

NOW = 1_700_000_000.25
Status = Sensor.Status
Strategy = SensorSampler.Strategy


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, put where tests of programs put theirs."""
    monkeypatch.setattr(aiokatcp.sensor.time, "time", lambda: NOW)


class Colour(enum.Enum):
    RED = 1
    DARK_BLUE = 2


class Other(enum.Enum):
    RED = 1


class Count(int):
    pass


# Sensors


def test_a_new_sensor() -> None:
    """What it is made of, with all that is optional left out."""
    sensor = Sensor(int, "x")
    assert (sensor.stype, sensor.type_name, sensor.name) == (int, "integer", "x")
    assert (sensor.description, sensor.units, sensor.params) == ("", "", [])
    assert sensor.reading == Reading(NOW, Status.UNKNOWN, 0)
    assert (sensor.timestamp, sensor.status, sensor.value) == (NOW, Status.UNKNOWN, 0)
    assert (sensor.auto_strategy, sensor.auto_strategy_parameters) == (Strategy.AUTO, ())


def test_a_sensor_with_everything() -> None:
    """All parameters, those of the strategy from any iterable; the default is no set value."""
    judge = mock.Mock(return_value=Status.WARN)
    sensor = Sensor(
        float,
        "x",
        "what",
        "m",
        3,
        Status.NOMINAL,
        status_func=judge,
        auto_strategy=Strategy.EVENT_RATE,
        auto_strategy_parameters=iter([0.5, 2]),
    )
    assert (sensor.description, sensor.units) == ("what", "m")
    assert sensor.reading == Reading(NOW, Status.NOMINAL, 3.0)
    assert (sensor.auto_strategy, sensor.auto_strategy_parameters) == (Strategy.EVENT_RATE, (0.5, 2))
    assert sensor.status_func is judge
    judge.assert_not_called()
    sensor.value = Fraction(1, 2)
    judge.assert_called_once_with(0.5)
    assert sensor.reading == Reading(NOW, Status.WARN, 0.5)


def test_a_sensor_takes_attributes() -> None:
    """Programs keep what they know of a sensor in it."""
    sensor = Sensor(int, "x")
    sensor.owner = "me"  # type: ignore[attr-defined]
    assert vars(sensor)["owner"] == "me"


def test_discrete_sensors_tell_their_values() -> None:
    """`params` are the wire values in the order of definition."""
    assert Sensor(Colour, "x").params == [b"red", b"dark-blue"]
    assert Sensor(Colour, "x").value is Colour.RED


def test_setting() -> None:
    """Status and timestamp are those given, else the judge's and the clock's; 0 is a timestamp."""
    sensor = Sensor(float, "x")
    sensor.set_value(4, Status.ERROR, 12)
    assert sensor.reading == Reading(12, Status.ERROR, 4.0)
    sensor.set_value(5, timestamp=0)
    assert sensor.reading == Reading(0, Status.NOMINAL, 5.0)
    sensor.value = 6
    assert sensor.reading == Reading(NOW, Status.NOMINAL, 6.0)


@pytest.mark.parametrize("attribute", ["reading", "status", "timestamp"])
def test_only_the_value_is_assigned(attribute: str) -> None:
    """What belongs to it is set with `set_value`."""
    with pytest.raises(AttributeError):
        setattr(Sensor(int, "x"), attribute, 1)


def by_default(kind: type[Any], value: Any) -> Any:
    return Sensor(kind, "x", default=value).value


def by_setting(kind: type[Any], value: Any) -> Any:
    sensor = Sensor(kind, "x")
    sensor.value = value
    return sensor.value


@pytest.mark.parametrize("put", [by_default, by_setting])
@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (float, 1234, 1234.0),
        (float, Fraction(1, 2), 0.5),
        (float, Timestamp(3), Timestamp(3)),
        (int, True, True),
        (Count, 4, Count(4)),
        (Timestamp, 4, Timestamp(4)),
        (Timestamp, 4.5, Timestamp(4.5)),
        (Colour, Colour.DARK_BLUE, Colour.DARK_BLUE),
        (bool, True, True),
    ],
)
def test_values_that_fit_are_coerced(put: Callable[..., Any], kind: type[Any], value: Any, kept: Any) -> None:
    """A number of a wider kind becomes one of the sensor's; what is of its type already stays as it is."""
    assert put(kind, value) == kept
    assert type(put(kind, value)) is type(kept)


@pytest.mark.parametrize("put", [by_default, by_setting])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 1.5),
        (int, "1"),
        (float, 1j),
        (float, "1.5"),
        (bool, 1),
        (bool, "1"),
        (str, b"x"),
        (bytes, "x"),
        (Timestamp, "4"),
        (Colour, Other.RED),
        (Colour, 1),
        (Address, "1.2.3.4"),
    ],
)
def test_values_that_do_not_fit_are_a_type_error(
    put: Callable[..., Any], kind: type[Any], value: Any
) -> None:
    """Nothing is guessed, and the error names both types."""
    with pytest.raises(TypeError, match=r"is not compatible with Sensor type .* with core type"):
        put(kind, value)


def test_a_refused_value_changes_nothing() -> None:
    """The old reading stays, and nobody is told."""
    sensor = Sensor(int, "x", default=5)
    observer = mock.Mock()
    sensor.attach(observer)
    with pytest.raises(TypeError):
        sensor.value = "6"
    assert sensor.value == 5
    observer.assert_not_called()


def test_a_sensor_of_a_registered_type() -> None:
    """What `register_type` added is a type of sensors at once."""

    class Pair:
        def __init__(self, text: str = "0,0") -> None:
            self.text = text

    with pytest.raises(TypeError, match="is not registered"):
        Sensor(Pair, "x")
    register_type(
        Pair,
        "pair",
        lambda pair: pair.text.encode(),
        lambda cls: lambda raw: cls(raw.decode()),
        lambda cls: cls("1,1"),
    )
    sensor = Sensor(Pair, "x")
    assert (sensor.type_name, sensor.value.text) == ("pair", "1,1")
    sensor.value = Pair("2,3")
    assert encode(sensor.value) == b"2,3"


def test_statuses() -> None:
    """Seven of them; three mean that the value means something."""
    assert [status.name for status in Status] == [
        "UNKNOWN",
        "NOMINAL",
        "WARN",
        "ERROR",
        "FAILURE",
        "UNREACHABLE",
        "INACTIVE",
    ]
    assert [int(status) for status in Status] == list(range(7))
    assert [status for status in Status if status.valid_value()] == [
        Status.NOMINAL,
        Status.WARN,
        Status.ERROR,
    ]
    assert (encode(Status.UNREACHABLE), decode(Status, b"warn")) == (b"unreachable", Status.WARN)


def test_readings() -> None:
    """Compared by value, and mutable."""
    reading = Reading(1.0, Status.WARN, 3)
    assert reading == Reading(1.0, Status.WARN, 3)
    reading.value = 4
    assert reading != Reading(1.0, Status.WARN, 3)


# Observers


def test_observers_are_known_by_their_parameters() -> None:
    """One with `old_reading`, wherever it stands, is told of the old reading; classic ones come first."""
    calls: list[Any] = []

    def keyword(sensor: Any, reading: Any, *, old_reading: Any) -> None:
        calls.append(("keyword", sensor, reading, old_reading))

    def positional(sensor: Any, reading: Any, old_reading: Any = None) -> None:
        calls.append(("positional", sensor, reading, old_reading))

    def classic(sensor: Any, reading: Any) -> None:
        calls.append(("classic", sensor, reading))

    sensor = Sensor(int, "x")
    for observer in (keyword, positional, classic, classic, keyword):
        sensor.attach(observer)
    old = sensor.reading
    sensor.value = 1
    new = sensor.reading
    assert calls[0] == ("classic", sensor, new)
    assert sorted(calls[1:], key=lambda call: call[0]) == [
        ("keyword", sensor, new, old),
        ("positional", sensor, new, old),
    ]
    calls.clear()
    for observer in (keyword, classic, classic):
        sensor.detach(observer)
    sensor.value = 2
    assert [call[0] for call in calls] == ["positional"]


def test_observers_may_leave_while_they_are_told() -> None:
    """One that detaches itself is not told again, and the others are."""
    sensor = Sensor(int, "x")
    calls = []

    def once(sensor: Any, reading: Any) -> None:
        calls.append("once")
        sensor.detach(once)

    sensor.attach(once)
    sensor.attach(lambda sensor, reading: calls.append("always"))
    sensor.value = 1
    sensor.value = 2
    assert sorted(calls) == ["always", "always", "once"]


def test_an_observers_error_comes_out_after_all_were_told() -> None:
    """The reading has changed by then."""
    sensor = Sensor(int, "x")
    later = mock.Mock()
    sensor.attach(mock.Mock(side_effect=KeyError("mine")))
    sensor.attach(later)
    with pytest.raises(KeyError, match="mine"):
        sensor.value = 1
    assert sensor.value == 1
    assert later.call_count == 1


def test_overridden_methods_are_used() -> None:
    """A subclass that overrides `set_value` or `notify` hears of every assignment, observed or not."""
    heard: list[Any] = []

    class Own(Sensor[int]):
        def set_value(self, value: Any, status: Any = None, timestamp: Any = None) -> None:
            heard.append(("set", value))
            super().set_value(value, status, timestamp)

        def notify(self, reading: Any, old_reading: Any) -> None:
            heard.append(("notify", reading.value, old_reading.value))
            super().notify(reading, old_reading)

    Own(int, "x").value = 3
    assert heard == [("set", 3), ("notify", 3, 0)]


# Sets


def test_a_set_is_a_mapping_with_the_verbs_of_a_set() -> None:
    """Replacing is removal, then addition; callbacks come after the change, and only for a change."""
    sensors = SensorSet()
    a, b, new_a = Sensor(int, "a"), Sensor(int, "b"), Sensor(int, "a")
    changes: list[Any] = []
    added = lambda sensor: changes.append(("+", sensor, sensors.get(sensor.name)))  # noqa: E731
    removed = lambda sensor: changes.append(("-", sensor, sensors.get(sensor.name)))  # noqa: E731
    sensors.add_add_callback(added)
    sensors.add_remove_callback(removed)
    for sensor in (a, b, b, new_a):
        sensors.add(sensor)
    assert changes == [("+", a, a), ("+", b, b), ("-", a, None), ("+", new_a, new_a)]
    assert (list(sensors), len(sensors), sensors["a"]) == (["b", "a"], 2, new_a)
    assert ("a" in sensors, new_a in sensors, a in sensors) == (True, True, False)
    assert list(sensors.keys()) == ["b", "a"]
    assert list(sensors.values()) == [b, new_a]
    assert list(sensors.items()) == [("b", b), ("a", new_a)]
    assert sensors.copy() == {"a": new_a, "b": b}
    with pytest.raises(KeyError):
        sensors.remove(a)
    sensors.discard(a)
    assert sensors.pop("a") is new_a
    del sensors["b"]
    assert [change[:2] for change in changes[4:]] == [("-", new_a), ("-", b)]
    sensors.remove_add_callback(added)
    sensors.remove_remove_callback(removed)
    sensors.add(a)
    sensors.clear()
    assert len(changes) == 6


@pytest.mark.parametrize("default", ["foo", None, 3])
def test_popping_what_is_not_there(default: Any) -> None:
    """The default is returned whatever it is; without one it is a KeyError."""
    sensors = SensorSet()
    assert sensors.pop("x", default) is default
    assert sensors.get("x", default) is default
    for fails in (lambda: sensors.pop("x"), sensors.popitem, lambda: sensors["x"]):
        with pytest.raises(KeyError):
            fails()
    with pytest.raises(TypeError, match="unhashable"):
        hash(sensors)


def test_popitem_takes_the_last() -> None:
    """Last in, first out."""
    sensors = SensorSet()
    a, b = Sensor(int, "a"), Sensor(int, "b")
    sensors.add(a)
    sensors.add(b)
    assert [sensors.popitem(), sensors.popitem()] == [("b", b), ("a", a)]


# Aggregates


class Told(AggregateSensor[int]):
    """Remembers what it was asked."""

    def __init__(self, target: SensorSet, **options: Any) -> None:
        self.calls: list[tuple[Any, Any, Any]] = []
        self.answer: Reading[Any] | None = Reading(5.0, Status.WARN, 7)
        super().__init__(target, int, "told", **options)

    def update_aggregate(self, updated_sensor: Any, reading: Any, old_reading: Any) -> Reading[int] | None:
        self.calls.append((updated_sensor, reading, old_reading))
        return self.answer


def test_an_aggregate_follows_its_set() -> None:
    """Creation, additions, changes and removals, and never itself; the reading is set as it was returned."""
    target = SensorSet()
    there, comes = Sensor(int, "there"), Sensor(int, "comes")
    target.add(there)
    told = Told(
        target, description="what", units="m", auto_strategy=Strategy.PERIOD, auto_strategy_parameters=[2]
    )
    assert isinstance(told, Sensor)
    assert told.target is target
    assert told.reading == Reading(5.0, Status.WARN, 7)
    assert (told.description, told.units, told.auto_strategy_parameters) == ("what", "m", (2,))
    target.add(told)
    target.add(comes)
    first = comes.reading
    comes.value = 4
    second = comes.reading
    target.remove(comes)
    comes.value = 5
    target.remove(told)
    assert told.calls == [
        (None, None, None),
        (comes, first, None),
        (comes, second, first),
        (comes, None, second),
    ]


def test_no_answer_keeps_the_reading() -> None:
    """None leaves the very object in place, and no observer is told."""
    target = SensorSet()
    child = Sensor(int, "a")
    target.add(child)
    told = Told(target)
    observer = mock.Mock()
    told.attach(observer)
    told.answer = None
    before = told.reading
    child.value = 1
    assert told.reading is before
    observer.assert_not_called()


def test_an_aggregates_value_is_coerced_as_any_other() -> None:
    """Its reading goes through `set_value`: what does not fit the sensor's type is a TypeError."""
    target = SensorSet()
    child = Sensor(int, "a")
    target.add(child)
    told = Told(target)
    told.answer = Reading(1.0, Status.NOMINAL, "x")
    with pytest.raises(TypeError, match="is not compatible"):
        child.value = 1


def test_a_filter_chooses_whom_to_follow() -> None:
    """Those left out are never heard."""

    class OnlyA(Told):
        def filter_aggregate(self, sensor: Any) -> bool:
            return bool(sensor.name == "a")

    target = SensorSet()
    a, b = Sensor(int, "a"), Sensor(int, "b")
    target.add(a)
    told = OnlyA(target)
    target.add(b)
    b.value = 1
    a.value = 1
    target.clear()
    assert [call[0] for call in told.calls] == [None, a, a]


def test_an_aggregate_and_its_children_do_not_keep_each_other_alive() -> None:
    """It is collected while they live, and a removed child while it lives."""
    target = SensorSet()
    child, leaves = Sensor(int, "a"), Sensor(int, "b")
    target.add(child)
    target.add(leaves)
    told = Told(target)
    told.answer = None
    gone = weakref.ref(leaves)
    target.remove(leaves)
    told.calls.clear()
    del leaves
    gc.collect()
    assert gone() is None
    aggregate = weakref.ref(told)
    del told
    gc.collect()
    assert aggregate() is None
    child.value = 1


@pytest.mark.parametrize("kind", [AggregateSensor, SimpleAggregateSensor])
def test_aggregates_are_abstract(kind: type[Any]) -> None:
    """What a subclass must define is named where it is made."""
    with pytest.raises(TypeError, match="abstract"):
        kind(SensorSet(), int, "x")


class Simple(SimpleAggregateSensor[int]):
    """Remembers what it was asked to count in and out."""

    def __init__(self, target: SensorSet) -> None:
        self.calls: list[Any] = []
        self.changed = True
        super().__init__(target, int, "simple")

    def aggregate_add(self, sensor: Any, reading: Any) -> bool:
        self.calls.append(("+", sensor.name, reading.value))
        return self.changed

    def aggregate_remove(self, sensor: Any, reading: Any) -> bool:
        self.calls.append(("-", sensor.name, reading.value))
        return self.changed

    def aggregate_compute(self) -> tuple[Sensor.Status, int]:
        self.calls.append("compute")
        return Status.ERROR, len(self.calls)

    def take(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls


def test_a_simple_aggregate_is_told_of_all_statuses_after_the_start() -> None:
    """Only at the start are readings left out whose value means nothing."""
    target = SensorSet()
    unknown, nominal = Sensor(int, "u"), Sensor(int, "n", default=1, initial_status=Status.NOMINAL)
    target.add(unknown)
    target.add(nominal)
    simple = Simple(target)
    assert simple.take() == [("+", "n", 1), "compute"]
    target.add(simple)
    assert simple.take() == []
    nominal.set_value(2, Status.FAILURE)
    assert simple.take() == [("-", "n", 1), ("+", "n", 2), "compute"]
    nominal.set_value(3, Status.FAILURE)
    assert simple.take() == [("-", "n", 2), ("+", "n", 3), "compute"]
    unknown.value = 4
    assert simple.take() == [("-", "u", 0), ("+", "u", 4), "compute"]
    comes = Sensor(int, "c")
    target.add(comes)
    assert simple.take() == [("+", "c", 0), "compute"]
    target.remove(comes)
    assert simple.take() == [("-", "c", 0), "compute"]
    assert simple.status is Status.ERROR


def test_an_update_that_changes_nothing_tells_nobody() -> None:
    """Both methods are called; if neither reports a change, the very reading stays."""
    target = SensorSet()
    child = Sensor(int, "a")
    target.add(child)
    simple = Simple(target)
    observer = mock.Mock()
    simple.attach(observer)
    simple.changed = False
    before, _ = simple.reading, simple.take()
    child.value = 4
    assert simple.take() == [("-", "a", 0), ("+", "a", 4)]
    assert simple.reading is before
    observer.assert_not_called()


class Sum(SimpleAggregateSensor[int]):
    """As the old library wants it: looks at the statuses itself."""

    def __init__(self, target: SensorSet) -> None:
        self.total = 0
        super().__init__(target, int, "sum")

    def aggregate_add(self, sensor: Any, reading: Any) -> bool:
        if reading.status.valid_value():
            self.total += reading.value
            return True
        return False

    def aggregate_remove(self, sensor: Any, reading: Any) -> bool:
        if reading.status.valid_value():
            self.total -= reading.value
            return True
        return False

    def aggregate_compute(self) -> tuple[Sensor.Status, int]:
        return Status.NOMINAL, self.total


class Failures(SimpleAggregateSensor[int]):
    """Counts children by a status whose value means nothing."""

    def __init__(self, target: SensorSet) -> None:
        self.failed = 0
        super().__init__(target, int, "failures")

    def aggregate_add(self, sensor: Any, reading: Any) -> bool:
        self.failed += reading.status is Status.FAILURE
        return True

    def aggregate_remove(self, sensor: Any, reading: Any) -> bool:
        self.failed -= reading.status is Status.FAILURE
        return True

    def aggregate_compute(self) -> tuple[Sensor.Status, int]:
        return Status.NOMINAL, self.failed


def test_aggregates_of_values_and_of_statuses_are_right() -> None:
    """One that looks at the statuses never loses count, and one that counts failures sees them."""
    target = SensorSet()
    a, b = Sensor(int, "a"), Sensor(int, "b", default=10, initial_status=Status.NOMINAL)
    target.add(a)
    target.add(b)
    total, failures = Sum(target), Failures(target)
    seen = [(total.value, failures.value)]
    for sensor, value, status in [
        (a, 5, Status.NOMINAL),
        (b, 99, Status.FAILURE),
        (a, 98, Status.FAILURE),
        (b, 20, Status.WARN),
    ]:
        sensor.set_value(value, status)
        seen.append((total.value, failures.value))
    target.remove(a)
    target.remove(b)
    seen.append((total.value, failures.value))
    assert seen == [(10, 0), (15, 0), (5, 1), (0, 2), (20, 1), (0, 0)]


def test_an_aggregates_time_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change has the child's timestamp, all else the clock's, and neither turns the time back."""
    target = SensorSet()
    child = Sensor(int, "a")
    target.add(child)
    simple = Simple(target)
    times = [simple.timestamp]
    for timestamp in (NOW - 1000, NOW + 10, NOW + 5):
        child.set_value(1, timestamp=timestamp)
        times.append(simple.timestamp)
    monkeypatch.setattr(time, "time", lambda: NOW + 20)
    target.remove(child)
    times.append(simple.timestamp)
    assert times == [NOW, NOW, NOW + 10, NOW + 10, NOW + 20]
