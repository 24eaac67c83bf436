"""End and restart a device with grace. Usage: restart_and_halt.py [PORT]; end it with Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
from functools import partial

import trio
from first_device import Dome

from armillary import katcp


# [restart]
class RestartableDome(Dome):
    BUILD_STATE = "restartable-dome-1.0.0"

    async def on_restart(self) -> None:
        print("looking for the index mark", flush=True)
        await trio.sleep(0.2)
        self.azimuth.value = 0.0


# [signals]
async def cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            scope.cancel(reason=f"{signal.Signals(number).name} was received")
            return


# [main]
async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        async with trio.open_nursery() as serving:
            serve = partial(katcp.serve_device, RestartableDome(), port, host="127.0.0.1", drain=5.0)
            listeners = await serving.start(serve)
            print("listening on port", katcp.bound_ports(listeners)[0], flush=True)
        # Only ?halt leads here; a signal cancels all of it.
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7147)
    print("ended")
# [end]
