"""A manager that is run for services, in a process of its own, as programs for MSL-Network run it."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msl_process import PATIENCE, RUNNING, ManagerProgram, Program, free_port, messages, running

from msl.network import LinkedClient, Service, run_services
from msl.network.client import Client

SERVICES = """
import sys, time
from msl.network import Service, run_services

class AddService(Service):
    def add(self, a, b):
        return a + b
    def shutdown_service(self, *args, **kwargs):
        return True

class SubtractService(Service):
    def subtract(self, a, b):
        return a - b
    def shutdown_service(self, *args, **kwargs):
        return 'Success!'

port = int(sys.argv[1])
"""
BOTH = "run_services(AddService(), SubtractService(), port=port, disable_tls=True)\nprint('returned')\n"


@contextmanager
def program(place: Path, text: str, *, head: str = SERVICES) -> Iterator[ManagerProgram]:
    """A program that runs services, for a block, when its manager runs."""
    script = place / "program.py"
    script.write_text(head + text)
    port = free_port()
    process = ManagerProgram([sys.executable, str(script), str(port)], place / "home", place)
    process.port = port
    try:
        process.wait_printed(RUNNING)
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.wait()


def wait_for(client: Client, *services: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not set(services) <= set(client.identities()["services"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_services(capsys: pytest.CaptureFixture[str]) -> None:
    """Without services there is a warning, and nothing is run."""
    run_services(port=1)
    assert capsys.readouterr() == ("", "Warning... no services have been specified\n")


@pytest.mark.parametrize("no_service", [Service, "Echo", 1])
def test_what_is_no_service(no_service: Any) -> None:
    """Only instances of services can be run."""
    with pytest.raises(TypeError, match="All services must be of type"):
        run_services(Service(), no_service)


def test_password_of_both_kinds(tmp_path: Path) -> None:
    """A service cannot give two kinds of passwords, and so nothing is run."""
    script = tmp_path / "program.py"
    script.write_text(
        SERVICES
        + """
try:
    run_services(AddService(), port=port, disable_tls=True, password='a', password_manager='b')
except ValueError:
    print("refused")
"""
    )
    process = Program([sys.executable, str(script), "1"], tmp_path / "home", tmp_path)
    assert process.wait() == 0
    assert process.out.splitlines()[-1] == "refused"
    assert RUNNING not in process.out


SHUTDOWNABLE_EXAMPLE = """
from msl.network import Service, run_services

class AddService(Service):

    def add(self, a, b):
        return a + b

    def shutdown_service(self, *args, **kwargs):
        # do whatever you need to do before the AddService shuts down
        # return whatever you want
        return True

class SubtractService(Service):

    def subtract(self, a, b):
        return a - b

    def shutdown_service(self, *args, **kwargs):
        # do whatever you need to do before the SubtractService shuts down
        # return whatever you want
        return 'Success!'

run_services(AddService(), SubtractService())
"""
ITS_CLIENT = """
from msl.network import connect

cxn = connect()
a = cxn.link('AddService')
s = cxn.link('SubtractService')
assert a.add(1, 2) == 3
assert s.subtract(1, 2) == -1
a.shutdown_service()
s.shutdown_service()
"""


def test_the_example_as_it_is_written(tmp_path: Path) -> None:
    """The example of the documentation runs as written, with its client, on the default port and with TLS."""
    try:
        socket.create_server(("", 1875)).close()
    except OSError:
        pytest.skip("somebody else listens on port 1875, which the example needs")
    (tmp_path / "shutdownable_example.py").write_text(SHUTDOWNABLE_EXAMPLE)
    (tmp_path / "client.py").write_text(ITS_CLIENT)
    home = tmp_path / "home"
    with running([sys.executable, "shutdownable_example.py"], home, tmp_path) as services:
        for name in ("AddService", "SubtractService"):
            services.wait_printed(f"] msl.network - {name}[")
        with running([sys.executable, "../client.py"], home, tmp_path / "client") as client:
            assert client.wait() == 0
            assert client.err == ""
        assert services.wait(5) == 0
        assert services.err == ""


def test_it_ends_with_the_last_service(tmp_path: Path) -> None:
    """Each service is shut down by a client, which gets its result; then all is over, and clients may go."""
    with program(tmp_path, BOTH) as process:
        client, other = process.connect(), process.connect(name="Other")
        wait_for(client, "AddService", "SubtractService")
        add, subtract = client.link("AddService"), client.link("SubtractService")
        assert (add.add(1, 2), subtract.subtract(1, 2)) == (3, -1)
        assert add.shutdown_service() is True
        assert repr(add).startswith("<Un-Linked from AddService")
        assert subtract.subtract(5, 3) == 2
        assert client.is_connected()
        assert subtract.shutdown_service() == "Success!"
        began = time.monotonic()
        assert process.wait() == 0
        assert time.monotonic() - began < 5
        assert not other.is_connected()
        for _ in range(20):
            client.disconnect()
            other.disconnect()
        assert process.out.splitlines()[-1] == "returned"
        assert process.err == ""
        assert "ERROR" not in process.out


def test_linked_client_waits(tmp_path: Path) -> None:
    """A linked client may come as soon as the manager runs: it waits for a service that starts later."""
    with program(
        tmp_path,
        """
class Late(AddService):
    def start(self, **kwargs):
        time.sleep(1)
        super().start(**kwargs)
run_services(SubtractService(), Late(name="AddService"), port=port, disable_tls=True)
""",
    ) as process:
        options: dict[str, Any] = {"port": process.port, "disable_tls": True, "timeout": PATIENCE}
        add = LinkedClient("AddService", **options)
        assert add.add(1, 2) == 3
        subtract = LinkedClient("SubtractService", **options)
        assert add.shutdown_service() is True
        assert subtract.shutdown_service() == "Success!"
        assert process.wait() == 0
        for client in (add, subtract):
            client.disconnect()
        assert process.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the manager and its services, and run_services returns."""
    with program(tmp_path, BOTH) as process:
        client = process.connect()
        wait_for(client, "AddService", "SubtractService")
        assert process.end(number) == 0
        assert process.out.splitlines()[-1] == "returned"
        assert process.err == ""
        client.disconnect()


def test_ctrl_c_at_a_question(tmp_path: Path) -> None:
    """While somebody is asked who a service is, Ctrl-C ends everything."""
    script = tmp_path / "program.py"
    script.write_text(
        SERVICES
        + """
from msl.network import UsersTable
with UsersTable() as table:
    table.insert("marie", "polonium", True)
run_services(AddService(), port=port, disable_tls=True, auth_login=True)
print('returned')
"""
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, script, str(free_port())],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "MSL_NETWORK_HOME": str(tmp_path / "home"), "PYTHONUTF8": "1"},
    )
    os.close(theirs)
    said = ""
    try:
        with suppress(OSError):  # a terminal without anybody at the other side
            while select.select([ours], [], [], PATIENCE)[0] and (data := os.read(ours, 4096)):
                asked, said = "Enter a username" in said, said + data.decode()
                if not asked and "Enter a username" in said:
                    process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "returned"


def test_shutdown_by_an_administrator(tmp_path: Path) -> None:
    """When the manager is shut down its services end, too."""
    users = """
from msl.network import UsersTable
with UsersTable() as table:
    table.insert("marie", "polonium", True)
"""
    with program(tmp_path, users + BOTH) as process:
        client = process.connect(username="marie", password="polonium")
        wait_for(client, "AddService", "SubtractService")
        assert client.admin_request("shutdown_manager") is None
        assert process.wait(5) == 0
        assert process.out.splitlines()[-1] == "returned"
        assert "ERROR" not in process.out
        assert process.err == ""
        client.disconnect()


def test_a_service_that_cannot_run(tmp_path: Path) -> None:
    """A service whose name is taken is an error in the log, and the other one goes on."""
    with program(
        tmp_path,
        "run_services(AddService(name='A'), SubtractService(name='A'), port=port, disable_tls=True)\n",
    ) as process:
        client = process.connect()
        process.wait_printed("A 'A' service is already running on the Manager")
        link = client.link("A")
        link.shutdown_service()
        assert process.wait() == 0
        assert "[ERROR] msl.network - a service has ended: " in process.out
        client.disconnect()


def test_with_tls_and_a_password(tmp_path: Path) -> None:
    """The manager's options are for its services, too: they trust its certificate and know its password."""
    with program(
        tmp_path,
        "run_services(AddService(), port=port, auth_password='open sesame', timeout=20, unknown=1)\n",
    ) as process:
        certificate = str(process.home / "certs" / "localhost.crt")
        how = {"disable_tls": False, "cert_file": certificate, "timeout": PATIENCE}
        with pytest.raises(ValueError, match="Wrong Manager password"):
            process.connect(password_manager="x", **how)
        client = process.connect(password_manager="open sesame", **how)
        wait_for(client, "AddService")
        client.link("AddService").shutdown_service()
        assert process.wait() == 0
        client.disconnect()


def test_no_manager_no_services(tmp_path: Path) -> None:
    """If the manager cannot start, run_services says why, and returns."""
    script = tmp_path / "program.py"
    script.write_text(SERVICES + "run_services(AddService(), port=0, disable_tls=True)\nprint('returned')\n")
    process = Program([sys.executable, str(script), "1"], tmp_path / "home", tmp_path)
    assert process.wait() == 0
    assert process.err == "ValueError: The port must be a positive integer\n"
    assert process.out.splitlines()[-1] == "returned"


def test_in_another_thread(tmp_path: Path) -> None:
    """In a thread that is not the main one the services run as well, in that very thread."""
    with program(
        tmp_path,
        """
import threading
class Where(AddService):
    def where(self):
        return threading.get_ident(), self.loop_thread_id, self._loop._thread_id
thread = threading.Thread(target=run_services, args=[Where()], kwargs=dict(port=port, disable_tls=True))
thread.start()
thread.join()
print(thread.ident)
""",
    ) as process:
        client = process.connect()
        wait_for(client, "Where")
        link = client.link("Where")
        here, loop, shim = link.where()
        assert here != loop == shim
        link.shutdown_service()
        assert process.wait() == 0
        assert process.out.splitlines()[-1] == str(loop)
        client.disconnect()


def test_tasks_of_a_service(tmp_path: Path) -> None:
    """Coroutines that a service has added run, and the example of heartbeats ends when it is killed."""
    head = "import sys\nfrom msl.network import run_services\nfrom msl.examples.network import Heartbeat\n"
    with program(
        tmp_path,
        "run_services(Heartbeat(), port=int(sys.argv[1]), disable_tls=True)\nprint('returned')\n",
        head=head,
    ) as process:
        client = process.connect()
        wait_for(client, "Heartbeat")
        link = client.link("Heartbeat")
        beats: list[float] = []
        enough = threading.Event()

        def beat(number: float) -> None:
            beats.append(number)
            if len(beats) == 3:
                enough.set()

        link.notification_handler = beat
        link.set_heart_rate(50)
        assert enough.wait(PATIENCE)
        assert beats[1] == beats[0] + 1
        client.disconnect()
        process.end()
        assert process.out.splitlines()[-1] == "returned"
        assert messages(process.out)[-2] == "the Network Manager has ended"
