"""Mirror a server's sensors with armillary and print the seconds until they are in step."""

from __future__ import annotations

import sys
import time

import trio

from armillary import katcp


async def main(port: int, expected: int) -> None:
    async with katcp.open_client("127.0.0.1", port) as client:
        start = time.perf_counter()
        async with client.mirror_sensors() as sensors:
            await sensors.wait_synced()
            print(time.perf_counter() - start)
            assert len(sensors) == expected


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
