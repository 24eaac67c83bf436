"""Run every measurement over the façade and over aiokatcp in turn, on both loops; print ratios of medians."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.katcp import load
from benchmarks.katcp.__main__ import HERE as KATCP
from benchmarks.katcp.__main__ import ROOT, Row, free_port, pinned

HERE = ROOT / "benchmarks" / "aiokatcp"
PYTHON = {"armillary": sys.executable, "aiokatcp": str(ROOT / ".peers/aiokatcp/bin/python")}
LOOPS = ("asyncio", "uvloop")


def rows() -> dict[str, Row]:
    return {
        "pipelined": Row("requests/s", 1.5, True),
        "one at a time": Row("requests/s", 1.0, True),
        "one at a time, p99": Row("s", 1.0, False),
        "50 clients at once": Row("requests/s", 1.0, True),
        "subscribe 10 x 1,000 in bulk": Row("s", 1.0, False),
        "1,000 sensors to 10 clients, event": Row("informs/s", 2.0, True),
    }


def measure(python: str, loop: str) -> Iterator[tuple[str, float]]:
    """What clients see."""
    for sensors in (0, 1000):
        port = free_port()
        command = [python, str(KATCP / "aiokatcp_server.py"), str(port), str(sensors), loop]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=pinned(0))
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{python} did not start")
            if sensors:
                subscribed, rate = load.subscribe_and_fan_out(port, sensors)
                yield "subscribe 10 x 1,000 in bulk", subscribed
                yield "1,000 sensors to 10 clients, event", rate
            else:
                yield "pipelined", load.pipelined(port, b"echo")
                rate, p99 = load.one_at_a_time(port)
                yield "one at a time", rate
                yield "one at a time, p99", p99
                yield "50 clients at once", load.busy_clients(port)
        finally:
            process.kill()
            process.wait()


def start_up(python: str, loop: str) -> tuple[float, float]:
    """Seconds to start a server, and seconds of processor time in five idle ones."""
    command = [python, str(HERE / "start_up.py"), loop]
    output = subprocess.run(command, capture_output=True, check=True, preexec_fn=pinned(0), timeout=120)
    started, idle = map(float, output.stdout.split())
    return started, idle


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aiokatcp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="which loop (default both)")
    options = parser.parse_args()
    pinned(1)()
    for loop in options.loop or LOOPS:
        figures = rows()
        starts: dict[str, list[float]] = {name: [] for name in PYTHON}
        idles: dict[str, list[float]] = {name: [] for name in PYTHON}
        for round_number in range(options.rounds):
            for name in PYTHON if round_number % 2 else reversed(PYTHON):
                for figure, value in measure(PYTHON[name], loop):
                    figures[figure].values[name].append(value)
                started, idle = start_up(PYTHON[name], loop)
                starts[name].append(started)
                idles[name].append(idle)
        print(f"on {loop}{'ratio':>40}{'target':>8}")
        for figure, row in figures.items():
            reached = "" if row.ratio() >= row.target else "  below"
            print(f"{figure:36}{row.ratio():7.2f}{row.target:8.1f}{reached}")
        more = statistics.median(starts["armillary"]) - statistics.median(starts["aiokatcp"])
        print(f"start-up takes {1000 * more:.2f} ms more (target: at most 5)")
        busy = statistics.median(idles["armillary"]) / 5
        print(f"idle: {100 * busy:.2f} % of a processor (target: none)")


if __name__ == "__main__":
    main()
