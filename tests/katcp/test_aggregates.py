from __future__ import annotations

import gc
import time
import weakref
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from armillary import katcp
from armillary.katcp import aggregates, sensors
from armillary.katcp.protocol.readings import Reading, SensorStatus
from armillary.katcp.protocol.sampling import Strategy
from armillary.katcp.sensor_set import SensorSet

T = TypeVar("T")
NOW = 1000.0
VALID = [SensorStatus.NOMINAL, SensorStatus.WARN, SensorStatus.ERROR]


class Sensor(sensors.Sensor[T]):
    """A sensor whose clock stands still."""

    @staticmethod
    def now() -> float:
        return NOW


class Told(aggregates.AggregateSensor[int]):
    """Remembers what it was asked to aggregate, who attached to it, and counts the updates as its value."""

    def __init__(self, target: SensorSet, name: str = "told", **options: Any) -> None:
        self.calls: list[tuple[Any, Any, Any]] = []
        self.keep = self.same = False
        self.watched = 0
        super().__init__(target, int, name, **options)

    @staticmethod
    def now() -> float:
        return NOW

    def update_aggregate(self, updated_sensor: Any, reading: Any, old_reading: Any) -> Reading[int] | None:
        self.calls.append((updated_sensor, reading, old_reading))
        if self.same:
            return self.reading
        return None if self.keep else Reading(NOW, SensorStatus.ERROR, len(self.calls))

    def attach(self, observer: Any) -> None:
        self.watched += 1
        super().attach(observer)

    def detach(self, observer: Any) -> None:
        self.watched += 1
        super().detach(observer)


class Sum(aggregates.SimpleAggregateSensor[int]):
    """The sum of the readings counted in; it refuses to count out what was never counted in."""

    clock: ClassVar[float] = NOW

    def __init__(self, target: SensorSet, name: str = "sum") -> None:
        self.counted: list[tuple[str, int]] = []
        self.quiet = False
        super().__init__(target, int, name)

    @staticmethod
    def now() -> float:
        return Sum.clock

    def aggregate_add(self, sensor: sensors.Sensor[Any], reading: Reading[Any]) -> bool:
        self.counted.append((sensor.name, reading.value))
        return not self.quiet

    def aggregate_remove(self, sensor: sensors.Sensor[Any], reading: Reading[Any]) -> bool:
        self.counted.remove((sensor.name, reading.value))
        return not self.quiet

    def aggregate_compute(self) -> tuple[SensorStatus, int]:
        return SensorStatus.WARN, sum(value for _, value in self.counted)


def same(actual: list[tuple[Any, Any, Any]], expected: list[tuple[Any, Any, Any]]) -> bool:
    """Whether all members are the very objects expected."""
    return [tuple(map(id, call)) for call in actual] == [tuple(map(id, call)) for call in expected]


# Any aggregate


def test_an_aggregate_is_computed_when_it_is_made() -> None:
    """It is asked once, about nothing in particular, and takes the reading as it is."""
    target = SensorSet([Sensor(int, "a")])
    told = Told(target)
    assert told.calls == [(None, None, None)]
    assert told.reading == Reading(NOW, SensorStatus.ERROR, 1)
    assert told.target is target


def test_a_computed_value_becomes_one_of_the_sensors_type() -> None:
    """As with any other sensor, an int is made a float, and what does not fit is a TypeError."""

    class Computed(katcp.AggregateSensor[float]):
        answer: ClassVar[Any] = 3

        def update_aggregate(self, updated_sensor: Any, reading: Any, old_reading: Any) -> Any:
            return Reading(5.0, SensorStatus.WARN, self.answer)

    child = Sensor(int, "a")
    computed = Computed(SensorSet([child]), float, "x")
    assert computed.reading == Reading(5.0, SensorStatus.WARN, 3.0)
    assert type(computed.value) is float
    Computed.answer = "3"
    with pytest.raises(TypeError, match="Value type <class 'str'> is not compatible"):
        child.value = 1
    assert computed.value == 3.0


def test_an_aggregate_follows_the_sensors_of_its_set() -> None:
    """It hears of additions, changes and removals, each with the readings that belong to it."""
    there, comes = Sensor(int, "there"), Sensor(int, "comes", default=3)
    target = SensorSet([there])
    told = Told(target)
    first = there.reading
    there.value = 1
    second = there.reading
    target.add(comes)
    third = comes.reading
    comes.value = 4
    fourth = comes.reading
    target.remove(there)
    assert same(
        told.calls,
        [
            (None, None, None),
            (there, second, first),
            (comes, third, None),
            (comes, fourth, third),
            (there, None, second),
        ],
    )
    assert told.value == 5


def test_a_sensor_that_left_is_not_heard_any_more() -> None:
    """Later changes of a removed sensor cause no update."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    told = Told(target)
    target.remove(child)
    calls = len(told.calls)
    child.value = 5
    assert len(told.calls) == calls


def test_a_sensor_in_the_place_of_another_is_heard_instead() -> None:
    """Replacing is a removal and an addition."""
    old, new = Sensor(int, "a"), Sensor(int, "a")
    target = SensorSet([old])
    told = Told(target)
    target.add(new)
    assert same(told.calls[1:], [(old, None, old.reading), (new, new.reading, None)])
    calls = len(told.calls)
    old.value = 1
    assert len(told.calls) == calls
    new.value = 1
    assert len(told.calls) == calls + 1


def test_no_new_reading_keeps_the_old_one() -> None:
    """When None or the present reading is computed, that stays the very object and no observer is told."""
    child = Sensor(int, "a")
    told = Told(SensorSet([child]))
    observed: list[Any] = []
    told.attach(lambda sensor, reading: observed.append(reading))
    told.keep = True
    before = told.reading
    child.value = 5
    assert told.reading is before
    assert observed == []
    told.keep = False
    told.same = True
    child.value = 7
    assert told.reading is before
    assert observed == []
    told.same = False
    child.value = 6
    assert observed == [told.reading]


def test_an_aggregate_in_its_own_set_does_not_follow_itself() -> None:
    """Adding it there, removing it and updating it never attaches, detaches or asks it."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    told = Told(target)
    target.add(told)
    child.value = 1
    told.value = 3
    target.remove(told)
    assert told.watched == 0
    assert [call[0] for call in told.calls] == [None, child]


def test_two_aggregates_of_one_set_follow_each_other_not_themselves() -> None:
    """One aggregate is a sensor as any other to the second."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    total = Sum(target)
    target.add(total)
    told = Told(target)
    child.value = 4
    assert {call[0] for call in told.calls[1:]} == {child, total}


def test_a_filter_chooses_the_sensors() -> None:
    """What the filter refuses is neither counted at the start, nor followed, nor heard leaving."""

    class OnlyA(Told):
        def filter_aggregate(self, sensor: sensors.Sensor[Any]) -> bool:
            return sensor.name.startswith("a")

    wanted, unwanted, late = Sensor(int, "a"), Sensor(int, "b"), Sensor(int, "b2")
    target = SensorSet([wanted, unwanted])
    told = OnlyA(target)
    target.add(late)
    for sensor in (wanted, unwanted, late):
        sensor.value = 1
    target.clear()
    assert [call[0] for call in told.calls] == [None, wanted, wanted]


def test_an_aggregate_has_the_options_of_a_sensor() -> None:
    """Description, units and automatic strategy are those given."""
    told = Told(
        SensorSet(),
        description="what",
        units="m",
        auto_strategy=Strategy.PERIOD,
        auto_strategy_parameters=(2.0,),
    )
    assert told.encoded_description() == b" told what m integer\n"
    assert (told.auto_strategy, told.auto_strategy_parameters) == (Strategy.PERIOD, (2.0,))


@pytest.mark.parametrize("kind", [katcp.AggregateSensor, katcp.SimpleAggregateSensor])
def test_what_an_aggregate_must_define_is_named(kind: type[Any]) -> None:
    """A subclass that forgot its method is told which, where it is made."""
    child = katcp.Sensor(int, "a", initial_status=SensorStatus.NOMINAL)
    with pytest.raises(TypeError, match=f"{kind.__name__} .*(update_aggregate|aggregate_add)"):
        kind(SensorSet([child]), int, "x")


# Who keeps whom alive


def test_the_children_do_not_keep_an_aggregate_alive() -> None:
    """It is collected while its set and sensors live, and leaves no callback and no observer behind."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    told = Told(target)
    gone = weakref.ref(told)
    del told
    gc.collect()
    assert gone() is None
    assert (target._add_callbacks, target._remove_callbacks) == ([], [])
    assert child._delta_observers is None
    child.value = 3
    target.add(Sensor(int, "b"))


def test_an_aggregate_does_not_keep_a_removed_child_alive() -> None:
    """A sensor that left the set is collected while the aggregate lives."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    total = Sum(target)
    gone = weakref.ref(child)
    target.remove(child)
    del child
    gc.collect()
    assert gone() is None
    assert total.value == 0


def test_an_aggregate_may_outlive_its_sets_other_owners() -> None:
    """It keeps its set and follows on, and both can be collected when the last of them goes."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    total = Sum(target)
    gone = weakref.ref(target)
    del target
    gc.collect()
    child.value = 3
    assert total.value == 3
    del total
    gc.collect()
    assert gone() is None
    child.value = 4


# Aggregates by adding and removing


def test_only_readings_that_mean_something_are_counted() -> None:
    """A child that fails is counted out, and in again when it recovers, from the start and later."""
    child = Sensor(int, "a", default=5)
    total = Sum(SensorSet([child, Sensor(int, "b", default=2, initial_status=SensorStatus.WARN)]))
    values = [total.value]
    for value, status in [
        (7, SensorStatus.NOMINAL),
        (8, SensorStatus.ERROR),
        (9, SensorStatus.FAILURE),
        (10, SensorStatus.UNREACHABLE),
        (11, SensorStatus.WARN),
    ]:
        child.set_value(value, status)
        values.append(total.value)
    assert values == [2, 9, 10, 2, 2, 13]
    assert total.status is SensorStatus.WARN


def test_a_child_leaves_with_what_it_last_was() -> None:
    """Removal counts the current reading out, if it was counted in."""
    good, bad = Sensor(int, "good"), Sensor(int, "bad", default=3)
    target = SensorSet([good, bad])
    total = Sum(target)
    good.value = 4
    target.remove(bad)
    assert total.value == 4
    target.remove(good)
    assert (total.value, total.counted) == (0, [])


def test_an_update_that_changes_nothing_calls_no_observer() -> None:
    """When neither method reports a change, or none is called, the reading stays the very object."""
    child = Sensor(int, "a")
    total = Sum(SensorSet([child]))
    observed: list[Any] = []
    total.attach(lambda sensor, reading: observed.append(reading))
    before = total.reading
    child.set_value(1, SensorStatus.FAILURE)
    total.quiet = True
    child.set_value(1, SensorStatus.NOMINAL)
    child.set_value(2, SensorStatus.NOMINAL)
    assert total.reading is before
    assert observed == []
    assert total.counted == [("a", 2)]


@pytest.mark.parametrize(("add", "remove"), [(True, False), (False, True)])
def test_either_method_may_report_the_change(add: bool, remove: bool) -> None:
    """Both are called, and one that reports a change is enough."""

    class Half(Sum):
        def aggregate_add(self, sensor: sensors.Sensor[Any], reading: Reading[Any]) -> bool:
            super().aggregate_add(sensor, reading)
            return add

        def aggregate_remove(self, sensor: sensors.Sensor[Any], reading: Reading[Any]) -> bool:
            super().aggregate_remove(sensor, reading)
            return remove

    child = Sensor(int, "a", initial_status=SensorStatus.NOMINAL)
    total = Half(SensorSet([child]))
    child.value = 6
    assert total.value == 6


def test_the_time_is_the_childs_on_a_change_and_now_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creation, addition and removal happen now, a change when the child says."""
    child, other = Sensor(int, "a"), Sensor(int, "b", initial_status=SensorStatus.NOMINAL)
    target = SensorSet([child])
    total = Sum(target)
    times = [total.timestamp]
    child.set_value(1, timestamp=NOW + 5)
    times.append(total.timestamp)
    monkeypatch.setattr(Sum, "clock", NOW + 10)
    target.add(other)
    times.append(total.timestamp)
    monkeypatch.setattr(Sum, "clock", NOW + 20)
    target.remove(other)
    times.append(total.timestamp)
    assert times == [NOW, NOW + 5, NOW + 10, NOW + 20]


def test_time_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a child's old timestamp nor a clock set back turns the aggregate's time back."""
    child = Sensor(int, "a")
    target = SensorSet([child])
    total = Sum(target)
    child.set_value(1, timestamp=NOW - 500)
    assert (total.value, total.timestamp) == (1, NOW)
    child.set_value(2, timestamp=NOW + 5)
    monkeypatch.setattr(Sum, "clock", NOW - 100)
    target.remove(child)
    assert (total.value, total.timestamp) == (0, NOW + 5)


def test_a_sensor_that_an_observer_adds_is_counted_once() -> None:
    """One that joins the set while its own update is being told is counted with its new reading only."""
    child = Sensor(int, "a", initial_status=SensorStatus.NOMINAL)
    target = SensorSet()
    total = Sum(target)
    child.attach(lambda sensor, reading: target.add(sensor))
    child.value = 3
    assert (total.value, total.counted) == (3, [("a", 3)])
    child.value = 4
    assert (total.value, total.counted) == (4, [("a", 4)])


POOL_NAMES = ["a", "b", "c"]


class SumAgainstChildren(RuleBasedStateMachine):
    """What a sum says must always follow from its set alone."""

    def __init__(self) -> None:
        super().__init__()
        self.target = SensorSet()
        self.total = Sum(self.target)
        self.target.add(self.total)
        self.pool = [Sensor(int, name) for name in POOL_NAMES for _ in range(2)]
        self.last_time = NOW

    @rule(index=st.integers(0, 5))
    def add(self, index: int) -> None:
        self.target.add(self.pool[index])

    @rule(index=st.integers(0, 5))
    def discard(self, index: int) -> None:
        self.target.discard(self.pool[index])

    @rule(
        index=st.integers(0, 5),
        value=st.integers(-3, 3),
        status=st.sampled_from(SensorStatus),
        timestamp=st.floats(NOW - 10, NOW + 10),
    )
    def set_value(self, index: int, value: int, status: SensorStatus, timestamp: float) -> None:
        self.pool[index].set_value(value, status, timestamp)

    @invariant()
    def it_is_the_sum_of_what_is_valid(self) -> None:
        children = [sensor for sensor in self.pool if sensor in self.target and sensor.status in VALID]
        assert self.total.value == sum(child.value for child in children)
        assert sorted(self.total.counted) == sorted((child.name, child.value) for child in children)

    @invariant()
    def its_time_does_not_run_backwards(self) -> None:
        assert self.total.timestamp >= self.last_time
        self.last_time = self.total.timestamp


SumAgainstChildren.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class TestSum(SumAgainstChildren.TestCase):  # type: ignore[misc, valid-type]
    """Any mix of changes leaves the sum of the valid children, and time goes forward."""


# The computer's clock


def test_public_aggregates_are_public_sensors_with_the_same_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each aggregate of `armillary.katcp` is a `Sensor` of it, and takes the computer's time."""

    class Number(katcp.SimpleAggregateSensor[int]):
        def aggregate_add(self, sensor: Any, reading: Any) -> bool:
            return True

        def aggregate_remove(self, sensor: Any, reading: Any) -> bool:
            return True

        def aggregate_compute(self) -> tuple[SensorStatus, int]:
            return SensorStatus.NOMINAL, len(self.target)

    monkeypatch.setattr(time, "time", lambda: 5.0)
    target = SensorSet()
    number = Number(target, int, "number")
    assert number.timestamp == 5.0
    monkeypatch.setattr(time, "time", lambda: 6.0)
    target.add(katcp.Sensor(int, "a", initial_status=SensorStatus.NOMINAL))
    assert number.reading == Reading(6.0, SensorStatus.NOMINAL, 1)
    assert isinstance(number, katcp.AggregateSensor)
    assert isinstance(number, katcp.Sensor)
