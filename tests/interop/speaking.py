"""Peer programs in their own environments, and this project's servers for them, as blocks of a test."""

from __future__ import annotations

import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio

from armillary._runtime.groups import single_exception
from armillary.katcp import STANDARD_TYPES, Device, MirroredSensors, Sensor, serve_device

HOST = "127.0.0.1"
Picture = dict[str, list[Any]]

_HERE = Path(__file__).resolve().parent
_ENVIRONMENTS = _HERE.parents[1] / ".peers"


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


@asynccontextmanager
async def open_peer(environment: str, program: str, *arguments: object) -> AsyncIterator[Peer]:
    """Run a program of ``peers/`` for a block. Left in peace, it must end with status 0."""
    python = _ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.fail(f"there is no {python.relative_to(_ENVIRONMENTS.parent)}: run `make peers`")
    command = [str(python), str(_HERE / "peers" / program), *map(str, arguments)]
    with single_exception():
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, check=True)
            )
            peer = Peer(process)
            try:
                yield peer
            finally:
                peer.resume()
            await peer.finish()


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
