"""A manager, and the façade's services, in threads of the test, which is written as programs are."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

from armillary._runtime.dial import bound_ports
from armillary.network import Authenticate, open_store, serve_manager
from msl.network import LinkedClient, Service, connect
from msl.network.client import Client

# Far more than anything here takes on a busy machine; a test that gets there fails instead of hanging.
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Ends a test that waits for ever. Import it into a test's module."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"the test took more than {2 * PATIENCE:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Echo(Service):
    """What most tests call."""

    constant = 2.5

    @property
    def computed(self) -> int:
        return 17

    @property
    def broken(self) -> int:
        raise OSError("no hardware")

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def unserializable(self) -> complex:
        return 1j

    def tell(self, count: int, threadsafe: bool = True) -> int:
        emit = self.emit_notification_threadsafe if threadsafe else self.emit_notification
        for number in range(count):
            emit(number, n=number)
        return count

    def thread(self) -> tuple[str, int]:
        return threading.current_thread().name, threading.get_ident()

    def shutdown_service(self, *args: Any) -> Any:
        return args or "bye"


class ServiceThread(threading.Thread):
    """A service that is started in a thread of its own."""

    def __init__(self, service: Service, options: dict[str, Any]) -> None:
        super().__init__(daemon=True, name=f"test of {type(service).__name__}")
        self.service = service
        self.options = options
        self.outcome: Future[None] = Future()

    def run(self) -> None:
        try:
            self.service.start(**self.options)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(None)

    def end(self) -> None:
        """Wait for the end, and raise what `start` has raised."""
        self.outcome.result(PATIENCE)


class Lab:
    """A manager in a thread. Made by `open_lab`."""

    def __init__(self, thread: _ManagerThread, options: dict[str, Any]) -> None:
        self._thread = thread
        self.port = thread.port.result(PATIENCE)
        self.options = {"host": "localhost", "port": self.port, "disable_tls": True, **options}
        self._clients: list[Client | LinkedClient] = []

    @property
    def address(self) -> str:
        return f"{self.options['host']}:{self.port}"

    def connect(self, **options: Any) -> Client:
        client = connect(**{**self.options, **options})
        self._clients.append(client)
        return client

    def linked(self, service: str, kind: type[LinkedClient] = LinkedClient, **options: Any) -> Any:
        client = kind(service, **{**self.options, **options})
        self._clients.append(client)
        return client

    def serve(self, service: Service, **options: Any) -> ServiceThread:
        """Start a service, and wait until the manager has it."""
        thread = ServiceThread(service, {**self.options, **options})
        thread.start()
        eventually(lambda: thread.outcome.done() or service.loop_thread_id is not None)
        if thread.outcome.done():
            thread.end()
        return thread

    def stop(self) -> None:
        """Stop the manager, and with it all connections."""
        self._thread.stop()

    def close(self) -> None:
        for client in self._clients:
            with suppress(TimeoutError):
                client.disconnect(PATIENCE)
        self.stop()


class _ManagerThread(threading.Thread):
    def __init__(self, options: dict[str, Any], store_path: Path | None) -> None:
        super().__init__(daemon=True, name="test manager")
        self._options = options
        self._store_path = store_path
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken
        self.port: Future[int] = Future()

    def run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            if not self.port.done():
                self.port.set_exception(error)
            raise

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        stored = nullcontext() if self._store_path is None else open_store(self._store_path, iterations=1)
        with stored as store, self._scope:
            async with trio.open_nursery() as nursery:
                serve = partial(serve_manager, 0, host="127.0.0.1", store=store, **self._options)
                self.port.set_result(bound_ports(await nursery.start(serve))[0])

    def stop(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._scope.cancel)
        self.join(PATIENCE)
        assert not self.is_alive()


@contextmanager
def open_lab(
    *,
    ssl_context: ssl.SSLContext | None = None,
    authenticate: Authenticate | None = None,
    store_path: Path | None = None,
    **options: Any,
) -> Iterator[Lab]:
    """A manager for a block, which clients and services leave at its end.

    Args:
        ssl_context: makes it one with TLS; say then in `options` how it is trusted.
        authenticate: who may come in.
        store_path: the file with its users.
        options: of `connect` and of `Service.start`, for everybody.
    """
    thread = _ManagerThread(
        {"ssl_context": ssl_context, "authenticate": authenticate or Authenticate()}, store_path
    )
    thread.start()
    lab = Lab(thread, options)
    try:
        yield lab
    finally:
        lab.close()


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)
