"""What callers catch: the builtin exceptions of 1.0, which are armillary's as well."""

from __future__ import annotations

from armillary.errors import ArmillaryError, ConnectFailed, ConnectionClosed
from armillary.network.errors import RemoteError, split_message

__all__ = [
    "CannotConnect",
    "CertificateRefused",
    "ConnectTimeout",
    "ConnectionAborted",
    "Disconnected",
    "Refused",
    "RequestFailed",
]


class CannotConnect(ConnectFailed):
    """There is no connection with the manager. The text says what to do."""


class CertificateRefused(ConnectFailed, ConnectionRefusedError):
    """Somebody was asked whether to trust the manager's certificate, and does not."""


class ConnectTimeout(ArmillaryError, TimeoutError):
    """Nobody has accepted the connection in time."""


class Refused(ArmillaryError, ValueError):
    """The manager does not let the device in.

    Attributes:
        type_name: the class of what the manager raised.
        text: what it says.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.type_name, self.text = split_message(message)


class Disconnected(ConnectionClosed):
    """There is no connection any more; nothing was sent."""


class ConnectionAborted(ConnectionClosed, ConnectionAbortedError):
    """The connection has ended before the reply came."""


class RequestFailed(ArmillaryError, RuntimeError):
    """What was requested has raised an exception, in the service or in the manager.

    Attributes:
        type_name: the name of the exception's class, as in ``ValueError``; empty if it did not say.
        text: what ``str()`` gives of the exception there.
        module: where its class is defined, if that is known; None otherwise.
    """

    def __init__(self, address: str, error: RemoteError) -> None:
        said = "\n".join(line.rstrip("\n") for line in error.traceback)
        if not said.endswith(str(error)):
            said = f"{said}\n{error}".lstrip("\n")
        super().__init__(f"Manager[{address}] returned the following exception:\n\n{said}")
        self.type_name = error.type_name
        self.text = error.text
        self.module = error.module
