"""Who is who: what a device says of itself, what a manager says of everybody, and how people are shown it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .codec import STANDARD, TooDeep, json_type
from .features import announced, announcement

__all__ = [
    "MANAGER",
    "MANAGER_ATTRIBUTES",
    "Identity",
    "identities_as_text",
    "manager_identity",
    "manager_name",
    "service_is_running",
]

MANAGER = "Manager"
"""The name by which every manager is addressed."""
MANAGER_ATTRIBUTES = {"identity": "() -> dict", "link": "(service: str) -> bool"}
"""What a manager says can be asked of it."""

# Nobody's name is longer. A larger limit makes every packet that carries the name as much larger.
_LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device answers when the manager asks who it is."""

    type: Literal["client", "service"]
    name: str
    """A service is asked by this name; several clients may have the same."""
    language: str = "unknown"
    os: str = "unknown"
    attributes: Mapping[str, object] = field(default_factory=dict)
    """A service's interface: by name, a signature, as ``(n=1) -> float``, or the value of a constant."""
    max_clients: int = -1
    """How many clients may be linked with a service; -1 is no limit."""
    features: frozenset[str] = frozenset()
    """What it can do beyond 1.0, whether or not the manager has offered it."""
    links_required: bool = False
    """Whether a service answers only those who are linked with it; managers of 1.0 do not know of that."""

    @classmethod
    def read(cls, answer: object) -> Identity:
        """Check what a device answered, JSON's values or what `parse_terminal_input` made of a line.

        Raises:
            KeyError: a key that is needed is missing; the error's argument is its name.
            TypeError: a value is of the wrong type, or the type is neither client nor service.
            ValueError: the name cannot be used.
        """
        if not isinstance(answer, dict):
            raise TypeError(f"expected an object as the identity, got {json_type(answer)}")
        said = _string(answer, "type")
        if (what := said.lower()) not in ("client", "service"):
            raise TypeError(f'Unknown connection type {said!r}. Must be "client" or "service"')
        return cls(
            type="client" if what == "client" else "service",
            name=_name(answer),
            language=_description(answer, "language"),
            os=_description(answer, "os"),
            attributes=_attributes(answer) if what == "service" else {},
            max_clients=_max_clients(answer) if what == "service" else -1,
            features=announced(answer),
            links_required=what == "service" and answer.get("links_required") is True,
        )

    def answer(self) -> dict[str, object]:
        """The identity as a device sends it."""
        answer: dict[str, object] = {"type": self.type, "name": self.name}
        if self.type == "service":
            answer["attributes"] = self.attributes
            answer["max_clients"] = self.max_clients
            if self.links_required:
                answer["links_required"] = True
        return {**answer, "language": self.language, "os": self.os, **announcement(self.features)}


def service_is_running(name: str) -> NameError:
    """What a service is told whose name is taken."""
    return NameError(f"A {name!r} service is already running on the Manager")


def manager_name(hostname: str, port: int) -> str:
    """A manager's full name, which is the `requester` of what it asks itself."""
    return f"{MANAGER}[{hostname}:{port}]"


def manager_identity(
    *,
    hostname: str,
    port: int,
    language: str,
    os: str,
    clients: Mapping[str, object],
    services: Mapping[str, object],
) -> dict[str, object]:
    """What a manager answers when it is asked who it is.

    Args:
        hostname: of the manager's machine.
        port: that it listens on.
        language: as in an `Identity`.
        os: likewise.
        clients: by network name, each with its ``name, address, language, os``.
        services: by name, each with its ``attributes, address, language, os, max_clients``.
    """
    return {
        "hostname": hostname,
        "port": port,
        "attributes": dict(MANAGER_ATTRIBUTES),
        "language": language,
        "os": os,
        "clients": clients,
        "services": services,
    }


def identities_as_text(identity: Mapping[str, Any], *, indent: int = 2) -> str:
    """What `manager_identity` says, for people.

    Args:
        identity: as the manager answered it.
        indent: blanks for each level.
    """
    return "\n".join(" " * (indent * level) + text for level, text in _text(identity))


def _text(identity: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Lines, each with its level."""
    clients, services = identity["clients"], identity["services"]
    yield 0, manager_name(identity["hostname"], identity["port"])
    yield from _description_text(1, identity, hidden=("hostname", "port", "clients", "services"))
    yield 0, f"Clients [{len(clients)}]:"
    for name in sorted(clients):
        yield 1, name
        yield from _description_text(2, clients[name], hidden=("name", "address"))
    yield 0, f"Services [{len(services)}]:"
    for name in sorted(services):
        yield 1, f"{name}[{services[name]['address']}]"
        yield from _description_text(2, services[name], hidden=("address",))


def _description_text(
    level: int, description: Mapping[str, Any], hidden: tuple[str, ...]
) -> Iterator[tuple[int, str]]:
    for key in sorted(description.keys() - set(hidden)):
        if key == "attributes":
            yield level, "attributes:"
            for name, what in sorted(description[key].items()):
                is_signature = isinstance(what, str) and what.startswith("(")
                yield level + 1, f"{name}{what}" if is_signature else f"{name}() -> {what}"
        else:
            yield level, f"{key}: {description[key]}"


def _name(answer: dict[str, Any]) -> str:
    name = _string(answer, "name")
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"expected a name of 1 to {_LONGEST_NAME} printable characters, got {name[:_LONGEST_NAME]!r}"
        )
    return name


def _string(answer: dict[str, Any], key: str) -> str:
    value = answer[key]
    if not isinstance(value, str):
        raise TypeError(f"expected a string as the {key} of an identity, got {json_type(value)}")
    return value


def _description(answer: dict[str, Any], key: str) -> str:
    """What no program acts upon: of another type, it is as good as its text."""
    return str(answer.get(key, "unknown"))


def _attributes(answer: dict[str, Any]) -> dict[str, object]:
    attributes = answer["attributes"]
    if not isinstance(attributes, dict):
        raise TypeError(f"expected an object as the attributes of a service, got {json_type(attributes)}")
    try:
        # They are repeated to others, inside four objects more, by a manager that must be able to write that.
        STANDARD.encode({"result": {"services": {"": {"": attributes}}}})
    except TooDeep:
        raise ValueError("expected attributes of a service that are not nested as deeply") from None
    return attributes


def _max_clients(answer: dict[str, Any]) -> int:
    value = answer.get("max_clients")
    if value is None:
        return -1
    if isinstance(value, float) and value.is_integer():
        # Not every language keeps 1 and 1.0 apart.
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a whole number as the max_clients of a service, got {value!r}")
    return value if value > 0 else -1
