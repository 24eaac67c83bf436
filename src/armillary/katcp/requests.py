"""What a request handler gets to answer with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .protocol.messages import Message, MessageType, WireMessage, line

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Deferred", "RequestContext"]

_REPLY = MessageType.REPLY
_INFORM = MessageType.INFORM


class RequestContext:
    """One request that a client made, and the way to answer it.

    Handlers usually just return their answer or raise `FailReply`. The context is for informs that go with
    the answer, and for answering early.
    """

    __slots__ = ("_wire", "replied", "session")

    def __init__(self, session: Session, wire: WireMessage) -> None:
        self.session = session
        self._wire = wire
        self.replied = False
        """Whether the reply has been given."""

    @property
    def request(self) -> Message:
        """The request itself."""
        return Message.from_wire(self._wire)

    @property
    def name(self) -> str:
        """The request's name."""
        return self._wire.name.decode("ascii")

    @property
    def mid(self) -> int | None:
        """The request's message id."""
        return self._wire.mid

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.session.peer

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logs with the client's address."""
        return self.session.logger

    def reply(self, *arguments: object) -> None:
        """Answer now: the return code, then the reply's arguments.

        Raises:
            RuntimeError: the request has been answered.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        self._check_open()
        encode = self.session.device.types.encode
        self.reply_encoded([encode(argument) for argument in arguments])

    def reply_encoded(self, arguments: list[bytes]) -> None:
        """As `reply`, with arguments that are encoded already."""
        self._check_open()
        wire = self._wire
        self.replied = True
        self.session.outbox.send(line(_REPLY, wire.name, wire.mid, arguments))

    def inform(self, *arguments: object) -> None:
        """Send an inform that belongs to the request.

        Raises:
            RuntimeError: the request has been answered.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        self.informs([arguments], send_reply=False)

    def informs(self, informs: Iterable[Iterable[object]], *, send_reply: bool = True) -> None:
        """Send several informs together, then ``ok`` and their number.

        All of them wait in memory until the client has read them; a handler with a great many sends some,
        awaits `drain`, and sends more.

        Args:
            informs: the arguments of each.
            send_reply: whether to answer with ``ok`` and the number of informs.

        Raises:
            RuntimeError: the request has been answered.
            TypeError: an argument has no KATCP type; nothing was sent.
        """
        self._check_open()
        wire = self._wire
        encode = self.session.device.types.encode
        lines = [
            line(_INFORM, wire.name, wire.mid, [encode(argument) for argument in arguments])
            for arguments in informs
        ]
        self.session.send_informs(b"".join(lines))
        if send_reply:
            self.reply_encoded([b"ok", b"%d" % len(lines)])

    def inform_tails(self, tails: Iterable[bytes]) -> int:
        """Send informs whose bytes after the name are made already; return how many."""
        self._check_open()
        wire = self._wire
        head = b"#%b" % wire.name if wire.mid is None else b"#%b[%d]" % (wire.name, wire.mid)
        tails = list(tails)
        if tails:
            self.session.send_informs(head + head.join(tails))
        return len(tails)

    async def drain(self) -> None:
        """Let others run, and wait until the client has read most of what it was sent.

        A handler that sends much calls this now and then: its client then gets what it can read, and no
        more waits in memory.
        """
        await self.session.wait_turn()

    def defer(self, cancel: Callable[[], object]) -> Deferred:
        """Answer later, from outside of trio's tasks: a ``def`` handler returns what this returns.

        The request counts as pending until the `Deferred` is settled. It outlives its client, who then gets
        no answer, and ends with the server at the latest.

        Args:
            cancel: asks whoever makes the answer to stop. The `Deferred` has to be settled all the same.
        """
        return Deferred(self, cancel)

    def _check_open(self) -> None:
        if self.replied:
            raise RuntimeError(f"request ?{self.name} has already been replied to")


class Deferred:
    """A request whose answer is made outside of trio's tasks, in the thread of the run.

    It is settled once, by `answer` or `fail` or `abandon`; what follows is ignored.
    """

    __slots__ = ("cancel", "ctx", "is_settled")

    def __init__(self, ctx: RequestContext, cancel: Callable[[], object]) -> None:
        self.ctx = ctx
        self.cancel = cancel
        """Asks whoever makes the answer to stop."""
        self.is_settled = False
        """Whether the answer was made."""
        ctx.session.deferred_begins(self)

    def answer(self, result: object) -> None:
        """Answer with what a handler would have returned."""
        if self._settle():
            self.ctx.session.deferred_done(self, result=result)

    def fail(self, error: Exception) -> None:
        """Answer with what a handler would have raised."""
        if self._settle():
            self.ctx.session.deferred_done(self, error=error)

    def abandon(self) -> None:
        """It was cancelled: answer ``fail request cancelled``."""
        if self._settle():
            self.ctx.session.deferred_done(self, is_cancelled=True)

    def _settle(self) -> bool:
        if self.is_settled:
            return False
        self.is_settled = True
        return True
