"""A service: what can be asked of it, how that is carried out, and that nothing a client asks can end it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from scripted_manager import NAME, OURS, ScriptedManager, connected

from armillary._runtime.groups import single_exception
from armillary.errors import ConnectionClosed
from armillary.network.errors import Rejected
from armillary.network.protocol.features import EXCEPTION
from armillary.network.running_call import current_request
from armillary.network.service import Service, run_service_on


class Dmm(Service):
    """Something of everything."""

    euler = 2.718
    odd = object()

    def __init__(self, **options: Any) -> None:
        super().__init__(name="DMM", **options)
        self.serial_number = "007"
        self.began: list[object] = []
        self.may_go_on = threading.Event()

    @property
    def temperature(self) -> float:
        return 21.5

    @property
    def broken(self) -> float:
        raise OSError("no sensor")

    @property
    def deadly(self) -> float:
        raise SystemExit

    @staticmethod
    def echo(*args: object, **kwargs: object) -> object:
        return args, kwargs

    def power(self, x: float, n: int = 2) -> float:
        return x**n

    def fail(self) -> None:
        raise ValueError("range")

    def leave(self) -> None:
        sys.exit(3)

    def wait(self, what: object) -> object:
        self.began.append(what)
        self.may_go_on.wait(10)
        return what

    def unsendable(self) -> object:
        return {1j}

    def thread(self) -> int:
        return threading.get_ident()

    def who(self) -> str | None:
        return current_request().requester

    def tell(self, count: int) -> str:
        for number in range(count):
            self.emit_notification(number, last=number == count - 1)
        return "told"

    async def async_echo(self, *args: object) -> object:
        return args

    async def async_sleep(self, seconds: float) -> float:
        self.began.append(seconds)
        await trio.sleep(seconds)
        return seconds

    async def async_fail(self) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("x")

    async def async_leave(self) -> None:
        raise SystemExit

    async def async_thread(self) -> int:
        return threading.get_ident()

    async def async_tell(self) -> None:
        await self.notify("é", a=1)

    def _private(self) -> None:
        raise AssertionError("it is private")


@asynccontextmanager
async def served(
    service: Service | None = None, *, features: list[str] | None = None, **options: Any
) -> AsyncIterator[tuple[Dmm, ScriptedManager]]:
    """A service that a scripted manager has let in."""
    stream, manager = connected()
    dmm = Dmm() if service is None else service
    with single_exception():
        async with trio.open_nursery() as ending, trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                starting.start_soon(manager.let_in, features)

                async def start() -> None:
                    name = await nursery.start(lambda **more: run_service_on(dmm, stream, **options, **more))
                    assert name == OURS

                starting.start_soon(start)
            try:
                yield dmm, manager  # type: ignore[misc]
            finally:
                if isinstance(dmm, Dmm):
                    dmm.may_go_on.set()
                ending.start_soon(manager.serve_rest)
                nursery.cancel_scope.cancel()


async def result_of(manager: ScriptedManager, attribute: str, *args: object, **kwargs: object) -> Any:
    await manager.call(attribute, *args, **kwargs)
    reply = await manager.receive()
    assert (reply["error"], reply["uid"], reply["requester"]) == (False, "7", OURS)
    return reply["result"]


async def error_of(
    manager: ScriptedManager, attribute: str, *args: object, **kwargs: object
) -> dict[str, Any]:
    await manager.call(attribute, *args, **kwargs)
    reply = await manager.receive()
    assert reply["result"] is None
    assert (reply["error"], reply["uid"], reply["requester"]) == (True, "7", OURS)
    return reply


# -- the identity --------------------------------------------------------------------------------------------


async def test_a_service_says_what_can_be_asked_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """Signatures of methods, values of the others; what raises or cannot be sent is left out."""
    stream, manager = connected()
    with caplog.at_level(logging.WARNING):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_service_on, Dmm(max_clients=3, ignore=["leave", "async_leave"]), stream)
            identity = await manager.let_in()
            nursery.cancel_scope.cancel()
    assert (identity["type"], identity["name"], identity["max_clients"]) == ("service", "DMM", 3)
    attributes = identity["attributes"]
    assert attributes["power"] == "(x: float, n: int = 2) -> float"
    assert attributes["echo"] == "(*args: object, **kwargs: object) -> object"
    assert attributes["async_sleep"] == "(seconds: float) -> float"
    assert (attributes["euler"], attributes["serial_number"], attributes["temperature"]) == (
        2.718,
        "007",
        21.5,
    )
    assert attributes.keys() == {
        *("async_echo", "async_fail", "async_sleep", "async_tell", "async_thread"),
        *("began", "echo", "euler", "fail", "power", "serial_number", "temperature"),
        *("tell", "thread", "unsendable", "wait", "who"),
    }
    for name in ("broken", "deadly", "odd", "may_go_on"):
        assert f"attribute '{name}' is not told" in caplog.text
    await manager.stream.aclose()


async def test_any_object_can_be_a_service() -> None:
    """Its public attributes are those of the service, also those that are called like one of `Service`."""

    class Motor:
        name = "not the service's"

        def notify(self) -> str:
            return "mine"

    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_service_on, Service(Motor()), stream)
        identity = await manager.let_in()
        assert identity["name"] == "Motor"
        assert identity["attributes"] == {
            "name": "not the service's",
            "notify": "() -> str",
        }
        assert await result_of(manager, "notify") == "mine"
        nursery.cancel_scope.cancel()
    await manager.stream.aclose()


async def test_a_subclass_may_forward_to_what_does_not_exist_yet() -> None:
    """A user's `__getattr__` that fails until much later is not asked anything while the service is made."""

    class Forwarding(Service):
        def __init__(self) -> None:
            super().__init__(name="F")
            self.inner: Any = Dmm()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["inner"], name)

    async with served(Forwarding()) as (_, manager):
        assert await result_of(manager, "power", 3) == 9
        assert await result_of(manager, "euler") == 2.718


# -- calls ---------------------------------------------------------------------------------------------------


async def test_methods_and_values_are_to_be_had() -> None:
    """Methods get their arguments; constants and properties are values, and ignore arguments."""
    async with served() as (_, manager):
        assert await result_of(manager, "echo", 1, "é", x=[None]) == [[1, "é"], {"x": [None]}]
        assert await result_of(manager, "power", 3, n=3) == 27
        assert await result_of(manager, "async_echo", 1) == [1]
        assert await result_of(manager, "euler", 1) == 2.718
        assert await result_of(manager, "serial_number") == "007"
        assert await result_of(manager, "temperature") == 21.5
        assert await result_of(manager, "who") == OURS


async def test_keyword_arguments_may_be_called_anything() -> None:
    """What is looked up before it is called takes the same names as other methods."""

    class Forwards:
        def __getattr__(self, name: str) -> Any:
            return Dmm.echo

    names = dict.fromkeys(("target", "name", "function", "request"), 1)
    async with served(Service(Forwards(), name="DMM")) as (_, manager):
        assert await result_of(manager, "anything", **names) == [[], names]


async def test_what_is_ignored_can_be_asked_for_nevertheless() -> None:
    """To ignore an attribute hides it, and does not protect it."""
    async with served(Dmm(ignore="power")) as (_, manager):
        assert await result_of(manager, "power", 3) == 9


@pytest.mark.parametrize(
    ("attribute", "args", "message"),
    [
        ("_private", [], "PermissionError: Cannot request a private attribute"),
        ("__class__", [], "PermissionError: Cannot request a private attribute"),
        ("nothing", [], "AttributeError: 'Dmm' object has no attribute 'nothing'"),
        ("emit_notification", [1], "AttributeError: 'Dmm' object has no attribute 'emit_notification'"),
        ("max_clients", [], "AttributeError: 'Dmm' object has no attribute 'max_clients'"),
        ("fail", [], "ValueError: range"),
        ("power", [], "TypeError: Dmm.power() missing 1 required positional argument: 'x'"),
        ("leave", [], "SystemExit: 3"),
        ("broken", [], "OSError: no sensor"),
        ("deadly", [], "SystemExit: "),
        ("unsendable", [], "TypeError: Object of type set is not JSON serializable"),
        ("odd", [], "TypeError: Object of type object is not JSON serializable"),
        ("async_fail", [], "KeyError: 'x'"),
        ("async_leave", [], "SystemExit: "),
    ],
)
async def test_whatever_fails_is_answered_and_the_service_goes_on(
    attribute: str, args: list[object], message: str
) -> None:
    """Exceptions of every kind become error packets, and the next request is answered."""
    async with served() as (_, manager):
        assert (await error_of(manager, attribute, *args))["message"] == message
        assert await result_of(manager, "async_echo", 1) == [1]
        assert await result_of(manager, "power", 2) == 4


@pytest.mark.parametrize("attribute", ["fail", "async_fail"])
async def test_the_real_traceback_is_in_the_error(attribute: str) -> None:
    """It begins in the user's method and ends with the message; a 1.0 manager gets no new keys."""
    async with served() as (_, manager):
        error = await error_of(manager, attribute)
    lines = error["traceback"]
    assert lines[0] == "Traceback (most recent call last):"
    assert f"in {attribute}" in lines[1]
    assert __file__ in lines[1]
    assert lines[-1] == error["message"]
    assert error.keys() == {"error", "message", "requester", "result", "traceback", "uid"}


async def test_the_class_of_an_exception_is_told_where_that_was_agreed() -> None:
    """With the feature `exception`, the packet names class and module."""
    async with served(features=[EXCEPTION]) as (_, manager):
        assert (await error_of(manager, "fail"))["exception"] == {"type": "ValueError", "module": "builtins"}


async def test_plain_methods_run_in_threads_and_coroutines_in_the_run() -> None:
    """`def` runs elsewhere, `async def` here."""
    async with served() as (_, manager):
        assert await result_of(manager, "thread") != threading.get_ident()
        assert await result_of(manager, "async_thread") == threading.get_ident()


async def test_methods_run_at_once_and_answer_when_they_are_done(autojump_clock: object) -> None:
    """Coroutines and threads wait side by side, and a quick call overtakes slow ones."""
    async with served() as (dmm, manager):
        await manager.call("async_sleep", 2, uid="a")
        await manager.call("async_sleep", 1, uid="b")
        await manager.call("wait", 1, uid="c")
        await manager.call("wait", 2, uid="d")
        await manager.call("async_echo", uid="e")
        uids = [(await manager.receive())["uid"] for _ in range(3)]
        assert uids == ["e", "b", "a"]
        dmm.may_go_on.set()
        assert {(await manager.receive())["uid"] for _ in range(2)} == {"c", "d"}


async def test_a_serial_service_does_one_thing_at_a_time(autojump_clock: object) -> None:
    """With `concurrency=1`, coroutines, threads and values are carried out in the order of their requests."""
    async with served(Dmm(concurrency=1)) as (dmm, manager):
        for number, (attribute, *args) in enumerate(
            [
                ("async_sleep", 5),
                ("echo", 1),
                ("euler",),
                ("async_sleep", 1),
                ("async_echo", 1),
                ("temperature",),
            ]
        ):
            await manager.call(attribute, *args, uid=str(number))
        await trio.testing.wait_all_tasks_blocked()
        assert dmm.began == [5]
        assert dmm.statistics() is not None
        uids = [(await manager.receive())["uid"] for _ in range(6)]
        assert uids == ["0", "1", "2", "3", "4", "5"]
        statistics = dmm.statistics()
        assert statistics is not None
        assert (statistics.running, statistics.waiting, statistics.done) == (0, 0, 6)


async def test_thousands_of_calls_at_once() -> None:
    """A script that sends everything before it reads anything gets every reply."""
    count = 3000
    async with served() as (_, manager), trio.open_nursery() as nursery:

        async def ask() -> None:
            for number in range(count):
                await manager.call("async_echo" if number % 2 else "echo", number, uid=str(number))

        nursery.start_soon(ask)
        assert {(await manager.receive())["uid"] for _ in range(count)} == set(map(str, range(count)))


async def test_a_request_that_is_too_large_is_answered() -> None:
    """It is thrown away, its requester is told, and the service goes on."""
    async with served(limit=2000) as (_, manager):
        error = await error_of(manager, "echo", "x" * 1_000_000)
        assert "more than 2000 bytes" in error["message"]
        assert await result_of(manager, "power", 2) == 4


async def test_lines_that_are_no_packets_do_no_harm() -> None:
    """Bad JSON, bad UTF-8, errors and wrong types are survived."""
    async with served() as (_, manager):
        for line in (
            b"nonsense\n",
            b"\xff\n",
            b"3\n",
            b"{}\n",
            b'{"error": true}\n',
            b'{"attribute": 3}\n',
            b"[" * 99999 + b"\n",
        ):
            await manager.send(line)
        await manager.send({"attribute": "shoe_size", "args": [], "kwargs": {}, "requester": NAME, "uid": ""})
        assert (await manager.receive())["error"]
        assert await result_of(manager, "power", 2) == 4


# -- notifications -------------------------------------------------------------------------------------------


async def test_notifications_of_a_method_come_before_its_result() -> None:
    """What a method tells from its thread is sent in order, and before the reply."""
    async with served() as (_, manager):
        await manager.call("tell", 10)
        packets = [await manager.receive() for _ in range(11)]
        assert packets[-1]["result"] == "told"
        for number, packet in enumerate(packets[:-1]):
            assert packet == {
                "error": False,
                "result": [[number], {"last": number == 9}],
                "service": "DMM",
                "uid": "notification",
            }


async def test_a_coroutine_tells_in_its_turn() -> None:
    """`await self.notify(...)` inside a method sends the notification before the reply."""
    async with served() as (dmm, manager):
        await manager.call("async_tell")
        assert (await manager.receive())["result"] == [["é"], {"a": 1}]
        assert (await manager.receive())["uid"] == "7"
        dmm.emit_notification(1)
        assert (await manager.receive())["result"] == [[1], {}]
        with pytest.raises(TypeError, match="not JSON serializable"):
            dmm.emit_notification(1j)
        with pytest.raises(TypeError, match="not JSON serializable"):
            await dmm.notify(1j)


async def test_without_a_manager_nobody_is_told() -> None:
    """A service that does not run may tell what it likes."""
    dmm = Dmm()
    dmm.emit_notification(1)
    await dmm.notify(1)


# -- the end -------------------------------------------------------------------------------------------------


async def test_a_service_that_is_cancelled_takes_leave(autojump_clock: object) -> None:
    """Its coroutines end, it says good-bye, and its threads are waited for."""
    stream, manager = connected()
    dmm = Dmm()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_service_on, dmm, stream)
        await manager.let_in()
        await manager.call("async_sleep", 1000)
        await manager.call("wait", 1)
        await trio.testing.wait_all_tasks_blocked()
        threading.Timer(0.05, dmm.may_go_on.set).start()
        nursery.cancel_scope.cancel()
    assert dmm.may_go_on.is_set()
    assert (await manager.receive())["attribute"] == "__disconnect__"
    with pytest.raises(EOFError):
        await manager.receive()
    await manager.stream.aclose()


async def test_a_lost_connection_ends_its_calls(autojump_clock: object) -> None:
    """Without `reconnect`, the loss is raised; coroutines end, and calls that waited never begin."""
    stream, manager = connected()
    dmm = Dmm(concurrency=1)
    with pytest.raises(ConnectionClosed, match="closed the connection"), single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_service_on, dmm, stream)
            await manager.let_in()
            await manager.call("async_sleep", 1000)
            await manager.call("async_sleep", 2000)
            await trio.testing.wait_all_tasks_blocked()
            await manager.stream.aclose()
    assert dmm.began == [1000]
    assert trio.current_time() < 100


async def test_a_service_whose_name_is_taken_says_so() -> None:
    """A rejected identity raises, instead of ending as if all had been well."""
    stream, manager = connected()

    async def reject() -> None:
        await manager.ask("identity")
        message = "NameError: A 'DMM' service is already running on the Manager"
        await manager.send({"error": True, "message": message, "requester": NAME, "result": None, "uid": ""})
        await manager.stream.aclose()

    with pytest.raises(Rejected, match="already running"), single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reject)
            await run_service_on(Dmm(), stream)


async def test_shutdown_service_ends_the_service_after_its_answer(autojump_clock: object) -> None:
    """The result is sent, calls that still run are answered, and `run_service` returns."""

    class Mortal(Dmm):
        def shutdown_service(self) -> str:
            return "bye"

    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_service_on, Mortal(), stream)
        await manager.let_in()
        await manager.call("async_sleep", 3, uid="slow")
        await manager.call("shutdown_service")
        replies = [await manager.receive() for _ in range(3)]
        assert {reply.get("uid"): reply.get("result") for reply in replies[:2]} == {"7": "bye", "slow": 3}
        assert replies[2]["attribute"] == "__disconnect__"
        await manager.stream.aclose()


async def test_a_service_runs_in_one_place_at_a_time() -> None:
    """Running it twice at once is a mistake, and running it again afterwards is not."""
    dmm = Dmm()
    async with served(dmm):
        stream, manager = connected()
        with pytest.raises(RuntimeError, match="runs already"):
            await run_service_on(dmm, stream)
        await stream.aclose()
        await manager.stream.aclose()
    async with served(dmm) as (_, manager):
        assert await result_of(manager, "power", 2) == 4


async def test_a_service_is_cancelled_everywhere(cancel_everywhere: Any, autojump_clock: object) -> None:
    """Cancelled at any checkpoint, a service leaves no task, no thread and no open connection."""

    async def scenario() -> None:
        stream, manager = connected()
        dmm = Dmm()
        dmm.may_go_on.set()

        async def ask() -> None:
            with contextlib.suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                await manager.let_in()
                await result_of(manager, "async_sleep", 1)
                await result_of(manager, "wait", 1)
                await manager.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with contextlib.suppress(ConnectionClosed):
                await run_service_on(dmm, stream)

    assert await cancel_everywhere(scenario) > 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("DMM_")]
