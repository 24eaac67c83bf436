"""The rules of the building (what may import what, and what nobody may do), checked on the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import armillary

SYSTEMS = {"katcp", "network", "liveview", "monitor"}
FACES = {"__main__", "cli", "demo", "web"}
FOUNDATIONS = {"_runtime", "_wire"}
FACADES = {"armillary_compat", "aiokatcp", "msl", "activelogic", "aiomonitor"}
# What sans-IO modules do without: they are given the time, the random numbers and the bytes.
IMPURE = {"trio", "asyncio", "socket", "ssl", "threading", "time", "random"}
# What only `_runtime/dial` does.
DIALLING = {
    "open_tcp_stream",
    "open_tcp_listeners",
    "open_unix_socket",
    "open_ssl_over_tcp_stream",
    "open_ssl_over_tcp_listeners",
    "serve_tcp",
    "serve_ssl_over_tcp",
}


def imports(tree: ast.AST, package: list[str], *, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that is imported, absolute, and whether only type checkers import it.

    Of ``from a import b``, ``a.b`` is told, since b may be a module.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = [*above, *(node.module or "").split(".")] if node.module else above
            yield from ((".".join([*base, alias.name]), typing_only) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(ast.Module(node.body, []), package, typing_only=True)
            yield from imports(ast.Module(node.orelse, []), package, typing_only=typing_only)
        else:
            yield from imports(node, package, typing_only=typing_only)


def broken_rules(name: str, text: str, *, is_package: bool = False) -> list[str]:
    """What a module, of this absolute name and with this text, does that it must not."""
    tree = ast.parse(text)
    here = name.split(".")
    part = here[1] if len(here) > 1 else ""
    is_pure = "protocol" in here or part == "_wire"
    is_face = not FACES.isdisjoint(here)
    broken = []
    for imported, typing_only in imports(tree, here if is_package else here[:-1]):
        there = imported.split(".")
        if there[0] == "asyncio" or (is_pure and there[0] in IMPURE):
            broken.append(f"imports {there[0]}")
        if there[0] in FACADES:
            broken.append(f"imports the façade {there[0]}")
        if there[0] != "armillary" or len(there) < 2:
            continue
        # Naming a type of one's own package is no dependency; naming one of another package is.
        if typing_only and there[1] == part:
            continue
        if is_pure and there[1] not in ("_wire", "errors") and there[:3] != [*here[:2], "protocol"]:
            broken.append(f"is pure and imports {imported}")
        if part == "_wire" and there[1] == "_runtime":
            broken.append(f"is beneath {imported} and imports it")
        if part in FOUNDATIONS and there[1] in SYSTEMS:
            broken.append(f"is a foundation and imports the system {there[1]}")
        if part in SYSTEMS and there[1] in SYSTEMS and there[1] != part:
            broken.append(f"belongs to {part} and imports the system {there[1]}")
        if part != "testing" and there[1] == "testing":
            broken.append("imports armillary.testing")
        if not is_face and not FACES.isdisjoint(there):
            broken.append(f"is no face and imports {imported}")
    for node in ast.walk(tree):
        used = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if used == "spawn_system_task":
            broken.append("spawns a system task")
        if used in DIALLING and name != "armillary._runtime.dial":
            broken.append(f"calls {used}")
        if isinstance(node, ast.FunctionDef) and node.name == "__del__":
            broken.append("has a __del__")
    return broken


def test_the_source_keeps_the_rules() -> None:
    """Arrows point only down, systems stand beside each other, and every task has an owner."""
    root = Path(armillary.__file__).parent
    broken = {}
    for path in sorted(root.rglob("*.py")):
        parts = ["armillary", *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        broken[name] = broken_rules(name, path.read_text(encoding="utf-8"), is_package=is_package)
    assert {"armillary", "armillary._runtime.dial", "armillary.katcp.protocol.values"} <= set(broken)
    assert {} == {name: rules for name, rules in broken.items() if rules}


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("katcp.protocol.values", "import time", "imports time"),
        ("katcp.protocol.values", "def f():\n    from random import Random", "imports random"),
        ("katcp.protocol.values", "if TYPE_CHECKING:\n    import trio", "imports trio"),
        ("katcp.protocol.values", "import socket as s", "imports socket"),
        (
            "katcp.protocol.values",
            "from ..device import Device",
            "is pure and imports armillary.katcp.device.Device",
        ),
        (
            "katcp.protocol.values",
            "from armillary import _runtime",
            "is pure and imports armillary._runtime",
        ),
        ("_wire.lines", "import ssl", "imports ssl"),
        ("_wire.lines", "import threading", "imports threading"),
        ("_runtime.outbox", "import asyncio.events", "imports asyncio"),
        ("katcp.device", "try:\n    from asyncio import Future\nexcept ImportError: pass", "imports asyncio"),
        ("katcp.device", "import aiokatcp", "imports the façade aiokatcp"),
        (
            "_runtime.dial",
            "import armillary.katcp.device",
            "is a foundation and imports the system katcp",
        ),
        (
            "_runtime.dial",
            "if TYPE_CHECKING:\n    from armillary.katcp import Device",
            "is a foundation and imports the system katcp",
        ),
        (
            "katcp.device",
            "from ..network import open_client",
            "belongs to katcp and imports the system network",
        ),
        ("monitor.tree", "from armillary import katcp", "belongs to monitor and imports the system katcp"),
        ("katcp.device", "from armillary.testing import RawPeer", "imports armillary.testing"),
        ("demo", "import armillary.testing", "imports armillary.testing"),
        ("katcp.device", "from armillary.cli import main", "is no face and imports armillary.cli.main"),
        ("katcp.device", "from .. import demo", "is no face and imports armillary.demo"),
        ("liveview.server", "from armillary.web import app", "is no face and imports armillary.web.app"),
        (
            "katcp.device",
            "trio.lowlevel.spawn_system_task(print)",
            "spawns a system task",
        ),
        ("katcp.device", "class A:\n    def __del__(self): pass", "has a __del__"),
        ("katcp.client", "stream = await trio.open_tcp_stream(host, port)", "calls open_tcp_stream"),
    ],
)
def test_a_module_that_breaks_a_rule_is_found(name: str, text: str, rule: str) -> None:
    """Each rule finds what breaks it, however the import is written."""
    assert rule in broken_rules(f"armillary.{name}", text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("katcp.protocol.values", "from .messages import line\nfrom armillary.errors import PeerError"),
        ("katcp.protocol.values", "import re, enum\nfrom armillary._wire.lines import LineSplitter"),
        ("katcp.protocol.values", "if TYPE_CHECKING:\n    from ..device import Device"),
        (
            "katcp.device",
            "import time\nfrom armillary._runtime.dial import open_stream\nfrom . import limits",
        ),
        ("katcp.cli", "from armillary.cli import main\nfrom .device import Device"),
        ("demo", "from armillary import katcp, network\nfrom armillary.web import app"),
        ("testing.devices", "from armillary import katcp\nfrom . import streams"),
        ("_runtime.dial", "await trio.open_unix_socket(path)"),
    ],
)
def test_a_module_that_keeps_the_rules_is_left_in_peace(name: str, text: str) -> None:
    """Imports downwards, sideways within a package, and from faces are allowed."""
    assert [] == broken_rules(f"armillary.{name}", text)
