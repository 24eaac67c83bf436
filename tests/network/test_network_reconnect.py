"""Clients and services that stay with their manager through its absences."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from scripted_manager import NAME, Dialled, ScriptedManager

from armillary._runtime.groups import single_exception
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network.errors import LockLost, Rejected
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.reconnect import LOOK_INTERVAL, PersistentClient, open_persistent_client
from armillary.network.service import Service, run_service

ABSENT = "KeyError: \"the 'DMM' service does not exist, cannot link with Bench A[lab7:51022]\""


def slowest(low: float, high: float) -> float:
    return high


def steady() -> Backoff:
    """Pauses of 1, 2, 4, 8... seconds."""
    return Backoff(slowest, first=0.5)


@pytest.fixture
def dialled() -> Dialled:
    return Dialled()


@asynccontextmanager
async def persistent(dialled: Dialled, **options: Any) -> AsyncIterator[PersistentClient]:
    async with open_persistent_client(dial=dialled.dial, backoff=steady(), **options) as client:
        yield client


async def serve(manager: ScriptedManager, asked: list[dict[str, Any]], address: str = "lab7:1") -> None:
    """Grant everything, until one of both is gone."""
    try:
        await manager.let_in()
        while (request := await manager.receive())["attribute"] != "__disconnect__":
            asked.append(request)
            entry = {"address": address, "attributes": {}}
            await manager.reply(request, entry if request["attribute"] == "link" else request["attribute"])
        asked.append(request)
        await manager.stream.aclose()
    except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


def asked_for(requests: list[dict[str, Any]]) -> list[str]:
    return [request["attribute"] for request in requests]


# -- clients -------------------------------------------------------------------------------------------------


async def test_a_client_waits_for_a_manager_that_is_not_there_yet(
    dialled: Dialled, autojump_clock: object
) -> None:
    """The block begins at once, calls fail at once, and attempts come with growing pauses."""
    dialled.is_there = False
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        assert not client.is_connected
        with pytest.raises(ConnectionClosed):
            await client.identities()
        await trio.sleep(1 + 2 + 4 + 0.5)
        assert dialled.attempts == 4
        assert isinstance(client.last_error, ConnectFailed)
        dialled.is_there = True
        nursery.start_soon(serve, manager := await dialled.next(), [])
        await client.wait_connected()
        assert manager is not None
        assert (client.connections, client.last_error) == (1, None)


async def test_pending_calls_fail_and_are_not_repeated(dialled: Dialled, autojump_clock: object) -> None:
    """What was pending says that it may have been received; the new connection sees only the link."""
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        manager = await dialled.next()
        nursery.start_soon(manager.let_in)
        await client.wait_connected()

        async def script() -> None:
            await manager.link()
            first.append(await manager.receive())
            await manager.stream.aclose()

        nursery.start_soon(script)
        async with client.link("DMM") as link:
            with pytest.raises(ConnectionClosed) as caught:
                await link.fire()
            assert caught.value.may_have_been_received
            with pytest.raises(ConnectionClosed) as caught:
                await link.fire()
            assert not caught.value.may_have_been_received
            nursery.start_soon(serve, await dialled.next(), second)
            await client.wait_connected()
            await trio.sleep(0.1)
            assert link.is_linked
            assert asked_for(second) == ["link"]
            assert await link.voltage() == "voltage"


async def test_notifications_go_on_over_connections(dialled: Dialled, autojump_clock: object) -> None:
    """A loop over notifications does not end with a connection, but with the link's block."""
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        managers = [await dialled.next()]
        nursery.start_soon(serve, managers[0], [])
        async with client.link("DMM") as link:
            notes = link.notifications()
            for number in range(2):
                await managers[-1].send(
                    {"error": False, "result": [[number], {}], "service": "DMM", "uid": "notification"}
                )
                assert (await anext(notes)).args == (number,)
                await managers[-1].stream.aclose()
                managers.append(await dialled.next())
                nursery.start_soon(serve, managers[-1], [])
                await client.wait_connected()
        assert [note async for note in notes] == []


async def test_a_link_waits_for_a_service_that_starts_later(dialled: Dialled, autojump_clock: object) -> None:
    """Entering the block of a link lasts until the service is there; the caller's scope is the time-out."""
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        manager = await dialled.next()

        async def script() -> None:
            await manager.let_in()
            for _ in range(5):
                await manager.fail(await manager.receive(), ABSENT)
            await manager.link()
            await manager.serve_rest()

        nursery.start_soon(script)
        with trio.fail_after(10):
            async with client.link("DMM") as link:
                assert link.is_linked
        assert trio.current_time() >= 2.5


async def test_a_service_that_was_restarted_is_linked_again(dialled: Dialled, autojump_clock: object) -> None:
    """Managers do not tell of it: the client looks, and links with the new one under its old name."""
    asked: list[dict[str, Any]] = []
    addresses = iter(["lab7:1", "lab7:1", "lab7:2", *["lab7:2"] * 100])
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        manager = await dialled.next()

        async def script() -> None:
            await manager.let_in()
            while True:
                try:
                    request = await manager.receive()
                except EOFError:
                    return
                asked.append(request)
                is_link = request["attribute"] == "link"
                await manager.reply(request, {"address": next(addresses)} if is_link else True)

        nursery.start_soon(script)
        async with client.link("DMM") as link:
            assert link.service_address == "lab7:1"
            await trio.sleep(60)
            assert link.service_address == "lab7:2"
        await trio.testing.wait_all_tasks_blocked()
        # This manager, as those of 1.0, does not count links: the only unlinking is that of the block's end.
        *looks, last = asked_for(asked)
        assert set(looks) == {"link"}
        assert last == "unlink"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        ({}, False),
        ({"shared": True}, True),
        ({"reacquire": True}, True),
        ({"shared": True, "reacquire": False}, False),
    ],
)
async def test_a_lock_is_had_again_only_where_that_is_safe(
    dialled: Dialled, autojump_clock: object, options: dict[str, bool], is_kept: bool
) -> None:
    """Shared ones are, exclusive ones only on request; otherwise calls raise until the block is left."""
    second: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        manager = await dialled.next()
        nursery.start_soon(serve, manager, [])
        async with client.link("DMM") as link:
            async with link.lock(**options):
                await manager.stream.aclose()
                nursery.start_soon(serve, await dialled.next(), second)
                await client.wait_connected()
                await trio.sleep(0.1)
                if is_kept:
                    assert await link.voltage() == "voltage"
                else:
                    with pytest.raises(LockLost, match="somebody else may have used it"):
                        await link.voltage()
            assert await link.voltage() == "voltage"
    expected = ["link", "acquire_lock", "voltage", "release_lock"] if is_kept else ["link"]
    assert asked_for(second) == [*expected, "voltage", "unlink", "__disconnect__"]


async def test_a_lock_that_somebody_else_has_now_is_lost(dialled: Dialled, autojump_clock: object) -> None:
    """If it cannot be had again, calls raise `LockLost` as well."""
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        manager = await dialled.next()
        nursery.start_soon(serve, manager, [])
        async with client.link("DMM") as link, link.lock(reacquire=True):
            await manager.stream.aclose()
            manager = await dialled.next()
            await manager.let_in()
            await manager.link()
            await manager.fail(await manager.receive(), "PermissionError: 'DMM' service is locked")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LockLost, match="is locked"):
                await link.voltage()
            nursery.start_soon(manager.serve_rest)


async def test_a_person_is_asked_only_once(dialled: Dialled, autojump_clock: object) -> None:
    """What somebody typed is remembered for the next connection."""
    questions = 0

    async def ask(question: str, is_secret: bool) -> str:
        nonlocal questions
        questions += 1
        return "radium"

    async with trio.open_nursery() as nursery, persistent(dialled, ask=ask) as client:
        for _ in range(2):
            manager = await dialled.next()
            assert (await manager.ask("password", NAME))["result"] == "radium"
            nursery.start_soon(serve, manager, [])
            await client.wait_connected()
            await manager.stream.aclose()
            await client.wait_disconnected()
    assert questions == 1


async def test_wrong_credentials_end_the_block(dialled: Dialled, autojump_clock: object) -> None:
    """Attempts that cannot succeed are not repeated: `Rejected` comes out of the block."""

    async def reject() -> None:
        manager = await dialled.next()
        await manager.ask("password", NAME)
        message = "ValueError: Wrong Manager password"
        await manager.send({"error": True, "message": message, "requester": NAME, "result": None, "uid": ""})
        await manager.stream.aclose()

    with pytest.raises(Rejected, match="Wrong Manager password"), single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reject)
            async with persistent(dialled, credentials=Credentials(password_manager="lead")):
                await trio.sleep_forever()


async def test_the_blocks_own_exception_comes_out_of_a_persistent_client(
    dialled: Dialled, autojump_clock: object
) -> None:
    """A KeyError in the block is a KeyError outside of it."""
    with pytest.raises(KeyError):
        async with persistent(dialled):
            raise KeyError


# -- services ------------------------------------------------------------------------------------------------


class Echo(Service):
    def echo(self, *args: object) -> object:
        return args


async def test_a_service_registers_again_after_a_restart_of_the_manager(
    dialled: Dialled, autojump_clock: object
) -> None:
    """It waits for the manager at first, registers with each one that comes, and answers there."""
    dialled.is_there = False
    async with trio.open_nursery() as nursery:
        run = partial(run_service, Echo(), dial=dialled.dial, backoff=steady())
        names: list[str | None] = []

        async def start() -> None:
            names.append(await nursery.start(run))

        nursery.start_soon(start)
        await dialled.tried.wait()  # its identity is found out in a thread, where time is real
        await trio.sleep(10)
        assert dialled.attempts == 4
        assert names == []
        dialled.is_there = True
        for number in range(3):
            manager = await dialled.next()
            assert (await manager.let_in(requester=f"Echo[lab7:{number}]"))["name"] == "Echo"
            await manager.call("echo", number)
            assert (await manager.receive())["result"] == [number]
            await manager.stream.aclose()
        assert names == ["Echo[lab7:0]"]
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_still_taken_after_a_loss_is_tried_again(
    dialled: Dialled, autojump_clock: object
) -> None:
    """The manager may not have noticed that the old connection is gone; at first, it is an error."""
    taken = {
        "error": True,
        "message": "NameError: A 'Echo' service is already running on the Manager",
        "requester": NAME,
        "result": None,
        "uid": "",
    }

    async def refuse() -> None:
        manager = await dialled.next()
        await manager.ask("identity")
        await manager.send(taken)
        await manager.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_service, Echo(), dial=dialled.dial, backoff=steady()))
        manager = await dialled.next()
        await manager.let_in()
        await manager.stream.aclose()
        await refuse()
        await refuse()
        manager = await dialled.next()
        await manager.let_in()
        nursery.cancel_scope.cancel()
    await manager.stream.aclose()
    with pytest.raises(Rejected), single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            await run_service(Echo(), dial=dialled.dial, backoff=steady())


async def test_a_service_that_is_not_to_reconnect_says_why_it_cannot_connect(
    dialled: Dialled, autojump_clock: object
) -> None:
    """Without `reconnect` the first failure is raised."""
    dialled.is_there = False
    with pytest.raises(ConnectFailed, match="nobody listens"):
        await run_service(Echo(), dial=dialled.dial, reconnect=False)


async def test_a_manager_that_does_not_count_links_keeps_them(
    dialled: Dialled, autojump_clock: object
) -> None:
    """Looking whether a service is still there does not end the link with a manager of 1.0."""
    asked: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery, persistent(dialled) as client:
        nursery.start_soon(serve, await dialled.next(), asked)
        async with client.link("DMM"):
            await trio.sleep(3 * LOOK_INTERVAL)
            assert set(asked_for(asked)) == {"link"}
            assert len(asked) >= 3
