"""The life of a server and of its sessions: limits, faults, draining, halting, restarting."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from armillary import katcp
from armillary.katcp import RequestContext, Sensor
from armillary.katcp.protocol.messages import DEFAULT_LIMIT
from armillary.testing import DemoDevice, FaultyStream, MemoryListener, RawPeer, ServedDevice, serve_in_memory


class Recorder(DemoDevice):
    """Records what happens to its handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.restarts = 0

    async def on_restart(self) -> None:
        await trio.sleep(1)
        self.restarts += 1

    async def request_hold(self, ctx: RequestContext, name: str, seconds: float = float("inf")) -> None:
        """Hold on for a while."""
        self.events.append(f"{name} began")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.events.append(f"{name} cancelled")
            raise
        self.events.append(f"{name} ended")

    async def request_flood(self, ctx: RequestContext, count: int, size: int) -> None:
        """Send many informs without looking whether they are read."""
        for _ in range(count):
            ctx.inform(b"x" * size)
            await trio.lowlevel.checkpoint()


@pytest.fixture
def device() -> Recorder:
    return Recorder()


def messages(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (b"hello\n", b'"Invalid character" at character 1'),
        (b"?\n", b'"Invalid character" at character 2'),
        (b"?bad\\escape x\n", b'"Invalid character" at character 5'),
        (b"?echo bad\\q\n", b'"Invalid character" at character 11'),
        (b"?echo trailing\\\n", b'"Invalid character" at character 16'),
        (b"?echo[0] x\n", b'"Invalid character" at character 7'),
        (b"?echo[99999999999] x\n", b'"Message ID overflowed" at character'),
        (b"?echo[1 x\n", b'"Invalid character" at character 8'),
        (b"?echo \x1b\n", b'"Invalid character" at character 7'),
        (b"\xff\xfe\x00\x01\n", b'"Invalid character" at character 1'),
    ],
)
@pytest.mark.parametrize("by_byte", [False, True], ids=["whole", "byte by byte"])
async def test_malformed_line(
    autojump_clock: Any,
    served_device: ServedDevice,
    caplog: Any,
    garbage: bytes,
    complaint: bytes,
    by_byte: bool,
) -> None:
    """A line that is no message is answered by one log inform; what comes after it is answered as ever."""
    async with served_device.open_raw() as peer:
        pieces = [garbage[i : i + 1] for i in range(len(garbage))] if by_byte else [garbage]
        for piece in pieces:
            await peer.send(piece)
        await peer.send(b"?echo after\n")
        log, reply = [await peer.receive_message(), await peer.receive()]

    assert ("log", b"error") == (log.name, log.arguments[0])
    # Where an id overflows depends on how its digits arrive.
    assert log.arguments[3].startswith(complaint)
    assert b"!echo ok after\n" == reply
    assert 1 == sum("Malformed message" in text for text in messages(caplog))


async def test_empty_lines_and_carriage_returns(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Empty lines are nothing, and a carriage return ends a line as a line feed does."""
    async with served_device.open_raw() as peer:
        await peer.send(b"\r\n\n  \t \r\r?echo[1] a\r\n?echo[2]\tb \t\r?echo[3] c\n")
        assert [b"!echo[1] ok a\n", b"!echo[2] ok b\n", b"!echo[3] ok c\n"] == [
            await peer.receive() for _ in range(3)
        ]


async def test_over_long_line(autojump_clock: Any, device: Recorder) -> None:
    """A line over the limit is refused once, when it ends, and never held in memory."""
    async with serve_in_memory(device, limit=100) as served, served.open_raw() as peer:
        for _ in range(100):
            await peer.send(b"?echo " + b"x" * 10000)
        await peer.send(b"\n?echo " + b"y" * 93 + b"\n?echo " + b"z" * 94 + b"\n?watchdog\n")
        log, reply, second_log, last = [await peer.receive_message() for _ in range(4)]

    assert b'"Line too long" at character 101' == log.arguments[3]
    assert [b"ok", b"y" * 93] == reply.arguments
    assert b'"Line too long" at character 101' == second_log.arguments[3]
    assert katcp.Message.reply("watchdog", b"ok") == last


async def test_never_ending_line(autojump_clock: Any, device: Recorder) -> None:
    """A line that never ends costs no more memory than the limit, and disturbs nobody else."""
    async with serve_in_memory(device, limit=1000) as served, served.open_raw() as peer:
        for _ in range(50):
            await peer.send(b"x" * 100_000)
        (session,) = device.sessions
        assert session._parser.buffer_size <= 1000
        async with served.open_raw() as other:
            await other.send(b"?watchdog\n")
            assert b"!watchdog ok\n" == await other.receive()


async def test_thousands_of_arguments(autojump_clock: Any, served_device: ServedDevice) -> None:
    """A request with ten thousand arguments is a request like any other."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?echo" + b" a" * 10_000 + b"\n?watchdog" + b" b" * 10_000 + b"\n")
        assert b"!echo ok" + b" a" * 10_000 + b"\n" == await peer.receive()
        assert b"!watchdog fail too\\_many\\_arguments\\_for\\_watchdog\n" == await peer.receive()


async def test_replies_and_informs_from_clients(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Replies and informs that a client sends are ignored."""
    async with served_device.open_raw() as peer:
        await peer.send(b"!watchdog ok\n#log x\n!echo[5] ok\n?echo me\n")
        assert b"!echo ok me\n" == await peer.receive()


async def test_bad_utf8(autojump_clock: Any, served_device: ServedDevice) -> None:
    """A name that is not UTF-8 fails with a reason."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?sensor-value \xff\n")
        reply = await peer.receive_message()
    assert b"fail" == reply.arguments[0]
    assert b"argument 1 (name): 'utf-8' codec can't decode byte 0xff" in reply.arguments[1]


# -- limits ------------------------------------------------------------------------------------------------


async def test_pending_limit_of_a_client(autojump_clock: Any, device: Recorder) -> None:
    """A client at its limit waits; the next request starts the moment one has finished."""
    async with serve_in_memory(device, max_pending_per_client=3) as served, served.open_raw() as peer:
        await peer.send(b"?hold[1] a 10\n?hold[2] b 20\n?hold[3] c 30\n?hold[4] d 40\n")
        await peer.send(b"?watchdog[5]\n")
        await trio.sleep(5)
        assert ["a began", "b began", "c began"] == device.events
        start = trio.current_time()
        ends = [(await peer.receive(), round(trio.current_time() - start)) for _ in range(5)]

    assert [
        (b"!hold[1] ok\n", 5),
        (b"!watchdog[5] ok\n", 5),
        (b"!hold[2] ok\n", 15),
        (b"!hold[3] ok\n", 25),
        (b"!hold[4] ok\n", 45),
    ] == ends


async def test_one_client_does_not_starve_another(autojump_clock: Any, device: Recorder) -> None:
    """A client whose requests are all slow keeps nobody else from having theirs answered."""
    async with serve_in_memory(device, max_pending=8) as served:
        async with served.open_raw() as greedy, served.open_raw() as modest:
            await greedy.send(b"".join(b"?hold[%d] g\n" % (n + 1) for n in range(1000)))
            await trio.testing.wait_all_tasks_blocked()
            await modest.send(b"?hold[1] m 1\n?watchdog[2]\n")
            with trio.fail_after(2):
                assert b"!watchdog[2] ok\n" == await modest.receive()
                assert b"!hold[1] ok\n" == await modest.receive()


async def test_pending_limit_of_the_server(autojump_clock: Any, device: Recorder) -> None:
    """At the server's limit clients wait their turn, in order, and ?watchdog is answered still."""
    async with serve_in_memory(device, max_pending=2, max_pending_per_client=2) as served:
        async with served.open_raw() as first, served.open_raw() as second, served.open_raw() as third:
            await first.send(b"?hold[1] a 10\n?hold[2] b 22\n")
            await trio.testing.wait_all_tasks_blocked()
            await second.send(b"?watchdog\n?hold[1] c 5\n")
            await trio.testing.wait_all_tasks_blocked()
            await third.send(b"?hold[1] d 5\n?watchdog[2]\n")
            assert b"!watchdog ok\n" == (await second.receive_until(b"!"))[-1]
            await trio.sleep(40)

    began_and_ended = ["a began", "b began", "a ended", "c began", "c ended", "d began", "d ended", "b ended"]
    assert began_and_ended == device.events


async def test_full_server_greets(autojump_clock: Any, device: Recorder) -> None:
    """A server at its limit greets a new client, and reads it when there is room."""
    async with serve_in_memory(device, max_pending=1) as served, served.open_raw() as busy:
        await busy.send(b"?hold a 10\n")
        await trio.testing.wait_all_tasks_blocked()
        async with served.open_raw() as late:
            await late.send(b"?hold b 1\n")
            assert b"!hold ok\n" == await late.receive()


@pytest.mark.parametrize("option", ["limit", "max_pending", "max_pending_per_client", "max_backlog"])
async def test_limits_below_one(option: str) -> None:
    """A limit below 1 is refused by name."""
    with pytest.raises(ValueError, match=f"expected {option} of at least 1, got 0"):
        await katcp.serve_device_on(DemoDevice(), [], **{option: 0})  # type: ignore[arg-type]


async def test_slow_client(autojump_clock: Any, device: Recorder, caplog: Any) -> None:
    """A client that leaves too much unread is sent away at once, with a warning; nobody else notices."""
    async with serve_in_memory(device, max_backlog=10_000, buffer=1000) as served:
        async with served.open_raw() as slow, served.open_raw() as quick:
            await trio.testing.wait_all_tasks_blocked()
            received = []

            async def read_quickly() -> None:
                while line := await quick.receive():
                    received.append(line)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_quickly)
                for index in range(100):
                    device.mass_inform("news", index, b"x" * 200)
                    await trio.sleep(0.1)
                assert ["memory-2"] == [session.peer for session in device.sessions]
                nursery.cancel_scope.cancel()
            assert 100 == len(received)
            assert [] == await slow.receive_until(b"!") or True

    assert 1 == sum("Disconnecting client because it is too slow" in text for text in messages(caplog))
    assert any("[memory-1]" in text for text in messages(caplog))


async def test_slow_client_leaves_in_the_same_breath(autojump_clock: Any, device: Recorder) -> None:
    """The update that is too much for a client removes it before the assignment returns."""
    async with serve_in_memory(device, max_backlog=2000, buffer=100) as served, served.open_raw() as slow:
        await slow.send(b"?sensor-sampling temperature auto\n")
        await trio.testing.wait_all_tasks_blocked()
        for value in range(100):
            before = len(device.sessions)
            device.temperature.value = float(value)
            if before and not device.sessions:
                break
        assert {} == device.sessions
        assert device.temperature._observers is None


async def test_long_replies_are_not_slowness(autojump_clock: Any, device: Recorder) -> None:
    """A client that reads slowly gets all of a reply that is many times the backlog allowed."""
    for index in range(3000):
        device.sensors.add(Sensor(int, f"many.{index:04d}", "x" * 50))
    async with serve_in_memory(device, max_backlog=10_000, buffer=5000) as served:
        async with served.open_raw() as peer, trio.open_nursery() as nursery:
            names = b",".join(b"many.%04d" % index for index in range(3000))
            nursery.start_soon(peer.send, b"?sensor-list\n?sensor-sampling %b event\n" % names)
            lines = []
            while not lines or not lines[-1].startswith(b"!sensor-sampling"):
                lines.append(await peer.receive())
                if len(lines) % 100 == 0:
                    await trio.sleep(0.1)

    assert 3003 == sum(line.startswith(b"#sensor-list") for line in lines)
    assert 3000 == sum(line.startswith(b"#sensor-status") for line in lines)


async def test_client_that_never_reads_its_replies(autojump_clock: Any, device: Recorder) -> None:
    """A client that asks and never reads is not read further; what waits for it stays bounded."""
    for index in range(1000):
        device.sensors.add(Sensor(int, f"many.{index:04d}", "x" * 100))
    async with serve_in_memory(device) as served, served.open_raw() as deaf:
        await deaf.send(b"?sensor-list\n" * 3000)
        await trio.testing.wait_all_tasks_blocked(0.01)
        (session,) = device.sessions
        assert session.outbox.statistics().highest_backlog < 2 * 1024**2
        async with served.open_raw() as other:
            await other.send(b"?watchdog\n")
            assert b"!watchdog ok\n" == await other.receive()


async def test_handler_that_floods(autojump_clock: Any, device: Recorder) -> None:
    """A handler that sends on to a client that does not read loses that client, not the memory."""
    async with serve_in_memory(device, max_backlog=100_000) as served, served.open_raw() as deaf:
        await deaf.send(b"?flood 100000 1000\n")
        with trio.fail_after(10):
            while device.sessions:  # noqa: ASYNC110 - the session has nobody to tell but its client
                await trio.sleep(0.1)


async def test_statistics(autojump_clock: Any, device: Recorder) -> None:
    """A device tells what its clients have under way, and what its servers do."""
    async with serve_in_memory(device, max_pending=40) as served:
        async with served.open_raw() as busy, served.open_raw():
            await busy.send(b"?sensor-sampling temperature event\ngarbage\n?hold[1] a\n?hold[2] b\n")
            await trio.testing.wait_all_tasks_blocked()
            statistics = device.statistics()
            first, second = statistics.clients
            assert ("memory-1", 2, 1, 1) == (first.peer, first.pending, first.sampled, first.malformed)
            assert ("memory-2", 0, 0, 0) == (second.peer, second.pending, second.sampled, second.malformed)
            assert 0 == first.outbox.backlog
            assert first.outbox.bytes_sent > second.outbox.bytes_sent > 100
            (pending,) = statistics.pending
            assert (2, 0, 40) == (pending.running, pending.waiting, pending.limit)


# -- connections that end ----------------------------------------------------------------------------------


async def test_half_closed_client_gets_its_replies(autojump_clock: Any, served_device: ServedDevice) -> None:
    """A client that closes its side for writing still gets the replies that it waits for, then the end."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?sleep 10\n?watchdog\n?sensor-sampling temperature period 1\n")
        await peer.stream.send_eof()  # type: ignore[attr-defined]
        lines = [await peer.receive() for _ in range(5)]

    assert b"!watchdog ok\n" == lines[0]
    assert b"!sensor-sampling ok temperature period 1.0\n" == lines[2]
    assert [b"!sleep ok 10.0\n", b""] == lines[3:]


async def test_half_closed_client_does_not_stay_for_ever(autojump_clock: Any, device: Recorder) -> None:
    """The requests of a client that seems to be gone are cancelled after half a minute."""
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        await peer.send(b"?hold a\n")
        await peer.stream.send_eof()  # type: ignore[attr-defined]
        with trio.fail_after(31):
            assert [b"!hold fail request\\_cancelled\n", b""] == [await peer.receive(), await peer.receive()]


async def test_eof_in_mid_line(autojump_clock: Any, served_device: ServedDevice, caplog: Any) -> None:
    """An end in mid-line is logged, and the part is not taken for a request."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?watchdog\n?watch")
        await peer.stream.send_eof()  # type: ignore[attr-defined]
        assert [b"!watchdog ok\n", b""] == [await peer.receive(), await peer.receive()]
    assert ["EOF received on connection with partial message [memory-1]"] == messages(caplog)


async def test_reset_in_mid_line(autojump_clock: Any, device: Recorder) -> None:
    """A connection that is reset ends its session, its samplers and its handlers, and nothing else."""
    listener = MemoryListener()
    faulty: list[FaultyStream] = []

    class Faulty(MemoryListener):
        async def accept(self) -> Any:
            faulty.append(FaultyStream(await listener.accept()))
            return faulty[-1]

        async def aclose(self) -> None:
            await listener.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(katcp.serve_device_on, device, [Faulty()])
        one, two = RawPeer(await listener.connect()), RawPeer(await listener.connect())
        await one.send(b"?sensor-sampling temperature period 1\n?hold a\n?watch")
        await one.receive_until(b"!sensor-sampling")
        await faulty[0].cut()
        await trio.testing.wait_all_tasks_blocked()
        assert ["a began", "a cancelled"] == device.events
        assert device.temperature._observers is None
        assert ["memory-2"] == [session.peer for session in device.sessions]
        await two.send(b"?watchdog\n")
        assert b"!watchdog ok\n" == (await two.receive_until(b"!"))[-1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cut_after", range(0, 60, 7))
async def test_cut_anywhere(autojump_clock: Any, device: Recorder, cut_after: int) -> None:
    """Wherever in its requests a client's connection breaks, nothing of it is left."""
    listener = MemoryListener()

    class Cutting(MemoryListener):
        async def accept(self) -> Any:
            stream = FaultyStream(await listener.accept())
            stream.cut_after = cut_after
            stream.piece = 1
            return stream

        async def aclose(self) -> None:
            await listener.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(katcp.serve_device_on, device, [Cutting()])
        peer = RawPeer(await listener.connect())
        with contextlib.suppress(trio.BrokenResourceError):  # cut before all of it was sent
            await peer.send(b"?sensor-sampling temperature event\n?hold a\n?echo some text\n" * 3)
        await trio.sleep(1)
        assert {} == device.sessions
        assert device.temperature._observers is None
        assert device.events.count("a began") == device.events.count("a cancelled")
        nursery.cancel_scope.cancel()


# -- the end -----------------------------------------------------------------------------------------------


async def test_halt(autojump_clock: Any, device: Recorder) -> None:
    """?halt is answered, then what is pending is cancelled, then come the good-bye and the end."""
    async with trio.open_nursery() as nursery:
        listener = MemoryListener()
        await nursery.start(katcp.serve_device_on, device, [listener])
        peer = RawPeer(await listener.connect())
        await peer.receive_until(b"#version-connect katcp-device")
        await peer.send(b"?hold[1] a\n?halt[2]\n")
        assert [
            b"!halt[2] ok\n",
            b"!hold[1] fail request\\_cancelled\n",
            b"#disconnect server\\_shutting\\_down\n",
            b"",
        ] == [await peer.receive() for _ in range(4)]
        with pytest.raises(katcp_connect_failed()):
            await listener.connect()
    assert {} == device.sessions
    assert {} == device.servers


def katcp_connect_failed() -> type[Exception]:
    from armillary.errors import ConnectFailed

    return ConnectFailed


async def test_drain(autojump_clock: Any, device: Recorder) -> None:
    """At the end running requests get `drain` seconds; idle clients leave at once; new requests are lost."""
    async with trio.open_nursery() as nursery:
        listener = MemoryListener()
        await nursery.start(functools.partial(katcp.serve_device_on, device, [listener], drain=5.0))
        busy, idle = RawPeer(await listener.connect()), RawPeer(await listener.connect())
        for peer in (busy, idle):
            await peer.receive_until(b"#version-connect katcp-device")
        await busy.send(b"?hold[1] quick 3\n?hold[2] slow 100\n")
        await trio.sleep(1)
        assert b"#client-connected memory-2\n" == await busy.receive()
        start = trio.current_time()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert [b"#disconnect server\\_shutting\\_down\n", b""] == [
                await idle.receive(),
                await idle.receive(),
            ]
            assert 0 == trio.current_time() - start
            await busy.send(b"?watchdog[3]\n")
            got = [(await busy.receive(), trio.current_time() - start) for _ in range(4)]

    assert [
        (b"!hold[1] ok\n", 2.0),
        (b"!hold[2] fail request\\_cancelled\n", 5.0),
        (b"#disconnect server\\_shutting\\_down\n", 5.0),
        (b"", 5.0),
    ] == got


async def test_client_that_does_not_read_does_not_hold_up_the_end(
    autojump_clock: Any, device: Recorder
) -> None:
    """A server with a client that does not read ends half a second after it was told to."""
    async with trio.open_nursery() as nursery:
        listener = MemoryListener(bound=1000)
        await nursery.start(katcp.serve_device_on, device, [listener])
        await listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            device.mass_inform("news", b"x" * 100)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        nursery.cancel_scope.cancel()
    assert 0.5 == trio.current_time() - start


async def test_parked_requests_are_not_started_at_the_end(autojump_clock: Any, device: Recorder) -> None:
    """Requests that wait for their turn when the server ends are never started."""
    async with serve_in_memory(device, max_pending=1, drain=5.0) as served, served.open_raw() as peer:
        await peer.send(b"?hold[1] a 3\n?hold[2] b 3\n?hold[3] c 3\n")
        await trio.sleep(1)
        device.halt()
        assert [b"!hold[1] ok\n", b"#disconnect server\\_shutting\\_down\n", b""] == [
            await peer.receive() for _ in range(3)
        ]
    assert ["a began", "a ended"] == device.events


async def test_restart(autojump_clock: Any, device: Recorder) -> None:
    """?restart is answered, sends every client away, awaits on_restart, and then greets clients again."""
    async with serve_in_memory(device) as served:
        async with served.open_raw() as one, served.open_raw() as two:
            await one.send(b"?hold[1] a\n?restart[2]\n")
            lines = [line for line in await one.receive_until(b"zzz") if not line.startswith(b"#client")]
            assert [
                b"!restart[2] ok\n",
                b"!hold[1] fail request\\_cancelled\n",
                b"#disconnect device\\_restarting\n",
            ] == lines
            assert b"#disconnect device\\_restarting\n" == await two.receive()
        start = trio.current_time()
        async with served.open_raw() as again:
            assert (1, 1.0) == (device.restarts, trio.current_time() - start)
            await again.send(b"?watchdog\n")
            assert b"!watchdog ok\n" == await again.receive()


async def test_failing_restart(autojump_clock: Any) -> None:
    """What on_restart raises comes out of the server as it is, and every client is told that it ends."""

    class Failing(DemoDevice):
        async def on_restart(self) -> None:
            raise OSError("no such hardware")

    device, listener = Failing(), MemoryListener()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="no such hardware")):
        async with trio.open_nursery() as nursery:
            await nursery.start(katcp.serve_device_on, device, [listener])
            peer = RawPeer(await listener.connect())
            await peer.send(b"?restart\n")
            await peer.receive_until(b"#disconnect")
            await trio.sleep_forever()


async def test_restart_in_a_row(autojump_clock: Any, device: Recorder) -> None:
    """A device that is asked to restart while it restarts does so once."""
    async with serve_in_memory(device) as served, served.open_raw():
        device.restart()
        device.restart()
        await trio.sleep(10)
        assert 1 == device.restarts


async def test_served_twice(autojump_clock: Any, device: Recorder) -> None:
    """One device can be served on two listeners; mass informs reach all clients and halt ends both."""
    async with serve_in_memory(device) as here, serve_in_memory(device) as there:
        async with here.open_raw() as one, there.open_raw() as two:
            await trio.sleep(1)
            await one.receive_until(b"#client-connected")
            device.mass_inform("hello", "you")
            assert b"#hello you\n" == await one.receive()
            assert b"#hello you\n" == await two.receive()
            device.halt()
            assert [b"#disconnect server\\_shutting\\_down\n", b""] == [
                await one.receive(),
                await one.receive(),
            ]
            assert [b"#disconnect server\\_shutting\\_down\n", b""] == [
                await two.receive(),
                await two.receive(),
            ]


async def test_mass_inform_with_bad_name(autojump_clock: Any, device: Recorder) -> None:
    """An inform with a bad name or argument is refused, and nobody gets anything."""
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        with pytest.raises(ValueError, match="expected a name of letters"):
            device.mass_inform("no name")
        with pytest.raises(TypeError, match="is not registered"):
            device.mass_inform("name", None)
        await peer.send(b"?watchdog\n")
        assert b"!watchdog ok\n" == await peer.receive()


async def test_log_informs(autojump_clock: Any, device: Recorder) -> None:
    """Records at or above ?log-level reach every client, from trio's thread and from others."""
    logger = logging.getLogger("my.instrument")
    async with serve_in_memory(device) as served, served.open_raw() as peer:
        with katcp.forward_logs(device, logger):
            logger.info("too little")
            logger.warning("first %s", "message")
            await trio.to_thread.run_sync(logger.error, "from a thread")
            logging.getLogger("my.instrument.part").log(35, "between levels")
            one, two, three = [await peer.receive_message() for _ in range(3)]
        logger.warning("after the block")
        await peer.send(b"?watchdog\n")
        assert b"!watchdog ok\n" == await peer.receive()

    assert ("log", b"warn", b"my.instrument") == (one.name, one.arguments[0], one.arguments[2])
    assert one.arguments[3].endswith(b": first message")
    assert b"error" == two.arguments[0]
    assert two.arguments[3].endswith(b": from a thread")
    assert (b"warn", b"my.instrument.part") == (three.arguments[0], three.arguments[2])


async def test_own_records_are_not_forwarded(autojump_clock: Any, device: Recorder) -> None:
    """What armillary itself logs about a client does not go to the clients."""
    async with serve_in_memory(device) as served, served.open_raw() as peer, served.open_raw() as other:
        with katcp.forward_logs(device):
            await peer.send(b"garbage\n")
            await peer.receive_until(b"#log")
            await other.send(b"?watchdog\n")
            assert b"!watchdog ok\n" == await other.receive()


@pytest.mark.parametrize("clients", [1, 3])
async def test_cancelled_anywhere(
    autojump_clock: Any, cancel_everywhere: Callable[..., Any], clients: int
) -> None:
    """Wherever a server is cancelled, no session, observer or request of it is left."""

    async def scenario() -> None:
        device = Recorder()
        try:
            async with serve_in_memory(device) as served, trio.open_nursery() as nursery:
                for _ in range(clients):

                    @nursery.start_soon
                    async def talk() -> None:
                        async with served.open_raw() as peer:
                            await peer.send(
                                b"?sensor-sampling temperature period 1\n?hold a 2\n?sensor-list\n"
                            )
                            await peer.receive_until(b"!hold")
        finally:
            assert {} == device.sessions
            assert {} == device.servers
            assert device.temperature._observers is None
            assert device.events.count("a began") == sum(
                device.events.count(end) for end in ("a ended", "a cancelled")
            )

    await cancel_everywhere(scenario)


async def test_ten_megabytes(autojump_clock: Any, device: Recorder) -> None:
    """A message of ten megabytes goes there and back."""
    async with serve_in_memory(device) as served, served.open_raw() as peer, trio.open_nursery() as nursery:
        payload = b"x" * (10 * 1024**2)
        nursery.start_soon(peer.send, b"?echo " + payload + b"\n")
        assert b"!echo ok " + payload + b"\n" == await peer.receive()
    assert DEFAULT_LIMIT > len(payload)


async def test_replies_that_nobody_reads_keep_their_slots(autojump_clock: Any) -> None:
    """A client that does not read the replies of handlers that waited gets only so many of them made."""

    class Talkative(DemoDevice):
        made = 0

        async def request_talk(self, ctx: RequestContext) -> bytes:
            """Reply with a megabyte, after a moment."""
            await trio.sleep(0.001)
            self.made += 1
            return b"x" * 1024**2

    device = Talkative()
    async with serve_in_memory(device, max_pending_per_client=5) as served, served.open_raw() as deaf:
        await deaf.send(b"?talk\n" * 1000)
        await trio.sleep(100)
        assert device.made <= 8


async def test_garbage_fills_no_log(autojump_clock: Any, served_device: ServedDevice, caplog: Any) -> None:
    """However much garbage a client sends, each line is answered and the log has one warning of it."""
    async with served_device.open_raw() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, b"garbage\n" * 1000 + b"?watchdog\n")
        lines = await peer.receive_until(b"!watchdog")
    assert 1000 == sum(line.startswith(b"#log error") for line in lines)
    assert 1 == len(caplog.records)
