"""Connect and listen: the one place that knows TCP, Unix sockets and TLS."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from armillary.errors import ConnectFailed

from .tls_socket import TlsListener, TlsSocketStream, transport_of

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "address_text",
    "bound_ports",
    "keep_alive",
    "open_listeners",
    "open_stream",
    "peer_name",
    "split_address",
    "take_bulk",
]

# Seconds for a TLS handshake. Shorter refuses peers behind slow links; longer lets a peer that says nothing
# hold a session.
HANDSHAKE_TIMEOUT = 10.0
# How often a port that is free on one address may turn out to be taken on another before we give up.
_FREE_PORT_ATTEMPTS = 10
# After that many silent seconds the system asks whether the other end is there, again after that many, and
# that often. Less breaks connections that a short outage would not have harmed, and makes more packets; more
# keeps the dead for longer.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


# Bytes that may wait in the system, unsent, before it takes no more. Trio's 16 KiB keep what waits in the
# program, and wake it for every few packets of a large message; more lets small messages wait longer behind
# large ones on a slow link.
_UNSENT = 512 * 1024


async def open_stream(
    host: str,
    port: int | None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> trio.abc.Stream:
    """Connect, and shake hands if there is an `ssl_context`.

    Args:
        host: a name or an IP address; with `port` None, the path of a Unix socket.
        port: the TCP port, or None.
        ssl_context: makes the connection a TLS one, to a server whose certificate is for `host`.
        timeout: seconds for all of it.

    Raises:
        ConnectFailed: nobody answered, the answer was no, or the time ran out; its cause says which.

    The caller closes the stream. Cancellation leaves nothing open.
    """
    where = address_text(host, port)
    try:
        with trio.fail_after(timeout):
            stream: trio.SocketStream
            if port is None:
                stream = await trio.open_unix_socket(host)
            else:
                stream = await trio.open_tcp_stream(host, port)
            if ssl_context is None:
                return stream
            name = "localhost" if port is None else host
            secure = TlsSocketStream(stream, ssl_context, server_hostname=name)
            try:
                await secure.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(secure)
                raise
            return secure
    except trio.TooSlowError as error:
        raise ConnectFailed(f"could not connect to {where}: no answer in {timeout} s") from error
    except (OSError, trio.BrokenResourceError) as error:
        # Trio wraps what the TLS library said.
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else None
        raise ConnectFailed(f"could not connect to {where}: {_reason(error)}") from (cause or error)


def _reason(error: BaseException) -> str:
    """What the operating system or the TLS library said."""
    reason = error.__cause__ or error
    if not isinstance(reason, BaseExceptionGroup):
        return str(reason)
    # A name may have several addresses, and most often all of them failed for the same reason.
    texts = [
        os.strerror(attempt.errno) if isinstance(attempt, OSError) and attempt.errno else str(attempt)
        for attempt in reason.exceptions
    ]
    return "; ".join(dict.fromkeys(texts))


def keep_alive(stream: trio.abc.Stream) -> None:
    """Have the system find out when the other computer is gone, though nothing is sent. Any stream will do.

    A peer whose computer has lost power, or its network, says no good-bye; without this, an idle connection
    to it stays for ever. It breaks after some two minutes instead.
    """
    transport = transport_of(stream)
    if transport is None:
        return
    with suppress(OSError):  # it may be gone already
        transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
        if transport.family in (trio.socket.AF_INET, trio.socket.AF_INET6):
            for option, value in _KEEP_ALIVE.items():
                if hasattr(trio.socket, option):  # not every system has all of them
                    transport.setsockopt(trio.socket.IPPROTO_TCP, getattr(trio.socket, option), value)


def take_bulk(stream: trio.abc.Stream) -> None:
    """Let the system take more of a large message at once. Any stream will do."""
    transport = transport_of(stream)
    if transport is not None and hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # no TCP, or gone already
            transport.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, _UNSENT)


async def open_listeners(
    port: int | str | Path,
    *,
    host: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backlog: int | None = None,
) -> list[trio.abc.Listener[Any]]:
    """Listen.

    Args:
        port: a TCP port, 0 for a free one; or the path of a Unix socket, which must not exist and is
            removed when the listener closes.
        host: the address to listen on; every interface, IPv4 and IPv6, if None.
        ssl_context: makes every connection a TLS one.
        backlog: connections that may wait to be accepted; trio's default if None.

    Raises:
        OSError: the address is taken, not this machine's, or not allowed.
    """
    listeners: list[trio.abc.Listener[Any]]
    if isinstance(port, int):
        listeners = [*await _bind_tcp(port, host, backlog)]
    else:
        listeners = [_UnixListener(await _bind_unix(os.fspath(port), backlog), os.fspath(port))]
    if ssl_context is not None:
        return [TlsListener(listener, ssl_context) for listener in listeners]
    return listeners


async def _bind_tcp(port: int, host: str | None, backlog: int | None) -> list[trio.SocketListener]:
    """Listen on every address of `host`; a free port is the same one on each of them."""
    for attempts_left in reversed(range(_FREE_PORT_ATTEMPTS)):
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
        found, *others = bound_ports(listeners)
        if all(other == found for other in others):
            break
        # IPv4 and IPv6 each got a free port of their own: ask for the first one on both.
        for listener in listeners:
            listener.socket.close()
        try:
            return await trio.open_tcp_listeners(found, host=host, backlog=backlog)
        except OSError:
            # Free on one and taken on the other, or taken in this very moment.
            if not attempts_left:
                raise
    return listeners


async def _bind_unix(path: str, backlog: int | None) -> trio.SocketListener:
    socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await socket.bind(path)
        # 65535 is cut down by the kernel to what it allows: the most it has.
        socket.listen(65535 if backlog is None else backlog)
    except BaseException:
        socket.close()
        raise
    return trio.SocketListener(socket)


class _UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listener on a Unix socket that takes its path with it when it goes."""

    def __init__(self, listener: trio.SocketListener, path: str) -> None:
        self._listener = listener
        self.socket = listener.socket
        self.path = path

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        if self.socket.fileno() != -1:
            # One system call on a local path: nothing to wait for.
            Path(self.path).unlink(missing_ok=True)  # noqa: ASYNC240
        await self._listener.aclose()


def peer_name(stream: trio.abc.Stream) -> str:
    """Who is at the other end: ``1.2.3.4:80``, ``[::1]:80``, ``unix``, or what kind of stream it is."""
    if isinstance(stream, trio.SSLStream):
        return peer_name(stream.transport_stream)
    transport = transport_of(stream)
    if transport is None:
        return getattr(stream, "peer_name", None) or "memory"
    try:
        address = transport.getpeername()
    except OSError:
        return "gone"  # reset before we could ask
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[:2]
    return address_text(host.partition("%")[0], port)  # the scope of a link-local address is local, too


def address_text(host: str, port: int | None) -> str:
    """An address as people write it: ``host:port``, ``[ipv6]:port``, or the path of a Unix socket."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int | None]:
    """Split ``host:port``, ``[v6]:port`` or ``unix:path`` into what `open_stream` takes.

    Raises:
        ValueError: it is none of these.
    """
    scheme, _, path = text.partition(":")
    if scheme == "unix" and path:
        return path, None
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not port.isdecimal() or int(port) > 65535 or (":" in bare and bare == host):
        raise ValueError(f"expected host:port, [ipv6]:port or unix:path, got {text!r}")
    return bare, int(port)


def bound_ports(listeners: Sequence[trio.abc.Listener[Any]]) -> list[int]:
    """The TCP ports that listeners have: what port 0 became."""
    ports = []
    for listener in listeners:
        inner = (
            listener.transport_listener if isinstance(listener, TlsListener | trio.SSLListener) else listener
        )
        if isinstance(inner, trio.SocketListener):
            ports.append(inner.socket.getsockname()[1])
    return ports
