"""What a manager calls the hosts of its peers."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import trio

from armillary._runtime.dial import peer_name
from armillary._runtime.tls_socket import transport_of

__all__ = ["PeerHost", "find_peer_host"]

# Seconds for the resolver. Shorter calls hosts by their addresses where the resolver is slow; longer lets
# whoever connects from an address without a name wait for its greeting.
RESOLVE_TIMEOUT = 2.0
_NUMERIC = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


@dataclass(frozen=True, slots=True)
class PeerHost:
    """Where a peer is."""

    ip: str
    """Its IP address; empty for what is no IP connection."""
    port: int
    """Its port, or a number that sets it apart from others of its host."""
    domain: str
    """The full name of its host, or its address if it has no name."""
    hostname: str
    """The first label of `domain`, or the address; ``localhost`` for this computer."""
    address: str
    """``HOST:PORT`` as others are told: `hostname`, or for this computer its own name."""


async def find_peer_host(stream: trio.abc.Stream, *, aliases: Collection[str], own_hostname: str) -> PeerHost:
    """Ask the resolver whose connection this is. Never raises, and takes `RESOLVE_TIMEOUT` at most.

    Args:
        stream: the connection.
        aliases: names and addresses that mean this computer.
        own_hostname: what this computer calls itself.
    """
    transport = transport_of(stream)
    if transport is None:
        name, _, port = peer_name(stream).rpartition(":")
        name, number = (name, int(port)) if name and port.isdecimal() else ("localhost", 0)
        return _named("", number, name, aliases, own_hostname)
    try:
        peer = transport.getpeername()
    except OSError:
        return _named("", 0, "gone", aliases, own_hostname)
    if not isinstance(peer, tuple):
        # A Unix socket has no port; its number here is nobody else's either, for as long as it is open.
        return _named("", transport.fileno(), "localhost", aliases, own_hostname)
    ip, port_number = peer[0].partition("%")[0].removeprefix("::ffff:"), peer[1]
    domain = ip
    if ip not in aliases:
        with trio.move_on_after(RESOLVE_TIMEOUT):
            try:
                domain = (await trio.socket.getnameinfo((ip, 0), 0))[0]
            except OSError:
                pass  # no name: the address will do
    return _named(ip, port_number, domain, aliases, own_hostname)


def _named(ip: str, port: int, domain: str, aliases: Collection[str], own_hostname: str) -> PeerHost:
    if domain in aliases:
        return PeerHost(ip, port, domain, "localhost", f"{own_hostname}:{port}")
    is_address = _NUMERIC.match(domain) is not None or ":" in domain
    hostname = domain if is_address else domain.partition(".")[0]
    host = own_hostname if hostname in aliases else hostname
    return PeerHost(ip, port, domain, hostname, f"{host}:{port}")
