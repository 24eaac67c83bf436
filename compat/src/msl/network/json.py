"""JSON by a package of one's choice: the standard library's, or a faster one that is installed.

``MSL_NETWORK_JSON`` names the package to begin with, and `use` another one, for the whole process. Peers need
not use the same: what one writes, the others can read, except for ``NaN`` and ``Infinity``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from enum import Enum
from typing import Any

__all__ = ["Package", "backend", "deserialize", "serialize", "use"]

# RapidJSON's NM_NATIVE, by its value: numbers are those of the machine, which is faster than exact ones.
_NATIVE_NUMBERS = 4


class Package(Enum):
    """The packages that there are."""

    BUILTIN = "BUILTIN"
    JSON = BUILTIN
    ULTRA = "ULTRA"
    UJSON = ULTRA
    RAPID = "RAPID"
    RAPIDJSON = RAPID
    SIMPLE = "SIMPLE"
    SIMPLEJSON = SIMPLE
    OR = "OR"
    ORJSON = OR


# Of each: what it is imported as, and the keyword arguments of its loads and dumps.
_PACKAGES: dict[Package, tuple[str, dict[str, Any], dict[str, Any]]] = {
    Package.BUILTIN: ("json", {}, {"ensure_ascii": False}),
    Package.ULTRA: (
        "ujson",
        {},
        {"ensure_ascii": False, "encode_html_chars": False, "escape_forward_slashes": False, "indent": 0},
    ),
    Package.RAPID: (
        "rapidjson",
        {"number_mode": _NATIVE_NUMBERS},
        {"ensure_ascii": False, "number_mode": _NATIVE_NUMBERS},
    ),
    Package.SIMPLE: ("simplejson", {}, {"ensure_ascii": False}),
    Package.OR: ("orjson", {}, {}),
}


class _Backend:
    """The package that is in use."""

    enum: Package
    name: str
    """What it is imported as."""
    loads: Callable[..., Any]
    dumps: Callable[..., Any]
    kwargs_loads: dict[str, Any]
    kwargs_dumps: dict[str, Any]

    def __init__(self, value: Package | str) -> None:
        self.use(value)

    def use(self, value: Package | str) -> None:
        """See the function of that name."""
        package = value if isinstance(value, Package) else Package[str(value).upper()]
        name, kwargs_loads, kwargs_dumps = _PACKAGES[package]
        module = importlib.import_module(name)
        self.enum = package
        self.name = name
        self.loads = module.loads
        self.dumps = module.dumps
        self.kwargs_loads = dict(kwargs_loads)
        self.kwargs_dumps = dict(kwargs_dumps)


def use(value: Package | str) -> None:
    """Use another package from now on.

    Args:
        value: the package, or one of its names in any case.

    Raises:
        KeyError: no package has that name.
        ImportError: it is not installed. The one that was in use stays so.
    """
    backend.use(value)


def serialize(obj: Any) -> str:
    """The JSON text of an object. An object with a method ``to_json()`` is what that returns, at any depth.

    Raises:
        TypeError: something in it is not JSON serializable.
    """
    if callable(to_json := getattr(obj, "to_json", None)) and not isinstance(obj, type):
        # A package writes what it knows, a subclass of dict for example, without asking.
        obj = to_json()
    text = backend.dumps(obj, default=_to_json, **backend.kwargs_dumps)
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def _to_json(obj: Any) -> Any:
    """What a package writes in place of an object that it does not know."""
    if callable(to_json := getattr(obj, "to_json", None)) and not isinstance(obj, type):
        return to_json()
    # In the words that all packages but orjson have for it.
    raise TypeError(f"Object of type {type(obj).__name__} is not JSON serializable")


def deserialize(s: str | bytes | bytearray) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON.
    """
    # simplejson takes no bytearray.
    return backend.loads(bytes(s) if isinstance(s, bytearray) else s, **backend.kwargs_loads)


backend = _Backend(os.environ.get("MSL_NETWORK_JSON", Package.BUILTIN.name))
"""The package that is in use."""
