"""A manager's side of the handshake: which questions, in which order, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from armillary.network.protocol.credentials import (
    Action,
    Ask,
    Awaited,
    Close,
    FindUser,
    Login,
    Pause,
    Record,
    Reject,
    VerifyLogin,
    VerifyManagerPassword,
)
from armillary.network.protocol.handshake import (
    HANDSHAKE_LIMIT,
    Authentication,
    CheckIdentity,
    Connected,
    ManagerHandshake,
)
from armillary.network.protocol.refusals import Refused
from armillary.network.protocol.throttle import FREE, LoginThrottle, Outcome

MANAGER = "Manager[lab7:1875]"
ADDRESS = "192.0.2.7"
IDENTITY = {"type": "client", "name": "Bench A"}
BEGIN = Record("new connection request")
END = Record("disconnected")
NONE, PASSWORD = Authentication.NONE, Authentication.MANAGER_PASSWORD
HOSTNAMES, LOGIN = Authentication.HOSTNAMES, Authentication.LOGIN


def handshake(authentication: Authentication, **options: Any) -> ManagerHandshake:
    options.setdefault("throttle", LoginThrottle())
    return ManagerHandshake(authentication, manager_name=MANAGER, address=ADDRESS, **options)


def seen(actions: list[Action]) -> list[Action | str]:
    """The actions, with rejections as texts, since errors are only equal to themselves."""
    return [action.error.message if isinstance(action, Reject) else action for action in actions]


def failed(times: int) -> tuple[LoginThrottle, float]:
    """A throttle that has seen as many failures from the address, and when the last of them was."""
    throttle, now = LoginThrottle(), 0.0
    for _ in range(times):
        while wait := throttle.admit(ADDRESS, now):
            now += wait
        throttle.settle(ADDRESS, None, Outcome.FAILED, now)
    return throttle, now


# -- the four ways to let somebody in ----------------------------------------------------------------------


def test_without_authentication() -> None:
    """The identity is asked for, with what is offered, and the peer is in without another word."""
    shake = handshake(NONE, features=("cancel", "ping"))
    assert [BEGIN, Ask("identity", features=("cancel", "ping"))] == shake.start(0.0)
    assert [CheckIdentity(IDENTITY)] == shake.answered(IDENTITY, 1.0)
    assert [Record("connected as a client"), Connected("client", None)] == shake.identified("client", 1.0)
    assert shake.awaited is Awaited.NOTHING
    assert [END] == shake.closed(9.0)
    assert [] == shake.closed(9.0)


def test_with_the_managers_password() -> None:
    """The password is asked for with the manager's name, checked by the caller, and then the identity."""
    shake = handshake(PASSWORD)
    assert [BEGIN, Ask("password", (MANAGER,))] == shake.start(0.0)
    assert [VerifyManagerPassword("sesame")] == shake.answered("sesame", 1.0)
    assert [Ask("identity")] == shake.verified(True, 1.2)
    assert [CheckIdentity(IDENTITY)] == shake.answered(IDENTITY, 2.0)
    connected = [Record("connected as a service"), Connected("service", None)]
    assert connected == shake.identified("service", 2.0)


@pytest.mark.parametrize("is_admin", [False, True])
def test_with_a_login(is_admin: bool) -> None:
    """Username, password with the username, identity; the caller knows the users."""
    shake = handshake(LOGIN)
    assert [BEGIN, Ask("username", (MANAGER,))] == shake.start(0.0)
    assert [FindUser("marie")] == shake.answered("marie", 1.0)
    assert [Ask("password", ("marie",))] == shake.found(True, 1.0)
    assert [VerifyLogin("marie", "polonium")] == shake.answered("polonium", 2.0)
    assert [Ask("identity")] == shake.verified(True, 2.2, is_admin=is_admin)
    shake.answered(IDENTITY, 3.0)
    login = Login("marie", is_admin)
    connected = [Record("connected as a client"), Connected("client", login)]
    assert connected == shake.identified("client", 3.0)


def test_with_trusted_hostnames() -> None:
    """Who comes from a trusted host is asked for its identity only."""
    shake = handshake(HOSTNAMES, hostname="bench", trusted_hostnames={"bench"})
    assert [BEGIN, Ask("identity")] == shake.start(0.0)


# -- rejections --------------------------------------------------------------------------------------------


def test_a_wrong_password_of_the_manager() -> None:
    """It is rejected in the words of 1.0, and recorded."""
    shake = handshake(PASSWORD)
    shake.start(0.0)
    shake.answered("simsalabim", 1.0)
    rejected = [Record("rejected: wrong Manager password"), "ValueError: Wrong Manager password"]
    assert rejected == seen(shake.verified(False, 1.0))
    assert [END] == shake.closed(2.0)


def test_an_unknown_user() -> None:
    """A user whom nobody knows is not asked for a password."""
    shake = handshake(LOGIN)
    shake.start(0.0)
    shake.answered("nobody", 1.0)
    rejected = [Record("rejected: unregistered user"), "ValueError: Unregistered user"]
    assert rejected == seen(shake.found(False, 1.0))
    assert [END] == shake.closed(2.0)


def test_a_users_wrong_password() -> None:
    """It is rejected in the words of 1.0, and recorded."""
    shake = handshake(LOGIN)
    shake.start(0.0)
    shake.answered("marie", 1.0)
    shake.found(True, 1.0)
    shake.answered("radium", 2.0)
    rejected = [Record("rejected: wrong login password"), "ValueError: Wrong login password"]
    assert rejected == seen(shake.verified(False, 2.0))
    assert [END] == shake.closed(2.0)


def test_an_untrusted_hostname() -> None:
    """Who comes from elsewhere is told so at once, and asked nothing."""
    shake = handshake(HOSTNAMES, hostname="badhost", trusted_hostnames=["bench"])
    assert [
        BEGIN,
        Record("rejected: untrusted hostname"),
        "ValueError: 'badhost' is not a trusted hostname",
    ] == seen(shake.start(0.0))
    assert [END] == shake.closed(2.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("attributes"), "KeyError: 'attributes'"),
        (
            TypeError('Unknown connection type \'x\'. Must be "client" or "service"'),
            'TypeError: Unknown connection type \'x\'. Must be "client" or "service"',
        ),
        (
            Refused(NameError, "A 'DMM' service is already running on the Manager"),
            "NameError: A 'DMM' service is already running on the Manager",
        ),
    ],
)
def test_an_identity_that_is_none(error: Exception, message: str) -> None:
    """What the caller has found wrong with an identity is what the peer is told."""
    shake = handshake(NONE)
    shake.start(0.0)
    shake.answered("something", 1.0)
    assert [Record("rejected: invalid identity"), message] == seen(shake.not_identified(error, 1.0))
    assert [END] == shake.closed(2.0)


@pytest.mark.parametrize("value", ["", "  ", None, 123, ["marie"], {"name": "marie"}, True])
@pytest.mark.parametrize("missing", ["username", "password"])
def test_an_empty_credential_ends_the_handshake(missing: str, value: object) -> None:
    """What is no text, or an empty one, is answered with an error and the end, not with silence."""
    shake = handshake(LOGIN)
    shake.start(0.0)
    if missing == "password":
        shake.answered("marie", 0.0)
        shake.found(True, 0.0)
    assert [
        Record(f"connection closed before receiving the {missing}"),
        f"ValueError: The {missing} must be a text that is not empty",
    ] == seen(shake.answered(value, 1.0))
    assert [] == shake.closed(1.0)


@pytest.mark.parametrize("authentication", [NONE, PASSWORD, LOGIN])
def test_bytes_that_are_no_text_end_the_handshake(authentication: Authentication) -> None:
    """A device that begins with TLS is not answered in a language that it does not speak."""
    shake = handshake(authentication)
    shake.start(0.0)
    assert [Record("connection closed prematurely"), Close()] == shake.undecodable(1.0)
    assert [] == shake.closed(1.0)


# -- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authentication", "answers", "record"),
    [
        (NONE, 0, "connection closed prematurely"),
        (HOSTNAMES, 0, "connection closed prematurely"),
        (PASSWORD, 0, "connection closed before receiving the password"),
        (PASSWORD, 1, "connection closed prematurely"),
        (LOGIN, 0, "connection closed before receiving the username"),
        (LOGIN, 1, "connection closed before receiving the password"),
        (LOGIN, 2, "connection closed prematurely"),
    ],
)
def test_a_peer_that_leaves_early(authentication: Authentication, answers: int, record: str) -> None:
    """What it has not answered is recorded, once, also if it was silent until the deadline."""

    def begin() -> ManagerHandshake:
        shake = handshake(authentication, hostname="bench", trusted_hostnames=["bench"])
        shake.start(0.0)
        for step in range(answers):
            shake.answered("x", 0.0)
            if authentication is LOGIN and step == 0:
                shake.found(True, 0.0)
            else:
                shake.verified(True, 0.0)
        return shake

    assert [Record(record)] == begin().closed(1.0)
    late = begin()
    assert HANDSHAKE_LIMIT == late.deadline
    assert [Record(record), "TimeoutError: The handshake was not completed within 60 seconds"] == seen(
        late.timed_out(HANDSHAKE_LIMIT)
    )
    assert [] == late.closed(HANDSHAKE_LIMIT)


def test_nothing_is_recorded_before_the_beginning() -> None:
    """A connection that ends before its handshake has begun was none."""
    assert [] == handshake(NONE).closed(0.0)


def test_the_deadline_is_for_the_peer_alone() -> None:
    """Checking its answers costs the peer nothing, its own time does, and at the end there is no deadline."""
    shake = handshake(LOGIN, time_limit=30.0)
    shake.start(0.0)
    assert 30.0 == shake.deadline
    shake.answered("marie", 10.0)
    assert shake.deadline is None
    assert [] == shake.timed_out(1000.0)
    shake.found(True, 500.0)
    assert 520.0 == shake.deadline
    shake.answered("polonium", 515.0)
    shake.verified(True, 600.0)
    assert 605.0 == shake.deadline
    shake.answered(IDENTITY, 601.0)
    assert shake.deadline is None
    shake.identified("client", 700.0)
    assert shake.deadline is None
    assert [] == shake.timed_out(1000.0)


def test_what_is_not_awaited_is_a_mistake_of_the_caller() -> None:
    """It is told what is awaited, and nothing of what the peer has said."""
    shake = handshake(LOGIN)
    shake.start(0.0)
    with pytest.raises(
        RuntimeError, match="was told whether a password is right, but waits for the peer's answer"
    ):
        shake.verified(True, 0.0)
    shake.answered("marie", 0.0)
    with pytest.raises(RuntimeError) as info:
        shake.answered("polonium", 0.0)
    assert "polonium" not in str(info.value)
    assert [Ask("password", ("marie",))] == shake.found(True, 0.0)


# -- failed logins -----------------------------------------------------------------------------------------


def test_after_some_failures_there_is_a_pause() -> None:
    """The next attempt from that address waits, says so, and is checked then."""
    throttle, now = failed(FREE)
    shake = handshake(PASSWORD, throttle=throttle)
    shake.start(now)
    assert [Pause(now + 1.0)] == shake.answered("sesame", now)
    assert shake.deadline is None
    assert [Pause(now + 1.0)] == shake.resume(now + 0.5)
    assert [VerifyManagerPassword("sesame")] == shake.resume(now + 1.0)
    assert [Ask("identity")] == shake.verified(True, now + 1.0)
    assert now + HANDSHAKE_LIMIT == shake.deadline


def test_other_addresses_do_not_pause() -> None:
    """Somebody else's failures cost nobody anything."""
    throttle, now = failed(FREE + 3)
    shake = ManagerHandshake(PASSWORD, manager_name=MANAGER, address="192.0.2.8", throttle=throttle)
    shake.start(now)
    assert [VerifyManagerPassword("sesame")] == shake.answered("sesame", now)


def test_pauses_count_against_the_time_limit() -> None:
    """Who would have to wait for longer than a handshake may last is told to come back later."""
    throttle, now = failed(FREE + 3)
    shake = handshake(PASSWORD, throttle=throttle, time_limit=5.0)
    shake.start(now)
    assert [
        Record("rejected: too many failed logins"),
        "PermissionError: Too many failed logins from your address, try again in 8 seconds",
    ] == seen(shake.answered("sesame", now))
    assert [END] == shake.closed(now)


def test_waiting_for_others_to_be_checked_costs_no_time() -> None:
    """Many programs that start at once wait for each other, for as long as that takes."""
    throttle = LoginThrottle()
    for _ in range(FREE):
        assert 0.0 == throttle.admit(ADDRESS, 0.0)
    shake = handshake(PASSWORD, throttle=throttle, time_limit=10.0)
    shake.start(0.0)
    actions = shake.answered("sesame", 4.0)
    for now in range(5, 100):
        assert isinstance(actions[0], Pause)
        actions = shake.resume(float(now))
    throttle.settle(ADDRESS, None, Outcome.SUCCEEDED, 99.0)
    assert [VerifyManagerPassword("sesame")] == shake.resume(100.0)
    shake.verified(True, 100.0)
    assert 106.0 == shake.deadline


def test_leaving_before_the_verdict_counts_as_a_failure() -> None:
    """Nobody guesses for free by hanging up; a pause that nobody waited for counts nothing."""
    throttle, now = failed(FREE - 1)
    shake = handshake(PASSWORD, throttle=throttle)
    shake.start(now)
    shake.answered("perhaps", now)
    assert [Record("connection closed prematurely")] == shake.closed(now)
    assert FREE == throttle.failures(ADDRESS, now)
    waiting = handshake(PASSWORD, throttle=throttle)
    waiting.start(now)
    assert [Pause(now + 1.0)] == waiting.answered("perhaps", now)
    waiting.closed(now)
    assert FREE == throttle.failures(ADDRESS, now)


def test_usernames_are_not_tried_out_for_free() -> None:
    """A name that nobody has counts as a failure; one that somebody has counts as nothing."""
    throttle = LoginThrottle()
    for _ in range(FREE):
        shake = handshake(LOGIN, throttle=throttle)
        shake.start(0.0)
        shake.answered("nobody", 0.0)
        shake.found(False, 0.0)
    shake = handshake(LOGIN, throttle=throttle)
    shake.start(0.0)
    assert [Pause(1.0)] == shake.answered("marie", 0.0)
    assert [FindUser("marie")] == shake.resume(1.0)
    shake.found(True, 1.0)
    assert [VerifyLogin("marie", "polonium")] == shake.answered("polonium", 1.0)
    assert FREE == throttle.failures(ADDRESS, 1.0)


# -- secrets -----------------------------------------------------------------------------------------------


def test_nothing_printable_contains_a_credential() -> None:
    """Neither what is to be done nor the handshake itself shows a name or a password that was typed."""
    shake = handshake(LOGIN, throttle=LoginThrottle())
    actions = shake.start(0.0)
    actions += shake.answered("my-secret", 0.0)
    actions += shake.found(True, 0.0)
    actions += shake.answered("my-secret", 0.0)
    actions += shake.verified(True, 0.0)
    actions += shake.answered("my-secret", 0.0)
    actions += shake.not_identified(KeyError("name"), 0.0)
    shake = handshake(PASSWORD, throttle=LoginThrottle())
    actions += [*shake.start(0.0), *shake.answered("my-secret", 0.0)]
    assert 12 == len(actions)
    assert "my-secret" not in repr([shake, actions, vars(shake)])
