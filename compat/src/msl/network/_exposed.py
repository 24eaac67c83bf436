"""What clients see of a service, and how they get at it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from ._codec import CHOSEN
from .utils import logger

__all__ = ["Exposed", "describe"]


def describe(service: object, hidden: Collection[str]) -> dict[str, object]:
    """What a service tells its clients of its public attributes.

    By name: the signature of what has one, as in ``(n=1) -> float``, and else the value. Properties are
    evaluated. What raises, or cannot be sent, is left out, with a warning.

    Args:
        service: whose attributes they are.
        hidden: names that are not told to anybody.
    """
    described: dict[str, object] = {}
    for name in dir(service):
        if name.startswith("_") or name in hidden:
            continue
        try:
            described[name] = _description(getattr(service, name))
        except Exception as error:  # noqa: BLE001 - users write properties
            logger.warning("the attribute %r is not told to clients: %s", name, error)
    return described


def _description(value: Any) -> object:
    if callable(value):
        return str(inspect.signature(value))
    return CHOSEN.decode(CHOSEN.encode(value))


class Exposed:
    """A service, as armillary calls it: everything is looked up and called in a worker thread.

    Args:
        service: whose attributes they are.
        call_asyncio: runs a coroutine of asyncio's to its end, for a thread that waits.
    """

    def __init__(self, service: object, call_asyncio: Callable[[Any], Any]) -> None:
        self._service = service
        self._call_asyncio = call_asyncio

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._service, name)
        if not inspect.iscoroutinefunction(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call_asyncio(value(*args, **kwargs))

        return call
