"""A device with this computer's telemetry, its clock, and a group of its own. It prints some sensors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import trio

from armillary import katcp
from armillary.katcp.clock import ClockGroup
from armillary.katcp.groups import Above
from armillary.katcp.telemetry import HostGroup
from armillary.katcp.thresholds import Thresholds


# [own]
class DoorGroup:
    """Whether the door of the control room is open: a contact that the system shows as a file."""

    def __init__(self, contact: Path) -> None:
        self._contact = contact
        self.door = katcp.Sensor(bool, "door-open", "Whether the door of the control room is open")
        self.sensors = (self.door,)

    def read(self) -> bool:  # in a worker thread: may block, touches no sensor
        return self._contact.read_text().strip() == "1"

    def apply(self, measured: bool, /) -> None:  # in trio's thread
        self.door.value = measured


# [device]
class ControlRoom(katcp.Device):
    VERSION = "control-room-1.0"
    BUILD_STATE = "control-room-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        thresholds = Thresholds(disk=Above(warn=70.0, error=90.0))
        self.groups: list[katcp.SensorGroup[Any]] = [
            HostGroup(thresholds=thresholds),
            ClockGroup(),
            DoorGroup(Path("/run/control-room/door")),
        ]
        for group in self.groups:
            for sensor in group.sensors:
                self.sensors.add(sensor)


# [serve]
async def serve(port: int, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
    device = ControlRoom()
    async with trio.open_nursery() as nursery:
        for group in device.groups:
            await nursery.start(partial(katcp.sample_group, group, period=1.0))
        await katcp.serve_device(device, port, host="127.0.0.1", task_status=task_status)
        nursery.cancel_scope.cancel()


# [main]
async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(serve, 0)
        port = katcp.bound_ports(listeners)[0]
        async with katcp.open_client("127.0.0.1", port) as client:
            for name in ("host.memory.percent", "host.uptime", "clock.state", "door-open"):
                reading = await client.sensor_reading(name)
                print(name, reading.value, reading.status.name)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
# [end]
