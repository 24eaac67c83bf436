"""The commands about trusted hosts and users."""

from __future__ import annotations

from pathlib import Path

import click

from .running import Password, database_option, given_store

__all__ = ["hostname", "user"]


@click.group()
def hostname() -> None:
    """The trusted hosts of a manager that goes by hostnames.

    A host is known by the first part of its name, or by its address if it has no name. As long as none is in
    the database, this computer is trusted by all of its names and addresses.

    \b
    Exit status:
      0  done
      1  a host is not in the database, or the database cannot be used
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap


@hostname.command("add")
@click.argument("names", nargs=-1, required=True)
@database_option
def add_hostnames(names: tuple[str, ...], database: Path | None) -> None:
    """Trust hosts."""
    with given_store(database) as (store, _):
        for name in names:
            store.hostnames.add(name)
            click.echo(f"Added {name}")


@hostname.command("remove")
@click.argument("names", nargs=-1, required=True)
@database_option
def remove_hostnames(names: tuple[str, ...], database: Path | None) -> None:
    """Trust hosts no longer."""
    unknown = []
    with given_store(database) as (store, _):
        for name in names:
            try:
                store.hostnames.remove(name)
            except ValueError:
                unknown.append(f"Cannot remove {name!r}. This hostname is not in the table.")
            else:
                click.echo(f"Removed {name}")
    if unknown:
        raise click.ClickException("\n".join(unknown))


@hostname.command("list")
@database_option
def list_hostnames(database: Path | None) -> None:
    """List the trusted hosts."""
    with given_store(database) as (store, path):
        click.echo(f"Trusted devices in {path}\n\nHostnames:")
        for name in store.hostnames.names():
            click.echo(f"  {name}")


@click.group()
def user() -> None:
    """The users of a manager with logins.

    \b
    Exit status:
      0  done
      1  a user is not in the database, or is there already, or the database cannot be used
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap


_password = click.option(
    "-p",
    "--password",
    type=Password(),
    help="The password, which others on this computer can see then; or the file whose first line it is.",
)
_role = click.option(
    "-r",
    "--role",
    metavar="NAME",
    help="What the user may do: operator (link with services, call them, be one), observer (link with them), "
    "nobody (look who is there), or a role that the manager's program has made.",
)


@user.command("add")
@click.argument("name")
@click.option("-a", "--admin", is_flag=True, help="The user is an administrator, who may do everything.")
@_role
@_password
@database_option
def add_user(name: str, admin: bool, role: str | None, password: str | None, database: Path | None) -> None:
    """Add a user. Without --password, it is asked for."""
    if password is None:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    with given_store(database) as (store, _):
        store.users.add(name, password, is_admin=admin, role=role or "")
    click.echo(f"{name} has been added")


@user.command("update")
@click.argument("name")
@click.option("-a/-A", "--admin/--no-admin", default=None, help="Whether the user is an administrator.")
@_role
@_password
@click.option("-P", "--ask-password", is_flag=True, help="Ask for a new password at the terminal.")
@database_option
def update_user(
    name: str,
    admin: bool | None,
    role: str | None,
    password: str | None,
    ask_password: bool,
    database: Path | None,
) -> None:
    """Change a user; what is not given stays as it is. An empty --role is the default one."""
    if ask_password and password is None:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if password is None and admin is None and role is None:
        raise click.UsageError("expected something to change: a password, --admin, --no-admin or --role")
    with given_store(database) as (store, _):
        store.users.update(name, password=password, is_admin=admin, role=role)
    click.echo(f"Updated {name}")


@user.command("remove")
@click.argument("name")
@database_option
def remove_user(name: str, database: Path | None) -> None:
    """Remove a user."""
    with given_store(database) as (store, _):
        store.users.remove(name)
    click.echo(f"{name} has been removed")


@user.command("list")
@database_option
def list_users(database: Path | None) -> None:
    """List the users."""
    with given_store(database) as (store, path):
        users = store.users.all()
    if not users:
        click.echo("There are no users in the database")
        return
    rows = [("Username", "Administrator", "Role")]
    rows += [(each.name, str(each.is_admin), each.role or "") for each in users]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruler = tuple("=" * width for width in widths)
    click.echo(f"Users in {path}\n")
    for row in (rows[0], ruler, *rows[1:]):
        click.echo(" ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
