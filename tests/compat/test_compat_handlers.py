"""`wrap_handler`: handlers of typed arguments become handlers of messages."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, Optional

import pytest

from aiokatcp._handlers import compile_arguments
from aiokatcp.connection import FailReply, wrap_handler
from aiokatcp.core import DeviceStatus, Message, TimestampOrNow


def handler(self: Any, ctx: Any, a: int, b: float = 2.5, *rest: str) -> tuple[Any, ...]:
    """What it does."""
    return self, ctx, a, b, rest


def request(*arguments: Any) -> Message:
    return Message.request("name", *arguments)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["1"], (1, 2.5, ())),
        (["1", "2"], (1, 2.0, ())),
        (["1", "2", "x", "é"], (1, 2.0, ("x", "é"))),
    ],
)
def test_a_message_becomes_arguments(arguments: list[str], values: tuple[Any, ...]) -> None:
    """Leading arguments pass as they are; the message's are decoded, and defaults fill what is missing."""
    wrapped = wrap_handler("name", handler, 2)
    assert wrapped("self", "ctx", request(*arguments)) == ("self", "ctx", *values)


def two(a: int, b: float) -> tuple[int, float]:
    return a, b


def union(a: int | float) -> None: ...
def choice(a: DeviceStatus) -> None: ...
def when(a: Optional[TimestampOrNow] = None) -> None: ...  # noqa: UP045 - as programs still write it


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (two, [], "missing a required argument: 'a'"),
        (two, ["1"], "missing a required argument: 'b'"),
        (two, ["1", "2", "3"], "too many arguments for name"),
        (two, ["x", "2"], "invalid literal for int() with base 10: b'x'"),
        (two, ["1", "x"], "could not convert string to float: b'x'"),
        (choice, ["OK"], "b'OK' is not a valid value for DeviceStatus"),
    ],
)
def test_a_message_that_does_not_fit_fails(function: Any, arguments: list[str], text: str) -> None:
    """The text is what the client gets: the decoder's own where an argument is wrong."""
    with pytest.raises(FailReply) as caught:
        wrap_handler("name", function, 0)(request(*arguments))
    assert type(caught.value) is FailReply
    assert str(caught.value) == text
    with pytest.raises(FailReply) as caught:
        compile_arguments("name", function, 0)(request(*arguments).arguments)
    assert type(caught.value) is FailReply
    assert str(caught.value) == text


def test_unions() -> None:
    """What several types accept is refused, and None in a union is no type."""
    with pytest.raises(FailReply, match=r"^b'3' is ambiguous for "):
        wrap_handler("name", union, 0)(request("3"))
    with pytest.raises(FailReply, match=r"None of the types in .* could decode b'x'"):
        wrap_handler("name", when, 0)(request("x"))


def test_compiled_arguments() -> None:
    """Only what the message brought is decoded: the function's defaults stand for the rest."""
    decode = compile_arguments("name", handler, 2)
    assert decode([b"1"]) == [1]
    assert decode([b"1", b"2", b"x"]) == [1, 2.0, "x"]


def test_annotations_may_be_classes_or_text() -> None:
    """A module with ``from __future__ import annotations`` is as good as one without; none means bytes."""

    def classes(a, b):  # type: ignore[no-untyped-def]
        return a, b

    classes.__annotations__ = {"a": int}
    assert wrap_handler("name", classes, 0)(request("1", "2")) == (1, b"2")
    assert isinstance(inspect.signature(two).parameters["a"].annotation, str)
    assert wrap_handler("name", two, 0)(request("1", "2")) == (1, 2.0)


def test_keyword_only_parameters_keep_their_defaults() -> None:
    """A message never fills them, and their annotations may be anything."""

    def function(a: int, *, flag: dict[str, int] | None = None) -> tuple[int, Any]:
        return a, flag

    wrapped = wrap_handler("name", function, 0)
    assert wrapped(request("1")) == (1, None)
    with pytest.raises(FailReply, match="too many arguments for name"):
        wrapped(request("1", "2"))


class Counter:
    def __call__(self, a: int) -> int:
        return a

    def method(self, a: int) -> int:
        return a


@pytest.mark.parametrize(
    "function", [Counter(), Counter().method, functools.partial(two, b=0), lambda a, b=b"": int(a)]
)
def test_whatever_can_be_called_can_be_wrapped(function: Any) -> None:
    """Objects, bound methods, partial functions and lambdas."""
    wrapped = wrap_handler("name", function, 0)
    assert wrapped(request("3")) in (3, (3, 0))
    assert wrapped._aiokatcp_orig_handler == function


def test_a_coroutine_function_stays_one(host: Any) -> None:
    """Its wrapper is awaited, and what does not fit fails when it is."""

    async def later(ctx: str, a: int) -> tuple[str, int]:
        await asyncio.sleep(0)
        return ctx, a

    async def main() -> None:
        for function in (later, functools.partial(later)):
            wrapped = wrap_handler("name", function, 1)
            assert inspect.iscoroutinefunction(wrapped)
            assert await wrapped("ctx", request("3")) == ("ctx", 3)
            refused = wrapped("ctx", request("x"))
            with pytest.raises(FailReply, match="invalid literal"):
                await refused

    host.run(main)


def test_a_wrapper_looks_like_its_handler() -> None:
    """Name, docstring and module stay, the handler can be had, and the signature is the wrapper's own."""
    wrapped = wrap_handler("name", handler, 2)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.__module__) == ("handler", "What it does.", __name__)
    assert wrapped._aiokatcp_orig_handler is handler  # type: ignore[attr-defined]
    assert list(inspect.signature(wrapped).parameters) == ["self", "ctx", "_msg"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrapper_counts_its_arguments(count: int) -> None:
    """An argument too many never becomes one of the message's."""
    with pytest.raises(TypeError, match=r"expected 3 positional argument\(s\), got"):
        wrap_handler("name", handler, 2)(*["x"] * count, request("1"))


def test_a_handler_needs_its_leading_parameters() -> None:
    """Too few of them are a TypeError when the handler is wrapped; ``*args`` is none of them."""

    def nothing(self: Any) -> None: ...
    def anything(*args: Any) -> None: ...

    for function in (nothing, anything):
        for wrap in (wrap_handler, compile_arguments):
            with pytest.raises(TypeError, match=r"^Handler must accept at least 2 positional argument\(s\)$"):
                wrap("name", function, 2)


@pytest.mark.parametrize("fixed", [0, 1])
def test_a_parameter_cannot_have_the_messages_name(fixed: int) -> None:
    """It is a ValueError when the handler is wrapped."""

    def function(_msg: int) -> None: ...

    for wrap in (wrap_handler, compile_arguments):
        with pytest.raises(ValueError, match=r"^Parameter cannot be named _msg$"):
            wrap("name", function, fixed)


def test_an_annotation_without_a_type_is_a_type_error() -> None:
    """It is found when the handler is wrapped; annotations of leading parameters may be anything."""

    def function(ctx: dict[str, int], a: dict[str, int]) -> None: ...

    for wrap in (wrap_handler, compile_arguments):
        with pytest.raises(TypeError, match="is not registered"):
            wrap("name", function, 1)
        wrap("name", function, 2)


def test_what_a_handler_raises_comes_out() -> None:
    """A handler's own TypeError or ValueError is not taken for one of decoding."""

    def function(a: int) -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        wrap_handler("name", function, 0)(request("1"))
