"""The client of the thermometer, moved to armillary's own API. Usage: moved_readings.py PORT."""

from __future__ import annotations

import sys
from functools import partial

import trio

from armillary import network


# [client]
async def main(port: int) -> None:
    async with (
        network.open_client("localhost", port, name="Readings", trust=None) as lab,
        lab.link("Thermometer") as thermometer,
    ):
        unit = await thermometer.unit()
        calls = [thermometer.start_call("read", channel) for channel in (1, 2, 3)]
        print("channels:", [await call.wait() for call in calls], unit)
        try:
            await thermometer.read(9)
        except network.RemoteError as error:
            print("refused:", error)

        async with thermometer.lock(), trio.open_nursery() as nursery:
            nursery.start_soon(partial(show, thermometer.notifications(), 3, unit))
            done = await thermometer.watch(4, readings=3)
        print(done)
        with trio.fail_after(5):
            print(await thermometer.shutdown_service())


async def show(notifications: network.Notifications, last: int, unit: str) -> None:
    async for note in notifications:
        number, reading = note.args
        print(f"reading {number}: {reading} {unit}")
        if number == last:
            break


# [end]
if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
