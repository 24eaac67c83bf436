from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary.network.store import passwords
from armillary.network.store.passwords import (
    ITERATIONS,
    Hash,
    hash_password,
    reject_password,
    verify_password,
)

FEW = 10
LEGACY_SALT = bytes(range(16))


def legacy_hash(password: str) -> Hash:
    """What MSL-Network 1.0 stores; `test_old_database` has the real thing."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), LEGACY_SALT, 100_000)
    return Hash(key, LEGACY_SALT)


@given(password=st.text(), other=st.text())
@settings(max_examples=50, deadline=None)
def test_a_hash_fits_its_password_and_no_other(password: str, other: str) -> None:
    """Whatever text a password is, lone surrogates included, its hash fits it alone."""
    hashed = hash_password(password, iterations=FEW)
    assert (True, False) == verify_password(password, hashed, iterations=FEW)
    if other != password:
        assert not verify_password(other, hashed, iterations=FEW).is_right


def test_a_password_has_another_hash_each_time() -> None:
    """Equal passwords do not show in the database."""
    one, other = (hash_password("radium", iterations=FEW) for _ in range(2))
    assert one.salt != other.salt
    assert one.key != other.key
    assert 16 == len(one.salt) == len(other.salt)


def test_a_hash_says_how_it_was_made() -> None:
    """New hashes cost what OWASP asks for today, and say so in plain text."""
    hashed = hash_password("radium")
    expected = hashlib.pbkdf2_hmac("sha256", b"radium", hashed.salt, 600_000)
    assert b"pbkdf2-sha256$600000$" + expected.hex().encode() == hashed.key
    assert (True, False) == verify_password("radium", hashed)


def test_a_hash_of_the_old_library_fits_and_is_outdated() -> None:
    """A row of MSL-Network 1.0 is verified, and the verdict asks for a better one."""
    assert (True, True) == verify_password("polonium", legacy_hash("polonium"))
    assert not verify_password("radium", legacy_hash("polonium")).is_right


def test_a_cheap_hash_is_outdated_and_an_expensive_one_is_not() -> None:
    """Raising the cost outdates what is below it; lowering it outdates nothing."""
    hashed = hash_password("radium", iterations=20)
    assert (True, True) == verify_password("radium", hashed, iterations=21)
    assert (True, False) == verify_password("radium", hashed, iterations=20)
    assert (True, False) == verify_password("radium", hashed, iterations=19)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"x" * 31,
        b"scrypt$32768$" + b"0" * 64,
        b"pbkdf2-sha256$0$" + b"0" * 64,
        b"pbkdf2-sha256$10$" + b"0" * 63,
        b"pbkdf2-sha256$99999999999$" + b"0" * 64,
    ],
)
def test_an_unknown_kind_of_hash_fits_nothing(key: bytes) -> None:
    """What a later version may write, or nobody, is a wrong password and no error."""
    assert (False, False) == verify_password("", Hash(key, bytes(16)), iterations=FEW)


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The iterations of each derivation from now on."""
    counted: list[int] = []

    def counting(name: str, secret: bytes, salt: bytes, number: int, length: int) -> bytes:
        counted.append(number)
        return real(name, secret, salt, number, length)

    real: Callable[..., Any] = hashlib.pbkdf2_hmac
    monkeypatch.setattr(passwords.hashlib, "pbkdf2_hmac", counting)
    return counted


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(legacy_hash("right"), id="legacy"),
        pytest.param(hash_password("right", iterations=FEW), id="cheap"),
        pytest.param(hash_password("right"), id="today's"),
        pytest.param(Hash(b"unknown", b""), id="unknown"),
        pytest.param(None, id="no user"),
    ],
)
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_every_verdict_costs_the_same(stored: Hash | None, password: str, iterations: list[int]) -> None:
    """Time tells neither who exists, nor whose hash is old, nor whether the password was right."""
    if stored is None:
        reject_password(password)
    else:
        verify_password(password, stored)
    assert ITERATIONS == sum(iterations)
