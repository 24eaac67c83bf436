"""Watch a device's sensors from a terminal: as a live table, or as one line for each update."""

from __future__ import annotations

import math
import random
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import trio
from rich.console import Console
from rich.live import Live

from armillary._runtime.dial import address_text
from armillary._runtime.groups import single_exception
from armillary._wire.backoff import Backoff

from .live_table import Board, render
from .mirror import MirroredSensors
from .protocol.lifecycle import ClientState
from .protocol.mirroring import SensorDescription
from .protocol.readings import Reading, SensorStatus
from .protocol.sampling import Sampling
from .reconnect import PersistentClient, open_persistent_client
from .sensors import Sensor
from .text import printable, status_text, utc, wire_value

__all__ = ["check_strategy", "live_console", "name_filter", "plain_line", "strategy_for", "watch_sensors"]

# Seconds from one look of the table to the next. Shorter is a flicker and takes processor time (a screenful
# takes rich some ten milliseconds); longer looks like a device that hangs.
_REFRESH = 0.25
# Seconds between two attempts to connect at most. Somebody sits and waits, so it is shorter than a program's.
_LONGEST_WAIT = 5.0
# Seconds of silence after which the server is asked whether it is still there; as many more, and it is not.
_KEEP_ALIVE = 5.0

_NUMBERS = frozenset({"integer", "float"})


def name_filter(pattern: str | None) -> Callable[[SensorDescription], bool]:
    """Whether a sensor is meant by a name, or by a ``/regex/`` that is searched for in the names.

    Raises:
        ValueError: the regular expression is none.
    """
    if pattern is None:
        return lambda sensor: True
    if len(pattern) < 2 or not (pattern.startswith("/") and pattern.endswith("/")):
        return lambda sensor: sensor.name == pattern
    try:
        search = re.compile(pattern[1:-1]).search
    except re.error as error:
        raise ValueError(f"expected a regular expression between slashes, got {pattern}: {error}") from None
    return lambda sensor: search(sensor.name) is not None


def check_strategy(strategy: str) -> None:
    """Raise ValueError unless `strategy` is a strategy with its parameters, as `strategy_for` takes it."""
    name, *parameters = strategy.split() or [""]
    Sampling.parse(float, name.encode(), [parameter.encode() for parameter in parameters])


def strategy_for(strategy: str) -> Callable[[SensorDescription], str]:
    """How to sample each sensor when the user asked for `strategy`.

    Only numbers differ by an amount: what is no number gets the ``event`` strategy in place of a
    ``differential`` one.
    """
    name, *parameters = strategy.split()
    if not name.startswith("differential"):
        return lambda sensor: strategy
    otherwise = " ".join([name.replace("differential", "event"), *parameters[1:]])
    return lambda sensor: strategy if sensor.type_name in _NUMBERS else otherwise


def live_console() -> Console | None:
    """The terminal that standard output is, or None if it is none that could show a table that changes."""
    console = Console(file=sys.stdout)
    is_live = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    return console if is_live else None


def plain_line(sensor: Sensor[Any], reading: Reading[Any]) -> str:
    """An update in one line: time, name, status, value, units."""
    words = [
        utc(reading.timestamp),
        printable(sensor.name),
        status_text(reading.status),
        wire_value(reading.value),
        printable(sensor.units),
    ]
    return " ".join(words).rstrip()


async def watch_sensors(
    address: tuple[str, int | None],
    console: Console | None,
    *,
    wanted: Callable[[SensorDescription], bool] = lambda sensor: True,
    strategy: str = "auto",
    ssl_context: ssl.SSLContext | None = None,
    connect_timeout: float = 10.0,
    duration: float = math.inf,
) -> Exception | None:
    """Show a device's sensors until cancelled, connecting again when the connection is lost.

    Args:
        address: the host and port, or the path of a Unix socket and None.
        console: where a table is shown. If None, a line for each update goes to standard output, and what
            becomes of the connection to standard error.
        wanted: which sensors.
        strategy: how they are sampled; see `strategy_for`.
        ssl_context: makes the connection a TLS one.
        connect_timeout: seconds for each attempt to connect.
        duration: seconds after which this returns.

    Returns:
        Why there was never any connection; None if there was one.
    """
    host, port = address
    where = address_text(host, port)
    with single_exception():
        async with (
            open_persistent_client(
                host,
                port,
                ssl_context=ssl_context,
                connect_timeout=connect_timeout,
                keep_alive=_KEEP_ALIVE,
                backoff=Backoff(random.uniform, longest=_LONGEST_WAIT),
            ) as client,
            client.mirror_sensors(filter=wanted, strategy=strategy_for(strategy)) as sensors,
        ):
            with trio.move_on_after(duration):
                if console is None:
                    await _print_lines(client, sensors, where)
                else:
                    await _show_table(client, sensors, where, console)
            return client.last_error if client.connections == 0 else None


async def _print_lines(client: PersistentClient, sensors: MirroredSensors, where: str) -> None:
    with _connection_told(client, where):
        await _follow(
            sensors,
            lambda sensor, reading: click.echo(plain_line(sensor, reading)),
            lambda name: click.echo(f"sensor {printable(name)} was removed", err=True),
        )


@contextmanager
def _connection_told(client: PersistentClient, where: str) -> Iterator[None]:
    """Say on standard error that there is a connection, or why there is none, once for each cause."""
    told = None

    def tell(state: ClientState) -> None:
        nonlocal told
        text = connection_text(client, where)
        if state in (ClientState.CONNECTED, ClientState.SLEEPING) and text != told:
            click.echo(text, err=True)
            told = text

    tell(client.state)
    client.add_state_callback(tell)
    try:
        yield
    finally:
        client.remove_state_callback(tell)


def connection_text(client: PersistentClient, where: str) -> str:
    """Whether there is a connection, and why not."""
    if client.state is ClientState.CONNECTED:
        return f"connected to {where}"
    if client.last_error is None:
        return f"connecting to {where}"
    return printable(f"no connection to {where}, trying again: {client.last_error}")


async def _show_table(
    client: PersistentClient, sensors: MirroredSensors, where: str, console: Console
) -> None:
    board = Board()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, sensors, board.update, board.remove)
        shown: object = None
        # Without rich's own refreshing, which is a thread.
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                heading = connection_text(client, where)
                now = (board.changes, heading, console.size)
                if now != shown:
                    width, height = console.size
                    ascii_only = console.options.ascii_only
                    live.update(
                        render(board, heading, width=width, height=height, ascii_only=ascii_only),
                        refresh=True,
                    )
                    shown = now
                await trio.sleep(_REFRESH)


async def _follow(
    sensors: MirroredSensors,
    update: Callable[[Sensor[Any], Reading[Any]], object],
    remove: Callable[[str], object],
) -> None:
    """Tell of all sensors as soon as they are known, then of every change, until cancelled."""
    await sensors.wait_synced()
    changes = sensors.changes()
    known: dict[str, Sensor[Any]] = {}
    for name, sensor in sorted(sensors.items()):
        known[name] = sensor
        update(sensor, sensor.reading)
    async for change in changes:
        if change.sensor is None or change.reading is None:
            known.pop(change.name, None)
            remove(change.name)
            continue
        is_new = known.get(change.name) is not change.sensor
        known[change.name] = change.sensor
        # A new sensor's first reading is none of the server's: that follows.
        if not (is_new and change.reading.status is SensorStatus.UNKNOWN):
            update(change.sensor, change.reading)
