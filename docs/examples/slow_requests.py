"""A hundred requests that each take half a second, in little more than half a second."""

from __future__ import annotations

from functools import partial

import trio

from armillary import katcp


# [device]
class Spectrometer(katcp.Device):
    VERSION = "spectrometer-1.0"
    BUILD_STATE = "spectrometer-1.0.0"

    async def request_expose(self, ctx: katcp.RequestContext, seconds: float) -> float:
        """Open the shutter for some seconds."""
        await trio.sleep(seconds)
        return seconds


# [client]
async def expose(port: int, times: int) -> None:
    async with katcp.open_client("127.0.0.1", port) as client:
        exposures = [client.start_request("expose", 0.5) for _ in range(times)]
        for exposure in exposures:
            await exposure.wait()


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(katcp.serve_device, Spectrometer(), 0, host="127.0.0.1"))
        port = katcp.bound_ports(listeners)[0]
        start = trio.current_time()
        async with trio.open_nursery() as clients:
            for _ in range(4):
                clients.start_soon(expose, port, 25)
        print(f"100 exposures of 0.5 s in {trio.current_time() - start:.1f} s")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
