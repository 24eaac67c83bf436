"""The programs of the documentation run, and print what its pages say that they print."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from armillary import katcp

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
# Far more than any example takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0

# What each example prints, as a regular expression, or the page that shows it and the first line there.
PRINTS: dict[str, str | tuple[str, str]] = {
    "sampling.py": ("howto/sampling.md", "event"),
    "reconnect.py": ("tutorials/first_client.md", "NEGOTIATING"),
    "aggregate.py": r"mean: -26\.0 degC\nmean: 14\.0 degC and the device: FAIL\n"
    r"mean: 8\.0 degC and the device: OK\n",
    "logs.py": r"info dome logs\.py:\d+: the slit is open\n"
    r"warn dome logs\.py:\d+: the camera answers slowly\n",
    "slow_requests.py": r"100 exposures of 0\.5 s in \d\.\d s\n",
    "tls.py": r"azimuth over TLS: 0\.0 deg\n"
    r"could not connect to 127\.0\.0\.1:\d+: .*CERTIFICATE_VERIFY_FAILED.*\n",
    "host_telemetry.py": r"host\.memory\.percent .*\nhost\.uptime .* NOMINAL\nclock\.state .*\n"
    r"door-open False FAILURE\n",
    "mirror.py": r"north-dome\.azimuth 0\.0 deg NOMINAL\n(.*\n)*north-dome\.humidity 41\.0 NOMINAL\n"
    r"(.*\n)*north-dome\.azimuth 10\.0 UNREACHABLE\n(.*\n)*",
}
# Those that are run by tests of their own.
OTHERS = {"first_device.py", "first_client.py", "restart_and_halt.py", "test_my_device.py"}


def shown(page: str, first_line: str) -> str:
    """The block of text on a page that begins with that line."""
    blocks = re.findall(r"^```text\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if block.startswith(first_line + "\n")]
    return str(found)


async def run(*arguments: str) -> str:
    """Run Python to its end, and return what it printed."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process([sys.executable, *arguments], capture_stdout=True, cwd=ROOT)
    return done.stdout.decode("utf-8")


async def next_line(process: trio.Process) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        received = await process.stdout.receive_some(1)
        assert received, f"the process ended after {line!r}"
        line += received
    return line.decode("utf-8").rstrip("\n")


@asynccontextmanager
async def running(example: str) -> AsyncIterator[tuple[trio.Process, int]]:
    """Run an example that serves a device, for a block; yields the process and the port."""
    command = [sys.executable, str(EXAMPLES / example), "0"]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(start)
        with trio.fail_after(PATIENCE):
            try:
                yield process, int((await next_line(process)).removeprefix("listening on port "))
                process.terminate()
                await process.wait()
            finally:
                nursery.cancel_scope.cancel()


def test_every_example_is_run() -> None:
    """No example is left out here."""
    assert {file.name for file in EXAMPLES.glob("*.py")} == {*PRINTS, *OTHERS}


@pytest.mark.parametrize("example", PRINTS)
async def test_prints(example: str) -> None:
    """An example ends by itself, and prints what it is said to print."""
    printed = await run(str(EXAMPLES / example))
    expected = PRINTS[example]
    if isinstance(expected, str):
        assert re.fullmatch(expected, printed)
    else:
        assert printed == shown(*expected)


async def test_first_client() -> None:
    """The first client prints what its tutorial shows."""
    async with running("first_device.py") as (_, port):
        printed = await run(str(EXAMPLES / "first_client.py"), str(port))
    assert printed == shown("tutorials/first_client.md", "connected to dome-1.0 dome-1.0.0")


async def test_first_device_by_hand() -> None:
    """Whoever types the requests of the tutorial gets the answers of the tutorial."""
    transcript = shown("tutorials/first_device.md", "$ nc 127.0.0.1 7147").splitlines()[1:]
    async with (
        running("first_device.py") as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        received = b""
        for expected in transcript:
            if expected.startswith("?"):
                await stream.send_all(expected.encode() + b"\n")
                continue
            while b"\n" not in received:
                received += await stream.receive_some()
            line, _, received = received.partition(b"\n")
            assert _without_times(line.decode()) == _without_times(expected)


def _without_times(line: str) -> str:
    return re.sub(r"\d{10}\.\d+", "TIME", line)


async def test_first_device_by_command() -> None:
    """The commands of the tutorial print what it shows, but for the azimuth."""
    block = shown("tutorials/first_device.md", "$ armillary katcp sensors 127.0.0.1:7147 --values")
    async with running("first_device.py") as (_, port):
        sensors = await run("-m", "armillary", "katcp", "sensors", f"127.0.0.1:{port}", "--values")
        slew = await run("-m", "armillary", "katcp", "request", f"127.0.0.1:{port}", "slew", "90")
    _, *table, _, reply = block.splitlines()
    assert sensors.replace(" 0.0 ", " 55.0 ").split() == " ".join(table).split()
    assert slew == reply + "\n"


async def test_interrupted_device() -> None:
    """Ctrl-C ends the first device without a traceback."""
    async with running("first_device.py") as (process, _):
        process.send_signal(signal.SIGINT)
        assert await next_line(process) == "stopped"
        assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_restart_and_end(number: signal.Signals) -> None:
    """A restart sets the dome back, and a signal lets a running slew finish before the end."""
    async with running("restart_and_halt.py") as (process, port):
        async with katcp.open_persistent_client("127.0.0.1", port) as client:
            await client.wait_connected()
            await client.request("azimuth-offset", 30.0)
            await client.request("restart")
            while client.connections < 2:
                await client.wait_disconnected()
                await client.wait_connected()
            assert await next_line(process) == "looking for the index mark"
            assert await client.sensor_value("azimuth") == 0.0
            slew = client.start_request("slew", 40.0)
            await client.request("watchdog")
            process.send_signal(number)
            assert (await slew.wait()).arguments == [b"40.0"]
        assert await next_line(process) == "ended"
        assert await process.wait() == 0


async def test_halted_by_client() -> None:
    """?halt ends the program that serves the device."""
    async with running("restart_and_halt.py") as (process, port):
        async with katcp.open_client("127.0.0.1", port) as client:
            await client.request("halt")
        assert await process.wait() == 0


async def test_my_device() -> None:
    """The tests in the documentation pass."""
    file = str(EXAMPLES / "test_my_device.py")
    assert "6 passed" in await run("-m", "pytest", "-q", "-p", "no:cacheprovider", file)


async def test_readme(tmp_path: Path) -> None:
    """The first example in README.md runs as it is, and gets its reply."""
    program, *_ = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    file = tmp_path / "readme.py"
    file.write_text(program.replace("7147", str(port)), "utf-8")
    assert await run(str(file)) == "Reply(arguments=[b'90.0'], informs=[])\n"
