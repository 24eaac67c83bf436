"""An instrument on a serial line, whose driver blocks and can do one thing at a time."""

from __future__ import annotations

import threading
import time
from functools import partial

import trio

from armillary import network


class SerialLine:
    """Stands for pyserial, or any other driver: it blocks, and two threads at once would be garbage."""

    def __init__(self) -> None:
        self._is_busy = threading.Lock()

    def query(self, command: str) -> str:
        if not self._is_busy.acquire(blocking=False):
            raise OSError("two commands on the line at once")
        time.sleep(0.02)
        self._is_busy.release()
        return "25.0" if command == "TEMP?" else f"{command} done"


# [service]
class Pump(network.Service):
    def __init__(self, line: SerialLine) -> None:
        super().__init__(name="Pump", max_clients=4, concurrency=1)
        self._line = line

    @property
    def temperature(self) -> float:
        """In degrees Celsius."""
        return float(self._line.query("TEMP?"))

    def dose(self, volume: float) -> str:
        """Dose a volume, in microlitres."""
        asked_by = network.current_request().requester or ""
        return f"{self._line.query(f'DOSE {volume}')} for {asked_by.partition('[')[0]}"


# [object]
class Valve:
    """No service at all, and it need not know of any."""

    def __init__(self, line: SerialLine) -> None:
        self.line = line
        self.position = "A"

    def turn(self, position: str) -> str:
        self.position = position
        return self.line.query(f"TURN {position}")


def valve_service(line: SerialLine) -> network.Service:
    return network.Service(Valve(line), name="Valve", ignore=["line"], concurrency=1)


# [main]
async def dose(port: int, name: str, volume: float) -> None:
    async with (
        network.open_client("127.0.0.1", port, name=name, trust=None) as lab,
        lab.link("Pump") as pump,
    ):
        print(await pump.dose(volume))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, 0, host="127.0.0.1"))
        port = network.bound_ports(listeners)[0]
        for service in (Pump(SerialLine()), valve_service(SerialLine())):
            await nursery.start(partial(network.run_service, service, "127.0.0.1", port, trust=None))

        async with trio.open_nursery() as doses:
            for number, name in enumerate(("Alice", "Bob", "Carol")):
                doses.start_soon(dose, port, name, 10.0 * number)

        async with network.open_client("127.0.0.1", port, trust=None) as lab:
            async with lab.link("Pump") as pump, lab.link("Valve") as valve:
                print("temperature:", await pump.temperature())
                print(await valve.turn("B"), "and the position is", await valve.position())
                print("Valve offers", *valve.service_attributes)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
