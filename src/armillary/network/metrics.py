"""A manager publishes its numbers over HTTP, for Prometheus and its relatives. Needs the extra ``metrics``.

    managers: list[Manager] = []
    await nursery.start(partial(serve_manager, on_start=managers.append))
    await nursery.start(serve_metrics, managers[0], 9187)

They are at ``/metrics``, as OpenMetrics for who asks for it, else in Prometheus's own text format.
"""

from __future__ import annotations

import logging
import os
import socket
from math import ceil
from typing import TYPE_CHECKING, Any

import trio

from armillary._runtime.dial import address_text, bound_ports, open_listeners

try:
    from hypercorn.config import Config, Sockets
    from hypercorn.logging import Logger
    from hypercorn.trio import serve
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
except ImportError as error:
    raise ImportError(
        f"metrics need more packages, run: pip install 'armillary[metrics]' ({error})"
    ) from error

from .metric_families import ManagerCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGISendCallable,
        HTTPScope,
        Scope,
    )
    from prometheus_client.metrics_core import Metric

    from .manager import Manager

__all__ = ["ManagerCollector", "metrics_app", "serve_metrics"]

_logger = logging.getLogger("armillary.network.metrics")
# Seconds that whoever asks may take to send a request, or to go on reading the answer. Shorter fails behind
# slow links; longer lets one that has stopped reading hold up the end of the manager.
_STALLED = 5.0
# Answers that are written at once, each by a worker thread: with thousands of services it takes a while. More
# lets those who ask too often take more of the processor from the network.
_ANSWERS_AT_ONCE = 1
# Seconds before the web server begins again. Shorter lets whoever makes it fail fill the log.
_PAUSE = 1.0


async def serve_metrics(
    manager: Manager,
    port: int,
    host: str = "127.0.0.1",
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Publish a manager's numbers at ``http://HOST:PORT/metrics`` until cancelled.

    Whoever can connect can read them: the names of the services, and how much they are used, but neither who
    uses them nor what for.

    Args:
        manager: what ``serve_manager`` gives to its ``on_start``. It may end before this does.
        port: the TCP port, 0 for a free one.
        host: the address to listen on; only this computer can connect if it is not given.
        task_status: started with the port.

    Raises:
        OSError: the address cannot be listened on.

    Resource handling:
        The listeners and all connections are closed when this returns. Whoever has stopped reading in the
        middle of an answer holds that up: on Linux for some five seconds, elsewhere until he goes.
    """
    listeners = await _listen(port, host)
    try:
        config = _Config(listeners)
        port = bound_ports(listeners)[0]
        _logger.info("metrics at http://%s/metrics", address_text(host, port))
        task_status.started(port)
        while True:
            try:
                await serve(metrics_app(manager), config)
            except Exception:
                # It does not keep what one connection does from ending all of it, and the manager with it.
                _logger.exception("the metrics' web server has failed, and begins again")
                await trio.sleep(_PAUSE)
            else:
                # The only end that it has of its own: it takes Ctrl-C for a wish to end, and says no more.
                raise KeyboardInterrupt
    finally:
        for listener in listeners:
            listener.socket.close()


async def _listen(port: int, host: str) -> list[trio.SocketListener]:
    try:
        opened = await open_listeners(port, host=host)
    except OSError as error:
        where = address_text(host, port)
        raise OSError(f"could not listen on {where} for metrics: {error}") from error
    listeners = [each for each in opened if isinstance(each, trio.SocketListener)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        for each in listeners:
            # The system ends connections to those who do not read, since Hypercorn shields its sending.
            # Connections take this from what listens.
            each.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALLED * 1000))
    return listeners


class _Log(Logger):
    """Hypercorn's log, without where it listens, which is said here already."""

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        await self.debug(message, *args, **kwargs)


class _Config(Config):
    """Hypercorn's settings: listeners of ours, and no log but ours.

    Args:
        listeners: where to accept; they stay ours.
    """

    def __init__(self, listeners: Sequence[trio.SocketListener]) -> None:
        self._listeners = listeners
        self.accesslog = None
        self.errorlog = logging.getLogger("armillary.network.metrics.hypercorn")
        self.logger_class = _Log
        self.include_server_header = False
        self.read_timeout = ceil(_STALLED)

    def create_sockets(self) -> Sockets:
        """Copies of the sockets, which Hypercorn closes when it ends."""
        copies = [socket.socket(fileno=os.dup(each.socket.fileno())) for each in self._listeners]
        return Sockets(secure_sockets=[], insecure_sockets=copies, quic_sockets=[])


def metrics_app(manager: Manager) -> ASGIFramework:
    """The ASGI application behind `serve_metrics`, for another web server in the manager's trio run."""
    collector = ManagerCollector(manager)
    limiter = trio.CapacityLimiter(_ANSWERS_AT_ONCE)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "there are metrics only"})
        elif scope["path"] != "/metrics":
            await _answer(send, 404, b"the metrics are at /metrics\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"metrics can be read only\n", [(b"allow", b"GET, HEAD")])
        else:
            encode, content_type = choose_encoder(_accepted(scope))
            registry = CollectorRegistry()
            # Collected here, where nothing changes meanwhile, and written by a thread, which takes longer.
            registry.register(_Collected(list(collector.collect())))
            text = await trio.to_thread.run_sync(encode, registry, limiter=limiter)
            await _answer(send, 200, text, [], content_type)

    return app


class _Collected:
    """Numbers that were collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


async def _live(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """There is nothing to begin or to end."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def _accepted(scope: HTTPScope) -> str:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"accept"]
    return ",".join(values)


async def _answer(
    send: ASGISendCallable,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    content_type: str = "text/plain; charset=utf-8",
) -> None:
    described = [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": described, "trailers": False})
    await send({"type": "http.response.body", "body": body, "more_body": False})
