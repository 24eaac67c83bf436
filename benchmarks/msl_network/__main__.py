"""Run one program over the façade and over MSL-Network 1.0 in turn; print the ratios of the medians.

The manager, the service and the client are processes of their own: armillary's manager with the façade's
service and client, or all of 1.0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.katcp.__main__ import ROOT, free_port

# The program is that of the lab network's own benchmark.
PROGRAM = ROOT / "benchmarks" / "network" / "msl_end.py"
PEER = ROOT / ".peers" / "msl_network" / "bin"
PYTHON = {"armillary": sys.executable, "msl_network": str(PEER / "python")}
MANAGER = {
    "armillary": [sys.executable, "-m", "armillary", "network", "start"],
    "msl_network": [str(PEER / "msl-network"), "start"],
}
# Requests that wait together: what a service of 1.0 still takes at once.
PIPELINED = 2000
NOTIFICATIONS = 5000
CONNECTS = 50
# Seconds for anything at all.
PATIENCE = 120.0


@dataclass
class Figure:
    """One figure of both, over all rounds."""

    target: float
    """How many times better the façade is to be."""
    more_is_better: bool
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PYTHON})

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def ratio(self) -> float:
        """How many times better the façade is."""
        ours, theirs = map(self.median, PYTHON)
        return ours / theirs if self.more_is_better else theirs / ours


def figures() -> dict[str, Figure]:
    return {
        "one at a time": Figure(1.0, True),
        "one at a time, p99": Figure(1.0, False),
        "pipelined": Figure(1.5, True),
        "notifications": Figure(1.0, True),
        "10 MB of text there and back": Figure(1.0, False),
        "connecting": Figure(1.0, False),
    }


class Program:
    """The client, which does what it is asked for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, command: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([command, *arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def running(command: list[str], home: Path, **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    variables = {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, text=True, env=variables, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def lab(name: str, *, tls: bool) -> Iterator[Program]:
    """A manager, a service and a client, for a block."""
    with tempfile.TemporaryDirectory(prefix="bench-msl-") as directory:
        home, port = Path(directory), str(free_port())
        arguments = ["Echo", port, directory, "tls" if tls else "plain"]
        ends = [PYTHON[name], str(PROGRAM)]
        options = ["-p", port, *([] if tls else ["--disable-tls"])]
        log = home / "manager.txt"
        with ExitStack() as stack:
            output = stack.enter_context(log.open("w"))
            stack.enter_context(running([*MANAGER[name], *options], home, stdout=output))
            deadline = time.monotonic() + PATIENCE
            while "Network Manager running on" not in log.read_text():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the manager of {name} did not start")
                time.sleep(0.05)
            stack.enter_context(running([*ends, "service", *arguments], home))
            pipe = subprocess.PIPE
            client = stack.enter_context(
                running([*ends, "client", *arguments], home, stdin=pipe, stdout=pipe)
            )
            program = Program(client)
            program.ask("connects", 1)
            yield program


def measure(name: str, *, tls: bool, seconds: float) -> Iterator[tuple[str, float]]:
    """What a client sees."""
    with lab(name, tls=tls) as client:
        client.ask("one_at_a_time", 0.3)
        elapsed, taken = client.ask("one_at_a_time", seconds)
        yield "one at a time", len(taken) / elapsed
        yield "one at a time, p99", statistics.quantiles(taken, n=100)[98]
        client.ask("pipelined", "plain", PIPELINED, 0.3)
        elapsed, done = client.ask("pipelined", "plain", PIPELINED, seconds)
        yield "pipelined", done / elapsed
        client.ask("listen", NOTIFICATIONS)
        begin = client.ask("tell", NOTIFICATIONS)
        yield "notifications", NOTIFICATIONS / (client.ask("heard") - begin)
        yield "10 MB of text there and back", statistics.median(client.ask("big", 10_000_000, seconds))
        yield "connecting", statistics.median(client.ask("connects", CONNECTS))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.msl_network", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for a figure (default 2)")
    options = parser.parse_args()
    if not PEER.exists():
        parser.error(f"there is no {PEER}: run `make peers`")
    for tls in (False, True):
        measured = figures()
        for number in range(options.rounds):
            for name in PYTHON if number % 2 else reversed(PYTHON):
                for title, value in measure(name, tls=tls, seconds=options.seconds):
                    measured[title].values[name].append(value)
        print(f"{'with TLS' if tls else 'without TLS':36}{'façade':>12}{'1.0':>12}{'ratio':>8}{'target':>8}")
        for title, figure in measured.items():
            ours, theirs = map(figure.median, PYTHON)
            reached = "" if figure.ratio() >= figure.target else "  below"
            print(f"{title:36}{ours:12.4g}{theirs:12.4g}{figure.ratio():8.2f}{figure.target:8.1f}{reached}")


if __name__ == "__main__":
    main()
