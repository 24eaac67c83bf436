"""What can be asked of a service: the public attributes of an object."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

from .protocol.payloads import TEXT_CODEC

__all__ = ["Interface"]

_logger = logging.getLogger("armillary.network")

_MISSING = object()


class Interface:
    """The public attributes of an object, as its clients see them.

    Args:
        target: whose attributes they are.
        base: whose own attributes are nobody's business, unless the class of `target` has redefined them.
        hidden: names that are not told to anybody. They can be asked for nevertheless.
    """

    def __init__(self, target: object, base: type | None = None, hidden: Collection[str] = ()) -> None:
        self.target = target
        self._base = base
        self._hidden = frozenset(hidden)
        # Names of methods, which are looked up without running anything of the user's.
        self._methods: set[str] = set()

    def describe(self) -> dict[str, object]:
        """By name: the signature of what can be called, as ``(n=1) -> float``, or the value of what cannot.

        Properties are evaluated. What raises, or cannot be sent, is left out, with a warning. Call it in a
        thread: properties may take their time.
        """
        described: dict[str, object] = {}
        for name in sorted(set(dir(self.target))):
            if name.startswith("_") or name in self._hidden or self._is_own(name):
                continue
            try:
                described[name] = _description(getattr(self.target, name))
            except BaseException as error:  # noqa: ASYNC103, BLE001 - users write properties; no task runs here
                _logger.warning("the attribute %r is not told to clients: %s", name, error)
        return described

    def is_method(self, name: str) -> bool:
        """Whether looking up `name` takes no time, since it runs nothing of the user's.

        Raises:
            PermissionError: it is private.
            AttributeError: it is not to be had.
        """
        if name in self._methods:
            return True
        if name.startswith("_"):
            raise PermissionError("Cannot request a private attribute")
        if self._is_own(name):
            raise AttributeError(f"{type(self.target).__name__!r} object has no attribute {name!r}")
        on_class = inspect.getattr_static(type(self.target), name, _MISSING)
        if isinstance(on_class, FunctionType | staticmethod | classmethod):
            self._methods.add(name)
            return True
        found = inspect.getattr_static(self.target, name, _MISSING)
        # A descriptor computes something, and so does __getattr__; what is plainly there does not.
        return found is not _MISSING and (found is not on_class or not hasattr(type(found), "__get__"))

    def _is_own(self, name: str) -> bool:
        """Whether it belongs to the base class, which is there to make services, not to be asked for."""
        if self._base is None:
            return False
        own = inspect.getattr_static(self._base, name, _MISSING)
        return own is not _MISSING and inspect.getattr_static(type(self.target), name, _MISSING) is own


def _signature(value: Callable[..., object]) -> inspect.Signature:
    try:
        # Annotations as the classes that they name, not as the texts that `__future__` makes of them.
        return inspect.signature(value, eval_str=True)
    except (NameError, SyntaxError, TypeError, AttributeError):
        return inspect.signature(value)


def _description(value: Any) -> object:
    if callable(value):
        return str(_signature(value))
    # Clients get it in the text form, whatever they can read.
    return TEXT_CODEC.decode(TEXT_CODEC.encode(value))
