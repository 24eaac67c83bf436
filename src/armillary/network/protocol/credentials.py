"""A manager asks a peer for credentials and has them checked: what a handshake and an admin login share.

Pure: what has happened goes in, and what is to be done comes out, as small records. Checking a password takes
long and needs the database, so the caller is asked to do it and says how it ended. Nothing here that can be
printed contains a credential.

A conversation is written as a generator, so that it reads in the order in which it happens. The generator
says what it waits for, and is sent that.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple, TypeVar

from .refusals import Refused
from .throttle import LoginThrottle, Outcome

__all__ = [
    "Action",
    "Ask",
    "Awaited",
    "Close",
    "Conversation",
    "Ended",
    "FindUser",
    "Login",
    "Pause",
    "Record",
    "Reject",
    "Steps",
    "VerifyLogin",
    "VerifyManagerPassword",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Action:
    """Something to be done."""


@dataclass(frozen=True, slots=True)
class Ask(Action):
    """Send the peer this request, in one piece; its answer goes into ``answered``."""

    attribute: str
    args: tuple[str, ...] = field(default=(), repr=False)  # people type their password when asked for a name
    features: tuple[str, ...] = ()
    """To be offered in the request's keyword arguments, as ``features``, if there are any."""


@dataclass(frozen=True, slots=True)
class Record(Action):
    """Write this into the connections table."""

    message: str


@dataclass(frozen=True, slots=True)
class Pause(Action):
    """Do nothing until this time, and call ``resume`` then. The peer can wait, or leave."""

    until: float


@dataclass(frozen=True, slots=True)
class FindUser(Action):
    """Look whether there is a user of this name, and say so with ``found``."""

    username: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifyLogin(Action):
    """Check a user's password, and call ``verified``."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifyManagerPassword(Action):
    """Check the manager's password, and call ``verified``."""

    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reject(Action):
    """Send this error, and close the connection."""

    error: Refused


@dataclass(frozen=True, slots=True)
class Close(Action):
    """Close the connection without another word."""


class Login(NamedTuple):
    """Who has logged in."""

    username: str
    is_admin: bool


class Awaited(enum.Enum):
    """What a conversation waits for."""

    NOTHING = "nothing"
    ANSWER = "the peer's answer"
    RESUME = "the end of a pause"
    FOUND = "whether there is a user"
    VERIFIED = "whether a password is right"
    IDENTITY = "what became of an identity"


Steps = Generator[Awaited, Any, T]

_UNDECODABLE = object()


class Ended(Exception):
    """A conversation is over. If there is no error, the connection is closed without a word."""

    def __init__(self, record: str, error: Refused | None) -> None:
        super().__init__(record)
        self.record = record
        self.error = error


class Conversation:
    """Questions to one peer, and what its answers lead to.

    Args:
        manager_name: ``Manager[HOST:PORT]``, of which peers are told.
        address: the peer's address, to which failures count.
        throttle: of the manager.
        time_limit: seconds that the peer may take for all of its answers together. Checking them does not
            count, but pauses do that earlier failures have caused.
    """

    def __init__(
        self, *, manager_name: str, address: str, throttle: LoginThrottle, time_limit: float
    ) -> None:
        self._manager_name = manager_name
        self._address = address
        self._throttle = throttle
        self._time_limit = time_limit
        self._steps: Steps[None] | None = None
        self._actions: list[Action] = []
        self._remaining = time_limit
        self._now = 0.0
        self._missing = ""
        self.awaited = Awaited.NOTHING
        """What has to happen next; what else happens is not to be told to the conversation."""
        self.deadline: float | None = None
        """When to call ``timed_out``; None if the peer is not to blame for what is awaited."""

    # -- what the caller says ------------------------------------------------------------------------------

    def answered(self, value: object, now: float) -> list[Action]:
        """The peer has answered: the ``result`` of a packet, or the text of a line that has none."""
        return self._tell(Awaited.ANSWER, value, now)

    def undecodable(self, now: float) -> list[Action]:
        """The peer has answered something that is no text."""
        return self._tell(Awaited.ANSWER, _UNDECODABLE, now)

    def resume(self, now: float) -> list[Action]:
        """A pause is over."""
        return self._tell(Awaited.RESUME, None, now)

    def found(self, is_registered: bool, now: float) -> list[Action]:
        """Whether there is a user of the name in `FindUser`."""
        return self._tell(Awaited.FOUND, is_registered, now)

    def verified(self, is_right: bool, now: float, *, is_admin: bool = False) -> list[Action]:
        """Whether the password in `VerifyLogin` or `VerifyManagerPassword` is right.

        Args:
            is_right: whether it is.
            now: the time.
            is_admin: whether the user may administrate the manager.
        """
        return self._tell(Awaited.VERIFIED, (is_right, is_admin), now)

    # -- what happens then ---------------------------------------------------------------------------------

    def _start(self, steps: Steps[None], now: float) -> list[Action]:
        self._steps = steps
        self._remaining = self._time_limit
        return self._proceed(None, now)

    def _tell(self, awaited: Awaited, value: object, now: float) -> list[Action]:
        if self.awaited is not awaited:
            raise RuntimeError(f"was told {awaited.value}, but waits for {self.awaited.value}")
        if self.deadline is not None:
            self._remaining = self.deadline - now
        return self._proceed(value, now)

    def _proceed(self, value: object, now: float) -> list[Action]:
        assert self._steps is not None
        self._now = now
        try:
            if isinstance(value, Ended):
                self.awaited = self._steps.throw(value)
            else:
                self.awaited = self._steps.send(value)
        except StopIteration:
            self.awaited = Awaited.NOTHING
            self._steps = None
        self.deadline = now + self._remaining if self.awaited is Awaited.ANSWER else None
        return self._take_actions()

    def _abandon(self, now: float) -> None:
        """End the steps where they are. What was being checked counts as wrong."""
        self._now = now
        self.awaited = Awaited.NOTHING
        self.deadline = None
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    # -- steps ---------------------------------------------------------------------------------------------

    def _ask(self, attribute: str, *args: str, features: tuple[str, ...] = ()) -> Steps[object]:
        self._do(Ask(attribute, args, features))
        self._missing = attribute
        value = yield Awaited.ANSWER
        self._missing = ""
        if value is _UNDECODABLE:
            # Mostly the first bytes of TLS, so nobody would understand a word of ours either.
            raise Ended("connection closed prematurely", None)
        return value

    def _ask_credential(self, attribute: str, whose: str) -> Steps[str]:
        """Ask for a username or a password, which must be a text with something in it."""
        value = yield from self._ask(attribute, whose)
        if not isinstance(value, str) or not value.strip():
            raise Ended(
                f"connection closed before receiving the {attribute}",
                Refused(ValueError, f"The {attribute} must be a text that is not empty"),
            )
        return value

    def _log_in(self) -> Steps[Login]:
        """Ask for a username and its password, and have them checked."""
        username = yield from self._ask_credential("username", self._manager_name)
        is_registered = yield from self._check(FindUser(username), Awaited.FOUND, None)
        if not is_registered:
            raise Ended("rejected: unregistered user", Refused(ValueError, "Unregistered user"))
        password = yield from self._ask_credential("password", username)
        is_right, is_admin = yield from self._check(
            VerifyLogin(username, password), Awaited.VERIFIED, username
        )
        if not is_right:
            raise Ended("rejected: wrong login password", Refused(ValueError, "Wrong login password"))
        return Login(username, is_admin)

    def _ask_manager_password(self) -> Steps[None]:
        password = yield from self._ask_credential("password", self._manager_name)
        is_right, _ = yield from self._check(VerifyManagerPassword(password), Awaited.VERIFIED, None)
        if not is_right:
            raise Ended("rejected: wrong Manager password", Refused(ValueError, "Wrong Manager password"))

    def _check(self, question: Action, awaited: Awaited, username: str | None) -> Steps[Any]:
        """Have the caller answer a question that somebody may be guessing at."""
        yield from self._wait_for_turn()
        self._do(question)
        # Also if the peer leaves before the answer is there, or that would be how to guess.
        outcome = Outcome.FAILED
        try:
            answer = yield awaited
            if awaited is Awaited.FOUND:
                outcome = Outcome.NEUTRAL if answer else Outcome.FAILED
            else:
                outcome = Outcome.SUCCEEDED if answer[0] else Outcome.FAILED
        finally:
            self._throttle.settle(self._address, username, outcome, self._now)
        return answer

    def _wait_for_turn(self) -> Steps[None]:
        while wait := self._throttle.admit(self._address, self._now):
            has_failed = self._throttle.failures(self._address, self._now) > 0
            if has_failed and wait > self._remaining:
                text = f"Too many failed logins from your address, try again in {ceil(wait)} seconds"
                raise Ended("rejected: too many failed logins", Refused(PermissionError, text))
            since = self._now
            self._do(Pause(since + wait))
            yield Awaited.RESUME
            if has_failed:
                self._remaining -= self._now - since
