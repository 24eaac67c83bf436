"""Hashes and curves, by the names that people call them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

__all__ = ["curve_named", "hash_named"]

# The same curves, as OpenSSL and NIST call them.
_OTHER_CURVE_NAMES = {
    "PRIME192V1": "SECP192R1",
    "PRIME256V1": "SECP256R1",
    "P-256": "SECP256R1",
    "P-384": "SECP384R1",
    "P-521": "SECP521R1",
}


def hash_named(algorithm: str | HashAlgorithm, digest_size: int | None = None) -> HashAlgorithm:
    """A hash algorithm of `cryptography`.

    Args:
        algorithm: its name, in any case; or the algorithm itself, which is given back.
        digest_size: how many bytes it makes, where the algorithm leaves that open (BLAKE2, SHAKE).

    Raises:
        ValueError: there is no such algorithm, or it cannot make so many bytes.
        TypeError: `algorithm` is neither text nor an algorithm.
    """
    from cryptography.hazmat.primitives import hashes

    if isinstance(algorithm, hashes.HashAlgorithm):
        return algorithm
    if not isinstance(algorithm, str):
        raise TypeError("The hash algorithm must be a string or HashAlgorithm instance")
    known = {
        name.upper(): kind
        for name, kind in vars(hashes).items()
        if inspect.isclass(kind) and issubclass(kind, hashes.HashAlgorithm) and not inspect.isabstract(kind)
    }
    wanted = algorithm.upper()
    if wanted not in known:
        allowed = ", ".join(sorted(known))
        raise ValueError(f"Invalid hash algorithm {wanted!r}. Allowed algorithms are\n{allowed}")
    make = known[wanted]
    if inspect.signature(make).parameters:
        # BLAKE2 and SHAKE have no size of their own; without one they say which they can have.
        return make(0 if digest_size is None else digest_size)  # type: ignore[call-arg]
    return make()


def curve_named(name: str) -> ec.EllipticCurve:
    """An elliptic curve of `cryptography`, by its name in any case.

    Raises:
        ValueError: there is no such curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    known = {
        each.upper(): kind
        for each, kind in vars(ec).items()
        if inspect.isclass(kind) and issubclass(kind, ec.EllipticCurve) and not inspect.isabstract(kind)
    }
    known |= {other: known[each] for other, each in _OTHER_CURVE_NAMES.items() if each in known}
    wanted = name.upper()
    if wanted not in known:
        raise ValueError(f"Invalid curve name {wanted!r}. Allowed curves are\n{', '.join(sorted(known))}")
    return known[wanted]()
