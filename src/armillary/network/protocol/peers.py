"""Who is connected to a manager: one record for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Peer", "PeerType"]

PeerType = Literal["client", "service"]


@dataclass(eq=False, slots=True)
class Peer:
    """A client or a service, as it has identified itself. Two records are equal only if they are the same.

    A program that needs more of a peer, such as where its packets go, adds it in a subclass.

    Attributes:
        type: what it is.
        name: what it calls itself; a service is asked by this name.
        address: ``HOST:PORT``, as the manager sees it.
        language: what it is written in.
        os: what it runs on.
        attributes: a service's interface: what can be asked of it, by name.
        max_clients: how many may be linked with a service at once; there is no limit if it is not positive.
        links_required: whether a service answers only those who are linked with it.
        features: what was negotiated with it; empty for peers that know nothing of features.
        last_heard: when the last sign of life came from it, in seconds of the manager's clock.
        network_name: ``NAME[HOST:PORT]``, which nobody else has.
    """

    type: PeerType
    name: str
    address: str
    language: str = "unknown"
    os: str = "unknown"
    attributes: Mapping[str, object] = field(default_factory=dict)
    max_clients: int = -1
    links_required: bool = False
    features: frozenset[str] = frozenset()
    last_heard: float = 0.0
    network_name: str = field(init=False)

    def __post_init__(self) -> None:
        # Kept, because every packet of the peer needs it.
        self.network_name = f"{self.name}[{self.address}]"

    def __str__(self) -> str:
        return self.network_name

    def entry(self) -> dict[str, object]:
        """What others are told of it, as the manager's identity and the answer to ``link`` have it."""
        if self.type == "client":
            return {"name": self.name, "address": self.address, "language": self.language, "os": self.os}
        return {
            "attributes": self.attributes,
            "address": self.address,
            "language": self.language,
            "os": self.os,
            # As 1.0 says it, so that everybody recognises "no limit".
            "max_clients": self.max_clients if self.max_clients > 0 else -1,
        }
