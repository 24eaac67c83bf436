"""Which requests a manager has forwarded to services that have not answered them yet.

A request is known by who has sent it and by its uid. People at a terminal give none, so theirs are answered
in turn: a service's next reply without a uid belongs to the oldest request of that person that it has to
answer. What nobody waits for any more, because it was cancelled or its requester has gone, is *given up*: the
service may still answer, and that late reply must neither reach anybody nor look like a forgery.

Invariants, which the tests check after every step:

1. Every forwarded request ends in one way: it is answered, or given up, or its service goes before that.
   Those that have not ended are in flight, so the numbers add up.
2. A reply, or a part of one, reaches the peer that has asked, from the service that it has asked, and nobody
   else. After the end of a request, no part of a reply to it reaches anybody.
3. No peer has two requests with the same uid in flight, except requests without a uid.
4. Neither a requester nor a service has more requests in flight than its limit, and no service more requests
   that were given up than theirs.
5. Of a peer that was removed nothing is left, except its network name with requests that it has given up.
6. What is refused changes nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from .features import CANCEL
from .packets import NOTIFICATION_UID
from .peers import Peer
from .refusals import Refused

__all__ = ["Forwarded", "Outstanding", "OutstandingStatistics", "Removal", "Stray", "Unanswered"]

P = TypeVar("P", bound=Peer)

# A script that sends all of its requests before it waits for the first reply sends thousands, not tens of
# thousands. Each costs the manager about half a kilobyte; smaller breaks such scripts, larger lets one client
# take more memory with requests that a service never answers.
PER_REQUESTER = 32_768
# Four of those at once. Smaller lets fewer busy clients keep a service from everybody else.
PER_SERVICE = 131_072
# Old services never answer some requests, so without a bound this would grow for as long as they run. What is
# forgotten costs nobody anything: a reply to it counts as one that was never asked for, not as a late one.
GIVEN_UP_PER_SERVICE = 4096


class Stray(enum.Enum):
    """Why a reply reaches nobody."""

    LATE = "nobody waits for it any more"
    NOT_ASKED = "its sender was not asked for it"
    ANOTHER_WAS_ASKED = "another service was asked for it"
    NOT_A_STREAM = "it is a part of a reply to somebody who wants it whole"


class Forwarded(Generic[P]):
    """A request that a service has been sent."""

    __slots__ = ("is_streaming", "requester", "requester_name", "service", "uid")

    def __init__(self, requester: P, service: P, uid: str, *, is_streaming: bool) -> None:
        self.requester: P | None = requester
        """Who waits for the reply; None if nobody does any more."""
        self.requester_name = requester.network_name
        self.service = service
        self.uid = uid
        self.is_streaming = is_streaming

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the service would understand that nobody waits, and know which request is meant."""
        return bool(self.uid) and CANCEL in self.service.features

    def __repr__(self) -> str:
        return f"<request {self.uid!r} of {self.requester_name} to {self.service.network_name}>"


class Unanswered(NamedTuple, Generic[P]):
    """A request that will get no reply from its service: answer it with this error."""

    requester: P
    uid: str
    error: Refused


class Removal(NamedTuple, Generic[P]):
    """What is to be done because a peer has gone."""

    unanswered: list[Unanswered[P]]
    """Requests of others that it leaves without a reply."""
    to_cancel: list[Forwarded[P]]
    """Its own requests, at services that can be told that nobody waits for the replies."""


@dataclass(frozen=True, slots=True)
class OutstandingStatistics:
    """Numbers of requests, since the beginning if not said otherwise."""

    forwarded: int
    in_flight: int
    """Now."""
    answered: int
    parts: int
    """Items and progress that were delivered before the replies that they belong to."""
    given_up: int
    """Cancelled, or left behind by a requester that has gone."""
    unanswered: int
    """Left behind by a service that has gone."""
    refused: int
    """Not forwarded: a limit was reached, or the uid was in use."""
    strays: Mapping[Stray, int]
    """Replies that have reached nobody."""


class _Requester(Generic[P]):
    __slots__ = ("named", "unnamed")

    def __init__(self) -> None:
        self.named: dict[str, Forwarded[P]] = {}
        self.unnamed: dict[Forwarded[P], None] = {}


class _Service(Generic[P]):
    __slots__ = ("answered", "forwarded", "given_up", "in_flight", "named", "unnamed")

    def __init__(self) -> None:
        self.named: dict[tuple[str, str], Forwarded[P]] = {}
        self.unnamed: dict[str, deque[Forwarded[P]]] = {}
        self.forwarded = 0
        self.answered = 0
        self.in_flight = 0
        self.given_up: dict[Forwarded[P], None] = {}

    def find(self, requester_name: str, uid: str) -> Forwarded[P] | None:
        if uid:
            return self.named.get((requester_name, uid))
        queue = self.unnamed.get(requester_name)
        return queue[0] if queue else None

    def forget(self, request: Forwarded[P]) -> None:
        if request.uid:
            del self.named[request.requester_name, request.uid]
            return
        # It is the first in its line: replies are for the first, and whoever has left has left them all.
        queue = self.unnamed[request.requester_name]
        queue.popleft()
        if not queue:
            del self.unnamed[request.requester_name]


class Outstanding(Generic[P]):
    """The requests of one manager that were forwarded and not answered yet.

    A request beyond a limit is refused at once, with the numbers; those in flight are not touched.

    Args:
        manager_name: ``Manager[HOST:PORT]``, for error texts.
        per_requester: how many requests of one peer may be in flight.
        per_service: how many requests to one service may be in flight.
        given_up_per_service: how many requests that nobody waits for any more are remembered of one service;
            beyond, the oldest is forgotten.
    """

    def __init__(
        self,
        manager_name: str,
        *,
        per_requester: int = PER_REQUESTER,
        per_service: int = PER_SERVICE,
        given_up_per_service: int = GIVEN_UP_PER_SERVICE,
    ) -> None:
        if min(per_requester, per_service, given_up_per_service) < 1:
            raise ValueError("expected limits of at least 1")
        self._manager_name = manager_name
        self._per_requester = per_requester
        self._per_service = per_service
        self._given_up_per_service = given_up_per_service
        # By network name, since that is what replies say.
        self._requesters: dict[str, _Requester[P]] = {}
        self._services: dict[P, _Service[P]] = {}
        self._forwarded = 0
        self._answered = 0
        self._parts = 0
        self._given_up = 0
        self._unanswered = 0
        self._refused = 0
        self._strays = dict.fromkeys(Stray, 0)

    # -- what happens --------------------------------------------------------------------------------------

    def forward(self, requester: P, service: P, uid: str, *, is_streaming: bool = False) -> None:
        """A request is about to be forwarded. Both peers must be there: neither was removed.

        Args:
            requester: who asks.
            service: who is asked.
            uid: of the request; empty if it has none.
            is_streaming: whether the requester takes parts of the reply before its end.

        Raises:
            Refused: the uid is in use or reserved, or a limit is reached. Answer so, and do not forward it.
        """
        name = requester.network_name
        own = self._requesters.get(name)
        if own is None:
            own = self._requesters[name] = _Requester()
        at = self._services.get(service)
        if at is None:
            at = self._services[service] = _Service()
        if uid:
            key = (name, uid)
            if uid in own.named or key in at.named or uid == NOTIFICATION_UID:
                self._refuse_uid(name, uid)
        if len(own.named) + len(own.unnamed) >= self._per_requester:
            self._refuse(
                RuntimeError, f"{name} waits for {self._per_requester} replies already, which is the limit"
            )
        if at.in_flight >= self._per_service:
            self._refuse(
                RuntimeError,
                f"the {service.name!r} Service has {self._per_service} requests to answer already, "
                "which is the limit",
            )
        request = Forwarded(requester, service, uid, is_streaming=is_streaming)
        if uid:
            own.named[uid] = at.named[key] = request
        else:
            own.unnamed[request] = None
            at.unnamed.setdefault(name, deque()).append(request)
        at.in_flight += 1
        at.forwarded += 1
        self._forwarded += 1

    def answer(self, sender: P, requester_name: str, uid: str, *, is_last: bool = True) -> P | Stray:
        """A reply has come. Return who gets it, or why nobody does.

        Args:
            sender: from whom it came.
            requester_name: for whom it says that it is.
            uid: of the request; empty if the reply has none.
            is_last: whether the reply ends with it; an item of a stream and progress do not end it.
        """
        at = self._services.get(sender)
        request = None if at is None else at.find(requester_name, uid)
        if at is None or request is None:
            own = self._requesters.get(requester_name)
            asked_another = own is not None and (uid in own.named if uid else bool(own.unnamed))
            return self._stray(Stray.ANOTHER_WAS_ASKED if asked_another else Stray.NOT_ASKED)
        requester = request.requester
        if requester is None:
            if is_last:
                at.forget(request)
                del at.given_up[request]
            return self._stray(Stray.LATE)
        if is_last:
            at.forget(request)
            at.in_flight -= 1
            at.answered += 1
            self._disown(request)
            self._answered += 1
        elif request.is_streaming:
            self._parts += 1
        else:
            return self._stray(Stray.NOT_A_STREAM)
        return requester

    def cancel(self, requester: P, uid: str) -> Forwarded[P] | None:
        """A requester does not wait for a reply any more. Return what was given up; None if nothing was.

        The service is to be told if the request `can_be_cancelled`. Nothing is found once the reply has been
        delivered, and requests without a uid cannot be told apart.
        """
        own = self._requesters.get(requester.network_name)
        request = None if own is None else own.named.get(uid)
        if request is not None:
            self._give_up(request)
        return request

    def remove(self, peer: P) -> Removal[P]:
        """A peer has gone: end everything that it has asked and that it was asked."""
        own = self._requesters.get(peer.network_name)
        given_up = [] if own is None else [*own.named.values(), *own.unnamed]
        for request in given_up:
            self._give_up(request)
        self._requesters.pop(peer.network_name, None)
        at = self._services.pop(peer, None)
        unanswered = []
        if at is not None:
            error = Refused(
                ConnectionAbortedError,
                f"the {peer.name!r} Service disconnected from {self._manager_name} before it replied",
            )
            left = [*at.named.values(), *(request for queue in at.unnamed.values() for request in queue)]
            for request in left:
                if request.requester is not None:
                    unanswered.append(Unanswered(request.requester, request.uid, error))
                    self._disown(request)
            self._unanswered += len(unanswered)
        return Removal(
            unanswered,
            [request for request in given_up if request.can_be_cancelled and request.service is not peer],
        )

    # -- what is known -------------------------------------------------------------------------------------

    def asked(self, requester: P, uid: str) -> P | None:
        """The service that a request in flight was forwarded to: what belongs to it goes there as well."""
        own = self._requesters.get(requester.network_name)
        request = None if own is None else own.named.get(uid)
        return None if request is None else request.service

    def forwarded_to(self, service: P) -> int:
        """How many requests a service was sent since it came."""
        at = self._services.get(service)
        return 0 if at is None else at.forwarded

    def answered_by(self, service: P) -> int:
        """How many replies of a service, not counting parts of them, were delivered since it came."""
        at = self._services.get(service)
        return 0 if at is None else at.answered

    def in_flight_at(self, service: P) -> int:
        """How many requests a service has to answer, not counting those that were given up."""
        at = self._services.get(service)
        return 0 if at is None else at.in_flight

    def in_flight_of(self, requester: P) -> int:
        """How many replies a peer waits for."""
        own = self._requesters.get(requester.network_name)
        return 0 if own is None else len(own.named) + len(own.unnamed)

    def statistics(self) -> OutstandingStatistics:
        """What has happened so far."""
        return OutstandingStatistics(
            forwarded=self._forwarded,
            in_flight=self._forwarded - self._answered - self._given_up - self._unanswered,
            answered=self._answered,
            parts=self._parts,
            given_up=self._given_up,
            unanswered=self._unanswered,
            refused=self._refused,
            strays=dict(self._strays),
        )

    # -- inside --------------------------------------------------------------------------------------------

    def _give_up(self, request: Forwarded[P]) -> None:
        self._disown(request)
        request.requester = None
        self._given_up += 1
        at = self._services[request.service]
        at.in_flight -= 1
        at.given_up[request] = None
        if len(at.given_up) > self._given_up_per_service:
            oldest = next(iter(at.given_up))
            del at.given_up[oldest]
            at.forget(oldest)

    def _disown(self, request: Forwarded[P]) -> None:
        own = self._requesters[request.requester_name]
        if request.uid:
            del own.named[request.uid]
        else:
            del own.unnamed[request]

    def _stray(self, why: Stray) -> Stray:
        self._strays[why] += 1
        return why

    def _refuse_uid(self, name: str, uid: str) -> None:
        if uid == NOTIFICATION_UID:
            self._refuse(ValueError, f"{uid!r} is reserved, it cannot be the uid of a request")
        self._refuse(ValueError, f"the uid {uid!r} belongs to an earlier request of {name} without a reply")

    def _refuse(self, kind: type[Exception], text: str) -> None:
        self._refused += 1
        raise Refused(kind, text)
