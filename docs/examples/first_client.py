"""Turn the dome of first_device.py, and watch it turn. Usage: first_client.py [PORT]."""

from __future__ import annotations

import sys

import trio

from armillary import katcp


# [requests]
async def turn(client: katcp.Client) -> None:
    arguments, informs = await client.request("slew", 20.0)
    print("the dome points to", float(arguments[0]), "degrees;", len(informs), "informs")
    try:
        await client.request("slew", 400.0)
    except katcp.FailReply as error:
        print("refused:", error)


# [timeout]
async def turn_in_time(client: katcp.Client) -> None:
    with trio.move_on_after(0.2) as scope:
        await client.request("slew", 120.0)
    if scope.cancelled_caught:
        print("not there after 0.2 s; the dome turns on, and its reply will be dropped")


# [sensors]
async def look(client: katcp.Client) -> None:
    azimuth = await client.sensor_value("azimuth")
    print("azimuth is a", type(azimuth).__name__)
    reading = await client.sensor_reading("motion")
    print("motion is", reading.value, "and", reading.status.name)


# [mirror]
async def follow(client: katcp.Client) -> None:
    async with client.mirror_sensors(strategy="event") as sensors:
        await sensors.wait_synced()
        print("mirrored:", ", ".join(sensors))
        changes = sensors.changes()
        while sensors["azimuth"].value != 120.0:
            await anext(changes)
        print("the dome has arrived")


# [main]
async def main(port: int) -> None:
    async with katcp.open_client("127.0.0.1", port) as client:
        print("connected to", *client.versions["katcp-device"])
        await turn(client)
        await turn_in_time(client)
        await look(client)
        await follow(client)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7147)
# [end]
