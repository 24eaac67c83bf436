"""What a manager says of what goes on: as JSON and back, rates, and who may know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol.features import ALL_FEATURES, STATUS
from armillary.network.protocol.roles import (
    ADMIN_REQUESTS,
    ADMINISTRATOR,
    NOBODY,
    OBSERVER,
    OPERATOR,
    PUBLIC_REQUESTS,
    Role,
)
from armillary.network.protocol.status import STATUS_REQUEST, ManagerStatus, ServiceStatus, rates

names = st.text(max_size=8)
counts = st.integers(0, 2**70)
services = st.builds(
    ServiceStatus,
    address=names,
    links=st.lists(names, max_size=3).map(tuple),
    lock=st.sampled_from([None, "shared", "exclusive"]),
    holders=st.lists(names, max_size=3).map(tuple),
    forwarded=counts,
    answered=counts,
    waiting=counts,
)
statuses = st.builds(
    ManagerStatus,
    clock=st.floats(0, 1e9),
    revision=counts,
    services=st.dictionaries(names, services, max_size=3),
)


@given(statuses)
def test_what_a_manager_says_is_what_is_read(status: ManagerStatus) -> None:
    """A status comes through JSON as it was."""
    assert ManagerStatus.read(json.loads(json.dumps(status.answer()))) == status


@given(statuses)
def test_what_is_not_known_is_ignored(status: ManagerStatus) -> None:
    """A manager of tomorrow may say more."""
    answer: dict[str, Any] = {**status.answer(), "mood": "fine"}
    answer["services"] = {name: {**entry, "mood": 1} for name, entry in answer["services"].items()}
    assert ManagerStatus.read(answer) == status


GOOD = ManagerStatus(1.0, 2, {"DMM": ServiceStatus("lab7:1", ("A[lab7:2]",), "shared", ("A[lab7:2]",))})


@pytest.mark.parametrize("key", ["clock", "revision", "services"])
@pytest.mark.parametrize("value", [None, "1", [], True])
def test_a_status_that_is_none(key: str, value: object) -> None:
    """Another type in any place of the answer is a TypeError, and a place that is empty a KeyError."""
    with pytest.raises(TypeError):
        ManagerStatus.read({**GOOD.answer(), key: value})
    with pytest.raises(KeyError, match=key):
        ManagerStatus.read({name: value for name, value in GOOD.answer().items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", None),
        ("links", "A[lab7:2]"),
        ("links", [1]),
        ("lock", 1),
        ("holders", {}),
        ("forwarded", 1.5),
        ("answered", None),
        ("waiting", True),
    ],
)
def test_a_service_that_is_none(key: str, value: object) -> None:
    """The same is true of what is said of a service."""
    entry = GOOD.services["DMM"].answer()
    for wrong in ({**entry, key: value}, "DMM"):
        with pytest.raises(TypeError):
            ManagerStatus.read({**GOOD.answer(), "services": {"DMM": wrong}})
    del entry[key]
    with pytest.raises(KeyError, match=key):
        ManagerStatus.read({**GOOD.answer(), "services": {"DMM": entry}})


def test_rates_are_those_of_the_services_that_were_there() -> None:
    """A service that has come, or was started again, has no rate yet."""
    earlier = ManagerStatus(
        10.0,
        1,
        {
            "DMM": ServiceStatus("lab7:1", forwarded=100),
            "PSU": ServiceStatus("lab7:2", forwarded=7),
            "Scope": ServiceStatus("lab7:3", forwarded=5),
        },
    )
    later = ManagerStatus(
        14.0,
        2,
        {
            "DMM": ServiceStatus("lab7:1", forwarded=110),
            "PSU": ServiceStatus("lab7:2", forwarded=7),
            "Scope": ServiceStatus("lab7:9", forwarded=50),
            "Oven": ServiceStatus("lab7:4", forwarded=1),
        },
    )
    assert rates(earlier, later) == {"DMM": 2.5, "PSU": 0.0}


def test_no_rate_without_time() -> None:
    """Two looks at the same moment, or in the wrong order, say nothing."""
    later = ManagerStatus(11.0, 1, GOOD.services)
    assert rates(GOOD, GOOD) == rates(later, GOOD) == {}
    assert rates(GOOD, later) == {"DMM": 0.0}


def test_the_request_is_a_public_one_that_1_0_does_not_have() -> None:
    """Nobody needs to be an administrator for it, and a manager of 1.0 is never asked: it is a feature."""
    assert STATUS_REQUEST in PUBLIC_REQUESTS
    assert STATUS_REQUEST not in ADMIN_REQUESTS
    assert STATUS in ALL_FEATURES


def test_who_may_use_a_service_may_know_what_it_does() -> None:
    """To link or to call is enough, and administrators may know everything."""
    for role in (ADMINISTRATOR, OPERATOR, OBSERVER, Role("boss", administrate=True)):
        assert role.may_watch("DMM")
    assert not NOBODY.may_watch("DMM")
    some = Role("some", link=("DMM",), call=("Oven*",))
    assert [name for name in ("DMM", "Oven 2", "PSU") if some.may_watch(name)] == ["DMM", "Oven 2"]
