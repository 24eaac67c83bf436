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
from armillary.network.protocol.throttle import FREE, LoginThrottle

MANAGER = "Manager[lab7:1875]"
IDENTITY = {"type": "client", "name": "Bench A"}
BEGIN = Record("new connection request")
END = Record("disconnected")
NONE, PASSWORD = Authentication.NONE, Authentication.MANAGER_PASSWORD
HOSTNAMES, LOGIN = Authentication.HOSTNAMES, Authentication.LOGIN


def handshake(authentication: Authentication, **options: Any) -> ManagerHandshake:
    options.setdefault("throttle", LoginThrottle())
    return ManagerHandshake(authentication, manager_name=MANAGER, address="192.0.2.7", **options)


def rejections(actions: list[Action]) -> list[str]:
    return [action.error.message for action in actions if isinstance(action, Reject)]


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
    shake.answered(IDENTITY, 2.0)
    assert [Record("connected as a service"), Connected("service", None)] == shake.identified("service", 2.0)


def test_a_wrong_password_of_the_manager() -> None:
    """It is rejected in the words of 1.0, and recorded."""
    shake = handshake(PASSWORD)
    shake.start(0.0)
    shake.answered("simsalabim", 1.0)
    assert [
        Record("rejected: wrong Manager password"),
        Reject(error),
    ] == (actions := shake.verified(False, 1.0)) if (error := None) else True
    actions = shake.closed(2.0)
    assert [END] == actions
