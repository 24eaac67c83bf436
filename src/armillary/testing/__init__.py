"""Devices, labs and clients inside a test's nursery: streams in memory, virtual time, no ports.

``pytest_plugins = ["armillary.testing.fixtures"]`` in a ``conftest.py`` makes the fixtures of
`armillary.testing.fixtures` available; they need ``pytest-trio``.
"""

from .devices import DemoDevice, ServedDevice, serve_in_memory
from .faults import FaultyStream
from .labs import Lab, open_lab
from .peers import RawPeer
from .services import DemoService
from .streams import MemoryListener, bounded_stream_pair

__all__ = [
    "DemoDevice",
    "DemoService",
    "FaultyStream",
    "Lab",
    "MemoryListener",
    "RawPeer",
    "ServedDevice",
    "bounded_stream_pair",
    "open_lab",
    "serve_in_memory",
]
