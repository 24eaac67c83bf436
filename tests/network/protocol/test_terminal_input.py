from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.network.protocol.codec import STANDARD
from armillary.network.protocol.identities import Identity
from armillary.network.protocol.terminal_input import parse_terminal_input


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


@pytest.mark.parametrize("line", ["identity", "IDENTITY", "  Identity \t", "identity\r\n"])
def test_identity_asks_the_manager_who_is_there(line: str) -> None:
    """One word, in upper or lower case."""
    assert parse_terminal_input(line) == request("Manager", "identity")


@pytest.mark.parametrize("line", ["disconnect", "Exit", "EXIT\r\n", "__disconnect__", " __DISCONNECT__"])
def test_some_words_disconnect(line: str) -> None:
    """One word, in upper or lower case."""
    assert parse_terminal_input(line) == request("self", "__disconnect__")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("client", "Client"),
        ("CLIENT", "Client"),
        ("client ", "Client"),
        ('client ""', "Client"),
        ("client Foo", "Foo"),
        ("Client Foo", "Foo"),
        ('client "Foo"', "Foo"),
        ("client 'Foo'", "Foo"),
        ("client 'Foo  Bar'", "Foo Bar"),
        ('client "Foo   Bar"', "Foo Bar"),
        ("client   Foo   Bar", "Foo Bar"),
        ("client Marie's laptop", "Marie's laptop"),
        ("client Foo 1 x=2", "Foo 1 x=2"),
        ("clientFoo Bar", "Bar"),
    ],
)
def test_client_is_an_identity(line: str, name: str) -> None:
    """The rest is the name, without quotes and with one blank between words."""
    assert parse_terminal_input(line) == client(name)
    assert Identity.read(parse_terminal_input(line)) == Identity("client", name)


@pytest.mark.parametrize(
    ("line", "service"),
    [
        ("link DMM", "DMM"),
        ("LINK DMM", "DMM"),
        ("link Basic Math", "Basic Math"),
        ("linkBasic Math", "Basic Math"),
        ('link "Basic Math"', "Basic Math"),
        ("link 'Basic Math'", "Basic Math"),
        ('link "Basic   Math"', "Basic   Math"),
        ("link   DMM  ", "DMM"),
        ("link", ""),
    ],
)
def test_link_is_for_the_manager(line: str, service: str) -> None:
    """The rest is the service's name, without quotes."""
    assert parse_terminal_input(line) == request("Manager", "link", service)


@pytest.mark.parametrize(
    ("line", "packet"),
    [
        ("Echo echo", request("Echo", "echo")),
        ("  Echo   echo  ", request("Echo", "echo")),
        ("Echo\techo\t1", request("Echo", "echo", 1)),
        ('"Basic Math" add 1 2', request("Basic Math", "add", 1, 2)),
        ("'Basic Math' add 1 2", request("Basic Math", "add", 1, 2)),
        ('"Echo"echo 1', request("Echo", "echo", 1)),
        ('Echo "echo" 1', request("Echo", "echo", 1)),
        ('Echo "echo it" "a b"', request("Echo", "echo", "it", "a b")),
        ("Echo 'echo x=1'", request("Echo", "echo", x=1)),
        ('"A B" c d=1', request("A B", "c", d=1)),
        ('A"B" c', request("AB", "c")),
        ('"  Echo " echo', request("Echo", "echo")),
        ("Manager users_table.usernames", request("Manager", "users_table.usernames")),
        ("manager identity", request("manager", "identity")),
        ("identity x", request("identity", "x")),
        ("disconnect now", request("disconnect", "now")),
        ("a b=c", request("a", "b=c")),
        ("a b = c", request("a", "b", "=", "c")),
    ],
)
def test_a_request_is_a_service_and_an_attribute(line: str, packet: dict[str, Any]) -> None:
    """A service whose name has blanks in it is quoted."""
    assert parse_terminal_input(line) == packet


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 2 3", [1, 2, 3]),
        ("1.5 -2 1e3 0x10 1_000 +1", [1.5, -2, 1000.0, 16, 1000, 1]),
        ("true True TRUE false FALSE", [True, True, True, False, False]),
        ("none None NONE null Null", [None] * 5),
        ("[1,2,3] (1,2) {} [] {1:2}", [[1, 2, 3], (1, 2), {}, [], {1: 2}]),
        ("1,2 None,", [(1, 2), (None,)]),
        ("[1, 2]", ["[1,", "2]"]),
        ('"hello world" 5', ["hello world", 5]),
        ("'hello world' 5", ["hello world", 5]),
        ('"5" \'6\' "true" "None" \'[1]\'', ["5", "6", "true", "None", "[1]"]),
        ('"" " a "', ["", " a "]),
        ('"a" "b c" d', ["a", "b c", "d"]),
        ('1"2"3', [1, "2", 3]),
        ('"a""b"', ["a", "b"]),
        ('"a=b"', ["a=b"]),
        (r'"C:\new" C:\new', [r"C:\new", r"C:\new"]),
        ("a.b c/d 007 inf nan 1+1 lambda", ["a.b", "c/d", "007", "inf", "nan", "1+1", "lambda"]),
        ("é '\"' ", ["é", ""]),
        ('"abc', ["abc"]),
        ('"', []),
        ("== =1 x!=1 x:=1 x=", ["==", "=1", "x!=1", "x:=1", "x="]),
        ("os.system('x')", ["os.system(", "x", ")"]),
    ],
)
def test_values_are_words_literals_and_text(text: str, values: list[object]) -> None:
    """What is quoted is text; what is not is what Python would read, or else text."""
    packet = parse_terminal_input(f"Echo echo {text}")
    assert packet is not None
    assert repr(packet) == repr(request("Echo", "echo", *values))


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("x=1", [], {"x": 1}),
        ("x = 1 y= 2 z =3", [], {"x": 1, "y": 2, "z": 3}),
        ("1 2 x=1", [1, 2], {"x": 1}),
        ("1 2 x=1 3", [1, 2], {"x": 1}),
        ("1 y=a b c=2", [1], {"y": "a", "c": 2}),
        ("x=[1,2,3] y=(1,) z={}", [], {"x": [1, 2, 3], "y": (1,), "z": {}}),
        ("x=[1, 2, 3]", [], {"x": "[1,"}),
        ("x=True y=NULL z=false n=None", [], {"x": True, "y": None, "z": False, "n": None}),
        ("1 x=1 y=\"hello world\" z='a b'", [1], {"x": 1, "y": "hello world", "z": "a b"}),
        ("x=\"true\" y='5' z='[1,2]' e=''", [], {"x": "true", "y": "5", "z": "[1,2]", "e": ""}),
        ('x= "a b"', [], {"x": "a b"}),
        ('x="a"y="b"', [], {"x": "a", "y": "b"}),
        ('x="a=1 b=2" c=3', [], {"x": "a=1 b=2", "c": 3}),
        ("x==1", [], {"x": "=1"}),
        ("x= y=1", [], {"x": "y=1"}),
        ("a=b=c", [], {"a": "b=c"}),
        ("x=1,y=2", [], {"x": "1,y=2"}),
        ("_x=1 x2=-2 ñ=ü", [], {"_x": 1, "x2": -2, "ñ": "ü"}),
        ("a b = c", ["a"], {"b": "c"}),
        ("x=1 x=2", [], {"x": 2}),
    ],
)
def test_what_has_a_name_comes_last(text: str, args: list[object], kwargs: dict[str, object]) -> None:
    """Values with names follow the others; blanks around the sign mean nothing."""
    packet = parse_terminal_input(f"Echo echo {text}")
    assert repr(packet) == repr(request("Echo", "echo", *args, **kwargs))


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "\r\n",
        "Echo",
        "identityx",
        '"Echo',
        '"" echo',
        '"A B"',
        "=",
        '{"service": "a" "b": 1}',
        "[1, 2",
    ],
)
def test_what_means_nothing_is_none(line: str) -> None:
    """A single word, or JSON with a mistake in it, is no request."""
    assert parse_terminal_input(line) is None


@pytest.mark.parametrize("line", ["identity", "link DMM", "Manager identity", '"Manager" link'])
def test_the_manager_is_always_the_same_text(line: str) -> None:
    """Old programs compare it by identity."""
    packet = parse_terminal_input(line)
    assert packet is not None
    assert packet["service"] is "Manager"  # noqa: F632


@pytest.mark.parametrize(
    "text",
    [
        "(" * 8000,
        "-" * 8000 + "1",
        "1+" * 4000 + "1",
        "[" * 90 + "]" * 90,
        "9" * 8000,
        "1 if " * 2000,
        "\x00",
        "1if 1else 2",
    ],
)
def test_no_value_is_too_much(text: str) -> None:
    """What Python cannot read, or not without end, is text."""
    packet = parse_terminal_input(f"Echo echo {text.replace(' ', '')}")
    assert packet is not None
    assert len(packet["args"]) <= 1


def test_very_long_lines_mean_nothing() -> None:
    """Nobody types them."""
    assert parse_terminal_input("Echo echo " + "1 " * 10_000) is None


@given(st.text(st.characters() | st.sampled_from("\"'= [](){},.:-1ex\t\\\x00"), max_size=40))
def test_any_line_is_a_packet_an_identity_or_nothing(text: str) -> None:
    """Whatever is typed, the answer is one of these, and a packet has the keys of a packet."""
    for line in (text, f"Echo echo {text}", f"client {text}", f"link {text}"):
        packet = parse_terminal_input(line)
        if packet is not None and "type" in packet:
            assert list(packet) == list(client(""))
        elif packet is not None:
            assert list(packet) == list(request("", ""))
            assert packet["attribute"]


@given(
    st.lists(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    st.dictionaries(st.from_regex(r"\A[a-zA-Z_]\w*\Z"), st.text(st.characters(exclude_characters="\"'\n\r"))),
)
def test_values_that_are_typed_arrive(args: list[object], kwargs: dict[str, str]) -> None:
    """Numbers and quoted texts are what was typed."""
    typed = " ".join([*map(str, args), *(f'{name} = "{text}"' for name, text in kwargs.items())])
    if len(typed) > 10_000:
        return
    packet = parse_terminal_input(f"'My Service' attribute {typed}")
    assert packet == request("My Service", "attribute", *args, **kwargs)
    assert STANDARD.encode(packet)
