"""A script that weighs: the client of the lab network's tutorial. Usage: weighing.py [PORT]."""

from __future__ import annotations

import sys

import trio

from armillary import network


# [ask]
async def ask(balance: network.Link) -> None:
    unit = await balance.UNIT()
    print("an empty pan weighs", await balance.weigh(), unit)
    await balance.tare()
    print("and now it weighs", await balance.weigh(readings=2), unit)
    try:
        await balance.place(500.0)
    except network.RemoteError as error:
        print("refused:", error)


# [lock]
async def weigh_undisturbed(balance: network.Link) -> None:
    async with balance.lock():
        await balance.place(20.0)
        print("the sample weighs", await balance.weigh(readings=5), "g")
        await balance.place(0.0)


# [listen]
async def listen(balance: network.Link) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, balance.notifications(), 3)
        average = await balance.weigh(readings=3)
    print("on average", average, "g")


async def show(notifications: network.Notifications, last: int) -> None:
    async for note in notifications:
        number, reading = note.args
        print(f"reading {number}: {reading} g")
        if number == last:
            break


# [timeout]
async def lose_patience(balance: network.Link) -> None:
    with trio.move_on_after(0.2) as scope:
        await balance.weigh(readings=20)
    if scope.cancelled_caught:
        print("no average after 0.2 s; not waiting for it any more")


# [main]
async def main(port: int) -> None:
    async with network.open_client("localhost", port, name="Weighing") as lab:
        services = (await lab.identities())["services"]
        print("services:", ", ".join(services))
        async with lab.link("Balance") as balance:
            await ask(balance)
            await weigh_undisturbed(balance)
            await listen(balance)
            await lose_patience(balance)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1875)
# [end]
