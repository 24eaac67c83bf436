"""Services to try the network with."""

from __future__ import annotations

from .array import MyArray
from .basic_math import BasicMath
from .echo import Echo
from .heartbeat import Heartbeat

__all__ = ["BasicMath", "Echo", "Heartbeat", "MyArray"]
