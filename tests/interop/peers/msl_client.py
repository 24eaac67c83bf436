"""Clients of MSL-Network 1.0, as many as a test wants: ``msl_client.py HOME``."""

import os
import sys
from collections.abc import Callable
from typing import Any

from told import obey, orders

os.environ["MSL_NETWORK_HOME"] = sys.argv[1]

# They read the environment.
from msl.network import connect
from msl.network.client import Client

PATIENCE = 20.0
# Clients, links and pending calls, by the names that the test gives them.
known: dict[str, Any] = {}
told: dict[str, list[Any]] = {}


def attempt(function: Callable[[], Any]) -> list[Any]:
    """What comes of a call: its result, or the error that it raises."""
    try:
        return ["returned", function()]
    except Exception as error:
        return ["raised", type(error).__name__, str(error)]


def open_client(name: str, options: dict[str, Any]) -> list[Any]:
    def run() -> str:
        known[name] = connect(**options)
        return str(known[name])

    return attempt(run)


def link(name: str, client: str, service: str) -> list[Any]:
    def run() -> dict[str, Any]:
        known[name] = made = known[client].link(service)
        heard = told[name] = []
        made.notification_handler = lambda *args, **kwargs: heard.append([args, kwargs])
        return made.service_attributes

    return attempt(run)


def do(name: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Call a method of what has that name; of a link, it is one of the service."""
    return attempt(lambda: getattr(known[name], method)(*args, **kwargs))


def begin(name: str, of: str, method: str, args: list[Any]) -> None:
    """Call a method of a service and do not wait."""
    known[name] = getattr(known[of], method)(*args, asynchronous=True)


def finish(name: str) -> list[Any]:
    """What came of it."""
    return attempt(lambda: known[name].result(PATIENCE))


def many(name: str, method: str, count: int) -> list[Any]:
    """Call a method with each number below `count` at once, and tell the results."""
    futures = [getattr(known[name], method)(number, asynchronous=True) for number in range(count)]
    return [future.result(PATIENCE) for future in futures]


def large(name: str, size: int) -> bool:
    """Whether a text of so many characters comes back as it was."""
    text = "é" * size
    return known[name].echo(text, timeout=PATIENCE) == [[text], {}]


def heard(name: str) -> list[Any]:
    """The notifications that came on a link."""
    return told[name]


commands = {each.__name__: each for each in (open_client, link, do, begin, finish, many, large, heard)}
for order in orders():
    obey(commands, order)
for thing in known.values():
    if isinstance(thing, Client):
        thing.disconnect()
