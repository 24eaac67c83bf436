"""Load on a KATCP server from plain blocking sockets, so that the generator is the same for every server."""

from __future__ import annotations

import contextlib
import selectors
import socket
import statistics
import time
from collections.abc import Iterator

__all__ = ["Peer", "busy_clients", "idle_connections", "pipelined"]


class Peer:
    """One plain connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = b""
        while b"katcp-device" not in greeting or not greeting.endswith(b"\n"):
            greeting += self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> float:
        """Send one request and wait for its reply; seconds."""
        start = time.perf_counter()
        self.socket.sendall(request)
        self.wait_reply()
        return time.perf_counter() - start

    def wait_reply(self) -> None:
        """Read until a reply ends what was read."""
        replied = False
        before = b"\n"
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            replied = replied or b"\n!" in before[-1:] + data
            before = data
            if replied and data.endswith(b"\n"):
                return

    def wait_lines(self, count: int) -> None:
        """Read so many lines."""
        while count > 0:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            count -= data.count(b"\n")


@contextlib.contextmanager
def connected(port: int, count: int = 1) -> Iterator[list[Peer]]:
    """So many connections, all quiet: none is about to be told of another."""
    peers = [Peer(port) for _ in range(count)]
    time.sleep(0.2)
    for peer in peers:
        peer.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while peer.socket.recv(1 << 20):
                pass
        peer.socket.settimeout(60)
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def pipelined(port: int, name: bytes, requests: int = 30_000, depth: int = 50) -> float:
    """Requests per second of one client that always has between `depth` and twice as many on their way."""
    batch = b"".join(b"?%b[%d] %d\n" % (name, n + 1, n) for n in range(depth))
    with connected(port) as (peer,):
        start = time.perf_counter()
        peer.socket.sendall(batch)
        missing = depth
        for _ in range(requests // depth - 1):
            peer.socket.sendall(batch)
            missing += depth
            while missing > depth:
                missing -= peer.socket.recv(1 << 20).count(b"\n")
        peer.wait_lines(missing)
        return requests / (time.perf_counter() - start)


def one_at_a_time(port: int, requests: int = 8000) -> tuple[float, float]:
    """Requests per second, and the 99th percentile of their seconds, of one client that waits for each."""
    with connected(port) as (peer,):
        taken = []
        for n in range(requests):
            start = time.perf_counter()
            peer.socket.sendall(b"?echo[%d] 5\n" % (n + 1))
            peer.socket.recv(4096)
            taken.append(time.perf_counter() - start)
    return requests / sum(taken), statistics.quantiles(taken, n=100)[98]


def busy_clients(port: int, clients: int = 50, rounds: int = 40, depth: int = 10) -> float:
    """Requests per second of many clients at once, each with `depth` on their way."""
    batch = b"".join(b"?echo[%d] %d\n" % (n + 1, n) for n in range(depth))
    with connected(port, clients) as peers, selectors.DefaultSelector() as selector:
        missing = {}
        left = dict.fromkeys(peers, rounds)
        start = time.perf_counter()
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
            peer.socket.sendall(batch)
            missing[peer] = depth
        active = clients
        while active:
            for key, _ in selector.select():
                peer = key.data
                missing[peer] -= peer.socket.recv(65536).count(b"\n")
                if missing[peer] == 0:
                    left[peer] -= 1
                    if left[peer]:
                        peer.socket.sendall(batch)
                        missing[peer] = depth
                    else:
                        selector.unregister(peer.socket)
                        active -= 1
        return clients * rounds * depth / (time.perf_counter() - start)


def _names(sensors: int) -> bytes:
    return b",".join(b"bench.sensor-%05d" % index for index in range(sensors))


def subscribe_and_fan_out(port: int, sensors: int, clients: int = 10, rounds: int = 5) -> tuple[float, float]:
    """Seconds to subscribe every client to every sensor, and informs per second to all of them."""
    request = b"?sensor-sampling[1] " + _names(sensors) + b" event\n"
    with (
        connected(port, clients) as peers,
        connected(port) as (driver,),
        selectors.DefaultSelector() as selector,
    ):
        time.sleep(0.2)
        start = time.perf_counter()
        for peer in peers:
            peer.socket.sendall(request)
        for peer in peers:
            peer.wait_reply()
        subscribed = time.perf_counter() - start
        missing = {}
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
            missing[peer] = sensors * rounds
        start = time.perf_counter()
        driver.socket.sendall(b"?update[2] %d 100\n" % rounds)
        while missing:
            for key, _ in selector.select():
                peer = key.data
                missing[peer] -= peer.socket.recv(1 << 20).count(b"\n")
                if missing[peer] <= 0:
                    del missing[peer]
                    selector.unregister(peer.socket)
        return subscribed, clients * sensors * rounds / (time.perf_counter() - start)


def long_replies(port: int) -> tuple[float, float, float]:
    """Seconds of ?sensor-list, of ?sensor-value, and of another client's worst ?watchdog during a list."""
    with connected(port, 2) as (asker, other):
        listed = asker.ask(b"?sensor-list[1]\n")
        valued = asker.ask(b"?sensor-value[2]\n")
        quiet = statistics.median(other.ask(b"?watchdog[1]\n") for _ in range(50))
        worst = 0.0
        for _ in range(3):
            asker.socket.sendall(b"?sensor-list[3]\n")
            # One question in the midst of it: whoever asks all the time takes turns that nobody else wants.
            time.sleep(0.003)
            worst = max(worst, other.ask(b"?watchdog[2]\n"))
            asker.wait_reply()
        return listed, valued, max(worst - quiet, 1e-6)


def big_message(port: int, size: int = 10 * 1000 * 1000) -> float:
    """Seconds for a message of that many bytes there and back."""
    with connected(port) as (peer,):
        return peer.ask(b"?big[1] " + b"x" * size + b"\n")


def idle_connections(port: int, count: int) -> tuple[list[Peer], float]:
    """Connect so many clients; return them and the seconds that it took until the server had greeted all."""
    start = time.perf_counter()
    peers = [Peer(port) for _ in range(count)]
    return peers, time.perf_counter() - start
