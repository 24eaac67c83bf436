from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from armillary.network.tls.files import write_file
from armillary.network.tls.keys import generate_key, load_key, new_key
from armillary.network.tls.names import curve_named, hash_named


def test_a_key_is_p256_unless_asked_otherwise(tmp_path: Path) -> None:
    """By default a key is the cheapest for handshakes, and is loaded as it was made."""
    path = generate_key(tmp_path / "keys" / "lab.key")
    assert tmp_path / "keys" / "lab.key" == path
    key = load_key(path)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert "secp256r1" == key.curve.name


@pytest.mark.parametrize("algorithm", ["rsa", "RSA", "Dsa"])
def test_other_kinds_of_keys(algorithm: str) -> None:
    """RSA and DSA keys of a size can be made, however they are spelt."""
    key = new_key(algorithm=algorithm, size=1024)
    assert isinstance(key, rsa.RSAPrivateKey if algorithm.upper() == "RSA" else dsa.DSAPrivateKey)
    assert 1024 == key.key_size
    if isinstance(key, rsa.RSAPrivateKey):
        assert 65537 == key.public_key().public_numbers().e


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P-384", "secp384r1"),
        ("secp521r1", "secp521r1"),
        ("prime256v1", "secp256r1"),
        ("BrainpoolP256R1", "brainpoolP256r1"),
    ],
)
def test_curves_by_name(name: str, expected: str) -> None:
    """Curves have the names that NIST, OpenSSL and cryptography give them, in any case."""
    key = new_key(curve=name)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert expected == key.curve.name == curve_named(name.swapcase()).name


def test_kinds_of_keys_that_do_not_exist() -> None:
    """Unknown algorithms and curves are refused with what was asked for, and with what there is."""
    with pytest.raises(ValueError, match=r"^The encryption algorithm must be RSA, DSA or ECC\. Got X25$"):
        new_key(algorithm="x25")
    with pytest.raises(ValueError, match=r"^Invalid curve name 'FLAT'\. Allowed curves are\n.*SECP384R1"):
        new_key(curve="flat")
    with pytest.raises(ValueError, match="size"):
        new_key(algorithm="RSA", size=10)


def test_hashes_by_name() -> None:
    """A hash is found by its name in any case; one without a size of its own needs to be told."""
    assert "sha256" == hash_named("Sha256").name
    assert 64 == hash_named("blake2b", 64).digest_size
    assert 16 == hash_named("SHAKE128", 16).digest_size
    given = hash_named("sha3_512")
    assert given is hash_named(given)
    with pytest.raises(ValueError, match=r"[Dd]igest size must be 64"):
        hash_named("BLAKE2B")
    with pytest.raises(
        ValueError, match=r"^Invalid hash algorithm 'MD4'\. Allowed algorithms are\nBLAKE2B, .*SHA256"
    ):
        hash_named("md4")
    with pytest.raises(TypeError, match=r"^The hash algorithm must be a string or HashAlgorithm instance$"):
        hash_named(256)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["ECC", "RSA", "DSA"])
def test_an_encrypted_key_needs_its_password(algorithm: str, tmp_path: Path) -> None:
    """Without the password, or with another one, loading says what is wrong with which file."""
    path = generate_key(tmp_path / "lab.key", algorithm=algorithm, size=1024, password="pö l")
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert load_key(path, password="pö l").key_size >= 256
    with pytest.raises(ValueError, match=r"cannot load the private key .*lab\.key: it is encrypted"):
        load_key(path)
    with pytest.raises(ValueError, match=r"lab\.key: the password is wrong$"):
        load_key(path, password="p")
    with pytest.raises(ValueError, match="empty"):
        generate_key(tmp_path / "other.key", password="")
    assert not (tmp_path / "other.key").exists()


def test_a_password_that_nobody_needs_does_no_harm(tmp_path: Path) -> None:
    """A key that is not encrypted is loaded, whatever password was given."""
    path = generate_key(tmp_path / "lab.key")
    assert load_key(str(path), password="x").private_numbers() == load_key(path).private_numbers()


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    """Rubbish, certificates and keys of other kinds are errors that name the file."""
    path = tmp_path / "lab.key"
    with pytest.raises(FileNotFoundError):
        load_key(path)
    path.write_text("-----BEGIN RUBBISH-----")
    with pytest.raises(ValueError, match=r"lab\.key"):
        load_key(path)
    other = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match=r"expected a private key of RSA, DSA or ECC in .*lab\.key"):
        load_key(path)


def test_nobody_else_can_read_a_key(tmp_path: Path) -> None:
    """The file is its owner's whatever the umask says, and so is its directory if it was made for it."""
    before = os.umask(0)
    try:
        path = generate_key(tmp_path / "keys" / "lab.key")
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)


def test_a_key_is_replaced_only_on_request(tmp_path: Path) -> None:
    """A key that is there stays, unless `overwrite` says otherwise; then the new one is private, too."""
    path = generate_key(tmp_path / "lab.key")
    first = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"^there is a file .*lab\.key$"):
        generate_key(path)
    assert first == path.read_bytes()
    path.chmod(0o644)
    generate_key(path, overwrite=True)
    assert first != path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["lab.key"] == os.listdir(tmp_path)


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_who_write_one_file_the_first_wins(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file system has no links, the second one is refused, and nothing is left lying about."""
    if not has_links:

        def no_links(source: object, target: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "file"
    write_file(path, b"first", mode=0o644)
    with pytest.raises(FileExistsError, match="there is a file"):
        write_file(path, b"second", mode=0o644)
    assert b"first" == path.read_bytes()
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)
    write_file(path, b"third", mode=0o600, overwrite=True)
    assert b"third" == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["file"] == os.listdir(tmp_path)


def test_a_directory_that_is_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    """A file where a directory should be is not mistaken for the file that is to be written."""
    (tmp_path / "keys").write_text("")
    with pytest.raises(NotADirectoryError, match="keys"):
        write_file(tmp_path / "keys" / "lab.key", b"", mode=0o600)


_KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from armillary.network.tls import files
files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_file(Path(sys.argv[1]), b"new", mode=0o600, overwrite=True)
"""


def test_a_crash_leaves_the_old_file(tmp_path: Path) -> None:
    """Killed while the new content is being written, a program leaves the old file as it was."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    died = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, str(path)], check=False)
    assert -9 == died.returncode
    assert b"old" == path.read_bytes()
