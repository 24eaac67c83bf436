"""Clients of the façade that are there for one service."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from msl_lab import PATIENCE, Echo, _bounded, open_lab  # noqa: F401

from msl.network import LinkedClient


def test_what_it_says_of_itself() -> None:
    """It has the attributes of a client and of a link, and keeps them after its end."""
    with open_lab() as lab:
        service = lab.serve(Echo(max_clients=3)).service
        linked = lab.linked("Echo", name="Bench")
        address = str(service).removeprefix("Echo[").removesuffix("]")
        assert repr(linked) == f"<Link[name=Bench] with Echo[{address}] at Manager[{lab.address}]>"
        assert str(linked) == repr(linked)
        assert linked._client is linked.client
        assert linked._link is linked.link
        assert linked._kwargs == {**lab.options, "name": "Bench", "timeout": 10}
        assert linked.identity()["name"] == "Bench"
        assert list(linked.identities()["clients"]) == [str(linked.client)]
        assert linked.identities(as_string=True, indent=4, timeout=PATIENCE).startswith("Manager[")
        facts = [
            linked.name,
            linked.port,
            linked.address_manager,
            linked.service_name,
            linked.service_address,
            linked.service_attributes,
            linked.service_language,
            linked.service_max_clients,
            linked.service_os,
        ]
        assert facts[0] == "Bench"
        assert facts[2:5] == [lab.address, "Echo", address]
        assert facts[7] == 3
        linked.unlink()
        assert repr(linked) == f"<Un-Linked[name=Bench] from Echo[{address}]>"
        linked.disconnect()
        assert facts == [
            linked.name,
            linked.port,
            linked.address_manager,
            linked.service_name,
            linked.service_address,
            linked.service_attributes,
            linked.service_language,
            linked.service_max_clients,
            linked.service_os,
        ]


def test_name_is_that_of_the_class() -> None:
    """Without a name it is called like its class; unknown keyword arguments are ignored."""

    class Meter(LinkedClient):
        pass

    with open_lab() as lab:
        lab.serve(Echo())
        assert lab.linked("Echo", unknown=1).name == "LinkedClient"
        meter = lab.linked("Echo", Meter)
        assert meter.name == "Meter"
        spawned = meter.spawn(name="other")
        try:
            assert type(spawned) is LinkedClient
            assert (spawned.name, spawned.service_name) == ("other", "Echo")
            meter.disconnect()
            assert spawned.echo(1) == [[1], {}]
        finally:
            spawned.disconnect()
        again = meter.spawn()
        assert again.name == "LinkedClient"
        again.disconnect()


def test_requests() -> None:
    """Whatever is not its own is requested from the service."""
    with open_lab() as lab:
        lab.serve(Echo())
        linked = lab.linked("Echo")
        assert linked.echo(1, x=2) == [[1], {"x": 2}]
        assert linked.constant() == 2.5
        assert linked.echo(3, asynchronous=True).result(PATIENCE) == [[3], {}]
        assert linked.acquire_lock() == [str(linked.client)]
        assert linked.release_lock() == []
        with pytest.raises(TimeoutError):
            linked.sleep(0.5, timeout=0.01)


def test_service_that_starts_later() -> None:
    """Who starts first does not matter, within the time that there is."""
    with open_lab() as lab:
        timer = threading.Timer(0.6, lambda: lab.serve(Echo()))
        timer.start()
        assert lab.linked("Echo").echo(1) == [[1], {}]
        timer.join()


def test_service_that_does_not_start() -> None:
    """When the time has passed there is an error, and no connection is left."""
    with open_lab() as lab:
        watcher = lab.connect()
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"^The 'Absent' service is not available$"):
            lab.linked("Absent", timeout=0.7)
        assert 0.6 < time.monotonic() - begin < 5
        assert len(watcher.identities()["clients"]) == 1


def test_after_unlinking() -> None:
    """The client stays, the service cannot be asked any more, and doing it again is silent."""
    with open_lab() as lab:
        lab.serve(Echo())
        linked = lab.linked("Echo")
        for _ in range(21):
            linked.unlink()
        assert linked._link is None
        assert linked.is_connected()
        assert linked.identities()["services"].keys() == {"Echo"}
        for name in ("echo", "acquire_lock", "release_lock", "shutdown_service"):
            with pytest.raises(
                AttributeError, match=f"Cannot access '{name}' since the link has been broken"
            ):
                getattr(linked, name)()


def test_after_disconnecting() -> None:
    """Nothing is left to ask, and doing it again is silent."""
    with open_lab() as lab:
        lab.serve(Echo())
        linked = lab.linked("Echo")
        for _ in range(21):
            linked.disconnect()
        assert (linked.client, linked.link, linked._client, linked._link) == (None, None, None, None)
        assert linked.is_connected() is False
        for request in (linked.identity, linked.identities, lambda: linked.admin_request("port")):
            with pytest.raises(ConnectionError, match="The LinkedClient has been disconnected"):
                request()
        with pytest.raises(AttributeError, match="since the link has been broken"):
            linked.echo(1)
        linked.unlink()


def test_errors_are_handled_before_they_are_raised() -> None:
    """The error handler of a subclass is called once for each request that fails."""
    handled: list[str] = []

    class Careful(LinkedClient):
        def service_error_handler(self) -> None:
            handled.append(self.service_name)

    with open_lab() as lab:
        lab.serve(Echo())
        careful = lab.linked("Echo", Careful)
        with pytest.raises(RuntimeError, match="ValueError: out of range"):
            careful.fail("out of range")
        assert handled == ["Echo"]
        assert careful.echo(1) == [[1], {}]
        assert handled == ["Echo"]


def test_notifications_go_to_what_was_overridden_or_assigned() -> None:
    """A method of a subclass hears them, until something else is assigned to the instance."""
    heard: list[Any] = []

    class Listener(LinkedClient):
        def notification_handler(self, *args: Any, **kwargs: Any) -> None:
            heard.append(("overridden", args, kwargs))

    with open_lab() as lab:
        lab.serve(Echo())
        listener = lab.linked("Echo", Listener)
        listener.tell(1)
        listener.notification_handler = lambda *args, **_: heard.append(("assigned", args))
        listener.tell(1)
        assert heard == [("overridden", (0,), {"n": 0}), ("assigned", (0,))]


def test_subclass_as_people_write_them() -> None:
    """A subclass overrides disconnect and __getattr__, and uses what it inherits and the private names."""

    class Gadget(LinkedClient):
        def __init__(self, **kwargs: Any) -> None:
            self.calls: list[str] = []
            super().__init__("Echo", **kwargs)

        def __getattr__(self, name: str) -> Any:
            def request(*args: Any, **kwargs: Any) -> Any:
                self.calls.append(name)
                return getattr(self._link, name)(*args, **kwargs)

            return request

        def disconnect(self, timeout: float | None = None) -> None:
            if self._client is not None:
                self.calls.append("disconnect")
            super().disconnect(timeout)

    with open_lab() as lab:
        lab.serve(Echo())
        gadget = Gadget(**lab.options)
        assert gadget.echo(1) == [[1], {}]
        gadget.disconnect()
        gadget.disconnect()
        assert gadget.calls == ["echo", "disconnect"]


def test_shutdown_of_the_service() -> None:
    """Its answer is returned, and the link is broken."""
    with open_lab() as lab:
        thread = lab.serve(Echo())
        linked = lab.linked("Echo")
        assert linked.shutdown_service() == "bye"
        assert linked.link is None
        assert linked.is_connected()
        thread.end()
