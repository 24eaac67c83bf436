"""A client's states as a machine."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from armillary.katcp.protocol.lifecycle import TRANSITIONS, ClientEvent, ClientState, Lifecycle


class Events(RuleBasedStateMachine):
    """Any events in any order."""

    @initialize(reconnects=st.booleans())
    def begin(self, reconnects: bool) -> None:
        self.lifecycle = Lifecycle(reconnects=reconnects)
        self.closing = False

    @rule(event=st.sampled_from(ClientEvent))
    def happen(self, event: ClientEvent) -> None:
        before = self.lifecycle.state
        self.closing |= event is ClientEvent.CLOSE
        changed = self.lifecycle.advance(event)
        after = self.lifecycle.state
        expected = TRANSITIONS.get((before, event), before)
        if expected is ClientState.SLEEPING and changed and (self.closing or not self.lifecycle.reconnects):
            expected = ClientState.CLOSED
        assert expected is after
        assert changed == (after is not before)

    @invariant()
    def closed_is_final(self) -> None:
        if self.lifecycle.state is ClientState.CLOSED:
            assert self.closing or not self.lifecycle.reconnects
            assert not any(state is ClientState.CLOSED for state, _ in TRANSITIONS)

    @invariant()
    def sleeping_means_there_will_be_another_attempt(self) -> None:
        if self.lifecycle.state is ClientState.SLEEPING:
            assert not self.closing
            assert self.lifecycle.reconnects


TestEvents = Events.TestCase


def test_every_state_can_be_left_and_reached() -> None:
    """Every state but CLOSED has a way out, and every state has a way in."""
    reached = set(TRANSITIONS.values()) | {ClientState.CONNECTING}
    left = {state for state, _ in TRANSITIONS}
    assert set(ClientState) == reached
    assert set(ClientState) - {ClientState.CLOSED} == left


def test_closing_is_always_possible() -> None:
    """From every state, CLOSE and the end of the connection lead to CLOSED."""
    for state in ClientState:
        lifecycle = Lifecycle()
        lifecycle.state = state
        lifecycle.advance(ClientEvent.CLOSE)
        lifecycle.advance(ClientEvent.STREAM_DOWN)
        assert ClientState.CLOSED is lifecycle.state
