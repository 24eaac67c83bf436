"""An SSH server on this computer that lets one user execute commands, in a directory of the test's."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko

USER, PASSWORD = "curie", "radium"


class SshServer:
    """A server that is being served. What it knows is for tests to look at."""

    def __init__(self, home: Path, environ: Mapping[str, str], shell: list[str]) -> None:
        self.home = home
        self.shell = shell
        self.environ = {**os.environ, "HOME": str(home), "TMPDIR": str(home), **environ}
        self.key = paramiko.ECDSAKey.generate()
        self.logins: list[tuple[str, str]] = []
        self.commands: list[str] = []
        self.transports: list[paramiko.Transport] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="SSH server", daemon=True)
        self._thread.start()

    def known_as(self, key: paramiko.PKey | None = None) -> str:
        """The line of a file with known hosts that names a key, its own if not said otherwise."""
        shown = self.key if key is None else key
        return f"[127.0.0.1]:{self.port} {shown.get_name()} {shown.get_base64()}\n"

    def close(self) -> None:
        """End everything, and wait for it."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()
        for transport in self.transports:
            transport.close()
            transport.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            self.transports.append(transport)
            transport.add_server_key(self.key)
            transport.start_server(threading.Event(), _Session(self))


class _Session(paramiko.ServerInterface):  # type: ignore[misc]  # it comes without types
    def __init__(self, server: SshServer) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        self._server.logins.append((username, password))
        right = (username, password) == (USER, PASSWORD)
        return int(paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        self._server.commands.append(command.decode())
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: Any, command: str) -> None:
        """As sshd does: the user's shell gets the command, and the connection is its input and output."""
        server = self._server
        with channel, channel.makefile("rb") as given:
            text = given.read()
            done = subprocess.run(
                [*server.shell, command],
                input=text,
                capture_output=True,
                cwd=server.home,
                env=server.environ,
                check=False,
            )
            try:
                channel.sendall(done.stdout)
                channel.sendall_stderr(done.stderr)
                channel.send_exit_status(done.returncode)
            except (OSError, EOFError):
                pass  # whoever has asked does not wait


@contextmanager
def ssh_server(
    home: Path, environ: Mapping[str, str], *, shell: list[str] | None = None
) -> Iterator[SshServer]:
    """A server for a block. `shell` is what commands are given to, as their last argument."""
    server = SshServer(home, environ, ["sh", "-c"] if shell is None else shell)
    try:
        yield server
    finally:
        server.close()
