"""The service and the client of armillary that are measured: `msl_end.py` is the other."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import trio

from armillary import network
from armillary.network.locations import Home
from armillary.network.tls.trust import accept

Connect = Callable[[], AbstractAsyncContextManager[network.Client]]
# Connections that are made at the same time where many are made.
AT_ONCE = 20


class Echo(network.Service):
    """Gives back what it gets."""

    async def coroutine(self, value: Any) -> Any:
        return value

    def plain(self, value: Any) -> Any:
        return value

    async def tell(self, count: int) -> None:
        for number in range(count):
            await self.notify(number, channel=1)


class Client:
    """What the client is asked to do: each method is a command."""

    def __init__(self, link: network.Link, connect: Connect, client: network.Client, nursery: trio.Nursery):
        self._link = link
        self._connect = connect
        self._client = client
        self._nursery = nursery
        self._heard = 0
        self._heard_all = trio.Event()
        self._last = 0.0

    async def one_at_a_time(self, seconds: float) -> tuple[float, list[float]]:
        echo = self._link.coroutine
        taken = []
        begin = now = time.perf_counter()
        while now - begin < seconds:
            await echo(1)
            later = time.perf_counter()
            taken.append(later - now)
            now = later
        return now - begin, taken

    async def pipelined(self, method: str, at_once: int, seconds: float) -> tuple[float, int]:
        done = 0
        begin = time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds:
            for call in [self._link.start_call(method, number) for number in range(at_once)]:
                await call.wait()
            done += at_once
        return taken, done

    async def big(self, size: int, seconds: float) -> list[float]:
        text = "x" * size
        taken: list[float] = []
        while sum(taken) < seconds:
            begin = time.perf_counter()
            answer = await self._link.coroutine(text)
            taken.append(time.perf_counter() - begin)
            assert len(answer) == size
        return taken

    async def array(self, size: int, times: int) -> list[float]:
        values = numpy.random.default_rng().random(size)
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            answer = await self._link.coroutine(values)
            taken.append(time.perf_counter() - begin)
            assert answer.shape == (size,)
        return taken

    async def listen(self, count: int) -> None:
        self._heard, self._heard_all = count, trio.Event()
        self._link.add_notification_callback(self._hear)

    def _hear(self, number: int, channel: int) -> None:
        self._heard -= 1
        if not self._heard:
            self._last = time.monotonic()
            self._heard_all.set()

    async def tell(self, count: int) -> float:
        begin = time.monotonic()
        await self._link.tell(count)
        return begin

    async def heard(self) -> float:
        await self._heard_all.wait()
        return self._last

    async def connects(self, times: int) -> list[float]:
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            async with self._connect():
                taken.append(time.perf_counter() - begin)
        return taken

    async def idle(self, count: int) -> float:
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for first in range(AT_ONCE):
                nursery.start_soon(self._open_some, len(range(first, count, AT_ONCE)))
        return time.perf_counter() - begin

    async def _open_some(self, count: int) -> None:
        for _ in range(count):
            await self._nursery.start(self._hold)

    async def _hold(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._connect():
            task_status.started()
            await trio.sleep_forever()

    async def identities(self) -> tuple[float, int]:
        begin = time.perf_counter()
        answer = await self._client.identities()
        return time.perf_counter() - begin, len(answer["clients"])


@asynccontextmanager
async def linked(client: network.Client, service: str) -> AsyncIterator[network.Link]:
    """A link, as soon as the service is there."""
    while service not in (await client.identities())["services"]:  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.05)
    async with client.link(service) as link:
        yield link


async def run_client(name: str, connect: Connect) -> None:
    async with connect() as client, linked(client, name) as link, trio.open_nursery() as nursery:
        end = Client(link, connect, client, nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            command, *arguments = json.loads(line)
            print(json.dumps(await getattr(end, command)(*arguments)), flush=True)
        nursery.cancel_scope.cancel()


async def main(role: str, name: str, port: str, home: str, tls: str) -> None:
    trust = network.Trust(accept, Home(Path(home))) if tls == "tls" else None
    if role == "client":
        await run_client(name, partial(network.open_client, "localhost", int(port), trust=trust))
    else:
        await network.run_service(Echo(name=name), "localhost", int(port), trust=trust)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
