"""Whatever happens to a device and to its watchers, mirrors end up as the device is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import VirtualTimeLoop, served

from aiokatcp import Client, SensorWatcher
from armillary import katcp
from armillary.testing import DemoDevice

# Sensors that each of the watchers does not want.
UNWANTED = ["", "ab", "a"]
TYPES = [int, float, bool, str, katcp.DeviceStatus]

ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abc"), st.sampled_from(TYPES)),
    st.tuples(st.just("remove"), st.sampled_from("abc")),
    st.tuples(st.just("update"), st.sampled_from("abc"), st.sampled_from(list(katcp.SensorStatus))),
    st.tuples(st.just("watch"), st.integers(0, 2)),
    st.tuples(st.just("unwatch"), st.integers(0, 2)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("pause"), st.sampled_from([0.0, 0.001, 0.04, 0.06, 0.7])),
    st.tuples(st.just("quiet")),
)


class Some(SensorWatcher):
    """Mirrors some of the sensors."""

    def __init__(self, client: Client, unwanted: str) -> None:
        super().__init__(client)
        self.unwanted = unwanted

    def filter(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> bool:
        return name not in self.unwanted


class Drive:
    """A device, a client of it, and up to three watchers that come and go."""

    def __init__(self, device: DemoDevice, client: Client) -> None:
        self.device = device
        self.client = client
        self.watching: dict[int, Some] = {}

    def do(self, action: str, *arguments: Any) -> None:
        sensors = self.device.sensors
        if action == "add":
            name, cls = arguments
            sensors.add(katcp.Sensor(cls, name))
        elif action == "remove":
            sensors.pop(arguments[0], None)
        elif action == "update" and arguments[0] in sensors:
            sensor = sensors[arguments[0]]
            sensor.set_value(sensor.value, arguments[1])
        elif action == "watch" and arguments[0] not in self.watching:
            # A new one: a watcher that was removed is not told what becomes of the sensors that it has.
            watcher = self.watching[arguments[0]] = Some(self.client, UNWANTED[arguments[0]])
            self.client.add_sensor_watcher(watcher)
        elif action == "unwatch" and arguments[0] in self.watching:
            self.client.remove_sensor_watcher(self.watching.pop(arguments[0]))
        elif action == "restart":
            self.device.restart()

    async def check(self) -> None:
        """Be quiet for a second with a connection, and compare."""
        await self.client.wait_connected()
        await asyncio.sleep(1)
        wanted: set[str] = set()
        for watcher in self.watching.values():
            assert watcher.synced.is_set()
            there = {
                name: sensor for name, sensor in self.device.sensors.items() if name not in watcher.unwanted
            }
            assert sorted(there) == sorted(watcher.sensors)
            for name, sensor in there.items():
                mirrored = watcher.sensors[name]
                assert sensor.encoded_description() == mirrored.encoded_description()
                assert sensor.encoded_reading() == mirrored.encoded_reading()
            wanted |= set(there)
        for name, sensor in self.device.sensors.items():
            assert (name in wanted) == (sensor._observers is not None)


@given(st.sets(st.integers(0, 2)), st.lists(ACTIONS, min_size=10, max_size=40))
@settings(max_examples=100, deadline=None)
def test_mirrors_become_the_device(watching: set[int], actions: list[tuple[Any, ...]]) -> None:
    """After any mix of changes, watchers and reconnections, a second of quiet makes all of it the same."""

    async def main() -> None:
        device = DemoDevice()
        async with served(device) as port:
            async with Client("127.0.0.1", port) as client:
                drive = Drive(device, client)
                for number in watching:
                    drive.do("watch", number)
                for action, *arguments in actions:
                    if action == "pause":
                        await asyncio.sleep(arguments[0])
                    elif action == "quiet":
                        await drive.check()
                    else:
                        drive.do(action, *arguments)
                await drive.check()

    logging.disable(logging.CRITICAL)
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())
    finally:
        logging.disable(logging.NOTSET)
