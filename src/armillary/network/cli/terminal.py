"""Ask whoever sits at the terminal, while the program goes on."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import click
import trio

from armillary._wire.text import printable

__all__ = ["NoTerminal", "ask_at_terminal"]

# What a terminal gives at once, and the longest line that can be typed there.
_LINE = 4096


class NoTerminal(Exception):
    """Standard input is no terminal, or nobody answers there."""


async def ask_at_terminal(question: str, *, is_secret: bool = False) -> str:
    """Ask a question on standard error, and return the line that is typed, without its end.

    What is secret is not shown while it is typed. Cancellation leaves the terminal as it was.

    Raises:
        NoTerminal: nobody can be asked, or whoever was asked has ended the input (Ctrl-D).
    """
    terminal = _terminal()
    # No thread waits for the line: one that nobody waits for any more would keep the terminal silent.
    with _echo_off(terminal) if is_secret else nullcontext():
        click.echo(printable(question), nl=False, err=True)
        await trio.lowlevel.wait_readable(terminal)
        line = os.read(terminal, _LINE)
    if not line:
        raise NoTerminal("nobody answered at the terminal")
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _terminal() -> int:
    try:
        terminal = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, it is closed, or it is no file
        terminal = -1
    if terminal < 0 or not os.isatty(terminal):
        raise NoTerminal("standard input is no terminal")
    return terminal


@contextmanager
def _echo_off(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    try:
        # What was typed before the question is no answer to it.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        click.echo(err=True)
