"""The ``katcpcmd`` command, run as its users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from armillary import katcp

HOST = "127.0.0.1"
# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 20.0

COMMAND = str(Path(sys.executable).with_name("katcpcmd"))
ENVIRONMENT = {**os.environ, "PYTHONUTF8": "1"}


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def katcpcmd(*arguments: str | bytes) -> Finished:
    """Run the command to its end."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [COMMAND, *arguments], capture_stdout=True, capture_stderr=True, check=False, env=ENVIRONMENT
        )
    return Finished(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


class Rig(katcp.Device):
    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()

    def request_echo(self, ctx: katcp.RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Say it again."""
        return arguments

    def request_announce(self, ctx: katcp.RequestContext) -> int:
        """Say something to this client and something to all, in turns."""
        ctx.inform("first")
        self.mass_inform("news", b"raw \xff byte")
        ctx.inform("second")
        return 2

    async def request_wait(self, ctx: katcp.RequestContext) -> None:
        """Never reply."""
        ctx.inform("waiting")
        self.asked.set()
        await trio.sleep_forever()


@asynccontextmanager
async def served(device: katcp.Device, host: str = HOST) -> AsyncIterator[int]:
    """A device, for the length of a block, and its port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(katcp.serve_device, device, 0, host=host))
        yield katcp.bound_ports(listeners)[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(answer: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncIterator[str]:
    """A server that treats each connection as `answer` does, for the length of a block, and its address."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host=HOST))
        yield f"{HOST}:{katcp.bound_ports(listeners)[0]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def address(rig: Rig) -> AsyncIterator[str]:
    async with served(rig) as port:
        yield f"{HOST}:{port}"


async def test_a_reply_that_is_ok(address: str) -> None:
    """It is printed as it came, and the status is 0; nothing else is printed."""
    assert await katcpcmd(address, "watchdog") == Finished(0, "!watchdog[1] ok\n", "")


async def test_informs_come_first(address: str) -> None:
    """Those of the request and those to everybody, as they came; bytes that are no UTF-8 are escaped."""
    finished = await katcpcmd(address, "announce")
    assert (
        finished.out
        == "#announce[1] first\n#news raw\\_\\xff\\_byte\n#announce[1] second\n!announce[1] ok 2\n"
    )
    assert finished.status == 0


async def test_arguments(address: str) -> None:
    """They are sent as they are, one by one: blanks, negative numbers, nothing, and bytes of any kind."""
    finished = await katcpcmd(address, "echo", "two words", "-5", "", "é", b"\xff", "a\\b")
    assert finished == Finished(0, "!echo[1] ok two\\_words -5 \\@ é \\xff a\\\\b\n", "")
    dashes = await katcpcmd(address, "echo", "--", "--help")
    assert dashes.out == "!echo[1] ok --help\n"


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (["nonsense"], "!nonsense[1] invalid unknown\\_request\\_nonsense\n"),
        (["sensor-value", "x"], "!sensor-value[1] fail Unknown\\_sensor\\_'x'\n"),
    ],
)
async def test_a_reply_that_is_not_ok(address: str, arguments: list[str], reply: str) -> None:
    """It is printed, too, and the status is 2."""
    assert await katcpcmd(address, *arguments) == Finished(2, reply, "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["127.0.0.1", "help"], "missing port number in '127.0.0.1'"),
        ([":80", "help"], "missing host in ':80'"),
        (["localhost:x", "help"], "expected a port number from 0 to 65535, got 'x'"),
        (["localhost:65536", "help"], "expected a port number from 0 to 65535, got '65536'"),
        (["a..b:80", "help"], "expected a host name, got 'a..b'"),
        (["localhost:80"], "the following arguments are required: command"),
        ([], "the following arguments are required: endpoint, command"),
        (["localhost:80", "no name"], "expected a name of letters, digits and dashes, got 'no name'"),
        (["localhost:80", "help", "--connect-timeout", "x"], "expected a number of seconds, got 'x'"),
        (["localhost:80", "help", "--request-timeout", "-1"], "expected a number of seconds, got '-1'"),
        (["localhost:80", "help", "--request-timeout", "nan"], "expected a number of seconds, got 'nan'"),
        (["localhost:80", "help", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
async def test_arguments_that_make_no_sense(arguments: list[str], error: str) -> None:
    """Nothing is connected to: the usage and the error go to standard error, and the status is 2."""
    finished = await katcpcmd(*arguments)
    assert (finished.status, finished.out) == (2, "")
    assert finished.err.startswith("usage: katcpcmd host:port command [args...]\nkatcpcmd: error: ")
    assert error in finished.err


async def test_help() -> None:
    """It goes to standard output, tells the options, and the status is 0."""
    finished = await katcpcmd("--help")
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.startswith("usage: katcpcmd host:port command [args...]\n")
    assert "--connect-timeout TIME" in finished.out
    assert "--request-timeout TIME" in finished.out


async def test_nobody_listens() -> None:
    """The error says where and why, on standard error, and the status is 1."""
    async with scripted(trio.aclose_forcefully) as where:
        pass
    finished = await katcpcmd(where, "help")
    assert (finished.status, finished.out) == (1, "")
    assert finished.err.startswith("ERROR:root:Connection error: ")
    assert where in finished.err
    assert "refused" in finished.err


async def test_a_server_that_says_nothing() -> None:
    """It is given up when the time for connecting is over, with status 1."""

    async def answer(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with scripted(answer) as where:
        finished = await katcpcmd("--connect-timeout", "0.1", where, "help")
    assert (finished.status, finished.out) == (1, "")
    assert (
        finished.err
        == f"ERROR:root:Connection error: could not connect to {where}: no #version-connect in 0.1 s\n"
    )


async def test_a_server_that_is_no_server() -> None:
    """Another version of the protocol is refused, with status 1."""
    async with scripted(lambda stream: stream.send_all(b"#version-connect katcp-protocol 4.0\n")) as where:
        finished = await katcpcmd(where, "help")
    assert finished == Finished(1, "", "ERROR:root:Connection error: Unknown protocol version 4.0\n")


async def test_a_server_without_message_ids() -> None:
    """It is asked without one."""
    asked = []

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"#version-connect katcp-protocol 5.0-M\n")
        asked.append(await stream.receive_some())
        await stream.send_all(b"#x y\n!x ok\n")

    async with scripted(answer) as where:
        assert await katcpcmd(where, "x") == Finished(0, "#x y\n!x ok\n", "")
    assert asked == [b"?x\n"]


async def test_a_connection_that_ends() -> None:
    """What came before its end is printed, and the status is 1: there is one attempt."""
    connections = 0

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.send_all(b"#version-connect katcp-protocol 5.0-MI\n")
        await stream.receive_some()
        await stream.send_all(b"#help[1] half\n#disconnect tired\n")

    async with scripted(answer) as where:
        finished = await katcpcmd(where, "help")
    assert (finished.status, finished.out) == (1, "#help[1] half\n#disconnect tired\n")
    assert finished.err.startswith("ERROR:root:Connection error: lost ")
    assert connections == 1


async def test_a_reply_that_does_not_come_in_time(address: str) -> None:
    """The informs that came are printed, the error says what was waited for, and the status is 1."""
    finished = await katcpcmd(address, "wait", "--request-timeout", "0.1")
    assert (finished.status, finished.out) == (1, "#wait[1] waiting\n")
    assert finished.err == f"ERROR:root:Request timed out: {address} did not reply to ?wait within 0.1 s\n"


@pytest.mark.parametrize("name", ["::1", "[::1]"])
async def test_ipv6(rig: Rig, name: str) -> None:
    """The port stands after the last colon; brackets around the address are fine."""
    async with served(rig, "::1") as port:
        assert await katcpcmd(f"{name}:{port}", "watchdog") == Finished(0, "!watchdog[1] ok\n", "")


@asynccontextmanager
async def running(*arguments: str, **options: Any) -> AsyncIterator[trio.Process]:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                [COMMAND, *arguments],
                stderr=subprocess.PIPE,
                check=False,
                env=ENVIRONMENT,
                **options,
            )
            process: trio.Process = await nursery.start(start)
            yield process
            nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([bytes(part) async for part in stream])


async def test_an_interrupt(rig: Rig, address: str) -> None:
    """Ctrl-C ends it with status 1, and no traceback."""
    async with running(address, "wait", stdout=subprocess.DEVNULL) as process:
        await rig.asked.wait()
        process.send_signal(signal.SIGINT)
        assert await read_all(process.stderr) == b""
        assert await process.wait() == 1


async def test_a_reader_that_goes(address: str) -> None:
    """When nobody reads its output any more it ends with status 1, and no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with running(address, "help", stdout=writing) as process:
            assert await read_all(process.stderr) == b""
            assert await process.wait() == 1
    finally:
        os.close(writing)
