"""Private keys, self-signed certificates, and the TLS contexts of those who connect to a manager.

Files are replaced without a question, and can be read by 1.0.
"""

from __future__ import annotations

import errno
import os
import ssl
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import NameOID

from armillary.network.locations import Home
from armillary.network.tls.certificates import fingerprint, self_signed, write_certificate
from armillary.network.tls.certificates import load_certificate as _load_certificate
from armillary.network.tls.contexts import device_context
from armillary.network.tls.files import PRIVATE, PUBLIC, write_file
from armillary.network.tls.keys import new_key
from armillary.network.tls.metadata import facts_text, metadata
from armillary.network.tls.names import hash_named

from . import constants

if TYPE_CHECKING:
    from armillary.network.tls.keys import PrivateKey

__all__ = [
    "generate_certificate",
    "generate_key",
    "get_default_cert_path",
    "get_default_key_path",
    "get_fingerprint",
    "get_metadata",
    "get_metadata_as_string",
    "get_ssl_context",
    "hashes",
    "load_certificate",
    "load_key",
    "x509",
]

# What 1.0 shows, and what people compare with what they have written down.
_FINGERPRINT = "SHA1"


def _home() -> Home:
    return Home(Path(constants.HOME_DIR))


def get_default_cert_path() -> str:
    """The certificate that a manager shows if it is not told of another."""
    return str(_home().certificate())


def get_default_key_path() -> str:
    """The private key of that certificate."""
    return str(_home().key())


def generate_key(
    *,
    path: str | None = None,
    algorithm: str = "RSA",
    password: str | None = None,
    size: int = 2048,
    curve: str = "SECP384R1",
) -> str:
    """Make a private key (PEM, the traditional format of OpenSSL), which only its owner can read.

    Args:
        path: the file; the default one if None.
        algorithm: RSA, DSA or ECC, in any case.
        password: encrypts it.
        size: bits, for RSA and DSA.
        curve: the name of the curve, in any case, for ECC.

    Returns:
        the path.

    Raises:
        ValueError: one of them is not known or not possible, or the password is empty.
        OSError: the file cannot be written.
    """
    path = path or get_default_key_path()
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password.encode())
    )
    key = new_key(algorithm=algorithm, curve=curve, size=size)
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption
    )
    write_file(Path(path), content, mode=PRIVATE, overwrite=True)
    return path


def load_key(path: str, *, password: str | None = None) -> PrivateKey:
    """Load a private key.

    Raises:
        TypeError: it is encrypted and there is no password, or the other way round.
        ValueError: there is no key in the file, or the password is wrong.
        OSError: the file cannot be read.
    """
    # Not armillary's own, for which a missing password is a ValueError, and one too many is none.
    content = Path(path).read_bytes()
    secret = None if password is None else password.encode()
    key: Any = serialization.load_pem_private_key(content, secret)
    loaded: PrivateKey = key
    return loaded


def generate_certificate(
    *,
    path: str | None = None,
    key_path: str | None = None,
    key_password: str | None = None,
    algorithm: str | hashes.HashAlgorithm = "SHA256",
    years_valid: float | None = None,
    digest_size: int | None = None,
    name: x509.Name | None = None,
    extensions: Iterable[x509.ExtensionType] | None = None,
) -> str:
    """Make a self-signed certificate.

    Args:
        path: the file; the default one if None.
        key_path: the private key; the default one if None, which is made if it is not there.
        key_password: decrypts the key.
        algorithm: the hash to sign with, by its name in any case, or as an object.
        years_valid: from now on; `constants.DEFAULT_YEARS_VALID` if None.
        digest_size: bytes, for hashes that have no size of their own.
        name: whom it is for; this computer if None.
        extensions: what it says besides, none of it critical. If nothing, and it is for this computer, the
            names and addresses of this computer.

    Returns:
        the path.

    Raises:
        ValueError: the hash is not known or cannot be used with this key, `years_valid` is not positive, or
            there is no key in its file.
        TypeError: the key is encrypted and there is no password, or the other way round.
        OSError: a file cannot be read or written.
    """
    path = path or get_default_cert_path()
    hashed = hash_named(algorithm, digest_size)
    if key_path is None:
        key_path = get_default_key_path()
        if not os.path.isfile(key_path):
            generate_key(path=key_path, password=key_password)
    subject = _this_computer() if name is None else name
    common_names = [part.value for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    listed = [(each, False) for each in extensions or ()]
    certificate = self_signed(
        load_key(key_path, password=key_password),
        subject=subject,
        algorithm=hashed,
        years_valid=constants.DEFAULT_YEARS_VALID if years_valid is None else years_valid,
        backdated=timedelta(),
        # None are the names of this computer.
        extensions=None if common_names == [constants.HOSTNAME] and not listed else listed,
    )
    write_certificate(Path(path), certificate, overwrite=True)
    return path


def _this_computer() -> x509.Name:
    """As 1.0 names it, with its authors for the organization: a certificate is recognized by all of it."""
    parts = {
        NameOID.COUNTRY_NAME: "NZ",
        NameOID.STATE_OR_PROVINCE_NAME: "Wellington",
        NameOID.LOCALITY_NAME: "Lower Hutt",
        NameOID.ORGANIZATION_NAME: "Measurement Standards Laboratory of New Zealand",
        NameOID.COMMON_NAME: constants.HOSTNAME,
        NameOID.EMAIL_ADDRESS: "info@measurement.govt.nz",
    }
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items()])


def load_certificate(cert: str | bytes) -> x509.Certificate:
    """Load a certificate in PEM form, from a file or from bytes.

    Raises:
        TypeError: `cert` is neither.
        ValueError: there is no certificate in it.
        OSError: the file cannot be read.
    """
    return _load_certificate(cert)


def get_fingerprint(
    cert: x509.Certificate,
    *,
    algorithm: str | hashes.HashAlgorithm = _FINGERPRINT,
    digest_size: int | None = None,
) -> str:
    """The hash of a certificate, as lower-case hex pairs with colons between them.

    Args:
        cert: whose.
        algorithm: the hash, by its name in any case, or as an object.
        digest_size: bytes, for hashes that have no size of their own.

    Raises:
        ValueError: there is no such hash.
        TypeError: `algorithm` is neither text nor a hash.
    """
    return fingerprint(cert, algorithm, digest_size)


def get_metadata(cert: x509.Certificate) -> dict[str, Any]:
    """What is in a certificate: as `armillary.network.tls.metadata.metadata` has it, but as 1.0 shows it.

    Times have no time zone and are UTC; the parts of a name have always the same order; of extensions,
    the last one counts.
    """
    facts = _facts(cert)
    facts["extensions"] = facts["extensions"][-1] if facts["extensions"] else {}
    return facts


def get_metadata_as_string(cert: x509.Certificate) -> str:
    """What is in a certificate, for people."""
    return facts_text(_facts(cert), _FINGERPRINT)


def _facts(cert: x509.Certificate) -> dict[str, Any]:
    facts = metadata(cert, algorithm=_FINGERPRINT)
    order = [kind.lower() for kind in vars(NameOID) if kind.isupper()]
    for whose in ("issuer", "subject"):
        parts = facts[whose]
        facts[whose] = {kind: parts[kind] for kind in order if kind in parts} | parts
    for bound in ("valid_from", "valid_to"):
        facts[bound] = facts[bound].replace(tzinfo=None)
    return facts


def get_ssl_context(
    *,
    cert_file: str | None = None,
    host: str | None = None,
    port: int | None = None,
    auto_save: bool = False,
    **kwargs: Any,
) -> tuple[str, ssl.SSLContext | None]:
    """The TLS context of who connects to a host, and the file with the one certificate that it trusts.

    Args:
        cert_file: the file; if None that of `host`, whose certificate is fetched and stored if there is none.
        host: the name or address of the host.
        port: where to fetch the certificate from.
        auto_save: whether to trust that certificate without asking at the terminal.
        **kwargs: for `ssl.get_server_certificate`.

    Returns:
        the path and the context; an empty path and None if the answer at the terminal was no.

    Raises:
        FileNotFoundError: there is no `cert_file`.
        ValueError: there is nothing to fetch a certificate from.
        OSError: the certificate cannot be fetched, or there is none in the file.
    """
    path = cert_file or (str(_home().certificate(host)) if host else "")
    if not os.path.isfile(path):
        if cert_file is not None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), cert_file)
        if not host or not port:
            raise ValueError("Must specify the host and port or the cert_file")
        pem = ssl.get_server_certificate((host, port), **kwargs).encode("ascii")
        if not (auto_save or _is_trusted(host, pem)):
            return "", None
        write_file(Path(path), pem, mode=PUBLIC, overwrite=True)
    try:
        return path, device_context(path)
    except ValueError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from None


def _is_trusted(host: str, pem: bytes) -> bool:
    """Ask at the terminal whether the certificate that a host has shown is to be trusted from now on."""
    certificate = load_certificate(pem)
    sys.stdout.write(
        f"The certificate for {host} is not cached, so nothing shows yet that the\n"
        "computer which has answered is the one that you mean.\n\n"
        f"Its {metadata(certificate)['algorithm']['name']} certificate has the {_FINGERPRINT} fingerprint\n"
        f"{get_fingerprint(certificate)}\n\n"
        "Compare it with what the manager's computer shows (msl-network certdump).\n"
        "If you continue it is saved, and trusted from then on.\n\n"
    )
    while True:
        match input("Continue? y/n: ").strip().lower()[:1]:
            case "y":
                return True
            case "n":
                return False
