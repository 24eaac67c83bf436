"""What administrators can ask of the tables over the network, in the words of MSL-Network 1.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .users import LoginRefused

if TYPE_CHECKING:
    from . import Store

__all__ = ["table_requests"]


def table_requests(store: Store) -> Mapping[str, Callable[..., Any]]:
    """The functions to call, by the attribute that a request names, such as ``users_table.insert``.

    All of them block (``path``, which is no method there, is one here), and their results can be written as
    JSON. Those of users take a fifth of a second if they are given a password. What is wrong with the
    arguments is a ValueError, a TypeError or an AttributeError, and none of them quotes a password.
    """
    requests: dict[str, Callable[..., Any]] = {
        "connections_table.connections": store.audit.connections,
        "hostnames_table.insert": store.hostnames.add,
        "hostnames_table.delete": store.hostnames.remove,
        "hostnames_table.hostnames": store.hostnames.names,
        "users_table.delete": store.users.remove,
        "users_table.usernames": store.users.names,
    }
    requests |= {f"users_table.{name}": function for name, function in _of_users(store).items()}
    for table in ("connections_table", "hostnames_table", "users_table"):
        requests |= {f"{table}.{name}": function for name, function in _of_every_table(store).items()}
    return requests


def _of_users(store: Store) -> dict[str, Callable[..., Any]]:
    users = store.users

    def insert(username: str, password: str, is_admin: object) -> None:
        users.add(username, password, is_admin=bool(is_admin))

    def update(username: str, *, password: str | None = None, is_admin: object = None) -> None:
        users.update(username, password=password, is_admin=None if is_admin is None else bool(is_admin))

    def is_user_registered(username: str) -> bool:
        return users.get(username) is not None

    def is_password_valid(username: str, password: str) -> bool:
        try:
            users.login(username, password)
        except LoginRefused:
            return False
        return True

    def is_admin(username: str) -> bool:
        user = users.get(username)
        return user is not None and user.is_admin

    def all_users() -> list[tuple[str, bool]]:
        return [(user.name, user.is_admin) for user in users.all()]

    functions = (insert, update, is_user_registered, is_password_valid, is_admin)
    return {function.__name__: function for function in functions} | {"users": all_users}


def _of_every_table(store: Store) -> dict[str, Callable[..., Any]]:
    database = store.database

    def column_names(table: str) -> list[str]:
        return [name for _, name, *_ in database.table_info(table)]

    def column_datatypes(table: str) -> list[str]:
        return [kind for _, _, kind, *_ in database.table_info(table)]

    return {
        "tables": database.tables,
        "table_info": database.table_info,
        "column_names": column_names,
        "column_datatypes": column_datatypes,
        "path": lambda: database.path,
    }
