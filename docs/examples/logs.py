"""Log records of a device's program, sent to its clients. It serves the device itself."""

from __future__ import annotations

import logging
from functools import partial

import trio
from first_device import Dome

from armillary import katcp

logger = logging.getLogger("dome")


# [thread]
def read_camera() -> None:
    """What blocks runs in a worker thread; what is logged there reaches the clients all the same."""
    logger.warning("the camera answers slowly")


# [receive]
async def show_logs(client: katcp.Client, *, task_status: trio.TaskStatus[None]) -> None:
    with client.informs("log") as logs:
        task_status.started()
        async for message in logs:
            level, _timestamp, name, text = (argument.decode() for argument in message.arguments)
            print(level, name, text)


# [forward]
async def main() -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    async with trio.open_nursery() as nursery:
        dome = Dome()
        listeners = await nursery.start(partial(katcp.serve_device, dome, 0, host="127.0.0.1"))
        port = katcp.bound_ports(listeners)[0]
        with katcp.forward_logs(dome):
            async with katcp.open_client("127.0.0.1", port) as client, trio.open_nursery() as reading:
                await reading.start(show_logs, client)
                logger.info("not sent: the level is warn until a client sets another")
                await client.request("log-level", katcp.LogLevel.INFO)
                logger.info("the slit is open")
                await trio.to_thread.run_sync(read_camera)
                await trio.sleep(0.1)
                reading.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
