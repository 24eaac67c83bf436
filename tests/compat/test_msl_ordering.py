"""What comes before what: notifications and replies, handlers and futures, in the façade's clients."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msl_lab import PATIENCE, Echo, Lab, _bounded, open_lab  # noqa: F401

from msl.network.client import Client, Link


def handle(link: Link, handler: Any) -> None:
    link.notification_handler = handler  # type: ignore[method-assign]


@contextmanager
def open_link(lab: Lab) -> Iterator[tuple[Client, Link]]:
    lab.serve(Echo())
    client = lab.connect()
    yield client, client.link("Echo")


@pytest.mark.parametrize("threadsafe", [True, False])
def test_notifications_of_a_method_are_handled_before_its_result_is_returned(threadsafe: bool) -> None:
    """Ten that a method emits have been handled, in order, when the request returns, although slowly."""
    with open_lab() as lab, open_link(lab) as (_, link):
        heard: list[int] = []

        def listen(number: int, n: int) -> None:
            time.sleep(0.02)
            heard.append(number)

        handle(link, listen)
        assert link.tell(10, threadsafe=threadsafe) == 10
        assert heard == list(range(10))


def test_future_resolves_after_the_handlers() -> None:
    """The same holds for futures, and for everybody who waits for them."""
    with open_lab() as lab, open_link(lab) as (_, link):
        heard: list[int] = []
        handle(link, lambda number, n: (time.sleep(0.01), heard.append(number)))
        counts: list[int] = []
        future = link.tell(20, asynchronous=True)
        future.add_done_callback(lambda _: counts.append(len(heard)))
        done, _ = concurrent.futures.wait([future], PATIENCE)
        assert done == {future}
        assert len(heard) == 20
        assert link.echo(1) == [[1], {}]
        assert counts == [20]


def test_handler_may_request_something_from_its_service() -> None:
    """A handler that waits for a reply does not wait for itself."""
    with open_lab() as lab, open_link(lab) as (_, link):
        heard: list[Any] = []
        handle(link, lambda number, n: heard.append(link.echo(number, timeout=PATIENCE)[0]))
        assert link.tell(5) == 5
        assert heard == [[number] for number in range(5)]


def test_handler_may_wait_for_a_future_that_somebody_else_has_made() -> None:
    """Nor does it if the request was made before, by another thread."""
    with open_lab() as lab, open_link(lab) as (_, link):
        made: concurrent.futures.Future[Any] = concurrent.futures.Future()
        results: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def listen(number: int, n: int) -> None:
            time.sleep(0.2)  # the reply is there, and waits behind this handler
            results.set_result(made.result(PATIENCE).result(PATIENCE))

        handle(link, listen)
        made.set_result(link.tell(1, asynchronous=True))
        assert results.result(PATIENCE) == 1


def test_handler_may_use_asynchronous_requests() -> None:
    """It can wait for many of its own at once, in any way."""
    with open_lab() as lab, open_link(lab) as (_, link):
        heard: list[Any] = []

        def listen(number: int, n: int) -> None:
            futures = [link.echo(each, asynchronous=True) for each in range(20)]
            done, missing = concurrent.futures.wait(futures, PATIENCE)
            heard.append((len(done), len(missing)))

        handle(link, listen)
        link.tell(1)
        assert heard == [(20, 0)]


def test_handler_may_ask_the_manager_and_leave_it() -> None:
    """A handler can disconnect its own client."""
    with open_lab() as lab, open_link(lab) as (client, link):
        left: concurrent.futures.Future[bool] = concurrent.futures.Future()

        def listen(number: int, n: int) -> None:
            assert client.identities(timeout=PATIENCE)["services"]
            client.disconnect()
            left.set_result(client.is_connected())

        handle(link, listen)
        link.tell(1, asynchronous=True)
        assert left.result(PATIENCE) is False


def test_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The client lives, and the next notification is handled, as by the other links."""
    with open_lab() as lab, open_link(lab) as (client, link):
        heard: list[int] = []

        def fail(number: int, n: int) -> None:
            raise ValueError("the handler has failed")

        handle(link, fail)
        handle(client.link("Echo"), lambda number, n: heard.append(number))
        assert link.tell(3) == 3
        assert heard == [0, 1, 2]
        assert client.is_connected()
        assert [record.name for record in caplog.records if "failed" in str(record.exc_info)] == [
            "msl.network"
        ] * 3


def test_handlers_run_in_one_thread_which_is_nobody_elses() -> None:
    """Neither the program's thread nor that of other clients is held up by a handler."""
    with open_lab() as lab, open_link(lab) as (_, link):
        other = lab.connect().link("Echo")
        threads: set[int] = set()
        release = threading.Event()

        def listen(number: int, n: int) -> None:
            threads.add(threading.get_ident())
            release.wait(PATIENCE)

        handle(link, listen)
        future = link.tell(3, asynchronous=True)
        assert other.echo(1, timeout=PATIENCE) == [[1], {}]
        assert not future.done()
        release.set()
        assert future.result(PATIENCE) == 3
        assert len(threads) == 1
        assert threading.get_ident() not in threads


def test_cancelling_a_future_is_harmless() -> None:
    """The reply of a cancelled request is dropped, and the client goes on."""
    with open_lab() as lab, open_link(lab) as (_, link):
        futures = [link.sleep(0.1, asynchronous=True) for _ in range(3)]
        assert [future.cancel() for future in futures] == [True] * 3
        assert all(future.cancelled() for future in futures)
        with pytest.raises(concurrent.futures.CancelledError):
            futures[0].result()
        assert link.sleep(0.3) == 0.3
        done = link.echo(1, asynchronous=True)
        assert done.result(PATIENCE) == [[1], {}]
        assert not done.cancel()


def test_cancelled_request_that_is_still_here_is_not_sent() -> None:
    """A service is told of a cancelled request: what it has not begun is not done."""
    with open_lab() as lab, open_link(lab) as (_, link):
        heard: list[int] = []
        handle(link, lambda number, n: heard.append(number))
        for _ in range(50):
            link.tell(1, asynchronous=True).cancel()
        link.echo()
        before = len(heard)
        link.tell(1)
        assert heard == [0] * (before + 1)


def test_callbacks_may_wait_for_requests() -> None:
    """A callback of a future does not run where replies are read, so it may wait for one."""
    with open_lab() as lab, open_link(lab) as (_, link):
        results: concurrent.futures.Future[Any] = concurrent.futures.Future()
        link.sleep(0.1, asynchronous=True).add_done_callback(
            lambda future: results.set_result([future.result(), link.echo(2, timeout=PATIENCE)])
        )
        assert results.result(PATIENCE) == [0.1, [[2], {}]]


def test_service_written_by_hand_sends_everything_at_once() -> None:
    """Two notifications and the reply in one segment are handled in their order."""
    with open_lab() as lab:
        with socket.create_connection(("127.0.0.1", lab.port), PATIENCE) as raw, raw.makefile("rb") as lines:
            assert json.loads(lines.readline())["attribute"] == "identity"
            identity = {"type": "service", "name": "Hand", "attributes": {"go": "()"}}
            raw.sendall(line({"result": identity, "error": False}))
            client = lab.connect()
            while "Hand" not in client.identities()["services"]:
                time.sleep(0.01)
            link = client.link("Hand")
            heard: list[Any] = []
            handle(link, lambda *args, **kwargs: heard.append((args, kwargs)))
            future = link.go(asynchronous=True)
            request = json.loads(lines.readline())
            told = {"error": False, "service": "Hand", "uid": "notification"}
            reply = {"error": False, "uid": request["uid"], "requester": request["requester"]}
            raw.sendall(
                line({**told, "result": [[1, [2]], {"x": 1}]})
                + line({**told, "result": [[], {}]})
                + line({**reply, "result": "done"})
            )
            assert future.result(PATIENCE) == "done"
            assert heard == [((1, [2]), {"x": 1}), ((), {})]


def line(packet: dict[str, Any]) -> bytes:
    return json.dumps(packet).encode() + b"\r\n"
