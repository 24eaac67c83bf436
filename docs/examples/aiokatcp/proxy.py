"""A server that mirrors the sensors of another under names of its own, and survives its restart."""

import asyncio

from telescope import Mode, start

import aiokatcp


# [proxy]
class Mirror(aiokatcp.SensorWatcher):
    def rewrite_name(self, name: str) -> str:
        return "north." + name


class Proxy(aiokatcp.DeviceServer):
    VERSION = "proxy-1.0"
    BUILD_STATE = "proxy-1.0.0"

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", 0)
        self.client = aiokatcp.Client("127.0.0.1", port)
        self.mirror = Mirror(self.client, [Mode])
        self.mirror.sensors.add_add_callback(self.sensors.add)
        self.mirror.sensors.add_remove_callback(self.sensors.remove)
        self.client.add_sensor_watcher(self.mirror)

    async def on_stop(self) -> None:
        self.client.close()
        await self.client.wait_closed()


# [reconnect]
async def main() -> None:
    telescope = await start(0)
    port = telescope.sockets[0].getsockname()[1]
    proxy = Proxy(port)
    proxy.client.add_connected_callback(lambda: print("connected"))
    proxy.client.add_disconnected_callback(lambda: print("disconnected"))
    await proxy.start()
    await proxy.mirror.synced.wait()
    mode = proxy.sensors["north.mode"]
    print(len(proxy.sensors), "sensors;", mode.value, mode.status.name)

    await telescope.stop()
    await proxy.client.wait_disconnected()
    print(mode.value, mode.status.name)
    telescope = await start(port)
    telescope.mode.value = Mode.POINT
    await proxy.client.wait_connected()
    await proxy.mirror.synced.wait()
    print(mode.value, mode.status.name)

    async with await aiokatcp.Client.connect("127.0.0.1", proxy.sockets[0].getsockname()[1]) as client:
        reading = await client.sensor_reading("north.mode", Mode)
        print(reading.value, reading.status.name)
    await proxy.stop()
    await telescope.stop()


if __name__ == "__main__":
    asyncio.run(main())
# [end]
