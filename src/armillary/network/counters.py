"""What has happened at a manager since it began, counted where it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer_session import PeerSession

__all__ = ["Counters", "Traffic"]


@dataclass(slots=True)
class Counters:
    """How connections, logins and requests have ended. They only grow."""

    connections_accepted: int = 0
    """Peers that were let in."""
    connections_refused: int = 0
    """Connections that were told why they are not let in."""
    connections_abandoned: int = 0
    """Connections that ended before anybody could tell whether they may come in."""
    logins_accepted: int = 0
    """Passwords that were right, those of administrators who have logged in later included."""
    logins_refused: int = 0
    """Names that no user has, and passwords that were wrong."""
    login_pauses: int = 0
    """Pauses before a password is looked at, because of earlier failures from that address."""
    requests_refused: int = 0
    """Requests to services that were not forwarded, whatever the reason."""


@dataclass(slots=True)
class Traffic:
    """What went through connections, those that have ended included."""

    packets: int = 0
    """Packets that came from peers."""
    malformed: int = 0
    """Lines that were no packets."""
    bytes_received: int = 0
    bytes_sent: int = 0
    notifications: int = 0
    """Notifications that came from services."""
    notifications_sent: int = 0
    """Copies of them that were sent, one to every peer that is linked."""
    notifications_dropped: int = 0
    """Copies that were not sent, because a peer does not read."""
    backlog: int = 0
    """Bytes that wait to be read by peers now: the only number that also falls."""

    def add(self, session: PeerSession) -> None:
        """Add what one connection has counted, except its backlog."""
        self.packets += session.received
        self.malformed += session.malformed
        self.bytes_received += session.bytes_received
        self.bytes_sent += session.outbox.bytes_sent
        self.notifications += session.notifications
        self.notifications_sent += session.notifications_sent
        self.notifications_dropped += session.notifications_dropped
