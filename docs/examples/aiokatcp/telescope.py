"""A device with sensors, an aggregate, a service task and its log. Usage: telescope.py [PORT]."""

import asyncio
import enum
import logging
import sys
from typing import Optional, Tuple

import aiokatcp

logger = logging.getLogger("telescope")


# [aggregate]
class Mode(enum.Enum):
    STOW = 0
    POINT = 1
    NIGHT_SKY = 2


class Mean(aiokatcp.SimpleAggregateSensor[float]):
    def __init__(self, target: aiokatcp.SensorSet) -> None:
        self._total = 0.0
        self._count = 0
        super().__init__(target, float, "mean-temperature", "Mean of the panels", "degC")

    def filter_aggregate(self, sensor: aiokatcp.Sensor) -> bool:
        return sensor.name.startswith("panel.")

    def aggregate_add(self, sensor: aiokatcp.Sensor, reading: aiokatcp.Reading) -> bool:
        if not reading.status.valid_value():
            return False
        self._total += reading.value
        self._count += 1
        return True

    def aggregate_remove(self, sensor: aiokatcp.Sensor, reading: aiokatcp.Reading) -> bool:
        if not reading.status.valid_value():
            return False
        self._total -= reading.value
        self._count -= 1
        return True

    def aggregate_compute(self) -> Tuple[aiokatcp.Sensor.Status, float]:
        if not self._count:
            return (aiokatcp.Sensor.Status.UNKNOWN, 0.0)
        return (aiokatcp.Sensor.Status.NOMINAL, self._total / self._count)


# [server]
class Telescope(aiokatcp.DeviceServer):
    VERSION = "telescope-1.0"
    BUILD_STATE = "telescope-1.0.3"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.mode = aiokatcp.Sensor(Mode, "mode", "What it does", default=Mode.STOW)
        self.ticks = aiokatcp.Sensor(
            int,
            "ticks",
            "Ticks of the service task",
            auto_strategy=aiokatcp.SensorSampler.Strategy.EVENT_RATE,
            auto_strategy_parameters=(0.5, 10.0),
        )
        self.sensors.add(self.mode)
        self.sensors.add(self.ticks)
        for panel in range(4):
            self.sensors.add(aiokatcp.Sensor(float, f"panel.{panel}", units="degC"))
        self.sensors.add(Mean(self.sensors))

    async def request_mode(self, ctx: aiokatcp.RequestContext, mode: Mode) -> None:
        """Take up a mode."""
        logger.warning("from %s to %s", self.mode.value.name, mode.name)
        self.mode.value = mode

    async def request_heat(
        self, ctx: aiokatcp.RequestContext, panel: int, temperature: Optional[float] = 20.0
    ) -> float:
        """Heat a panel, which takes a while."""
        if f"panel.{panel}" not in self.sensors:
            raise aiokatcp.FailReply(f"there is no panel {panel}")
        for percent in (0, 50, 100):
            ctx.inform(f"{percent} %")
            await asyncio.sleep(0.01)
        self.sensors[f"panel.{panel}"].value = temperature
        return self.sensors["mean-temperature"].value

    async def tick(self) -> None:
        while True:
            self.ticks.value += 1
            await asyncio.sleep(0.1)

    async def on_stop(self) -> None:
        print("the telescope has stopped", flush=True)


# [main]
async def start(port: int) -> Telescope:
    server = Telescope("127.0.0.1", port)
    logger.addHandler(aiokatcp.DeviceServer.LogHandler(server))
    server.add_service_task(asyncio.create_task(server.tick()))
    await server.start()
    return server


async def main(port: int) -> None:
    server = await start(port)
    print("listening on port", server.sockets[0].getsockname()[1], flush=True)
    await server.join()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7147))
# [end]
