"""One connection, one request, and all that comes until its reply, in the order in which it comes.

A client hands informs and replies to different readers. Here a person reads, so this is a loop of its own
over the same pure parts.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable, Sequence

import trio

from armillary._runtime.dial import address_text, open_stream
from armillary.errors import ConnectFailed, ConnectionClosed

from .protocol.conversation import Conversation, MessageIds, Pending
from .protocol.messages import DEFAULT_LIMIT, OK, MessageType, Parser, WireMessage
from .protocol.values import STANDARD_TYPES

__all__ = ["request_once"]

_logger = logging.getLogger("armillary.katcp.client")

_RECEIVE = 65536


async def request_once(
    address: tuple[str, int | None],
    name: str,
    arguments: Sequence[bytes],
    show: Callable[[WireMessage], object],
    *,
    ssl_context: ssl.SSLContext | None = None,
    connect_timeout: float = math.inf,
    request_timeout: float = math.inf,
) -> bool:
    """Connect, make one request, and return whether its reply says ``ok``.

    Args:
        address: the host and port, or the path of a Unix socket and None.
        name: the request's name.
        arguments: its arguments.
        show: called with every inform that comes until the reply, the server's greeting apart, and with
            the reply.
        ssl_context: makes the connection a TLS one.
        connect_timeout: seconds for connecting, until the server has said which protocol it speaks.
        request_timeout: seconds from then on for the reply.

    Raises:
        ConnectFailed: no connection could be made in time, or the server went before it said its protocol.
        ProtocolError: the server speaks another protocol.
        ConnectionClosed: the connection ended before the reply came.
        TooSlowError: the reply did not come in time.
        ValueError: the request's name is outside its grammar.
    """
    host, port = address
    where = address_text(host, port)
    conversation = Conversation(MessageIds(), STANDARD_TYPES)
    parser = Parser(DEFAULT_LIMIT)
    pending: Pending | None = None
    with trio.CancelScope(deadline=trio.current_time() + connect_timeout) as scope:
        stream = await open_stream(host, port, ssl_context=ssl_context, timeout=connect_timeout)
        async with stream:
            while pending is None or pending.reply is None:
                for message in parser.append(await _receive(stream, where, pending)):
                    if isinstance(message, ValueError):
                        _logger.warning("Malformed message received: %s [%s]", message, where)
                        continue
                    conversation.receive(message)
                    if message.mtype is MessageType.INFORM and message.name != b"version-connect":
                        show(message)
                    if pending is not None and pending.reply is not None:
                        show(pending.reply)
                        return pending.reply.arguments[:1] == [OK]
                if pending is None and conversation.flags is not None:
                    pending = conversation.start(name, arguments)
                    scope.deadline = trio.current_time() + request_timeout
                    for _, encoded in conversation.outgoing():
                        await _send(stream, encoded, where)
    if pending is None:
        raise ConnectFailed(f"could not connect to {where}: no #version-connect in {connect_timeout:g} s")
    raise trio.TooSlowError(f"{where} did not reply to ?{name} within {request_timeout:g} s")


async def _receive(stream: trio.abc.Stream, where: str, pending: Pending | None) -> bytes:
    """The next bytes, never none."""
    try:
        data = bytes(await stream.receive_some(_RECEIVE))
    except trio.BrokenResourceError as error:
        raise _ended(where, pending, f"the connection broke: {error.__cause__ or error}") from error
    if not data:
        raise _ended(where, pending, "the server closed the connection")
    return data


async def _send(stream: trio.abc.Stream, data: bytes, where: str) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError as error:
        raise ConnectionClosed(f"lost {where}: the connection broke: {error.__cause__ or error}") from error


def _ended(where: str, pending: Pending | None, reason: str) -> ConnectFailed | ConnectionClosed:
    if pending is None:
        return ConnectFailed(f"could not connect to {where}: {reason} before #version-connect")
    request = pending.name.decode("ascii")
    return ConnectionClosed(
        f"lost {where} before the reply to ?{request} came: {reason}", may_have_been_received=True
    )
