"""The ``armillary`` command."""

from __future__ import annotations

import importlib
import io
import sys
from typing import cast

import click

from armillary.__about__ import __version__

__all__ = ["main"]


class _LazyGroup(click.Group):
    """Commands that are imported when they are run.

    Importing all of them takes ten times as long as showing the help or completing a word. So each command
    stands in the table below, with its line of help, and is the `main` of its module.
    """

    modules = {  # noqa: RUF012 - never written to; click's classes know no ClassVar
        "demo": (
            "armillary.demo",
            "See it work: a device on this computer, and a live table of its sensors.",
        ),
        "katcp": ("armillary.katcp.cli", "Talk to KATCP devices, and be one."),
        "network": ("armillary.network.cli", "Run a lab network, and talk to its services."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        return cast(click.Command, importlib.import_module(self.modules[cmd_name][0]).main)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.modules[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup)
@click.version_option(__version__, prog_name="armillary")
def main() -> None:
    """Control software of laboratories and observatories, from a terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Devices say what they like; a terminal that lacks a letter should not end the program.
        sys.stdout.reconfigure(errors="backslashreplace")
