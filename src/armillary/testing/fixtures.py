"""Pytest fixtures: ``pytest_plugins = ["armillary.testing.fixtures"]`` in a ``conftest.py``.

They need ``pytest-trio``, whose ``autojump_clock`` makes waiting take no time. Override the fixture
``device`` to test a device of your own, and ``lab_services`` to have services in a lab.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from armillary.katcp import Client, Device
from armillary.network import Service

from .devices import DemoDevice, ServedDevice, serve_in_memory
from .labs import Lab, open_lab

__all__ = ["client", "device", "lab", "lab_services", "served_device"]


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


@pytest.fixture
async def lab_services() -> list[Service]:
    """The services of `lab`: none, unless a test file defines others."""
    return []


@pytest.fixture
async def lab(lab_services: list[Service]) -> AsyncIterator[Lab]:
    """The manager of a lab network with its services, in memory inside the test."""
    async with open_lab(*lab_services) as opened:
        yield opened
