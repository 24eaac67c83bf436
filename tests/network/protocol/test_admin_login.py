"""The login on a connection that asks for what only administrators may have."""

from __future__ import annotations

from typing import Any

import pytest

from armillary.network.protocol.admin_login import (
    ADMIN_LOGIN_LIMIT,
    WAITING_REQUESTS,
    AdminLogin,
    Deny,
    Grant,
)
from armillary.network.protocol.credentials import (
    Action,
    Ask,
    Close,
    FindUser,
    Login,
    Pause,
    Record,
    Reject,
    VerifyLogin,
)
from armillary.network.protocol.throttle import FIRST, FREE, LoginThrottle, Outcome

MANAGER = "Manager[lab7:1875]"
ADDRESS = "192.0.2.7"


def admin_login(**options: Any) -> AdminLogin[str]:
    options.setdefault("throttle", LoginThrottle())
    return AdminLogin(manager_name=MANAGER, address=ADDRESS, **options)


def seen(actions: list[Action]) -> list[Any]:
    """The actions, with errors as texts, since errors are only equal to themselves."""

    def text(action: Action) -> Any:
        if isinstance(action, Reject):
            return action.error.message
        if isinstance(action, Deny):
            return (action.request, action.error.message)
        return action

    return [text(action) for action in actions]


def test_an_administrator_is_asked_once() -> None:
    """After one login every request is granted, until the connection ends."""
    login = admin_login()
    assert [Ask("username", (MANAGER,))] == login.request("port", 0.0)
    assert [FindUser("marie")] == login.answered("marie", 1.0)
    assert [Ask("password", ("marie",))] == login.found(True, 1.0)
    assert [VerifyLogin("marie", "polonium")] == login.answered("polonium", 2.0)
    assert [Grant("port")] == login.verified(True, 2.2, is_admin=True)
    assert login.is_admin
    assert Login("marie", True) == login.login
    assert [Grant("users")] == login.request("users", 3.0)


def test_who_has_logged_in_as_an_administrator_is_not_asked() -> None:
    """An administrator's handshake was the login."""
    login = admin_login(is_admin=True)
    assert [Grant("port")] == login.request("port", 0.0)
    assert login.login is None


def test_another_users_login_is_no_use_and_changes_nothing() -> None:
    """It is denied in the words of 1.0, the connection stays, and the next request asks again."""
    login = admin_login()
    for now in (0.0, 500.0):
        login.request("port", now)
        assert now + ADMIN_LOGIN_LIMIT == login.deadline
        login.answered("pierre", now + 50.0)
        login.found(True, now + 50.0)
        assert now + ADMIN_LOGIN_LIMIT == login.deadline
        login.answered("radium", now + 100.0)
        denied = "ValueError: You must be an administrator to send this request to the Manager"
        assert [("port", denied)] == seen(login.verified(True, now + 100.0))
        assert not login.is_admin


@pytest.mark.parametrize("is_registered", [False, True])
def test_a_wrong_login_ends_the_connection(is_registered: bool) -> None:
    """It is recorded and rejected, in the words of 1.0; what comes after it is not looked at."""
    login = admin_login()
    login.request("port", 0.0)
    login.answered("marie", 0.0)
    actions = login.found(is_registered, 0.0)
    if is_registered:
        login.answered("radium", 0.0)
        actions = login.verified(False, 0.0)
    what = "wrong login password" if is_registered else "unregistered user"
    message = "Wrong login password" if is_registered else "Unregistered user"
    assert [Record(f"rejected: {what}"), f"ValueError: {message}"] == seen(actions)
    assert [] == login.request("port", 0.0)
    assert not login.takes_packet
    assert not login.takes_text


def test_an_answer_that_is_none_ends_the_connection() -> None:
    """An empty name is an error, and bytes that are no text are not answered."""
    login = admin_login()
    login.request("port", 0.0)
    assert [
        Record("connection closed before receiving the username"),
        "ValueError: The username must be a text that is not empty",
    ] == seen(login.answered("", 0.0))
    login = admin_login()
    login.request("port", 0.0)
    assert [Record("connection closed prematurely"), Close()] == login.undecodable(0.0)


def test_requests_wait_for_the_same_login() -> None:
    """Several that come before the answers are granted in order; too many are denied at once."""
    login = admin_login()
    login.request("0", 0.0)
    for number in range(1, WAITING_REQUESTS):
        assert [] == login.request(str(number), 0.0)
    denied = "PermissionError: 64 requests wait already until you have logged in as an administrator"
    assert [("more", denied)] == seen(login.request("more", 0.0))
    login.answered("marie", 0.0)
    login.found(True, 0.0)
    login.answered("polonium", 0.0)
    granted = [Grant(str(number)) for number in range(WAITING_REQUESTS)]
    assert granted == login.verified(True, 0.0, is_admin=True)


def test_a_login_that_nobody_answers() -> None:
    """What waits is denied at the deadline, the connection stays, and the next request asks again."""
    login = admin_login()
    login.request("port", 10.0)
    login.request("users", 11.0)
    assert 10.0 + ADMIN_LOGIN_LIMIT == login.deadline
    denied = "TimeoutError: Nobody has logged in as an administrator within 120 seconds"
    assert [("port", denied), ("users", denied)] == seen(login.timed_out(10.0 + ADMIN_LOGIN_LIMIT))
    assert login.deadline is None
    assert [] == login.timed_out(200.0)
    assert [Ask("username", (MANAGER,))] == login.request("port", 200.0)
    assert 200.0 + ADMIN_LOGIN_LIMIT == login.deadline


def test_a_late_packet_is_not_taken_for_the_next_answer() -> None:
    """A device answers questions in order: its first answer after a time-out belongs to the old one."""
    login = admin_login()
    login.request("port", 0.0)
    login.timed_out(120.0)
    assert login.takes_packet
    assert not login.takes_text
    login.request("port", 200.0)
    assert [] == login.answered("too late", 201.0)
    assert [FindUser("marie")] == login.answered("marie", 202.0)


def test_a_late_packet_is_swallowed_even_if_nothing_is_asked() -> None:
    """It is the answer to a question that nobody asks any more, and it is only one."""
    login = admin_login()
    login.request("port", 0.0)
    login.timed_out(120.0)
    assert [] == login.answered("too late", 130.0)
    assert not login.takes_packet


def test_people_are_never_late() -> None:
    """Who types has seen that it was too late: the next line after the next question is its answer."""
    login = admin_login()
    login.request("port", 0.0)
    login.timed_out(120.0)
    assert not login.takes_text
    login.request("port", 200.0)
    assert login.takes_text
    assert [FindUser("marie")] == login.answered("marie", 201.0, is_text=True)


def test_nothing_but_answers_is_awaited_while_a_password_is_checked() -> None:
    """A packet that comes in between is nobody's answer."""
    login = admin_login()
    assert not login.takes_packet
    login.request("port", 0.0)
    assert login.takes_packet
    login.answered("marie", 0.0)
    assert not login.takes_packet
    assert not login.takes_text


def test_a_connection_that_ends_leaves_nothing_behind() -> None:
    """What was being checked counts as a failure, and there is nothing left to be done."""
    throttle = LoginThrottle()
    login = admin_login(throttle=throttle)
    login.request("port", 0.0)
    login.timed_out(120.0)
    login.request("port", 130.0)
    login.answered("marie", 130.0, is_text=True)
    login.closed(130.0)
    login.closed(130.0)
    assert 1 == throttle.failures(ADDRESS, 130.0)
    assert [] == login.request("port", 130.0)
    assert not login.takes_packet
    assert not login._waiting
    assert login.deadline is None


def test_failed_logins_slow_these_logins_too() -> None:
    """The failures of the handshake and of this count together."""
    throttle = LoginThrottle()
    for _ in range(FREE):
        assert 0.0 == throttle.admit(ADDRESS, 0.0)
        throttle.settle(ADDRESS, None, Outcome.FAILED, 0.0)
    login = admin_login(throttle=throttle)
    login.request("port", 0.0)
    assert [Pause(FIRST)] == login.answered("marie", 0.0)
    assert [FindUser("marie")] == login.resume(FIRST)


def test_nothing_printable_contains_what_was_typed() -> None:
    """Neither what is to be done nor the login itself shows a name or a password."""
    login = admin_login()
    actions = login.request("port", 0.0)
    actions += login.answered("my-secret", 0.0)
    actions += login.found(True, 0.0)
    actions += login.answered("my-secret", 0.0)
    actions += login.verified(False, 0.0)
    assert 6 == len(actions)
    assert "my-secret" not in repr([login, vars(login), actions])
