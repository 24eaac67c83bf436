"""The services that come with the package, without a network."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

import msl.examples.network
from msl.examples.network import BasicMath, Echo, Heartbeat, MyArray
from msl.network import Service


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long somebody would have slept."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Coroutine[Any, Any, None]]]:
    """What services want to have run beside their requests."""
    added: list[Coroutine[Any, Any, None]] = []
    monkeypatch.setattr(Service, "add_tasks", lambda self, *coroutines: added.extend(coroutines))
    yield added
    for each in added:
        each.close()


@pytest.mark.parametrize("service", [BasicMath, Echo, Heartbeat, MyArray])
def test_they_are_services(service: type[Service], tasks: list[Coroutine[Any, Any, None]]) -> None:
    """Each has its class for a name, and is there to be imported from the package."""
    assert issubclass(service, Service)
    assert service().name == service.__name__
    assert service.__name__ in msl.examples.network.__all__


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (Echo.echo, "(*args, **kwargs)"),
        (BasicMath.add, "(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]"),
        (BasicMath.subtract, "(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]"),
        (BasicMath.multiply, "(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]"),
        (BasicMath.divide, "(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]"),
        (BasicMath.ensure_positive, "(self, x: Union[int, float]) -> bool"),
        (BasicMath.power, "(self, x: Union[int, float], n=2) -> Union[int, float]"),
        (MyArray.linspace, "(start: Union[int, float], stop: Union[int, float], n=100) -> List[float]"),
        (MyArray.scalar_multiply, "(scalar: Union[int, float], data: List[float]) -> List[float]"),
        (Heartbeat.emit, "(self) -> None"),
        (Heartbeat.kill, "(self) -> None"),
        (Heartbeat.reset, "(self) -> None"),
        (Heartbeat.set_heart_rate, "(self, beats_per_second: int) -> None"),
        (Heartbeat.shutdown_handler, "(self) -> None"),
    ],
)
def test_people_see_the_same_signatures(function: Any, signature: str) -> None:
    """They are part of what a service tells of itself, to the letter."""
    assert str(inspect.signature(function)) == signature


def test_echo() -> None:
    """What it is told, it says."""
    assert Echo().echo(1, "a", b=[2]) == ((1, "a"), {"b": [2]})


@pytest.mark.parametrize(
    ("name", "args", "result", "seconds"),
    [
        ("add", (1, 2), 3, 1),
        ("subtract", (1, 2.5), -1.5, 2),
        ("multiply", (2, 3), 6, 3),
        ("divide", (1, 2), 0.5, 4),
        ("ensure_positive", (0,), True, 5),
        ("power", (3,), 9, 6),
        ("power", (2, 3), 8, 6),
    ],
)
def test_basic_math(
    name: str, args: tuple[float, ...], result: float, seconds: float, slept: list[float]
) -> None:
    """Each calculation takes longer than the one before."""
    assert getattr(BasicMath(), name)(*args) == result
    assert slept == [seconds]


def test_basic_math_refuses_what_is_negative(slept: list[float]) -> None:
    """After having thought about it."""
    with pytest.raises(ValueError, match=r"^The value is < 0$"):
        BasicMath().ensure_positive(-1)
    assert slept == [5]


def test_constants_and_properties() -> None:
    """A class has constants, an object properties."""
    assert BasicMath.euler == math.e
    assert BasicMath().pi == math.pi


def test_arrays() -> None:
    """Lists of numbers."""
    array = MyArray()
    assert array.linspace(0, 1, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert array.linspace(1, 5, n=2) == [1.0, 5.0]
    assert array.linspace(1, 5, n=1) == [1.0]
    assert array.linspace(1, 5, n=0) == []
    assert len(array.linspace(-1, 1)) == 100
    assert array.scalar_multiply(2, [1, 2.5]) == [2, 5.0]


def test_a_heart_beats(monkeypatch: pytest.MonkeyPatch, tasks: list[Coroutine[Any, Any, None]]) -> None:
    """It counts, from 0 again if it is told to, at the rate that is set, until it is killed."""
    heart = Heartbeat()
    beats: list[float] = []
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        match len(beats):
            case 2:
                heart.set_heart_rate(4)
            case 3:
                heart.reset()
            case 5:
                heart.kill()

    monkeypatch.setattr(heart, "emit_notification", beats.append)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(StopIteration):
        tasks[0].send(None)
    assert beats == [0, 1, 2, 0, 1]
    assert pauses == [1.0, 1.0, 0.25, 0.25, 0.25]


def test_a_heart_stops_without_its_manager(
    monkeypatch: pytest.MonkeyPatch, tasks: list[Coroutine[Any, Any, None]]
) -> None:
    """Otherwise the service would not end."""
    heart = Heartbeat()
    beats: list[float] = []

    async def pause(seconds: float) -> None:
        heart.shutdown_handler()

    monkeypatch.setattr(heart, "emit_notification", beats.append)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(StopIteration):
        tasks[0].send(None)
    assert beats == [0]
