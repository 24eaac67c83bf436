"""A lab network on sockets of this computer, for commands to connect to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from armillary._runtime.groups import single_exception
from armillary.network import Service, bound_ports, run_service, serve_manager

HOST = "127.0.0.1"


class CommandLab:
    """A manager, and services.

    Attributes:
        nursery: what is started in it ends with the lab.
        port: where the manager listens.
        where: the options of a command that say so; without TLS.
    """

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self.nursery = nursery
        self.port = port
        self.where = ("--host", HOST, "--port", str(port), "--no-tls")

    async def start(self, service: Service, **options: Any) -> None:
        """Run a service until the lab ends."""
        await self.nursery.start(partial(run_service, service, HOST, self.port, trust=None, **options))


@asynccontextmanager
async def command_lab(*services: Service, port: int = 0, **options: Any) -> AsyncIterator[CommandLab]:
    """A manager with services, for a block.

    Args:
        services: they connect without TLS and without credentials.
        port: where the manager listens; a free one if 0.
        options: for the manager.
    """
    with single_exception():
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(serve_manager, port, host=HOST, **options))
            lab = CommandLab(nursery, bound_ports(listeners)[0])
            for service in services:
                await lab.start(service)
            yield lab
            nursery.cancel_scope.cancel(reason="the lab's block was left")
