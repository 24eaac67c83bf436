"""A manager while it runs, with the services that it is run for: one trio run in the caller's thread."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from armillary._runtime.dial import address_text
from armillary._runtime.groups import single_exception
from armillary._runtime.signals import cancel_on_signal
from armillary.network.manager import Authenticate, serve_manager
from armillary.network.manager import Manager as NativeManager
from armillary.network.store import Store, open_store

from . import constants
from ._manager import Manager
from ._manager_log import begin_log, log_of_armillary, set_level
from ._manager_setup import CannotStart, ManagerOptions, set_up
from ._options import Options
from .utils import logger

if TYPE_CHECKING:
    from .service import Service

__all__ = ["run_manager"]

ServiceRun: TypeAlias = Callable[[], Awaitable[None]]


def run_manager(
    options: ManagerOptions,
    services: Sequence[Service] = (),
    service_options: Mapping[str, Any] | None = None,
) -> None:
    """Run a manager, until it is ended, or until all of the services have ended if there are any.

    What `CannotStart` is raised for is logged, printed on standard error, and not raised.

    Args:
        options: of the manager.
        services: what is run besides.
        service_options: keyword arguments for the start of each service.
    """
    begin_log(options.log_file)
    try:
        with log_of_armillary(), set_up(options) as (manager, context):
            # In this thread, where somebody can be asked. The certificate that they are to trust is there.
            runs = [_run_of(service, service_options or {}) for service in services]
            run = _Run(manager, options.host or None, context, runs)
            try:
                with single_exception():
                    trio.run(run.main, restrict_keyboard_interrupt_to_checkpoints=True)
            except KeyboardInterrupt:
                pass  # a second Ctrl-C: somebody is in a hurry
    except CannotStart as error:
        logger.error("%s", error)
        sys.stderr.write(f"{error}\n")


class _Run:
    """One run of one manager.

    Args:
        manager: as it was set up.
        host: where it listens; everywhere if None.
        context: for TLS, if it is wanted.
        services: the runs of the services that it is run for.
    """

    def __init__(
        self,
        manager: Manager,
        host: str | None,
        context: ssl.SSLContext | None,
        services: Sequence[ServiceRun],
    ) -> None:
        self._manager = manager
        self._host = host
        self._context = context
        self._services = services

    async def main(self) -> None:
        """Run it.

        Raises:
            CannotStart: it cannot listen there.
        """
        with single_exception():
            async with trio.open_nursery() as nursery:
                if threading.current_thread() is threading.main_thread():
                    await nursery.start(cancel_on_signal, nursery.cancel_scope)
                with open_store(self._manager.connections_table.path) as store:
                    await self._serve(store)
                nursery.cancel_scope.cancel(reason="the manager has ended")
        logger.info("the Network Manager has ended")

    async def _serve(self, store: Store) -> None:
        port, tls = self._manager.port, "DISABLED" if self._context is None else "ENABLED"
        async with trio.open_nursery() as nursery:
            serve = partial(
                serve_manager,
                port,
                host=self._host,
                ssl_context=self._context,
                authenticate=_authenticate(self._manager),
                store=store,
                on_start=self._begin,
            )
            try:
                await nursery.start(serve)
            except OSError as error:
                where = address_text(self._host or "all addresses", port)
                raise CannotStart(f"OSError: Cannot listen on {where}: {error}") from error
            where = address_text(self._host or constants.HOSTNAME, port)
            logger.info("%s %s (TLS %s)", constants.NETWORK_MANAGER_RUNNING_PREFIX, where, tls)
            if self._services:
                await self._run_services()
                logger.info("shutting down the Network Manager: all services have ended")
                nursery.cancel_scope.cancel(reason="all services have ended")

    def _begin(self, native: NativeManager) -> None:
        native.set_logging_level = _set_level_on_request
        # As programs of 1.0 expect that look at the table when `connect` has returned.
        native.serves_when_recorded = True
        self._manager._native = native

    async def _run_services(self) -> None:
        """Return when all of them have ended."""
        async with trio.open_nursery() as nursery:
            for run in self._services:
                nursery.start_soon(_run_service, run)


def _run_of(service: Service, options: Mapping[str, Any]) -> ServiceRun:
    """What runs a service: the run of the manager, or a thread, if it starts in a way of its own."""
    from .service import Service

    if type(service).start is Service.start:
        return service._msl_prepare(Options(**options)).run_beside_others
    return partial(
        trio.to_thread.run_sync, partial(service.start, **options), limiter=trio.CapacityLimiter(1)
    )


async def _run_service(run: ServiceRun) -> None:
    try:
        await run()
    except Exception as error:  # noqa: BLE001 - the other services go on
        logger.exception("a service has ended: %s", error)


def _authenticate(manager: Manager) -> Authenticate:
    return Authenticate(
        password=manager.password, hostnames=manager.hostnames or (), login=bool(manager.login)
    )


def _set_level_on_request(level: object) -> bool:
    return set_level(level)  # type: ignore[arg-type]  # it says so itself
