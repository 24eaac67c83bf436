"""What a caller sees when a service dies, and when it was not there at all."""

from __future__ import annotations

from functools import partial

import trio

from armillary import network


class Laser(network.Service):
    async def warm_up(self) -> None:
        await trio.sleep(3600)


# [service]
async def run_laser(port: int, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(network.run_service, Laser(), "127.0.0.1", port, trust=None))
            task_status.started(scope)


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, 0, host="127.0.0.1"))
        port = network.bound_ports(listeners)[0]
        running = await nursery.start(run_laser, port)
        async with (
            network.open_client("127.0.0.1", port, trust=None) as lab,
            lab.link("Laser") as laser,
        ):
            warming = laser.start_call("warm_up")
            await lab.identities()  # the manager answers in order: it has sent our call on
            running.cancel()
            await explain(warming)
            await explain(laser.start_call("warm_up"))
        nursery.cancel_scope.cancel()


async def explain(call: network.PendingCall) -> None:
    try:
        await call.wait()
    except network.ServiceGone as error:
        print(
            error.type_name,
            "- did the service hear of it?",
            "perhaps" if error.may_have_been_received else "no",
        )


if __name__ == "__main__":
    trio.run(main)
# [end]
