"""TLS between MSL-Network 1.0 and us, with files made by either."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msl_peer import run_command, run_peer, running_manager

from armillary.network.locations import Home
from armillary.network.store import open_store
from armillary.network.tls.certificates import fingerprint, generate_certificate, load_certificate
from armillary.network.tls.contexts import DeviceContexts, manager_context
from armillary.network.tls.keys import generate_key, load_key
from armillary.network.tls.metadata import metadata, metadata_text
from armillary.network.tls.own import manager_certificate
from armillary.network.tls.trust import CertificateChanged, NoTls, accept, open_trusted_stream

pytestmark = pytest.mark.interop
HOST = "localhost"

_CONNECT = """
from msl.network import connect
port, options = given
try:
    client = connect(port=port, timeout=10, **options)
except Exception as error:
    answer = str(error)
else:
    answer = client.identities()["clients"] if hasattr(client, "identities") else None
    client.disconnect()
"""

_METADATA = """
from msl.network import cryptography
(path,) = given
certificate = cryptography.load_certificate(path)
answer = cryptography.get_metadata(certificate)
for each in ("valid_from", "valid_to"):
    answer[each] = answer[each].isoformat()
answer["text"] = cryptography.get_metadata_as_string(certificate)
"""


@pytest.fixture
def port() -> int:
    """One that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def first_line(port: int, home: Home, contexts: DeviceContexts) -> bytes:
    """Connect, and return what the manager says first."""
    stream = await open_trusted_stream(HOST, port, home=home, contexts=contexts, decide=accept, timeout=10)
    async with stream:
        with trio.fail_after(10):
            return bytes(await stream.receive_some())


async def test_we_trust_a_manager_of_the_old_library(tmp_path: Path, port: int) -> None:
    """Its certificate is stored at the first connection, and is the one that counts from then on."""
    theirs, ours, contexts = Home(tmp_path / "theirs"), Home(tmp_path / "ours"), DeviceContexts()
    async with running_manager(theirs.path, port, "--auth-password", "x"):
        for _ in range(2):
            assert (await first_line(port, ours, contexts)).startswith(b'{"')
    shown = load_certificate(theirs.certificate())
    assert shown == load_certificate(ours.certificate(HOST))
    with open_store(theirs.database) as store:
        messages = [row.message for row in store.audit.connections()]
    # The one that brought the certificate, and the two that only heard the first line.
    assert 3 == messages.count("new connection request")
    theirs.certificate().unlink()
    async with running_manager(theirs.path, port):
        with pytest.raises(CertificateChanged):
            await first_line(port, ours, contexts)


async def test_a_manager_of_the_old_library_without_tls(tmp_path: Path, port: int) -> None:
    """It is said to speak no TLS, whether its certificate was known or not."""
    ours = Home(tmp_path / "ours")
    async with running_manager(tmp_path / "theirs", port, "--disable-tls"):
        with pytest.raises(NoTls):
            await first_line(port, ours, DeviceContexts())
        manager_certificate(ours)
        with pytest.raises(NoTls):
            await first_line(port, ours, DeviceContexts())


@pytest.mark.parametrize(
    ("algorithm", "password"), [("ECC", None), ("ECC", "a b"), ("RSA", None), ("RSA", "a b")]
)
async def test_a_manager_of_the_old_library_uses_our_files(
    algorithm: str, password: str | None, tmp_path: Path, port: int
) -> None:
    """Key, certificate and database made here are its own there, and its clients trust what they trust."""
    home = Home(tmp_path)
    generate_key(home.key(), algorithm=algorithm, password=password)
    generate_certificate(home.certificate(), load_key(home.key(), password=password))
    with open_store(home.database, trusted=lambda: ["localhost", "127.0.0.1"]):
        pass
    arguments = ["--auth-hostname", *(["-D", password] if password else [])]
    async with running_manager(tmp_path, port, *arguments):
        told = await trio.to_thread.run_sync(run_peer, tmp_path, _CONNECT, port, {"name": "Bench A"})
        assert (await first_line(port, home, DeviceContexts())).startswith(b'{"')
    [client] = told.values()
    assert "Bench A" == client["name"]


async def test_a_client_of_the_old_library_shakes_hands_with_us(tmp_path: Path) -> None:
    """It trusts our certificate by its file, waits for the first line of a manager, and answers it."""
    home = Home(tmp_path)
    certificate, key = manager_certificate(home)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = trio.SSLListener(listeners[0], manager_context(certificate, key), https_compatible=True)
    answers: list[bytes] = []

    async def ask(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.send_all(
                b'{"args": [], "attribute": "identity", "error": false, "kwargs": {}, '
                b'"requester": "Manager[x:1]", "uid": ""}\r\n'
            )
            while not answers or not answers[0].endswith(b"\n"):
                data = await stream.receive_some()
                answers[:] = [b"".join([*answers, bytes(data)])]
            done.set()

    done = trio.Event()
    port = listeners[0].socket.getsockname()[1]
    options: dict[str, Any] = {"host": "127.0.0.1", "name": "Bench A", "cert_file": str(certificate)}
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, ask, [listener])
        nursery.start_soon(trio.to_thread.run_sync, run_peer, tmp_path, _SAY_WHO, port, options)
        with trio.fail_after(30):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert b'"Bench A"' in answers[0]


_SAY_WHO = """
from msl.network import connect
port, options = given
client = connect(port=port, timeout=10, **options)
answer = None
"""


@pytest.mark.parametrize("arguments", [("rsa",), ("dsa",), ("ecc",), ("ecc", "-c", "prime256v1")])
def test_certificates_of_the_old_library_say_the_same_here(arguments: Sequence[str], tmp_path: Path) -> None:
    """Of a certificate that it made, both sides tell the same, as data and as text."""
    key, path = tmp_path / "its.key", tmp_path / "its.crt"
    run_command(tmp_path, "keygen", *arguments, "-o", str(key))
    run_command(tmp_path, "certgen", str(path), "-k", str(key), "-y", "7.4")
    load_key(key)
    theirs = run_peer(tmp_path, _METADATA, str(path))
    text = theirs.pop("text")
    ours = metadata(load_certificate(path), algorithm="SHA1")
    ours |= {each: ours[each].replace(tzinfo=None).isoformat() for each in ("valid_from", "valid_to")}
    ours["extensions"] = ours["extensions"][-1]
    assert theirs == ours
    assert fingerprint(load_certificate(path), "SHA1") == theirs["fingerprint"]
    # The order of the parts of a name is the certificate's here, and another one there.
    shown = metadata_text(load_certificate(path), algorithm="SHA1")
    assert sorted(line.rstrip() for line in text.splitlines()) == sorted(shown.splitlines())
    assert text.splitlines()[-2:] == shown.splitlines()[-2:]


def test_an_encrypted_key_of_the_old_library_is_loaded(tmp_path: Path) -> None:
    """The old form of encrypted keys is understood, too."""
    for algorithm in ("rsa", "dsa", "ecc"):
        path = tmp_path / f"{algorithm}.key"
        run_command(tmp_path, "keygen", algorithm, "-p", "a", "b", "-o", str(path))
        load_key(path, password="a b")
        with pytest.raises(ValueError, match="encrypted"):
            load_key(path)
