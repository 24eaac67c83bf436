"""A device's side of the handshake: what it answers, what it asks people for, and whether it was let in."""

from __future__ import annotations

import pytest

from armillary.errors import PeerError
from armillary.network.protocol.device_handshake import (
    OPEN_QUESTIONS,
    Answer,
    Credentials,
    Decline,
    DeviceHandshake,
    DeviceState,
    Identify,
    Prompt,
    is_manager_name,
)

MANAGER = "Manager[lab7:1875]"


def ask(device: DeviceHandshake, attribute: str, *args: object) -> list[object]:
    return list(device.asked(attribute, args, {}, MANAGER))


def test_a_device_gives_what_it_knows() -> None:
    """Each question is answered at once, with the manager's name as the requester; the identity has none."""
    device = DeviceHandshake(Credentials("marie", "polonium", "sesame"))
    assert [Answer("sesame", MANAGER)] == ask(device, "password", MANAGER)
    assert [Answer("marie", MANAGER)] == ask(device, "username", MANAGER)
    assert [Answer("polonium", MANAGER)] == ask(device, "password", "marie")
    assert device.state is DeviceState.ASKED
    assert [Identify(frozenset())] == ask(device, "identity")
    assert device.state is DeviceState.IDENTIFIED


@pytest.mark.parametrize(
    ("text", "is_manager"),
    [
        ("Manager[lab7:1875]", True),
        ("Manager[192.0.2.7:1]", True),
        ("Manager[::1:1875]", True),
        ("manager[lab7:1875]", False),
        ("Manager[lab 7:1875]", False),
        ("Manager[:1875]", False),
        ("Manager[lab7:]", False),
        ("Manager[lab7:port]", False),
        ("Manager[lab7:1875] ", False),
        ("Manager[lab7:1875]\n", False),
        ("The Manager[lab7:1875]", False),
        ("marie", False),
        ("", False),
    ],
)
def test_whose_password_is_asked_for(text: str, is_manager: bool) -> None:
    """The manager's, if that is what the question names; else the user's."""
    assert is_manager is is_manager_name(text)
    device = DeviceHandshake(Credentials(None, "the user's", "the manager's"))
    expected = "the manager's" if is_manager else "the user's"
    assert [Answer(expected, MANAGER)] == ask(device, "password", text)


def test_what_is_missing_is_asked_of_somebody_and_remembered() -> None:
    """People are prompted in the words of 1.0; the next connection asks them nothing."""
    credentials = Credentials()
    device = DeviceHandshake(credentials)
    assert [Prompt(f"Enter a username for {MANAGER} > ", is_secret=False)] == ask(device, "username", MANAGER)
    assert [Answer("marie", MANAGER)] == device.prompted("marie")
    assert [Prompt("Enter the password for marie > ", is_secret=True)] == ask(device, "password", "marie")
    assert [Answer("polonium", MANAGER)] == device.prompted("polonium")
    assert [Prompt(f"Enter the password for {MANAGER} > ", is_secret=True)] == ask(
        device, "password", MANAGER
    )
    assert [Answer("sesame", MANAGER)] == device.prompted("sesame")
    again = DeviceHandshake(credentials)
    assert [Answer("marie", MANAGER)] == ask(again, "username", MANAGER)
    assert [Answer("polonium", MANAGER)] == ask(again, "password", "marie")
    assert [Answer("sesame", MANAGER)] == ask(again, "password", MANAGER)


def test_what_was_typed_is_forgotten_if_it_was_wrong() -> None:
    """After a rejection people are asked again; what the program has given stays."""
    credentials = Credentials(username="marie")
    device = DeviceHandshake(credentials)
    ask(device, "username", MANAGER)
    ask(device, "password", "marie")
    device.prompted("radium")
    device.received(uid="", requester=MANAGER, error="ValueError: Wrong login password")
    assert device.state is DeviceState.REJECTED
    assert "ValueError: Wrong login password" == device.rejection
    again = DeviceHandshake(credentials)
    assert [Answer("marie", MANAGER)] == ask(again, "username", MANAGER)
    assert [Prompt("Enter the password for marie > ", is_secret=True)] == ask(again, "password", "marie")
    credentials.password = "given later"
    credentials.forget_prompted()
    assert "given later" == credentials.password


def test_questions_that_wait_for_somebody_are_answered_in_order() -> None:
    """A manager that has lost patience asks again; what was typed answers all of its questions in turn."""
    device = DeviceHandshake(Credentials())
    ask(device, "username", MANAGER)
    assert [] == ask(device, "username", MANAGER)
    assert [] == ask(device, "password", "marie")
    assert [
        Answer("marie", MANAGER),
        Answer("marie", MANAGER),
        Prompt("Enter the password for marie > ", is_secret=True),
    ] == device.prompted("marie")
    assert [Answer("polonium", MANAGER)] == device.prompted("polonium")
    with pytest.raises(RuntimeError, match="nobody was prompted"):
        device.prompted("again")


def test_a_manager_cannot_fill_the_memory_with_questions() -> None:
    """Who asks on and on without waiting is no manager that one can speak with."""
    device = DeviceHandshake(Credentials())
    for _ in range(OPEN_QUESTIONS):
        ask(device, "username", MANAGER)
    with pytest.raises(PeerError, match="without waiting for answers"):
        ask(device, "username", MANAGER)


@pytest.mark.parametrize("args", [(), (3,), ([MANAGER],), (None, MANAGER)])
def test_strange_arguments_are_nobodys_name(args: tuple[object, ...]) -> None:
    """A question that names nobody is for the user's password, never the manager's."""
    device = DeviceHandshake(Credentials(None, "the user's", "the manager's"))
    assert [Answer("the user's", MANAGER)] == ask(device, "password", *args)


def test_other_questions_are_declined() -> None:
    """What no device knows is answered with an error, and changes nothing."""
    device = DeviceHandshake(Credentials())
    (decline,) = device.asked("shoe_size", [], {}, MANAGER)
    assert isinstance(decline, Decline)
    assert "AttributeError: 'shoe_size' cannot be asked of a device" == decline.error.message
    assert MANAGER == decline.requester
    assert device.state is DeviceState.ASKED


def test_features_are_agreed_upon_with_the_identity() -> None:
    """What the manager offers and the device can do is agreed, for the life of the connection."""
    device = DeviceHandshake(Credentials(), features={"cancel", "stream"})
    offered = {"features": ["ping", "cancel", 3, "tomorrow"]}
    assert [Identify(frozenset({"cancel"}))] == device.asked("identity", [], offered, MANAGER)
    assert [Identify(frozenset({"cancel"}))] == device.asked("identity", [], {}, MANAGER)
    assert frozenset({"cancel"}) == device.features


@pytest.mark.parametrize("kwargs", [None, {}, {"features": None}, {"features": "cancel"}, [], 3])
def test_a_1_0_manager_offers_nothing(kwargs: object) -> None:
    """Without an offer there is nothing to agree upon."""
    device = DeviceHandshake(Credentials(), features={"cancel"})
    assert [Identify(frozenset())] == device.asked("identity", [], kwargs, MANAGER)


@pytest.mark.parametrize(
    ("uid", "requester", "error", "state"),
    [
        ("", MANAGER, "NameError: A 'DMM' service is already running on the Manager", DeviceState.REJECTED),
        ("", None, "ValueError: no", DeviceState.REJECTED),
        ("1", MANAGER, "ValueError: no", DeviceState.ACCEPTED),
        ("", "Bench A[lab7:1]", "KeyError: no such service", DeviceState.ACCEPTED),
        ("1", "Bench A[lab7:1]", None, DeviceState.ACCEPTED),
        ("notification", None, None, DeviceState.ACCEPTED),
    ],
)
def test_what_comes_after_the_identity_decides(
    uid: str, requester: str | None, error: str | None, state: DeviceState
) -> None:
    """An error in the manager's own name that answers no request is a rejection; all else is a welcome."""
    device = DeviceHandshake(Credentials())
    ask(device, "identity")
    device.received(uid=uid, requester=requester, error=error)
    assert state is device.state
    assert (error if state is DeviceState.REJECTED else None) == device.rejection


def test_the_manager_is_who_has_asked_for_the_identity() -> None:
    """Questions in another name do not change who may reject a device."""
    device = DeviceHandshake(Credentials("marie"))
    ask(device, "identity")
    device.asked("username", [], {}, "Manager[elsewhere:1]")
    device.received(uid="", requester=MANAGER, error="ValueError: no")
    assert device.state is DeviceState.REJECTED


def test_who_is_in_cannot_be_rejected_any_more() -> None:
    """Later errors answer requests, and the questions before one are those of an admin request."""
    device = DeviceHandshake(Credentials("marie", "polonium"))
    ask(device, "identity")
    device.received(uid="1", requester="Bench A[lab7:1]")
    assert [Answer("marie", MANAGER)] == ask(device, "username", MANAGER)
    device.received(uid="", requester=MANAGER, error="ValueError: Wrong login password")
    assert device.state is DeviceState.ACCEPTED
    assert device.rejection is None


def test_before_the_identity_only_errors_decide() -> None:
    """Whatever else a manager says too early says nothing about the device."""
    device = DeviceHandshake(Credentials())
    device.received(uid="", requester=None)
    assert device.state is DeviceState.ASKED
    device.received(uid="", requester=MANAGER, error="ValueError: 'badhost' is not a trusted hostname")
    assert device.state is DeviceState.REJECTED


def test_nothing_printable_contains_a_credential() -> None:
    """Neither credentials nor answers nor prompts show what is secret."""
    credentials = Credentials("my-secret", "my-secret", "my-secret")
    device = DeviceHandshake(credentials)
    actions = [
        *ask(device, "username", MANAGER),
        *ask(device, "password", "my-secret"),
        *ask(device, "password", MANAGER),
        *ask(DeviceHandshake(Credentials()), "password", "my-secret"),
    ]
    assert 4 == len(actions)
    assert "my-secret" not in repr([credentials, device, vars(device), actions])
