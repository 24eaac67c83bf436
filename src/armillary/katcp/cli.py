"""``armillary katcp``: talk to KATCP devices from a terminal, and be one.

The modules that only one command needs are imported in that command: rich and psutil would make the others
start noticeably later.
"""

from __future__ import annotations

import functools
import math
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
import trio

from armillary._options import Seconds
from armillary._runtime.dial import address_text, bound_ports, split_address
from armillary._runtime.groups import single_exception
from armillary._runtime.signals import cancel_on_signal
from armillary.errors import ArmillaryError

from .client import open_client
from .protocol.conversation import ProtocolError
from .protocol.messages import FailReply, InvalidReply, WireMessage, wire_name

__all__ = ["main"]

_Target = tuple[str, int | None]


class _Address(click.ParamType[_Target]):
    """Where a device listens."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Target:
        try:
            return split_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _RequestName(click.ParamType[str]):
    """The name of a request."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            wire_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class _Refused(click.ClickException):
    """The device answered, and its answer was no."""

    exit_code = 2


def _connects(command: Callable[..., None]) -> Callable[..., None]:
    """Add an ADDRESS and the options of commands that connect; these get `ssl_context` for two of them."""

    @click.argument("address", type=_Address())
    @click.option(
        "--connect-timeout",
        type=Seconds(),
        default=30.0,
        show_default=True,
        metavar="S",
        help="Seconds for connecting, until the device has said which protocol it speaks.",
    )
    @click.option("--tls", is_flag=True, help="Speak TLS; trust whom this computer trusts.")
    @click.option("--cafile", metavar="FILE", help="Speak TLS; trust the certificates in this file.")
    @functools.wraps(command)
    def with_ssl_context(*, tls: bool, cafile: str | None, **parameters: Any) -> None:
        context = None
        if tls or cafile is not None:
            try:
                context = ssl.create_default_context(cafile=cafile)
            except OSError as error:  # ssl's own errors are among these
                raise click.UsageError(
                    f"expected certificates in PEM form in --cafile {cafile}: {error}"
                ) from None
        command(ssl_context=context, **parameters)

    return with_ssl_context


@contextmanager
def _errors_reported(address: _Target) -> Iterator[None]:
    """Turn what can go wrong with a connection into an error message and a status."""
    where = address_text(*address)
    try:
        yield
    except (FailReply, InvalidReply) as error:
        kind = "fail" if isinstance(error, FailReply) else "invalid"
        raise _Refused(f"{where} answered {kind}: {error}") from None
    except ProtocolError as error:
        raise click.ClickException(f"expected {where} to speak KATCP 5: {error}") from None
    except (ArmillaryError, trio.TooSlowError) as error:
        raise click.ClickException(str(error)) from None


@click.group("katcp")
def main() -> None:
    """Talk to KATCP devices, and be one.

    An ADDRESS is host:port, [ipv6]:port, or unix:path for a Unix socket.
    """


# So that "-5" is an argument, and no option that is unknown.
@main.command(context_settings={"ignore_unknown_options": True})
@_connects
@click.argument("name", type=_RequestName())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option(
    "--request-timeout", type=Seconds(), metavar="S", help="Seconds for the reply.  [default: no limit]"
)
def request(
    address: _Target,
    name: str,
    arguments: tuple[str, ...],
    ssl_context: ssl.SSLContext | None,
    connect_timeout: float,
    request_timeout: float | None,
) -> None:
    """Make one request, and print the device's informs and its reply.

    They are printed as they come and in the form that they have on the wire. Informs that belong to no
    request are among them. ARGS are not escaped: "two words" is one argument.

    \b
    Exit status:
      0  the reply is ok
      1  no connection, no reply in time, or Ctrl-C
      2  the reply is anything else, or the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from .single_request import request_once

    with _errors_reported(address):
        is_ok = trio.run(
            partial(
                request_once,
                address,
                name,
                [os.fsencode(argument) for argument in arguments],
                _echo_message,
                ssl_context=ssl_context,
                connect_timeout=connect_timeout,
                request_timeout=math.inf if request_timeout is None else request_timeout,
            )
        )
    if not is_ok:
        click.get_current_context().exit(2)


def _echo_message(message: WireMessage) -> None:
    click.echo(bytes(message).rstrip(b"\n").decode("utf-8", "backslashreplace"))


@main.command()
@_connects
@click.argument("pattern", required=False, metavar="[FILTER]")
@click.option("--values", is_flag=True, help="Read the sensors, too.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON array.")
def sensors(
    address: _Target,
    pattern: str | None,
    ssl_context: ssl.SSLContext | None,
    connect_timeout: float,
    values: bool,
    is_json: bool,
) -> None:
    """List a device's sensors.

    FILTER is a sensor's name or a /regex/, searched for in the names.

    In JSON, numbers, timestamps (seconds since 1970, UTC) and booleans are what they are; NaN and the
    infinities, which JSON does not have, are the strings "nan", "inf" and "-inf"; all else are strings.

    \b
    Exit status:
      0  the device listed its sensors
      1  no connection, or Ctrl-C
      2  the device has no such sensor, or the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from .listing import as_json, as_table, list_sensors

    async def ask() -> str:
        async with open_client(*address, ssl_context=ssl_context, connect_timeout=connect_timeout) as client:
            listed = await list_sensors(client, pattern, values=values)
        return (as_json if is_json else as_table)(listed, values=values)

    with _errors_reported(address):
        click.echo(trio.run(ask))


@main.command()
@_connects
@click.argument("pattern", required=False, metavar="[FILTER]")
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    metavar="STRATEGY",
    help='When to be told: "auto", "event", "period SECONDS", "event-rate SHORTEST LONGEST", '
    '"differential BY" or "differential-rate BY SHORTEST LONGEST".',
)
@click.option("--duration", type=Seconds(), metavar="S", help="End after so many seconds.")
def watch(
    address: _Target,
    pattern: str | None,
    ssl_context: ssl.SSLContext | None,
    connect_timeout: float,
    strategy: str,
    duration: float | None,
) -> None:
    """Show a device's sensors as they change.

    In a terminal this is a table; elsewhere it is a line for each update, with the time, the sensor's name,
    its status, its value and its units. FILTER is a sensor's name or a /regex/, searched for in the names.
    A lost connection is made again. A differential strategy stands for the event one where a sensor is no
    number.

    \b
    Exit status:
      0  Ctrl-C, SIGTERM, or the end of the duration
      1  in all the duration there was no connection
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from .watching import check_strategy, live_console, name_filter, watch_sensors

    try:
        check_strategy(strategy)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--strategy") from None
    try:
        wanted = name_filter(pattern)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="FILTER") from None

    async def run() -> Exception | None:
        failure = None
        with single_exception():
            async with trio.open_nursery() as nursery:
                await nursery.start(cancel_on_signal, nursery.cancel_scope)
                failure = await watch_sensors(
                    address,
                    live_console(),
                    wanted=wanted,
                    strategy=strategy,
                    ssl_context=ssl_context,
                    connect_timeout=connect_timeout,
                    duration=math.inf if duration is None else duration,
                )
                nursery.cancel_scope.cancel(reason="the duration is over")
        return failure

    failure = trio.run(run)
    if failure is not None:
        raise click.ClickException(str(failure))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7147,
    show_default=True,
    help="The TCP port; 0 for a free one.",
)
@click.option(
    "--period",
    type=Seconds(),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds from one reading of the sensors to the next.",
)
def serve(host: str, port: int, period: float) -> None:
    """Serve this computer's telemetry as a device.

    Its sensors are processor, memory, disks, network, temperatures and the state of the clock. The first
    line printed says where it listens.

    \b
    Exit status:
      0  Ctrl-C, SIGTERM, or a client's ?halt
      1  the address cannot be listened on
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from .host_device import serve_host

    async def run() -> None:
        with single_exception():
            async with trio.open_nursery() as nursery:
                await nursery.start(cancel_on_signal, nursery.cancel_scope)
                async with trio.open_nursery() as serving:
                    listeners = await serving.start(partial(serve_host, port, host=host, period=period))
                    for bound in bound_ports(listeners):
                        click.echo(f"listening on {address_text(host, bound)}")
                nursery.cancel_scope.cancel(reason="the device was halted")

    try:
        trio.run(run)
    except OSError as error:
        raise click.ClickException(f"could not listen on {address_text(host, port)}: {error}") from None
