"""What the page about the bridge guarantees is what tests show."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/bridge.md").read_text("utf-8")


def sentences_of_tests() -> set[str]:
    """The docstrings of all tests in this directory, each in one line."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(" ".join((ast.get_docstring(node) or "").split()))
    return found


def guarantees() -> list[tuple[int, str]]:
    """The numbered sentences of the page, without their remarks in brackets."""
    items = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\s*$)", PAGE, re.DOTALL | re.MULTILINE)
    return [(int(number), re.sub(r" \(\*.*\*\)$", "", " ".join(text.split()))) for number, text in items]


def test_guarantees() -> None:
    """Each guarantee on the page is, word for word, what a test shows; they are numbered without gaps."""
    found, shown = guarantees(), sentences_of_tests()
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert len(found) >= 50
    assert [text for _, text in found if text not in shown] == []
