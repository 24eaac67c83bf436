"""Managers that are started over SSH, on this computer by a server of the test's."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import paramiko
import pytest
import trio
from ssh_server import PASSWORD, USER, SshServer, ssh_server

from armillary.errors import ConnectFailed
from armillary.network.remote_start import (
    HostKeyRefused,
    ManagerNotStarted,
    StartedManager,
    start_manager,
)
from armillary.network.tls.contexts import device_context
from armillary.testing import RawPeer

START = [sys.executable, "-m", "armillary", "network", "start"]
THEIRS = Path(__file__).resolve().parents[2] / ".peers" / "msl_network" / "bin" / "msl-network"
# Far more than a start takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0
# Says that it runs, and stays.
FAKE = ["sh", "-c", "echo 'Network Manager running on lab-pc:1875 (TLS ENABLED)'; exec sleep 60"]


@pytest.fixture(autouse=True)
def _no_keys_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "theirs"
    path.mkdir()
    return path


@pytest.fixture
def server(home: Path) -> Iterator[SshServer]:
    with ssh_server(home, {"MSL_NETWORK_HOME": str(home / "network")}) as server:
        yield server


async def start(server: SshServer, command: list[str], **how: object) -> StartedManager:
    """Start it as the user whom the server knows, and trust the server's key."""
    connecting = {"port": server.port, "password": PASSWORD, "accept_host_key": server.key.fingerprint}
    run = partial(start_manager, f"{USER}@127.0.0.1", command, **{**connecting, "timeout": PATIENCE, **how})
    return await run()


async def end(pid: int, output: str) -> None:
    """End a manager, and wait until it has."""
    os.kill(pid, signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        while not (Path(output).parent / "status").exists():  # noqa: ASYNC110 - another process makes it
            await trio.sleep(0.01)


@asynccontextmanager
async def running(server: SshServer, command: list[str], **how: object) -> AsyncIterator[StartedManager]:
    """A manager that was started over SSH, for a block."""
    started = await start(server, command, **how)
    try:
        yield started
    finally:
        with trio.CancelScope(shield=True):
            await end(started.pid, started.output)


def contents(path: Path) -> bytes:
    """What is in a file."""
    return path.read_bytes()


def below(directory: Path) -> list[Path]:
    """Everything in a directory."""
    return sorted(directory.rglob("*"))


async def question(stream: trio.abc.Stream) -> str:
    """What the manager asks first."""
    async with stream:
        return str(json.loads(await RawPeer(stream).receive())["attribute"])


async def test_a_manager(server: SshServer, home: Path) -> None:
    """It runs with its options when the call returns, and goes on without the connection."""
    options = {"host": "127.0.0.1", "port": 0, "auth_password": "it's polonium", "log_level": "debug"}
    async with running(server, START, options=options) as started:
        assert (started.host, started.tls) == ("127.0.0.1", True)
        assert f"Network Manager running on 127.0.0.1:{started.port} (TLS ENABLED)" in started.log
        for transport in server.transports:
            await trio.to_thread.run_sync(transport.join)
        context = device_context(home / "network" / "certs" / "127.0.0.1.crt")
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", started.port, ssl_context=context)
        assert await question(stream) == "password"
        words = contents(Path(f"/proc/{started.pid}/cmdline")).split(b"\0")
        assert [os.fsencode(word) for word in START] == words[: len(START)]
        left = {path: contents(path) for path in below(home) if path.is_file()}
        assert Path(started.output) in left
        assert b"polonium" not in b"".join(
            [*left.values(), *words, started.log.encode(), repr(started).encode()]
        )
    assert "polonium" not in "".join(server.commands)
    assert (Path(started.output).parent / "status").read_text() == "0\n"


@pytest.mark.interop
async def test_a_manager_of_the_old_kind(server: SshServer) -> None:
    """A manager of MSL-Network 1.0 is started alike, and says in the same words where it runs."""
    if not THEIRS.exists():
        pytest.fail("there is no msl-network: run `make peers`")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"port": port, "disable_tls": True, "auth_password": "it's polonium"}
    async with running(server, [str(THEIRS), "start"], options=options) as started:
        assert (started.port, started.tls) == (port, False)
        peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", port))
        async with peer.stream:
            assert json.loads(await peer.receive())["attribute"] == "password"
            answer = {"result": "it's polonium", "error": False, "requester": "x", "uid": ""}
            await peer.send(json.dumps(answer).encode() + b"\r\n")
            assert json.loads(await peer.receive())["attribute"] == "identity"
        assert b"polonium" not in contents(Path(started.output))


async def test_a_manager_that_cannot_start(server: SshServer, home: Path) -> None:
    """The error has what it has printed, and nothing is left there."""
    with pytest.raises(ManagerNotStarted, match="has ended with status 1; it has printed:") as caught:
        await start(server, START, options={"auth_login": True, "disable_tls": True})
    assert "The 'auth_users' table is empty, no one could log in" in caught.value.log
    assert caught.value.log.rstrip() in str(caught.value)
    assert [path.name for path in below(home) if path.name.startswith("armillary-manager.")] == []


async def test_a_manager_that_takes_too_long(server: SshServer) -> None:
    """The error says which process to look for, and what it has printed so far."""
    with pytest.raises(
        ManagerNotStarted, match=r"\(process \d+\) has not said in 0.5 s that it runs"
    ) as caught:
        await start(server, ["sh", "-c", "echo loading; exec sleep 60"], timeout=0.5)
    assert caught.value.log == "loading\n"
    pid = re.search(r"process (\d+)", str(caught.value))
    assert pid is not None
    (output,) = server.home.glob("armillary-manager.*/output")
    await end(int(pid[1]), str(output))


async def test_another_kind_of_shell(home: Path) -> None:
    """What is no POSIX shell is told apart from a manager that does not start."""
    with ssh_server(home, {}, shell=["sh", "-c", 'echo "bad command: $1" >&2', "cmd"]) as server:
        with pytest.raises(ManagerNotStarted, match=r"the shell of 127\.0\.0\.1 could not start") as caught:
            await start(server, START)
    assert caught.value.log.startswith("bad command: exec sh")


async def test_a_key_that_is_not_known(server: SshServer, tmp_path: Path) -> None:
    """By default it is refused before anything is said, with what is needed to accept it."""
    with pytest.raises(HostKeyRefused, match=f"of 127.0.0.1:{server.port} is not known") as caught:
        await start(server, FAKE, accept_host_key=False)
    assert caught.value.fingerprint == server.key.fingerprint
    assert caught.value.fingerprint in str(caught.value)
    assert "accept_host_key" in str(caught.value)
    other = paramiko.ECDSAKey.generate()
    with pytest.raises(HostKeyRefused, match="is not the one that is trusted"):
        await start(server, FAKE, accept_host_key=other.fingerprint)
    assert [] == server.logins
    async with running(server, FAKE, accept_host_key=caught.value.fingerprint) as started:
        assert (started.host, started.port, started.tls) == ("lab-pc", 1875, True)


@pytest.mark.parametrize("accept", [False, True])
async def test_a_key_that_is_known(server: SshServer, tmp_path: Path, accept: bool) -> None:
    """A key in the file is trusted, another one is not, whatever is said of keys that are not known."""
    mine = tmp_path / "mine" / ".ssh" / "known_hosts"
    mine.parent.mkdir(parents=True)
    mine.write_text(server.known_as())
    async with running(server, FAKE, accept_host_key=accept):
        pass
    given = tmp_path / "given"
    given.write_text(server.known_as(paramiko.ECDSAKey.generate()))
    with pytest.raises(HostKeyRefused, match="or somebody else answers"):
        await start(server, FAKE, known_hosts=given, accept_host_key=accept)
    assert len(server.logins) == 1


async def test_any_key(server: SshServer) -> None:
    """As long as none is known, any is accepted on request."""
    async with running(server, FAKE, accept_host_key=True):
        assert server.logins == [(USER, PASSWORD)]


async def test_a_wrong_password(server: SshServer) -> None:
    """The error says that it was the login, and does not tell the password."""
    with pytest.raises(ConnectFailed, match=f"could not log in at 127.0.0.1:{server.port}") as caught:
        await start(server, FAKE, username="curie", password="thorium")
    assert "thorium" not in str(caught.value)
    assert server.logins == [("curie", "thorium")]
    assert server.commands == []


async def test_nobody_there() -> None:
    """A computer that does not answer, or answers something else than SSH, is an error in time."""
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent.socket.getsockname()[1]
    async with silent:
        with pytest.raises(ConnectFailed, match=f"could not log in at .*:{port}: no answer in 0.2 s"):
            await start_manager("127.0.0.1", port=port, password="x", timeout=0.2)

        async def answer() -> None:
            async with await silent.accept(), await silent.accept() as stream:
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(ConnectFailed, match=f"could not connect to .*:{port}: "):
                await start_manager("127.0.0.1", port=port, password="x")
    with pytest.raises(ConnectFailed, match=f"could not connect to .*:{port}: "):
        await start_manager("127.0.0.1", port=port, password="x")


async def test_what_cannot_be_is_said_at_once() -> None:
    """Options that make no sense are errors before anybody is connected with."""
    with pytest.raises(ValueError, match="auth_password"):
        await start_manager("203.0.113.1", options={"auth_password": "two\nlines"})


async def test_cancelled_anywhere(
    server: SshServer, home: Path, cancel_everywhere: Callable[..., Awaitable[int]]
) -> None:
    """Wherever it is cancelled, the connection is closed at both ends; the script ends by itself."""

    async def run() -> None:
        await start(server, ["sh", "-c", FAKE[2].replace("60", "0.2")])

    assert await cancel_everywhere(run, settle=5.0) >= 4
    for transport in server.transports:
        await trio.to_thread.run_sync(transport.join)


async def test_cancelled_while_it_waits(server: SshServer) -> None:
    """Cancellation does not wait for a manager that takes its time, and that goes on."""
    begin = trio.current_time()
    with trio.move_on_after(0.5) as scope:
        await start(server, ["sh", "-c", "exec sleep 60"], timeout=PATIENCE)
    assert scope.cancelled_caught
    assert trio.current_time() - begin < PATIENCE / 4
    (transport,) = server.transports
    await trio.to_thread.run_sync(transport.join)
    (pid,) = server.home.glob("armillary-manager.*/pid")
    await end(int(pid.read_text()), str(pid))
