"""Programs of the façade of MSL-Network in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msl.network import connect
from msl.network.client import Client

# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 30.0
RUNNING = "Network Manager running on"
COMMAND = (str(Path(sys.executable).with_name("msl-network")),)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Program:
    """A process, with what it prints in files."""

    def __init__(self, command: Sequence[str], home: Path, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._out, self._err = place / "stdout", place / "stderr"
        environ = {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONUTF8": "1"}
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, cwd=place
            )

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")

    def wait_printed(self, text: str) -> None:
        """Wait until it has printed a line with this text."""
        deadline = time.monotonic() + PATIENCE
        while not any(text in line for line in self.out.splitlines(keepends=True) if line.endswith("\n")):
            assert self.process.poll() is None, f"it has ended: {self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"it never said {text!r}: {self.out}\n{self.err}"
            time.sleep(0.01)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send it a signal, and wait for its status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        return self.process.wait(timeout)


@contextmanager
def running(command: Sequence[str], home: Path, place: Path) -> Iterator[Program]:
    """A program for a block, which is killed if it has not ended then."""
    program = Program(command, home, place)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.wait()


class ManagerProgram(Program):
    """A process that runs a manager on a port."""

    port: int

    def connect(self, **options: Any) -> Client:
        return connect(**{"host": "localhost", "port": self.port, "disable_tls": True, **options})


@contextmanager
def manager(
    place: Path, *flags: str, tls: bool = False, home: Path | None = None
) -> Iterator[ManagerProgram]:
    """``msl-network start`` for a block, when it runs."""
    port = free_port()
    words = [*COMMAND, "start", "--port", str(port), *([] if tls else ["--disable-tls"]), *flags]
    program = ManagerProgram(words, home or place / "home", place)
    program.port = port
    try:
        program.wait_printed(RUNNING)
        yield program
    finally:
        if program.process.poll() is None:
            program.end()
        program.wait()


def run(place: Path, *words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``msl-network`` with these words, to its end."""
    home = home or place / "home"
    place.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONUTF8": "1"},
        cwd=place,
        timeout=PATIENCE,
        check=False,
    )


def messages(log: str) -> list[str]:
    """What was logged, without when and where."""
    return [line.partition(" msl.network - ")[2] or line for line in log.splitlines()]
