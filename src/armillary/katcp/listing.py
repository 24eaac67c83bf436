"""Lists of a device's sensors, for people and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from armillary.errors import PeerError

from .client import Client
from .protocol.messages import Message
from .protocol.readings import STATUS_BY_TEXT
from .protocol.values import STANDARD_TYPES
from .text import STATUS_COLOURS, printable

__all__ = ["ListedSensor", "as_json", "as_table", "list_sensors"]

_GAP = "  "
# Columns that one is padded to at most. Wider pads every line for the sake of one long text.
_WIDEST = 40
# How values stand in JSON. All others stay the text that they are on the wire.
_JSON_TYPES: dict[str, type] = {"integer": int, "float": float, "timestamp": float, "boolean": bool}


@dataclass(slots=True)
class ListedSensor:
    """What a server says of one sensor, as it says it."""

    name: bytes
    description: bytes
    units: bytes
    type_name: bytes
    parameters: list[bytes]
    timestamp: bytes = b""
    status: bytes = b""
    value: bytes = b""


async def list_sensors(client: Client, pattern: str | None, *, values: bool) -> list[ListedSensor]:
    """Ask a server for its sensors, in its order.

    Args:
        client: connected to the server.
        pattern: a name or a ``/regex/``, which the server understands; all sensors if None.
        values: ask for their readings, too. A sensor that goes at that very moment has none.

    Raises:
        FailReply: no sensor has that name, or the regular expression is none.
        InvalidReply: the server does not know such requests.
        ConnectionClosed: the connection ended.
        PeerError: what the server answered describes no sensor.
    """
    arguments = () if pattern is None else (pattern,)
    described = client.start_request("sensor-list", *arguments)
    read = client.start_request("sensor-value", *arguments) if values else None
    sensors: dict[bytes, ListedSensor] = {}
    for inform in (await described.wait()).informs:
        if len(inform.arguments) < 4:
            raise _malformed(inform, "#sensor-list name description units type")
        name, description, units, type_name, *parameters = inform.arguments
        sensors[name] = ListedSensor(name, description, units, type_name, parameters)
    if read is not None:
        for inform in (await read.wait()).informs:
            if len(inform.arguments) != 5:
                raise _malformed(inform, "#sensor-value timestamp 1 name status value")
            timestamp, _, name, status, value = inform.arguments
            sensor = sensors.get(name)
            if sensor is not None:
                sensor.timestamp, sensor.status, sensor.value = timestamp, status, value
    return list(sensors.values())


def _malformed(inform: Message, expected: str) -> PeerError:
    return PeerError(f"expected {expected}, got {printable(bytes(inform).rstrip())}")


def as_table(sensors: Sequence[ListedSensor], *, values: bool) -> str:
    """Lines of columns, the first with their titles."""
    rows = [["NAME", *(["STATUS", "VALUE"] if values else []), "UNITS", "TYPE", "DESCRIPTION"]]
    for sensor in sensors:
        reading = [sensor.status, sensor.value] if values else []
        cells = (sensor.name, *reading, sensor.units, sensor.type_name, sensor.description)
        rows.append([printable(raw) for raw in cells])
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    lines = []
    for row, described in zip(rows, [None, *sensors], strict=True):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        status = None if described is None else STATUS_BY_TEXT.get(described.status)
        if status is not None:
            padded[1] = click.style(padded[1], fg=STATUS_COLOURS[status])
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def as_json(sensors: Sequence[ListedSensor], *, values: bool) -> str:
    """One JSON array with a line and an object for each sensor.

    Numbers, timestamps (seconds since 1970-01-01 UTC) and booleans are JSON's. JSON has no NaN and no
    infinities: they are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, because null would say that there is
    no value. All other values, and those that are not of their sensor's type, are strings. The value
    is there whatever the status says of it; a sensor without a reading has null for timestamp, status and
    value.
    """
    lines = [json.dumps(_as_object(sensor, values=values), allow_nan=False) for sensor in sensors]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def _as_object(sensor: ListedSensor, *, values: bool) -> dict[str, Any]:
    type_name = _text(sensor.type_name)
    listed: dict[str, Any] = {
        "name": _text(sensor.name),
        "type": type_name,
        "units": _text(sensor.units),
        "description": _text(sensor.description),
    }
    if sensor.parameters:
        listed["parameters"] = [_text(parameter) for parameter in sensor.parameters]
    if values:
        has_reading = bool(sensor.status)
        listed["timestamp"] = _json_value(sensor.timestamp, "timestamp") if has_reading else None
        listed["status"] = _text(sensor.status) if has_reading else None
        listed["value"] = _json_value(sensor.value, type_name) if has_reading else None
    return listed


def _json_value(raw: bytes, type_name: str) -> Any:
    if type_name not in _JSON_TYPES:
        return _text(raw)
    try:
        value = STANDARD_TYPES.decode(_JSON_TYPES[type_name], raw)
    except ValueError:
        return _text(raw)
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
