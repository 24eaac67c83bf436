from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from armillary._runtime.dial import bound_ports, open_listeners, open_stream, peer_name, split_address
from armillary._runtime.tls_socket import TlsSocketStream
from armillary.errors import ArmillaryError, ConnectFailed
from armillary.testing import FaultyStream, MemoryListener, bounded_stream_pair

if TYPE_CHECKING:
    from conftest import Tls


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")


@asynccontextmanager
async def echoing(
    port: int | str | Path, *, host: str | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[list[int]]:
    """Send back what connections bring, for a block; yields the bound ports."""

    async def echo(stream: trio.abc.Stream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # a client that does not want to shake hands, or not to the end

    listeners = await open_listeners(port, host=host, ssl_context=ssl_context)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, listeners)
        yield bound_ports(listeners)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """A TCP port where connections succeed and nobody says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def check_echo(stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.send_all(b"hello")
        assert b"hello" == await stream.receive_some()


# -- connecting ----------------------------------------------------------------------------------------------


async def test_tcp_over_ipv4() -> None:
    """A client reaches a TCP server by an IPv4 address, through the port that 0 became."""
    async with echoing(0, host="127.0.0.1") as [port]:
        await check_echo(await open_stream("127.0.0.1", port))


@needs_ipv6
async def test_tcp_over_ipv6() -> None:
    """A client reaches a TCP server by an IPv6 address."""
    async with echoing(0, host="::1") as [port]:
        await check_echo(await open_stream("::1", port))


async def test_a_server_without_a_host_listens_on_every_interface() -> None:
    """Without `host` a server is reached by every address of the machine, and by its name."""
    async with echoing(0) as ports:
        await check_echo(await open_stream("127.0.0.1", ports[0]))
        await check_echo(await open_stream("localhost", ports[0]))


async def test_a_unix_socket_comes_and_goes_with_its_listener(tmp_path: Path) -> None:
    """A Unix socket is there while it is listened on, and its path is free again afterwards."""
    path = tmp_path / "socket"
    for where in (path, str(path)):
        async with echoing(where) as ports:
            assert [] == ports
            assert stat.S_ISSOCK(path.stat().st_mode)
            await check_echo(await open_stream(str(path), None))
        assert not path.exists()


async def test_closing_a_unix_listener_twice_removes_its_path_once(tmp_path: Path) -> None:
    """A listener that is closed already leaves the path to who came after it."""
    path = tmp_path / "socket"
    [first] = await open_listeners(path)
    await first.aclose()
    [second] = await open_listeners(path)
    await first.aclose()
    assert path.exists()
    path.unlink()
    await second.aclose()


async def test_a_unix_path_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """Listening where a file is fails with OSError, and the file stays as it is."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use"):
        await open_listeners(path)
    assert "data" == path.read_text()


async def test_a_port_that_is_taken_is_an_oserror() -> None:
    """Listening on somebody else's port fails as the system says it."""
    async with silent_port() as port:
        with pytest.raises(OSError, match="in use"):
            await open_listeners(port, host="127.0.0.1")


# -- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=needs_ipv6)])
async def test_tls(tls: Tls, host: str) -> None:
    """A client that trusts the server's authority has shaken hands when it gets the stream."""
    async with echoing(0, host=host, ssl_context=tls.server) as [port, *_]:
        stream = await open_stream(host, port, ssl_context=tls.client)
        assert isinstance(stream, TlsSocketStream)
        assert stream.getpeercert()
        await check_echo(stream)


async def test_tls_on_a_unix_socket(tls: Tls, tmp_path: Path) -> None:
    """A Unix socket may be a TLS one; a path is no host name, so a client must not check it."""
    path = tmp_path / "socket"
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.load_verify_locations(tls.authority)
    async with echoing(path, ssl_context=tls.server):
        await check_echo(await open_stream(str(path), None, ssl_context=unchecked))
    assert not path.exists()


async def fails(host: str, port: int | None, message: str, cause: type[Exception], **options: object) -> None:
    """Check that connecting fails with a message and a cause; the message names the cause's cause."""
    with pytest.raises(ConnectFailed, match=message) as caught:
        await open_stream(host, port, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, ArmillaryError)
    assert isinstance(caught.value, ConnectionError)
    root: BaseException | None = caught.value.__cause__
    assert root is not None
    assert isinstance(root, cause) or isinstance(root.__cause__, cause)


async def test_a_name_that_is_not_on_the_certificate_is_refused(tls: Tls) -> None:
    """A certificate for another host ends the handshake, and the error says so."""
    async with echoing(0, host="127.0.0.2", ssl_context=tls.server) as [port]:
        await fails(
            "127.0.0.2",
            port,
            r"127\.0\.0\.2:\d+: .*IP address mismatch",
            ssl.SSLCertVerificationError,
            ssl_context=tls.client,
        )


async def test_an_authority_that_is_not_trusted_is_refused(tls: Tls) -> None:
    """A certificate by an authority unknown to the client ends the handshake."""
    async with echoing(0, host="127.0.0.1", ssl_context=tls.server) as [port]:
        await fails(
            "127.0.0.1",
            port,
            "certificate verify failed",
            ssl.SSLCertVerificationError,
            ssl_context=tls.stranger,
        )


async def test_a_server_that_speaks_no_tls_is_refused(tls: Tls) -> None:
    """What answers a handshake with something else is no TLS server."""
    async with echoing(0, host="127.0.0.1") as [port]:
        await fails("127.0.0.1", port, "could not connect", ssl.SSLError, ssl_context=tls.client)


async def test_a_server_that_closes_in_the_handshake_is_a_failure_to_connect(tls: Tls) -> None:
    """A connection that ends before the handshake does was never up."""
    [listener] = await open_listeners(0, host="127.0.0.1")

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, hang_up, [listener])
        [port] = bound_ports([listener])
        with pytest.raises(ConnectFailed):
            await open_stream("127.0.0.1", port, ssl_context=tls.client)
        nursery.cancel_scope.cancel()


async def test_a_context_for_servers_leaves_no_connection_open(
    tls: Tls, cancel_everywhere: Callable[..., Awaitable[int]]
) -> None:
    """A TLS context that cannot even begin a handshake fails, and the connection made for it is closed."""
    async with silent_port() as port:

        async def scenario() -> None:
            with pytest.raises(ConnectFailed):
                await open_stream("127.0.0.1", port, ssl_context=tls.server)

        await cancel_everywhere(scenario)


# -- failing -------------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    """A port where nobody listens refuses, and the error names it and the reason."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        port = taken.getsockname()[1]
        message = rf"^could not connect to 127\.0\.0\.1:{port}: Connection refused$"
        await fails("127.0.0.1", port, message, OSError)


class Resolver(trio.abc.HostnameResolver):
    """Knows one host with several addresses."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def getaddrinfo(
        self, host: object, port: object, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[object, ...]]:
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in self._addresses
        ]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_several_addresses_that_fail_give_each_reason_once() -> None:
    """A host with several addresses, none of which answers, fails with every different reason."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Resolver(["127.0.0.1", "127.0.0.2", "255.255.255.255"]))
        with pytest.raises(ConnectFailed) as caught:
            await open_stream("telescope", port)
    start, _, reasons = str(caught.value).rpartition(f"telescope:{port}: ")
    assert "could not connect to " == start
    assert 2 == len(reasons.split("; "))
    assert "Connection refused" in reasons.split("; ")


async def test_no_such_unix_socket(tmp_path: Path) -> None:
    """A path where no socket is cannot be connected to."""
    await fails(str(tmp_path / "nobody"), None, "could not connect to .*nobody: .*No such", FileNotFoundError)


async def test_a_server_that_never_answers_the_handshake_runs_into_the_timeout(tls: Tls) -> None:
    """A server that accepts and says nothing costs no more than the timeout."""
    async with silent_port() as port:
        await fails(
            "127.0.0.1",
            port,
            r"no answer in 0\.05 s",
            trio.TooSlowError,
            ssl_context=tls.client,
            timeout=0.05,
        )


async def test_the_timeout_is_not_taken_for_the_callers(tls: Tls) -> None:
    """A caller's own deadline that passes first comes out as the caller's, not as a failure to connect."""
    async with silent_port() as port:
        with trio.move_on_after(0.05) as scope:
            await open_stream("127.0.0.1", port, ssl_context=tls.client)
    assert scope.cancelled_caught


# -- cancelled anywhere --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
async def test_connecting_cancelled_anywhere_leaves_nothing_open(
    kind: str, tls: Tls, tmp_path: Path, cancel_everywhere: Callable[..., Awaitable[int]]
) -> None:
    """Whenever the caller is cancelled, in the handshake too, no socket stays open at either end."""
    where: int | Path = tmp_path / "socket" if kind == "unix" else 0
    contexts = (tls.server, tls.client) if kind == "tls" else (None, None)
    async with echoing(where, host="127.0.0.1", ssl_context=contexts[0]) as ports:
        host, port = ("127.0.0.1", ports[0]) if ports else (str(where), None)

        async def scenario() -> None:
            async with await open_stream(host, port, ssl_context=contexts[1]):
                pass

        assert await cancel_everywhere(scenario) >= {"tcp": 2, "unix": 2, "tls": 4}[kind]


# -- names and addresses -------------------------------------------------------------------------------------


async def accepted(listener: trio.abc.Listener[trio.abc.Stream], client: trio.abc.Stream) -> str:
    """What the server calls a client, and the client a server: both ends must agree on who is who."""
    async with client, await listener.accept() as server:
        return peer_name(server)


async def test_peers_are_named_by_their_address() -> None:
    """A TCP peer is its address and port, IPv4 as ``a:p``."""
    [listener] = await open_listeners(0, host="127.0.0.1")
    async with listener:
        [port] = bound_ports([listener])
        client = await open_stream("127.0.0.1", port)
        assert isinstance(client, trio.SocketStream)
        assert f"127.0.0.1:{port}" == peer_name(client)
        assert f"127.0.0.1:{client.socket.getsockname()[1]}" == await accepted(listener, client)


@needs_ipv6
async def test_ipv6_peers_are_named_in_brackets() -> None:
    """An IPv6 peer is ``[a]:p``, so that where the address ends is plain."""
    [listener] = await open_listeners(0, host="::1")
    async with listener:
        [port] = bound_ports([listener])
        client = await open_stream("::1", port)
        assert f"[::1]:{port}" == peer_name(client)
        await accepted(listener, client)


async def test_unix_peers_have_no_address(tmp_path: Path) -> None:
    """Both ends of a Unix socket call the other one ``unix``."""
    [listener] = await open_listeners(tmp_path / "socket")
    async with listener:
        client = await open_stream(str(tmp_path / "socket"), None)
        assert "unix" == peer_name(client)
        assert "unix" == await accepted(listener, client)


async def test_the_scope_of_a_link_local_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of this machine's own interface is no part of a peer's address."""
    async with silent_port() as port, await open_stream("127.0.0.1", port) as client:
        assert isinstance(client, trio.SocketStream)
        with monkeypatch.context() as patch:
            # Not every machine has such an address.
            link_local = SimpleNamespace(getpeername=lambda: ("fe80::1%eth0", 7147, 0, 2))
            patch.setattr(client, "socket", link_local)
            assert "[fe80::1]:7147" == peer_name(client)


async def test_a_peer_that_is_gone_is_named_so() -> None:
    """Asking for the name of a closed connection is no error."""
    [listener] = await open_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream("127.0.0.1", bound_ports([listener])[0])
        await accepted(listener, client)
        assert "gone" == peer_name(client)


async def test_streams_that_are_no_sockets_tell_their_own_names(tls: Tls) -> None:
    """A memory stream says what it is called, under TLS or faults too; others are ``memory``."""
    left, right = bounded_stream_pair(names=("here", "there"))
    async with left, right:
        assert "there" == peer_name(left)
        assert "here" == peer_name(FaultyStream(right))
        assert "there" == peer_name(trio.SSLStream(left, tls.client, server_hostname="localhost"))
    assert "memory" == peer_name(trio.testing.memory_stream_pair()[0])


async def test_bound_ports_sees_through_tls_and_past_what_has_no_port(tls: Tls, tmp_path: Path) -> None:
    """Of all kinds of listeners those on TCP have ports."""
    plain = await open_listeners(0, host="127.0.0.1")
    secure = await open_listeners(0, host="127.0.0.1", ssl_context=tls.server)
    unix = await open_listeners(tmp_path / "socket", ssl_context=tls.server)
    memory: list[trio.abc.Listener[trio.abc.Stream]] = [MemoryListener()]
    ports = bound_ports([*memory, *plain, *unix, *secure])
    assert [
        plain[0].socket.getsockname()[1],
        secure[0].transport_listener.socket.getsockname()[1],
    ] == ports
    for listener in (*plain, *secure, *unix):
        await listener.aclose()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:7147", ("localhost", 7147)),
        ("1.2.3.4:0", ("1.2.3.4", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("unix:/run/x.sock", ("/run/x.sock", None)),
        ("unix:relative:with:colons", ("relative:with:colons", None)),
    ],
)
def test_addresses_are_split_into_what_open_stream_takes(text: str, address: tuple[str, int | None]) -> None:
    """Host and port, IPv6 in brackets, and paths after ``unix:``."""
    assert address == split_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "host:http",
        "host:-1",
        "host:8 0",
        "host:65536",
        "::1:80",
        "[::1]",
        "[]:80",
        "unix:",
        "http://host:80",
    ],
)
def test_what_is_no_address_is_a_valueerror(text: str) -> None:
    """Anything else is refused with what was expected and what came."""
    with pytest.raises(ValueError, match=r"expected host:port, \[ipv6\]:port or unix:path, got ") as caught:
        split_address(text)
    assert repr(text) in str(caught.value)
