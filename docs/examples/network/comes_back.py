"""A client and a service that find each other again after the manager was away."""

from __future__ import annotations

from functools import partial

import trio

from armillary import network
from armillary.errors import ConnectionClosed


class Counter(network.Service):
    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def count(self) -> int:
        """One more than the last time."""
        self._count += 1
        return self._count


# [once]
async def count_once(counter: network.Link) -> int:
    """Ask again for as long as it is certain that the service has not heard of it."""
    while True:
        try:
            return int(await counter.count())
        except (ConnectionClosed, network.ServiceGone) as error:
            if error.may_have_been_received:
                raise
            await trio.sleep(0.2)


# [manager]
async def manage(port: int, *, task_status: trio.TaskStatus[tuple[int, trio.CancelScope]]) -> None:
    """A manager that can be stopped."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(network.serve_manager, port, host="127.0.0.1"))
            task_status.started((network.bound_ports(listeners)[0], scope))


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        port, running = await nursery.start(manage, 0)
        nursery.start_soon(partial(network.run_service, Counter(), "127.0.0.1", port, trust=None))
        async with (
            network.open_persistent_client("127.0.0.1", port, trust=None) as lab,
            lab.link("Counter") as counter,
        ):
            print("counted to", await count_once(counter))

            running.cancel()
            await lab.wait_disconnected()
            print("the manager is gone:", counter)
            try:
                await counter.count()
            except ConnectionClosed as error:
                print("did the service hear of it?", "perhaps" if error.may_have_been_received else "no")

            await nursery.start(manage, port)
            print("counted to", await count_once(counter))
            print("connections:", lab.connections)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
