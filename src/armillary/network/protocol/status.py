"""What goes on at a manager: who is linked with which service, who holds its lock, and what it was asked.

The manager's ``identity`` says who is there, as in 1.0; this says what they do. It is the answer to the
request ``status``, which takes no arguments and which everybody may make who sees the identity. Services that
the asker may not use are left out. A manager of 1.0 would ask for an administrator's password, so it is to
be asked only by who has agreed on the feature ``status``. The answer::

    {"clock": 86400.5, "revision": 7, "services": {"DMM": {"address": "lab7:51030",
     "links": ["Bench A[lab7:51022]"], "lock": "exclusive", "holders": ["Bench A[lab7:51022]"],
     "forwarded": 120, "answered": 119, "waiting": 1}}}

The numbers only grow, except for those that wait; from two answers follow the rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .codec import json_type

__all__ = ["STATUS_REQUEST", "ManagerStatus", "ServiceStatus", "rates"]

STATUS_REQUEST = "status"
"""What the manager is asked for."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How a service is used."""

    address: str
    """``HOST:PORT``, by which a service that was started again is told from the earlier one."""
    links: tuple[str, ...] = ()
    """The network names of those who are linked with it."""
    lock: str | None = None
    """``exclusive``, ``shared`` or None."""
    holders: tuple[str, ...] = ()
    """The network names of those who hold the lock."""
    forwarded: int = 0
    """How many requests it was sent since it came."""
    answered: int = 0
    """How many of them it has answered to somebody who still waited."""
    waiting: int = 0
    """How many replies somebody waits for now."""

    def answer(self) -> dict[str, object]:
        """It as JSON's values."""
        return {
            "address": self.address,
            "links": list(self.links),
            "lock": self.lock,
            "holders": list(self.holders),
            "forwarded": self.forwarded,
            "answered": self.answered,
            "waiting": self.waiting,
        }

    @classmethod
    def read(cls, answer: object) -> ServiceStatus:
        """The opposite of `answer`. Raises what `ManagerStatus.read` raises."""
        entry = _object(answer, "a service's status")
        lock = entry["lock"]
        return cls(
            address=_of(entry, "address", str),
            links=_names(entry, "links"),
            lock=None if lock is None else _of(entry, "lock", str),
            holders=_names(entry, "holders"),
            forwarded=_of(entry, "forwarded", int),
            answered=_of(entry, "answered", int),
            waiting=_of(entry, "waiting", int),
        )


@dataclass(frozen=True, slots=True)
class ManagerStatus:
    """A look at a manager."""

    clock: float
    """When it was, in seconds of a clock of the manager's own: only differences mean something."""
    revision: int
    """Another number whenever somebody has come or gone: what the identity said before is out of date."""
    services: Mapping[str, ServiceStatus]
    """By name."""

    def answer(self) -> dict[str, object]:
        """What the manager answers."""
        return {
            "clock": self.clock,
            "revision": self.revision,
            "services": {name: service.answer() for name, service in self.services.items()},
        }

    @classmethod
    def read(cls, answer: object) -> ManagerStatus:
        """Check what a manager has answered. Keys that are not known are ignored.

        Raises:
            KeyError: a key is missing; the error's argument is its name.
            TypeError: a value is of the wrong type.
        """
        entries = _object(answer, "a manager's status")
        services = _object(entries["services"], "the services of a manager's status")
        return cls(
            clock=float(_of(entries, "clock", int, float)),
            revision=_of(entries, "revision", int),
            services={name: ServiceStatus.read(entry) for name, entry in services.items()},
        )


def rates(earlier: ManagerStatus, later: ManagerStatus) -> dict[str, float]:
    """Requests per second to each service between two looks at one manager.

    A service that was not there the first time, or was another one then, has none.
    """
    seconds = later.clock - earlier.clock
    if not seconds > 0:
        return {}
    found = {}
    for name, service in later.services.items():
        before = earlier.services.get(name)
        if before is not None and before.address == service.address:
            found[name] = max(0, service.forwarded - before.forwarded) / seconds
    return found


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object as {what}, got {json_type(value)}")
    return value


def _of(entry: Mapping[str, Any], key: str, *types: type) -> Any:
    value = entry[key]
    if not isinstance(value, types) or isinstance(value, bool):
        raise TypeError(f"unexpected {json_type(value)} as {key!r} in a status")
    return value


def _names(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = _of(entry, key, list)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"expected strings in {key!r} of a status")
    return tuple(names)
