"""The commands about keys and certificates."""

from __future__ import annotations

from pathlib import Path

import click

from armillary.network.locations import find_home

from .running import FILE, Password, errors_reported

__all__ = ["certdump", "certgen", "keygen"]

_ask_password = click.option(
    "-P", "--ask-password", is_flag=True, help="Ask for the password at the terminal."
)
_force = click.option("-f", "--force", is_flag=True, help="Replace the file if there is one.")


def _password(given: str | None, *, ask: bool, confirm: bool) -> str | None:
    """The password that was given, or that is typed now if somebody is to be asked for it."""
    if given is None and ask:
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
        return typed
    return given


@click.command()
@click.argument(
    "algorithm", type=click.Choice(["ecc", "rsa", "dsa"], case_sensitive=False), default="ecc", required=False
)
@click.option(
    "-c", "--curve", default="P-256", show_default=True, metavar="NAME", help="The curve of an ECC key."
)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    metavar="BITS",
    help="The size of an RSA or DSA key.",
)
@click.option(
    "-p",
    "--password",
    type=Password(),
    help="Encrypt the key with this password, or with the first line of the file of that name.",
)
@_ask_password
@click.option(
    "-o", "--out", type=FILE, metavar="FILE", help="Where to store it.  [default: the key of localhost]"
)
@_force
def keygen(
    algorithm: str,
    curve: str,
    size: int,
    password: str | None,
    ask_password: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Make a private key.

    Only its owner can read the file. A certificate that was made from another key does not belong to it.

    \b
    Exit status:
      0  there is a new key
      1  it could not be made or stored, or there is one already and --force was not given
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.tls.keys import generate_key

    secret = _password(password, ask=ask_password, confirm=True)
    with errors_reported():
        path = generate_key(
            out or find_home().key(),
            algorithm=algorithm,
            curve=curve,
            size=size,
            password=secret,
            overwrite=force,
        )
    click.echo(f"Created private {algorithm.upper()} key {str(path)!r}")


@click.command()
@click.argument("out", type=FILE, required=False, metavar="[FILE]")
@click.option(
    "-a", "--algorithm", default="SHA256", show_default=True, metavar="HASH", help="The hash to sign it with."
)
@click.option(
    "-k",
    "--key-file",
    type=FILE,
    metavar="FILE",
    help="Its private key.  [default: the key of localhost, which is made if there is none]",
)
@click.option(
    "-p",
    "--password",
    type=Password(),
    help="The password of the key, or the file whose first line it is.",
)
@_ask_password
@click.option(
    "-y",
    "--years-valid",
    type=float,
    metavar="YEARS",
    help="How long it is valid.  [default: 100, or 15 where seconds are counted in 32 bits]",
)
@click.option(
    "-n",
    "--name",
    "names",
    multiple=True,
    help="A name or an address that it is good for; may be repeated.  [default: all of this computer]",
)
@click.option("--show", is_flag=True, help="Print what is in it.")
@_force
def certgen(
    out: Path | None,
    algorithm: str,
    key_file: Path | None,
    password: str | None,
    ask_password: bool,
    years_valid: float | None,
    names: tuple[str, ...],
    show: bool,
    force: bool,
) -> None:
    """Make a self-signed certificate.

    Without a FILE it is the one that a manager shows which listens on every interface. Who trusts the old one
    has to be told that it was replaced.

    \b
    Exit status:
      0  there is a new certificate
      1  it could not be made or stored, or there is one already and --force was not given
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.tls.certificates import YEARS_VALID, generate_certificate, load_certificate
    from armillary.network.tls.keys import generate_key, load_key
    from armillary.network.tls.metadata import metadata_text

    secret = _password(password, ask=ask_password, confirm=False)
    home = find_home()
    with errors_reported():
        key = key_file or home.key()
        if key_file is None and not key.exists():
            generate_key(key, password=secret)
        path = generate_certificate(
            out or home.certificate(),
            load_key(key, password=secret),
            names=names or None,
            algorithm=algorithm,
            years_valid=YEARS_VALID if years_valid is None else years_valid,
            overwrite=force,
        )
        click.echo(f"Created the self-signed certificate {str(path)!r}")
        if show:
            click.echo()
            click.echo(metadata_text(load_certificate(path)))


@click.command()
@click.argument("certificate", type=FILE, metavar="FILE")
@click.option("-o", "--out", type=FILE, metavar="FILE", help="Write it to this file.")
@click.option(
    "-a",
    "--algorithm",
    default="SHA256",
    show_default=True,
    metavar="HASH",
    help="The hash of the fingerprint; MSL-Network 1.0 shows SHA1.",
)
def certdump(certificate: Path, out: Path | None, algorithm: str) -> None:
    """Print what is in a certificate.

    \b
    Exit status:
      0  it was printed
      1  there is no certificate in the file, or no file
      2  the command line makes no sense
    """  # noqa: D301 - to click, a real backspace means: do not wrap
    from armillary.network.tls.certificates import load_certificate
    from armillary.network.tls.metadata import metadata_text

    with errors_reported():
        text = metadata_text(load_certificate(certificate), algorithm=algorithm)
        if out is None:
            click.echo(text)
        else:
            out.write_text(f"Certificate details for {certificate}\n{text}\n", encoding="utf-8")
            click.echo(f"Dumped the certificate details to {out}")
