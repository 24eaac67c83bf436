"""This computer as a KATCP device: its telemetry and the state of its clock."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from armillary.__about__ import __version__
from armillary._runtime.groups import single_exception

from .clock import ClockGroup
from .device import Device
from .groups import SensorGroup, sample_group
from .server import Listeners, serve_device
from .telemetry import HostGroup

__all__ = ["HostDevice", "serve_host"]


class HostDevice(Device):
    """The sensors of `HostGroup` and `ClockGroup`. They stay UNKNOWN until somebody samples `groups`.

    Creating one reads everything once, which takes milliseconds or more.
    """

    VERSION = "armillary-host-1.0"
    BUILD_STATE = f"armillary-host-{__version__}"

    def __init__(self) -> None:
        super().__init__()
        self.groups: tuple[SensorGroup[Any], ...] = (HostGroup(), ClockGroup())
        for group in self.groups:
            for sensor in group.sensors:
                self.sensors.add(sensor)


async def serve_host(
    port: int,
    *,
    host: str | None = "127.0.0.1",
    period: float = 1.0,
    task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve this computer's telemetry until cancelled, or until a client asks the device to halt.

    Args:
        port: a TCP port, 0 for a free one.
        host: the address to listen on; every interface if None.
        period: seconds from one reading of the sensors to the next.
        task_status: started with the listeners, when clients can connect and the sensors have been read.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: the period is not a positive, finite number.
    """
    with single_exception():
        async with trio.open_nursery() as nursery:
            device = HostDevice()
            for group in device.groups:
                await nursery.start(partial(sample_group, group, period=period))
            await serve_device(device, port, host=host, task_status=task_status)
            nursery.cancel_scope.cancel(reason="the device was halted")
