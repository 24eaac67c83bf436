"""A balance on the lab network: the service of the tutorial. Usage: balance.py [PORT]."""

from __future__ import annotations

import sys
import time

import trio

from armillary import network


# [service]
class Balance(network.Service):
    """A balance with one pan. What a driver would do, is simulated."""

    UNIT = "g"

    def __init__(self) -> None:
        super().__init__(name="Balance", concurrency=1)
        self._on_pan = 0.0
        self._zero = -0.45  # what it shows when the pan is empty

    def place(self, mass: float) -> None:
        """Put something on the empty pan."""
        if not 0.0 <= mass <= 220.0:
            raise ValueError(f"expected a mass from 0 to 220 g, got {mass} g")
        self._on_pan = mass

    def tare(self) -> None:
        """Call what it shows now zero."""
        self._zero -= self._read()

    # [weigh]
    def weigh(self, readings: int = 3) -> float:
        """The average of some readings, in grams. Each one is told to everybody who listens."""
        total = 0.0
        for number in range(1, readings + 1):
            time.sleep(0.05)
            reading = self._read() + 0.001 * (-1) ** number
            self.emit_notification(number, round(reading, 3))
            total += reading
        return round(total / readings, 4)

    def _read(self) -> float:
        return self._on_pan + self._zero


# [main]
async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        name = await nursery.start(network.run_service, Balance(), "localhost", port)
        print("on the network as", name, flush=True)


if __name__ == "__main__":
    try:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1875)
    except* KeyboardInterrupt:
        print("stopped")
# [end]
