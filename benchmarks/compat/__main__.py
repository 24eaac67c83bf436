"""Run the measurements of the bridge, and print ratios of medians."""

from __future__ import annotations

import argparse

from . import crossings

GROUPS = {"crossings": crossings.report}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compat", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default 7)")
    parser.add_argument("groups", nargs="*", default=[], help=f"of {', '.join(GROUPS)}; all if none is named")
    options = parser.parse_args()
    for group in options.groups or GROUPS:
        GROUPS[group](options.rounds)


if __name__ == "__main__":
    main()
