"""What is in a certificate, as data and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .certificates import fingerprint

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["facts_text", "metadata", "metadata_text"]

# Hex digits and colons on a line of the text: 25 bytes, as other tools print them.
_HEX_COLUMNS = 75
_DATE = "%d %B %Y %H:%M:%S GMT"


def metadata(certificate: x509.Certificate, *, algorithm: str = "SHA256") -> dict[str, Any]:
    """What is in a certificate.

    Args:
        certificate: which.
        algorithm: the hash of the fingerprint.

    Returns:
        ``version`` ("v3"), ``serial_number``, ``valid_from`` and ``valid_to`` (datetimes in UTC),
        ``fingerprint``, ``issuer`` and ``subject`` (their parts by the names that X.500 has for them, in
        small letters), ``key`` (``encryption``, ``size`` in bits, and the numbers), ``algorithm`` (``oid``,
        ``name``, ``signature``) and ``extensions`` (a list of dicts with ``oid``, ``name``, ``value`` as
        text, and ``critical``). Numbers and signatures are hex pairs with colons between them.
    """
    signed_with = certificate.signature_algorithm_oid
    return {
        "version": certificate.version.name,
        "serial_number": _hex(certificate.serial_number),
        "valid_from": certificate.not_valid_before_utc,
        "valid_to": certificate.not_valid_after_utc,
        "fingerprint": fingerprint(certificate, algorithm),
        "issuer": _parts(certificate.issuer),
        "subject": _parts(certificate.subject),
        "key": _key(certificate),
        "algorithm": {
            "oid": signed_with.dotted_string,
            "name": _name(signed_with),
            "signature": certificate.signature.hex(":"),
        },
        "extensions": [
            {
                "oid": extension.oid.dotted_string,
                "name": _name(extension.oid),
                "value": str(extension.value),
                "critical": extension.critical,
            }
            for extension in certificate.extensions
        ],
    }


def _parts(name: x509.Name) -> dict[str, str]:
    """The parts of a name; those of the same kind are joined."""
    from cryptography.x509 import NameOID

    known = {oid: each.lower() for each, oid in vars(NameOID).items() if each.isupper()}
    parts: dict[str, list[str]] = {}
    for attribute in name:
        value = attribute.value
        parts.setdefault(known.get(attribute.oid, attribute.oid.dotted_string), []).append(
            value if isinstance(value, str) else value.hex(":")
        )
    return {kind: ", ".join(values) for kind, values in parts.items()}


def _key(certificate: x509.Certificate) -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return {
            "encryption": "RSA",
            "exponent": rsa_numbers.e,
            "size": key.key_size,
            "modulus": _hex(rsa_numbers.n),
        }
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            "encryption": "Elliptic Curve",
            "curve": key.curve.name,
            "size": key.key_size,
            "key": point.hex(":"),
        }
    if isinstance(key, dsa.DSAPublicKey):
        dsa_numbers = key.public_numbers()
        parameters = dsa_numbers.parameter_numbers
        return {
            "encryption": "DSA",
            "size": key.key_size,
            "y": _hex(dsa_numbers.y),
            "p": _hex(parameters.p),
            "q": _hex(parameters.q),
            "g": _hex(parameters.g),
        }
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {"encryption": _name(certificate.public_key_algorithm_oid), "key": encoded.hex(":")}


def _hex(number: int) -> str:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex(":")


def _name(oid: x509.ObjectIdentifier) -> str:
    return oid._name


def metadata_text(certificate: x509.Certificate, *, algorithm: str = "SHA256") -> str:
    """What is in a certificate, for people.

    Args:
        certificate: which.
        algorithm: the hash of the fingerprint, which stands on the last line.
    """
    return facts_text(metadata(certificate, algorithm=algorithm), algorithm)


def facts_text(facts: Mapping[str, Any], algorithm: str) -> str:
    """What `metadata` has found with a hash, for people."""
    return "\n".join(_lines(facts, algorithm.upper()))


def _lines(facts: Mapping[str, Any], fingerprint_algorithm: str) -> Iterator[str]:
    yield f"Version: {facts['version']}"
    yield f"Serial Number: {facts['serial_number']}"
    yield "Issuer:"
    yield from _name_lines(facts["issuer"])
    yield "Validity:"
    yield f"  Not Before: {facts['valid_from']:{_DATE}}"
    yield f"  Not After : {facts['valid_to']:{_DATE}}"
    yield "Subject:"
    yield from _name_lines(facts["subject"])
    yield "Subject Public Key Info:"
    for title, value in facts["key"].items():
        if isinstance(value, str) and ":" in value:
            yield f"  {title.title()}:"
            yield from _hex_lines(value)
        else:
            yield f"  {title.title()}: {value}"
    if facts["extensions"]:
        yield "Extensions:"
    for extension in facts["extensions"]:
        yield f"  {_harmless(extension['value'].replace('<', '').replace('>', ''))}:"
        yield f"    oid: {extension['oid']}"
        yield f"    name: {extension['name']}"
        yield f"    critical: {extension['critical']}"
    yield "Signature Algorithm:"
    yield f"  oid: {facts['algorithm']['oid']}"
    yield f"  name: {facts['algorithm']['name']}"
    yield "  value:"
    yield from _hex_lines(facts["algorithm"]["signature"])
    yield f"Fingerprint ({fingerprint_algorithm}):"
    yield facts["fingerprint"]


def _name_lines(parts: Mapping[str, str]) -> Iterator[str]:
    for kind, value in parts.items():
        yield f"  {kind.replace('_', ' ').title().replace(' Or ', ' or ')}: {_harmless(value)}"


def _harmless(text: str) -> str:
    """What a stranger has written, without what moves a terminal's cursor or ends a line."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _hex_lines(text: str) -> Iterator[str]:
    for start in range(0, len(text), _HEX_COLUMNS):
        yield f"    {text[start : start + _HEX_COLUMNS]}"
