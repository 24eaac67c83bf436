"""The commands, run as their users run them. See `test_demo` for the demo."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from armillary import __version__, katcp
from armillary._runtime.dial import bound_ports
from armillary.cli import main
from armillary.katcp import DeviceStatus, FailReply, RequestContext, Sensor, SensorStatus, Timestamp
from armillary.katcp.protocol.mirroring import SensorDescription
from armillary.katcp.watching import check_strategy, name_filter, strategy_for
from commands import armillary, in_terminal, running

HOST = "127.0.0.1"


class Rig(katcp.Device):
    """Sensors of all kinds, and requests that show what a client makes of them."""

    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()
        sensors: tuple[Sensor[Any], ...] = (
            Sensor(float, "temperature", "How warm it is", "degC", 20.5, SensorStatus.NOMINAL),
            Sensor(int, "count", "How many", default=7, initial_status=SensorStatus.WARN),
            Sensor(float, "ratio", default=math.nan, initial_status=SensorStatus.FAILURE),
            Sensor(float, "limit", default=-math.inf, initial_status=SensorStatus.NOMINAL),
            Sensor(bool, "is-open", default=True, initial_status=SensorStatus.ERROR),
            Sensor(bytes, "label", default=b"a\xffb c", initial_status=SensorStatus.NOMINAL),
            Sensor(DeviceStatus, "device-status", default=DeviceStatus.DEGRADED),
            Sensor(Timestamp, "since", default=Timestamp(12.5), initial_status=SensorStatus.INACTIVE),
        )
        for sensor in sensors:
            sensor.set_value(sensor.value, sensor.status, 1_700_000_000.25)
            self.sensors.add(sensor)

    async def request_wait(self, ctx: RequestContext) -> None:
        """Never reply."""
        self.asked.set()
        await trio.sleep_forever()

    def request_announce(self, ctx: RequestContext) -> int:
        """Say something to this client and something to all, in turns."""
        ctx.inform("first")
        self.mass_inform("news", b"raw \xff byte")
        ctx.inform("second")
        return 2

    def request_refuse(self, ctx: RequestContext, *arguments: bytes) -> None:
        """Fail with the arguments."""
        raise FailReply(repr(arguments))


@asynccontextmanager
async def served(device: katcp.Device, port: int | str = 0, **options: Any) -> AsyncIterator[str]:
    """A device, for the length of a block, and its address."""
    async with trio.open_nursery() as nursery:
        serve = partial(katcp.serve_device, device, port, host=options.pop("host", HOST), **options)
        listeners = await nursery.start(serve)
        yield f"unix:{port}" if isinstance(port, str) else f"{HOST}:{bound_ports(listeners)[0]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(answer: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncIterator[str]:
    """A server that treats each connection as `answer` does, for the length of a block, and its address."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host=HOST))
        yield f"{HOST}:{bound_ports(listeners)[0]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def address(rig: Rig) -> AsyncIterator[str]:
    async with served(rig) as where:
        yield where


@pytest.fixture
async def nobody() -> str:
    """An address where nobody listens."""
    async with scripted(trio.aclose_forcefully) as where:
        return where


# -- without a device ----------------------------------------------------------------------------------------


def test_help_imports_little() -> None:
    """The list of commands is shown without the libraries that the commands need."""
    program = (
        "import sys; from armillary.cli import main; main(['--help'], standalone_mode=False); "
        "assert not {'trio', 'rich', 'psutil', 'katcp_codec'} & set(sys.modules), list(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "katcp" in done.stdout
    assert "demo" in done.stdout


def test_version() -> None:
    """``--version`` tells the version of the package."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"armillary, version {__version__}\n"


@pytest.mark.parametrize("command", ["request", "sensors", "watch", "serve"])
def test_help(command: str) -> None:
    """Every command explains its exit status, a line for each."""
    result = CliRunner().invoke(main, ["katcp", command, "--help"])
    assert result.exit_code == 0
    assert "\n  Exit status:\n    0  " in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("katcp request host help", "expected host:port, [ipv6]:port or unix:path, got 'host'"),
        ("katcp request ::1:7147 help", "expected host:port, [ipv6]:port or unix:path, got '::1:7147'"),
        ("katcp request host:99999 help", "got 'host:99999'"),
        ("katcp request host:1 a_b", "expected a name of letters, digits and dashes, got 'a_b'"),
        ("katcp request host:1", "Missing argument 'NAME'"),
        ("katcp request host:1 help --request-timeout 0", "expected a positive number of seconds, got '0'"),
        ("katcp request host:1 help --connect-timeout nan", "expected a positive number of seconds"),
        ("katcp request host:1 help --cafile /nowhere", "expected certificates in PEM form in --cafile /no"),
        ("katcp watch host:1 /(/", "expected a regular expression between slashes, got /(/"),
        ("katcp watch host:1 --strategy often", "'often' is not a valid value for Strategy"),
        ("katcp watch host:1 --strategy period", "expected 1 strategy arguments, found 0"),
        ("katcp watch host:1 --strategy=", "is not a valid value for Strategy"),
        ("katcp watch host:1 --duration inf", "expected a positive number of seconds, got 'inf'"),
        ("katcp serve --port 70000", "70000 is not in the range"),
        ("demo --duration x", "expected a positive number of seconds, got 'x'"),
    ],
)
def test_usage_errors(arguments: str, message: str) -> None:
    """A command line that makes no sense ends with status 2 and says on standard error what was expected."""
    result = CliRunner().invoke(main, arguments.split(" "))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_name_filter() -> None:
    """A filter is a name, or a regular expression between slashes that is searched for in names."""

    def chosen(pattern: str | None) -> list[str]:
        wanted = name_filter(pattern)
        return [name for name in ("a", "b.a", "/") if wanted(SensorDescription(name, "", "", "integer", ()))]

    assert chosen(None) == ["a", "b.a", "/"]
    assert chosen("a") == ["a"]
    assert chosen("/a/") == ["a", "b.a"]
    assert chosen("/") == ["/"]
    assert chosen("//") == ["a", "b.a", "/"]


@pytest.mark.parametrize(
    ("strategy", "of_text"),
    [
        ("auto", "auto"),
        ("period 2", "period 2"),
        ("differential 5", "event"),
        ("differential-rate 5 1 10", "event-rate 1 10"),
    ],
)
def test_strategy_for(strategy: str, of_text: str) -> None:
    """Sensors that are no numbers get the event strategy in place of a differential one."""
    check_strategy(strategy)
    choose = strategy_for(strategy)
    assert choose(SensorDescription("a", "", "", "float", ())) == strategy
    assert choose(SensorDescription("a", "", "", "string", ())) == of_text


# -- request -------------------------------------------------------------------------------------------------


async def test_request(address: str) -> None:
    """Informs, those to all clients among them, and the reply are printed as they came; ok is status 0."""
    finished = await armillary("katcp", "request", address, "announce")
    assert finished.out.splitlines() == [
        "#announce[1] first",
        r"#news raw\_\xff\_byte",
        "#announce[1] second",
        "!announce[1] ok 2",
    ]
    assert (finished.status, finished.err) == (0, "")


async def test_request_arguments(address: str) -> None:
    """Arguments reach the device as they are, even with spaces, bytes, and a dash; fail is status 2."""
    finished = await armillary(
        "katcp", "request", address, "refuse", "-5", "two words", b"\xff", "", "--request-timeout", "9"
    )
    expected = repr((b"-5", b"two words", b"\xff", b"")).replace("\\", r"\\").replace(" ", r"\_")
    assert finished.out == f"!refuse[1] fail {expected}\n"
    assert finished.status == 2


async def test_request_unknown(address: str) -> None:
    """A reply that says invalid is printed, and is status 2."""
    finished = await armillary("katcp", "request", address, "nonsense")
    assert finished.out == r"!nonsense[1] invalid unknown\_request\_nonsense" + "\n"
    assert finished.status == 2


async def test_request_nobody(nobody: str) -> None:
    """Where nobody listens, the error says where and why, and the status is 1."""
    finished = await armillary("katcp", "request", nobody, "help")
    assert finished.status == 1
    assert finished.out == ""
    assert finished.err == f"Error: could not connect to {nobody}: Connection refused\n"


async def test_request_timeout(address: str) -> None:
    """A reply that does not come in time is an error that says so, with status 1."""
    finished = await armillary("katcp", "request", address, "wait", "--request-timeout", "0.1")
    assert finished.status == 1
    assert finished.err == f"Error: {address} did not reply to ?wait within 0.1 s\n"


async def test_connect_timeout() -> None:
    """A server that says nothing is given up after the connect time-out, with status 1."""

    async def answer(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with scripted(answer) as where:
        finished = await armillary("katcp", "request", where, "help", "--connect-timeout", "0.1")
    assert finished.status == 1
    assert finished.err == f"Error: could not connect to {where}: no #version-connect in 0.1 s\n"


async def test_request_connection_ends() -> None:
    """A connection that ends before the reply is an error that says so; what came before it is printed."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"#version-connect katcp-protocol 5.0-MI\n")
        await stream.receive_some()
        await stream.send_all(b"#help[1] half\n#disconnect tired\n")

    async with scripted(answer) as where:
        finished = await armillary("katcp", "request", where, "help")
    assert finished.out == "#help[1] half\n#disconnect tired\n"
    assert finished.status == 1
    assert f"lost {where} before the reply to ?help came: the server closed the connection" in finished.err


async def test_request_other_protocol() -> None:
    """A server that speaks another version is refused, with status 1."""
    async with scripted(lambda stream: stream.send_all(b"#version-connect katcp-protocol 4.0\n")) as where:
        finished = await armillary("katcp", "request", where, "help")
    assert finished.status == 1
    assert finished.err == f"Error: expected {where} to speak KATCP 5: Unknown protocol version 4.0\n"


async def test_request_without_ids() -> None:
    """A server without message ids is asked without one; a malformed line of its is reported and skipped."""
    asked = []

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"#version-connect katcp-protocol 5.0\nnonsense\n")
        asked.append(await stream.receive_some())
        await stream.send_all(b"!other ok\n#x one\n!x ok\n")

    async with scripted(answer) as where:
        finished = await armillary("katcp", "request", where, "x")
    assert asked == [b"?x\n"]
    assert finished.out == "#x one\n!x ok\n"
    assert finished.status == 0
    assert "Malformed message received" in finished.err


async def test_request_interrupted(rig: Rig, address: str) -> None:
    """Ctrl-C ends a request with status 1 and no traceback."""
    async with running("katcp", "request", address, "wait") as command:
        await rig.asked.wait()
        status, seconds = await command.interrupt()
        assert status == 1
        assert seconds < 1
        assert "Traceback" not in command.text


async def test_request_ipv6(rig: Rig) -> None:
    """An IPv6 address stands in brackets."""
    async with served(rig, host="::1") as where:
        port = where.rpartition(":")[2]
        finished = await armillary("katcp", "request", f"[::1]:{port}", "watchdog")
    assert finished.out == "!watchdog[1] ok\n"


async def test_request_unix(rig: Rig, tmp_path: Path) -> None:
    """A Unix socket is ``unix:`` and its path."""
    async with served(rig, str(tmp_path / "device")) as where:
        finished = await armillary("katcp", "request", where, "watchdog")
    assert finished.out == "!watchdog[1] ok\n"


async def test_request_tls(rig: Rig, tls: Any) -> None:
    """With ``--cafile`` the connection is a TLS one, to a server that the file's authority vouches for."""
    async with served(rig, ssl_context=tls.server) as where:
        trusted = await armillary("katcp", "request", where, "watchdog", "--cafile", str(tls.authority))
        unknown = await armillary("katcp", "request", where, "watchdog", "--tls")
    assert trusted.out == "!watchdog[1] ok\n"
    assert unknown.status == 1
    assert f"could not connect to {where}: " in unknown.err
    assert "certificate verify failed" in unknown.err


# -- sensors -------------------------------------------------------------------------------------------------


async def test_sensors(address: str) -> None:
    """Sensors are listed in columns: name, units, type, description."""
    finished = await armillary("katcp", "sensors", address, "/te|count/")
    assert finished.out.splitlines() == [
        "NAME         UNITS  TYPE     DESCRIPTION",
        "count               integer  How many",
        "temperature  degC   float    How warm it is",
    ]
    assert finished.status == 0


async def test_sensors_with_values(address: str) -> None:
    """With ``--values``, the status and the value stand behind the name, with undecodable bytes escaped."""
    finished = await armillary("katcp", "sensors", address, "--values")
    lines = [line.split("  ") for line in finished.out.splitlines()]
    words = [[word.strip() for word in line if word][:3] for line in lines]
    assert words == [
        ["NAME", "STATUS", "VALUE"],
        ["count", "warn", "7"],
        ["device-status", "unknown", "degraded"],
        ["is-open", "error", "1"],
        ["label", "nominal", r"a\xffb c"],
        ["limit", "nominal", "-inf"],
        ["ratio", "failure", "nan"],
        ["since", "inactive", "12.5"],
        ["temperature", "nominal", "20.5"],
    ]


async def test_sensors_as_json(address: str) -> None:
    """With ``--json`` there is one array; what JSON has no number for is a string."""
    finished = await armillary("katcp", "sensors", address, "--values", "--json")
    listed = {sensor["name"]: sensor for sensor in json.loads(finished.out)}
    assert listed["temperature"] == {
        "name": "temperature",
        "type": "float",
        "units": "degC",
        "description": "How warm it is",
        "timestamp": 1_700_000_000.25,
        "status": "nominal",
        "value": 20.5,
    }
    assert {name: sensor["value"] for name, sensor in listed.items()} == {
        "count": 7,
        "device-status": "degraded",
        "is-open": True,
        "label": "a\\xffb c",
        "limit": "-inf",
        "ratio": "nan",
        "since": 12.5,
        "temperature": 20.5,
    }
    assert listed["device-status"]["parameters"] == ["ok", "degraded", "fail"]


async def test_no_sensors_as_json(address: str) -> None:
    """Where no name matches, the array is empty, and that is no error."""
    finished = await armillary("katcp", "sensors", address, "/nothing/", "--json")
    assert (finished.status, json.loads(finished.out)) == (0, [])


async def test_sensors_unknown(address: str) -> None:
    """A name that no sensor has is an error with status 2, in the device's words."""
    finished = await armillary("katcp", "sensors", address, "nobody")
    assert finished.status == 2
    assert finished.out == ""
    assert finished.err == f"Error: {address} answered fail: Unknown sensor 'nobody'\n"


async def test_sensors_malformed() -> None:
    """A device that describes its sensors in another way is an error that shows what came."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"#version-connect katcp-protocol 5.0-MI\n")
        await stream.receive_some()
        await stream.send_all(b"#sensor-list[1] name\n!sensor-list[1] ok 1\n")
        await trio.sleep_forever()

    async with scripted(answer) as where:
        finished = await armillary("katcp", "sensors", where)
    assert finished.status == 1
    assert finished.err == (
        "Error: expected #sensor-list name description units type, got #sensor-list[1] name\n"
    )


# -- watch ---------------------------------------------------------------------------------------------------


async def test_watch(rig: Rig, address: str) -> None:
    """Without a terminal there is a line for each update; the end of the duration is status 0."""
    async with running("katcp", "watch", address, "temperature", "--duration", "0.6") as command:
        await command.wait_for("20.5 degC\n")
        rig.sensors["temperature"].set_value(21.25, SensorStatus.WARN, 1_700_000_001.0)
        assert await command.wait_end() == 0
        assert command.text.splitlines() == [
            f"connected to {address}",
            "2023-11-14T22:13:20.250Z temperature nominal 20.5 degC",
            "2023-11-14T22:13:21.000Z temperature warn 21.25 degC",
        ]


async def test_watch_strategy(rig: Rig, address: str) -> None:
    """Sensors are sampled as ``--strategy`` says."""
    async with running("katcp", "watch", address, "count", "--strategy", "differential 5") as command:
        await command.wait_for("count warn 7\n")
        for value in (8, 9, 20):
            rig.sensors["count"].set_value(value, SensorStatus.WARN)
        await command.wait_for("count warn 20\n")
        assert " 8" not in command.text
        assert " 9" not in command.text


async def test_watch_sensors_come_and_go(rig: Rig, address: str) -> None:
    """A sensor that is added is watched as soon as it has a reading, and one that is removed is mentioned."""
    async with running("katcp", "watch", address, "/^new/") as command:
        await command.wait_for("connected")
        sensor = Sensor(int, "new", units="V", default=5, initial_status=SensorStatus.NOMINAL)
        rig.sensors.add(sensor)
        await command.wait_for("new nominal 5 V\n")
        rig.sensors.discard(sensor)
        await command.wait_for("sensor new was removed\n")
        assert "unknown" not in command.text


async def test_watch_reconnects(rig: Rig) -> None:
    """When the device is away, the sensors are unreachable; when it is back, the watch goes on."""
    async with served(rig) as where:
        async with running("katcp", "watch", where, "count") as command:
            await command.wait_for("count warn 7\n")
            rig.restart()
            await command.wait_for("count unreachable 7\n")
            await command.wait_for(f"no connection to {where}, trying again: .*device restarting")
            await command.wait_for(
                rf"connected to {where}\n(?s:.*)connected to {where}\n(?s:.*)count warn 7\n"
            )


async def test_watch_nobody(nobody: str) -> None:
    """A watch that never had a connection ends with status 1 and says why."""
    finished = await armillary("katcp", "watch", nobody, "--duration", "0.2")
    assert finished.status == 1
    assert finished.out == ""
    assert f"no connection to {nobody}, trying again: " in finished.err
    assert finished.err.splitlines()[-1].startswith(f"Error: could not connect to {nobody}: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_watch_interrupted(address: str, number: signal.Signals) -> None:
    """Ctrl-C is the ordinary end of a watch: status 0, within a second; and so is SIGTERM."""
    async with running("katcp", "watch", address) as command:
        await command.wait_for("temperature")
        begun = trio.current_time()
        command.process.send_signal(number)
        assert await command.wait_end() == 0
        assert trio.current_time() - begun < 1
        assert "Traceback" not in command.text


async def test_watch_reader_goes(address: str) -> None:
    """A watch whose reader goes away (``| head -1``) ends quietly."""
    program = f"{sys.executable} -m armillary katcp watch {address} --strategy 'period 0.05' | head -1"
    with trio.fail_after(10):
        done = await trio.run_process(["/bin/sh", "-c", program], capture_stdout=True, capture_stderr=True)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr.decode() == f"connected to {address}\n"


async def test_watch_in_terminal(rig: Rig, address: str) -> None:
    """In a terminal a watch is a table that follows the device, through its absence too."""
    async with in_terminal("katcp", "watch", address, "count") as (command, terminal):
        await command.wait_for(rf"connected to {address} +1 sensor +1 warn\s+Sensor")
        await command.wait_for(r"count +warn +7 ")
        rig.sensors["count"].set_value(1234, SensorStatus.ERROR)
        await command.wait_for(r"count +error +1234 ")
        rig.restart()
        await command.wait_for(rf"no connection to {address}(?s:.*)count +unreachable +1234 ")
        await terminal.send_all(b"\x03")
        assert await command.wait_end() == 0


# -- serve ---------------------------------------------------------------------------------------------------


async def test_serve() -> None:
    """This host's telemetry is served where the first line says, until Ctrl-C ends it within a second."""
    async with running("katcp", "serve", "--port", "0", "--period", "0.1") as command:
        port = int((await command.wait_for(r"^listening on 127\.0\.0\.1:(\d+)\n"))[1])
        async with katcp.open_client(HOST, port) as client, client.mirror_sensors() as sensors:
            await sensors.wait_synced()
            assert sensors["host.memory.percent"].status.valid_value()
            assert "clock.state" in sensors
            with trio.fail_after(5):
                async for change in sensors.changes():
                    if change.name == "host.uptime":
                        break
            status, seconds = await command.interrupt()
        assert status == 0
        assert seconds < 1
        assert "Traceback" not in command.text


async def test_serve_taken(address: str) -> None:
    """A port that is taken is an error with status 1 that says which."""
    finished = await armillary("katcp", "serve", "--port", address.rpartition(":")[2])
    assert finished.status == 1
    assert finished.err.startswith(f"Error: could not listen on {address}: ")


async def test_serve_halted() -> None:
    """A client's ``?halt`` ends the server with status 0."""
    async with running("katcp", "serve", "--port", "0") as command:
        where = (await command.wait_for(r"listening on (\S+)\n"))[1]
        finished = await armillary("katcp", "request", where, "halt")
        assert finished.out == "!halt[1] ok\n"
        assert await command.wait_end() == 0
