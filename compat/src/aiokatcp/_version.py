"""The version of the API that is kept here. armillary's own version is another: `armillary.__version__`."""

from __future__ import annotations

__all__ = ["__version__", "minor_version"]

__version__ = "2.3.0"


def minor_version() -> str:
    """The first two parts of `__version__`."""
    return ".".join(__version__.split(".")[:2])
