"""Start a manager on another computer, over SSH. Needs the extra ``ssh``.

    started = await start_manager("lab-pc", options={"auth_login": True})
    async with open_client("lab-pc", started.port) as lab: ...

The other computer needs a POSIX shell, and armillary or MSL-Network 1.0.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple, Unpack

import trio

from armillary._runtime.dial import address_text, open_stream
from armillary.errors import ArmillaryError, ConnectFailed

try:
    import paramiko
except ImportError as error:
    raise ImportError(
        f"starting over SSH needs more packages, run: pip install 'armillary[ssh]' ({error})"
    ) from error

from .protocol.remote_starting import SHELL, read_report, start_script

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

__all__ = ["HostKeyRefused", "ManagerNotStarted", "StartedManager", "start_manager"]

COMMAND = ("armillary", "network", "start")
"""What starts a manager."""
# Seconds that a report may be late, on its way or because a shell looks only once a second. Shorter loses
# reports behind slow links.
_LATE = 5.0
# Seconds for the goodbye. Longer holds up whoever is cancelled; shorter is cut off more often.
_GOODBYE = 1.0
# The most that is read of a report, with whatever a login shell prints before. More only takes memory.
_LONGEST_REPORT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StartedManager:
    """A manager that runs on another computer, whether or not anybody is connected with it."""

    host: str
    """What it calls its computer."""
    port: int
    """Where it listens."""
    tls: bool
    """Whether it wants TLS."""
    pid: int
    """Of its process there, or of sudo's."""
    output: str
    """The file there that it prints to; it also logs where it was told to."""
    log: str = field(repr=False)
    """What it has printed until it ran."""


class HostKeyRefused(ConnectFailed):
    """The other computer's SSH key is not known, or another than the one that is known.

    Nothing was said to it, and no password was sent.

    Attributes:
        fingerprint: of the key that it showed, as ``SHA256:...``, to be compared with what ``ssh-keygen -lf``
            says there.
    """

    def __init__(self, text: str, fingerprint: str) -> None:
        super().__init__(text)
        self.fingerprint = fingerprint


class ManagerNotStarted(ArmillaryError):
    """The manager has ended instead of running, or has not said in time that it runs.

    In the latter case it may be running by now, or soon.

    Attributes:
        log: what it has printed.
    """

    def __init__(self, text: str, log: str) -> None:
        super().__init__(f"{text}; it has printed:\n{log.rstrip()}" if log.strip() else text)
        self.log = log


async def start_manager(
    host: str,
    command: str | Sequence[str] = COMMAND,
    *,
    options: Mapping[str, object] | None = None,
    port: int = 22,
    username: str | None = None,
    password: str | None = None,
    known_hosts: str | os.PathLike[str] | None = None,
    accept_host_key: bool | str = False,
    timeout: float = 10.0,
    as_sudo: bool = False,
    sudo_password: str | None = None,
    ssh_options: Mapping[str, Any] | None = None,
) -> StartedManager:
    """Start a manager on another computer, and return when it runs. It goes on when this has returned.

    Args:
        host: the other computer: a name or an IP address, or ``USER@HOST``.
        command: the program there and its first arguments, as a list, or as a text with a shell's quotes, in
            which nothing is expanded; ``msl-network start`` starts one of 1.0. Relative paths begin in the
            user's home, and so does ``~/``.
        options: those of the command, as ``{"port": 1876, "disable_tls": True}``. Passwords among them are on
            no command line and in no log there.
        port: of the SSH server.
        username: who logs in; whoever runs this program if None.
        password: of that user; if None, keys in ``~/.ssh`` and those of an SSH agent are tried.
        known_hosts: the file with the host keys that are trusted; ``~/.ssh/known_hosts`` if None.
        accept_host_key: the fingerprint (``SHA256:...``) of the key that is trusted, whatever is known; or
            True for any while none is known, which lets whoever answers for that host read the passwords.
        timeout: seconds for connecting, and as many for the manager to say that it runs.
        as_sudo: whether it runs as root.
        sudo_password: what sudo asks for; `password` if None; it must not ask if that is None, too.
        ssh_options: more arguments of paramiko's ``SSHClient.connect``, as ``key_filename``.

    Raises:
        ConnectFailed: there is no connection, or the user may not log in.
        HostKeyRefused: the host's key is not trusted. A kind of `ConnectFailed`.
        ManagerNotStarted: the manager could not start, or took too long; with what it has printed.
        ValueError: the command, an option or a password cannot be.
        TypeError: an option is no text, number, path or bool.

    Cancellation closes the connection. A manager that was started by then goes on.
    """
    user, at, name = host.rpartition("@")
    host, username = name, (user if at and username is None else username)
    marker = secrets.token_hex(16)
    script = start_script(
        command,
        options or {},
        marker=marker,
        timeout=timeout,
        as_sudo=as_sudo,
        sudo_password=password if sudo_password is None else sudo_password,
    )
    trust = _Trust(host, port, known_hosts, accept_host_key)
    login = {"username": username, "password": password, **(ssh_options or {})}
    async with _connected(host, port, trust, login, timeout) as client:
        try:
            with trio.fail_after(timeout + _LATE):
                printed, complaints = await _in_thread(_execute, client, script)
        except trio.TooSlowError:
            raise ManagerNotStarted(
                f"{host} has not said in {timeout:g} s whether the manager runs", ""
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ManagerNotStarted(f"the connection with {host} was lost: {_said(error)}", "") from error
    report = read_report(printed, marker)
    if report is None:
        raise ManagerNotStarted(f"the shell of {host} could not start the manager", printed + complaints)
    if report.status is not None:
        raise ManagerNotStarted(f"the manager on {host} has ended with status {report.status}", report.log)
    if report.running is None:
        text = f"the manager on {host} (process {report.pid}) has not said in {timeout:g} s that it runs"
        raise ManagerNotStarted(text, report.log)
    running = report.running
    return StartedManager(running.host, running.port, running.tls, report.pid, report.output, report.log)


@asynccontextmanager
async def _connected(
    host: str, port: int, trust: _Trust, login: Mapping[str, Any], timeout: float
) -> AsyncIterator[paramiko.SSHClient]:
    """A connection with somebody who is logged in, for a block."""
    where = address_text(host, port)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(trust)
    deadline = trio.current_time() + timeout
    connection = await _open_socket(host, port, timeout)
    try:
        try:
            with trio.fail_at(deadline):
                await _in_thread(trust.load_known, client)
                await _in_thread(_log_in, client, host, port, connection, login)
        except trio.TooSlowError as error:
            raise ConnectFailed(f"could not log in at {where}: no answer in {timeout} s") from error
        except paramiko.BadHostKeyException as error:
            raise trust.changed(error.key) from error
        except paramiko.AuthenticationException as error:
            raise ConnectFailed(f"could not log in at {where}: {_said(error)}") from error
        except ConnectFailed:
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectFailed(f"could not connect to {where}: {_said(error)}") from error
        yield client
    finally:
        _hang_up(connection)
        with trio.move_on_after(_GOODBYE, shield=True):
            await _in_thread(client.close)
        connection.close()


async def _open_socket(host: str, port: int, timeout: float) -> socket.socket:
    stream = await open_stream(host, port, timeout=timeout)
    assert isinstance(stream, trio.SocketStream)
    return socket.socket(fileno=stream.socket.detach())


def _log_in(
    client: paramiko.SSHClient, host: str, port: int, connection: socket.socket, login: Mapping[str, Any]
) -> None:
    client.connect(host, port, sock=connection, **login)


def _execute(client: paramiko.SSHClient, script: str) -> tuple[str, str]:
    """Let a shell run a script, and return what it has printed, to both of its outputs."""
    stdin, stdout, stderr = client.exec_command(SHELL)
    with stdin, stdout, stderr:
        stdin.write(script)
        stdin.flush()
        stdin.channel.shutdown_write()
        printed, complaints = stdout.read(_LONGEST_REPORT), stderr.read(_LONGEST_REPORT)
    return printed.decode("utf-8", "replace"), complaints.decode("utf-8", "replace")


async def _in_thread(function: Callable[[Unpack[Arguments]], T], *args: *Arguments) -> T:
    """Call what waits for the network. Whoever is cancelled leaves it behind, and then hangs up."""
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def _hang_up(connection: socket.socket) -> None:
    """Wake up whoever waits for the other end."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone already


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _Trust(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # it comes without types
    """Which host keys are trusted.

    Args:
        host: the other computer.
        port: of its SSH server.
        known_hosts: as that of `start_manager`.
        accept: as ``accept_host_key`` of `start_manager`.
    """

    def __init__(
        self, host: str, port: int, known_hosts: str | os.PathLike[str] | None, accept: bool | str
    ) -> None:
        self._where = address_text(host, port)
        self._known_hosts = None if known_hosts is None else os.fspath(known_hosts)
        self._accept = accept

    def load_known(self, client: paramiko.SSHClient) -> None:
        """Read the file, unless one key is trusted whatever it says."""
        if not isinstance(self._accept, str):
            client.load_system_host_keys(self._known_hosts)

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Decide on a key that is not in the file."""
        if self._accept in (True, key.fingerprint):
            return
        if self._accept:
            raise self.changed(key)
        raise HostKeyRefused(
            f"the SSH key of {self._where} is not known: its fingerprint is {key.fingerprint}, and to trust "
            "it, give that as accept_host_key, or connect once with ssh",
            key.fingerprint,
        )

    def changed(self, key: paramiko.PKey) -> HostKeyRefused:
        """The error for a key that is not the right one."""
        return HostKeyRefused(
            f"the SSH key of {self._where} is not the one that is trusted, or somebody else answers: its "
            f"fingerprint is {key.fingerprint}",
            key.fingerprint,
        )
