"""Fixtures of armillary's own tests: those that its users have, and a few more."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytest_plugins = ["armillary.testing.fixtures"]


def pytest_configure() -> None:
    """Let Ctrl-C be what it is in a terminal, for the tests of it and for the programs that they start.

    What a shell starts in the background ignores it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# -- cancellation --------------------------------------------------------------------------------------------

# More than any scenario has; a scenario that never completes fails instead of running on.
_MOST_CHECKPOINTS = 5000


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task, or one that it has started, waits for the n-th time."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, number: int) -> None:
        self._scope = scope
        self._tasks = {task}
        self._outside = list(task.child_nurseries)
        self._remaining = number

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery not in self._outside and nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._tasks:
            self._remaining -= 1
            if self._remaining == 0:
                self._scope.cancel(reason="cancelled everywhere")


def _tasks() -> set[trio.lowlevel.Task]:
    """Every task of the run."""
    found: set[trio.lowlevel.Task] = set()
    unseen = [trio.lowlevel.current_root_task()]
    while unseen:
        task = unseen.pop()
        assert task is not None
        found.add(task)
        unseen.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


def _sockets() -> set[str]:
    """Every open socket of the process, where the system shows them."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # the one that listed the others
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


async def _cancel_everywhere(
    scenario: Callable[[], Awaitable[object]],
    *,
    after: Callable[[], Awaitable[object]] | None = None,
    settle: float = 1.0,
) -> int:
    tasks, sockets = _tasks(), _sockets()
    for number in range(1, _MOST_CHECKPOINTS):
        with trio.CancelScope() as scope:
            instrument = _CancelAt(scope, trio.lowlevel.current_task(), number)
            trio.lowlevel.add_instrument(instrument)
            try:
                await scenario()
            except Exception as error:
                error.add_note(f"cancelled at checkpoint {number}: {scope.cancel_called}")
                raise
            finally:
                trio.lowlevel.remove_instrument(instrument)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(settle):
            while _tasks() - tasks or _sockets() - sockets:  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(settle / 100)
        where = f"left when cancelled at checkpoint {number}"
        assert [] == [repr(task) for task in _tasks() - tasks], where
        assert set() == _sockets() - sockets, where
        if after is not None:
            await after()
        if not scope.cancel_called:
            return number - 1
    raise AssertionError(f"the scenario has more than {_MOST_CHECKPOINTS} checkpoints")


@pytest.fixture
def cancel_everywhere() -> Callable[..., Awaitable[int]]:
    """Runs a scenario again and again, cancelled at its 1st, 2nd, 3rd... checkpoint, until it completes.

    ::

        async def cancel_everywhere(scenario, *, after=None, settle=1.0) -> int

    The checkpoints counted are those of the scenario and of all tasks that it starts in nurseries of its own.
    After each run nothing of it may be left: no task anywhere in the run, and no open socket. What tasks
    outside (a server in the test's nursery) need for their own ending may take up to `settle` seconds of the
    run's clock. Then ``await after()`` checks what else the test knows. What the scenario raises, other than
    its cancellation, comes out with a note that says where it was cancelled. Returns the number of
    checkpoints, so that a test can see that it was not cancelled nowhere.
    """
    return _cancel_everywhere


# -- TLS -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tls:
    """TLS contexts made from certificates that nobody else trusts."""

    server: ssl.SSLContext
    """For a server called ``localhost``, ``127.0.0.1`` or ``::1``."""
    client: ssl.SSLContext
    """For clients that trust it."""
    stranger: ssl.SSLContext
    """For clients that trust another authority."""
    authority: Path
    """The authority's certificate, PEM."""
    certificate: Path
    """The server's certificate, PEM."""
    key: Path
    """The server's private key, PEM."""


def _authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    nothing_but_signing = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_encipherment"), False
    )
    signing = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
        **nothing_but_signing,
    )
    builder = (
        _certificate(name, name, key, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(signing, True)
    )
    return builder.sign(key, hashes.SHA256()), key


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(signer, False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A throw-away authority, and contexts for both ends of connections to ``localhost``."""
    authority, authority_key = _authority("armillary tests")
    other, _ = _authority("somebody else")
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        _certificate("localhost", "armillary tests", key, authority_key)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .sign(authority_key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    files = [directory / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in zip(files, (_pem(authority), _pem(certificate), private), strict=True):
        file.write_bytes(content)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files[1], files[2])
    client = ssl.create_default_context(cadata=_pem(authority).decode("ascii"))
    stranger = ssl.create_default_context(cadata=_pem(other).decode("ascii"))
    return Tls(server, client, stranger, *files)
