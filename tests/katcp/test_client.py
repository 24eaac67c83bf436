"""Clients: requests, informs, mirrors, reconnection; against real devices in memory and scripted servers."""

from __future__ import annotations

import functools
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armillary import katcp
from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.katcp import Client, ClientState, PersistentClient, ProtocolError
from armillary.testing import (
    DemoDevice,
    FaultyStream,
    MemoryListener,
    RawPeer,
    ServedDevice,
    bounded_stream_pair,
    serve_in_memory,
)


@asynccontextmanager
async def scripted(flags: str = "MIB", **options: Any) -> AsyncIterator[tuple[Client, RawPeer]]:
    """A client, and the server's end in the test's hands."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.greet(flags)
    async with server.closing(), katcp.open_client_on(ours, **options) as client:
        yield client, server


class Caller:
    """Makes a request in a task of its own and keeps what comes of it."""

    def __init__(self, nursery: trio.Nursery, client: Client, *request: Any) -> None:
        self.result: Any = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        nursery.start_soon(self._run, client, request)

    async def _run(self, client: Client, request: tuple[Any, ...]) -> None:
        with self.scope:
            try:
                self.result = await client.request(*request)
            except Exception as error:
                self.result = error
        self.done.set()


async def blocked() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- requests ----------------------------------------------------------------------------------------------


async def test_request(autojump_clock: Any, client: Client) -> None:
    """A request returns what follows ok, and the informs that belong to it."""
    arguments, informs = await client.request("echo", "a b", 5, True, 1.5)
    assert [b"a b", b"5", b"1", b"1.5"] == arguments
    assert [] == informs

    arguments, informs = await client.request("sensor-value", "counter")
    assert [b"1"] == arguments
    assert [b"counter"] == [inform.arguments[2] for inform in informs]


async def test_fail_and_invalid(autojump_clock: Any, client: Client) -> None:
    """A refused request raises FailReply or InvalidReply with the server's reason."""
    with pytest.raises(katcp.FailReply, match="Unknown sensor 'x'"):
        await client.request("sensor-value", "x")
    with pytest.raises(katcp.InvalidReply, match="unknown request nonsense"):
        await client.request("nonsense")


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (b"!x[1] fail \xff\n", katcp.FailReply, "\ufffd"),
        (b"!x[1] fail\n", katcp.FailReply, ""),
        (b"!x[1]\n", katcp.InvalidReply, ""),
        (b"!x[1] carrot why\n", katcp.InvalidReply, "why"),
    ],
)
async def test_odd_refusals(autojump_clock: Any, reply: bytes, error: type[Exception], text: str) -> None:
    """Anything but ok is a refusal, and text that is no UTF-8 is readable all the same."""
    async with scripted() as (client, server), trio.open_nursery() as nursery:
        caller = Caller(nursery, client, "x")
        assert b"?x[1]\n" == await server.receive()
        await server.send(reply)
        await caller.done.wait()
    assert (error, text) == (type(caller.result), str(caller.result))


async def test_raw_request(autojump_clock: Any, client: Client) -> None:
    """request_raw brings the reply as it came, whatever it says."""
    reply, informs = await client.request_raw("nonsense")
    assert katcp.Message.reply("nonsense", b"invalid", "unknown request nonsense", mid=1) == reply
    assert [] == informs
    assert not reply.reply_ok()


async def test_bad_arguments_send_nothing(autojump_clock: Any, client: Client) -> None:
    """A bad name or an argument without type raises, and the connection goes on."""
    with pytest.raises(ValueError, match="expected a name"):
        await client.request("no name")
    with pytest.raises(TypeError, match="is not registered"):
        await client.request("echo", None)
    assert [b"x"] == (await client.request("echo", "x")).arguments


async def test_pipelining(autojump_clock: Any, client: Client) -> None:
    """A thousand requests can be on their way at once, from one task."""
    pending = [client.start_request("echo", index) for index in range(1000)]
    assert [b"%d" % index for index in range(1000)] == [
        (await request.wait()).arguments[0] for request in pending
    ]


async def test_concurrent_requests(autojump_clock: Any, client: Client) -> None:
    """Requests of many tasks run at once and each gets its own reply."""
    async with trio.open_nursery() as nursery:
        callers = [Caller(nursery, client, "sleep", 20 - index) for index in range(20)]
    assert [[b"%.1f" % (20 - index)] for index in range(20)] == [c.result.arguments for c in callers]
    assert 20 == trio.current_time()


async def test_cancelled_request(autojump_clock: Any) -> None:
    """A request that is given up is forgotten: its late informs and reply disturb nobody."""
    async with scripted() as (client, server), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await client.request("slow")
        caller = Caller(nursery, client, "quick")
        assert [b"?slow[1]\n", b"?quick[2]\n"] == [await server.receive(), await server.receive()]
        await server.send(b"#slow[1] late\n!slow[1] ok late\n!quick[2] ok\n!slow[1] ok twice\n!odd[77] ok\n")
        await caller.done.wait()
        assert katcp.Reply([], []) == caller.result


async def test_reply_in_the_turn_of_the_cancellation(autojump_clock: Any) -> None:
    """A reply that arrives as its request is cancelled disturbs nobody."""
    async with scripted() as (client, server), trio.open_nursery() as nursery:
        first, second = Caller(nursery, client, "a"), Caller(nursery, client, "b")
        await blocked()
        await server.send(b"!a[1] ok\n!b[2] ok\n")
        first.scope.cancel()
        await second.done.wait()
        assert katcp.Reply([], []) == second.result


async def test_server_without_message_ids(autojump_clock: Any) -> None:
    """A server without message ids is asked one thing at a time, and informs are matched by name."""
    async with scripted("M") as (client, server), trio.open_nursery() as nursery:
        first = Caller(nursery, client, "a", 1)
        await blocked()
        second = Caller(nursery, client, "b", 2)
        assert b"?a 1\n" == await server.receive()
        await blocked()
        await server.send(b"#a one\n#other x\n#a two\n!a ok\n")
        assert b"?b 2\n" == await server.receive()
        await server.send(b"!b ok\n")
        await first.done.wait()
        await second.done.wait()
    assert [[b"one"], [b"two"]] == [inform.arguments for inform in first.result.informs]
    assert katcp.Reply([], []) == second.result


async def test_given_up_request_without_message_ids(autojump_clock: Any) -> None:
    """Without message ids, the reply to a request that was given up is not taken for the next one's."""
    async with scripted("M") as (client, server), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await client.request("a", 1)
        second = Caller(nursery, client, "a", 2)
        await blocked()
        third = Caller(nursery, client, "a", 3)
        await blocked()
        third.scope.cancel()
        assert b"?a 1\n" == await server.receive()
        await server.send(b"!a ok first\n")
        assert b"?a 2\n" == await server.receive()
        await server.send(b"!a ok second\n")
        await second.done.wait()
        assert [b"second"] == second.result.arguments
        await client_is_idle(client, server)


async def client_is_idle(client: Client, server: RawPeer) -> None:
    assert client._connection is not None
    assert 0 == client._connection.pending


async def test_message_ids_wrap_around(autojump_clock: Any) -> None:
    """After the largest message id come the small ones again, without those that are still in use."""
    async with scripted() as (client, server), trio.open_nursery() as nursery:
        first = Caller(nursery, client, "long")
        await blocked()
        client._mids._next = 2**31 - 1
        Caller(nursery, client, "last")
        await blocked()
        Caller(nursery, client, "next")
        assert [b"?long[1]\n", b"?last[2147483647]\n", b"?next[2]\n"] == [
            await server.receive() for _ in range(3)
        ]
        await server.send(b"!long[1] ok\n!last[2147483647] ok\n!next[2] ok\n")
        await first.done.wait()


# -- sensors -----------------------------------------------------------------------------------------------


async def test_sensor_reading(autojump_clock: Any, client: Client, device: DemoDevice) -> None:
    """A sensor's reading is decoded as its type says; discrete values and strings stay bytes."""
    device.temperature.set_value(21.5, katcp.SensorStatus.WARN, 77.5)
    assert katcp.Reading(77.5, katcp.SensorStatus.WARN, 21.5) == await client.sensor_reading("temperature")
    device.status.value = katcp.DeviceStatus.DEGRADED
    assert b"degraded" == await client.sensor_value("device-status")
    assert katcp.DeviceStatus.DEGRADED is await client.sensor_value("device-status", katcp.DeviceStatus)


async def test_sensor_value_without_meaning(autojump_clock: Any, client: Client, device: DemoDevice) -> None:
    """A value whose status says that it means nothing is not returned."""
    with pytest.raises(ValueError, match="sensor counter has no value: its status is unknown"):
        await client.sensor_value("counter")
    with pytest.raises(katcp.FailReply, match="Server returned 3 sensors, but only 1 expected"):
        await client.sensor_value("/./")


# -- informs -----------------------------------------------------------------------------------------------


async def test_informs(autojump_clock: Any, client: Client, device: DemoDevice) -> None:
    """Informs of a name come out of a loop in order; those of other names do not."""
    with client.informs("news") as news:
        for index in range(3):
            device.mass_inform("news", index)
            device.mass_inform("noise", index)
        assert [[b"0"], [b"1"], [b"2"]] == [(await anext(news)).arguments for _ in range(3)]


async def test_informs_are_bounded(autojump_clock: Any, client: Client, device: DemoDevice) -> None:
    """A loop that is too slow loses the oldest informs, and can see how many."""
    with client.informs("news", bound=10) as news:
        for index in range(25):
            device.mass_inform("news", index)
        await blocked()
        assert (10, 10, 15) == (
            news.statistics().waiting,
            news.statistics().bound,
            news.statistics().dropped,
        )
        assert b"15" == (await anext(news)).arguments[0]


async def test_informs_end_with_the_connection(autojump_clock: Any) -> None:
    """A loop over informs gets what came, and ends when the connection does."""
    async with scripted() as (client, server):
        with client.informs("news") as news:
            await server.send(b"#news 1\n#news 2\n")
            await server.stream.aclose()
            assert [[b"1"], [b"2"]] == [inform.arguments async for inform in news]


async def test_typed_callbacks(autojump_clock: Any, client: Client, device: DemoDevice, caplog: Any) -> None:
    """Callbacks get decoded arguments; one that fails, or whose inform is odd, is logged and harms nobody."""
    got: list[Any] = []

    def typed(index: int, name: str = "nobody", *rest: float) -> None:
        got.append((index, name, rest))
        if index == 2:
            raise RuntimeError("two is too much")

    client.add_inform_callback("news", typed)
    client.add_inform_callback("news", got.append)
    device.mass_inform("news", 1, "x", 2.5)
    device.mass_inform("news", 2)
    device.mass_inform("news", "three")
    await blocked()
    client.remove_inform_callback("news", typed)
    client.remove_inform_callback("news", typed)
    device.mass_inform("news", 4)
    await blocked()

    assert [(1, "x", (2.5,)), (2, "nobody", ()), b"2", b"three", b"4"] == got
    assert [logging.WARNING, logging.ERROR, logging.WARNING] == [record.levelno for record in caplog.records]


# -- connecting and losing connections ---------------------------------------------------------------------


async def test_nobody_listens(autojump_clock: Any) -> None:
    """Connecting to where nobody listens fails with the reason as its cause."""
    with pytest.raises(ConnectFailed, match=r"could not connect to 127\.0\.0\.1:1: ") as caught:
        async with katcp.open_client("127.0.0.1", 1):
            raise AssertionError("connected to nobody")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("greeting", "error", "text"),
    [
        (b"#version-connect katcp-protocol 4.0-MI\n", ProtocolError, "Unknown protocol version 4.0"),
        (b"#version-connect katcp-protocol carrot\n", ProtocolError, "Unparsable katcp-protocol 'carrot'"),
        (b"#version-connect katcp-protocol\n", ProtocolError, "Unparsable katcp-protocol ''"),
        (b"#disconnect busy\n", ConnectFailed, "the server disconnected: busy"),
        (b"", ConnectFailed, "the server closed the connection"),
    ],
)
async def test_bad_greeting(autojump_clock: Any, greeting: bytes, error: type[Exception], text: str) -> None:
    """A server that speaks another protocol, or goes before it has said its own, is not connected to."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.send(greeting)
    await theirs.send_eof()
    with pytest.raises(error, match=text):
        async with katcp.open_client_on(ours):
            raise AssertionError("connected")
    assert b"" == await server.receive()


async def test_silent_server(autojump_clock: Any) -> None:
    """A server that never greets is given up after connect_timeout."""
    ours, theirs = bounded_stream_pair()
    with pytest.raises(ConnectFailed, match=r"no #version-connect in 3 s"):
        async with katcp.open_client_on(ours, connect_timeout=3):
            raise AssertionError("connected")
    assert 3 == trio.current_time()
    await theirs.aclose()


@pytest.mark.parametrize("way", ["eof", "disconnect", "reset"])
async def test_lost_connection_fails_pending_requests(autojump_clock: Any, way: str) -> None:
    """However a connection ends, pending requests fail at once, and the next one fails before it is sent."""
    ours, theirs = bounded_stream_pair()
    faulty = FaultyStream(ours)
    server = RawPeer(theirs)
    await server.greet()
    async with katcp.open_client_on(faulty) as client, trio.open_nursery() as nursery:
        caller = Caller(nursery, client, "x")
        await server.receive()
        if way == "eof":
            await theirs.aclose()
        elif way == "disconnect":
            await server.send(b"#disconnect bye\n")
        else:
            await faulty.cut()
        with trio.fail_after(1):
            await caller.done.wait()
        assert isinstance(caller.result, ConnectionClosed)
        assert isinstance(caller.result, ConnectionError)
        assert caller.result.may_have_been_received
        assert "it may have been received" in str(caller.result)
        assert not client.is_connected
        with pytest.raises(ConnectionClosed, match="not connected") as caught:
            await client.request("y")
        assert not caught.value.may_have_been_received
    await theirs.aclose()


async def test_request_that_was_not_sent(autojump_clock: Any) -> None:
    """A request of which not a byte has left says so when the connection is lost; one in doubt does not."""
    ours, theirs = bounded_stream_pair()
    faulty = FaultyStream(ours)
    await RawPeer(theirs).greet()
    async with katcp.open_client_on(faulty) as client, trio.open_nursery() as nursery:
        faulty.sends_nothing = True
        in_doubt = Caller(nursery, client, "x")
        await blocked()
        unsent = Caller(nursery, client, "y")
        await blocked()
        await theirs.aclose()
        await in_doubt.done.wait()
        await unsent.done.wait()
    assert in_doubt.result.may_have_been_received
    assert not unsent.result.may_have_been_received
    assert "it was not sent" in str(unsent.result)


async def test_request_behind_a_message_id_less_one_was_not_sent(autojump_clock: Any) -> None:
    """A request that waits for its turn at a server without message ids was not sent."""
    async with scripted("M") as (client, server), trio.open_nursery() as nursery:
        first = Caller(nursery, client, "a")
        await server.receive()
        second = Caller(nursery, client, "b")
        await blocked()
        await server.stream.aclose()
        await first.done.wait()
        await second.done.wait()
    assert (True, False) == (first.result.may_have_been_received, second.result.may_have_been_received)


async def test_garbage_from_the_server(autojump_clock: Any, caplog: Any) -> None:
    """Garbage from a server is logged once, counted, never answered, and the connection goes on."""
    async with scripted() as (client, server), trio.open_nursery() as nursery:
        await server.send(b"garbage\n?watchdog[5]\n#bad\\escape\n\xff\xfe\n!x[0] ok\n")
        caller = Caller(nursery, client, "x")
        # Nothing came before it: garbage and requests are not answered.
        assert b"?x[1]\n" == await server.receive()
        await server.send(b"!x[1] ok\n")
        await caller.done.wait()
        assert katcp.Reply([], []) == caller.result
        statistics = client.statistics()
        assert statistics is not None
        assert (0, 0, 4) == (statistics.pending, statistics.unexpected, statistics.malformed)
        assert len(b"?x[1]\n") == statistics.outbox.bytes_sent
    assert 1 == sum("Malformed message" in record.getMessage() for record in caplog.records)


async def test_body_exception_comes_out_as_it_is(autojump_clock: Any, served_device: ServedDevice) -> None:
    """What the block raises comes out of it unwrapped."""
    with pytest.raises(KeyError, match="mine"):
        async with served_device.open_client():
            raise KeyError("mine")


async def test_leaving_the_block_sends_what_is_on_its_way(autojump_clock: Any) -> None:
    """A request that was started is sent even if the block is left at once."""
    ours, theirs = bounded_stream_pair(bound=10)
    server = RawPeer(theirs)
    async with server.closing(), trio.open_nursery() as nursery:
        nursery.start_soon(server.greet)
        async with katcp.open_client_on(ours) as client:
            client.start_request("farewell", "x" * 100)
            nursery.start_soon(expect, server, b"?farewell[1] " + b"x" * 100 + b"\n")


async def expect(server: RawPeer, line: bytes) -> None:
    assert line == await server.receive()


async def test_keep_alive(autojump_clock: Any) -> None:
    """A quiet server is asked ?watchdog, one that talks is not, and one that stays quiet is lost."""
    async with scripted(keep_alive=10.0) as (client, server), trio.open_nursery() as nursery:
        await trio.sleep(8)
        await server.send(b"#news\n")
        start = trio.current_time()
        assert b"?watchdog[1]\n" == await server.receive()
        assert 10 == trio.current_time() - start
        await server.send(b"!watchdog[1] ok\n")
        caller = Caller(nursery, client, "x")
        assert b"?x[2]\n" == await server.receive()
        assert b"?watchdog[3]\n" == await server.receive()
        with trio.fail_after(11):
            await caller.done.wait()
        assert "the server said nothing for 20 s" in str(caller.result)
        assert not client.is_connected


async def test_slow_server_holds_back_requests(autojump_clock: Any) -> None:
    """request() waits while a server that does not read is far behind."""
    async with scripted() as (client, _):
        sent = 0
        with trio.move_on_after(10):
            while True:
                pending = client.start_request("x", b"x" * 100_000)
                pending.abandon()
                sent += 1
                with trio.move_on_after(1) as scope:
                    await client._wait_room()
                if scope.cancelled_caught:
                    break
        assert 11 <= sent <= 13


async def test_cancelled_anywhere(autojump_clock: Any, cancel_everywhere: Callable[..., Any]) -> None:
    """Wherever a client's life is cancelled, nothing of it is left, here or at the server."""

    async def scenario() -> None:
        device = DemoDevice()
        async with serve_in_memory(device) as served:
            try:
                async with served.open_client(keep_alive=1.0) as client:
                    async with client.mirror_sensors() as sensors:
                        await sensors.wait_synced()
                        await client.request("echo", 1)
                        await client.request("sleep", 3)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                    assert device.temperature._observers is None

    await cancel_everywhere(scenario)


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_from_a_server(data: bytes, piece: int) -> None:
    """Whatever bytes a server sends, in whatever pieces, a client neither hangs nor raises."""

    async def main() -> None:
        ours, theirs = bounded_stream_pair()
        faulty = FaultyStream(ours)
        server = RawPeer(theirs)
        await server.greet()
        async with server.closing(), katcp.open_client_on(faulty) as client:
            faulty.piece = piece
            pending = client.start_request("x")
            await server.send(data + b"\n#disconnect\n")
            with trio.fail_after(5):
                try:
                    await pending.wait()
                except (ConnectionClosed, katcp.FailReply, katcp.InvalidReply):
                    pass

    logging.disable(logging.CRITICAL)
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.disable(logging.NOTSET)


# -- reconnection ------------------------------------------------------------------------------------------


async def test_states(autojump_clock: Any, served_device: ServedDevice) -> None:
    """States come in order, from the first attempt to the end of the block."""
    seen: list[str] = []

    async with trio.open_nursery() as nursery:
        async with served_device.open_persistent_client() as client:

            async def watch(task_status: Any) -> None:
                with client.states() as states:
                    task_status.started()
                    async for state in states:
                        seen.append(state.name)

            await nursery.start(watch)
            await client.wait_connected()
            served_device.device.restart()
            await client.wait_disconnected()
            await client.wait_connected()

    assert [
        "CONNECTING NEGOTIATING CONNECTED",
        "DISCONNECTING SLEEPING",
        "CONNECTING NEGOTIATING CONNECTED",
        "DISCONNECTING CLOSED",
    ] == [" ".join(seen[a:b]) for a, b in [(0, 3), (3, 5), (5, 8), (8, 10)]]
    assert 2 == client.connections


async def test_backoff(autojump_clock: Any) -> None:
    """Attempts are spaced by the back-off, which starts over after a success."""
    attempts: list[float] = []
    listener = MemoryListener()
    refuse = True

    async def dial() -> trio.abc.Stream:
        attempts.append(trio.current_time())
        if refuse:
            raise ConnectFailed("not yet")
        return await listener.connect()

    async with trio.open_nursery() as nursery:
        device = DemoDevice()
        await nursery.start(katcp.serve_device_on, device, [listener])
        async with katcp.open_persistent_client("x", None, dial=dial, backoff=Backoff(max)) as client:
            await trio.sleep(500)
            refuse = False
            await client.wait_connected()
            assert client.last_error is None
            refuse = True
            device.halt()
            await client.wait_disconnected()
            await trio.sleep(10)
            assert isinstance(client.last_error, ConnectFailed)

    gaps = [round(b - a, 3) for a, b in itertools.pairwise(attempts)]
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60] == gaps[:14]
    assert [1, 2, 4] == gaps[-3:]


async def test_persistent_request_without_connection(autojump_clock: Any) -> None:
    """A request without connection fails at once, and one that was under way is not repeated."""
    listener = MemoryListener()
    async with katcp.open_persistent_client("x", None, dial=listener.connect, backoff=Backoff(max)) as client:
        with pytest.raises(ConnectionClosed, match="not connected"):
            await client.request("x")
        server = RawPeer(await listener.accept())
        await server.greet()
        await client.wait_connected()
        async with trio.open_nursery() as nursery:
            caller = Caller(nursery, client, "x")
            assert b"?x[1]\n" == await server.receive()
            await server.stream.aclose()
        assert isinstance(caller.result, ConnectionClosed)
        again = RawPeer(await listener.accept())
        await again.greet()
        await client.wait_connected()
        async with trio.open_nursery() as nursery:
            Caller(nursery, client, "y")
            # Message ids go on: a late reply of the old connection can match nothing.
            assert b"?y[2]\n" == await again.receive()
            await again.stream.aclose()


async def test_informs_go_on_after_reconnection(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Loops over informs and callbacks last longer than connections."""
    got: list[bytes] = []
    async with served_device.open_persistent_client() as client:
        client.add_inform_callback("news", got.append)
        with client.informs("news") as news:
            for index in range(3):
                await client.wait_connected()
                await blocked()
                served_device.device.mass_inform("news", index)
                assert [b"%d" % index] == (await anext(news)).arguments
                served_device.device.restart()
                await client.wait_disconnected()
    assert [b"0", b"1", b"2"] == got


async def test_bad_protocol_is_tried_again(autojump_clock: Any) -> None:
    """A server that speaks another protocol is left, remembered as the last error, and tried again."""
    listener = MemoryListener()
    async with katcp.open_persistent_client("x", None, dial=listener.connect, backoff=Backoff(max)) as client:
        old = RawPeer(await listener.accept())
        await old.send(b"#version-connect katcp-protocol 4.0-M\n")
        assert b"" == await old.receive()
        assert ClientState.SLEEPING is await client.wait_state(ClientState.SLEEPING)
        assert isinstance(client.last_error, ProtocolError)
        new = RawPeer(await listener.accept())
        await new.greet()
        await client.wait_connected()


ACTIONS = st.lists(
    st.sampled_from(
        ["accept", "greet", "greet badly", "disconnect", "eof", "reset", "request", "reply", "refuse", "wait"]
    ),
    max_size=25,
)


@given(ACTIONS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_client_invariants(actions: list[str], leave_by_error: bool) -> None:
    """Whatever a server does, in whatever order, the invariants of the client's states hold."""
    trio.run(_drive, actions, leave_by_error, clock=trio.testing.MockClock(autojump_threshold=0))


async def _drive(actions: list[str], leave_by_error: bool) -> None:
    from armillary.katcp.protocol.lifecycle import TRANSITIONS

    allowed = {(before, after) for (before, _), after in TRANSITIONS.items()}
    allowed.add((ClientState.DISCONNECTING, ClientState.CLOSED))
    allowed |= {(s, ClientState.CLOSED) for s in (ClientState.NEGOTIATING, ClientState.CONNECTED)}
    seen = [ClientState.CONNECTING]
    streams: list[FaultyStream] = []
    servers: list[RawPeer] = []
    waiting: list[Caller] = []
    refuse = False

    async def dial() -> trio.abc.Stream:
        assert all(stream._is_closed for stream in streams), "a second connection beside the first"
        await trio.sleep(0.01)
        if refuse:
            raise ConnectFailed("refused")
        ours, theirs = bounded_stream_pair()
        streams.append(_Tracked(ours))
        servers.append(RawPeer(theirs))
        return streams[-1]

    def check(client: PersistentClient) -> None:
        assert client.is_connected == (client.state is ClientState.CONNECTED)
        if client.state is ClientState.CONNECTED:
            assert client.last_error is None
        if client.state in (ClientState.SLEEPING, ClientState.CLOSED):
            assert client.last_error is not None

    async def do(client: PersistentClient, nursery: trio.Nursery, action: str) -> None:
        nonlocal refuse
        server = servers[-1] if servers else None
        if action == "refuse":
            refuse = not refuse
        elif action == "wait":
            await trio.sleep(random.Random(len(seen)).choice([0.1, 1, 100]))
        elif action == "request":
            waiting.append(Caller(nursery, client, "x"))
        elif server is not None:
            try:
                await {
                    "accept": trio.lowlevel.checkpoint,
                    "greet": server.greet,
                    "greet badly": functools.partial(server.send, b"#version-connect katcp-protocol 9.9\n"),
                    "disconnect": functools.partial(server.send, b"#disconnect bye\n"),
                    "reply": functools.partial(server.send, b"!x[1] ok\n!x[2] ok\n"),
                    "eof": server.stream.aclose,
                    "reset": streams[-1].cut,
                }[action]()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await blocked()

    logging.disable(logging.CRITICAL)
    try:
        async with trio.open_nursery() as nursery:
            try:
                async with katcp.open_persistent_client(
                    "x", None, dial=dial, backoff=Backoff(max), connect_timeout=5
                ) as client:
                    client.add_state_callback(seen.append)
                    for action in actions:
                        await do(client, nursery, action)
                        check(client)
                    if leave_by_error:
                        raise KeyError("body")
            except KeyError:
                assert leave_by_error
            check(client)
        assert ClientState.CLOSED is client.state
        assert set(itertools.pairwise(seen)) <= allowed
        assert all(stream._is_closed for stream in streams)
        assert all(caller.done.is_set() for caller in waiting)
    finally:
        logging.disable(logging.NOTSET)


class _Tracked(FaultyStream):
    """Remembers whether it was closed."""

    _is_closed = False

    async def aclose(self) -> None:
        self._is_closed = True
        await super().aclose()

    async def cut(self) -> None:
        await super().cut()
