"""A client: requests, informs, failures, and a watcher of sensors."""

import asyncio
from typing import List

from telescope import Mode, start

import aiokatcp


# [watcher]
class Printer(aiokatcp.AbstractSensorWatcher):
    def __init__(self) -> None:
        self.synced = asyncio.Event()

    def filter(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> bool:
        return name in ("mode", "mean-temperature")

    def sensor_added(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> None:
        print("added", name, type_name, *[arg.decode() for arg in args])

    def sensor_updated(
        self, name: str, value: bytes, status: aiokatcp.Sensor.Status, timestamp: float
    ) -> None:
        print("updated", name, value.decode(), status.name)

    def state_updated(self, state: aiokatcp.SyncState) -> None:
        print("state", state.name)
        if state is aiokatcp.SyncState.SYNCED:
            self.synced.set()


# [client]
async def observe(port: int) -> None:
    async with await aiokatcp.Client.connect("127.0.0.1", port) as client:
        reply, informs = await client.request("heat", 2, 12.5)
        print("mean", aiokatcp.decode(float, reply[0]), [inform.arguments[0].decode() for inform in informs])
        try:
            await client.request("heat", 7)
        except aiokatcp.FailReply as error:
            print("failed:", error)
        try:
            await client.request("hide")
        except aiokatcp.InvalidReply as error:
            print("invalid:", error)

        logs: List[str] = []
        heard = asyncio.Event()

        def log(level: aiokatcp.core.LogLevel, timestamp: aiokatcp.Timestamp, name: str, text: str) -> None:
            logs.append(f"{level.name} {name}")
            heard.set()

        client.add_inform_callback("log", log)
        watcher = Printer()
        client.add_sensor_watcher(watcher)
        await watcher.synced.wait()
        await client.request("mode", Mode.NIGHT_SKY)
        await heard.wait()
        print("logs", logs)
        print("mode", await client.sensor_value("mode", Mode), await client.sensor_value("mode"))


async def main() -> None:
    server = await start(0)
    await observe(server.sockets[0].getsockname()[1])
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
# [end]
