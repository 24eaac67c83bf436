"""``armillary network start``, as a process."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from armillary.network.tls.contexts import device_context
from armillary.testing import RawPeer

COMMAND = [sys.executable, "-m", "armillary", "network", "start"]
# Far more than a start takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0


@asynccontextmanager
async def started(home: Path, *options: str) -> AsyncIterator[tuple[trio.Process, int, list[str]]]:
    """A manager, for a block: its process, its port, and what it has printed."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [*COMMAND, "--port", "0", "--host", "127.0.0.1", *options],
            stdout=subprocess.PIPE,
            env={"MSL_NETWORK_HOME": str(home)},
            check=False,
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        printed = b""
        with trio.fail_after(PATIENCE):
            while not (found := re.search(rb"running on 127\.0\.0\.1:(\d+) \(TLS \w+\)\n", printed)):
                received = await process.stdout.receive_some()
                assert received, printed
                printed += received
            try:
                yield process, int(found[1]), printed.decode().splitlines()
            finally:
                process.terminate()
                await process.wait()


async def is_asked(stream: trio.abc.Stream) -> str:
    """What the manager asks first."""
    question = json.loads(await RawPeer(stream).receive())
    return str(question["attribute"])


async def test_over_tls(tmp_path: Path) -> None:
    """It makes its certificate, says what it loads, and speaks TLS to whoever trusts that certificate."""
    async with started(tmp_path) as (process, port, printed):
        assert [line.partition(" - ")[2].partition(" from ")[0] for line in printed[1:4]] == [
            "loaded the 'connections' table",
            "loaded the 'auth_hostnames' table",
            "loaded the 'auth_users' table",
        ]
        assert "loaded certificate" in printed[0]
        (log,) = (tmp_path / "logs").glob("*.log")
        logged = log.read_text().splitlines()
        assert f"loaded certificate {tmp_path / 'certs' / '127.0.0.1.crt'}" in logged[0]
        assert logged[-1].endswith(f"Network Manager running on 127.0.0.1:{port} (TLS ENABLED)")

        context = device_context(tmp_path / "certs" / "127.0.0.1.crt")
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
        async with stream:
            assert await is_asked(stream) == "identity"
        stranger = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=ssl.create_default_context()
        )
        with pytest.raises(trio.BrokenResourceError):
            await stranger.do_handshake()
        await trio.aclose_forcefully(stranger)

        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_with_a_password_and_without_tls(tmp_path: Path) -> None:
    """A password is asked for, which nobody finds in the log."""
    async with started(tmp_path, "--disable-tls", "--auth-password", "polonium") as (process, port, printed):
        assert printed[-1].endswith("(TLS DISABLED)")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await is_asked(stream) == "password"
        process.terminate()
        assert await process.wait() == 0
    (log,) = (tmp_path / "logs").glob("*.log")
    assert "polonium" not in log.read_text() + "".join(printed)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--auth-login"], 1, "The 'auth_users' table is empty, no one could log in"),
        (["--auth-login", "--auth-hostname"], 2, "Cannot specify multiple authentication methods"),
        (["--port", "70000"], 2, "70000"),
        (["--cert-file", "missing.crt"], 1, "missing.crt"),
        (["--host", "203.0.113.1", "--disable-tls"], 1, "could not listen on 203.0.113.1:1875"),
    ],
)
async def test_what_cannot_be(tmp_path: Path, options: list[str], status: int, text: str) -> None:
    """A manager that cannot start says why, and its status says that it did not."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*COMMAND, *options],
            env={"MSL_NETWORK_HOME": str(tmp_path)},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (done.returncode, text in done.stderr.decode()) == (status, True), done.stderr
