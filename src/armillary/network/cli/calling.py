"""The command that calls a method of a service."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
import trio

from armillary._options import Seconds
from armillary._wire.text import printable

from .connecting import Target, connection_errors_reported, connects, run_interruptibly

if TYPE_CHECKING:
    from armillary.network.errors import RemoteError

__all__ = ["call"]


# So that "-5" is an argument, and no option that is unknown.
@click.command(context_settings={"ignore_unknown_options": True})
@connects
@click.argument("service")
@click.argument("method")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option("--lock", "is_locked", is_flag=True, help="Hold the service's exclusive lock meanwhile.")
@click.option("--timeout", type=Seconds(), metavar="S", help="Seconds for the result.  [default: no limit]")
@click.option("--raw", is_flag=True, help="Print a result that is a string as it is, without quotes.")
@click.option("--traceback", is_flag=True, help="Print where in the service an error was raised.")
def call(
    target: Target,
    service: str,
    method: str,
    arguments: tuple[str, ...],
    is_locked: bool,
    timeout: float | None,
    raw: bool,
    traceback: bool,
) -> None:
    """Call a METHOD of a SERVICE, and print its result as JSON.

    Each of ARGS is JSON, or else a string; NAME=VALUE is a keyword argument. So 5 is a number, and '"5"' is a
    string. NaN and the infinities, which JSON does not have, are printed as the strings "nan", "inf" and
    "-inf". Constants and properties of a service can be called, too. What only administrators may ask of the
    manager are methods of the service Manager, such as users_table.usernames.

    \b
    Exit status:
      0    the result was printed
      1    the service has raised an error, is not there, or did not answer in time; or no connection
      2    the command line makes no sense
      130  Ctrl-C; a call that can be cancelled was
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.errors import RemoteError

    from .values import call_arguments, json_text

    try:
        args, kwargs = call_arguments(arguments)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ARGS") from None

    async def run() -> Any:
        limit = math.inf if timeout is None else timeout
        return await _call(target, service, method, args, kwargs, is_locked=is_locked, timeout=limit)

    with connection_errors_reported():
        try:
            result = run_interruptibly(run)
        except RemoteError as error:
            _show(error, with_traceback=traceback)
            raise click.exceptions.Exit(1) from None
        click.echo(result if raw and isinstance(result, str) else json_text(result))


async def _call(
    target: Target,
    service: str,
    method: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    is_locked: bool,
    timeout: float,
) -> Any:
    from armillary.network.protocol.features import CANCEL, EXCEPTION, PING
    from armillary.network.protocol.identities import MANAGER

    # No attachments: to those who want none the manager gives text, which is what is printed.
    async with target.open_client({CANCEL, EXCEPTION, PING}) as client:
        try:
            if service == MANAGER:
                with trio.fail_after(timeout):
                    return await client.admin(method, *args, **kwargs)
            async with client.link(service) as link, link.lock() if is_locked else nullcontext():
                with trio.fail_after(timeout):
                    return await link.call(method, *args, **kwargs)
        except trio.TooSlowError:
            text = f"{service}.{method} did not answer within {timeout:g} s"
            raise trio.TooSlowError(text) from None


def _show(error: RemoteError, *, with_traceback: bool) -> None:
    """Print what was raised."""
    lines = str(error).splitlines()
    if with_traceback:
        traceback = "\n".join(error.traceback).splitlines()
        # Which usually ends with the error itself.
        lines = traceback if traceback[-len(lines) :] == lines else [*traceback, *lines]
    for line in lines:
        click.echo(printable(line), err=True)
