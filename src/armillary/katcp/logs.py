"""Python log records as ``#log`` informs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

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

    OWN_LOGGERS: ClassVar[tuple[str, ...]] = ("armillary.",)
    """How the names begin of loggers whose records are dropped."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._waiting = 0
        self.dropped = 0
        """Records of other threads that were dropped."""
        self.setFormatter(logging.Formatter("%(filename)s:%(lineno)d: %(message)s"))
        self._attach()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Called by `logging`, in any thread."""
        level = wire_level(record, self._device.log_level)
        if level is None or record.name.startswith(self.OWN_LOGGERS):
            return
        try:
            arguments = (level, record.created, record.name, self.format(record))
            if self._is_at_home():
                self._device.mass_inform("log", *arguments)
            elif self._waiting >= _WAITING:
                self.dropped += 1
            else:
                self._waiting += 1
                self._run_at_home(self._send, arguments)
        except RuntimeError:  # the run, or the loop, is over
            self.dropped += 1
        except Exception:  # noqa: BLE001 - a log call that is wrong is reported as logging reports it
            self.handleError(record)

    def _attach(self) -> None:
        """Remember the run whose device it is."""
        self._token = trio.lowlevel.current_trio_token()

    def _is_at_home(self) -> bool:
        """Whether this is the thread, and the run, of the device."""
        return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token

    def _run_at_home(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function there, soon. Raises RuntimeError if it is over."""
        self._token.run_sync_soon(function, *arguments)

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
