"""How a peer program talks with the test that started it: a JSON value on each line, both ways.

Its standard input brings orders, ``[name, argument...]``; each is answered by one line ``{"answer": ...}``.
Whatever else it has to tell, it tells as ``{"event": name, "facts": [...]}``. It ends when its input ends.
"""

import asyncio
import json
import logging
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

# Longer than any order of a test: a picture of five thousand sensors.
_LONGEST_ORDER = 4 * 1024**2


def text(raw: bytes) -> str:
    """Bytes as JSON can carry them, and `raw` can restore them."""
    return raw.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """Undo `text`."""
    return text.encode("utf-8", "surrogateescape")


def say(**line: Any) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def tell(event: str, *facts: Any) -> None:
    """Tell the test of something that it did not order."""
    say(event=event, facts=facts)


def orders() -> Iterator[list[Any]]:
    """What the test wants done, for programs that may block."""
    for line in sys.stdin:
        yield json.loads(line)


async def orders_async() -> AsyncIterator[list[Any]]:
    """What the test wants done, for programs on asyncio."""
    reader = asyncio.StreamReader(limit=_LONGEST_ORDER)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        transport.close()


def obey(commands: dict[str, Callable[..., Any]], order: list[Any]) -> None:
    """Carry an order out and answer it."""
    name, *arguments = order
    try:
        say(answer=commands[name](*arguments))
    except Exception:
        say(error=traceback.format_exc())


async def obey_async(commands: dict[str, Callable[..., Awaitable[Any]]], order: list[Any]) -> None:
    """Carry an order out and answer it."""
    name, *arguments = order
    try:
        say(answer=await commands[name](*arguments))
    except Exception:
        say(error=traceback.format_exc())


class RecordTeller(logging.Handler):
    """Tells each log record: its logger, level and text, and the class of its exception."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        tell("record", record.name, record.levelname, record.getMessage(), error)


def run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`; on uvloop, if the variable ``PEER_LOOP`` says so."""
    new_loop = None
    if os.environ.get("PEER_LOOP") == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)
