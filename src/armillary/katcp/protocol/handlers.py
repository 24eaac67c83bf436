"""Turn a function with typed parameters into one that takes a message's arguments.

A signature is looked at once, when the handler's class is made. What is left for each message is a list of
decoders: binding a signature for every request would cost more than everything else that a request needs.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .messages import FailReply
from .values import TypeRegistry

__all__ = ["ArgumentError", "Decoder", "compile_decoder"]

Decoder = Callable[[list[bytes]], list[Any]]


class ArgumentError(FailReply):
    """One argument of a message is not of the type that its handler takes.

    Attributes:
        position: which argument, counted from 1.
        parameter: the name of the handler's parameter.
        reason: what is wrong with it.
    """

    def __init__(self, position: int, parameter: str, reason: str) -> None:
        super().__init__(f"argument {position} ({parameter}): {reason}")
        self.position = position
        self.parameter = parameter
        self.reason = reason


def compile_decoder(name: str, function: Callable[..., Any], fixed: int, types: TypeRegistry) -> Decoder:
    """Make the function that decodes a message's arguments for `function`.

    Args:
        name: the message's name, for error texts.
        function: its positional parameters after the first `fixed` are decoded by their annotations
            (bytes without one); ``*args`` decodes all that remain; defaults stand for what is missing;
            keyword-only parameters are left to their defaults.
        fixed: how many leading parameters are not arguments of the message.
        types: where annotations are looked up.

    Returns:
        A function from a message's arguments to values for `function`. It raises `FailReply` for too few
        or too many arguments and `ArgumentError` for one that cannot be decoded.

    Raises:
        TypeError: the function takes fewer than `fixed` positional parameters, has a keyword-only one
            without default, or an annotation has no KATCP type.
        NameError: an annotation names something that does not exist (yet).
    """
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < fixed:
        raise TypeError(f"{name}: handler must accept at least {fixed} positional argument(s)")
    rest: tuple[str, Callable[[bytes], Any]] | None = None
    decoders: list[tuple[str, Callable[[bytes], Any]]] = []
    for parameter in positional[fixed:]:
        decoders.append((parameter.name, _decoder_of(name, function, parameter, types)))
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = (parameter.name, _decoder_of(name, function, parameter, types))
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"{name}: keyword-only parameter {parameter.name} can never get a value")
    required = [p.name for p in positional[fixed:] if p.default is p.empty]
    return _make(name, decoders, required, rest)


def _decoder_of(
    name: str, function: Callable[..., Any], parameter: inspect.Parameter, types: TypeRegistry
) -> Callable[[bytes], Any]:
    try:
        return types.get_decoder(_annotation(function, parameter))
    except TypeError as error:
        raise TypeError(f"{name}: parameter {parameter.name}: {error}") from None


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The class that a parameter is annotated with; a string is looked up where the function was written.

    Each parameter alone, because the others (the context, above all) often name what is imported for type
    checkers only.
    """
    if parameter.annotation is parameter.empty:
        return bytes
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    alone = typing.cast(Any, SimpleNamespace(__annotations__={parameter.name: parameter.annotation}))
    return typing.get_type_hints(alone, globalns=_namespace(function))[parameter.name]


def _namespace(function: Callable[..., Any]) -> dict[str, Any]:
    """The globals of the module where a function was written, or the class of an object that is called."""
    written = inspect.unwrap(function)
    while isinstance(written, functools.partial):
        written = inspect.unwrap(written.func)
    if not hasattr(written, "__globals__"):
        written = inspect.unwrap(type(written).__call__)
    namespace: dict[str, Any] = written.__globals__
    return namespace


def _make(
    name: str,
    decoders: list[tuple[str, Callable[[bytes], Any]]],
    required: list[str],
    rest: tuple[str, Callable[[bytes], Any]] | None,
) -> Decoder:
    functions = [decode for _, decode in decoders]
    at_most = None if rest is not None else len(decoders)

    def decode_carefully(arguments: list[bytes]) -> list[Any]:
        """Decode one by one, to say which argument is wrong, and to fill ``*args``."""
        if len(arguments) < len(required):
            raise FailReply(f"missing a required argument: {required[len(arguments)]!r}")
        if at_most is not None and len(arguments) > at_most:
            raise FailReply(f"too many arguments for {name}")
        values = []
        for position, raw in enumerate(arguments):
            parameter, decode = decoders[position] if position < len(decoders) else typing.cast(Any, rest)
            try:
                values.append(decode(raw))
            except ValueError as error:
                raise ArgumentError(position + 1, parameter, str(error)) from None
        return values

    if at_most is None or at_most > 2:

        def decode_many(arguments: list[bytes]) -> list[Any]:
            if len(arguments) != at_most:
                return decode_carefully(arguments)
            try:
                return [decode(raw) for decode, raw in zip(functions, arguments, strict=True)]
            except ValueError:
                return decode_carefully(arguments)

        return decode_many if at_most is not None else decode_carefully

    # Most requests take two arguments at most; each of these saves a loop.
    if at_most == 0:

        def decode_none(arguments: list[bytes]) -> list[Any]:
            return decode_carefully(arguments) if arguments else []

        return decode_none

    if at_most == 1:
        (first,) = functions

        def decode_one(arguments: list[bytes]) -> list[Any]:
            if len(arguments) == 1:
                try:
                    return [first(arguments[0])]
                except ValueError:
                    pass
            return decode_carefully(arguments)

        return decode_one

    first, second = functions

    def decode_two(arguments: list[bytes]) -> list[Any]:
        if len(arguments) == 2:
            try:
                return [first(arguments[0]), second(arguments[1])]
            except ValueError:
                pass
        return decode_carefully(arguments)

    return decode_two
