"""KATCP on an asyncio loop: the names and the behaviour of aiokatcp 2, over armillary.

New programs use `armillary.katcp`; the documentation says how to move there step by step.
"""

from armillary_compat.collision import warn_of_collision

from ._version import __version__, minor_version
from .client import AbstractSensorWatcher, Client, ProtocolError, SensorWatcher, SyncState
from .connection import Connection, FailReply, InvalidReply
from .core import (
    Address,
    DeviceStatus,
    KatcpSyntaxError,
    Message,
    Now,
    Timestamp,
    TimestampOrNow,
    TypeInfo,
    decode,
    encode,
    get_type,
    register_type,
)
from .sensor import (
    AggregateSensor,
    Reading,
    Sensor,
    SensorSampler,
    SensorSet,
    SimpleAggregateSensor,
)
from .server import DeviceServer, RequestContext
from .time_sync import ClockState, TimeSyncUpdater

__all__ = [
    "AbstractSensorWatcher",
    "Address",
    "AggregateSensor",
    "Client",
    "ClockState",
    "Connection",
    "DeviceServer",
    "DeviceStatus",
    "FailReply",
    "InvalidReply",
    "KatcpSyntaxError",
    "Message",
    "Now",
    "ProtocolError",
    "Reading",
    "RequestContext",
    "Sensor",
    "SensorSampler",
    "SensorSet",
    "SensorWatcher",
    "SimpleAggregateSensor",
    "SyncState",
    "TimeSyncUpdater",
    "Timestamp",
    "TimestampOrNow",
    "TypeInfo",
    "__version__",
    "decode",
    "encode",
    "get_type",
    "minor_version",
    "register_type",
]

warn_of_collision("aiokatcp", "aiokatcp")
