"""Mirror a dome's sensors through its comings and goings. It serves the dome itself."""

from __future__ import annotations

from functools import partial

import trio
from first_device import Dome, Motion

from armillary import katcp


# [choose]
def wanted(sensor: katcp.SensorDescription) -> bool:
    return not sensor.name.startswith("debug.")


def renamed(name: str) -> str:
    return f"north-dome.{name}"


def strategy(sensor: katcp.SensorDescription) -> str:
    return "event-rate 0.1 10" if sensor.type_name == "float" else "event"


# [follow]
async def show_changes(sensors: katcp.MirroredSensors) -> None:
    async for change in sensors.changes():
        if change.reading is None:
            print(change.name, "is gone")
        else:
            print(change.name, change.reading.value, change.reading.status.name)


# [open]
async def mirror(client: katcp.PersistentClient, dome: Dome) -> None:
    async with client.mirror_sensors(
        filter=wanted, rename=renamed, strategy=strategy, enum_types=[Motion]
    ) as sensors:
        await sensors.wait_synced()
        azimuth = sensors["north-dome.azimuth"]
        print(azimuth.name, azimuth.value, azimuth.units, azimuth.status.name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_changes, sensors)
            await client.request("slew", 10.0)
            humidity = katcp.Sensor(float, "humidity", "Humidity in the dome", "%")
            dome.sensors.add(humidity)
            await trio.sleep(0.2)
            humidity.value = 41.0
            await trio.sleep(0.2)
            dome.halt()
            await client.wait_disconnected()
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        dome = Dome()
        listeners = await nursery.start(partial(katcp.serve_device, dome, 0, host="127.0.0.1"))
        port = katcp.bound_ports(listeners)[0]
        async with katcp.open_persistent_client("127.0.0.1", port) as client:
            await mirror(client, dome)


if __name__ == "__main__":
    trio.run(main)
# [end]
