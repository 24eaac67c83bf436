"""The command that prints what a service tells."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click
import trio

from armillary._options import Seconds
from armillary._wire.text import printable, utc

from .connecting import Target, connection_errors_reported, connects, run_interruptibly

if TYPE_CHECKING:
    from armillary.network.link import Link
    from armillary.network.notifications import Note, Notifications
    from armillary.network.reconnect import PersistentClient

__all__ = ["watch"]

# Seconds between two looks at what has become of the connection. Longer says so later; shorter says what has
# passed already.
_LOOK_INTERVAL = 0.25


@click.command()
@connects
@click.argument("service")
@click.option("--json", "is_json", is_flag=True, help="Print [args, kwargs] in each line.")
@click.option("-t", "--timestamps", is_flag=True, help="Print when each came, by this computer's clock.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many.")
@click.option("--duration", type=Seconds(), metavar="S", help="End after so many seconds.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of the connection on standard error.")
def watch(
    target: Target,
    service: str,
    is_json: bool,
    timestamps: bool,
    count: int | None,
    duration: float | None,
    quiet: bool,
) -> None:
    """Print the notifications of a SERVICE, one in each line, as they come.

    The manager and the service need not be there yet, and are waited for when they go; what they told
    meanwhile is lost. A line has the positional arguments as JSON, and keyword arguments as NAME=JSON. With
    --json it is [args, kwargs], and with --timestamps, too, [time, args, kwargs], where the time is in
    seconds since 1970.

    \b
    Exit status:
      0    so many notifications have come, or the time is over
      1    the manager does not let you in, is not trusted, or refuses the link
      2    the command line makes no sense
      130  Ctrl-C
    """  # noqa: D301 - to click, a real backspace means: do not wrap

    async def run() -> None:
        with trio.move_on_after(math.inf if duration is None else duration):
            await _watch(target, service, count=count, is_json=is_json, timestamps=timestamps, is_quiet=quiet)

    with connection_errors_reported():
        run_interruptibly(run)


async def _watch(
    target: Target, service: str, *, count: int | None, is_json: bool, timestamps: bool, is_quiet: bool
) -> None:
    from armillary.network.protocol.features import EXCEPTION, PING

    # No attachments: to those who want none the manager gives text, which is what is printed.
    async with target.open_persistent_client({EXCEPTION, PING}) as client, trio.open_nursery() as nursery:
        state = _State(client, target.where, service)
        if not is_quiet:
            nursery.start_soon(state.tell)
        async with client.link(service) as state.link:
            state.notes = state.link.notifications()
            async for note in state.notes:
                click.echo(_line(note, is_json=is_json, timestamps=timestamps))
                if count is not None:
                    count -= 1
                    if not count:
                        break
        nursery.cancel_scope.cancel(reason="that was all")


def _line(note: Note, *, is_json: bool, timestamps: bool) -> str:
    from .values import json_text, note_text

    now = time.time()
    if is_json:
        return json_text([now, note.args, note.kwargs] if timestamps else [note.args, note.kwargs])
    text = note_text(note.args, note.kwargs)
    return f"{utc(now)} {text}".rstrip() if timestamps else text


class _State:
    """What has become of the connection, for standard error."""

    def __init__(self, client: PersistentClient, where: str, service: str) -> None:
        self._client = client
        self._where = where
        self._service = service
        self.link: Link | None = None
        self.notes: Notifications | None = None

    async def tell(self) -> None:
        """Say so whenever it changes, until cancelled."""
        told, dropped = "", 0
        while True:
            text = self._text()
            if text and text != told:
                click.echo(printable(text), err=True)
                told = text
            now_dropped = 0 if self.notes is None else self.notes.statistics().dropped
            if now_dropped > dropped:
                click.echo(f"{now_dropped - dropped} notifications came too fast, and were dropped", err=True)
                dropped = now_dropped
            await trio.sleep(_LOOK_INTERVAL)

    def _text(self) -> str:
        client = self._client
        if client.is_connected:
            is_linked = self.link is not None and self.link.is_linked
            return f"{'linked with' if is_linked else 'waiting for'} the {self._service!r} service"
        if client.last_error is not None:
            return f"no connection to {self._where}, trying again: {client.last_error}"
        return ""
