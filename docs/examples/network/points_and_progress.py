"""A call that gives results one by one, one that tells how far it is, and two that are given up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

import trio

from armillary import network


# [service]
class Stage(network.Service):
    """A stage that scans: results come while it goes on."""

    scans_ended = 0

    async def scan(self, points: int, step: float = 0.5) -> AsyncIterator[tuple[float, float]]:
        """An asynchronous generator runs in the trio run."""
        try:
            for number in range(points):
                await trio.sleep(0.01)
                yield number * step, (number * step) ** 2
        finally:
            self.scans_ended += 1

    def blocking_scan(self, points: int) -> Iterator[int]:
        """A generator runs in threads, so its driver may block."""
        for number in range(points):
            time.sleep(0.01)
            yield number

    # [progress]
    async def calibrate(self, steps: int) -> str:
        call = network.current_call()
        for step in range(1, steps + 1):
            await trio.sleep(0.01)
            await call.progress(step / steps)
        return "calibrated"

    # [abandoned]
    def go_home(self) -> None:
        call = network.current_call()
        while not call.is_abandoned:
            time.sleep(0.01)
        print("nobody waits for the stage")


# [stream]
async def stream(stage: network.Link) -> None:
    async with stage.stream("scan", 3, step=0.1) as points:
        async for position, signal in points:
            print(f"{signal:.2f} at {position}")
    async with stage.stream("scan", 1_000_000) as points:
        async for position, _ in points:
            if position >= 1.0:
                break
    print("a list:", await stage.blocking_scan(3))
    print("scans that have ended:", await stage.scans_ended())


# [listen]
async def listen(stage: network.Link) -> None:
    done = await stage.with_progress(lambda part: print(f"{part:.0%}")).calibrate(4)
    print(done)


# [give up]
async def give_up(stage: network.Link) -> None:
    with trio.move_on_after(0.1):
        await stage.go_home()


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, 0, host="127.0.0.1"))
        port = network.bound_ports(listeners)[0]
        await nursery.start(partial(network.run_service, Stage(), "127.0.0.1", port, trust=None))
        async with (
            network.open_client("127.0.0.1", port, trust=None) as lab,
            lab.link("Stage") as stage,
        ):
            await stream(stage)
            await listen(stage)
            await give_up(stage)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
