"""What the commands have in common that connect to a manager: options, trust, secrets, errors, the end."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import trio

from armillary._options import Seconds
from armillary._runtime.dial import address_text
from armillary._runtime.groups import single_exception
from armillary._runtime.signals import cancel_on_signal
from armillary.errors import ArmillaryError, ConnectFailed
from armillary.network.locations import find_home
from armillary.network.typed_passwords import typed_password

from .running import FILE
from .terminal import NoTerminal, ask_at_terminal

if TYPE_CHECKING:
    from armillary.network.client import Client
    from armillary.network.protocol.device_handshake import Credentials
    from armillary.network.reconnect import PersistentClient
    from armillary.network.tls.trust import Decide, Offer
    from armillary.network.trusting import Trust

__all__ = ["INTERRUPTED", "Target", "connection_errors_reported", "connects", "run_interruptibly"]

INTERRUPTED = 130
"""The status after Ctrl-C, by the custom of shells."""

# What commands call themselves in the lab network.
_NAME = "armillary"
# Bytes of a SHA-256.
_DIGEST = 32

T = TypeVar("T")


class _Fingerprint(click.ParamType[str]):
    """The SHA-256 of a certificate, in hexadecimal digits with or without colons."""

    name = "fingerprint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            digest = bytes.fromhex(str(value).replace(":", ""))
        except ValueError:
            digest = b""
        if len(digest) != _DIGEST:
            self.fail(f"expected {2 * _DIGEST} hexadecimal digits, got {value!r}", param, ctx)
        return digest.hex(":")


class _SecretFile(click.ParamType[str]):
    """A file whose first line is a secret."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = click.Path(exists=True, dir_okay=False).convert(value, param, ctx)
        try:
            return typed_password(str(path)).password
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Target:
    """The manager that a command was told to connect to, and how."""

    host: str
    port: int
    trust: Trust | None
    """None is no TLS."""
    credentials: Credentials
    timeout: float
    """Seconds for connecting."""

    @property
    def where(self) -> str:
        """Its address, for people."""
        return address_text(self.host, self.port)

    def open_client(self, features: Collection[str]) -> AbstractAsyncContextManager[Client]:
        """Connect for the length of a block."""
        from armillary.network.client import open_client

        return open_client(
            self.host,
            self.port,
            name=_NAME,
            trust=self.trust,
            credentials=self.credentials,
            ask=_ask,
            connect_timeout=self.timeout,
            features=features,
        )

    def open_persistent_client(
        self, features: Collection[str]
    ) -> AbstractAsyncContextManager[PersistentClient]:
        """Stay connected for the length of a block."""
        import random

        from armillary._wire.backoff import Backoff
        from armillary.network.reconnect import open_persistent_client

        return open_persistent_client(
            self.host,
            self.port,
            name=_NAME,
            trust=self.trust,
            credentials=self.credentials,
            ask=_ask,
            connect_timeout=self.timeout,
            features=features,
            # Somebody sits and waits, so the pauses are shorter than a program's.
            backoff=Backoff(random.uniform, longest=5.0),
        )


def connects(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that connect; these get `target` for them."""

    @click.option("-H", "--host", default="localhost", show_default=True, help="Where the manager runs.")
    @click.option("-p", "--port", type=click.IntRange(1, 65535), default=1875, show_default=True)
    @click.option(
        "--no-tls",
        "--disable-tls",
        "no_tls",
        is_flag=True,
        help="Speak no TLS, as with managers that were started without it.",
    )
    @click.option(
        "--certfile",
        type=FILE,
        metavar="FILE",
        help="The only certificate to trust.  [default: that of the host in the network's home]",
    )
    @click.option(
        "--fingerprint",
        type=_Fingerprint(),
        metavar="HEX",
        help="Trust the certificate with this SHA-256, and no other; you are not asked then.",
    )
    @click.option(
        "--ignore-hostname", is_flag=True, help="Trust the certificate even if it is for another host."
    )
    @click.option(
        "--manager-password-file",
        "manager_password",
        type=_SecretFile(),
        metavar="FILE",
        help="The file whose first line is the manager's password.  [default: you are asked]",
    )
    @click.option("--username", metavar="NAME", help="Who you are.  [default: you are asked]")
    @click.option(
        "--password-file",
        "password",
        type=_SecretFile(),
        metavar="FILE",
        help="The file whose first line is your password.  [default: you are asked]",
    )
    @click.option(
        "--connect-timeout",
        type=Seconds(),
        default=10.0,
        show_default=True,
        metavar="S",
        help="Seconds for connecting, and as many for the manager to let you in.",
    )
    @functools.wraps(command)
    def with_target(
        *,
        host: str,
        port: int,
        no_tls: bool,
        certfile: Path | None,
        fingerprint: str | None,
        ignore_hostname: bool,
        manager_password: str | None,
        username: str | None,
        password: str | None,
        connect_timeout: float,
        **parameters: Any,
    ) -> None:
        from armillary.network.protocol.device_handshake import Credentials

        if no_tls and (certfile is not None or fingerprint is not None or ignore_hostname):
            raise click.UsageError("--no-tls goes with no option about certificates")
        if certfile is not None and fingerprint is not None:
            raise click.UsageError("expected --certfile or --fingerprint, got both")
        trust = None if no_tls else _trust(host, port, certfile, fingerprint, not ignore_hostname)
        credentials = Credentials(username, password, manager_password)
        command(target=Target(host, port, trust, credentials, connect_timeout), **parameters)

    return with_target


def _trust(
    host: str, port: int, certificate: Path | None, fingerprint: str | None, assert_hostname: bool
) -> Trust:
    from armillary.network.tls.contexts import DeviceContexts
    from armillary.network.trusting import Trust

    if fingerprint is not None:
        _check_stored(host, port, fingerprint)
    return Trust(
        decide=_decide(fingerprint),
        certificate=certificate,
        assert_hostname=assert_hostname,
        contexts=DeviceContexts(),
    )


def _check_stored(host: str, port: int, fingerprint: str) -> None:
    """See that a certificate which is trusted already is the one that is meant."""
    from armillary.network.tls.trust import Offer

    try:
        path = find_home().certificate(host)
        if not path.exists():
            return
        stored = Offer(host, port, path.read_text(encoding="ascii"), path).fingerprint()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if stored != fingerprint:
        raise click.ClickException(
            f"the certificate in {path}, which is the one that is trusted, has the fingerprint {stored}"
        )


def _decide(fingerprint: str | None) -> Decide:
    """Says whether a certificate that was never seen is trusted from now on."""

    async def is_expected(offer: Offer) -> bool:
        return offer.fingerprint() == fingerprint

    async def ask(offer: Offer) -> bool:
        where = address_text(offer.host, offer.port)
        click.echo(
            f"The certificate of {where} is not known here. Its fingerprint (SHA256) is\n"
            f"  {offer.fingerprint()}",
            err=True,
        )
        try:
            answer = await ask_at_terminal("Trust it from now on? [y/N] ")
        except NoTerminal:
            return False
        return answer.strip().lower() in ("y", "yes")

    return ask if fingerprint is None else is_expected


async def _ask(question: str, is_secret: bool) -> str:
    """Answers what the manager asks and no option says."""
    try:
        return await ask_at_terminal(question, is_secret=is_secret)
    except NoTerminal as error:
        options = "--username, --password-file and --manager-password-file"
        raise ConnectFailed(f"{error}; what the manager may ask can be said with {options}") from None


@contextmanager
def connection_errors_reported() -> Iterator[None]:
    """Turn what can go wrong with a connection into an error message and status 1."""
    from armillary.network.tls.trust import CertificateRefused, NoTls

    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output has gone, which click knows how to end
    except CertificateRefused as error:
        hint = "say so at a terminal, or with --fingerprint or --certfile"
        raise click.ClickException(f"{error}; {hint}") from None
    except NoTls as error:
        raise click.ClickException(f"{error}: try --no-tls") from None
    except (ArmillaryError, trio.TooSlowError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


def run_interruptibly(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in trio, and return what it returns.

    Ctrl-C and SIGTERM cancel it, so that it takes its leave, and end the command with status `INTERRUPTED`,
    without a word.
    """
    results: list[T] = []

    async def run() -> None:
        with single_exception():
            async with trio.open_nursery() as nursery:
                await nursery.start(cancel_on_signal, nursery.cancel_scope)
                results.append(await main())
                nursery.cancel_scope.cancel(reason="the command is done")

    trio.run(run)
    if not results:
        raise click.exceptions.Exit(INTERRUPTED)
    return results[0]
