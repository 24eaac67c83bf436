"""Starting managers on other computers with the façade of MSL-Network, by an SSH server of the test's."""

from __future__ import annotations

import builtins
import getpass
import inspect
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from msl_process import PATIENCE, free_port

from msl.network import connect, ssh

sys.path.append(str(Path(__file__).resolve().parents[1] / "network"))
from ssh_server import PASSWORD, USER, SshServer, ssh_server

SCRIPT = """#!{python}
import os
from msl.network import Service, run_services, ssh

class Echo(Service):
    def told(self):
        return ssh.parse_console_script_kwargs()
    def shutdown_service(self):
        return os.getpid()

run_services(Echo(), **ssh.parse_console_script_kwargs())
"""


@pytest.fixture(autouse=True)
def _no_keys_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "theirs"
    path.mkdir()
    return path


@pytest.fixture
def server(home: Path) -> Iterator[SshServer]:
    with ssh_server(home, {"MSL_NETWORK_HOME": str(home / "network")}) as server:
        yield server


@pytest.fixture
def client(server: SshServer) -> Iterator[paramiko.SSHClient]:
    with ssh.connect(f"{USER}@127.0.0.1", password=PASSWORD, port=server.port) as client:
        yield client


def script(home: Path, text: str, name: str = "lab.py") -> str:
    """A program in the home of the other computer, and how to call it there."""
    path = home / name
    path.write_text(text)
    path.chmod(0o755)
    return f"./{name}"


def start(server: SshServer, path: str, **kwargs: Any) -> None:
    options = {"ssh_username": USER, "ssh_password": PASSWORD, "paramiko_kwargs": {"port": server.port}}
    ssh.start_manager("127.0.0.1", path, **{**options, **kwargs})


def test_signatures() -> None:
    """The functions take what those of 1.0 take."""
    assert {name: list(inspect.signature(getattr(ssh, name)).parameters) for name in ssh.__all__} == {
        "connect": ["host", "username", "password", "timeout", "missing_host_key_policy", "kwargs"],
        "exec_command": ["ssh_client", "command", "timeout"],
        "parse_console_script_kwargs": [],
        "start_manager": [
            "host",
            "console_script_path",
            "ssh_username",
            "ssh_password",
            "timeout",
            "as_sudo",
            "missing_host_key_policy",
            "paramiko_kwargs",
            "kwargs",
        ],
    }


@pytest.mark.parametrize(
    ("words", "kwargs"),
    [
        ([], {}),
        (["--other", "{}"], {}),
        (["--kwargs", '{"port": 1, "x": [null, "\u00e9"]}'], {"port": 1, "x": [None, "\u00e9"]}),
        (["a", "--kwargs", "{}"], {}),
    ],
)
def test_kwargs_of_a_script(
    monkeypatch: pytest.MonkeyPatch, words: list[str], kwargs: dict[str, object]
) -> None:
    """A script's keyword arguments are the JSON that follows --kwargs."""
    monkeypatch.setattr(sys, "argv", ["script", *words])
    assert ssh.parse_console_script_kwargs() == kwargs


def test_asks_who_connects(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password are asked for if nobody says them."""
    questions: list[str] = []

    def answer(text: str) -> Any:
        def ask(question: str) -> str:
            questions.append(question)
            return text

        return ask

    monkeypatch.setattr(builtins, "input", answer(USER))
    monkeypatch.setattr(getpass, "getpass", answer(PASSWORD))
    ssh.connect("127.0.0.1", port=server.port).close()
    assert questions == ["Enter the SSH username: ", f"{USER}@127.0.0.1's password: "]
    assert server.logins == [(USER, PASSWORD)]
    monkeypatch.setattr(getpass, "getpass", answer(""))
    with pytest.raises(ValueError, match="password"):
        ssh.connect(f"{USER}@127.0.0.1", port=server.port)
    monkeypatch.setattr(builtins, "input", answer(""))
    with pytest.raises(ValueError, match="username"):
        ssh.connect("127.0.0.1", port=server.port)
    assert len(server.logins) == 1


def test_policy(server: SshServer) -> None:
    """Unknown computers are trusted, unless another policy is wanted."""
    ssh.connect("127.0.0.1", username=USER, password=PASSWORD, port=server.port).close()
    with pytest.raises(paramiko.SSHException, match="not found in known_hosts"):
        ssh.connect(
            "127.0.0.1",
            username=USER,
            password=PASSWORD,
            port=server.port,
            missing_host_key_policy=paramiko.RejectPolicy(),
        )
    with pytest.raises(paramiko.AuthenticationException):
        ssh.connect("127.0.0.1", username=USER, password="wrong", port=server.port)


def test_command(client: paramiko.SSHClient) -> None:
    """A command's lines are returned without their ends."""
    assert ssh.exec_command(client, "printf 'a\\r\\nb \\n\\nc'") == ["a", "b ", "", "c"]
    assert ssh.exec_command(client, "exit 3") == []


def test_complaint(client: paramiko.SSHClient) -> None:
    """What a command says on standard error is an exception, and closes the connection."""
    with pytest.raises(RuntimeError, match="no such luck"):
        ssh.exec_command(client, "echo fine; echo no such luck >&2")
    assert client.get_transport() is None


def test_silence(client: paramiko.SSHClient) -> None:
    """A command that says nothing in time is an exception, and closes the connection."""
    with pytest.raises(RuntimeError, match="Timeout"):
        ssh.exec_command(client, "sleep 20", timeout=0.1)
    assert client.get_transport() is None


def test_start(server: SshServer, home: Path) -> None:
    """When start_manager returns a script's manager runs, with the arguments that it was given."""
    path = script(home, SCRIPT.format(python=sys.executable))
    # What an earlier one has printed is no news.
    (home / "lab.py.log").write_text("ValueError: old\n")
    kwargs: dict[str, Any] = {
        "port": free_port(),
        "disable_tls": True,
        "log_level": "INFO",
        "it's": '"quoted" $HOME',
    }
    start(server, path, timeout=PATIENCE, **kwargs)
    with connect_soon(kwargs["port"]) as link:
        assert link.told() == kwargs
        pid = link.shutdown_service()
    wait_gone(pid)
    assert "Network Manager running on" in (home / "lab.py.log").read_text()


class connect_soon:  # noqa: N801 - reads as a function
    """A link with the service, for a block."""

    def __init__(self, port: int) -> None:
        self._client = connect(port=port, disable_tls=True)

    def __enter__(self) -> Any:
        deadline = time.monotonic() + PATIENCE
        while "Echo" not in self._client.identities()["services"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self._client.link("Echo")

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("it did not end")
        time.sleep(0.01)


def test_manager_that_fails(server: SshServer, home: Path) -> None:
    """A manager that cannot start is an exception with what it has printed."""
    path = script(home, SCRIPT.format(python=sys.executable))
    with pytest.raises(RuntimeError, match=r"\ACannot start Manager\n(?s:.*)port must be a positive integer"):
        start(server, path, timeout=PATIENCE, port=0, disable_tls=True)


def test_manager_that_is_silent(server: SshServer, home: Path) -> None:
    """If nothing is heard of the manager, start_manager returns when time is up."""
    path = script(home, "#!/bin/sh\necho hello\n", "quiet.sh")
    began = time.monotonic()
    start(server, path, timeout=1.0)
    assert time.monotonic() - began >= 1


def test_sudo(server: SshServer, home: Path) -> None:
    """A manager may run as root."""
    (home / "bin").mkdir()
    script(home, '#!/bin/sh\necho sudo was here; exec "$@"\n', "bin/sudo")
    server.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{server.environ['PATH']}"
    path = script(home, "#!/bin/sh\necho 'Network Manager running on lab7:1 (TLS ENABLED)'\n", "fake.sh")
    start(server, path, as_sudo=True, timeout=PATIENCE)
    assert (home / "fake.sh.log").read_text().startswith("sudo was here\nNetwork Manager running on")


def test_arguments_that_cannot_be_sent(server: SshServer) -> None:
    """Arguments that are no JSON are refused before anybody is connected to."""
    with pytest.raises(TypeError):
        start(server, "./lab.py", port=1j)
    assert server.logins == []
