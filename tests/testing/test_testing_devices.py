from __future__ import annotations

import pytest
import trio
import trio.testing

from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.katcp import Client, Device, DeviceStatus, FailReply, RequestContext, Sensor, open_client_on
from armillary.testing import DemoDevice, RawPeer, ServedDevice, bounded_stream_pair, serve_in_memory


async def test_the_demo_device_answers(client: Client, autojump_clock: trio.testing.MockClock) -> None:
    """Its requests do what they say, in virtual time."""
    assert ([b"a", b"b c", b""], []) == await client.request("echo", "a", "b c", "")
    assert ([b"1"], []) == await client.request("count")
    assert ([b"11"], []) == await client.request("count", 10)
    start = trio.current_time()
    assert ([b"1000.0"], []) == await client.request("sleep", 1000)
    assert 1000 == trio.current_time() - start
    with pytest.raises(FailReply, match="crashed on request"):
        await client.request("crash")


async def test_the_demo_device_counts_in_a_sensor(served_device: ServedDevice, client: Client) -> None:
    """What a request changes can be seen in the device at hand, and by its clients."""
    await client.request("count", 5)
    assert isinstance(served_device.device, DemoDevice)
    assert 5 == served_device.device.counter.value
    _, [inform] = await client.request("sensor-value", "counter")
    assert b"5" == inform.arguments[-1]


class TestWithADeviceOfOnesOwn:
    """A test file that defines `device` gets its own device served."""

    @pytest.fixture
    def device(self) -> Device:
        class Telescope(Device):
            VERSION = "telescope-1.0"
            BUILD_STATE = "telescope-1.0.0"

            def request_point(self, ctx: RequestContext, azimuth: float) -> float:
                """Point."""
                return azimuth

        return Telescope()

    async def test_it_is_the_one_that_is_served(self, client: Client, device: Device) -> None:
        """Overriding the fixture is all it takes."""
        assert ([b"1.5"], []) == await client.request("point", 1.5)
        assert 1 == len(device.sessions)


async def test_a_raw_peer_is_past_the_greeting_or_before_it(served_device: ServedDevice) -> None:
    """By default the greeting is read away; a test that is about it reads it itself."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?watchdog\n")
        assert b"!watchdog ok\n" == await peer.receive()
    async with served_device.open_raw(greeted=False) as peer:
        greeting = await peer.receive_until(b"#version-connect katcp-device")
    assert [b"katcp-protocol", b"katcp-library", b"katcp-device"] == [line.split()[1] for line in greeting]


async def test_leaving_the_block_ends_the_server() -> None:
    """Clients are told, nobody can connect any more, and the device is free to be served again."""
    device = DemoDevice()

    async def listen(lines: list[bytes], *, task_status: trio.TaskStatus[None]) -> None:
        async with served.open_raw() as peer:
            task_status.started()
            lines.extend(await peer.receive_until(b"#disconnect"))
            lines.append(await peer.receive())

    for _ in range(2):
        lines: list[bytes] = []
        async with trio.open_nursery() as nursery:
            async with serve_in_memory(device) as served:
                await nursery.start(listen, lines)
        assert [b"#disconnect", b""] == [lines[0].split()[0], lines[1]]
        with pytest.raises(ConnectFailed):
            async with served.open_client():
                pass
        assert {} == device.sessions
        assert {} == device.servers


async def test_the_block_raises_what_its_body_raises() -> None:
    """A failing assertion in the block is not hidden by the end of the server."""
    with pytest.raises(KeyError, match="of the test"):
        async with serve_in_memory(DemoDevice()) as served, served.open_client():
            raise KeyError("of the test")


async def test_options_reach_the_server_and_the_client() -> None:
    """What `serve_in_memory` and `open_client` do not know they pass on."""
    with pytest.raises(ValueError, match="max_pending"):
        async with serve_in_memory(DemoDevice(), max_pending=0):
            pass
    async with serve_in_memory(DemoDevice(), limit=100) as served, served.open_raw() as peer:
        await peer.send(b"?echo " + b"x" * 200 + b"\n")
        assert not (await peer.receive()).startswith(b"!echo ok")


async def test_a_small_buffer_makes_senders_wait(autojump_clock: trio.testing.MockClock) -> None:
    """The room on the way can be made so small that a long reply waits for its reader."""
    async with serve_in_memory(DemoDevice(), buffer=1000) as served, served.open_raw() as peer:
        await peer.send(b"?echo " + b"x" * 900 + b"\n")
        await peer.send(b"?echo " + b"y" * 900 + b"\n")
        await trio.testing.wait_all_tasks_blocked()
        [session] = served.device.sessions
        assert 0 < session.outbox.backlog
        assert b"!echo ok " + b"x" * 900 + b"\n" == await peer.receive()
        assert b"!echo ok " + b"y" * 900 + b"\n" == await peer.receive()


async def test_a_persistent_client_comes_back_after_the_same_delay_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Delays between attempts are not random in tests: two runs take exactly as long."""
    took = []
    for _ in range(2):
        async with serve_in_memory(DemoDevice()) as served, served.open_persistent_client() as client:
            await client.wait_connected()
            start = trio.current_time()
            for _ in range(3):
                [session] = served.device.sessions
                session.abort("for the test")
                await trio.testing.wait_all_tasks_blocked()
                await client.wait_connected()
            took.append(trio.current_time() - start)
    assert took[0] == took[1]
    assert took[0] > 0


# -- RawPeer -------------------------------------------------------------------------------------------------


async def test_a_raw_peer_reads_lines_messages_and_ends() -> None:
    """Lines come with their ends, messages parsed, and the end of the stream as such."""
    left, right = bounded_stream_pair()
    async with left, RawPeer(right).closing() as peer:
        await left.send_all(b"#a 1\n#b 2\n!c[3] ok\n#d\n")
        assert [b"#a 1\n", b"#b 2\n"] == await peer.receive_until(b"#b")
        message = await peer.receive_message()
        assert ("c", 3, [b"ok"]) == (message.name, message.mid, list(message.arguments))
        await left.aclose()
        assert [b"#d\n"] == await peer.receive_until(b"#never")
        assert b"" == await peer.receive()
        with pytest.raises(trio.EndOfChannel):
            await peer.receive_message()


async def test_a_raw_peer_greets_as_servers_do() -> None:
    """The greeting has the flags that the test wants, and its block closes the stream."""
    left, right = bounded_stream_pair()
    async with left:
        async with RawPeer(right).closing() as peer:
            await peer.greet("MI")
        assert b"#version-connect katcp-protocol 5.1-MI\n" == await left.receive_some()
        assert b"" == await left.receive_some()


async def test_a_client_of_a_raw_peer_hears_what_the_test_says() -> None:
    """A client can be tested against a server that is a few lines of a test."""
    left, right = bounded_stream_pair()
    async with RawPeer(right).closing() as peer, trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.greet()
            assert b"?hello[1] there\n" == await peer.receive()
            await peer.send(b"!hello[1] ok world\n")

        nursery.start_soon(serve)
        async with open_client_on(left) as client:
            assert ([b"world"], []) == await client.request("hello", "there")
            await peer.stream.aclose()
            with pytest.raises(ConnectionClosed):
                await client.request("hello")


def test_the_sensors_of_the_demo_device() -> None:
    """A device to test against has a number, a count and a status."""
    sensors = DemoDevice().sensors
    assert {"temperature": 20.0, "counter": 0, "device-status": DeviceStatus.OK} == {
        sensor.name: sensor.value for sensor in sensors.values()
    }
    assert all(isinstance(sensor, Sensor) for sensor in sensors.values())
