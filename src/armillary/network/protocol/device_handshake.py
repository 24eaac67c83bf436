"""A device's side of a handshake: what it answers when the manager asks, and whether it was let in.

Pure: the manager's questions go in, and what is to be done comes out. The manager may ask again at any time,
when the device wants something that only administrators may have. No manager says that a device is in: it is
if the next thing that the manager says is not an error, and nobody knows before that.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from armillary.errors import PeerError

from .credentials import Action
from .features import agree
from .refusals import Refused

__all__ = [
    "Answer",
    "Credentials",
    "Decline",
    "DeviceHandshake",
    "DeviceState",
    "Identify",
    "Prompt",
    "is_manager_name",
]

# A manager waits for an answer before it asks again, unless it has lost patience with whoever types. Fewer
# would not forgive that; more only give a malicious one more memory to fill.
OPEN_QUESTIONS = 16

_MANAGER_NAME = re.compile(r"Manager\[\S+:\d+\]")


@dataclass(slots=True)
class Credentials:
    """What a device answers when it is asked for its user. What is None is asked of somebody, and remembered.

    Attributes:
        username: the user's name.
        password: the user's password.
        password_manager: the manager's password.
    """

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    password_manager: str | None = field(default=None, repr=False)
    _prompted: set[str] = field(default_factory=set, init=False, repr=False)

    def remember(self, name: str, value: str) -> None:
        """Keep what somebody was asked for. `name` is that of the attribute."""
        setattr(self, name, value)
        self._prompted.add(name)

    def forget_prompted(self) -> None:
        """Forget what somebody was asked for, because something of it was wrong: the next time, ask again."""
        for name in self._prompted:
            setattr(self, name, None)
        self._prompted.clear()


class DeviceState(enum.Enum):
    """How far a device has come."""

    ASKED = enum.auto()
    """The manager asks, or will."""
    IDENTIFIED = enum.auto()
    """The device has said who it is, and does not know whether it was let in."""
    ACCEPTED = enum.auto()
    """It was."""
    REJECTED = enum.auto()
    """It was not."""


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """Answer with this value, to this requester."""

    value: str = field(repr=False)
    requester: str | None


@dataclass(frozen=True, slots=True)
class Identify(Action):
    """Answer with the device's identity; nobody is named as the requester.

    Attributes:
        features: what is agreed upon now. It belongs into the identity, if there is any.
    """

    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Prompt(Action):
    """Ask somebody, and call ``prompted`` with the answer."""

    text: str = field(repr=False)
    is_secret: bool
    """Whether the answer must not be seen on the screen."""


@dataclass(frozen=True, slots=True)
class Decline(Action):
    """Answer with this error, to this requester: nobody knows what was asked."""

    error: Refused
    requester: str | None


class _Question(NamedTuple):
    name: str
    text: str
    requester: str | None


class DeviceHandshake:
    """The answers of one device on one connection.

    Args:
        credentials: what to answer. What somebody had to be asked for is remembered there, so the same object
            serves the next connection as well.
        features: what the device can do if the manager can, too.
    """

    def __init__(self, credentials: Credentials, *, features: Collection[str] = ()) -> None:
        self._credentials = credentials
        self._features = features
        # What was asked and not answered yet: somebody is prompted for the first one.
        self._open: deque[_Question] = deque()
        self.state = DeviceState.ASKED
        self.manager_name: str | None = None
        """What the manager calls itself, once it has said so."""
        self.features: frozenset[str] = frozenset()
        """What is agreed upon, once the device has identified itself."""
        self.rejection: str | None = None
        """Why the device was not let in, as the manager says it; None if it was, or may have been."""

    def asked(
        self, attribute: str, args: Sequence[object] = (), kwargs: object = None, requester: str | None = None
    ) -> list[Action]:
        """The manager asks something: a packet without a ``result`` that is no request to a service.

        Args:
            attribute: what it asks for.
            args: of the packet.
            kwargs: of the packet.
            requester: of the packet.

        Raises:
            PeerError: it asks on and on, and does not wait for answers.
        """
        if self.state is DeviceState.ASKED:
            self.manager_name = requester
        if attribute == "identity":
            if self.state is DeviceState.ASKED:
                self.state = DeviceState.IDENTIFIED
                self.features = agree(kwargs, self._features)
            return [Identify(self.features)]
        if attribute not in ("username", "password"):
            text = f"{attribute!r} cannot be asked of a device"
            return [Decline(Refused(AttributeError, text), requester)]
        whose = args[0] if args and isinstance(args[0], str) else ""
        if attribute == "username":
            question = _Question("username", f"Enter a username for {whose} > ", requester)
        else:
            name = "password_manager" if is_manager_name(whose) else "password"
            question = _Question(name, f"Enter the password for {whose} > ", requester)
        if len(self._open) >= OPEN_QUESTIONS:
            raise PeerError(f"the manager has asked {OPEN_QUESTIONS} questions without waiting for answers")
        self._open.append(question)
        return self._answer() if len(self._open) == 1 else []

    def prompted(self, value: str) -> list[Action]:
        """Somebody has answered the `Prompt`."""
        if not self._open:
            raise RuntimeError("nobody was prompted")
        self._credentials.remember(self._open[0].name, value)
        return self._answer()

    def received(self, *, uid: str, requester: str | None, error: str | None = None) -> None:
        """The manager has sent something else than a question.

        Args:
            uid: of the packet; empty if it has none.
            requester: of the packet.
            error: its ``message``, if it is an error.
        """
        if self.state is DeviceState.ASKED:
            is_rejection = error is not None
        elif self.state is DeviceState.IDENTIFIED:
            # The manager speaks in its own name, and not in answer to a request of ours.
            is_rejection = error is not None and not uid and requester in (None, self.manager_name)
            if not is_rejection:
                self.state = DeviceState.ACCEPTED
        else:
            return
        if is_rejection:
            self.state = DeviceState.REJECTED
            self.rejection = error
            self._credentials.forget_prompted()

    def _answer(self) -> list[Action]:
        """Answer the open questions in order, up to one for which somebody has to be asked."""
        actions: list[Action] = []
        while self._open:
            name, text, requester = self._open[0]
            value: str | None = getattr(self._credentials, name)
            if value is None:
                actions.append(Prompt(text, is_secret=name != "username"))
                break
            actions.append(Answer(value, requester))
            self._open.popleft()
        return actions


def is_manager_name(text: str) -> bool:
    """Whether this names a manager, so that it is the manager's password that is asked for."""
    return _MANAGER_NAME.fullmatch(text) is not None
