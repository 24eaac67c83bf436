"""``armillary network watch``: notifications in lines, through absences of the service and the manager."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from command_lab import HOST, CommandLab, command_lab

from armillary.network import open_client
from armillary.testing import DemoService
from commands import armillary, running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands find no files of this user's."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))


async def tell(lab: CommandLab, count: int) -> None:
    """Let the service tell so many numbers."""
    async with open_client(HOST, lab.port, trust=None) as client, client.link("Demo") as demo:
        await demo.tell(count)


async def watched(*options: str) -> list[str]:
    """What a watcher with these options prints of two notifications, after which it ends by itself."""
    async with command_lab(DemoService()) as lab:
        async with running("network", "watch", *lab.where, "Demo", "--count", "2", *options) as command:
            await command.wait_for("linked with the 'Demo' service\n")
            await tell(lab, 5)
            assert await command.wait_end() == 0
        return command.text.partition("linked with the 'Demo' service\n")[2].splitlines()


async def test_a_line_for_each() -> None:
    """Positional arguments are JSON, keyword arguments have their names, and the count ends it."""
    assert await watched() == ["0 is_last=false", "1 is_last=false"]


async def test_json_in_lines() -> None:
    """With --json a line is what the service has told."""
    lines = [json.loads(line) for line in await watched("--json")]
    assert lines == [[[0], {"is_last": False}], [[1], {"is_last": False}]]


async def test_when_they_came() -> None:
    """Times are UTC for people, and seconds since 1970 for programs."""
    begun = time.time()
    for line in await watched("--timestamps"):
        stamp, rest = line.split(" ", 1)
        assert stamp.startswith("20")
        assert stamp.endswith("Z")
        assert rest.endswith(" is_last=false")
    for line in await watched("-t", "--json"):
        moment, args, kwargs = json.loads(line)
        assert begun <= moment <= time.time()
        assert (len(args), kwargs) == (1, {"is_last": False})


async def test_it_stays_through_absences() -> None:
    """A manager and a service that are not there yet, or go, are waited for; each change is told once."""
    async with command_lab() as lab:
        pass
    async with running("network", "watch", *lab.where, "Demo") as command:
        await command.wait_for("no connection to .*, trying again: .*refused")
        for times in (1, 2):
            async with command_lab(port=lab.port) as lab:
                await command.wait_for(rf"(waiting for the 'Demo' service[^$]*){{{times}}}")
                await lab.start(DemoService())
                await command.wait_for(rf"(linked with the 'Demo' service[^$]*){{{times}}}")
                await tell(lab, 1)
                await command.wait_for(rf"(0 is_last=true[^$]*){{{times}}}")
        status, seconds = await command.interrupt()
    assert (status, "Traceback" in command.text) == (130, False)
    assert seconds < 5
    assert command.text.count("linked with") == 2


async def test_it_ends_when_the_time_is_over() -> None:
    """With --duration it ends, whether or not anything was told, or anybody was there."""
    async with command_lab(DemoService()) as lab:
        done = await armillary("network", "watch", *lab.where, "Demo", "--duration", "0.5")
        assert (done.status, done.out) == (0, "")
        assert "linked with" in done.err
        done = await armillary("network", "watch", *lab.where, "Demo", "--duration", "0.5", "--quiet")
        assert (done.status, done.out, done.err) == (0, "", "")
        done = await armillary("network", "watch", *lab.where, "PSU", "--duration", "0.5")
        assert (done.status, "waiting for the 'PSU' service" in done.err) == (0, True)


async def test_what_cannot_be_waited_for_is_an_error() -> None:
    """A service that has as many clients as it wants refuses the link; TLS is not spoken everywhere."""
    async with command_lab(DemoService(max_clients=1)) as lab:
        async with open_client(HOST, lab.port, trust=None) as client, client.link("Demo"):
            done = await armillary("network", "watch", *lab.where, "Demo")
            assert (done.status, "maximum number of Clients" in done.err) == (1, True)
        done = await armillary("network", "watch", "--host", HOST, "--port", str(lab.port), "Demo")
        assert (done.status, "does not speak TLS" in done.err) == (1, True)


async def test_nobody_reads_any_more() -> None:
    """It ends quietly when its reader has gone, as with ``| head -1``."""
    async with command_lab(DemoService()) as lab, trio.open_nursery() as nursery:
        arguments = [sys.executable, "-m", "armillary", "network", "watch", *lab.where, "Demo"]
        run = partial(
            trio.run_process,
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        assert process.stderr is not None
        with trio.fail_after(20):
            said = b""
            while b"linked with" not in said:
                said += await process.stderr.receive_some()
        await process.stdout.aclose()
        await tell(lab, 1)
        with trio.fail_after(20):
            assert await process.wait() == 1
            assert await process.stderr.receive_some() == b""
