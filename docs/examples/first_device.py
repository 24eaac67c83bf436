"""A dome that turns: the device of the tutorials. Usage: first_device.py [PORT]."""

from __future__ import annotations

import enum
import sys
from functools import partial

import trio

from armillary import katcp

STEP = 5.0  # degrees that the dome turns in 0.05 s


# [device]
class Motion(enum.Enum):
    IDLE = 0
    MOVING = 1


class Dome(katcp.Device):
    """A dome with a slit, which can point anywhere around the horizon."""

    VERSION = "dome-1.0"
    BUILD_STATE = "dome-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.azimuth = katcp.Sensor(float, "azimuth", "Where the slit points", "deg")
        self.motion = katcp.Sensor(Motion, "motion", "Whether the dome turns")
        for sensor in (self.azimuth, self.motion):
            self.sensors.add(sensor)
        self.azimuth.value = 0.0
        self.motion.value = Motion.IDLE

    # [requests]
    def request_azimuth_offset(self, ctx: katcp.RequestContext, degrees: float) -> float:
        """Correct the azimuth by so many degrees, and tell what it is now."""
        self.azimuth.value = (self.azimuth.value + degrees) % 360.0
        return self.azimuth.value

    # [slew]
    async def request_slew(self, ctx: katcp.RequestContext, azimuth: float) -> float:
        """Turn to an azimuth, 0 to 360 degrees, and reply when the dome is there."""
        if not 0.0 <= azimuth < 360.0:
            raise katcp.FailReply(f"expected an azimuth from 0 to 360 degrees, got {azimuth}")
        if self.motion.value is Motion.MOVING:
            raise katcp.FailReply("the dome is turning already")
        self.motion.value = Motion.MOVING
        try:
            while self.azimuth.value != azimuth:
                await trio.sleep(0.05)
                self.azimuth.value = towards(azimuth, self.azimuth.value)
        finally:
            self.motion.value = Motion.IDLE  # cancelled or not, the motor stands
        return azimuth


def towards(target: float, azimuth: float) -> float:
    if abs(target - azimuth) <= STEP:
        return target
    return azimuth + STEP if target > azimuth else azimuth - STEP


# [main]
async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(katcp.serve_device, Dome(), port, host="127.0.0.1")
        listeners = await nursery.start(serve)
        print("listening on port", katcp.bound_ports(listeners)[0], flush=True)


if __name__ == "__main__":
    try:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7147)
    except* KeyboardInterrupt:
        print("stopped")
# [end]
