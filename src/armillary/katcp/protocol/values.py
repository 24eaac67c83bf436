"""KATCP's data types and their text on the wire (guidelines revision 5, section 4).

A `TypeRegistry` knows which Python class is which KATCP type. `STANDARD_TYPES` holds the types of the
guidelines and is frozen; take a ``copy()`` and ``register`` in it to add your own.
"""

from __future__ import annotations

import enum
import functools
import numbers
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, TypeVar, Union

__all__ = [
    "STANDARD_TYPES",
    "TYPE_BY_NAME",
    "Address",
    "DeviceStatus",
    "KatcpSyntaxError",
    "LogLevel",
    "Now",
    "Timestamp",
    "TimestampOrNow",
    "TypeInfo",
    "TypeRegistry",
]

T = TypeVar("T")

# Classes whose coders a registry remembers. Fewer than are in use makes each look-up search the registry
# (some microseconds); more keeps that many classes alive.
_REMEMBERED_CLASSES = 1024


class KatcpSyntaxError(ValueError):
    """A line is not a KATCP message. ``raw`` holds the line, or None."""

    def __init__(self, message: str, raw: bytes | None = None) -> None:
        super().__init__(message)
        self.raw = raw


class Address:
    """An IP address with an optional port.

    Args:
        host: the address. A host name must be resolved first.
        port: 0 to 65535, or None.
    """

    __slots__ = ("_host", "_port")

    _V6 = re.compile(rb"\[([^]]+)\](?::(\d{1,5}))?")
    _V4 = re.compile(rb"([^:\[\]]+)(?::(\d{1,5}))?")

    def __init__(self, host: IPv4Address | IPv6Address, port: int | None = None) -> None:
        if not isinstance(host, IPv4Address | IPv6Address):
            raise TypeError(f"expected an IPv4Address or IPv6Address, got {host!r}")
        if port is not None and not 0 <= port <= 65535:
            raise ValueError(f"expected a port from 0 to 65535, got {port}")
        self._host = host
        self._port = port

    @property
    def host(self) -> IPv4Address | IPv6Address:
        return self._host

    @property
    def port(self) -> int | None:
        return self._port

    @classmethod
    def parse(cls, raw: bytes) -> Address:
        """Parse ``1.2.3.4``, ``1.2.3.4:80``, ``[::1]`` or ``[::1]:80``.

        Raises:
            ValueError: it is none of these.
        """
        try:
            if match := cls._V6.fullmatch(raw):
                return cls(IPv6Address(match[1].decode("ascii")), cls._parse_port(match[2]))
            if match := cls._V4.fullmatch(raw):
                return cls(IPv4Address(match[1].decode("ascii")), cls._parse_port(match[2]))
        except ValueError as error:
            raise ValueError(f"could not parse {raw!r} as an address: {error}") from None
        raise ValueError(f"could not parse {raw!r} as an address: expected 1.2.3.4:80 or [::1]:80")

    @staticmethod
    def _parse_port(raw: bytes | None) -> int | None:
        return None if raw is None else int(raw)

    def __str__(self) -> str:
        host = f"[{self._host}]" if self._host.version == 6 else str(self._host)
        return host if self._port is None else f"{host}:{self._port}"

    def __bytes__(self) -> bytes:
        return str(self).encode("ascii")

    def __repr__(self) -> str:
        return f"Address({self._host!r})" if self._port is None else f"Address({self._host!r}, {self._port})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._host == other._host and self._port == other._port

    def __hash__(self) -> int:
        return hash((self._host, self._port))


class Timestamp(float):
    """A time in seconds since 1970-01-01 UTC. A float that goes over the wire as a ``timestamp``."""


class Now(enum.Enum):
    """The word ``now`` in the place of a timestamp."""

    NOW = 0


TimestampOrNow = Union[Timestamp, Now]


class LogLevel(enum.IntEnum):
    """Levels of ``#log`` and ``?log-level``; from `DEBUG` to `FATAL` they are Python's."""

    ALL = 0
    TRACE = 5
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50
    OFF = 60

    @classmethod
    def from_python(cls, level: int) -> LogLevel:
        """The level of a Python log record: exact, or the next below (25 is `INFO`), and never `OFF`."""
        return max((member for member in cls if member <= level and member is not cls.OFF), default=cls.ALL)


class DeviceStatus(enum.Enum):
    """Values of the ``device-status`` sensor that devices have by convention."""

    OK = 1
    DEGRADED = 2
    FAIL = 3


@dataclass(frozen=True, slots=True)
class TypeInfo(Generic[T]):
    """How one KATCP type is encoded and decoded.

    Coders are made for a class, so that what depends on the class alone (an enum's table) is done once.
    """

    type: type[T]
    """The class; its subclasses are of the same KATCP type."""
    name: str
    """The KATCP name of the type, as in ``#sensor-list``."""
    encoder: Callable[[Any], Callable[[T], bytes]]
    """Given the class (or a subclass), return the function that encodes its instances."""
    decoder: Callable[[Any], Callable[[bytes], T]]
    """Given the class (or a subclass), return the function that decodes to it; it raises ValueError."""
    default: Callable[[Any], T]
    """Given the class (or a subclass), return the value of a sensor that was never set."""


class TypeRegistry:
    """Which Python class is which KATCP type.

    A class is looked up by itself and its base classes; where several registered classes fit, the one
    registered last wins.
    """

    def __init__(self, infos: tuple[TypeInfo[Any], ...] = (), *, frozen: bool = False) -> None:
        self._infos = list(infos)
        self._frozen = frozen
        self._forget()

    def copy(self) -> TypeRegistry:
        """A registry with the same types, to register more in."""
        return TypeRegistry(tuple(self._infos))

    def register(self, info: TypeInfo[Any]) -> None:
        """Add a type.

        Raises:
            ValueError: that very class is registered already.
            TypeError: this registry is frozen.
        """
        if self._frozen:
            raise TypeError("the standard types are frozen: register in a copy() of them")
        if any(known.type is info.type for known in self._infos):
            raise ValueError(f"type {info.type} is already registered")
        self._infos.append(info)
        self._forget()

    def _forget(self) -> None:
        # Bound to the instance, so that each registry has tables of its own and they die with it.
        remember = functools.lru_cache(_REMEMBERED_CLASSES)
        self.get: Callable[[Any], TypeInfo[Any]] = remember(self._get)
        self.get_encoder: Callable[[Any], Callable[[Any], bytes]] = remember(self._get_encoder)
        self.get_decoder: Callable[[Any], Callable[[bytes], Any]] = remember(self._get_decoder)

    def _get(self, cls: Any) -> TypeInfo[Any]:
        if isinstance(cls, type):
            info: TypeInfo[Any]
            for info in reversed(self._infos):
                if issubclass(cls, info.type):
                    return info
        raise TypeError(f"{cls!r} is not registered")

    def _get_encoder(self, cls: Any) -> Callable[[Any], bytes]:
        return self.get(cls).encoder(cls)

    def _get_decoder(self, cls: Any) -> Callable[[bytes], Any]:
        if _is_union(cls):
            return self._get_union_decoder(cls)
        return self.get(cls).decoder(cls)

    def _get_union_decoder(self, cls: Any) -> Callable[[bytes], Any]:
        alternatives = [choice for choice in typing.get_args(cls) if choice is not type(None)]
        decoders = [self.get_decoder(choice) for choice in alternatives]
        if len(decoders) == 1:
            return decoders[0]
        names = " | ".join(choice.__name__ for choice in alternatives)

        def decode_union(raw: bytes) -> Any:
            values = []
            for decode in decoders:
                try:
                    values.append(decode(raw))
                except ValueError:
                    continue
            if not values:
                raise ValueError(f"None of the types in {names} could decode {raw!r}")
            if len(values) > 1:
                raise ValueError(f"{raw!r} is ambiguous for {names}")
            return values[0]

        return decode_union

    def encode(self, value: object) -> bytes:
        """The text of a value on the wire, before escaping.

        Raises:
            TypeError: its class is not registered.
        """
        return self.get_encoder(type(value))(value)

    def decode(self, cls: Any, raw: bytes) -> Any:
        """The value of a text from the wire.

        Args:
            cls: a registered class, or a union of some of which exactly one must accept the text
                (None is ignored, so ``Optional[T]`` is ``T``).
            raw: the text, unescaped.

        Raises:
            ValueError: the text is not of that type.
            TypeError: the class is not registered.
        """
        return self.get_decoder(cls)(raw)


def _is_union(cls: Any) -> bool:
    return typing.get_origin(cls) in (Union, types.UnionType)


def _same(function: Callable[[T], bytes]) -> Callable[[Any], Callable[[T], bytes]]:
    """An encoder that is the same for every subclass."""
    return lambda cls: function


def _call(cls: Any) -> Any:
    return cls()


def _encode_float(value: Any) -> bytes:
    return repr(float(value)).encode("ascii")


def _encode_int(value: Any) -> bytes:
    return b"%d" % value


def _encode_bool(value: Any) -> bytes:
    return b"1" if value else b"0"


def _encode_str(value: str) -> bytes:
    return value.encode("utf-8")


def _encode_bytes(value: bytes) -> bytes:
    return bytes(value)


def _decode_float_as(cls: Any) -> Callable[[bytes], Any]:
    if cls is float or cls is numbers.Real:
        return float

    def decode_real(raw: bytes) -> Any:
        try:
            return cls(float(raw))
        except OverflowError as error:  # a Fraction has no infinity
            raise ValueError(f"could not convert {raw!r} to {cls.__name__}: {error}") from None

    return decode_real


def _decode_int_as(cls: Any) -> Callable[[bytes], Any]:
    if cls is int or cls is numbers.Integral:
        return int
    return lambda raw: cls(int(raw))


def _decode_bool_as(cls: Any) -> Callable[[bytes], Any]:
    def decode_bool(raw: bytes) -> bool:
        if raw == b"1":
            return True
        if raw == b"0":
            return False
        raise ValueError(f"boolean must be 0 or 1, not {raw!r}")

    return decode_bool


def _decode_str_as(cls: Any) -> Callable[[bytes], Any]:
    return bytes.decode if cls is str else lambda raw: cls(raw.decode("utf-8"))


def _decode_bytes_as(cls: Any) -> Callable[[bytes], Any]:
    return cls  # type: ignore[no-any-return]  # bytes(raw) of exact bytes is raw itself


def _encode_enum_of(cls: Any) -> Callable[[Any], bytes]:
    return {member: enum_text(member) for member in cls.__members__.values()}.__getitem__


def _decode_enum_as(cls: Any) -> Callable[[bytes], Any]:
    members = {enum_text(member): member for member in cls}

    def decode_enum(raw: bytes) -> Any:
        try:
            return members[raw]
        except KeyError:
            raise ValueError(f"{raw!r} is not a valid value for {cls.__name__}") from None

    return decode_enum


def enum_text(member: enum.Enum) -> bytes:
    """The text of an enum's member: its ``katcp_value`` if it has one, else its name in lower case."""
    text: bytes | None = getattr(member, "katcp_value", None)
    return member.name.lower().replace("_", "-").encode("ascii") if text is None else text


STANDARD_TYPES = TypeRegistry(
    (
        TypeInfo(numbers.Real, "float", _same(_encode_float), _decode_float_as, _call),
        TypeInfo(numbers.Integral, "integer", _same(_encode_int), _decode_int_as, _call),
        TypeInfo(bool, "boolean", _same(_encode_bool), _decode_bool_as, _call),
        TypeInfo(bytes, "string", _same(_encode_bytes), _decode_bytes_as, _call),
        TypeInfo(str, "string", _same(_encode_str), _decode_str_as, _call),
        TypeInfo(
            Address,
            "address",
            _same(Address.__bytes__),
            lambda cls: cls.parse,
            lambda cls: cls(IPv4Address(0)),
        ),
        TypeInfo(Timestamp, "timestamp", _same(_encode_float), _decode_float_as, _call),
        TypeInfo(enum.Enum, "discrete", _encode_enum_of, _decode_enum_as, lambda cls: next(iter(cls))),
    ),
    frozen=True,
)

# What a client decodes a sensor's values as, knowing no more than the name of their type. Strings stay bytes:
# a server need not send UTF-8. Discrete values are the client's affair.
TYPE_BY_NAME: dict[str, type] = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "timestamp": Timestamp,
    "address": Address,
    "string": bytes,
}
