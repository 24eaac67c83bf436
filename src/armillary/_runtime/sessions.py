"""Accept connections and run a session for each, so that one session's failure is its own."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .dial import HANDSHAKE_TIMEOUT, peer_name
from .tls_socket import TlsSocketStream

__all__ = ["serve_sessions"]

SessionFunction = Callable[[trio.abc.Stream], Awaitable[object]]


async def serve_sessions(
    session: SessionFunction,
    listeners: list[trio.abc.Listener[Any]],
    *,
    accepting: trio.CancelScope,
    sessions: trio.Nursery,
    begin_drain: Callable[[], object],
    logger: logging.Logger,
    task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until `accepting` or the caller is cancelled, then begin the drain.

    Every connection becomes a task in `sessions`, which encloses the call: sessions may outlive the
    listeners. What a session raises is logged with its peer's address and ends that session only. A TLS
    peer has `HANDSHAKE_TIMEOUT` seconds to shake hands.

    Args:
        session: called with each stream; the stream is closed when it returns.
        listeners: closed when this returns.
        accepting: cancelling it ends the accepting.
        sessions: where sessions run.
        begin_drain: called once, when no more connections will come; it tells the sessions.
        logger: where failures of sessions go.
        task_status: started with the listeners.
    """

    async def isolated(stream: trio.abc.Stream) -> None:
        peer = peer_name(stream)  # once it is reset, a socket does not know any more
        try:
            if isinstance(stream, TlsSocketStream | trio.SSLStream):
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    await stream.do_handshake()
            await session(stream)
        except trio.TooSlowError:
            logger.info("connection from %s failed: it was too slow", peer)
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            logger.info("connection from %s failed: %s", peer, error.__cause__ or error)
        except Exception:
            # The accept loop and the other sessions go on; nothing of this session is left.
            logger.exception("session of %s ended by an unexpected error", peer)

    try:
        with accepting:
            await trio.serve_listeners(isolated, listeners, handler_nursery=sessions, task_status=task_status)
    finally:
        begin_drain()
