"""Measure armillary's lab network and MSL-Network 1.0 in turn; print the ratios of the medians.

The manager, the service and the clients are all of the one or all of the other, each a process of its own,
with their defaults. A figure of 1.0 that does not come in time, or whose programs end, is shown as failed.
"""

from __future__ import annotations

import argparse
import resource
import sys
from contextlib import aclosing

import trio

from armillary._runtime.signals import cancel_on_signal

from .figures import Results
from .lab import NAMES, PEER, open_lab
from .measures import GROUPS, Effort, Group
from .processes import Failed

NORMAL = Effort(seconds=3.0, notifications=10_000, connects=50, idle=300, many=5000)
QUICK = Effort(seconds=1.0, notifications=2000, connects=15, idle=150, many=5000)
# Seconds for a group in one lab: far more than any of them takes.
PATIENCE = 600.0


async def measure(
    results: Results, name: str, group: Group, *, tls: bool, effort: Effort, level: str
) -> None:
    """Measure one group once, of one of the two."""
    missing = set(group.figures)
    try:
        with trio.fail_after(PATIENCE):
            async with (
                open_lab(name, tls=tls, log_level=level) as lab,
                aclosing(group.measure(lab, effort)) as measured,
            ):
                async for figure, value in measured:
                    missing.discard(figure)
                    results.add(figure, tls, name, value)
    except* (Failed, trio.TooSlowError) as errors:
        # Several clients may have failed, each for the same reason.
        print(f"{name} failed{' with TLS' if tls else ''}: {_first(errors)}", file=sys.stderr)
        results.failed |= {(figure, tls, name) for figure in missing}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def measure_all(options: argparse.Namespace, results: Results) -> bool:
    """Measure what is asked for. Return whether that was done, and not interrupted."""
    effort = QUICK if options.quick else NORMAL
    is_done = False
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        for group in (GROUPS[name] for name in options.groups or GROUPS):
            for number in range(1 if group.is_steady or options.quick else options.rounds):
                for name in NAMES if number % 2 else reversed(NAMES):
                    for tls in group.tls if name == "armillary" or group.has_peer else ():
                        await measure(results, name, group, tls=tls, effort=effort, level=options.log_level)
        is_done = True
        nursery.cancel_scope.cancel()
    return is_done


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="FIGURE", help=f"of {', '.join(GROUPS)}; all if none is named"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--log-level", default="INFO", help="of both managers (default INFO, as theirs is)")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    if not PEER.exists():
        parser.error(f"there is no {PEER}: run `make peers`")
    # Five thousand clients have as many descriptors in the manager, and theirs in the client.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    results = Results()
    is_done = trio.run(measure_all, options, results)
    for line in results.lines():
        print(line)
    if not is_done:
        parser.exit(130, "interrupted\n")


if __name__ == "__main__":
    main()
