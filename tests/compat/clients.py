"""Clients of raw servers, and what becomes of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import Any

from raw_server import PATIENCE, RawPeer, RawServer

from aiokatcp import Client

RESET = os.strerror(errno.ECONNRESET)
ABORTED = os.strerror(errno.ECONNABORTED)


async def connected(server: RawServer, flags: str = "MIB", **options: Any) -> tuple[Client, RawPeer]:
    """A client whose connection is up, and the server's side of it."""
    client = Client("127.0.0.1", server.port, **options)
    peer = await server.accept()
    peer.greet(flags)
    await asyncio.wait_for(client.wait_connected(), PATIENCE)
    return client, peer


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for says nothing when it happens
            await asyncio.sleep(0.001)


def asked(client: Client, *request: Any) -> asyncio.Task[Any]:
    """A request in a task of its own."""
    return asyncio.ensure_future(client.request(*request))


async def error_of(awaitable: Any) -> Exception:
    """What it raises."""
    try:
        await asyncio.wait_for(awaitable, PATIENCE)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class Story:
    """Writes down what a client's callbacks are told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[str] = []
        self.errors: list[Exception] = []
        client.add_connected_callback(self.connected)
        client.add_disconnected_callback(self.disconnected)
        client.add_failed_connect_callback(self.failed)

    def connected(self) -> None:
        assert self.client.is_connected
        assert self.client.last_exc is None
        self.told.append("connected")

    def disconnected(self) -> None:
        assert not self.client.is_connected
        self.told.append(f"disconnected: {self.client.last_exc}")

    def failed(self, error: Exception) -> None:
        assert not self.client.is_connected
        assert error is self.client.last_exc
        self.errors.append(error)
        self.told.append(f"failed: {error}")


def logged(caplog: Any) -> list[logging.LogRecord]:
    """What was logged, without what a loop in debug mode says of a slow machine."""
    return [record for record in caplog.records if "seconds" not in record.getMessage()]
