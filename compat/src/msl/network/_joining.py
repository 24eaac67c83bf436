"""The way of a device into the lab network, with what 1.0 says where it ends."""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass

import trio

from armillary._runtime.dial import keep_alive, open_stream
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network.connection import DEFAULT_LIMIT, Connection, wait_accepted
from armillary.network.errors import Rejected

from . import constants, cryptography
from ._errors import CannotConnect, CertificateRefused, ConnectTimeout, Refused
from ._options import Options

__all__ = ["Certificate", "limit_of", "open_connection_stream", "trusted_certificate", "wait_joined"]

# What the TLS library says of somebody who does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
# The certificate is not for this name, or not for this address (X509_V_ERR_...).
_NAMES = (62, 64)
# A read limit that is none, as in 1.0, would let one peer fill the memory: this is a thousand times more
# than what people send.
_UNLIMITED = 1024 * DEFAULT_LIMIT


def limit_of(options: Options) -> int:
    """The largest packet that is accepted, in bytes."""
    return _UNLIMITED if options.read_limit is None else options.read_limit


@dataclass(frozen=True)
class Certificate:
    """The certificate that a manager must show."""

    path: str
    """Its file."""
    context: ssl.SSLContext
    """Trusts it, and no other."""


def trusted_certificate(options: Options) -> Certificate | None:
    """The certificate that the manager must show; None without TLS.

    If there is none yet, the manager is asked for it, and then whoever sits at the terminal, in this very
    thread, unless they have said before that it is to be trusted.

    Raises:
        CannotConnect: the manager, or the file, is not there.
        CertificateRefused: it is not to be trusted.
    """
    if options.disable_tls:
        return None
    try:
        path, context = cryptography.get_ssl_context(
            cert_file=options.cert_file,
            host=options.host,
            port=options.port,
            auto_save=options.auto_save,
            timeout=options.timeout,
        )
    except OSError as error:
        raise CannotConnect(f"{error}\n{_certificate_hint(error, options)}") from None
    if context is None:
        raise CertificateRefused("SSL certificate required")
    context.check_hostname = bool(options.assert_hostname)
    return Certificate(path, context)


def _certificate_hint(error: OSError, options: Options) -> str:
    if any(word in str(error) for word in _NO_TLS):
        return "Try setting disable_tls=True"
    if options.host in constants.LOCALHOST_ALIASES:
        return "Make sure a Manager is running on this computer"
    return f"Cannot connect to {options.address} to get the certificate"


async def open_connection_stream(options: Options, certificate: Certificate | None) -> trio.abc.Stream:
    """Connect.

    Raises:
        ConnectTimeout: that took too long.
        CannotConnect: it failed.

    The caller closes the stream. Cancellation leaves nothing open.
    """
    context = None if certificate is None else certificate.context
    timeout = math.inf if options.timeout is None else options.timeout
    try:
        stream = await open_stream(options.host, int(options.port), ssl_context=context, timeout=timeout)
    except ConnectFailed as error:
        cause = error.__cause__
        if isinstance(cause, trio.TooSlowError):
            raise ConnectTimeout(
                f"Cannot connect to {options.address} within {options.timeout} seconds"
            ) from None
        raise CannotConnect(f"{error}\n{_connect_hint(cause, options, certificate)}") from None
    keep_alive(stream)
    return stream


def _connect_hint(cause: BaseException | None, options: Options, certificate: Certificate | None) -> str:
    match cause:
        case ssl.SSLCertVerificationError() if cause.verify_code in _NAMES:
            return (
                "If you trust the Manager at this address, and its certificate is only for another name, "
                "set assert_hostname=False"
            )
        case ssl.SSLCertVerificationError() if certificate is not None:
            return (
                "Perhaps the Network Manager is using a new certificate.\n"
                f"If you are certain that it is the Manager at {options.address} which answers, delete\n"
                f"{certificate.path}\nand connect again"
            )
        case ssl.SSLError() if any(word in str(cause) for word in _NO_TLS):
            return "Try setting disable_tls=True"
    return f"Cannot connect to {options.address}"


async def wait_joined(connection: Connection, options: Options) -> None:
    """Wait until the manager has let the device in.

    Raises:
        Refused: it does not.
        CannotConnect: it said nothing in time, or the connection ended.
    """
    timeout = math.inf if options.timeout is None else options.timeout
    try:
        await wait_accepted(connection, timeout, options.address)
    except Rejected as error:
        raise Refused(f"{error.type_name}: {error.text}" if error.type_name else error.text) from None
    except ConnectFailed as error:
        cause = connection.reason
        if isinstance(cause, ConnectionClosed):
            raise CannotConnect(
                f"The connection to {options.address} ended before it was established: {cause}"
            ) from None
        if connection.manager_name is not None and cause is not error:
            raise CannotConnect(f"{cause}\nCannot connect to {options.address}") from None
        raise CannotConnect(_silence(options)) from None


def _silence(options: Options) -> str:
    text = f"The connection to {options.address} was not established after {options.timeout} second(s)"
    if options.disable_tls:
        text += "\nYou have TLS disabled. Perhaps the Manager is using TLS for the connection."
    return text
