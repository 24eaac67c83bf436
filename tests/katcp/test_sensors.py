from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary import katcp
from armillary.katcp import sensors
from armillary.katcp.protocol.messages import Message
from armillary.katcp.protocol.readings import STATUS_BY_TEXT, STATUS_TEXT, Reading, SensorStatus
from armillary.katcp.protocol.sampling import Strategy
from armillary.katcp.protocol.values import STANDARD_TYPES, Address, Timestamp, TypeInfo

T = TypeVar("T")
NOW = 1000.0


class Sensor(sensors.Sensor[T]):
    """A sensor whose clock stands still."""

    @staticmethod
    def now() -> float:
        return NOW


class Colour(enum.Enum):
    RED = 1
    DARK_BLUE = 2


class OtherColour(enum.Enum):
    RED = 1


class Digit(enum.IntEnum):
    ONE = 1


class Word(enum.Enum):
    QUIET = "pp"

    def __init__(self, text: str) -> None:
        self.katcp_value = text.encode()


class Metres(float):
    pass


Call = tuple[Any, ...]


class Watcher:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def classic(self, sensor: sensors.Sensor[Any], reading: Reading[Any]) -> None:
        self.calls.append((sensor, reading))

    def delta(self, sensor: sensors.Sensor[Any], reading: Reading[Any], *, old_reading: Reading[Any]) -> None:
        self.calls.append((sensor, reading, old_reading))


# What a sensor starts as


def test_a_new_sensor_holds_its_default() -> None:
    """Unset, it is unknown since it was made, with its type's zero, and prefers every update."""
    sensor = Sensor(int, "a.b", "a number", "count")
    assert sensor.reading == Reading(NOW, SensorStatus.UNKNOWN, 0)
    assert (sensor.name, sensor.description, sensor.units) == ("a.b", "a number", "count")
    assert (sensor.stype, sensor.type_name, sensor.params) == (int, "integer", [])
    assert (sensor.auto_strategy, sensor.auto_strategy_parameters) == (Strategy.AUTO, ())


def test_the_default_does_not_ask_for_a_status() -> None:
    """`status_func` judges what is set, not what a sensor starts with."""
    sensor = Sensor(int, "x", default=5, status_func=lambda value: SensorStatus.ERROR)
    assert sensor.reading == Reading(NOW, SensorStatus.UNKNOWN, 5)
    nominal = Sensor(int, "x", initial_status=SensorStatus.NOMINAL, status_func=lambda _: SensorStatus.ERROR)
    assert nominal.status is SensorStatus.NOMINAL


@pytest.mark.parametrize(
    ("stype", "type_name", "params"),
    [
        (int, "integer", []),
        (float, "float", []),
        (bool, "boolean", []),
        (str, "string", []),
        (bytes, "string", []),
        (Timestamp, "timestamp", []),
        (Address, "address", []),
        (Colour, "discrete", [b"red", b"dark-blue"]),
        (Word, "discrete", [b"pp"]),
    ],
)
def test_a_sensor_tells_its_type(stype: type, type_name: str, params: list[bytes]) -> None:
    """The type's wire name, and for a discrete sensor all values in order of definition."""
    sensor = Sensor(stype, "x")
    assert sensor.type_name == type_name
    assert sensor.params == params


@pytest.mark.parametrize("default", [None, 1j])
def test_a_class_without_a_type_makes_no_sensor(default: Any) -> None:
    """The error comes when the sensor is made, with a default as without."""
    with pytest.raises(TypeError, match="is not registered"):
        Sensor(complex, "x", default=default)


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [(Strategy.PERIOD, ()), (Strategy.PERIOD, (math.nan,)), (Strategy.EVENT_RATE, (5, 1)), (None, (1,))],
)
def test_a_preference_that_makes_no_sense_is_refused(
    strategy: Strategy | None, parameters: tuple[float, ...]
) -> None:
    """The automatic strategy's parameters are checked when the sensor is made, not when somebody asks."""
    with pytest.raises(ValueError, match=r"expected|finite"):
        Sensor(float, "x", auto_strategy=strategy, auto_strategy_parameters=parameters)


# What may be set

COERCED = [
    (float, 1234, 1234.0),
    (float, Fraction(5, 4), 1.25),
    (float, True, 1.0),
    (float, 1.5, 1.5),
    (Metres, 3, Metres(3)),
    (Metres, Fraction(1, 2), Metres(0.5)),
    (Timestamp, 12, Timestamp(12)),
    (Timestamp, 12.5, Timestamp(12.5)),
    (Timestamp, Fraction(1, 2), Timestamp(0.5)),
    (int, 5, 5),
    (int, True, True),
    (bool, False, False),
    (str, "x", "x"),
    (bytes, b"x", b"x"),
    (Address, Address(IPv4Address("1.2.3.4")), Address(IPv4Address("1.2.3.4"))),
    (Colour, Colour.DARK_BLUE, Colour.DARK_BLUE),
]


@pytest.mark.parametrize(("stype", "value", "expected"), COERCED)
def test_a_value_is_made_the_sensors_type(stype: type, value: Any, expected: Any) -> None:
    """A wider value is converted, and one that is of the type already is kept, set or as default."""
    sensor = Sensor(stype, "x")
    sensor.value = value
    default = Sensor(stype, "x", default=value)
    for held in (sensor.value, default.value):
        assert held == expected
        assert type(held) is type(expected)


@pytest.mark.parametrize(
    ("stype", "value"),
    [
        (bool, "1"),
        (bool, 1),
        (int, "1"),
        (int, 1.5),
        (int, 1.0),
        (int, None),
        (float, 1j),
        (float, "1.5"),
        (float, b"1.5"),
        (Timestamp, "now"),
        (Timestamp, 1j),
        (str, b"x"),
        (bytes, "x"),
        (bytes, 3),
        (Address, "1.2.3.4"),
        (Colour, OtherColour.RED),
        (Colour, "red"),
        (Colour, 1),
        (Digit, 1),
    ],
)
def test_a_value_of_another_type_changes_nothing(stype: type, value: Any) -> None:
    """It is a TypeError that names both types; the reading stays and nobody is told."""
    sensor = Sensor(stype, "x")
    watcher = Watcher()
    sensor.attach(watcher.classic)
    before = sensor.reading
    with pytest.raises(TypeError, match=r"Value type .* is not compatible with Sensor type"):
        sensor.value = value
    assert sensor.reading is before
    assert watcher.calls == []


def test_a_default_of_another_type_is_refused() -> None:
    """The rules for a default are those for a value."""
    with pytest.raises(TypeError, match="is not compatible"):
        Sensor(int, "x", default=1.5)  # type: ignore[arg-type]


class Point:
    def __init__(self, x: int = 0) -> None:
        self.x = x


class SubPoint(Point):
    def __init__(self, point: Point | int = 0) -> None:
        super().__init__(point if isinstance(point, int) else point.x)


def test_a_type_of_ones_own_is_converted_and_encoded_as_it_says() -> None:
    """A sensor looks its type up where it is told to: name, default, conversion and encoding."""
    types = STANDARD_TYPES.copy()
    types.register(
        TypeInfo(
            Point,
            "point",
            lambda cls: lambda point: b"(%d)" % point.x,
            lambda cls: lambda raw: cls(int(raw.strip(b"()"))),
            lambda cls: cls(),
        )
    )
    sensor = Sensor(SubPoint, "x", types=types)
    assert (sensor.type_name, sensor.value.x) == ("point", 0)
    sensor.set_value(Point(7), timestamp=1.0)  # type: ignore[arg-type]
    assert type(sensor.value) is SubPoint
    assert sensor.encoded_reading() == b" 1.0 1 x nominal (7)\n"


def test_what_is_not_given_is_filled_in() -> None:
    """No status asks `status_func` for the converted value, no timestamp asks the clock."""
    asked: list[object] = []

    def judge(value: float) -> SensorStatus:
        asked.append(value)
        return SensorStatus.WARN

    sensor = Sensor(float, "x", status_func=judge)
    sensor.set_value(3)
    assert sensor.reading == Reading(NOW, SensorStatus.WARN, 3.0)
    assert [type(value) for value in asked] == [float]
    sensor.set_value(4, SensorStatus.ERROR, 5.0)
    assert sensor.reading == Reading(5.0, SensorStatus.ERROR, 4.0)
    assert len(asked) == 1


def test_assigning_is_setting() -> None:
    """Assigning to `value` gives a nominal reading of now."""
    sensor = Sensor(int, "x")
    sensor.value = 3
    assert (sensor.timestamp, sensor.status, sensor.value) == (NOW, SensorStatus.NOMINAL, 3)


def test_a_judge_that_fails_changes_nothing() -> None:
    """When `status_func` raises, the old reading stays."""
    sensor = Sensor(float, "x", default=1.0, status_func=lambda value: SensorStatus(int(1 / value)))
    with pytest.raises(ZeroDivisionError):
        sensor.value = 0.0
    assert sensor.value == 1.0


# Who is told


@pytest.mark.parametrize("setter", [lambda s: s.set_value(5), lambda s: s.set_reading(Reading(1.0, 1, 5))])
def test_both_kinds_of_observer_are_told(setter: Callable[[Sensor[int]], None]) -> None:
    """One gets the sensor and the reading, the other the old reading as well, even if nothing differs."""
    sensor = Sensor(int, "x", default=5)
    classic, delta = Watcher(), Watcher()
    sensor.attach(delta.delta)
    sensor.attach(classic.classic)
    old = sensor.reading
    setter(sensor)
    new = sensor.reading
    assert new is not old
    assert [call[0] is sensor and call[1] is new for call in classic.calls] == [True]
    assert [call[0] is sensor and call[1] is new and call[2] is old for call in delta.calls] == [True]


def test_an_observer_is_known_by_a_parameters_name() -> None:
    """Only a parameter called `old_reading` asks for the old reading, of whatever kind and type it is."""
    calls: list[Call] = []

    def positional(sensor: Any, reading: Any, old_reading: Any = "not given") -> None:
        calls.append(("positional", old_reading))

    def other(sensor: Any, reading: Any, previous: Any = "not given", **more: Any) -> None:
        calls.append(("other", previous, more))

    sensor = Sensor(int, "x")
    old = sensor.reading
    sensor.attach(positional)
    sensor.attach(other)
    sensor.value = 1
    assert sorted(calls) == [("other", "not given", {}), ("positional", old)]


def test_classic_observers_come_first() -> None:
    """Those that take the old reading are told after those that do not, whoever came first."""
    sensor = Sensor(int, "x")
    watcher = Watcher()
    sensor.attach(watcher.delta)
    sensor.attach(watcher.classic)
    sensor.value = 1
    assert [len(call) for call in watcher.calls] == [2, 3]


@pytest.mark.parametrize("kind", ["classic", "delta"])
def test_attaching_twice_is_attaching_once(kind: str) -> None:
    """An observer is told once, and one detach ends it."""
    sensor = Sensor(int, "x")
    watcher = Watcher()
    sensor.attach(getattr(watcher, kind))
    sensor.attach(getattr(watcher, kind))
    sensor.value = 1
    assert len(watcher.calls) == 1
    sensor.detach(getattr(watcher, kind))
    sensor.value = 2
    assert len(watcher.calls) == 1


def test_attach_classic_inspects_nothing() -> None:
    """An observer attached as classic is called as one, whatever its parameters are called."""
    sensor = Sensor(int, "x")
    calls: list[Any] = []
    sensor.attach_classic(lambda sensor, reading, old_reading="not given": calls.append(old_reading))
    sensor.value = 1
    assert calls == ["not given"]


def test_detaching_a_stranger_is_silent() -> None:
    """Nothing happens, and those attached are still told."""
    sensor = Sensor(int, "x")
    watcher, stranger = Watcher(), Watcher()
    sensor.detach(stranger.classic)
    sensor.attach(watcher.classic)
    sensor.attach(watcher.delta)
    sensor.detach(stranger.classic)
    sensor.detach(stranger.delta)
    sensor.value = 1
    assert len(watcher.calls) == 2


def test_observers_may_come_and_go_while_they_are_told() -> None:
    """Who is attached or detached by an observer is so from the next update on."""
    sensor = Sensor(int, "x")
    leaving, coming = Watcher(), Watcher()

    def changes(_: Any, reading: Any) -> None:
        for kind in ("classic", "delta"):
            sensor.detach(getattr(leaving, kind))
            sensor.attach(getattr(coming, kind))
        sensor.detach(changes)

    sensor.attach(changes)
    sensor.attach(leaving.classic)
    sensor.attach(leaving.delta)
    sensor.value = 1
    assert (len(leaving.calls), len(coming.calls)) == (2, 0)
    sensor.value = 2
    assert (len(leaving.calls), len(coming.calls)) == (2, 2)


def test_an_observer_that_raises_does_not_keep_the_update_from_the_others() -> None:
    """All are told, the reading is set, and then the first error comes out."""
    sensor = Sensor(int, "x")
    watcher = Watcher()

    def fails(sensor: Any, reading: Any) -> None:
        raise KeyError("first")

    def fails_too(sensor: Any, reading: Any) -> None:
        raise OSError("second")

    def fails_as_well(sensor: Any, reading: Any, *, old_reading: Any) -> None:
        raise LookupError("third")

    for observer in (fails, fails_too, fails_as_well, watcher.classic, watcher.delta):
        sensor.attach(observer)
    with pytest.raises(KeyError, match="first"):
        sensor.value = 3
    assert sensor.value == 3
    assert len(watcher.calls) == 2


def test_notify_hears_of_every_update() -> None:
    """A subclass that overrides `notify` is told of each reading, whether anybody watches or not."""
    told: list[tuple[int, int]] = []

    class Diary(Sensor[int]):
        def notify(self, reading: Reading[int], old_reading: Reading[int]) -> None:
            told.append((reading.value, old_reading.value))
            super().notify(reading, old_reading)

    sensor = Diary(int, "x")
    sensor.value = 1
    watcher = Watcher()
    sensor.attach(watcher.classic)
    sensor.value = 2
    assert told == [(1, 0), (2, 1)]
    assert len(watcher.calls) == 1


def test_notify_tells_without_setting() -> None:
    """Observers are told of the readings given; the sensor keeps its own."""
    sensor = Sensor(int, "x")
    watcher = Watcher()
    sensor.attach(watcher.classic)
    sensor.attach(watcher.delta)
    before = sensor.reading
    old, new = Reading(1.0, SensorStatus.WARN, 1), Reading(2.0, SensorStatus.WARN, 2)
    sensor.notify(new, old)
    assert watcher.calls == [(sensor, new), (sensor, new, old)]
    assert sensor.reading is before


# What goes over the wire


@pytest.mark.parametrize(
    ("sensor", "tail"),
    [
        (Sensor(int, "x", default=5), b" 1000.0 1 x unknown 5\n"),
        (Sensor(float, "a.b", default=1e20), b" 1000.0 1 a.b unknown 1e+20\n"),
        (Sensor(str, "x"), b" 1000.0 1 x unknown \\@\n"),
        (Sensor(str, "x", default="a b\n"), b" 1000.0 1 x unknown a\\_b\\n\n"),
        (Sensor(bytes, "é", default=b"\xff"), b" 1000.0 1 \xc3\xa9 unknown \xff\n"),
        (Sensor(Colour, "x", default=Colour.DARK_BLUE), b" 1000.0 1 x unknown dark-blue\n"),
        (Sensor(Timestamp, "x", default=Timestamp(3)), b" 1000.0 1 x unknown 3.0\n"),
        (Sensor(bool, "x", default=True), b" 1000.0 1 x unknown 1\n"),
        (Sensor(int, "x", default=True), b" 1000.0 1 x unknown 1\n"),
        (Sensor(int, "x", default=Digit.ONE), b" 1000.0 1 x unknown 1\n"),
    ],
)
def test_a_reading_on_the_wire(sensor: Sensor[Any], tail: bytes) -> None:
    """Time, one, name, status and value, escaped, the value as the sensor's own type."""
    assert sensor.encoded_reading() == tail


@pytest.mark.parametrize("status", SensorStatus)
def test_each_status_has_its_word(status: SensorStatus) -> None:
    """The wire's word for a status is its name in lower case, both ways."""
    sensor = Sensor(int, "x")
    sensor.set_value(1, status, 2.0)
    word = status.name.lower().encode()
    assert sensor.encoded_reading() == b" 2.0 1 x " + word + b" 1\n"
    assert STATUS_TEXT[status] == word
    assert STATUS_BY_TEXT[word] is status


@given(st.floats(allow_nan=False), st.text(max_size=5), st.text(max_size=5), st.sampled_from(SensorStatus))
def test_a_reading_comes_back_as_it_was(
    timestamp: float, name: str, value: str, status: SensorStatus
) -> None:
    """Behind any head, the tail parses to the parts of the reading."""
    sensor = Sensor(str, name)
    sensor.set_value(value, status, timestamp)
    parts = Message.parse(b"#sensor-status" + sensor.encoded_reading()).arguments
    assert [float(parts[0]), parts[1], parts[2].decode(), STATUS_BY_TEXT[parts[3]], parts[4].decode()] == [
        timestamp,
        b"1",
        name,
        status,
        value,
    ]


@pytest.mark.parametrize(
    ("sensor", "tail"),
    [
        (Sensor(int, "x", "a number", "count"), b" x a\\_number count integer\n"),
        (Sensor(float, "x"), b" x \\@ \\@ float\n"),
        (Sensor(Colour, "x", "", "°"), b" x \\@ \xc2\xb0 discrete red dark-blue\n"),
    ],
)
def test_a_description_on_the_wire(sensor: Sensor[Any], tail: bytes) -> None:
    r"""Name, description, units, type and a discrete sensor's values; what is empty is ``\@``."""
    assert sensor.encoded_description() == tail


# What a subscriber may ask for


def test_auto_is_every_update_unless_the_sensor_prefers_something() -> None:
    """A preference decides what happens, and the answer still says ``auto``."""
    plain = Sensor(int, "x").sampling(b"auto", [])
    assert (plain.words, plain.always) == ((b"auto",), True)
    sensor = Sensor(int, "x", auto_strategy=Strategy.EVENT_RATE, auto_strategy_parameters=(1, 10))
    preferred = sensor.sampling(b"auto", [])
    assert preferred.words == (b"auto",)
    assert (preferred.always, preferred.shortest, preferred.longest) == (False, 1, 10)


def test_a_preference_is_for_auto_only() -> None:
    """Any other strategy is what the client says."""
    sensor = Sensor(int, "x", auto_strategy=Strategy.PERIOD, auto_strategy_parameters=(1,))
    assert sensor.sampling(b"event", []).words == (b"event",)
    assert sensor.sampling(b"differential", [b"2"]).words == (b"differential", 2)


def test_a_sensor_may_prefer_not_to_be_sampled() -> None:
    """With NONE preferred, asking for ``auto`` gives ``none``."""
    assert Sensor(int, "x", auto_strategy=Strategy.NONE).sampling(b"auto", []).words == (b"none",)


def test_differences_fit_the_sensors_type() -> None:
    """Asked for or preferred, a differential strategy on a text is refused when somebody subscribes."""
    with pytest.raises(TypeError, match="only valid for integer and float"):
        Sensor(str, "x").sampling(b"differential", [b"1"])
    sensor = Sensor(str, "x", auto_strategy=Strategy.DIFFERENTIAL, auto_strategy_parameters=(1.0,))
    with pytest.raises(TypeError, match="only valid for integer and float"):
        sensor.sampling(b"auto", [])


# Readings, and the computer's clock


def test_some_statuses_say_that_the_value_means_something() -> None:
    """Nominal, warn and error do, the others do not."""
    assert [status for status in SensorStatus if status.valid_value()] == [
        SensorStatus.NOMINAL,
        SensorStatus.WARN,
        SensorStatus.ERROR,
    ]


def test_readings_are_equal_by_their_parts() -> None:
    """Another time, status or value makes another reading."""
    reading = Reading(1.0, SensorStatus.WARN, 2)
    assert reading == Reading(1.0, SensorStatus.WARN, 2)
    assert reading != Reading(1.5, SensorStatus.WARN, 2)
    assert reading != Reading(1.0, SensorStatus.ERROR, 2)
    assert reading != Reading(1.0, SensorStatus.WARN, 3)


def test_the_repr_of_a_sensor_shows_its_reading() -> None:
    """Name, value and status, for people."""
    sensor = Sensor(str, "x")
    sensor.value = "on"
    assert repr(sensor) == "<Sensor x: 'on' nominal>"


def test_public_sensors_read_the_clock_when_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`armillary.katcp.Sensor` takes the time of the computer at each call, unless it is given one."""
    monkeypatch.setattr(time, "time", lambda: 5.0)
    sensor = katcp.Sensor(int, "x")
    assert sensor.timestamp == 5.0
    monkeypatch.setattr(time, "time", lambda: 6.0)
    sensor.value = 1
    assert sensor.timestamp == 6.0
    sensor.set_value(1, timestamp=2.0)
    assert sensor.timestamp == 2.0
