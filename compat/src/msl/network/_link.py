"""A client's link with a service."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from armillary.network.protocol.identities import MANAGER

from .constants import SHUTDOWN_SERVICE

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Link", "is_for_tools"]

_FOR_TOOLS = re.compile(r"__.*__|_repr_\w*_|_ipython_\w*_?")


def is_for_tools(name: str) -> bool:
    """Whether Python and notebooks look for this attribute, to see what something is or can do."""
    return _FOR_TOOLS.fullmatch(name) is not None


class Link:
    """What a client requests from one service. Made by `Client.link`.

    Every public attribute of the service is a method here, also its constants and properties. Two keyword
    arguments are for the request and not for the service: ``timeout``, in seconds, and ``asynchronous``,
    which makes the method return a future at once.

    Args:
        client: whose link it is.
        service: the service's name.
        identity: what the manager says of the service.
    """

    def __init__(self, client: Client, service: str, identity: dict[str, Any]) -> None:
        self._client: Client | None = client
        self._manager = client.address_manager
        self._service_name = service
        self._identity = identity

    def __repr__(self) -> str:
        where = f"{self._service_name}[{self.service_address}]"
        if self._client is None:
            return f"<Un-Linked from {where}>"
        return f"<Link with {where} at Manager[{self._manager}]>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if is_for_tools(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # Through `vars`: a copy that is being made has no attributes yet.
        client = vars(self).get("_client")
        if client is None:
            raise AttributeError(f"Cannot access {name!r} since the link has been broken")
        return partial(client._new_request, self._service_name, name)

    @property
    def service_name(self) -> str:
        """The service's name."""
        return self._service_name

    @property
    def service_address(self) -> str:
        """``HOST:PORT`` of the service, as the manager sees it."""
        return str(self._identity["address"])

    @property
    def service_attributes(self) -> dict[str, Any]:
        """What can be requested, by name: signatures, and the values of constants."""
        attributes: dict[str, Any] = self._identity["attributes"]
        return attributes

    @property
    def service_language(self) -> str:
        """What the service is written in."""
        return str(self._identity["language"])

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with the service; -1 is no limit."""
        return int(self._identity["max_clients"])

    @property
    def service_os(self) -> str:
        """What the service runs on."""
        return str(self._identity["os"])

    def acquire_lock(self, shared: bool = False, timeout: float | None = None) -> list[str]:
        """Lock the service, so that no client can link with it that is not linked yet.

        Args:
            shared: whether other clients that are linked may use it as well. Otherwise there must be none.
            timeout: seconds for the manager's answer; None is no limit.

        Returns:
            The network names of the clients that are linked with the service.

        Raises:
            RuntimeError: the lock is not to be had.
        """
        request = self._request_of_manager("acquire_lock")
        names: list[str] = request(self._service_name, shared=shared, timeout=timeout)
        return names

    def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock, if this client has one.

        Returns:
            The network names of the clients that have still locked the service.
        """
        names: list[str] = self._request_of_manager("release_lock")(self._service_name, timeout=timeout)
        return names

    def unlink(self, timeout: float | None = None) -> None:
        """Break the link. Other links of the client with this service stay. The second time does nothing.

        Raises:
            TimeoutError: the manager has not answered in `timeout` seconds. The link is broken all the same.
        """
        self._break(tell=True, timeout=timeout)

    def disconnect(self, timeout: float | None = None) -> None:
        """As `unlink`."""
        self.unlink(timeout)

    def notification_handler(self, *args: Any, **kwargs: Any) -> None:
        """Called with what the service tells, in a thread of the client. Assign a function of your own.

        Handlers are called one after the other, in the order in which the service has told something, and
        before the reply to a request that came later. A handler may make requests. What it raises is logged.
        """

    def shutdown_service(self, *args: Any, **kwargs: Any) -> Any:
        """Request the service to end, and break the link.

        Returns:
            What the service's own ``shutdown_service`` returns.

        Raises:
            RuntimeError: it does not have such a method, or that has failed. The link is not broken then.
        """
        result = self.__getattr__(SHUTDOWN_SERVICE)(*args, **kwargs)
        self._break(tell=False)
        return result

    @property
    def _has_handler(self) -> bool:
        return "notification_handler" in vars(self) or (
            type(self).notification_handler is not Link.notification_handler
        )

    def _request_of_manager(self, attribute: str) -> Callable[..., Any]:
        client = self._client
        if client is None:
            raise AttributeError(f"Cannot access {attribute!r} since the link has been broken")
        return partial(client._new_request, MANAGER, attribute)

    def _break(self, *, tell: bool, timeout: float | None = None) -> None:
        client, self._client = self._client, None
        if client is not None:
            client._remove(self, tell=tell, timeout=timeout)
