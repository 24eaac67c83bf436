"""Messages, and the types of their arguments, over one registry that the whole package shares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from armillary.katcp.protocol.messages import Message as _NativeMessage
from armillary.katcp.protocol.messages import escape, unescape
from armillary.katcp.protocol.values import (
    STANDARD_TYPES,
    Address,
    DeviceStatus,
    KatcpSyntaxError,
    LogLevel,
    Now,
    Timestamp,
    TimestampOrNow,
    TypeRegistry,
)
from armillary.katcp.protocol.values import TypeInfo as _NativeTypeInfo

__all__ = [
    "TYPES",
    "Address",
    "DeviceStatus",
    "KatcpSyntaxError",
    "LogLevel",
    "Message",
    "Now",
    "Timestamp",
    "TimestampOrNow",
    "TypeInfo",
    "decode",
    "encode",
    "get_decoder",
    "get_type",
    "register_type",
]

_T = TypeVar("_T")

TYPES = STANDARD_TYPES.copy()
"""What `register_type` adds to. Global, because that is the API which is kept."""


class TypeInfo(_NativeTypeInfo[_T]):
    """How one KATCP type is encoded and decoded.

    Args:
        type_: the class; its subclasses are of the same KATCP type.
        name: the KATCP name of the type.
        encode: the function that encodes a value.
        get_decoder: given the class (or a subclass), return the function that decodes to it; that one
            raises ValueError.
        default: given the class (or a subclass), return the value of a sensor that was never set.
    """

    __slots__ = ()

    def __init__(
        self,
        type_: type[_T],
        name: str,
        encode: Callable[[_T], bytes],
        get_decoder: Callable[[type[_T]], Callable[[bytes], _T]],
        default: Callable[[type[_T]], _T],
    ) -> None:
        super().__init__(type_, name, lambda cls: encode, get_decoder, default)

    @property
    def type_(self) -> type[_T]:
        """The class that was registered."""
        return self.type

    def encode(self, value: _T) -> bytes:
        """The text of a value on the wire, before escaping."""
        return self.encoder(type(value))(value)

    def get_decoder(self, cls: type[_T]) -> Callable[[bytes], _T]:
        """The function that decodes to `cls`, which is the registered class or a subclass."""
        return self.decoder(cls)

    def decode(self, cls: type[_T], value: bytes) -> _T:
        """As ``get_decoder(cls)(value)``."""
        return self.decoder(cls)(value)


@functools.cache
def _as_type_info(native: _NativeTypeInfo[_T]) -> TypeInfo[_T]:
    """A standard type with this module's attributes; always the same object."""
    return TypeInfo(
        native.type,
        native.name,
        lambda value: native.encoder(type(value))(value),
        native.decoder,
        native.default,
    )


def register_type(
    type_: type[_T],
    name: str,
    encode: Callable[[_T], bytes],
    get_decoder: Callable[[type[_T]], Callable[[bytes], _T]],
    default: Callable[[type[_T]], _T] | None = None,
) -> None:
    """Add a type: the arguments are those of `TypeInfo`, and `default` calls the class if None.

    Raises:
        ValueError: that very class is registered already.
    """
    TYPES.register(TypeInfo(type_, name, encode, get_decoder, default or (lambda cls: cls())))


def get_type(type_: type[_T]) -> TypeInfo[_T]:
    """What was registered last of `type_` and its base classes.

    Raises:
        TypeError: nothing was.
    """
    info: _NativeTypeInfo[_T] = TYPES.get(type_)
    return info if isinstance(info, TypeInfo) else _as_type_info(info)


def encode(value: Any) -> bytes:
    """The text of a value on the wire, before escaping.

    Raises:
        TypeError: its class is not registered.
    """
    return TYPES.encode(value)


def get_decoder(cls: Any) -> Callable[[bytes], Any]:
    """The function that `decode` would use. Look it up once to decode many values."""
    return TYPES.get_decoder(cls)


def decode(cls: Any, value: bytes) -> Any:
    """The value of a text from the wire.

    Args:
        cls: a registered class, or a union of some of which exactly one must accept the text.
        value: the text, unescaped.

    Raises:
        ValueError: the text is not of that type.
        TypeError: the class is not registered.
    """
    return TYPES.decode(cls, value)


class Message(_NativeMessage):
    """One KATCP message, whose arguments may be of every type that was registered."""

    __slots__ = ()
    types: ClassVar[TypeRegistry] = TYPES

    @classmethod
    def reply_to_request(cls, msg: _NativeMessage, *arguments: Any) -> Message:
        """A reply with the name and the message id of `msg`."""
        return cls.reply(msg.name, *arguments, mid=msg.mid)

    @classmethod
    def inform_reply(cls, msg: _NativeMessage, *arguments: Any) -> Message:
        """An inform with the name and the message id of `msg`."""
        return cls.inform(msg.name, *arguments, mid=msg.mid)

    @classmethod
    def escape_argument(cls, arg: bytes) -> bytes:
        """An argument as it stands in a line."""
        return escape(arg)

    @classmethod
    def unescape_argument(cls, arg: bytes) -> bytes:
        """Reverse of `escape_argument`.

        Raises:
            KatcpSyntaxError: a backslash that is no escape.
        """
        return unescape(arg)

    def __repr__(self) -> str:
        # The message id is named even if there is none: logs and doctests show it.
        return f"{super().__repr__()[:-1]}, mid=None)" if self.mid is None else super().__repr__()
