"""Notifications: from coroutines and threads, read by loops and callbacks, with a bound."""

from __future__ import annotations

import time
from functools import partial

import trio

from armillary import network


# [service]
class Furnace(network.Service):
    async def heat(self, degrees: int) -> int:
        """A coroutine: awaits `notify`, which waits while the manager is behind."""
        for temperature in range(20, degrees + 1, 20):
            await trio.sleep(0.01)
            await self.notify(temperature, unit="C")
        return degrees

    def cool(self) -> int:
        """A method that runs in a thread: it cannot await, and need not."""
        for temperature in (60, 40, 20):
            time.sleep(0.01)
            self.emit_notification(temperature, unit="C")
        return 20


# [loop]
async def follow(notes: network.Notifications) -> None:
    async for note in notes:
        print("it has", *note.args, note.kwargs["unit"])


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, 0, host="127.0.0.1"))
        port = network.bound_ports(listeners)[0]
        await nursery.start(partial(network.run_service, Furnace(), "127.0.0.1", port, trust=None))
        async with network.open_client("127.0.0.1", port, trust=None) as lab:
            await use(lab)
        nursery.cancel_scope.cancel()


async def use(lab: network.Client) -> None:
    # [block]
    async with lab.link("Furnace") as furnace:
        notes = furnace.notifications()
        await furnace.heat(60)
    await follow(notes)
    print("the loop has ended with the link")

    # [callback]
    async with lab.link("Furnace") as furnace:
        seen: list[int] = []
        furnace.add_notification_callback(lambda temperature, unit: seen.append(temperature))
        await furnace.cool()
        print("before the call returned, there were", seen)

    # [bound]
    async with lab.link("Furnace") as furnace:
        newest = furnace.notifications(bound=1)
        oldest = furnace.notifications(bound=1, overflow=network.Overflow.OLDEST_WIN)
        await furnace.cool()
        print("kept", (await anext(newest)).args, "and", (await anext(oldest)).args)
        print("dropped", newest.statistics().dropped, "and", oldest.statistics().dropped)


if __name__ == "__main__":
    trio.run(main)
# [end]
