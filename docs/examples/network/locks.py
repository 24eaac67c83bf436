"""Locks: exclusive and shared ones, what is refused, and how an administrator takes one away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from armillary import network

ADMIN = ("marie", "polonium")


class Monochromator(network.Service):
    def __init__(self) -> None:
        super().__init__(concurrency=1)
        self.wavelength = 500.0

    def go_to(self, wavelength: float) -> None:
        self.wavelength = wavelength


# [exclusive]
async def scan_alone(port: int) -> None:
    async with open_lab(port, "Alice") as alice, alice.link("Monochromator") as mine:
        async with mine.lock():
            await mine.go_to(550.0)
            async with open_lab(port, "Bob") as bob:
                try:
                    async with bob.link("Monochromator"):
                        print("never here")
                except network.LinkRefused as error:
                    print("Bob cannot link:", error.text)
        async with open_lab(port, "Bob") as bob, bob.link("Monochromator") as his:
            print("Bob is linked, and reads", await his.wavelength())
            try:
                async with mine.lock():
                    print("never here")
            except network.LockRefused as error:
                print("Alice cannot lock:", error.text.partition(",")[2].partition("\n")[0].strip())


# [shared]
async def share(port: int) -> None:
    async with (
        open_lab(port, "Alice") as alice,
        open_lab(port, "Bob") as bob,
        alice.link("Monochromator") as hers,
        bob.link("Monochromator") as his,
    ):
        async with hers.lock(shared=True), his.lock(shared=True):
            print("Alice and Bob hold the lock")
            async with open_lab(port, "Carol") as carol:
                try:
                    async with carol.link("Monochromator"):
                        print("never here")
                except network.LinkRefused:
                    print("Carol has to wait")


# [wait]
@asynccontextmanager
async def link_and_lock(lab: network.Client, service: str) -> AsyncIterator[network.Link]:
    """Have a service for oneself as soon as nobody else has it."""
    while True:
        try:
            async with AsyncExitStack() as stack:
                link = await stack.enter_async_context(lab.link(service))
                await stack.enter_async_context(link.lock())
                kept = stack.pop_all()
        except (network.LinkRefused, network.LockRefused):
            await trio.sleep(random.uniform(0.1, 0.3))
        else:
            break
    async with kept:
        yield link


async def take_turns(port: int, name: str, wavelength: float) -> None:
    async with (
        open_lab(port, name) as lab,
        link_and_lock(lab, "Monochromator") as monochromator,
    ):
        await monochromator.go_to(wavelength)
        await trio.sleep(0.1)
        print("undisturbed:", await monochromator.wavelength() == wavelength)


# [force]
async def take_away(port: int) -> None:
    async with open_lab(port, "Alice") as alice, alice.link("Monochromator") as hers, hers.lock():
        credentials = network.Credentials(*ADMIN)
        async with network.open_client("127.0.0.1", port, trust=None, credentials=credentials) as lab:
            print("taken from", len(await lab.admin("force_unlock", "Monochromator")), "client")
        try:
            while True:
                await hers.go_to(500.0)  # until she has heard of it
        except network.LockLost as error:
            print("Alice has lost it:", str(error).rpartition(": ")[2])


# [main]
def open_lab(port: int, name: str) -> AbstractAsyncContextManager[network.Client]:
    return network.open_client("127.0.0.1", port, name=name, trust=None)


async def main(store: network.Store) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, 0, host="127.0.0.1", store=store))
        port = network.bound_ports(listeners)[0]
        await nursery.start(partial(network.run_service, Monochromator(), "127.0.0.1", port, trust=None))
        await scan_alone(port)
        await share(port)
        async with trio.open_nursery() as turns:
            turns.start_soon(take_turns, port, "Alice", 600.0)
            turns.start_soon(take_turns, port, "Bob", 650.0)
        await take_away(port)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with network.open_store(":memory:") as opened:
        opened.users.add(*ADMIN, is_admin=True)
        trio.run(main, opened)
# [end]
