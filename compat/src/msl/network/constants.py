"""Words and numbers of the lab network, where its files are, and what this computer is called.

The files are those of ``MSL_NETWORK_HOME`` as it is when this module is imported. What takes time to find
out, `IPV4_ADDRESSES` and `LOCALHOST_ALIASES`, is found out when somebody wants to know.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from armillary.network.locations import find_home, localhost_aliases, own_addresses, own_hostname
from armillary.network.tls.certificates import YEARS_VALID

if TYPE_CHECKING:
    IPV4_ADDRESSES: list[str]
    LOCALHOST_ALIASES: set[str]

__all__ = [
    "CERT_DIR",
    "DATABASE",
    "DEFAULT_YEARS_VALID",
    "DISCONNECT_REQUEST",
    "HOME_DIR",
    "HOSTNAME",
    "IPV4_ADDRESSES",
    "IS_LINUX",
    "IS_WINDOWS",
    "KEY_DIR",
    "LOCALHOST_ALIASES",
    "NETWORK_MANAGER_RUNNING_PREFIX",
    "NOTIFICATION_UID",
    "PORT",
    "SHUTDOWN_MANAGER",
    "SHUTDOWN_SERVICE",
    "USER_DIR",
]

PORT = 1875
"""Where managers listen."""
HOSTNAME = own_hostname()
"""What this computer calls itself."""

_home = find_home()
HOME_DIR = str(_home.path)
"""Where the files of the lab network are."""
USER_DIR = str(find_home({"SUDO_USER": os.environ.get("SUDO_USER", "")}).path.parents[1])
"""The home directory of the user, who may have called sudo."""
CERT_DIR = str(_home.certificates)
"""Where certificates are."""
KEY_DIR = str(_home.keys)
"""Where private keys are."""
DATABASE = str(_home.database)
"""The manager's database."""

IS_WINDOWS = sys.platform in ("win32", "cygwin")
IS_LINUX = sys.platform.startswith("linux")

DISCONNECT_REQUEST = "__disconnect__"
"""The attribute that a device requests to be disconnected."""
NOTIFICATION_UID = "notification"
"""The uid of what nobody has requested."""
SHUTDOWN_SERVICE = "shutdown_service"
"""The method that a service may have for being shut down by its clients."""
SHUTDOWN_MANAGER = "shutdown_manager"
"""The request of an administrator that ends a manager."""
NETWORK_MANAGER_RUNNING_PREFIX = "Network Manager running on"
"""How the line begins that a manager logs when it can be connected to."""
DEFAULT_YEARS_VALID = int(YEARS_VALID)
"""How long a certificate is valid if nobody says so."""


def __getattr__(name: str) -> object:
    value: object
    match name:
        case "IPV4_ADDRESSES":
            value = [address for address in own_addresses() if ":" not in address]
        case "LOCALHOST_ALIASES":
            value = set(localhost_aliases())
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
