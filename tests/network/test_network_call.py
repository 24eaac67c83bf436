"""``armillary network call``, and what all commands have in common that connect to a manager."""

from __future__ import annotations

import json
import math
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from command_lab import HOST, CommandLab, command_lab

from armillary.cli import main
from armillary.network import Authenticate, open_client, open_store
from armillary.network.cli.values import call_arguments, json_text, note_text
from armillary.network.locations import Home
from armillary.network.tls.certificates import fingerprint, load_certificate
from armillary.network.tls.contexts import manager_context
from armillary.network.tls.own import manager_certificate
from armillary.testing import DemoService
from commands import armillary, in_terminal


class Bench(DemoService):
    """Answers with what JSON does not have, and tells whether it was cancelled."""

    def __init__(self) -> None:
        super().__init__(name="Bench")
        self.cancelled = trio.Event()
        self.started = trio.Event()

    def values(self) -> list[float]:
        return [math.nan, -math.inf, 1.5]

    def data(self) -> bytes:
        return b"\x00\xff"

    def text(self) -> str:
        return "höhe"

    async def hang(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Where the commands look for certificates, by the environment."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


async def call(lab: CommandLab, *words: str) -> Any:
    """Call something, and return what it printed, which must be JSON, from a call that succeeded."""
    done = await armillary("network", "call", *lab.where, *words)
    assert (done.status, done.err) == (0, "")
    return json.loads(done.out)


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "args", "kwargs"),
    [
        ([], [], {}),
        (["5", "-5", "1e3", "true", "null"], [5, -5, 1000.0, True, None], {}),
        (["five", "'5'", "1.2.3", "", "[1,"], ["five", "'5'", "1.2.3", "", "[1,"], {}),
        (['"5"', '["a=b", {"c": 1}]'], ["5", ["a=b", {"c": 1}]], {}),
        (["a=5", "b=five", "c=", 'd="5"', "ü=[]"], [], {"a": 5, "b": "five", "c": "", "d": "5", "ü": []}),
        (["a=b=c"], [], {"a": "b=c"}),
        (['"a=b"', "=b", "a b=c", "1a=2"], ["a=b", "=b", "a b=c", "1a=2"], {}),
        (["[" * 100_000], ["[" * 100_000], {}),
    ],
)
def test_arguments_are_json_or_strings(typed: list[str], args: list[Any], kwargs: dict[str, Any]) -> None:
    """What can be read as JSON is that, all else is a string, and ``name=value`` is a keyword argument."""
    assert call_arguments(typed) == (args, kwargs)


def test_a_keyword_argument_is_given_once() -> None:
    """Nobody has to guess which of two is meant."""
    with pytest.raises(ValueError, match="'a' once"):
        call_arguments(["a=1", "b=1", "a=2"])
    done = CliRunner().invoke(main, ["network", "call", "DMM", "read", "a=1", "a=2"])
    assert (done.exit_code, "'a' once" in done.stderr) == (2, True)


def test_values_are_printed_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is JSON whatever is in it, in one line, and nothing of it moves a terminal's cursor."""

    class Utf8:
        encoding = "UTF-8"

    monkeypatch.setattr(sys, "stdout", Utf8())
    assert json_text({"é": [1, None]}) == '{"é": [1, null]}'
    value = ["\x1b[2J\x9b2J\n", "\ud800", "\u2028"]
    text = json_text(value)
    assert text.isprintable()
    assert json.loads(text) == value
    assert json_text([math.nan, {"a": (math.inf, -math.inf)}]) == '["nan", {"a": ["inf", "-inf"]}]'
    Utf8.encoding = "latin-1"
    assert json_text("é") == '"\\u00e9"'


def test_a_notification_is_printed_as_a_call_is_typed() -> None:
    """So what was printed can be typed."""
    assert call_arguments(['"x=1"', "[1]", 'b="c"']) == (["x=1", [1]], {"b": "c"})
    assert note_text(["x=1", [1]], {"b": "c"}) == '"x=1" [1] b="c"'


# -- calls ---------------------------------------------------------------------------------------------------


async def test_calls() -> None:
    """Arguments arrive, and results are printed: of methods, of properties, and of the manager."""
    async with command_lab(Bench()) as lab:
        assert await call(lab, "Bench", "echo", "-5", "a b", "é=-1e3", "--", "--lock") == [
            [-5, "a b", "--lock"],
            {"é": -1000.0},
        ]
        assert await call(lab, "Bench", "voltage") == 1.25
        assert await call(lab, "Bench", "unit", "--lock", "--timeout", "10") == "V"
        assert await call(lab, "Bench", "values") == ["nan", "-inf", 1.5]
        assert await call(lab, "Bench", "data") == "AP8="
        identity = await call(lab, "Manager", "identity")
        assert list(identity["services"]) == ["Bench"]
        done = await armillary("network", "call", *lab.where, "Bench", "text", "--raw")
        assert (done.status, done.out) == (0, "höhe\n")
        done = await armillary("network", "call", *lab.where, "Bench", "voltage", "--raw")
        assert (done.status, done.out) == (0, "1.25\n")


async def test_what_a_service_raises() -> None:
    """The class and the text go to standard error, the traceback only for who wants it; the status is 1."""
    async with command_lab(Bench()) as lab:
        command = ("network", "call", *lab.where, "Bench", "fail", "no\x1b[2J good")
        done = await armillary(*command)
        assert (done.status, done.out, done.err) == (1, "", "RuntimeError: no\\x1b[2J good\n")
        done = await armillary(*command, "--traceback")
        lines = done.err.splitlines()
        assert (done.status, lines[0], lines[-1]) == (
            1,
            "Traceback (most recent call last):",
            "RuntimeError: no\\x1b[2J good",
        )
        assert lines.count(lines[-1]) == 1
        assert any("in fail" in line for line in lines)
        done = await armillary("network", "call", *lab.where, "PSU", "read")
        assert done.status == 1
        assert "the 'PSU' service does not exist" in done.err


async def test_a_lock_is_held_alone() -> None:
    """With --lock a call is refused while others are linked, and others are kept out while it runs."""
    bench = Bench()
    async with command_lab(bench) as lab:
        async with open_client(HOST, lab.port, trust=None) as client:
            async with client.link("Bench"):
                done = await armillary("network", "call", *lab.where, "Bench", "unit", "--lock")
                assert done.status == 1
                assert done.err.startswith("PermissionError: ")
                assert "exclusive lock" in done.err
            async with trio.open_nursery() as nursery:
                nursery.start_soon(armillary, "network", "call", *lab.where, "Bench", "hang", "--lock")
                await bench.started.wait()
                done = await armillary("network", "call", *lab.where, "Bench", "unit")
                assert (done.status, "is locked" in done.err) == (1, True)
                nursery.cancel_scope.cancel()


async def test_a_call_that_takes_too_long() -> None:
    """After --timeout seconds the command ends with an error, and the service is told to stop."""
    bench = Bench()
    async with command_lab(bench) as lab:
        done = await armillary("network", "call", *lab.where, "Bench", "hang", "--timeout", "0.2")
        assert (done.status, done.err) == (1, "Error: Bench.hang did not answer within 0.2 s\n")
        with trio.fail_after(10):
            await bench.cancelled.wait()


async def test_ctrl_c_cancels_the_call() -> None:
    """The command ends at once and without a word, and the service is told to stop."""
    bench = Bench()
    async with command_lab(bench) as lab:
        async with in_terminal("network", "call", *lab.where, "Bench", "hang") as (command, terminal):
            await bench.started.wait()
            await terminal.send_all(b"\x03")
            assert await command.wait_end() == 130
        assert command.text.strip() in ("", "^C")
        with trio.fail_after(10):
            await bench.cancelled.wait()


# -- connecting ----------------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    """What a command says that makes no sense."""
    done = CliRunner().invoke(main, ["network", "call", *arguments, "DMM", "read"])
    assert done.exit_code == 2, done.output
    return done.stderr


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    """They are refused before anything is connected to."""
    (tmp_path / "empty").touch()
    right = "ab" * 32
    assert "--no-tls goes with no option" in refused("--no-tls", "--fingerprint", right)
    assert "--no-tls goes with no option" in refused("--disable-tls", "--ignore-hostname")
    assert "got both" in refused("--certfile", "x.crt", "--fingerprint", right)
    for wrong in ("", "ab", right + "ab", "zz" * 32):
        assert "64 hexadecimal digits" in refused("--fingerprint", wrong)
    assert "does not exist" in refused("--password-file", str(tmp_path / "none"))
    assert "which is empty" in refused("--manager-password-file", str(tmp_path / "empty"))
    assert "positive number of seconds" in refused("--connect-timeout", "nan")


async def test_nobody_there() -> None:
    """A manager that is not there, or does not speak TLS, is an error that says so."""
    async with command_lab() as lab:
        where = ("--host", HOST, "--port", str(lab.port))
        done = await armillary("network", "call", *where, "DMM", "read")
        assert done.status == 1
        assert "does not speak TLS" in done.err
        assert "--no-tls" in done.err
    done = await armillary("network", "call", *lab.where, "DMM", "read")
    assert done.status == 1
    assert done.err.startswith(f"Error: could not connect to {HOST}:{lab.port}")


@asynccontextmanager
async def tls_lab(place: Path) -> AsyncIterator[tuple[tuple[str, ...], str, Path]]:
    """A lab over TLS: the options of a command, the fingerprint, and the certificate's file."""
    own = manager_certificate(Home(place), host=HOST)
    async with command_lab(ssl_context=manager_context(own.certificate, own.key)) as lab:
        where = ("--host", HOST, "--port", str(lab.port))
        yield where, fingerprint(load_certificate(own.certificate)), own.certificate


QUESTION = ("Manager", "identity")


async def test_a_certificate_that_nobody_knows(tmp_path: Path, home: Home) -> None:
    """Where nobody can be asked it is not trusted; the error has the fingerprint, and says what to do."""
    async with tls_lab(tmp_path) as (where, digest, certificate):
        done = await armillary("network", "call", *where, *QUESTION)
        assert done.status == 1
        for text in (digest, "is not trusted", "--fingerprint"):
            assert text.lower() in done.err.lower()
        assert not home.certificates.exists()
        done = await armillary("network", "call", *where, "--certfile", str(certificate), *QUESTION)
        assert (done.status, done.err) == (0, "")
        assert not home.certificates.exists()


async def test_a_certificate_is_pinned_by_its_fingerprint(tmp_path: Path, home: Home) -> None:
    """The right one is stored and trusted from then on; a wrong one is refused, stored or not."""
    wrong = "ab" * 32
    async with tls_lab(tmp_path) as (where, digest, _):
        done = await armillary("network", "call", *where, "--fingerprint", wrong, *QUESTION)
        assert (done.status, "is not trusted" in done.err) == (1, True)
        typed = digest.replace(":", "").upper()
        done = await armillary("network", "call", *where, "--fingerprint", typed, *QUESTION)
        assert (done.status, done.err) == (0, "")
        assert home.certificate(HOST).exists()
        done = await armillary("network", "call", *where, *QUESTION)
        assert (done.status, done.err) == (0, "")
        done = await armillary("network", "call", *where, "--fingerprint", wrong, *QUESTION)
        assert (done.status, digest.lower() in done.err) == (1, True)


async def test_somebody_is_asked_about_a_certificate(tmp_path: Path, home: Home) -> None:
    """At a terminal the fingerprint is shown; only a yes stores the certificate, and is asked for once."""
    async with tls_lab(tmp_path) as (where, digest, _):
        for answer, status in ((b"\n", 1), (b"y\n", 0)):
            async with in_terminal("network", "call", *where, *QUESTION) as (command, terminal):
                await command.wait_for(r"Trust it from now on\? \[y/N\] ")
                assert digest.lower() in command.text
                assert not home.certificates.exists()
                await terminal.send_all(answer)
                assert await command.wait_end() == status
        async with in_terminal("network", "call", *where, *QUESTION) as (command, _):
            assert await command.wait_end() == 0
        assert "Trust" not in command.text


@asynccontextmanager
async def login_lab() -> AsyncIterator[CommandLab]:
    with open_store(":memory:", iterations=1000, trusted=lambda: ["trusted"]) as store:
        store.users.add("marie", "polonium", is_admin=True)
        async with command_lab(store=store, authenticate=Authenticate(login=True)) as lab:
            yield lab


def prompted(lab: CommandLab, *options: str) -> tuple[str, ...]:
    return ("network", "call", *lab.where, *options, "Manager", "users_table.usernames")


async def test_secrets_come_from_files(tmp_path: Path) -> None:
    """Users, passwords and the manager's password need no terminal, and no secret stands in a command."""
    secret = tmp_path / "secret"
    secret.write_text("polonium\n")
    async with login_lab() as lab:
        done = await armillary(*prompted(lab, "--username", "marie", "--password-file", str(secret)))
        assert (done.status, done.out) == (0, '["marie"]\n')
        done = await armillary(*prompted(lab, "--username", "pierre", "--password-file", str(secret)))
        assert (done.status, "Unregistered user" in done.err) == (1, True)
        done = await armillary(*prompted(lab))
        assert done.status == 1
        assert "standard input is no terminal" in done.err
        assert "--password-file" in done.err
    async with command_lab(authenticate=Authenticate(password="polonium")) as lab:
        done = await armillary(
            "network", "call", *lab.where, "--manager-password-file", str(secret), *QUESTION
        )
        assert done.status == 0


async def test_secrets_are_typed_and_not_shown() -> None:
    """At a terminal the manager's questions are asked, and the password does not appear there."""
    async with login_lab() as lab:
        async with in_terminal(*prompted(lab)) as (command, terminal):
            await command.wait_for("Enter a username for .* > ")
            await terminal.send_all(b"marie\n")
            await command.wait_for("Enter the password for marie > ")
            assert not termios.tcgetattr(terminal.fileno())[3] & termios.ECHO
            await terminal.send_all(b"polonium\n")
            assert await command.wait_end() == 0
        assert '["marie"]' in command.text
        assert "polonium" not in command.text


@pytest.mark.parametrize(("key", "status"), [(b"\x03", 130), (b"\x04", 1)])
async def test_a_question_that_is_not_answered(key: bytes, status: int) -> None:
    """Ctrl-C and Ctrl-D end the command, and the terminal shows again what is typed."""
    async with login_lab() as lab:
        async with in_terminal(*prompted(lab, "--username", "marie")) as (command, terminal):
            await command.wait_for("Enter the password for marie > ")
            await terminal.send_all(key)
            assert await command.wait_end() == status
            assert termios.tcgetattr(terminal.fileno())[3] & termios.ECHO
