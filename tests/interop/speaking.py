"""Peer programs in their own environments, and this project's servers for them, as blocks of a test."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import pytest
import trio

from armillary._runtime.groups import single_exception
from armillary.katcp import STANDARD_TYPES, Device, MirroredSensors, Sensor, serve_device

HOST = "127.0.0.1"
Picture = dict[str, list[Any]]

_HERE = Path(__file__).resolve().parent
_ENVIRONMENTS = _HERE.parents[1] / ".peers"

# Here ``aiokatcp`` is the one of compat/, on either kind of loop.
_LOOPS = {"facade": "asyncio", "facade-uvloop": "uvloop"}


class Peer:
    """A peer program that is running: it carries out orders, and tells what happens. Made by `open_peer`."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._orders = process.stdin
        self._told = process.stdout
        self._unread = bytearray()
        self._events: deque[list[Any]] = deque()
        self.was_killed = False

    async def ask(self, order: str, *arguments: object) -> Any:
        """Have an order carried out, and return its answer."""
        await self._orders.send_all(json.dumps([order, *arguments]).encode("ascii") + b"\n")
        while True:
            line = await self._next_line()
            if "answer" in line:
                return line["answer"]
            self._take(line)

    async def wait_event(self, name: str, matches: Callable[..., bool] = lambda *facts: True) -> list[Any]:
        """The facts of the next event of that name that matches; others of that name are passed over."""
        while True:
            for event in list(self._events):
                if event[0] == name:
                    self._events.remove(event)
                    if matches(*event[1]):
                        return event[1]
            self._take(await self._next_line())

    async def events_until(self, name: str, matches: Callable[..., bool] = lambda *facts: True) -> list[Any]:
        """All events in their order, up to the first of that name that matches."""
        told = []
        while True:
            while self._events:
                event = self._events.popleft()
                told.append(event)
                if event[0] == name and matches(*event[1]):
                    return told
            self._take(await self._next_line())

    def take_events(self) -> list[Any]:
        """All events that came before the last answer, in their order."""
        told = list(self._events)
        self._events.clear()
        return told

    def kill(self) -> None:
        """End the program as nobody can prevent."""
        self.was_killed = True
        self._process.kill()

    def suspend(self) -> None:
        """Let the whole program stand still, its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `suspend`."""
        self._process.send_signal(signal.SIGCONT)

    async def finish(self) -> None:
        """Let the program come to its end."""
        await self._orders.aclose()

    async def _next_line(self) -> dict[str, Any]:
        while (end := self._unread.find(b"\n")) < 0:
            data = await self._told.receive_some()
            if not data:
                raise EOFError("the peer program has ended")
            self._unread += data
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return json.loads(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "error" in line:
            pytest.fail("the peer program could not do as it was told:\n" + line["error"])
        self._events.append([line["event"], line["facts"]])


def _python(environment: str) -> Path:
    """The interpreter of an environment: one of ``.peers/``, or the one that runs the tests."""
    if environment in _LOOPS:
        return Path(sys.executable)
    python = _ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.fail(f"there is no {python.relative_to(_ENVIRONMENTS.parent)}: run `make peers`")
    return python


@asynccontextmanager
async def open_peer(environment: str, program: str, *arguments: object) -> AsyncIterator[Peer]:
    """Run a program of ``peers/`` for a block. Left in peace, it must end with status 0.

    Over the façade, it must not write to its standard error, where warnings and lost exceptions would be.
    """
    is_ours = environment in _LOOPS
    strictly = ["-W", "error"] if is_ours else []
    command = [str(_python(environment)), *strictly, str(_HERE / "peers" / program), *map(str, arguments)]
    variables = {**os.environ, "PEER_LOOP": _LOOPS.get(environment, "asyncio")}
    with tempfile.TemporaryFile() as errors:
        with single_exception():
            async with trio.open_nursery() as nursery:
                run = partial(
                    trio.run_process,
                    command,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=errors,
                    check=False,
                    env=variables,
                )
                process: trio.Process = await nursery.start(run)
                peer = Peer(process)
                try:
                    yield peer
                finally:
                    peer.resume()
                    sys.stderr.write(_content(errors))
                await peer.finish()
        has_failed = process.returncode != 0 and not peer.was_killed
        if has_failed or (is_ours and _content(errors)):
            pytest.fail(f"the peer program ended with status {process.returncode}: {_content(errors)}")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


@asynccontextmanager
async def open_peer_server(
    environment: str, program: str, *arguments: object, port: int = 0
) -> AsyncIterator[tuple[Peer, int]]:
    """Run a server of ``peers/`` for a block, and say on which port it listens."""
    async with open_peer(environment, program, port, *arguments) as peer:
        (listening,) = await peer.wait_event("listening")
        yield peer, listening


@asynccontextmanager
async def served(device: Device, *, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """Serve a device of armillary for a block, and say on which port."""
    with single_exception():
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(serve_device, device, port, host=HOST, **options))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel(reason="the test's block was left")


def picture(sensors: Mapping[str, Sensor[Any]]) -> Picture:
    """What there is to know of sensors, as plain text: peers tell theirs in the same words."""
    return {
        name: [
            sensor.type_name,
            sensor.description,
            sensor.units,
            STANDARD_TYPES.encode(sensor.value).decode("utf-8", "surrogateescape"),
            sensor.status.name,
            sensor.timestamp,
        ]
        for name, sensor in sensors.items()
    }


async def mirror_becomes(sensors: MirroredSensors, expected: Picture) -> None:
    """Wait until a mirror is in step with what the server says of itself."""
    changes = sensors.changes()
    try:
        while picture(sensors) != expected:
            await anext(changes)
    except trio.Cancelled:
        mirrored = picture(sensors)
        for name in sorted({*mirrored, *expected}):
            if mirrored.get(name) != expected.get(name):
                sys.stdout.write(f"{name}: expected {expected.get(name)}, mirrored {mirrored.get(name)}\n")
        raise
