"""The command that deletes what the others have made."""

from __future__ import annotations

from pathlib import Path

import click

from armillary.network.locations import Home, find_home
from armillary.network.tidying import FileKind, Found, find_files

from .running import errors_reported

__all__ = ["delete"]


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All of the following.")
@click.option("-c", "--certs", is_flag=True, help="The certificates: its own, and those of trusted managers.")
@click.option("-d", "--database", is_flag=True, help="The database, with its users and its audit.")
@click.option("-k", "--keys", is_flag=True, help="The private keys.")
@click.option("-l", "--logs", is_flag=True, help="The managers' logs.")
@click.option(
    "-r",
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The network's home to delete from.  [default: this user's]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but questions and errors.")
@click.option("-y", "--yes", is_flag=True, help="Ask no questions.")
def delete(
    everything: bool,
    certs: bool,
    database: bool,
    keys: bool,
    logs: bool,
    root: Path | None,
    quiet: bool,
    yes: bool,
) -> None:
    """Delete files of the lab network on this computer.

    Only files called manager.sqlite3, *.crt, *.key and *.log where they belong; directories stay.

    \b
    Exit status:
      0  they are gone, or there were none, or you said no
      1  a file could not be deleted
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    wanted = {
        FileKind.DATABASE: database,
        FileKind.CERTIFICATES: certs,
        FileKind.KEYS: keys,
        FileKind.LOGS: logs,
    }
    if not everything and not any(wanted.values()):
        raise click.UsageError("expected what to delete, for example --logs")
    home = find_home() if root is None else Home(root)
    for kind, is_wanted in wanted.items():
        if everything or is_wanted:
            with errors_reported():
                _delete(find_files(home, kind), quiet=quiet, ask=not yes)


def _delete(found: Found, *, quiet: bool, ask: bool) -> None:
    kind = found.kind.value
    if not found.paths:
        if not quiet:
            click.echo(f"No {kind}s found" if found.kind is not FileKind.DATABASE else "No database found")
        return
    if ask or not quiet:
        what = ", ".join(map(str, found.paths)) if len(found.paths) == 1 else f"{len(found.paths)} {kind}s"
        click.echo(f"{what} will be deleted [{found.size_text}]")
    if ask and not click.confirm("Proceed?"):
        return
    for path in found.paths:
        path.unlink(missing_ok=True)
        if not quiet:
            click.echo(f"[Deleted] {path}")
