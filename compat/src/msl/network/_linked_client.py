"""A client that is there for one service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ._client import Client, connect
from ._errors import Disconnected
from ._link import Link, is_for_tools
from ._options import valid_options

__all__ = ["LinkedClient"]

# Seconds between two looks for the service. More finds it later; fewer asks the manager more often.
_LOOK_INTERVAL = 0.5
# Seconds for the service to be there, unless somebody says otherwise.
_PATIENCE = 10


class LinkedClient:
    """A client with a link. Every attribute that is not one of its own is requested from the service.

    Args:
        service_name: the service. Who starts first does not matter: it may come later.
        **kwargs: as for `connect`; others are ignored. ``timeout`` counts for the service as well.

    Raises:
        TimeoutError: the service was not there in time.
        ConnectionError: there is no connection.
        RuntimeError: the service is locked, or has as many clients as it wants.
    """

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        self._client: Client | None = None
        self._link: Link | None = None
        options = valid_options(kwargs)
        options.setdefault("name", type(self).__name__)
        options.setdefault("timeout", _PATIENCE)
        self._kwargs = options
        timeout = options["timeout"]
        deadline = None if timeout is None else time.monotonic() + timeout
        client = self._client = connect(**options)
        try:
            _wait_for(client, service_name, deadline)
            link = client.link(service_name)
        except BaseException:
            client.disconnect()
            raise
        self._link = link
        self._name = client.name
        self._port = client.port
        self._address_manager = client.address_manager
        self._service_name = link.service_name
        self._service_address = link.service_address
        self._service_attributes = link.service_attributes
        self._service_language = link.service_language
        self._service_max_clients = link.service_max_clients
        self._service_os = link.service_os
        handler = vars(self).get("notification_handler") or type(self).notification_handler
        if handler is not LinkedClient.notification_handler:
            link.notification_handler = self.notification_handler  # type: ignore[method-assign]

    def __repr__(self) -> str:
        where = f"{self._service_name}[{self._service_address}]"
        if self._link is None:
            return f"<Un-Linked[name={self._name}] from {where}>"
        return f"<Link[name={self._name}] with {where} at Manager[{self._address_manager}]>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        own = vars(self)
        if is_for_tools(name) or "_link" not in own:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        link = own["_link"]
        if link is None:
            raise _broken(name)
        return self._guarded(getattr(link, name))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # Through `vars`: a subclass may set it before this class has set anything.
        if name == "notification_handler" and (link := vars(self).get("_link")) is not None:
            link.notification_handler = value

    # -- what it is made of --------------------------------------------------------------------------------

    @property
    def client(self) -> Client | None:
        """The client; None after `disconnect`."""
        return self._client

    @property
    def link(self) -> Link | None:
        """The link; None after `unlink`."""
        return self._link

    @property
    def name(self) -> str:
        """What the client calls itself."""
        return self._name

    @property
    def port(self) -> int | None:
        """The port of its own from which it is, or was, connected."""
        return self._port

    @property
    def address_manager(self) -> str | None:
        """``HOST:PORT`` of the manager, as it was given."""
        return self._address_manager

    @property
    def service_name(self) -> str:
        """As of `Link`, here and below; they stay when the link is broken."""
        return self._service_name

    @property
    def service_address(self) -> str:
        return self._service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        return self._service_attributes

    @property
    def service_language(self) -> str:
        return self._service_language

    @property
    def service_max_clients(self) -> int:
        return self._service_max_clients

    @property
    def service_os(self) -> str:
        return self._service_os

    # -- of the client -------------------------------------------------------------------------------------

    def is_connected(self) -> bool:
        """Whether requests can be made."""
        return self._client is not None and self._client.is_connected()

    def identity(self) -> dict[str, Any]:
        """What the client tells the manager of itself."""
        return self._connected().identity()

    def identities(self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None) -> Any:
        """As `Client.identities`."""
        return self._connected().identities(as_string=as_string, indent=indent, timeout=timeout)

    def admin_request(self, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """As `Client.admin_request`."""
        return self._connected().admin_request(attrib, *args, **kwargs)

    def spawn(self, name: str = "LinkedClient") -> LinkedClient:
        """Another one, with the same service, connected in the same way. It is none of a subclass."""
        return LinkedClient(self._service_name, **{**self._kwargs, "name": name})

    def disconnect(self, timeout: float | None = None) -> None:
        """As `Client.disconnect`. The link is broken as well."""
        client, self._client = self._client, None
        link, self._link = self._link, None
        if link is not None:
            link._break(tell=False)
        if client is not None:
            client.disconnect(timeout)

    # -- of the link ---------------------------------------------------------------------------------------

    def acquire_lock(self, shared: bool = False, timeout: float | None = None) -> list[str]:
        """As `Link.acquire_lock`."""
        return self._linked("acquire_lock").acquire_lock(shared=shared, timeout=timeout)

    def release_lock(self, timeout: float | None = None) -> list[str]:
        """As `Link.release_lock`."""
        return self._linked("release_lock").release_lock(timeout=timeout)

    def unlink(self, timeout: float | None = None) -> None:
        """As `Link.unlink`. The client stays connected."""
        link, self._link = self._link, None
        if link is not None:
            link.unlink(timeout)

    def notification_handler(self, *args: Any, **kwargs: Any) -> None:
        """As `Link.notification_handler`: override it, or assign a function."""

    def service_error_handler(self) -> None:
        """Called when a request to the service has failed, just before that is raised. To be overridden."""

    def shutdown_service(self, *args: Any, **kwargs: Any) -> Any:
        """As `Link.shutdown_service`."""
        result = self._guarded(self._linked("shutdown_service").shutdown_service)(*args, **kwargs)
        self._link = None
        return result

    def _connected(self) -> Client:
        if self._client is None:
            raise Disconnected("The LinkedClient has been disconnected")
        return self._client

    def _linked(self, attribute: str) -> Link:
        if self._link is None:
            raise _broken(attribute)
        return self._link

    def _guarded(self, request: Callable[..., Any]) -> Callable[..., Any]:
        """A request after whose failure the error handler is called."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return request(*args, **kwargs)
            except Exception:
                self.service_error_handler()
                raise

        return guarded


def _broken(attribute: str) -> AttributeError:
    return AttributeError(f"Cannot access {attribute!r} since the link has been broken")


def _wait_for(client: Client, service: str, deadline: float | None) -> None:
    """Wait until the service is there.

    Raises:
        TimeoutError: it is not at the deadline.
    """
    while True:
        rest = None if deadline is None else deadline - time.monotonic()
        if service in client.identities(timeout=None if rest is None else max(rest, 0.1))["services"]:
            return
        if rest is not None and rest <= 0:
            raise TimeoutError(f"The {service!r} service is not available")
        time.sleep(_LOOK_INTERVAL if rest is None else min(_LOOK_INTERVAL, max(rest, 0.0)))
