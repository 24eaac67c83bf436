"""The command ``msl-network`` prints what that of MSL-Network 1.0 prints, apart from its help."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop

_PEER = Path(__file__).resolve().parents[2] / ".peers" / "msl_network" / "bin" / "python"
# Far more than all of the commands take on a busy machine.
PATIENCE = 60.0

# Runs commands one after the other in one process, which is what takes the time, and prints what each has
# printed. "!n" is what is typed for the command after it.
RUN_ALL = """
import contextlib, io, json, sys, warnings
warnings.simplefilter("ignore")
sys.argv[0] = "msl-network"
from msl.network import cli
done = []
for command in json.load(sys.stdin):
    typed, *words = command
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.StringIO(typed)
    status = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(*words)
        except SystemExit as error:
            status = error.code
    done.append([words, status or 0, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""

DATABASE = ["-d", "lab.sqlite3"]
COMMANDS: dict[str, list[list[str]]] = {
    "words": [
        ["", "-V"],
        ["", "nothing"],
        ["", "keygen", "RSA"],
        ["", "keygen", "-p"],
        ["", "certdump"],
        ["", "hostname"],
        ["", "hostname", "ADD"],
        ["", "user"],
        ["", "user", "list", "me", "you"],
        ["", "delete", "nothing"],
        ["", "start", "--nothing"],
        ["", "start", "-D"],
    ],
    "keygen": [
        ["", "keygen", "--out", "rsa.key"],
        ["", "keygen", "ecc", "--out", "ecc.key", "-p", "two", "words"],
        ["", "keygen", "ecc", "--curve", "secp256r1", "--out", "new/ecc.key", "-p", "password.txt"],
        ["", "keygen", "dsa", "--size", "1024", "--out", "dsa.key"],
        ["", "keygen", "ecc"],
        ["", "keygen", "--size", "None"],
        ["", "keygen", "--size", "0"],
        ["", "keygen", "--size", "10"],
        ["", "keygen", "dsa", "--size", "1500"],
    ],
    "certgen": [
        ["", "keygen", "ecc", "--out", "my.key"],
        ["", "keygen", "ecc", "--out", "secret.key", "-p", "two", "words"],
        ["", "certgen", "my.crt", "-k", "my.key"],
        ["", "certgen", "my.crt", "-k", "my.key", "-a", "sha512", "-y", "0.25"],
        ["", "certgen", "new/my.crt", "-k", "secret.key", "-p", "two words"],
        ["", "certgen", "new/my.crt", "-k", "secret.key", "-p", "password.txt"],
        ["", "certgen", "-k", "my.key"],
        ["", "certgen", "-k", "secret.key"],
        ["", "certgen", "-k", "secret.key", "-p", "wrong"],
        ["", "certgen", "-k", "nothing.key"],
        ["", "certgen", "-k", "my.key", "-a", "md55"],
        ["", "certgen", "-k", "my.key", "-a", "blake2b"],
        ["", "certgen", "-k", "my.key", "-y", "None"],
        ["", "certgen", "-k", "my.key", "-y", "-1"],
    ],
    "certdump": [
        ["", "certdump", "given.crt"],
        ["", "certdump", "given.crt", "--out", "new/dump.txt"],
        ["", "certdump", "nothing.crt"],
    ],
    "hostname": [
        ["", "hostname", "list", *DATABASE],
        ["", "hostname", "add", "zoo", "ant", *DATABASE],
        ["", "hostname", "insert", "bee", "ant", *DATABASE],
        ["", "hostname", "list", *DATABASE],
        ["", "hostname", "remove", "ant", "cow", *DATABASE],
        ["", "hostname", "delete", "bee", "bee", *DATABASE],
        *[["", "hostname", action] for action in ("add", "insert", "remove", "delete")],
        ["", "hostname", "add", "home"],
    ],
    "user": [
        ["", "user", "list", *DATABASE],
        ["", "user", "add", "pierre", "-p", "two", "words", *DATABASE],
        ["", "user", "insert", "marie", "-a", "-p", "password.txt", *DATABASE],
        ["", "user", "add", "marie", "-p", "x", *DATABASE],
        ["", "user", "add", "henri", *DATABASE],
        ["", "user", "add", "henri:1", "-p", "x", *DATABASE],
        ["", "user", "list", *DATABASE],
        ["", "user", "update", "marie", *DATABASE],
        ["", "user", "update", "pierre", "-a", "-p", "y", *DATABASE],
        ["", "user", "update", "henri", "-a", *DATABASE],
        ["", "user", "add", "a.longer.name", "-p", "x", *DATABASE],
        ["", "user", "list", *DATABASE],
        ["", "user", "remove", "pierre", *DATABASE],
        ["", "user", "remove", "pierre", *DATABASE],
        ["", "user", "delete", "marie", *DATABASE],
        ["", "user", "delete", "marie", *DATABASE],
        *[["", "user", action] for action in ("add", "insert", "remove", "delete", "update")],
        ["", "user", "list"],
    ],
    "delete": [
        ["", "delete"],
        ["", "delete", "-k", "-r", "nowhere"],
        ["", "delete", "-a", "-r", "empty"],
        ["", "delete", "-a", "-q", "-r", "empty"],
        ["n\nno\nwhat\nN\n", "delete", "-a", "-r", "root"],
        ["n\n", "delete", "-k", "-q", "-r", "root"],
        ["\n", "delete", "-k", "-r", "root"],
        ["Y\nyes\n", "delete", "-c", "-l", "-r", "root"],
        ["", "delete", "-d", "-y", "-r", "root"],
        ["", "delete", "-a", "-y", "-r", "root"],
    ],
}


def prepare(place: Path, certificate: str) -> None:
    """The files that commands are about."""
    place.mkdir()
    (place / "password.txt").write_text("two words \nand more\n")
    (place / "given.crt").write_text(certificate)
    (place / "empty").mkdir()
    with closing(sqlite3.connect(place / "lab.sqlite3")) as database, database:
        # Not empty, or it is filled with the names of this computer, of which ours finds more.
        database.execute("CREATE TABLE auth_hostnames (hostname TEXT NOT NULL, UNIQUE(hostname))")
        database.execute("INSERT INTO auth_hostnames VALUES ('lab7')")
    for name, size in {
        "manager.sqlite3": 24_576,
        "certs/sub/lab7.crt": 61_499,
        "keys/localhost.key": 999,
        "logs/a.log": 0,
    }.items():
        path = place / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def run_all(python: str | Path, place: Path, commands: list[list[str]]) -> list[Any]:
    """What each of the commands has printed, with this Python's msl.network, in a directory of its own."""
    home = place / "home"
    done = subprocess.run(
        [python, "-c", RUN_ALL],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        cwd=place,
        env={**os.environ, "MSL_NETWORK_HOME": str(home), "COLUMNS": "200", "PYTHONUTF8": "1"},
        timeout=PATIENCE,
        check=True,
    )
    # Trailing blanks, which it prints after some lines of numbers, are nobody's business.
    text = re.sub(r"[ ]+(?=\\n)", "", done.stdout.replace(str(home), "HOME"))
    said: list[Any] = json.loads(text)
    return said


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate that 1.0 has made."""
    place = tmp_path_factory.mktemp("given")
    run_all(_PEER, place, [["", "certgen", "given.crt"]])
    return (place / "given.crt").read_text()


@pytest.mark.parametrize("subject", COMMANDS)
def test_same_output(tmp_path: Path, subject: str, certificate: str) -> None:
    """Statuses, lines and errors are those of 1.0."""
    for name in ("theirs", "ours"):
        prepare(tmp_path / name, certificate)
    theirs = run_all(_PEER, tmp_path / "theirs", COMMANDS[subject])
    ours = run_all(sys.executable, tmp_path / "ours", COMMANDS[subject])
    for our, their in zip(ours, theirs, strict=True):
        assert our == their
    dumps = [tmp_path / name / "new" / "dump.txt" for name in ("theirs", "ours")]
    if subject == "certdump":
        assert len({re.sub(r" +\n", "\n", dump.read_text()) for dump in dumps}) == 1
