"""A device behind TLS, with a certificate of a throw-away authority. It serves the device itself."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from first_device import Dome

from armillary import katcp
from armillary.errors import ConnectFailed


# [authority]
def builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """What both certificates have in common. They are valid for a day."""
    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def make_certificates(directory: Path) -> None:
    """Write authority.pem, certificate.pem and key.pem, for a server on this computer."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = (
        builder("test authority", "test authority", authority_key, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(SIGNS_CERTIFICATES, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        builder("localhost", "test authority", key, authority_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "authority.pem").write_bytes(authority.public_bytes(pem))
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(secret)


# [server]
def server_context(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


# [client]
def client_context(directory: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=directory / "authority.pem")


# [main]
async def main(directory: Path) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(
            katcp.serve_device, Dome(), 0, host="127.0.0.1", ssl_context=server_context(directory)
        )
        listeners = await nursery.start(serve)
        port = katcp.bound_ports(listeners)[0]
        async with katcp.open_client("127.0.0.1", port, ssl_context=client_context(directory)) as client:
            print("azimuth over TLS:", await client.sensor_value("azimuth"), "deg")
        try:
            async with katcp.open_client("127.0.0.1", port, ssl_context=ssl.create_default_context()):
                print("never here: this client does not know the authority")
        except ConnectFailed as error:
            print(error)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_certificates(Path(temporary))
        trio.run(main, Path(temporary))
# [end]
