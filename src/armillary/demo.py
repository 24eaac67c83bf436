"""``armillary demo``: a device on this computer, and a client that shows its sensors, in one nursery."""

from __future__ import annotations

import math
from typing import Any

import click
import trio

from armillary._options import Seconds
from armillary._runtime.dial import bound_ports
from armillary._runtime.groups import single_exception
from armillary._runtime.signals import cancel_on_signal
from armillary.katcp.host_device import serve_host
from armillary.katcp.watching import live_console, watch_sensors

__all__ = ["main", "run_demo"]

_HOST = "127.0.0.1"


@click.command("demo")
@click.option("--duration", type=Seconds(), metavar="S", help="Print lines, and end after so many seconds.")
def main(duration: float | None) -> None:
    """See it work: a device on this computer, and a live table of its sensors.

    Without a terminal, or with a duration, there is a line for each update instead of the table. Ctrl-C ends
    it, with exit status 0.
    """
    trio.run(run_demo, duration)


async def run_demo(duration: float | None) -> None:
    """Serve this computer's telemetry on a free port and show it, until a signal, or for some seconds."""
    console = live_console() if duration is None else None
    with single_exception():
        async with trio.open_nursery() as nursery:
            await nursery.start(cancel_on_signal, nursery.cancel_scope)

            async def serve(*, task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]]) -> None:
                await serve_host(0, host=_HOST, task_status=task_status)
                nursery.cancel_scope.cancel(reason="the device was halted")

            (port,) = bound_ports(await nursery.start(serve))
            click.echo(_directions(port))
            await watch_sensors((_HOST, port), console, duration=math.inf if duration is None else duration)
            nursery.cancel_scope.cancel(reason="the duration is over")


def _directions(port: int) -> str:
    return f"""\
This computer is a KATCP device now. To reach it from another terminal:

    nc {_HOST} {port}        and type ?help
    armillary katcp sensors {_HOST}:{port} --values
    armillary katcp watch {_HOST}:{port} /cpu/ --strategy "period 0.5"

Ctrl-C ends it.
"""
