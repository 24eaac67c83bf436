"""The device that ``peers/aiokatcp_server.py`` serves with aiokatcp, served with armillary."""

from __future__ import annotations

import enum

import trio

from armillary.katcp import (
    Address,
    Device,
    FailReply,
    InvalidReply,
    Now,
    RequestContext,
    Sensor,
    SensorStatus,
    Strategy,
    Timestamp,
    TimestampOrNow,
)

TIME = 1234567890.5
"""When its sensors were read first."""


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


class ParityDevice(Device):
    """A device with a sensor, and a request argument, of every type."""

    VERSION = "parity-1.0"
    BUILD_STATE = "parity-1.0.3"

    def __init__(self, sensors: int = 0) -> None:
        super().__init__()
        for sensor in (
            Sensor(float, "temperature", "Air temperature", "degC"),
            Sensor(int, "counter", "Requests to count so far"),
            Sensor(bool, "enabled", "Whether it may move"),
            Sensor(Mode, "mode", "What it does"),
            Sensor(Colour, "colour", "Colour of its lamp"),
            Sensor(Address, "peer.address", "Where its data goes"),
            Sensor(Timestamp, "since", "When it was started"),
            Sensor(str, "label", "A name for people"),
            Sensor(bytes, "serial", "Whatever its maker wrote"),
            Sensor(
                float,
                "lazy",
                "Prefers to be sampled rarely",
                auto_strategy=Strategy.DIFFERENTIAL,
                auto_strategy_parameters=(10.0,),
            ),
        ):
            sensor.set_value(sensor.value, SensorStatus.UNKNOWN, TIME)
            self.sensors.add(sensor)
        for number in range(sensors):
            self.sensors.add(Sensor(float, f"many.{number:04}", default=float(number)))

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_add(self, ctx: RequestContext, a: int, b: int = 1) -> int:
        """Add two numbers.

        The second is 1 if it is missing.
        """
        return a + b

    async def request_types(
        self,
        ctx: RequestContext,
        integer: int,
        number: float,
        boolean: bool,
        time: Timestamp,
        mode: Mode,
        address: Address,
        words: str,
    ) -> tuple[object, ...]:
        """Decode and encode an argument of every type."""
        return (integer, number, boolean, time, mode, address, words)

    async def request_when(self, ctx: RequestContext, time: TimestampOrNow) -> str:
        """Take a time or now."""
        return "now" if time is Now.NOW else repr(float(time))

    async def request_either(self, ctx: RequestContext, value: float | None = None) -> bool:
        """Tell whether there is an argument."""
        return value is not None

    async def request_refuse(self, ctx: RequestContext, reason: str) -> None:
        """Fail politely."""
        raise FailReply(reason)

    async def request_disown(self, ctx: RequestContext, reason: str) -> None:
        """Call the request invalid."""
        raise InvalidReply(reason)

    async def request_crash(self, ctx: RequestContext) -> None:
        """Fail with a traceback."""
        raise RuntimeError("crashed on request")

    async def request_recite(self, ctx: RequestContext, count: int) -> None:
        """Answer with informs."""
        ctx.informs([("line", number) for number in range(count)])

    async def request_sleep(self, ctx: RequestContext, seconds: float) -> None:
        """Reply after some seconds."""
        await trio.sleep(seconds)
