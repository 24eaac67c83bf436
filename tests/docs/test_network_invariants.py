"""The page of a manager's invariants says what the source says, and the tests check what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from armillary.network.protocol import outstanding, registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/network_invariants.md").read_text("utf-8")
MODULES = pytest.mark.parametrize("module", [registry, outstanding], ids=["registry", "outstanding"])
HEADINGS = {registry: "The registry", outstanding: "Outstanding requests"}


def numbered(text: str) -> list[tuple[int, str]]:
    """The items of the numbered list in a text, each in one line."""
    items = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\s*$|\Z)", text, re.DOTALL | re.MULTILINE)
    return [(int(number), " ".join(item.split())) for number, item in items]


def stated(module: ModuleType) -> list[tuple[int, str]]:
    """The invariants that the source states."""
    _, separator, text = (module.__doc__ or "").partition(
        "Invariants, which the tests check after every step:\n"
    )
    assert separator
    found = numbered(text)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert len(found) >= 6
    return found


def checked(module: ModuleType) -> set[int]:
    """The numbers at the beginning of what the steps and checks of the state machine say of themselves."""
    name = module.__name__.rpartition(".")[2]
    source = (ROOT / f"tests/network/protocol/test_{name}_machine.py").read_text("utf-8")
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            begin = re.match(r"(\d+)((?:, \d+)*)(?: and (\d+))?[.:,]", ast.get_docstring(node) or "")
            found.update(int(number) for number in re.findall(r"\d+", begin[0] if begin else ""))
    return found


@MODULES
def test_the_page_has_what_the_source_has(module: ModuleType) -> None:
    """The invariants on the page are word for word those that the source states."""
    _, _, rest = PAGE.partition(f"\n## {HEADINGS[module]}\n")
    section, _, _ = rest.partition("\n## ")
    assert numbered(section.partition("The invariants:\n")[2]) == stated(module)


@MODULES
def test_each_invariant_is_checked(module: ModuleType) -> None:
    """Each invariant that the source states has a check of its number in the state machine."""
    assert checked(module) == {number for number, _ in stated(module)}
