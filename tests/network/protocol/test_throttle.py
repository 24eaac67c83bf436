"""Failed logins slow down their address: what is let through, what waits, what is forgotten."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from armillary.network.protocol.throttle import (
    FIRST,
    FORGET_AFTER,
    FREE,
    LONGEST,
    RETRY,
    LoginThrottle,
    Outcome,
    address_key,
)

FAILED, NEUTRAL, SUCCEEDED = Outcome.FAILED, Outcome.NEUTRAL, Outcome.SUCCEEDED
HERE = "192.0.2.7"


def fail(throttle: LoginThrottle, now: float, username: str | None = None, address: str = HERE) -> float:
    """Fail once, as soon as that is possible; return when that was."""
    while wait := throttle.admit(address, now):
        now += wait
    throttle.settle(address, username, FAILED, now)
    return now


def test_pauses_double_up_to_a_limit() -> None:
    """The first attempts need not wait; then pauses are 1, 2, 4 ... seconds, up to the limit."""
    throttle, now = LoginThrottle(), 0.0
    times = [0.0]
    for _ in range(FREE + 8):
        now = fail(throttle, now)
        times.append(now)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert [0.0] * FREE + [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] == pauses
    assert (FIRST, LONGEST) == (pauses[FREE], pauses[-1])


def test_very_many_failures_are_no_problem() -> None:
    """The pause stays at its limit when the failures are too many for a power of two."""
    throttle, now = LoginThrottle(forget_after=1e9), 0.0
    for _ in range(2_000):
        now = fail(throttle, now)
    assert LONGEST == throttle.admit(HERE, now)


def test_guessing_over_many_connections_is_no_faster() -> None:
    """A hundred attempts at once: no more are checked than may fail for free, and then one for each pause."""
    throttle = LoginThrottle()
    waits = [throttle.admit(HERE, 0.0) for _ in range(100)]
    assert [0.0] * FREE + [RETRY] * (100 - FREE) == waits
    for _ in range(FREE):
        throttle.settle(HERE, None, FAILED, 0.0)
    assert [1.0] * 95 == [throttle.admit(HERE, 0.0) for _ in range(95)]
    assert [0.0] + [RETRY] * 94 == [throttle.admit(HERE, 1.0) for _ in range(95)]
    throttle.settle(HERE, None, FAILED, 1.2)
    assert 2.0 == throttle.admit(HERE, 1.2)


def test_programs_that_start_together_get_in() -> None:
    """Attempts that succeed make room for those that wait, and leave nothing behind."""
    throttle, now, waiting = LoginThrottle(), 0.0, 100
    while waiting:
        admitted = 0
        while admitted < waiting and not throttle.admit(HERE, now):
            admitted += 1
        assert admitted == min(FREE, waiting)
        for _ in range(admitted):
            throttle.settle(HERE, "marie", SUCCEEDED, now)
        waiting -= admitted
        now += RETRY
    assert 0 == len(throttle)


def test_success_excuses_the_same_users_failures_only() -> None:
    """Who has an account cannot buy more guesses at another's with it."""
    throttle, now = LoginThrottle(), 0.0
    for _ in range(FREE - 1):
        now = fail(throttle, now, "marie")
    for _ in range(2):
        assert 0.0 == throttle.admit(HERE, now)
        throttle.settle(HERE, "mallory", SUCCEEDED, now)
    assert FREE - 1 == throttle.failures(HERE, now)
    now = fail(throttle, now, "marie")
    assert FIRST == throttle.admit(HERE, now)
    assert 0.0 == throttle.admit(HERE, now + FIRST)
    throttle.settle(HERE, "marie", SUCCEEDED, now + FIRST)
    assert 0 == throttle.failures(HERE, now + FIRST)
    assert 0.0 == throttle.admit(HERE, now + FIRST)


def test_what_says_nothing_of_a_password_costs_nothing() -> None:
    """A neutral attempt neither counts nor excuses, and the next one need not wait for it."""
    throttle = LoginThrottle()
    now = 0.0
    for _ in range(FREE):
        now = fail(throttle, now, "marie")
    now += FIRST
    for _ in range(3):
        assert 0.0 == throttle.admit(HERE, now)
        throttle.settle(HERE, "marie", NEUTRAL, now)
    assert FREE == throttle.failures(HERE, now)


def test_failures_are_forgotten_after_a_while() -> None:
    """A quarter of an hour without a failure, and an address is as good as any."""
    throttle, now = LoginThrottle(), 0.0
    for _ in range(FREE + 4):
        now = fail(throttle, now)
    assert FREE + 4 == throttle.failures(HERE, now + FORGET_AFTER - 1)
    assert 0 == throttle.failures(HERE, now + FORGET_AFTER)
    assert [0.0] * FREE == [throttle.admit(HERE, now + FORGET_AFTER) for _ in range(FREE)]


def test_forgotten_failures_do_not_delay_an_attempt() -> None:
    """Nobody has to ask for the failures first: an attempt after a quarter of an hour need not wait."""
    throttle, now = LoginThrottle(first=2000.0, longest=2000.0), 0.0
    for _ in range(FREE):
        now = fail(throttle, now)
    assert 2000.0 == throttle.admit(HERE, now)
    assert 0.0 == throttle.admit(HERE, now + FORGET_AFTER)


def test_a_check_that_takes_for_ever_does_not_keep_old_failures() -> None:
    """Failures that were forgotten while an attempt was being checked do not come back with its own."""
    throttle = LoginThrottle()
    fail(throttle, 0.0)
    fail(throttle, 0.0)
    assert 0.0 == throttle.admit(HERE, 1.0)
    throttle.settle(HERE, None, FAILED, FORGET_AFTER)
    assert 1 == throttle.failures(HERE, FORGET_AFTER)


def test_expired_addresses_can_be_thrown_away() -> None:
    """What is forgotten needs no memory, unless something is being checked."""
    throttle = LoginThrottle()
    fail(throttle, 0.0, address="192.0.2.1")
    fail(throttle, 100.0, address="192.0.2.2")
    assert 0.0 == throttle.admit("192.0.2.3", 0.0)
    throttle.forget_expired(FORGET_AFTER)
    assert 2 == len(throttle)
    throttle.settle("192.0.2.3", None, SUCCEEDED, FORGET_AFTER)
    assert 1 == len(throttle)


def test_the_quietest_address_is_forgotten_first() -> None:
    """Beyond the limit, whoever was quiet for longest goes; who is being checked does not count."""
    throttle = LoginThrottle(addresses=2)
    assert 0.0 == throttle.admit("192.0.2.0", 0.0)
    for last in (1, 2, 1, 3):
        fail(throttle, float(last), address=f"192.0.2.{last}")
    assert 3 == len(throttle)
    assert [0, 2, 0, 1] == [throttle.failures(f"192.0.2.{last}", 3.0) for last in range(4)]
    throttle.settle("192.0.2.0", None, FAILED, 3.0)
    assert 2 == len(throttle)
    assert [1, 0, 0, 1] == [throttle.failures(f"192.0.2.{last}", 3.0) for last in range(4)]


def test_names_are_bounded() -> None:
    """Guessing many names is counted, and does not fill the memory."""
    throttle, now = LoginThrottle(), 0.0
    for guess in range(100):
        now = fail(throttle, now, f"user{guess}")
    assert 100 == throttle.failures(HERE, now)
    (one,) = throttle._quiet.values()
    assert 17 >= len(one.failures)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "127.0.0.1", False),
        ("a peer in memory", "a peer in memory", True),
        ("a peer in memory", "another", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    """An IPv4 address, however it is written, or an IPv6 network of 64 bits, which one host may have."""
    assert same is (address_key(one) == address_key(other))


@pytest.mark.parametrize("options", [{"free": 0}, {"addresses": 0}, {"first": 0.0}, {"first": 40.0}])
def test_limits_that_make_no_sense(options: dict[str, float]) -> None:
    """They are refused when they are given."""
    with pytest.raises(ValueError, match="expected"):
        LoginThrottle(**options)  # type: ignore[arg-type]


class Attempts(RuleBasedStateMachine):
    """Any attempts from a few addresses; the numbers are those of the invariants in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.throttle = LoginThrottle(free=3, forget_after=60.0, addresses=2)
        self.now = 0.0
        self.checking: list[tuple[str, str]] = []
        self.not_before: dict[str, float] = {}

    @rule(address=st.sampled_from("ABC"), username=st.sampled_from(["marie", "pierre"]))
    def admit(self, address: str, username: str) -> None:
        """2."""
        failures = self.throttle.failures(address, self.now)
        wait = self.throttle.admit(address, self.now)
        if wait == 0.0:
            assert failures < 3 or self.now >= self.not_before[address]
            self.checking.append((address, username))
        else:
            assert 0.0 < wait <= 30.0
            assert failures or any(address == other for other, _ in self.checking)

    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        if self.checking:
            address, username = data.draw(st.sampled_from(self.checking))
            self.checking.remove((address, username))
            before = self.throttle.failures(address, self.now)
            self.throttle.settle(address, username, outcome, self.now)
            after = self.throttle.failures(address, self.now)
            if outcome is Outcome.FAILED:
                assert after >= before + 1
                self.not_before[address] = self.now + (min(2.0 ** (after - 3), 30.0) if after >= 3 else 0.0)
            elif outcome is Outcome.NEUTRAL:
                assert after == before
            else:
                assert after <= before

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def clean(self) -> None:
        self.throttle.forget_expired(self.now)

    @invariant()
    def guesses_are_bounded(self) -> None:
        """1."""
        for address in "ABC":
            checking = sum(other == address for other, _ in self.checking)
            failures = self.throttle.failures(address, self.now)
            assert checking + failures <= 3 if failures < 3 else checking <= 1

    @invariant()
    def memory_is_bounded(self) -> None:
        """3."""
        assert {address for address, _ in self.checking} == set(self.throttle._busy)
        assert set(self.throttle._busy).isdisjoint(self.throttle._quiet)
        assert len(self.throttle._quiet) <= 2


TestAttempts = Attempts.TestCase
TestAttempts.settings = settings(deadline=None)
