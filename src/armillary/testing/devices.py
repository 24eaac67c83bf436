"""A device and clients of it, in memory."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from armillary._runtime.groups import single_exception
from armillary._wire.backoff import Backoff
from armillary.katcp import (
    Client,
    Device,
    DeviceStatus,
    PersistentClient,
    RequestContext,
    Sensor,
    open_client_on,
    open_persistent_client,
    serve_device_on,
)

from .peers import RawPeer
from .streams import BUFFER, BoundedStream, MemoryListener

__all__ = ["DemoDevice", "ServedDevice", "serve_in_memory"]


class DemoDevice(Device):
    """A small device to test clients with."""

    VERSION = "demo-1.0"
    BUILD_STATE = "demo-1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.temperature = Sensor(float, "temperature", "Air temperature", "degC", default=20.0)
        self.counter = Sensor(int, "counter", "Requests to count so far")
        self.status = Sensor(DeviceStatus, "device-status", "Health of the device")
        for sensor in (self.temperature, self.counter, self.status):
            self.sensors.add(sensor)

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_sleep(self, ctx: RequestContext, seconds: float) -> float:
        """Reply after some seconds of the run's clock."""
        await trio.sleep(seconds)
        return seconds

    def request_count(self, ctx: RequestContext, step: int = 1) -> int:
        """Count, in the sensor ``counter`` too."""
        self.counter.value += step
        return self.counter.value

    def request_crash(self, ctx: RequestContext) -> None:
        """Fail with a traceback."""
        raise RuntimeError("crashed on request")


class ServedDevice:
    """A device that is being served in memory. Made by `serve_in_memory`.

    Attributes:
        device: the device.
    """

    def __init__(self, device: Device, listener: MemoryListener) -> None:
        self.device = device
        self._listener = listener

    async def connect(self) -> BoundedStream:
        """A bare connection to the device, to be wrapped or abused. The caller closes it."""
        return await self._listener.connect()

    @asynccontextmanager
    async def open_client(self, **options: Any) -> AsyncIterator[Client]:
        """Connect a client for a block; options as for `armillary.katcp.open_client_on`."""
        stream = await self._listener.connect()
        async with open_client_on(stream, **options) as client:
            yield client

    def open_persistent_client(
        self, *, backoff: Backoff | None = None, **options: Any
    ) -> AbstractAsyncContextManager[PersistentClient]:
        """Keep a client connected for a block; options as for `armillary.katcp.open_persistent_client`.

        Delays between attempts are the longest that they may be, unless `backoff` says otherwise, so that
        they are the same in every run of a test.
        """
        backoff = Backoff(max) if backoff is None else backoff
        return open_persistent_client("memory", None, dial=self._listener.connect, backoff=backoff, **options)

    @asynccontextmanager
    async def open_raw(self, *, greeted: bool = True) -> AsyncIterator[RawPeer]:
        """Connect and speak in bytes, for a block.

        Args:
            greeted: whether to read the server's greeting away first.
        """
        stream = await self._listener.connect()
        async with RawPeer(stream).closing() as peer:
            if greeted:
                await peer.receive_until(b"#version-connect katcp-device")
            yield peer


@asynccontextmanager
async def serve_in_memory(
    device: Device, *, buffer: int = BUFFER, **options: Any
) -> AsyncIterator[ServedDevice]:
    """Serve a device for the length of a block, without ports.

    ::

        async def test_counts(autojump_clock) -> None:
            async with serve_in_memory(DemoDevice()) as served, served.open_client() as client:
                reply, _ = await client.request("count", 5)
                assert reply == [b"5"]

    Args:
        device: what is served.
        buffer: bytes that may be under way in each direction of a connection before its sender waits.
        options: as for `armillary.katcp.serve_device_on`.

    Leaving the block ends the server as cancelling it does. What the block raises comes out as it is.
    """
    listener = MemoryListener(buffer)
    with single_exception():
        async with trio.open_nursery() as nursery:
            await nursery.start(functools.partial(serve_device_on, device, [listener], **options))
            yield ServedDevice(device, listener)
            nursery.cancel_scope.cancel(reason="the test's block was left")
