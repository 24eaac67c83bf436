"""Where a lab network keeps its files, and by which names and addresses this computer knows itself.

Everything is found out when it is asked for: importing this module runs nothing and looks nothing up.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = [
    "Home",
    "find_home",
    "localhost_aliases",
    "own_addresses",
    "own_hostname",
]


@dataclass(frozen=True, slots=True)
class Home:
    """The directory in which managers and devices keep certificates, keys, logs and the database.

    Nothing is created by asking for a path.
    """

    path: Path

    @property
    def certificates(self) -> Path:
        """Where this computer's certificates are, and those of managers that it trusts."""
        return self.path / "certs"

    @property
    def keys(self) -> Path:
        """Where private keys are."""
        return self.path / "keys"

    @property
    def logs(self) -> Path:
        """Where managers write their logs."""
        return self.path / "logs"

    @property
    def database(self) -> Path:
        """The manager's database."""
        return self.path / "manager.sqlite3"

    def certificate(self, host: str = "localhost") -> Path:
        """The certificate of `host`: the one that a manager there shows, or that is trusted when it does.

        Raises:
            ValueError: `host` could not be part of a file's name.
        """
        return self.certificates / f"{_file_stem(host)}.crt"

    def key(self, host: str = "localhost") -> Path:
        """The private key for the certificate of `host`.

        Raises:
            ValueError: `host` could not be part of a file's name.
        """
        return self.keys / f"{_file_stem(host)}.key"

    def log(self, now: float) -> Path:
        """The log of a manager that was started at `now`, in seconds since 1970; named in local time."""
        return self.logs / datetime.fromtimestamp(now).strftime("manager-%Y-%m-%d-%H-%M-%S.log")


def _file_stem(host: str) -> str:
    """`host`, unless a file named after it would be somewhere else."""
    if not host or not {os.sep, os.altsep or os.sep, "\0"}.isdisjoint(host):
        raise ValueError(f"expected the name or the address of a host, got {host!r}")
    return host


def find_home(environ: Mapping[str, str] | None = None) -> Home:
    """The home that the environment names.

    It is ``MSL_NETWORK_HOME``, or else ``~/.msl/network``, which the managers, services and clients of
    MSL-Network 1.0 use as well. ``~`` is whose who called sudo (``SUDO_USER``), not root's.

    Args:
        environ: the environment variables; this process's if None.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("MSL_NETWORK_HOME"):
        return Home(Path(named).expanduser())
    user = "~" + environ.get("SUDO_USER", "")
    expanded = os.path.expanduser(user)
    # Whom the system does not know stays as written.
    return Home(Path(os.path.expanduser("~") if expanded == user else expanded) / ".msl" / "network")


def own_hostname() -> str:
    """What this computer calls itself."""
    return socket.gethostname()


def own_addresses() -> list[str]:
    """The IPv4 and IPv6 addresses of this computer, the loopback ones first.

    Addresses of the link-local kind are left out: they mean nothing without the name of an interface.
    """
    import psutil  # a command that asks for no address starts faster without it

    found = ["127.0.0.1", "::1"]
    try:
        interfaces = psutil.net_if_addrs()
    except (OSError, psutil.Error):
        interfaces = {}  # not allowed to look, as in some containers
    for kind in (socket.AF_INET, socket.AF_INET6):
        for addresses in interfaces.values():
            found += [each.address for each in addresses if each.family == kind and "%" not in each.address]
    return list(dict.fromkeys(found))


def localhost_aliases() -> frozenset[str]:
    """Every name and address that means this computer.

    It asks the resolver for the names of the loopback addresses, which may take seconds: call it in a
    thread.
    """
    return frozenset(
        {own_hostname(), "localhost", *own_addresses(), *map(_reverse_name, ("127.0.0.1", "::1"))}
    )


def _reverse_name(address: str) -> str:
    """The resolver's name of an address, or the address if it has none."""
    try:
        return socket.getnameinfo((address, 0), 0)[0]
    except OSError:
        return address
