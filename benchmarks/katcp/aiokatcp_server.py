"""The same device for aiokatcp. Runs in the peer's environment, and over the façade in ours."""

import asyncio
import sys

import aiokatcp


class Bench(aiokatcp.DeviceServer):
    """Echoes, and has as many sensors as asked for."""

    VERSION = "bench-1"
    BUILD_STATE = "bench-1.0"

    async def request_echo(self, ctx, value: int) -> int:
        """Reply with the value."""
        return value

    request_plain_echo = request_echo  # a plain function cannot answer there

    async def request_big(self, ctx, value: bytes) -> bytes:
        """Reply with the bytes."""
        return value

    async def request_update(self, ctx, rounds: int, breath: int) -> None:
        """Set every sensor so many times, letting others run after every so many updates."""
        sensors = list(self.sensors.values())
        count = 0
        for value in range(1, rounds + 1):
            for sensor in sensors:
                sensor.value = value
                count += 1
                if count % breath == 0:
                    await asyncio.sleep(0)


async def main(port: int, sensors: int) -> None:
    server = Bench("127.0.0.1", port)
    for index in range(sensors):
        server.sensors.add(aiokatcp.Sensor(int, f"bench.sensor-{index:05d}", "A sensor to be read", "m"))
    await server.start()
    print("ready", flush=True)
    await server.join()


if __name__ == "__main__":
    run = asyncio.run
    if sys.argv[3:] == ["uvloop"]:
        import uvloop

        run = uvloop.run
    run(main(int(sys.argv[1]), int(sys.argv[2])))
