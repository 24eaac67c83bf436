"""What people type at a manager, in a terminal, instead of JSON.

::

    client Bench A                  who I am, in the handshake
    identity                        who is connected?
    link DMM                        link with a service
    DMM voltage 3 range=10          a request: SERVICE ATTRIBUTE values name=value ...
    "Basic Math" add 1 2            a service whose name has blanks in it
    disconnect                      or: exit
"""

from __future__ import annotations

import ast
import re
from typing import Any

__all__ = ["parse_terminal_input", "typed_value"]

# Nobody types a longer line. Larger lets a peer make the manager spend more time on what is not JSON either.
_LONGEST_LINE = 16 * 1024

_FAREWELLS = frozenset({"disconnect", "exit", "__disconnect__"})
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}
_TOKEN = re.compile(
    r"""
      (?P<name> \w+ ) \s*=\s* (?: "(?P<quoted_value>[^"]*)" | (?P<value>[^\s"]+) )
    | "(?P<quoted>[^"]*)"
    | (?P<word> [^\s"]+ )
    """,
    re.VERBOSE,
)


def parse_terminal_input(line: str) -> dict[str, Any] | None:
    """The packet, or the identity, that a typed line means; None if it means nothing.

    Values are ``true``, ``false``, ``none`` and ``null`` in upper or lower case, Python's literals without
    blanks in them (``[1,2]``), quoted text, which is taken as it is, and else the text itself. What follows
    the first ``name=value`` must be one too, or is ignored. A literal that JSON does not have, as ``1j``, is
    left to whoever makes a packet of it.
    """
    line = line.strip()
    if len(line) > _LONGEST_LINE:
        return None
    lower = line.lower()
    if lower == "identity":
        return _request("Manager", "identity")
    if lower in _FAREWELLS:
        return _request("self", "__disconnect__")
    if lower.startswith("client"):
        name = _unquoted(" ".join(line.split()[1:]))
        return {
            "type": "client",
            "name": name or "Client",
            "language": "unknown",
            "os": "unknown",
            "error": False,
        }
    if lower.startswith("link"):
        return _request("Manager", "link", _unquoted(line[len("link") :].strip()))
    if lower.startswith(("{", "[")):
        # Somebody's broken JSON: a request for the service `{"service":` would hide what is wrong with it.
        return None
    return _parse_request(line.replace("'", '"'))


def _request(service: str, attribute: str, *args: object) -> dict[str, Any]:
    return {
        "service": service,
        "attribute": attribute,
        "args": list(args),
        "kwargs": {},
        "uid": "",
        "error": False,
    }


def _unquoted(text: str) -> str:
    """A name without the quotes that somebody put around it, or somewhere in it. An apostrophe stays."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1]
    return text.replace('"', "")


def _parse_request(line: str) -> dict[str, Any] | None:
    if line.startswith('"'):
        service, closing, rest = line[1:].partition('"')
        if not closing:
            return None
    else:
        service, rest = _first_word(line)
    service = service.replace('"', "").strip()
    rest = rest.lstrip()
    if rest.startswith('"'):
        # No attribute has blanks in its name, so that these quotes mean nothing.
        rest = rest[1:].replace('"', " ", 1)
    attribute, rest = _first_word(rest)
    attribute = attribute.replace('"', "")
    if not service or not attribute:
        return None
    request = _request("Manager" if service == "Manager" else service, attribute)
    args, kwargs = request["args"], request["kwargs"]
    for token in _TOKEN.finditer(rest):
        name, quoted_value, value, quoted, word = token.groups()
        if name is not None:
            kwargs[name] = typed_value(value) if quoted_value is None else quoted_value
        elif not kwargs:
            args.append(typed_value(word) if quoted is None else quoted)
    return request


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def typed_value(text: str) -> object:
    """What one word of a typed line means, as `parse_terminal_input` says it."""
    lower = text.lower()
    if lower in _WORDS:
        return _WORDS[lower]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
