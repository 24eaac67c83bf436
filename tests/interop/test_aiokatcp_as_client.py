"""Clients of aiokatcp with a server of armillary."""

from __future__ import annotations

import logging

import pytest
import trio
from parity_device import TIME, Colour, Mode, ParityDevice
from speaking import open_peer, picture, served

from armillary.katcp import Address, Sensor, SensorStatus, forward_logs

pytestmark = pytest.mark.interop

Program = tuple[str, str]


@pytest.fixture(params=["aiokatcp", "facade-uvloop"])
def program(request: pytest.FixtureRequest) -> Program:
    """The client's program, over aiokatcp, and over the façade that replaces it."""
    return request.param, "aiokatcp_client.py"


async def test_aiokatcp_gets_its_arguments_back(program: Program) -> None:
    """A request with an argument of every type, encoded by aiokatcp, is decoded, and encoded for it again."""
    sent = ["-12", "1e-07", "1", "1234567890.5", "moving-fast", "[::1]:7147", "café\n\t\0 \\"]
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("request", "types", *sent) == ["ok", sent, []]
            assert await peer.ask("request", "recite", "2") == ["ok", ["2"], [["line", "0"], ["line", "1"]]]


async def test_aiokatcp_hears_why_it_was_refused(program: Program) -> None:
    """Failure, invalidity, a crash, a wrong argument and an unknown request raise the right errors."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("request", "refuse", "höt") == ["FailReply", "höt"]
            assert await peer.ask("request", "disown", "not you") == ["InvalidReply", "not you"]
            assert await peer.ask("request", "no-such") == ["InvalidReply", "unknown request no-such"]
            kind, text = await peer.ask("request", "crash")
            assert kind == "FailReply"
            assert text.endswith("RuntimeError: crashed on request\n")
            kind, text = await peer.ask("request", "add", "1", "two")
            assert kind == "FailReply"
            assert text.startswith("argument 2 (b): ")


async def test_aiokatcp_knows_the_flags(program: Program) -> None:
    """The greeting is understood by aiokatcp, with a flag that it does not know."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.wait_event("connected") == [["B", "I", "M", "T"]]
            _, _, informs = await peer.ask("request", "version-list")
            assert [inform[0] for inform in informs] == ["katcp-protocol", "katcp-library", "katcp-device"]
            assert informs[2] == ["katcp-device", "parity-1.0", "parity-1.0.3"]


async def test_ten_megabytes_come_back_to_aiokatcp(program: Program) -> None:
    """Ten megabytes of every kind of byte are the same after a way there and back."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("echo_large", 10 * 1024**2) is True


async def test_aiokatcp_pipelines_its_requests(program: Program) -> None:
    """Two thousand requests at once are each answered, and to the one who asked."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("pipeline", 2000) is True


async def test_requests_of_aiokatcp_overtake_each_other(program: Program) -> None:
    """Slow requests of one client run at the same time, and are answered as they end."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("overlap", 0.3, 0.2, 0.1, 0.0) == [0.0, 0.1, 0.2, 0.3]


async def test_aiokatcp_reads_sensors_of_every_type(program: Program) -> None:
    """Their client decodes readings of every type, and says so when a sensor has no value or is not there."""
    device = ParityDevice()
    values = {
        "temperature": (21.5, "21.5"),
        "counter": (-7, "-7"),
        "enabled": (True, "1"),
        "mode": (Mode.MOVING_FAST, "moving-fast"),
        "colour": (Colour.DARK_BLUE, "dark blue"),
        "peer.address": (Address.parse(b"[fe80::1]:80"), "[fe80::1]:80"),
        "since": (1.5, "1.5"),
        "label": ("naïve", "naïve"),
        "serial": (b"\xff", "\udcff"),
    }
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            assert "ValueError" in await peer.ask("value", "temperature")
            for name, (value, text) in values.items():
                device.sensors[name].set_value(value, SensorStatus.WARN, TIME)
                assert await peer.ask("reading", name) == [text, "WARN", TIME]
                assert await peer.ask("value", name) == text
            assert await peer.ask("value", "humidity") == "FailReply: Unknown sensor 'humidity'"


async def test_a_watcher_of_aiokatcp_stays_in_step(program: Program) -> None:
    """A SensorWatcher follows updates, additions, removals, changes of type and replacements, unannounced."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            await peer.ask("watch")

            async def check_in_step() -> None:
                expected = picture(device.sensors)
                assert await peer.ask("mirror_becomes", expected) == expected

            await check_in_step()
            device.sensors["temperature"].set_value(-3.25, SensorStatus.ERROR, 1.0)
            device.sensors["mode"].set_value(Mode.FAULT, SensorStatus.FAILURE, 2.0)
            await check_in_step()
            device.sensors.add(Sensor(float, "humidity", "Of the air"))
            await check_in_step()
            del device.sensors["counter"]
            await check_in_step()
            device.sensors.add(Sensor(Mode, "temperature", "How warm it feels"))
            await check_in_step()
            for name in ("label", "serial"):
                device.sensors.add(Sensor(bool, name, f"Whether it has a {name}"))
            del device.sensors["humidity"]
            await check_in_step()
            device.sensors["temperature"].value = Mode.MOVING_FAST
            device.sensors["serial"].value = True
            await check_in_step()


async def test_aiokatcp_is_told_what_changed(program: Program) -> None:
    """A sensor that came, went or changed alone is announced by name, and so is each that was replaced."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            await peer.ask("listen", "interface-changed")
            device.sensors.add(Sensor(float, "humidity"))
            assert await peer.wait_event("interface-changed") == ["sensor", "humidity", "added"]
            device.sensors.add(Sensor(int, "humidity"))
            assert await peer.wait_event("interface-changed") == ["sensor", "humidity", "modified"]
            device.sensors.add(Sensor(float, "pressure"))
            del device.sensors["humidity"]
            assert await peer.wait_event("interface-changed") == ["sensor-list"]
            device.sensors.add(Sensor(float, "pressure"))
            device.sensors.add(Sensor(float, "temperature"))
            assert await peer.wait_event("interface-changed") == ["sensor", "pressure", "modified"]
            assert await peer.wait_event("interface-changed") == ["sensor", "temperature", "modified"]


async def test_a_watcher_of_five_thousand_sensors(program: Program) -> None:
    """A SensorWatcher of five thousand sensors subscribes in bulk, and gets an update of each."""
    device = ParityDevice(sensors=5000)
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            await peer.ask("watch")
            expected = picture(device.sensors)
            assert await peer.ask("mirror_becomes", expected) == expected
            assert await peer.ask("updates") == 5010
            for name, sensor in device.sensors.items():
                if name.startswith("many."):
                    sensor.set_value(-1.0, SensorStatus.NOMINAL, TIME)
            expected = picture(device.sensors)
            assert await peer.ask("mirror_becomes", expected) == expected


async def test_a_watcher_that_leaves_is_told_no_more(program: Program) -> None:
    """When aiokatcp's last watcher is removed, its sensors are unsubscribed."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            await peer.ask("watch")
            await peer.wait_event("state", lambda state: state == "SYNCED")
            sampled = ["ok", ["label", "auto"], []]
            assert await peer.ask("request", "sensor-sampling", "label") == sampled
            await peer.ask("unwatch")
            while await peer.ask("request", "sensor-sampling", "label") == sampled:
                pass


async def test_aiokatcp_samples_in_bulk(program: Program) -> None:
    """Sensors listed with commas are sampled together or not at all."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            await peer.ask("listen", "sensor-status")
            reply = await peer.ask("request", "sensor-sampling", "since,label,mode", "event")
            assert reply == ["ok", ["since,label,mode", "event"], []]
            told = [await peer.wait_event("sensor-status") for _ in range(3)]
            assert [facts[2] for facts in told] == ["since", "label", "mode"]
            reply = await peer.ask("request", "sensor-sampling", "enabled,nobody", "event")
            assert reply == ["FailReply", "Unknown sensor 'nobody'"]
            reply = await peer.ask("request", "sensor-sampling", "enabled")
            assert reply == ["ok", ["enabled", "none"], []]


async def test_aiokatcp_hears_logs(program: Program) -> None:
    """Log records at or above the level that aiokatcp set reach it as log informs."""
    device = ParityDevice()
    logger = logging.getLogger("observatory")
    logger.setLevel(logging.DEBUG)
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            await peer.ask("listen", "log")
            with forward_logs(device, logger):
                logger.info("not told")
                logger.error("it is on fire")
                level, _, name, text = await peer.wait_event("log")
                assert (level, name, text[-13:]) == ("error", "observatory", "it is on fire")
                assert await peer.ask("request", "log-level", "debug") == ["ok", ["debug"], []]
                logger.debug("it is out")
                level, _, name, text = await peer.wait_event("log")
                assert (level, name, text[-9:]) == ("debug", "observatory", "it is out")


async def test_aiokatcp_halts_the_server(program: Program) -> None:
    """``?halt`` is answered, then comes the farewell, then the end."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as peer:
            assert await peer.ask("request", "halt") == ["ok", [], []]
            assert await peer.wait_event("disconnect") == ["server shutting down"]
            await peer.wait_event("disconnected")
            assert await peer.ask("request", "watchdog") == ["ConnectionError"]


async def test_aiokatcp_finds_a_server_that_returns(program: Program) -> None:
    """A SensorWatcher is in step again after the server went away and another came to its address."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port:
            async with open_peer(*program, port) as peer:
                await peer.ask("watch")
                await peer.wait_event("state", lambda state: state == "SYNCED")
                await peer.ask("request", "halt")
                await peer.wait_event("disconnected")
                returned = ParityDevice(sensors=3)
                async with served(returned, port=port):
                    expected = picture(returned.sensors)
                    assert await peer.ask("mirror_becomes", expected) == expected
                    returned.sensors["label"].value = "again"
                    expected = picture(returned.sensors)
                    assert await peer.ask("mirror_becomes", expected) == expected


async def test_a_watcher_survives_a_restart(program: Program) -> None:
    """After ``?restart``, aiokatcp is greeted again, and its watcher is in step again."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*program, port) as peer:
            await peer.wait_event("connected")
            await peer.ask("watch")
            await peer.wait_event("state", lambda state: state == "SYNCED")
            assert await peer.ask("request", "restart") == ["ok", [], []]
            assert await peer.wait_event("disconnect") == ["device restarting"]
            await peer.wait_event("connected")
            device.sensors["label"].value = "again"
            expected = picture(device.sensors)
            assert await peer.ask("mirror_becomes", expected) == expected


async def test_clients_of_aiokatcp_know_of_each_other(program: Program) -> None:
    """A client is told of the next one, and both are listed."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*program, port) as first:
            await first.ask("listen", "client-connected")
            async with open_peer(*program, port):
                (address,) = await first.wait_event("client-connected")
                _, count, clients = await first.ask("request", "client-list")
                assert count == ["2"]
                assert [address] in clients
