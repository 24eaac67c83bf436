"""How a refusal reads on the wire."""

from __future__ import annotations

import pytest

from armillary.network.protocol.refusals import Refused


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ValueError, "ValueError: no 'x' here"),
        (KeyError, "KeyError: \"no 'x' here\""),
        (PermissionError, "PermissionError: no 'x' here"),
        (ConnectionAbortedError, "ConnectionAbortedError: no 'x' here"),
    ],
)
def test_a_message_reads_as_python_writes_exceptions(kind: type[Exception], message: str) -> None:
    """The class comes first, and the text of a KeyError has quotes around it."""
    refused = Refused(kind, "no 'x' here")
    assert message == refused.message
    assert type(refused.exception) is kind
    assert "no 'x' here" == str(refused)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("attributes"), "KeyError: 'attributes'"),
        (KeyError(), "KeyError: ''"),
        (TypeError("expected a text"), "TypeError: expected a text"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), None),
        (ValueError("bad name"), "ValueError: bad name"),
    ],
)
def test_what_was_raised_becomes_a_refusal(error: Exception, message: str | None) -> None:
    """A peer is told of what checking its words has raised; of subclasses as of what they derive from."""
    assert (message or f"ValueError: {error}") == Refused.of(error).message


def test_mistakes_of_the_program_are_no_refusals() -> None:
    """What has nothing to do with the peer's words is not told to it."""
    with pytest.raises(TypeError, match="not about what a peer has said"):
        Refused.of(ZeroDivisionError("division by zero"))
