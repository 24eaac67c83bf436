"""A peer, as a manager knows it while it is connected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .protocol.peers import Peer

__all__ = ["ManagedPeer"]


@dataclass(eq=False, slots=True)
class ManagedPeer(Peer):
    """A peer with its `PeerSession`."""

    session: Any = None
