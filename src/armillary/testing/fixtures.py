"""Pytest fixtures: ``pytest_plugins = ["armillary.testing.fixtures"]`` in a ``conftest.py``.

They need ``pytest-trio``, whose ``autojump_clock`` makes waiting take no time. Override the fixture
``device`` to test a device of your own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from armillary.katcp import Client, Device

from .devices import DemoDevice, ServedDevice, serve_in_memory

__all__ = ["client", "device", "served_device"]


@pytest.fixture
async def device() -> Device:
    """The device under test: a `DemoDevice`, unless a test file defines another."""
    return DemoDevice()


@pytest.fixture
async def served_device(device: Device) -> AsyncIterator[ServedDevice]:
    """The device, served in memory inside the test."""
    async with serve_in_memory(device) as served:
        yield served


@pytest.fixture
async def client(served_device: ServedDevice) -> AsyncIterator[Client]:
    """A client connected to the device."""
    async with served_device.open_client() as connected:
        yield connected
