"""Clients: `connect` makes one, and links it with services."""

from __future__ import annotations

from ._client import Client, connect, filter_client_connect_kwargs
from ._link import Link
from ._linked_client import LinkedClient

__all__ = ["Client", "Link", "LinkedClient", "connect", "filter_client_connect_kwargs"]
