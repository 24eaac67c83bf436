"""Something done before a loop's ``close`` and ``run_forever``, of that one loop, for a time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["hook", "unhook"]


def hook(loop: asyncio.AbstractEventLoop, method: str, before: Callable[[], object]) -> None:
    """Call `before` each time before ``loop.method()``, until `unhook`. A later hook replaces it.

    Loops have no such hooks of their own; an attribute of the loop object hides the method of its class. What
    somebody else has put there is called as well.
    """
    present = vars(loop).get(method)
    replaced = present.replaced if isinstance(present, _Hook) else present
    vars(loop)[method] = _Hook(loop, method, before, replaced)


def unhook(loop: asyncio.AbstractEventLoop, method: str) -> None:
    """Take the hook away, unless somebody has put something in front of it."""
    present = vars(loop).get(method)
    if isinstance(present, _Hook):
        if present.replaced is None:
            del vars(loop)[method]
        else:
            vars(loop)[method] = present.replaced


class _Hook:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        method: str,
        before: Callable[[], object],
        replaced: Callable[[], Any] | None,
    ) -> None:
        self._before = before
        self._method: Callable[[], Any] = functools.partial(getattr(type(loop), method), loop)
        self.replaced = replaced

    def __call__(self) -> Any:
        self._before()
        return (self.replaced or self._method)()
