"""What is said to the manager, written by the JSON package that the program has chosen."""

from __future__ import annotations

from typing import Any

from armillary.network.protocol.codec import Codec

from . import json

__all__ = ["CHOSEN"]


class _Chosen(Codec):
    """The package that `json.backend` is at the moment.

    In place of the standard library's stands armillary's own, which writes and reads the same in less time.
    """

    def encode(self, value: object) -> bytes:
        if json.backend.enum is json.Package.BUILTIN:
            return super().encode(value)
        return json.serialize(value).encode("utf-8")

    def decode(self, text: bytes | bytearray | memoryview | str) -> Any:
        if json.backend.enum is json.Package.BUILTIN:
            return super().decode(text)
        return json.deserialize(bytes(text) if isinstance(text, memoryview) else text)


CHOSEN: Codec = _Chosen()
"""Of all clients and services."""
