"""Handlers with typed parameters: what their signatures make of a message's arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from armillary.katcp.protocol.handlers import ArgumentError, compile_decoder
from armillary.katcp.protocol.messages import FailReply

from .core import TYPES, Message

__all__ = ["compile_arguments", "wrap_handler"]


def compile_arguments(
    name: str, function: Callable[..., Any], fixed: int
) -> Callable[[list[bytes]], list[Any]]:
    """Make the function that decodes a message's arguments for `function`.

    Args:
        name: the message's name, for error texts.
        function: its positional parameters after the first `fixed` are decoded by their annotations.
        fixed: how many leading parameters are not arguments of the message.

    Returns:
        A function from a message's arguments to values for `function`; it raises `FailReply`.

    Raises:
        TypeError: the function takes fewer than `fixed` positional parameters, or an annotation has no
            KATCP type.
        ValueError: a parameter is called ``_msg``.
        NameError: an annotation names something that does not exist (yet).
    """
    _leading(function, fixed)
    decode = compile_decoder(name, function, fixed, TYPES)

    def decode_arguments(arguments: list[bytes]) -> list[Any]:
        try:
            return decode(arguments)
        except ArgumentError as error:
            raise FailReply(error.reason) from None

    return decode_arguments


def wrap_handler(name: str, handler: Callable[..., Any], fixed: int) -> Callable[..., Any]:
    """Turn a handler of typed arguments into one of a message.

    Args:
        name: see `compile_arguments`.
        handler: see `compile_arguments`. If it is a coroutine function, so is the result.
        fixed: see `compile_arguments`.

    Returns:
        A function of the `fixed` leading arguments and a message. It raises `FailReply` for a message that
        does not fit. Its attribute ``_aiokatcp_orig_handler`` is `handler`.

    Raises:
        TypeError: see `compile_arguments`.
        ValueError: see `compile_arguments`.
        NameError: see `compile_arguments`.
    """
    leading = _leading(handler, fixed)
    decode = compile_arguments(name, handler, fixed)

    def arguments_of(given: tuple[Any, ...]) -> list[Any]:
        if len(given) != fixed + 1:
            raise TypeError(f"expected {fixed + 1} positional argument(s), got {len(given)}")
        return [*given[:fixed], *decode(given[fixed].arguments)]

    wrapper: Any
    if inspect.iscoroutinefunction(handler):

        async def wrapper(*given: Any) -> Any:
            return await handler(*arguments_of(given))
    else:

        def wrapper(*given: Any) -> Any:
            return handler(*arguments_of(given))

    functools.update_wrapper(wrapper, handler)
    message = inspect.Parameter("_msg", inspect.Parameter.POSITIONAL_ONLY, annotation=Message)
    positional_only = [parameter.replace(kind=message.kind) for parameter in leading]
    wrapper.__signature__ = inspect.Signature([*positional_only, message])
    wrapper._aiokatcp_orig_handler = handler
    return wrapper  # type: ignore[no-any-return]


def _leading(function: Callable[..., Any], fixed: int) -> list[inspect.Parameter]:
    """The parameters that are not arguments of the message."""
    parameters = inspect.signature(function).parameters
    if "_msg" in parameters:
        raise ValueError("Parameter cannot be named _msg")
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < fixed:
        raise TypeError(f"Handler must accept at least {fixed} positional argument(s)")
    return positional[:fixed]
