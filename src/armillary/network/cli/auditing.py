"""The command that shows who did what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from armillary._runtime.dial import address_text
from armillary._wire.text import printable

from .columns import columns
from .running import database_option, given_store

if TYPE_CHECKING:
    from armillary.network.store import AuditEvent

__all__ = ["KINDS", "audit"]

KINDS = ("connection", "login", "link", "lock", "admin", "audit")
"""What events are about, as `EventKind` has it, which imports sqlite3."""


class _Time(click.ParamType[str]):
    """A date or a time, as the audit takes it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from armillary.network.store.bounds import seconds

        try:
            seconds(value, is_end=False)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)
        return str(value)


@click.command()
@click.option("--start", type=_Time(), metavar="TIME", help="From when.  [default: the beginning]")
@click.option("--end", type=_Time(), metavar="TIME", help="Until when, included.  [default: now]")
@click.option(
    "--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only what this is about; repeatable."
)
@click.option("--user", metavar="NAME", help="Only what this user did.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest so many.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON array.")
@database_option
def audit(
    start: str | None,
    end: str | None,
    kinds: tuple[str, ...],
    user: str | None,
    limit: int | None,
    is_json: bool,
    database: Path | None,
) -> None:
    """Print who connected, logged in, linked, locked and administrated, the oldest first.

    A TIME is like 2024-03-31, which is the whole day, or 2024-03-31T12:30:00; local time unless it says
    otherwise. Times are printed in local time; in JSON they are seconds since 1970.

    \b
    Exit status:
      0  it was printed
      1  the database cannot be used
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.store import EventKind

    with given_store(database) as (store, _):
        wanted = [EventKind(kind) for kind in kinds] or None
        events = store.audit.events(start, end, kinds=wanted, user=user, limit=limit)
    click.echo(_as_json(events) if is_json else _as_table(events))


def _as_table(events: Sequence[AuditEvent]) -> str:
    rows = [["TIME", "KIND", "FROM", "PEER", "USER", "ABOUT", "WHAT"]]
    for event in events:
        time = datetime.fromtimestamp(event.time).isoformat(" ", "seconds")
        host = event.domain or event.ip_address
        where = address_text(host, event.port) if event.port else host
        texts = (where, event.peer, event.user, event.subject, event.message)
        rows.append([time, event.kind.value, *map(printable, texts)])
    return columns(rows)


def _as_json(events: Sequence[AuditEvent]) -> str:
    lines = [json.dumps(asdict(event)) for event in events]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
