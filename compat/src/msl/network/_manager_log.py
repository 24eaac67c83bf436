"""The log of a manager's process: a file and standard output, in the format of 1.0."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armillary.network.locations import Home

from . import constants
from .network import Network
from .utils import ensure_root_path, logger

__all__ = ["begin_log", "log_of_armillary", "set_level"]

# What armillary logs under.
_native = logging.getLogger("armillary.network")


def begin_log(log_file: str | None) -> None:
    """Log to a new file, and to standard output, from now on. Whatever else was logged to is not any more.

    Args:
        log_file: the file, which is emptied; one in the network's home, named after the time, if None.

    Raises:
        OSError: the file cannot be written.
    """
    path = log_file or str(Home(Path(constants.HOME_DIR)).log(time.time()))
    ensure_root_path(path)
    # Both write each line at once.
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(_formatter(8))
    to_stdout = logging.StreamHandler(sys.stdout)
    to_stdout.setFormatter(_formatter(5))
    logging.basicConfig(level=logging.DEBUG, handlers=[to_file, to_stdout], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _formatter(width: int) -> logging.Formatter:
    formatter = logging.Formatter(f"%(asctime)s [%(levelname)-{width}s] %(name)s - %(message)s")
    formatter.default_msec_format = "%s.%03d"
    return formatter


def set_level(level: str | int) -> bool:
    """Set the level from which on the manager logs, as `Network.set_logging_level`."""
    if not Network.set_logging_level(level):
        return False
    # Not only ours: armillary would prepare messages that nobody wants to see.
    _native.setLevel(logger.level)
    return True


class _Renamed(logging.Handler):
    """Gives what armillary logs to the logger of this package."""

    def emit(self, record: logging.LogRecord) -> None:
        if logger.isEnabledFor(record.levelno):
            record.name = logger.name
            logger.handle(record)


@contextmanager
def log_of_armillary() -> Iterator[None]:
    """For a block, what armillary logs of the lab network is logged by the logger of this package."""
    handler = _Renamed()
    level, propagates = _native.level, _native.propagate
    _native.addHandler(handler)
    _native.propagate = False
    try:
        yield
    finally:
        _native.removeHandler(handler)
        _native.propagate = propagates
        _native.setLevel(level)
