"""How long a server takes to start, and how busy it is when nothing happens. Prints seconds, both."""

import asyncio
import statistics
import sys
import time

import aiokatcp

ROUNDS = 200
IDLE = 5.0


class Quiet(aiokatcp.DeviceServer):
    """A device with nothing to do."""

    VERSION = "quiet-1"
    BUILD_STATE = "quiet-1.0"


async def start() -> float:
    server = Quiet("127.0.0.1", 0)
    begin = time.perf_counter()
    await server.start()
    taken = time.perf_counter() - begin
    await server.stop()
    return taken


async def idle() -> float:
    server = Quiet("127.0.0.1", 0)
    await server.start()
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.5)
    begin = time.process_time()
    await asyncio.sleep(IDLE)
    taken = time.process_time() - begin
    writer.close()
    await server.stop()
    return taken


if __name__ == "__main__":
    run = asyncio.run
    if sys.argv[1:] == ["uvloop"]:
        import uvloop

        run = uvloop.run
    # Each in a loop of its own: what the first user of a loop pays is part of it.
    print(statistics.median(run(start()) for _ in range(ROUNDS)), run(idle()))
