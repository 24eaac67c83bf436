"""Clients of katcp-python with a server of armillary."""

from __future__ import annotations

import logging

import pytest
import trio
from parity_device import TIME, Mode, ParityDevice
from speaking import open_peer, served

from armillary.katcp import RequestContext, Sensor, SensorStatus, forward_logs, request_timeout_hint

pytestmark = pytest.mark.interop
CLIENT = ("katcp", "katcp_client.py")
RESOURCE = ("katcp", "katcp_resource_client.py")
INSPECTING = ("katcp", "katcp_inspecting_client.py")


async def test_katcp_python_reads_the_greeting() -> None:
    """Protocol, flags and versions are what katcp-python's client makes of the greeting."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("flags") == [5, 1, ["B", "I", "M", "T"]]
            versions = await peer.ask("versions")
            assert versions["katcp-protocol"] == ["5.1-MIBT"]
            assert versions["katcp-device"] == ["parity-1.0", "parity-1.0.3"]
            reply, informs = await peer.ask("request", "version-list")
            assert reply == ["ok", "3"]
            assert {name: told for name, *told in informs} == versions


async def test_katcp_python_gets_its_arguments_back() -> None:
    """Arguments of every type come back to katcp-python, with message ids and without."""
    sent = ["-12", "1e-07", "1", "1234567890.5", "moving-fast", "[::1]:7147", "café\n\t\0 \\"]
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            for ask in ("request", "request_without_mid"):
                assert await peer.ask(ask, "types", *sent) == [["ok", *sent], []]
                assert await peer.ask(ask, "recite", "2") == [["ok", "2"], [["line", "0"], ["line", "1"]]]


async def test_katcp_python_hears_why_it_was_refused() -> None:
    """Failure, invalidity, wrong arguments and an unknown request have the return codes that they should."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("request", "refuse", "no") == [["fail", "no"], []]
            assert await peer.ask("request", "disown", "no") == [["invalid", "no"], []]
            assert await peer.ask("request", "no-such") == [["invalid", "unknown request no-such"], []]
            (code, text), _ = await peer.ask("request", "add", "one")
            assert code == "fail"
            assert text.startswith("argument 1 (a): ")


async def test_katcp_python_is_called_back() -> None:
    """Informs and reply of a request reach the callbacks of katcp-python in their order."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("call_back", "recite", "2") == [
                ["#", "line", "0"],
                ["#", "line", "1"],
                ["!", "ok", "2"],
            ]


async def test_katcp_python_pipelines_its_requests() -> None:
    """Five hundred requests at once are each answered, and to the one who asked."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("pipeline", 500) is True


async def test_a_large_message_comes_back_to_katcp_python() -> None:
    """An argument of nearly two megabytes, the most that katcp-python takes, comes back."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("echo_large", 1_900_000) is True


async def test_katcp_python_is_helped() -> None:
    """Help names every request once, and describes one."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            reply, informs = await peer.ask("request", "help")
            names = [name for name, _ in informs]
            assert reply == ["ok", str(len(names))]
            assert names == sorted({*names})
            assert ["echo", "Reply with the arguments."] in informs
            assert await peer.ask("request", "help", "echo") == [
                ["ok", "1"],
                [["echo", "Reply with the arguments."]],
            ]


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (["auto"], ["0.0", "1.0", "1.0", "9.0", "20.0"]),
        (["event"], ["0.0", "1.0", "9.0", "20.0"]),
        (["differential", "5"], ["0.0", "9.0", "20.0"]),
        (["event-rate", "0", "3600"], ["0.0", "1.0", "9.0", "20.0"]),
        (["differential-rate", "10", "0", "3600"], ["0.0", "20.0"]),
    ],
)
async def test_katcp_python_samples_a_sensor(strategy: list[str], told: list[str]) -> None:
    """A sensor that katcp-python samples is reported to it as the strategy says, until that is cleared."""
    device = ParityDevice()
    device.temperature = device.sensors["temperature"]
    device.temperature.set_value(0.0, SensorStatus.NOMINAL, TIME)
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*CLIENT, port) as peer:
            await peer.ask("request", "sensor-sampling", "temperature", *strategy)
            for value in (1.0, 1.0, 9.0, 20.0):
                device.temperature.set_value(value, SensorStatus.NOMINAL, TIME)
            for value in told:
                assert await peer.wait_event("sensor-status") == [
                    repr(TIME),
                    "1",
                    "temperature",
                    "nominal",
                    value,
                ]
            assert await peer.ask("request", "sensor-sampling-clear") == [["ok"], []]
            assert await peer.ask("request", "sensor-sampling", "temperature") == [
                ["ok", "temperature", "none"],
                [],
            ]


async def test_katcp_python_samples_by_the_clock() -> None:
    """A periodic strategy brings katcp-python readings of a sensor that does not change."""
    with trio.fail_after(20):
        async with served(ParityDevice()) as port, open_peer(*CLIENT, port) as peer:
            await peer.ask("request", "sensor-sampling", "label,mode", "period", "0.01")
            for _ in range(5):
                await peer.wait_event("sensor-status", lambda *facts: facts[2] == "label")
                await peer.wait_event("sensor-status", lambda *facts: facts[2] == "mode")


async def test_katcp_python_hears_of_everything() -> None:
    """Logs, changes of the interface, other clients and the farewell reach katcp-python."""
    device = ParityDevice()
    logger = logging.getLogger("observatory")
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("request", "watchdog") == [["ok"], []]
            with forward_logs(device, logger):
                logger.error("it is on fire")
            level, _, name, text = await peer.wait_event("log")
            assert (level, name, text[-13:]) == ("error", "observatory", "it is on fire")
            del device.sensors["label"]
            assert await peer.wait_event("interface-changed") == ["sensor", "label", "removed"]
            async with open_peer(*CLIENT, port):
                await peer.wait_event("client-connected")
            assert await peer.ask("request", "halt") == [["ok"], []]
            assert await peer.wait_event("disconnect") == ["server shutting down"]
            await peer.wait_event("disconnected")


async def test_an_inspecting_client_follows() -> None:
    """katcp-python's inspecting client finds every sensor, and is told of those that come, change and go."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*INSPECTING, port) as peer:
            assert await peer.wait_event("sensors") == [sorted(device.sensors), []]
            await peer.wait_event("state", lambda connected, synced: synced)
            assert await peer.ask("find", "temperature") == ["float", "Air temperature", "degC"]
            assert await peer.ask("find", "humidity") is None
            device.sensors.add(Sensor(float, "humidity", "Of the air"))
            assert await peer.wait_event("sensors") == [["humidity"], []]
            assert await peer.ask("find", "humidity") == ["float", "Of the air", ""]
            device.sensors.add(Sensor(int, "humidity", "Of the air"))
            assert await peer.wait_event("sensors") == [["humidity"], ["humidity"]]
            del device.sensors["humidity"]
            assert await peer.wait_event("sensors") == [[], ["humidity"]]


async def test_a_resource_client_knows_the_device() -> None:
    """katcp-python's resource client has the device's sensors and requests as attributes, and they work."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*RESOURCE, port) as peer:
            await peer.ask("sync")
            assert await peer.ask("sensors") == {
                sensor.name: [sensor.type_name, sensor.description, sensor.units]
                for sensor in device.sensors.values()
            }
            assert await peer.ask("requests") == [name.decode() for name in device.request_handlers]
            assert await peer.ask("request", "add", "1", "2") == [True, ["ok", "3"], 0]
            assert await peer.ask("request", "refuse", "no") == [False, ["fail", "no"], 0]
            assert await peer.ask("request", "sensor_value") == [True, ["ok", "10"], 10]
            device.sensors["mode"].set_value(Mode.FAULT, SensorStatus.ERROR, TIME)
            device.sensors["since"].set_value(1.5, SensorStatus.NOMINAL, TIME)
            assert await peer.ask("value", "mode") == "fault"
            assert await peer.ask("value", "since") == 1.5


async def test_a_resource_client_samples() -> None:
    """The strategies that a resource client sets bring it each change, of a sensor that comes later, too."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*RESOURCE, port) as peer:
            await peer.ask("sync")
            told = await peer.ask("sample_all", "mode|label|counter", "event")
            assert sorted(told) == ["counter", "label", "mode"]
            await peer.ask("sample", "counter", "event")
            device.sensors["counter"].set_value(5, SensorStatus.WARN, TIME)
            await peer.wait_event("reading", lambda *facts: facts == ("counter", TIME, "warn", 5))
            assert await peer.ask("reading", "counter") == ["warn", 5, TIME]
            await peer.ask("sample", "humidity", "event")
            humidity = Sensor(float, "humidity", "Of the air")
            humidity.set_value(0.25, SensorStatus.NOMINAL, TIME)
            device.sensors.add(humidity)
            await peer.wait_event("reading", lambda *facts: facts == ("humidity", TIME, "nominal", 0.25))
            humidity.set_value(0.5, SensorStatus.NOMINAL, TIME)
            await peer.wait_event("reading", lambda *facts: facts == ("humidity", TIME, "nominal", 0.5))


async def test_a_resource_client_finds_a_server_that_returns() -> None:
    """After the server's restart, a resource client has it again, with the strategies that it had set."""
    device = ParityDevice()
    with trio.fail_after(20):
        async with served(device) as port, open_peer(*RESOURCE, port) as peer:
            await peer.ask("sync")
            await peer.ask("sample", "counter", "event")
            await peer.wait_event("reading")
            device.restart()
            await peer.ask("lose")
            await peer.ask("sync")
            device.sensors["counter"].set_value(6, SensorStatus.NOMINAL, TIME)
            await peer.wait_event("reading", lambda *facts: facts[3] == 6)


async def test_a_resource_client_waits_as_long_as_it_is_told() -> None:
    """A request with a hint that it is slow is waited for by katcp-python, which asks for the hints."""

    class SlowDevice(ParityDevice):
        @request_timeout_hint(25.0)
        def request_expose(self, ctx: RequestContext) -> None:
            """Take a long picture."""

    with trio.fail_after(20):
        async with served(SlowDevice()) as port, open_peer(*CLIENT, port) as peer:
            assert await peer.ask("request", "request-timeout-hint") == [["ok", "1"], [["expose", "25.0"]]]
