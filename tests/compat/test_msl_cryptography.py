"""Keys, certificates and TLS contexts, as 1.0's users make and read them."""

from __future__ import annotations

import builtins
import hashlib
import inspect
import re
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from msl.network import constants, cryptography
from msl.network.cryptography import hashes, x509

HEX_PAIRS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2})*")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default files of each test are its own."""
    monkeypatch.setattr(constants, "HOME_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def key_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key that took no time to make."""
    return cryptography.generate_key(path=str(tmp_path_factory.mktemp("key") / "a.key"), algorithm="ECC")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where there is nothing yet, not even the directory."""
    return str(tmp_path / "new" / "file")


@pytest.fixture
def certificate(path: str, key_path: str) -> x509.Certificate:
    """The certificate of this computer."""
    return cryptography.load_certificate(cryptography.generate_certificate(path=path, key_path=key_path))


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


# -- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "kind", "header"),
    [
        ("RSA", rsa.RSAPrivateKey, "RSA"),
        ("dsa", dsa.DSAPrivateKey, "DSA"),
        ("Ecc", ec.EllipticCurvePrivateKey, "EC"),
    ],
)
@pytest.mark.parametrize("password", [None, "a b"])
def test_a_key_is_made_and_loaded(
    algorithm: str, kind: type, header: str, password: str | None, path: str
) -> None:
    """It is in the traditional format of OpenSSL, encrypted if there is a password, and its owner's alone."""
    assert cryptography.generate_key(path=path, algorithm=algorithm, password=password) == path
    lines = Path(path).read_text().splitlines()
    assert lines[0] == f"-----BEGIN {header} PRIVATE KEY-----"
    assert lines[1].startswith("Proc-Type: 4,ENCRYPTED") == (password is not None)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    key = cryptography.load_key(path, password=password)
    assert isinstance(key, kind)


def test_the_defaults_of_a_key(home: Path) -> None:
    """RSA with 2048 bits, or the curve P-384, as the key of localhost."""
    path = cryptography.generate_key()
    assert path == cryptography.get_default_key_path() == str(home / "keys" / "localhost.key")
    key = cryptography.load_key(path)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key().public_numbers().e == 65537
    cryptography.generate_key(algorithm="ecc")
    key = cryptography.load_key(path)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"algorithm": "xyz"}, r"^The encryption algorithm must be RSA, DSA or ECC\. Got XYZ$"),
        (
            {"algorithm": "ecc", "curve": "xyz"},
            r"^Invalid curve name 'XYZ'\. Allowed curves are\n.*SECP384R1",
        ),
        ({"size": 100}, "key_size must be at least"),
        ({"algorithm": "ecc", "password": ""}, "Password must be 1 or more bytes"),
    ],
)
def test_a_key_that_cannot_be_made(options: dict[str, Any], text: str, path: str) -> None:
    """It is a ValueError that says what is possible."""
    with pytest.raises(ValueError, match=text):
        cryptography.generate_key(path=path, **options)
    assert not Path(path).exists()


def test_a_curve_has_its_name_in_any_case(path: str) -> None:
    """And a name that OpenSSL has for it."""
    for name in ("secp256r1", "Prime256V1"):
        key = cryptography.load_key(cryptography.generate_key(path=path, algorithm="ECC", curve=name))
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"


def test_a_key_that_cannot_be_loaded(path: str) -> None:
    """What is wrong with the password is told by the class of the error."""
    with pytest.raises(FileNotFoundError):
        cryptography.load_key(path)
    cryptography.generate_key(path=path, algorithm="ECC", password="right")
    with pytest.raises(TypeError, match="Password was not given"):
        cryptography.load_key(path)
    with pytest.raises(ValueError):  # noqa: PT011 - the words depend on the library's version
        cryptography.load_key(path, password="wrong")
    cryptography.generate_key(path=path, algorithm="ECC")
    with pytest.raises(TypeError, match="Password was given"):
        cryptography.load_key(path, password="right")


# -- certificates --------------------------------------------------------------------------------------------


def test_the_default_certificate_brings_its_key(home: Path) -> None:
    """The key of localhost is made if there is none, and is used again if there is one."""
    path = cryptography.generate_certificate(key_password="a b")
    assert path == cryptography.get_default_cert_path() == str(home / "certs" / "localhost.crt")
    key = cryptography.load_key(cryptography.get_default_key_path(), password="a b")
    first = cryptography.load_certificate(path)
    assert first.public_key() == key.public_key()
    second = cryptography.load_certificate(cryptography.generate_certificate(key_password="a b"))
    assert second.public_key() == key.public_key()
    assert second.serial_number != first.serial_number


def test_the_certificate_of_this_computer(certificate: x509.Certificate) -> None:
    """It names this computer, its addresses among the alternative names, and is signed with SHA256."""
    assert certificate.issuer == certificate.subject
    kinds = {part.rfc4514_attribute_name for part in certificate.subject}
    assert kinds == {"C", "ST", "L", "O", "CN", "1.2.840.113549.1.9.1"}
    [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == constants.HOSTNAME
    [extension] = certificate.extensions
    assert not extension.critical
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert set(extension.value.get_values_for_type(x509.DNSName)) == {constants.HOSTNAME, "localhost"}
    addresses = {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}
    assert addresses.issuperset(constants.IPV4_ADDRESSES)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)


@pytest.mark.parametrize("years", [None, 1, 7.4, 0.25])
def test_how_long_a_certificate_is_valid(years: float | None, path: str, key_path: str) -> None:
    """From now on for so many years, or for the default."""
    before = datetime.now(UTC).replace(microsecond=0)
    cryptography.generate_certificate(path=path, key_path=key_path, years_valid=years)
    certificate = cryptography.load_certificate(path)
    assert before <= certificate.not_valid_before_utc <= datetime.now(UTC)
    valid = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    expected = timedelta(days=365.2425 * (constants.DEFAULT_YEARS_VALID if years is None else years))
    assert abs(valid - expected) < timedelta(days=5)


def test_somebody_elses_certificate_has_no_names_of_this_computer(path: str, key_path: str) -> None:
    """Unless the common name is this computer's."""
    for name, extensions in (("elsewhere", 0), (constants.HOSTNAME, 1)):
        cryptography.generate_certificate(path=path, key_path=key_path, name=common_name(name))
        certificate = cryptography.load_certificate(path)
        assert certificate.subject == certificate.issuer == common_name(name)
        assert len(certificate.extensions) == extensions


def test_a_certificate_says_what_it_is_told_to_say(path: str, key_path: str) -> None:
    """Extensions that are given are the only ones, and none is critical."""
    given = [x509.BasicConstraints(ca=True, path_length=None)]
    cryptography.generate_certificate(path=path, key_path=key_path, extensions=given)
    certificate = cryptography.load_certificate(path)
    assert [(each.value, each.critical) for each in certificate.extensions] == [(given[0], False)]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"algorithm": "xyz"}, ValueError, r"^Invalid hash algorithm 'XYZ'\. Allowed .*\n.*SHA256"),
        ({"algorithm": 5}, TypeError, r"^The hash algorithm must be a string or HashAlgorithm instance$"),
        ({"algorithm": "blake2b"}, ValueError, "Digest size must be 64"),
        ({"algorithm": "blake2s", "digest_size": 5}, ValueError, "Digest size must be 32"),
        ({"years_valid": 0}, ValueError, "positive"),
        ({"key_path": "/no/such.key"}, FileNotFoundError, r"/no/such\.key"),
    ],
)
def test_a_certificate_that_cannot_be_made(
    options: dict[str, Any], kind: type[Exception], text: str, path: str, key_path: str
) -> None:
    """It says why, and leaves no file."""
    with pytest.raises(kind, match=text):
        cryptography.generate_certificate(**{"path": path, "key_path": key_path, **options})
    assert not Path(path).exists()


def test_certificates_are_loaded_from_files_and_bytes(certificate: x509.Certificate, path: str) -> None:
    """And from nothing else."""
    assert cryptography.load_certificate(Path(path).read_bytes()) == certificate
    for wrong in (None, 5, certificate):
        with pytest.raises(TypeError, match=r'^The "cert" parameter must be a string or bytes$'):
            cryptography.load_certificate(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="PEM"):
        cryptography.load_certificate(b"nothing")
    with pytest.raises(FileNotFoundError):
        cryptography.load_certificate("/no/such.crt")


# -- what is in a certificate --------------------------------------------------------------------------------


def test_fingerprints(certificate: x509.Certificate, path: str) -> None:
    """Hex pairs of the hash of the certificate, by the name of the hash in any case or as an object."""
    der = ssl.PEM_cert_to_DER_cert(Path(path).read_text())
    for algorithm, name in (("sha1", "sha1"), ("SHA256", "sha256"), (hashes.SHA512(), "sha512")):
        expected = hashlib.new(name, der).digest().hex(":")
        assert cryptography.get_fingerprint(certificate, algorithm=algorithm) == expected
    assert cryptography.get_fingerprint(certificate) == hashlib.new("sha1", der).digest().hex(":")
    blake = cryptography.get_fingerprint(certificate, algorithm="BLAKE2b", digest_size=64)
    assert blake == hashlib.blake2b(der).digest().hex(":")


@pytest.mark.parametrize(
    ("algorithm", "kind", "text"),
    [
        ("xyz", ValueError, r"^Invalid hash algorithm 'XYZ'\. Allowed "),
        ("", ValueError, r"^Invalid hash algorithm ''\. Allowed "),
        (5, TypeError, r"^The hash algorithm must be a string or HashAlgorithm instance$"),
        (hashes.SHA256, TypeError, r"^The hash algorithm must be a string or HashAlgorithm instance$"),
        ("blake2b", ValueError, "Digest size must be 64"),
        ("blake2s", ValueError, "Digest size must be 32"),
    ],
)
def test_a_hash_that_there_is_not(
    algorithm: Any, kind: type[Exception], text: str, certificate: x509.Certificate
) -> None:
    """The error says which ones there are."""
    with pytest.raises(kind, match=text):
        cryptography.get_fingerprint(certificate, algorithm=algorithm)


KEYS = {
    "RSA": ("RSA", 2048, {"exponent": int, "modulus": str}),
    "DSA": ("DSA", 2048, {"y": str, "p": str, "q": str, "g": str}),
    "ECC": ("Elliptic Curve", 384, {"curve": str, "key": str}),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_metadata(algorithm: str, path: str, tmp_path: Path) -> None:
    """All that is in a certificate, by the names that 1.0 has for it."""
    key_path = cryptography.generate_key(path=str(tmp_path / "key"), algorithm=algorithm)
    cryptography.generate_certificate(path=path, key_path=key_path, years_valid=2)
    certificate = cryptography.load_certificate(path)
    facts = cryptography.get_metadata(certificate)
    assert facts["version"] == "v3"
    assert int(facts["serial_number"].replace(":", ""), 16) == certificate.serial_number
    assert facts["valid_from"] == certificate.not_valid_before_utc.replace(tzinfo=None)
    assert facts["valid_to"].year == facts["valid_from"].year + 2
    assert facts["fingerprint"] == cryptography.get_fingerprint(certificate)
    assert facts["issuer"] == facts["subject"]
    assert list(facts["subject"]) == [
        "common_name",
        "country_name",
        "locality_name",
        "state_or_province_name",
        "organization_name",
        "email_address",
    ]
    assert facts["subject"]["common_name"] == constants.HOSTNAME
    encryption, size, others = KEYS[algorithm]
    key = facts["key"]
    assert (key["encryption"], key["size"]) == (encryption, size)
    assert {name: type(key[name]) for name in key if name not in ("encryption", "size")} == others
    assert set(facts["algorithm"]) == {"oid", "name", "signature"}
    assert HEX_PAIRS.fullmatch(facts["algorithm"]["signature"])
    assert facts["extensions"]["name"] == "subjectAltName"
    assert facts["extensions"]["oid"] == "2.5.29.17"
    assert facts["extensions"]["critical"] is False
    assert "localhost" in facts["extensions"]["value"]


def test_of_extensions_the_last_one_counts(path: str, key_path: str) -> None:
    """In the dict; the text has all of them, and a certificate without any has an empty dict."""
    both = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("a")]),
    ]
    cryptography.generate_certificate(path=path, key_path=key_path, extensions=both)
    certificate = cryptography.load_certificate(path)
    assert cryptography.get_metadata(certificate)["extensions"]["name"] == "subjectAltName"
    text = cryptography.get_metadata_as_string(certificate)
    assert text.index("basicConstraints") < text.index("subjectAltName")
    cryptography.generate_certificate(path=path, key_path=key_path, name=common_name("a"))
    bare = cryptography.load_certificate(path)
    assert cryptography.get_metadata(bare)["extensions"] == {}
    assert "Extensions:" not in cryptography.get_metadata_as_string(bare)


def test_metadata_as_text(path: str, tmp_path: Path) -> None:
    """Line by line, what people and programs look for."""
    key_path = cryptography.generate_key(path=str(tmp_path / "key"))
    certificate = cryptography.load_certificate(
        cryptography.generate_certificate(path=path, key_path=key_path)
    )
    facts = cryptography.get_metadata(certificate)
    lines = cryptography.get_metadata_as_string(certificate).splitlines()
    name = [
        f"  Common Name: {constants.HOSTNAME}",
        "  Country Name: NZ",
        "  Locality Name: Lower Hutt",
        "  State or Province Name: Wellington",
        "  Organization Name: Measurement Standards Laboratory of New Zealand",
        "  Email Address: info@measurement.govt.nz",
    ]
    assert lines[:25] == [
        "Version: v3",
        f"Serial Number: {facts['serial_number']}",
        "Issuer:",
        *name,
        "Validity:",
        f"  Not Before: {facts['valid_from']:%d %B %Y %H:%M:%S} GMT",
        f"  Not After : {facts['valid_to']:%d %B %Y %H:%M:%S} GMT",
        "Subject:",
        *name,
        "Subject Public Key Info:",
        "  Encryption: RSA",
        "  Exponent: 65537",
        "  Size: 2048",
        "  Modulus:",
        f"    {facts['key']['modulus'][:75]}",
    ]
    assert lines.index("Extensions:") < lines.index("Signature Algorithm:")
    assert "    name: subjectAltName" in lines
    assert "  name: sha256WithRSAEncryption" in lines
    assert lines[-2:] == ["Fingerprint (SHA1):", facts["fingerprint"]]
    for line in lines:
        assert len(line) <= 79 or "GeneralNames" in line


# -- TLS contexts --------------------------------------------------------------------------------------------


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Have connections answered for a block, one after the other, at a port of this computer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # the end of the block
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def port(tmp_path: Path, key_path: str) -> Iterator[int]:
    """The port of a manager that shows its certificate."""
    path = cryptography.generate_certificate(path=str(tmp_path / "shown"), key_path=key_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.load_cert_chain(path, key_path)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    with answering(serve) as number:
        yield number


@pytest.fixture
def stored(home: Path) -> Path:
    """Where the certificate of that manager is stored."""
    return home / "certs" / "127.0.0.1.crt"


def answer(monkeypatch: pytest.MonkeyPatch, answers: Iterable[str]) -> list[str]:
    """Answer what is asked at the terminal; the questions come back."""
    remaining, asked = iter(answers), list[str]()

    def ask(prompt: str = "") -> str:
        asked.append(prompt)
        return next(remaining)

    monkeypatch.setattr(builtins, "input", ask)
    return asked


@pytest.mark.parametrize("answers", [["y"], ["YES"], ["", "x", " y "]])
def test_a_certificate_is_trusted_if_somebody_says_so(
    answers: list[str],
    port: int,
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its fingerprint is shown, the question is asked until it is answered, and only the first time."""
    asked = answer(monkeypatch, answers)
    for _ in range(2):
        path, context = cryptography.get_ssl_context(host="127.0.0.1", port=port)
        assert path == str(stored)
        assert context is not None
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert asked == ["Continue? y/n: "] * len(answers)
    printed = capsys.readouterr().out
    assert printed.startswith("The certificate for 127.0.0.1 is not cached")
    shown = cryptography.load_certificate(str(tmp_path / "shown"))
    assert cryptography.get_fingerprint(shown) in printed
    assert cryptography.load_certificate(str(stored)) == shown


@pytest.mark.parametrize("answers", [["n"], ["No"], ["", "never"]])
def test_a_certificate_is_not_trusted(
    answers: list[str], port: int, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is neither a path nor a context then, and nothing is stored."""
    asked = answer(monkeypatch, answers)
    assert cryptography.get_ssl_context(host="127.0.0.1", port=port) == ("", None)
    assert len(asked) == len(answers)
    assert not stored.exists()


def test_a_certificate_is_trusted_without_asking(
    port: int, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The context is one that gets through to who has shown it; keyword arguments go to who fetches it."""
    path, context = cryptography.get_ssl_context(host="127.0.0.1", port=port, auto_save=True, timeout=10)
    assert path == str(stored)
    assert context is not None
    assert capsys.readouterr().out == ""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
            assert wrapped.getpeercert()


def test_a_file_with_a_certificate(certificate: x509.Certificate, path: str) -> None:
    """It is used whatever the host."""
    for where in ({}, {"host": "no.such.host.invalid", "port": 1}):
        found, context = cryptography.get_ssl_context(cert_file=path, **where)  # type: ignore[arg-type]
        assert found == path
        assert isinstance(context, ssl.SSLContext)


@pytest.mark.parametrize("cert_file", ["", "/no/such.crt"])
def test_a_file_that_is_not_there(cert_file: str) -> None:
    """Nothing is fetched in place of a file that was asked for."""
    for where in ({}, {"host": "127.0.0.1", "port": 1}):
        with pytest.raises(FileNotFoundError):
            cryptography.get_ssl_context(cert_file=cert_file, **where)  # type: ignore[arg-type]


def test_a_file_with_something_else(tmp_path: Path) -> None:
    """It is an error of TLS, which is an OSError."""
    path = tmp_path / "junk"
    path.write_text("junk")
    with pytest.raises(ssl.SSLError, match=re.escape(str(path))):
        cryptography.get_ssl_context(cert_file=str(path))


@pytest.mark.parametrize("where", [{}, {"host": "lab7"}, {"port": 1875}])
def test_a_context_for_nobody(where: dict[str, Any]) -> None:
    """There must be a file, or somebody to ask."""
    with pytest.raises(ValueError, match=r"^Must specify the host and port or the cert_file$"):
        cryptography.get_ssl_context(**where)


def test_nobody_is_there(stored: Path) -> None:
    """It is the error of the system."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        cryptography.get_ssl_context(host="127.0.0.1", port=port, auto_save=True)
    assert not stored.exists()


def test_somebody_who_speaks_no_tls(stored: Path) -> None:
    """It is the error of TLS, in its words."""
    with answering(lambda connection: connection.sendall(b'{"attribute": "identity"}\r\n')) as port:
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
            cryptography.get_ssl_context(host="127.0.0.1", port=port, auto_save=True)
    assert not stored.exists()


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("generate_key", "(*, path=None, algorithm='RSA', password=None, size=2048, curve='SECP384R1')"),
        ("load_key", "(path, *, password=None)"),
        (
            "generate_certificate",
            "(*, path=None, key_path=None, key_password=None, algorithm='SHA256', years_valid=None, "
            "digest_size=None, name=None, extensions=None)",
        ),
        ("load_certificate", "(cert)"),
        ("get_default_cert_path", "()"),
        ("get_default_key_path", "()"),
        ("get_fingerprint", "(cert, *, algorithm='SHA1', digest_size=None)"),
        ("get_metadata", "(cert)"),
        ("get_metadata_as_string", "(cert)"),
        ("get_ssl_context", "(*, cert_file=None, host=None, port=None, auto_save=False, **kwargs)"),
    ],
)
def test_the_functions_take_what_they_took(name: str, signature: str) -> None:
    """Names, kinds and defaults of all parameters are those of 1.0."""
    function = inspect.signature(getattr(cryptography, name))
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in function.parameters.values()]
    assert str(inspect.Signature(bare)) == signature
