"""The lab network: a manager links clients to services by name.

    async with trio.open_nursery() as nursery:
        await nursery.start(network.serve_manager)
        await nursery.start(network.run_service, Multimeter(), "localhost")
        async with network.open_client("localhost") as lab, lab.link("Multimeter") as dmm:
            volts = await dmm.voltage()

It speaks the protocol of MSL-Network 1.0, with peers of either kind on every side.
"""

from armillary._runtime.dial import bound_ports

from .client import Client, open_client, open_client_on
from .errors import (
    LinkRefused,
    LockLost,
    LockRefused,
    PacketTooLarge,
    Rejected,
    RemoteError,
    ServiceGone,
)
from .link import Link
from .manager import Authenticate, ManagerLimits, ManagerStatistics, serve_manager, serve_manager_on
from .notifications import Note, Notifications, Overflow
from .pending_calls import PendingCall
from .protocol.device_handshake import Credentials
from .protocol.identities import identities_as_text
from .protocol.roles import Role, Roles
from .reconnect import PersistentClient, open_persistent_client
from .running_call import CurrentCall, current_call, current_request
from .service import Service, run_service, run_service_on
from .store import Store, open_store
from .streams import ProgressLink, Stream
from .trusting import Trust

__all__ = [
    "Authenticate",
    "Client",
    "Credentials",
    "CurrentCall",
    "Link",
    "LinkRefused",
    "LockLost",
    "LockRefused",
    "ManagerLimits",
    "ManagerStatistics",
    "Note",
    "Notifications",
    "Overflow",
    "PacketTooLarge",
    "PendingCall",
    "PersistentClient",
    "ProgressLink",
    "Rejected",
    "RemoteError",
    "Role",
    "Roles",
    "Service",
    "ServiceGone",
    "Store",
    "Stream",
    "Trust",
    "bound_ports",
    "current_call",
    "current_request",
    "identities_as_text",
    "open_client",
    "open_client_on",
    "open_persistent_client",
    "open_store",
    "run_service",
    "run_service_on",
    "serve_manager",
    "serve_manager_on",
]
