"""What the pages of the documentation say is what the source says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from armillary._runtime import dial
from armillary._wire import backoff
from armillary.katcp import (
    SyncState,
    announcer,
    connection,
    informs,
    logs,
    mirror,
    open_client,
    reconnect,
    serve_device,
    session,
)
from armillary.katcp.limits import Limits
from armillary.katcp.protocol import lifecycle, mirroring, sampling

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
STATES = (DOCS / "explanation/client_states.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_code_comes_from_files(page: Path) -> None:
    """Python of more than three lines is included from a file that is run."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert [block for block in blocks if block.count("\n") > 3] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_markers_exist(page: Path) -> None:
    """An included part of a file begins and ends where the file says so: no marker is there twice."""
    includes = re.findall(
        r"^```\{literalinclude\} (\S+)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    for name, options in includes:
        source = (page.parent / name).read_text("utf-8")
        for marker in re.findall(r':(?:start-after|end-before): "(.*)"', options):
            assert source.count(marker) == 1, f"{marker} in {name}"


def numbered(text: str) -> list[str]:
    """The items of the numbered list in a text, each in one line."""
    items = re.findall(r"^\d\. (.*?)(?=^\d\. |^\s*$|\Z)", text, re.DOTALL | re.MULTILINE)
    return [" ".join(item.split()) for item in items]


@pytest.mark.parametrize(("module", "number"), [(lifecycle, 0), (mirroring, 1)])
def test_invariants(module: ModuleType, number: int) -> None:
    """The invariants on the page are word for word those that the source states and the tests check."""
    _, *lists = STATES.split("The invariants:\n")
    stated = numbered(module.__doc__ or "")
    assert len(stated) >= 3
    assert numbered(lists[number].partition("\n## ")[0]) == stated


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column has that heading."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[- |]*\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()]


def test_transitions() -> None:
    """The table on the page has the very transitions that the source has."""
    transitions = {
        (state.name, event.name): target.name for (state, event), target in lifecycle.TRANSITIONS.items()
    }
    assert {(state, event): target for state, event, target in rows(STATES, "in")} == transitions
    assert [event for event, _ in rows(STATES, "event")] == [event.name for event in lifecycle.ClientEvent]


def test_states() -> None:
    """The page has a line for each state."""
    client, engine = STATES.split("## States of a mirror")
    assert [state for state, _ in rows(client, "state")] == [state.name for state in lifecycle.ClientState]
    assert [state for state, _ in rows(engine, "state")] == [state.name for state in SyncState]


def size(count: int) -> str:
    return f"{count // 1024**2} MiB" if count >= 1024**2 else f"{count // 1024} KiB"


def test_limits() -> None:
    """The defaults on the page of limits are those of the source."""
    _, server, client = (
        (DOCS / "explanation/backpressure_and_limits.md").read_text("utf-8").split("\n## ")[:3]
    )
    serve = inspect.signature(serve_device).parameters
    connect = inspect.signature(open_client).parameters
    limits = Limits()
    assert [default for _, default, *_ in rows(server, "limit")] == [
        size(serve["limit"].default),
        str(serve["max_pending"].default),
        str(limits.pending_per_client),
        size(limits.backlog),
        size(session._HIGH_WATER),
        str(session._BURST),
        f"{size(session._RECEIVE)}, in a long line {size(session._RECEIVE_LONG)}",
        f"{serve['drain'].default:g} s",
        f"{session.FAREWELL_TIMEOUT:g} s",
        f"{session.HALF_CLOSED_GRACE:g} s",
        f"{dial.HANDSHAKE_TIMEOUT:g} s",
        "what the system allows",
        f"every {announcer.INTERVAL} s",
        f"{sampling.SHORTEST_PERIOD} s",
        str(logs._WAITING),
    ]
    first, longest = backoff.FIRST, backoff.LONGEST
    assert [default for _, default, *_ in rows(client, "limit")] == [
        size(connect["limit"].default),
        f"{connect['connect_timeout'].default:g} s",
        "never",
        size(connection._HIGH_WATER),
        str(informs.INFORM_BOUND),
        str(reconnect._STATES),
        "one for each sensor",
        f"{connection.CLOSE_TIMEOUT:g} s",
        str(mirror._BULK),
        str(mirror._PIPELINED),
        f"{first:g} to {2 * first:g} s, doubling up to {longest / 2:g} to {longest:g} s",
    ]
    assert f"until {size(connection._LOW_WATER)} are left" in client
