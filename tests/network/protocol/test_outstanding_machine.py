"""Outstanding requests beside a naive model: anything in any order, and the invariants after every step.

The numbers of the checks are those of the invariants in `armillary.network.protocol.outstanding`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from armillary.network.protocol.outstanding import Outstanding, Stray
from armillary.network.protocol.peers import Peer
from armillary.network.protocol.refusals import Refused

PER_REQUESTER, PER_SERVICE, GIVEN_UP = 4, 6, 3
UIDS = ("", "1", "2", "3")


@dataclass(eq=False)
class Model:
    """One request that its service has not answered."""

    requester: Peer
    service: Peer
    uid: str
    is_streaming: bool
    is_given_up: bool = False


def peers(kind: str) -> Any:
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, kind)))


uids = st.sampled_from(UIDS)


class Traffic(RuleBasedStateMachine):
    """Requests, replies, forgeries; peers come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.outstanding: Outstanding[Peer] = Outstanding(
            "Manager[lab7:1875]",
            per_requester=PER_REQUESTER,
            per_service=PER_SERVICE,
            given_up_per_service=GIVEN_UP,
        )
        self.clients: list[Peer] = []
        self.services: list[Peer] = []
        self.requests: list[Model] = []
        """In the order in which they were forwarded."""
        self.given_up: list[Model] = []
        """In the order in which they were given up."""
        self.ended = dict.fromkeys(("forwarded", "answered", "given_up", "unanswered", "refused", "parts"), 0)
        self.strays = dict.fromkeys(Stray, 0)

    @property
    def everybody(self) -> list[Peer]:
        return [*self.clients, *self.services]

    @initialize(can_cancel=st.booleans())
    def begin(self, can_cancel: bool) -> None:
        for port in (1, 2, 3):
            self.clients.append(Peer("client", "C", f"lab7:{port}"))
        self.services.append(Peer("service", "DMM", "lab8:1"))
        features = frozenset({"cancel"} if can_cancel else ())
        self.services.append(Peer("service", "Scope", "lab8:2", features=features))

    # -- the model -----------------------------------------------------------------------------------------

    def of(self, requester: Peer) -> list[Model]:
        return [one for one in self.requests if one.requester is requester and not one.is_given_up]

    def at(self, service: Peer) -> list[Model]:
        return [one for one in self.requests if one.service is service]

    def everything(self) -> Any:
        """What anybody can see of the requests, except how many were refused."""
        outstanding = self.outstanding
        return (
            replace(outstanding.statistics(), refused=0),
            [(outstanding.in_flight_of(peer), outstanding.in_flight_at(peer)) for peer in self.everybody],
            [outstanding.asked(peer, uid) for peer in self.everybody for uid in UIDS],
        )

    def give_up(self, one: Model) -> None:
        one.is_given_up = True
        self.given_up.append(one)
        self.ended["given_up"] += 1
        mine = [other for other in self.given_up if other.service is one.service]
        if len(mine) > GIVEN_UP:
            self.drop(mine[0])

    def drop(self, one: Model) -> None:
        self.requests.remove(one)
        if one.is_given_up:
            self.given_up.remove(one)

    # -- what happens --------------------------------------------------------------------------------------

    @rule(requester=peers("everybody"), service=peers("services"), uid=uids, is_streaming=st.booleans())
    def forward(self, requester: Peer, service: Peer, uid: str, is_streaming: bool) -> None:
        """3, 4 and 6."""
        waiting = [one for one in self.at(service) if not one.is_given_up]
        allowed = (
            len(self.of(requester)) < PER_REQUESTER
            and len(waiting) < PER_SERVICE
            and not (uid and any(one.uid == uid for one in self.of(requester)))
            and not (
                uid
                and any(
                    one.uid == uid and one.requester.network_name == requester.network_name
                    for one in self.at(service)
                )
            )
        )
        if allowed:
            self.outstanding.forward(requester, service, uid, is_streaming=is_streaming)
            self.requests.append(Model(requester, service, uid, is_streaming))
            self.ended["forwarded"] += 1
        else:
            before = self.everything()
            with pytest.raises(Refused):
                self.outstanding.forward(requester, service, uid, is_streaming=is_streaming)
            self.ended["refused"] += 1
            assert before == self.everything()

    @rule(sender=peers("everybody"), requester=peers("everybody"), uid=uids, is_last=st.booleans())
    def answer(self, sender: Peer, requester: Peer, uid: str, is_last: bool) -> None:
        """2: true replies and forgeries, by anybody, for anybody."""
        name = requester.network_name
        asked = [one for one in self.at(sender) if one.uid == uid and one.requester.network_name == name]
        result = self.outstanding.answer(sender, name, uid, is_last=is_last)
        if not asked:
            elsewhere = any(one.uid == uid for one in self.of(requester))
            expected: Peer | Stray = Stray.ANOTHER_WAS_ASKED if elsewhere else Stray.NOT_ASKED
        else:
            one = asked[0]
            if one.is_given_up:
                expected = Stray.LATE
            elif is_last or one.is_streaming:
                expected = one.requester
                self.ended["answered" if is_last else "parts"] += 1
            else:
                expected = Stray.NOT_A_STREAM
            if is_last:
                self.drop(one)
        assert expected is result
        if isinstance(result, Stray):
            self.strays[result] += 1

    @rule(data=st.data())
    def answer_what_was_asked(self, data: st.DataObject) -> None:
        """2, and often enough."""
        if self.requests:
            one = data.draw(st.sampled_from(self.requests))
            self.answer(one.service, one.requester, one.uid, data.draw(st.booleans()))

    @rule(requester=peers("everybody"), uid=uids)
    def cancel(self, requester: Peer, uid: str) -> None:
        mine = [one for one in self.of(requester) if uid and one.uid == uid]
        result = self.outstanding.cancel(requester, uid)
        assert bool(mine) is (result is not None)
        if result is not None:
            assert (mine[0].service, uid) == (result.service, result.uid)
            assert result.can_be_cancelled is ("cancel" in result.service.features)
            self.give_up(mine[0])

    @rule(peer=peers("everybody"))
    def go(self, peer: Peer) -> None:
        """5: and somebody of the same name comes."""
        removal = self.outstanding.remove(peer)
        mine = self.of(peer)
        mine.sort(key=lambda one: not one.uid)
        expected = {
            (one.service, one.uid)
            for one in mine
            if one.uid and "cancel" in one.service.features and one.service is not peer
        }
        assert expected == {(one.service, one.uid) for one in removal.to_cancel}
        for one in mine:
            self.give_up(one)
        left = self.at(peer)
        assert sorted((one.requester.network_name, one.uid) for one in left if not one.is_given_up) == sorted(
            (one.requester.network_name, one.uid) for one in removal.unanswered
        )
        assert all(peer.name in error.message for _, _, error in removal.unanswered)
        self.ended["unanswered"] += len(removal.unanswered)
        for one in left:
            self.drop(one)
        crowd = self.clients if peer.type == "client" else self.services
        crowd.remove(peer)
        crowd.append(Peer(peer.type, peer.name, peer.address, features=peer.features))

    # -- what is true afterwards ---------------------------------------------------------------------------

    @invariant()
    def numbers_add_up(self) -> None:
        """1."""
        seen = self.outstanding.statistics()
        assert self.ended == {name: getattr(seen, name) for name in self.ended}
        assert self.strays == seen.strays
        assert seen.forwarded == seen.answered + seen.given_up + seen.unanswered + seen.in_flight
        assert seen.in_flight == sum(not one.is_given_up for one in self.requests)

    @invariant()
    def everybody_waits_for_what_the_model_says(self) -> None:
        """3 and 4."""
        for peer in self.everybody:
            mine = self.of(peer)
            assert len(mine) == self.outstanding.in_flight_of(peer) <= PER_REQUESTER
            waiting = [one for one in self.at(peer) if not one.is_given_up]
            assert len(waiting) == self.outstanding.in_flight_at(peer) <= PER_SERVICE
            named = {one.uid: one.service for one in mine if one.uid}
            assert len(named) == sum(bool(one.uid) for one in mine)
            assert named == {
                uid: service for uid in UIDS[1:] if (service := self.outstanding.asked(peer, uid)) is not None
            }

    @invariant()
    def nothing_is_left_of_who_has_gone(self) -> None:
        """5: every request that is kept is one of the model, and only those given up have no requester."""
        outstanding = self.outstanding
        assert set(outstanding._services) <= set(self.services)
        assert set(outstanding._requesters) <= {peer.network_name for peer in self.everybody}
        kept = [
            (request.requester, request.requester_name, request.service, request.uid)
            for at in outstanding._services.values()
            for request in [*at.named.values(), *(one for line in at.unnamed.values() for one in line)]
        ]
        assert len(self.requests) == len(kept)
        model = [
            (None if one.is_given_up else one.requester, one.requester.network_name, one.service, one.uid)
            for one in self.requests
        ]
        assert all(entry in model for entry in kept)
        given_up = [request for at in outstanding._services.values() for request in at.given_up]
        assert len(self.given_up) == len(given_up)
        assert all(request.requester is None for request in given_up)
        assert all(line for at in outstanding._services.values() for line in at.unnamed.values())
        assert all(len(at.given_up) <= GIVEN_UP for at in outstanding._services.values())


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
