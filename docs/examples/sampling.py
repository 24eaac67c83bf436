"""What each sampling strategy reports of the same updates. It serves the device itself."""

from __future__ import annotations

from functools import partial

import trio

from armillary import katcp


# [sensors]
def helium_status(litres: float) -> katcp.SensorStatus:
    if litres < 5.0:
        return katcp.SensorStatus.ERROR
    if litres < 20.0:
        return katcp.SensorStatus.WARN
    return katcp.SensorStatus.NOMINAL


class Cryostat(katcp.Device):
    VERSION = "cryostat-1.0"
    BUILD_STATE = "cryostat-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.helium = katcp.Sensor(
            float,
            "helium",
            "Liquid helium left",
            "l",
            default=100.0,
            initial_status=katcp.SensorStatus.NOMINAL,
            status_func=helium_status,
            auto_strategy=katcp.Strategy.DIFFERENTIAL,
            auto_strategy_parameters=(1.0,),
        )
        self.sensors.add(self.helium)


# [subscribe]
def on_sensor_status(timestamp: float, count: int, name: str, status: str, value: float) -> None:
    print(f"    {name} {value} l, {status}")


STRATEGIES: list[tuple[str | float, ...]] = [
    ("event",),
    ("differential", 10.0),
    ("auto",),
    ("event-rate", 0.4, 10.0),
    ("period", 0.4),
]


async def compare(cryostat: Cryostat, client: katcp.Client) -> None:
    client.add_inform_callback("sensor-status", on_sensor_status)
    for strategy in STRATEGIES:
        print(*strategy)
        cryostat.helium.value = 100.0
        await client.request("sensor-sampling", "helium", *strategy)
        for litres in (100.0, 99.5, 95.0, 80.0, 19.0, 19.0):
            cryostat.helium.value = litres
        await trio.sleep(0.6)
        await client.request("sensor-sampling-clear")


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        cryostat = Cryostat()
        listeners = await nursery.start(partial(katcp.serve_device, cryostat, 0, host="127.0.0.1"))
        port = katcp.bound_ports(listeners)[0]
        async with katcp.open_client("127.0.0.1", port) as client:
            await compare(cryostat, client)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
