"""A manager, its services and its clients, each a process of its own, all armillary's or all of 1.0."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from .processes import Failed, Program, running

__all__ = ["NAMES", "Lab", "open_lab"]

NAMES = ("armillary", "msl_network")
HERE = Path(__file__).parent
PEER = HERE.parent.parent / ".peers/msl_network/bin"
# Seconds for a manager to be there.
PATIENCE = 30.0


class Lab:
    """A lab that is running. Made by `open_lab`."""

    def __init__(self, name: str, tls: bool, home: Path, port: int, manager: Program, stack: AsyncExitStack):
        self.manager = manager
        self._name = name
        self._tls = tls
        self._home = home
        self._port = port
        self._stack = stack
        self._programs = 0

    async def service(self, name: str = "Echo") -> Program:
        """Start a service. Clients wait for it."""
        return await self._start("service", name)

    async def client(self, service: str = "Echo") -> Program:
        """Start a client that is linked with a service."""
        program = await self._start("client", service)
        await program.ask("connects", 0)
        return program

    async def clients(self, count: int) -> list[Program]:
        """Start so many clients."""
        programs = [await self._start("client", "Echo") for _ in range(count)]
        for program in programs:
            await program.ask("connects", 0)
        return programs

    async def _start(self, role: str, service: str) -> Program:
        self._programs += 1
        end = "armillary_end.py" if self._name == "armillary" else "msl_end.py"
        tls = "tls" if self._tls else "plain"
        return await self._stack.enter_async_context(
            running(
                [_python(self._name), str(HERE / end), role, service, str(self._port), str(self._home), tls],
                errors=self._home / f"{self._programs}-{role}.txt",
                environment=_environment(self._home),
            )
        )


@asynccontextmanager
async def open_lab(name: str, *, tls: bool, log_level: str) -> AsyncIterator[Lab]:
    """Run a manager for a block, and what is started with it.

    Raises:
        Failed: it does not start.
    """
    command = (
        [_python(name), "-m", "armillary", "network"] if name == "armillary" else [str(PEER / "msl-network")]
    )
    with tempfile.TemporaryDirectory(prefix="bench-network-") as directory:
        home, port = Path(directory), _free_port()
        log = home / "manager.log"
        options = ["start", "-p", str(port), "-G", log_level, "-l", str(log)]
        async with AsyncExitStack() as stack:
            manager = await stack.enter_async_context(
                running(
                    [*command, *options, *([] if tls else ["--disable-tls"])],
                    errors=home / "manager.txt",
                    environment=_environment(home),
                    is_asked=False,
                )
            )
            await _wait_listening(manager, port)
            yield Lab(name, tls, home, port, manager, stack)


async def _wait_listening(manager: Program, port: int) -> None:
    """Wait until somebody answers; what the manager logs depends on the level."""
    with trio.move_on_after(PATIENCE):
        while True:
            manager.check()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return
    raise Failed(f"no manager in {PATIENCE:g} s")


def _python(name: str) -> str:
    return sys.executable if name == "armillary" else str(PEER / "python")


def _environment(home: Path) -> dict[str, str]:
    # Deprecations of the libraries that 1.0 uses are none of ours.
    return {"MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
