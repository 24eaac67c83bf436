"""What a client's links with one service share: the manager's link, its lock, and who listens."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import trio

from armillary.errors import ArmillaryError, ConnectionClosed, PeerError

from .connection import CLOSE_TIMEOUT, Connection
from .errors import LinkRefused, LockLost, LockRefused, RemoteError, ServiceGone
from .notifications import Note, Notifications
from .protocol.features import PING
from .protocol.identities import MANAGER
from .protocol.packets import Notification

__all__ = ["ServiceLink", "request_of_manager", "say"]

_logger = logging.getLogger("armillary.network")


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
            if PING in connection.features:
                # The same link once more: armillary's manager counts them. That of 1.0 would end the link.
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
            await say(self.connection, "release_lock", self.service)

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


async def say(connection: Connection, attribute: str, service: str) -> None:
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
