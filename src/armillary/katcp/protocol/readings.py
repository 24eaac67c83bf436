"""What a sensor reads: a value, how good it is, and when it was so (guidelines revision 5, section 4.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from .values import enum_text

__all__ = ["STATUS_BY_TEXT", "STATUS_TEXT", "Reading", "SensorStatus"]

T = TypeVar("T")


class SensorStatus(enum.IntEnum):
    """How good a reading is."""

    UNKNOWN = 0
    """Never set since the device started."""
    NOMINAL = 1
    """Within its normal range."""
    WARN = 2
    """Outside its normal range."""
    ERROR = 3
    """Outside the range in which the device works."""
    FAILURE = 4
    """The sensor itself is broken: the value means nothing."""
    UNREACHABLE = 5
    """A proxy lost its device: the value is the last one known."""
    INACTIVE = 6
    """Not applicable now: the value means nothing."""

    def valid_value(self) -> bool:
        """Whether the value that comes with this status means anything."""
        return SensorStatus.NOMINAL <= self <= SensorStatus.ERROR


# Tables instead of the enum codec: these are looked up for every update that is sent or received.
STATUS_TEXT = [enum_text(status) for status in SensorStatus]
STATUS_BY_TEXT = {enum_text(status): status for status in SensorStatus}


@dataclass(slots=True)
class Reading(Generic[T]):
    """One reading of a sensor."""

    timestamp: float
    """When the value was so, in seconds since 1970-01-01 UTC."""
    status: SensorStatus
    value: T
