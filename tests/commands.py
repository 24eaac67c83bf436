"""Runs the ``armillary`` command as its users do: in a process of its own, sometimes in a terminal."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 20.0

_COMMAND = [sys.executable, "-m", "armillary"]
# A new session whose terminal is the standard input, so that Ctrl-C typed there becomes a signal.
_IN_SESSION = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def _environment(**changes: str) -> dict[str, str]:
    # What would make rich or click treat a pipe as a terminal, or a terminal as a pipe.
    unwanted = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES", "TERM"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONUTF8": "1", **changes}


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def armillary(*arguments: str | bytes) -> Finished:
    """Run a command to its end."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*_COMMAND, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=_environment(),
        )
    return Finished(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


class Running:
    """A command that runs, and what it has written."""

    def __init__(self, process: trio.Process, output: trio.abc.ReceiveStream) -> None:
        self.process = process
        self._output = output
        self._read = b""

    @property
    def text(self) -> str:
        """What it has written to standard output, without what moves a terminal's cursor or colours it."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._read.decode("utf-8", "replace"))

    async def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a regular expression is found in `text`."""
        while True:
            if found := re.search(pattern, self.text):
                return found
            data = await self._output.receive_some(65536)
            assert data, f"ended before {pattern!r} came: {self.text}"
            self._read += data

    async def wait_end(self) -> int:
        """Wait until the command has ended, reading on, and return its status."""
        while True:
            try:
                data = await self._output.receive_some(65536)
            except trio.BrokenResourceError:  # how a terminal says that nobody has it open any more
                break
            if not data:
                break
            self._read += data
        return await self.process.wait()

    async def interrupt(self) -> tuple[int, float]:
        """Send SIGINT; return the status, and the seconds until the end."""
        begun = trio.current_time()
        self.process.send_signal(signal.SIGINT)
        return await self.wait_end(), trio.current_time() - begun


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    """A command whose output, errors included, goes into a pipe, for the length of a block."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    [*_COMMAND, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                    env=_environment(),
                )
            )
            async with process.stdout:
                yield Running(process, process.stdout)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def in_terminal(
    *arguments: str, lines: int = 24, columns: int = 100
) -> AsyncIterator[tuple[Running, trio.lowlevel.FdStream]]:
    """A command in a terminal of its own, and the other end of it, where one types."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    terminal = trio.lowlevel.FdStream(ours)
    with trio.fail_after(PATIENCE):
        async with terminal, trio.open_nursery() as nursery:
            try:
                process = await nursery.start(
                    partial(
                        trio.run_process,
                        [sys.executable, "-c", _IN_SESSION, *_COMMAND, *arguments],
                        stdin=theirs,
                        stdout=theirs,
                        stderr=theirs,
                        check=False,
                        env=_environment(TERM="xterm-256color"),
                    )
                )
            finally:
                os.close(theirs)
            yield Running(process, terminal), terminal
            nursery.cancel_scope.cancel()
