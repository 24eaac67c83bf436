"""The sensors of `armillary.katcp.protocol`, stamped by this computer's clock."""

from __future__ import annotations

import time
from typing import TypeVar

from .protocol import aggregates, sensors

__all__ = ["AggregateSensor", "Sensor", "SimpleAggregateSensor"]

T = TypeVar("T")


class Sensor(sensors.Sensor[T]):
    __doc__ = sensors.Sensor.__doc__
    __slots__ = ()

    @staticmethod
    def now() -> float:
        """The time that a reading gets if none is given, in seconds since 1970-01-01 UTC."""
        return time.time()


class AggregateSensor(aggregates.AggregateSensor[T], Sensor[T]):
    __doc__ = aggregates.AggregateSensor.__doc__
    __slots__ = ()


class SimpleAggregateSensor(aggregates.SimpleAggregateSensor[T], AggregateSensor[T]):
    __doc__ = aggregates.SimpleAggregateSensor.__doc__
    __slots__ = ()
