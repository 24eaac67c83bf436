from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary.katcp.protocol.readings import Reading, SensorStatus
from armillary.katcp.protocol.sampling import SHORTEST_PERIOD, Sampling, SamplingMachine, Strategy

START = 100.0


class Report(NamedTuple):
    now: float
    """When it went out."""
    due: float
    """When it should have."""
    reading: Reading[Any]


def bound(long: float) -> float | None:
    """What LONG means: infinity is no bound."""
    return None if long == math.inf else long


class Reference:
    """The table of strategies, row by row, and the rules for reports and updates, taken literally."""

    ROWS: ClassVar[dict[Strategy, Callable[..., tuple[bool, float | None, float, float | None]]]] = {
        # always, difference, shortest, longest
        Strategy.AUTO: lambda: (True, None, 0, None),
        Strategy.EVENT: lambda: (False, None, 0, None),
        Strategy.PERIOD: lambda period: (False, None, period, period),
        Strategy.DIFFERENTIAL: lambda difference: (False, difference, 0, None),
        Strategy.EVENT_RATE: lambda short, long: (False, None, short, bound(long)),
        Strategy.DIFFERENTIAL_RATE: lambda difference, short, long: (False, difference, short, bound(long)),
    }

    def __init__(self, strategy: Strategy, parameters: tuple[float, ...]) -> None:
        self.always, self.difference, self.shortest, self.longest = self.ROWS[strategy](*parameters)
        self.reports: list[Report] = []
        self.pending = False
        self.timer: float | None = None

    def report(self, due: float, now: float, reading: Reading[Any]) -> None:
        self.reports.append(Report(now, due, reading))
        self.pending = False
        self.timer = None
        if self.longest is not None:
            self.timer = max(now, due + self.longest)

    def set_value(self, reading: Reading[Any], now: float) -> None:
        if self.pending:
            return
        last = self.reports[-1]
        if self.always:
            changed = True
        elif self.difference is None:
            changed = reading.value != last.reading.value
        else:
            changed = abs(reading.value - last.reading.value) > self.difference
        if changed or reading.status != last.reading.status:
            earliest = last.due + self.shortest
            if self.shortest == 0 or now >= earliest:
                self.report(now, now, reading)
            else:
                self.pending = True
                self.timer = earliest

    def wake(self, reading: Reading[Any], now: float) -> None:
        if self.timer is not None and now >= self.timer:
            self.report(self.timer, now, reading)


class Subscription:
    """A machine and the reference side by side, on one clock, set and woken in the same moments."""

    def __init__(self, strategy: Strategy, parameters: tuple[float, ...], value: float = 0) -> None:
        self.machine = SamplingMachine(Sampling.of(strategy, parameters))
        self.reference = Reference(strategy, parameters)
        self.now = START
        self.reading: Reading[Any] = Reading(START, SensorStatus.NOMINAL, value)
        self.reports: list[Report] = []
        self._note(self.machine.start(self.reading, self.now), self.now)
        self.reference.report(self.now, self.now, self.reading)

    def _note(self, send: bool, due: float) -> None:
        if send:
            self.reports.append(Report(self.now, due, self.reading))

    def set(self, value: float, status: SensorStatus = SensorStatus.NOMINAL) -> None:
        self.reading = Reading(self.now, status, value)
        self._note(self.machine.update(self.reading, self.now), self.now)
        self.reference.set_value(self.reading, self.now)

    def wake(self) -> None:
        due = self.machine.wake_at
        self._note(self.machine.wake(self.reading, self.now), self.now if due is None else due)
        self.reference.wake(self.reading, self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, waking on the dot."""
        end = self.now + seconds
        while self.machine.wake_at is not None and self.machine.wake_at <= end:
            self.now = self.machine.wake_at
            self.wake()
        self.now = end

    def oversleep(self, seconds: float) -> None:
        """Let time pass, and wake only after all of it: the program was busy."""
        self.now += seconds
        while self.machine.wake_at is not None and self.machine.wake_at <= self.now:
            self.wake()

    def lag(self, seconds: float) -> None:
        """Let time pass, and do not wake at all yet: updates come before the timer is served."""
        self.now += seconds

    @property
    def told(self) -> list[tuple[float, Any]]:
        """Seconds since the start, and value, of each report."""
        return [(report.now - START, report.reading.value) for report in self.reports]


# Multiples of 1/8 s: sums and differences of them are exact, so gaps can be compared with the limits. Few of
# them, so that updates often fall on the very moment when a report is due.
eighths = st.integers(0, 12).map(lambda count: count / 8)
periods = st.integers(1, 12).map(lambda count: count / 8)
differences = st.sampled_from([0, 0.5, 1, 2.5, 3])
rates = st.tuples(eighths, periods | st.just(math.inf)).map(lambda pair: (min(pair), max(pair)))
strategies = st.one_of(
    st.just((Strategy.AUTO, ())),
    st.just((Strategy.EVENT, ())),
    st.tuples(st.just(Strategy.PERIOD), st.tuples(periods)),
    st.tuples(st.just(Strategy.DIFFERENTIAL), st.tuples(differences)),
    st.tuples(st.just(Strategy.EVENT_RATE), rates),
    st.tuples(
        st.just(Strategy.DIFFERENTIAL_RATE),
        st.builds(lambda difference, rate: (difference, *rate), differences, rates),
    ),
)
Action = Callable[[Subscription], None]
sets: st.SearchStrategy[Action] = st.builds(
    lambda value, status: lambda subscription: subscription.set(value, status),
    st.integers(0, 4),
    st.sampled_from([SensorStatus.NOMINAL, SensorStatus.NOMINAL, SensorStatus.WARN]),
)
advances: st.SearchStrategy[Action] = eighths.map(
    lambda seconds: lambda subscription: subscription.advance(seconds)
)
oversleeps: st.SearchStrategy[Action] = eighths.map(
    lambda seconds: lambda subscription: subscription.oversleep(seconds)
)
lags: st.SearchStrategy[Action] = eighths.map(lambda seconds: lambda subscription: subscription.lag(seconds))
wakes: st.SearchStrategy[Action] = st.just(Subscription.wake)
punctual = st.lists(sets | advances | wakes, max_size=30)
anyhow = st.lists(sets | advances | oversleeps | lags | wakes, max_size=30)
many = settings(max_examples=300, deadline=None)


@many
@given(strategies, anyhow)
def test_the_machine_does_what_the_table_says(
    strategy: tuple[Strategy, tuple[float, ...]], actions: list[Action]
) -> None:
    """In any sequence of updates and waits, punctual or late, reports and timers are those of the table."""
    subscription = Subscription(*strategy)
    for action in actions:
        action(subscription)
        assert subscription.reports == subscription.reference.reports
        assert subscription.machine.wake_at == subscription.reference.timer


@many
@given(strategies, punctual)
def test_reports_are_neither_too_close_nor_too_far_apart(
    strategy: tuple[Strategy, tuple[float, ...]], actions: list[Action]
) -> None:
    """Two reports are never closer than `shortest`, and quiet never lasts longer than `longest`."""
    subscription = Subscription(*strategy)
    sampling = Sampling.of(*strategy)
    for action in actions:
        action(subscription)
    moments = [report.now for report in subscription.reports]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(gap >= sampling.shortest for gap in gaps)
    if sampling.longest is not None:
        assert all(gap <= sampling.longest for gap in [*gaps, subscription.now - moments[-1]])


@many
@given(strategies, anyhow)
def test_even_a_late_sampler_does_not_run_ahead(
    strategy: tuple[Strategy, tuple[float, ...]], actions: list[Action]
) -> None:
    """Reports are never due closer than `shortest`, and none goes out before it is due."""
    subscription = Subscription(*strategy)
    sampling = Sampling.of(*strategy)
    for action in actions:
        action(subscription)
    due = [report.due for report in subscription.reports]
    assert all(later - earlier >= sampling.shortest for earlier, later in itertools.pairwise(due))
    assert all(report.now >= report.due for report in subscription.reports)


@many
@given(strategies, punctual)
def test_after_shortest_the_subscriber_knows(
    strategy: tuple[Strategy, tuple[float, ...]], actions: list[Action]
) -> None:
    """Once `shortest` has passed without an update, the last report is current within the difference."""
    subscription = Subscription(*strategy)
    sampling = Sampling.of(*strategy)
    for action in actions:
        action(subscription)
    subscription.advance(sampling.shortest)
    known = subscription.reports[-1].reading
    assert known.status == subscription.reading.status
    assert abs(known.value - subscription.reading.value) <= (sampling.difference or 0)


@many
@given(
    st.sampled_from([(Strategy.EVENT, ()), (Strategy.DIFFERENTIAL, (1,)), (Strategy.DIFFERENTIAL, (2.5,))]),
    anyhow,
)
def test_without_times_every_report_is_a_change(
    strategy: tuple[Strategy, tuple[float, ...]], actions: list[Action]
) -> None:
    """Event and differential never ask to be woken, and report nothing that did not move far enough."""
    subscription = Subscription(*strategy)
    for action in actions:
        action(subscription)
        assert subscription.machine.wake_at is None
    difference = sum(strategy[1])
    readings = [report.reading for report in subscription.reports]
    for earlier, later in itertools.pairwise(readings):
        assert earlier.status != later.status or abs(earlier.value - later.value) > difference


@many
@given(periods, punctual)
def test_period_reports_exactly_on_its_grid(period: float, actions: list[Action]) -> None:
    """Whatever changes in between, there is one report at each multiple of the period and no other."""
    subscription = Subscription(Strategy.PERIOD, (period,))
    for action in actions:
        action(subscription)
    elapsed = subscription.now - START
    grid = [START + step * period for step in range(int(elapsed / period) + 1)]
    assert [report.now for report in subscription.reports] == grid


@many
@given(anyhow)
def test_auto_reports_every_update(actions: list[Action]) -> None:
    """Each update is reported at once, a repeated value too, and nothing else is."""
    subscription = Subscription(Strategy.AUTO, ())
    updates = 0
    for action in actions:
        reading = subscription.reading
        action(subscription)
        updates += subscription.reading is not reading
        assert len(subscription.reports) == 1 + updates
        assert subscription.reports[-1].reading is subscription.reading


def test_a_change_between_grid_points_shows_at_the_next() -> None:
    """A period's report holds the latest value at its time; those between are never sent."""
    subscription = Subscription(Strategy.PERIOD, (10,), 0)
    subscription.advance(3)
    subscription.set(1)
    subscription.advance(3)
    subscription.set(2)
    subscription.advance(15)
    assert subscription.told == [(0, 0), (10, 2), (20, 2)]


def test_event_wants_another_value_or_another_status() -> None:
    """The same value again is no event, but with another status it is."""
    subscription = Subscription(Strategy.EVENT, (), 1)
    subscription.set(1)
    subscription.set(1, SensorStatus.WARN)
    subscription.set(1, SensorStatus.WARN)
    subscription.set(2, SensorStatus.WARN)
    assert [report.reading.status for report in subscription.reports] == [
        SensorStatus.NOMINAL,
        SensorStatus.WARN,
        SensorStatus.WARN,
    ]
    assert subscription.told == [(0, 1), (0, 1), (0, 2)]


def test_a_new_timestamp_alone_is_reported_by_auto_only() -> None:
    """The other strategies look at value and status."""
    for strategy, parameters, reports in [
        (Strategy.AUTO, (), 2),
        (Strategy.EVENT, (), 1),
        (Strategy.DIFFERENTIAL, (0,), 1),
        (Strategy.EVENT_RATE, (0, 100), 1),
    ]:
        subscription = Subscription(strategy, parameters, 1)
        subscription.advance(1)
        subscription.set(1)
        assert len(subscription.reports) == reports


def test_differential_compares_strictly_with_the_last_report() -> None:
    """Small steps add up until they exceed the difference; reaching it is not enough."""
    subscription = Subscription(Strategy.DIFFERENTIAL, (3,), 10)
    for value in (12, 13, 14, 16, 11, 10, 20):
        subscription.set(value)
    assert subscription.told == [(0, 10), (0, 14), (0, 10), (0, 20)]


def test_a_second_change_within_shortest_waits_for_it() -> None:
    """It is reported once, at exactly SHORT after the last report, with the latest value."""
    subscription = Subscription(Strategy.EVENT_RATE, (5, 100), 0)
    subscription.advance(10)
    subscription.set(1)
    for value in (2, 3, 4):
        subscription.advance(1)
        subscription.set(value)
    subscription.advance(20)
    assert subscription.told == [(0, 0), (10, 1), (15, 4)]


def test_a_change_at_exactly_shortest_goes_out_at_once() -> None:
    """SHORT after the last report the next may go, and need not wait to be woken."""
    subscription = Subscription(Strategy.EVENT_RATE, (5, 100), 0)
    subscription.advance(5)
    subscription.set(1)
    assert subscription.told == [(0, 0), (5, 1)]


def test_a_change_that_changed_back_is_reported_all_the_same() -> None:
    """Once a report waits for SHORT it goes out, with whatever the value is by then."""
    subscription = Subscription(Strategy.EVENT_RATE, (5, 100), 0)
    subscription.advance(1)
    subscription.set(1)
    subscription.set(0)
    subscription.advance(10)
    assert subscription.told == [(0, 0), (5, 0)]


def test_longest_counts_from_the_last_report_and_repeats_the_old_reading() -> None:
    """Without changes the same reading goes out again, its timestamp unchanged."""
    subscription = Subscription(Strategy.EVENT_RATE, (1, 10), 0)
    subscription.advance(4)
    subscription.set(7)
    subscription.advance(25)
    assert subscription.told == [(0, 0), (4, 7), (14, 7), (24, 7)]
    assert [report.reading.timestamp - START for report in subscription.reports] == [0, 4, 4, 4]


def test_differential_rate_joins_all_three() -> None:
    """A small move waits for LONG, a large one for SHORT."""
    subscription = Subscription(Strategy.DIFFERENTIAL_RATE, (2, 5, 20), 0)
    subscription.advance(6)
    subscription.set(1)
    subscription.advance(1)
    subscription.set(3)
    subscription.advance(1)
    subscription.set(6)
    subscription.advance(5)
    subscription.set(7)
    subscription.advance(25)
    assert subscription.told == [(0, 0), (7, 3), (12, 6), (32, 7)]


def test_a_late_report_does_not_shift_the_next() -> None:
    """A report sent late, but before the next is due, leaves the grid where it was."""
    subscription = Subscription(Strategy.PERIOD, (10,))
    subscription.oversleep(13)
    subscription.advance(20)
    assert subscription.told == [(0, 0), (13, 0), (20, 0), (30, 0)]


def test_missed_reports_are_not_made_up_for() -> None:
    """After a long pause there are two reports, not one for every period missed, and then a full period."""
    subscription = Subscription(Strategy.PERIOD, (10,))
    subscription.oversleep(1005)
    subscription.advance(10)
    assert subscription.told == [(0, 0), (1005, 0), (1005, 0), (1015, 0)]


def test_an_update_after_the_timer_should_have_fired_leaves_it_the_report() -> None:
    """A report that is overdue keeps its place on the grid though the sensor is set before it goes out."""
    subscription = Subscription(Strategy.PERIOD, (10,), 0)
    subscription.advance(5)
    subscription.set(1)
    subscription.lag(7)
    subscription.set(2)
    subscription.wake()
    subscription.advance(10)
    assert subscription.told == [(0, 0), (12, 2), (20, 2)]


@pytest.mark.parametrize(
    ("strategy", "parameters"), [(Strategy.EVENT, ()), (Strategy.DIFFERENTIAL, (1.0,)), (Strategy.AUTO, ())]
)
def test_not_a_number_is_always_a_change(strategy: Strategy, parameters: tuple[float, ...]) -> None:
    """To NaN, from NaN to NaN and back to a number are all reported."""
    machine = SamplingMachine(Sampling.of(strategy, parameters))
    machine.start(Reading(0.0, SensorStatus.NOMINAL, 1.0), 0.0)
    for value in (math.nan, math.nan, float("nan"), 1.0):
        assert machine.update(Reading(0.0, SensorStatus.NOMINAL, value), 0.0)


def test_a_lasting_infinity_is_no_change() -> None:
    """A value stuck at infinity is not reported again, and one that changes its sign is."""
    machine = SamplingMachine(Sampling.of(Strategy.DIFFERENTIAL, (1.0,)))
    assert machine.start(Reading(0.0, SensorStatus.NOMINAL, 1.0), 0.0)
    moves = [
        machine.update(Reading(0.0, SensorStatus.NOMINAL, value), 0.0)
        for value in (math.inf, math.inf, -math.inf, -math.inf, 0.0)
    ]
    assert moves == [True, False, True, False, True]


def test_a_machine_that_is_not_due_ignores_waking() -> None:
    """Waking early, or without a time to wake at, sends nothing and moves nothing."""
    reading = Reading(0.0, SensorStatus.NOMINAL, 1)
    event = SamplingMachine(Sampling.of(Strategy.EVENT))
    event.start(reading, 0.0)
    assert not event.wake(reading, 1000.0)
    period = SamplingMachine(Sampling.of(Strategy.PERIOD, (5,)))
    period.start(reading, 0.0)
    assert not period.wake(reading, 4.999)
    assert period.wake_at == 5
    assert period.wake(reading, 5)


@pytest.mark.parametrize(
    ("strategy", "parameters", "needs"),
    [
        (Strategy.AUTO, (), False),
        (Strategy.EVENT, (), False),
        (Strategy.DIFFERENTIAL, (1,), False),
        (Strategy.PERIOD, (1,), True),
        (Strategy.EVENT_RATE, (0, 1), True),
        (Strategy.EVENT_RATE, (0, math.inf), False),
        (Strategy.EVENT_RATE, (1, math.inf), True),
        (Strategy.DIFFERENTIAL_RATE, (1, 1, 2), True),
    ],
)
def test_only_strategies_with_times_need_the_time(
    strategy: Strategy, parameters: tuple[float, ...], needs: bool
) -> None:
    """`needs_time` is what lets a server skip the clock and the timer."""
    assert SamplingMachine(Sampling.of(strategy, parameters)).needs_time is needs


# What clients ask for


@pytest.mark.parametrize(
    ("sensor_type", "name", "raw", "words"),
    [
        (str, b"none", [], (b"none",)),
        (str, b"auto", [], (b"auto",)),
        (bool, b"event", [], (b"event",)),
        (str, b"period", [b"2"], (b"period", 2.0)),
        (int, b"differential", [b"2"], (b"differential", 2)),
        (float, b"differential", [b"2"], (b"differential", 2.0)),
        (str, b"event-rate", [b"1", b"2.5"], (b"event-rate", 1.0, 2.5)),
        (str, b"event-rate", [b"0", b"0.001"], (b"event-rate", 0.0, 0.001)),
        (str, b"event-rate", [b"3", b"3"], (b"event-rate", 3.0, 3.0)),
        (str, b"event-rate", [b"0.5", b"inf"], (b"event-rate", 0.5, math.inf)),
        (int, b"differential-rate", [b"0", b"1", b"2"], (b"differential-rate", 0, 1.0, 2.0)),
    ],
)
def test_a_request_is_echoed_with_decoded_values(
    sensor_type: type, name: bytes, raw: list[bytes], words: tuple[object, ...]
) -> None:
    """Times are floats, a difference is of the sensor's type, and the reply says so."""
    echoed = Sampling.parse(sensor_type, name, raw).words
    assert echoed == words
    assert [type(word) for word in echoed] == [type(word) for word in words]


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        (b"carrot", [], "b'carrot' is not a valid value for Strategy"),
        (b"AUTO", [], "is not a valid value for Strategy"),
        (b"event_rate", [b"1", b"2"], "is not a valid value for Strategy"),
        (b"none", [b"1"], "expected 0 strategy arguments, found 1"),
        (b"auto", [b"1"], "expected 0 strategy arguments, found 1"),
        (b"period", [], "expected 1 strategy arguments, found 0"),
        (b"differential-rate", [b"1", b"2"], "expected 3 strategy arguments, found 2"),
        (b"event-rate", [b"1", b"2", b"3"], "expected 2 strategy arguments, found 3"),
        (b"period", [b"foo"], "could not convert string to float: b'foo'"),
        (b"period", [b"0"], "period must be positive"),
        (b"period", [b"-1"], "period must be positive"),
        (b"event-rate", [b"0", b"0"], "period must be positive"),
        (b"event-rate", [b"-2", b"-1"], "period must be positive"),
        (b"differential-rate", [b"1", b"1", b"-1"], "period must be positive"),
        (b"period", [b"nan"], "period must be a finite number"),
        (b"period", [b"inf"], "period must be a finite number"),
        (b"period", [b"1e999"], "period must be a finite number"),
        (b"period", [b"1e-9"], "period must be at least 0.001 s"),
        (b"event-rate", [b"0", b"0.0009"], "period must be at least 0.001 s"),
        (b"event-rate", [b"nan", b"1"], "shortest must be a finite number"),
        (b"event-rate", [b"1", b"nan"], "longest must be a finite number"),
        (b"event-rate", [b"1", b"-inf"], "longest must be a finite number"),
        (b"event-rate", [b"inf", b"inf"], "shortest must be a finite number"),
        (b"event-rate", [b"5", b"1"], "expected 0 <= shortest <= longest"),
        (b"event-rate", [b"-1", b"1"], "expected 0 <= shortest <= longest"),
        (b"differential", [b"-1"], "difference must not be negative"),
        (b"differential", [b"nan"], "difference must be a finite number"),
        (b"differential", [b"inf"], "difference must be a finite number"),
        (b"differential-rate", [b"nan", b"1", b"2"], "difference must be a finite number"),
        (b"differential-rate", [b"-0.5", b"1", b"2"], "difference must not be negative"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(name: bytes, raw: list[bytes], text: str) -> None:
    """No client can ask for what would keep the server busy, or for what contradicts itself."""
    with pytest.raises(ValueError, match=text):
        Sampling.parse(float, name, raw)


def test_a_difference_is_decoded_as_the_sensor_is() -> None:
    """A fraction is no difference between integers."""
    with pytest.raises(ValueError, match="invalid literal for int"):
        Sampling.parse(int, b"differential", [b"1.5"])


def test_a_difference_between_integers_may_be_of_any_size() -> None:
    """An integer beyond the range of floats is a difference as any other."""
    huge = 10**400
    machine = SamplingMachine(Sampling.parse(int, b"differential", [b"%d" % huge]))
    machine.start(Reading(0.0, SensorStatus.NOMINAL, 0), 0.0)
    assert not machine.update(Reading(0.0, SensorStatus.NOMINAL, huge), 0.0)
    assert machine.update(Reading(0.0, SensorStatus.NOMINAL, huge + 1), 0.0)
    with pytest.raises(ValueError, match="difference must not be negative"):
        Sampling.parse(int, b"differential", [b"-%d" % huge])


@pytest.mark.parametrize("sensor_type", [bool, str, bytes, type("Metres", (float,), {}), Strategy])
@pytest.mark.parametrize(
    ("name", "raw"), [(b"differential", [b"1"]), (b"differential-rate", [b"1", b"1", b"2"])]
)
def test_only_exact_integers_and_floats_have_differences(
    sensor_type: type, name: bytes, raw: list[bytes]
) -> None:
    """Any other type of sensor, a subclass of float too, makes the differential strategies a TypeError."""
    with pytest.raises(TypeError) as info:
        Sampling.parse(sensor_type, name, raw)
    assert str(info.value) == "differential strategies only valid for integer and float sensors"


parameter_texts = st.floats().map(lambda value: repr(value).encode()) | st.sampled_from(
    [b"", b"x", b"0", b"1", b"2", b"-1", b"1e400", b"1" * 400, b"0.001", b"0.00099"]
)


@many
@given(
    st.sampled_from([int, float, str, bool]),
    st.sampled_from(Strategy).map(lambda strategy: strategy.name.lower().replace("_", "-").encode()),
    st.lists(parameter_texts, max_size=4),
)
def test_whatever_is_asked_for_is_sane_or_refused(sensor_type: type, name: bytes, raw: list[bytes]) -> None:
    """A request is an error, or a sampling with 0 <= shortest <= longest, which is 1 ms at least or none."""
    try:
        sampling = Sampling.parse(sensor_type, name, raw)
    except (ValueError, TypeError):
        return
    assert sampling.words[0] == name
    assert len(sampling.words) == 1 + len(raw)
    assert 0 <= sampling.shortest < math.inf
    if sampling.longest is None:
        assert sampling.shortest == 0 or sampling.parameters[-1] == math.inf
    else:
        assert sampling.shortest <= sampling.longest < math.inf
        assert sampling.longest >= SHORTEST_PERIOD
    if sampling.difference is not None:
        assert 0 <= sampling.difference < math.inf
        assert type(sampling.difference) is sensor_type


@pytest.mark.parametrize("parameters", [(), (1.0, 2.0)])
def test_numbers_are_counted_too(parameters: tuple[float, ...]) -> None:
    """A program's own parameters are checked as a client's are."""
    with pytest.raises(ValueError, match="expected 1 strategy arguments, found"):
        Sampling.of(Strategy.PERIOD, parameters)


def test_a_time_beyond_the_range_of_floats_is_refused() -> None:
    """An integer that no clock can be advanced by is no period, though it is finite."""
    with pytest.raises(ValueError, match="period must be a finite number"):
        Sampling.of(Strategy.PERIOD, (10**400,))


def test_a_preferred_strategy_calls_itself_auto() -> None:
    """What stands for ``auto`` behaves as it is, and is reported as ``auto`` without parameters."""
    preferred = Sampling.of(Strategy.DIFFERENTIAL_RATE, (2, 1.0, 5.0)).as_auto(int)
    assert preferred.words == (b"auto",)
    assert (preferred.always, preferred.difference, preferred.shortest, preferred.longest) == (
        False,
        2,
        1.0,
        5.0,
    )


def test_a_sensor_that_prefers_none_has_none() -> None:
    """``auto`` for such a sensor is no sampling, and says so."""
    assert Sampling.of(Strategy.NONE).as_auto(str).words == (b"none",)


def test_a_preference_that_does_not_fit_the_type_is_refused() -> None:
    """A text has no difference, not even as what ``auto`` stands for."""
    with pytest.raises(TypeError, match="only valid for integer and float sensors"):
        Sampling.of(Strategy.DIFFERENTIAL, (1.0,)).as_auto(str)
