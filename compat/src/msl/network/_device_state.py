"""What a client or a service knows of itself."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from armillary._runtime.tls_socket import transport_of

from .constants import HOSTNAME

if TYPE_CHECKING:
    import trio

__all__ = ["DeviceState", "LoopOfDevice"]


class LoopOfDevice:
    """In the place of the event loop that devices had in 1.0: programs look up its thread."""

    _thread_id: int | None = None


@dataclass
class DeviceState:
    """The state that `Device` shows. What it says of a connection stays when that has ended."""

    name: str
    """What it calls itself."""
    network_name: str = "<UNKNOWN>"
    """``NAME[HOST:PORT]``."""
    address_manager: str | None = None
    """As given."""
    port: int | None = None
    """Its own."""
    tasks: list[Awaitable[Any]] = field(default_factory=list)
    """What the user has added and nobody has started yet."""
    max_clients: int = -1
    """Of a service: how many clients may be linked with it; -1 is no limit."""
    ignored: set[str] = field(default_factory=set)
    """Of a service: attributes that its clients are not told of."""
    serving: Any = None
    """Of a service: its run, while it runs."""

    def connected(self, stream: trio.abc.Stream) -> None:
        """There is a connection. What the manager calls the device is not known yet, and mostly this."""
        self.port = transport_of(stream).getsockname()[1]
        self.network_name = f"{self.name}[{HOSTNAME}:{self.port}]"
