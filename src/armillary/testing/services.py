"""A service to test clients with."""

from __future__ import annotations

from typing import Any

import trio

from armillary.network import Service

__all__ = ["DemoService"]


class DemoService(Service):
    """A small service to test clients with; its name is ``Demo``, unless told otherwise.

    Args:
        options: as for `armillary.network.Service`.
    """

    unit = "V"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"name": "Demo", **options})

    @property
    def voltage(self) -> float:
        """Always the same."""
        return 1.25

    def echo(self, *args: object, **kwargs: object) -> object:
        """Return the arguments; in a thread."""
        return args, kwargs

    async def sleep(self, seconds: float) -> float:
        """Return after some seconds of the run's clock."""
        await trio.sleep(seconds)
        return seconds

    async def tell(self, count: int) -> int:
        """Tell the numbers below `count`, and return it."""
        for number in range(count):
            await self.notify(number, is_last=number == count - 1)
        return count

    async def fail(self, text: str = "failed on request") -> None:
        """Raise a RuntimeError."""
        raise RuntimeError(text)

    def shutdown_service(self) -> str:
        """End the service."""
        return "bye"
