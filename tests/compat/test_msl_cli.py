"""The command ``msl-network``: what each part of it does, and prints."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msl_process import run

from msl.network import HostnamesTable, UsersTable, cli, cryptography
from msl.network.constants import HOSTNAME

COMMANDS = ["certdump", "certgen", "delete", "hostname", "keygen", "start", "user"]

Call = Callable[..., str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in an empty directory, and returns what it prints. Its status must be 0."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(*words)
        assert ended.value.code in (None, 0)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What somebody types, one after the other; then the input ends."""
    typed: list[str] = []

    def answer(question: str = "") -> str:
        sys.stdout.write(question)
        if not typed:
            raise EOFError
        return typed.pop(0)

    monkeypatch.setattr(builtins, "input", answer)
    return typed


# -- the parser ---------------------------------------------------------------------------------------------


def test_parser_is_made_once() -> None:
    """There is one parser, and what it has read can be run."""
    parser = cli.configure_parser()
    assert cli.configure_parser() is parser
    assert callable(parser.parse_args(["user", "list"]).func)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (
            ["start", "-P", "a", "b", "-D", "c", "d"],
            {
                "auth_hostname": False,
                "auth_login": False,
                "auth_password": ["a", "b"],
                "cert_file": None,
                "database": None,
                "disable_tls": False,
                "host": None,
                "key_file": None,
                "key_file_password": ["c", "d"],
                "port": 1875,
                "log_level": "INFO",
                "log_file": None,
            },
        ),
        (
            [
                "start",
                "-p",
                "1",
                "-H",
                "h",
                "-c",
                "c",
                "-d",
                "d",
                "-k",
                "k",
                "-G",
                "g",
                "-l",
                "l",
                "--auth-login",
            ],
            {
                "auth_hostname": False,
                "auth_login": True,
                "auth_password": None,
                "cert_file": "c",
                "database": "d",
                "disable_tls": False,
                "host": "h",
                "key_file": "k",
                "key_file_password": None,
                "port": "1",
                "log_level": "g",
                "log_file": "l",
            },
        ),
        (
            ["certgen"],
            {
                "out": None,
                "algorithm": "SHA256",
                "key_file": None,
                "key_file_password": None,
                "years_valid": 100,
                "show": False,
            },
        ),
        (["certdump", "x", "-o", "y"], {"certfile": "x", "out": "y"}),
        (
            ["keygen", "dsa", "-p", "a", "b", "-s", "None", "-c", "x", "-o", "y"],
            {"algorithm": "dsa", "curve": "x", "password": ["a", "b"], "out": "y", "size": "None"},
        ),
        (
            ["keygen"],
            {"algorithm": "rsa", "curve": "SECP384R1", "password": None, "out": None, "size": 2048},
        ),
        (["hostname", "list"], {"action": "list", "names": [], "database": None}),
        (["hostname", "add", "a", "b", "-d", "x"], {"action": "add", "names": ["a", "b"], "database": "x"}),
        (
            ["user", "update", "u", "-a", "-d", "x", "-p", "a", "b"],
            {"action": "update", "username": "u", "admin": True, "database": "x", "password": ["a", "b"]},
        ),
        (
            ["delete", "-c", "-d", "-k", "-l", "-q", "-y", "-r", "x"],
            {
                "all": False,
                "certs": True,
                "database": True,
                "keys": True,
                "logs": True,
                "quiet": True,
                "yes": True,
                "root": "x",
            },
        ),
    ],
)
def test_options(words: list[str], options: dict[str, object]) -> None:
    """Every flag has the name and the default of 1.0, and numbers stay texts."""
    read = vars(cli.configure_parser().parse_args(words))
    assert callable(read.pop("func"))
    assert read == {"cmd": words[0], **options}


def test_help(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word the command prints its help, as with -h; each of its parts has one of its own."""
    monkeypatch.setattr(sys, "argv", ["msl-network"])
    helped = call()
    assert helped == call("--help") == call("-h")
    assert helped.startswith("usage: msl-network [-h] [-V] command ...\n")
    for command in COMMANDS:
        assert f"\n    {command} " in helped
        assert call(command, "--help").startswith(f"usage: msl-network {command} [-h]")


def test_version(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is that of the API; the words are those of the process if no others are given."""
    assert call("-V") == call("--version") == "1.0.0\n"
    monkeypatch.setattr(sys, "argv", ["msl-network", "-V"])
    assert call() == "1.0.0\n"


@pytest.mark.parametrize(
    "words",
    [["nothing"], ["certdump"], ["hostname"], ["user"], ["user", "make"], ["keygen", "RSA"], ["start", "-P"]],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that makes no sense is status 2, and standard error says why."""
    with pytest.raises(SystemExit) as ended:
        cli.main(*words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: msl-network")


def test_as_a_module() -> None:
    """The command also runs as a module."""
    done = subprocess.run([sys.executable, "-m", "msl.network.cli", "-V"], capture_output=True, check=True)
    assert done.stdout == b"1.0.0\n"


# -- keygen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keygen", "--out", "a.key"], "Created private RSA key 'a.key'\n"),
        (["keygen", "ecc", "--out", "new/b.key", "-c", "secp256r1"], "Created private ECC key 'new/b.key'\n"),
        (["keygen", "ecc", "--out", "c.key", "-p", "two", "words"], "Created private ECC key 'c.key'\n"),
        (
            ["keygen", "ecc", "--out", "c.key", "-p", "file.txt"],
            "Reading the key password from the file\nCreated private ECC key 'c.key'\n",
        ),
    ],
)
def test_keygen(call: Call, tmp_path: Path, words: list[str], said: str) -> None:
    """A key of the wanted kind is made, with a password from the words or from a file."""
    (tmp_path / "file.txt").write_text("two words \nand more\n")
    assert call(*words) == said
    path = words[words.index("--out") + 1]
    cryptography.load_key(path, password="two words" if "-p" in words else None)


@pytest.mark.parametrize("size", ["None", "0", "-1", "2e3", "x"])
def test_keygen_size(call: Call, tmp_path: Path, size: str) -> None:
    """A size that is no positive integer is told, and there is no key."""
    said = call("keygen", "--size", size, "--out", "a.key")
    assert said == "ValueError: The --size value must be a positive integer\n"
    assert not (tmp_path / "a.key").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rsa", "--size", "10"], "ValueError: "),
        (["ecc", "--curve", "nope"], "ValueError: Invalid curve name 'NOPE'. Allowed curves are\n"),
        (["ecc", "--password", "empty.txt"], "ValueError: "),
        (["ecc", "--out", "file.txt/a.key"], "NotADirectoryError: "),
    ],
)
def test_keygen_errors(call: Call, tmp_path: Path, words: list[str], said: str) -> None:
    """What goes wrong is printed with its class."""
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "file.txt").write_text("x")
    out = [] if "--out" in words else ["--out", "a.key"]
    assert call("keygen", *words, *out).startswith(said)


# -- certgen, certdump --------------------------------------------------------------------------------------


@pytest.fixture
def key(call: Call) -> str:
    call("keygen", "ecc", "--out", "my.key")
    return "my.key"


def test_certgen(call: Call, key: str) -> None:
    """A certificate for this computer is made, and shown if that is wanted."""
    assert call("certgen", "a.crt", "-k", key) == "Created the self-signed certificate 'a.crt'\n"
    said = call("certgen", "new/b.crt", "-k", key, "--show", "-y", "0.5", "-a", "sha512")
    first, blank, *details = said.splitlines()
    assert (first, blank) == ("Created the self-signed certificate 'new/b.crt'", "")
    assert details[0] == "Version: v3"
    assert details[-2] == "Fingerprint (SHA1):"
    metadata = cryptography.get_metadata(cryptography.load_certificate("new/b.crt"))
    assert metadata["subject"]["common_name"] == HOSTNAME
    assert (metadata["valid_to"] - metadata["valid_from"]).days in (182, 183)
    assert metadata["algorithm"]["name"] == "ecdsa-with-SHA512"


@pytest.mark.parametrize("words", [["two words"], ["two", "words"], ["file.txt"]])
def test_certgen_with_a_password(call: Call, tmp_path: Path, words: list[str]) -> None:
    """The password of the key is one word, or several, or in a file."""
    (tmp_path / "file.txt").write_text("two words\n")
    call("keygen", "ecc", "--out", "my.key", "-p", "two words")
    said = call("certgen", "a.crt", "-k", "my.key", "-p", *words)
    reading = "Reading the key password from the file\n" if words == ["file.txt"] else ""
    assert said == f"{reading}Created the self-signed certificate 'a.crt'\n"


@pytest.mark.parametrize("years", ["None", "0", "-1", "x", "nan"])
def test_certgen_years(call: Call, key: str, years: str) -> None:
    """What is no positive number of years is told."""
    said = call("certgen", "a.crt", "-k", key, "--years-valid", years)
    assert said == "ValueError: The --years-valid value must be a positive number\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-a", "md55"], "ValueError: Invalid hash algorithm 'MD55'. Allowed"),
        (["-a", "blake2b"], "ValueError: Digest size must be 64"),
        (["-k", "nothing.key"], "FileNotFoundError: "),
        (["-k", "secret.key"], "TypeError: "),
        (["-k", "secret.key", "-p", "wrong"], "ValueError: "),
        (["-y", "1e9"], "ValueError: "),
    ],
)
def test_certgen_errors(call: Call, key: str, words: list[str], said: str) -> None:
    """What goes wrong is printed with its class."""
    call("keygen", "ecc", "--out", "secret.key", "-p", "secret")
    given = [] if "-k" in words else ["-k", key]
    assert call("certgen", "a.crt", *given, *words).startswith(said)


def test_certdump(call: Call, key: str, tmp_path: Path) -> None:
    """What is in a certificate is printed, or written to a file, which begins with its name."""
    call("certgen", "a.crt", "-k", key)
    details = call("certdump", "a.crt")
    assert details.startswith("Version: v3\n")
    assert call("certdump", "a.crt", "-o", "new/a.txt") == "Dumped the certificate details to new/a.txt\n"
    assert (tmp_path / "new" / "a.txt").read_text() == f"Certificate details for a.crt\n{details}".rstrip(
        "\n"
    )
    assert call("certdump", "nothing.crt") == "Cannot find nothing.crt\n"


def test_certdump_of_something_else(call: Call, key: str) -> None:
    """A file that is no certificate ends the command with its error, which is status 1."""
    with pytest.raises(SystemExit) as ended:
        cli.main("certdump", key)
    assert str(ended.value.code).startswith("ValueError: ")


# -- hostname -----------------------------------------------------------------------------------------------


def test_hostnames(call: Call) -> None:
    """Hosts are added and removed by two words each, listed in order, and unknown ones are told."""
    database = ["-d", "new/x.sqlite3"]
    assert call("hostname", "add", "zoo", "ant", *database) == "Added zoo\nAdded ant\n"
    assert call("hostname", "insert", "bee", "ant", *database) == "Inserted bee\nInserted ant\n"
    listed = call("hostname", "list", *database)
    head = "Trusted devices in new/x.sqlite3\n\nHostnames:\n"
    assert listed.startswith(head)
    names = [line.removeprefix("  ") for line in listed.removeprefix(head).splitlines()]
    assert names == sorted(names)
    assert {"ant", "bee", "zoo", "localhost", HOSTNAME} <= set(names)
    assert (
        call("hostname", "remove", "ant", "cow", "bee", *database)
        == "Removed ant\nCannot remove 'cow'. This hostname is not in the table.\nRemoved bee\n"
    )
    assert (
        call("hostname", "delete", "zoo", "zoo", *database)
        == "Deleted zoo\nCannot delete 'zoo'. This hostname is not in the table.\n"
    )
    with HostnamesTable(database="new/x.sqlite3") as table:
        assert not {"ant", "bee", "zoo"} & set(table.hostnames())


@pytest.mark.parametrize(
    ("action", "done"),
    [("add", "added"), ("insert", "inserted"), ("remove", "removed"), ("delete", "deleted")],
)
def test_no_hostnames(call: Call, action: str, done: str) -> None:
    """Without hosts nothing is done."""
    assert call("hostname", action, "-d", "x.sqlite3") == f"No hostnames were {done}\n"


# -- user ---------------------------------------------------------------------------------------------------


def test_users(call: Call, tmp_path: Path) -> None:
    """Users are added, changed, listed and removed; who is updated without --admin is no administrator."""
    (tmp_path / "file.txt").write_text("from the file\n")
    database = ["-d", "new/x.sqlite3"]
    assert call("user", "list", *database) == "There are no users in the database\n"
    assert call("user", "add", "pierre", *database, "-p", "two", "words") == "pierre has been added\n"
    said = call("user", "insert", "marie", "-a", *database, "-p", "file.txt")
    assert said == "Reading the password from the file\nmarie has been inserted\n"
    assert call("user", "list", *database) == (
        "Users in new/x.sqlite3\n\n"
        "Username Administrator\n"
        "======== =============\n"
        "marie    True\n"
        "pierre   False\n"
    )
    assert call("user", "update", "marie", *database) == "Updated marie\n"
    assert call("user", "update", "pierre", "--admin", "-p", "new", *database) == "Updated pierre\n"
    call("user", "add", "a.longer.name", "-p", "x", *database)
    assert call("user", "list", *database).splitlines()[2:] == [
        "Username      Administrator",
        "============= =============",
        "a.longer.name False",
        "marie         False",
        "pierre        True",
    ]
    with UsersTable(database="new/x.sqlite3") as table:
        assert table.is_password_valid("marie", "from the file")
        assert table.is_password_valid("pierre", "new")
    assert call("user", "remove", "marie", *database) == "marie has been removed\n"
    assert call("user", "delete", "pierre", *database) == "pierre has been deleted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "ValueError: You must specify a username to add"),
        (["update"], "ValueError: You must specify a username to update"),
        (["remove"], "ValueError: You must specify a username to remove"),
        (["add", "me"], "ValueError: You must specify a password for 'me'"),
        (["add", "me:12", "-p", "x"], 'ValueError: A username cannot end with ":<integer>"'),
        (["insert", "taken", "-p", "x"], "ValueError: A user with the name 'taken' already exists"),
        (["update", "me", "-a"], "ValueError: Cannot update 'me'. This user is not in the table."),
        (["remove", "me"], "ValueError: Cannot remove 'me'. This user is not in the table."),
        (["delete", "me"], "ValueError: Cannot delete 'me'. This user is not in the table."),
    ],
)
def test_user_errors(call: Call, words: list[str], said: str) -> None:
    """What goes wrong is printed with its class."""
    call("user", "add", "taken", "-p", "x", "-d", "x.sqlite3")
    assert call("user", *words, "-d", "x.sqlite3") == f"{said}\n"


# -- delete -------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A home with files of all kinds, and some that are nobody's business."""
    root = tmp_path / "root"
    for name, size in {
        "manager.sqlite3": 1500,
        "certs/localhost.crt": 1000,
        "certs/sub/lab7.crt": 2_000_000,
        "keys/localhost.key": 999,
        "logs/a.log": 0,
        "logs/b.log": 10,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    others = [root / "other.sqlite3", root / "certs" / "note.txt", root / "keys" / "a.crt"]
    for other in others:
        other.write_text("mine")
    yield root
    assert all(other.exists() for other in others)


def remaining(root: Path) -> set[str]:
    """The files of a home that may be deleted and are there."""
    patterns = ("manager.sqlite3", "certs/**/*.crt", "keys/**/*.key", "logs/**/*.log")
    return {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}


def test_delete_all(call: Call, root: Path) -> None:
    """Everything goes without a question, and each file is named."""
    assert call("delete", "--all", "--yes", "--root", "root") == (
        "\nThe following database will be deleted:\n"
        "  root/manager.sqlite3 [2 kB]\n"
        "[Deleted] root/manager.sqlite3\n"
        "\nSearching for certificates ... \n"
        "  2 certificate(s) will be deleted [2 MB]\n"
        "[Deleted] root/certs/localhost.crt\n"
        "[Deleted] root/certs/sub/lab7.crt\n"
        "\nSearching for keys ... \n"
        "  1 key(s) will be deleted [999 B]\n"
        "[Deleted] root/keys/localhost.key\n"
        "\nSearching for log files ... \n"
        "  2 log file(s) will be deleted [10 B]\n"
        "[Deleted] root/logs/a.log\n"
        "[Deleted] root/logs/b.log\n"
    )
    assert remaining(root) == set()


def test_delete_nothing(call: Call, tmp_path: Path) -> None:
    """Where nothing is, that is said; and so is what has to be said first."""
    (tmp_path / "empty").mkdir()
    assert call("delete", "-a", "-r", "empty") == (
        "No database file found\n"
        "\nSearching for certificates ... no certificates found\n"
        "\nSearching for keys ... no keys found\n"
        "\nSearching for log files ... no log files found\n"
    )
    assert call("delete", "-a", "-q", "-r", "empty") == ""
    assert call("delete", "-k", "-r", "nowhere") == "The 'nowhere' directory does not exist\n"
    assert call("delete", "-r", "empty").splitlines()[0] == (
        "You must specify what you want to delete, for example"
    )


@pytest.mark.parametrize("yes", ["", "y", "Y", "yes", " YES "])
def test_confirmed(call: Call, root: Path, answers: list[str], yes: str) -> None:
    """Yes is the answer if nothing is typed."""
    answers.append(yes)
    assert call("delete", "--keys", "-r", "root") == (
        "\nSearching for keys ... \n"
        "  1 key(s) will be deleted [999 B]\n"
        "Proceed (Y/n)? [Deleted] root/keys/localhost.key\n"
    )
    assert "keys/localhost.key" not in remaining(root)


@pytest.mark.parametrize("no", ["n", "N", "no", "what?", None])
def test_not_confirmed(call: Call, root: Path, answers: list[str], no: str | None) -> None:
    """Whatever else is typed means no, and so does the end of the input; each kind is asked for by itself."""
    before = remaining(root)
    answers += [] if no is None else [no, "", no]
    said = call("delete", "-k", "-c", "-l", "-r", "root")
    assert "Okay, not deleting\n" in said
    assert said.count("Proceed (Y/n)? ") == 3
    gone = set() if no is None else {"keys/localhost.key"}
    assert remaining(root) == before - gone


def test_quiet(call: Call, root: Path, answers: list[str]) -> None:
    """When quiet, the questions are all that is printed."""
    answers += ["n", ""]
    assert call("delete", "-d", "-k", "-q", "-r", "root") == "Proceed (Y/n)? Proceed (Y/n)? "
    assert {"manager.sqlite3"} == remaining(root) & {"manager.sqlite3", "keys/localhost.key"}
    assert call("delete", "-a", "-q", "-y", "-r", "root") == ""
    assert remaining(root) == set()


# -- the network's home -------------------------------------------------------------------------------------


def test_defaults_are_in_the_home(tmp_path: Path) -> None:
    """Without paths everything is in the network's home, which the environment names."""
    home = tmp_path / "home"
    key, certificate = home / "keys" / "localhost.key", home / "certs" / "localhost.crt"
    database = home / "manager.sqlite3"
    assert run(tmp_path, "certgen").stdout == f"Created the self-signed certificate '{certificate}'\n"
    assert run(tmp_path, "keygen", "ecc").stdout == f"Created private ECC key '{key}'\n"
    run(tmp_path, "user", "add", "marie", "-p", "polonium")
    assert run(tmp_path, "user", "list").stdout.splitlines()[0] == f"Users in {database}"
    assert run(tmp_path, "hostname", "list").stdout.splitlines()[0] == f"Trusted devices in {database}"
    assert {key, certificate, database} <= set(home.rglob("*"))
    run(tmp_path, "delete", "-a", "-y")
    assert not {key, certificate, database} & set(home.rglob("*"))
