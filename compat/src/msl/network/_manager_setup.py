"""How a manager is set up: certificate, tables, authentication, in the order and with the words of 1.0."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TypeVar

from armillary.network.locations import Home
from armillary.network.tls.contexts import manager_context
from armillary.network.tls.own import manager_certificate

from . import constants
from ._manager import Manager
from ._manager_log import set_level
from ._passwords import given_password
from .database import ConnectionsTable, Database, HostnamesTable, UsersTable
from .utils import ensure_root_path, logger

__all__ = ["CannotStart", "ManagerOptions", "set_up"]

Table = TypeVar("Table", bound=Database)


class CannotStart(Exception):
    """The manager is told to do what it cannot do. The text is for whoever has started it."""


@dataclass(frozen=True)
class ManagerOptions:
    """The keyword arguments of `run_forever`."""

    host: str | None = None
    port: int = constants.PORT
    auth_hostname: bool = False
    auth_login: bool = False
    auth_password: str | list[str] | None = None
    database: str | None = None
    disable_tls: bool = False
    cert_file: str | None = None
    key_file: str | None = None
    key_file_password: str | list[str] | None = None
    log_level: str | int = "INFO"
    log_file: str | None = None

    @staticmethod
    @cache
    def names() -> frozenset[str]:
        """What they are called."""
        return frozenset(field.name for field in fields(ManagerOptions))


@contextmanager
def set_up(options: ManagerOptions) -> Iterator[tuple[Manager, ssl.SSLContext | None]]:
    """For a block: a manager whose tables are open, and its TLS context.

    Raises:
        CannotStart: an option makes no sense, or not together with another.
        OSError: a file cannot be used.
        ValueError: a password or a key is of no use.
        sqlite3.Error: the database cannot be used.
    """
    if not set_level(options.log_level):
        raise CannotStart(f"ValueError: Cannot set logging level to {options.log_level!r}")
    port = _port(options.port)
    context = None if options.disable_tls else _context(options)
    with ExitStack() as stack:
        connections, hostnames, users = _tables(options.database, stack)
        password, login, trusted = _authentication(options, hostnames, users)
        yield (Manager(port, password, login, trusted, connections, users, hostnames, None), context)


def _port(given: object) -> int:
    try:
        port = int(given)  # type: ignore[call-overload]  # whatever it is, it says so
    except (TypeError, ValueError):
        port = 0
    if port <= 0:
        raise CannotStart("ValueError: The port must be a positive integer")
    if port > 65535:
        raise CannotStart("ValueError: The port must be less than 65536")
    return int(port)


def _context(options: ManagerOptions) -> ssl.SSLContext:
    password, _ = given_password(options.key_file_password)
    own = manager_certificate(
        Home(Path(constants.HOME_DIR)),
        host=options.host or None,
        certificate=_path(options.cert_file),
        key=_path(options.key_file),
        password=password,
    )
    try:
        context = manager_context(own.certificate, own.key, password=password)
    except ValueError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from None
    logger.info("loaded certificate %s", own.certificate)
    return context


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


def _tables(database: str | None, stack: ExitStack) -> tuple[ConnectionsTable, HostnamesTable, UsersTable]:
    ensure_root_path(database or constants.DATABASE)
    connections = _opened(ConnectionsTable(database=database), ConnectionsTable.NAME, stack)
    hostnames = _opened(HostnamesTable(database=database), HostnamesTable.NAME, stack)
    users = _opened(UsersTable(database=database), UsersTable.NAME, stack)
    return connections, hostnames, users


def _opened(table: Table, name: str, stack: ExitStack) -> Table:
    stack.callback(table.close)
    logger.info("loaded the %r table from %s", name, table.path)
    return table


def _authentication(
    options: ManagerOptions, hostnames: HostnamesTable, users: UsersTable
) -> tuple[str | None, bool | None, list[str] | None]:
    """The password, whether users log in, and the trusted hosts: one of them, or none."""
    wanted = (options.auth_password is not None, options.auth_hostname, options.auth_login)
    if sum(map(bool, wanted)) > 1:
        raise CannotStart("Cannot specify multiple authentication methods")
    password, _ = given_password(options.auth_password)
    if password is not None:
        if not password:
            raise CannotStart("ValueError: The password of the Manager is empty")
        logger.info("using a password for authentication")
        return password, None, None
    if options.auth_hostname:
        trusted = hostnames.hostnames()
        if not trusted:
            raise CannotStart("The 'auth_hostnames' table is empty, no one could connect")
        logger.info("using trusted hosts for authentication")
        return None, None, trusted
    if options.auth_login:
        if not users.usernames():
            raise CannotStart(
                "The 'auth_users' table is empty, no one could log in\n"
                f'To add a user to {users.path} run the "msl-network user" command'
            )
        logger.info("using a login for authentication")
        return None, True, None
    logger.info("not using authentication")
    return None, None, None
