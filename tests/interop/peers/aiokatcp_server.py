"""A device of aiokatcp: ``aiokatcp_server.py PORT [SENSORS]``. `parity_device.ParityDevice` is its equal."""

import asyncio
import enum
import logging
import sys
from typing import Any

from told import obey_async, orders_async, raw, tell, text

import aiokatcp

TIME = 1234567890.5


class Mode(enum.Enum):
    IDLE = 0
    MOVING_FAST = 1
    FAULT = 2


class Colour(enum.Enum):
    RED = b"RED!"
    DARK_BLUE = b"dark blue"

    @property
    def katcp_value(self) -> bytes:
        return self.value


TYPES = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "timestamp": aiokatcp.Timestamp,
    "address": aiokatcp.Address,
    "string": str,
    "bytes": bytes,
    "mode": Mode,
    "colour": Colour,
}


class ParityDevice(aiokatcp.DeviceServer):
    VERSION = "parity-1.0"
    BUILD_STATE = "parity-1.0.3"

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        for sensor in (
            aiokatcp.Sensor(float, "temperature", "Air temperature", "degC"),
            aiokatcp.Sensor(int, "counter", "Requests to count so far"),
            aiokatcp.Sensor(bool, "enabled", "Whether it may move"),
            aiokatcp.Sensor(Mode, "mode", "What it does"),
            aiokatcp.Sensor(Colour, "colour", "Colour of its lamp"),
            aiokatcp.Sensor(aiokatcp.Address, "peer.address", "Where its data goes"),
            aiokatcp.Sensor(aiokatcp.Timestamp, "since", "When it was started"),
            aiokatcp.Sensor(str, "label", "A name for people"),
            aiokatcp.Sensor(bytes, "serial", "Whatever its maker wrote"),
            aiokatcp.Sensor(
                float,
                "lazy",
                "Prefers to be sampled rarely",
                auto_strategy=aiokatcp.SensorSampler.Strategy.DIFFERENTIAL,
                auto_strategy_parameters=(10.0,),
            ),
        ):
            sensor.set_value(sensor.value, aiokatcp.Sensor.Status.UNKNOWN, TIME)
            self.sensors.add(sensor)

    async def request_echo(self, ctx: aiokatcp.RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_add(self, ctx: aiokatcp.RequestContext, a: int, b: int = 1) -> int:
        """Add two numbers.

        The second is 1 if it is missing.
        """
        return a + b

    async def request_types(
        self,
        ctx: aiokatcp.RequestContext,
        integer: int,
        number: float,
        boolean: bool,
        time: aiokatcp.Timestamp,
        mode: Mode,
        address: aiokatcp.Address,
        words: str,
    ) -> tuple[Any, ...]:
        """Decode and encode an argument of every type."""
        return (integer, number, boolean, time, mode, address, words)

    async def request_when(self, ctx: aiokatcp.RequestContext, time: aiokatcp.TimestampOrNow) -> str:
        """Take a time or now."""
        return "now" if time is aiokatcp.Now.NOW else repr(float(time))

    async def request_either(self, ctx: aiokatcp.RequestContext, value: float | None = None) -> bool:
        """Tell whether there is an argument."""
        return value is not None

    async def request_refuse(self, ctx: aiokatcp.RequestContext, reason: str) -> None:
        """Fail politely."""
        raise aiokatcp.FailReply(reason)

    async def request_disown(self, ctx: aiokatcp.RequestContext, reason: str) -> None:
        """Call the request invalid."""
        raise aiokatcp.InvalidReply(reason)

    async def request_crash(self, ctx: aiokatcp.RequestContext) -> None:
        """Fail with a traceback."""
        raise RuntimeError("crashed on request")

    async def request_recite(self, ctx: aiokatcp.RequestContext, count: int) -> None:
        """Answer with informs."""
        ctx.informs([("line", number) for number in range(count)])

    async def request_sleep(self, ctx: aiokatcp.RequestContext, seconds: float) -> None:
        """Reply after some seconds."""
        await asyncio.sleep(seconds)

    async def request_watchdog(self, ctx: aiokatcp.RequestContext) -> None:
        """Check that the server is still alive."""
        tell("watchdog")


def picture(sensors: aiokatcp.SensorSet) -> dict[str, list]:
    """What there is to know of sensors, as plain text."""
    return {
        sensor.name: [
            sensor.type_name,
            sensor.description,
            sensor.units,
            text(aiokatcp.encode(sensor.value)),
            sensor.status.name,
            sensor.timestamp,
        ]
        for sensor in sensors.values()
    }


class Orders:
    """What a test can make the device do."""

    def __init__(self, server: ParityDevice) -> None:
        self.server = server

    async def set(self, name: str, value: str, status: str = "NOMINAL", time: float = TIME) -> None:
        sensor = self.server.sensors[name]
        sensor.set_value(aiokatcp.decode(sensor.stype, raw(value)), aiokatcp.Sensor.Status[status], time)

    async def set_all(self, prefix: str, value: float) -> None:
        for name, sensor in self.server.sensors.items():
            if name.startswith(prefix):
                sensor.set_value(value, aiokatcp.Sensor.Status.NOMINAL, TIME)

    async def add(self, name: str, type_name: str, description: str = "") -> None:
        self.server.sensors.add(aiokatcp.Sensor(TYPES[type_name], name, description))

    async def remove(self, name: str) -> None:
        del self.server.sensors[name]

    async def inform(self, name: str, *arguments: Any) -> None:
        self.server.mass_inform(name, *arguments)

    async def picture(self) -> dict[str, list]:
        return picture(self.server.sensors)

    async def log(self, level: int, message: str) -> None:
        logging.getLogger("parity").log(level, message)


async def main(port: int, sensors: int) -> None:
    server = ParityDevice(port)
    for number in range(sensors):
        server.sensors.add(aiokatcp.Sensor(float, f"many.{number:04}", default=float(number)))
    await server.start()
    logging.getLogger("parity").addHandler(server.LogHandler(server))
    logging.getLogger("parity").setLevel(1)
    tell("listening", server.sockets[0].getsockname()[1])
    commands = Orders(server)

    async def obey_all() -> None:
        async for order in orders_async():
            await obey_async({order[0]: getattr(commands, order[0])}, order)
        await server.stop()

    obeying = asyncio.create_task(obey_all())
    await server.join()
    obeying.cancel()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
