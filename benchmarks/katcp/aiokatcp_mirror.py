"""The same with aiokatcp. Runs in the peer's environment."""

import asyncio
import sys
import time

import aiokatcp


async def main(port: int, expected: int) -> None:
    client = await aiokatcp.Client.connect("127.0.0.1", port)
    start = time.perf_counter()
    watcher = aiokatcp.SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced.wait()
    print(time.perf_counter() - start)
    assert len(watcher.sensors) == expected
    client.close()
    await client.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
