"""A device with requests of every kind: ``aiokatcp_device.py PORT [MAX_PENDING]``."""

import asyncio
import enum
import logging
import sys
from collections.abc import Awaitable
from typing import Any

from told import obey_async, orders_async, raw, run, tell

import aiokatcp
from aiokatcp import FailReply, InvalidReply, Message, RequestContext, Sensor, SensorSampler

TIME = 1234567890.5


class Mode(enum.Enum):
    IDLE = 0
    MOVING_FAST = 1


class Base(aiokatcp.DeviceServer):
    VERSION = "device-1.0"
    BUILD_STATE = "device-1.0.3"

    async def request_inherited(self, ctx: RequestContext, a: int = 1) -> int:
        """Double a number."""
        return 2 * a

    async def request_replaced(self, ctx: RequestContext) -> str:
        """Never seen."""
        return "base"


class Device(Base):
    def __init__(self, port: int, max_pending: int) -> None:
        super().__init__("127.0.0.1", port, max_pending=max_pending)
        self.go_on = asyncio.Event()
        for sensor in (
            Sensor(int, "counter", "Counts"),
            Sensor(float, "level", "", "m"),
            Sensor(Mode, "mode", "What it does"),
            Sensor(str, "label", default="a b"),
            Sensor(int, "silent", auto_strategy=SensorSampler.Strategy.NONE),
        ):
            sensor.set_value(sensor.value, timestamp=TIME)
            self.sensors.add(sensor)

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_replaced(self, ctx: RequestContext) -> str:
        """

        Replaces.

            And says more.
        """  # noqa: D212 - not everybody's first line is the first
        return "derived-" + await super().request_replaced(ctx)

    async def request_add(self, ctx: RequestContext, a: int, b: float = 0.5, *rest: Mode) -> tuple[Any, ...]:
        """Decode."""
        return (a, b, *rest)

    async def request_turns(self, ctx: RequestContext, count: int) -> int:
        """Reply after some turns of the loop."""
        for _ in range(count):
            await asyncio.sleep(0)
        return count

    async def request_wait(self, ctx: RequestContext) -> str:
        """Wait until told to go on."""
        tell("waiting", ctx.req.mid)
        try:
            await self.go_on.wait()
        finally:
            ctx.inform("last words")
            self.mass_inform("farewell", ctx.req.mid or 0)
        return "went on"

    async def request_return(self, ctx: RequestContext, kind: str) -> Any:
        """Return something."""
        return {
            "none": None,
            "nothing": (),
            "one": (1,),
            "float": 1.5,
            "enum": Mode.MOVING_FAST,
            "list": [1, 2],
            "none-inside": (1, None),
            "object": object(),
        }[kind]

    async def request_raise(self, ctx: RequestContext, kind: str, *words: str) -> None:
        """Raise something."""
        raise {
            "fail": FailReply,
            "invalid": InvalidReply,
            "value": ValueError,
            "cancelled": asyncio.CancelledError,
        }[kind](*words)

    async def request_late(self, ctx: RequestContext, kind: str) -> Any:
        """Reply, and go on."""
        ctx.reply("ok", "first")
        if kind == "reply":
            ctx.reply("ok", "second")
        elif kind == "inform":
            ctx.inform("second")
        elif kind == "informs":
            ctx.informs([("second",)])
        elif kind == "return":
            return "second"
        elif kind == "fail":
            raise FailReply("second thoughts")
        elif kind == "invalid":
            raise InvalidReply("second thoughts")
        elif kind == "crash":
            raise ZeroDivisionError("second")
        elif kind == "cancel":
            raise asyncio.CancelledError
        return None

    async def request_informs(self, ctx: RequestContext, count: int, send_reply: bool = True) -> None:
        """Send informs."""
        ctx.inform("one", 1, Mode.IDLE, b"\xff ", True)
        ctx.informs([("line", number) for number in range(count)], send_reply=send_reply)

    async def request_set(self, ctx: RequestContext, name: str, value: str) -> None:
        """Set a sensor."""
        sensor = self.sensors[name]
        sensor.set_value(aiokatcp.decode(sensor.stype, raw(value)), timestamp=TIME)

    async def request_write(self, ctx: RequestContext) -> None:
        """Write by hand."""
        ctx.conn.write_message(Message.inform("by-hand", 1))
        ctx.conn.write_messages([Message.inform("by-hand", 2), Message.inform("by-hand", 3)])
        self.mass_inform("for-all", "x")

    async def request_leave(self, ctx: RequestContext, kind: str) -> None:
        """End the connection."""
        ctx.reply("ok")
        ctx.conn.close() if kind == "close" else ctx.conn.abort()

    async def request_sampler(self, ctx: RequestContext, name: str) -> tuple[Any, ...]:
        """Tell of a sampler."""
        sampler = ctx.conn.get_sampler(self.sensors[name])
        return ("none",) if sampler is None else sampler.parameters()

    def request_future(self, ctx: RequestContext) -> Awaitable[str]:
        """Answer with what is awaitable."""
        future = asyncio.get_running_loop().create_future()
        future.set_result("in the future")
        return future

    async def request_log(self, ctx: RequestContext, level: int, text: str) -> None:
        """Log something."""
        logging.getLogger("device").log(level, text)

    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """List the sensors, and one more."""
        count = await super().request_sensor_list(ctx, name)
        ctx.inform("extra", "", "", "integer")
        return count + 1

    async def request_read(self, ctx: RequestContext) -> None:
        """Have the sensors read."""
        await self.request_sensor_value(ctx)

    def send_version_info(self, ctx: RequestContext, *, send_reply: bool = True) -> None:
        super().send_version_info(ctx, send_reply=False)
        ctx.inform("part", "part-1")
        if send_reply:
            ctx.reply("ok", 4)

    async def unhandled_request(self, ctx: RequestContext, req: Message) -> Any:
        if req.name == "adopted":
            return tuple(req.arguments)
        return await super().unhandled_request(ctx, req)


class Orders:
    def __init__(self, device: Device) -> None:
        self.device = device

    async def set(self, name: str, value: str, status: str = "NOMINAL") -> None:
        sensor = self.device.sensors[name]
        sensor.set_value(aiokatcp.decode(sensor.stype, raw(value)), Sensor.Status[status], TIME)

    async def replace(self, name: str) -> None:
        sensor = Sensor(self.device.sensors[name].stype, name)
        sensor.set_value(sensor.value, timestamp=TIME)
        self.device.sensors.add(sensor)

    async def go_on(self) -> None:
        self.device.go_on.set()

    async def halt(self, cancel: bool) -> None:
        self.device.halt(cancel)


async def main(port: int, max_pending: int = 100) -> None:
    device = Device(port, max_pending)
    handler = device.LogHandler(device)
    logging.getLogger("device").addHandler(handler)
    logging.getLogger("device").setLevel(1)
    logging.getLogger("device").propagate = False
    logging.getLogger("aiokatcp").setLevel(logging.CRITICAL)  # the bytes are what matters here
    await device.start()
    tell("listening", device.sockets[0].getsockname()[1])
    commands = Orders(device)
    async for order in orders_async():
        await obey_async({order[0]: getattr(commands, order[0])}, order)
    await device.stop()


run(main(*map(int, sys.argv[1:])))
