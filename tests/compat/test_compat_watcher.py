"""The asyncio client's watchers: who is told what and in which order, and what is asked of the server."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from clients import logged
from raw_server import PATIENCE, RawPeer, RawServer, raw_server, served

import aiokatcp
from aiokatcp import AbstractSensorWatcher, Address, Client, Sensor, SensorWatcher, SyncState, Timestamp
from armillary import katcp
from armillary.testing import DemoDevice

if TYPE_CHECKING:
    from conftest import Host


class Recorder(AbstractSensorWatcher):
    """Writes down everything that it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news = asyncio.Event()
        self.unwanted: set[str] = set()

    def _tell(self, text: str) -> None:
        self.told.append(text)
        self.news.set()

    def filter(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> bool:
        self._tell(f"filter {name}")
        return name not in self.unwanted

    def sensor_added(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> None:
        words = [name, description, units, type_name, *(argument.decode() for argument in args)]
        self._tell(f"+{' '.join(word for word in words if word)}")

    def sensor_removed(self, name: str) -> None:
        self._tell(f"-{name}")

    def sensor_updated(self, name: str, value: bytes, status: Sensor.Status, timestamp: float) -> None:
        assert isinstance(status, Sensor.Status)
        self._tell(f"{name}={value.decode()} {status.name} {timestamp}")

    def batch_start(self) -> None:
        self._tell("start")

    def batch_stop(self) -> None:
        self._tell("stop")

    def state_updated(self, state: SyncState) -> None:
        self._tell(state.name)

    def heard(self) -> str:
        told, self.told = self.told, []
        return " | ".join(told)

    async def until(self, text: str) -> None:
        """Wait until something was told."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.told:
                self.news.clear()
                await self.news.wait()


def listing(mid: int, *sensors: bytes) -> bytes:
    """The answer to ?sensor-list."""
    informs = b"".join(b"#sensor-list[%d] %b\n" % (mid, sensor) for sensor in sensors)
    return informs + b"!sensor-list[%d] ok %d\n" % (mid, len(sensors))


async def connect(
    server: RawServer, *watchers: AbstractSensorWatcher, flags: str = "MIB"
) -> tuple[Client, RawPeer]:
    """A client with watchers that were added before it was connected; it is now."""
    client = Client("127.0.0.1", server.port)
    for watcher in watchers:
        client.add_sensor_watcher(watcher)
    peer = await server.accept()
    peer.greet(flags)
    await client.wait_connected()
    return client, peer


async def synced(peer: RawPeer, watcher: Recorder, *names: bytes) -> None:
    """Answer all that a client asks that has just been connected: integer sensors, all of value 1."""
    assert b"?sensor-list[1]\n" == await peer.line()
    peer.send(listing(1, *(b"%b \\@ \\@ integer" % name for name in names)))
    assert b"?sensor-sampling[2] %b auto\n" % b",".join(names) == await peer.line()
    peer.send(b"".join(b"#sensor-status 1 1 %b nominal 1\n" % name for name in names))
    peer.send(b"!sensor-sampling[2] ok %b auto\n" % b",".join(names))
    await watcher.until("SYNCED")
    watcher.heard()


# -- watchers ---------------------------------------------------------------------------------------------


def test_order_of_calls(host: Host) -> None:
    """A watcher added before connecting is told everything in a fixed order, in batches."""

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, watcher)
            async with client:
                assert b"?sensor-list[1]\n" == await peer.line()
                peer.send(listing(1, b"a A\\_sensor V float", b"b \\@ \\@ discrete on off"))
                assert b"?sensor-sampling[2] a,b auto\n" == await peer.line()
                peer.send(b"#sensor-status 1.5 1 a nominal 2\n#sensor-status 2 1 b warn on\n")
                await watcher.until("b=on WARN 2.0")
                assert "SYNCED" not in watcher.told
                peer.send(b"!sensor-sampling[2] ok a,b auto\n")
                await watcher.until("SYNCED")
                assert (
                    "start | stop | SYNCING"
                    " | start | filter a | +a A sensor V float | filter b | +b discrete on off | stop"
                    " | start | a=2 NOMINAL 1.5 | stop | start | b=on WARN 2.0 | stop | SYNCED"
                ) == watcher.heard()
                peer.send(b"#sensor-status 5 2 a failure 7 b error off\n#sensor-status 6 0\n")
                await watcher.until("b=off ERROR 5.0")
                peer.send(b"#interface-changed\n")
                await watcher.until("SYNCING")
                assert (
                    "start | a=7 FAILURE 5.0 | b=off ERROR 5.0 | stop | start | stop | SYNCING"
                ) == watcher.heard()
                watcher.unwanted = {"b"}
                assert b"?sensor-list[3]\n" == await peer.line()
                peer.send(
                    listing(3, b"c \\@ \\@ integer", b"b \\@ changed discrete on off", b"a \\@ \\@ integer")
                )
                assert b"?sensor-sampling[4] a,c auto\n" == await peer.line()
                peer.send(b"#sensor-status 7 1 c nominal 1\n#sensor-status 7 1 a nominal 1\n")
                peer.send(b"!sensor-sampling[4] ok a,c auto\n")
                assert b"?sensor-sampling[5] b none\n" == await peer.line()
                peer.send(b"!sensor-sampling[5] ok b none\n")
                await watcher.until("SYNCED")
                assert (
                    "start | filter c | +c integer | filter b | -b | filter a | +a integer | stop"
                    " | start | c=1 NOMINAL 7.0 | stop | start | a=1 NOMINAL 7.0 | stop | SYNCED"
                ) == watcher.heard()
                peer.send(b"#interface-changed sensor c removed\n")
                assert b"?sensor-list[6]\n" == await peer.line()
                peer.send(
                    listing(6, b"d \\@ \\@ integer", b"a \\@ \\@ integer", b"b \\@ changed discrete on off")
                )
                assert b"?sensor-sampling[7] d auto\n" == await peer.line()
                peer.send(b"!sensor-sampling[7] ok d auto\n")
                await watcher.until("SYNCED")
                assert "SYNCING | start | filter d | +d integer | -c | stop | SYNCED" == watcher.heard()
                client.close()
                assert "CLOSED" == watcher.heard()
            assert "" == watcher.heard()

    host.run(main)


def test_lost_connection(host: Host) -> None:
    """What is known stays known over a reconnection: unchanged sensors are only subscribed again."""

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, watcher)
            async with client:
                await synced(peer, watcher, b"a", b"b")
                client.add_disconnected_callback(lambda: watcher.told.append("disconnected"))
                peer.close()
                await watcher.until("DISCONNECTED")
                assert {"DISCONNECTED", "disconnected"} == set(watcher.told)
                watcher.heard()
                peer = await server.accept()
                peer.greet()
                assert b"?sensor-list[3]\n" == await peer.line()
                peer.send(listing(3, b"a \\@ \\@ integer"))
                assert b"?sensor-sampling[4] a auto\n" == await peer.line()
                peer.send(b"#sensor-status 9 1 a nominal 9\n!sensor-sampling[4] ok a auto\n")
                await watcher.until("SYNCED")
                assert (
                    "SYNCING | start | -b | stop | start | a=9 NOMINAL 9.0 | stop | SYNCED" == watcher.heard()
                )

    host.run(main)


def test_late_watcher(host: Host) -> None:
    """A watcher that comes late is told what is known in one batch; adding it again does nothing."""

    async def main() -> None:
        async with raw_server() as server:
            first, late = Recorder(), Recorder()
            client, peer = await connect(server, first)
            async with client:
                await synced(peer, first, b"a", b"b")
                late.unwanted = {"b"}
                client.add_sensor_watcher(late)
                client.add_sensor_watcher(late)
                assert (
                    "SYNCED | start | filter a | +a integer | a=1 NOMINAL 1.0 | filter b | stop"
                    == late.heard()
                )
                assert "" == first.heard()
                client.remove_sensor_watcher(late)
                client.remove_sensor_watcher(late)
                client.remove_sensor_watcher(Recorder())
                peer.send(b"#sensor-status 3 1 a nominal 3\n")
                await first.until("a=3 NOMINAL 3.0")
                assert "" == late.heard()
                assert await peer.has_nothing()

    host.run(main)


def test_last_watcher_goes(host: Host) -> None:
    """Sensors that nobody wants any more are unsubscribed, and those that somebody else wants are not."""

    async def main() -> None:
        async with raw_server() as server:
            first, second = Recorder(), Recorder()
            second.unwanted = {"a", "b"}
            client, peer = await connect(server, first, second)
            async with client:
                await synced(peer, first, b"a", b"b", b"c")
                second.heard()
                client.remove_sensor_watcher(first)
                assert b"?sensor-sampling[3] a,b none\n" == await peer.line()
                peer.send(b"!sensor-sampling[3] ok a,b none\n")
                await second.until("SYNCED")
                assert "SYNCING | SYNCED" == second.heard()
                assert "" == first.heard()
                # A reading of a sensor that nobody wants means that it is subscribed all the same.
                peer.send(b"#sensor-status 5 1 a nominal 5\n")
                assert b"?sensor-sampling[4] a none\n" == await peer.line()
                peer.send(b"!sensor-sampling[4] ok a none\n")
                client.remove_sensor_watcher(second)
                assert b"?sensor-sampling[5] c none\n" == await peer.line()
                peer.send(b"!sensor-sampling[5] ok c none\n")
                assert await peer.has_nothing()

    host.run(main)


def test_bulk_is_refused(host: Host, caplog: Any) -> None:
    """Where a bulk is refused, sensors are asked for one by one; one that is refused costs a warning."""

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, watcher)
            async with client:
                assert b"?sensor-list[1]\n" == await peer.line()
                peer.send(listing(1, b"c \\@ \\@ integer", b"a \\@ \\@ integer", b"b \\@ \\@ integer"))
                assert b"?sensor-sampling[2] a,b,c auto\n" == await peer.line()
                peer.send(b"!sensor-sampling[2] fail Unknown\\_sensor\n")
                assert [
                    b"?sensor-sampling[3] a auto\n",
                    b"?sensor-sampling[4] b auto\n",
                    b"?sensor-sampling[5] c auto\n",
                ] == await peer.lines(3)
                peer.send(b"!sensor-sampling[5] ok\n!sensor-sampling[4] fail gone\n!sensor-sampling[3] ok\n")
                await watcher.until("SYNCED")
                assert await peer.has_nothing()

    host.run(main)
    (record,) = logged(caplog)
    assert "aiokatcp.client" == record.name
    assert record.getMessage().startswith("Failed to set strategy on b to auto: gone")


def test_server_without_bulk(host: Host) -> None:
    """A server that cannot sample in bulk is asked for each sensor, in order of their names, all at once."""

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, watcher, flags="MI")
            async with client:
                await peer.line()
                peer.send(listing(1, b"b \\@ \\@ integer", b"a \\@ \\@ integer"))
                assert [b"?sensor-sampling[2] a auto\n", b"?sensor-sampling[3] b auto\n"] == await peer.lines(
                    2
                )
                peer.send(b"!sensor-sampling[2] ok\n!sensor-sampling[3] ok\n")
                await watcher.until("SYNCED")

    host.run(main)


def test_nonsense(host: Host, caplog: Any) -> None:
    """Malformed lists and statuses cost a warning each, change nothing and break nothing."""

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, watcher)
            async with client:
                assert b"?sensor-list[1]\n" == await peer.line()
                peer.send(listing(1, b"short \\@", b"\xff \\@ \\@ integer", b"a \\@ \\@ integer"))
                assert b"?sensor-sampling[2] a auto\n" == await peer.line()
                peer.send(b"!sensor-sampling[2] ok\n")
                await watcher.until("SYNCED")
                assert 2 == len(logged(caplog))
                watcher.heard()
                peer.send(b"#sensor-status\n#sensor-status 1\n#sensor-status x 1 a nominal 1\n")
                peer.send(b"#sensor-status 1 x a nominal 1\n#sensor-status 1 -1 a nominal 1\n")
                peer.send(b"#sensor-status 1 2 a nominal 1\n#sensor-status 1 1 a nominal\n")
                peer.send(b"#sensor-status 1 4 nobody nominal 1 \xff nominal 1 a carrot 1 a nominal 8\n")
                await watcher.until("a=8 NOMINAL 1.0")
                assert "start | a=8 NOMINAL 1.0" == watcher.heard().removesuffix(" | stop")
                assert await peer.has_nothing()

    host.run(main)
    assert 2 + 7 + 3 == len(logged(caplog))
    assert {"aiokatcp.client"} == {record.name for record in logged(caplog)}


def test_failing_watcher(host: Host, caplog: Any) -> None:
    """What a watcher raises is logged; it keeps nothing from happening, and is not tried for ever."""

    class Failing(AbstractSensorWatcher):
        def sensor_added(self, *args: Any) -> None:
            raise KeyError("added")

        def sensor_updated(self, *args: Any) -> None:
            raise KeyError("updated")

        def batch_stop(self) -> None:
            raise KeyError("stop")

        def state_updated(self, state: SyncState) -> None:
            raise KeyError("state")

    async def main() -> None:
        async with raw_server() as server:
            watcher = Recorder()
            client, peer = await connect(server, Failing(), watcher)
            async with client:
                await synced(peer, watcher, b"a", b"b")
                assert await peer.has_nothing()

    host.run(main)
    assert logged(caplog)
    assert all(record.exc_info and isinstance(record.exc_info[1], KeyError) for record in logged(caplog))
    assert {"aiokatcp.client"} == {record.name for record in logged(caplog)}


def test_watchers_change_inside_a_callback(host: Host) -> None:
    """A watcher may add others, and remove itself, when it is told something."""

    async def main() -> None:
        async with raw_server() as server:
            second = Recorder()

            class Replacing(AbstractSensorWatcher):
                def sensor_added(self, *args: Any) -> None:
                    client.add_sensor_watcher(second)
                    client.remove_sensor_watcher(self)

            client, peer = await connect(server, Replacing())
            async with client:
                await synced(peer, second, b"a", b"b")
                peer.send(b"#sensor-status 3 1 b nominal 3\n")
                await second.until("b=3 NOMINAL 3.0")

    host.run(main)


def test_watcher_of_a_closed_client(host: Host) -> None:
    """A watcher that is added after close is told that the client is closed."""

    async def main() -> None:
        client = Client("127.0.0.1", 1, auto_reconnect=False)
        client.close()
        watcher = Recorder()
        client.add_sensor_watcher(watcher)
        assert "CLOSED | start | stop" == watcher.heard()
        await client.wait_closed()

    host.run(main)


# -- mirrors ----------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1
    DEEP_BLUE = 2


class Shape(enum.Enum):
    ROUND = b"O"
    SQUARE = b"[]"

    @property
    def katcp_value(self) -> bytes:
        return self.value  # type: ignore[no-any-return]


class OnlyLogger:
    """As much of a client as a mirror needs."""

    logger = logging.getLogger("aiokatcp.client")


def mirror(**options: Any) -> SensorWatcher:
    """A mirror without a client."""
    return SensorWatcher(OnlyLogger(), **options)  # type: ignore[arg-type]


def test_types(caplog: Any) -> None:
    """Sensors are of the type that their server says, and unknown before their first reading."""
    watcher = mirror(enum_types=[Colour, Shape])
    for name, type_name, raw, cls, value in (
        ("i", "integer", b"-5", int, -5),
        ("f", "float", b"1e3", float, 1000.0),
        ("b", "boolean", b"1", bool, True),
        ("t", "timestamp", b"5.5", Timestamp, 5.5),
        ("a", "address", b"[::1]:80", Address, Address.parse(b"[::1]:80")),
        ("s", "string", b"\xff x", bytes, b"\xff x"),
    ):
        watcher.sensor_added(name, "what it is", "V", type_name)
        sensor = watcher.sensors[name]
        assert isinstance(sensor, Sensor)
        assert (cls, "what it is", "V") == (sensor.stype, sensor.description, sensor.units)
        assert Sensor.Status.UNKNOWN is sensor.status
        watcher.sensor_updated(name, raw, Sensor.Status.WARN, 7.5)
        assert aiokatcp.Reading(7.5, Sensor.Status.WARN, value) == sensor.reading

    watcher.sensor_added("c", "", "", "discrete", b"red", b"deep-blue")
    watcher.sensor_added("p", "", "", "discrete", b"O", b"[]")
    watcher.sensor_updated("c", b"deep-blue", Sensor.Status.NOMINAL, 1)
    watcher.sensor_updated("p", b"[]", Sensor.Status.NOMINAL, 1)
    assert Colour.DEEP_BLUE is watcher.sensors["c"].value
    assert Shape.SQUARE is watcher.sensors["p"].value

    watcher.sensor_added("d", "", "", "discrete", b"deep-blue", b"red")
    watcher.sensor_added("e", "", "", "discrete", b"deep-blue", b"red")
    made = watcher.sensors["d"].stype
    assert made is watcher.sensors["e"].stype is watcher.make_type("discrete", [b"deep-blue", b"red"])
    assert ["ENUM0", "ENUM1"] == [member.name for member in made]
    assert [b"deep-blue", b"red"] == [aiokatcp.encode(member) for member in made]
    assert "discrete" == made.__name__

    assert [] == logged(caplog)
    watcher.sensor_updated("i", b"x", Sensor.Status.NOMINAL, 8)
    watcher.sensor_updated("d", b"green", Sensor.Status.NOMINAL, 8)
    watcher.sensor_updated("nobody", b"1", Sensor.Status.NOMINAL, 8)
    watcher.sensor_added("u", "", "", "carrot")
    watcher.sensor_added("v", "", "", "discrete")
    watcher.sensor_updated("u", b"1", Sensor.Status.NOMINAL, 8)
    watcher.sensor_removed("u")
    watcher.sensor_removed("nobody")
    assert [
        "Sensor i: value b'x' does not match type integer: invalid literal for int() with base 10: b'x'",
        "Sensor d: value b'green' does not match type discrete: b'green' is not a valid value for discrete",
        "Received update for unknown sensor nobody",
        "Type carrot is not recognised, skipping sensor u",
        "Type discrete is not recognised, skipping sensor v",
        "Received update for unknown sensor u",
    ] == [record.getMessage() for record in logged(caplog)]
    assert -5 == watcher.sensors["i"].value
    assert {"u", "v"}.isdisjoint(watcher.sensors)


def test_changed_sensor() -> None:
    """A sensor that changes is replaced, and one that is of no known type any more is dropped."""
    watcher = mirror()
    added: list[str] = []
    removed: list[str] = []
    watcher.sensors.add_add_callback(lambda sensor: added.append(sensor.type_name))
    watcher.sensors.add_remove_callback(lambda sensor: removed.append(sensor.type_name))
    watcher.sensor_added("a", "", "", "integer")
    watcher.sensor_added("a", "", "", "float")
    assert (["integer", "float"], ["integer"]) == (added, removed)
    watcher.sensor_added("a", "", "", "carrot")
    assert ["integer", "float"] == removed
    watcher.sensor_added("a", "", "", "string")
    watcher.sensor_removed("a")
    assert ["integer", "float", "string"] == removed
    assert 0 == len(watcher.sensors)


def test_rewritten_names(caplog: Any) -> None:
    """A sensor may have another name here, or several; one that was removed here by hand is unknown."""

    class Renamed(SensorWatcher):
        def rewrite_name(self, name: str) -> str | Sequence[str]:
            return f"x.{name}" if name == "one" else [f"x.{name}", f"y.{name}"]

    watcher = Renamed(OnlyLogger())  # type: ignore[arg-type]
    for name in ("one", "two"):
        watcher.sensor_added(name, "", "", "integer")
        watcher.sensor_updated(name, b"5", Sensor.Status.NOMINAL, 1)
    assert {"x.one": 5, "x.two": 5, "y.two": 5} == {s.name: s.value for s in watcher.sensors.values()}
    assert [] == logged(caplog)
    watcher.sensors.pop("x.two")
    watcher.sensor_updated("two", b"6", Sensor.Status.NOMINAL, 1)
    assert 6 == watcher.sensors["y.two"].value
    assert ["Received update for unknown sensor two"] == [record.getMessage() for record in logged(caplog)]
    watcher.sensor_removed("two")
    assert ["x.one"] == list(watcher.sensors)


def test_states() -> None:
    """The mirror is synced exactly in SYNCED; without a connection its sensors are unreachable."""
    watcher = mirror()
    seen: list[Any] = []

    class Counting(SensorWatcher):
        def set_sensor_value(self, sensor: Any, value: Any, status: Any, timestamp: float) -> None:
            seen.append((sensor.name, value, status, timestamp))
            super().set_sensor_value(sensor, value + 1, status, timestamp)

    watcher = Counting(OnlyLogger())  # type: ignore[arg-type]
    watcher.sensor_added("a", "", "", "integer")
    watcher.sensor_updated("a", b"5", Sensor.Status.NOMINAL, 3.0)
    assert [("a", 5, Sensor.Status.NOMINAL, 3.0)] == seen
    assert 6 == watcher.sensors["a"].value
    flags = []
    for state in (SyncState.SYNCING, SyncState.SYNCED, SyncState.SYNCING, SyncState.SYNCED, SyncState.CLOSED):
        watcher.state_updated(state)
        flags.append(watcher.synced.is_set())
    assert [False, True, False, True, False] == flags
    assert Sensor.Status.NOMINAL is watcher.sensors["a"].status
    watcher.state_updated(SyncState.DISCONNECTED)
    reading = watcher.sensors["a"].reading
    assert (Sensor.Status.UNREACHABLE, 6) == (reading.status, reading.value)
    assert reading.timestamp > 1e9
    assert 1 == len(seen)


def test_types_of_a_subclass(caplog: Any) -> None:
    """A subclass may know more types, and add sensors itself."""

    class More(SensorWatcher):
        SENSOR_TYPES = {**SensorWatcher.SENSOR_TYPES, "string": str, "lru": bytes}  # noqa: RUF012

        def sensor_added(self, name: str, *args: Any) -> None:
            if name == "own":
                self.sensors.add(Sensor(float, "own"))
            else:
                super().sensor_added(name, *args)

    watcher = More(OnlyLogger())  # type: ignore[arg-type]
    for name, type_name in (("s", "string"), ("l", "lru"), ("own", "integer")):
        watcher.sensor_added(name, "", "", type_name)
        watcher.sensor_updated(name, b"5", Sensor.Status.NOMINAL, 3.0)
    assert {"s": "5", "l": b"5", "own": 5.0} == {s.name: s.value for s in watcher.sensors.values()}
    assert [] == logged(caplog)


def test_no_calls_around_batches_for_those_who_do_not_hear_them(host: Host) -> None:
    """A watcher that overrides neither batch_start nor batch_stop costs one call for each update."""

    class Batchless(AbstractSensorWatcher):
        def __init__(self) -> None:
            self.updates = 0

        def sensor_updated(self, *args: Any) -> None:
            self.updates += 1

    async def main() -> None:
        async with raw_server() as server:
            watcher, recorder = Batchless(), Recorder()
            client, peer = await connect(server, watcher, recorder)
            async with client:
                await synced(peer, recorder, b"a", b"b")
                assert 2 == watcher.updates
                peer.send(b"#sensor-status 3 1 a nominal 3\n")
                await recorder.until("stop")
                assert 3 == watcher.updates

    host.run(main)


def same(watcher: SensorWatcher, device: katcp.Device) -> bool:
    """Whether a mirror says over the wire what the device says."""
    mirrored, there = watcher.sensors, device.sensors
    return sorted(mirrored) == sorted(there) and all(
        sensor.encoded_description() == mirrored[name].encoded_description()
        and sensor.encoded_reading() == mirrored[name].encoded_reading()
        for name, sensor in there.items()
    )


async def until_same(watcher: SensorWatcher, device: katcp.Device) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (watcher.synced.is_set() and same(watcher, device)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_mirror_of_a_device(host: Host) -> None:
    """A mirror follows a real device through additions, removals, replacements, updates, and its absence."""

    async def main() -> None:
        device = DemoDevice()
        sensors = device.sensors
        for name, cls, default in (("when", Timestamp, Timestamp(5.5)), ("raw", bytes, b"\xff \n")):
            sensors.add(katcp.Sensor(cls, name, default=default))
        async with served(device) as port:
            client = await Client.connect("127.0.0.1", port)
            watcher = SensorWatcher(client, [katcp.DeviceStatus])
            client.add_sensor_watcher(watcher)
            await asyncio.wait_for(watcher.synced.wait(), PATIENCE)
            assert same(watcher, device)
            device.status.value = katcp.DeviceStatus.DEGRADED
            sensors.add(katcp.Sensor(int, "new"))
            sensors.pop("counter")
            sensors.add(katcp.Sensor(str, "temperature", "Now in words", default="warm"))
            await until_same(watcher, device)
            assert katcp.DeviceStatus.DEGRADED is watcher.sensors["device-status"].value
            sensors["temperature"].value = "cold"
            for value in range(1000):
                sensors["new"].value = value
            await until_same(watcher, device)
            assert b"cold" == watcher.sensors["temperature"].value

        async with asyncio.timeout(PATIENCE):
            await client.wait_disconnected()
        assert not watcher.synced.is_set()
        assert {Sensor.Status.UNREACHABLE} == {sensor.status for sensor in watcher.sensors.values()}
        sensors.add(katcp.Sensor(int, "while away", default=5))
        async with served(device, port):
            await until_same(watcher, device)
            await client.request("watchdog")
            client.remove_sensor_watcher(watcher)
            async with asyncio.timeout(PATIENCE):
                while any(sensor._observers for sensor in sensors.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            client.close()
            await client.wait_closed()

    host.run(main)


def test_many_sensors(host: Host) -> None:
    """A few thousand sensors are mirrored, and unsubscribed when their watcher goes."""

    async def main() -> None:
        device = DemoDevice()
        for number in range(2500):
            device.sensors.add(katcp.Sensor(int, f"sensor-{number}", default=number))
        async with served(device) as port:
            async with await Client.connect("127.0.0.1", port) as client:
                watcher = SensorWatcher(client)
                client.add_sensor_watcher(watcher)
                await until_same(watcher, device)
                client.remove_sensor_watcher(watcher)
                async with asyncio.timeout(PATIENCE):
                    while any(sensor._observers for sensor in device.sensors.values()):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)

    host.run(main)


@pytest.mark.parametrize("made_first", [True, False])
def test_logger_of_the_client(host: Host, made_first: bool) -> None:
    """A mirror takes its client's logger as it is when the mirror is made."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            early = SensorWatcher(client)
            (await server.accept()).greet()
            await client.wait_connected()
            late = SensorWatcher(client)
            watcher, kind = (early, logging.Logger) if made_first else (late, logging.LoggerAdapter)
            assert isinstance(watcher.logger, kind)
            client.close()
            await client.wait_closed()

    host.run(main)
