"""What clients, services and the manager have in common."""

# No `from __future__ import annotations`: services tell their clients the signature of `set_logging_level`
# as text, and that must be the one of the annotations themselves.

from collections.abc import Awaitable
from typing import Any, Union

from armillary.network.client import LANGUAGE, OS

from ._device_state import DeviceState, LoopOfDevice
from .utils import logger

__all__ = ["Device", "Network"]


class Network:
    """Base of whatever is in the lab network: the manager, clients and services."""

    def __str__(self) -> str:
        return "<UNKNOWN>"

    def identity(self) -> dict[str, Any]:
        """What it tells others of itself."""
        raise NotImplementedError

    @staticmethod
    def set_logging_level(level: Union[str, int]) -> bool:
        """Set the level from which on the package logs.

        Args:
            level: a number, also as text, or the name of a level in any case.

        Returns:
            Whether it was set. It is not, with a message in the log, if there is no such level.
        """
        wanted = level.upper() if isinstance(level, str) else level
        try:
            logger.setLevel(int(wanted) if isinstance(wanted, str) and wanted.isdecimal() else wanted)
        except (TypeError, ValueError):
            logger.error("invalid logging level %r", wanted)
            return False
        return True


class Device(Network):
    """Base of clients and services.

    Everything that is private to it is in one attribute, and in `_loop`, which programs are known to look at:
    subclasses have the other names for themselves. It is never asked whether a subclass has something: that
    may be forwarded to what is not there yet.

    Args:
        name: of the device; the name of its class if None.
    """

    def __init__(self, name: str | None = None) -> None:
        self._msl_device = DeviceState(type(self).__name__ if name is None else name)
        self._loop = LoopOfDevice()

    def __str__(self) -> str:
        return self._msl_device.network_name

    @property
    def address_manager(self) -> str | None:
        """``HOST:PORT`` of the manager, as it was given; None before there was one."""
        return self._msl_device.address_manager

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self._msl_device.name

    @property
    def port(self) -> int | None:
        """The port of its own from which it is connected, or was last; None if it never was."""
        return self._msl_device.port

    @property
    def loop_thread_id(self) -> int | None:
        """The ident of the thread that speaks with the manager; None while no thread does."""
        return self._loop._thread_id

    def add_tasks(self, *coros_or_futures: Awaitable[Any]) -> None:
        """Have asyncio's coroutines or futures run while a service does. To be called before its start.

        They run on an event loop in a thread of their own, and may call methods of the service. The service
        does not end before they do: see `shutdown_handler`. If one raises an exception, that is logged, and
        the service ends.
        """
        self._msl_device.tasks.extend(coros_or_futures)

    def shutdown_handler(self) -> None:
        """Called once when the device is not connected any more. To be overridden.

        A service calls it in the event loop of its tasks, if it has any: this is where they are told to end.
        """

    def _describe(self, kind: str) -> dict[str, Any]:
        return {"type": kind, "name": self._msl_device.name, "language": LANGUAGE, "os": OS}
