"""A client that finds its device again. It serves the dome itself, stops it, and serves it anew."""

from __future__ import annotations

from functools import partial

import trio
from first_device import Dome

from armillary import katcp
from armillary.errors import ConnectionClosed


# [ask]
async def slew(client: katcp.PersistentClient, azimuth: float) -> None:
    try:
        await client.request("slew", azimuth)
    except ConnectionClosed as error:
        again = "perhaps" if error.may_have_been_received else "no"
        print("no reply to the slew; did the dome hear of it?", again)
    else:
        print("the dome points to", azimuth, "degrees")


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        dome = Dome()
        listeners = await nursery.start(partial(katcp.serve_device, dome, 0, host="127.0.0.1"))
        port = katcp.bound_ports(listeners)[0]
        async with katcp.open_persistent_client("127.0.0.1", port, keep_alive=10.0) as client:
            client.add_state_callback(lambda state: print(state.name))
            await client.wait_connected()
            await slew(client, 20.0)

            dome.halt()
            await client.wait_disconnected()
            await slew(client, 40.0)

            await nursery.start(partial(katcp.serve_device, dome, port, host="127.0.0.1"))
            await client.wait_connected()
            await slew(client, 40.0)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
