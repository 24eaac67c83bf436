"""The façade's server with clients of aiokatcp, and aiokatcp's server with clients of the façade."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from speaking import Peer, Picture, open_peer, open_peer_server

pytestmark = pytest.mark.interop

SERVER = "aiokatcp_server.py"
CLIENT = "aiokatcp_client.py"

# Each test runs on one of the loops, but for those that are most likely to depend on it.
BOTH_WAYS = pytest.mark.parametrize(
    ("server_on", "client_on"), [("facade", "aiokatcp"), ("aiokatcp", "facade")]
)
BOTH_WAYS_ON_UVLOOP = pytest.mark.parametrize(
    ("server_on", "client_on"), [("facade-uvloop", "aiokatcp"), ("aiokatcp", "facade-uvloop")]
)
BOTH_WAYS_ON_BOTH_LOOPS = pytest.mark.parametrize(
    ("server_on", "client_on"),
    [
        ("facade", "aiokatcp"),
        ("facade-uvloop", "aiokatcp"),
        ("aiokatcp", "facade"),
        ("aiokatcp", "facade-uvloop"),
    ],
)


@asynccontextmanager
async def both(server_on: str, client_on: str, sensors: int = 0) -> AsyncIterator[tuple[Peer, Peer]]:
    """A server and a client of it, for a block that must not take long."""
    with trio.fail_after(30):
        async with (
            open_peer_server(server_on, SERVER, sensors, "wide") as (server, port),
            open_peer(client_on, CLIENT, port) as client,
        ):
            await client.wait_event("connected")
            yield server, client


async def check_in_step(server: Peer, client: Peer) -> Picture:
    """The client's mirror becomes what the server says of itself, which is returned."""
    expected: Picture = await server.ask("picture")
    assert await client.ask("mirror_becomes", expected) == expected
    return expected


# -- much at once --------------------------------------------------------------------------------------------


@BOTH_WAYS_ON_BOTH_LOOPS
async def test_much_at_once(server_on: str, client_on: str) -> None:
    """Ten megabytes come back; each of two thousand requests gets its own answer, and its own informs."""
    async with both(server_on, client_on) as (_, client):
        assert await client.ask("echo_large", 10 * 1024**2) is True
        assert await client.ask("pipeline", 2000) is True
        assert await client.ask("recite_together", 100) is True
        assert await client.ask("meet", 50) is True


@BOTH_WAYS_ON_UVLOOP
async def test_slow_requests_hold_nobody_up(server_on: str, client_on: str) -> None:
    """With as many requests underway as may be, they end in the order of their durations."""
    seconds = [round(0.01 * number, 2) for number in range(60, 0, -3)]
    async with both(server_on, client_on) as (server, client):
        for number in range(75):
            await client.ask("begin", str(number), "wait")
            await server.wait_event("waiting")
        assert await client.ask("overlap", *seconds) == sorted(seconds)
        await server.ask("go_on")
        for number in range(75):
            assert await client.ask("end", str(number)) == ["ok", ["went on"], []]


@BOTH_WAYS
async def test_informs_to_all_come_in_their_order(server_on: str, client_on: str) -> None:
    """A thousand informs to all clients, ten megabytes in all, reach a client in their order."""
    async with both(server_on, client_on) as (server, client):
        await client.ask("count", "flood")
        await server.ask("flood", 1000, 10_000)
        assert await client.ask("counted_up_to", 1000) is True


@BOTH_WAYS
async def test_logs_come_from_threads(server_on: str, client_on: str) -> None:
    """A log record of another thread than the loop's is a log inform."""
    async with both(server_on, client_on) as (server, client):
        await client.ask("listen", "log")
        await server.ask("log_in_thread", 40, "far away")
        level, _, name, text = await client.wait_event("log")
        assert (level, name, text[-8:]) == ("error", "parity", "far away")


@BOTH_WAYS_ON_UVLOOP
async def test_sensors_are_sampled_by_the_clock(server_on: str, client_on: str) -> None:
    """A periodic strategy brings readings of a sensor that does not change, until it is ended."""
    async with both(server_on, client_on) as (_, client):
        await client.ask("listen", "sensor-status")
        await client.ask("request", "sensor-sampling", "since", "period", "0.05")
        start = trio.current_time()
        for _ in range(11):  # the first comes at once
            assert (await client.wait_event("sensor-status"))[1:] == ["1", "since", "unknown", "0.0"]
        assert 0.45 < trio.current_time() - start < 5
        await client.ask("request", "sensor-sampling", "since", "none")
        client.take_events()
        await client.ask("request", "sleep", "0.2")
        assert client.take_events() == []


# -- mirrors -------------------------------------------------------------------------------------------------


@BOTH_WAYS_ON_UVLOOP
async def test_five_thousand_sensors_are_mirrored(server_on: str, client_on: str) -> None:
    """A watcher of five thousand sensors gets one update of each, and follows another of each."""
    async with both(server_on, client_on, 5000) as (server, client):
        await client.ask("watch")
        assert len(await check_in_step(server, client)) == 5014
        assert await client.ask("updates") == 5014
        await server.ask("set_all", "many.", -1.0)
        await check_in_step(server, client)


TYPES = ["integer", "float", "boolean", "timestamp", "address", "string", "bytes", "mode", "colour"]
STATUSES = ["UNKNOWN", "NOMINAL", "WARN", "ERROR", "FAILURE", "UNREACHABLE", "INACTIVE"]


@BOTH_WAYS
async def test_a_mirror_stays_in_step_with_whatever_happens(server_on: str, client_on: str) -> None:
    """Sensors that come, go, change their type and are read, in any order, are mirrored as they are."""
    chance = random.Random(7147)
    async with both(server_on, client_on, 20) as (server, client):
        await client.ask("watch")
        await check_in_step(server, client)
        for step in range(20):
            names = list(await server.ask("picture"))
            for _ in range(chance.randrange(1, 5)):
                name = chance.choice(names)
                match chance.randrange(4):
                    case 0 if name != "total":
                        await server.ask("remove", name)
                        names.remove(name)
                    case 1:
                        # A description that no sensor had: aiokatcp misses what is replaced by its like.
                        await server.ask("add", name, chance.choice(TYPES), f"since {step}")
                    case 2:
                        await server.ask("add", f"new.{step}", chance.choice(TYPES))
                    case _:
                        await server.ask("set", name, None, chance.choice(STATUSES), float(step))
            await server.ask("inform", "interface-changed", "sensor-list")
            if chance.random() < 0.5:
                await check_in_step(server, client)
        await check_in_step(server, client)


async def test_a_sensor_replaced_by_its_like_is_followed() -> None:
    """The façade's watcher subscribes a sensor again that was replaced by its like. aiokatcp's does not."""
    async with both("aiokatcp", "facade") as (server, client):
        await client.ask("watch")
        await check_in_step(server, client)
        await server.ask("remove", "label")
        await server.ask("add", "label", "string", "A name for people")
        await server.ask("inform", "interface-changed", "sensor", "label", "modified")
        await server.ask("set", "label", "new")
        await check_in_step(server, client)


async def unsent(server: Peer) -> int:
    """How often the server has logged that it could not send something, which is all that it logged."""
    await server.ask("is_listening")
    texts = [facts[2] for event, facts in server.take_events() if event == "record"]
    assert all(text.startswith("Connection closed before message could be sent") for text in texts)
    return len(texts)


# -- ends that go away ---------------------------------------------------------------------------------------


@BOTH_WAYS_ON_UVLOOP
async def test_a_server_that_stops_and_starts_is_found_again(server_on: str, client_on: str) -> None:
    """While the server is stopped, mirrored sensors are unreachable; then the mirror is in step again."""
    async with both(server_on, client_on) as (server, client):
        await client.ask("watch")
        before = await check_in_step(server, client)
        await server.ask("stop")
        await client.wait_event("disconnected")
        assert {reading[4] for reading in (await client.ask("mirror")).values()} == {"UNREACHABLE"}
        await server.ask("remove", "label")
        await server.ask("add", "serial", "boolean")
        await server.ask("start")
        await client.wait_event("connected")
        assert (await check_in_step(server, client)).keys() == before.keys() - {"label"}


@BOTH_WAYS
async def test_a_server_that_is_killed_is_found_again(server_on: str, client_on: str) -> None:
    """A request underway is lost with the server; the client finds the next one, and mirrors it."""
    with trio.fail_after(30):
        async with open_peer_server(server_on, SERVER, 0, "wide") as (killed, port):
            async with open_peer(client_on, CLIENT, port) as client:
                await client.ask("watch")
                await check_in_step(killed, client)
                await client.ask("begin", "lost", "wait")
                await killed.wait_event("waiting")
                killed.kill()
                await client.wait_event("disconnected")
                lost = await client.ask("end", "lost")
                assert lost == ["ConnectionResetError", "Connection reset by peer"]
                assert {reading[4] for reading in (await client.ask("mirror")).values()} == {"UNREACHABLE"}
                async with open_peer_server(server_on, SERVER, 3, port=port) as (other, _):
                    await client.wait_event("connected")
                    await check_in_step(other, client)
                    await other.ask("set", "label", "after")
                    await check_in_step(other, client)


@BOTH_WAYS
async def test_a_server_that_stands_still_is_waited_for(server_on: str, client_on: str) -> None:
    """Requests to a server that stands still are answered when it goes on, but for one that was cancelled."""
    async with both(server_on, client_on) as (server, client):
        await client.ask("watch")
        await check_in_step(server, client)
        server.suspend()
        await client.ask("begin", "given up", "echo", "1")
        await client.ask("begin", "patient", "echo", "2")
        assert await client.ask("give_up", "given up") is True
        server.resume()
        assert await client.ask("end", "patient") == ["ok", ["2"], []]
        await server.ask("set", "label", "again")
        await check_in_step(server, client)
        assert client.take_events() == [["state", ["SYNCING"]], ["state", ["SYNCED"]]]


@BOTH_WAYS_ON_UVLOOP
async def test_a_client_that_is_killed_is_forgotten(server_on: str, client_on: str) -> None:
    """A client that was killed is listed no more; the server serves the others, and its next clients."""
    async with both(server_on, "aiokatcp") as (server, observer):
        async with open_peer(client_on, CLIENT, await server.ask("port")) as killed:
            await killed.ask("watch")
            await check_in_step(server, killed)
            await killed.ask("begin", "lost", "wait")
            await server.wait_event("waiting")
            killed.kill()
        while (await observer.ask("request", "client-list"))[1] != ["1"]:
            # The façade finds out when it sends, because its request might still be waited for.
            await server.ask("inform", "anybody-there")
        await server.ask("go_on")
        assert await observer.ask("meet", 3) is True
        assert await unsent(server) == 1


@BOTH_WAYS_ON_UVLOOP
async def test_a_client_that_stands_still_is_given_up(server_on: str, client_on: str) -> None:
    """A client that does not read is disconnected, the others are not; it comes back when it goes on."""
    async with both(server_on, client_on) as (server, still):
        async with open_peer("aiokatcp", CLIENT, await server.ask("port")) as observer:
            await still.ask("watch")
            await check_in_step(server, still)
            await server.ask("bound", 8 * 1024**2)
            still.suspend()
            records = []
            for _ in range(50):
                await server.ask("flood", 1, 1024**2)
                await observer.ask("request", "watchdog")
                records = [event for event in server.take_events() if event[0] == "record"]
                if records:
                    break
            ((_, (logger, level, text, _)),) = records
            assert (logger, level) == ("aiokatcp.connection", "WARNING")
            assert text.startswith("Disconnecting client because it is too slow")
            assert (await observer.ask("request", "client-list"))[1] == ["1"]
            await server.ask("set", "label", "missed")
            still.resume()
            await still.wait_event("disconnected")
            await still.wait_event("connected")
            await check_in_step(server, still)


@pytest.mark.parametrize("server_on", ["facade", "facade-uvloop"])
async def test_a_server_stops_though_a_client_stands_still(server_on: str) -> None:
    """The façade's server stops soon though a client does not read. aiokatcp's would wait for it."""
    async with both(server_on, "aiokatcp") as (server, client):
        client.suspend()
        await server.ask("flood", 20, 1024**2)
        with trio.fail_after(5):
            await server.ask("stop")
        assert await server.ask("start") == []
        client.resume()
        await client.wait_event("disconnected")
        await client.wait_event("connected")


@BOTH_WAYS
async def test_a_client_is_closed_with_requests_underway(server_on: str, client_on: str) -> None:
    """They raise for the client at once. At the server they go on; aiokatcp's says once that it lost them."""
    async with both(server_on, client_on) as (server, client):
        for key in ("one", "two"):
            await client.ask("begin", key, "wait")
            await server.wait_event("waiting")
        await client.ask("close")
        closed = ["ConnectionAbortedError", "Software caused connection abort"]
        assert [await client.ask("end", key) for key in ("one", "two")] == [closed, closed]
        assert [event for event, _ in client.take_events()] == ["disconnected"]
        await server.ask("go_on")
        # To the façade's server, a client that sends no more may still read.
        assert await unsent(server) == (1 if server_on == "aiokatcp" else 0)
