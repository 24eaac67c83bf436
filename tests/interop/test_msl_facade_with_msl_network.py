"""The façade's clients and services with the manager, the services and the clients of MSL-Network 1.0.

One client and one service, written for 1.0, are run by either, with a manager of either. In all the ways in
which they can be put together they see the same.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from msl.network import connect

pytestmark = pytest.mark.interop

_HERE = Path(__file__).resolve().parent
_BIN = _HERE.parents[1] / ".peers" / "msl_network" / "bin"
_PYTHON = {"ours": sys.executable, "theirs": str(_BIN / "python")}
_MANAGER = {
    "ours": [sys.executable, "-m", "armillary", "network", "start"],
    "theirs": [str(_BIN / "msl-network"), "start"],
}
# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 60.0

SEEN = {
    "attributes": {
        "beat": "()",
        "computed": 17,
        "constant": 2.5,
        "echo": "(*args, **kwargs)",
        "fail": "()",
        "set_logging_level": "(level: Union[str, int]) -> bool",
        "shutdown_service": "()",
        "sleep": "(seconds)",
        "tell": "(count)",
        "unserializable": "()",
    },
    "max_clients": 2,
    "echo": [[1, "\u00e9"], {"x": [None, 2.5, [3]]}],
    "values": [2.5, 17, "hidden", "Parity"],
    "many": list(range(300)),
    "large": 3_000_000,
    "told": [10, [[[number], {"n": [number]}] for number in range(10)]],
    "fail": ["RuntimeError", "KeyError: 'no such key'"],
    "private": ["RuntimeError", "PermissionError: Cannot request a private attribute"],
    "absent": ["RuntimeError", "AttributeError: 'Parity' object has no attribute 'absent'"],
    "unserializable": ["RuntimeError", "TypeError: Object of type complex is not JSON serializable"],
    "argument": ["TypeError", "Object of type complex is not JSON serializable"],
    "timeout": ["TimeoutError", ""],
    "full": ["RuntimeError"],
    "locks": [True, True, True, []],
    "names": ["A b", "linked", "third"],
    "linked": [[2], {}],
    "unlinked": ["AttributeError", "Cannot access 'echo' since the link has been broken"],
    "bye": "bye",
    "broken": ["AttributeError", "Cannot access 'echo' since the link has been broken"],
    "left": "ConnectionError",
    "state": [False, False, "<A b disconnected>"],
    "text": ["  attributes:", "    identity() -> dict", "    link(service: str) -> bool"],
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(home: Path, command: list[str], output: Any) -> Iterator[subprocess.Popen[str]]:
    """A program for a block, at whose end it is killed."""
    variables = {**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=variables)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def manager(whose: str, home: Path, tls: str) -> Iterator[int]:
    """A manager for a block, which gets its port."""
    port, log = free_port(), home / "manager.txt"
    options = ["-p", str(port), *([] if tls == "tls" else ["--disable-tls"])]
    with log.open("w") as output, running(home, [*_MANAGER[whose], *options], output) as process:
        deadline = time.monotonic() + PATIENCE
        while "Network Manager running on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port


@pytest.mark.parametrize("tls", ["plain", "tls"])
@pytest.mark.parametrize("their_manager", [True, False], ids=["their manager", "our manager"])
@pytest.mark.parametrize(
    ("client", "service"),
    [("ours", "ours"), ("ours", "theirs"), ("theirs", "ours")],
    ids=["ours with ours", "our client", "our service"],
)
def test_they_see_the_same(tmp_path: Path, client: str, service: str, their_manager: bool, tls: str) -> None:
    """Requests, notifications, locks, errors and ends are those of 1.0 alone."""
    assert see(tmp_path, client, service, "theirs" if their_manager else "ours", tls) == SEEN


def test_that_is_what_1_0_sees(tmp_path: Path) -> None:
    """Where everything is 1.0's, the programs see this, too."""
    assert see(tmp_path, "theirs", "theirs", "theirs", "plain") == SEEN


def test_their_manager_has_no_such_service(tmp_path: Path) -> None:
    """It does not say whose request cannot be forwarded; the client knows, and goes on."""
    with manager("theirs", tmp_path, "plain") as port:
        client = connect(port=port, disable_tls=True)
        try:
            pending = [client._new_request("Absent", "echo", n, asynchronous=True) for n in range(3)]
            for future in pending:
                with pytest.raises(RuntimeError, match="the 'Absent' Service is not connected to Manager"):
                    future.result(PATIENCE)
            assert client.identities(timeout=PATIENCE)["services"] == {}
        finally:
            client.disconnect()


def see(home: Path, client: str, service: str, whose_manager: str, tls: str) -> dict[str, Any]:
    """What the client sees; the service ends by itself."""
    if not _BIN.exists():
        pytest.fail("there is no .peers/msl_network: run `make peers`")
    peers = _HERE / "peers"
    with manager(whose_manager, home, tls) as port:
        options = [str(port), tls]
        serve = [_PYTHON[service], str(peers / "msl_parity_service.py"), *options]
        ask = [_PYTHON[client], str(peers / "msl_parity_client.py"), *options]
        with (
            running(home, serve, subprocess.PIPE) as serving,
            running(home, ask, subprocess.PIPE) as asking,
        ):
            answer, _ = asking.communicate(timeout=PATIENCE)
            assert asking.returncode == 0, answer
            said, _ = serving.communicate(timeout=PATIENCE)
            assert said.splitlines()[-1] == "ended"
    seen: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return seen
