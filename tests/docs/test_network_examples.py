"""The programs of the lab network's documentation run, and print what its pages say that they print."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples" / "network"
# Far more than any example takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0

# The page that shows what each example prints, and the first line there.
PRINTS = {
    "comes_back.py": ("howto/network_reconnecting.md", "counted to 1"),
    "hearing_of_it.py": ("howto/network_notifications.md", "it has 20 C"),
    "locks.py": ("howto/network_locks.md", "Bob cannot link: 'Monochromator' service is locked"),
    "over_tls.py": ("howto/network_tls.md", "the certificate is not trusted"),
    "points_and_progress.py": ("howto/network_streaming_and_progress.md", "0.00 at 0.0"),
    "serial_instrument.py": ("howto/network_serial_instrument.md", "DOSE 0.0 done for Alice"),
    "users_and_roles.py": ("howto/network_users_and_roles.md", "pierre is linked; fired"),
    "when_it_dies.py": (
        "explanation/network_when_something_dies.md",
        "ConnectionAbortedError - did the service hear of it? perhaps",
    ),
}
# Those that are run by tests of their own.
OTHERS = {"balance.py", "weighing.py", "plain_lab.py", "plain_service.py", "test_my_balance.py"}
# Lines that may come in any order.
SIDE_BY_SIDE = {"serial_instrument.py": 3}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No example touches the files of whoever runs the tests."""
    path = tmp_path / "home"
    monkeypatch.setenv("MSL_NETWORK_HOME", str(path))
    return path


def shown(page: str, first_line: str) -> list[str]:
    """The lines of the block of text on a page that begins with that line."""
    blocks = re.findall(r"^```text\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if block.startswith(first_line + "\n")]
    return str(found).splitlines()


async def run(*arguments: str) -> str:
    """Run Python to its end, and return what it printed."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process([sys.executable, *arguments], capture_stdout=True, cwd=ROOT)
    return done.stdout.decode("utf-8")


class Lines:
    """The lines that come from a stream, one by one."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._received = b""

    async def next(self) -> str | None:
        """The next line; None if there will be no more."""
        while b"\n" not in self._received:
            more = await self._stream.receive_some()
            if not more:
                return None
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        return line.decode("utf-8").rstrip("\r")


class Running:
    """A program that runs."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self._lines = Lines(process.stdout)

    async def wait_for(self, pattern: str) -> str:
        """The text in the first group of the pattern, in the first line that it prints in which it is."""
        while (line := await self._lines.next()) is not None:
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"the program has ended, and did not print {pattern!r}")


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    """Run Python for a block."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, [sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT, check=False
        )
        process: trio.Process = await nursery.start(start)
        with trio.fail_after(PATIENCE):
            try:
                yield Running(process)
                process.terminate()
                await process.wait()
            finally:
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def tutorial() -> AsyncIterator[str]:
    """The manager and the balance of the tutorial, for a block; yields the manager's port."""
    async with running("-m", "armillary", "network", "start", "--port", "0") as manager:
        port = await manager.wait_for(r"Network Manager running on \S+:(\d+) \(TLS ENABLED\)")
        async with running(str(EXAMPLES / "balance.py"), port) as balance:
            await balance.wait_for(r"(on the network as Balance\[)")
            yield port


def test_every_example_is_run() -> None:
    """No example is left out here."""
    assert {file.name for file in EXAMPLES.glob("*.py")} == {*PRINTS, *OTHERS}


@pytest.mark.parametrize("example", PRINTS)
async def test_prints(example: str) -> None:
    """An example ends by itself, and prints what its page shows."""
    printed = (await run("-X", "dev", "-W", "error", str(EXAMPLES / example))).splitlines()
    first = SIDE_BY_SIDE.get(example, 0)
    assert sorted(printed[:first]) + printed[first:] == shown(*PRINTS[example])


async def test_tutorial() -> None:
    """The tutorial's client and its commands print what the tutorial shows."""
    call, value, ls, *_ = shown(
        "tutorials/lab_network.md", "$ armillary network call Balance weigh readings=2"
    )
    async with tutorial() as port:
        printed = await run(str(EXAMPLES / "weighing.py"), port)
        assert printed.splitlines() == shown("tutorials/lab_network.md", "services: Balance")
        assert await run("-m", "armillary", *call.split()[2:], "--port", port) == value + "\n"
        table = await run("-m", "armillary", *ls.split()[2:], "--port", port)
    assert re.search(r"^Balance +\S+ +0 +\d+ +0\b", table, re.MULTILINE)


async def test_interrupted() -> None:
    """Ctrl-C ends a manager and a service in one program without a traceback."""
    async with running(str(EXAMPLES / "plain_lab.py"), "0") as lab:
        await lab.wait_for(r"(listening on port)")
        lab.process.send_signal(signal.SIGINT)
        await lab.wait_for("^(stopped)$")
        assert await lab.process.wait() == 0


async def test_start_says_what_the_tutorial_shows(home: Path) -> None:
    """A manager's first lines are those of the tutorial, but for times, names and places."""
    expected = shown("tutorials/lab_network.md", "$ armillary network start")[1:]
    async with running("-m", "armillary", "network", "start", "--port", "0") as manager:
        lines = [await manager.wait_for(r"^\S+ \S+ (\[INFO \] .*)") for _ in expected]
    assert [_without_places(line, home) for line in lines] == [
        _without_places(line.removeprefix("... "), Path("/home/marie/.msl/network")) for line in expected
    ]


def _without_places(line: str, home: Path) -> str:
    return re.sub(r"on \S+:\d+ ", "on HOST:PORT ", line.replace(str(home), "HOME"))


async def test_by_hand() -> None:
    """Whoever types the lines of the page on plain peers gets the answers of that page."""
    transcript = shown("howto/network_plain_peers.md", "$ nc 127.0.0.1 1875")[1:]
    async with running(str(EXAMPLES / "plain_lab.py"), "0") as lab:
        port = await lab.wait_for(r"listening on port (\d+)")
        async with running(str(EXAMPLES / "plain_service.py"), port):
            await _wait_for_thermometer(int(port))
            async with await trio.open_tcp_stream("127.0.0.1", int(port)) as stream:
                await _talk(stream, transcript)


async def _wait_for_thermometer(port: int) -> None:
    """Wait until the service that has no way of saying so is there."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        lines = Lines(stream)
        await lines.next()
        await stream.send_all(b"client\nidentity\n")
        while "Thermometer" not in (await lines.next() or ""):
            await trio.sleep(0.05)
            await stream.send_all(b"identity\n")


async def _talk(stream: trio.SocketStream, transcript: list[str]) -> None:
    lines = Lines(stream)
    answers = 0
    for expected in transcript:
        if not expected.startswith("{"):
            await stream.send_all(expected.encode("utf-8") + b"\n")
            continue
        got = await lines.next()
        assert got is not None
        assert re.fullmatch(_pattern(expected), got), got
        answers += 1
    assert answers > 8
    assert await lines.next() is None


def _pattern(line: str) -> str:
    """A line in which ``...`` stands for anything, and addresses for any address."""
    pattern = re.escape(line).replace(re.escape("..."), ".*")
    return re.sub(r"lab7:\d+", r"[^\\]\\[]+:\\d+", pattern)


async def test_my_balance() -> None:
    """The tests in the documentation pass."""
    file = str(EXAMPLES / "test_my_balance.py")
    assert "3 passed" in await run("-m", "pytest", "-q", "-p", "no:cacheprovider", file)


def test_certificate_commands(home: Path) -> None:
    """The commands on the page about TLS say what it shows."""
    lines = shown("howto/network_tls.md", "$ armillary network keygen")
    printed = [_command(line) for line in lines if line.startswith("$")]
    expected = [line.replace("/home/marie/.msl/network", str(home)) for line in lines if line[0] != "$"]
    assert printed == expected


def test_user_commands() -> None:
    """The commands on the page about users work, with passwords from a file."""
    lines = shown("howto/network_users_and_roles.md", "$ armillary network user add marie --admin")
    commands = [line for line in lines if line.startswith("$")]
    assert len(commands) == 4
    password = Path(os.environ["MSL_NETWORK_HOME"]) / "password"
    password.parent.mkdir()
    password.write_text("polonium\n", "utf-8")
    for command in commands:
        printed = _command(command + (f" --password {password}" if " user add " in command else ""))
        if " user list" in command:
            assert re.search(r"^marie +True", printed, re.MULTILINE)
            assert re.search(r"^irene +False +observer", printed, re.MULTILINE)


def _command(line: str) -> str:
    """What a command prints that a page shows."""
    arguments = line.removeprefix("$ armillary ").split()
    command = [sys.executable, "-m", "armillary", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.strip()


async def test_readme_network(tmp_path: Path) -> None:
    """The lab network's example in README.md runs as it is, and gets its answer."""
    *_, program = _programs(ROOT / "README.md")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    file = tmp_path / "readme.py"
    assert "1875" in program
    file.write_text(program.replace("1875", str(port)), "utf-8")
    assert await run(str(file)) == "1.25\n"


def _programs(page: Path) -> Iterator[str]:
    yield from re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
