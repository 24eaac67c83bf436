"""Services and clients to be killed, suspended and cut off, who notice if anything is not as it should be.

As a program, one of them in a process of its own, until its standard input ends::

    chaos_peer.py service PORT NAME MAX_CLIENTS
    chaos_peer.py client PORT NAME SERVICE,SERVICE SEED

A client ends when its calls have ended, and writes what has become of them to its standard output, as JSON.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from armillary._wire.backoff import Backoff
from armillary.errors import ArmillaryError, ConnectionClosed
from armillary.network.errors import LinkRefused, LockLost, LockRefused, Rejected, RemoteError
from armillary.network.link import Link
from armillary.network.reconnect import PersistentClient, open_persistent_client
from armillary.network.service import Service, run_service

__all__ = ["Customer", "Instrument", "Tally", "quick_backoff"]

# Seconds that calls may take once everybody is left in peace. Nothing that is called here takes one.
SETTLE = 10.0
# How the names of all services begin.
KIND = "instrument"
# Tasks of one client process.
CUSTOMERS = 3


def quick_backoff(rng: random.Random) -> Backoff:
    """Pauses that are short enough for a test."""
    return Backoff(rng.uniform, first=0.05, longest=0.5)


class Instrument(Service):
    """What is called. Every result carries the token of the call, so that it cannot be somebody else's.

    Args:
        name: by which it is asked for.
        max_clients: as for `Service`.
        birth: tells one life of the service from the next.
    """

    def __init__(self, name: str, *, max_clients: int | None, birth: int) -> None:
        super().__init__(name=name, max_clients=max_clients)
        self._birth = birth
        self._mark = ""

    async def echo(self, token: str) -> list[object]:
        return [token]

    async def wait(self, token: str, seconds: float) -> list[object]:
        await trio.sleep(seconds)
        return [token]

    def work(self, token: str, seconds: float) -> list[object]:
        time.sleep(seconds)
        return [token]

    async def tell(self, token: str) -> list[object]:
        self.emit_notification(token)
        return [token]

    async def fail(self, token: str) -> None:
        raise LookupError(token)

    async def count(self, token: str, number: int, seconds: float) -> AsyncIterator[list[object]]:
        for item in range(number):
            await trio.sleep(seconds)
            yield [token, item]

    async def mark(self, token: str) -> list[object]:
        self._mark = token
        return [token, self._birth]

    async def marked(self, token: str) -> list[object]:
        return [token, self._birth, self._mark]


@dataclass
class Tally:
    """What has become of calls."""

    ended: Counter[str] = field(default_factory=Counter)
    """How they ended, and how often; links and locks that were refused as well."""
    pending: dict[str, float] = field(default_factory=dict)
    """When calls began that have not ended, by their tokens."""
    longest: float = 0.0
    """Seconds that a call has taken."""
    wrong: list[str] = field(default_factory=list)
    """What must not be."""


class Customer:
    """Calls, locks, listens and gives up, until it is told to stop.

    Args:
        name: of the customer; there is no other of this name.
        client: whose links it uses.
        services: names of those that it calls.
        rng: decides what it does.
        tally: gets to know what becomes of it.
        pace: seconds between two calls, at most; also how long methods take.
        has_threads: whether to call methods that run in threads, which know nothing of virtual time.
    """

    def __init__(
        self,
        name: str,
        client: PersistentClient,
        services: Sequence[str],
        rng: random.Random,
        tally: Tally,
        *,
        pace: float,
        has_threads: bool,
        alone: trio.Lock,
    ) -> None:
        self.is_stopping = False
        self.visit = trio.CancelScope()
        """Around what it does now; may be cancelled at any time."""
        self._name = name
        self._client = client
        self._services = services
        self._rng = rng
        self._tally = tally
        self._pace = pace
        self._has_threads = has_threads
        # Several tasks of one client hold an exclusive lock together.
        self._alone = alone
        self._calls = 0

    async def run(self) -> None:
        """Visit one service after the other."""
        rng = self._rng
        while not self.is_stopping:
            await trio.sleep(rng.uniform(0, self._pace))
            try:
                with trio.move_on_after(rng.uniform(0, 100 * self._pace)) as self.visit:
                    async with self._client.link(rng.choice(self._services)) as link:
                        if rng.random() < 0.8:
                            self.visit.deadline = math.inf  # else it may end anywhere
                        await self._use(link)
            except (LinkRefused, LockRefused, LockLost) as error:
                self._explain(KIND, error)
                self._tally.ended["refused"] += 1
            except ConnectionClosed as error:
                self._explain("manager", error)
                self._tally.ended["not connected"] += 1

    async def _use(self, link: Link) -> None:
        rng = self._rng
        for _ in range(rng.randrange(1, 8)):
            if self.is_stopping:
                return
            await trio.sleep(rng.uniform(0, self._pace))
            match rng.randrange(10):
                case 0:
                    async with link.lock(shared=True):
                        await self._call(link, "echo")
                case 1 | 2:
                    await self._have_alone(link)
                case 3:
                    await self._call_many(link)
                case 4:
                    with trio.move_on_after(rng.uniform(0, self._pace)):
                        await self._call(link, "wait", rng.uniform(0, 2 * self._pace))
                case 5:
                    await self._listen(link)
                case 6:
                    await self._iterate(link)
                case 7:
                    await self._call(link, "fail")
                case 8 if self._has_threads:
                    await self._call(link, "work", rng.uniform(0, self._pace))
                case _:
                    await self._call(link, "wait", rng.uniform(0, self._pace))

    # -- what it does --------------------------------------------------------------------------------------

    async def _have_alone(self, link: Link) -> None:
        """What was left there with an exclusive lock is still there, unless the service has begun anew."""
        async with self._alone, link.lock():
            mark = await self._call(link, "mark")
            if mark is None:
                return
            await trio.sleep(self._rng.uniform(0, self._pace))
            seen = await self._call(link, "marked")
            if seen is not None and seen[1] == mark[1] and seen[2] != mark[0]:
                self._tally.wrong.append(f"{mark[0]} had a lock, and {seen[2]} came all the same")

    async def _call_many(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._rng.randrange(2, 20)):
                nursery.start_soon(self._call, link, "echo")

    async def _listen(self, link: Link) -> None:
        """Nothing is heard but what this service was asked to tell, and each only once."""
        notes = link.notifications()
        await self._call(link, "tell")
        heard = []
        while notes.statistics().waiting:
            heard.append((await anext(notes)).args[0])
        if len(heard) > len(set(heard)):
            self._tally.wrong.append(f"heard more than once: {heard}")
        self._tally.wrong += [f"heard {token}" for token in heard if not _is_of(link, token)]
        self._tally.ended["heard"] += len(heard)

    async def _iterate(self, link: Link) -> None:
        """Items come in order, none is missing and none is somebody else's, up to where it is left."""
        number = self._rng.randrange(1, 40)
        wanted = self._rng.choice([number, self._rng.randrange(1, number + 1)])
        got: list[object] = []
        async with self._ending(link, "count") as token:
            async with link.stream("count", token, number, self._pace / 100) as items:
                async for item in items:
                    got.append(item)
                    if len(got) == wanted:
                        break
            if len(got) != wanted:
                self._tally.wrong.append(f"{token}: got {len(got)} items of {wanted}")
        if got != [[token, item] for item in range(len(got))]:
            self._tally.wrong.append(f"{token}: got {got}")

    async def _call(self, link: Link, attribute: str, *args: object) -> list[object] | None:
        """Call a method, and return what it returns; None if that is an error, which was looked at."""
        result: list[object] | None = None
        async with self._ending(link, attribute) as token:
            result = await link.call(attribute, token, *args)
            if not isinstance(result, list) or result[0] != token:
                self._tally.wrong.append(f"{token} was answered {result}")
        return result

    # -- how it ends ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ending(self, link: Link, attribute: str) -> AsyncIterator[str]:
        """One call, which must end, and with an error that names its cause if there is one."""
        self._calls += 1
        token = f"{link.service_name}.{attribute} {self._calls} of {self._name}"
        tally = self._tally
        begin = tally.pending[token] = trio.current_time()
        how = "cancelled"
        try:
            yield token
            how = "answered"
        except ArmillaryError as error:
            how = type(error).__name__
            cause = "manager" if isinstance(error, ConnectionClosed) else repr(link.service_name)
            if isinstance(error, RemoteError) and error.type_name == "LookupError":
                how, cause = "failed", token
            self._explain(cause, error)
        finally:
            del tally.pending[token]
            tally.longest = max(tally.longest, trio.current_time() - begin)
            tally.ended[how] += 1

    def _explain(self, cause: str, error: ArmillaryError) -> None:
        """An error must name what has caused it."""
        if cause not in str(error):
            self._tally.wrong.append(f"an error without a word of {cause}: {error!r}")


def _is_of(link: Link, token: object) -> bool:
    return isinstance(token, str) and token.startswith(f"{link.service_name}.tell ")


# -- as a program --------------------------------------------------------------------------------------------


async def run_instrument(port: int, name: str, max_clients: int) -> None:
    """Run a service until nobody wants it any more."""
    rng = random.Random()
    while True:
        instrument = Instrument(name, max_clients=max_clients, birth=rng.randrange(2**60))
        try:
            await run_service(instrument, "127.0.0.1", port, trust=None, backoff=quick_backoff(rng))
        except Rejected:
            # The manager has not noticed yet that the service of this name was killed.
            await trio.sleep(rng.uniform(0.05, 0.2))


async def run_customers(port: int, name: str, services: Sequence[str], seed: int) -> None:
    """Run customers; when they are wanted no more, wait for their calls, and tell how it was."""
    rng = random.Random(seed)
    tally = Tally()
    async with (
        open_persistent_client(
            "127.0.0.1", port, trust=None, name=name, backoff=quick_backoff(rng)
        ) as client,
        trio.open_nursery() as nursery,
    ):
        alone = trio.Lock()
        customers = [
            Customer(
                f"{name}-{number}", client, services, rng, tally, pace=0.03, has_threads=True, alone=alone
            )
            for number in range(CUSTOMERS)
        ]
        for customer in customers:
            nursery.start_soon(customer.run)
        await end_of_input()
        for customer in customers:
            customer.is_stopping = True
        with trio.move_on_after(SETTLE):
            while nursery.child_tasks:  # noqa: ASYNC110 - the nursery cannot be waited for with a deadline
                await trio.sleep(0.05)
        hung = list(tally.pending)
        nursery.cancel_scope.cancel(reason="they have had all the time that they need")
    print(json.dumps({**vars(tally), "pending": hung}))  # noqa: T201


async def end_of_input() -> None:
    """Wait until nobody can write to the standard input any more."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some():
            pass


async def main(kind: str, port: str, name: str, detail: str, *seed: str) -> None:
    if kind == "client":
        await run_customers(int(port), name, detail.split(","), int(seed[0]))
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_instrument, int(port), name, int(detail))
            await end_of_input()
            nursery.cancel_scope.cancel(reason="nobody wants it any more")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
