"""The connection of one client, as a server's program sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from armillary_compat.futures import call_trio

from ._serving import ClientStream, FacadeSession
from .connection import Connection
from .sensor import Reading, Sensor, SensorSampler

if TYPE_CHECKING:
    from .server import DeviceServer

__all__ = ["ClientConnection"]


class ClientConnection(Connection["DeviceServer"]):
    """The connection of one client of a server.

    Args:
        owner: the server.
        limit: the longest line accepted, in bytes.
    """

    session: FacadeSession
    """armillary's side of it, once it has begun."""

    def __init__(self, owner: DeviceServer, limit: int) -> None:
        super().__init__(owner, True, limit)
        self._samplers_lock: asyncio.Lock | None = None
        guest = owner._katcp_guest
        if guest is not None:
            self._stream = ClientStream(guest, self)

    @property
    def samplers_lock(self) -> asyncio.Lock:
        """For methods that override ``request_sensor_sampling``: held while samplers are changed."""
        if self._samplers_lock is None:
            self._samplers_lock = asyncio.Lock()
        return self._samplers_lock

    def set_sampler(self, s: Sensor[Any], sampler: SensorSampler[Any] | None) -> None:
        """Put a sampler, or nothing, in the place of the one that a sensor has, which is closed."""
        self.session.samplers.set_sampler(s, sampler)

    def get_sampler(self, s: Sensor[Any]) -> SensorSampler[Any] | None:
        """The sampler of a sensor, or None."""
        return self.session.samplers.get_sampler(s)

    def sensor_update(self, s: Sensor[Any], reading: Reading[Any]) -> None:
        """Send a reading to the client, as ``#sensor-status``."""
        session = self.session
        session.send_async_inform(session.device.status_of(s, reading))

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be sent; at once if it has.

        Raises:
            OSError: the connection broke meanwhile.
        """
        if self.session.is_behind:
            await call_trio(self.session.wait_drained)
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Send what waits, then close. Returns at once; `wait_closed` waits."""
        self._is_closing = True
        if self._outbox is None:
            super().close()
        else:
            self.session.close()

    def abort(self) -> None:
        """Close at once, and drop what waits."""
        if self._outbox is not None:
            self._outbox.flush()  # what was sent before, and could have left
        super().abort()
        if self._outbox is not None:
            self.session.abort("aborted by the server")

    def begin_session(self, session: FacadeSession) -> None:
        """Called by armillary, when it begins to serve the client."""
        self.session = session
        self._outbox = session.outbox

    def end_session(self) -> None:
        """Called by armillary, when the client is none any more."""
        self._is_closing = True
        self.owner._connections.discard(self)
