r"""Packets: one JSON object on one line, ended by CR LF.

What a packet is, depends on its keys:

============ ====================================== ====================================================
packet       from, to                               keys
============ ====================================== ====================================================
request      client, manager, service               args attribute error kwargs service uid
                                                    [requester] [stream]
request      manager to device                      args attribute error kwargs requester uid
reply        service, manager, client               error requester result uid [more] [progress]
error        likewise                               error message requester result traceback uid
                                                    [exception]
notification service, manager, its linked clients   error result service uid
disconnect   device to manager                      attribute service
============ ====================================== ====================================================

The functions named after packets make their bytes; `typed` says what a device has received. The manager does
not read packets: `scanning` shows it all that it needs.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .codec import STANDARD, Codec, json_type
from .features import announcement

__all__ = [
    "DISCONNECT",
    "NOTIFICATION_UID",
    "TERMINATOR",
    "Failure",
    "Notification",
    "PacketError",
    "Reply",
    "Request",
    "answer",
    "disconnect",
    "error",
    "exception_class",
    "from_manager",
    "identity_request",
    "message_of",
    "notification",
    "password_request",
    "reply",
    "request",
    "traceback_of",
    "typed",
    "username_request",
]

TERMINATOR = b"\r\n"
"""What ends the lines that we write. From others an LF alone will do."""
NOTIFICATION_UID = "notification"
"""The uid of every notification, and of nothing else."""
DISCONNECT = "__disconnect__"
"""The attribute of the request to be disconnected."""


class PacketError(ValueError):
    """A line is no packet. The connection can go on: the next line stands by itself.

    Attributes:
        uid: of the packet, if it has one that could be read, else empty. An error packet carries it back.
        requester: likewise; of a reply, it says who waits for it.
        is_json: whether the line is JSON, so that nobody has typed it by hand.
        attached: how many raw bytes follow the line; None if that cannot be known.
    """

    def __init__(self, text: str, *, uid: str = "", is_json: bool = True, attached: int | None = 0) -> None:
        super().__init__(text)
        self.uid = uid
        self.requester = ""
        self.is_json = is_json
        self.attached = attached

    @property
    def message(self) -> str:
        """The ``message`` of an error packet. Peers know nothing of armillary's classes."""
        return f"ValueError: {self}"


class Request(msgspec.Struct, frozen=True):
    """Something is asked of a service, or by the manager."""

    attribute: str
    args: list[Any]
    kwargs: dict[str, Any]
    uid: str
    requester: str | None
    """Who asks, as the manager says: a client's network name, or the manager's."""
    service: str | None
    """None if the manager itself asks."""
    stream: int | None = None
    """How many items of an iteration the client has room for; None if it wants one reply, and no progress."""


class Reply(msgspec.Struct, frozen=True):
    """A request was done."""

    result: Any
    uid: str
    requester: str | None
    """Who had asked."""
    more: bool | None = None
    """Whether more replies to the same request follow; only where ``stream`` was agreed on.

    False is the end of an iteration, whose items have come before; None is the one and only reply.
    """
    progress: bool = False
    """Whether this says how far the call has come, and is no item of what it returns."""


class Failure(msgspec.Struct, frozen=True):
    """A request could not be done."""

    message: str
    """``ExceptionClass: text``."""
    traceback: list[str]
    """Lines of the remote traceback, as far as they are known."""
    uid: str
    requester: str | None
    exception: Mapping[str, Any]
    """Which class was raised (`exception_class`); empty if the service does not say."""


class Notification(msgspec.Struct, frozen=True):
    """A service tells something to everybody who is linked with it."""

    service: str
    args: list[Any]
    kwargs: dict[str, Any]


def request(
    service: str,
    attribute: str,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    uid: str = "",
    stream: int | None = None,
    codec: Codec = STANDARD,
) -> bytes:
    """A request to a service, or to the manager by its name ``Manager``.

    Args:
        service: who is asked.
        attribute: for what.
        args: of a method.
        kwargs: of a method.
        uid: the reply has the same.
        stream: how many items the asker has room for; only where ``stream`` was agreed on.
        codec: how values are written.

    Raises:
        TypeError: an argument is not JSON serializable.
        ValueError: arguments are nested too deeply.
    """
    packet: dict[str, object] = {
        "args": args,
        "attribute": attribute,
        "error": False,
        "kwargs": {} if kwargs is None else kwargs,
        "service": service,
        "uid": uid,
    }
    if stream is not None:
        packet["stream"] = stream
    return codec.pack(packet)


def identity_request(manager: str, features: Iterable[str] = ()) -> bytes:
    """The manager asks a device who it is.

    Args:
        manager: its full name, as `manager_name` makes it.
        features: what it offers beyond 1.0.
    """
    return from_manager(manager, "identity", [], announcement(features))


def username_request(manager: str) -> bytes:
    """The manager asks a device for a user's name. The argument is as for `identity_request`."""
    return from_manager(manager, "username", [manager], {})


def password_request(manager: str, whose: str) -> bytes:
    """The manager asks a device for a password.

    Args:
        manager: as for `identity_request`.
        whose: a user's name, or the manager's full name if the manager's own password is asked for.
    """
    return from_manager(manager, "password", [whose], {})


def from_manager(manager: str, attribute: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """What a manager itself says to a device. The first argument is as for `identity_request`."""
    return STANDARD.pack(
        {
            "args": args,
            "attribute": attribute,
            "error": False,
            "kwargs": kwargs,
            "requester": manager,
            "uid": "",
        }
    )


def answer(result: object, requester: str | None = None) -> bytes:
    """A device's answer to what the manager asks: its identity, a user's name, a password."""
    return reply(requester, "", result)


def reply(
    requester: str | None,
    uid: str,
    result: object,
    *,
    more: bool | None = None,
    progress: bool = False,
    codec: Codec = STANDARD,
) -> bytes:
    """The result of a request. The requester and the uid are those of the request.

    Args:
        requester: who had asked.
        uid: of the request.
        result: the value.
        more: whether other replies to the same request follow, or this is the end of several; only where
            ``stream`` was agreed on, and None elsewhere.
        progress: whether this says how far the call has come, and is no item of what it returns.
        codec: how values are written.

    Raises:
        TypeError: the result is not JSON serializable.
        ValueError: it is nested too deeply.
    """
    packet: dict[str, object] = {"error": False, "requester": requester, "result": result, "uid": uid}
    if more is not None:
        packet["more"] = more
    if progress:
        packet["progress"] = True
    return codec.pack(packet)


def error(
    requester: str | None,
    uid: str,
    message: str,
    traceback: Sequence[str] = (),
    *,
    exception: Mapping[str, object] | None = None,
) -> bytes:
    """Why a request could not be done.

    Args:
        requester: who had asked.
        uid: of the request.
        message: ``ExceptionClass: text``, as `message_of` makes it.
        traceback: its lines, as `traceback_of` makes them.
        exception: as `exception_class` makes it; only where ``exception`` was agreed on.
    """
    packet: dict[str, object] = {
        "error": True,
        "message": message,
        "requester": requester,
        # This key makes it a reply.
        "result": None,
        "traceback": traceback,
        "uid": uid,
    }
    if exception is not None:
        packet["exception"] = exception
    return STANDARD.pack(packet)


def notification(
    service: str,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    codec: Codec = STANDARD,
) -> bytes:
    """What a service tells everybody who is linked with it. It raises what `request` raises."""
    return codec.pack(
        {
            "error": False,
            "result": [args, {} if kwargs is None else kwargs],
            "service": service,
            "uid": NOTIFICATION_UID,
        }
    )


def disconnect(sender: str) -> bytes:
    """A device asks to be disconnected; there is no reply.

    Args:
        sender: its network name, or anything else but ``Manager``.
    """
    return STANDARD.pack({"service": sender, "attribute": DISCONNECT})


def message_of(exception: BaseException) -> str:
    """The class and the text of an exception, as error packets say them."""
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001  # users write exceptions, too
        text = "<exception str() failed>"
    return f"{type(exception).__name__}: {text}"


def traceback_of(exception: BaseException) -> list[str]:
    """The lines of an exception's traceback, with causes and notes, without line ends."""
    return "".join(tracebacks.format_exception(exception)).splitlines()


def exception_class(exception: BaseException) -> dict[str, str]:
    """Which class an exception is of, for programs."""
    return {"type": type(exception).__qualname__, "module": type(exception).__module__}


def typed(packet: object) -> Request | Reply | Failure | Notification:
    """What a device has received.

    Args:
        packet: JSON's values, as a codec unpacked them.

    Raises:
        PacketError: it is no packet.
    """
    if not isinstance(packet, dict):
        raise PacketError(f"expected an object as a packet, got {json_type(packet)}")
    uid = packet.get("uid", "")
    if not isinstance(uid, str):
        raise PacketError(f"expected a string as 'uid', got {json_type(uid)}")
    if packet.get("error") is True:
        return _failure(packet, uid)
    if "result" not in packet:
        return Request(
            attribute=_value(packet, "attribute", str, uid),
            args=_value(packet, "args", list, uid, []),
            kwargs=_value(packet, "kwargs", dict, uid, {}),
            uid=uid,
            requester=_name(packet, "requester", uid),
            service=_name(packet, "service", uid),
            stream=_count(packet, "stream", uid),
        )
    if uid == NOTIFICATION_UID:
        return _notification(packet)
    return Reply(
        result=packet["result"],
        uid=uid,
        requester=_name(packet, "requester", uid),
        more=more if isinstance(more := packet.get("more"), bool) else None,
        progress=packet.get("progress") is True,
    )


def _failure(packet: dict[str, Any], uid: str) -> Failure:
    lines = packet.get("traceback")
    exception = packet.get("exception")
    return Failure(
        message=str(packet.get("message", "")),
        traceback=[str(line) for line in lines] if isinstance(lines, list) else [],
        uid=uid,
        requester=_name(packet, "requester", uid),
        exception=exception if isinstance(exception, dict) else {},
    )


def _notification(packet: dict[str, Any]) -> Notification:
    match packet["result"]:
        case [list(args), dict(kwargs)]:
            return Notification(_value(packet, "service", str, NOTIFICATION_UID), args, kwargs)
    raise PacketError("expected [args, kwargs] as the result of a notification, got something else")


def _name(packet: dict[str, Any], key: str, uid: str) -> str | None:
    return None if packet.get(key) is None else _value(packet, key, str, uid)


def _count(packet: dict[str, Any], key: str, uid: str) -> int | None:
    value = packet.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise PacketError(f"expected a number of items as {key!r}, got {json_type(value)}", uid=uid)
    return value


_NOTHING = object()
_EXPECTED: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}


def _value(packet: dict[str, Any], key: str, kind: type, uid: str, default: Any = _NOTHING) -> Any:
    value = packet.get(key, default)
    if value is _NOTHING:
        raise PacketError(f"expected the key {key!r} in a packet, got none", uid=uid)
    if not isinstance(value, kind):
        raise PacketError(f"expected {_EXPECTED[kind]} as {key!r}, got {json_type(value)}", uid=uid)
    return value
