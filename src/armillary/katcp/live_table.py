"""A table of sensors that fits into a terminal: what is known in, something for rich to print out.

Nothing here knows a clock, a connection or a terminal.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .protocol.readings import Reading, SensorStatus
from .sensors import Sensor
from .text import STATUS_COLOURS, printable, short_value, status_text, utc

__all__ = ["HISTORY", "Board", "render", "sparkline"]

# Values remembered for each sensor, and so the longest curve. More takes 32 bytes each and room in the
# terminal; fewer shows less than half a minute of a sensor that is read every second.
HISTORY = 32
# A curve that is shorter says nothing.
_SHORTEST_CURVE = 8
# Cells that one long name, text or unit may take from the others.
_LONGEST_NAME = 44
_LONGEST_VALUE = 30
_LONGEST_UNITS = 12
# Cells that a value keeps when there is no room.
_SHORTEST_VALUE = 12
_TIME = len("12:34:56")
_GAP = 2
# Lines that are no sensors: the heading, the names of the columns, the line of what is hidden, and the one
# that the cursor stands in.
_OTHER_LINES = 4

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.,-~=*#"
_NUMBERS = frozenset({"integer", "float"})


class _Row:
    """One sensor, and its recent numbers; NaN where it had none."""

    __slots__ = ("history", "name", "order", "reading", "units")

    def __init__(self, sensor: Sensor[Any]) -> None:
        self.name = printable(sensor.name)
        self.units = printable(sensor.units)
        self.order = _natural_order(sensor.name)
        self.history: deque[float] = deque(maxlen=HISTORY)
        self.reading = sensor.reading


class Board:
    """The latest of each sensor, and its recent values if they are numbers."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Sensor[Any], _Row]] = {}
        self.changes = 0
        """Grows with every change, so that one can see whether there is anything new to show."""

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, sensor: Sensor[Any], reading: Reading[Any]) -> None:
        """A sensor has this reading now."""
        known, row = self._rows.get(sensor.name, (None, None))
        if row is None or known is not sensor:
            row = _Row(sensor)
            self._rows[sensor.name] = (sensor, row)
        row.reading = reading
        if sensor.type_name in _NUMBERS:
            row.history.append(_number(reading))
        self.changes += 1

    def remove(self, name: str) -> None:
        """A sensor is gone."""
        if self._rows.pop(name, None) is not None:
            self.changes += 1

    def history(self, name: str) -> list[float]:
        """A sensor's recent values, the oldest first; NaN where they meant nothing."""
        return list(self._rows[name][1].history)

    def rows(self) -> list[_Row]:
        """All sensors by name, ``cpu.2`` before ``cpu.10``."""
        return sorted((row for _, row in self._rows.values()), key=lambda row: row.order)


def render(
    board: Board, heading: str, *, width: int, height: int, ascii_only: bool = False
) -> RenderableType:
    """The board in so many columns and lines, with one line to spare for the cursor.

    Sensors that do not fit are left out, and the last line says how many. A narrow terminal gets no times,
    a narrower one no curves, then no units; in the narrowest, values and names are cut off.

    Args:
        board: what is shown.
        heading: stands in the first line, before the number of sensors.
        width: columns of the terminal.
        height: lines of the terminal.
        ascii_only: draw the curves with ASCII characters.
    """
    rows = board.rows()
    # One line more if all fit: then nothing has to be said of the hidden.
    room = max(1, height - _OTHER_LINES)
    shown = rows if len(rows) <= room + 1 and height > _OTHER_LINES else rows[:room]
    hidden = rows[len(shown) :]
    lines: list[RenderableType] = [_heading(heading, rows)]
    if shown:
        lines.append(_table(shown, width, ascii_only))
    if hidden:
        lines.append(_hidden(hidden))
    return Group(*lines)


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """Numbers as a curve of one character each, from the least at the bottom to the greatest at the top.

    What is not finite is a gap. Numbers that are all the same are a line at the bottom.
    """
    ramp = _ASCII if ascii_only else _BLOCKS
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    # Halves: the difference of two floats may lie beyond all floats.
    lowest = min(finite) / 2
    span = max(finite) / 2 - lowest
    letters = []
    for value in values:
        if not math.isfinite(value):
            letters.append(" ")
        elif span == 0:
            letters.append(ramp[0])
        else:
            letters.append(ramp[min(int((value / 2 - lowest) / span * len(ramp)), len(ramp) - 1)])
    return "".join(letters)


def _number(reading: Reading[Any]) -> float:
    """The value, as a number if it means anything."""
    if not reading.status.valid_value():
        return math.nan
    try:
        return float(reading.value)
    except OverflowError:  # an integer beyond all floats
        return math.nan


def _natural_order(name: str) -> list[Any]:
    # Every other part is a number, so that numbers are only compared with numbers. Those of more digits
    # than any counter has stay text: turning them into numbers takes long, and Python refuses to.
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]{1,18})", name))]


def _heading(heading: str, rows: Sequence[_Row]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(printable(heading), style="bold")
    text.append(f"  {len(rows)} sensors" if len(rows) != 1 else "  1 sensor")
    for status, count in _troubles(rows):
        text.append(f"  {count} {status_text(status)}", style=STATUS_COLOURS[status])
    return text


def _hidden(rows: Sequence[_Row]) -> Text:
    troubles = ", ".join(f"{count} {status_text(status)}" for status, count in _troubles(rows))
    return Text(
        f"and {len(rows)} more, hidden below" + (f": {troubles}" if troubles else ""),
        style="italic",
        no_wrap=True,
        overflow="ellipsis",
    )


def _troubles(rows: Sequence[_Row]) -> list[tuple[SensorStatus, int]]:
    """The statuses that somebody should look at, and how many sensors have them."""
    statuses = [row.reading.status for row in rows]
    return [
        (status, statuses.count(status))
        for status in (
            SensorStatus.ERROR,
            SensorStatus.FAILURE,
            SensorStatus.WARN,
            SensorStatus.UNREACHABLE,
        )
        if status in statuses
    ]


def _table(rows: Sequence[_Row], width: int, ascii_only: bool) -> Table:
    values = [short_value(row.reading.value) for row in rows]
    statuses = [status_text(row.reading.status) for row in rows]
    name_width = _widest("Sensor", (row.name for row in rows), _LONGEST_NAME)
    status_width = _widest("Status", statuses, width)
    value_width = _widest("Value", values, _LONGEST_VALUE)
    units_width = _widest("Units", (row.units for row in rows), _LONGEST_UNITS)
    # What is left of the line is for the curves, then for the times. Where there is too little, the units go
    # first, then the ends of the values, then those of the names.
    rest = width - name_width - status_width - value_width - units_width - 3 * _GAP
    has_units = rest >= 0
    if not has_units:
        rest += units_width + _GAP
        cut = min(max(-rest, 0), max(value_width - _SHORTEST_VALUE, 0))
        value_width -= cut
        name_width = max(1, name_width + min(rest + cut, 0))
    has_time = rest >= _SHORTEST_CURVE + _TIME + 2 * _GAP
    curve = min(HISTORY, rest - _GAP - (_TIME + _GAP if has_time else 0))
    has_curve = has_units and curve >= _SHORTEST_CURVE

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("Sensor", no_wrap=True, overflow="ellipsis", width=name_width)
    table.add_column("Status", no_wrap=True, overflow="ellipsis", width=status_width)
    table.add_column("Value", no_wrap=True, overflow="ellipsis", width=value_width, justify="right")
    if has_units:
        table.add_column("Units", no_wrap=True, overflow="ellipsis", width=units_width)
    if has_curve:
        table.add_column("Recent", no_wrap=True, width=curve)
    if has_time:
        table.add_column("UTC", no_wrap=True, width=_TIME)
    for row, status_word, value in zip(rows, statuses, values, strict=True):
        status = row.reading.status
        cells = [
            # Text, not str: rich would take brackets in a str for markup.
            Text(row.name),
            Text(status_word, style=STATUS_COLOURS[status]),
            Text(value, style="" if status.valid_value() else "dim"),
        ]
        if has_units:
            cells.append(Text(row.units, style="dim"))
        if has_curve:
            recent = list(row.history)[-curve:]
            cells.append(Text(sparkline(recent, ascii_only=ascii_only).rjust(curve), style="blue"))
        if has_time:
            cells.append(Text(utc(row.reading.timestamp)[11:19], style="dim"))
        table.add_row(*cells)
    return table


def _widest(title: str, texts: Iterable[str], limit: int) -> int:
    return min(limit, max([cell_len(title), *map(cell_len, texts)]))
