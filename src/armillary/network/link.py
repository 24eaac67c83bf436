"""A client's link with a service: its methods, its lock, and what it tells."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from armillary.errors import ArmillaryError, ConnectionClosed, PeerError

from .connection import CLOSE_TIMEOUT, Connection, PendingCall
from .errors import LinkRefused, LockLost, LockRefused, RemoteError, ServiceGone
from .notifications import NOTIFICATION_BOUND, Note, Notifications, Overflow
from .protocol.identities import MANAGER
from .protocol.packets import Notification, Reply
from .streams import ProgressLink, Stream, open_stream_of

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Link", "ServiceLink", "request_of_manager"]

_logger = logging.getLogger("armillary.network")

# Between two looks for a service that is not there yet, in seconds. Longer finds it later; shorter asks the
# manager more often.
_LOOK_INTERVAL = 0.5


async def request_of_manager(
    connection: Connection,
    attribute: str,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    refused: type[RemoteError] = RemoteError,
) -> Any:
    """Ask the manager for something; what it refuses is of this kind."""
    try:
        return await connection.start(MANAGER, attribute, args, kwargs).wait()
    except RemoteError as error:
        if type(error) is RemoteError and refused is not RemoteError:
            raise refused(str(error), error.traceback, error.module) from None
        raise


class ServiceLink:
    """What a client's links with one service share: for the manager they are one link, and have one lock.

    It is there while there are users. `establish` may be called again on every new connection.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.users = 0
        self.entry: dict[str, Any] = {}
        """What the manager said of the service when it was linked."""
        self.connection: Connection | None = None
        """On which it is linked; None if it is not."""
        self.was_linked = False
        """Whether it ever was linked."""
        self.lock_holders = 0
        self.is_exclusive = False
        self.reacquires = True
        """Whether the lock is to be had again on another connection."""
        self.lock_lost: ArmillaryError | None = None
        self.turn = trio.Lock()
        """Held while the manager is asked for a link or a lock."""
        self._readers: list[weakref.ref[Notifications]] = []
        self._callbacks: list[Callable[..., object]] = []

    # -- link and lock -------------------------------------------------------------------------------------

    @property
    def is_linked(self) -> bool:
        """Whether the manager knows of it."""
        return self.connection is not None and self.connection.reason is None

    async def establish(self, connection: Connection) -> None:
        """Link, if it is not yet, and have the lock again if there was one that is to be had again.

        Raises:
            LinkRefused: the manager does not allow it.
            ServiceGone: there is no such service.
            ConnectionClosed: the connection ended first.
        """
        async with self.turn:
            if self.connection is not connection:
                await self._link(connection)

    async def refresh(self, connection: Connection) -> None:
        """Look whether the service is still the one that it was, and `establish` the link if it is not.

        Managers do not tell of services that were started again, which know nothing of their old links.
        Nothing is done for a link that never was. This raises what `establish` raises.
        """
        async with self.turn:
            if self.users and self.was_linked:
                await self._link(connection)

    async def _link(self, connection: Connection) -> None:
        try:
            entry = await request_of_manager(connection, "link", [self.service], refused=LinkRefused)
        except ServiceGone as error:
            self._service_is_gone(error)
            raise
        except trio.Cancelled:
            # The manager may have done it.
            connection.tell(MANAGER, "unlink", [self.service])
            raise
        if not self.users:
            # The last block was left meanwhile, which took back only what it had: not this one.
            connection.tell(MANAGER, "unlink", [self.service])
            return
        entry = entry if isinstance(entry, dict) else {}
        if self.connection is connection and entry.get("address") == self.entry.get("address"):
            # The same link once more: armillary's manager counts them, and that of 1.0 does not mind.
            connection.tell(MANAGER, "unlink", [self.service])
            return
        if self.connection is not None:
            self._service_is_gone(ServiceGone(f"the {self.service!r} service was started again"))
        self.entry = entry
        self.connection = connection
        self.was_linked = True
        if self.lock_holders and self.lock_lost is None:
            await self._have_lock_again(connection)

    def _service_is_gone(self, error: ServiceGone) -> None:
        """Its links and its lock went with it."""
        if self.connection is not None:
            self.connection = None
            self._lose_lock(error)

    async def acquire(self, connection: Connection, *, shared: bool, reacquires: bool) -> None:
        """One more block holds the lock.

        Raises:
            LockRefused: it is not to be had.
            ConnectionClosed: the connection ended first.
        """
        async with self.turn:
            if self.lock_lost is not None:
                raise self._lost_error()
            must_ask = not self.lock_holders or not (shared or self.is_exclusive)
            self.lock_holders += 1  # so that nobody else's release takes away what is asked for here
            if must_ask:
                try:
                    await self._ask_for_lock(connection, shared=shared)
                except BaseException:
                    self.lock_holders -= 1
                    if not self.lock_holders:
                        # The manager may have done it, and whoever held it has left it to us.
                        connection.tell(MANAGER, "release_lock", [self.service])
                    raise
                self.is_exclusive = not shared
                self.reacquires = reacquires

    async def release(self) -> None:
        """One block less holds the lock; the last one gives it back."""
        self.lock_holders -= 1
        if self.lock_holders:
            return
        was_lost, self.lock_lost = self.lock_lost, None
        if self.connection is not None and was_lost is None:
            await _say(self.connection, "release_lock", self.service)

    def check_lock(self) -> None:
        """Raise LockLost if this block has lost its lock, and ServiceGone if it has not got it again yet."""
        if self.lock_lost is not None:
            raise self._lost_error()
        if self.lock_holders and self.connection is None:
            raise ServiceGone(f"the {self.service!r} service has gone, and its lock with it")

    def service_gone(self, why: str, *, links_again: bool) -> None:
        """The manager says that the service has gone. The next one of its name knows nothing of this link."""
        if not links_again:
            self.reacquires = False
        self._service_is_gone(ServiceGone(why, may_have_been_received=True))

    def lock_taken(self, why: str) -> None:
        """The manager has taken the lock away."""
        if self.lock_holders and self.lock_lost is None:
            self.lock_lost = PeerError(f"the manager has taken it away: {why}")

    def connection_ended(self, reason: ArmillaryError | None) -> None:
        """The link and the lock went with the connection."""
        self.connection = None
        self._lose_lock(reason)

    def _lose_lock(self, reason: ArmillaryError | None) -> None:
        if self.lock_holders and not self.reacquires and self.lock_lost is None:
            self.lock_lost = reason

    def _lost_error(self) -> LockLost:
        error = LockLost(
            f"the lock of {self.service!r} was lost, and somebody else may have used it: {self.lock_lost}"
        )
        error.__cause__ = self.lock_lost
        return error

    async def _ask_for_lock(self, connection: Connection, *, shared: bool) -> None:
        await request_of_manager(
            connection, "acquire_lock", [self.service], {"shared": shared}, refused=LockRefused
        )

    async def _have_lock_again(self, connection: Connection) -> None:
        try:
            await self._ask_for_lock(connection, shared=not self.is_exclusive)
        except RemoteError as error:
            self.lock_lost = error

    # -- notifications -------------------------------------------------------------------------------------

    def take(self, notification: Notification) -> None:
        """The service has told something."""
        note = Note(tuple(notification.args), notification.kwargs)
        for reader in self._live_readers():
            reader.put(note)
        for callback in tuple(self._callbacks):
            try:
                callback(*note.args, **note.kwargs)
            except Exception:
                # The connection and the other callbacks go on.
                _logger.exception("a callback for notifications of %r failed", self.service)

    def add_reader(self, reader: Notifications) -> None:
        """Give it what comes from now on, for as long as somebody has it."""
        self._readers.append(weakref.ref(reader, self._readers.remove))

    def add_callback(self, callback: Callable[..., object]) -> None:
        self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[..., object]) -> None:
        self._callbacks.remove(callback)

    def close_readers(self) -> None:
        """Nothing more will come."""
        for reader in self._live_readers():
            reader.close()

    def _live_readers(self) -> Iterator[Notifications]:
        for reference in tuple(self._readers):
            reader = reference()
            if reader is not None:
                yield reader


async def _say(connection: Connection, attribute: str, service: str) -> None:
    """Tell the manager something on the way out, and see that it was heard, if there is time for that."""
    try:
        pending = connection.start(MANAGER, attribute, [service])
    except ConnectionClosed:
        return
    with trio.move_on_after(CLOSE_TIMEOUT):
        try:
            await pending.wait()
        except ArmillaryError:
            pass  # it is as we want it already


class Link:
    """A link with a service, inside the block of `Client.link`.

    Every public method of the service is one of the link: ``await link.voltage(3, range=10)``. It has no
    time-out of its own: use ``trio.fail_after``. Constants and properties of the service are asked for in the
    same way: ``await link.serial_number()``. Names that begin with an underscore are nobody's, and methods of
    the service that are called like something of the link are reached by `call`.
    """

    def __init__(self, client: Client, shared: ServiceLink) -> None:
        self._client = client
        self._shared = shared
        self._is_open = True

    def __repr__(self) -> str:
        state = "" if self._is_open and self._shared.is_linked else ", not linked now"
        return f"<link with {self._shared.service!r}{state}>"

    @property
    def is_linked(self) -> bool:
        """Whether the manager knows of this link now: it does not while there is no connection to it."""
        return self._is_open and self._shared.is_linked

    @property
    def service_name(self) -> str:
        """The name of the service."""
        return self._shared.service

    @property
    def service_address(self) -> str:
        """``HOST:PORT`` of the service, as the manager sees it."""
        return str(self._shared.entry.get("address", ""))

    @property
    def service_attributes(self) -> dict[str, Any]:
        """What can be asked of the service, by name: signatures, and values of constants."""
        attributes = self._shared.entry.get("attributes")
        return dict(attributes) if isinstance(attributes, dict) else {}

    @property
    def service_language(self) -> str:
        """What the service is written in."""
        return str(self._shared.entry.get("language", "unknown"))

    @property
    def service_os(self) -> str:
        """What the service runs on."""
        return str(self._shared.entry.get("os", "unknown"))

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with the service; -1 is no limit."""
        most = self._shared.entry.get("max_clients", -1)
        return most if isinstance(most, int) else -1

    # -- calls ---------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            # Python, debuggers and notebooks ask for such names to see what something is.
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return partial(self.call, name)

    async def call(self, attribute: str, /, *args: object, **kwargs: object) -> Any:
        """Call a method of the service by its name, or ask for one of its values.

        Cancellation abandons the call, and nobody hears of its result: a coroutine of the service is
        cancelled, a method in a thread can know of it, and one of MSL-Network 1.0 goes on. The list that
        comes of a generator is of a hundred thousand items at most; `stream` has no limit.

        Raises:
            RemoteError: it raised something, there is no such thing, or the arguments are wrong.
            ServiceGone: the service is not there, or went before it answered.
            ConnectionClosed: there is no connection to the manager, or it ended before the answer came.
            LockLost: the lock was lost with a connection; nothing was sent.
            PacketTooLarge: the answer was larger than the client's limit.
            TypeError: an argument cannot be sent; nothing was.
            ClosedResourceError: the link's block was left.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._client.connection
        if connection is not None:
            await connection.wait_room()
        return await self.start_call(attribute, *args, **kwargs).wait()

    def stream(
        self, attribute: str, /, *args: object, **kwargs: object
    ) -> AbstractAsyncContextManager[Stream]:
        """Iterate over what a generator of the service makes, inside a block.

        ::

            async with link.stream("scan", 3, step=0.1) as points:
                async for point in points: ...

        The generator is never more than some items ahead of the loop: it waits until they were read. Leaving
        the block closes it. What a method has returned as a list is iterated over as well.

        The block raises, at its beginning, what `start_call` does, and the loop what `call` raises, when the
        items before that have been read; TypeError if the method returned something else.
        """
        return open_stream_of(self._start, attribute, args, kwargs, None)

    def with_progress(self, callback: Callable[[Any], object]) -> ProgressLink:
        """The link, with calls that tell how far they have come: ``await link.with_progress(print).scan()``.

        Args:
            callback: called with each value that the method gives to `CurrentCall.emit_progress`, before the
                call returns. What it raises is logged and disturbs nobody.
        """
        return ProgressLink(self._start, callback)

    def start_call(self, attribute: str, /, *args: object, **kwargs: object) -> PendingCall:
        """As `call`, but do not wait for the result: its ``wait()`` does. So one task has many on their way.

        Nothing limits what is sent this way: `call` waits while the manager is behind, this does not.
        """
        return self._start(attribute, args, kwargs)

    def _start(
        self,
        attribute: str,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        room: int | None = None,
        on_part: Callable[[Reply], object] | None = None,
    ) -> PendingCall:
        self._check_open()
        connection = self._client.usable_connection()
        self._shared.check_lock()
        return connection.start(self._shared.service, attribute, args, kwargs, room=room, on_part=on_part)

    # -- the lock ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lock(self, shared: bool = False, *, reacquire: bool | None = None) -> AsyncIterator[None]:
        """Hold the service's lock for a block: while somebody does, no new client can link with it.

        Args:
            shared: let others who are linked hold the lock as well. Otherwise nobody else may be linked.
            reacquire: with a client that reconnects, whether to take the lock again on a new connection as if
                nothing had happened. Meanwhile somebody else may have used the service; so, if None, only
                shared locks are. If not, or if it cannot be had, calls raise `LockLost` until the block is
                left.

        Blocks may be nested, and several tasks of one client hold one lock together: it keeps out others, not
        oneself. An exclusive lock that is asked for inside a shared one lasts until the last block is left.

        Raises:
            LockRefused: it is not to be had now.
            LockLost: another block of this client has lost the lock, and was not left yet.
            ConnectionClosed: there is no connection to the manager, or it ended first.
        """
        self._check_open()
        connection = self._client.usable_connection()
        await self._shared.acquire(
            connection, shared=shared, reacquires=shared if reacquire is None else reacquire
        )
        try:
            yield
        finally:
            # Sent at once; whether it was heard is waited for only by those who are not cancelled.
            await self._shared.release()  # noqa: ASYNC102

    # -- notifications -------------------------------------------------------------------------------------

    def notifications(
        self, *, bound: int = NOTIFICATION_BOUND, overflow: Overflow = Overflow.NEWEST_WIN
    ) -> Notifications:
        """Iterate, with ``async for``, over what the service tells from now on.

        Args:
            bound: how many may wait for the loop.
            overflow: who loses when more do. They are counted in ``statistics().dropped``.

        The loop ends when the link's block is left, or with the only connection of its client.
        """
        self._check_open()
        notifications = Notifications(bound, overflow)
        self._shared.add_reader(notifications)
        return notifications

    def add_notification_callback(self, callback: Callable[..., object]) -> None:
        """Call ``callback(*args, **kwargs)`` with everything that the service tells, as soon as it comes.

        What was told before a call's result is told to the callback before the call returns. What the
        callback raises is logged and disturbs nobody. It belongs to all links of this client with this
        service.
        """
        self._check_open()
        self._shared.add_callback(callback)

    def remove_notification_callback(self, callback: Callable[..., object]) -> None:
        """Undo `add_notification_callback`. Raises ValueError if it was not there."""
        self._shared.remove_callback(callback)

    def close(self) -> None:
        """The block was left."""
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError(f"the link with {self._shared.service!r} was closed")


@asynccontextmanager
async def open_link(client: Client, links: dict[str, ServiceLink], service: str) -> AsyncIterator[Link]:
    """A link for the length of a block: see `Client.link`."""
    shared = links.get(service)
    if shared is None:
        shared = links[service] = ServiceLink(service)
    shared.users += 1
    link = Link(client, shared)
    try:
        await client.establish(shared)
        yield link
    finally:
        link.close()
        shared.users -= 1
        if not shared.users:
            links.pop(service, None)
            shared.close_readers()
            connection, shared.connection = shared.connection, None
            if connection is not None:
                # As for the lock.
                await _say(connection, "unlink", service)  # noqa: ASYNC102
