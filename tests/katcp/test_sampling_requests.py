"""?sensor-sampling and #sensor-status, on the virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from armillary import katcp
from armillary.katcp import Sensor, SensorStatus, Strategy
from armillary.testing import DemoDevice, RawPeer, ServedDevice


@pytest.fixture
def device() -> DemoDevice:
    device = DemoDevice()
    device.temperature.set_value(20.0, timestamp=0.0)
    return device


@pytest.fixture
async def peer(served_device: ServedDevice) -> Any:
    async with served_device.open_raw() as raw:
        yield raw


async def ask(peer: RawPeer, request: bytes) -> list[bytes]:
    await peer.send(request + b"\n")
    return await peer.receive_until(b"!sensor-sampling")


async def receive_with_times(peer: RawPeer, count: int) -> list[tuple[float, bytes]]:
    """The next values of #sensor-status, with the seconds that passed until each came."""
    start = trio.current_time()
    got = []
    for _ in range(count):
        message = await peer.receive_message()
        assert "sensor-status" == message.name
        got.append((round(trio.current_time() - start, 6), message.arguments[4]))
    return got


async def assert_quiet(peer: RawPeer, seconds: float) -> None:
    with trio.move_on_after(seconds) as scope:
        line = await peer.receive()
        raise AssertionError(f"expected nothing, got {line!r}")
    assert scope.cancelled_caught


async def test_first_report_precedes_reply(autojump_clock: Any, peer: RawPeer) -> None:
    """A subscription reports at once, before its reply, which echoes the decoded parameters."""
    assert [
        b"#sensor-status 0.0 1 temperature nominal 20.0\n",
        b"!sensor-sampling[3] ok temperature period 2.0\n",
    ] == await ask(peer, b"?sensor-sampling[3] temperature period 2")


async def test_query(autojump_clock: Any, peer: RawPeer) -> None:
    """A name alone asks for the strategy: none until one is set, and none again when it is taken back."""
    query = b"?sensor-sampling temperature"
    assert [b"!sensor-sampling ok temperature none\n"] == await ask(peer, query)
    await ask(peer, query + b" differential-rate 0.5 1 10")
    assert [b"!sensor-sampling ok temperature differential-rate 0.5 1.0 10.0\n"] == await ask(peer, query)
    await ask(peer, query + b" none")
    assert [b"!sensor-sampling ok temperature none\n"] == await ask(peer, query)


async def test_auto_reports_every_update(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Auto reports an update that changes nothing but the time."""
    await ask(peer, b"?sensor-sampling temperature auto")
    device.temperature.set_value(20.0, timestamp=5.0)
    assert b"#sensor-status 5.0 1 temperature nominal 20.0\n" == await peer.receive()


async def test_auto_as_the_sensor_prefers(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Auto means what the sensor prefers, and still calls itself auto."""
    device.sensors.add(Sensor(int, "slow", auto_strategy=Strategy.PERIOD, auto_strategy_parameters=(3.0,)))
    device.sensors.add(Sensor(int, "mute", auto_strategy=Strategy.NONE))

    await peer.receive_until(b"#interface-changed")
    assert b"!sensor-sampling ok slow auto\n" == (await ask(peer, b"?sensor-sampling slow auto"))[-1]
    assert [(3.0, b"0"), (6.0, b"0")] == await receive_with_times(peer, 2)
    await ask(peer, b"?sensor-sampling slow none")
    assert [b"!sensor-sampling ok mute none\n"] == await ask(peer, b"?sensor-sampling mute auto")


async def test_event(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Event reports a change of value and a change of status alone, and nothing else."""
    await ask(peer, b"?sensor-sampling temperature event")
    device.temperature.set_value(20.0, timestamp=1.0)
    await assert_quiet(peer, 10)
    device.temperature.set_value(20.0, SensorStatus.ERROR, timestamp=2.0)
    device.temperature.set_value(21.0, SensorStatus.ERROR, timestamp=3.0)
    assert b"#sensor-status 2.0 1 temperature error 20.0\n" == await peer.receive()
    assert b"#sensor-status 3.0 1 temperature error 21.0\n" == await peer.receive()


async def test_differential(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Differential compares with the last reported value, strictly."""
    await ask(peer, b"?sensor-sampling temperature differential 1.5")
    for value in (21.0, 21.5, 21.6, 22.9, 23.2):
        device.temperature.value = value
    assert [21.6, 23.2] == [float((await peer.receive_message()).arguments[4]) for _ in range(2)]


async def test_period(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Period reports on its grid, whatever happens between, with the latest value."""
    await ask(peer, b"?sensor-sampling temperature period 2")
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def change() -> None:
                await trio.sleep(2.5)
                device.temperature.value = 25.0
                device.temperature.value = 26.0

            assert [(2.0, b"20.0"), (4.0, b"26.0")] == await receive_with_times(peer, 2)
            await trio.sleep_forever()


async def test_event_rate(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """event-rate keeps SHORT between reports, sends the latest at its end, and repeats after LONG."""
    await ask(peer, b"?sensor-sampling temperature event-rate 2 10")
    device.temperature.value = 21.0
    device.temperature.value = 22.0
    assert [(2.0, b"22.0"), (12.0, b"22.0"), (22.0, b"22.0")] == await receive_with_times(peer, 3)
    await trio.sleep(3)
    device.temperature.value = 23.0
    assert [(0.0, b"23.0"), (10.0, b"23.0")] == await receive_with_times(peer, 2)


async def test_two_clients_have_their_own(
    autojump_clock: Any, peer: RawPeer, served_device: ServedDevice, device: DemoDevice
) -> None:
    """Each client has its own sampling, and it ends with the client."""
    await ask(peer, b"?sensor-sampling temperature event")
    async with served_device.open_raw() as other:
        await ask(other, b"?sensor-sampling temperature period 1")
        assert b"#client-connected memory-2\n" == await peer.receive()
        query = b"?sensor-sampling temperature"
        assert [b"!sensor-sampling ok temperature event\n"] == await ask(peer, query)
    await trio.sleep(0.5)
    device.temperature.value = 30.0
    assert b"30.0" in await peer.receive()
    await ask(peer, b"?sensor-sampling temperature none")
    assert device.temperature._observers is None


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b"temperature carrot", "b'carrot' is not a valid value for Strategy"),
        (b"temperature period", "expected 1 strategy arguments, found 0"),
        (b"temperature event 1", "expected 0 strategy arguments, found 1"),
        (b"temperature period foo", "could not convert string to float: b'foo'"),
        (b"temperature period 0", "period must be positive, got 0.0"),
        (b"temperature period -1", "period must be positive, got -1.0"),
        (b"temperature period nan", "period must be a finite number, not nan"),
        (b"temperature period inf", "period must be a finite number, not inf"),
        (b"temperature period 1e-9", "period must be at least 0.001 s, got 1e-09"),
        (b"temperature event-rate 5 1", "expected 0 <= shortest <= longest, got 5.0 and 1.0"),
        (b"temperature event-rate -1 1", "expected 0 <= shortest <= longest, got -1.0 and 1.0"),
        (b"temperature event-rate nan 1", "shortest must be a finite number, not nan"),
        (b"temperature differential -1", "difference must not be negative, got -1.0"),
        (b"device-status differential 1", "differential strategies only valid for integer and float sensors"),
        (b"nonsense event", "Unknown sensor 'nonsense'"),
        (b"temperature,counter,temperature event", "Duplicate sensor name"),
        (b"temperature,nonsense event", "Unknown sensor 'nonsense'"),
        (b"temperature,counter differential 1.5", "invalid literal for int() with base 10: b'1.5'"),
        (b"temperature,counter", "Unknown sensor 'temperature,counter'"),
    ],
)
async def test_refused(
    autojump_clock: Any, peer: RawPeer, device: DemoDevice, request_line: bytes, reason: str
) -> None:
    """A sampling request that makes no sense fails with a reason, and changes nothing at all."""
    await ask(peer, b"?sensor-sampling temperature event")
    (reply,) = await ask(peer, b"?sensor-sampling[8] " + request_line)

    assert katcp.Message.reply("sensor-sampling", b"fail", reason, mid=8) == katcp.Message.parse(reply)
    assert [b"!sensor-sampling ok temperature event\n"] == await ask(peer, b"?sensor-sampling temperature")
    assert [b"!sensor-sampling ok counter none\n"] == await ask(peer, b"?sensor-sampling counter")


async def test_bulk(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """A list of names gets one strategy: first reports in the list's order, then the whole list echoed."""
    *informs, reply = await ask(peer, b"?sensor-sampling temperature,device-status,counter event-rate 1 2")

    assert [b"temperature", b"device-status", b"counter"] == [
        katcp.Message.parse(inform).arguments[2] for inform in informs
    ]
    assert b"!sensor-sampling ok temperature,device-status,counter event-rate 1.0 2.0\n" == reply


async def test_clear(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """?sensor-sampling-clear ends all sampling of the client that asks."""
    await ask(peer, b"?sensor-sampling temperature,counter period 1")
    await peer.send(b"?sensor-sampling-clear\n")
    assert b"!sensor-sampling-clear ok\n" == await peer.receive()
    await assert_quiet(peer, 10)


async def test_removed_while_sampled(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """Removing a sensor ends its sampling, says so once, and a new one of its name is not subscribed."""
    await ask(peer, b"?sensor-sampling temperature,counter period 1")
    old = device.temperature
    device.sensors.remove(old)
    replacement = Sensor(float, "temperature")
    device.sensors.add(replacement)

    news = await peer.receive_until(b"#interface-changed")
    assert b"#interface-changed sensor temperature modified\n" == news[-1]
    assert [b"!sensor-sampling ok temperature none\n"] == await ask(peer, b"?sensor-sampling temperature")
    old.value = 5.0
    replacement.value = 6.0
    assert [b"counter"] * 3 == [(await peer.receive_message()).arguments[2] for _ in range(3)]
    assert old._observers is None


async def test_interface_changed_is_joined(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """A sensor that comes is announced by name; a thousand at once are announced once."""
    device.sensors.add(Sensor(int, "one"))
    assert b"#interface-changed sensor one added\n" == await peer.receive()
    for index in range(1000):
        device.sensors.add(Sensor(int, f"many.{index}"))
    assert b"#interface-changed sensor-list\n" == await peer.receive()
    device.sensors.remove(device.sensors["one"])
    assert b"#interface-changed sensor one removed\n" == await peer.receive()
    await assert_quiet(peer, 10)


async def test_removed_during_bulk(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """A sensor removed while a long list is being subscribed is reported once and not left subscribed."""
    sensors = [Sensor(int, f"many.{index:03d}") for index in range(500)]
    for sensor in sensors:
        device.sensors.add(sensor)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def remove_last() -> None:
            # Until the second batch is subscribed.
            while sensors[100]._observers is None:  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()
            device.sensors.remove(sensors[-1])

        names = b",".join(sensor.name.encode() for sensor in sensors)
        lines = await ask(peer, b"?sensor-sampling " + names + b" auto")

    assert 500 == sum(line.startswith(b"#sensor-status") for line in lines)
    assert sensors[0]._observers is not None
    assert sensors[-1]._observers is None


async def test_requests_for_sampling_do_not_mix(
    autojump_clock: Any, peer: RawPeer, device: DemoDevice
) -> None:
    """Two long sampling requests of one client are carried out one after the other."""
    for index in range(300):
        device.sensors.add(Sensor(int, f"many.{index:03d}"))
    names = b",".join(b"many.%03d" % index for index in range(300))
    await peer.send(b"?sensor-sampling[1] %b period 10\n?sensor-sampling[2] %b none\n" % (names, names))
    lines = await peer.receive_until(b"!sensor-sampling[2]")

    assert 300 == sum(line.startswith(b"#sensor-status") for line in lines)
    assert [b"!sensor-sampling[1] ok", b"!sensor-sampling[2] ok"] == [
        line[:22] for line in lines if line.startswith(b"!")
    ]
    assert all(sensor._observers is None for sensor in device.sensors.values())


async def test_no_drift_and_no_burst(autojump_clock: Any, peer: RawPeer, device: DemoDevice) -> None:
    """A period is kept over a thousand reports without drift, however many there are."""
    await ask(peer, b"?sensor-sampling temperature period 0.1")
    times = [time for time, _ in await receive_with_times(peer, 1000)]
    assert [round((n + 1) * 0.1, 6) for n in range(1000)] == pytest.approx(times, abs=1e-6)


async def test_update_outside_the_run_reaches_nobody(device: DemoDevice) -> None:
    """A sensor may be set when nobody samples it, with or without a server."""
    device.temperature.value = 1.0
    assert 1.0 == device.temperature.value
