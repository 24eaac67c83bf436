"""Run every measurement for both in turn, and print the ratios of the medians."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import load

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PYTHON = {"armillary": sys.executable, "aiokatcp": str(ROOT / ".peers/aiokatcp/bin/python")}
SENSORS = 10_000


@dataclass
class Row:
    """One figure of both, over all rounds."""

    unit: str
    target: float
    more_is_better: bool
    values: dict[str, list[float]] = field(default_factory=lambda: {"armillary": [], "aiokatcp": []})

    def ratio(self) -> float:
        """How many times better armillary's median is."""
        ours, theirs = (statistics.median(self.values[name]) for name in ("armillary", "aiokatcp"))
        return ours / theirs if self.more_is_better else theirs / ours


ROWS = {
    "pipelined, async def": Row("requests/s", 3.0, True),
    "pipelined, def": Row("requests/s", 5.0, True),
    "one at a time": Row("requests/s", 1.1, True),
    "one at a time, p99": Row("s", 1.0, False),
    "50 clients at once": Row("requests/s", 3.0, True),
    "subscribe 10 x 1,000 in bulk": Row("s", 2.0, False),
    "1,000 sensors to 10 clients, event": Row("informs/s", 4.0, True),
    "?sensor-list of 10,000": Row("s", 2.0, False),
    "?sensor-value of 10,000": Row("s", 2.0, False),
    "?watchdog during ?sensor-list": Row("s", 5.0, False),
    "mirror of 10,000 in step": Row("s", 2.0, False),
    "10 MB there and back": Row("s", 1.0, False),
    "memory of an idle connection": Row("bytes", 1.0, False),
    "memory of a sensor": Row("bytes", 1.0, False),
    "5,000 idle connections": Row("s", 0.0, False),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(core: int) -> Callable[[], None]:
    """The server on one core, the load on another, where the system has two and lets us choose."""

    def pin() -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    return pin


@contextlib.contextmanager
def server(name: str, sensors: int) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; its port and its process id."""
    port = free_port()
    command = [PYTHON[name], str(HERE / f"{name}_server.py"), str(port), str(sensors)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=pinned(0))
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{name} did not start")
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def mirror(name: str, port: int) -> float:
    """Seconds until a mirror in a process of its own is in step."""
    command = [PYTHON[name], str(HERE / f"{name}_mirror.py"), str(port), str(SENSORS)]
    output = subprocess.run(command, capture_output=True, check=True, preexec_fn=pinned(1), timeout=120)
    return float(output.stdout)


def measure_requests(name: str) -> Iterator[tuple[str, float]]:
    with server(name, 0) as (port, _):
        yield "pipelined, async def", load.pipelined(port, b"echo")
        yield "pipelined, def", load.pipelined(port, b"plain-echo")
        rate, p99 = load.one_at_a_time(port)
        yield "one at a time", rate
        yield "one at a time, p99", p99
        yield "50 clients at once", load.busy_clients(port)
        yield "10 MB there and back", load.big_message(port)


def measure_fan_out(name: str) -> Iterator[tuple[str, float]]:
    with server(name, 1000) as (port, _):
        subscribed, rate = load.subscribe_and_fan_out(port, 1000)
        yield "subscribe 10 x 1,000 in bulk", subscribed
        yield "1,000 sensors to 10 clients, event", rate


def measure_sensors(name: str) -> Iterator[tuple[str, float]]:
    with server(name, SENSORS) as (port, _):
        listed, valued, watchdog = load.long_replies(port)
        yield "?sensor-list of 10,000", listed
        yield "?sensor-value of 10,000", valued
        yield "?watchdog during ?sensor-list", watchdog
        yield "mirror of 10,000 in step", mirror(name, port)


def measure_memory(name: str) -> Iterator[tuple[str, float]]:
    with server(name, 0) as (_, pid):
        empty = memory_of(pid)
    with server(name, 20_000) as (_, pid):
        yield "memory of a sensor", (memory_of(pid) - empty) / 20_000
    with server(name, 0) as (port, pid):
        # The first connections pay for what all share: buffers, tables, code that is run for the first time.
        warm, _ = load.idle_connections(port, 100)
        before = memory_of(pid)
        peers, seconds = load.idle_connections(port, 5000)
        yield "5,000 idle connections", seconds
        peers[0].socket.settimeout(120)
        peers[0].ask(b"?watchdog[1]\n")
        yield "memory of an idle connection", (memory_of(pid) - before) / 5000
        for peer in warm + peers:
            peer.close()


GROUPS = {
    "requests": measure_requests,
    "fan-out": measure_fan_out,
    "sensors": measure_sensors,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.katcp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("groups", nargs="*", default=[], help=f"of {', '.join(GROUPS)}; all if none is named")
    options = parser.parse_args()
    with contextlib.suppress(ImportError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    pinned(1)()
    for group in options.groups or GROUPS:
        # The peer takes minutes to accept five thousand clients, and memory hardly varies.
        rounds = 1 if group == "memory" else options.rounds
        for round_number in range(rounds):
            for name in PYTHON if round_number % 2 else reversed(PYTHON):
                for figure, value in GROUPS[group](name):
                    ROWS[figure].values[name].append(value)
    print(f"{'':36}{'armillary':>12}{'aiokatcp':>12} {'':12}{'ratio':>7}{'target':>8}")
    for figure, row in ROWS.items():
        if row.values["armillary"]:
            ours, theirs = (statistics.median(row.values[name]) for name in ("armillary", "aiokatcp"))
            reached = "" if row.ratio() >= row.target else "  below"
            both = f"{figure:36}{ours:12.5g}{theirs:12.5g} {row.unit:12}"
            print(f"{both}{row.ratio():7.2f}{row.target:8.1f}{reached}")


if __name__ == "__main__":
    main()
