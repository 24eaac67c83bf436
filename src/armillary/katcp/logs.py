"""Python log records as ``#log`` informs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .device import Device
from .protocol.values import LogLevel

__all__ = ["LogHandler", "forward_logs", "wire_level"]

# Records from other threads that may wait for trio's turn. More lets a thread that logs without pause fill
# the memory; fewer loses records of a short burst.
_WAITING = 1000


class LogHandler(logging.Handler):
    """Sends log records to every client of a device, as ``#log level timestamp logger text``.

    Records below the level that a client last set by ``?log-level`` are dropped, and so are armillary's own
    (loggers below ``armillary.``), which would speak of the clients to themselves. Records of other
    threads are handed over to trio's; at most 1000 wait, and more are dropped and counted in `dropped`.

    Create it inside the trio run whose device it is, and remove it from its logger before the run ends; or
    use `forward_logs`, which does both.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._token = trio.lowlevel.current_trio_token()
        self._waiting = 0
        self.dropped = 0
        """Records of other threads that were dropped."""
        self.setFormatter(logging.Formatter("%(filename)s:%(lineno)d: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Called by `logging`, in any thread."""
        level = wire_level(record, self._device.log_level)
        if record.name.startswith("armillary.") or level is None:
            return
        arguments = (level, record.created, record.name, self.format(record))
        try:
            if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token:
                self._device.mass_inform("log", *arguments)
            elif self._waiting >= _WAITING:
                self.dropped += 1
            else:
                self._waiting += 1
                self._token.run_sync_soon(self._send, arguments)
        except trio.RunFinishedError:
            self.dropped += 1

    def _send(self, arguments: tuple[object, ...]) -> None:
        self._waiting -= 1
        self._device.mass_inform("log", *arguments)


def wire_level(record: logging.LogRecord, least: LogLevel) -> LogLevel | None:
    """The level of a record as clients are told of it, or None if it is below `least`."""
    level = LogLevel.from_python(record.levelno)
    return None if least is LogLevel.OFF or level < least else level


@contextmanager
def forward_logs(device: Device, logger: logging.Logger | None = None) -> Iterator[LogHandler]:
    """Send what `logger` (the root logger if None) gets to every client of a device, for a block."""
    logger = logging.getLogger() if logger is None else logger
    handler = LogHandler(device)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
