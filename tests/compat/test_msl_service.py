"""Services of the façade of MSL-Network: what they tell, how they are called, and how they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Union

import pytest
from msl_lab import PATIENCE, Echo, ServiceThread, _bounded, eventually, open_lab  # noqa: F401

from msl.network import Service, filter_service_start_kwargs


def test_signatures() -> None:
    """The functions take what those of 1.0 take."""
    connecting = [
        *("name", "host", "port", "timeout", "username", "password", "password_manager", "read_limit"),
        *("disable_tls", "cert_file", "assert_hostname", "auto_save"),
    ]
    assert list(inspect.signature(Service.start).parameters) == ["self", *connecting]
    assert list(inspect.signature(Service).parameters) == ["name", "max_clients", "ignore_attributes"]
    options = dict.fromkeys([*connecting, "log_level", "auth_password"], 1)
    assert sorted(filter_service_start_kwargs(**options)) == sorted(connecting)
    assert filter_service_start_kwargs(auth_password=2) == {"password_manager": 2}


def test_a_bare_service_has_one_attribute() -> None:
    """What the base class has is not told, except for the level of the log, with this very signature."""
    assert Service().identity()["attributes"] == {"set_logging_level": "(level: Union[str, int]) -> bool"}


def test_identity() -> None:
    """Signatures and values of public attributes are told; what raises or is no JSON is not."""

    class Odd(Service):
        number = 3
        array = (1, 2)
        nonsense = 1j

        def __init__(self) -> None:
            super().__init__(name="odd one", max_clients=0, ignore_attributes="hidden")
            self.instance = {"a": None}

        @property
        def raises(self) -> int:
            raise OSError("no hardware")

        @staticmethod
        def static(*args: int, **kwargs) -> None:  # type: ignore[no-untyped-def]
            pass

        def method(self, x: Union[int, float], n=2):  # type: ignore[no-untyped-def]
            pass

        def hidden(self) -> None:
            pass

        def _private(self) -> None:
            pass

    odd = Odd()
    odd.ignore_attributes("number", "absent")
    identity = odd.identity()
    assert identity["type"] == "service"
    assert identity["name"] == "odd one"
    assert identity["max_clients"] == -1
    assert identity["attributes"] == {
        "array": [1, 2],
        "instance": {"a": None},
        "method": "(x: 'Union[int, float]', n=2)",
        "set_logging_level": "(level: Union[str, int]) -> bool",
        "static": "(*args: 'int', **kwargs) -> 'None'",
    }


def test_ignored_attributes_can_be_requested() -> None:
    """What is not told is not protected, and neither is what the base class has."""
    with open_lab() as lab:
        lab.serve(Echo(max_clients=4, ignore_attributes=["echo", "sleep"]))
        link = lab.connect().link("Echo")
        assert "echo" not in link.service_attributes
        assert link.echo(1) == [[1], {}]
        assert link.max_clients() == 4
        assert link.name() == "Echo"
        assert link.identity()["type"] == "service"


def test_errors_are_told_with_their_class_and_traceback() -> None:
    """The caller gets what the method has raised, and the service goes on."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        wrong = {
            "fail": (["bad"], r"in fail\n(.*\n)*ValueError: bad$"),
            "absent": ([], r"AttributeError: 'Echo' object has no attribute 'absent'$"),
            "_private": ([], r"PermissionError: Cannot request a private attribute$"),
            "unserializable": ([], r"TypeError: .*not JSON serializable"),
            "broken": ([], r"OSError: no hardware$"),
            "sleep": ([], r"TypeError: .*missing 1 required positional argument"),
        }
        for name, (arguments, pattern) in wrong.items():
            with pytest.raises(RuntimeError) as caught:
                getattr(link, name)(*arguments)
            text = str(caught.value)
            assert text.startswith(f"Manager[{lab.address}] returned the following exception:\n\n")
            assert re.search(pattern, text), text
        assert link.echo(1) == [[1], {}]


def test_methods_run_in_threads_named_after_the_service() -> None:
    """The threads that execute requests are others than the one that speaks with the manager."""
    with open_lab() as lab:
        service = Echo(name="Numbered")
        thread = lab.serve(service)
        link = lab.connect().link("Numbered")
        name, ident = link.thread()
        assert name == "Numbered_0"
        assert service.loop_thread_id == thread.ident == service._loop._thread_id
        assert ident not in (thread.ident, threading.get_ident())
        lab.stop()
        thread.end()
        assert service.loop_thread_id is None
        assert service._loop._thread_id is None


def test_to_json_of_results_and_arguments() -> None:
    """An object with a to_json method becomes what that returns."""

    class Record:
        def to_json(self) -> Any:
            return {"record": [1, 2]}

    class Recorder(Echo):
        def record(self) -> Any:
            return [Record()]

    with open_lab() as lab:
        lab.serve(Recorder())
        link = lab.connect().link("Recorder")
        assert link.record() == [{"record": [1, 2]}]
        assert link.echo(Record())[0] == [{"record": [1, 2]}]


def test_request_above_the_read_limit_is_swallowed() -> None:
    """It is not answered; the next one is."""
    with open_lab() as lab:
        lab.serve(Echo(), read_limit=1024)
        link = lab.connect().link("Echo")
        with pytest.raises(concurrent.futures.TimeoutError):
            link.echo("x" * 2000, timeout=0.5)
        assert link.echo("x" * 512, timeout=PATIENCE) == [["x" * 512], {}]


def test_name_that_is_taken() -> None:
    """The second service of a name does not start, and says so; the first one goes on."""
    with open_lab() as lab:
        lab.serve(Echo())
        with pytest.raises(ValueError, match="A 'Echo' service is already running on the Manager"):
            Echo().start(**lab.options)
        lab.serve(Echo(), name="Another")
        assert lab.connect().link("Echo").echo(1) == [[1], {}]
        assert lab.connect().link("Another").echo(1) == [[1], {}]


def test_two_passwords() -> None:
    """A manager wants a user's password or its own."""
    with pytest.raises(ValueError, match='Specify either "password" or "password_manager" but not both'):
        Echo().start(password="a", password_manager="b")


def test_start_returns_when_the_manager_stops_and_can_be_called_again() -> None:
    """The same instance serves another manager afterwards."""
    service = Echo()
    for _ in range(2):
        with open_lab() as lab:
            thread = lab.serve(service)
            assert lab.connect().link("Echo").echo(1) == [[1], {}]
            lab.stop()
            thread.end()


def test_service_that_runs_cannot_be_started() -> None:
    """One instance is one service."""
    with open_lab() as lab:
        service = Echo()
        lab.serve(service)
        with pytest.raises(RuntimeError, match="runs already"):
            service.start(**lab.options)
        assert lab.connect().link("Echo").echo(1) == [[1], {}]


def test_shutdown_waits_for_requests_that_run() -> None:
    """Their callers get their results, and then the service ends."""
    with open_lab() as lab:
        thread = lab.serve(Echo())
        link = lab.connect().link("Echo")
        slow = link.sleep(0.5, asynchronous=True)
        assert link.shutdown_service() == "bye"
        assert slow.result(PATIENCE) == 0.5
        thread.end()


def test_emitting_without_a_connection() -> None:
    """Before the start and after the end nobody hears it, and nothing is raised."""
    with open_lab() as lab:
        service = Echo()
        service.emit_notification(1)
        thread = lab.serve(service)
        lab.stop()
        thread.end()
        service.emit_notification_threadsafe(2, x=3)


def test_emitting_what_is_no_json() -> None:
    """The one who emits it is told."""
    with open_lab() as lab:
        service = Echo()
        lab.serve(service)
        for emit in (service.emit_notification, service.emit_notification_threadsafe):
            with pytest.raises(TypeError, match="not JSON serializable"):
                emit(1j)


class Base:
    """Stands for a base class of another library, with a constructor of its own."""

    def __init__(self, parent: object = None) -> None:
        self.parent = parent


class Forwarding(Base, Service):
    """As people write them: everything else is an object's, which is not there at first."""

    def __init__(self) -> None:
        Base.__init__(self, parent=self)
        Service.__init__(self, name="Forwarding", max_clients=1, ignore_attributes=["parent", "backend"])
        self.backend = [1, 2, 3]

    def __getattr__(self, name: str) -> Any:
        if "backend" not in vars(self):
            raise RuntimeError(f"{name!r} was looked for before there was a backend")
        return getattr(self.backend, name)

    def size(self) -> int:
        return len(self.backend)


def test_subclass_that_forwards_to_what_is_not_there_yet() -> None:
    """The base class never looks for what it has not made, and forwarded names can be requested."""
    with open_lab() as lab:
        lab.serve(Forwarding())
        link = lab.connect().link("Forwarding")
        assert link.size() == 3
        assert link.index(2) == 1
        with pytest.raises(RuntimeError, match="'list' object has no attribute 'absent'"):
            link.absent()


class Heart(Service):
    """A service with a task, as in the examples of 1.0."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = True
        self.count = 0
        self.ended = 0
        self.add_tasks(self.emit())

    async def emit(self) -> None:
        while self.alive:
            if threading.get_ident() == self.loop_thread_id:
                self.emit_notification(self.count)
            else:
                self.emit_notification_threadsafe(self.count)
            self.count += 1
            await asyncio.sleep(0.01)

    def kill(self) -> None:
        self.alive = False

    def reset(self) -> None:
        self.count = 0

    async def twice(self, number: int) -> int:
        await asyncio.sleep(0.01)
        return 2 * number

    def shutdown_handler(self) -> None:
        self.ended += 1
        self.alive = False


def test_tasks_of_a_service_run_while_it_is_connected() -> None:
    """A coroutine of asyncio's emits notifications, and ends when the shutdown handler says so."""
    with open_lab() as lab:
        heart = Heart()
        thread = lab.serve(heart)
        link = lab.connect().link("Heart")
        heard: list[int] = []
        link.notification_handler = lambda number: heard.append(number)  # type: ignore[method-assign]
        eventually(lambda: len(heard) >= 5)
        assert heard[:5] == list(range(heard[0], heard[0] + 5))
        link.reset()
        eventually(lambda: 0 in heard)
        lab.stop()
        thread.end()
        assert heart.ended == 1


def test_service_goes_on_when_its_tasks_have_ended() -> None:
    """A task that ends by itself ends nothing else."""
    with open_lab() as lab:
        lab.serve(Heart())
        link = lab.connect().link("Heart")
        link.kill()
        time.sleep(0.1)
        assert link.kill(timeout=PATIENCE) is None


def test_coroutine_methods_run_in_the_loop_of_the_tasks() -> None:
    """A method that is a coroutine function of asyncio's can be called, with tasks or without."""
    with open_lab() as lab:
        lab.serve(Heart())
        assert lab.connect().link("Heart").twice(4) == 8


def test_service_waits_for_its_tasks() -> None:
    """It does not end before all of them have ended."""

    class Slow(Service):
        def __init__(self) -> None:
            super().__init__()
            self.stopping: asyncio.Event
            self.done: list[str] = []
            self.add_tasks(self.first(), self.second())

        async def first(self) -> None:
            self.stopping = asyncio.Event()
            await self.stopping.wait()
            await asyncio.sleep(0.1)
            self.done.append("first")

        async def second(self) -> None:
            self.done.append("second")

        def shutdown_handler(self) -> None:
            self.done.append("handler")
            self.stopping.set()  # asyncio's own things can be used: this is the loop's thread

    with open_lab() as lab:
        slow = Slow()
        thread = lab.serve(slow)
        eventually(lambda: "second" in slow.done)
        lab.stop()
        thread.end()
        assert slow.done == ["second", "handler", "first"]


def test_task_that_fails_ends_the_service(caplog: pytest.LogCaptureFixture) -> None:
    """That is logged, and not raised; the other tasks are cancelled."""

    class Failing(Service):
        def __init__(self) -> None:
            super().__init__()
            self.ended: list[str] = []
            self.add_tasks(self.fail(), self.wait())

        async def fail(self) -> None:
            await asyncio.sleep(0.05)
            raise ValueError("the task has failed")

        async def wait(self) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                self.ended.append("cancelled")

        def shutdown_handler(self) -> None:
            self.ended.append("handler")

    with open_lab() as lab:
        failing = Failing()
        thread = lab.serve(failing)
        thread.end()
        assert failing.ended == ["cancelled", "handler"]
        assert lab.connect().identities()["services"] == {}
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.name == "msl.network"
        assert "the task has failed" in str(record.exc_info)


def test_shutdown_handler_without_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """It is called once, and what it raises is logged."""

    class Handled(Service):
        called = 0

        def shutdown_handler(self) -> None:
            self.called += 1
            raise ValueError("the handler has failed")

    with open_lab() as lab:
        handled = Handled()
        thread = lab.serve(handled)
        lab.stop()
        thread.end()
        assert handled.called == 1
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


PROGRAM = """
import asyncio, sys
from msl.network import Service
class Slow(Service):
    def __init__(self):
        super().__init__()
        if sys.argv[2] == "tasks":
            self.add_tasks(self.run())
    async def run(self):
        print("running", flush=True)
        await asyncio.sleep(1000)
    def shutdown_handler(self):
        print("handler", flush=True)
Slow().start(port=int(sys.argv[1]), disable_tls=True)
print("returned", flush=True)
"""


@pytest.mark.parametrize("kind", ["plain", "tasks"])
def test_interrupt_ends_start_quietly(kind: str) -> None:
    """After Ctrl-C the manager knows at once, the tasks are cancelled, and the program goes on."""
    with open_lab() as lab:
        watcher = lab.connect()
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, str(lab.port), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            eventually(lambda: "Slow" in watcher.identities()["services"])
            if kind == "tasks":
                assert process.stdout is not None
                assert process.stdout.readline() == "running\n"
            os.kill(process.pid, signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, out, errors) == (0, "handler\nreturned\n", "")
        assert watcher.identities()["services"] == {}


def test_logging_level(caplog: pytest.LogCaptureFixture) -> None:
    """Levels are numbers, also as text, or names in any case; others are logged and refused."""
    logger = logging.getLogger("msl.network")
    before = logger.level
    try:
        for level, number in ((20, 20), ("30", 30), ("debug", 10), ("Error", 40)):
            assert Service.set_logging_level(level) is True
            assert logger.level == number
        assert Service().set_logging_level("debg") is False
        assert logger.level == 40
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("ERROR", "invalid logging level 'DEBG'")
        ]
    finally:
        logger.setLevel(before)


def test_many_services_in_threads() -> None:
    """Services need no thread in particular, and none of them minds the others."""
    with open_lab() as lab:
        threads: list[ServiceThread] = [lab.serve(Echo(), name=f"s{number}") for number in range(5)]
        client = lab.connect()
        links = [client.link(f"s{number}") for number in range(5)]
        assert [link.echo(1) for link in links] == [[[1], {}]] * 5
        for link in links:
            link.shutdown_service()
        for thread in threads:
            thread.end()
