"""A resource client of katcp-python, which inspects its device: ``katcp_resource_client.py PORT``."""

import logging
import sys
from typing import Any

from katcp.ioloop_manager import IOLoopManager
from katcp.resource_client import (
    IOLoopThreadWrapper,
    KATCPClientResource,
    ThreadSafeKATCPClientResourceWrapper,
)
from told import obey, orders, raw, tell, text

PATIENCE = 10.0


class Orders:
    """What a test can make the client do."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def sync(self) -> None:
        """Wait until all requests and sensors are known."""
        self.device.until_synced(timeout=PATIENCE)

    def lose(self) -> None:
        """Wait until the device is not synced any more."""
        self.device.until_not_synced(timeout=PATIENCE)

    def sensors(self) -> dict[str, list[str]]:
        return {
            sensor.name: [sensor.type, sensor.description, sensor.units]
            for sensor in (getattr(self.device.sensor, name) for name in dir_of(self.device.sensor))
        }

    def requests(self) -> list[str]:
        return sorted(getattr(self.device.req, name).name for name in dir_of(self.device.req))

    def request(self, name: str, *arguments: str) -> list:
        reply = getattr(self.device.req, name)(*map(raw, arguments), timeout=PATIENCE)
        return [reply.succeeded, [text(argument) for argument in reply.reply.arguments], len(reply.informs)]

    def value(self, name: str) -> Any:
        return getattr(self.device.sensor, name).get_value()

    def sample(self, name: str, strategy: str) -> None:
        """Sample a sensor, which need not be there yet, and tell its readings."""

        def take(sensor: Any, reading: Any) -> None:
            tell("reading", name, reading.timestamp, reading.status, reading.value)

        self.device.set_sensor_listener(name, take)
        self.device.set_sampling_strategy(name, strategy)

    def sample_all(self, pattern: str, strategy: str) -> dict[str, Any]:
        return {
            name: list(told) for name, told in self.device.set_sampling_strategies(pattern, strategy).items()
        }

    def reading(self, name: str) -> list:
        reading = getattr(self.device.sensor, name).reading
        return [reading.status, reading.value, reading.timestamp]


def dir_of(attributes: Any) -> list[str]:
    return sorted(name for name in attributes)


def main(port: int) -> None:
    manager = IOLoopManager()
    loop = manager.get_ioloop()
    resource = KATCPClientResource({"name": "device", "address": ("127.0.0.1", port), "controlled": True})
    resource.set_ioloop(loop)
    manager.start(timeout=PATIENCE)
    device = ThreadSafeKATCPClientResourceWrapper(resource, IOLoopThreadWrapper(loop))
    device.start()
    commands: Any = Orders(device)
    for order in orders():
        obey({order[0]: getattr(commands, order[0])}, order)
    device.stop()
    device.until_stopped(timeout=PATIENCE)
    manager.stop()
    manager.join(PATIENCE)


logging.disable()
main(int(sys.argv[1]))
