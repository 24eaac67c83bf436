"""KATCP device control: devices and their servers, clients, sensors, sampling and mirrors.

Ready-made groups of sensors live in modules of their own, which load what they read:
`armillary.katcp.telemetry` (this host) and `armillary.katcp.clock` (clock synchronisation).
"""

from armillary._runtime.dial import bound_ports
from armillary._wire.backoff import Backoff

from .aggregates import AggregateSensor, SimpleAggregateSensor
from .client import Client, open_client, open_client_on
from .connection import ClientStatistics, PendingRequest
from .device import Device, DeviceStatistics, request_timeout_hint
from .groups import Above, Below, SensorGroup, sample_group
from .logs import LogHandler, forward_logs
from .mirror import MirroredSensors, SensorChange
from .protocol.conversation import ProtocolError
from .protocol.handlers import ArgumentError
from .protocol.lifecycle import ClientState
from .protocol.messages import DEFAULT_LIMIT, FailReply, InvalidReply, Message, MessageType, Reply
from .protocol.mirroring import SensorDescription, SyncState
from .protocol.readings import Reading, SensorStatus
from .protocol.sampling import Sampling, Strategy
from .protocol.values import (
    STANDARD_TYPES,
    Address,
    DeviceStatus,
    KatcpSyntaxError,
    LogLevel,
    Now,
    Timestamp,
    TimestampOrNow,
    TypeInfo,
    TypeRegistry,
)
from .reconnect import PersistentClient, open_persistent_client
from .requests import RequestContext
from .sensor_set import SensorSet
from .sensors import Sensor
from .server import serve_device, serve_device_on
from .session import SessionStatistics

__all__ = [
    "Above",
    "Address",
    "AggregateSensor",
    "ArgumentError",
    "Backoff",
    "Below",
    "Client",
    "ClientState",
    "ClientStatistics",
    "DEFAULT_LIMIT",
    "Device",
    "DeviceStatistics",
    "DeviceStatus",
    "FailReply",
    "InvalidReply",
    "KatcpSyntaxError",
    "LogHandler",
    "LogLevel",
    "Message",
    "MessageType",
    "MirroredSensors",
    "Now",
    "PendingRequest",
    "PersistentClient",
    "ProtocolError",
    "Reading",
    "Reply",
    "RequestContext",
    "STANDARD_TYPES",
    "Sampling",
    "Sensor",
    "SensorChange",
    "SensorDescription",
    "SensorGroup",
    "SensorSet",
    "SensorStatus",
    "SessionStatistics",
    "SimpleAggregateSensor",
    "Strategy",
    "SyncState",
    "Timestamp",
    "TimestampOrNow",
    "TypeInfo",
    "TypeRegistry",
    "bound_ports",
    "forward_logs",
    "open_client",
    "open_client_on",
    "open_persistent_client",
    "request_timeout_hint",
    "sample_group",
    "serve_device",
    "serve_device_on",
]
