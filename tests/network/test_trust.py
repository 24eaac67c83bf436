from __future__ import annotations

import os
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from armillary._runtime.dial import bound_ports, open_listeners
from armillary._runtime.tls_socket import TlsSocketStream
from armillary.errors import ConnectFailed
from armillary.network.locations import Home
from armillary.network.tls.certificates import fingerprint, generate_certificate, load_certificate
from armillary.network.tls.contexts import DeviceContexts, manager_context
from armillary.network.tls.keys import generate_key, load_key, new_key
from armillary.network.tls.own import manager_certificate
from armillary.network.tls.trust import (
    CertificateChanged,
    CertificateForOthers,
    CertificateOutOfDate,
    CertificateRefused,
    NoTls,
    Offer,
    TrustError,
    accept,
    fetch_certificate,
    open_trusted_stream,
    trusted_file,
)

HOST = "127.0.0.1"


@pytest.fixture
def manager(tmp_path: Path) -> Home:
    """Where a manager has its files."""
    home = Home(tmp_path / "manager")
    manager_certificate(home)
    return home


@pytest.fixture
def device(tmp_path: Path) -> Home:
    """Where a client has its files: none yet."""
    return Home(tmp_path / "device")


@asynccontextmanager
async def echoing(ssl_context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Send back what connections bring, for a block; yields the port."""

    async def echo(stream: trio.abc.Stream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # who does not trust us

    listeners = await open_listeners(0, host=HOST, ssl_context=ssl_context)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, listeners)
        [port] = bound_ports(listeners)
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def managing(home: Home, host: str = "localhost") -> AsyncIterator[int]:
    """Serve with the certificate of a home, for a block."""
    async with echoing(manager_context(home.certificate(host), home.key(host))) as port:
        yield port


async def check(port: int, home: Home, host: str = HOST, **options: Any) -> str:
    """Connect, say hello, and return the version of TLS."""
    options.setdefault("contexts", DeviceContexts())
    async with await open_trusted_stream(host, port, home=home, **options) as stream:
        assert isinstance(stream, TlsSocketStream)
        await stream.send_all(b"hello")
        assert b"hello" == await stream.receive_some()
        return str(stream.version())


class Deciding:
    """Answers, and remembers what it was asked."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.offers: list[Offer] = []

    async def __call__(self, offer: Offer) -> bool:
        await trio.lowlevel.checkpoint()
        self.offers.append(offer)
        return self.answer


# -- the first time ------------------------------------------------------------------------------------------


async def test_the_first_certificate_is_stored_and_asked_about_once(manager: Home, device: Home) -> None:
    """Accepted once, a certificate is in the file of its host, and nobody is asked again."""
    decide = Deciding(True)
    async with managing(manager) as port:
        assert "TLSv1.3" == await check(port, device, decide=decide)
        assert "TLSv1.3" == await check(port, device, decide=decide)
        assert "TLSv1.3" == await check(port, device)
        [offer] = decide.offers
        assert (HOST, port, device.certificate(HOST)) == (offer.host, offer.port, offer.path)
        await check(port, device, "localhost", decide=decide)
    assert ["127.0.0.1", "localhost"] == [each.host for each in decide.offers]
    shown = load_certificate(manager.certificate())
    assert shown == load_certificate(device.certificate(HOST)) == load_certificate(offer.pem.encode())
    assert fingerprint(shown) == offer.fingerprint()
    assert fingerprint(shown, "SHA1") == offer.fingerprint("sha1")
    assert 0o644 == stat.S_IMODE(device.certificate(HOST).stat().st_mode)


async def test_nobody_is_trusted_unless_somebody_says_so(manager: Home, device: Home) -> None:
    """By default the answer is no: the error shows the fingerprint and where the file would be."""
    decide = Deciding(False)
    async with managing(manager) as port:
        for options in ({}, {"decide": decide}):
            with pytest.raises(CertificateRefused) as refused:
                await check(port, device, **options)
            assert fingerprint(load_certificate(manager.certificate())) in str(refused.value)
            assert str(device.certificate(HOST)) in str(refused.value)
            assert device.certificate(HOST) == refused.value.path == refused.value.offer.path
    assert 1 == len(decide.offers)
    assert not device.path.exists()
    assert isinstance(refused.value, TrustError)


async def test_what_deciding_raises_comes_out_as_it_is(manager: Home, device: Home) -> None:
    """An error while somebody is asked is that error, and nothing is stored."""

    async def fail(offer: Offer) -> bool:
        raise KeyError(offer.host)

    async with managing(manager) as port:
        with pytest.raises(KeyError):
            await check(port, device, decide=fail)
    assert not device.path.exists()


async def test_deciding_may_take_longer_than_connecting(
    manager: Home, device: Home, autojump_clock: trio.testing.MockClock
) -> None:
    """The time-out is for the network, not for people who compare fingerprints."""

    async def ponder(offer: Offer) -> bool:
        await trio.sleep(3600)
        return True

    # Only the certificate is fetched over a real network, which virtual time does not wait for.
    autojump_clock.autojump_threshold = 0.2
    async with managing(manager) as port:
        path = await trusted_file(HOST, port, home=device, decide=ponder, timeout=1)
    assert load_certificate(manager.certificate()) == load_certificate(path)
    assert trio.current_time() >= 3600


async def test_two_who_connect_for_the_first_time_at_once(manager: Home, device: Home) -> None:
    """Both are asked, both connect, and there is one file."""
    both_asked = trio.Event()
    offers = []

    async def decide(offer: Offer) -> bool:
        offers.append(offer)
        if len(offers) == 2:
            both_asked.set()
        await both_asked.wait()
        return True

    async with managing(manager) as port, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: check(port, device, decide=decide))
        with trio.fail_after(10):
            await both_asked.wait()
    assert ["127.0.0.1.crt"] == os.listdir(device.certificates)


async def test_who_is_later_must_be_the_one_who_was_accepted(manager: Home, device: Home) -> None:
    """Accepting a certificate while another one is stored for that host does not replace that one."""

    async def overtaken(offer: Offer) -> bool:
        generate_certificate(device.certificate(HOST), new_key())
        return True

    async with managing(manager) as port:
        with pytest.raises(CertificateChanged):
            await check(port, device, decide=overtaken)
    assert load_certificate(manager.certificate()) != load_certificate(device.certificate(HOST))


async def test_a_host_that_would_be_a_file_elsewhere_is_refused(device: Home) -> None:
    """Nothing is connected to, and nothing stored."""
    with pytest.raises(ValueError, match="host"):
        await check(1, device, "../../evil", decide=accept)


async def test_cancelled_anywhere_nothing_is_left(
    manager: Home, device: Home, cancel_everywhere: Callable[..., Awaitable[int]]
) -> None:
    """No connection stays open; the certificate is stored whole or not at all."""
    async with managing(manager) as port:

        async def scenario() -> None:
            await check(port, device, decide=Deciding(True))

        async def after() -> None:
            if device.certificates.exists():
                assert set(os.listdir(device.certificates)) <= {"127.0.0.1.crt"}
            if device.certificate(HOST).exists():
                load_certificate(device.certificate(HOST))
                device.certificate(HOST).unlink()

        assert await cancel_everywhere(scenario, after=after) > 5


# -- every other time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["another key", "the same key"])
async def test_another_certificate_is_an_error_that_names_the_file(
    kind: str, manager: Home, device: Home
) -> None:
    """A manager whose certificate has changed is not trusted, nobody is asked, and the old file stays."""
    decide = Deciding(True)
    async with managing(manager) as port:
        await check(port, device, decide=decide)
    trusted = device.certificate(HOST).read_bytes()
    if kind == "another key":
        generate_key(manager.key(), overwrite=True)
    generate_certificate(manager.certificate(), load_key(manager.key()), overwrite=True)
    async with managing(manager) as port:
        with pytest.raises(CertificateChanged) as changed:
            await check(port, device, decide=decide)
        assert device.certificate(HOST) == changed.value.path
        assert f"127.0.0.1:{port} is not the one in {device.certificate(HOST)}" in str(changed.value)
        assert "delete that file" in str(changed.value)
        assert isinstance(changed.value.__cause__, ssl.SSLCertVerificationError)
        assert trusted == device.certificate(HOST).read_bytes()
        device.certificate(HOST).unlink()
        await check(port, device, decide=decide)
    assert 2 == len(decide.offers)


async def test_a_replaced_file_counts_at_once(manager: Home, device: Home) -> None:
    """The contexts that are kept do not outlive the file they were made from."""
    contexts = DeviceContexts()
    async with managing(manager) as port:
        await check(port, device, decide=accept, contexts=contexts)
        generate_certificate(device.certificate(HOST), new_key(), overwrite=True)
        with pytest.raises(CertificateChanged):
            await check(port, device, contexts=contexts)


async def test_a_certificate_for_others_is_said_to_be_one(manager: Home, device: Home) -> None:
    """The trusted certificate of a host with another name is refused, unless names do not matter."""
    key = load_key(manager.key())
    generate_certificate(manager.certificate(), key, names=["lab7"], overwrite=True)
    async with managing(manager) as port:
        for host in (HOST, "localhost"):
            with pytest.raises(
                CertificateForOthers, match=rf"not for '{host}'.*assert_hostname=False"
            ) as wrong:
                await check(port, device, host, decide=accept)
            assert device.certificate(host) == wrong.value.path
            await check(port, device, host, assert_hostname=False)
        # Pinned it is all the same.
        generate_certificate(device.certificate(HOST), new_key(), overwrite=True)
        with pytest.raises(CertificateChanged):
            await check(port, device, assert_hostname=False)


@pytest.mark.parametrize(("days", "years"), [(-1000, 1.0), (1000, 1.0)])
async def test_a_certificate_out_of_date_is_said_to_be_one(
    days: int, years: float, manager: Home, device: Home
) -> None:
    """Expired and not yet valid certificates have an error of their own."""
    now = datetime.now(UTC) + timedelta(days=days)
    generate_certificate(
        manager.certificate(), load_key(manager.key()), now=now, years_valid=years, overwrite=True
    )
    async with managing(manager) as port:
        with pytest.raises(
            CertificateOutOfDate, match=r"out of date: certificate (has expired|is not yet valid)"
        ):
            await check(port, device, decide=accept)


async def test_a_file_that_is_given_is_the_one_that_counts(
    manager: Home, device: Home, tmp_path: Path
) -> None:
    """With a certificate's file given, nobody is asked and nothing stored; it has to be there."""
    async with managing(manager) as port:
        await check(port, device, certificate=manager.certificate())
        assert not device.path.exists()
        with pytest.raises(FileNotFoundError):
            await check(port, device, certificate=tmp_path / "none.crt", decide=accept)
        (tmp_path / "empty.crt").touch()
        with pytest.raises(ValueError, match=r"no certificate in .*empty\.crt"):
            await check(port, device, certificate=tmp_path / "empty.crt", decide=accept)
        other = generate_certificate(tmp_path / "other.crt", new_key())
        with pytest.raises(CertificateChanged):
            await check(port, device, certificate=other, decide=accept)


async def test_an_authority_can_be_trusted(tls: Any, device: Home) -> None:
    """The file may hold an authority's certificate, which has signed that of the manager."""
    async with echoing(tls.server) as port:
        await check(port, device, certificate=tls.authority)
        await check(port, device, "localhost", certificate=tls.authority)


@pytest.mark.parametrize("algorithm", ["RSA", "ECC"])
async def test_every_kind_of_key_shakes_hands(algorithm: str, device: Home, tmp_path: Path) -> None:
    """Managers with keys of other kinds, encrypted or not, are connected to."""
    home = Home(tmp_path / "other")
    generate_key(home.key(), algorithm=algorithm, curve="P-384", password="a b")
    certificate, key = manager_certificate(home, password="a b")
    async with echoing(manager_context(certificate, key, password="a b")) as port:
        await check(port, device, decide=accept)


async def test_strict_devices_accept_our_certificates(manager: Home) -> None:
    """Verification as newer Pythons do it by default, and clients of MSL-Network 1.0 on them, is passed."""
    context = ssl.create_default_context(cafile=manager.certificate())
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    async with managing(manager) as port:
        stream = trio.SSLStream(
            trio.SocketStream(await _connected(port)),
            context,
            server_hostname="localhost",
            https_compatible=True,
        )
        async with stream:
            await stream.do_handshake()


async def _connected(port: int) -> trio.socket.SocketType:
    socket = trio.socket.socket()
    await socket.connect((HOST, port))
    return socket


# -- others who answer ---------------------------------------------------------------------------------------


async def test_a_manager_without_tls_is_said_to_be_one(manager: Home, device: Home) -> None:
    """Who answers in plain text, as a manager does that speaks first, does not speak TLS."""

    async def speak_first(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.send_all(b'{"attribute": "identity", "uid": ""}\r\n')
            await trio.sleep_forever()

    listeners = await open_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, speak_first, listeners)
        [port] = bound_ports(listeners)
        for options in ({}, {"decide": accept}, {"certificate": manager.certificate()}):
            with pytest.raises(NoTls, match=rf"127\.0\.0\.1:{port} does not speak TLS"):
                await check(port, device, **options)
        nursery.cancel_scope.cancel()
    assert not device.path.exists()


async def test_nobody_at_all(device: Home, manager: Home) -> None:
    """Where nobody listens, connecting fails as it does without TLS, whether there is a file or not."""
    async with echoing(None) as port:
        pass
    for options in ({"decide": accept}, {"certificate": manager.certificate()}):
        with pytest.raises(ConnectFailed, match="refused") as failed:
            await check(port, device, **options)
        assert not isinstance(failed.value, (TrustError, NoTls))


async def test_somebody_who_never_answers(device: Home, autojump_clock: trio.testing.MockClock) -> None:
    """A peer that accepts connections and says nothing is given up after the time-out."""

    async def ignore(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    listeners = await open_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, ignore, listeners)
        with pytest.raises(ConnectFailed, match=r"no answer in 3"):
            await check(*bound_ports(listeners), device, decide=accept, timeout=3)
        nursery.cancel_scope.cancel()


async def test_fetching_shows_any_certificate(manager: Home) -> None:
    """What nobody would trust can be looked at: for others, out of date."""
    generate_certificate(
        manager.certificate(),
        load_key(manager.key()),
        names=["lab7"],
        now=datetime(2000, 1, 1, tzinfo=UTC),
        years_valid=1,
        overwrite=True,
    )
    async with managing(manager) as port:
        pem = await fetch_certificate(HOST, port)
    assert load_certificate(manager.certificate()) == load_certificate(pem.encode())
