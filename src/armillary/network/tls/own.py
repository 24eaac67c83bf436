"""The certificate that a manager shows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from armillary.network.locations import Home

from .certificates import generate_certificate, is_signed_by, load_certificate, own_names
from .keys import generate_key, load_key

__all__ = ["OwnCertificate", "default_certificate", "manager_certificate"]


class OwnCertificate(NamedTuple):
    """A certificate's file, and its private key's: None if that is in the same file."""

    certificate: Path
    key: Path | None


def manager_certificate(
    home: Home,
    *,
    host: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    password: str | None = None,
    now: datetime | None = None,
) -> OwnCertificate:
    """Find the certificate of a manager, or make it.

    With neither file given, they are those of `host` in `home`, or of ``localhost`` if the manager listens
    everywhere; what is missing is made. With a key alone, the certificate in `home` is made from it, unless
    the one that is there is already. A certificate alone is taken to hold its key.

    Args:
        home: where the default files are.
        host: the name or address that the manager listens on; everywhere if None.
        certificate: a certificate's file.
        key: a private key's file.
        password: decrypts the key, or encrypts the one that is made.
        now: the time, with a time zone; the computer's if None.

    Raises:
        ValueError: a key cannot be loaded; or there is a certificate in `home` whose key is gone.
        OSError: a file cannot be read or written.
    """
    if certificate is not None:
        return OwnCertificate(certificate, key)
    stem = host or "localhost"
    default = home.certificate(stem)
    if key is None:
        return default_certificate(home, stem, password=password, now=now)
    private = load_key(key, password=password)
    # Devices trust this very certificate: a new one at each start would have them ask again each time.
    if not default.exists() or not is_signed_by(load_certificate(default), private):
        generate_certificate(default, private, names=_names(host), now=now, overwrite=True)
    return OwnCertificate(default, key)


def default_certificate(
    home: Home, stem: str, *, password: str | None = None, now: datetime | None = None
) -> OwnCertificate:
    """The certificate and the key of a name in `home`; what is missing is made.

    Raises:
        ValueError: the key cannot be loaded, or is gone.
    """
    certificate, key = home.certificate(stem), home.key(stem)
    # In this order: somebody else who makes both at this moment begins with the key.
    has_certificate = certificate.exists()
    if not key.exists():
        if has_certificate:
            raise ValueError(
                f"there is a certificate {certificate}, but not its private key {key}: bring the key back, "
                "or delete the certificate to have both made anew"
            )
        try:
            generate_key(key, password=password)
        except FileExistsError:
            pass  # made by somebody else in this moment
    if not has_certificate:
        private = load_key(key, password=password)
        try:
            generate_certificate(certificate, private, names=_names(stem), now=now)
        except FileExistsError:
            pass  # made by somebody else, from the same key
    return OwnCertificate(certificate, key)


def _names(host: str | None) -> list[str]:
    """What this computer is called, and what the manager was told to listen on."""
    return list(dict.fromkeys([*own_names(), *([host] if host else [])]))
