"""Servers and clients over real sockets: TCP, IPv6, Unix, TLS, and a great many connections."""

from __future__ import annotations

import functools
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from armillary import katcp
from armillary._runtime.dial import bound_ports
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.testing import DemoDevice, RawPeer


@asynccontextmanager
async def served(device: katcp.Device, port: Any = 0, **options: Any) -> AsyncIterator[list[int]]:
    """A device on real sockets, for a block; the ports it got."""
    options.setdefault("host", None if isinstance(port, Path) else "127.0.0.1")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(katcp.serve_device, device, port, **options))
        yield bound_ports(listeners) if not isinstance(port, Path) else []
        nursery.cancel_scope.cancel()


async def exercise(client: katcp.Client, device: DemoDevice) -> None:
    """Ask, mirror and be told of updates."""
    assert [b"x y"] == (await client.request("echo", "x y")).arguments
    async with client.mirror_sensors() as sensors:
        await sensors.wait_synced()
        changes = sensors.changes()
        device.temperature.value = 33.0
        while (await anext(changes)).name != "temperature":
            pass
        assert 33.0 == sensors["temperature"].value


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the other end of a socket does; there is nothing here that could tell."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


def reset_on_close(peer: RawPeer) -> None:
    """Have the connection reset, not closed, when its socket is closed."""
    assert isinstance(peer.stream, trio.SocketStream)
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_tcp(host: str) -> None:
    """A device on every interface is reached by IPv4, IPv6 and name."""
    device = DemoDevice()
    with trio.fail_after(10):
        async with served(device, host=None) as ports, katcp.open_client(host, ports[0]) as client:
            await exercise(client, device)


async def test_unix_socket(tmp_path: Path) -> None:
    """A device on a Unix socket is reached by its path, which is gone afterwards."""
    device = DemoDevice()
    path = tmp_path / "device"
    with trio.fail_after(10):
        async with served(device, path), katcp.open_client(str(path), None) as client:
            await exercise(client, device)
    assert not path.exists()


async def test_tls(tls: Any) -> None:
    """A device behind TLS is reached by those who trust its certificate, and by nobody else."""
    device = DemoDevice()
    with trio.fail_after(10):
        async with served(device, ssl_context=tls.server) as (port,):
            async with katcp.open_client("localhost", port, ssl_context=tls.client) as client:
                await exercise(client, device)
            with pytest.raises(ConnectFailed, match="certificate verify failed"):
                async with katcp.open_client("localhost", port, ssl_context=tls.stranger):
                    raise AssertionError("connected to a stranger")
            with pytest.raises(ConnectFailed):
                async with katcp.open_client("localhost", port, connect_timeout=1):
                    raise AssertionError("connected without TLS")
            async with katcp.open_client("localhost", port, ssl_context=tls.client) as client:
                await exercise(client, device)


async def test_ten_megabytes() -> None:
    """A message of ten megabytes goes there and back, and nothing is lost of what follows it."""
    with trio.fail_after(30):
        async with served(DemoDevice()) as (port,), katcp.open_client("127.0.0.1", port) as client:
            payload = bytes(range(256)) * 40_000
            assert [payload, b"tail"] == (await client.request("echo", payload, "tail")).arguments
            assert [b"x"] == (await client.request("echo", "x")).arguments


async def test_reset(caplog: Any) -> None:
    """A client that resets its connection in mid-line ends its own session and nothing else."""
    device = DemoDevice()
    with trio.fail_after(10):
        async with served(device) as (port,), katcp.open_client("127.0.0.1", port) as witness:
            rude = await trio.open_tcp_stream("127.0.0.1", port)
            await rude.send_all(b"?sensor-sampling temperature period 0.001\n?sleep 100\n?echo hal")
            await until(lambda: len(device.sessions) == 2 and device.temperature._observers is not None)
            reset_on_close(RawPeer(rude))
            await rude.aclose()
            await until(lambda: len(device.sessions) == 1)
            assert device.temperature._observers is None
            await exercise(witness, device)
    assert [] == [record.getMessage() for record in caplog.records]


async def test_server_is_killed_under_a_client() -> None:
    """When a server goes, pending requests of real clients fail at once."""
    device = DemoDevice()
    with trio.fail_after(10):
        async with served(device) as (port,), katcp.open_client("127.0.0.1", port) as client:
            pending = client.start_request("sleep", 100)
            await client.request("echo")
            for session in tuple(device.sessions):
                session.abort("killed")
            with pytest.raises(ConnectionClosed) as caught:
                await pending.wait()
            assert caught.value.may_have_been_received


async def test_port_in_use() -> None:
    """A port that is taken is an OSError, and nothing is left half started."""
    device = DemoDevice()
    async with served(device) as (port,):
        with pytest.raises(OSError, match="in use"):
            await katcp.serve_device(device, port, host="127.0.0.1")
        assert 1 == len(device.servers)


async def test_bad_limit_opens_nothing(unused_port: int) -> None:
    """A limit that makes no sense is refused before a port is taken."""
    with pytest.raises(ValueError, match="expected max_backlog of at least 1, got 0"):
        await katcp.serve_device(DemoDevice(), unused_port, host="127.0.0.1", max_backlog=0)
    for listener in await trio.open_tcp_listeners(unused_port, host="127.0.0.1"):
        await listener.aclose()


async def test_five_thousand_connections_of_which_half_vanish() -> None:
    """When half of five thousand clients vanish, the others are answered and nothing is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5000
    if hard < 2 * wanted + 200:
        wanted = (hard - 200) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * wanted + 200), hard))
    device = DemoDevice()
    peers: list[RawPeer] = []

    async def connect(count: int, port: int) -> None:
        for _ in range(count):
            peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", port))
            peers.append(peer)
            await peer.receive_until(b"#version-connect katcp-device")

    try:
        with trio.fail_after(120):
            async with served(device) as (port,):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(connect, wanted // 50, port)
                assert wanted == len(device.sessions)
                for index, peer in enumerate(peers[::2]):
                    if index % 2:  # half of those that vanish reset, half just close
                        reset_on_close(peer)
                    await peer.stream.aclose()
                await until(lambda: len(device.sessions) == wanted - len(peers[::2]))
                for peer in peers[1::100]:
                    await peer.send(b"?watchdog\n")
                    assert b"!watchdog ok\n" == (await peer.receive_until(b"!"))[-1]
            assert {} == device.sessions
    finally:
        for peer in peers:
            peer.stream.socket.close()  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
