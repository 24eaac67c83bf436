"""Password hashes: made at today's cost, and those of MSL-Network 1.0 verified.

Both are PBKDF2 with HMAC-SHA-256 over 16 random bytes of salt. A row of 1.0 has the 32 bytes of the hash as
its key, from 100 000 iterations. Ours say what they are: ``pbkdf2-sha256$600000$`` and the hash in hex. So
each row explains itself, whoever wrote it last: to 1.0, a password that was set here is wrong, everything
else works, and a password that is set there is verified here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import NamedTuple

__all__ = ["ITERATIONS", "Hash", "Verdict", "hash_password", "reject_password", "verify_password"]

# What OWASP asks for, a sixth of a second on today's processors. More makes logins slower and guessing more
# expensive by the same factor; hashes with fewer are replaced at the next login.
ITERATIONS = 600_000

_LEGACY_ITERATIONS = 100_000
_LENGTH = 32
_KEY = re.compile(rb"pbkdf2-sha256\$([1-9][0-9]{0,8})\$([0-9a-f]{64})")


class Hash(NamedTuple):
    """A password's hash as it stands in the database."""

    key: bytes
    salt: bytes


class Verdict(NamedTuple):
    """Whether a password is the right one, and whether its hash should be replaced by a costlier one."""

    is_right: bool
    is_outdated: bool


def hash_password(password: str, *, iterations: int = ITERATIONS) -> Hash:
    """The hash to store for a password. Takes long on purpose."""
    salt = os.urandom(16)
    derived = _derive(password, salt, iterations)
    return Hash(b"pbkdf2-sha256$%d$%s" % (iterations, derived.hex().encode("ascii")), salt)


def verify_password(password: str, stored: Hash, *, iterations: int = ITERATIONS) -> Verdict:
    """Compare a password with a hash. Takes long on purpose, and as long for a cheap hash as for one of ours.

    A hash of a kind that is not known here fits no password.
    """
    key, salt = stored
    if len(key) == _LENGTH:
        used, expected = _LEGACY_ITERATIONS, key
    elif found := _KEY.fullmatch(key):
        used, expected = int(found[1]), bytes.fromhex(found[2].decode("ascii"))
    else:
        reject_password(password, iterations=iterations)
        return Verdict(is_right=False, is_outdated=False)
    is_right = hmac.compare_digest(_derive(password, salt, used), expected)
    if used < iterations:
        _derive(password, salt, iterations - used)  # so that the time does not tell who has an old one
    is_legacy = expected is key
    return Verdict(is_right, is_outdated=is_legacy or used < iterations)


def reject_password(password: str, *, iterations: int = ITERATIONS) -> None:
    """Take as long as verifying does, for a user that does not exist."""
    _derive(password, bytes(16), iterations)


def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    # What no encoding has, a lone surrogate, is a wrong password and not an error whose text quotes it.
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.pbkdf2_hmac("sha256", secret, salt, iterations, _LENGTH)
