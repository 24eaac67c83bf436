"""An inspecting client of katcp-python, which tells what changes: ``katcp_inspecting_client.py PORT``."""

import logging
import sys
from typing import Any

from katcp.inspecting_client import InspectingClientAsync
from katcp.ioloop_manager import IOLoopManager
from katcp.resource_client import IOLoopThreadWrapper
from told import obey, orders, tell

PATIENCE = 10.0


def take_state(state: Any, changes: Any) -> None:
    tell("state", bool(state.connected), bool(state.synced))
    if changes is not None and "sensors" in changes:
        tell("sensors", sorted(changes["sensors"]["added"]), sorted(changes["sensors"]["removed"]))


def main(port: int) -> None:
    manager = IOLoopManager()
    loop = manager.get_ioloop()
    client = InspectingClientAsync("127.0.0.1", port, ioloop=loop)
    client.set_state_callback(take_state)
    manager.start(timeout=PATIENCE)
    in_loop = IOLoopThreadWrapper(loop)

    def call(function: Any, *arguments: Any, **options: Any) -> Any:
        return in_loop.call_in_ioloop(function, arguments, options, timeout=PATIENCE)

    call(client.connect)

    def find(name: str) -> list | None:
        """What the client knows of a sensor, asking the server if it must."""
        sensor = call(client.future_get_sensor, name)
        return None if sensor is None else [sensor.type, sensor.description, sensor.units]

    for order in orders():
        obey({"find": find}, order)
    call(client.stop)
    call(client.until_stopped, timeout=PATIENCE)
    manager.stop()
    manager.join(PATIENCE)


logging.disable()
main(int(sys.argv[1]))
