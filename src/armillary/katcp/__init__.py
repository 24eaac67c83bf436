"""KATCP device control."""

from .protocol.messages import DEFAULT_LIMIT, FailReply, InvalidReply, Message, MessageType, Reply
from .protocol.readings import Reading, SensorStatus
from .protocol.sampling import Sampling, Strategy
from .protocol.sensor_set import SensorSet
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
from .sensors import AggregateSensor, Sensor, SimpleAggregateSensor

__all__ = [
    "DEFAULT_LIMIT",
    "STANDARD_TYPES",
    "Address",
    "AggregateSensor",
    "DeviceStatus",
    "FailReply",
    "InvalidReply",
    "KatcpSyntaxError",
    "LogLevel",
    "Message",
    "MessageType",
    "Now",
    "Reading",
    "Reply",
    "Sampling",
    "Sensor",
    "SensorSet",
    "SensorStatus",
    "SimpleAggregateSensor",
    "Strategy",
    "Timestamp",
    "TimestampOrNow",
    "TypeInfo",
    "TypeRegistry",
]
