"""Passwords as they are given on a command line: the text itself, or a file that has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["TypedPassword", "typed_password"]


class TypedPassword(NamedTuple):
    """A password, and the file that it was read from."""

    password: str
    file: Path | None


def typed_password(text: str) -> TypedPassword:
    """What somebody means by `text`: the first line of the file of that name, or else the text itself.

    Blanks around that line are no part of the password.

    Raises:
        ValueError: the file cannot be read, has no text, or its first line is empty. The error quotes nothing
            of what is in it.
    """
    if not os.path.isfile(text):
        return TypedPassword(text, None)
    try:
        with open(text, "rb") as file:
            password = file.readline().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"expected a password as UTF-8 text in the first line of {text}") from None
    except OSError as error:
        raise ValueError(f"cannot read the password: {error}") from None
    if not password:
        raise ValueError(f"expected a password in the first line of {text}, which is empty")
    return TypedPassword(password, Path(text))
