from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.locations import Home, own_addresses, own_hostname
from armillary.network.tls import own
from armillary.network.tls.certificates import (
    YEARS_VALID,
    fingerprint,
    generate_certificate,
    is_signed_by,
    load_certificate,
    own_names,
    self_signed,
    write_certificate,
    years_later,
)
from armillary.network.tls.contexts import DeviceContexts, device_context, manager_context
from armillary.network.tls.keys import PrivateKey, generate_key, load_key, new_key
from armillary.network.tls.metadata import metadata, metadata_text
from armillary.network.tls.own import manager_certificate

NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return new_key()


def alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert not extension.critical
    return extension.value


# -- making --------------------------------------------------------------------------------------------------


def test_a_certificate_is_for_this_computer(key: PrivateKey) -> None:
    """By default it names the computer, and is good for all its names and addresses."""
    certificate = self_signed(key)
    assert certificate.subject == certificate.issuer
    [common_name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert own_hostname() == common_name.value
    names = alternatives(certificate)
    assert {own_hostname(), "localhost"} == set(names.get_values_for_type(x509.DNSName))
    addresses = {ipaddress.ip_address(address) for address in own_addresses()}
    assert addresses == set(names.get_values_for_type(x509.IPAddress))
    assert own_hostname() == own_names()[0]
    assert len(own_names()) == len(set(own_names()))


def test_a_certificate_is_for_who_is_named(key: PrivateKey) -> None:
    """Names and addresses can be given, and so can the subject and everything else it says."""
    certificate = self_signed(key, names=["lab7.example.org", "10.0.0.7", "fd00::7"])
    names = alternatives(certificate)
    assert ["lab7.example.org"] == names.get_values_for_type(x509.DNSName)
    assert ["10.0.0.7", "fd00::7"] == [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert "CN=lab7.example.org" == certificate.subject.rfc4514_string()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Lab")])
    other = self_signed(
        key, subject=subject, extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)]
    )
    assert subject == other.subject == other.issuer
    assert ["basicConstraints"] == [each.oid._name for each in other.extensions]


def test_a_certificate_is_valid_from_yesterday_for_as_long_as_was_said(key: PrivateKey) -> None:
    """Peers whose clock is slow accept a new certificate; the years count from now."""
    certificate = self_signed(key, now=NOW, years_valid=7.4)
    assert NOW - timedelta(days=1) == certificate.not_valid_before_utc
    assert (
        datetime(2033, 3, 1, 12, 30, 15, tzinfo=UTC) + timedelta(days=146) == certificate.not_valid_after_utc
    )
    elsewhere = NOW.astimezone(timezone(timedelta(hours=13)))
    certificate = self_signed(key, now=elsewhere, backdated=timedelta(0))
    assert NOW == certificate.not_valid_before_utc
    assert NOW.replace(year=2126) == certificate.not_valid_after_utc
    assert 100.0 == YEARS_VALID
    recent = self_signed(key).not_valid_before_utc
    assert timedelta(0) <= datetime.now(UTC) - timedelta(days=1) - recent < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("years", "expected"),
    [(1, (2025, 2, 28)), (4, (2028, 2, 29)), (76, (2100, 2, 28)), (100, (2124, 2, 29)), (1.2, (2025, 5, 12))],
)
def test_the_29th_of_february_has_an_anniversary_each_year(
    years: float, expected: tuple[int, int, int]
) -> None:
    """In a year without that day, what began on it ends on the 28th."""
    end = years_later(datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), years)
    assert datetime(*expected, 1, 2, 3, tzinfo=UTC) == end.replace(microsecond=0)


@given(
    start=st.datetimes(datetime(1950, 1, 1), datetime(2500, 1, 1), timezones=st.just(UTC)),
    years=st.floats(0.001, 200),
)
def test_years_are_as_long_as_years(start: datetime, years: float) -> None:
    """Whole years and parts of one are within a few days of what they are by the length of a mean year."""
    end = years_later(start, years)
    assert abs((end - start) - timedelta(days=365.2425) * years) < timedelta(days=3)


@pytest.mark.parametrize("years", [0, -1, float("nan"), float("inf"), 7974, 7973.9, 1e300])
def test_years_that_are_none(years: float, key: PrivateKey) -> None:
    """No years, fewer, or so many that no calendar has them are refused in words."""
    with pytest.raises(ValueError, match=r"expected .*years.*got"):
        self_signed(key, now=NOW, years_valid=years)


@pytest.mark.parametrize("algorithm", ["sha384", "SHA3_256", "sha512"])
def test_a_certificate_is_signed_with_the_hash_that_was_asked_for(algorithm: str, key: PrivateKey) -> None:
    """Any hash that can be used with the key can be chosen by its name."""
    certificate = self_signed(key, algorithm=algorithm)
    assert algorithm.lower().replace("_", "-") == certificate.signature_hash_algorithm.name
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("algorithm", ["sha1", "md4", "shake128"])
def test_a_hash_that_cannot_sign_is_refused(algorithm: str, key: PrivateKey) -> None:
    """Weak, unknown and unsuitable hashes are errors of the caller, and not some class of a library."""
    with pytest.raises(ValueError, match=r"(?i)hash|digest"):
        self_signed(key, algorithm=algorithm)


def test_a_certificate_is_stored_and_loaded(key: PrivateKey, tmp_path: Path) -> None:
    """Anybody may read the file; one that is there is replaced only on request."""
    path = generate_certificate(tmp_path / "certs" / "lab.crt", key, names=["lab7"], now=NOW, years_valid=1)
    certificate = load_certificate(path)
    assert certificate == load_certificate(str(path)) == load_certificate(path.read_bytes())
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)
    assert is_signed_by(certificate, key)
    assert not is_signed_by(certificate, new_key())
    with pytest.raises(FileExistsError):
        generate_certificate(path, key)
    write_certificate(path, self_signed(key, names=["lab8"]), overwrite=True)
    assert "CN=lab8" == load_certificate(path).subject.rfc4514_string()


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """Rubbish, other types and missing files are three different errors."""
    path = tmp_path / "lab.crt"
    with pytest.raises(FileNotFoundError):
        load_certificate(path)
    path.write_text("rubbish")
    with pytest.raises(ValueError, match=r"cannot load the certificate .*lab\.crt"):
        load_certificate(path)
    with pytest.raises(ValueError, match="PEM"):
        load_certificate(b"rubbish")
    with pytest.raises(TypeError, match=r'^The "cert" parameter must be a string or bytes$'):
        load_certificate(None)  # type: ignore[arg-type]


def test_a_fingerprint_is_the_hash_of_the_certificate(key: PrivateKey, tmp_path: Path) -> None:
    """It is what other tools show, in pairs with colons between them."""
    path = generate_certificate(tmp_path / "lab.crt", key)
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    certificate = load_certificate(path)
    assert hashlib.sha256(der).hexdigest() == fingerprint(certificate).replace(":", "")
    assert hashlib.sha1(der).digest().hex(":") == fingerprint(certificate, "sha1")
    assert hashlib.shake_128(der).digest(8).hex(":") == fingerprint(certificate, "SHAKE128", 8)
    with pytest.raises(ValueError, match="Invalid hash algorithm 'X'"):
        fingerprint(certificate, "x")


# -- showing -------------------------------------------------------------------------------------------------


def numbers(path: Path) -> str:
    """What openssl prints of a certificate, without blanks."""
    done = subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-text"],
        capture_output=True,
        check=True,
    )
    return "".join(done.stdout.decode().split())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
@pytest.mark.parametrize(
    ("make", "encryption", "size", "parts"),
    [
        ({"algorithm": "RSA"}, "RSA", 2048, {"exponent", "modulus"}),
        ({"algorithm": "DSA"}, "DSA", 2048, {"y", "p", "q", "g"}),
        ({"curve": "P-384"}, "Elliptic Curve", 384, {"curve", "key"}),
    ],
)
def test_metadata_is_what_other_tools_see(
    make: dict[str, Any], encryption: str, size: int, parts: set[str], tmp_path: Path
) -> None:
    """Of each kind of key, all its numbers in the metadata are those that openssl shows."""
    path = generate_certificate(tmp_path / "lab.crt", new_key(**make), names=["lab7", "10.0.0.7"], now=NOW)
    facts = metadata(load_certificate(path))
    shown = numbers(path)
    assert {"encryption": encryption, "size": size}.items() <= facts["key"].items()
    assert parts == set(facts["key"]) - {"encryption", "size"}
    for part in parts - {"exponent", "curve"}:
        assert facts["key"][part] in shown
    assert facts["serial_number"] in shown
    assert load_certificate(path).signature.hex(":") == facts["algorithm"]["signature"]
    assert "v3" == facts["version"]
    assert {"common_name": "lab7"} == facts["issuer"] == facts["subject"]
    assert (NOW - timedelta(days=1), NOW.replace(year=2126)) == (facts["valid_from"], facts["valid_to"])
    assert fingerprint(load_certificate(path)) == facts["fingerprint"]
    [extension] = facts["extensions"]
    assert ("2.5.29.17", "subjectAltName", False) == tuple(
        extension[each] for each in ("oid", "name", "critical")
    )
    assert "10.0.0.7" in extension["value"]


def test_metadata_as_text(tmp_path: Path) -> None:
    """The text has the layout of MSL-Network 1.0, with the fingerprint last."""
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "NZ"),
            x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "Wellington"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab7\x1b[2J\nevil"),
        ]
    )
    certificate = self_signed(new_key(algorithm="RSA"), subject=subject, names=["lab7"], now=NOW)
    text = metadata_text(certificate, algorithm="sha1")
    lines = text.splitlines()
    assert "Version: v3" == lines[0]
    assert ["Fingerprint (SHA1):", fingerprint(certificate, "sha1")] == lines[-2:]
    for line in (
        "  Not Before: 28 February 2026 12:30:15 GMT",
        "  Not After : 01 March 2126 12:30:15 GMT",
        "  Encryption: RSA",
        "  Size: 2048",
        "  Country Name: NZ",
        "  State or Province Name: Wellington",
        "  Modulus:",
        "  Common Name: lab7\\x1b[2J\\nevil",
        "Subject Public Key Info:",
        "Signature Algorithm:",
        "  name: sha256WithRSAEncryption",
        "    name: subjectAltName",
        "    critical: False",
    ):
        assert line in lines
    assert "  SubjectAlternativeName(GeneralNames([DNSName(value='lab7')])):" in lines
    start = lines.index("  Modulus:") + 1
    modulus = lines[start : lines.index("Extensions:")]
    assert all(len(line) == 4 + 75 for line in modulus[:-1])
    assert metadata(certificate)["key"]["modulus"] == "".join(modulus).replace(" ", "")
    assert all(line.isprintable() and line == line.rstrip() for line in lines)


def test_a_certificate_without_extensions_shows_none() -> None:
    """What is not there has no heading."""
    text = metadata_text(self_signed(new_key(), extensions=[]))
    assert "Extensions" not in text
    assert "Fingerprint (SHA256):" == text.splitlines()[-2]


# -- the certificate of a manager ----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_manager_makes_what_it_needs_once(home: Home) -> None:
    """The first start makes the default key and certificate, the next one uses them."""
    found = manager_certificate(home)
    assert (home.certificate(), home.key()) == found
    content = [path.read_bytes() for path in found if path]
    assert found == manager_certificate(home)
    assert content == [path.read_bytes() for path in found if path]
    assert is_signed_by(load_certificate(found.certificate), load_key(home.key()))


def test_a_manager_on_one_address_has_a_certificate_for_it(home: Home) -> None:
    """With a host given the files have its name, the key the password, and the certificate the host."""
    found = manager_certificate(home, host="10.99.0.1", password="a b")
    assert (home.certificate("10.99.0.1"), home.key("10.99.0.1")) == found
    addresses = alternatives(load_certificate(found.certificate)).get_values_for_type(x509.IPAddress)
    assert ipaddress.ip_address("10.99.0.1") in addresses
    assert ipaddress.ip_address("127.0.0.1") in addresses
    load_key(home.key("10.99.0.1"), password="a b")
    with pytest.raises(ValueError, match="encrypted"):
        load_key(home.key("10.99.0.1"))
    assert not home.certificate().exists()


def test_a_missing_certificate_is_made_from_the_key(home: Home) -> None:
    """A key that is there is used, with its password."""
    generate_key(home.key(), password="x")
    with pytest.raises(ValueError, match="encrypted"):
        manager_certificate(home)
    found = manager_certificate(home, password="x", now=NOW)
    assert NOW.replace(year=2126) == load_certificate(found.certificate).not_valid_after_utc


def test_a_certificate_whose_key_is_gone_is_an_error(home: Home) -> None:
    """No new key is made for an old certificate, which devices may trust; the error says what to do."""
    manager_certificate(home)
    home.key().unlink()
    with pytest.raises(ValueError, match=r"localhost\.crt, but not its private key .*delete the certificate"):
        manager_certificate(home)
    assert not home.key().exists()


def test_a_key_alone_gets_a_certificate_and_keeps_it(home: Home, tmp_path: Path) -> None:
    """The default certificate is made from the given key, and made anew only if it is another one's."""
    one, other = (generate_key(tmp_path / f"{name}.key") for name in "ab")
    assert (home.certificate(), one) == manager_certificate(home, key=one)
    first = home.certificate().read_bytes()
    assert (home.certificate(), one) == manager_certificate(home, key=one)
    assert first == home.certificate().read_bytes()
    manager_certificate(home, key=other)
    assert is_signed_by(load_certificate(home.certificate()), load_key(other))
    assert not home.key().exists()


def test_a_given_certificate_is_taken_as_it_is(home: Home, tmp_path: Path) -> None:
    """Nothing is made, and nothing read yet."""
    certificate, key = tmp_path / "lab.crt", tmp_path / "lab.key"
    assert (certificate, None) == manager_certificate(home, certificate=certificate)
    assert (certificate, key) == manager_certificate(home, certificate=certificate, key=key)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("late", ["generate_key", "generate_certificate"])
def test_two_managers_that_start_at_once_agree(
    late: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second uses what the first one made: the certificate belongs to the key that is there."""
    real: Callable[..., Any] = getattr(own, late)
    is_first = True

    def overtaken(*arguments: Any, **options: Any) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            manager_certificate(home)
        return real(*arguments, **options)

    monkeypatch.setattr(own, late, overtaken)
    found = manager_certificate(home)
    assert not is_first
    assert is_signed_by(load_certificate(found.certificate), load_key(home.key()))


# -- contexts ------------------------------------------------------------------------------------------------


def test_a_manager_needs_a_certificate_that_fits_its_key(home: Home, tmp_path: Path) -> None:
    """What does not fit, is encrypted or is missing is a ValueError that names the files; nobody is asked."""
    certificate, key = manager_certificate(home)
    assert key is not None
    assert isinstance(manager_context(certificate, key), ssl.SSLContext)
    other = generate_key(tmp_path / "other.key")
    with pytest.raises(
        ValueError, match=r"localhost\.crt with the private key .*other\.key: they do not belong"
    ):
        manager_context(certificate, other)
    with pytest.raises(ValueError, match=r"there must be a certificate and its private key in that file"):
        manager_context(certificate)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert isinstance(manager_context(both), ssl.SSLContext)
    with pytest.raises(FileNotFoundError):
        manager_context(tmp_path / "none.crt", key)
    with pytest.raises(ValueError, match=r"cannot use the certificate .*: one of them is broken"):
        manager_context(key, key)


@pytest.mark.parametrize("algorithm", ["ECC", "RSA"])
def test_a_manager_with_an_encrypted_key_needs_the_password(algorithm: str, tmp_path: Path) -> None:
    """The TLS library takes the password from us, and never asks at the terminal."""
    key = generate_key(tmp_path / "lab.key", algorithm=algorithm, password="a b")
    certificate = generate_certificate(tmp_path / "lab.crt", load_key(key, password="a b"))
    assert isinstance(manager_context(certificate, key, password="a b"), ssl.SSLContext)
    with pytest.raises(ValueError, match=r"lab\.key: the password of the key is wrong"):
        manager_context(certificate, key, password="b")
    with pytest.raises(ValueError, match=r"lab\.key: it is encrypted, and no password was given"):
        manager_context(certificate, key)


def test_a_device_trusts_one_file(home: Home, tmp_path: Path) -> None:
    """Only what is in the file is trusted, none of the system's authorities."""
    certificate, _ = manager_certificate(home)
    context = device_context(certificate)
    assert 1 == context.cert_store_stats()["x509"]
    assert context.check_hostname
    assert (
        ssl.CERT_REQUIRED
        == context.verify_mode
        == device_context(certificate, assert_hostname=False).verify_mode
    )
    assert not device_context(certificate, assert_hostname=False).check_hostname
    empty = tmp_path / "empty.crt"
    empty.touch()
    with pytest.raises(ValueError, match=r"there is no certificate in .*empty\.crt"):
        device_context(empty)
    with pytest.raises(FileNotFoundError):
        device_context(tmp_path / "none.crt")


def test_contexts_are_made_once_for_each_state_of_a_file(home: Home, key: PrivateKey) -> None:
    """The same file gives the same context until it changes; with and without names are two."""
    certificate, _ = manager_certificate(home)
    contexts = DeviceContexts()
    first = contexts.get(certificate)
    assert first is contexts.get(certificate)
    assert first is not contexts.get(certificate, assert_hostname=False)
    assert first is contexts.get(certificate)
    generate_certificate(certificate, key, overwrite=True)
    assert first is not contexts.get(certificate)
    certificate.unlink()
    with pytest.raises(FileNotFoundError):
        contexts.get(certificate)


def test_contexts_are_bounded(key: PrivateKey, tmp_path: Path) -> None:
    """Of very many files the contexts used last are kept."""
    contexts = DeviceContexts()
    paths = [generate_certificate(tmp_path / f"{number}.crt", key) for number in range(65)]
    first, second, *_ = made = [contexts.get(path) for path in paths[:64]]
    assert first is contexts.get(paths[0])
    contexts.get(paths[64])
    assert first is contexts.get(paths[0])
    assert second is not contexts.get(paths[1])
    assert made[-1] is contexts.get(paths[63])


def test_nothing_imports_cryptography_before_it_is_needed() -> None:
    """A client that trusts its manager already, and every command line, starts without it."""
    program = """
import sys
from armillary.network import cli
from armillary.network.tls import metadata, own, trust
assert "cryptography" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
