"""What a client does with informs that belong to no request."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from armillary.katcp.protocol.messages import FailReply, WireMessage

from ._handlers import wrap_handler
from .core import Message

__all__ = ["InformReceiver", "is_overridden"]


class InformReceiver:
    """The part of a `Client` that hands informs to its methods and to callbacks."""

    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    _inform_handlers: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._inform_handlers = _compile_informs(cls)

    def __init__(self) -> None:
        self._inform_callbacks: dict[str, list[tuple[Callable[..., None], Callable[..., None]]]] = {}
        self._sees_informs = any(
            is_overridden(self, InformReceiver, method) for method in ("handle_inform", "unhandled_inform")
        )

    def add_inform_callback(self, name: str, callback: Callable[..., None]) -> None:
        """Call `callback` with each inform of a name that belongs to no request.

        Its arguments are decoded by the callback's annotations (bytes without one). Callbacks run in the
        order in which they were added, after the class's own method. What one raises is logged.
        """
        # A new list: the present one may be being gone through.
        present = self._inform_callbacks.get(name, [])
        self._inform_callbacks[name] = [*present, (callback, wrap_handler(name, callback, 0))]

    def remove_inform_callback(self, name: str, callback: Callable[..., None]) -> None:
        """Undo `add_inform_callback`; silent if there is nothing to undo."""
        present = self._inform_callbacks.pop(name, [])
        for entry in present:
            if entry[0] == callback:
                present = [other for other in present if other is not entry]
                break
        if present:
            self._inform_callbacks[name] = present

    def inform_version_connect(self, api: str, version: str, build_state: str | None = None) -> None:
        """The server says what it is. What that means for the connection has happened already."""

    def handle_inform(self, msg: Message) -> None:
        """Hand an inform that belongs to no request to the class's method and to the callbacks."""
        handler = self._inform_handlers.get(msg.name)
        if handler is None:
            self.unhandled_inform(msg)
        else:
            try:
                handler(self, msg)
            except FailReply as error:
                self.logger.warning("error in inform %s: %s", msg.name, error)
            except Exception:
                self.logger.exception("unhandled exception in inform %s", msg.name)
        for _, callback in self._inform_callbacks.get(msg.name, ()):
            self._run_callback(callback, msg)

    def unhandled_inform(self, msg: Message) -> None:
        """Called with each inform for which the class has no method; says so at DEBUG if nobody wants it."""
        if msg.name not in self._inform_callbacks and not self._is_mirrors(msg.name):
            self.logger.debug("unknown inform %s", msg.name)

    def _is_mirrors(self, name: str) -> bool:
        """Whether informs of that name are for the mirrors of sensors."""
        raise NotImplementedError

    def _inform_received(self, wire: WireMessage) -> None:
        """As `handle_inform`, but makes no `Message` that nobody sees."""
        name = wire.name.decode("ascii")
        if self._sees_informs or name in self._inform_handlers or name in self._inform_callbacks:
            self.handle_inform(Message.from_wire(wire))
        elif self.logger.isEnabledFor(logging.DEBUG):
            self.unhandled_inform(Message.from_wire(wire))

    def _run_callback(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            self.logger.exception("Exception raised from callback")


def is_overridden(instance: object, cls: type, method: str) -> bool:
    """Whether an instance has a method of its own in the place of that of `cls`."""
    return getattr(getattr(instance, method), "__func__", None) is not getattr(cls, method)


def _compile_informs(cls: type[InformReceiver]) -> dict[str, Callable[..., Any]]:
    """The methods of a class that handle informs, by the informs' names."""
    handlers = {}
    for attribute in dir(cls):
        method = getattr(cls, attribute)
        if attribute.startswith("inform_") and inspect.isfunction(method):
            name = attribute.removeprefix("inform_").replace("_", "-")
            handlers[name] = wrap_handler(name, method, 1)
    return handlers
