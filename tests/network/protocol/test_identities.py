from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol.features import ALL_FEATURES
from armillary.network.protocol.identities import (
    Identity,
    identities_as_text,
    manager_identity,
    manager_name,
    service_is_running,
)
from armillary.network.protocol.packets import message_of

CLIENT = {"type": "client", "name": "Bench A", "language": "Python 3.12.1", "os": "Linux 6.1 x86_64"}
SERVICE = {
    "type": "service",
    "name": "DMM",
    "attributes": {"pi": 3.14, "read": "(n=1) -> float"},
    "max_clients": 1,
    "language": "LabVIEW 2010",
    "os": "Windows 10",
}


def test_a_client_says_who_it_is() -> None:
    """Name, language and system are what it says."""
    assert Identity.read(CLIENT) == Identity("client", "Bench A", "Python 3.12.1", "Linux 6.1 x86_64")


def test_a_service_says_what_it_offers() -> None:
    """Besides, it has attributes and a number of clients."""
    assert Identity.read(SERVICE) == Identity(
        "service", "DMM", "LabVIEW 2010", "Windows 10", {"pi": 3.14, "read": "(n=1) -> float"}, 1
    )


def test_little_is_enough() -> None:
    """A client needs a name, a service besides attributes; the type is in upper or lower case."""
    assert Identity.read({"type": "Client", "name": "x"}) == Identity("client", "x", "unknown", "unknown")
    assert Identity.read({"type": "SERVICE", "name": "x", "attributes": {}}) == Identity("service", "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "x"}, """TypeError: Unknown connection type 'x'. Must be "client" or "service\""""),
        ({"type": ""}, """TypeError: Unknown connection type ''. Must be "client" or "service\""""),
        ({"type": 5}, "TypeError: expected a string as the type of an identity, got a number"),
        ({"type": None}, "TypeError: expected a string as the type of an identity, got null"),
        ({"name": 5}, "TypeError: expected a string as the name of an identity, got a number"),
        ({"name": ""}, "ValueError: expected a name of 1 to 1024 printable characters, got ''"),
        ({"name": "a\nb"}, "ValueError: expected a name of 1 to 1024 printable characters, got 'a\\nb'"),
        ({"name": "\ud800"}, "ValueError: expected a name of 1 to 1024 printable characters, got '\\ud800'"),
        ({"attributes": []}, "TypeError: expected an object as the attributes of a service, got an array"),
        ({"attributes": None}, "TypeError: expected an object as the attributes of a service, got null"),
        ({"max_clients": "1"}, "TypeError: expected a whole number as the max_clients of a service, got '1'"),
        ({"max_clients": 1.5}, "TypeError: expected a whole number as the max_clients of a service, got 1.5"),
        ({"max_clients": True},
         "TypeError: expected a whole number as the max_clients of a service, got True"),
        ({"max_clients": float("nan")},
         "TypeError: expected a whole number as the max_clients of a service, got nan"),
    ],
)  # fmt: skip
def test_an_identity_that_cannot_be_is_told_why(changes: dict[str, object], message: str) -> None:
    """The errors are those of 1.0 where it has one, and say what was expected where it has none."""
    with pytest.raises((TypeError, ValueError)) as caught:
        Identity.read({**SERVICE, **changes})
    assert message_of(caught.value) == message


@pytest.mark.parametrize("key", ["type", "name", "attributes"])
def test_a_missing_key_is_named(key: str) -> None:
    """The error is that of 1.0: the key, in quotes."""
    with pytest.raises(KeyError) as caught:
        Identity.read({k: v for k, v in SERVICE.items() if k != key})
    assert message_of(caught.value) == f"KeyError: '{key}'"


@pytest.mark.parametrize(
    ("answer", "what"),
    [([], "an array"), ("client x", "a string"), (None, "null"), (5, "a number"), (True, "a boolean")],
)
def test_what_is_no_object_is_no_identity(answer: object, what: str) -> None:
    """Whatever a device answers instead is refused by its name."""
    with pytest.raises(TypeError, match=f"expected an object as the identity, got {what}"):
        Identity.read(answer)


def test_a_name_that_is_long_is_refused_shortly() -> None:
    """The error does not repeat a megabyte."""
    Identity.read({**CLIENT, "name": "x" * 1024})
    with pytest.raises(ValueError, match="expected a name of 1 to 1024") as caught:
        Identity.read({**CLIENT, "name": "x" * 1_000_000})
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("said", "meant"), [(None, -1), (0, -1), (-1, -1), (-7, -1), (1, 1), (5.0, 5), (10**9, 10**9)]
)
def test_no_limit_is_said_in_many_ways(said: object, meant: int) -> None:
    """Nothing, and any number that is not positive, is -1."""
    assert Identity.read({**SERVICE, "max_clients": said}).max_clients == meant


def test_what_no_program_acts_upon_is_as_good_as_its_text() -> None:
    """A language of another type is no reason to refuse a device."""
    assert Identity.read({**CLIENT, "language": 3.12, "os": None}).language == "3.12"


def test_a_client_has_no_attributes() -> None:
    """What only services have is ignored in a client's identity, and so is what nobody knows."""
    assert Identity.read({**CLIENT, "attributes": 5, "max_clients": "x", "extra": {}}) == Identity.read(
        CLIENT
    )


names = st.text(min_size=1, max_size=9).filter(str.isprintable)
identities = st.builds(
    Identity,
    st.just("client"),
    names,
    names,
    names,
    features=st.frozensets(st.sampled_from(sorted(ALL_FEATURES))),
) | st.builds(
    Identity,
    st.just("service"),
    names,
    names,
    names,
    st.dictionaries(names, st.text(max_size=4) | st.integers() | st.none()),
    st.just(-1) | st.integers(min_value=1),
    st.frozensets(st.sampled_from(sorted(ALL_FEATURES))),
)


@given(identities)
def test_what_a_device_answers_is_what_the_manager_reads(identity: Identity) -> None:
    """An identity survives the wire."""
    assert Identity.read(json.loads(json.dumps(identity.answer()))) == identity


def test_an_answer_is_that_of_1_0() -> None:
    """A device that agrees to nothing answers as 1.0 does."""
    assert Identity.read(CLIENT).answer() == CLIENT
    assert Identity.read(SERVICE).answer() == SERVICE
    assert list(Identity.read(SERVICE).answer()) == [
        "type",
        "name",
        "attributes",
        "max_clients",
        "language",
        "os",
    ]


def test_features_are_part_of_the_answer() -> None:
    """What a device can do beyond 1.0 is read from a key that 1.0 ignores."""
    answer = {**CLIENT, "features": ["ping", "bin1", "unknown"]}
    assert Identity.read(answer).features == {"ping", "bin1"}


def test_a_name_that_is_taken_is_told_as_1_0_tells_it() -> None:
    """The text names the service."""
    error = service_is_running("DMM")
    assert message_of(error) == "NameError: A 'DMM' service is already running on the Manager"


def everybody() -> dict[str, Any]:
    return manager_identity(
        hostname="lab7",
        port=1875,
        language="Python 3.11.7",
        os="Linux 6.1.0 x86_64",
        clients={
            "Bench A[lab7:51022]": {"name": "Bench A", "address": "lab7:51022", "language": "C", "os": "X"},
            "An other[lab7:51023]": {"name": "An other", "address": "lab7:51023", "language": "D", "os": "Y"},
        },
        services={
            "Zeta": {"attributes": {}, "address": "a:1", "language": "L", "os": "O", "max_clients": -1},
            "DMM": {
                "attributes": {
                    "pi": 3.14,
                    "read": "(n=1) -> float",
                    "A": "text",
                    "none": None,
                    "list": [1, {"x": 2}],
                    "odd": "(paren",
                    "union": "(level: Union[str, int]) -> bool",
                },
                "address": "lab7:51030",
                "language": "LabVIEW 2010",
                "os": "Windows 10",
                "max_clients": 1,
            },
        },
    )


def test_the_managers_identity_has_the_keys_of_1_0() -> None:
    """In their order; two things can be asked of a manager by anybody."""
    identity = everybody()
    assert list(identity) == ["hostname", "port", "attributes", "language", "os", "clients", "services"]
    assert identity["attributes"] == {"identity": "() -> dict", "link": "(service: str) -> bool"}
    assert manager_name("lab7", 1875) == "Manager[lab7:1875]"


TEXT = """\
Manager[lab7:1875]
  attributes:
    identity() -> dict
    link(service: str) -> bool
  language: Python 3.11.7
  os: Linux 6.1.0 x86_64
Clients [2]:
  An other[lab7:51023]
    language: D
    os: Y
  Bench A[lab7:51022]
    language: C
    os: X
Services [2]:
  DMM[lab7:51030]
    attributes:
      A() -> text
      list() -> [1, {'x': 2}]
      none() -> None
      odd(paren
      pi() -> 3.14
      read(n=1) -> float
      union(level: Union[str, int]) -> bool
    language: LabVIEW 2010
    max_clients: 1
    os: Windows 10
  Zeta[a:1]
    attributes:
    language: L
    max_clients: -1
    os: O"""


@pytest.mark.parametrize("indent", [0, 1, 2, 4])
def test_identities_are_shown_line_by_line_as_1_0_shows_them(indent: int) -> None:
    """Sorted by name, each level indented by as many blanks as are asked for."""
    lines = identities_as_text(everybody(), indent=indent).split("\n")
    expected = TEXT.split("\n")
    assert [line.lstrip(" ") for line in lines] == [line.lstrip(" ") for line in expected]
    for line, wanted in zip(lines, expected, strict=True):
        assert len(line) - len(line.lstrip(" ")) == (len(wanted) - len(wanted.lstrip(" "))) // 2 * indent
    assert identities_as_text(everybody()) == TEXT


def test_nobody_is_shown_as_nobody() -> None:
    """A manager by itself has two headings with nothing below them."""
    identity = manager_identity(hostname="h", port=1, language="L", os="O", clients={}, services={})
    assert identities_as_text(identity).endswith("\n  os: O\nClients [0]:\nServices [0]:")
