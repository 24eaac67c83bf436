"""Passwords as people give them: the words of a command line, or a file."""

from __future__ import annotations

from collections.abc import Iterable

from armillary.network.typed_passwords import typed_password

__all__ = ["given_password"]


def given_password(given: str | Iterable[str] | None) -> tuple[str | None, bool]:
    """The password that somebody means, and whether it was read from a file.

    Args:
        given: the password, or words that make it, with a blank between each two. If a file has that name,
            the password is its first line, without the blanks around it.

    Raises:
        ValueError: the file has no password.
    """
    if given is None:
        return None, False
    password, file = typed_password(given if isinstance(given, str) else " ".join(given))
    return password, file is not None
