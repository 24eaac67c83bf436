"""The table of sensors, without a terminal."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from armillary.katcp import Sensor, SensorStatus, Timestamp
from armillary.katcp.live_table import HISTORY, Board, render, sparkline
from armillary.katcp.text import printable, short_value, utc, wire_value


def shown(board: Board, *, width: int = 100, height: int = 24, ascii_only: bool = False) -> list[str]:
    """The lines that a terminal of that size would show, without colours."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(render(board, "here", width=width, height=height, ascii_only=ascii_only))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def a_sensor(name: str, value: float = 1.0, status: SensorStatus = SensorStatus.NOMINAL) -> Sensor[float]:
    sensor = Sensor(float, name, "A sensor", "V")
    sensor.set_value(value, status, 1_700_000_000.0)
    return sensor


def a_board(*sensors: Sensor[float]) -> Board:
    board = Board()
    for sensor in sensors:
        board.update(sensor, sensor.reading)
    return board


def test_one_sensor() -> None:
    """A sensor's line has its name, status, value, units, curve and time."""
    lines = shown(a_board(a_sensor("volts", 2.5, SensorStatus.WARN)))
    assert lines[0].split() == ["here", "1", "sensor", "1", "warn"]
    assert lines[1].split() == ["Sensor", "Status", "Value", "Units", "Recent", "UTC"]
    assert lines[2].split() == ["volts", "warn", "2.5", "V", "▁", "22:13:20"]
    assert len(lines) == 3


def test_no_sensors() -> None:
    """An empty board is its heading alone."""
    assert shown(Board()) == ["here  0 sensors"]


def test_order() -> None:
    """Sensors come by name, numbers in names by size."""
    board = a_board(*(a_sensor(name) for name in ("b", "a.10", "a.9", "a", "9", "a." + "7" * 5000)))
    names = [row.name for row in board.rows()]
    assert names == ["9", "a", "a.9", "a.10", "a." + "7" * 5000, "b"]


@pytest.mark.parametrize(("height", "sensors"), [(24, 22), (10, 7), (5, 2)])
def test_exact_height(height: int, sensors: int) -> None:
    """Sensors that just fit are all shown, above one line for the cursor."""
    lines = shown(a_board(*(a_sensor(f"s{number}") for number in range(sensors - 1))), height=height)
    assert len(lines) == sensors + 1 <= height - 1
    assert "hidden" not in lines[-1]


@pytest.mark.parametrize("height", [5, 10, 24])
def test_too_many(height: int) -> None:
    """More sensors than lines leave one line for the cursor, and one that says how many are hidden."""
    sensors = [a_sensor(f"s{number}") for number in range(99)]
    sensors.append(a_sensor("z", status=SensorStatus.ERROR))
    lines = shown(a_board(*sensors), height=height)
    assert len(lines) == height - 1
    assert lines[-1] == f"and {100 - (height - 4)} more, hidden below: 1 error"
    assert lines[0] == "here  100 sensors  1 error"


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_hardly_any_lines(height: int) -> None:
    """A terminal with no room at all still gets one sensor, not an error."""
    assert any(
        line.startswith("s1") for line in shown(a_board(a_sensor("s1"), a_sensor("s2")), height=height)
    )


@pytest.mark.parametrize("width", [1, 5, 10, 20, 30, 40, 50, 60, 79, 80, 100, 200])
def test_width(width: int) -> None:
    """At any width every sensor has exactly one line, and none is too long."""
    long = Sensor(str, "a" * 60, "", "units of measurement", default="text " * 50)
    board = a_board(a_sensor("volts"), a_sensor("名前" * 20))
    board.update(long, long.reading)
    lines = shown(board, width=width)
    assert len(lines) == 5
    assert all(len(line) <= width for line in lines)


def test_what_a_narrow_terminal_drops() -> None:
    """With less and less width the times go first, then the curves, then the units."""
    board = a_board(a_sensor("a" * 30))
    titles = [shown(board, width=width)[1].split()[3:] for width in (80, 65, 54, 50)]
    assert titles == [["Units", "Recent", "UTC"], ["Units", "Recent"], ["Units"], []]


def test_history_is_bounded() -> None:
    """A board remembers the last values of a sensor, and no more than it can show."""
    board = Board()
    sensor = a_sensor("volts")
    for number in range(10 * HISTORY):
        sensor.set_value(float(number))
        board.update(sensor, sensor.reading)
    assert board.history("volts") == [float(number) for number in range(9 * HISTORY, 10 * HISTORY)]


def test_values_that_mean_nothing() -> None:
    """A value whose status says that it means nothing is a gap in the curve."""
    board = Board()
    sensor = a_sensor("volts")
    for value, status in (
        (1.0, SensorStatus.NOMINAL),
        (0.0, SensorStatus.FAILURE),
        (2.0, SensorStatus.ERROR),
    ):
        sensor.set_value(value, status)
        board.update(sensor, sensor.reading)
    assert sparkline(board.history("volts")) == "▁ █"


def test_curves_of_what_is_no_number() -> None:
    """Texts, times and truths have no curve; an integer beyond all floats is a gap in its own."""
    board = Board()
    for sensor in (
        Sensor(str, "text", default="a"),
        Sensor(bool, "truth", default=True),
        Sensor(Timestamp, "time", default=Timestamp(5)),
        Sensor(int, "number", default=10**400, initial_status=SensorStatus.NOMINAL),
    ):
        board.update(sensor, sensor.reading)
    assert [board.history(name) for name in ("text", "truth", "time")] == [[], [], []]
    assert [math.isnan(number) for number in board.history("number")] == [True]


def test_replaced_and_removed() -> None:
    """A sensor that was replaced begins a new curve, and one that was removed has no line."""
    board = a_board(a_sensor("volts", 1.0), a_sensor("amperes"))
    new = a_sensor("volts", 5.0)
    board.update(new, new.reading)
    assert board.history("volts") == [5.0]
    board.remove("amperes")
    board.remove("nobody")
    assert [row.name for row in board.rows()] == ["volts"]


def test_changes_are_counted() -> None:
    """A board tells by a number whether it has changed."""
    board = a_board(a_sensor("volts"))
    before = board.changes
    board.remove("nobody")
    assert board.changes == before
    board.remove("volts")
    assert board.changes > before


def test_markup_and_commands_are_text() -> None:
    """What a device says is shown, never obeyed, by rich or by the terminal."""
    sensor = Sensor(bytes, "[red]name", "", "[/]", default=b"\x1b[2J\xff[bold]\n\xc2\x9b")
    board = Board()
    board.update(sensor, sensor.reading)
    lines = shown(board)
    assert len(lines) == 3
    assert lines[2].split()[:4] == ["[red]name", "unknown", r"\x1b[2J\xff[bold]\n\x9b", "[/]"]


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([3.0, 3.0], "▁▁"),
        ([0.0, 1.0], "▁█"),
        ([float(number) for number in range(8)], "▁▂▃▄▅▆▇█"),
        ([0.0, math.nan, math.inf, -math.inf, 1.0], "▁   █"),
        ([math.nan], " "),
        ([-1e308, 0.0, 1.7e308], "▁▃█"),
        ([0.0, 5e-324], "▁▁"),
    ],
)
def test_sparkline(values: list[float], curve: str) -> None:
    """A curve goes from the least to the greatest number, with gaps for what is not finite."""
    assert sparkline(values) == curve


def test_sparkline_in_ascii() -> None:
    """Where there are only ASCII characters, the curve is made of them."""
    assert sparkline([0.0, 1.0, 2.0], ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (math.nan, "nan"),
        (1e300, "1e+300"),
    ],
)
def test_times(timestamp: float, text: str) -> None:
    """A time is a date in UTC, or the number itself where no calendar has it."""
    assert utc(timestamp) == text


@pytest.mark.parametrize(
    ("value", "short", "wire"),
    [
        (1 / 3, "0.333333", "0.3333333333333333"),
        (1_712_345_678.9, "1712345679", "1712345678.9"),
        (math.nan, "nan", "nan"),
        (-math.inf, "-inf", "-inf"),
        (7, "7", "7"),
        (True, "1", "1"),
        ("two words", "two words", "two words"),
        (b"\xff", r"\xff", r"\xff"),
        (Timestamp(0), "1970-01-01 00:00:00", "0.0"),
        (Timestamp(math.nan), "nan", "nan"),
        (SensorStatus.WARN, "warn", "warn"),
    ],
)
def test_values(value: object, short: str, wire: str) -> None:
    """In the table a value is rounded to what one reads at a glance; in a line it has all its digits."""
    assert short_value(value) == short
    assert wire_value(value) == wire


def test_printable() -> None:
    """What is no text, or would command a terminal, is shown as an escape; letters stay."""
    assert printable(b"\xc3\xa9t\xc3\xa9 \xff\x1b\x07\n") == r"été \xff\x1b\x07\n"
