"""Values as they are typed for a call, and as they are printed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from armillary._wire.text import printable
from armillary.network.protocol.codec import STANDARD

__all__ = ["call_arguments", "json_text", "note_text"]


def call_arguments(typed: Iterable[str]) -> tuple[list[Any], dict[str, Any]]:
    """What somebody means by the words behind a method's name.

    ``name=value`` is a keyword argument. A value is JSON if it can be read as that, and otherwise a string.
    So ``5`` is a number, ``"5"``, with its quotes, a string, and so is ``five``. A string that looks like a
    keyword argument needs the quotes, too.

    Raises:
        ValueError: a keyword argument is there twice.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in typed:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            args.append(_value(word))
        elif name in kwargs:
            raise ValueError(f"expected {name!r} once, got it twice")
        else:
            kwargs[name] = _value(value)
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return STANDARD.decode(text)
    except ValueError:
        return text


def json_text(value: object) -> str:
    """A value in one line of JSON.

    JSON has no NaN and no infinities: they are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    # Letters of all languages as they are, where they can be printed. What commands a terminal is escaped.
    is_readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    try:
        text = json.dumps(value, ensure_ascii=not is_readable, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=not is_readable)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def note_text(args: Iterable[object], kwargs: Mapping[str, object]) -> str:
    """What a service has told, in one line: as the arguments of a call are typed."""
    words = [json_text(each) for each in args]
    words += [f"{printable(name)}={json_text(value)}" for name, value in kwargs.items()]
    return " ".join(words)
