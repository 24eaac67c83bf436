"""`DeviceServer.LogHandler`: log records as ``#log`` informs, to every client."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from raw_client import RawClient, run, served, until

from aiokatcp import DeviceServer, RequestContext

if TYPE_CHECKING:
    from conftest import Host

HERE = __file__.rpartition("/")[2].encode()


class Rig(DeviceServer):
    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.3"

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)

    async def request_log(self, ctx: RequestContext, text: str) -> None:
        """Log something, and reply."""
        logging.getLogger("application.part").error(text)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """An application's logger, which takes everything; its handlers are removed in the end."""
    logger = logging.getLogger("application")
    logger.setLevel(1)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def words(line: bytes) -> list[bytes]:
    """A ``#log`` inform without its time and without numbers of lines."""
    name, level, _, source, text = line.rstrip(b"\n").split(b" ")
    assert name == b"#log"
    file, _, rest = text.partition(b":")
    if file == HERE:
        number, _, rest = rest.partition(b":")
        assert number.isdigit()
        return [level, source, b"HERE:" + rest]
    return [level, source, text]


async def told(client: RawClient) -> list[list[bytes]]:
    """What a client has been told."""
    return [words(line) for line in await client.unasked() if line.startswith(b"#log ")]


def test_records_become_informs(host: Host, logger: logging.Logger) -> None:
    """Every client gets the level, the time, the logger's name, and where it was logged with the text."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(server.LogHandler(server))
        logger.error("nobody is there")
        async with served(server) as clients:
            pair = await clients.dial_pair()
            record = logging.LogRecord("odd", logging.ERROR, "/a/b.py", 7, "caf\xe9 %d\n", (5,), None)
            record.created = 1234567890.25
            logger.handle(record)
            for client in pair:
                assert await client.line() == b"#log error 1234567890.25 odd b.py:7:\\_caf\xc3\xa9\\_5\\n\n"
            logger.getChild("part").warning("two %s", "words")
            for client in pair:
                assert await told(client) == [[b"warn", b"application.part", b"HERE:\\_two\\_words"]]
        logger.error("nobody is there any more")

    run(host, main)


def test_levels(host: Host, logger: logging.Logger) -> None:
    """Python's levels have names on the wire; those between are rounded down, and never become off."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(DeviceServer.LogHandler(server))
        async with served(server) as clients:
            client = await clients.dial()
            await client.ask(b"?log-level all\n")
            expected = {1: "all", 5: "trace", 9: "trace", 10: "debug", 15: "debug", 20: "info", 25: "info"}
            expected |= {30: "warn", 39: "warn", 40: "error", 50: "fatal", 59: "fatal", 99: "fatal"}
            for level in expected:
                logger.log(level, "x")
            levels = [level.decode() for level, _, _ in await told(client)]
            assert dict(zip(expected, levels, strict=True)) == expected

    run(host, main)


@pytest.mark.parametrize(
    ("level", "texts"),
    [
        (None, [b"30", b"40", b"50"]),
        (b"all", [b"5", b"10", b"20", b"30", b"40", b"50"]),
        (b"trace", [b"5", b"10", b"20", b"30", b"40", b"50"]),
        (b"info", [b"20", b"30", b"40", b"50"]),
        (b"error", [b"40", b"50"]),
        (b"fatal", [b"50"]),
        (b"off", []),
    ],
)
def test_the_log_level(host: Host, logger: logging.Logger, level: bytes | None, texts: list[bytes]) -> None:
    """Records below the ``?log-level`` are dropped, which is warn at first; off drops all of them."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(server.LogHandler(server))
        async with served(server) as clients:
            client = await clients.dial()
            if level is not None:
                assert await client.ask(b"?log-level %b\n" % level) == [b"!log-level ok %b\n" % level]
            for number in (5, 10, 20, 30, 40, 50):
                logger.log(number, "%d", number)
            assert [text.rpartition(b"_")[2] for _, _, text in await told(client)] == texts

    run(host, main)


def test_records_about_clients(host: Host) -> None:
    """Records from loggers whose name starts with ``aiokatcp.`` are dropped: clients would hear of
    themselves.
    """

    async def main() -> None:
        server = Rig()
        handler = server.LogHandler(server)
        handler.setLevel(logging.DEBUG)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            async with served(server) as clients:
                client = await clients.dial()
                await client.ask(b"?log-level all\n")
                client.send(b"rubbish\n")
                await client.line()
                logging.getLogger("aiokatcp.server").error("own")
                logging.getLogger("aiokatcp.anything").error("own")
                logging.getLogger("armillary.katcp").error("own")
                logging.getLogger("aiokatcp").error("not quite")
                logging.getLogger("application").error("theirs")
                assert [source for _, source, _ in await told(client)] == [b"aiokatcp", b"application"]
        finally:
            root.removeHandler(handler)

    run(host, main)


def test_the_order_of_informs_and_replies(host: Host, logger: logging.Logger) -> None:
    """What a request logs is told before its reply."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(server.LogHandler(server))
        async with served(server) as clients:
            client = await clients.dial()
            inform, reply = await client.ask(b"?log[4] here\n")
            assert words(inform) == [b"error", b"application.part", b"HERE:\\_here"]
            assert reply == b"!log[4] ok\n"

    run(host, main)


def test_a_formatter_of_ones_own(host: Host, logger: logging.Logger) -> None:
    """It replaces the text; a traceback is part of the text by any formatter."""

    async def main() -> None:
        server = Rig()
        handler = server.LogHandler(server)
        logger.addHandler(handler)
        async with served(server) as clients:
            client = await clients.dial()
            try:
                raise ZeroDivisionError("on purpose")
            except ZeroDivisionError:
                logger.exception("failed")
            ((_, _, text),) = await told(client)
            assert text.startswith(b"HERE:\\_failed\\nTraceback\\_(most\\_recent\\_call\\_last):\\n")
            assert text.endswith(b"\\nZeroDivisionError:\\_on\\_purpose")
            handler.setFormatter(logging.Formatter("<%(message)s>"))
            logger.error("own")
            assert await told(client) == [[b"error", b"application", b"<own>"]]

    run(host, main)


def test_other_threads(host: Host, logger: logging.Logger) -> None:
    """Their records arrive, too, in the order of each thread."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(server.LogHandler(server))

        def work(name: str) -> None:
            for number in range(20):
                logger.error("%s-%d", name, number)

        async with served(server) as clients:
            client = await clients.dial()
            await asyncio.gather(asyncio.to_thread(work, "a"), asyncio.to_thread(work, "b"))
            texts = [text.rpartition(b"_")[2].decode() for _, _, text in await told(client)]
            for name in ("a", "b"):
                assert [text for text in texts if text[0] == name] == [f"{name}-{n}" for n in range(20)]
            assert len(texts) == 40

    run(host, main)


def test_a_thread_that_logs_without_pause(host: Host, logger: logging.Logger) -> None:
    """Of one that is faster than the loop, a thousand records wait, and the rest is dropped and counted."""

    async def main() -> None:
        server = Rig()
        handler = server.LogHandler(server)
        logger.addHandler(handler)
        async with served(server) as clients:
            client = await clients.dial()
            thread = threading.Thread(target=lambda: [logger.error("x") for _ in range(1500)])
            thread.start()
            thread.join()  # the loop stands still meanwhile
            assert handler.dropped == 500
            assert {line.rpartition(b"_")[2] for line in await client.lines(1000)} == {b"x\n"}
            assert await told(client) == []

    run(host, main)


def test_a_loop_that_is_over(host: Host, logger: logging.Logger) -> None:
    """Records that come when the server's loop does not run break nothing."""
    handlers: list[logging.Handler] = []

    async def main() -> None:
        server = Rig()
        handlers.append(server.LogHandler(server))
        logger.addHandler(handlers[0])
        async with served(server):
            logger.error("running")
        logger.error("stopped")

    run(host, main)
    logger.error("over")
    thread = threading.Thread(target=logger.error, args=("over, in another thread",))
    thread.start()
    thread.join()
    assert len(handlers) == 1


def test_several_servers(host: Host, logger: logging.Logger) -> None:
    """Each has a handler and a level of its own."""

    async def main() -> None:
        async with served(Rig()) as quiet, served(Rig()) as loud:
            for clients in (quiet, loud):
                logger.addHandler(clients.server.LogHandler(clients.server))
            first, second = await quiet.dial(), await loud.dial()
            await first.ask(b"?log-level fatal\n")
            await second.ask(b"?log-level info\n")
            logger.info("info")
            logger.critical("fatal")
            assert [level for level, _, _ in await told(first)] == [b"fatal"]
            assert [level for level, _, _ in await told(second)] == [b"info", b"fatal"]

    run(host, main)


def test_a_client_that_is_too_slow(host: Host, logger: logging.Logger) -> None:
    """Log informs cost a client that does not read its connection, and that is not logged to the others."""

    async def main() -> None:
        server = Rig()
        logger.addHandler(server.LogHandler(server))
        server.max_backlog = 10_000
        async with served(server) as clients:
            deaf = clients.dial_deaf()
            await until(lambda: server._connections)
            await asyncio.sleep(0.05)
            while server._connections:
                logger.error("x" * 1000)
            client = await clients.dial()
            assert await told(client) == []
            deaf.close()

    run(host, main)
