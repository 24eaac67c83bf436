"""Argument decoders: what a handler's signature makes of a message."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.katcp import STANDARD_TYPES, ArgumentError, FailReply, Timestamp, TimestampOrNow
from armillary.katcp.protocol.handlers import compile_decoder


def decoder(function: Any, fixed: int = 0) -> Any:
    return compile_decoder("name", function, fixed, STANDARD_TYPES)


def nothing() -> None: ...
def one(a: int) -> None: ...
def two(a: int, b: str) -> None: ...
def three(a: int, b: str, c: float) -> None: ...
def optional(a: int, b: str = "x") -> None: ...
def rest(a: int, *others: float) -> None: ...
def raw(a, b=b"") -> None: ...  # type: ignore[no-untyped-def]
def keyword(a: int, *, flag: bool = False) -> None: ...
def maybe(a: int | None = None) -> None: ...
def when(a: TimestampOrNow) -> None: ...
def quoted(ctx: NotThere, a: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "arguments", "values"),
    [
        (nothing, [], []),
        (one, [b"5"], [5]),
        (two, [b"5", b"x"], [5, "x"]),
        (three, [b"5", b"x", b"1e3"], [5, "x", 1000.0]),
        (optional, [b"5"], [5]),
        (optional, [b"5", b"y"], [5, "y"]),
        (rest, [b"5"], [5]),
        (rest, [b"5", b"1", b"2"], [5, 1.0, 2.0]),
        (raw, [b"\xff"], [b"\xff"]),
        (keyword, [b"5"], [5]),
        (maybe, [], []),
        (maybe, [b"5"], [5]),
        (when, [b"5"], [Timestamp(5)]),
    ],
)
def test_decoded(function: Any, arguments: list[bytes], values: list[Any]) -> None:
    """Arguments are decoded by annotation; what is missing is left to the function's defaults."""
    assert values == decoder(function)(arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (nothing, [b"5"], "too many arguments for name"),
        (one, [], "missing a required argument: 'a'"),
        (one, [b"5", b"6"], "too many arguments for name"),
        (two, [b"5"], "missing a required argument: 'b'"),
        (three, [b"5", b"6"], "missing a required argument: 'c'"),
        (rest, [], "missing a required argument: 'a'"),
        (keyword, [b"5", b"1"], "too many arguments for name"),
        (one, [b"x"], "argument 1 (a): invalid literal for int() with base 10: b'x'"),
        (
            two,
            [b"5", b"\xff"],
            "argument 2 (b): 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (three, [b"5", b"6", b"x"], "argument 3 (c): could not convert string to float: b'x'"),
        (rest, [b"5", b"1", b"x"], "argument 3 (others): could not convert string to float: b'x'"),
    ],
)
def test_refused(function: Any, arguments: list[bytes], reason: str) -> None:
    """What does not fit is refused by saying which argument it is, what it is, and what is wrong."""
    with pytest.raises(FailReply) as caught:
        decoder(function)(arguments)
    assert reason == str(caught.value)


def test_argument_error() -> None:
    """The refusal of one argument can be taken apart."""
    with pytest.raises(ArgumentError) as caught:
        decoder(two)([b"x", b"y"])
    assert (1, "a") == (caught.value.position, caught.value.parameter)
    assert "invalid literal for int() with base 10: b'x'" == caught.value.reason


def test_names_of_other_parameters_need_not_exist() -> None:
    """Only the annotations of arguments are looked at: a context may be known to type checkers alone."""
    assert [5] == decoder(quoted, 1)([b"5"])
    with pytest.raises(NameError, match="NotThere"):
        decoder(quoted, 0)


def test_decorated_handlers() -> None:
    """A decorator made with functools.wraps does not hide the signature."""

    @functools.wraps(two)
    def wrapper(*args: Any) -> None: ...

    assert [5, "x"] == decoder(wrapper)([b"5", b"x"])


@pytest.mark.parametrize(
    "function", [functools.partial(two, b="x"), functools.partial(functools.partial(two), b="x")]
)
def test_partial_functions(function: Any) -> None:
    """What is given already is no argument any more; annotations are those of the function behind."""
    assert [5] == decoder(function)([b"5"])


def test_objects_that_are_called() -> None:
    """An object with ``__call__``, and a method of one, are handlers as functions are."""

    class Counter:
        def __call__(self, a: int) -> None: ...
        def count(self, a: int) -> None: ...

    assert [5] == decoder(Counter())([b"5"])
    assert [5] == decoder(Counter().count)([b"5"])
    assert [5] == decoder(functools.partial(Counter()))([b"5"])


def test_keyword_only_without_default() -> None:
    """A parameter that could never get a value is refused."""

    def impossible(a: int, *, b: int) -> None: ...

    with pytest.raises(TypeError, match="keyword-only parameter b can never get a value"):
        decoder(impossible)


@given(st.lists(st.binary(max_size=6), max_size=5))
def test_all_decoders_agree(arguments: list[bytes]) -> None:
    """The quick decoders of few arguments accept and refuse exactly what the general one does."""

    def general(a: int, b: int, *c: int) -> None: ...
    def quick(a: int, b: int) -> None: ...

    def outcome(decode: Any) -> Any:
        try:
            return decode(arguments)
        except FailReply as error:
            return str(error)

    if len(arguments) <= 2:
        assert outcome(decoder(general)) == outcome(decoder(quick))
    else:
        assert "too many arguments for name" == outcome(decoder(quick))
