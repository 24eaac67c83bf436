"""armillary's side of a `Client`: what connects, reads and writes for it.

Nothing here refers to the `Client` but weakly, so that one which its program has forgotten can be collected.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio
from sniffio import thread_local as current_library

from armillary._wire.backoff import Backoff
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.katcp.connection import Connection as NativeConnection
from armillary.katcp.informs import InformHub
from armillary.katcp.mirror import Mirrors
from armillary.katcp.protocol.lifecycle import ClientState
from armillary.katcp.protocol.messages import WireMessage
from armillary.katcp.reconnect import PersistentClient
from armillary_compat.streams import open_host_stream

from .connection import Connection
from .core import TYPES, Address, Message

if TYPE_CHECKING:
    from armillary_compat.guest import Guest
    from armillary_compat.streams import HostStream

    from .client import Client

__all__ = ["AsHost", "ClientEngine", "FacadeConnection"]

# Requests of one turn of the loop that leave together. More keeps the server waiting while its next ones are
# made; fewer makes more system calls. Of 50 at once, 16 gave the most per second.
_TOGETHER = 16

_client_logger = logging.getLogger("aiokatcp.client")


class AsHost:
    """A block of user code called from within trio: who asks which library runs it is not told "trio"."""

    __slots__ = ("_library",)

    def __enter__(self) -> None:
        self._library = current_library.name
        current_library.name = None

    def __exit__(self, *exc_info: object) -> None:
        current_library.name = self._library


class ClientEngine(PersistentClient):
    """What connects a client, again and again.

    Args:
        client: whom it tells; only weakly referred to.
        guest: the trio run that `run` is started in.
    """

    def __init__(self, client: Client, guest: Guest) -> None:
        self._client = weakref.ref(client)
        self._guest = guest
        self._host, self._port = client.host, client.port
        self._limit = client._limit
        self._face: Connection[_Owner] | None = None
        self.hub = _Informs(self._client)
        self.mirrors = Mirrors(self.hub, _MirrorLogger(self))
        super().__init__(
            TYPES,
            self._dial_host,
            f"{client.host}:{client.port}",
            Backoff(random.uniform),  # not for secrets: spreads the attempts of many clients
            reconnects=client.auto_reconnect,
            hub=self.hub,
            mirrors=self.mirrors,
        )
        self.add_state_callback(functools.partial(_tell_state, self._client))

    @property
    def is_closing(self) -> bool:
        """Whether the client was closed by its program."""
        return self._lifecycle.is_closing

    @property
    def link(self) -> FacadeConnection | None:
        """The present connection, be it that the server has not said its protocol yet."""
        assert isinstance(self._underway, FacadeConnection | None)
        return self._underway

    @property
    def address(self) -> Address | None:
        """The server's, of the present connection or of the last one."""
        return None if self._face is None else self._face.address

    def fail_pending(self) -> None:
        """Have those who wait for replies on the last connection told that none will come."""
        if self._connection is not None:
            self._connection.fail_pending()

    def server_parts(self, reason: str) -> None:
        """The server has said that it will close the connection."""
        if self._underway is not None:
            self._underway.end(ConnectionClosed(f"the server disconnected: {reason}"))

    async def _dial_host(self) -> trio.abc.Stream:
        try:
            return await open_host_stream(self._guest, self._host, self._port, protocol=self._make_face)
        except Exception as error:  # an impossible port or host too is why there is no connection
            raise ConnectFailed(f"could not connect to {self._host}:{self._port}: {error}") from error

    def _make_face(self, stream: HostStream) -> Connection[Any]:
        face = self._face = Connection(_Owner(self._client), False, self._limit)
        face._stream = stream
        return face

    def make_connection(self, stream: trio.abc.Stream, nursery: trio.Nursery, limit: int) -> NativeConnection:
        assert self._face is not None
        return FacadeConnection(
            self._client, self._face, stream, nursery, self._hub, self._mids, self._types, limit
        )


class _MirrorLogger(logging.LoggerAdapter[logging.Logger]):
    """The client's logger as it is while there is a connection: with the address of the server."""

    def __init__(self, engine: ClientEngine) -> None:
        super().__init__(_client_logger, {})
        self._engine = engine

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        address = self._engine.address
        return (msg if address is None else f"{msg} [{address}]"), kwargs


def _tell_state(client: weakref.ref[Client], state: ClientState) -> None:
    told = client()
    if told is not None:
        with AsHost():
            told._state_changed(state)


class _Owner:
    """Who the `Connection` of a client hands messages to."""

    def __init__(self, client: weakref.ref[Client]) -> None:
        self._client = client

    def _connection_made(self, conn: Connection[Any]) -> None:
        pass

    def _connection_lost(self, conn: Connection[Any], exc: Exception | None) -> None:
        pass

    def _eof_received(self, conn: Connection[Any]) -> bool:
        return True  # armillary closes it

    def handle_message(self, conn: Connection[Any], msg: Message) -> None:
        client = self._client()
        if client is not None:
            with AsHost():
                client.handle_message(conn, msg)


class FacadeConnection(NativeConnection):
    """One connection of a client.

    Args:
        client: whose it is.
        face: what is shown of it to the client's program.
        rest: as for `armillary.katcp.connection.Connection`.
    """

    def __init__(self, client: weakref.ref[Client], face: Connection[_Owner], *rest: Any) -> None:
        super().__init__(*rest)
        self.face = face
        self.logger = face.logger
        face._outbox = self.outbox
        assert face._stream is not None
        # No trio task need run for most of what comes.
        face._stream.sink = self.take
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._held_back = 0
        self._conversation.on_stray = self._stray
        owner = client()
        self._is_hooked = owner is not None and owner._sees_messages

    def receiver(self) -> Callable[[WireMessage], object]:
        return self._hand_over if self._is_hooked else self.receive

    def send_soon(self) -> None:
        """One callback of the loop sends what all its tasks ask in one turn: cheaper than a writer task."""
        if not self._held_back:
            self._loop.call_soon(self._flush)
        self._held_back += 1
        if self._held_back % _TOGETHER == 0:
            self.outbox.flush()

    def _flush(self) -> None:
        self._held_back = 0
        self.outbox.flush()

    def _hand_over(self, message: WireMessage) -> None:
        try:
            self.face.owner.handle_message(self.face, Message.from_wire(message))
        except Exception:
            self.logger.exception("Exception in message handler")

    def _stray(self, message: WireMessage) -> None:
        """A message belongs to nothing."""
        client = self._client()
        logger = _client_logger if client is None else client.logger
        if message.mtype is Message.Type.REQUEST:
            logger.info("Received unexpected request %s from server", message.name.decode("ascii"))
        elif message.mid is not None:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "Received %r with unknown message ID %s (possibly cancelled request)",
                    bytes(message),
                    message.mid,
                )
        else:
            logger.info(
                "Received unexpected %s (%s) from server without message ID",
                message.mtype.name,
                message.name.decode("ascii"),
            )

    def _log_malformed(self, level: int, error: ValueError) -> None:
        self.logger.log(level, "Malformed message received", exc_info=error)


class _Informs(InformHub):
    """Informs that belong to no request: the client first, then the mirrors of sensors."""

    def __init__(self, client: weakref.ref[Client]) -> None:
        super().__init__(TYPES)
        self._client = client

    def dispatch(self, wire: WireMessage) -> None:
        library = current_library.name
        current_library.name = None
        try:
            client = self._client()
            if client is not None:
                try:
                    client._inform_received(wire)
                except Exception:  # of an overridden method
                    client.logger.exception("Exception in message handler")
            super().dispatch(wire)
        finally:
            current_library.name = library
