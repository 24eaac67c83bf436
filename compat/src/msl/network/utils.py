"""What does not belong anywhere else: the logger, directories, and lines that people type."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from armillary.network.protocol.terminal_input import parse_terminal_input as _parse
from armillary.network.protocol.terminal_input import typed_value

from .constants import DISCONNECT_REQUEST

__all__ = ["ensure_root_path", "logger", "parse_terminal_input"]

logger = logging.getLogger("msl.network")
"""The one logger of the whole package."""

# Not public in 1.0 either, but its users search with them.
_is_manager_regex = re.compile(r"\AManager\[\S+:\d+]\Z")
_numeric_address_regex = re.compile(r"\A\d{1,3}(\.\d{1,3}){3}")

_WORDS = frozenset({"identity", "disconnect", "exit", DISCONNECT_REQUEST})
_TEXT = r'"[^"]*"|[^\s"]+'
_POSITIONAL = re.compile(_TEXT)
_NAMED = re.compile(rf"(\w+)\s*=\s*({_TEXT})")


def ensure_root_path(path: str | None) -> None:
    """Make the directory that `path` is in, unless it is there. An empty path, or None, has none."""
    if path:
        directory = os.path.dirname(path)
        if directory:
            os.makedirs(directory, exist_ok=True)


def parse_terminal_input(line: str) -> dict[str, Any] | None:
    """The request, or the identity of a client, that a typed line means; None if it means nothing.

    This is the reading of 1.0: a quoted value is a Python string with escapes in it, and the first
    ``name=value`` counts wherever it stands, in a quoted value as well. A manager reads the lines of its
    peers more carefully, with `armillary.network.protocol.terminal_input`.
    """
    line = line.strip()
    lower = line.lower()
    if lower in _WORDS:
        return _parse(line)
    if lower.startswith("client"):
        words = line.split()[1:]
        return _like("client", name=_unquoted(" ".join(words))) if words else _parse("client")
    if lower.startswith("link"):
        return _like("link", args=[_unquoted(line[len("link") :].strip())])
    return _request(line.replace("'", '"'))


def _request(line: str) -> dict[str, Any] | None:
    """``SERVICE ATTRIBUTE values name=value ...``, with double quotes only."""
    if line.startswith('"'):
        service, _, rest = line[1:].partition('"')
    else:
        service, rest = _first_word(line)
    service = _unquoted(service).strip()
    attribute, text = _first_word(rest)
    if not service or not attribute:
        return None
    first = _NAMED.search(text)
    positional = text if first is None else text[: first.start()]
    return _like(
        "Manager identity",
        service="Manager" if service == "Manager" else service,  # callers compare it with `is`
        attribute=_unquoted(attribute),
        args=[typed_value(word) for word in _POSITIONAL.findall(positional)],
        kwargs={name: typed_value(word) for name, word in _NAMED.findall(text)},
    )


def _like(line: str, **different: object) -> dict[str, Any]:
    """What `line` means, except for what is given."""
    meaning = _parse(line)
    assert meaning is not None
    return meaning | different


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def _unquoted(text: str) -> str:
    return text.replace('"', "")
