"""What a server says of itself when a client connects, and what a client makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armillary.__about__ import __version__

if TYPE_CHECKING:
    from .device import Device

__all__ = ["LIBRARY", "PROTOCOL", "version_informs"]

# Multiple clients, message ids, bulk sampling, time-out hints.
PROTOCOL = "5.1-MIBT"
# Name and version of the interface, then of the very release.
LIBRARY = (f"armillary-{'.'.join(__version__.split('.')[:2])}", f"armillary-{__version__}")


def version_informs(device: Device) -> list[tuple[str, ...]]:
    """The arguments of the ``#version-connect`` informs, which ``?version-list`` repeats."""
    return [
        ("katcp-protocol", device.PROTOCOL),
        ("katcp-library", *device.LIBRARY),
        ("katcp-device", device.VERSION, device.BUILD_STATE),
    ]
