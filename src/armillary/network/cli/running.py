"""What the commands have in common: errors, passwords, files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from armillary.errors import ArmillaryError
from armillary.network.locations import find_home
from armillary.network.typed_passwords import typed_password

if TYPE_CHECKING:
    from armillary.network.store import Store

__all__ = ["FILE", "Password", "database_option", "errors_reported", "given_store"]

FILE = click.Path(path_type=Path, dir_okay=False)


class Password(click.ParamType[str]):
    """A password, or the file whose first line it is."""

    name = "password"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            password, file = typed_password(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if file is not None:
            click.echo(f"Reading the password from {file}", err=True)
        return password


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn what can go wrong into an error message and status 1."""
    try:
        yield
    except FileExistsError as error:
        raise click.ClickException(f"{error}: use --force to replace it") from None
    except (ArmillaryError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


database_option = click.option(
    "-d",
    "--database",
    type=FILE,
    help="The manager's database.  [default: manager.sqlite3 in the network's home]",
)


@contextmanager
def given_store(database: Path | None) -> Iterator[tuple[Store, Path]]:
    """Open the database that was given, or the default one, and say which; errors are reported."""
    from armillary.network.store import open_store

    with errors_reported():
        path = find_home().database if database is None else database
        with open_store(path) as store:
            yield store, path
