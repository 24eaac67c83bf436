"""The version of the API that is kept here. armillary's own version is another: `armillary.__version__`."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["__version__", "version_info"]


class _Version(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str


# What people see when they print it.
_Version.__name__ = _Version.__qualname__ = "version_info"

version_info = _Version(1, 0, 0, "final")
__version__ = "1.0.0"
