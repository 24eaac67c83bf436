"""What clients are told of sensors that come and go."""

from __future__ import annotations

from typing import Any

import trio

from armillary.katcp import Client, Device, Sensor
from armillary.katcp.announcer import INTERVAL


async def test_added_and_removed_before_it_was_told(
    device: Device, client: Client, autojump_clock: Any
) -> None:
    """A sensor that goes before its coming was told is told of: a client may have listed it in between."""
    await trio.sleep(10 * INTERVAL)
    with client.informs("interface-changed") as news:
        device.sensors.add(Sensor(int, "first"))
        assert (await anext(news)).arguments == [b"sensor", b"first", b"added"]
        sensor = Sensor(int, "second")
        device.sensors.add(sensor)
        await client.request("sensor-list", "second")
        device.sensors.discard(sensor)
        assert (await anext(news)).arguments == [b"sensor", b"second", b"removed"]
