"""``armillary network ls``: what it asks, what it shows, and what it is not told."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from command_lab import HOST, command_lab
from rich.console import Console

from armillary.errors import ConnectionClosed, PeerError
from armillary.network import Role, Roles, open_client
from armillary.network.cli.live_overview import render
from armillary.network.cli.overview import (
    ClientRow,
    Looker,
    Overview,
    ServiceRow,
    as_json,
    as_table,
)
from armillary.network.managed_peer import ManagedPeer
from armillary.network.protocol.features import PING, STATUS
from armillary.testing import DemoService, Lab, open_lab
from commands import armillary, in_terminal

FEATURES = {PING, STATUS}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands find no files of this user's."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))


def service(overview: Overview, name: str = "Demo") -> ServiceRow:
    (row,) = [row for row in overview.services if row.name == name]
    return row


# -- looking -------------------------------------------------------------------------------------------------


async def test_links_locks_and_requests_are_seen(autojump_clock: trio.testing.MockClock) -> None:
    """A look has who is linked with what, who holds which lock, and what services were asked."""
    async with open_lab(DemoService(max_clients=3), DemoService(name="PSU")) as lab:
        async with (
            lab.client("Bench") as bench,
            lab.client("Looker", features=FEATURES) as looking,
            bench.link("Demo") as demo,
            bench.link("PSU"),
            demo.lock(),
            trio.open_nursery() as nursery,
        ):
            await demo.echo(1)
            nursery.start_soon(demo.sleep, 1000)
            await trio.sleep(1)
            overview = await Looker(looking).look()
            nursery.cancel_scope.cancel()
    row = service(overview)
    assert row.address.startswith("lab:")
    assert (row.links, row.max_clients) == ((bench.network_name,), 3)
    assert (row.lock, row.holders) == ("exclusive", (bench.network_name,))
    assert (row.requests, row.answered, row.waiting, row.rate) == (2, 1, 1, None)
    row = service(overview, "PSU")
    assert (row.links, row.lock, row.requests) == ((bench.network_name,), None, 0)
    clients = {client.name: (client.links, client.locks) for client in overview.clients}
    assert clients == {"Bench": (["Demo", "PSU"], ["Demo"]), "Looker": ((), ())}
    assert overview.manager == looking.manager_name


async def test_rates_are_of_the_time_between_two_looks(autojump_clock: trio.testing.MockClock) -> None:
    """The second look has them; a service that was started again meanwhile has none."""
    async with open_lab() as lab:
        await lab.start(DemoService())
        restarted = await lab.start(DemoService(name="PSU"))
        async with lab.client() as client, lab.client(features=FEATURES) as looking:
            looker = Looker(looking)
            assert service(await looker.look()).rate is None
            async with client.link("Demo") as demo:
                for _ in range(10):
                    await demo.echo()
            restarted.cancel()
            await trio.sleep(2)
            await lab.start(DemoService(name="PSU"))
            await trio.sleep(2)
            overview = await looker.look()
            assert service(overview).rate == pytest.approx(2.5, rel=0.01)
            assert service(overview, "PSU").rate is None
            await trio.sleep(1)
            assert service(await looker.look(), "PSU").rate == 0.0


async def test_who_is_there_is_asked_when_somebody_has_come_or_gone(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of idle clients, a look is a small packet as long as they are the same."""
    asked = 0

    def counted(ask: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask()

    async with open_lab(DemoService()) as lab:
        monkeypatch.setattr(lab.manager, "identity", partial(counted, lab.manager.identity))
        async with lab.client(features=FEATURES) as looking:
            looker = Looker(looking)
            for _ in range(3):
                assert len((await looker.look()).clients) == 1
            assert asked == 1
            async with lab.client() as other, other.link("Demo"):
                for _ in range(3):
                    overview = await looker.look()
                    assert len(overview.clients) == 2
                    assert service(overview).links == (other.network_name,)
                assert asked == 2
            assert len((await looker.look()).clients) == 1
            assert asked == 3


async def test_thousands_of_idle_clients(autojump_clock: trio.testing.MockClock) -> None:
    """A manager with 5000 clients, all of them linked with one service, tells of them within a second."""
    async with open_lab(DemoService()) as lab:
        registry = lab.manager.registry
        for number in range(5000):
            peer = ManagedPeer("client", f"Idle {number}", f"lab7:{number}")
            registry.add(peer)
            registry.link(peer, "Demo")
        async with lab.client(features=FEATURES) as looking:
            begun = time.perf_counter()
            overview = await Looker(looking).look()
            shown = as_table(overview)
            assert time.perf_counter() - begun < 1.0
    assert len(overview.clients) == 5001
    assert len(service(overview).links or ()) == 5000
    assert "1 service, 5001 clients" in shown


async def test_a_look_through_a_restart(autojump_clock: trio.testing.MockClock) -> None:
    """Without a manager a look fails; the next manager's numbers are not compared with the last one's."""
    async with open_lab(DemoService()) as lab, lab.persistent_client(features=FEATURES) as looking:
        await looking.wait_connected()
        looker = Looker(looking)
        await looker.look()
        await lab.stop_manager()
        await looking.wait_disconnected()
        with pytest.raises(ConnectionClosed):
            await looker.look()
        await lab.start_manager()
        await trio.sleep(100)
        assert service(await looker.look()).rate is None
        await trio.sleep(1)
        assert service(await looker.look()).rate == 0.0


async def test_a_manager_that_does_not_offer_it_is_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    """One of 1.0 would want an administrator: only who is there is known then."""
    async with open_lab() as lab:
        lab.manager.features = ()
        await lab.start(DemoService(max_clients=2))
        async with lab.client("Bench", features=FEATURES) as looking:
            overview = await Looker(looking).look()
    row = service(overview)
    assert (row.max_clients, row.links, row.requests, row.rate, row.holders) == (2, None, None, None, None)
    assert [(client.name, client.links) for client in overview.clients] == [("Bench", None)]
    assert "?/2" in as_table(overview)
    assert json.loads(as_json(overview))["services"][0]["links"] is None


async def test_what_a_service_does_is_told_to_who_may_use_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Others are told that it is there, as in the identity."""
    roles = Roles([Role("some", link=("Demo",), serve=("*",))], default="some")
    async with open_lab(DemoService(), DemoService(name="PSU"), roles=roles) as lab:
        async with lab.client(features=FEATURES) as looking:
            overview = await Looker(looking).look()
    assert (service(overview).links, service(overview, "PSU").links) == ((), None)


async def test_somebody_types_the_request(lab: Lab) -> None:
    """A person at a terminal is answered as well."""
    async with lab.open_raw() as peer:
        assert b'"identity"' in await peer.receive()
        await peer.send(b"client Marie\n")
        await peer.send(b"Manager status\n")
        while b'"clock"' not in (line := await peer.receive()):
            assert line
        assert json.loads(line)["result"]["services"] == {}


@pytest.mark.parametrize("answer", [None, [], {"clock": "noon"}, {"clock": 1.0, "revision": 1}])
async def test_a_manager_that_makes_no_sense(
    answer: object, lab: Lab, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it answers is an error of its own, whatever it is."""

    class Nonsense:
        def answer(self) -> object:
            return answer

    monkeypatch.setattr(lab.manager, "status", lambda role: Nonsense())
    async with lab.client(features=FEATURES) as looking:
        with pytest.raises(PeerError, match="makes no sense"):
            await Looker(looking).look()


# -- showing -------------------------------------------------------------------------------------------------

FULL = Overview(
    "Manager[lab7:1875]",
    [
        ServiceRow(
            "DMM",
            "lab7:51030",
            "Python",
            "Linux",
            4,
            links=["A[lab7:1]", "B\x1b[lab7:2]"],
            lock="shared",
            holders=["A[lab7:1]"],
            requests=120,
            answered=119,
            waiting=1,
            rate=12.345,
        ),
        ServiceRow("[bold]Oven", "lab7:51031", "LabVIEW", "Windows", -1),
    ],
    [
        ClientRow("A", "A[lab7:1]", "lab7:1", "Python", "Linux", links=["DMM", "PSU"], locks=["DMM"]),
        ClientRow("C", "C[lab7:3]", "lab7:3", "Python", "Linux"),
    ],
)


def test_the_table() -> None:
    """Columns for people; a question mark stands for what was not told."""
    assert [line.split() for line in as_table(FULL).splitlines()] == [
        ["Manager[lab7:1875]", "2", "services,", "2", "clients"],
        [],
        ["SERVICE", "ADDRESS", "LINKS", "REQUESTS", "WAITING", "RATE", "LOCK"],
        ["DMM", "lab7:51030", "2/4", "120", "1", "12.3/s", "shared:", "A[lab7:1]"],
        ["[bold]Oven", "lab7:51031", "?", "?", "?"],
        [],
        ["CLIENT", "LINKED", "WITH", "LANGUAGE", "OS"],
        ["A[lab7:1]", "DMM", "(locked),", "PSU", "Python", "Linux"],
        ["C[lab7:3]", "?", "Python", "Linux"],
    ]
    assert as_table(Overview("Manager[lab7:1875]", [], [])) == "Manager[lab7:1875]  0 services, 0 clients"


def test_the_object() -> None:
    """Everything for programs, with null for what was not told."""
    shown = json.loads(as_json(FULL))
    assert (shown["manager"], len(shown["services"]), len(shown["clients"])) == ("Manager[lab7:1875]", 2, 2)
    dmm, oven = shown["services"]
    assert (dmm["rate"], dmm["links"], oven["links"]) == (12.345, ["A[lab7:1]", "B\x1b[lab7:2]"], None)
    assert json.loads(as_json(Overview("M", [], []))) == {"manager": "M", "services": [], "clients": []}


def lines_of(overview: Overview | None, trouble: str = "", *, height: int = 24) -> Sequence[str]:
    console = Console(width=100, height=height, color_system=None)
    with console.capture() as capture:
        console.print(render(overview, trouble, height=height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_live_table() -> None:
    """It says the same in a terminal; what is not known yet is not shown, and trouble is."""
    lines = lines_of(FULL)
    assert lines[0] == "Manager[lab7:1875]  2 services, 2 clients"
    assert any(line.split()[:2] == ["[bold]Oven", "lab7:51031"] for line in lines if line)
    assert any("DMM (locked), PSU" in line for line in lines)
    assert lines_of(None) == ["connecting"]
    assert lines_of(None, "no\x1b connection") == ["no\\x1b connection"]
    assert lines_of(FULL, "no answer")[:2] == ["Manager[lab7:1875]  2 services, 2 clients", "no answer"]


@pytest.mark.parametrize(("services", "clients"), [(0, 5000), (50, 3), (3, 50), (50, 50), (4, 4)])
@pytest.mark.parametrize("trouble", ["", "no answer"])
def test_the_live_table_fits(services: int, clients: int, trouble: str) -> None:
    """One line is left for the cursor, what is hidden is counted, and neither kind crowds out the other."""
    height = 24
    many = Overview(
        "Manager",
        [ServiceRow(f"S{number}", "lab7:1", "Python", "Linux", -1) for number in range(services)],
        [ClientRow("C", f"C{number}[lab7]", "lab7", "Python", "Linux") for number in range(clients)],
    )
    lines = lines_of(many, trouble, height=height)
    assert len(lines) < height
    for letter, count in (("S", services), ("C", clients)):
        shown = len([line for line in lines if line.startswith(letter) and line[1].isdigit()])
        assert shown >= min(count, 7)
        hidden = count - shown
        assert not hidden or f"and {hidden} more, hidden below" in lines


# -- the command ---------------------------------------------------------------------------------------------


async def test_it_is_printed_once_where_there_is_no_terminal() -> None:
    """As a table or as JSON; rates only if there is time for a second look."""
    async with command_lab(DemoService()) as lab:
        done = await armillary("network", "ls", *lab.where)
        assert (done.status, done.err) == (0, "")
        lines = [line.split() for line in done.out.splitlines()]
        assert lines[0][1:] == ["1", "service,", "1", "client"]
        assert lines[3][0] == "Demo"
        assert lines[3][2:] == ["0", "0", "0"]
        done = await armillary("network", "ls", *lab.where, "--json", "--interval", "0.1")
        assert done.status == 0
        (row,) = json.loads(done.out)["services"]
        assert (row["name"], row["rate"]) == ("Demo", 0.0)


async def test_it_is_kept_up_to_date_in_a_terminal() -> None:
    """Who comes appears, and so do links and locks; Ctrl-C ends it."""
    async with command_lab(DemoService()) as lab:
        async with in_terminal("network", "ls", *lab.where, "--interval", "0.1") as (command, terminal):
            await command.wait_for(r"Demo +\S+ +0 +0 +0 +0\.0/s")
            await lab.start(DemoService(name="PSU"))
            await command.wait_for(r"PSU +\S+ +0")
            async with open_client(HOST, lab.port, trust=None, name="Bench") as client:
                async with client.link("Demo") as demo, demo.lock():
                    await command.wait_for(r"Demo +\S+ +1 .*exclusive: Bench")
            await terminal.send_all(b"\x03")
            assert await command.wait_end() == 130
            assert "Traceback" not in command.text


async def test_a_terminal_can_be_told_once() -> None:
    """With --once the table is printed and the command ends, in a terminal, too."""
    async with command_lab(DemoService()) as lab:
        async with in_terminal("network", "ls", *lab.where, "--once") as (command, _):
            assert await command.wait_end() == 0
        assert "1 service, 1 client" in command.text


async def test_a_manager_that_is_not_there_yet_is_waited_for_in_a_terminal() -> None:
    """The table says why there is nothing to show, until there is."""
    async with command_lab() as lab:
        pass
    async with in_terminal("network", "ls", *lab.where, "--interval", "0.1") as (command, _):
        await command.wait_for("Connection refused")
        async with command_lab(port=lab.port):
            await command.wait_for("0 services, 1 client")
            command.process.terminate()
            assert await command.wait_end() == 130


async def test_a_manager_that_does_not_answer() -> None:
    """After the time for connecting it is an error."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, _say_nothing, listeners)
        port = listeners[0].socket.getsockname()[1]
        where = ("--host", HOST, "--port", str(port), "--no-tls", "--connect-timeout", "0.2")
        done = await armillary("network", "ls", *where)
        assert done.status == 1
        assert "no answer in 0.2 s" in done.err
        nursery.cancel_scope.cancel()


async def _say_nothing(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()
