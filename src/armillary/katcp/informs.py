"""Informs that a server sends on its own, and who wants them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from armillary._runtime.mailbox import Mailbox

from .protocol.handlers import compile_decoder
from .protocol.messages import FailReply, Message, WireMessage, wire_name
from .protocol.values import TypeRegistry

__all__ = ["INFORM_BOUND", "InformHub"]

_logger = logging.getLogger("armillary.katcp.client")

# Informs that may wait for a reader. More takes more memory when the reader is stuck; fewer loses informs
# when it is busy for a moment.
INFORM_BOUND = 1000

_Subscriber = Callable[[WireMessage], object]


class InformHub:
    """Hands each inform to those who asked for its name. Outlives connections."""

    def __init__(self, types: TypeRegistry) -> None:
        self._types = types
        self._subscribers: dict[bytes, dict[object, _Subscriber]] = {}
        self._mailboxes: dict[Mailbox[Message], None] = {}
        self._is_closed = False

    def dispatch(self, wire: WireMessage) -> None:
        """Hand an inform out. What a subscriber raises is logged and disturbs nobody."""
        subscribers = self._subscribers.get(wire.name)
        if subscribers is None:
            return
        for subscriber in tuple(subscribers.values()):
            try:
                subscriber(wire)
            except FailReply as error:
                _logger.warning("error in inform %s: %s", wire.name.decode("ascii"), error)
            except Exception:
                # The reader of the connection goes on: one callback's defect is not the connection's.
                _logger.exception("error in a callback for inform %s", wire.name.decode("ascii"))

    def is_awaited(self, name: str) -> bool:
        """Whether anybody asked for informs of that name."""
        return name.encode("ascii") in self._subscribers

    def subscribe(self, name: str, key: object, subscriber: _Subscriber) -> None:
        """Call `subscriber` with each inform of that name, until `unsubscribe` with the same key."""
        self._subscribers.setdefault(wire_name(name), {})[key] = subscriber

    def unsubscribe(self, name: str, key: object) -> None:
        """Undo `subscribe`; silent if there is nothing to undo."""
        wire = wire_name(name)
        subscribers = self._subscribers.get(wire, {})
        subscribers.pop(key, None)
        if not subscribers:
            self._subscribers.pop(wire, None)

    def add_callback(self, name: str, callback: Callable[..., object]) -> None:
        """Call `callback` with each inform's arguments, decoded by its annotations."""
        decode = compile_decoder(name, callback, 0, self._types)
        self.subscribe(name, callback, lambda wire: callback(*decode(wire.arguments)))

    @contextmanager
    def mailbox(self, name: str, bound: int) -> Iterator[Mailbox[Message]]:
        """Informs of that name, for one reader."""
        mailbox: Mailbox[Message] = Mailbox(bound)
        self.subscribe(name, mailbox, lambda wire: mailbox.put(Message.from_wire(wire)))
        self._mailboxes[mailbox] = None
        if self._is_closed:
            mailbox.close()
        try:
            yield mailbox
        finally:
            self.unsubscribe(name, mailbox)
            del self._mailboxes[mailbox]

    def close(self) -> None:
        """No more informs will come: loops over them end."""
        self._is_closed = True
        for mailbox in self._mailboxes:
            mailbox.close()
