"""A lab of processes that are killed, suspended and cut off while calls run."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import pytest
import trio
from chaos_peer import SETTLE

from armillary._runtime.groups import single_exception
from armillary.network.managed_peer import ManagedPeer
from armillary.network.manager import Manager, ManagerLimits, serve_manager
from armillary.network.peer_session import PeerSession
from armillary.network.protocol.outstanding import Forwarded

PROGRAM = Path(__file__).with_name("chaos_peer.py")
# Seconds of chaos, and between two things that happen.
CHAOS = 12.0
PAUSES = (0.05, 0.3)
# Seconds that somebody is suspended for at most: long enough for the manager to take locks away.
SUSPENDED = 2.0
LIMITS = ManagerLimits(ping_interval=0.4, lock_lease=0.8)
SERVICES = {"instrument A": -1, "instrument B": 2, "instrument C": 1}
CLIENTS = 4
# Bytes that this process may have more afterwards than before: caches of the interpreter and of trio. The
# traffic is many times as much, and so is what each of some hundred sessions has, so what leaks is seen.
MEMORY = 1_000_000


class Proxy:
    """Carries bytes to the manager and back, until a connection is reset."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: dict[trio.CancelScope, tuple[trio.SocketStream, trio.SocketStream]] = {}

    async def serve(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._port)
        with trio.CancelScope() as scope:
            self._connections[scope] = (near, far)
            try:
                async with far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, near, far, scope)
                    nursery.start_soon(self._carry, far, near, scope)
            finally:
                del self._connections[scope]

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel(reason="one of both has gone")

    def reset(self, rng: random.Random) -> bool:
        """Reset a connection, at both ends. Return whether there was one."""
        if not self._connections:
            return False
        scope = rng.choice(list(self._connections))
        for stream in self._connections[scope]:
            # With nothing to linger for, closing is a reset.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        scope.cancel(reason="the connection is reset")
        return True


class Member:
    """A program, which is started again whenever it was killed."""

    def __init__(self, *arguments: object, errors: IO[bytes]) -> None:
        self.name = str(arguments[2])
        self.is_busy = False
        """Whether something happens to it now."""
        self.is_client = arguments[0] == "client"
        self.can_be_killed = self.name != "client 0"  # so that somebody can tell of all of it
        self._arguments = [str(argument) for argument in arguments]
        self._errors = errors
        self.process: trio.Process

    async def start(self) -> None:
        command = [sys.executable, "-W", "error", str(PROGRAM), *self._arguments]
        self.process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE, stderr=self._errors)

    async def kill(self, rng: random.Random) -> None:
        self.process.kill()
        await self._reap()
        await trio.sleep(rng.uniform(0, 0.5))
        await self.start()

    async def suspend(self, rng: random.Random) -> None:
        self.process.send_signal(signal.SIGSTOP)
        try:
            await trio.sleep(rng.uniform(0, SUSPENDED))
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def finish(self) -> bytes:
        """Let it end in peace; return what it has to say."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.aclose()
        told = b"".join([data async for data in self.process.stdout])
        await self._reap()
        assert self.process.returncode == 0, f"{self.name} ended with status {self.process.returncode}"
        return told

    async def abandon(self) -> None:
        """End it, whatever it does."""
        if self.process.returncode is None:
            self.process.kill()
        await self._reap()

    async def _reap(self) -> None:
        await self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            await pipe.aclose()


class Chaos:
    """What happens to the members of a lab."""

    def __init__(self, members: list[Member], proxy: Proxy, rng: random.Random) -> None:
        self.members = members
        self.happened: Counter[str] = Counter()
        self._proxy = proxy
        self._rng = rng

    async def run(self) -> None:
        """Let things happen for a while. Afterwards everybody runs."""
        rng = self._rng
        with trio.move_on_after(2 * CHAOS):
            async with trio.open_nursery() as nursery:
                end = trio.current_time() + CHAOS
                while trio.current_time() < end:
                    await trio.sleep(rng.uniform(*PAUSES))
                    what = rng.choice(["kill", "suspend", "suspend", "reset", "reset"])
                    if what == "reset":
                        self.happened[what] += self._proxy.reset(rng)
                        continue
                    idle = [
                        member
                        for member in self.members
                        if not member.is_busy and (what == "suspend" or member.can_be_killed)
                    ]
                    if idle:
                        nursery.start_soon(self._do, what, rng.choice(idle))

    async def _do(self, what: str, member: Member) -> None:
        self.happened[what] += 1
        member.is_busy = True
        await getattr(member, what)(self._rng)
        member.is_busy = False


@asynccontextmanager
async def members(ports: list[int], seed: int) -> AsyncIterator[list[Member]]:
    """All programs, for a block; every other one connects by way of the proxy."""
    with tempfile.TemporaryFile() as errors:
        arguments: list[tuple[Any, ...]] = [("service", name, most) for name, most in SERVICES.items()]
        arguments += [
            ("client", f"client {number}", ",".join(SERVICES), seed + number) for number in range(CLIENTS)
        ]
        started: list[Member] = []
        try:
            for number, (kind, name, *details) in enumerate(arguments):
                member = Member(kind, ports[number % 2], name, *details, errors=errors)
                await member.start()
                started.append(member)
            yield started
        finally:
            with trio.CancelScope(shield=True):
                for member in started:
                    await member.abandon()
            errors.seek(0)
            sys.stderr.write(errors.read().decode("utf-8", "replace"))


@asynccontextmanager
async def manager_and_proxy() -> AsyncIterator[tuple[Manager, Proxy, list[int]]]:
    """Both, for a block, and the ports of both."""
    managers: list[Manager] = []
    with single_exception():
        async with trio.open_nursery() as nursery:
            serve = partial(serve_manager, 0, host="127.0.0.1", limits=LIMITS, on_start=managers.append)
            port = port_of(await nursery.start(serve))
            proxy = Proxy(port)
            serve_proxy = partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1")
            proxy_port = port_of(await nursery.start(serve_proxy))
            yield managers[0], proxy, [port, proxy_port]
            nursery.cancel_scope.cancel(reason="the test's block was left")


def port_of(listeners: list[Any]) -> int:
    port: int = listeners[0].socket.getsockname()[1]
    return port


def left_over() -> Counter[str]:
    """Objects of this process that belong to peers and to requests, and its tasks and descriptors."""
    gc.collect()
    kinds = {PeerSession, ManagedPeer, Forwarded, Manager}
    found = Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in kinds)
    tasks = [trio.lowlevel.current_root_task()]
    for task in tasks:
        assert task is not None
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    found["task"] = len(tasks)
    found["descriptor"] = len(os.listdir("/proc/self/fd"))
    return found


async def wait_until_there(manager: Manager, kinds: set[str]) -> None:
    """Wait until the manager knows everybody."""
    while {peer.name for peer in manager.registry.peers()} != kinds:  # noqa: ASYNC110 - no event tells of it
        await trio.sleep(0.05)


async def test_chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call ends, with its own result or with its cause; no name, link, lock or memory is left."""
    # pytest keeps what is logged, and whom it is about.
    monkeypatch.setattr(logging.getLogger("armillary"), "propagate", False)
    seed = random.SystemRandom().randrange(2**30)
    try:
        await case(seed)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


async def case(seed: int) -> None:
    rng = random.Random(seed)
    async with manager_and_proxy() as (manager, proxy, ports):
        # What is made once is made before anything is counted.
        with trio.fail_after(20):
            async with members(ports, seed) as first:
                await wait_until_there(manager, {member.name for member in first})
                await trio.sleep(0.5)
        await wait_until_there(manager, set())
        await trio.sleep(0.1)
        before = left_over()
        tracemalloc.start()
        try:
            memory, _ = tracemalloc.get_traced_memory()
            reports, chaos = await chaos_among(manager, proxy, ports, rng)
            with trio.move_on_after(SETTLE):
                while left_over() != before:  # noqa: ASYNC110 - no event tells of it
                    await trio.sleep(0.1)
            assert left_over() == before
            grown = tracemalloc.get_traced_memory()[0] - memory
        finally:
            tracemalloc.stop()
        assert manager.registry.peers() == []
        assert manager.outstanding._services == manager.outstanding._requesters == {}
        assert grown < MEMORY
    check_reports(reports)
    assert min(chaos.happened[what] for what in ("kill", "suspend", "reset")) >= 3, chaos.happened


async def chaos_among(
    manager: Manager, proxy: Proxy, ports: list[int], rng: random.Random
) -> tuple[list[dict[str, Any]], Chaos]:
    """Let it happen, then leave everybody in peace. Return what the clients say of it."""
    async with members(ports, rng.randrange(2**30)) as everybody:
        with trio.fail_after(20):
            await wait_until_there(manager, {member.name for member in everybody})
        chaos = Chaos(everybody, proxy, rng)
        await chaos.run()
        with trio.fail_after(20):
            await wait_until_there(manager, {member.name for member in everybody})
        with trio.fail_after(2 * SETTLE):
            reports = [json.loads(await member.finish()) for member in everybody if member.is_client]
            await wait_until_there(manager, set(SERVICES))
        assert [(row.links, row.lock) for row in manager.registry.table()] == [((), None)] * len(SERVICES)
        statistics = manager.statistics()
        assert statistics.requests.in_flight == 0
        assert len(statistics.peers) == len(SERVICES)
        with trio.fail_after(SETTLE):
            for member in everybody:
                if not member.is_client:
                    await member.finish()
    return reports, chaos


def check_reports(reports: list[dict[str, Any]]) -> None:
    """Nothing was wrong, and enough was right and went wrong in the expected ways."""
    assert [report["pending"] for report in reports] == [[]] * CLIENTS
    assert [report["wrong"] for report in reports] == [[]] * CLIENTS
    ended: Counter[str] = Counter()
    for report in reports:
        ended.update(report["ended"])
        # No longer than everything that happened to anybody.
        assert report["longest"] < CHAOS + SETTLE
    assert ended["answered"] > 100, ended
    assert ended["failed"] > 0, ended
    assert ended["ServiceGone"] + ended["ConnectionClosed"] > 0, ended
