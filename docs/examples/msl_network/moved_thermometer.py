"""The thermometer with its manager, moved to armillary's own API. Usage: moved_thermometer.py PORT."""

from __future__ import annotations

import sys
from functools import partial

import trio

from armillary import network


# [service]
class Thermometer(network.Service):
    """A thermometer with four channels. What a driver would do, is simulated."""

    unit = "C"

    def __init__(self) -> None:
        super().__init__(name="Thermometer", max_clients=2, concurrency=1)

    def read(self, channel: int) -> float:
        """The temperature."""
        if not 1 <= channel <= 4:
            raise ValueError(f"there is no channel {channel}")
        return 20.0 + channel / 2

    def watch(self, channel: int, readings: int) -> str:
        """Tell some readings to everybody who is linked."""
        for number in range(1, readings + 1):
            self.emit_notification(number, self.read(channel))
        return "done"

    def shutdown_service(self) -> str:
        """Let clients end it."""
        return "switched off"


# [run]
async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(network.serve_manager, port))
        await network.run_service(Thermometer(), "localhost", port, trust=None)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
# [end]
