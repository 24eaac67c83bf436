"""A lab network for threads: the names and the behaviour of MSL-Network 1.0, over armillary.

New programs use `armillary.network`; the documentation says how to move there step by step.

    client      connect, Client, Link, LinkedClient
    service     Service
    manager     run_forever, run_services, Manager, Peer
    network     what clients, services and the manager have in common
    database    the manager's tables
    cryptography, json, utils, constants
    ssh         managers on other computers
    cli         the command msl-network
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from armillary_compat.collision import warn_of_collision

from ._version import __version__, version_info

if TYPE_CHECKING:
    from . import client, constants, cryptography, database, json, manager, network, service, utils
    from .client import LinkedClient, connect, filter_client_connect_kwargs
    from .database import ConnectionsTable, HostnamesTable, UsersTable
    from .manager import filter_run_forever_kwargs, run_services
    from .service import Service, filter_service_start_kwargs

__all__ = [
    "ConnectionsTable",
    "HostnamesTable",
    "LinkedClient",
    "Service",
    "UsersTable",
    "__author__",
    "__copyright__",
    "__version__",
    "client",
    "connect",
    "constants",
    "cryptography",
    "database",
    "filter_client_connect_kwargs",
    "filter_run_forever_kwargs",
    "filter_service_start_kwargs",
    "json",
    "manager",
    "network",
    "run_services",
    "service",
    "utils",
    "version_info",
]

__author__ = "the armillary developers"
__copyright__ = "\N{COPYRIGHT SIGN} 2026, the armillary developers"

_MODULES = {
    "client": ("LinkedClient", "connect", "filter_client_connect_kwargs"),
    "constants": (),
    "cryptography": (),
    "database": ("ConnectionsTable", "HostnamesTable", "UsersTable"),
    "json": (),
    "manager": ("filter_run_forever_kwargs", "run_services"),
    "network": (),
    "service": ("Service", "filter_service_start_kwargs"),
    "utils": (),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

warn_of_collision("msl.network", "msl-network")


def __getattr__(name: str) -> Any:
    # Whoever wants the tables does not wait for clients and managers: all modules together take 0.3 s to
    # import, the command without them 0.2 s.
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
