"""Mirrors: a set of sensors here that is what the server has, whatever happens to either."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary import katcp
from armillary.errors import ConnectionClosed
from armillary.katcp import Sensor, SensorStatus, SyncState, Timestamp
from armillary.testing import DemoDevice, RawPeer, ServedDevice, bounded_stream_pair, serve_in_memory


class Colour(enum.Enum):
    RED = 1
    DEEP_BLUE = 2


def same(here: Any, there: Any) -> None:
    """Assert that two sets of sensors say the same over the wire."""
    assert sorted(there) == sorted(here)
    for name, sensor in there.items():
        assert sensor.encoded_description() == here[name].encoded_description()
        assert sensor.encoded_reading() == here[name].encoded_reading()


async def quiet() -> None:
    """Let everything that is on its way arrive; announcements take up to a twentieth of a second."""
    await trio.sleep(1)


async def test_every_type(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Sensors of every type arrive with type, units, description, status, value and time."""
    sensors = served_device.device.sensors
    sensors.add(Sensor(Timestamp, "when", default=Timestamp(5.5)))
    sensors.add(Sensor(bool, "on", default=True))
    sensors.add(Sensor(bytes, "raw", "Bytes \\ and \t blanks", default=b"\xff \n"))
    sensors.add(Sensor(katcp.Address, "where"))
    sensors.add(Sensor(Colour, "colour", default=Colour.DEEP_BLUE))
    async with served_device.open_client() as client, client.mirror_sensors(enum_types=[Colour]) as mirrored:
        await mirrored.wait_synced()
        same(mirrored, sensors)
        assert Colour.DEEP_BLUE is mirrored["colour"].value
        assert 5.5 == mirrored["when"].value
        assert mirrored["on"].value is True


async def test_updates_and_changes(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Updates arrive in the set and in the loop over changes; a slow loop gets the latest of each sensor."""
    device = served_device.device
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        await mirrored.wait_synced()
        changes = mirrored.changes()
        for value in range(100):
            device.sensors["counter"].value = value
            device.sensors["temperature"].value = value / 2
        await quiet()
        first, second = await anext(changes), await anext(changes)
        assert {"counter": 99, "temperature": 49.5} == {
            change.name: change.reading.value for change in (first, second)
        }
        device.sensors.pop("counter")
        await quiet()
        gone = await anext(changes)
        assert ("counter", None, None) == (gone.name, gone.sensor, gone.reading)
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


async def test_additions_removals_and_changes_of_type(
    autojump_clock: Any, served_device: ServedDevice
) -> None:
    """Sensors that come, go, or change their type do so in the mirror, and updates go on."""
    sensors = served_device.device.sensors
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        await mirrored.wait_synced()
        sensors.add(Sensor(int, "new"))
        sensors.pop("counter")
        sensors.add(Sensor(str, "temperature", "Now in words", default="warm"))
        await quiet()
        same(mirrored, sensors)
        sensors["temperature"].value = "cold"
        sensors["new"].value = 5
        await quiet()
        same(mirrored, sensors)
        assert b"cold" == mirrored["temperature"].value


async def test_filter_and_rename(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Only wanted sensors are mirrored and subscribed, under the names that they are given."""
    device = served_device.device
    async with (
        served_device.open_client() as client,
        client.mirror_sensors(
            filter=lambda sensor: sensor.type_name != "discrete",
            rename=lambda name: [f"a.{name}", f"b.{name}"] if name == "counter" else f"a.{name}",
            strategy="event",
        ) as mirrored,
    ):
        await mirrored.wait_synced()
        assert ["a.counter", "a.temperature", "b.counter"] == sorted(mirrored)
        device.sensors["counter"].value = 7
        await quiet()
        assert [7, 7] == [mirrored["a.counter"].value, mirrored["b.counter"].value]
        assert device.sensors["device-status"]._observers is None


async def test_strategy_for_each_sensor(autojump_clock: Any, served_device: ServedDevice) -> None:
    """The strategy may differ from sensor to sensor."""
    device = served_device.device
    async with (
        served_device.open_client() as client,
        client.mirror_sensors(
            strategy=lambda sensor: "period 10" if sensor.name == "temperature" else "auto"
        ) as mirrored,
    ):
        await mirrored.wait_synced()
        device.sensors["temperature"].value = 5.0
        device.sensors["counter"].value = 5
        await quiet()
        assert (20.0, 5) == (mirrored["temperature"].value, mirrored["counter"].value)
        await trio.sleep(10)
        assert 5.0 == mirrored["temperature"].value


async def test_two_mirrors_of_one_client(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Mirrors share one subscription, which ends with the last of them that wants the sensor."""
    device = served_device.device
    async with served_device.open_client() as client:
        async with client.mirror_sensors(filter=lambda s: s.name == "counter") as few:
            await few.wait_synced()
            async with client.mirror_sensors() as all_of_them:
                await all_of_them.wait_synced()
                device.sensors["counter"].value = 1
                await quiet()
                assert (1, 1) == (few["counter"].value, all_of_them["counter"].value)
            await quiet()
            assert device.sensors["temperature"]._observers is None
            device.sensors["counter"].value = 2
            await quiet()
            assert (2, 1) == (few["counter"].value, all_of_them["counter"].value)
        await quiet()
        assert device.sensors["counter"]._observers is None


async def test_unreachable_and_back(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Without connection sensors keep their value and are unreachable; later they are the same objects."""
    device = served_device.device
    device.sensors["counter"].value = 3
    async with served_device.open_persistent_client() as client, client.mirror_sensors() as mirrored:
        await mirrored.wait_synced()
        counter = mirrored["counter"]
        device.restart()
        await client.wait_disconnected()
        await trio.testing.wait_all_tasks_blocked()
        assert (SensorStatus.UNREACHABLE, 3) == (counter.status, counter.value)
        assert SyncState.DISCONNECTED is mirrored.state
        device.sensors.pop("temperature")
        await mirrored.wait_synced()
        assert counter is mirrored["counter"]
        same(mirrored, device.sensors)
    assert SensorStatus.NOMINAL is counter.status


async def test_mirror_opened_before_the_server_is_there(autojump_clock: Any) -> None:
    """A mirror may be opened without connection, and fills when there is one."""
    async with serve_in_memory(DemoDevice()) as served, served.open_persistent_client() as client:
        async with client.mirror_sensors() as mirrored:
            assert SyncState.DISCONNECTED is mirrored.state
            await mirrored.wait_synced()
            same(mirrored, served.device.sensors)


async def test_nothing_to_wait_for(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Waiting for a mirror whose client has lost its only connection raises, before and while it waits."""
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        served_device.device.halt()
        await quiet()
        assert SyncState.CLOSED is mirrored.state
        with pytest.raises(ConnectionClosed, match="not in step any more"):
            await mirrored.wait_synced()


async def test_loops_end_with_the_only_connection(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Loops over changes and informs end when an open_client loses its connection, begun before or after."""
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        await mirrored.wait_synced()
        before = mirrored.changes()
        served_device.device.halt()
        with client.informs("news") as news:
            assert [] == [inform async for inform in news]
        async for _ in before:
            pass
        assert [] == [change async for change in mirrored.changes()]
        with client.informs("news") as news:
            assert [] == [inform async for inform in news]


async def test_wait_for(autojump_clock: Any, served_device: ServedDevice) -> None:
    """A reading can be waited for: one that is there already, one to come, and one of a sensor to come."""
    sensors = served_device.device.sensors
    sensors["counter"].value = 5
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        assert 5 == (await mirrored.wait_for("counter")).value
        assert 5 == (await mirrored.wait_for("counter", lambda reading: reading.value > 3)).value

        async def change_later() -> None:
            for value in range(6, 20):
                await trio.sleep(1)
                sensors["counter"].value = value
            sensors.add(Sensor(str, "late"))
            await trio.sleep(1)
            sensors["late"].value = "here"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change_later)
            assert 10 == (await mirrored.wait_for("counter", lambda reading: reading.value == 10)).value
            assert 5 == trio.current_time()
            assert b"here" == (await mirrored.wait_for("late", lambda r: r.status.valid_value())).value
        served_device.device.halt()
        with pytest.raises(ConnectionClosed):
            await mirrored.wait_for("counter", lambda reading: reading.value == -1)


async def test_sensor_that_comes_back_later(autojump_clock: Any, served_device: ServedDevice) -> None:
    """A sensor removed and, long after, replaced by its like is subscribed again, named or among others."""
    sensors = served_device.device.sensors
    async with served_device.open_client() as client, client.mirror_sensors(strategy="event") as mirrored:
        await mirrored.wait_synced()
        gone = sensors.pop("counter")
        sensors.add(Sensor(int, "another"))
        await trio.sleep(0.051)
        replacement = Sensor(int, "counter", gone.description)
        sensors.add(replacement)
        sensors.add(Sensor(int, "one more"))
        await quiet()
        replacement.value = 77
        await quiet()
        assert 77 == mirrored["counter"].value


async def test_many_sensors(autojump_clock: Any, served_device: ServedDevice) -> None:
    """Thousands of sensors are subscribed in bulk and all arrive."""
    sensors = served_device.device.sensors
    for index in range(2500):
        sensors.add(Sensor(int, f"many.{index}", default=index))
    async with served_device.open_client() as client, client.mirror_sensors() as mirrored:
        await mirrored.wait_synced()
        same(mirrored, sensors)


class Script:
    """A server in the test's hands that answers what a mirror asks, as it is told to."""

    def __init__(self, flags: str) -> None:
        self.ours, theirs = bounded_stream_pair()
        self.peer = RawPeer(theirs)
        self.flags = flags
        self.asked: list[str] = []
        self.descriptions = [b"a A \\@ integer", b"b B \\@ integer"]
        self.refused: set[str] = set()
        self.initial = b""

    async def run(self) -> None:
        await self.peer.greet(self.flags)
        while line := await self.peer.receive():
            request = katcp.Message.parse(line)
            words = [argument.decode() for argument in request.arguments]
            self.asked.append(" ".join([request.name, *words]))
            mid = b"[%d]" % request.mid if request.mid is not None else b""
            if request.name == "sensor-list":
                for description in self.descriptions:
                    await self.peer.send(b"#sensor-list%b %b\n" % (mid, description))
                await self.peer.send(b"!sensor-list%b ok %d\n" % (mid, len(self.descriptions)))
            elif words[0] in self.refused or any(name in self.refused for name in words[0].split(",")):
                await self.peer.send(b"!%b%b fail no\n" % (request.name.encode(), mid))
            else:
                await self.peer.send(self.initial)
                await self.peer.send(b"!%b%b ok %b\n" % (request.name.encode(), mid, words[0].encode()))


async def test_bulk_is_refused(autojump_clock: Any, caplog: Any) -> None:
    """A server that refuses a bulk subscription is asked for each sensor; what it refuses is left."""
    script = Script("MIB")
    script.refused = {"b"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run)
        async with katcp.open_client_on(script.ours) as client, client.mirror_sensors() as mirrored:
            await mirrored.wait_synced()
            await quiet()
        nursery.cancel_scope.cancel()
    assert [
        "sensor-list",
        "sensor-sampling a,b auto",
        "sensor-sampling a auto",
        "sensor-sampling b auto",
    ] == script.asked
    assert ["Failed to set strategy on b to auto: no"] == [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("flags", ["MI", "M", "MB"])
async def test_servers_that_can_do_less(autojump_clock: Any, flags: str) -> None:
    """Servers without bulk sampling or without message ids are mirrored all the same."""
    script = Script(flags)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run)
        async with katcp.open_client_on(script.ours) as client:
            async with client.mirror_sensors() as mirrored:
                await mirrored.wait_synced()
            await quiet()
        nursery.cancel_scope.cancel()
    if "B" in flags:
        assert ["sensor-list", "sensor-sampling a,b auto", "sensor-sampling a,b none"] == script.asked
    else:
        names = ["a auto", "b auto", "a none", "b none"]
        assert ["sensor-list", *(f"sensor-sampling {name}" for name in names)] == script.asked


@pytest.mark.parametrize(
    "status",
    [
        b"#sensor-status",
        b"#sensor-status x 1 a nominal 5",
        b"#sensor-status 1 x a nominal 5",
        b"#sensor-status 1 -1",
        b"#sensor-status 1 2 a nominal 5",
        b"#sensor-status 1 1 a nominal",
        b"#sensor-status 1 1 \xff nominal 5",
        b"#sensor-status 1 1 a carrot 5",
        b"#sensor-status 1 1 c nominal 5",
        b"#sensor-status 1 1 a nominal carrot",
        b"#sensor-status 1 0",
    ],
)
async def test_odd_status(autojump_clock: Any, status: bytes) -> None:
    """A status that makes no sense changes nothing and breaks nothing."""
    script = Script("MIB")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run)
        async with katcp.open_client_on(script.ours) as client, client.mirror_sensors() as mirrored:
            await mirrored.wait_synced()
            before = mirrored["a"].reading
            await script.peer.send(status + b"\n")
            await quiet()
            assert before is mirrored["a"].reading
            await script.peer.send(b"#sensor-status 9 2 b nominal 6 a warn 7\n")
            await quiet()
            assert katcp.Reading(9.0, SensorStatus.WARN, 7) == mirrored["a"].reading
            assert 6 == mirrored["b"].value
        nursery.cancel_scope.cancel()


async def test_odd_descriptions(autojump_clock: Any, caplog: Any) -> None:
    """A malformed description, an unknown type and a bad name are skipped, with a warning each."""
    script = Script("MIB")
    script.descriptions += [b"short", b"\xff x x integer", b"odd O \\@ lru", b"empty E \\@ discrete"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run)
        async with katcp.open_client_on(script.ours) as client, client.mirror_sensors() as mirrored:
            await mirrored.wait_synced()
            assert ["a", "b"] == sorted(mirrored)
        nursery.cancel_scope.cancel()
    assert 4 == len(caplog.records)


async def test_failing_filter_is_not_tried_for_ever(autojump_clock: Any, caplog: Any) -> None:
    """A filter that raises is logged; the server is not asked again and again."""
    script = Script("MIB")

    def broken(sensor: katcp.SensorDescription) -> bool:
        raise RuntimeError(f"no {sensor.name}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run)
        async with katcp.open_client_on(script.ours) as client:
            async with client.mirror_sensors(filter=broken) as mirrored:
                await mirrored.wait_synced()
                await trio.sleep(100)
                assert [] == list(mirrored)
        nursery.cancel_scope.cancel()
    assert ["sensor-list"] == script.asked
    assert 2 == len(caplog.records)


async def test_refused_list_is_asked_again_later(autojump_clock: Any) -> None:
    """A server that refuses its list is asked again after a while, not in a tight loop."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    times = []

    async def refuse() -> None:
        await server.greet()
        for mid in range(1, 6):
            assert b"?sensor-list[%d]\n" % mid == await server.receive()
            times.append(trio.current_time())
            await server.send(b"!sensor-list[%d] fail not\\_yet\n" % mid)

    async with server.closing(), trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        async with katcp.open_client_on(ours) as client, client.mirror_sensors():
            await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert 5 == len(times)
    assert times[-1] >= 7


async def test_change_of_the_interface_during_a_list(autojump_clock: Any) -> None:
    """A change announced while the list is on its way makes that list be asked for again."""
    ours, theirs = bounded_stream_pair()
    server = RawPeer(theirs)
    await server.greet()
    async with server.closing(), katcp.open_client_on(ours) as client, client.mirror_sensors() as mirrored:
        assert b"?sensor-list[1]\n" == await server.receive()
        await server.send(b"#interface-changed sensor-list\n!sensor-list[1] ok 0\n")
        assert b"?sensor-list[2]\n" == await server.receive()
        assert SyncState.SYNCING is mirrored.state
        await server.send(b"!sensor-list[2] ok 0\n")
        await mirrored.wait_synced()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), st.sampled_from([int, float, str, Colour])),
        st.tuples(st.just("remove"), st.integers(0, 5), st.none()),
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 9)),
        st.tuples(st.just("restart"), st.none(), st.none()),
        st.tuples(st.just("watch"), st.integers(0, 2), st.none()),
        st.tuples(st.just("unwatch"), st.integers(0, 2), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, 3.0]), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=120, deadline=None)
def test_mirror_is_in_step(steps: list[tuple[str, Any, Any]]) -> None:
    """After any mix of changes and interruptions and a second of quiet, mirror and server say the same."""
    trio.run(_mix, steps, clock=trio.testing.MockClock(autojump_threshold=0))


async def _mix(steps: list[tuple[str, Any, Any]]) -> None:
    values = {
        int: lambda n: n,
        float: lambda n: n / 2,
        str: str,
        Colour: lambda n: list(Colour)[n % 2],
    }
    device = DemoDevice()
    mirrors: dict[int, tuple[Any, trio.CancelScope]] = {}

    async def mirror(client: katcp.Client, index: int, task_status: Any) -> None:
        with trio.CancelScope() as scope:
            async with client.mirror_sensors(filter=lambda s: index == 0 or str(index) in s.name) as sensors:
                mirrors[index] = sensors, scope
                task_status.started()
                await trio.sleep_forever()

    async with (
        serve_in_memory(device) as served,
        served.open_persistent_client() as client,
        trio.open_nursery() as nursery,
    ):
        for verb, what, how in steps:
            name = f"s{what}"
            if verb == "add":
                device.sensors.add(Sensor(how, name))
            elif verb == "remove":
                device.sensors.pop(name, None)
            elif verb == "set" and name in device.sensors:
                sensor = device.sensors[name]
                sensor.value = values[sensor.stype](how)  # type: ignore[operator]
            elif verb == "restart":
                device.restart()
            elif verb == "watch" and what not in mirrors:
                await nursery.start(mirror, client, what)
            elif verb == "unwatch" and what in mirrors:
                mirrors.pop(what)[1].cancel()
                await trio.testing.wait_all_tasks_blocked()
            elif verb == "wait":
                await trio.sleep(what)
        await client.wait_connected()
        await trio.sleep(2)
        await client.wait_connected()
        await trio.sleep(1)
        wanted: set[str] = set()
        for index, (sensors, _) in mirrors.items():
            there = {n: s for n, s in device.sensors.items() if index == 0 or str(index) in n}
            wanted |= set(there)
            same(sensors, there)
            assert SyncState.SYNCED is sensors.state
        assert wanted == {n for n, s in device.sensors.items() if s._observers is not None}
        nursery.cancel_scope.cancel()


async def test_sampling_by_hand(client: katcp.Client, autojump_clock: Any, caplog: Any) -> None:
    """Who samples by hand and mirrors nothing is left alone: no warning, and nothing is unsubscribed."""
    await client.request("sensor-sampling", "counter", "event")
    await client.request("count")
    await quiet()
    assert [] == caplog.records
    reply, _ = await client.request("sensor-sampling", "counter")
    assert [b"counter", b"event"] == reply
