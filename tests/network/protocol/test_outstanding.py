"""Requests without a reply: who gets what, and what happens when somebody goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from armillary.network.protocol.outstanding import Forwarded, Outstanding, Stray
from armillary.network.protocol.peers import Peer
from armillary.network.protocol.refusals import Refused

MANAGER = "Manager[lab7:1875]"
A, B = Peer("client", "A", "lab7:1"), Peer("client", "B", "lab7:2")
DMM = Peer("service", "DMM", "lab8:1")
SCOPE = Peer("service", "Scope", "lab8:2", features=frozenset({"cancel"}))


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(Refused) as info:
        function()
    return info.value.message


@pytest.fixture
def outstanding() -> Outstanding[Peer]:
    return Outstanding(MANAGER)


def test_a_reply_reaches_the_one_who_has_asked(outstanding: Outstanding[Peer]) -> None:
    """Two clients use the same uid, and each gets its own reply, once."""
    outstanding.forward(A, DMM, "1")
    outstanding.forward(B, DMM, "1")
    assert outstanding.answer(DMM, "B[lab7:2]", "1") is B
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is A
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is Stray.NOT_ASKED


def test_only_the_service_that_was_asked_can_answer(outstanding: Outstanding[Peer]) -> None:
    """Replies of all others are refused with a reason, and counted; the true one still comes."""
    outstanding.forward(A, DMM, "1")
    outstanding.forward(B, SCOPE, "2")
    assert outstanding.answer(SCOPE, "A[lab7:1]", "1") is Stray.ANOTHER_WAS_ASKED
    assert outstanding.answer(B, "A[lab7:1]", "1") is Stray.ANOTHER_WAS_ASKED
    assert outstanding.answer(A, "A[lab7:1]", "1") is Stray.ANOTHER_WAS_ASKED
    assert outstanding.answer(DMM, "A[lab7:1]", "2") is Stray.NOT_ASKED
    assert outstanding.answer(DMM, "nobody[lab7:9]", "1") is Stray.NOT_ASKED
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is A
    strays = outstanding.statistics().strays
    assert (3, 2) == (strays[Stray.ANOTHER_WAS_ASKED], strays[Stray.NOT_ASKED])


def test_a_uid_in_flight_cannot_be_used_again(outstanding: Outstanding[Peer]) -> None:
    """The second request of that uid is refused, wherever it goes; after the reply the uid is free."""
    outstanding.forward(A, DMM, "1")
    expected = "ValueError: the uid '1' belongs to an earlier request of A[lab7:1] without a reply"
    assert expected == refusal(lambda: outstanding.forward(A, DMM, "1"))
    assert expected == refusal(lambda: outstanding.forward(A, SCOPE, "1"))
    outstanding.answer(DMM, "A[lab7:1]", "1")
    outstanding.forward(A, SCOPE, "1")
    assert 2 == outstanding.statistics().refused


def test_the_uid_of_notifications_is_reserved(outstanding: Outstanding[Peer]) -> None:
    """A request whose reply would be taken for a notification is refused."""
    expected = "ValueError: 'notification' is reserved, it cannot be the uid of a request"
    assert expected == refusal(lambda: outstanding.forward(A, DMM, "notification"))


def test_requests_without_a_uid_are_answered_in_turn(outstanding: Outstanding[Peer]) -> None:
    """People at a terminal have several requests in flight, and each service answers its own in order."""
    for requester, service in [(A, DMM), (A, SCOPE), (A, DMM), (B, DMM)]:
        outstanding.forward(requester, service, "")
    assert 3 == outstanding.in_flight_of(A)
    assert outstanding.answer(DMM, "A[lab7:1]", "") is A
    assert outstanding.answer(DMM, "A[lab7:1]", "") is A
    assert outstanding.answer(DMM, "A[lab7:1]", "") is Stray.ANOTHER_WAS_ASKED
    assert outstanding.answer(SCOPE, "A[lab7:1]", "") is A
    assert outstanding.answer(DMM, "A[lab7:1]", "") is Stray.NOT_ASKED
    assert outstanding.answer(DMM, "B[lab7:2]", "") is B


def test_the_requests_of_a_service_that_goes_are_answered_at_once(outstanding: Outstanding[Peer]) -> None:
    """Everybody who waits for it gets an error that names it, with the uid; what went elsewhere stays."""
    outstanding.forward(A, DMM, "1")
    outstanding.forward(A, SCOPE, "2")
    outstanding.forward(B, DMM, "")
    removal = outstanding.remove(DMM)
    assert [(A, "1"), (B, "")] == [(requester, uid) for requester, uid, _ in removal.unanswered]
    assert {
        "ConnectionAbortedError: the 'DMM' Service disconnected from Manager[lab7:1875] before it replied"
    } == {error.message for _, _, error in removal.unanswered}
    assert [] == removal.to_cancel
    assert (1, 0) == (outstanding.in_flight_of(A), outstanding.in_flight_of(B))
    assert 0 == outstanding.in_flight_at(DMM)
    outstanding.forward(A, DMM, "1")


def test_late_replies_to_a_client_that_has_gone_are_dropped(outstanding: Outstanding[Peer]) -> None:
    """They reach nobody, are counted as late, and services that can are to be told to stop."""
    for uid, service in [("1", DMM), ("2", SCOPE), ("", SCOPE)]:
        outstanding.forward(A, service, uid)
    outstanding.forward(B, SCOPE, "2")
    removal = outstanding.remove(A)
    assert [] == removal.unanswered
    assert {"B[lab7:2]"} == set(outstanding._requesters)
    assert [("A[lab7:1]", "2", SCOPE)] == [
        (request.requester_name, request.uid, request.service) for request in removal.to_cancel
    ]
    assert (0, 1) == (outstanding.in_flight_at(DMM), outstanding.in_flight_at(SCOPE))
    for uid, service in [("1", DMM), ("2", SCOPE), ("", SCOPE)]:
        assert outstanding.answer(service, "A[lab7:1]", uid) is Stray.LATE
        assert outstanding.answer(service, "A[lab7:1]", uid) is Stray.NOT_ASKED
    assert 3 == outstanding.statistics().strays[Stray.LATE]
    assert outstanding.answer(SCOPE, "B[lab7:2]", "2") is B


def test_the_next_client_of_that_name_does_not_get_late_replies(outstanding: Outstanding[Peer]) -> None:
    """A client with the network name of one that has gone gets the replies to its own requests only."""
    outstanding.forward(A, DMM, "")
    outstanding.forward(A, DMM, "1")
    outstanding.remove(A)
    again = Peer("client", "A", "lab7:1")
    outstanding.forward(again, DMM, "")
    refusal(lambda: outstanding.forward(again, DMM, "1"))
    outstanding.forward(again, SCOPE, "1")
    assert outstanding.answer(DMM, "A[lab7:1]", "") is Stray.LATE
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is Stray.LATE
    assert outstanding.answer(DMM, "A[lab7:1]", "") is again
    assert outstanding.answer(SCOPE, "A[lab7:1]", "1") is again


def test_a_cancelled_request_gets_no_reply(outstanding: Outstanding[Peer]) -> None:
    """Its late reply is dropped, and the service is to be told if it knows what that means."""
    outstanding.forward(A, DMM, "1")
    outstanding.forward(A, SCOPE, "2")
    for uid, service, can_be_cancelled in [("1", DMM, False), ("2", SCOPE, True)]:
        request = outstanding.cancel(A, uid)
        assert isinstance(request, Forwarded)
        assert (service, can_be_cancelled) == (request.service, request.can_be_cancelled)
        assert outstanding.cancel(A, uid) is None
        assert outstanding.answer(service, "A[lab7:1]", uid) is Stray.LATE
    assert 0 == outstanding.in_flight_of(A)


def test_what_is_not_in_flight_cannot_be_cancelled(outstanding: Outstanding[Peer]) -> None:
    """Cancelling what was answered, what another has asked, or what has no uid does nothing."""
    outstanding.forward(A, DMM, "1")
    outstanding.forward(A, DMM, "")
    assert outstanding.cancel(B, "1") is None
    assert outstanding.cancel(A, "") is None
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is A
    assert outstanding.cancel(A, "1") is None
    assert outstanding.answer(DMM, "A[lab7:1]", "") is A


def test_what_a_service_was_asked_and_has_answered_is_counted(outstanding: Outstanding[Peer]) -> None:
    """The numbers are those of this service alone; what was cancelled counts as asked, parts do not count."""
    for uid in ("1", "2", "3"):
        outstanding.forward(A, DMM, uid, is_streaming=True)
    outstanding.forward(A, SCOPE, "4")
    outstanding.answer(DMM, "A[lab7:1]", "1", is_last=False)
    outstanding.answer(DMM, "A[lab7:1]", "1")
    outstanding.cancel(A, "2")
    outstanding.answer(DMM, "A[lab7:1]", "2")
    refusal(lambda: outstanding.forward(A, DMM, "3"))
    numbers = (outstanding.forwarded_to(DMM), outstanding.answered_by(DMM), outstanding.in_flight_at(DMM))
    assert numbers == (3, 1, 1)
    outstanding.remove(DMM)
    numbers = (outstanding.forwarded_to(DMM), outstanding.answered_by(DMM), outstanding.in_flight_at(DMM))
    assert numbers == (0, 0, 0)


def test_a_stream_has_items_and_an_end(outstanding: Outstanding[Peer]) -> None:
    """Items reach the one who asked, only from the service asked, and not after the end."""
    outstanding.forward(A, DMM, "1", is_streaming=True)
    for _ in range(3):
        assert outstanding.answer(DMM, "A[lab7:1]", "1", is_last=False) is A
        assert outstanding.answer(SCOPE, "A[lab7:1]", "1", is_last=False) is Stray.ANOTHER_WAS_ASKED
    assert 1 == outstanding.in_flight_at(DMM)
    assert outstanding.asked(A, "1") is DMM
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is A
    assert outstanding.answer(DMM, "A[lab7:1]", "1", is_last=False) is Stray.NOT_ASKED
    assert outstanding.asked(A, "1") is None
    assert 3 == outstanding.statistics().parts


def test_items_never_reach_whoever_wants_a_reply_whole(outstanding: Outstanding[Peer]) -> None:
    """A 1.0 client gets the reply and nothing before it."""
    outstanding.forward(A, DMM, "1")
    assert outstanding.answer(DMM, "A[lab7:1]", "1", is_last=False) is Stray.NOT_A_STREAM
    assert outstanding.answer(DMM, "A[lab7:1]", "1") is A


def test_a_cancelled_stream_drops_its_items_until_its_end(outstanding: Outstanding[Peer]) -> None:
    """Items that were on their way are late, and so is the end."""
    outstanding.forward(A, SCOPE, "1", is_streaming=True)
    outstanding.cancel(A, "1")
    assert outstanding.answer(SCOPE, "A[lab7:1]", "1", is_last=False) is Stray.LATE
    assert outstanding.answer(SCOPE, "A[lab7:1]", "1") is Stray.LATE
    assert outstanding.answer(SCOPE, "A[lab7:1]", "1") is Stray.NOT_ASKED


def test_a_requester_has_a_limit() -> None:
    """Beyond its limit a requester is refused, and others are not; an answer makes room."""
    outstanding: Outstanding[Peer] = Outstanding(MANAGER, per_requester=2)
    outstanding.forward(A, DMM, "1")
    outstanding.forward(A, SCOPE, "")
    expected = "RuntimeError: A[lab7:1] waits for 2 replies already, which is the limit"
    assert expected == refusal(lambda: outstanding.forward(A, DMM, "2"))
    outstanding.forward(B, DMM, "2")
    outstanding.answer(SCOPE, "A[lab7:1]", "")
    outstanding.forward(A, DMM, "2")
    assert 1 == outstanding.statistics().refused


def test_a_service_has_a_limit() -> None:
    """Beyond its limit a service gets no requests, and others do; what nobody waits for does not count."""
    outstanding: Outstanding[Peer] = Outstanding(MANAGER, per_service=2)
    outstanding.forward(A, DMM, "1")
    outstanding.forward(B, DMM, "1")
    expected = "RuntimeError: the 'DMM' Service has 2 requests to answer already, which is the limit"
    assert expected == refusal(lambda: outstanding.forward(A, DMM, "2"))
    outstanding.forward(A, SCOPE, "2")
    outstanding.cancel(A, "1")
    outstanding.forward(A, DMM, "3")


def test_what_a_service_never_answers_is_forgotten_in_the_end() -> None:
    """Of what was given up only the latest is remembered; a reply to what is forgotten reaches nobody."""
    outstanding: Outstanding[Peer] = Outstanding(MANAGER, given_up_per_service=2)
    outstanding.forward(A, DMM, "")
    for uid in ("1", "2"):
        outstanding.forward(B, DMM, uid)
    outstanding.forward(B, DMM, "")
    outstanding.cancel(B, "1")
    outstanding.cancel(B, "2")
    outstanding.remove(A)
    assert outstanding.answer(DMM, "B[lab7:2]", "1") is Stray.NOT_ASKED
    assert outstanding.answer(DMM, "B[lab7:2]", "2") is Stray.LATE
    assert outstanding.answer(DMM, "A[lab7:1]", "") is Stray.LATE
    assert outstanding.answer(DMM, "B[lab7:2]", "") is B


def test_a_forgotten_request_without_a_uid_does_not_disturb_the_turns() -> None:
    """Forgetting takes a request out of the line, wherever it stands, and the others keep their places."""
    outstanding: Outstanding[Peer] = Outstanding(MANAGER, given_up_per_service=1)
    for _ in range(3):
        outstanding.forward(A, DMM, "")
    outstanding.remove(A)
    again = Peer("client", "A", "lab7:1")
    outstanding.forward(again, DMM, "")
    assert outstanding.answer(DMM, "A[lab7:1]", "") is Stray.LATE
    assert outstanding.answer(DMM, "A[lab7:1]", "") is again


def test_limits_are_at_least_one() -> None:
    """A limit under which nothing could be forwarded is refused when it is given."""
    with pytest.raises(ValueError, match="at least 1"):
        Outstanding(MANAGER, per_requester=0)


def test_nothing_printable_holds_more_than_names() -> None:
    """A forwarded request is shown with its uid, its requester and its service."""
    outstanding: Outstanding[Peer] = Outstanding(MANAGER)
    outstanding.forward(A, DMM, "1")
    assert "<request '1' of A[lab7:1] to DMM[lab8:1]>" == repr(outstanding.cancel(A, "1"))
