"""A client, and what it asks of its manager."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, overload

from armillary.network.protocol.identities import MANAGER, identities_as_text
from armillary.network.protocol.packets import Notification

from ._errors import Disconnected, RequestFailed
from ._joining import trusted_certificate
from ._link import Link
from ._options import Options, valid_options
from ._session import Session
from .constants import DISCONNECT_REQUEST, PORT
from .network import Device
from .utils import logger

__all__ = ["Client", "connect", "filter_client_connect_kwargs"]

# Seconds that a manager has to close the connection when nobody says how long. Longer holds up programs whose
# manager has stopped; shorter gives up on a busy one.
_PATIENCE = 10.0


def connect(
    *,
    name: str = "Client",
    host: str = "localhost",
    port: int = PORT,
    timeout: float | None = 10,
    username: str | None = None,
    password: str | None = None,
    password_manager: str | None = None,
    read_limit: int | None = None,
    disable_tls: bool = False,
    cert_file: str | None = None,
    assert_hostname: bool = True,
    auto_save: bool = False,
) -> Client:
    """Connect to a manager.

    What is not given and the manager wants to know, somebody is asked at the terminal.

    Args:
        name: what the client calls itself. Others may be called the same.
        host: the manager's name or address.
        port: of the manager.
        timeout: seconds for connecting, and as many for the manager to let the client in, without the time
            that somebody takes to type. None is no limit.
        username: of the user, if the manager wants users to log in.
        password: of the user.
        password_manager: the manager's own password, if it has one.
        read_limit: the largest packet that is accepted, in bytes; None is no limit.
        disable_tls: whether the manager was started without TLS.
        cert_file: the file with the certificate to trust; if None, the one that is stored for `host`.
        assert_hostname: whether the certificate must be for `host`.
        auto_save: whether to trust the first certificate that `host` shows without asking.

    Raises:
        ConnectionError: there is no connection. The text says what to do.
        TimeoutError: the manager cannot be reached in time.
        ValueError: the manager does not let the client in.
    """
    client = Client(name)
    client._connect(
        Options(
            name=name,
            host=host,
            port=port,
            timeout=timeout,
            username=username,
            password=password,
            password_manager=password_manager,
            read_limit=read_limit,
            disable_tls=disable_tls,
            cert_file=cert_file,
            assert_hostname=assert_hostname,
            auto_save=auto_save,
        )
    )
    return client


def filter_client_connect_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Those of the keyword arguments that `connect` takes; ``auth_password`` as ``password_manager``."""
    return valid_options(kwargs)


class Client(Device):
    """A client of one manager. Made by `connect`; any thread may use it, and many clients share one thread.

    It stays connected until `disconnect`, or until the program ends.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._options = Options(name=name)
        self._session: Session | None = None
        self._links: list[Link] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        if not self.is_connected():
            return f"<{self.name} disconnected>"
        return f"<{self.name} manager={self.address_manager} port={self.port}>"

    def identity(self) -> dict[str, Any]:
        """What the client tells the manager of itself."""
        return self._describe("client")

    # -- the connection ------------------------------------------------------------------------------------

    def is_connected(self) -> bool:
        """Whether requests can be made."""
        return self._session is not None and self._session.is_usable

    def disconnect(self, timeout: float | None = None) -> None:
        """Leave the manager, and wait until it has forgotten this client. Nothing happens the second time.

        Raises:
            TimeoutError: the manager has not noticed in `timeout` seconds. The connection is closed all the
                same.
        """
        session = self._session
        if session is None:
            return
        patience = _PATIENCE if timeout is None else timeout
        try:
            session.wait(session.request(str(self), DISCONNECT_REQUEST, (), {}), patience)
        except Disconnected:
            pass
        except TimeoutError:
            session.close()
            if timeout is not None:
                raise
        with suppress(TimeoutError):
            session.wait_ended(patience)

    def spawn(self, name: str = "Client") -> Client:
        """Another client, connected in the same way as this one was."""
        client = Client(name)
        client._connect(replace(self._options, name=name))
        return client

    # -- requests ------------------------------------------------------------------------------------------

    def link(self, service: str, *, timeout: float | None = None) -> Link:
        """Link with a service.

        Raises:
            RuntimeError: there is no such service, it is locked, or has as many clients as it wants.
            TimeoutError: the manager has not answered in `timeout` seconds.
            ConnectionError: there is no connection.
        """
        link = Link(self, service, self._new_request(MANAGER, "link", service, timeout=timeout))
        with self._lock:
            self._links.append(link)
        return link

    def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """As `Link.unlink`.

        Raises:
            TypeError: this is no link.
        """
        if not isinstance(link, Link):
            raise TypeError(f"Must pass in a Link object, received {type(link)}")
        link.unlink(timeout)

    @overload
    def identities(
        self, *, as_string: Literal[False] = False, indent: int = 2, timeout: float | None = None
    ) -> dict[str, Any]: ...
    @overload
    def identities(
        self, *, as_string: Literal[True], indent: int = 2, timeout: float | None = None
    ) -> str: ...
    @overload
    def identities(
        self, *, as_string: bool, indent: int = 2, timeout: float | None = None
    ) -> dict[str, Any] | str: ...
    def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> dict[str, Any] | str:
        """Who is connected to the manager, and what it says of itself.

        Args:
            as_string: whether to return a text for people.
            indent: blanks for each level of that text.
            timeout: seconds for the manager's answer; None is no limit.
        """
        identity: dict[str, Any] = self._new_request(MANAGER, "identity", timeout=timeout)
        return identities_as_text(identity, indent=indent) if as_string else identity

    def admin_request(self, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """Request something from the manager that only administrators may have.

        The manager may want to know who this is: somebody is asked at the terminal then, unless it was given
        to `connect`.

        Args:
            attrib: a dotted name, as in ``users_table.usernames``.
            args: of what that is.
            kwargs: likewise, except for ``timeout``, in seconds.

        Raises:
            RuntimeError: the manager refuses, or it has failed.
            ValueError: it was to be asynchronous.
        """
        if "asynchronous" in kwargs:
            raise ValueError("Cannot make asynchronous requests to a Manager")
        return self._new_request(MANAGER, attrib, *args, **kwargs)

    def _new_request(self, service: str, attribute: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a request, or its future if ``asynchronous`` is among the keyword arguments."""
        asynchronous = kwargs.pop("asynchronous", False)
        timeout = kwargs.pop("timeout", None)
        session = self._session
        if session is None:
            raise Disconnected(f"Not connected to a Manager, cannot send request to {service!r}")
        future = session.request(service, attribute, args, kwargs, at_once=not asynchronous)
        if asynchronous:
            return future
        return session.wait(future, timeout, answering=service == MANAGER)

    def _remove(self, link: Link, *, tell: bool, timeout: float | None = None) -> None:
        """A link is broken. The links with one service are one for some managers, and several for others."""
        with self._lock:
            if link not in self._links:
                return
            self._links.remove(link)
            is_last = all(other.service_name != link.service_name for other in self._links)
        session = self._session
        if tell and session is not None and session.is_usable and (is_last or session.counts_links):
            with suppress(RequestFailed, ConnectionError):  # as it should be already
                self._new_request(MANAGER, "unlink", link.service_name, timeout=timeout)

    # -- for the session -----------------------------------------------------------------------------------

    def _connect(self, options: Options) -> None:
        state = self._msl_device
        state.address_manager = options.address
        self._options = options
        self._session = Session(self, options, trusted_certificate(options))
        self._session.open()

    def _has_handler(self, service: str) -> bool:
        """Whether it matters what this service tells."""
        return any(link.service_name == service and link._has_handler for link in tuple(self._links))

    def _handle(self, notification: Notification) -> None:
        """A service has told something."""
        for link in tuple(self._links):
            if link.service_name == notification.service:
                try:
                    link.notification_handler(*notification.args, **notification.kwargs)
                except Exception:  # noqa: BLE001 - users write these
                    logger.exception("%s: the notification handler of %r has failed", self, link)

    def _session_over(self, session: Session) -> None:
        """There is no connection any more."""
        self._loop._thread_id = None
        own = vars(self).get("shutdown_handler") or type(self).shutdown_handler
        if own is not Device.shutdown_handler:
            session.dispatcher.put(self.shutdown_handler)
