"""A manager in memory that a test can look into, with scripted peers and armillary's own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from test_manager import Device

from armillary import testing
from armillary.network.client import Client
from armillary.network.manager import Manager
from armillary.network.service import Service

__all__ = ["Device", "WatchedLab", "assert_nothing_unexpected", "open_watched_lab"]


class WatchedLab:
    """A lab whose manager the test can look into."""

    def __init__(self, lab: testing.Lab) -> None:
        self._lab = lab

    @property
    def manager(self) -> Manager:
        """The manager."""
        return self._lab.manager

    # -- scripted peers ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def device(self, host: str = "lab", port: int | None = None) -> AsyncIterator[Device]:
        """Somebody who has connected from there and said nothing."""
        stream = await self._lab.connect(host=host, port=port)
        try:
            yield Device(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def client(self, name: str = "Bench") -> AsyncIterator[Device]:
        """A client."""
        async with self.device() as device:
            await device.identify("client", name)
            device.name = self.manager.registry.peers()[-1].network_name
            yield device

    @asynccontextmanager
    async def service(self, name: str = "DMM", **more: Any) -> AsyncIterator[Device]:
        """A service."""
        async with self.device() as device:
            await device.identify("service", name, attributes={"read": "(n=1) -> float"}, **more)
            yield device

    # -- armillary's own -----------------------------------------------------------------------------------

    async def start_service(self, service: Service) -> trio.CancelScope:
        """Run a service until the scope is cancelled."""
        return await self._lab.start(service, reconnect=False)

    def open_client(self, name: str = "Native", **options: Any) -> AbstractAsyncContextManager[Client]:
        """A client, for a block."""
        return self._lab.client(name, **options)

    async def stop_manager(self) -> None:
        """End the manager, as Ctrl-C does."""
        await self._lab.stop_manager()

    # -- what is left --------------------------------------------------------------------------------------

    async def assert_linked(self, service: str, names: Collection[str]) -> None:
        """Exactly these are linked with a service."""
        await trio.testing.wait_all_tasks_blocked()
        assert self.manager.registry.linked(service) == list(names)

    async def assert_clean(self, names: Collection[str] = ()) -> None:
        """Nothing is left in the manager but peers of these names, and of them no link, lock or request."""
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(peer.name for peer in self.manager.registry.peers()) == sorted(names)
        assert [row for row in self.manager.registry.table() if row.links or row.lock or row.holders] == []
        assert self.manager.outstanding.statistics().in_flight == 0


@asynccontextmanager
async def open_watched_lab(**options: Any) -> AsyncIterator[WatchedLab]:
    """A manager, for a block."""
    # What hangs is to fail: after more real time than anything takes here, or more virtual time.
    is_virtual = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    with trio.fail_after(3600 if is_virtual else 30), pytest.MonkeyPatch.context() as patch:
        # Some resolvers take seconds to say what this computer is called.
        patch.setattr("armillary.network.manager.localhost_aliases", lambda: frozenset({"localhost"}))
        async with testing.open_lab(**options) as lab:
            yield WatchedLab(lab)


def assert_nothing_unexpected(caplog: pytest.LogCaptureFixture) -> None:
    """No session has ended by an error that nobody had thought of."""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
