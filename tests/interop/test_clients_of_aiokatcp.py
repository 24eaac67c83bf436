"""Clients of armillary with a server of aiokatcp."""

from __future__ import annotations

import pytest
import trio
from parity_device import TIME, Mode
from speaking import HOST, mirror_becomes, open_peer_server, picture

from armillary.errors import ConnectionClosed
from armillary.katcp import (
    Address,
    ClientState,
    FailReply,
    InvalidReply,
    Reading,
    SensorStatus,
    SyncState,
    Timestamp,
    open_client,
    open_persistent_client,
)

pytestmark = pytest.mark.interop

Program = tuple[str, str]


@pytest.fixture(params=["aiokatcp", "facade-uvloop"])
def program(request: pytest.FixtureRequest) -> Program:
    """The server's program, over aiokatcp, and over the façade that replaces it."""
    return request.param, "aiokatcp_server.py"


async def test_arguments_of_every_type_come_back(program: Program) -> None:
    """A value of every type, encoded here, decoded and encoded there, comes back as it was sent."""
    sent = [-12, 1e-7, True, Timestamp(TIME), Mode.MOVING_FAST, Address.parse(b"[::1]:7147"), "café\n\t\0 \\"]
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            reply, informs = await client.request("types", *sent)
            assert reply == [
                b"-12",
                b"1e-07",
                b"1",
                b"1234567890.5",
                b"moving-fast",
                b"[::1]:7147",
                "café\n\t\0 \\".encode(),
            ]
            assert informs == []


async def test_every_byte_comes_back(program: Program) -> None:
    """Arguments of all bytes, of none, and of ten megabytes are the same after a way there and back."""
    arguments = [bytes(range(256)), b"", b"\\@", bytes(range(256)) * 40_000]
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            reply, _ = await client.request("echo", *arguments)
            assert reply == arguments


async def test_refusals_say_why(program: Program) -> None:
    """A request that fails, one that is invalid, and one that nobody knows raise what the server said."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            with pytest.raises(FailReply, match=r"^on fire: höt$"):
                await client.request("refuse", "on fire: höt")
            with pytest.raises(InvalidReply, match=r"^not you$"):
                await client.request("disown", "not you")
            with pytest.raises(InvalidReply, match="unknown request no-such"):
                await client.request("no-such")
            with pytest.raises(FailReply, match=r"RuntimeError: crashed on request"):
                await client.request("crash")
            with pytest.raises(FailReply, match=r"invalid literal for int"):
                await client.request("add", "three")


async def test_informs_belong_to_their_request(program: Program) -> None:
    """Of requests on their way together, each gets its own informs and its own reply."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            pending = [client.start_request("recite", count) for count in range(50)]
            for count, request in enumerate(pending):
                reply, informs = await request.wait()
                assert reply == [b"%d" % count]
                assert [inform.arguments for inform in informs] == [
                    [b"line", b"%d" % number] for number in range(count)
                ]


async def test_requests_overtake_each_other(program: Program) -> None:
    """A slow request does not hold up one that was made after it."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            slow = client.start_request("sleep", 3600)
            assert await client.request("echo", "quick") == ([b"quick"], [])
            slow.abandon()


async def test_readings_are_decoded_as_the_server_describes_them(program: Program) -> None:
    """A sensor of any type is read without saying its type, and with saying it."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (peer, port), open_client(HOST, port) as client:
            for name, value in {
                "temperature": "21.5",
                "counter": "7",
                "enabled": "1",
                "mode": "moving-fast",
                "colour": "dark blue",
                "peer.address": "[fe80::1]:80",
                "since": "1.5",
                "label": "naïve",
                "serial": "\udcff",
            }.items():
                await peer.ask("set", name, value, "WARN")
            assert await client.sensor_reading("temperature") == Reading(TIME, SensorStatus.WARN, 21.5)
            expected = {
                "counter": 7,
                "enabled": True,
                "mode": b"moving-fast",
                "colour": b"dark blue",
                "peer.address": Address.parse(b"[fe80::1]:80"),
                "since": Timestamp(1.5),
                "label": "naïve".encode(),
                "serial": b"\xff",
            }
            assert {name: await client.sensor_value(name) for name in expected} == expected
            assert await client.sensor_value("mode", Mode) is Mode.MOVING_FAST
            assert await client.sensor_value("label", str) == "naïve"


async def test_a_reading_without_value_or_sensor_says_so(program: Program) -> None:
    """A value without meaning, a sensor that is not there, and a name of many say what is wrong."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            with pytest.raises(ValueError, match="status is unknown"):
                await client.sensor_value("temperature")
            with pytest.raises(FailReply, match="Unknown sensor 'humidity'"):
                await client.sensor_value("humidity")
            with pytest.raises(FailReply, match="Server returned 10 sensors, but only 1 expected"):
                await client.sensor_value("/./")


async def test_the_server_is_described(program: Program) -> None:
    """A client knows the versions and flags that the server greeted it with, and those are what it lists."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            assert client.protocol_flags == frozenset("MIB")
            _, listed = await client.request("version-list")
            assert client.versions == {
                "katcp-protocol": ("5.1-MIB",),
                "katcp-library": ("aiokatcp-2.3", "aiokatcp-2.3.0"),
                "katcp-device": ("parity-1.0", "parity-1.0.3"),
            }
            assert client.versions == {
                inform.arguments[0].decode(): tuple(raw.decode() for raw in inform.arguments[1:])
                for inform in listed
            }


async def test_informs_are_heard(program: Program) -> None:
    """Log informs and informs of the device's own reach those who iterate, and those who are called."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (peer, port), open_client(HOST, port) as client:
            heard: list[tuple[int, str]] = []

            def take(number: int, words: str) -> None:
                heard.append((number, words))

            client.add_inform_callback("news", take)
            with client.informs("log") as logs, client.informs("news") as news:
                await peer.ask("log", 40, "it is on fire")
                log = await anext(logs)
                level, _, logger, text = log.arguments
                assert (level, logger, text[-13:]) == (b"error", b"parity", b"it is on fire")
                await peer.ask("inform", "news", 7, "it stopped")
                assert (await anext(news)).arguments == [b"7", b"it stopped"]
                assert heard == [(7, "it stopped")]


async def test_a_mirror_has_sensors_of_every_type(program: Program) -> None:
    """A mirror holds name, type, description, unit, value, status and time of every sensor of the server."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors(enum_types=[Mode]) as sensors,
        ):
            await sensors.wait_synced()
            assert picture(sensors) == await peer.ask("picture")
            assert sensors["mode"].value is Mode.IDLE
            assert [member.value for member in sensors["colour"].stype] == [b"RED!", b"dark blue"]


async def test_a_mirror_stays_in_step(program: Program) -> None:
    """Updates, additions, removals and a change of type reach a mirror, when the server announces them."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            await peer.ask("set", "temperature", "-3.25", "ERROR", 1.0)
            await peer.ask("set", "mode", "fault", "FAILURE", 2.0)
            await mirror_becomes(sensors, await peer.ask("picture"))
            await peer.ask("remove", "counter")
            await peer.ask("add", "humidity", "float", "Of the air")
            await peer.ask("remove", "temperature")
            await peer.ask("add", "temperature", "mode", "How warm it feels")
            await peer.ask("inform", "interface-changed", "sensor-list")
            await mirror_becomes(sensors, await peer.ask("picture"))
            await peer.ask("set", "temperature", "moving-fast", "NOMINAL", 3.0)
            await peer.ask("set", "humidity", "0.5", "NOMINAL", 4.0)
            await mirror_becomes(sensors, await peer.ask("picture"))


async def test_a_sensor_replaced_by_its_like_is_subscribed_again(program: Program) -> None:
    """A sensor that the server replaced by one of the same description is in step after the announcement."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            await peer.ask("remove", "label")
            await peer.ask("add", "label", "string", "A name for people")
            await peer.ask("inform", "interface-changed", "sensor", "label", "modified")
            await peer.ask("set", "label", "new", "NOMINAL", 5.0)
            await mirror_becomes(sensors, await peer.ask("picture"))


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("event", [1.0, 9.0, 20.0]),
        ("differential 5", [9.0, 20.0]),
        ("auto", [1.0, 1.0, 9.0, 20.0]),
        ("event-rate 0 3600", [1.0, 9.0, 20.0]),
        ("differential-rate 10 0 3600", [20.0]),
    ],
)
async def test_a_mirror_samples_as_it_is_told(program: Program, strategy: str, told: list[float]) -> None:
    """A mirror with a strategy gets the updates that the strategy lets through, and no others."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors(
                filter=lambda sensor: sensor.name == "temperature", strategy=strategy
            ) as sensors,
        ):
            await sensors.wait_synced()
            await peer.ask("set", "temperature", "0")  # the status changes, which every strategy tells
            heard: list[float] = []
            sensors["temperature"].attach(lambda sensor, reading: heard.append(reading.value))
            for value in ("1", "1", "9", "20"):
                await peer.ask("set", "temperature", value)
            while told[-1] not in heard:
                await anext(sensors.changes())
            assert [value for value in heard if value] == told


async def test_a_mirror_gets_readings_by_the_clock(program: Program) -> None:
    """A periodic strategy brings readings of a sensor that does not change."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (_, port),
            open_client(HOST, port) as client,
            client.mirror_sensors(
                filter=lambda sensor: sensor.name == "since", strategy="period 0.01"
            ) as sensors,
        ):
            await sensors.wait_synced()
            changes = sensors.changes()
            for _ in range(5):
                change = await anext(changes)
                assert change.reading == Reading(TIME, SensorStatus.UNKNOWN, 0.0)


async def test_a_sensor_that_prefers_a_strategy_gets_it(program: Program) -> None:
    """A sensor whose own strategy is differential tells a mirror only of large changes."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors(filter=lambda sensor: sensor.name == "lazy") as sensors,
        ):
            await sensors.wait_synced()
            heard: list[float] = []
            sensors["lazy"].attach(lambda sensor, reading: heard.append(reading.value))
            for value in ("0", "9", "18", "27", "40"):
                await peer.ask("set", "lazy", value)
            while 40.0 not in heard:
                await anext(sensors.changes())
            assert heard == [0.0, 18.0, 40.0]


async def test_a_mirror_is_left_without_a_trace(program: Program) -> None:
    """After a mirror's block, no sensor is subscribed any more."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (_, port), open_client(HOST, port) as client:
            async with client.mirror_sensors() as sensors:
                await sensors.wait_synced()
                assert (await client.request("sensor-sampling", "label"))[0] == [b"label", b"auto"]
            sampling = [b"label", b"auto"]
            while sampling != [b"label", b"none"]:
                sampling, _ = await client.request("sensor-sampling", "label")


async def test_five_thousand_sensors_are_mirrored(program: Program) -> None:
    """A mirror of five thousand sensors is complete, subscribes in bulk, and follows an update of each."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program, 5000) as (peer, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            assert len(sensors) == 5010
            assert picture(sensors) == await peer.ask("picture")
            await peer.ask("set_all", "many.", -1.0)
            await mirror_becomes(sensors, await peer.ask("picture"))


async def test_a_server_that_halts_says_good_bye(program: Program) -> None:
    """When the server halts, the request in progress and every later one raise, and the mirror says so."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (_, port),
            open_client(HOST, port) as client,
            client.mirror_sensors() as sensors,
        ):
            await sensors.wait_synced()
            with client.informs("disconnect") as farewells:
                await client.request("halt")
                assert (await anext(farewells)).arguments == [b"server shutting down"]
            async for _ in sensors.changes():  # until the connection has ended, which ends the loop
                pass
            assert SyncState.CLOSED is sensors.state
            assert {sensor.status for sensor in sensors.values()} == {SensorStatus.UNREACHABLE}
            with pytest.raises(ConnectionClosed, match="server shutting down"):
                await client.request("watchdog")


async def test_a_server_that_returns_is_found_again(program: Program) -> None:
    """After a server's halt and return, a persistent client has it again, and its mirror is in step again."""
    with trio.fail_after(20):
        async with open_peer_server(*program) as (peer, port):
            async with open_persistent_client(HOST, port) as client, client.mirror_sensors() as sensors:
                await client.wait_connected()
                await sensors.wait_synced()
                await peer.ask("set", "label", "before", "NOMINAL")
                await mirror_becomes(sensors, await peer.ask("picture"))
                await client.request("halt")
                await client.wait_disconnected()
                with pytest.raises(ConnectionClosed):
                    await client.request("watchdog")
                async with open_peer_server(*program, 3, port=port) as (returned, _):
                    await client.wait_connected()
                    await mirror_becomes(sensors, await returned.ask("picture"))
                    assert len(sensors) == 13
                    await returned.ask("set", "label", "after", "NOMINAL")
                    await mirror_becomes(sensors, await returned.ask("picture"))
                    assert client.connections == 2


async def test_a_quiet_server_is_asked_whether_it_lives(program: Program) -> None:
    """A client with ``keep_alive`` asks ``?watchdog`` again and again while the server has nothing to say."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_client(HOST, port, keep_alive=0.02) as client,
        ):
            for _ in range(5):
                await peer.wait_event("watchdog")
            assert client.is_connected


async def test_a_server_that_stands_still_is_given_up(program: Program) -> None:
    """A server that neither answers nor hangs up is lost after ``keep_alive``, and found again."""
    with trio.fail_after(20):
        async with (
            open_peer_server(*program) as (peer, port),
            open_persistent_client(HOST, port, keep_alive=0.2) as client,
        ):
            await client.wait_connected()
            peer.suspend()
            assert await client.wait_state(ClientState.SLEEPING) is ClientState.SLEEPING
            assert "said nothing" in str(client.last_error)
            peer.resume()
            await client.wait_connected()
            assert await client.request("echo", "again") == ([b"again"], [])
