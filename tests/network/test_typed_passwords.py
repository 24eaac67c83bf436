from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from armillary.network.typed_passwords import typed_password


def test_text_is_the_password_itself(tmp_path: Path) -> None:
    """What is not the name of a file is taken as it is, even if it could never be one."""
    for text in ("a b", "", " x ", str(tmp_path), str(tmp_path / "none"), "n\0ul", "x" * 10_000):
        assert (text, None) == typed_password(text)


def test_a_file_is_asked_for_its_first_line(tmp_path: Path) -> None:
    """Blanks around the line are no part of it, as in MSL-Network 1.0; other lines are not read."""
    path = tmp_path / "secret"
    path.write_bytes("  pöl onium \r\nsecond\n".encode() + b"\xff")
    assert ("pöl onium", path) == typed_password(str(path))


@pytest.mark.parametrize("content", [b"", b"\nsecond", b"  \n", b"p\xfflonium\n"])
def test_a_file_without_a_password_is_an_error_that_quotes_nothing(content: bytes, tmp_path: Path) -> None:
    """An empty line or bytes that are no text are refused, and neither text nor traceback has any of it."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="first line") as raised:
        typed_password(str(path))
    shown = "".join(traceback.format_exception(raised.value))
    assert "lonium" not in shown
    assert "0xff" not in shown


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """The name of an unreadable file is not taken for the password."""
    path = tmp_path / "secret"
    path.touch(mode=0)
    with pytest.raises(ValueError, match="cannot read"):
        typed_password(str(path))
