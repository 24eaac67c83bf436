"""The programs for MSL-Network, and what became of them, do the same in every combination."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "msl_network"
PEER = ROOT / ".peers" / "msl_network" / "bin" / "python"
# Far more than any example takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0

PRINTED = """\
channels: [20.5, 21.0, 21.5] C
refused: ValueError: there is no channel 9
reading 1: 22.0 C
reading 2: 22.0 C
reading 3: 22.0 C
done
switched off
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def lab(python: str | Path, program: str, port: int, home: Path) -> Iterator[subprocess.Popen[str]]:
    """The manager and the thermometer, for a block, when the manager has both."""
    process = subprocess.Popen(
        [python, EXAMPLES / program, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MSL_NETWORK_HOME": str(home)},
    )
    try:
        _wait_for_service(process, port)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for_service(process: subprocess.Popen[str], port: int) -> None:
    """Ask the manager by hand until it has the thermometer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as peer, peer.makefile("rw") as lines:
                lines.readline()
                print("client Test", "Manager identity", sep="\n", file=lines, flush=True)
                if '"Thermometer"' in lines.readline():
                    return
        except OSError:
            pass
        time.sleep(0.05)


def print_of(python: str | Path, program: str, port: int, home: Path) -> str:
    """What a client prints."""
    return subprocess.run(
        [python, EXAMPLES / program, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MSL_NETWORK_HOME": str(home)},
        timeout=PATIENCE,
        check=True,
    ).stdout


def test_every_example_is_run() -> None:
    """No example is left out here."""
    names = {"readings.py", "thermometer.py", "moved_readings.py", "moved_thermometer.py"}
    assert {file.name for file in EXAMPLES.glob("*.py")} == names


@pytest.mark.parametrize("service", ["thermometer.py", "moved_thermometer.py"])
@pytest.mark.parametrize("client", ["readings.py", "moved_readings.py"])
def test_moved(service: str, client: str, tmp_path: Path) -> None:
    """Old and new programs work with each other, print the same, and end."""
    port = free_port()
    with lab(sys.executable, service, port, tmp_path) as process:
        assert print_of(sys.executable, client, port, tmp_path) == PRINTED
        assert process.wait(PATIENCE) == 0


@pytest.mark.interop
@pytest.mark.parametrize(
    ("service", "client"), [(PEER, sys.executable), (sys.executable, PEER), (PEER, PEER)]
)
def test_as_with_msl_network(service: str | Path, client: str | Path, tmp_path: Path) -> None:
    """The old programs are programs for MSL-Network: with it on one side, or on both, they print the same."""
    port = free_port()
    with lab(service, "thermometer.py", port, tmp_path):
        assert print_of(client, "readings.py", port, tmp_path) == PRINTED
