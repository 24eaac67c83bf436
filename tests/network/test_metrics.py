"""A manager's numbers over HTTP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from armillary._runtime.groups import single_exception
from armillary.errors import ConnectFailed
from armillary.network import metrics
from armillary.network.client import Client, open_client_on
from armillary.network.errors import RemoteError, ServiceGone
from armillary.network.managed_peer import ManagedPeer
from armillary.network.manager import Authenticate, Manager, ManagerLimits, serve_manager_on
from armillary.network.metrics import serve_metrics
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.service import Service, run_service_on
from armillary.testing import MemoryListener, RawPeer

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Far more than anything here takes on a busy machine; what gets there fails instead of hanging.
PATIENCE = 60.0


class Scrape(NamedTuple):
    """An answer of the web server."""

    status: int
    content_type: str
    body: str


def fetch(url: str, accept: str = OPENMETRICS, method: str = "GET") -> Scrape:
    """Ask like Prometheus, and wait for the answer."""
    request = urllib.request.Request(url, headers={"Accept": accept}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return Scrape(response.status, response.headers["content-type"], response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Scrape(error.code, error.headers["content-type"], error.read().decode())


def parsed(text: str) -> dict[str, float]:
    """Values by name and labels, ``name{label=value,...}``, as OpenMetrics' own parser reads them."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("armillary_manager_") + (f"{{{labels}}}" if labels else "")
            assert name not in samples
            samples[name] = sample.value
    return samples


class Bench(Service):
    """What a laboratory offers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._go_on = trio.Event()

    async def wait(self) -> None:
        await self._go_on.wait()

    def go_on(self) -> None:
        self._go_on.set()

    def double(self, value: Any) -> Any:
        return value * 2

    async def tell(self, count: int) -> None:
        for number in range(count):
            self.emit_notification(number)


class Lab:
    """A manager in memory that publishes its numbers."""

    def __init__(self, listener: MemoryListener, nursery: trio.Nursery, manager: Manager, port: int) -> None:
        self.listener = listener
        self.nursery = nursery
        self.manager = manager
        self.url = f"http://127.0.0.1:{port}/metrics"

    async def scrape(self) -> dict[str, float]:
        """The numbers of now."""
        answer = await trio.to_thread.run_sync(fetch, self.url)
        assert answer.status == 200
        return parsed(answer.body)

    async def start(self, service: Service) -> trio.CancelScope:
        """Let a service run until its scope is cancelled."""
        scope = trio.CancelScope()
        stream = await self.listener.connect()

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            with scope:
                await run_service_on(service, stream, task_status=task_status)

        await self.nursery.start(run)
        return scope

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """A client, for a block."""
        async with open_client_on(await self.listener.connect(), **options) as client:
            yield client

    async def gone(self, peers: int) -> None:
        """Wait until the manager has no more than so many connections."""
        while len(self.manager.statistics().peers) > peers:
            await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_lab(**options: Any) -> AsyncIterator[Lab]:
    """A manager and its metrics, for a block."""
    listener = MemoryListener(1000)
    managers: list[Manager] = []
    with single_exception(), trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_manager_on, [listener], on_start=managers.append, **options))
            port = await nursery.start(serve_metrics, managers[0], 0)
            yield Lab(listener, nursery, managers[0], port)
            nursery.cancel_scope.cancel(reason="the test's block was left")


def add_service(manager: Manager, name: str) -> None:
    """Register a service that nobody has connected."""
    nobody = ManagedPeer(
        type="service",
        name=name,
        address=name,
        language="Test 1",
        os="Test",
        attributes={},
        max_clients=-1,
        last_heard=0.0,
    )
    manager.registry.add(nobody)


async def test_requests_links_and_locks() -> None:
    """What clients ask of services is counted, by how it ended, and so is who is there."""
    async with open_lab() as lab:
        before = await lab.scrape()
        bench = Bench()
        scope = await lab.start(bench)
        await lab.start(Bench(name="Other"))
        async with lab.client() as one, one.link("Bench") as link, link.lock():
            assert await link.double(21) == 42
            with pytest.raises(ConnectFailed, match="already connected"):
                async with lab.client():
                    pass
            with trio.move_on_after(0.1):
                await link.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.double, 4)
                await link.double(5)
            bench.go_on()
            await lab.gone(3)
            during = await lab.scrape()
            await lab.gone(3)
        async with lab.client() as two, two.link("Other") as other, other.lock(shared=True):
            await lab.gone(3)
            shared = await lab.scrape()
            async with two.link("Bench") as link:
                scope.cancel()
                await lab.gone(2)
                with pytest.raises(ServiceGone):
                    await link.double(1)
        await lab.gone(1)
        after = await lab.scrape()

    def at(name: str) -> list[float | None]:
        return [samples.get(name) for samples in (before, during, shared, after)]

    assert at("peers{type=client}") == [0, 1, 1, 0]
    assert at("peers{type=service}") == [0, 2, 2, 1]
    assert at("connections_total{outcome=accepted}") == [0, 3, 4, 4]
    assert at("connections_total{outcome=refused}") == [0, 1, 1, 1]
    assert at("requests_forwarded_total") == [0, 4, 4, 4]
    assert at("requests_answered_total") == [0, 3, 3, 3]
    assert at("requests_given_up_total") == [0, 1, 1, 1]
    assert at("requests_refused_total") == [0, 0, 0, 1]
    assert at("requests_in_flight") == [0, 0, 0, 0]
    assert at("service_requests_total{service=Bench}") == [None, 4, 4, None]
    assert at("service_requests_total{service=Other}") == [None, 0, 0, 0]
    assert at("service_links{service=Bench}") == [None, 1, 0, None]
    assert at("service_links{service=Other}") == [None, 0, 1, 0]
    assert at("service_lock_holders{lock=exclusive,service=Bench}") == [None, 1, 0, None]
    assert at("service_lock_holders{lock=shared,service=Other}") == [None, 0, 1, 0]
    assert at("service_lock_holders{lock=exclusive,service=Other}") == [None, 0, 0, 0]
    assert after["received_bytes_total"] > during["received_bytes_total"] > before["received_bytes_total"]
    assert after["sent_bytes_total"] > during["sent_bytes_total"] > before["sent_bytes_total"]
    assert after["packets_total"] > during["packets_total"] > 0
    assert before["start_time_seconds"] == after["start_time_seconds"]


async def test_a_service_that_goes_leaves_requests_unanswered() -> None:
    """What it was asked is in flight while it is there, and unanswered afterwards."""
    async with open_lab() as lab:
        scope = await lab.start(Bench())
        async with lab.client() as client, client.link("Bench") as link, trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RemoteError):
                    await link.wait()

            nursery.start_soon(ask)
            while not (during := await lab.scrape())["requests_in_flight"]:
                pass
            scope.cancel()
        after = await lab.scrape()
    assert (during["service_requests_in_flight{service=Bench}"], during["requests_unanswered_total"]) == (
        1,
        0,
    )
    assert (after["requests_in_flight"], after["requests_unanswered_total"]) == (0, 1)


async def test_notifications() -> None:
    """Each counts once as it comes, and once for everybody who is linked."""
    async with open_lab() as lab:
        await lab.start(Bench())
        async with lab.client(name="One") as one, lab.client(name="Two") as two:
            async with one.link("Bench") as link, two.link("Bench"):
                await link.tell(5)
                samples = await lab.scrape()
    assert (samples["notifications_total"], samples["notifications_sent_total"]) == (5, 10)
    assert samples["notifications_dropped_total"] == 0


async def test_a_peer_that_does_not_read() -> None:
    """What is dropped for it, and what waits for it, can be seen, also when it has gone."""
    async with open_lab(limits=ManagerLimits(unread=1000)) as lab:
        bench = Bench()
        await lab.start(bench)
        deaf = RawPeer(await lab.listener.connect())
        await deaf.receive()
        identity = {"type": "client", "name": "Deaf", "language": "x", "os": "x"}
        for packet in (
            {"result": identity, "error": False, "requester": None, "uid": ""},
            {"service": "Manager", "attribute": "link", "args": ["Bench"], "kwargs": {}, "uid": "1"},
        ):
            await deaf.send(json.dumps(packet | {"error": False}).encode() + b"\n")
        await deaf.receive()
        for number in range(2000):
            bench.emit_notification(number)
        while (during := await lab.scrape())["notifications_total"] < 2000:
            pass
        await deaf.stream.aclose()
        await lab.gone(1)
        after = await lab.scrape()
    assert during["backlog_bytes"] > 1000
    assert 0 == after["backlog_bytes"]
    assert after["notifications_dropped_total"] == during["notifications_dropped_total"] > 0
    total = after["notifications_sent_total"] + after["notifications_dropped_total"]
    assert (after["notifications_total"], total) == (2000, 2000)


async def test_logins() -> None:
    """Right and wrong passwords are told apart, and what wrong ones cost those who follow."""
    async with open_lab(authenticate=Authenticate(password="polonium")) as lab:
        right, wrong = Credentials(password_manager="polonium"), Credentials(password_manager="radium")
        async with lab.client(credentials=right):
            pass
        for _ in range(5):
            with pytest.raises(ConnectFailed):
                async with lab.client(credentials=wrong):
                    pass
        async with lab.client(credentials=right):
            pass
        silent = await lab.listener.connect()
        while not (during := await lab.scrape())["handshakes"]:
            pass
        await silent.aclose()
        await lab.gone(0)
        after = await lab.scrape()
    assert (after["logins_total{outcome=accepted}"], after["logins_total{outcome=refused}"]) == (2, 5)
    assert after["login_pauses_total"] >= 1
    assert during["connections_total{outcome=abandoned}"] == 0
    assert {what: after[f"connections_total{{outcome={what}}}"] for what in ("accepted", "refused")} == {
        "accepted": 2,
        "refused": 5,
    }
    assert (after["connections_total{outcome=abandoned}"], after["handshakes"]) == (1, 0)


async def test_names_with_quotes_and_newlines() -> None:
    """Whatever a service is called, the numbers can be read, and say so."""
    odd = 'the "good" \\ one, {a="b"} # é'
    async with open_lab() as lab:
        await lab.start(Bench(name=odd))
        add_service(lab.manager, 'two\nlines\\n "')
        samples = await lab.scrape()
    assert {name for name in samples if name.startswith("service_links")} == {
        f"service_links{{service={odd}}}",
        'service_links{service=two\nlines\\n "}',
    }


async def test_what_can_be_asked_for() -> None:
    """There are two formats, one page, and nothing else."""
    async with open_lab() as lab:
        for accept, begins in (
            (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
            ("*/*", "text/plain; version="),
        ):
            answer = await trio.to_thread.run_sync(fetch, lab.url, accept)
            assert (answer.status, answer.content_type.startswith(begins)) == (200, True)
            assert answer.body.endswith("# EOF\n") == (accept == OPENMETRICS)
            assert "armillary_manager_sent_bytes_total " in answer.body
        head = await trio.to_thread.run_sync(fetch, lab.url, OPENMETRICS, "HEAD")
        assert (head.status, head.body) == (200, "")
        statuses = [
            (await trio.to_thread.run_sync(fetch, *asked)).status
            for asked in ((lab.url, "*/*", "POST"), (lab.url + "/more",), (lab.url[: -len("/metrics")],))
        ]
        assert statuses == [405, 404, 404]


async def test_a_request_that_web_servers_stumble_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the log, and neither the manager nor the next one who asks has to do with it."""
    monkeypatch.setattr(metrics, "_PAUSE", 0.01)
    async with open_lab() as lab:
        port = int(lab.url.split(":")[2].split("/")[0])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            upgrade = b"Upgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: A\r\n"
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
            while await stream.receive_some():
                pass
        assert (await lab.scrape())["peers{type=client}"] == 0
        async with lab.client() as client:
            await client.identities()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the metrics' web server has failed, and begins again"
    ]


async def test_a_port_that_is_taken() -> None:
    """The error says where, and what for."""
    async with open_lab() as lab:
        port = int(lab.url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match=rf"could not listen on 127\.0\.0\.1:{port} for metrics: "):
            await serve_metrics(lab.manager, port)


async def test_cancelled_anywhere(cancel_everywhere: Callable[..., Awaitable[int]]) -> None:
    """Wherever it is cancelled, while it starts or answers, it leaves no task and no socket."""
    managers: list[Manager] = []
    async with trio.open_nursery() as outside:
        await outside.start(partial(serve_manager_on, [MemoryListener()], on_start=managers.append))

        async def ask() -> None:
            with single_exception():
                async with trio.open_nursery() as nursery:
                    port = await nursery.start(serve_metrics, managers[0], 0)
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        await stream.send_all(
                            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                        )
                        answer = b""
                        while received := await stream.receive_some():
                            answer += received
                    assert b"armillary_manager_backlog_bytes 0.0\n" in answer
                    nursery.cancel_scope.cancel()

        assert await cancel_everywhere(ask) > 10
        outside.cancel_scope.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot be told to give up sending")
async def test_somebody_who_stops_reading_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancellation ends the sending to somebody who does not read, although the web server would go on."""
    monkeypatch.setattr(metrics, "_STALLED", 0.5)
    async with trio.open_nursery() as outside:
        async with open_lab() as lab:
            for number in range(300):
                add_service(lab.manager, f"{number:01000}")
            port = int(lab.url.split(":")[2].split("/")[0])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            await trio.sleep(0.5)

            async def read_at_last() -> None:
                await trio.sleep(PATIENCE / 2)
                await stream.aclose()

            outside.start_soon(read_at_last)
            begin = trio.current_time()
            lab.nursery.cancel_scope.cancel()
        assert trio.current_time() - begin < PATIENCE / 3
        outside.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await stream.aclose()


# -- the command ---------------------------------------------------------------------------------------------

START = ["network", "start", "--port", "0", "--host", "127.0.0.1", "--disable-tls"]


async def test_the_command(tmp_path: Path) -> None:
    """With --metrics-port, the numbers are there before the manager says that it runs; SIGTERM ends both."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [sys.executable, "-m", "armillary", *START, "--metrics-port", "0"],
            stdout=subprocess.PIPE,
            env={"MSL_NETWORK_HOME": str(tmp_path)},
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        printed = b""
        with trio.fail_after(PATIENCE):
            while b"Network Manager running" not in printed:
                received = await process.stdout.receive_some()
                assert received, printed
                printed += received
            found = re.search(rb"metrics at (http://127\.0\.0\.1:\d+/metrics)\n", printed)
            assert found is not None, printed
            answer = await trio.to_thread.run_sync(fetch, found[1].decode())
            assert parsed(answer.body)["peers{type=client}"] == 0
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert b"hypercorn" not in printed


async def test_the_command_when_it_cannot_be(tmp_path: Path) -> None:
    """A port that is taken, and packages that are missing, are errors that say so; no manager is left."""
    without = (
        "import sys; sys.modules['hypercorn'] = None; sys.argv[0] = 'armillary'; "
        "from armillary.cli import main; main()"
    )
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with taken:
        port = str(taken.socket.getsockname()[1])
        for command, options, said in (
            (
                ["-m", "armillary"],
                ["--metrics-port", port],
                f"could not listen on 127.0.0.1:{port} for metrics",
            ),
            (["-c", without], ["--metrics-port", "0"], "pip install 'armillary[metrics]'"),
        ):
            with trio.fail_after(PATIENCE):
                done = await trio.run_process(
                    [sys.executable, *command, *START, *options],
                    env={"MSL_NETWORK_HOME": str(tmp_path)},
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
            assert (done.returncode, said in done.stderr.decode()) == (1, True), done.stderr
            assert b"Network Manager running" not in done.stdout
