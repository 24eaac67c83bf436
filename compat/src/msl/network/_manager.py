"""What a manager and its peers look like from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from armillary.network.client import LANGUAGE, OS
from armillary.network.protocol.identities import manager_identity, manager_name

from .constants import HOSTNAME
from .network import Network

if TYPE_CHECKING:
    from armillary.network.manager import Manager as NativeManager

    from .database import ConnectionsTable, HostnamesTable, UsersTable

__all__ = ["Manager", "Peer"]


class Manager(Network):
    """A manager: how it was set up, and who is connected with it. Made by `run_forever` and `run_services`.

    Args:
        port: where it listens.
        password: what everybody has to know; None if nothing.
        login: whether everybody has to log in; None if not.
        hostnames: the trusted hosts, if everybody has to come from one; None otherwise.
        connections_table: where connections are recorded.
        users_table: who may log in.
        hostnames_table: which hosts are trusted.
        loop: nothing that is used.
    """

    def __init__(
        self,
        port: int,
        password: str | None,
        login: bool | None,
        hostnames: list[str] | None,
        connections_table: ConnectionsTable,
        users_table: UsersTable,
        hostnames_table: HostnamesTable,
        loop: Any,
    ) -> None:
        self.port = port
        self.password = password
        self.login = login
        self.hostnames = hostnames
        self.connections_table = connections_table
        self.users_table = users_table
        self.hostnames_table = hostnames_table
        self._loop = loop
        self._native: NativeManager | None = None

    def __str__(self) -> str:
        return manager_name(HOSTNAME, self.port)

    @property
    def clients(self) -> dict[str, Mapping[str, object]]:
        """The clients that are connected, by their network names."""
        return {} if self._native is None else self._native.registry.clients()

    @property
    def services(self) -> dict[str, Mapping[str, object]]:
        """The services that are connected, by their names."""
        return {} if self._native is None else self._native.registry.services()

    @property
    def service_links(self) -> dict[str, list[str]]:
        """The clients that are linked with each service."""
        rows = [] if self._native is None else self._native.registry.table()
        return {row.name: list(row.links) for row in rows}

    @property
    def service_locks(self) -> dict[str, list[str]]:
        """The clients that have locked each service."""
        rows = [] if self._native is None else self._native.registry.table()
        return {row.name: list(row.holders) for row in rows}

    @property
    def client_writers(self) -> dict[str, Peer]:
        """Whom the manager writes to, by the network names of the clients."""
        return {peer.network_name: peer for peer in self._peers("client")}

    @property
    def service_writers(self) -> dict[str, Peer]:
        """Whom the manager writes to, by the network names of the services."""
        return {peer.network_name: peer for peer in self._peers("service")}

    def identity(self) -> dict[str, Any]:
        """What the manager tells everybody who asks."""
        if self._native is not None:
            return self._native.identity()
        return manager_identity(
            hostname=HOSTNAME, port=self.port, language=LANGUAGE, os=OS, clients={}, services={}
        )

    def _peers(self, kind: str) -> list[Peer]:
        peers = [] if self._native is None else self._native.registry.peers()
        return [Peer(peer.session) for peer in peers if peer.type == kind]


class Peer:
    """Who is connected to a manager. Made by the manager.

    Args:
        writer: the manager's side of the connection.
    """

    def __init__(self, writer: Any) -> None:
        host = writer.host
        self.is_admin: bool = writer.role.administrate
        self.ip_address: str = host.ip
        self.port: int = host.port
        self.domain: str = host.domain
        self.hostname: str = host.hostname
        self.address: str = host.address
        self.network_name: str = writer.name
