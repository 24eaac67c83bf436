"""Sensors as text for people: values, times, and what must not reach a terminal as it is."""

from __future__ import annotations

from typing import Any

from armillary._wire.text import printable, utc

from .protocol.readings import SensorStatus
from .protocol.values import STANDARD_TYPES, Timestamp

__all__ = ["STATUS_COLOURS", "printable", "short_value", "status_text", "utc", "wire_value"]

# Names that both click and rich know.
STATUS_COLOURS = {
    SensorStatus.UNKNOWN: "bright_black",
    SensorStatus.NOMINAL: "green",
    SensorStatus.WARN: "yellow",
    SensorStatus.ERROR: "red",
    SensorStatus.FAILURE: "magenta",
    SensorStatus.UNREACHABLE: "cyan",
    SensorStatus.INACTIVE: "bright_black",
}


def status_text(status: SensorStatus) -> str:
    """The word for a status that is used on the wire."""
    return status.name.lower()


def wire_value(value: Any) -> str:
    """A sensor's value with all its digits, as it goes over the wire before escaping."""
    return printable(STANDARD_TYPES.encode(value))


def short_value(value: Any) -> str:
    """A sensor's value as a person wants to read it at a glance."""
    if isinstance(value, Timestamp):
        text = utc(value)
        return text[:19].replace("T", " ") if text.endswith("Z") else text
    if isinstance(value, float):
        # Large numbers are counts and frequencies: they are read digit by digit, not as powers of ten.
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.10g}"
    return wire_value(value)
