from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol.features import (
    ALL_FEATURES,
    BINARY,
    PING,
    STREAM,
    agree,
    announced,
    announcement,
)

known = st.sets(st.sampled_from(sorted(ALL_FEATURES)))


@given(known, known, st.lists(st.text(max_size=5)))
def test_what_both_name_is_agreed_on(ours: set[str], theirs: set[str], unknown: list[str]) -> None:
    """Both ends come to the same answer, and names that are not known count for nothing."""
    offer, answer = announcement(ours), {"type": "client", **announcement(theirs)}
    if "features" in answer:
        answer["features"] = [*unknown, *answer["features"]]
    assert agree(answer, ours) == agree(offer, theirs) == ours & theirs


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    """Without features the request and the answer are those of 1.0."""
    assert announcement([]) == {}
    assert announcement({STREAM, BINARY}) == {"features": ["bin1", "stream"]}


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"features": None},
        {"features": "bin1"},
        {"features": {"bin1": True}},
        {"features": [None, 1, ["bin1"], {"bin1": 1}]},
        {"features": ["BIN1", "bin2", "bin1 "]},
        ["bin1"],
        "bin1",
        None,
        5,
    ],
)
def test_whatever_else_a_peer_says_is_no_feature(told: object) -> None:
    """A 1.0 peer may have a key of that name for something else; it is not an error."""
    assert announced(told) == frozenset()
    assert agree(told) == frozenset()


def test_features_that_nobody_offered_are_not_agreed_on() -> None:
    """A device that names more than it was offered gets what was offered."""
    assert agree({"features": ["ping", "stream"]}, {PING}) == {PING}
