from __future__ import annotations

import gc
import itertools
import weakref

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from armillary._wire.timetable import Timetable

keys = st.sampled_from("abcdef")
times = st.integers(0, 12).map(float)  # few, so that keys meet at one time and return to old ones


class TimetableAgainstDict(RuleBasedStateMachine):
    """The model is a dict from key to (deadline, serial number of the setting that gave it)."""

    def __init__(self) -> None:
        super().__init__()
        self.timetable = Timetable[str]()
        self.model: dict[str, tuple[float, int]] = {}
        self.serial = itertools.count()

    def model_set(self, key: str, at: float) -> None:
        if key not in self.model or self.model[key][0] != at:
            self.model[key] = (at, next(self.serial))

    @rule(key=keys, at=times)
    def set(self, key: str, at: float) -> None:
        self.timetable.set(key, at)
        self.model_set(key, at)

    @rule(key=keys)
    def discard(self, key: str) -> None:
        self.timetable.discard(key)
        self.model.pop(key, None)

    @rule(key=keys, at=times, repeat=st.integers(1, 30))
    def move_to_and_fro(self, key: str, at: float, repeat: int) -> None:
        for _ in range(repeat):
            self.set(key, at)
            self.set(key, at + 1)

    @rule(key=keys, at=times, repeat=st.integers(1, 30))
    def set_and_discard(self, key: str, at: float, repeat: int) -> None:
        for _ in range(repeat):
            self.set(key, at)
            self.discard(key)

    @rule(now=times)
    def pop_due(self, now: float) -> None:
        expected = sorted(
            ((key, at) for key, (at, _) in self.model.items() if at <= now),
            key=lambda entry: self.model[entry[0]],
        )
        assert list(self.timetable.pop_due(now)) == expected
        for key, _ in expected:
            del self.model[key]

    @rule(now=times, delay=st.integers(1, 5))
    def pop_due_setting_each_again(self, now: float, delay: int) -> None:
        for key, at in self.timetable.pop_due(now):
            due = min(self.model, key=self.model.__getitem__)
            assert (key, at) == (due, self.model.pop(due)[0])
            assert at <= now
            self.set(key, at + delay)
        assert all(at > now for at, _ in self.model.values())

    @rule(now=times)
    def take_one_and_stop(self, now: float) -> None:
        for key, at in self.timetable.pop_due(now):
            assert self.model.pop(key)[0] == at
            break

    @invariant()
    def it_is_as_long_as_the_model(self) -> None:
        assert len(self.timetable) == len(self.model)

    @invariant()
    def next_is_the_earliest_deadline(self) -> None:
        assert self.timetable.next() == min((at for at, _ in self.model.values()), default=None)

    @invariant()
    def the_heap_is_in_proportion(self) -> None:
        assert len(self.timetable._heap) <= 2 * len(self.model) + 16


TimetableAgainstDict.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


class TestTimetable(TimetableAgainstDict.TestCase):  # type: ignore[misc, valid-type]
    """Sets, moves, discards and wakes in any order do what they do to a dict, in no more memory."""


class Unordered:
    """Only `==` by identity, as a task or a sampler has it."""


def test_keys_need_no_order() -> None:
    """Keys that cannot be compared come out first in, first out where their deadlines are equal."""
    timetable = Timetable[Unordered]()
    waiting = [Unordered() for _ in range(20)]
    for key in waiting:
        timetable.set(key, 1.0)
    assert list(timetable.pop_due(1.0)) == [(key, 1.0) for key in waiting]


def test_a_key_that_comes_back_to_an_old_deadline_queues_again() -> None:
    """An entry that was given up does not keep its place: the order is that of the latest settings."""
    timetable = Timetable[str]()
    for key, at in [("a", 5.0), ("a", 3.0), ("b", 5.0), ("a", 5.0)]:
        timetable.set(key, at)
    assert list(timetable.pop_due(5.0)) == [("b", 5.0), ("a", 5.0)]


def test_setting_the_same_deadline_keeps_the_place() -> None:
    """Saying again what holds already changes nothing."""
    timetable = Timetable[str]()
    for key in ("a", "b", "a"):
        timetable.set(key, 5.0)
    assert list(timetable.pop_due(5.0)) == [("a", 5.0), ("b", 5.0)]


def test_a_deadline_is_due_at_its_own_time_and_not_before() -> None:
    """`pop_due` includes the deadline itself."""
    timetable = Timetable[str]()
    timetable.set("a", 5.0)
    assert list(timetable.pop_due(4.999)) == []
    assert list(timetable.pop_due(5.0)) == [("a", 5.0)]
    assert timetable.next() is None


def test_a_key_set_while_popping_is_popped_when_it_is_due_too() -> None:
    """A key that its owner sets again to a time that has come is yielded in the same pass."""
    timetable = Timetable[str]()
    timetable.set("a", 1.0)
    popped = []
    for key, at in timetable.pop_due(3.0):
        popped.append(at)
        timetable.set(key, at + 1)
    assert popped == [1.0, 2.0, 3.0]
    assert timetable.next() == 4.0


def test_discarding_what_is_not_there_is_silent() -> None:
    """A sampler may be discarded after it was woken."""
    timetable = Timetable[str]()
    timetable.discard("a")
    timetable.set("a", 1.0)
    list(timetable.pop_due(1.0))
    timetable.discard("a")
    assert len(timetable) == 0


def test_most_of_many_keys_can_leave_without_staying_in_memory() -> None:
    """Discarding nearly all keys frees them, though nothing is set or woken any more."""
    timetable = Timetable[Unordered]()
    stays = Unordered()
    timetable.set(stays, 0.0)
    leaving = [Unordered() for _ in range(1000)]
    gone = [weakref.ref(key) for key in leaving]
    for key in leaving:
        timetable.set(key, 1.0)
    while leaving:
        timetable.discard(leaving.pop())
    del key
    gc.collect()
    assert sum(ref() is not None for ref in gone) <= 18


def test_an_empty_timetable_keeps_no_key_alive() -> None:
    """When the last key is discarded, nothing of those before it is held."""
    timetable = Timetable[Unordered]()
    key = Unordered()
    gone = weakref.ref(key)
    timetable.set(key, 1.0)
    timetable.set(key, 2.0)
    timetable.discard(key)
    del key
    gc.collect()
    assert gone() is None
