"""An overview that fits into a terminal, for rich to print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from armillary._wire.text import printable

from .overview import CLIENT_TITLES, SERVICE_TITLES, Overview, client_cells, service_cells, title

__all__ = ["render"]

# Lines that are no rows: the heading; the titles of both tables, and the empty lines before them; the lines
# that say how many are hidden; and the one that the cursor stands in.
_OTHER_LINES = 8
_NUMBERS = frozenset({"LINKS", "REQUESTS", "WAITING", "RATE"})


def render(overview: Overview | None, trouble: str, *, height: int) -> RenderableType:
    """The overview in so many lines; what does not fit is counted.

    Args:
        overview: the last one, if there was any.
        trouble: why there is no newer one; empty if it is new.
        height: lines of the terminal.
    """
    lines: list[RenderableType] = []
    if trouble:
        lines.append(_line(printable(trouble), "bold red"))
    if overview is None:
        return Group(*(lines or [_line("connecting", "bold")]))
    lines.insert(0, _line(title(overview), "dim" if trouble else "bold"))
    services, clients = overview.services, overview.clients
    room = max(2, height - _OTHER_LINES - bool(trouble))
    # Each gets half, and what the other leaves.
    for_services = max(room // 2, room - len(clients))
    for_clients = max(room - room // 2, room - len(services))
    if services:
        shown = [service_cells(row) for row in services[:for_services]]
        lines += _table(SERVICE_TITLES, shown, hidden=len(services) - len(shown))
    if clients:
        shown = [client_cells(row) for row in clients[:for_clients]]
        lines += _table(CLIENT_TITLES, shown, hidden=len(clients) - len(shown))
    return Group(*lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, hidden: int) -> list[RenderableType]:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in titles:
        justify = "right" if name in _NUMBERS else "left"
        style = "yellow" if name == "LOCK" else ""
        table.add_column(name, no_wrap=True, overflow="ellipsis", style=style, justify=justify)  # type: ignore[arg-type]  # a literal
    for row in rows:
        # Text, not str: rich would take brackets in a str for markup.
        table.add_row(*map(Text, row))
    lines: list[RenderableType] = [Text(), table]
    if hidden:
        lines.append(_line(f"and {hidden} more, hidden below", "italic"))
    return lines


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
