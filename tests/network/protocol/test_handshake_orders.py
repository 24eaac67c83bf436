"""Both sides of the handshake when answers and questions come in the wrong order, twice, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from armillary.network.protocol.credentials import (
    Action,
    Ask,
    Awaited,
    Close,
    FindUser,
    Login,
    Record,
    Reject,
    VerifyLogin,
    VerifyManagerPassword,
)
from armillary.network.protocol.device_handshake import (
    Answer,
    Credentials,
    DeviceHandshake,
    DeviceState,
    Identify,
    Prompt,
)
from armillary.network.protocol.handshake import Authentication, CheckIdentity, Connected, ManagerHandshake
from armillary.network.protocol.identities import Identity
from armillary.network.protocol.throttle import LoginThrottle

MANAGER = "Manager[lab7:1875]"
KNOWN = Credentials(username="marie", password="p0lonium", password_manager="5e5ame")
# What each kind of manager asks for, in order, and what it records when that is wrong or stays away.
QUESTIONS: Mapping[Authentication, list[tuple[str, str]]] = {
    Authentication.NONE: [],
    Authentication.MANAGER_PASSWORD: [("password", MANAGER)],
    Authentication.HOSTNAMES: [],
    Authentication.LOGIN: [("username", MANAGER), ("password", "marie")],
}
WRONG: Mapping[tuple[Authentication, int], str] = {
    (Authentication.MANAGER_PASSWORD, 0): "rejected: wrong Manager password",
    (Authentication.LOGIN, 0): "rejected: unregistered user",
    (Authentication.LOGIN, 1): "rejected: wrong login password",
}


def answers(authentication: Authentication) -> list[object]:
    """What the device's side answers to each of the questions, the last of which is who it is."""
    device = DeviceHandshake(KNOWN)
    given: list[object] = []
    for attribute, whose in QUESTIONS[authentication]:
        (answer,) = device.asked(attribute, (whose,), {}, MANAGER)
        assert isinstance(answer, Answer)
        given.append(answer.value)
    assert [Identify(frozenset())] == device.asked("identity", (), {}, MANAGER)
    return [*given, Identity("client", "Bench A").answer()]


class Told:
    """A manager's side that is told one answer after the other, and what came of it."""

    def __init__(self, authentication: Authentication) -> None:
        self.throttle = LoginThrottle()
        self.manager = ManagerHandshake(
            authentication,
            manager_name=MANAGER,
            address="192.0.2.7",
            throttle=self.throttle,
            hostname="bench",
            trusted_hostnames={"bench"},
        )
        self.actions: list[Action] = []
        self._carry_out(self.manager.start(0.0))

    @property
    def records(self) -> list[str]:
        return [action.message for action in self.actions if isinstance(action, Record)]

    @property
    def asked(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(action.attribute, action.args) for action in self.actions if isinstance(action, Ask)]

    def has(self, *kinds: type[Action]) -> bool:
        return any(isinstance(action, kinds) for action in self.actions)

    def tell(self, value: object) -> None:
        self._carry_out(self.manager.answered(value, 1.0))

    def end(self) -> None:
        self._carry_out(self.manager.closed(2.0))

    def _carry_out(self, actions: list[Action]) -> None:
        self.actions += actions
        for action in actions:
            match action:
                case FindUser(username):
                    self._carry_out(self.manager.found(username == KNOWN.username, 1.0))
                case VerifyLogin(_, password):
                    self._carry_out(self.manager.verified(password == KNOWN.password, 1.0, is_admin=True))
                case VerifyManagerPassword(password):
                    self._carry_out(self.manager.verified(password == KNOWN.password_manager, 1.0))
                case CheckIdentity(value):
                    try:
                        kind = Identity.read(value).type
                    except (KeyError, TypeError, ValueError) as error:
                        self._carry_out(self.manager.not_identified(error, 1.0))
                    else:
                        self._carry_out(self.manager.identified(kind, 1.0))


@pytest.mark.parametrize("authentication", Authentication)
def test_answers_in_any_order_and_number(authentication: Authentication) -> None:
    """Only all of the right answers in their order let a device in; any other end is recorded, once."""
    right = answers(authentication)
    is_in = 0
    for number in range(len(right) + 1):
        for given in itertools.product([*right, "else"], repeat=number):
            told = Told(authentication)
            correct = 0
            for value in given:
                if told.manager.awaited is not Awaited.ANSWER:
                    break  # nobody listens any more
                correct += value is right[correct]
                told.tell(value)
            assert [(name, (whose,)) for name, whose in QUESTIONS[authentication]][: correct + 1] == [
                question for question in told.asked if question[0] != "identity"
            ]
            is_wrong = any(value is not expected for value, expected in zip(given, right, strict=False))
            assert told.has(Connected) is (correct == len(right))
            assert told.has(Reject, Close) is is_wrong
            told.end()
            check_records(told, authentication, correct, is_wrong=is_wrong, given=given)
            is_in += told.has(Connected)
            assert not told.throttle._busy
    assert is_in == 1


def check_records(
    told: Told, authentication: Authentication, correct: int, *, is_wrong: bool, given: tuple[object, ...]
) -> None:
    first, *rest = told.records
    assert first == "new connection request"
    questions = [name for name, _ in QUESTIONS[authentication]]
    if told.has(Connected):
        assert rest == ["connected as a client", "disconnected"]
        login = Login("marie", True) if authentication is Authentication.LOGIN else None
        assert Connected("client", login) in told.actions
    elif not is_wrong:
        missing = questions[correct] if correct < len(questions) else None
        premature = "prematurely" if missing is None else f"before receiving the {missing}"
        assert rest == [f"connection closed {premature}"]
    elif correct == len(questions):
        assert rest == ["rejected: invalid identity", "disconnected"]
    elif isinstance(given[correct], str):
        assert rest == [WRONG[authentication, correct], "disconnected"]
    else:
        # An identity instead of a word.
        assert rest == [f"connection closed before receiving the {questions[correct]}"]


@pytest.mark.parametrize("is_typed", [False, True])
def test_questions_in_any_order_and_number(is_typed: bool) -> None:
    """A device answers each question with what was asked for, in the order of the questions."""
    secrets = {
        ("username", MANAGER): "marie",
        ("password", "marie"): "p0lonium",
        ("password", MANAGER): "5e5ame",
    }
    for number in range(5):
        for asked in itertools.product([*secrets, ("identity", "")], repeat=number):
            device = DeviceHandshake(Credentials() if is_typed else KNOWN)
            todo: list[Action] = []
            for attribute, whose in asked:
                todo += device.asked(attribute, (whose,) if whose else (), {}, MANAGER)
            given = [action.value for action in carry_out(device, todo) if isinstance(action, Answer)]
            assert given == [secrets[question] for question in asked if question in secrets]
            assert todo.count(Identify(frozenset())) == asked.count(("identity", ""))
            is_identified = ("identity", "") in asked
            assert device.state is (DeviceState.IDENTIFIED if is_identified else DeviceState.ASKED)


def carry_out(device: DeviceHandshake, todo: list[Action]) -> list[Action]:
    """Type what somebody is prompted for; return everything that was done."""
    done: list[Action] = []
    todo = list(todo)
    while todo:
        action = todo.pop(0)
        done.append(action)
        if isinstance(action, Prompt):
            secret = "5e5ame" if MANAGER in action.text else "p0lonium"
            todo = device.prompted(secret if action.is_secret else "marie") + todo
    return done
