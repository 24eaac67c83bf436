"""What is measured, and what is to be reached."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["FIGURES", "Figure", "Results"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that both have."""

    name: str
    unit: str
    more_is_better: bool
    target: float | None = None
    """How many times better ours has to be. None: it is shown because it explains another one."""
    most: float | None = None
    """What ours may be at most, where there is nothing to compare it with."""


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("one at a time", "requests/s", True, 1.5),
        Figure("one at a time, p50", "s", False),
        Figure("one at a time, p99", "s", False, 1.0),
        Figure("one at a time, manager's CPU", "s/request", False, 2.5),
        Figure("one at a time, CPU of all", "s/request", False),
        # Methods of 1.0 all run in threads: what armillary's coroutines are compared with.
        Figure("pipelined, async def", "requests/s", True, 3.0),
        Figure("pipelined, async def, manager's CPU", "s/request", False),
        Figure("pipelined, async def, CPU of all", "s/request", False),
        Figure("pipelined, def", "requests/s", True, 1.5),
        Figure("pipelined, def, CPU of all", "s/request", False),
        Figure("10 MB of text there and back", "bytes/s", True, 3.0),
        Figure("1 MB of float64 there and back", "s", False, 20.0),
        Figure("10 clients", "requests/s", True, 2.0),
        Figure("10 clients, p99", "s", False),
        Figure("10 clients, manager's CPU", "s/request", False, 2.5),
        Figure("small call beside 10 MB ones, p50", "s", False),
        Figure("small call beside 10 MB ones, p99", "s", False, 5.0),
        Figure("10 MB ones meanwhile", "bytes/s", True),
        Figure("notifications to 10 clients", "deliveries/s", True, 3.0),
        Figure("notifications, manager's CPU", "s/delivery", False, 5.0),
        Figure("connecting", "s", False, 2.0),
        Figure("idle client in the manager", "bytes", False, 2.0),
        Figure("5,000 idle clients connect", "s", False),
        Figure("5,000 idle clients, identities", "s", False, most=1.0),
    )
}


@dataclass
class Results:
    """The values of all rounds, by figure, with TLS or without, and by who was measured."""

    values: defaultdict[tuple[str, bool, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: set[tuple[str, bool, str]] = field(default_factory=set)

    def add(self, figure: str, tls: bool, name: str, value: float) -> None:
        """One more round was measured."""
        self.values[figure, tls, name].append(value)

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{'':44}{'armillary':>12}{'1.0':>12}  {'':13}{'ratio':>7}{'target':>9}"
        seen = {(figure, tls) for figure, tls, _ in (*self.values, *self.failed)}
        for name, figure in FIGURES.items():
            for tls in (False, True):
                if (name, tls) in seen:
                    yield self._line(figure, tls)

    def _line(self, figure: Figure, tls: bool) -> str:
        ours, theirs = (self._median(figure.name, tls, name) for name in ("armillary", "msl_network"))
        name = f"{figure.name}, TLS" if tls else figure.name
        return f"{name:44}{_cell(ours)}{_cell(theirs)}  {figure.unit:13}{_verdict(figure, ours, theirs)}"

    def _median(self, figure: str, tls: bool, name: str) -> float | str | None:
        """The median of what was measured; ``"failed"``; or None if it was not tried."""
        key = (figure, tls, name)
        if key in self.failed:
            return "failed"
        return statistics.median(self.values[key]) if key in self.values else None


def _cell(value: float | str | None) -> str:
    return f"{value:12.4g}" if isinstance(value, float) else f"{value or '':>12}"


def _verdict(figure: Figure, ours: float | str | None, theirs: float | str | None) -> str:
    """The ratio, the target, and whether it was reached."""
    if not isinstance(ours, float):
        return ""
    if figure.most is not None:
        target = f"<= {figure.most:g}"
        return f"{'':7}{target:>9}  {'reached' if ours <= figure.most else 'MISSED'}"
    if not isinstance(theirs, float):
        return f"{'':18}peer failed" if theirs else ""
    ratio = ours / theirs if figure.more_is_better else theirs / ours
    if figure.target is None:
        return f"{ratio:7.2f}"
    return f"{ratio:7.2f}{figure.target:9.1f}  {'reached' if ratio >= figure.target else 'MISSED'}"
