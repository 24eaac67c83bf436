"""What there is at a manager, put together from what it answers: for tables, and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from armillary._wire.text import printable
from armillary.network.protocol.status import STATUS_REQUEST, ManagerStatus, ServiceStatus, rates

from .columns import columns
from .values import json_text

if TYPE_CHECKING:
    from armillary.network.client import Client
    from armillary.network.connection import Connection

__all__ = [
    "CLIENT_TITLES",
    "SERVICE_TITLES",
    "ClientRow",
    "Looker",
    "Overview",
    "ServiceRow",
    "as_json",
    "as_table",
    "client_cells",
    "service_cells",
    "title",
]

SERVICE_TITLES = ("SERVICE", "ADDRESS", "LINKS", "REQUESTS", "WAITING", "RATE", "LOCK")
CLIENT_TITLES = ("CLIENT", "LINKED WITH", "LANGUAGE", "OS")


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service. What is None was not told."""

    name: str
    address: str
    language: str
    os: str
    max_clients: int
    links: Sequence[str] | None = None
    """The network names of those who are linked with it."""
    lock: str | None = None
    """``exclusive``, ``shared`` or None."""
    holders: Sequence[str] | None = None
    """The network names of those who hold the lock."""
    requests: int | None = None
    """How many it was sent since it came."""
    answered: int | None = None
    """How many of them it has answered."""
    waiting: int | None = None
    """How many replies somebody waits for now."""
    rate: float | None = None
    """Requests per second between the last two looks."""


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client. What is None was not told."""

    name: str
    network_name: str
    address: str
    language: str
    os: str
    links: Sequence[str] | None = None
    """The services that it is linked with."""
    locks: Sequence[str] | None = None
    """Those of them whose lock it holds."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everybody at a manager, by name."""

    manager: str
    services: Sequence[ServiceRow]
    clients: Sequence[ClientRow]


class Looker:
    """Looks at a manager again and again, over whatever connection its client has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connection: Connection | None = None
        self._identity: Mapping[str, Any] = {}
        self._status: ManagerStatus | None = None

    async def look(self) -> Overview:
        """What there is now. Rates are of the time since the last look over the same connection.

        Raises:
            ConnectionClosed: there is no connection, or it ended first.
            RemoteError: the manager refuses to say.
            PeerError: what it answered makes no sense.
        """
        from armillary.errors import PeerError
        from armillary.network.protocol.features import STATUS
        from armillary.network.service_link import request_of_manager

        connection = self._client.usable_connection()
        earlier = self._status if connection is self._connection else None
        status = None
        try:
            if STATUS in connection.features:
                status = ManagerStatus.read(await request_of_manager(connection, STATUS_REQUEST))
            # With thousands of clients this is a megabyte: not asked for when nobody has come or gone.
            if earlier is None or status is None or earlier.revision != status.revision:
                self._identity = await self._client.identities()
            overview = _overview(
                self._client.manager_name or "", self._identity, earlier=earlier, status=status
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise PeerError(f"what the manager says of itself makes no sense: {error!r}") from error
        self._connection, self._status = connection, status
        return overview


def _overview(
    manager: str,
    identity: Mapping[str, Any],
    *,
    earlier: ManagerStatus | None,
    status: ManagerStatus | None,
) -> Overview:
    told = {} if status is None else status.services
    by_name = {} if earlier is None or status is None else rates(earlier, status)
    links: dict[str, list[str]] = {}
    locks: dict[str, list[str]] = {}
    for name in sorted(told):
        for linked in told[name].links:
            links.setdefault(linked, []).append(name)
        for holder in told[name].holders:
            locks.setdefault(holder, []).append(name)
    services = identity["services"]
    clients = identity["clients"]
    return Overview(
        manager,
        [
            _service(name, services[name], told.get(name), by_name.get(name))
            for name in sorted(services, key=str.casefold)
        ],
        [
            ClientRow(
                name=str(clients[name].get("name", name)),
                network_name=name,
                address=str(clients[name].get("address", "")),
                language=str(clients[name].get("language", "")),
                os=str(clients[name].get("os", "")),
                links=None if status is None else links.get(name, ()),
                locks=None if status is None else locks.get(name, ()),
            )
            for name in sorted(clients, key=str.casefold)
        ],
    )


def _service(
    name: str, entry: Mapping[str, Any], status: ServiceStatus | None, rate: float | None
) -> ServiceRow:
    most = entry.get("max_clients", -1)
    row = (
        name,
        str(entry.get("address", "")),
        str(entry.get("language", "")),
        str(entry.get("os", "")),
        most if isinstance(most, int) else -1,
    )
    if status is None or status.address != row[1]:
        return ServiceRow(*row)  # it has just come, or is none of the asker's business
    return ServiceRow(
        *row,
        links=status.links,
        lock=status.lock,
        holders=status.holders,
        requests=status.forwarded,
        answered=status.answered,
        waiting=status.waiting,
        rate=rate,
    )


# -- for people ----------------------------------------------------------------------------------------------


def title(overview: Overview) -> str:
    """The manager, and how many there are."""
    services, clients = len(overview.services), len(overview.clients)
    return (
        f"{printable(overview.manager)}  {services} {'service' if services == 1 else 'services'}, "
        f"{clients} {'client' if clients == 1 else 'clients'}"
    )


def service_cells(row: ServiceRow) -> list[str]:
    """A service, under `SERVICE_TITLES`."""
    most = f"/{row.max_clients}" if row.max_clients > 0 else ""
    lock = "" if row.lock is None else f"{row.lock}: {', '.join(row.holders or ())}"
    return [
        printable(row.name),
        printable(row.address),
        f"{'?' if row.links is None else len(row.links)}{most}",
        _number(row.requests),
        _number(row.waiting),
        "" if row.rate is None else f"{row.rate:.1f}/s",
        printable(lock),
    ]


def client_cells(row: ClientRow) -> list[str]:
    """A client, under `CLIENT_TITLES`."""
    locks = row.locks or ()
    links = [f"{name} (locked)" if name in locks else name for name in row.links or ()]
    return [
        printable(row.network_name),
        "?" if row.links is None else printable(", ".join(links)),
        printable(row.language),
        printable(row.os),
    ]


def as_table(overview: Overview) -> str:
    """Lines of columns: the services, and then the clients."""
    blocks = [title(overview)]
    if overview.services:
        blocks.append(columns([SERVICE_TITLES, *map(service_cells, overview.services)]))
    if overview.clients:
        blocks.append(columns([CLIENT_TITLES, *map(client_cells, overview.clients)]))
    return "\n\n".join(blocks)


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


# -- for programs --------------------------------------------------------------------------------------------


def as_json(overview: Overview) -> str:
    """One JSON object, with a line for each service and each client. What was not told is null."""
    blocks = [
        f'"{key}": [' + ",".join(f"\n  {json_text(asdict(row))}" for row in rows) + "\n]"
        for key, rows in (("services", overview.services), ("clients", overview.clients))
    ]
    return f'{{"manager": {json_text(overview.manager)},\n' + ",\n".join(blocks) + "}"
