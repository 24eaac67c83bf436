"""What the asyncio client's program is told: callbacks, informs, logs."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any

import pytest
import sniffio
from clients import asked, connected, logged, until
from raw_server import PATIENCE, raw_server

import aiokatcp
from aiokatcp import Client, FailReply, Message

if TYPE_CHECKING:
    from conftest import Host


# -- callbacks --------------------------------------------------------------------------------------------


def test_order_of_callbacks(host: Host, caplog: Any) -> None:
    """Callbacks run in the order of registration; one that fails is logged and keeps none from running."""

    async def main() -> None:
        async with raw_server() as server:
            client = Client("127.0.0.1", server.port)
            told: list[str] = []

            def failing() -> None:
                raise KeyError("mine")

            def once() -> None:
                told.append("once")
                client.remove_connected_callback(once)
                client.add_connected_callback(lambda: told.append("added"))

            client.add_connected_callback(lambda: told.append("first"))
            client.add_connected_callback(failing)
            client.add_connected_callback(once)
            client.add_connected_callback(lambda: told.append("last"))
            client.add_disconnected_callback(lambda: told.append("down 1"))
            client.add_disconnected_callback(failing)
            client.add_disconnected_callback(lambda: told.append("down 2"))
            for remove in (
                client.remove_connected_callback,
                client.remove_disconnected_callback,
                client.remove_failed_connect_callback,
            ):
                with pytest.raises(ValueError, match="not in list"):
                    remove(print)
            peer = await server.accept()
            peer.greet()
            await client.wait_connected()
            assert ["first", "once", "last"] == told
            told.clear()
            peer.close()
            await client.wait_disconnected()
            assert ["down 1", "down 2"] == told
            told.clear()
            (await server.accept()).greet()
            await client.wait_connected()
            assert ["first", "last", "added"] == told
            client.close()
            await client.wait_closed()

    host.run(main)
    records = [record for record in logged(caplog) if record.levelno >= logging.ERROR]
    assert 4 == len(records)
    for record in records:
        assert "aiokatcp.client" == record.name
        assert record.getMessage().startswith("Exception raised from callback")
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], KeyError)


def test_callbacks_are_plain_asyncio_code(host: Host) -> None:
    """Callbacks run in the loop's thread, on the loop, with the context of whoever made the client."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    told: list[Any] = []

    def look() -> None:
        try:
            library = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            library = "none"
        told.append((variable.get(), library, asyncio.get_running_loop()))
        tasks.append(asyncio.create_task(in_task()))

    async def in_task() -> None:
        told.append((variable.get(), sniffio.current_async_library(), asyncio.get_running_loop()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    class Watcher(aiokatcp.AbstractSensorWatcher):
        def state_updated(self, state: aiokatcp.SyncState) -> None:
            look()

        def sensor_added(self, *args: Any) -> None:
            look()

        def batch_start(self) -> None:
            look()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with raw_server() as server:
            token = variable.set("mine")
            client = Client("127.0.0.1", server.port)
            variable.reset(token)
            client.add_connected_callback(look)
            client.add_failed_connect_callback(lambda error: look())
            client.add_inform_callback("news", look)
            peer = await server.accept()
            peer.greet(more=b"#news\n")
            await client.wait_connected()
            peer.send(b"#news\n")
            await until(lambda: len(told) == 6)
            client.add_disconnected_callback(look)
            peer.close()
            await until(lambda: len(told) == 8)
            server.stop_listening()
            await until(lambda: len(told) == 10)
            await asyncio.gather(*tasks)
            for value, library, running in told:
                assert running is loop
                assert "mine" == value
                assert library in ("none", "asyncio")
            assert 5 == sum(library == "asyncio" for _, library, _ in told)

            told.clear()
            await server.listen()
            peer = await server.accept()
            token = variable.set("mine")
            client.add_sensor_watcher(Watcher())
            variable.reset(token)
            peer.greet()
            assert b"?sensor-list[1]\n" == await peer.line()
            peer.send(b"#sensor-list[1] a \\@ \\@ integer\n!sensor-list[1] ok 1\n")
            assert b"?sensor-sampling[2] a auto\n" == await peer.line()
            await asyncio.gather(*tasks)
            assert {("mine", loop)} == {(value, running) for value, _, running in told}
            assert {"none", "asyncio"} == {library for _, library, _ in told}
            client.close()
            await client.wait_closed()
            await asyncio.gather(*tasks)

    host.run(main)


# -- informs ----------------------------------------------------------------------------------------------


def test_inform_callbacks(host: Host, caplog: Any) -> None:
    """Callbacks get decoded arguments, after the class's method; one that fails is logged."""
    told: list[Any] = []

    class Listener(Client):
        def inform_my_news(self, count: int, name: str = "nobody", *rest: float) -> None:
            told.append((count, name, rest))
            if count == 2:
                raise FailReply("two is too many")
            if count == 3:
                raise KeyError("three")

    def same(value: bytes) -> None:
        told.append(value)

    class Equal:
        """Equal to others, as bound methods are."""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, *arguments: bytes) -> None:
            told.append(len(arguments))

    async def main() -> None:
        async with raw_server() as server:
            client = Listener("127.0.0.1", server.port)
            async with client:
                client.add_inform_callback("my-news", same)
                client.add_inform_callback("my-news", Equal())
                peer = await server.accept()
                peer.greet(
                    more=b"#my-news 1 x 2.5\n#my-news 2\n#my-news 3\n#my-news x\n#my-news[5] 1\n#end\n"
                )
                ended = asyncio.Event()
                client.add_inform_callback("end", ended.set)
                await asyncio.wait_for(ended.wait(), PATIENCE)
                assert [
                    *[(1, "x", (2.5,)), 3],
                    *[(2, "nobody", ()), b"2", 1],
                    *[(3, "nobody", ()), b"3", 1],
                    *[b"x", 1],
                ] == told
                client.remove_inform_callback("my-news", same)
                client.remove_inform_callback("my-news", same)
                client.remove_inform_callback("my-news", Equal())
                client.remove_inform_callback("other", same)
                told.clear()
                ended.clear()
                peer.send(b"#my-news 4\n#end\n")
                await asyncio.wait_for(ended.wait(), PATIENCE)
                assert [(4, "nobody", ())] == told

    host.run(main)
    suffix_at = [record.getMessage().rpartition(" [127.0.0.1:")[0] for record in logged(caplog)]
    assert [
        "Exception raised from callback",
        "error in inform my-news: two is too many",
        "unhandled exception in inform my-news",
        "error in inform my-news: invalid literal for int() with base 10: b'x'",
    ] == suffix_at
    assert [True, False, True, False] == [record.exc_info is not None for record in logged(caplog)]


def test_inform_methods_are_inherited(host: Host) -> None:
    """Methods for informs are inherited, overridden and mixed in as methods are."""
    told: list[str] = []

    class Mixin:
        def inform_extra(self) -> None:
            told.append("extra")

    class Base(Client):
        def inform_a(self) -> None:
            told.append("base a")

        def inform_b(self) -> None:
            told.append("base b")

    class Derived(Mixin, Base):
        def inform_b(self) -> None:
            super().inform_b()
            told.append("derived b")

        def inform_disconnect(self, reason: str) -> None:
            told.append(f"before {self.is_connected}")
            super().inform_disconnect(reason)
            told.append(f"after {self.is_connected}")

        def inform_version_connect(self, api: str, version: str, build_state: str | None = None) -> None:
            super().inform_version_connect(api, version, build_state)
            told.append(f"{api} {version} {build_state} {self.is_connected}")

    async def main() -> None:
        async with raw_server() as server:
            async with Derived("127.0.0.1", server.port) as client:
                peer = await server.accept()
                peer.greet(more=b"#a\n#b\n#extra\n#disconnect bye\n")
                await until(lambda: "after False" in told)
                assert [
                    "katcp-protocol 5.1-MIB None True",
                    *["base a", "base b", "derived b", "extra", "before True", "after False"],
                ] == told
                assert client.last_exc is not None

    host.run(main)


def test_bad_inform_method() -> None:
    """A method whose parameter has no KATCP type is refused when its class is made."""
    with pytest.raises(TypeError):

        class Bad(Client):
            def inform_x(self, argument: list[int]) -> None:
                pass


def test_overridden_handlers_of_informs(host: Host) -> None:
    """handle_inform and unhandled_inform may be overridden; what they raise is logged and disturbs nobody."""
    told: list[str] = []

    class Nosy(Client):
        def handle_inform(self, msg: Message) -> None:
            told.append(f"handle {msg.name}")
            if msg.name == "bad":
                raise KeyError("bad")
            super().handle_inform(msg)

        def unhandled_inform(self, msg: Message) -> None:
            told.append(f"unhandled {msg.name}")

        def inform_known(self) -> None:
            told.append("known")

    async def main() -> None:
        async with raw_server() as server, Nosy("127.0.0.1", server.port) as client:
            client.add_inform_callback("called", lambda: told.append("called"))
            peer = await server.accept()
            peer.greet(more=b"#known\n#bad\n#called\n#nobody\n#x[5]\n")
            await until(lambda: "unhandled nobody" in told)
            assert [
                "handle version-connect",
                *["handle known", "known", "handle bad"],
                *["handle called", "unhandled called", "called"],
                *["handle nobody", "unhandled nobody"],
            ] == told
            assert client.is_connected

    host.run(main)


def test_overridden_handle_message(host: Host, caplog: Any) -> None:
    """handle_message may be overridden: it sees every message, may change or drop it, and may fail."""
    told: list[str] = []

    class Tapped(Client):
        def handle_message(self, conn: aiokatcp.Connection[Any], msg: Message) -> None:
            assert isinstance(conn, aiokatcp.Connection)
            assert conn.address == aiokatcp.Address.parse(b"127.0.0.1:%d" % self.port)
            told.append(repr(bytes(msg)))
            if msg.name == "dropped":
                return
            if msg.name == "bad":
                raise KeyError("bad")
            if msg.name == "changed":
                msg = Message.inform("news", "changed")
            super().handle_message(conn, msg)

    async def main() -> None:
        async with raw_server() as server, Tapped("127.0.0.1", server.port) as client:
            news: list[bytes] = []
            client.add_inform_callback("news", news.append)
            client.add_inform_callback("dropped", news.append)
            peer = await server.accept()
            peer.greet(more=b"#news 1\n#dropped 2\n#bad\n#changed\n")
            await client.wait_connected()
            task = asked(client, "x", 1)
            assert b"?x[1] 1\n" == await peer.line()
            peer.send(b"#x[1] 5\n!x[1] ok\n")
            assert ([], [Message.inform("x", 5, mid=1)]) == await task
            assert [b"1", b"changed"] == news
            assert 7 == len(told)
            assert "b'!x[1] ok\\n'" == told[-1]

    host.run(main)
    (record,) = logged(caplog)
    assert "aiokatcp.connection" == record.name
    assert record.getMessage().startswith("Exception in message handler [127.0.0.1:")


# -- logs -------------------------------------------------------------------------------------------------


def test_what_belongs_to_nothing(host: Host, caplog: Any) -> None:
    """Requests from a server and replies to nothing are logged, and disturb nobody."""
    caplog.set_level(logging.DEBUG, "aiokatcp.client")

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                caplog.clear()
                peer.send(b"?please x\n?please[4]\n!reply ok\n!reply[9] ok\n#inform[9] x\n#nobody\n")
                await until(lambda: len(logged(caplog)) == 6)
                assert client.is_connected

    host.run(main)
    assert [
        ("INFO", "Received unexpected request please from server"),
        ("INFO", "Received unexpected request please from server"),
        ("INFO", "Received unexpected REPLY (reply) from server without message ID"),
        ("DEBUG", r"Received b'!reply[9] ok\n' with unknown message ID 9 (possibly cancelled request)"),
        ("DEBUG", r"Received b'#inform[9] x\n' with unknown message ID 9 (possibly cancelled request)"),
        ("DEBUG", "unknown inform nobody"),
    ] == [
        (record.levelname, record.getMessage().rpartition(" [127.0.0.1:")[0]) for record in logged(caplog)[:6]
    ]


def test_traffic_is_logged(host: Host, caplog: Any) -> None:
    """At DEBUG, each message is logged as it went over the wire, with the server's address."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            async with client:
                caplog.set_level(logging.DEBUG, "aiokatcp.connection")
                task = asked(client, "x", "a b")
                await peer.line()
                peer.send(b"!x[1]   ok\n")
                await task
            suffix = f" [127.0.0.1:{server.port}]"
            assert [
                rf"Sent message b'?x[1] a\\_b\n'{suffix}",
                rf"Received message b'!x[1] ok\n'{suffix}",
            ] == [record.getMessage() for record in logged(caplog) if record.name == "aiokatcp.connection"]

    host.run(main)


def test_garbage(host: Host, caplog: Any) -> None:
    """Garbage is logged once, never answered, and ends nothing; half a line at the end is logged, too."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server, limit=100)
            async with client:
                task = asked(client, "x")
                await peer.line()
                peer.send(b"garbage\n#" + b"x" * 200 + b"\n#bad\\escape\n\n \t\n!x[1] ok\n")
                assert ([], []) == await task
                assert await peer.has_nothing()
                peer.send(b"#half")
                peer.close()
                await client.wait_disconnected()

    host.run(main)
    records = [record for record in logged(caplog) if record.name == "aiokatcp.connection"]
    assert ["Malformed message received", "EOF received on connection with partial message"] == [
        record.getMessage().rpartition(" [127.0.0.1:")[0] for record in records
    ]
    assert records[0].exc_info is not None
    assert '"Invalid character" at character 1' == str(records[0].exc_info[1])


def test_logger(host: Host) -> None:
    """The client's logger adds the server's address while there is a connection."""

    async def main() -> None:
        async with raw_server() as server:
            client, peer = await connected(server)
            assert isinstance(client.logger, logging.LoggerAdapter)
            text, _ = client.logger.process("hello", {})
            assert f"hello [127.0.0.1:{server.port}]" == text
            client.close()
            await client.wait_closed()
            assert logging.getLogger("aiokatcp.client") is client.logger
            assert b"" == await peer.rest()

    host.run(main)
