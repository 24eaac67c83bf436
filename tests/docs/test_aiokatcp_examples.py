"""Programs as users of aiokatcp write them print the same over the façade and over aiokatcp itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "aiokatcp"
PEER = ROOT / ".peers" / "aiokatcp" / "bin" / "python"
# Far more than any example takes on a busy machine; one that gets there fails instead of hanging.
PATIENCE = 60.0
# What else is run, and where.
OTHERS = {"telescope.py": "imported by the others", "half_moved.py": "needs armillary"}


def run(python: str | Path, example: str) -> str:
    """Run an example to its end, with every warning an error, and return all that it printed."""
    command = [python, "-X", "dev", "-W", "error", EXAMPLES / example]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=True, text=True
    )
    return done.stdout


def test_every_example_is_run() -> None:
    """No example is left out here."""
    assert {file.name for file in EXAMPLES.glob("*.py")} == {"observer.py", "proxy.py", *OTHERS}


@pytest.mark.interop
@pytest.mark.parametrize("example", ["observer.py", "proxy.py"])
def test_the_same_program(example: str) -> None:
    """The very same file prints the very same text over aiokatcp and over the façade."""
    theirs = run(PEER, example)
    assert theirs.count("\n") > 8
    assert run(sys.executable, example) == theirs


def test_half_moved() -> None:
    """Old and new code share one program and one loop."""
    assert run(sys.executable, "half_moved.py") == (
        "the native client saw NIGHT_SKY NOMINAL\n"
        "the native device says the telescope is in NIGHT_SKY\n"
        "the telescope has stopped\n"
    )
