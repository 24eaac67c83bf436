"""The demo, run as its users run it."""

from __future__ import annotations

import signal

import trio

from armillary import katcp
from commands import armillary, in_terminal, running


async def test_in_a_terminal() -> None:
    """In a terminal the demo shows a table of its device's sensors, and Ctrl-C ends it within a second."""
    async with in_terminal("demo") as (demo, terminal):
        await demo.wait_for(r"connected to 127\.0\.0\.1:\d+ +\d+ sensors")
        await demo.wait_for(r"host\.load\.1m +nominal +[0-9.]+ +processes")
        begun = trio.current_time()
        await terminal.send_all(b"\x03")
        assert await demo.wait_end() == 0
        assert trio.current_time() - begun < 1
        assert "Traceback" not in demo.text
        assert demo.text.rstrip().splitlines()[-1].startswith(("host.", "and "))  # the last state stays


async def test_table_fits_a_low_terminal() -> None:
    """In a terminal of ten lines the table has no more, and says how many sensors are hidden."""
    async with in_terminal("demo", lines=10) as (demo, terminal):
        found = await demo.wait_for(r"([1-9]\d*) sensors(?s:.*?)and (\d+) more, hidden below")
        # The other four lines: the heading, the titles, that of the hidden, and the cursor's.
        assert int(found[1]) - int(found[2]) == 6
        await terminal.send_all(b"\x03")
        assert await demo.wait_end() == 0


async def test_with_duration() -> None:
    """With a duration the demo prints a line for each update, and ends with status 0 when it is over."""
    finished = await armillary("demo", "--duration", "0.5")
    assert finished.status == 0
    lines = finished.out.splitlines()
    assert any(" host.load.1m nominal " in line for line in lines)
    assert any(" clock.state " in line for line in lines)
    assert "\x1b" not in finished.out
    assert "Traceback" not in finished.err


async def test_duration_in_a_terminal() -> None:
    """With a duration there are lines, even in a terminal."""
    async with in_terminal("demo", "--duration", "0.3") as (demo, _):
        assert await demo.wait_end() == 0
        assert "Z host.load.1m nominal " in demo.text


async def test_others_can_reach_it() -> None:
    """The demo says where it listens, and another client finds its sensors there."""
    async with running("demo") as demo:
        port = int((await demo.wait_for(r"nc 127\.0\.0\.1 (\d+)"))[1])
        await demo.wait_for(rf"armillary katcp watch 127\.0\.0\.1:{port} ")
        async with katcp.open_client("127.0.0.1", port) as client:
            assert await client.sensor_value("host.processes") > 0


async def test_interrupted_without_terminal() -> None:
    """Without terminal and duration the demo runs until SIGINT, which ends it with status 0 in a second."""
    async with running("demo") as demo:
        await demo.wait_for("host.load.1m nominal")
        status, seconds = await demo.interrupt()
        assert status == 0
        assert seconds < 1
        assert "Traceback" not in demo.text


async def test_terminated() -> None:
    """SIGTERM ends the demo as SIGINT does."""
    async with running("demo") as demo:
        await demo.wait_for("host.load.1m nominal")
        demo.process.send_signal(signal.SIGTERM)
        assert await demo.wait_end() == 0


async def test_halted() -> None:
    """The demo ends when a client asks its device to halt."""
    async with running("demo") as demo:
        port = int((await demo.wait_for(r"nc 127\.0\.0\.1 (\d+)"))[1])
        async with katcp.open_client("127.0.0.1", port) as client:
            await client.request("halt")
        assert await demo.wait_end() == 0
