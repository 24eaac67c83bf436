"""A device of aiokatcp: ``aiokatcp_server.py PORT [SENSORS [wide]]``.

`parity_device.ParityDevice` is its equal, unless it is ``wide``.
"""

import asyncio
import enum
import logging
import socket
import sys
from typing import Any

from told import RecordTeller, obey_async, orders_async, raw, run, tell, text

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
        self.go_on = asyncio.Event()
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


class Total(aiokatcp.SimpleAggregateSensor[int]):
    """The sum of the parts that have a value."""

    def __init__(self, target: aiokatcp.SensorSet) -> None:
        self.total = 0
        super().__init__(target, int, "total", "Sum of the parts", "pieces")

    def filter_aggregate(self, sensor: aiokatcp.Sensor) -> bool:
        return sensor.name.startswith("part.") and sensor.stype is int

    def aggregate_add(self, sensor: aiokatcp.Sensor, reading: aiokatcp.Reading) -> bool:
        if not reading.status.valid_value():
            return False
        self.total += reading.value
        return True

    def aggregate_remove(self, sensor: aiokatcp.Sensor, reading: aiokatcp.Reading) -> bool:
        if not reading.status.valid_value():
            return False
        self.total -= reading.value
        return True

    def aggregate_compute(self) -> tuple[aiokatcp.Sensor.Status, int]:
        return (aiokatcp.Sensor.Status.NOMINAL, self.total)


class WideDevice(ParityDevice):
    """One that does what `parity_device.ParityDevice` has no equal for."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        limited = aiokatcp.Sensor(
            float,
            "limited",
            "Warns from 10 on",
            default=0.0,
            initial_status=aiokatcp.Sensor.Status.NOMINAL,
            status_func=lambda value: (
                aiokatcp.Sensor.Status.WARN if value >= 10.0 else aiokatcp.Sensor.Status.NOMINAL
            ),
            auto_strategy=aiokatcp.SensorSampler.Strategy.EVENT,
        )
        limited.set_value(1.0, timestamp=TIME)
        self.sensors.add(limited)
        for part in ("part.1", "part.2"):
            self.sensors.add(aiokatcp.Sensor(int, part))
        self.sensors.add(Total(self.sensors))

    async def request_sleep_on(self, ctx: aiokatcp.RequestContext) -> None:
        """Sleep until cancelled, and tell of it."""
        tell("asleep")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            tell("cancelled")
            raise

    async def request_wait(self, ctx: aiokatcp.RequestContext) -> str:
        """Wait for the order to go on."""
        tell("waiting")
        await self.go_on.wait()
        return "went on"

    async def request_reply_twice(self, ctx: aiokatcp.RequestContext) -> None:
        """Reply, then reply again."""
        ctx.reply("ok", "first")
        ctx.reply("ok", "second")

    async def request_inform_late(self, ctx: aiokatcp.RequestContext) -> None:
        """Reply, then send an inform."""
        ctx.reply("ok", "first")
        ctx.inform("too late")

    async def request_return_late(self, ctx: aiokatcp.RequestContext) -> int:
        """Reply, then return something."""
        ctx.reply("ok", "first")
        return 2

    async def request_fail_late(self, ctx: aiokatcp.RequestContext) -> None:
        """Reply, then fail."""
        ctx.reply("ok", "first")
        raise aiokatcp.FailReply("too late")

    async def request_disown_late(self, ctx: aiokatcp.RequestContext) -> None:
        """Reply, then call the request invalid."""
        ctx.reply("ok", "first")
        raise aiokatcp.InvalidReply("too late")

    async def request_cancel_late(self, ctx: aiokatcp.RequestContext) -> None:
        """Reply, then be cancelled."""
        ctx.reply("ok", "first")
        raise asyncio.CancelledError

    async def request_nonsense(self, ctx: aiokatcp.RequestContext, kind: str) -> Any:
        """Return what cannot be encoded."""
        return {"list": [1, 2], "none": (1, None), "object": object(), "empty": ()}[kind]

    async def request_by_hand(self, ctx: aiokatcp.RequestContext) -> None:
        """Send informs, and a reply of its own making."""
        ctx.inform("one", 1, Mode.FAULT)
        ctx.informs([(2.5,), (True, "x")], send_reply=False)
        await ctx.drain()
        ctx.reply("fail", "by hand", b"with \0 bytes")

    async def request_who(self, ctx: aiokatcp.RequestContext) -> tuple[Any, ...]:
        """Tell what is known of the request."""
        ctx.logger.warning("asked who")
        return (ctx.conn.address, str(ctx.req.mtype), ctx.req.name, ctx.req.mid is not None, ctx.replied)

    async def request_cancel_yourself(self, ctx: aiokatcp.RequestContext) -> None:
        """Be cancelled by nobody."""
        raise asyncio.CancelledError

    async def request_help(self, ctx: aiokatcp.RequestContext, name: str | None = None) -> None:
        """Send an inform first, then help."""
        ctx.inform("first", "read the manual")
        await super().request_help(ctx, name)

    async def request_log_level(
        self, ctx: aiokatcp.RequestContext, level: aiokatcp.core.LogLevel | None = None
    ) -> Any:
        """As it is without this, by way of an override."""
        return await super().request_log_level(ctx, level)

    async def unhandled_request(self, ctx: aiokatcp.RequestContext, req: aiokatcp.Message) -> None:
        if req.name == "adopted":
            ctx.reply("ok", *req.arguments)
        else:
            await super().unhandled_request(ctx, req)

    async def on_stop(self) -> None:
        tell("on_stop")


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

    async def set(self, name: str, value: str | None, status: str = "NOMINAL", time: float = TIME) -> None:
        """Give a sensor a reading; None leaves its value as it is."""
        sensor = self.server.sensors[name]
        decoded = sensor.value if value is None else aiokatcp.decode(sensor.stype, raw(value))
        sensor.set_value(decoded, aiokatcp.Sensor.Status[status], time)

    async def set_some(self, name: str, values: list[str]) -> None:
        """Set a sensor to one value after the other."""
        for value in values:
            await self.set(name, value)

    async def assign(self, name: str, value: str) -> None:
        """Set a sensor's value and nothing else."""
        sensor = self.server.sensors[name]
        sensor.value = aiokatcp.decode(sensor.stype, raw(value))

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

    async def log_in_thread(self, level: int, message: str) -> None:
        await asyncio.to_thread(logging.getLogger("parity").log, level, message)

    async def record(self, logger: str, level: str) -> None:
        """Let a logger's records be told from that level on."""
        logging.getLogger(logger).setLevel(level)

    async def go_on(self) -> None:
        """Let the requests go on that wait for it."""
        self.server.go_on.set()
        self.server.go_on.clear()

    async def flood(self, count: int, size: int) -> None:
        """Send every client as many informs, numbered and each of so many bytes."""
        for number in range(count):
            self.server.mass_inform("flood", number, b"x" * size)

    async def bound(self, backlog: int) -> None:
        self.server.max_backlog = backlog

    async def fail_service(self) -> None:
        """Let a service task fail."""

        async def fail() -> None:
            raise RuntimeError("out of service")

        self.server.add_service_task(asyncio.create_task(fail(), name="service"))

    async def start(self) -> list:
        try:
            await self.server.start()
        except Exception as error:
            return [type(error).__name__, str(error)]
        return []

    async def stop(self, cancel: bool = True) -> list:
        try:
            await self.server.stop(cancel)
        except Exception as error:
            return [type(error).__name__, str(error)]
        return []

    async def begin_stop(self, cancel: bool = True) -> None:
        self.server.halt(cancel)

    async def join(self) -> list:
        try:
            await self.server.join()
        except Exception as error:
            return [type(error).__name__, str(error)]
        return []

    async def port(self) -> int:
        return self.server.sockets[0].getsockname()[1]

    async def is_listening(self) -> bool:
        return bool(self.server.sockets)


def free_port() -> int:
    """A port for a server that is to return to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def main(port: int, sensors: int = 0, kind: str = "") -> None:
    logging.getLogger().addHandler(RecordTeller())
    server = (WideDevice if kind == "wide" else ParityDevice)(port or free_port())
    for number in range(sensors):
        server.sensors.add(aiokatcp.Sensor(float, f"many.{number:04}", default=float(number)))
    await server.start()
    logging.getLogger("parity").addHandler(server.LogHandler(server))
    logging.getLogger("parity").setLevel(1)
    tell("listening", server.sockets[0].getsockname()[1])
    commands = Orders(server)
    async for order in orders_async():
        await obey_async({order[0]: getattr(commands, order[0])}, order)
    if server.sockets:
        await server.stop()


run(main(*map(int, sys.argv[1:3]), *sys.argv[3:]))
