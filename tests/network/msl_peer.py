"""MSL-Network 1.0 in its own environment: its commands, its manager, and programs written for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

_ENVIRONMENT = Path(__file__).resolve().parents[2] / ".peers" / "msl_network"
# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 30.0


def _variables(home: Path) -> dict[str, str]:
    # Deprecations of the libraries that it uses are none of ours.
    return {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}


def _program(name: str) -> str:
    path = _ENVIRONMENT / "bin" / name
    if not path.exists():
        pytest.fail(f"there is no {path.relative_to(_ENVIRONMENT.parents[1])}: run `make peers`")
    return str(path)


def run_peer(home: Path, program: str, *arguments: object) -> Any:
    """Run a program for MSL-Network 1.0 to its end. It gets `arguments` as ``given``, and what it puts into
    ``answer`` comes back, both as JSON.
    """
    text = f"import json, sys\ngiven = json.loads(sys.argv[1])\n{program}\nprint(json.dumps(answer))"
    done = subprocess.run(
        [_program("python"), "-c", text, json.dumps(arguments)],
        capture_output=True,
        env=_variables(home),
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode())
        pytest.fail("the program for MSL-Network 1.0 has failed")
    return json.loads(done.stdout.splitlines()[-1])


def run_command(home: Path, *arguments: str) -> str:
    """Run the command of MSL-Network 1.0, and return what it prints."""
    done = subprocess.run(
        [_program("msl-network"), *arguments],
        capture_output=True,
        env=_variables(home),
        timeout=PATIENCE,
        check=True,
    )
    assert b"" == done.stderr
    return done.stdout.decode()


@asynccontextmanager
async def running_manager(home: Path, port: int, *arguments: str) -> AsyncIterator[None]:
    """Run a manager of MSL-Network 1.0 for a block."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [_program("msl-network"), "start", "--port", str(port), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                env=_variables(home),
            )
        )
        assert process.stdout is not None
        async with process.stdout:
            output = b""
            with trio.fail_after(PATIENCE):
                while b"Network Manager running on" not in output:
                    data = await process.stdout.receive_some()
                    assert data, f"the manager has ended: {output.decode()}"
                    output += data
            nursery.start_soon(_drain, process.stdout)
            try:
                yield
            finally:
                process.terminate()
                with trio.CancelScope(shield=True):
                    await process.wait()
        nursery.cancel_scope.cancel()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    """Let nobody wait for a pipe that nobody reads."""
    try:
        async for _ in stream:
            pass
    except trio.ClosedResourceError:
        pass
