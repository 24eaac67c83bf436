"""Links of the façade's clients: requests, locks, notifications, and the end of a link."""

from __future__ import annotations

import concurrent.futures
import copy
import types
from typing import Any

import pytest
from msl_lab import PATIENCE, Echo, _bounded, eventually, open_lab  # noqa: F401

from msl.network.client import Link


def test_what_a_link_says_of_itself() -> None:
    """A link knows the service, and says so in its text."""
    with open_lab() as lab:
        service = lab.serve(Echo(max_clients=7)).service
        link = lab.connect().link("Echo")
        address = str(service).removeprefix("Echo[").removesuffix("]")
        assert repr(link) == f"<Link with Echo[{address}] at Manager[{lab.address}]>"
        assert (link.service_name, link.service_address, link.service_max_clients) == ("Echo", address, 7)
        assert link.service_language.startswith("Python ")
        assert link.service_os
        assert link.service_attributes["set_logging_level"] == "(level: Union[str, int]) -> bool"
        assert link.service_attributes["constant"] == 2.5
        assert "broken" not in link.service_attributes
        link.unlink()
        assert repr(link) == f"<Un-Linked from Echo[{address}]>"
        assert link.service_name == "Echo"


def test_requests() -> None:
    """Methods are called; constants and properties are read by calling them."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        assert link.echo(1, "é", x=[None, (2.5,)]) == [[1, "é"], {"x": [None, [2.5]]}]
        assert link.constant() == 2.5
        assert link.computed() == 17
        assert link.computed(1, y=2) == 17
        assert link.set_logging_level("WARNING") is True


def test_asynchronous_requests() -> None:
    """An asynchronous request is a future, and its time-out is ignored."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        futures = [link.echo(number, asynchronous=True, timeout=1e-9) for number in range(500)]
        assert all(isinstance(future, concurrent.futures.Future) for future in futures)
        assert futures[0].request == "Echo.echo"
        done, not_done = concurrent.futures.wait(futures, PATIENCE)
        assert (len(done), len(not_done)) == (500, 0)
        assert [future.result()[0] for future in futures] == [[number] for number in range(500)]
        first = next(concurrent.futures.as_completed([link.echo(1, asynchronous=True)], PATIENCE))
        assert first.result() == [[1], {}]


def test_requests_run_at_once() -> None:
    """A slow request does not hold up the others, of this link or of another client's."""
    with open_lab() as lab:
        lab.serve(Echo())
        link, other = lab.connect().link("Echo"), lab.connect().link("Echo")
        slow = link.sleep(2, asynchronous=True)
        quick = [link.sleep(0.01, asynchronous=True) for _ in range(7)]
        assert [future.result(PATIENCE) for future in quick] == [0.01] * 7
        assert other.echo(1, timeout=PATIENCE) == [[1], {}]
        assert not slow.done()
        assert slow.result(PATIENCE) == 2


def test_timeout() -> None:
    """Who has waited long enough gets a TimeoutError; the late reply disturbs nobody."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        with pytest.raises(concurrent.futures.TimeoutError):
            link.sleep(0.3, timeout=0.05)
        assert link.sleep(0.4) == 0.4
        assert link.echo(1) == [[1], {}]


def test_links_with_one_service_are_independent() -> None:
    """Every call of link makes another link; breaking one leaves the others, of any manager."""
    with open_lab() as lab:
        service = Echo(max_clients=1)
        lab.serve(service)
        client = lab.connect()
        first, second, third = (client.link("Echo") for _ in range(3))
        assert client._links == [first, second, third]
        first.unlink()
        assert client._links == [second, third]
        assert second.acquire_lock() == [str(client)]
        third.unlink()
        assert second.echo(1) == [[1], {}]
        assert second.release_lock() == []
        other = lab.connect()
        with pytest.raises(RuntimeError, match="maximum number of Clients"):
            other.link("Echo")
        second.unlink()
        assert other.link("Echo").echo(2) == [[2], {}]


def test_a_broken_link() -> None:
    """Nothing can be requested over it, and to break it again does nothing."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        link = client.link("Echo")
        link.disconnect()
        assert link._client is None
        for name in ("echo", "acquire_lock", "release_lock", "shutdown_service"):
            with pytest.raises(
                AttributeError, match=f"Cannot access '{name}' since the link has been broken"
            ):
                getattr(link, name)()
        for _ in range(20):
            link.unlink()
            link.disconnect()
            client.unlink(link)
        assert client.is_connected()


def test_tools_look_at_a_link_without_asking_the_service() -> None:
    """Copies, notebooks and inspections find no such attribute; other private names are refused remotely."""
    with open_lab() as lab:
        lab.serve(Echo())
        link = lab.connect().link("Echo")
        for name in ("__len__", "__deepcopy__", "_repr_html_", "_ipython_display_"):
            assert not hasattr(link, name)
        assert copy.copy(link).service_name == "Echo"
        assert not hasattr(Link.__new__(Link), "__anything__")
        with pytest.raises(RuntimeError, match=r"PermissionError: Cannot request a private attribute"):
            link._private()


def test_locks() -> None:
    """An exclusive lock needs to be alone, a shared one does not, and a locked service takes nobody more."""
    with open_lab() as lab:
        lab.serve(Echo())
        one, two, three = lab.connect(name="one"), lab.connect(name="two"), lab.connect(name="three")
        first = one.link("Echo")
        assert first.acquire_lock() == [str(one)]
        with pytest.raises(RuntimeError, match="PermissionError: 'Echo' service is locked"):
            two.link("Echo")
        assert first.release_lock() == []
        second = two.link("Echo")
        with pytest.raises(RuntimeError, match="cannot acquire an exclusive lock, there are 2 links"):
            first.acquire_lock()
        assert sorted(first.acquire_lock(shared=True)) == sorted([str(one), str(two)])
        assert sorted(second.acquire_lock(shared=True, timeout=PATIENCE)) == sorted([str(one), str(two)])
        assert second.release_lock() == [str(one)]
        with pytest.raises(RuntimeError, match="is locked"):
            three.link("Echo")
        one.disconnect()
        assert three.link("Echo", timeout=PATIENCE).release_lock() == []


def test_shutdown_of_a_service() -> None:
    """The service's answer is returned, this link is broken, and the others cannot be used any more."""
    with open_lab() as lab:
        thread = lab.serve(Echo())
        client = lab.connect()
        link, other = client.link("Echo"), client.link("Echo")
        assert link.shutdown_service(1, 2) == [1, 2]
        assert repr(link).startswith("<Un-Linked from Echo[")
        thread.end()
        assert repr(other).startswith("<Link with Echo[")
        eventually(lambda: "Echo" not in client.identities()["services"])
        with pytest.raises(RuntimeError, match=r"KeyError: .*'Echo' [Ss]ervice is not connected"):
            other.echo(1, timeout=PATIENCE)
        other.unlink()
        for _ in range(20):
            client.disconnect()


def test_each_link_gets_each_notification() -> None:
    """Handlers are assigned to instances, plain or bound, and get arguments as they were emitted."""
    with open_lab() as lab:
        lab.serve(Echo())
        client = lab.connect()
        link, other, silent = (client.link("Echo") for _ in range(3))
        heard: list[Any] = []

        def handle(self: Link, *args: Any, **kwargs: Any) -> None:
            heard.append((self.service_name, args, kwargs))

        link.notification_handler = types.MethodType(handle, link)  # type: ignore[method-assign]
        other.notification_handler = lambda number, n: heard.append(number)  # type: ignore[method-assign]
        silent.tell(2)
        assert heard == [("Echo", (0,), {"n": 0}), 0, ("Echo", (1,), {"n": 1}), 1]
        other.unlink()
        link.tell(1)
        assert heard[4:] == [("Echo", (0,), {"n": 0})]


def test_notifications_of_other_services_are_theirs() -> None:
    """A handler hears its own service, and nobody else."""

    class Other(Echo):
        pass

    with open_lab() as lab:
        lab.serve(Echo())
        lab.serve(Other())
        client = lab.connect()
        link, other = client.link("Echo"), client.link("Other")
        heard: list[Any] = []
        link.notification_handler = lambda *args, **_: heard.append(args)  # type: ignore[method-assign]
        other.tell(3)
        link.tell(1)
        assert heard == [(0,)]
