"""How a device is told to connect: the keyword arguments of `connect` and of `Service.start`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from armillary.network.protocol.device_handshake import Credentials

from .constants import PORT

__all__ = ["Options", "valid_options"]


@dataclass(frozen=True)
class Options:
    """The keyword arguments, with the defaults that they have everywhere."""

    name: str | None = None
    host: str = "localhost"
    port: int = PORT
    timeout: float | None = 10
    username: str | None = None
    password: str | None = None
    password_manager: str | None = None
    read_limit: int | None = None
    disable_tls: bool = False
    cert_file: str | None = None
    assert_hostname: bool = True
    auto_save: bool = False

    @property
    def address(self) -> str:
        """The manager's, for people."""
        return f"{self.host}:{self.port}"

    def credentials(self) -> Credentials:
        """What the device answers when it is asked, and where it keeps what somebody was asked for."""
        return Credentials(self.username, self.password, self.password_manager)


_NAMES = frozenset(field.name for field in fields(Options))


def valid_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those that are known here. A manager's ``auth_password`` is a device's ``password_manager``."""
    valid = {name: value for name, value in options.items() if name in _NAMES}
    if "auth_password" in options:
        valid.setdefault("password_manager", options["auth_password"])
    return valid
