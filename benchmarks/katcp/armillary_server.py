"""The armillary device that is measured."""

from __future__ import annotations

import functools
import sys

import trio

from armillary import katcp


class Bench(katcp.Device):
    """Echoes, and has as many sensors as asked for."""

    VERSION = "bench-1"
    BUILD_STATE = "bench-1.0"

    async def request_echo(self, ctx: katcp.RequestContext, value: int) -> int:
        """Reply with the value, from a coroutine."""
        return value

    def request_plain_echo(self, ctx: katcp.RequestContext, value: int) -> int:
        """Reply with the value, from a plain function."""
        return value

    async def request_big(self, ctx: katcp.RequestContext, value: bytes) -> bytes:
        """Reply with the bytes."""
        return value

    async def request_update(self, ctx: katcp.RequestContext, rounds: int, breath: int) -> None:
        """Set every sensor so many times, letting others run after every so many updates."""
        sensors = list(self.sensors.values())
        count = 0
        for value in range(1, rounds + 1):
            for sensor in sensors:
                sensor.value = value
                count += 1
                if count % breath == 0:
                    await trio.lowlevel.checkpoint()


async def main(port: int, sensors: int) -> None:
    device = Bench()
    for index in range(sensors):
        device.sensors.add(katcp.Sensor(int, f"bench.sensor-{index:05d}", "A sensor to be read", "m"))
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(katcp.serve_device, device, port, host="127.0.0.1"))
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
