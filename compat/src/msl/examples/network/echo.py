"""A service that says what it is told.

::

    python -m msl.examples.network.echo
"""

from __future__ import annotations

from msl.network import Service

__all__ = ["Echo"]


class Echo(Service):
    """Says what it is told."""

    # Without annotations: who looks at the service sees the signature, and 1.0's has none.
    @staticmethod
    def echo(*args, **kwargs):  # type: ignore[no-untyped-def]
        """The arguments, as they arrived."""
        return args, kwargs


if __name__ == "__main__":
    Echo().start()
