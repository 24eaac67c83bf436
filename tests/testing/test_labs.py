"""Labs in memory: a manager, services and clients, on virtual time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network import (
    Authenticate,
    Credentials,
    LinkRefused,
    LockLost,
    ManagerLimits,
    Rejected,
    RemoteError,
    Service,
    ServiceGone,
    Store,
    open_store,
)
from armillary.testing import DemoService, FaultyStream, Lab, open_lab
from armillary.testing.clocks import threads_take_no_time

MARIE = Credentials("marie", "polonium")


@pytest.fixture
def lab_services() -> list[Service]:
    return [DemoService()]


@pytest.fixture
def store() -> Iterator[Store]:
    """With a user, whose password takes as long to check as in earnest."""
    with open_store(":memory:", trusted=lambda: ["trusted"]) as opened:
        opened.users.add("marie", "polonium", is_admin=True)
        yield opened


# -- the whole -----------------------------------------------------------------------------------------------


async def test_the_fixture_serves_the_services_of_the_test(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    """Calls in the run and in threads, values, errors and notifications work, and hours take no time."""
    async with lab.client("Bench") as client, client.link("Demo") as demo:
        assert await demo.echo(1, x="é") == [[1], {"x": "é"}]
        assert (await demo.unit(), await demo.voltage()) == ("V", 1.25)
        with pytest.raises(RemoteError, match="no such channel"):
            await demo.fail("no such channel")
        notes = demo.notifications()
        assert await demo.tell(3) == 3
        assert [(await anext(notes)).args for _ in range(3)] == [(0,), (1,), (2,)]
        began = trio.current_time()
        assert await demo.sleep(3600) == 3600
        assert trio.current_time() - began >= 3600


async def test_names_are_the_same_in_every_run(autojump_clock: trio.testing.MockClock) -> None:
    """Peers are numbered in the order in which they connect, from the host that the test says."""
    async with open_lab(DemoService()) as lab, lab.client() as one, lab.client() as two:
        away = await lab.connect(host="roof", port=77)
        async with lab.client("Away", stream=away) as three:
            for client, name in ((one, "Client[lab:2]"), (two, "Client[lab:3]"), (three, "Away[roof:77]")):
                identities = await client.identities()
                assert name in identities["clients"]
            assert [row.name for row in lab.manager.statistics().services] == ["Demo"]
            assert len(lab.manager.statistics().peers) == 4


async def test_a_scope_ends_its_service(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Cancelling what `start` returns ends that service only, and its name is free again."""
    scope = await lab.start(DemoService(name="Other"))
    async with lab.client() as client:
        async with client.link("Other") as other:
            scope.cancel()
            with pytest.raises(ServiceGone):
                await other.sleep(1000)
        async with client.link("Demo") as demo:
            assert await demo.sleep(1) == 1
        await lab.start(DemoService(name="Other"))
        async with client.link("Other") as other:
            assert await other.shutdown_service() == "bye"
        with pytest.raises(ServiceGone):
            async with client.link("Other"):
                pytest.fail("it was shut down")


async def test_leaving_the_block_ends_everything(autojump_clock: trio.testing.MockClock) -> None:
    """Raw peers are disconnected, nobody can connect, and the service can run in another lab."""
    service = DemoService()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            async with open_lab(service) as lab:
                stream = await lab.connect()
            async with stream:
                while await stream.receive_some():
                    pass
            with pytest.raises(ConnectFailed):
                await lab.connect()
            assert not lab.is_running
            nursery.cancel_scope.cancel()


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    """What a test raises is not wrapped, and neither is a service that is not accepted."""
    with pytest.raises(LookupError, match="mine"):
        async with open_lab(DemoService()):
            raise LookupError("mine")
    with pytest.raises(Rejected, match="already running"):
        async with open_lab(DemoService(), DemoService()):
            pytest.fail("there are two of one name")


# -- options -------------------------------------------------------------------------------------------------


async def test_logins(store: Store, autojump_clock: trio.testing.MockClock) -> None:
    """Services and clients log in with the lab's credentials or their own, and no handshake is too slow."""
    async with open_lab(
        DemoService(), authenticate=Authenticate(login=True), store=store, credentials=MARIE
    ) as lab:
        async with lab.client() as client, client.link("Demo") as demo:
            assert await demo.echo() == [[], {}]
            assert await client.admin("users_table.usernames") == ["marie"]
        with pytest.raises(Rejected, match="Wrong login password"):
            async with lab.client(credentials=Credentials("marie", "radium")):
                pytest.fail("it was let in")
        async with lab.persistent_client("Always") as client:
            await client.wait_connected()
            assert await client.admin("shutdown_manager") is None
        with trio.fail_after(5):
            await lab.wait_stopped()
    assert "shutdown_manager" in [event.subject for event in store.audit.events()]


async def test_hosts(autojump_clock: trio.testing.MockClock) -> None:
    """A manager that trusts some hosts sees the one that a connection is said to come from."""
    async with open_lab(authenticate=Authenticate(hostnames=["trusted"])) as lab:
        async with lab.client(stream=await lab.connect(host="trusted")) as client:
            assert client.is_connected
        with pytest.raises(Rejected, match="'lab' is not a trusted hostname"):
            async with lab.client():
                pytest.fail("it was let in")


async def test_limits(autojump_clock: trio.testing.MockClock) -> None:
    """The manager has the limits that the test gives it."""
    async with open_lab(limits=ManagerLimits(handshake=15)) as lab, lab.open_raw() as peer:
        began = trio.current_time()
        assert json.loads(await peer.receive())["attribute"] == "identity"
        assert b"TimeoutError" in await peer.receive()
        assert await peer.receive() == b""
        assert trio.current_time() - began == pytest.approx(15, abs=1)


# -- absences and faults -------------------------------------------------------------------------------------


async def test_everybody_comes_back(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """After a restart the service registers and the client links again; what was pending has failed."""
    async with lab.persistent_client() as client, client.link("Demo") as demo:
        first = lab.manager
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                # Which of them, depends on who of the two is disconnected first.
                with pytest.raises((ConnectionClosed, ServiceGone)):
                    await demo.sleep(1000)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await lab.stop_manager()
        await client.wait_disconnected()
        with pytest.raises(ConnectFailed):
            await lab.connect()
        await trio.sleep(100)
        assert isinstance(client.last_error, ConnectFailed)
        await lab.start_manager()
        await client.wait_connected()
        async with client.link("Demo"):
            assert await demo.sleep(5) == 5
        assert lab.manager is not first
        with pytest.raises(RuntimeError, match="already"):
            await lab.start_manager()


async def test_a_restart_takes_the_time_that_the_test_says(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    """An exclusive lock is lost with the manager, and its holder is told so."""
    async with lab.persistent_client() as client, client.link("Demo") as demo:
        async with demo.lock():
            began = trio.current_time()
            await lab.restart_manager(absence=20, limits=ManagerLimits(handshake=30))
            assert 20 <= trio.current_time() - began < 22
            await client.wait_connected()
            with pytest.raises(LockLost):
                await demo.sleep(1)


async def test_who_does_not_reconnect_ends(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """A service with one connection ends with it and disturbs nobody."""
    faulty = FaultyStream(await lab.connect())
    await lab.start(DemoService(name="Frail"), stream=faulty)
    async with lab.client() as client, client.link("Frail") as frail:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ServiceGone):
                    await frail.sleep(1000)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await faulty.cut()
        async with client.link("Demo") as demo:
            assert await demo.sleep(1) == 1


async def test_a_client_on_a_bad_line(lab: Lab, autojump_clock: trio.testing.MockClock) -> None:
    """Byte by byte and late, a client's calls return what they should; cut off, they fail."""
    faulty = FaultyStream(await lab.connect())
    faulty.piece, faulty.delay = 1, 0.001
    async with lab.client(stream=faulty) as client, client.link("Demo") as demo:
        began = trio.current_time()
        assert await demo.sleep(0) == 0
        assert trio.current_time() > began
        faulty.cut_after = 10
        with pytest.raises(ConnectionClosed):
            await demo.sleep(0)


async def test_bad_lines_of_a_client_that_reconnects(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that makes its own streams is cut off by the test, and is back a second later."""
    streams: list[FaultyStream] = []

    async def dial() -> trio.abc.Stream:
        streams.append(FaultyStream(await lab.connect()))
        return streams[-1]

    async with lab.persistent_client(dial=dial) as client, client.link("Demo") as demo:
        await streams[0].cut()
        await client.wait_disconnected()
        began = trio.current_time()
        await client.wait_connected()
        assert trio.current_time() - began == 1
        async with client.link("Demo"):
            assert await demo.sleep(1) == 1
        assert len(streams) == 2


async def test_a_scripted_peer_is_linked_like_any_other(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    """A raw peer counts as a client of the service, which others then cannot have for themselves."""
    await lab.start(DemoService(name="Single", max_clients=1))
    async with lab.open_raw() as peer, lab.client() as client:
        await peer.receive()
        await peer.send(b"client Ada\nlink Single\n")
        assert json.loads(await peer.receive())["result"]["max_clients"] == 1
        with pytest.raises(LinkRefused, match=r"Ada\[lab:3\]"):
            async with client.link("Single"):
                pytest.fail("it is full")


# -- threads on virtual time ---------------------------------------------------------------------------------


class Blocking(Service):
    """Methods that keep threads busy."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def work(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def wait(self) -> bool:
        return self.go_on.wait(20)


async def test_virtual_time_waits_for_threads(autojump_clock: trio.testing.MockClock) -> None:
    """A time-out around a method that keeps a thread busy does not expire while the thread works."""
    async with open_lab(Blocking()) as lab, lab.client() as client, client.link("Blocking") as blocking:
        began = trio.current_time()
        with trio.fail_after(5):
            assert await blocking.work(0.2) == 0.2
        assert trio.current_time() == began


async def test_virtual_time_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """A thread that waits for what happens at a later time gets it, and so does the test its time-out."""
    service = Blocking()
    async with open_lab(service) as lab, lab.client() as client, client.link("Blocking") as blocking:
        async with trio.open_nursery() as nursery:

            async def call(results: list[Any]) -> None:
                results.append(await blocking.wait())

            results: list[Any] = []
            nursery.start_soon(call, results)
            with trio.move_on_after(5) as scope:
                await blocking.wait()
            assert scope.cancelled_caught
            service.go_on.set()
    assert results == [True]


async def test_two_labs_share_a_clock(autojump_clock: trio.testing.MockClock) -> None:
    """Labs may be opened and left in any order: afterwards the clock jumps as it did before."""
    async with trio.open_nursery() as nursery:

        async def use(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
            async with open_lab(Blocking()) as lab, lab.client() as client:
                async with client.link("Blocking") as blocking:
                    task_status.started()
                    assert await blocking.work(seconds) == seconds

        await nursery.start(use, 0.1)
        await nursery.start(use, 0.3)
    assert autojump_clock.autojump_threshold == 0


async def test_real_time_is_left_alone() -> None:
    """Without a clock of trio's tests, nothing is made patient."""
    with threads_take_no_time(lambda: True):
        began = trio.current_time()
        await trio.sleep(0.01)
        assert 0.01 <= trio.current_time() - began < 30


async def test_a_lab_is_cancelled_everywhere(
    cancel_everywhere: Callable[..., Awaitable[int]], autojump_clock: trio.testing.MockClock
) -> None:
    """Wherever a test is cancelled that uses a lab, no task is left of it, and the clock jumps as before."""

    async def scenario() -> None:
        async with open_lab(DemoService()) as lab, lab.client() as client, client.link("Demo") as demo:
            assert await demo.sleep(1) == 1
            await lab.restart_manager(absence=1)

    async def after() -> None:
        await trio.lowlevel.checkpoint()
        assert autojump_clock.autojump_threshold == 0

    assert await cancel_everywhere(scenario, after=after) > 50
