"""Python's log records as informs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from armillary.katcp.logs import LogHandler as NativeLogHandler

if TYPE_CHECKING:
    from .server import DeviceServer

__all__ = ["LogHandler"]


class LogHandler(NativeLogHandler):
    """Sends log records to every client of a server, as ``#log`` informs.

    Records of this package and of armillary are left out: they would speak of the clients to themselves.
    Records of other threads are handed over to the server's loop; at most 1000 wait.

    Args:
        server: whose clients are told.
    """

    OWN_LOGGERS = ("aiokatcp.", "armillary.")

    def __init__(self, server: DeviceServer) -> None:
        self._server = server
        super().__init__(server._katcp_device)

    def _attach(self) -> None:
        pass  # the server knows its loop

    def _is_at_home(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._server.loop
        except RuntimeError:
            return False

    def _run_at_home(self, function: Callable[..., object], *arguments: Any) -> None:
        self._server.loop.call_soon_threadsafe(function, *arguments)
