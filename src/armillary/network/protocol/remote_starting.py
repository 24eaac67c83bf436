"""How another computer is told to start a manager, as a script for its shell, and what that reports.

Pure. The script is for any POSIX shell, and goes to its standard input, so that nothing of it (passwords,
above all) is in the list of processes or depends on what the user's login shell does with quotes. The manager
gets its passwords in files that only that user can read, by name, which managers of 1.0 take as well, and
which are removed as soon as the manager runs or has failed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

__all__ = ["SHELL", "Report", "Running", "read_report", "start_script"]

SHELL = """exec sh -c 'eval "$(cat)"'"""
"""What to execute; the script is its input, up to the end. Login shells of all kinds read this alike."""

# The last bytes of the manager's output that are reported. More takes longer behind slow links; fewer may cut
# off the reason why it did not start.
_REPORTED = 65536
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
# What managers say last when they start, 1.0's as well.
_RUNNING = "Network Manager running on "
_WHERE = re.compile(re.escape(_RUNNING) + r"(?P<host>\S+):(?P<port>\d+) \(TLS (?P<tls>ENABLED|DISABLED)\)")


@dataclass(frozen=True, slots=True)
class Running:
    """Where a manager says that it runs."""

    host: str
    """As it calls itself."""
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a manager."""

    pid: int
    """Of its process, or of sudo's."""
    status: int | None
    """Its exit status; None while it goes on."""
    running: Running | None
    """None if it has not said that it runs."""
    output: str
    """The file that it writes to, on its computer."""
    log: str
    """What it has written so far, or the end of it."""


def start_script(
    command: str | Sequence[str],
    options: Mapping[str, object],
    *,
    marker: str,
    timeout: float,
    as_sudo: bool = False,
    sudo_password: str | None = None,
) -> str:
    """The script that starts a manager, waits until it runs or ends, and reports.

    Args:
        command: the program and its first arguments, as a list, or as a text with a shell's quotes, in which
            nothing is expanded. A program that begins with ``~/`` is looked for in the user's home.
        options: more options by name: ``log_level="DEBUG"`` is ``--log-level=DEBUG``. True is an option
            without a value, None and False are none. What ends with ``password`` is given in a file.
        marker: a text that nobody knows beforehand; the report begins with it.
        timeout: seconds to wait until it runs, rounded up.
        as_sudo: whether it runs as root.
        sudo_password: what sudo may ask for; if None, it must not ask.

    Raises:
        ValueError: the command is empty, or what is given cannot be an option or a password.
        TypeError: a value is no text, number or path.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    if not words:
        raise ValueError("expected a command, got none")
    program, *arguments = words
    line = [_program(program), *map(_quoted, arguments)]
    secrets = {}
    for name, value in options.items():
        if not _OPTION.fullmatch(name):
            raise ValueError(f"expected the name of an option, as 'log_level', got {name!r}")
        flag = "--" + name.replace("_", "-")
        if value is True:
            line.append(flag)
        elif value is None or value is False:
            continue
        elif name.endswith("password"):
            secrets[name] = _secret(name, value)
            line.append(f'{flag}="$dir"/{name}')
        else:
            line.append(_quoted(f"{flag}={_text(name, value)}"))
    run = " ".join(line)
    if as_sudo and sudo_password is None:
        run = f"sudo -n -- {run}"
    elif as_sudo:
        run = f"printf '%s\\n' {_quoted(_secret('sudo_password', sudo_password))} | sudo -S -p '' -- {run}"
    files = " ".join(f'"$dir"/{name}' for name in secrets)
    return "\n".join(
        [
            "mask=$(umask)",
            "umask 077",
            'dir=$(mktemp -d "${TMPDIR:-/tmp}/armillary-manager.XXXXXX") || exit 1',
            *(f"""printf '%s\\n' {_quoted(secret)} >"$dir"/{name}""" for name, secret in secrets.items()),
            ': >"$dir"/output',
            # It outlives this connection. Its shell waits for it, and tells whether it has ended.
            "(",
            "trap '' HUP",
            'umask "$mask"',
            f"{run} &",
            'echo "$!" >"$dir"/pid',
            'wait "$!"',
            'echo "$?" >"$dir"/status',
            ') >"$dir"/output 2>&1 </dev/null &',
            f"end=$(($(date +%s) + {ceil(timeout)}))",
            f"""running() {{ LC_ALL=C grep {_quoted(_RUNNING)} "$dir"/output; }}""",
            'until running >/dev/null || [ -s "$dir"/status ] || [ "$(date +%s)" -ge "$end" ]; do',
            "sleep 0.1 2>/dev/null || sleep 1",
            "done",
            *([f"rm -f {files}"] if files else []),
            f"echo {_quoted(marker)}",
            """printf 'pid %s\\n' "$(cat "$dir"/pid)" """,
            """printf 'status %s\\n' "$(cat "$dir"/status 2>/dev/null)" """,
            """printf 'output %s\\n' "$dir"/output""",
            """printf 'running %s\\n' "$(running | head -n 1)" """,
            f'tail -c {_REPORTED} "$dir"/output',
            'if [ -s "$dir"/status ]; then rm -rf "$dir"; fi',
            "",
        ]
    )


def read_report(text: str, marker: str) -> Report | None:
    """What a script has printed, also after other things that the user's shell prints; None if nothing."""
    _, found, report = text.partition(f"{marker}\n")
    fields, lines = {}, report.split("\n", 4)
    for name, line in zip(("pid", "status", "output", "running"), lines, strict=False):
        key, _, fields[name] = line.partition(" ")
        if key != name:
            return None
    if not found or len(lines) < 5 or not fields["pid"].isdecimal():
        return None
    where = _WHERE.search(fields["running"])
    return Report(
        pid=int(fields["pid"]),
        status=int(fields["status"]) if fields["status"].isdecimal() else None,
        running=None
        if where is None
        else Running(_bare(where["host"]), int(where["port"]), where["tls"] == "ENABLED"),
        output=fields["output"],
        log=lines[4],
    )


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _program(text: str) -> str:
    # A list of processes, and sudo, would not expand what is quoted.
    return '"$HOME"/' + _quoted(text[2:]) if text.startswith("~/") else _quoted(text)


def _quoted(text: str) -> str:
    """One word, always in quotes: some need none by their characters, but mean something in a shell.

    Errors do not quote it, for it may be a password.
    """
    if "\0" in text:
        raise ValueError("expected a text that a command line can have, got one with a NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("expected a text that UTF-8 can write, got halves of surrogate pairs") from None
    return "'" + text.replace("'", "'\\''") + "'"


def _text(name: str, value: object) -> str:
    if isinstance(value, str | int | float) or hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"expected a text, a number, a path or a bool as {name!r}, got {type(value).__name__}")


def _secret(name: str, value: object) -> str:
    """A password, if it can be read back from the first line of a file. Errors do not quote it."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text as {name!r}, got {type(value).__name__}")
    if not value or value != value.strip() or not {"\n", "\r", "\0"}.isdisjoint(value):
        raise ValueError(f"expected {name!r} to be one line without blanks around it")
    return value
