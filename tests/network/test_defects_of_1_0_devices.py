"""Defects of the clients and services of MSL-Network 1.0 that these do not have.

====== =========================================== ==========================================================
number the defect                                  the tests
====== =========================================== ==========================================================
3      an exception in a notification handler, or  `test_a_handler_that_fails_harms_nobody`,
       cancelling a request, kills the client      `test_a_call_that_is_cancelled_harms_nobody`,
                                                   ``test_link.test_what_was_told_before_a_result_...``
4      a handler that asks the service something   `test_a_handler_may_ask_the_service`,
       waits for itself                            `test_a_loop_over_notifications_may_ask_the_service`
7      a property that raises kills the service,   `test_a_property_that_raises_harms_nobody`,
       a slow one blocks it; a BaseException is    `test_a_slow_property_blocks_nobody`,
       never answered                              `test_whatever_a_method_raises_is_answered`,
                                                   ``test_service.test_whatever_fails_is_answered_...``
8      a service whose name is taken ends as if    `test_a_service_whose_name_is_taken_raises`
       all had been well
14     two links with one service are one, and     `test_links_with_one_service_end_one_by_one`,
       unlinking one breaks the other              ``test_registry.test_a_link_lasts_until_it_was_...``
15     tracebacks are lost, and all exceptions     `test_the_remote_exception_is_recognised`,
       are RuntimeErrors                           ``test_service.test_the_real_traceback_is_in_the_error``
16     ``shutdown_service`` abandons requests      `test_shutting_a_service_down_abandons_nobody`
18     a link that was left looks usable;          `test_a_link_that_was_left_says_so`,
       a link has every dunder                     ``test_link.test_names_with_an_underscore_are_nobodys``
19     connecting returns before one is let in     `test_connecting_waits_for_the_verdict`
20     ``timeout`` and ``asynchronous`` cannot be  `test_no_name_of_an_argument_is_taken`,
       arguments of a method                       `test_methods_that_are_called_like_something_of_the_link`
====== =========================================== ==========================================================

Of number 3, what cancelling one of the old library's futures does belongs to whoever has such futures.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import trio
import trio.testing
from watched_lab import assert_nothing_unexpected, open_watched_lab

from armillary.network.errors import Rejected, RemoteError
from armillary.network.manager import Authenticate
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.service import Service


class Bench(Service):
    """What these tests call."""

    def __init__(self, name: str = "Bench") -> None:
        super().__init__(name=name)
        self.may_go_on = threading.Event()
        self.began = threading.Event()

    @property
    def broken(self) -> float:
        raise OSError("no sensor")

    @property
    def deadly(self) -> float:
        raise KeyboardInterrupt

    async def echo(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [list(args), kwargs]

    async def wait(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    async def tell(self, *args: Any) -> None:
        await self.notify(*args)

    def leave(self) -> None:
        raise SystemExit("enough")

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def generator_exit(self) -> None:
        raise GeneratorExit

    def fail(self) -> None:
        raise LookupError("no such channel")

    def block(self) -> str:
        self.began.set()
        self.may_go_on.wait(10)
        return "done"

    def lock(self) -> str:
        return "the service's lock"

    def call(self, *args: Any) -> list[Any]:
        return list(args)


# -- 3 and 4: notifications and cancelled calls --------------------------------------------------------------


async def test_a_handler_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the other handlers, the loops, the calls and the connection go on."""
    heard: list[Any] = []
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:

            def handler(*args: Any) -> None:
                heard.append(args)
                raise RuntimeError("a bug of the user's")

            link.add_notification_callback(handler)
            notes = link.notifications()
            for number in range(3):
                await link.tell(number)
            assert heard == [(0,), (1,), (2,)]
            assert [(await anext(notes)).args for _ in range(3)] == heard
            assert client.is_connected
            assert await link.echo(1) == [[1], {}]
    told = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert told == ["a bug of the user's"] * 3


async def test_a_call_that_is_cancelled_harms_nobody(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Its late reply belongs to nobody, and the calls before and after it get theirs."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client(features=()) as client, client.link("Bench") as link:
            async with trio.open_nursery() as nursery:
                results: list[float] = []

                async def call(seconds: float) -> None:
                    results.append(await link.wait(seconds))

                nursery.start_soon(call, 3)
                with trio.move_on_after(1) as scope:
                    await link.wait(2)
                assert scope.cancelled_caught
                nursery.start_soon(call, 4)
            assert results == [3, 4]
            statistics = client.statistics()
            assert statistics is not None
            assert (statistics.pending, statistics.unexpected) == (0, 1)
            assert await link.echo(1) == [[1], {}]
        await lab.assert_clean(["Bench"])
    assert_nothing_unexpected(caplog)


async def test_a_handler_may_ask_the_service(autojump_clock: object) -> None:
    """What a handler starts runs while the connection goes on: nobody waits for himself."""
    answers: list[Any] = []
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:

                    async def ask(value: int) -> None:
                        answers.append(await link.echo(value))

                    link.add_notification_callback(lambda value: nursery.start_soon(ask, value))
                    await link.tell(7)
            assert answers == [[[7], {}]]


async def test_a_loop_over_notifications_may_ask_the_service(autojump_clock: object) -> None:
    """Inside the loop everything works as outside."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            with trio.fail_after(5):
                notes = link.notifications()
                await link.tell(0)
                async for note in notes:
                    (value,) = note.args
                    if await link.echo(value) == [[5], {}]:
                        break
                    await link.tell(value + 1)


# -- 7: what a service survives ------------------------------------------------------------------------------


async def test_a_property_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is not told in the identity, and whoever asks for it is told what it raised."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            assert not {"broken", "deadly"} & link.service_attributes.keys()
            assert "echo" in link.service_attributes
            with pytest.raises(RemoteError, match="OSError: no sensor"):
                await link.broken()
            with pytest.raises(RemoteError, match="KeyboardInterrupt"):
                await link.deadly()
            assert await link.echo(1) == [[1], {}]
        await lab.assert_clean(["Bench"])
    assert_nothing_unexpected(caplog)


async def test_a_slow_property_blocks_nobody() -> None:
    """While a property, or a method, waits for its instrument, other requests are answered."""

    class Slow(Bench):
        @property
        def temperature(self) -> str:
            return self.block()

    bench = Slow()
    bench.may_go_on.set()  # for the identity
    async with open_watched_lab() as lab:
        await lab.start_service(bench)
        bench.may_go_on.clear()
        bench.began.clear()
        async with lab.open_client() as client, client.link("Bench") as link, trio.open_nursery() as nursery:
            results: list[str] = []

            async def ask() -> None:
                results.append(await link.temperature())

            with trio.fail_after(10):
                nursery.start_soon(ask)
                await trio.to_thread.run_sync(bench.began.wait)
                assert await link.echo(1) == [[1], {}]
                assert await link.call("call", 2) == [2]
                assert results == []
                bench.may_go_on.set()
        assert results == ["done"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("leave", "SystemExit: enough"),
        ("interrupt", "KeyboardInterrupt: "),
        ("generator_exit", "GeneratorExit: "),
    ],
)
async def test_whatever_a_method_raises_is_answered(method: str, message: str) -> None:
    """Also what is no Exception; and the service goes on."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            with trio.fail_after(10), pytest.raises(RemoteError) as caught:
                await link.call(method)
            assert str(caught.value) == message
            assert await link.echo(1) == [[1], {}]


# -- 8, 14, 15, 16 -------------------------------------------------------------------------------------------


async def test_a_service_whose_name_is_taken_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It is told so, and the one that runs goes on undisturbed."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        with pytest.raises(Rejected, match="A 'Bench' service is already running on the Manager") as caught:
            await lab.start_service(Bench())
        assert caught.value.type_name == "NameError"
        async with lab.open_client() as client, client.link("Bench") as link:
            assert await link.echo(1) == [[1], {}]
        await lab.assert_clean(["Bench"])
    assert_nothing_unexpected(caplog)


async def test_links_with_one_service_end_one_by_one() -> None:
    """A block that is left takes nothing from the other: not the link, nor the lock, nor notifications."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as outer:
            notes = outer.notifications()
            async with outer.lock():
                async with client.link("Bench") as inner:
                    assert await inner.echo(1) == [[1], {}]
                (row,) = lab.manager.registry.table()
                assert (len(row.links), row.lock) == (1, "exclusive")
                await outer.tell(5)
                assert (await anext(notes)).args == (5,)
        await lab.assert_clean(["Bench"])


async def test_the_remote_exception_is_recognised() -> None:
    """Its class, its module, its text and its traceback come with the error."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            with pytest.raises(RemoteError) as caught:
                await link.fail()
    error = caught.value
    assert (error.type_name, error.text, error.module) == ("LookupError", "no such channel", "builtins")
    assert error.traceback[0] == "Traceback (most recent call last):"
    assert any("in fail" in line for line in error.traceback)
    assert "The remote traceback:" in error.__notes__[0]


async def test_shutting_a_service_down_abandons_nobody(autojump_clock: object) -> None:
    """Its answer comes, whoever is being served is answered, and then the service is gone."""

    class Mortal(Bench):
        def shutdown_service(self) -> str:
            return "bye"

    async with open_watched_lab() as lab:
        await lab.start_service(Mortal())
        async with lab.open_client() as client, client.link("Bench") as link, trio.open_nursery() as nursery:
            results: list[float] = []

            async def call() -> None:
                results.append(await link.wait(30))

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert await link.shutdown_service() == "bye"
        assert results == [30]
        await lab.assert_clean()


# -- 18, 19, 20 ----------------------------------------------------------------------------------------------


async def test_a_link_that_was_left_says_so() -> None:
    """Its calls raise, it says that it is not linked, and it pretends to no special method."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client:
            async with client.link("Bench") as link:
                assert link.is_linked
                for name in ("__array__", "__len__", "__fspath__", "_repr_html_", "_ipython_display_"):
                    assert not hasattr(link, name)
                with pytest.raises(TypeError):
                    len(link)  # type: ignore[arg-type]
                assert copy.copy(link).service_name == "Bench"
            assert not link.is_linked
            assert "not linked" in repr(link)
            with pytest.raises(trio.ClosedResourceError, match="'Bench'"):
                await link.echo(1)
            assert client.is_connected


async def test_connecting_waits_for_the_verdict(autojump_clock: object) -> None:
    """The block of a client that is not let in never begins, whether its password or its name is at fault."""
    right = Credentials(password_manager="polonium")
    async with open_watched_lab(authenticate=Authenticate(password="polonium")) as lab:
        with pytest.raises(Rejected, match="Wrong Manager password"):
            async with lab.open_client(credentials=Credentials(password_manager="radium")):
                pytest.fail("it was let in")
        with pytest.raises(Rejected, match="expected a name of 1 to 1024 printable characters"):
            async with lab.open_client("two\nlines", credentials=right):
                pytest.fail("it was let in")
        await lab.assert_clean()
        async with lab.open_client(credentials=right) as client:
            assert client.is_connected


async def test_no_name_of_an_argument_is_taken() -> None:
    """A method may have any argument that Python allows, and gets it."""
    names = (
        "timeout",
        "asynchronous",
        "self",
        "attribute",
        "service",
        "name",
        "args",
        "kwargs",
        "uid",
        "error",
    )
    given = dict(zip(names, range(len(names)), strict=True))
    async with open_watched_lab() as lab:

        class Taker(Service):
            async def take(*args: Any, **kwargs: Any) -> list[Any]:  # so that `self` is a keyword as well
                return [len(args), kwargs]

        await lab.start_service(Taker())
        async with lab.open_client() as client, client.link("Taker") as link:
            assert await link.take(1, **given) == [2, given]
            assert await link.call("take", 1, **given) == [2, given]


async def test_methods_that_are_called_like_something_of_the_link() -> None:
    """They are reached by `call`."""
    async with open_watched_lab() as lab:
        await lab.start_service(Bench())
        async with lab.open_client() as client, client.link("Bench") as link:
            assert await link.call("lock") == "the service's lock"
            assert await link.call("call", 1, 2) == [1, 2]
