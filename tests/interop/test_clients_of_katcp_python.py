"""Clients of armillary with a server of katcp-python."""

from __future__ import annotations

import pytest
import trio
from parity_device import TIME, Mode
from speaking import HOST, mirror_becomes, open_peer_server, picture

from armillary.katcp import (
    Address,
    FailReply,
    InvalidReply,
    Reading,
    SensorStatus,
    Timestamp,
    open_client,
    open_persistent_client,
)

pytestmark = pytest.mark.interop
SERVER = ("katcp", "katcp_server.py")

# What its servers can be, from the plainest: no message ids, no bulk sampling, everything.
FLAGS = ["5.0-M", "5.0-IM", "5.1-IMBT"]


@pytest.mark.parametrize("flags", FLAGS)
async def test_values_of_every_type_come_back_from_katcp_python(flags: str) -> None:
    """A value of every type, encoded here and decoded there, comes back, whatever the server's flags are."""
    sent = [
        -12,
        0.5,
        True,
        Timestamp(TIME),
        Mode.MOVING_FAST,
        Address.parse(b"127.0.0.1:7147"),
        "café\n\t \\",
    ]
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, flags) as (_, port), open_client(HOST, port) as client:
            assert client.protocol_flags == frozenset(flags.partition("-")[2])
            reply, _ = await client.request("types", *sent)
            assert reply == [
                b"-12",
                b"0.5",
                b"1",
                b"1234567890.500000",
                b"moving-fast",
                b"127.0.0.1:7147",
                "café\n\t \\".encode(),
            ]


@pytest.mark.parametrize("flags", FLAGS)
async def test_requests_on_their_way_together_keep_their_informs(flags: str) -> None:
    """Requests made together each get their own informs and reply, with message ids and without."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, flags) as (_, port), open_client(HOST, port) as client:
            pending = [client.start_request("recite", count % 7) for count in range(40)]
            for count, request in enumerate(pending):
                reply, informs = await request.wait()
                assert reply == [b"%d" % (count % 7)]
                assert len(informs) == count % 7


async def test_refusals_of_katcp_python_say_why() -> None:
    """Failure, a traceback, a missing argument and an unknown request raise what the server said."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.0-IM") as (_, port), open_client(HOST, port) as client:
            with pytest.raises(FailReply, match=r"^not today$"):
                await client.request("refuse", "not today")
            with pytest.raises(FailReply, match="RuntimeError: crashed on request"):
                await client.request("crash")
            with pytest.raises(FailReply, match="Error in parameter 1"):
                await client.request("types")
            with pytest.raises(InvalidReply, match="Unknown request"):
                await client.request("no-such")


async def test_a_large_message_comes_back_from_katcp_python() -> None:
    """An argument just below the two megabytes that the server takes is the same after there and back.

    The server breaks on what is no UTF-8; so it is ASCII here.
    """
    payload = bytes(range(128)) * 15_000
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.0-IM") as (_, port), open_client(HOST, port) as client:
            assert await client.request("echo", payload) == ([payload], [])


async def test_readings_and_logs_of_katcp_python() -> None:
    """Readings are decoded by the types that the server lists, ranges and all, and logs are heard."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.0-IM") as (peer, port), open_client(HOST, port) as client:
            await peer.ask("set", "temperature", "-3.5", "warn")
            assert await client.sensor_reading("temperature") == Reading(TIME, SensorStatus.WARN, -3.5)
            await peer.ask("set", "mode", "fault", "error")
            assert await client.sensor_value("mode", Mode) is Mode.FAULT
            with client.informs("log") as logs:
                await peer.ask("log", "it is on fire")
                arguments = (await anext(logs)).arguments
                assert (arguments[0], arguments[-1]) == (b"error", b"it is on fire")


async def test_time_out_hints_are_told() -> None:
    """The server's hints for slow requests can be asked for."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.1-IMBT") as (_, port), open_client(HOST, port) as client:
            _, informs = await client.request("request-timeout-hint", "recite")
            assert [inform.arguments for inform in informs] == [[b"recite", b"25.0"]]


@pytest.mark.parametrize("flags", FLAGS)
async def test_a_mirror_of_katcp_python_stays_in_step(flags: str) -> None:
    """A mirror has sensors of every type and follows updates, additions, removals and changes of type."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*SERVER, flags) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            assert picture(sensors) == await peer.ask("picture")
            await peer.ask("set", "label", "naïve")
            await peer.ask("set", "counter", "12", "warn", 3.0)
            await mirror_becomes(sensors, await peer.ask("picture"))
            await peer.ask("remove", "label")
            await peer.ask("remove", "since")
            await peer.ask("add", "label", "boolean", "Whether it has one")
            await peer.ask("add", "humidity", "float", "Of the air")
            await peer.ask("inform", "interface-changed", "sensor-list")
            await mirror_becomes(sensors, await peer.ask("picture"))
            await sensors.wait_synced()  # until then, the server may forget an update after its first report
            await peer.ask("set", "label", "1", "nominal", 4.0)
            await mirror_becomes(sensors, await peer.ask("picture"))


async def test_sensors_of_unknown_type_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A sensor of the old type ``lru`` is left out of a mirror, with a warning; the others are there."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.0-IM") as (peer, port), open_client(HOST, port) as client:
            expected = await peer.ask("picture")
            await peer.ask("add", "old", "lru")
            async with client.mirror_sensors() as sensors:
                await sensors.wait_synced()
                assert picture(sensors) == expected
            assert "Type lru is not recognised, skipping sensor old" in caplog.text


@pytest.mark.parametrize("strategy", ["event", "differential 5", "event-rate 0 3600", "period 0.02"])
async def test_a_mirror_of_katcp_python_samples_as_it_is_told(strategy: str) -> None:
    """A large change reaches a mirror with any strategy, and the server confirms the strategy."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*SERVER, "5.1-IMBT") as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors(
                filter=lambda sensor: sensor.name == "temperature", strategy=strategy
            ) as sensors,
        ):
            await sensors.wait_synced()
            reply, _ = await client.request("sensor-sampling", "temperature")
            assert reply[:2] == [b"temperature", strategy.split()[0].encode()]
            await peer.ask("set", "temperature", "40.0")
            temperature = (await peer.ask("picture"))["temperature"]
            await mirror_becomes(sensors, {"temperature": temperature})


async def test_a_thousand_sensors_of_katcp_python_are_mirrored() -> None:
    """A thousand sensors are mirrored one request each where the server cannot subscribe in bulk."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*SERVER, "5.0-IM", 1000) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            assert picture(sensors) == await peer.ask("picture")


async def test_a_server_of_katcp_python_that_returns_is_found_again() -> None:
    """After the server's end and return, a persistent client and its mirror have it again."""
    with trio.fail_after(20):
        async with open_peer_server(*SERVER, "5.1-IMBT") as (peer, port):
            async with open_persistent_client(HOST, port) as client, client.mirror_sensors() as sensors:
                await client.wait_connected()
                await mirror_becomes(sensors, await peer.ask("picture"))
                with client.informs("disconnect") as farewells:
                    await peer.finish()
                    assert (await anext(farewells)).name == "disconnect"
                await client.wait_disconnected()
                async with open_peer_server(*SERVER, "5.0-M", 2, port=port) as (returned, _):
                    await client.wait_connected()
                    await mirror_becomes(sensors, await returned.ask("picture"))
                    assert client.protocol_flags == {"M"}
