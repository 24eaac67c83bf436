"""Trust on first use: the first certificate that a manager shows is stored, if somebody says yes.

From then on that host must show the same one, or one that it has signed. There is one file for each host,
named after it, where MSL-Network 1.0 has it as well.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import trio

from armillary._runtime.dial import HANDSHAKE_TIMEOUT, address_text, open_stream
from armillary._runtime.tls_socket import TlsSocketStream
from armillary.errors import ConnectFailed
from armillary.network.locations import Home

from .contexts import DeviceContexts, unverified_context
from .files import PUBLIC, write_file

__all__ = [
    "CertificateChanged",
    "CertificateForOthers",
    "CertificateOutOfDate",
    "CertificateRefused",
    "Decide",
    "NoTls",
    "Offer",
    "TrustError",
    "accept",
    "fetch_certificate",
    "open_trusted_stream",
    "refuse",
    "trusted_file",
]


class TrustError(ConnectFailed):
    """There is no connection since the peer's certificate is not one that is trusted.

    Attributes:
        path: the file with the certificate that is trusted, or where one would be.
    """

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


class CertificateRefused(TrustError):
    """No certificate of this host was known, and nobody said yes to the one that it showed.

    Attributes:
        offer: what it showed.
    """

    def __init__(self, offer: Offer) -> None:
        super().__init__(
            f"the certificate of {address_text(offer.host, offer.port)} is not trusted: its fingerprint is "
            f"{offer.fingerprint()} (SHA256), and to trust it, it has to be stored as {offer.path}",
            offer.path,
        )
        self.offer = offer


class CertificateChanged(TrustError):
    """The host shows another certificate than the one that is trusted, or somebody else answers for it."""


class CertificateForOthers(TrustError):
    """The certificate is the trusted one, but it is not for the name or address that was used to connect.

    You do not get this with `assert_hostname` false.
    """


class CertificateOutOfDate(TrustError):
    """The certificate is valid no more or not yet, by this computer's clock."""


class NoTls(ConnectFailed):
    """There is somebody, but what they speak is not TLS."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A certificate that nobody has decided about yet."""

    host: str
    port: int
    pem: str
    """The certificate, in PEM form."""
    path: Path
    """Where it will be stored if it is accepted."""

    def fingerprint(self, algorithm: str = "sha256") -> str:
        """Its hash, as lower-case hex pairs with colons between them, by a name that `hashlib` knows."""
        return hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(self.pem)).digest().hex(":")


Decide: TypeAlias = Callable[[Offer], Awaitable[bool]]
"""Says whether a certificate is to be trusted from now on. It may take its time, to ask somebody."""


async def accept(offer: Offer) -> bool:
    """Trust whoever answers the first time."""
    return True


async def refuse(offer: Offer) -> bool:
    """Trust nobody who is not trusted already."""
    return False


async def fetch_certificate(host: str, port: int, *, timeout: float = HANDSHAKE_TIMEOUT) -> str:
    """Connect only to see the certificate, whatever it is, and return it in PEM form.

    A manager records this as a connection that was closed before it began.

    Raises:
        NoTls: there is somebody, but what they speak is not TLS.
        ConnectFailed: nobody answered, or not in `timeout` seconds.
    """
    try:
        stream = await open_stream(host, port, ssl_context=unverified_context(), timeout=timeout)
    except ConnectFailed as error:
        raise _explained(error, host, port, None) from error.__cause__
    try:
        assert isinstance(stream, TlsSocketStream)
        certificate = stream.getpeercert(binary_form=True)
        assert certificate is not None, "a TLS server shows one"
        return ssl.DER_cert_to_PEM_cert(certificate)
    finally:
        await trio.aclose_forcefully(stream)


async def trusted_file(
    host: str,
    port: int,
    *,
    home: Home,
    decide: Decide = refuse,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> Path:
    """The file with the certificate of a host that is trusted, after having asked if there is none yet.

    Args:
        host: the name or address that one connects to.
        port: of the manager.
        home: where the certificates are.
        decide: is asked about the first certificate; by default the answer is no.
        timeout: seconds to fetch that certificate. The decision may take as long as it likes.

    Raises:
        CertificateRefused: there was none, and the answer was no.
        NoTls: there is somebody, but what they speak is not TLS.
        ConnectFailed: there was none, and nobody answered.
        ValueError: `host` could not be part of a file's name.

    Cancellation stores nothing.
    """
    path = home.certificate(host)
    # System calls on a local file here and below: nothing to wait for.
    if path.exists():
        return path
    pem = await fetch_certificate(host, port, timeout=timeout)
    offer = Offer(host, port, pem, path)
    if not await decide(offer):
        raise CertificateRefused(offer)
    try:
        write_file(path, pem.encode("ascii"), mode=PUBLIC)
    except FileExistsError:
        pass  # somebody else connected for the first time, too: now it must be the one that they accepted
    return path


async def open_trusted_stream(
    host: str,
    port: int,
    *,
    home: Home,
    contexts: DeviceContexts,
    certificate: Path | None = None,
    decide: Decide = refuse,
    assert_hostname: bool = True,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> trio.abc.Stream:
    """Connect over TLS to a manager whose certificate is trusted.

    Args:
        host: its name or address.
        port: of the manager.
        home: where the trusted certificates are.
        contexts: keeps the TLS contexts for the next time.
        certificate: the file with the trusted certificate; that of `host` in `home` if None.
        decide: is asked about the first certificate of `host`; by default the answer is no.
        assert_hostname: whether the certificate must be for `host`.
        timeout: seconds to connect, and as many to fetch a first certificate before that.

    Raises:
        TrustError: one of its kinds above, which say what is wrong with the certificate and name the file.
        NoTls: there is somebody, but what they speak is not TLS.
        ConnectFailed: nobody answered, or not in time.
        ValueError: there is no certificate in the file, or `host` could not be part of a file's name.
        OSError: the file cannot be read: FileNotFoundError only for a `certificate` that was given.

    The caller closes the stream. Cancellation leaves nothing open.
    """
    path = certificate
    if path is None:
        path = await trusted_file(host, port, home=home, decide=decide, timeout=timeout)
    context = contexts.get(path, assert_hostname=assert_hostname)
    try:
        return await open_stream(host, port, ssl_context=context, timeout=timeout)
    except ConnectFailed as error:
        raise _explained(error, host, port, path) from error.__cause__


# What OpenSSL says of a certificate (X509_V_ERR_...): not yet valid, and expired; not for this host, nor
# address.
_TIMES = {9, 10}
_NAMES = {62, 64}


def _explained(error: ConnectFailed, host: str, port: int, path: Path | None) -> ConnectFailed:
    """`error`, in words that say what to do where the reason is known."""
    where = address_text(host, port)
    match error.__cause__:
        case ssl.SSLCertVerificationError() as refused if path is not None:
            if refused.verify_code in _TIMES:
                text = f"the certificate of {where} in {path} is out of date: {refused.verify_message}"
                return CertificateOutOfDate(text, path)
            if refused.verify_code in _NAMES:
                return CertificateForOthers(
                    f"the certificate in {path} is trusted, but it is not for {host!r}: use a name that it "
                    "is for, or connect with assert_hostname=False",
                    path,
                )
            return CertificateChanged(
                f"the certificate of {where} is not the one in {path}: either it has changed, or somebody "
                "else answers in its place; if you know that it was replaced, delete that file "
                "and connect again",
                path,
            )
        case ssl.SSLError() as failed if failed.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return NoTls(f"{where} does not speak TLS; perhaps its manager was started without it")
        case _:
            return error
