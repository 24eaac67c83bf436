"""Calls of ``msl.network`` that need no network: of MSL-Network 1.0 or of the façade, whichever is installed.

Its standard input has the name of a function here, and arguments for it, as a JSON array; its standard output
has the result.
"""

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from msl.network import ConnectionsTable, HostnamesTable, UsersTable, cryptography, utils
from msl.network import json as msl_json

PEER = SimpleNamespace(ip_address="10.0.0.7", domain="lab7.example.org", port=51022)


def tried(function: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """How a call ends."""
    try:
        return "returns", repr(function(*args, **kwargs))
    except Exception as error:
        return type(error).__name__, str(error)


def parse_lines(lines: list[str]) -> list[str]:
    """What typed lines mean, to the type of every value."""
    return [repr(utils.parse_terminal_input(line)) for line in lines]


def json_results(values: list[str], texts: list[str], names: list[str]) -> list[object]:
    """What is written of values, which are expressions of Python, and what is read of texts."""
    return [
        [tried(msl_json.use, name) for name in names],
        [msl_json.backend.name, repr(msl_json.backend.enum)],
        [msl_json.backend.kwargs_loads, msl_json.backend.kwargs_dumps],
        [[name, member.value] for name, member in msl_json.Package.__members__.items()],
        [tried(msl_json.serialize, eval(value)) for value in values],
        [tried(msl_json.deserialize, text) for text in texts],
    ]


def generate_keys(options: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """How making each of some keys ends."""
    return [tried(cryptography.generate_key, **each) for each in options]


def generate_key(options: dict[str, Any]) -> str:
    """Make a key."""
    return cryptography.generate_key(**options)


def generate_certificate(options: dict[str, Any]) -> str:
    """Make a certificate."""
    return cryptography.generate_certificate(**options)


def certificate_facts(path: str) -> list[object]:
    """What is in a certificate."""
    certificate = cryptography.load_certificate(path)
    facts = cryptography.get_metadata(certificate)
    order = [list(facts[each]) for each in ("issuer", "subject", "key")]
    # 1.0 leaves blanks at the ends of its lines.
    text = [line.rstrip() for line in cryptography.get_metadata_as_string(certificate).splitlines()]
    return [{name: repr(fact) for name, fact in facts.items()}, order, text]


def fingerprints(path: str, options: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """How making each of some fingerprints ends."""
    certificate = cryptography.load_certificate(path)
    return [tried(cryptography.get_fingerprint, certificate, **each) for each in options]


def fill(path: str) -> None:
    """Make a database."""
    with UsersTable(database=path) as users:
        users.insert("marie", "polonium", True)
        users.insert("Zoë é", "pàß wörd", False)
        users.insert("ada", "engine", False)
    with HostnamesTable(database=path) as hostnames:
        hostnames.insert("lab7")
    with ConnectionsTable(database=path) as connections:
        connections.insert(PEER, "connected as a client")
        connections.insert(PEER, "é" * 300)


def look(path: str) -> list[object]:
    """All that can be seen of a database, and what it refuses. Nothing is changed in the end."""
    with UsersTable(database=path) as users:
        seen = _look_at_users(users)
    with HostnamesTable(database=path) as hostnames:
        seen += [
            hostnames.NAME,
            hostnames.table_info(hostnames.NAME),
            hostnames.hostnames(),
            tried(hostnames.delete, "nobody"),
            tried(hostnames.insert, "lab7"),
        ]
    for as_datetime in (False, True):
        with ConnectionsTable(database=path, as_datetime=as_datetime) as connections:
            seen += [
                connections.NAME,
                connections.table_info(connections.NAME),
                repr(connections.connections()),
                connections.tables(),
            ]
    return seen


def _look_at_users(users: UsersTable) -> list[object]:
    return [
        users.NAME,
        users.table_info(users.NAME),
        users.column_names(users.NAME),
        users.column_datatypes(users.NAME),
        users.column_names("nothing"),
        users.users(),
        users.usernames(),
        [(pid, name, len(salt), is_admin) for pid, name, _, salt, is_admin in users.records()],
        users.get_user("nobody"),
        [(users.is_admin(name), users.is_user_registered(name)) for name in ("marie", "ada", "nobody")],
        tried(users.insert, "marie", "x", True),
        tried(users.insert, "marie", "", True),
        tried(users.insert, "x", "", True),
        tried(users.insert, "x", None, True),
        tried(users.insert, "x:1", "y", True),
        tried(users.insert, "x:1", "", True),
        tried(users.update, "nobody"),
        tried(users.update, "nobody", password="x"),
        tried(users.update, "marie"),
        tried(users.update, "marie", password=""),
        tried(users.update, "marie", password="", is_admin=True),
        tried(users.update, "marie", is_admin=[]),
        tried(users.is_admin, "marie"),
        tried(users.update, "marie", is_admin="x"),
        tried(users.is_admin, "marie"),
        tried(users.delete, "nobody"),
        tried(users.execute, "SELEC"),
        tried(users.execute, "SELECT 1"),
        tried(users.cursor.fetchall),
        tried(users.close),
        tried(users.close),
        tried(users.tables),
    ]


def are_valid(path: str, logins: list[list[str]]) -> list[bool]:
    """Which passwords are right."""
    with UsersTable(database=path) as users:
        return [users.is_password_valid(*login) for login in logins]


def set_password(path: str, name: str, password: str) -> None:
    """Change a password."""
    with UsersTable(database=path) as users:
        users.update(name, password=password)


if __name__ == "__main__":
    called, *arguments = json.load(sys.stdin)
    sys.stdout.write(json.dumps(globals()[called](*arguments)))
