"""Self-signed certificates: made, stored, loaded."""

from __future__ import annotations

import ipaddress
import math
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from armillary.network.locations import own_addresses, own_hostname

from .files import PUBLIC, write_file
from .names import hash_named

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    from .keys import PrivateKey

__all__ = [
    "YEARS_VALID",
    "fingerprint",
    "generate_certificate",
    "is_signed_by",
    "load_certificate",
    "own_names",
    "self_signed",
    "write_certificate",
    "years_later",
]

# Longer than anybody wants to walk to every instrument again. Where time_t has 32 bits, the TLS library
# takes a later end for one in the past.
YEARS_VALID = 100.0 if sys.maxsize > 2**32 else 15.0

# Peers whose clock is behind ours by more than this find a new certificate "not yet valid".
_BACKDATED = timedelta(days=1)


def own_names() -> list[str]:
    """The names and addresses under which this computer can be reached, its own name first."""
    return list(dict.fromkeys([own_hostname(), "localhost", *own_addresses()]))


def self_signed(
    key: PrivateKey,
    *,
    names: Sequence[str] | None = None,
    subject: x509.Name | None = None,
    algorithm: str | HashAlgorithm = "SHA256",
    digest_size: int | None = None,
    years_valid: float = YEARS_VALID,
    now: datetime | None = None,
    backdated: timedelta = _BACKDATED,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] | None = None,
) -> x509.Certificate:
    """A certificate that a key gives to itself.

    Args:
        key: signs it, and is what it certifies.
        names: the DNS names and IP addresses for which it is good; `own_names` if None. They become the
            subject's alternative names.
        subject: whom it names; the first of `names` as common name if None.
        algorithm: the hash to sign, by name or as an object of `cryptography`.
        digest_size: bytes, for hashes that have no size of their own.
        years_valid: from `now`: whole years by the calendar, the rest as a part of 365 days.
        now: the time, with a time zone; the computer's if None.
        backdated: how long before `now` it is already valid.
        extensions: what it says besides, and whether that is critical; the alternative names alone if None.

    Raises:
        ValueError: a name is none, the hash cannot be used with this key, or `years_valid` is not a positive
            number or too large.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    names = own_names() if names is None else names
    now = datetime.now(UTC) if now is None else now.astimezone(UTC)
    if subject is None:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    if extensions is None:
        extensions = [(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - backdated)
        .not_valid_after(years_later(now, years_valid))
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    try:
        return builder.sign(key, hash_named(algorithm, digest_size))  # type: ignore[arg-type]
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def years_later(start: datetime, years: float) -> datetime:
    """The time some years after `start`: whole years by the calendar, the rest as a part of 365 days.

    From the 29th of February it goes to the 28th where the year has no other.

    Raises:
        ValueError: `years` is not a positive number, or leads beyond the year 9999.
    """
    if not (years > 0 and math.isfinite(years)):
        raise ValueError(f"expected a positive number of years, got {years}")
    whole = int(years)
    try:
        if start.year + whole > 9999:
            raise OverflowError
        try:
            moved = start.replace(year=start.year + whole)
        except ValueError:
            moved = start.replace(year=start.year + whole, day=28)
        return moved + timedelta(days=365 * (years - whole))
    except OverflowError:
        raise ValueError(f"expected years that end before the year 10000, got {years}") from None


def generate_certificate(
    path: Path,
    key: PrivateKey,
    *,
    names: Sequence[str] | None = None,
    algorithm: str = "SHA256",
    digest_size: int | None = None,
    years_valid: float = YEARS_VALID,
    now: datetime | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a certificate (see `self_signed`) and store it in PEM form.

    Returns:
        `path`.

    Raises:
        ValueError: as `self_signed`.
        FileExistsError: there is a file, and `overwrite` is false.
    """
    certificate = self_signed(
        key, names=names, algorithm=algorithm, digest_size=digest_size, years_valid=years_valid, now=now
    )
    write_certificate(path, certificate, overwrite=overwrite)
    return path


def write_certificate(path: Path, certificate: x509.Certificate, *, overwrite: bool = False) -> None:
    """Store a certificate in PEM form.

    Raises:
        FileExistsError: there is a file, and `overwrite` is false.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    write_file(path, certificate.public_bytes(Encoding.PEM), mode=PUBLIC, overwrite=overwrite)


def load_certificate(certificate: str | os.PathLike[str] | bytes) -> x509.Certificate:
    """Load a certificate in PEM form, from a file or from bytes.

    Raises:
        TypeError: `certificate` is neither a path nor bytes.
        ValueError: there is no certificate in it.
        OSError: the file cannot be read.
    """
    from cryptography import x509

    if isinstance(certificate, bytes):
        return x509.load_pem_x509_certificate(certificate)
    if not isinstance(certificate, (str, os.PathLike)):
        raise TypeError('The "cert" parameter must be a string or bytes')
    path = Path(certificate)
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"cannot load the certificate {path}: {error}") from None


def is_signed_by(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether a certificate is about the public half of `key`."""
    return bool(certificate.public_key() == key.public_key())


def fingerprint(
    certificate: x509.Certificate, algorithm: str | HashAlgorithm = "SHA256", digest_size: int | None = None
) -> str:
    """The hash of a certificate, as lower-case hex pairs with colons between them.

    Args:
        certificate: whose.
        algorithm: the hash, by name or as an object of `cryptography`.
        digest_size: bytes, for hashes that have no size of their own.

    Raises:
        ValueError: there is no such hash.
    """
    return certificate.fingerprint(hash_named(algorithm, digest_size)).hex(":")
