"""Tests of the dome of first_device.py, without ports and without waiting. Run it with pytest."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from first_device import Dome, Motion
from trio.testing import MockClock

from armillary import katcp
from armillary.errors import ConnectionClosed
from armillary.testing import FaultyStream, MemoryListener, ServedDevice

# [fixtures]
pytest_plugins = ["armillary.testing.fixtures"]  # in a project of several files: in its conftest.py


@pytest.fixture
async def device() -> Dome:
    """The device that the fixtures `served_device` and `client` serve and connect to."""
    return Dome()


# [request]
async def test_slews(device: Dome, client: katcp.Client, autojump_clock: MockClock) -> None:
    """The dome replies to ?slew when it points there; 60 degrees take 0.6 s."""
    start = trio.current_time()
    arguments, _ = await client.request("slew", 60.0)
    assert arguments == [b"60.0"]
    assert trio.current_time() - start == pytest.approx(0.6)
    assert device.motion.value is Motion.IDLE


async def test_refuses(client: katcp.Client, autojump_clock: MockClock) -> None:
    """The dome refuses an azimuth that is none."""
    with pytest.raises(katcp.FailReply, match="from 0 to 360 degrees"):
        await client.request("slew", 360.0)


# [sensors]
async def test_reports(client: katcp.Client, autojump_clock: MockClock) -> None:
    """A mirror sees the dome turn and stop."""
    async with client.mirror_sensors(strategy="event", enum_types=[Motion]) as sensors:
        await sensors.wait_synced()
        assert sensors["motion"].value is Motion.IDLE
        slew = client.start_request("slew", 30.0)
        async for change in sensors.changes():
            if change.sensor is sensors["motion"] and change.sensor.value is Motion.IDLE:
                break
        assert sensors["azimuth"].value == 30.0
        await slew.wait()


# [wire]
async def test_speaks_katcp(served_device: ServedDevice, autojump_clock: MockClock) -> None:
    """On the wire, a slew is one line in each direction."""
    async with served_device.open_raw() as peer:
        await peer.send(b"?slew[7] 10\n")
        assert await peer.receive() == b"!slew[7] ok 10.0\n"


# [faults]
async def test_survives_a_cut(autojump_clock: MockClock) -> None:
    """A client whose connection is reset is told so at once, and the dome stops where it is."""
    dome, listener = Dome(), MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(katcp.serve_device_on, dome, [listener]))
        stream = FaultyStream(await listener.connect())
        async with katcp.open_client_on(stream) as client:
            slew = client.start_request("slew", 180.0)
            await trio.sleep(0.5)
            await stream.cut()
            with pytest.raises(ConnectionClosed) as caught:
                await slew.wait()
            assert caught.value.may_have_been_received
        await trio.sleep(5.0)
        assert dome.azimuth.value == 50.0
        assert dome.motion.value is Motion.IDLE
        nursery.cancel_scope.cancel()


# [limits]
async def test_slow_client(autojump_clock: MockClock) -> None:
    """A client that never reads is disconnected when 10 kB wait for it; the other one notices nothing."""
    dome, listener = Dome(), MemoryListener(bound=1000)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(katcp.serve_device_on, dome, [listener], max_backlog=10_000))
        stream = FaultyStream(await listener.connect())
        async with (
            katcp.open_client_on(stream) as stuck,
            katcp.open_client_on(await listener.connect()) as client,
        ):
            await stuck.request("sensor-sampling", "azimuth", "event")
            stream.reads_nothing = True
            for degrees in range(500):
                dome.azimuth.value = float(degrees)
            await trio.sleep(1.0)
            assert len(dome.sessions) == 1
            await client.request("watchdog")
        nursery.cancel_scope.cancel()


# [end]
