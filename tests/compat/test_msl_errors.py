"""What the façade says when something is wrong: classes and texts that programs look at."""

from __future__ import annotations

import builtins
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msl_lab import PATIENCE, Echo, _bounded, eventually, open_lab  # noqa: F401

from armillary.errors import ArmillaryError
from armillary.network import Authenticate, open_store
from msl.network import connect, constants, cryptography, json

Start = Callable[..., Any]


def start_service(**options: Any) -> None:
    Echo().start(**options)


STARTS = pytest.mark.parametrize("start", [connect, start_service], ids=["client", "service"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the lab network, for this test only."""
    monkeypatch.setattr(constants, "HOME_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@dataclass
class Shown:
    """The certificate that a manager shows."""

    path: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def make_certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shown]:
    """Makes self-signed certificates, by default for this computer."""

    def make(**options: Any) -> Shown:
        directory = tmp_path_factory.mktemp("certificate")
        key = cryptography.generate_key(path=str(directory / "key.pem"), algorithm="ECC")
        path = cryptography.generate_certificate(path=str(directory / "cert.pem"), key_path=key, **options)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path, key)
        return Shown(Path(path), context)

    return make


@pytest.fixture(scope="module")
def shown(make_certificate: Callable[..., Shown]) -> Shown:
    return make_certificate()


@contextmanager
def listener(speak: bytes | None = None) -> Iterator[int]:
    """Somebody who takes connections and says this, or nothing, and hangs up if it is something."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        is_over = threading.Event()
        kept: list[socket.socket] = []

        def run() -> None:
            while not is_over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                if speak is None:
                    kept.append(connection)
                else:
                    with connection:
                        connection.sendall(speak)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            is_over.set()
            thread.join()
            for connection in kept:
                connection.close()


# -- getting there -------------------------------------------------------------------------------------------


@STARTS
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "no.such.host.invalid"])
def test_nobody_listens(start: Start, host: str) -> None:
    """The text ends with where it was tried to connect to."""
    port = free_port()
    with pytest.raises(ConnectionError) as caught:
        start(host=host, port=port, disable_tls=True)
    assert str(caught.value).endswith(f"\nCannot connect to {host}:{port}")


@STARTS
def test_nobody_listens_with_tls(start: Start) -> None:
    """On this computer somebody has to start a manager; elsewhere the address is what helps."""
    port = free_port()
    with pytest.raises(ConnectionError) as caught:
        start(port=port)
    assert str(caught.value).endswith("Make sure a Manager is running on this computer")
    with pytest.raises(ConnectionError) as caught:
        start(host="no.such.host.invalid", port=port)
    assert str(caught.value).endswith(f"Cannot connect to no.such.host.invalid:{port} to get the certificate")


@STARTS
def test_nobody_says_anything(start: Start, shown: Shown) -> None:
    """Neither does somebody who takes the connection count as a manager; TLS may be why."""
    with listener() as port:
        with pytest.raises(ConnectionError) as caught:
            start(port=port, disable_tls=True, timeout=0.3)
        text, hint = str(caught.value).splitlines()
        assert text == f"The connection to localhost:{port} was not established after 0.3 second(s)"
        assert hint.startswith("You have TLS disabled")
        with pytest.raises(TimeoutError, match=rf"^Cannot connect to localhost:{port} within 0.3 seconds$"):
            start(port=port, cert_file=str(shown.path), timeout=0.3)


@STARTS
def test_connection_that_ends_before_anything_was_said(start: Start) -> None:
    """A manager that hangs up is a ConnectionError."""
    with listener(b"\r\n") as port, pytest.raises(ConnectionError, match=rf"localhost:{port} ended before"):
        start(port=port, disable_tls=True)


@STARTS
def test_tls_device_and_plain_manager(start: Start, shown: Shown, home: Path) -> None:
    """The text ends with the remedy, with a certificate that is known and without."""
    with open_lab() as lab:
        for cert_file in (None, str(shown.path)):
            with pytest.raises(ConnectionError) as caught:
                start(port=lab.port, cert_file=cert_file)
            assert str(caught.value).endswith("Try setting disable_tls=True")
        (home / "certs").mkdir(parents=True)
        (home / "certs" / "localhost.crt").write_bytes(shown.path.read_bytes())
        with pytest.raises(ConnectionError) as caught:
            start(port=lab.port)
        assert str(caught.value).endswith("Try setting disable_tls=True")


@STARTS
def test_plain_device_and_tls_manager(start: Start, shown: Shown) -> None:
    """The manager waits for the device to speak, so it is the device that gives up, and says why."""
    with open_lab(ssl_context=shown.context) as lab:
        with pytest.raises(ConnectionError) as caught:
            start(port=lab.port, disable_tls=True, timeout=0.5)
        assert "was not established after 0.5 second(s)\nYou have TLS disabled" in str(caught.value)


# -- certificates --------------------------------------------------------------------------------------------


def tls_lab(shown: Shown, **options: Any) -> Any:
    return open_lab(ssl_context=shown.context, disable_tls=False, **options)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_certificate_is_for_every_name_of_this_computer(shown: Shown, host: str) -> None:
    """With the manager's certificate in a file, all goes over TLS."""
    with tls_lab(shown, cert_file=str(shown.path)) as lab:
        lab.serve(Echo())
        assert lab.connect(host=host).link("Echo").echo(1) == [[1], {}]


def test_certificate_that_is_accepted_at_the_terminal(
    shown: Shown, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody is asked until the answer is yes or no, and the certificate is known from then on."""
    answers = iter(["perhaps", "y"])
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return next(answers)

    monkeypatch.setattr(builtins, "input", answer)
    with tls_lab(shown) as lab:
        lab.connect()
        assert next(answers, None) is None
        shown_text = capsys.readouterr().out
        assert shown_text.startswith("The certificate for localhost is not cached")
        assert cryptography.get_fingerprint(cryptography.load_certificate(str(shown.path))) in shown_text
        assert asked == ["Continue? y/n: "] * 2
        assert (home / "certs" / "localhost.crt").read_bytes() == shown.path.read_bytes()
        lab.connect()
        assert capsys.readouterr().out == ""


def test_certificate_that_is_not_accepted(
    shown: Shown, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a client that is an error; a service's start returns, since whoever has refused it knows."""
    monkeypatch.setattr(builtins, "input", lambda text: "n")
    with tls_lab(shown) as lab:
        with pytest.raises(ConnectionRefusedError, match="SSL certificate required"):
            lab.connect()
        Echo().start(**lab.options)
        assert not (home / "certs").exists()
        lab.connect(auto_save=True)
        assert (home / "certs" / "localhost.crt").exists()


@STARTS
def test_another_certificate_than_the_trusted_one(
    start: Start, shown: Shown, make_certificate: Callable[..., Shown]
) -> None:
    """The text says where, and which file has the old one."""
    old = make_certificate()
    with tls_lab(shown, cert_file=str(old.path)) as lab:
        with pytest.raises(ConnectionError) as caught:
            start(**lab.options)
        for part in ("Perhaps the Network Manager is using a new certificate", lab.address, str(old.path)):
            assert part in str(caught.value)


@STARTS
def test_certificate_for_another_host(start: Start, make_certificate: Callable[..., Shown]) -> None:
    """The text says how to connect all the same; that does not mean that any certificate would do."""
    name = cryptography.x509.Name(
        [cryptography.x509.NameAttribute(cryptography.x509.NameOID.COMMON_NAME, "elsewhere")]
    )
    elsewhere, other = make_certificate(name=name), make_certificate(name=name)
    with tls_lab(elsewhere, cert_file=str(elsewhere.path)) as lab:
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises(ConnectionError, match="set assert_hostname=False"):
                start(**{**lab.options, "host": host})
        lab.serve(Echo(), assert_hostname=False)
        assert lab.connect(assert_hostname=False).link("Echo").echo(1) == [[1], {}]
        with pytest.raises(ConnectionError, match="is using a new certificate"):
            start(**{**lab.options, "assert_hostname": False, "cert_file": str(other.path)})


@STARTS
def test_file_that_is_not_there(start: Start, tmp_path: Path) -> None:
    """A certificate that is to be trusted and is nowhere is a ConnectionError."""
    with pytest.raises(ConnectionError, match="No such file or directory"):
        start(port=free_port(), cert_file=str(tmp_path / "absent.crt"))


# -- getting in ----------------------------------------------------------------------------------------------


@STARTS
def test_wrong_password_of_the_manager(start: Start) -> None:
    """The manager's own words are the text of a ValueError."""
    with open_lab(authenticate=Authenticate(password="radium")) as lab:
        with pytest.raises(ValueError, match=r"^ValueError: Wrong Manager password$"):
            start(**lab.options, password_manager="radon")


@STARTS
def test_wrong_user(start: Start, tmp_path: Path) -> None:
    """So they are for users that are not registered, and for wrong passwords."""
    path = tmp_path / "manager.sqlite3"
    with open_store(path, iterations=1) as store:
        store.users.add("marie", "polonium")
    with open_lab(authenticate=Authenticate(login=True), store_path=path) as lab:
        with pytest.raises(ValueError, match=r"^ValueError: Unregistered user$"):
            start(**lab.options, username="pierre", password="x")
        with pytest.raises(ValueError, match=r"^ValueError: Wrong login password$"):
            start(**lab.options, username="marie", password="x")
        lab.connect(username="marie", password="polonium")


@STARTS
def test_unknown_keyword_argument(start: Start) -> None:
    """It is a TypeError, before anything is done."""
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        start(certfile="x")


def test_wrong_administrator_loses_the_connection(tmp_path: Path) -> None:
    """The request fails with the manager's words, and the connection ends."""
    path = tmp_path / "manager.sqlite3"
    with open_store(path, iterations=1) as store:
        store.users.add("marie", "polonium", is_admin=True)
    with open_lab(store_path=path) as lab:
        client = lab.connect(username="marie", password="x")
        with pytest.raises(RuntimeError, match="Wrong login password"):
            client.admin_request("users_table.usernames", timeout=PATIENCE)
        eventually(lambda: not client.is_connected())


# -- requests ------------------------------------------------------------------------------------------------


def test_argument_that_is_no_json() -> None:
    """The caller gets a TypeError, nothing is sent, and the client goes on."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        for arguments in ((1j,), ({"x": {1, 2}},), (b"bytes",), (object(),)):
            for asynchronous in (True, False):
                with pytest.raises(TypeError, match="not JSON serializable"):
                    link.echo(*arguments, asynchronous=asynchronous)
        assert link.echo(1) == [[1], {}]


@pytest.mark.parametrize("package", [package.name for package in json.Package])
def test_packages_for_json_are_understood_by_everybody(package: str) -> None:
    """Whichever package a program has chosen, it calls a service, and what is no JSON is a TypeError."""
    before = json.backend.enum
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        try:
            json.use(package)
        except ImportError as error:
            pytest.skip(f"{error}")
        try:
            assert link.echo(1, "é\n", x=[None, 2.5, {"y": True}]) == [
                [1, "é\n"],
                {"x": [None, 2.5, {"y": True}]},
            ]
            with pytest.raises(TypeError, match="not JSON serializable"):
                link.echo(1j)
            with pytest.raises(RuntimeError, match="not JSON serializable"):
                link.unserializable(timeout=PATIENCE)
        finally:
            json.use(before)


def test_errors_say_their_kind() -> None:
    """Beyond 1.0, an error has its class's name and text apart, and all of them are armillary's."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        with pytest.raises(RuntimeError) as failed:
            client.link("Echo").fail("bad: very")
        assert isinstance(failed.value, ArmillaryError)
        assert (vars(failed.value)["type_name"], vars(failed.value)["text"]) == ("ValueError", "bad: very")
        assert vars(failed.value)["module"] == "builtins"
        client.disconnect()
        with pytest.raises(ConnectionError) as gone:
            client.identities()
        assert isinstance(gone.value, ArmillaryError)


def test_service_that_does_not_exist() -> None:
    """To link with it is refused, with the client's name."""
    with open_lab() as lab:
        client = lab.connect()
        text = re.escape(f"the 'Nope' service does not exist, cannot link with {client}")
        with pytest.raises(RuntimeError, match=text):
            client.link("Nope")
        assert client._links == []


MORTAL = """
import os, sys, time
from msl.network import Service
class Mortal(Service):
    def wait(self):
        time.sleep(1000)
    def die(self):
        os._exit(1)
Mortal().start(port=int(sys.argv[1]), disable_tls=True)
"""


def test_service_that_dies_with_requests_pending() -> None:
    """Their callers are told, and do not wait for ever."""
    with open_lab() as lab, subprocess.Popen([sys.executable, "-c", MORTAL, str(lab.port)]) as process:
        try:
            link = lab.linked("Mortal", timeout=PATIENCE)
            pending = link.wait(asynchronous=True)
            with pytest.raises(RuntimeError, match="'Mortal' Service disconnected from Manager"):
                link.die(timeout=PATIENCE)
            with pytest.raises(RuntimeError, match="'Mortal' Service disconnected from Manager"):
                pending.result(PATIENCE)
        finally:
            process.kill()


def test_manager_that_stops() -> None:
    """Pending requests fail, and so does the next one, which says that it was not sent."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        link = client.link("Echo")
        pending = link.sleep(1, asynchronous=True)
        lab.stop()
        with pytest.raises(ConnectionAbortedError, match=rf"^Manager\[{lab.address}] closed the connection$"):
            pending.result(PATIENCE)
        assert not client.is_connected()
        for request in (link.echo, client.identities, lambda: client.link("Echo")):
            with pytest.raises(ConnectionError, match=rf"^Disconnected from Manager\[{lab.address}], cannot"):
                request()
        link.unlink()
