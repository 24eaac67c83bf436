"""Private keys: made, stored, loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .files import PRIVATE, write_file
from .names import curve_named

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

__all__ = ["PrivateKey", "generate_key", "load_key", "new_key"]

PrivateKey: TypeAlias = "rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey"

# What everybody uses. Others are not known to be safer, and some peers refuse them.
_RSA_EXPONENT = 65537


def new_key(*, algorithm: str = "ECC", curve: str = "SECP256R1", size: int = 2048) -> PrivateKey:
    """A new private key.

    Args:
        algorithm: ECC, RSA or DSA, in any case. No TLS 1.3 peer accepts DSA.
        curve: for ECC. With P-256 a handshake costs the manager least: RSA 2048 takes 1.4 times as much,
            P-384 1.8 times.
        size: bits, for RSA and DSA.

    Raises:
        ValueError: one of them is not known, or so many bits are not possible.
    """
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    match algorithm.upper():
        case "ECC":
            return ec.generate_private_key(curve_named(curve))
        case "RSA":
            return rsa.generate_private_key(_RSA_EXPONENT, size)
        case "DSA":
            return dsa.generate_private_key(size)
        case other:
            raise ValueError(f"The encryption algorithm must be RSA, DSA or ECC. Got {other}")


def generate_key(
    path: Path,
    *,
    algorithm: str = "ECC",
    curve: str = "SECP256R1",
    size: int = 2048,
    password: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a private key and store it (PEM, PKCS #8) where only its owner can read it.

    Args:
        path: the file. Directories on the way are created.
        algorithm: as in `new_key`, and so are `curve` and `size`.
        curve: see there.
        size: see there.
        password: encrypts the key.
        overwrite: whether a key that is there may be replaced. Certificates that were made from it are
            useless then.

    Returns:
        `path`.

    Raises:
        ValueError: as `new_key`; or the password is empty or too long.
        FileExistsError: there is a file, and `overwrite` is false.
    """
    from cryptography.hazmat.primitives import serialization

    if password == "":
        raise ValueError("expected a password for the key, got an empty one")
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password.encode("utf-8"))
    )
    if path.exists() and not overwrite:
        raise FileExistsError(f"there is a file {path}")  # before the work: a large key takes seconds
    content = new_key(algorithm=algorithm, curve=curve, size=size).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    write_file(path, content, mode=PRIVATE, overwrite=overwrite)
    return path


def load_key(path: str | os.PathLike[str], *, password: str | None = None) -> PrivateKey:
    """Load a private key from a file in PEM form.

    Raises:
        ValueError: there is no usable private key in the file, it is encrypted and there is no password, or
            the password is wrong; the text names the file.
        OSError: the file cannot be read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = Path(path).read_bytes()
    secret = None if password is None else password.encode("utf-8")
    try:
        try:
            key = load_pem_private_key(content, secret)
        except TypeError:
            if secret is None:
                raise ValueError("it is encrypted, and no password was given") from None
            # A password that nobody needs is no reason to refuse.
            key = load_pem_private_key(content, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        # What the library says of a wrong password depends on the format and on its version.
        is_encrypted = secret is not None and b"ENCRYPTED" in content
        reason = "the password is wrong" if is_encrypted else error
        raise ValueError(f"cannot load the private key {os.fspath(path)}: {reason}") from None
    kinds = (rsa.RSAPrivateKey, dsa.DSAPrivateKey, ec.EllipticCurvePrivateKey)
    if not isinstance(key, kinds):
        raise ValueError(
            f"expected a private key of RSA, DSA or ECC in {os.fspath(path)}, got {type(key).__name__}"
        )
    return key
