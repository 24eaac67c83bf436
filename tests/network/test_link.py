"""A link: calls, the lock, and notifications."""

from __future__ import annotations

import copy
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from scripted_manager import ScriptedManager, connected

from armillary._runtime.groups import single_exception
from armillary.errors import ConnectionClosed
from armillary.network.client import Client, open_client_on
from armillary.network.errors import LinkRefused, LockRefused, ServiceGone
from armillary.network.link import Link
from armillary.network.notifications import Note, Overflow


@asynccontextmanager
async def linked(
    asked: list[dict[str, Any]] | None = None,
) -> AsyncIterator[tuple[Link, ScriptedManager, Client]]:
    """A client with one link; what it asks when that is left goes into `asked`."""
    stream, manager = connected()

    async def begin() -> None:
        await manager.let_in()
        await manager.link()

    async def finish() -> None:
        rest = await manager.serve_rest()
        if asked is not None:
            asked.extend(rest)

    with single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            async with open_client_on(stream) as client, client.link("DMM") as link:
                try:
                    yield link, manager, client
                finally:
                    nursery.start_soon(finish)


def asked_for(requests: list[dict[str, Any]]) -> list[str]:
    return [request["attribute"] for request in requests]


async def notify(manager: ScriptedManager, *args: object, service: str = "DMM", **kwargs: object) -> None:
    await manager.send({"error": False, "result": [args, kwargs], "service": service, "uid": "notification"})


# -- calls ---------------------------------------------------------------------------------------------------


async def test_a_method_of_the_link_is_one_of_the_service() -> None:
    """The request carries the name, the arguments and the keyword arguments, `timeout` included."""
    async with linked() as (link, manager, _), trio.open_nursery() as nursery:

        async def answer() -> None:
            request = await manager.receive()
            assert (request["service"], request["attribute"]) == ("DMM", "voltage")
            assert (request["args"], request["kwargs"]) == ([3, "é"], {"timeout": 1, "attribute": 2})
            await manager.reply(request, [1.25, "V"])

        nursery.start_soon(answer)
        assert await link.voltage(3, "é", timeout=1, attribute=2) == [1.25, "V"]


async def test_names_with_an_underscore_are_nobodys() -> None:
    """Python, debuggers and notebooks get AttributeError, and nothing is sent."""
    asked: list[dict[str, Any]] = []
    async with linked(asked) as (link, _, _):
        for name in ("__len__", "_repr_html_", "_ipython_display_", "_private"):
            with pytest.raises(AttributeError):
                getattr(link, name)
        with pytest.raises(TypeError):
            len(link)  # type: ignore[arg-type]
        assert copy.copy(link).service_name == "DMM"
        assert "DMM" in repr(link)
    assert asked_for(asked) == ["unlink", "__disconnect__"]


async def test_what_the_manager_says_of_the_service() -> None:
    """A link tells its service's address, attributes and so on, also when it is closed."""
    stream, manager = connected()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await manager.let_in()
            await manager.link("DMM", attributes={"pi": 3.14}, language="C", os="VMS", max_clients=2)
            await manager.serve_rest()

        nursery.start_soon(serve)
        async with open_client_on(stream) as client, client.link("DMM") as link:
            assert link.is_linked
        assert not link.is_linked
        assert (link.service_name, link.service_address, link.service_attributes) == (
            "DMM",
            "lab7:51030",
            {"pi": 3.14},
        )
        assert (link.service_language, link.service_os, link.service_max_clients) == ("C", "VMS", 2)


async def test_a_link_that_was_left_is_closed() -> None:
    """Calls, locks and notifications of a link whose block was left raise ClosedResourceError."""
    async with linked() as (link, _, _):
        pass
    with pytest.raises(trio.ClosedResourceError):
        await link.voltage()
    with pytest.raises(trio.ClosedResourceError):
        async with link.lock():
            pytest.fail("it has a lock")
    with pytest.raises(trio.ClosedResourceError):
        link.notifications()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("PermissionError: 'DMM' service is locked", LinkRefused),
        (
            "PermissionError: The maximum number of Clients are already linked with 'DMM'\nBench B",
            LinkRefused,
        ),
        ("KeyError: \"the 'DMM' service does not exist, cannot link with Bench A[lab7:51022]\"", ServiceGone),
    ],
)
async def test_a_refused_link(message: str, error: type[Exception]) -> None:
    """Why there is no link is said by class; the connection goes on, and nothing is unlinked."""
    stream, manager = connected()
    asked: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await manager.let_in()
            await manager.fail(await manager.receive(), message)
            asked.extend(await manager.serve_rest())

        nursery.start_soon(serve)
        async with open_client_on(stream) as client:
            with pytest.raises(error):
                async with client.link("DMM"):
                    pytest.fail("it is linked")
            assert client.is_connected
    assert asked_for(asked) == ["__disconnect__"]


async def test_links_with_one_service_are_one_for_the_manager() -> None:
    """The manager is asked once; the first block that is left does not break the other's link."""
    asked: list[dict[str, Any]] = []
    async with linked(asked) as (link, manager, client), trio.open_nursery() as nursery:
        async with client.link("DMM") as second:
            assert second is not link
        assert link.is_linked

        async def answer() -> None:
            request = await manager.receive()
            await manager.reply(request, request["attribute"])

        nursery.start_soon(answer)
        assert await link.voltage() == "voltage"
    assert asked_for(asked) == ["unlink", "__disconnect__"]


async def test_a_link_that_is_cancelled_on_its_way_is_undone(autojump_clock: object) -> None:
    """If the manager grants it after all, it is told at once that nobody wants it."""
    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.let_in)
        async with open_client_on(stream) as client:
            with trio.move_on_after(1):
                async with client.link("DMM"):
                    pytest.fail("it is linked")
            assert [(await manager.receive())["attribute"] for _ in range(2)] == ["link", "unlink"]
            nursery.start_soon(manager.serve_rest)


# -- the lock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
async def test_a_lock_is_held_for_a_block(shared: bool) -> None:
    """It is acquired with its kind, and released at the end, also by an exception, before the link."""
    asked: list[dict[str, Any]] = []
    stream, manager = connected()

    async def serve() -> None:
        await manager.let_in()
        asked.extend(await manager.serve_rest())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(KeyError):
            async with open_client_on(stream) as client, client.link("DMM") as link:
                async with link.lock(shared=shared):
                    raise KeyError
    assert asked_for(asked) == ["link", "acquire_lock", "release_lock", "unlink", "__disconnect__"]
    assert (asked[1]["service"], asked[1]["args"], asked[1]["kwargs"]) == (
        "Manager",
        ["DMM"],
        {"shared": shared},
    )


async def test_a_lock_that_is_refused() -> None:
    """It is `LockRefused` with the manager's words, and calls go on without it."""
    async with linked() as (link, manager, _), trio.open_nursery() as nursery:

        async def refuse() -> None:
            await manager.fail(
                await manager.receive(), "PermissionError: there are 2 links with the 'DMM' service"
            )
            await manager.receive()
            request = await manager.receive()
            await manager.reply(request, 1)

        nursery.start_soon(refuse)
        with pytest.raises(LockRefused, match="there are 2 links"):
            async with link.lock():
                pytest.fail("it is locked")
        assert await link.voltage() == 1


async def test_nested_locks_are_one() -> None:
    """Locks of one client are acquired once and released with the last block; exclusive is asked for anew."""
    asked: list[dict[str, Any]] = []
    stream, manager = connected()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await manager.let_in()
            asked.extend(await manager.serve_rest())

        nursery.start_soon(serve)
        async with open_client_on(stream) as client, client.link("DMM") as link:
            async with link.lock(shared=True):
                async with link.lock(shared=True):
                    pass
                async with link.lock():
                    async with link.lock(shared=True):
                        pass
                await link.voltage()
    assert asked_for(asked) == [
        "link",
        "acquire_lock",
        "acquire_lock",
        "voltage",
        "release_lock",
        "unlink",
        "__disconnect__",
    ]
    assert [request["kwargs"] for request in asked[1:3]] == [{"shared": True}, {"shared": False}]


# -- notifications -------------------------------------------------------------------------------------------


async def test_notifications_are_iterated_in_order_until_the_link_is_left() -> None:
    """Each is what the service gave to its `notify`; those of other services are not there."""
    async with linked() as (link, manager, _):
        notes = link.notifications()
        await notify(manager, 0.98, "ok", channel=2)
        await notify(manager, service="Motor")
        await notify(manager, 2)
        assert await anext(notes) == Note((0.98, "ok"), {"channel": 2})
        await notify(manager, 3)
        assert await anext(notes) == Note((2,), {})
        await trio.testing.wait_all_tasks_blocked()
    assert [note async for note in notes] == [Note((3,), {})]


@pytest.mark.parametrize(("overflow", "left"), [(Overflow.NEWEST_WIN, [3, 4]), (Overflow.OLDEST_WIN, [0, 1])])
async def test_a_reader_that_is_too_slow_loses_what_its_policy_says(
    overflow: Overflow, left: list[int]
) -> None:
    """Only so many wait; who loses is named, and counted."""
    async with linked() as (link, manager, _):
        notes = link.notifications(bound=2, overflow=overflow)
        for number in range(5):
            await notify(manager, number)
        await trio.testing.wait_all_tasks_blocked()
        assert [(await anext(notes)).args[0] for _ in range(2)] == left
        assert notes.statistics().dropped == 3


async def test_what_was_told_before_a_result_is_heard_before_it(caplog: pytest.LogCaptureFixture) -> None:
    """Callbacks get everything before the call returns; one that raises is logged and harms nobody."""
    heard: list[object] = []

    def broken(*args: object, **kwargs: object) -> None:
        raise ValueError("mine")

    async with linked() as (link, manager, _), trio.open_nursery() as nursery:
        link.add_notification_callback(broken)
        link.add_notification_callback(lambda *args, **kwargs: heard.append((args, kwargs)))

        async def answer() -> None:
            request = await manager.receive()
            await notify(manager, 1)
            await notify(manager, 2, a=3)
            await manager.reply(request, None)

        nursery.start_soon(answer)
        await link.read()
        assert heard == [((1,), {}), ((2,), {"a": 3})]
        link.remove_notification_callback(broken)
    assert "mine" in caplog.text


async def test_an_iterator_that_nobody_has_any_more_takes_nothing() -> None:
    """Leaving a loop early leaves nothing behind that fills up."""
    async with linked() as (link, manager, _):
        notes = link.notifications()
        del notes
        gc.collect()
        assert not link._shared._readers
        await notify(manager, 1)


async def test_loops_end_with_the_connection() -> None:
    """When the only connection is lost, a loop over notifications ends, and the next call raises."""
    async with linked() as (link, manager, _):
        notes = link.notifications()
        await manager.stream.aclose()
        assert [note async for note in notes] == []
        with pytest.raises(ConnectionClosed):
            await link.read()
        assert not link.is_linked
