"""What can go wrong in a lab network, by cause.

`Rejected` is about getting in, `ConnectionClosed` about the connection to the manager, and the `RemoteError`
family is what somebody answered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from armillary.errors import ArmillaryError, ConnectFailed

from .protocol.packets import Failure

__all__ = [
    "LinkRefused",
    "LockLost",
    "LockRefused",
    "PacketTooLarge",
    "Rejected",
    "RemoteError",
    "ServiceGone",
    "absent_service",
    "error_of",
    "split_message",
]


class Rejected(ConnectFailed):
    """The manager is there and does not let this device in: its password or its name is wrong or taken.

    Trying again with the same words fails again, so nothing that reconnects does, except a service whose name
    is taken: the manager may not have noticed yet that its last connection is gone.

    Attributes:
        type_name: the class of what the manager raised, as in ``ValueError``.
        text: what it says.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"the manager does not accept this device: {message}")
        self.type_name, self.text = split_message(message)


class RemoteError(ArmillaryError):
    """What was asked for has raised an exception, in the service or in the manager.

    Printed with its traceback, it shows the remote one as well.

    Attributes:
        type_name: the name of the exception's class, as in ``ValueError``; empty if it did not say.
        text: what ``str()`` gives of the exception there.
        traceback: the lines of its traceback there; often empty.
        module: where its class is defined, if both sides can tell; None otherwise.
    """

    def __init__(self, message: str, traceback: Sequence[str] = (), module: str | None = None) -> None:
        super().__init__(message)
        self.type_name, self.text = split_message(message)
        self.traceback = list(traceback)
        self.module = module
        if self.traceback:
            self.add_note("The remote traceback:\n" + "\n".join(line.rstrip("\n") for line in self.traceback))


class ServiceGone(RemoteError):
    """There is no such service now, or it went before it answered.

    Attributes:
        may_have_been_received: whether the request may have reached the service. False means that it has not.
    """

    def __init__(
        self,
        message: str,
        traceback: Sequence[str] = (),
        module: str | None = None,
        *,
        may_have_been_received: bool = False,
    ) -> None:
        super().__init__(message, traceback, module)
        self.may_have_been_received = may_have_been_received


class LinkRefused(RemoteError):
    """The service is locked by somebody else, has as many clients as it wants, or this user may not link.

    You do not get this if there is no such service: that is `ServiceGone`.
    """


class LockRefused(RemoteError):
    """The lock is not to be had now: others are linked with the service, or the lock is theirs."""


class LockLost(ArmillaryError):
    """The connection was lost while the lock was held, and somebody else may have used the service since.

    Nothing was sent. It is raised by every call inside the lock's block, until that is left.
    """


class PacketTooLarge(ArmillaryError):
    """The answer was larger than this client's ``limit``, and thrown away. The connection goes on."""


def split_message(message: str) -> tuple[str, str]:
    """The class and the text in the ``message`` of an error packet."""
    name, colon, text = message.partition(":")
    return (name, text.removeprefix(" ")) if colon and name.isidentifier() else ("", message)


# What managers say of services that are not there: 1.0, and armillary's own of one that goes.
_ABSENT = re.compile(
    r"""KeyError: ["']*the '(?P<name>.*)' [Ss]ervice (?:is not connected to|does not exist)"""
)
_WENT = re.compile(r"ConnectionAbortedError: the '(?P<name>.*)' Service disconnected from Manager\[")


def absent_service(message: str) -> str | None:
    """The service of which a manager says that it is not there."""
    found = _ABSENT.match(message)
    return None if found is None else found["name"]


def error_of(failure: Failure, kind: type[RemoteError] = RemoteError) -> RemoteError:
    """The exception that an error packet stands for.

    Args:
        failure: the packet.
        kind: what it is if nothing more is known.
    """
    message, module = failure.message, failure.exception.get("module")
    module = module if isinstance(module, str) else None
    if _ABSENT.match(message):
        return ServiceGone(message, failure.traceback, module)
    if _WENT.match(message):
        return ServiceGone(message, failure.traceback, module, may_have_been_received=True)
    return kind(message, failure.traceback, module)
