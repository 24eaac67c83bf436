"""Small things of 1.0 that callers use: directories, and lines that people type."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from msl.network import utils


def request(service: str, attribute: str, *args: object, **kwargs: object) -> dict[str, Any]:
    return {
        "service": service,
        "attribute": attribute,
        "args": list(args),
        "kwargs": kwargs,
        "uid": "",
        "error": False,
    }


def client(name: str) -> dict[str, Any]:
    return {"type": "client", "name": name, "language": "unknown", "os": "unknown", "error": False}


def test_there_is_one_logger() -> None:
    """Its name is that of the package."""
    assert utils.logger is logging.getLogger("msl.network")


def test_the_directory_of_a_file_is_made(tmp_path: Path) -> None:
    """With those above it; the file itself is not."""
    path = tmp_path / "a" / "b" / "file"
    for _ in range(2):
        utils.ensure_root_path(str(path))
    assert path.parent.is_dir()
    assert not path.exists()


@pytest.mark.parametrize("path", [None, "", "file"])
def test_no_directory_is_nothing_to_make(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing happens."""
    monkeypatch.chdir(tmp_path)
    utils.ensure_root_path(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["identity", "IDENTITY", "  Identity \t", "identity\r\n"])
def test_identity_is_asked_of_the_manager(line: str) -> None:
    """One word, in upper or lower case."""
    assert utils.parse_terminal_input(line) == request("Manager", "identity")


@pytest.mark.parametrize("line", ["disconnect", "Exit", "EXIT\r\n", "__disconnect__", " __DISCONNECT__"])
def test_some_words_disconnect(line: str) -> None:
    """One word, in upper or lower case."""
    assert utils.parse_terminal_input(line) == request("self", "__disconnect__")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("client", "Client"),
        ("  CLIENT ", "Client"),
        ("clientFoo", "Client"),
        ("clients DMM", "DMM"),
        ("client Foo", "Foo"),
        ('Client "Foo"', "Foo"),
        ('client "Foo   Bar" baz', "Foo Bar baz"),
        ("client 'Foo'", "'Foo'"),
        ("client Marie's laptop", "Marie's laptop"),
        ('client ""', ""),
    ],
)
def test_a_client_has_a_name(line: str, name: str) -> None:
    """All words after the first, without double quotes, with one blank between them."""
    assert utils.parse_terminal_input(line) == client(name)


@pytest.mark.parametrize(
    ("line", "service"),
    [
        ("link DMM", "DMM"),
        ("LINK   DMM  ", "DMM"),
        ("linkBasic Math", "Basic Math"),
        ('link "Basic   Math"', "Basic   Math"),
        ("link 'Basic Math'", "'Basic Math'"),
        ("link", ""),
        ("linked DMM", "ed DMM"),
    ],
)
def test_a_link_is_asked_of_the_manager(line: str, service: str) -> None:
    """With all that follows the four letters, without double quotes."""
    assert utils.parse_terminal_input(line) == request("Manager", "link", service)


@pytest.mark.parametrize("line", ["", " ", "\r\n", "a", "identit", '"a"', "'a b'", '"a b', "''", "'' b"])
def test_what_means_nothing(line: str) -> None:
    """A request names a service and an attribute at least."""
    assert utils.parse_terminal_input(line) is None


@pytest.mark.parametrize(
    ("line", "packet"),
    [
        ("Echo echo", request("Echo", "echo")),
        ("Echo\techo\t1", request("Echo", "echo", 1)),
        ('"Basic Math" add 1 2', request("Basic Math", "add", 1, 2)),
        ("'Basic Math' add 1 2", request("Basic Math", "add", 1, 2)),
        ('"  Echo "echo', request("Echo", "echo")),
        ('A"B" c', request("AB", "c")),
        ("manager identity", request("manager", "identity")),
        (
            "Manager users_table.insert alice 'pw 1' is_admin=True",
            request("Manager", "users_table.insert", "alice", "pw 1", is_admin=True),
        ),
        ("identity x", request("identity", "x")),
        ("disconnect now", request("disconnect", "now")),
        ("a b=c", request("a", "b=c")),
        ('a ""', request("a", "")),
        ('{"service": "a"', request("{service:", "a")),
    ],
)
def test_a_request(line: str, packet: dict[str, Any]) -> None:
    """A service whose name has blanks in it is quoted, in quotes of either kind."""
    assert utils.parse_terminal_input(line) == packet


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 -2 1.5 1e3 0x10", [1, -2, 1.5, 1000.0, 16]),
        ("true True TRUE false FALSE none None NULL null", [True, True, True, False, False] + [None] * 4),
        ("[1,2,3] (1,2) {} 1,2", [[1, 2, 3], (1, 2), {}, (1, 2)]),
        ("[1, 2]", ["[1,", "2]"]),
        ("\"hello  world\" 'a b'", ["hello  world", "a b"]),
        ('"5" "true" "None"', ["5", "true", "None"]),
        ('"" " a "', ["", " a "]),
        ('1"2"3', [1, "2", 3]),
        (r'"a\tb" a\tb', ["a\tb", r"a\tb"]),
        ("'\\'", ['"\\"']),
        ("007 inf 1+1 a.b", ["007", "inf", "1+1", "a.b"]),
        ('"abc', ["abc"]),
        ("== =1 x!=1", ["==", "=1", "x!=1"]),
    ],
)
def test_values(text: str, values: list[object]) -> None:
    """Words, what Python would read, and else text; quoted text is a string of Python's."""
    packet = utils.parse_terminal_input(f"Echo echo {text}")
    assert repr(packet) == repr(request("Echo", "echo", *values))


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("x=1", [], {"x": 1}),
        ("x = 1 y= 2 z =3", [], {"x": 1, "y": 2, "z": 3}),
        ("1 2 x=3", [1, 2], {"x": 3}),
        ("1 x=3 4 y=5", [1], {"x": 3, "y": 5}),
        ("x='a b' y=\"5\"", [], {"x": "a b", "y": "5"}),
        ("x=True y=none", [], {"x": True, "y": None}),
        ("x=[1,2,3]", [], {"x": [1, 2, 3]}),
        ("x=[1, 2]", [], {"x": "[1,"}),
        ("x=1 x=2", [], {"x": 2}),
        ("x==1", [], {"x": "=1"}),
        ("x.y=1", ["x."], {"y": 1}),
        ("'a=b'", [], {"a": "b"}),
        ('"c d=1" e', ["c"], {"d": 1}),
        ("x=", ["x="], {}),
        ("max x=1", ["max"], {"x": 1}),
    ],
)
def test_named_values(text: str, args: list[object], kwargs: dict[str, object]) -> None:
    """From the first ``name=value`` on, only such values count."""
    assert utils.parse_terminal_input(f"Echo echo {text}") == request("Echo", "echo", *args, **kwargs)


@pytest.mark.parametrize("line", ["identity", "link x", "Manager identity", "'Manager' users_table.users"])
def test_the_manager_is_always_the_same_object(line: str) -> None:
    """Callers compare it by identity."""
    packet = utils.parse_terminal_input(line)
    assert packet is not None
    assert packet["service"] is sys.intern("Manager")


@pytest.mark.parametrize(
    ("text", "is_manager"),
    [
        ("Manager[lab7:1875]", True),
        ("Manager[::1:1]", True),
        ("Manager[lab7:1875] ", False),
        (" Manager[lab7:1875]", False),
        ("Manager[lab7:1875]\n", False),
        ("manager[lab7:1875]", False),
        ("Manager[lab 7:1875]", False),
        ("Manager[lab7:]", False),
        ("Manager[lab7]", False),
        ("marie", False),
    ],
)
def test_the_full_name_of_a_manager(text: str, is_manager: bool) -> None:
    """The private expression that callers search with knows it from a user's name."""
    assert (utils._is_manager_regex.search(text) is not None) == is_manager


@pytest.mark.parametrize(
    ("text", "is_numeric"),
    [
        ("127.0.0.1", True),
        ("192.168.100.200", True),
        ("1.2.3.4.example.org", True),
        ("1.2.3", False),
        ("a1.2.3.4", False),
        (" 1.2.3.4", False),
        ("1.2.3.x", False),
        ("1234.1.1.1", False),
        ("localhost", False),
    ],
)
def test_an_address_of_numbers(text: str, is_numeric: bool) -> None:
    """The private expression that callers search with looks at how a text begins."""
    assert (utils._numeric_address_regex.search(text) is not None) == is_numeric
