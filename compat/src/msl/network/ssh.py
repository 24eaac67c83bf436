"""Managers and programs on other computers, over SSH.

A console script that is to be started here from another computer reads what it is told with
`parse_console_script_kwargs`, and passes that to `run_forever` or to `run_services`.

New programs use `armillary.network.remote_start`, which checks whose computer it is, and keeps passwords off
the command line.
"""

from __future__ import annotations

import getpass
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import paramiko

from . import json
from .constants import NETWORK_MANAGER_RUNNING_PREFIX

__all__ = ["connect", "exec_command", "parse_console_script_kwargs", "start_manager"]

# Seconds between two looks at what a manager has printed. Longer finds out later that it runs; shorter makes
# more traffic.
_LOOK_INTERVAL = 0.1


def parse_console_script_kwargs() -> dict[str, Any]:
    """The keyword arguments that a console script was started with by `start_manager`; none if by others.

    Raises:
        IndexError: nothing follows ``--kwargs``.
        ValueError: what follows is no JSON.
    """
    if "--kwargs" not in sys.argv:
        return {}
    kwargs: dict[str, Any] = json.deserialize(sys.argv[sys.argv.index("--kwargs") + 1])
    return kwargs


def connect(
    host: str,
    *,
    username: str | None = None,
    password: str | None = None,
    timeout: float = 10,
    missing_host_key_policy: paramiko.MissingHostKeyPolicy | None = None,
    **kwargs: Any,
) -> paramiko.SSHClient:
    """Connect to the SSH server of another computer.

    By default any key that it shows is trusted: whoever answers for `host` gets the password. To trust known
    hosts only, give ``paramiko.RejectPolicy()``, and load their keys with a subclass of it, or use
    `armillary.network.remote_start`.

    Args:
        host: the computer, or ``USER@HOST``.
        username: who logs in. If nobody says so, that is asked for at the terminal.
        password: of that user; asked for as well.
        timeout: seconds for connecting.
        missing_host_key_policy: what to do about an unknown key.
        **kwargs: for ``paramiko.SSHClient.connect``.

    Returns:
        the connection, which the caller closes.

    Raises:
        ValueError: there is no user or no password.
        paramiko.SSHException: the user may not log in, or the server is none.
        OSError: it cannot be reached.
    """
    user, at, name = host.rpartition("@")
    if at:
        host, username = name, user
    if username is None:
        username = input("Enter the SSH username: ")
    if not username:
        raise ValueError("You must specify the SSH username")
    if password is None:
        password = getpass.getpass(f"{username}@{host}'s password: ")
    if not password:
        raise ValueError("You must specify the SSH password")
    client = paramiko.SSHClient()
    # As documented for 1.0, whose programs connect to computers that they have never seen.
    client.set_missing_host_key_policy(missing_host_key_policy or paramiko.AutoAddPolicy())
    try:
        client.connect(host, username=username, password=password, timeout=timeout, **kwargs)
    except BaseException:
        client.close()
        raise
    return client


def exec_command(ssh_client: paramiko.SSHClient, command: str, *, timeout: float = 10) -> list[str]:
    """Have the other computer's shell execute a command, and return the lines that it prints.

    Raises:
        RuntimeError: it has printed something to its standard error, or printed nothing for so many seconds.
            The connection is closed then.
    """
    try:
        printed = _execute(ssh_client, command, timeout)
    except TimeoutError:
        ssh_client.close()
        raise RuntimeError(f"\nTimeout executing SSH command: {command!r}") from None
    if printed.complaints:
        ssh_client.close()
        raise RuntimeError(f"\n{printed.complaints}")
    return printed.text.splitlines()


def start_manager(
    host: str,
    console_script_path: str,
    *,
    ssh_username: str | None = None,
    ssh_password: str | None = None,
    timeout: float = 10,
    as_sudo: bool = False,
    missing_host_key_policy: paramiko.MissingHostKeyPolicy | None = None,
    paramiko_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Start a console script on another computer that runs a manager, and wait until it runs.

    It prints to a file beside it, whose name ends with ``.log``, and goes on when this has returned. If it
    says neither that it runs nor what is wrong, this returns after `timeout` seconds.

    Args:
        host: as for `connect`, and so are the two that begin with ``ssh_``, and the policy.
        console_script_path: the script there, as its shell is to read it.
        ssh_username: see there.
        ssh_password: see there.
        timeout: seconds for connecting, and as many for the manager.
        as_sudo: whether it runs as root, without being asked for a password.
        missing_host_key_policy: see there.
        paramiko_kwargs: for ``paramiko.SSHClient.connect``.
        **kwargs: for the script, which gets them with `parse_console_script_kwargs`. They are on its command
            line, where other users of that computer can read them.

    Raises:
        RuntimeError: the manager has not started; the text is what it has printed.
        TypeError: the arguments for the script are not JSON serializable.
        And what `connect` raises.
    """
    words = f"{console_script_path} --kwargs {shlex.quote(json.serialize(kwargs))}"
    output = _quoted_path(f"{console_script_path}.log")
    # Emptied first: what an earlier manager has printed must not be taken for news.
    command = f": > {output}; {'sudo ' if as_sudo else ''}{words} > {output} 2>&1 &"
    client = connect(
        host,
        username=ssh_username,
        password=ssh_password,
        timeout=timeout,
        missing_host_key_policy=missing_host_key_policy,
        **(paramiko_kwargs or {}),
    )
    with client:
        try:
            complaints = _execute(client, command, timeout).complaints
            if complaints:
                raise RuntimeError(f"Cannot start Manager\n\n{complaints}")
            _wait_running(client, output, timeout)
        except TimeoutError:
            raise RuntimeError(f"Cannot start Manager\n\nNo answer within {timeout} seconds") from None


def _wait_running(client: paramiko.SSHClient, output: str, timeout: float) -> None:
    """Look at what the manager has printed until it says that it runs, or time is up."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        text = _execute(client, f"cat {output}", timeout).text
        if NETWORK_MANAGER_RUNNING_PREFIX in text:
            return
        if "ERROR" in text or "Error:" in text:
            raise RuntimeError(f"Cannot start Manager\n\n{text.rstrip()}")
        time.sleep(_LOOK_INTERVAL)


def _quoted_path(path: str) -> str:
    # The shell knows whose home it is, unless it is quoted.
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


class _Printed(NamedTuple):
    """What a command has printed."""

    text: str
    complaints: str


def _execute(client: paramiko.SSHClient, command: str, timeout: float) -> _Printed:
    """Raises TimeoutError when nothing comes for so many seconds."""
    stdin, stdout, stderr = client.exec_command(command, timeout=timeout)
    with stdin, stdout, stderr:
        stdin.channel.shutdown_write()
        text, complaints = stdout.read(), stderr.read()
    return _Printed(text.decode("utf-8", "replace"), complaints.decode("utf-8", "replace"))
