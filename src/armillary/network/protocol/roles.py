"""Who may be a service, link with services, call them, and administrate the manager; and what that means.

A role says so for services by name. Everybody who is given no other role is an `OPERATOR`, who may do what
everybody could in 1.0; whom the users table calls an administrator may do everything. What administrators can
ask of the manager is a list, `ADMIN_REQUESTS`: whatever is not on it does not exist, however it is spelt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from .peers import Peer
from .refusals import Refused

__all__ = [
    "ADMINISTRATOR",
    "ADMIN_REQUESTS",
    "NOBODY",
    "OBSERVER",
    "OPERATOR",
    "PUBLIC_REQUESTS",
    "AdminRequest",
    "Role",
    "Roles",
    "admin_request",
]

_ALL = ("*",)


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody may do.

    Services are given by patterns of their names, in which ``*`` stands for any text, ``?`` for any character
    and ``[abc]`` for one of these. No pattern means no service.

    Attributes:
        name: as it stands in the users table.
        link: services that may be linked with, which brings their notifications.
        call: services that may be sent requests, and locked.
        serve: names under which a service may connect.
        administrate: whether the manager answers `ADMIN_REQUESTS`.
    """

    name: str
    link: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    administrate: bool = False

    def __post_init__(self) -> None:
        given: tuple[object, ...] = (self.link, self.call, self.serve)
        for patterns in given:
            if isinstance(patterns, str):
                # Otherwise each letter of it would be a pattern, and "*" would do by accident.
                raise TypeError(f"expected a tuple of patterns, got the string {patterns!r}")

    def check_link(self, peer: Peer, service: str) -> None:
        """Raise Refused unless a peer of this role may link with this service."""
        if not _matches(self.link, service):
            raise Refused(PermissionError, f"{peer.network_name} may not link with the {service!r} service")

    def check_call(self, peer: Peer, service: str) -> None:
        """Raise Refused unless a peer of this role may send this service requests."""
        if not _matches(self.call, service):
            raise Refused(
                PermissionError, f"{peer.network_name} may not send requests to the {service!r} service"
            )

    def check_lock(self, peer: Peer, service: str) -> None:
        """Raise Refused unless a peer of this role may lock this service: it must be able to call it."""
        if not _matches(self.call, service):
            raise Refused(PermissionError, f"{peer.network_name} may not lock the {service!r} service")

    def may_watch(self, service: str) -> bool:
        """Whether a peer of this role is told who uses this service: if it may use it itself."""
        return self.administrate or _matches(self.link, service) or _matches(self.call, service)

    def check_serve(self, peer: Peer) -> None:
        """Raise Refused unless a peer of this role may connect as the service that it is."""
        if not _matches(self.serve, peer.name):
            raise Refused(PermissionError, f"You may not run a service with the name {peer.name!r}")

    def check_administrate(self) -> None:
        """Raise Refused unless a peer of this role may administrate the manager."""
        if not self.administrate:
            raise Refused(ValueError, "You must be an administrator to send this request to the Manager")


ADMINISTRATOR = Role("administrator", link=_ALL, call=_ALL, serve=_ALL, administrate=True)
OPERATOR = Role("operator", link=_ALL, call=_ALL, serve=_ALL)
OBSERVER = Role("observer", link=_ALL)
"""Gets notifications, and calls nothing."""
NOBODY = Role("nobody")
"""May look at who is there."""


class Roles:
    """The roles of one manager, by name: the four above, and what the program adds or replaces.

    Args:
        roles: more roles. One with the name of another takes its place, unless that is ``administrator``.
        default: the role of those to whom the users table gives none, and of everybody who has not logged in.

    Raises:
        ValueError: two of `roles` have the same name, one is called ``administrator``, or there is no role
            called `default`.
    """

    def __init__(self, roles: Iterable[Role] = (), *, default: str = OPERATOR.name) -> None:
        own: dict[str, Role] = {}
        for role in roles:
            if role.name in own:
                raise ValueError(f"there are two roles called {role.name!r}")
            own[role.name] = role
        if ADMINISTRATOR.name in own:
            raise ValueError(f"{ADMINISTRATOR.name!r} may do everything and cannot be changed")
        self._by_name = {role.name: role for role in (ADMINISTRATOR, OPERATOR, OBSERVER, NOBODY)} | own
        if default not in self._by_name:
            raise ValueError(f"there is no role called {default!r}")
        self._default = self._by_name[default]

    @property
    def names(self) -> list[str]:
        """What roles are called, sorted."""
        return sorted(self._by_name)

    def of(self, name: str | None, *, is_admin: bool = False) -> Role:
        """The role of a user, or of somebody who is none.

        Args:
            name: of the role that the users table gives, None if it gives none. Of a role that is not known
                (any more) it is as `NOBODY`: a slip of the pen must not open a door.
            is_admin: whether the users table says that this is an administrator.
        """
        if is_admin:
            return ADMINISTRATOR
        if name is None:
            return self._default
        return self._by_name.get(name, NOBODY)


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """Something that administrators can ask of the manager.

    Attributes:
        attribute: what the packet asks for.
        is_method: whether it takes arguments.
        has_secrets: whether its arguments may be written down nowhere, neither in a log nor in the audit.
    """

    attribute: str
    is_method: bool
    has_secrets: bool = False


PUBLIC_REQUESTS = frozenset({"identity", "status", "link", "unlink", "acquire_lock", "release_lock"})
"""What everybody can ask of the manager, as far as its role allows."""

# What an administrator could read or do over 1.0 and is written down there, less what nobody should: SQL of
# one's own, closing the database, hashes and salts of passwords. `force_unlock` is new.
_DATA = ("port", "password", "login", "hostnames", "clients", "services", "service_links", "service_locks")
_METHODS = ("set_logging_level", "shutdown_manager", "force_unlock")
_TABLES = {
    "connections_table": ("ConnectionsTable", ("connections",)),
    "hostnames_table": ("HostnamesTable", ("delete", "hostnames", "insert")),
    "users_table": (
        "UsersTable",
        (
            "delete",
            "insert",
            "is_admin",
            "is_password_valid",
            "is_user_registered",
            "update",
            "usernames",
            "users",
        ),
    ),
}
_OF_EVERY_TABLE = ("column_datatypes", "column_names", "table_info", "tables")
_WITH_SECRETS = {"users_table.insert", "users_table.is_password_valid", "users_table.update"}


def _listed() -> Iterable[AdminRequest]:
    for name in _DATA:
        yield AdminRequest(name, is_method=False)
    for name in _METHODS:
        yield AdminRequest(name, is_method=True)
    for table, (_, methods) in _TABLES.items():
        yield AdminRequest(f"{table}.path", is_method=False)
        for method in (*methods, *_OF_EVERY_TABLE):
            name = f"{table}.{method}"
            yield AdminRequest(name, is_method=True, has_secrets=name in _WITH_SECRETS)


ADMIN_REQUESTS: Mapping[str, AdminRequest] = MappingProxyType({one.attribute: one for one in _listed()})
"""Everything that administrators can ask of the manager, by what the packet asks for."""


def admin_request(attribute: str) -> AdminRequest:
    """What an administrator asks for.

    Raises:
        Refused: it is not listed.
    """
    request = ADMIN_REQUESTS.get(attribute)
    if request is None:
        table, _, rest = attribute.partition(".")
        owner, missing = (_TABLES[table][0], rest) if rest and table in _TABLES else ("Manager", attribute)
        raise Refused(AttributeError, f"{owner!r} object has no attribute {missing!r}")
    return request


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    # The first comparison answers for most roles, and this is asked for every request.
    return patterns == _ALL or any(fnmatchcase(name, pattern) for pattern in patterns)
