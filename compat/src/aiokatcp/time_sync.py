"""Sensors of how well this computer's clock is synchronised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from armillary.katcp.clock import ClockState
from armillary.katcp.clock import TimeSyncUpdater as _NativeUpdater
from armillary.katcp.sensors import Sensor

from . import adjtimex

__all__ = ["ClockState", "TimeSyncUpdater"]


class TimeSyncUpdater(_NativeUpdater):
    """Sets sensors from the kernel's view of its clock, at each call of `update`.

    Args:
        sensor_map: any of ``state`` (a sensor of `ClockState`), ``maxerror`` and ``esterror`` (seconds).

    Raises:
        KeyError: `sensor_map` has another key.
    """

    def __init__(self, sensor_map: Mapping[str, Sensor[Any]]) -> None:
        # Looked up at each call: tests of programs replace the module's function.
        super().__init__(sensor_map, read=lambda: adjtimex.get_adjtimex())
