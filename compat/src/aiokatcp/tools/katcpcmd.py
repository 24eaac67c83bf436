"""The ``katcpcmd`` command: make one request of a KATCP server, and print what it answers."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Sequence

import click
import trio

from armillary._runtime.groups import single_exception
from armillary._runtime.signals import cancel_on_signal
from armillary.errors import ArmillaryError
from armillary.katcp.protocol.messages import WireMessage, wire_name
from armillary.katcp.single_request import request_once

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the program if None.

    Returns:
        The exit status: 0 if the reply is ok, 2 if it is anything else, 1 if none came.

    Raises:
        SystemExit: the arguments make no sense (status 2), or ask for help (status 0).
    """
    logging.basicConfig(level=logging.WARNING)
    arguments = _parser().parse_args(argv)
    try:
        is_ok = trio.run(_request, arguments)
    except ArmillaryError as error:
        logging.error("Connection error: %s", error)
        return 1
    except trio.TooSlowError as error:
        logging.error("Request timed out: %s", error)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone; what is left of it must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 1
    if is_ok is None:
        return 1
    return 0 if is_ok else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="katcpcmd",
        usage="%(prog)s host:port command [args...]",
        description="Make one KATCP request, and print the informs and the reply that it brings.",
        epilog="Exit status: 0 if the reply is ok; 2 if it is anything else, or these arguments make no "
        "sense; 1 if there was no connection, no reply in time, or an interrupt.",
    )
    parser.add_argument("endpoint", type=_endpoint, help="host:port or [ipv6]:port")
    parser.add_argument("command", type=_command, help="the request's name")
    parser.add_argument("args", nargs="*", help="its arguments, not escaped")
    parser.add_argument(
        "--connect-timeout",
        type=_seconds,
        default=30.0,
        metavar="TIME",
        help="seconds for connecting, until the server has said which protocol it speaks [30]",
    )
    parser.add_argument(
        "--request-timeout",
        type=_seconds,
        default=math.inf,
        metavar="TIME",
        help="seconds for the reply [no limit]",
    )
    return parser


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"missing port number in {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host:
        raise argparse.ArgumentTypeError(f"missing host in {text!r}")
    try:
        host.encode("idna")  # as the resolver will, whose own error would be no error of a connection
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"expected a host name, got {host!r}: {error}") from None
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port number from 0 to 65535, got {port!r}")
    return host, int(port)


def _command(text: str) -> str:
    try:
        wire_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # NaN, too
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds


async def _request(arguments: argparse.Namespace) -> bool | None:
    """Whether the reply is ok, or None if a signal came first."""
    is_ok = None
    with single_exception():
        async with trio.open_nursery() as nursery:
            await nursery.start(cancel_on_signal, nursery.cancel_scope)
            is_ok = await request_once(
                arguments.endpoint,
                arguments.command,
                [os.fsencode(argument) for argument in arguments.args],
                _show,
                connect_timeout=arguments.connect_timeout,
                request_timeout=arguments.request_timeout,
            )
            nursery.cancel_scope.cancel(reason="the reply has come")
    return is_ok


def _show(message: WireMessage) -> None:
    click.echo(bytes(message).rstrip(b"\n").decode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    sys.exit(main())
