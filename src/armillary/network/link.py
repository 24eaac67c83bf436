"""A client's link with a service: its methods, its lock, and what it tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .notifications import NOTIFICATION_BOUND, Notifications, Overflow
from .pending_calls import PendingCall
from .protocol.packets import Reply
from .service_link import ServiceLink, say
from .streams import ProgressLink, Stream, open_stream_of

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Link", "open_link"]


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
                await say(connection, "unlink", service)  # noqa: ASYNC102
