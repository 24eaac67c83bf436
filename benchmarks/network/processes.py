"""Processes that are measured: none outlives its block, and nothing waits for one without a limit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import trio

__all__ = ["Failed", "Program", "running"]

# Seconds for an answer, unless more are asked for. Longer waits in vain for a peer that hangs; shorter gives
# up on a busy machine.
PATIENCE = 60.0


class Failed(Exception):
    """A process has ended, or has not answered in time."""


class Program:
    """A process that is running. Made by `running`."""

    def __init__(self, process: trio.Process, command: list[str], errors: Path) -> None:
        self._process = process
        self._command = command
        self._errors = errors
        self._measured = psutil.Process(process.pid)
        self._received = b""

    def check(self) -> None:
        """Raise Failed if it has ended."""
        if self._process.poll() is not None:
            raise self._failed("it has ended")

    def processor_time(self) -> float:
        """Seconds of processor time that it has used. Raises Failed if it has ended."""
        try:
            times = self._measured.cpu_times()
        except psutil.Error:
            raise self._failed("it has ended") from None
        return times.user + times.system

    def memory(self) -> int:
        """Resident bytes. Raises Failed if it has ended."""
        try:
            resident: int = self._measured.memory_info().rss
        except psutil.Error:
            raise self._failed("it has ended") from None
        return resident

    async def ask(self, command: str, *arguments: object, limit: float = PATIENCE) -> Any:
        """Have it do something, and return its answer.

        Raises:
            Failed: there was none in `limit` seconds.
        """
        assert self._process.stdin is not None
        line = json.dumps([command, *arguments]).encode("utf-8") + b"\n"
        try:
            with trio.fail_after(limit):
                await self._process.stdin.send_all(line)
                return json.loads(await self.line())
        except trio.TooSlowError:
            raise self._failed(f"{command!r} took more than {limit:g} s") from None
        except trio.BrokenResourceError:
            raise self._failed("it has ended") from None

    async def line(self) -> bytes:
        """The next line that it prints."""
        assert self._process.stdout is not None
        pieces = [self._received]
        while b"\n" not in pieces[-1]:
            data = await self._process.stdout.receive_some()
            if not data:
                raise self._failed("it has ended")
            pieces.append(bytes(data))
        line, _, self._received = b"".join(pieces).partition(b"\n")
        return line

    def _failed(self, reason: str) -> Failed:
        said = self._errors.read_text(errors="replace")[-1500:]
        return Failed(f"{' '.join(self._command[1:4])}: {reason}\n{said}".rstrip())


@asynccontextmanager
async def running(
    command: list[str], *, errors: Path, environment: Mapping[str, str], is_asked: bool = True
) -> AsyncIterator[Program]:
    """Run a process for a block; it is killed at the end.

    Args:
        command: its program and arguments.
        errors: a file for its stderr.
        environment: variables beyond those of this process.
        is_asked: whether it answers on stdout what it is asked on stdin. Otherwise it has neither.
    """
    pipe = subprocess.PIPE if is_asked else subprocess.DEVNULL
    with errors.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            command, stdin=pipe, stdout=pipe, stderr=stderr, env={**os.environ, **environment}
        )
    try:
        yield Program(process, command, errors)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
