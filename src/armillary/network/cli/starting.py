"""The command that runs a manager."""

from __future__ import annotations

import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from armillary.network.locations import Home, find_home, own_hostname

from .running import FILE, Password, database_option, errors_reported

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from armillary.network.manager import Authenticate
    from armillary.network.store import Store

    Publish = Callable[..., Awaitable[None]]

__all__ = ["start"]

_logger = logging.getLogger("armillary.network")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.command()
@click.option("-H", "--host", metavar="HOST", help="The address to listen on.  [default: all of them]")
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=1875, show_default=True)
@click.option("-P", "--auth-password", type=Password(), help="Everybody has to know this password.")
@click.option("--auth-hostname", is_flag=True, help="Everybody has to come from a trusted host.")
@click.option("--auth-login", is_flag=True, help="Everybody has to log in as a user.")
@database_option
@click.option("-c", "--cert-file", type=FILE, help="The certificate.  [default: made when it is missing]")
@click.option("-k", "--key-file", type=FILE, help="The private key of the certificate.")
@click.option("-D", "--key-file-password", type=Password(), help="The password of the private key.")
@click.option("--disable-tls", is_flag=True, help="Encrypt nothing.")
@click.option(
    "-G",
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
)
@click.option(
    "-l", "--log-file", type=FILE, help="Where to log.  [default: a new file in the network's home]"
)
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Publish OpenMetrics on this port.  [default: none]"
)
@click.option(
    "--metrics-host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="The address to publish them on.",
)
def start(
    host: str | None,
    port: int,
    auth_password: str | None,
    auth_hostname: bool,
    auth_login: bool,
    database: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    key_file_password: str | None,
    disable_tls: bool,
    log_level: str,
    log_file: Path | None,
    metrics_port: int | None,
    metrics_host: str,
) -> None:
    """Run a manager until Ctrl-C, SIGTERM, or an administrator's shutdown_manager.

    \b
    Exit status:
      0  the manager was ended
      1  it could not start: the message says why
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.store import open_store

    if (auth_password is not None) + auth_hostname + auth_login > 1:
        raise click.UsageError("Cannot specify multiple authentication methods")
    home = find_home()
    publish = None if metrics_port is None else _publisher(metrics_host, metrics_port)
    with errors_reported():
        _begin_log(home.log(time.time()) if log_file is None else log_file, log_level)
        context = None
        if not disable_tls:
            context = _context(home, host, cert_file, key_file, key_file_password)
        path = home.database if database is None else database
        with open_store(path) as store:
            for table in ("connections", "auth_hostnames", "auth_users"):
                _logger.info("loaded the %r table from %s", table, path)
            authenticate = _authentication(store, path, auth_password, auth_hostname, auth_login)
            _run(host, port, context, store, authenticate, publish)


def _begin_log(file: Path, level: str) -> None:
    """Log to a file and to stdout, at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(file, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s [%(levelname)-8s] %(name)s - %(message)s"))
    to_stdout = logging.StreamHandler(sys.stdout)
    to_stdout.setFormatter(logging.Formatter("%(asctime)s [%(levelname)-5s] %(name)s - %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[to_file, to_stdout], force=True)
    _logger.setLevel(level.upper())


def _context(
    home: Home, host: str | None, certificate: Path | None, key: Path | None, password: str | None
) -> ssl.SSLContext:
    from armillary.network.tls.contexts import manager_context
    from armillary.network.tls.own import manager_certificate

    own = manager_certificate(home, host=host, certificate=certificate, key=key, password=password)
    context = manager_context(own.certificate, own.key, password=password)
    _logger.info("loaded certificate %s", own.certificate)
    return context


def _authentication(
    store: Store, path: Path, password: str | None, hostnames: bool, login: bool
) -> Authenticate:
    from armillary.network.manager import Authenticate

    if password is not None:
        _logger.info("the manager's password is required")
        return Authenticate(password=password)
    if hostnames:
        trusted = store.hostnames.names()
        if not trusted:
            raise ValueError(f"the 'auth_hostnames' table in {path} is empty, no one could connect")
        _logger.info("only trusted hosts may connect: %s", ", ".join(trusted))
        return Authenticate(hostnames=trusted)
    if login:
        if not store.users.names():
            raise ValueError(
                f"The 'auth_users' table is empty, no one could log in\n"
                f"To add a user to {path}, run: armillary network user add NAME"
            )
        _logger.info("a login is required")
        return Authenticate(login=True)
    _logger.info("no authentication is required")
    return Authenticate()


def _publisher(host: str, port: int) -> Publish:
    try:
        from armillary.network.metrics import serve_metrics
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    return partial(serve_metrics, port=port, host=host)


def _run(
    host: str | None,
    port: int,
    context: ssl.SSLContext | None,
    store: Store,
    authenticate: Authenticate,
    publish: Publish | None,
) -> None:
    import trio

    from armillary._runtime.dial import address_text, bound_ports
    from armillary._runtime.groups import single_exception
    from armillary._runtime.signals import cancel_on_signal
    from armillary.network.manager import Manager, serve_manager

    managers: list[Manager] = []

    async def run() -> None:
        with single_exception():
            async with trio.open_nursery() as nursery:
                await nursery.start(cancel_on_signal, nursery.cancel_scope)
                async with trio.open_nursery() as serving:
                    serve = partial(
                        serve_manager,
                        port,
                        host=host,
                        ssl_context=context,
                        authenticate=authenticate,
                        store=store,
                        on_start=managers.append,
                    )
                    try:
                        listeners = await serving.start(serve)
                    except OSError as error:
                        wanted = address_text(host or "all addresses", port)
                        raise OSError(f"could not listen on {wanted}: {error}") from error
                    if publish is not None:
                        await nursery.start(publish, managers[0])
                    where = address_text(host or own_hostname(), bound_ports(listeners)[0])
                    tls = "DISABLED" if context is None else "ENABLED"
                    _logger.info("Network Manager running on %s (TLS %s)", where, tls)
                nursery.cancel_scope.cancel(reason="an administrator has shut the manager down")

    trio.run(run)
    _logger.info("the manager has ended")
