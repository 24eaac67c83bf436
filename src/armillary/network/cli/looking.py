"""The command that shows who is there, and what they do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import trio

from armillary._options import Seconds
from armillary.errors import ArmillaryError

from .connecting import Target, connection_errors_reported, connects, run_interruptibly

if TYPE_CHECKING:
    from rich.console import Console

    from .overview import Overview

__all__ = ["ls"]

# Seconds between two looks of the live table. Longer looks as if nothing happened; shorter gives rates of few
# requests, which jump.
_INTERVAL = 2.0
# Seconds between two looks whether there is a connection at last. It only delays the first table.
_FIRST_LOOK = 0.05


@click.command()
@connects
@click.option("--once", is_flag=True, help="Print it once, as when the output is no terminal.")
@click.option(
    "--interval",
    type=Seconds(),
    metavar="S",
    help="Seconds from one look to the next, of which the rates are.  [default: 2; with --once there is only "
    "one look, and no rates]",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object, once.")
def ls(target: Target, once: bool, interval: float | None, is_json: bool) -> None:
    """Show the services and clients of a manager, their links, locks and requests.

    In a terminal this is a table that is kept up to date, and a lost connection is made again; elsewhere it
    is printed once. A question mark, in JSON null, stands for what the manager does not tell: one of
    MSL-Network 1.0 only says who is there, and armillary's own tells what a service does to those who may use
    it. REQUESTS is what a service was sent since it came, and WAITING what it has not answered yet.

    \b
    Exit status:
      0    it was printed
      1    no connection, or no answer
      2    the command line makes no sense
      130  Ctrl-C
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    console = None if once or is_json else _live_console()
    with connection_errors_reported():
        if console is not None:
            run_interruptibly(lambda: _show(target, console, _INTERVAL if interval is None else interval))
            return
        overview = run_interruptibly(lambda: _look_once(target, interval))
        from .overview import as_json, as_table

        click.echo((as_json if is_json else as_table)(overview))


def _live_console() -> Console | None:
    """The terminal that standard output is, or None if it is none that could show a table that changes."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console(file=sys.stdout)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _features() -> frozenset[str]:
    from armillary.network.protocol.features import EXCEPTION, PING, STATUS

    return frozenset({EXCEPTION, PING, STATUS})


async def _look_once(target: Target, interval: float | None) -> Overview:
    from .overview import Looker

    async with target.open_client(_features()) as client:
        looker = Looker(client)
        try:
            with trio.fail_after(target.timeout):
                overview = await looker.look()
            if interval is not None:
                await trio.sleep(interval)
                with trio.fail_after(target.timeout):
                    overview = await looker.look()
        except trio.TooSlowError:
            text = f"the manager at {target.where} did not answer within {target.timeout:g} s"
            raise trio.TooSlowError(text) from None
        return overview


async def _show(target: Target, console: Console, interval: float) -> None:
    """Keep a table up to date until cancelled."""
    from rich.live import Live

    from .live_overview import render
    from .overview import Looker

    async with target.open_persistent_client(_features()) as client:
        # Somebody may be asked for a password first, which a table would hide.
        while not client.is_connected and client.last_error is None:
            with trio.move_on_after(_FIRST_LOOK):
                await client.wait_connected()
        looker = Looker(client)
        overview = None
        # Without rich's own refreshing, which is a thread.
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                trouble = ""
                with trio.move_on_after(target.timeout) as scope:
                    try:
                        overview = await looker.look()
                    except ArmillaryError as error:
                        trouble = f"{target.where}: {client.last_error or error}"
                if scope.cancelled_caught:
                    trouble = f"{target.where} has not answered for {target.timeout:g} s"
                live.update(render(overview, trouble, height=console.size.height), refresh=True)
                await trio.sleep(interval)
