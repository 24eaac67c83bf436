"""One program, half moved: an aiokatcp server, a native client of it, and a native device, on one loop."""

import asyncio
from functools import partial

import trio
from telescope import Mode, Telescope, start

from armillary import katcp
from armillary_compat.futures import call_asyncio, call_trio
from armillary_compat.guest import Guest


# [client]
async def wait_for_night_sky(port: int) -> str:
    """Trio code: the new part of the program."""
    async with katcp.open_client("127.0.0.1", port) as client:
        async with client.mirror_sensors(enum_types=[Mode]) as sensors:
            with trio.fail_after(5):
                reading = await sensors.wait_for("mode", lambda reading: reading.value is Mode.NIGHT_SKY)
    return f"{reading.value.name} {reading.status.name}"


# [device]
class Dome(katcp.Device):
    """A native device that still needs the old one."""

    VERSION = "dome-1.0"
    BUILD_STATE = "dome-1.0.0"

    def __init__(self, telescope: Telescope) -> None:
        super().__init__()
        self.telescope = telescope

    async def request_open(self, ctx: katcp.RequestContext) -> str:
        """Open the slit when the telescope is ready."""
        return await call_asyncio(self.ask_old_code)

    async def ask_old_code(self) -> str:
        """An asyncio coroutine, as the rest of the old program."""
        await asyncio.sleep(0.01)
        return f"the telescope is in {self.telescope.mode.value.name}"


# [main]
async def main() -> None:
    telescope = await start(0)
    port = telescope.sockets[0].getsockname()[1]

    # A trio function, awaited as if it were a coroutine of asyncio: it can be cancelled and waited for.
    async with asyncio.TaskGroup() as group:
        seen = group.create_task(call_trio(wait_for_night_sky, port))
        await asyncio.sleep(0.1)
        telescope.mode.value = Mode.NIGHT_SKY
    print("the native client saw", seen.result())

    # A trio task beside the asyncio ones. It ends when it is cancelled, or with the loop.
    ports: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    dome = Guest.current().start_soon(serve, Dome(telescope), ports)
    (dome_port,) = await ports
    print("the native device says", await call_trio(open_dome, dome_port))
    dome.cancel()
    await asyncio.wait([dome.future])
    await telescope.stop()


async def serve(device: katcp.Device, ports: asyncio.Future[list[int]]) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(katcp.serve_device, device, 0, host="127.0.0.1"))
        ports.set_result(katcp.bound_ports(listeners))


async def open_dome(port: int) -> str:
    async with katcp.open_client("127.0.0.1", port) as client:
        reply, _ = await client.request("open")
    return reply[0].decode()


if __name__ == "__main__":
    asyncio.run(main())
# [end]
