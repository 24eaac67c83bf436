"""What a manager and its devices tell each other beyond 1.0."""

from __future__ import annotations

import json
import re

import pytest

from armillary.network.protocol.features import ALL_FEATURES
from armillary.network.protocol.packets import Request, typed
from armillary.network.protocol.scanning import Kind, scan_line
from armillary.network.protocol.words import (
    CANCEL_CALL,
    CREDIT,
    MOST_CREDIT,
    PONG,
    WORDS,
    CallWord,
    call_word,
    tell_device,
    tell_manager,
)


def test_a_word_to_the_manager_is_a_request_to_it() -> None:
    """What a device tells its manager is a request to ``Manager`` without a uid, so that nobody answers."""
    line = tell_manager(CREDIT, "7", 8)
    assert json.loads(line) == {
        "args": ["7", 8],
        "attribute": "__credit__",
        "error": False,
        "kwargs": {},
        "service": "Manager",
        "uid": "",
    }
    assert scan_line(line).kind is Kind.MANAGER_REQUEST


def test_a_word_to_a_device_is_a_question_of_the_manager() -> None:
    """What a manager tells a device looks as its questions in the handshake do."""
    packet = typed(json.loads(tell_device("Manager[h:1]", CANCEL_CALL, "c", "7")))
    assert packet == Request(CANCEL_CALL, ["c", "7"], {}, "", "Manager[h:1]", None)


def test_every_word_belongs_to_a_feature() -> None:
    """Each word is said only to who has agreed on a feature, and looks like nobody's method."""
    assert set(WORDS.values()) <= ALL_FEATURES
    assert all(word.startswith("__") and word.endswith("__") for word in WORDS)
    assert PONG in WORDS


@pytest.mark.parametrize("number", [1, 16, MOST_CREDIT])
def test_a_credit(number: int) -> None:
    """A credit names the call and a number of items; from a manager, the client as well."""
    assert call_word(CREDIT, ["7", number], has_requester=False) == CallWord("", "7", number)
    assert call_word(CREDIT, ["c[h:1]", "7", number], has_requester=True) == CallWord("c[h:1]", "7", number)


def test_a_cancel() -> None:
    """A cancel names the call; what else it says is for tomorrow."""
    assert call_word(CANCEL_CALL, ["7"], has_requester=False) == CallWord("", "7", 0)
    assert call_word(CANCEL_CALL, ["c", "7", "why"], has_requester=True) == CallWord("c", "7", 0)


@pytest.mark.parametrize(
    ("word", "args", "text"),
    [
        (CANCEL_CALL, [], "expected a uid as arguments of '__cancel__'"),
        (CANCEL_CALL, [7], "expected a uid as arguments of '__cancel__'"),
        (CANCEL_CALL, [""], "expected a uid as arguments of '__cancel__'"),
        (CREDIT, ["7"], "expected a number of items in '__credit__', got null"),
        (CREDIT, ["7", "8"], "expected a number of items in '__credit__', got a string"),
        (CREDIT, ["7", True], "expected a number of items in '__credit__', got a boolean"),
        (CREDIT, ["7", 0], f"expected 1 to {MOST_CREDIT} items in '__credit__', got 0"),
        (CREDIT, ["7", MOST_CREDIT + 1], f"expected 1 to {MOST_CREDIT} items in '__credit__', got 1000001"),
    ],
)
def test_a_word_that_makes_no_sense(word: str, args: list[object], text: str) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call_word(word, args, has_requester=False)


def test_a_manager_has_to_name_the_client() -> None:
    """Uids are each client's own, so a manager that names no client says nothing."""
    with pytest.raises(ValueError, match="expected a requester and a uid as arguments"):
        call_word(CANCEL_CALL, ["7"], has_requester=True)
