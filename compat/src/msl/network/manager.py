"""The manager, to which clients and services connect."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._manager import Manager, Peer
from ._manager_run import run_manager
from ._manager_setup import ManagerOptions
from .constants import PORT

if TYPE_CHECKING:
    from .service import Service

__all__ = ["Manager", "Peer", "filter_run_forever_kwargs", "run_forever", "run_services"]


def run_forever(
    *,
    host: str | None = None,
    port: int = PORT,
    auth_hostname: bool = False,
    auth_login: bool = False,
    auth_password: str | list[str] | None = None,
    database: str | None = None,
    disable_tls: bool = False,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_file_password: str | list[str] | None = None,
    log_level: str | int = "INFO",
    log_file: str | None = None,
) -> None:
    """Run a manager until Ctrl-C, SIGTERM, or the ``shutdown_manager`` of an administrator.

    The logging of the process is taken over: whatever is logged goes to the log file and to standard output,
    in this run and after it. If the manager cannot run as it is told to, that is logged, printed on standard
    error, and this returns.

    Args:
        host: the name or address to listen on; everywhere if None.
        port: the port to listen on.
        auth_hostname: whether everybody has to come from a trusted host.
        auth_login: whether everybody has to log in as a user.
        auth_password: what everybody has to know, if not None; or the file whose first line it is; a list
            is of words with blanks between them.
        database: the file with the tables; the default one if None.
        disable_tls: whether nothing is encrypted.
        cert_file: the certificate. If None, it is the one of `host` in the network's home, or of
            ``localhost``, and is made if it is missing.
        key_file: the private key of the certificate. If there is no `cert_file`, the certificate in the
            network's home is made from this key.
        key_file_password: the password of the key; given like `auth_password`.
        log_level: from which on the package logs: a number, or a name in any case.
        log_file: where to log; a new file in the network's home if None.

    Raises:
        OSError: a file cannot be read or written. As ``ssl.SSLError``, if the certificate and the key are of
            no use.
        ValueError: a password or a key is of no use.
        sqlite3.Error: the database cannot be used.
    """
    run_manager(
        ManagerOptions(
            host=host,
            port=port,
            auth_hostname=auth_hostname,
            auth_login=auth_login,
            auth_password=auth_password,
            database=database,
            disable_tls=disable_tls,
            cert_file=cert_file,
            key_file=key_file,
            key_file_password=key_file_password,
            log_level=log_level,
            log_file=log_file,
        )
    )


def run_services(*services: Service, **kwargs: Any) -> None:
    """Run a manager together with services, until all services have ended.

    A service that has a method ``shutdown_service`` can be ended by its clients. One that cannot run, because
    the manager refuses its name for example, is logged as an error, and the others go on.

    Args:
        services: not started yet.
        **kwargs: those of `run_forever`, and of `Service.start` for each of the services. Others are ignored.

    Raises:
        TypeError: one of them is no service.
        ValueError: a service cannot be started with these arguments.
    """
    from .service import Service, filter_service_start_kwargs

    if not services:
        sys.stderr.write("Warning... no services have been specified\n")
        return
    for service in services:
        if not isinstance(service, Service):
            raise TypeError(f"All services must be of type {Service}")
    run_manager(
        ManagerOptions(**filter_run_forever_kwargs(**kwargs)),
        services,
        filter_service_start_kwargs(**kwargs),
    )


def filter_run_forever_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Those of the keyword arguments that `run_forever` takes; ``password_manager`` as ``auth_password``."""
    valid = {name: value for name, value in kwargs.items() if name in ManagerOptions.names()}
    if "password_manager" in kwargs:
        valid.setdefault("auth_password", kwargs["password_manager"])
    return valid
