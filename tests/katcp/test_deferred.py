"""Answers that are made outside of trio's tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from armillary.katcp import FailReply, RequestContext
from armillary.katcp.requests import Deferred
from armillary.testing import DemoDevice, ServedDevice, serve_in_memory


class Elsewhere(DemoDevice):
    """Defers its answers; the test makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.deferred: dict[str, Deferred] = {}
        self.cancelled: list[str] = []

    def request_later(self, ctx: RequestContext, name: str) -> Deferred:
        """Answer when the test says so."""
        deferred = self.deferred[name] = ctx.defer(lambda: self.cancelled.append(name))
        return deferred

    def request_at_once(self, ctx: RequestContext) -> Deferred:
        """Answer before returning."""
        deferred = ctx.defer(lambda: None)
        deferred.answer(None)
        return deferred


@pytest.fixture
def device() -> Elsewhere:
    return Elsewhere()


@pytest.mark.parametrize(
    ("settle", "reply"),
    [
        (lambda deferred: deferred.answer(None), b"!later[1] ok\n"),
        (lambda deferred: deferred.answer((1, "x")), b"!later[1] ok 1 x\n"),
        (lambda deferred: deferred.fail(FailReply("no")), b"!later[1] fail no\n"),
        (lambda deferred: deferred.abandon(), b"!later[1] fail request\\_cancelled\n"),
    ],
)
async def test_it_is_answered_as_a_handler_would(
    autojump_clock: Any, device: Elsewhere, settle: Callable[[Deferred], object], reply: bytes
) -> None:
    """Settling from outside of any task sends the reply at once, once, and frees the request's place."""
    async with serve_in_memory(device, max_pending=1) as served, served.open_raw() as peer:
        await peer.send(b"?later[1] a\n")
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == device.statistics().pending[0].running
        settle(device.deferred["a"])
        settle(device.deferred["a"])
        assert 0 == device.statistics().pending[0].running
        await peer.send(b"?watchdog[2]\n")
        assert [reply, b"!watchdog[2] ok\n"] == [await peer.receive(), await peer.receive()]


async def test_reading_goes_on_until_the_limit(autojump_clock: Any, device: Elsewhere) -> None:
    """Deferred requests count as pending: what comes next waits for room, and is then answered."""
    async with (
        serve_in_memory(device, max_pending=2, max_pending_per_client=2) as served,
        served.open_raw() as peer,
    ):
        await peer.send(b"?later[1] a\n?later[2] b\n?sleep[3] 0\n")
        await trio.testing.wait_all_tasks_blocked()
        assert ["a", "b"] == list(device.deferred)
        device.deferred["b"].answer("x")
        assert [b"!later[2] ok x\n", b"!sleep[3] ok 0.0\n"] == [await peer.receive(), await peer.receive()]
        device.deferred["a"].answer(None)
        assert b"!later[1] ok\n" == await peer.receive()


async def test_the_end_of_the_server_waits_for_the_real_end(autojump_clock: Any, device: Elsewhere) -> None:
    """Ending asks for the answer to be given up, and waits until it has been, before the last word."""
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        await peer.send(b"?later[1] a\n")
        await trio.testing.wait_all_tasks_blocked()
        device.halt()
        await trio.sleep(100)
        assert ["a"] == device.cancelled
        device.deferred["a"].abandon()
        assert b"!later[1] fail request\\_cancelled\n" == await peer.receive()
        assert b"#disconnect server\\_shutting\\_down\n" == await peer.receive()


async def test_a_drain_gives_time_and_a_second_halt_takes_it(autojump_clock: Any, device: Elsewhere) -> None:
    """Nothing is given up during the drain; halting again with less time ends it."""
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        await peer.send(b"?later[1] a\n")
        await trio.testing.wait_all_tasks_blocked()
        device.halt(drain=math.inf)
        await trio.sleep(1000)
        assert [] == device.cancelled
        device.halt(drain=0.0)
        await trio.testing.wait_all_tasks_blocked()
        assert ["a"] == device.cancelled
        device.deferred["a"].abandon()


async def test_it_outlives_its_client(autojump_clock: Any, device: Elsewhere) -> None:
    """The work goes on when the client is gone, keeps its place, and its answer goes nowhere."""
    async with serve_in_memory(device, max_pending=1) as served:
        stream = await served.connect()
        await stream.send_all(b"?later[1] a\n")
        await trio.testing.wait_all_tasks_blocked()
        (session,) = device.sessions
        session.abort("the test says so")
        await session.gone.wait()
        await stream.aclose()
        assert [] == device.cancelled
        assert 1 == device.statistics().pending[0].running
        device.deferred["a"].answer("x")
        assert 0 == device.statistics().pending[0].running


async def test_a_server_waits_for_what_clients_left_behind(autojump_clock: Any, device: Elsewhere) -> None:
    """The server ends when the answers of clients that are gone have been given up, too."""
    ended = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[ServedDevice]) -> None:
            async with serve_in_memory(device) as served:
                task_status.started(served)
                await trio.sleep_forever()

        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[ServedDevice]) -> None:
            with scope:
                await serve(task_status)
            ended.set()

        served: ServedDevice = await nursery.start(run)
        stream = await served.connect()
        await stream.send_all(b"?later[1] a\n")
        await trio.testing.wait_all_tasks_blocked()
        (session,) = device.sessions
        session.abort("the test says so")
        await stream.aclose()
        scope.cancel()
        await trio.sleep(10)
        assert (["a"], False) == (device.cancelled, ended.is_set())
        device.deferred["a"].abandon()
        await ended.wait()


async def test_a_half_closed_client_gets_its_answer(autojump_clock: Any, device: Elsewhere) -> None:
    """A client that has closed its side for writing gets the answer, and then the end."""
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        await peer.send(b"?later[1] a\n")
        await peer.stream.send_eof()  # type: ignore[attr-defined]
        await trio.sleep(10)
        device.deferred["a"].answer(None)
        assert b"!later[1] ok\n" == await peer.receive()
        assert b"" == await peer.receive()
        assert {} == device.sessions


async def test_at_once(autojump_clock: Any, device: Elsewhere) -> None:
    """An answer may be made before the handler has even returned."""
    async with serve_in_memory(device, max_pending=1) as served, served.open_raw() as peer:
        await peer.send(b"?at-once[1]\n?at-once[2]\n")
        assert [b"!at-once[1] ok\n", b"!at-once[2] ok\n"] == [await peer.receive(), await peer.receive()]
        assert 0 == device.statistics().pending[0].running
