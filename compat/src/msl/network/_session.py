"""A client's connection: a task of the portal, and what any thread may ask of it."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from armillary._runtime.groups import single_exception
from armillary.network.connection import Connection
from armillary.network.protocol import packets
from armillary.network.protocol.features import CANCEL, EXCEPTION
from armillary.network.protocol.identities import Identity
from armillary.network.protocol.packets import Notification
from armillary_compat.portal import hold_portal

from ._codec import CHOSEN
from ._dispatching import Dispatcher
from ._errors import CannotConnect, Disconnected
from ._joining import Certificate, limit_of, open_connection_stream, wait_joined
from ._options import Options
from ._prompting import PromptDesk
from ._requests import RequestFuture
from .utils import logger

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Session"]

# What is said beyond 1.0. Not attachments: values that need them are errors to programs of 1.0. And no signs
# of life: a debugger that stops this program for an hour does not make it lose its locks, as in 1.0.
_FEATURES = frozenset({CANCEL, EXCEPTION})
# Unsent bytes above which asynchronous requests wait before they are made. More lets a program that makes
# them faster than the manager reads take more memory; fewer makes it wait more often.
_MOST_UNSENT = 64 * 1024 * 1024


class Session:
    """One connection of one client, from `open` to its end.

    It holds a lease of the portal for as long.

    Args:
        client: whose it is.
        options: as given to `connect`.
        certificate: the certificate that the manager must show; None without TLS.
    """

    def __init__(self, client: Client, options: Options, certificate: Certificate | None) -> None:
        self._client = client
        self._options = options
        self._certificate = certificate
        self.address = options.address
        """``HOST:PORT`` of the manager, as given."""
        self.dispatcher = Dispatcher(f"{client.name} at {options.address}")
        self._desk = PromptDesk()
        self._scope = trio.CancelScope()
        self._connection: Connection | None = None
        self._joined: Future[None] = Future()
        self._uids = itertools.count(1)
        # Any thread appends, the portal takes.
        self._outgoing: deque[RequestFuture] = deque()
        self._is_announced = False
        self._is_over = False
        self._thread = 0

    @property
    def is_usable(self) -> bool:
        """Whether requests can be made."""
        connection = self._connection
        return connection is not None and connection.is_usable and not self._is_over

    @property
    def counts_links(self) -> bool:
        """Whether the manager counts how often a client has linked with a service. That of 1.0 does not."""
        return self._connection is not None and CANCEL in self._connection.features

    # -- for any thread ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, and wait until the manager has let the client in.

        Raises what `open_connection_stream` and `wait_joined` raise.
        """
        self._lease = hold_portal()
        try:
            self._ended = self._lease.start(self._run)
        except BaseException:
            self._lease.release()
            raise
        try:
            self._desk.wait(self._joined)
            self._joined.result()
        except BaseException:
            self.close()
            raise

    def request(
        self,
        service: str,
        attribute: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        at_once: bool = True,
    ) -> RequestFuture:
        """Send a request.

        Args:
            service: who is asked.
            attribute: for what.
            args: of it.
            kwargs: of it.
            at_once: whether somebody waits for it. Otherwise it may be sent together with the next ones.

        Raises:
            Disconnected: there is no connection; nothing was sent.
            TypeError: an argument is not JSON serializable; nothing was sent.
        """
        if not self.is_usable:
            raise self.disconnected(service)
        uid = f"c{next(self._uids)}"
        line = packets.request(service, attribute, args, kwargs, uid=uid, codec=CHOSEN)
        future = RequestFuture(self, service, attribute, uid, line)
        if not at_once:
            self._wait_room()
        is_sent = at_once and not (self._outgoing or self._is_announced) and self._send_here(future)
        if not is_sent:
            self._outgoing.append(future)
            if not self._is_announced:
                self._is_announced = True
                self._post(self._send)
        return future

    def wait(self, future: RequestFuture, timeout: float | None, *, answering: bool = False) -> Any:
        """The result of a request.

        Args:
            future: of the request.
            timeout: seconds; None is no limit. The service is not told, and a late reply is dropped.
            answering: whether somebody may be asked, in this thread, what the manager wants to know.

        Raises:
            TimeoutError: there was none in time.
        """
        try:
            if answering and not self.dispatcher.is_here:
                self._desk.wait(future, timeout)
            return future.result(timeout)
        except BaseException:
            if not future.done():
                self._post(partial(future.abandon, tell=False))
            raise

    def abandon(self, future: RequestFuture) -> None:
        """Nobody waits for it any more. The service may know."""
        self._post(partial(future.abandon, tell=True))

    def call_back(self, function: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        """Call a user's function, but not in the portal, which has other clients, too."""
        if threading.get_ident() == self._thread:
            self.dispatcher.put(partial(function, future))
        else:
            function(future)

    def disconnected(self, service: str) -> Disconnected:
        """The error of requests to `service` that cannot be sent."""
        return Disconnected(f"Disconnected from Manager[{self.address}], cannot send request to {service!r}")

    def wait_ended(self, timeout: float | None) -> None:
        """Wait until nothing is left of the connection.

        Raises:
            TimeoutError: it takes longer than `timeout` seconds.
        """
        self._ended.result(timeout)

    def close(self) -> None:
        """End the connection, whether or not the manager listens."""
        self._post(self._scope.cancel)

    def _send_here(self, future: RequestFuture) -> bool:
        """Send a request from this thread, if the portal has nothing to do. Return whether it was sent."""
        try:
            return self._lease.call_while_idle(self._send_alone, future)
        except RuntimeError:
            return False  # `_post` says why

    def _send_alone(self, future: RequestFuture) -> None:
        connection = self._connection
        assert connection is not None
        connection.outbox.cork()
        future.send(connection)
        if not connection.outbox.flush_elsewhere():
            self._lease.post(connection.outbox.flush)

    def _wait_room(self) -> None:
        """Wait while so much is unsent that more would only fill the memory."""
        connection = self._connection
        assert connection is not None
        if connection.outbox.backlog > _MOST_UNSENT and threading.get_ident() != self._thread:
            with suppress(RuntimeError):  # the connection has ended meanwhile: that is said elsewhere
                self._lease.call(connection.wait_room)

    def _post(self, function: Callable[[], object]) -> None:
        try:
            self._lease.post(function)
        except RuntimeError:
            if not self._is_over:
                raise  # this is another process than the one that has connected
            self._refuse_all()

    # -- in the portal -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """The session's life."""
        self._thread = threading.get_ident()
        failure: Exception = CannotConnect("the connection was closed before it was established")
        try:
            with self._scope, single_exception():
                await self._live()
        except Exception as error:  # noqa: BLE001 - whoever connects gets it
            failure = error
            if self._joined.done():
                logger.exception("the connection to %s has failed", self.address)
        finally:
            self._is_over = True
            if not self._joined.done():
                self._joined.set_exception(failure)
            self._refuse_all()
            self._client._session_over(self)
            self.dispatcher.close()
            self._lease.release()

    async def _live(self) -> None:
        stream = await open_connection_stream(self._options, self._certificate)
        async with trio.open_nursery() as nursery:
            self._client._msl_device.connected(stream)
            connection = Connection(
                stream,
                nursery,
                identify=self._identify,
                credentials=self._options.credentials(),
                ask=self._desk.ask,
                features=_FEATURES,
                limit=limit_of(self._options),
                codec=CHOSEN,
                on_notification=self._take_notification,
            )
            nursery.start_soon(connection.run, name="armillary network connection")
            await wait_joined(connection, self._options)
            if connection.network_name is not None:
                self._client._msl_device.network_name = connection.network_name
            self._connection = connection
            self._client._loop._thread_id = self._thread
            self._joined.set_result(None)
            await connection.closed.wait()

    def _identify(self, features: frozenset[str]) -> Identity:
        said = self._client.identity()
        return Identity("client", said["name"], said["language"], said["os"], features=features)

    def _take_notification(self, notification: Notification) -> None:
        if self._client._has_handler(notification.service):
            self.dispatcher.offer(partial(self._client._handle, notification))

    def _send(self) -> None:
        """Send what the threads have left here, together."""
        self._is_announced = False
        connection = self._connection
        assert connection is not None
        connection.outbox.cork()
        for _ in range(len(self._outgoing)):
            self._outgoing.popleft().send(connection)
        connection.outbox.flush()

    def _refuse_all(self) -> None:
        """There is no connection any more for what the threads have left here."""
        self._is_announced = False
        while self._outgoing:
            try:
                future = self._outgoing.popleft()
            except IndexError:
                return  # another thread was here
            future.refuse()
