from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from armillary.cli import main
from armillary.network.locations import Home, own_hostname
from armillary.network.store import User, open_store
from armillary.network.tls.certificates import fingerprint, is_signed_by, load_certificate
from armillary.network.tls.keys import load_key
from armillary.network.tls.metadata import metadata


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Where the commands work, by the environment; the current directory is another one."""
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Home(tmp_path / "home")


def run(*arguments: object, typed: str | None = None, status: int = 0) -> str:
    """Run a command, and return what it printed, errors last."""
    result: Result = CliRunner().invoke(main, ["network", *map(str, arguments)], input=typed)
    assert status == result.exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout + result.stderr


def test_the_command_is_there() -> None:
    """``python -m armillary network`` lists its commands; errors end with a status."""
    command = [sys.executable, "-m", "armillary", "network"]
    shown = subprocess.run([*command, "--help"], capture_output=True, check=True).stdout.decode()
    names = "start ls call watch keygen certgen certdump hostname user audit delete"
    for name in names.split():
        assert f"\n  {name} " in shown
    failed = subprocess.run([*command, "certdump", "none.crt"], capture_output=True, check=False)
    assert 1 == failed.returncode
    assert b"none.crt" in failed.stderr
    assert b"Traceback" not in failed.stderr


# -- keys and certificates -----------------------------------------------------------------------------------


def test_keygen_makes_the_default_key(home: Home) -> None:
    """Without arguments it is an unencrypted P-256 key, for its owner's eyes."""
    assert f"Created private ECC key '{home.key()}'\n" == run("keygen")
    assert 256 == load_key(home.key()).key_size
    assert 0o600 == stat.S_IMODE(home.key().stat().st_mode)


def test_keygen_makes_what_was_asked_for(home: Home) -> None:
    """Kind, size, curve, password and place can be chosen."""
    assert "Created private RSA key 'a.key'\n" == run("keygen", "RSA", "--size", 1024, "-o", "a.key")
    assert 1024 == load_key("a.key").key_size
    run("keygen", "ecc", "-c", "secp384r1", "-o", "b.key", "-p", "pö l")
    assert 384 == load_key("b.key", password="pö l").key_size
    run("keygen", "dsa", "-s", 1024, "-o", "c.key")
    assert 1024 == load_key("c.key").key_size
    assert not home.path.exists()


def test_keygen_replaces_nothing_by_accident(home: Home) -> None:
    """A key that is there is replaced with --force only."""
    run("keygen")
    first = home.key().read_bytes()
    assert "use --force" in run("keygen", status=1)
    assert first == home.key().read_bytes()
    run("keygen", "--force")
    assert first != home.key().read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["-c", "flat"], 1, "Invalid curve name 'FLAT'. Allowed curves are"),
        (["rsa", "-s", "10"], 1, "size"),
        (["rsa", "-s", "None"], 2, "'None' is not a valid integer"),
        (["rsa", "-s", "-1"], 2, "-1"),
        (["x25519"], 2, "x25519"),
        (["-p", ""], 1, "empty"),
    ],
)
def test_keygen_refuses_what_cannot_be(arguments: list[str], status: int, expected: str, home: Home) -> None:
    """What makes no sense ends with an error and without a key."""
    assert expected in run("keygen", *arguments, status=status)
    assert not home.key().exists()


def test_passwords_are_typed_given_or_read(home: Home) -> None:
    """A password comes from the option, from the first line of a file, or from the terminal, twice."""
    Path("secret").write_text(" pö l \nsecond\n")
    assert run("keygen", "-p", "secret").endswith("Reading the password from secret\n")
    load_key(home.key(), password="pö l")
    shown = run("keygen", "--force", "--ask-password", typed="radium\nradium\n")
    assert "radium" not in shown
    load_key(home.key(), password="radium")
    assert "Reading the password from secret" in run("certgen", "-p", "secret", status=1)
    run("certgen", "-P", typed="radium\n")
    assert is_signed_by(load_certificate(home.certificate()), load_key(home.key(), password="radium"))
    Path("empty").touch()
    assert "first line of empty" in run("keygen", "--force", "-p", "empty", status=2)


def test_certgen_makes_the_default_certificate_and_key(home: Home) -> None:
    """Without arguments the certificate is for this computer, from the default key, which is made."""
    assert f"Created the self-signed certificate '{home.certificate()}'\n" == run("certgen")
    certificate = load_certificate(home.certificate())
    assert is_signed_by(certificate, load_key(home.key()))
    assert {"common_name": own_hostname()} == metadata(certificate)["subject"]
    key = home.key().read_bytes()
    assert "use --force" in run("certgen", status=1)
    run("certgen", "--force")
    assert key == home.key().read_bytes()
    assert certificate != load_certificate(home.certificate())


def test_certgen_makes_what_was_asked_for(home: Home) -> None:
    """Place, key, hash, names and years can be chosen, and the result be shown."""
    run("keygen", "-o", "a.key", "-p", "x")
    arguments = [
        "-k",
        "a.key",
        "-p",
        "x",
        "-a",
        "sha384",
        "-y",
        "7.4",
        "-n",
        "lab7",
        "-n",
        "10.0.0.7",
        "--show",
    ]
    shown = run("certgen", "a.crt", *arguments)
    certificate = load_certificate("a.crt")
    assert shown.startswith("Created the self-signed certificate 'a.crt'\n\nVersion: v3\n")
    assert f"Fingerprint (SHA256):\n{fingerprint(certificate)}\n" in shown
    facts = metadata(certificate)
    assert "ecdsa-with-SHA384" == facts["algorithm"]["name"]
    assert 7.4 * 365 == pytest.approx((facts["valid_to"] - facts["valid_from"]).days, abs=5)
    assert "lab7" in facts["extensions"][0]["value"]
    assert "10.0.0.7" in facts["extensions"][0]["value"]
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["-y", "-1"], 1, "expected a positive number of years, got -1.0"),
        (["-y", "None"], 2, "'None' is not a valid float"),
        (["-a", "md4"], 1, "Invalid hash algorithm 'MD4'"),
        (["-a", "blake2b"], 1, "igest size must be 64"),
        (["-k", "none.key"], 1, "none.key"),
    ],
)
def test_certgen_refuses_what_cannot_be(arguments: list[str], status: int, expected: str, home: Home) -> None:
    """What makes no sense ends with an error and without a certificate."""
    assert expected in run("certgen", *arguments, status=status)
    assert not home.certificate().exists()


def test_certdump_prints_or_writes(home: Home) -> None:
    """The details go to the terminal or into a file, which says what they are about."""
    run("certgen", "a.crt")
    shown = run("certdump", "a.crt")
    assert shown.startswith("Version: v3\n")
    assert "Dumped the certificate details to a.txt\n" == run(
        "certdump", "a.crt", "--out", "a.txt", "-a", "sha1"
    )
    first, rest = Path("a.txt").read_text().split("\n", 1)
    assert "Certificate details for a.crt" == first
    assert shown.splitlines()[:-2] == rest.splitlines()[:-2]
    assert (
        f"Fingerprint (SHA1):\n{fingerprint(load_certificate('a.crt'), 'sha1')}\n"
        == rest[rest.index("Finger") :]
    )
    assert "none.crt" in run("certdump", "none.crt", status=1)
    assert "cannot load the certificate a.txt" in run("certdump", "a.txt", status=1)


# -- hosts and users -----------------------------------------------------------------------------------------


def test_hostnames_are_added_removed_and_listed(home: Home) -> None:
    """The table has this computer from the start, and what is unknown cannot be removed."""
    assert "Added lab8\nAdded lab7\n" == run("hostname", "add", "lab8", "lab7")
    lines = run("hostname", "list").splitlines()
    assert [f"Trusted devices in {home.database}", "", "Hostnames:"] == lines[:3]
    assert lines[3:] == sorted(lines[3:])
    assert {"  lab7", "  lab8", "  localhost"} <= set(lines[3:])
    shown = run("hostname", "remove", "lab7", "lab9", "lab8", status=1)
    assert "Removed lab7\nRemoved lab8\n" in shown
    assert "Cannot remove 'lab9'. This hostname is not in the table." in shown
    assert "lab7" not in run("hostname", "list")
    run("hostname", "add", status=2)


def test_users_are_added_updated_removed_and_listed(home: Home) -> None:
    """What is given changes, and nothing else does."""
    assert "There are no users in the database\n" == run("user", "list")
    assert "marie has been added\n" == run("user", "add", "marie", "-p", "polonium", "--admin")
    run("user", "add", "pierre", "-r", "observer", typed="radium\nradium\n")
    expected = [
        f"Users in {home.database}",
        "",
        "Username Administrator Role",
        "======== ============= ========",
        "marie    True",
        "pierre   False         observer",
    ]
    assert expected == run("user", "list").splitlines()
    assert "Updated marie\n" == run("user", "update", "marie", "-p", "radium")
    run("user", "update", "pierre", "--ask-password", "--admin", typed="x\nx\n")
    with open_store(home.database) as store:
        assert User("marie", True) == store.users.login("marie", "radium")
        assert User("pierre", True, "observer") == store.users.login("pierre", "x")
    run("user", "update", "pierre", "--no-admin", "--role", "")
    assert "pierre has been removed\n" == run("user", "remove", "pierre")
    with open_store(home.database) as store:
        assert [User("marie", True)] == store.users.all()


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["add", "marie", "-p", "x"], 1, "A user with the name 'marie' already exists"),
        (["add", "lab:12", "-p", "x"], 1, 'A username cannot end with ":<integer>"'),
        (["add", "paul", "-p", ""], 1, "You must specify a password for 'paul'"),
        (["add", "paul", "-p", "x", "-r", "administrator"], 1, "--admin"),
        (["add"], 2, "NAME"),
        (["update", "paul", "-p", "x"], 1, "Cannot update 'paul'. This user is not in the table."),
        (["update", "marie"], 2, "expected something to change"),
        (["remove", "paul"], 1, "This user is not in the table."),
        (["list", "-d", "."], 2, "is a directory"),
        (["list", "-d", "/proc/none/x"], 1, "/proc/none"),
    ],
)
def test_users_that_cannot_be(arguments: list[str], status: int, expected: str, home: Home) -> None:
    """What makes no sense ends with an error in words."""
    run("user", "add", "marie", "-p", "polonium")
    assert expected in run("user", *arguments, status=status)


def test_another_database_can_be_used(home: Home) -> None:
    """With --database the default one is not even made; what is no database is left alone."""
    run("user", "add", "marie", "-p", "x", "--database", "lab.sqlite3")
    run("hostname", "add", "lab7", "-d", "lab.sqlite3")
    assert "  lab7" in run("hostname", "list", "-d", "lab.sqlite3")
    assert not home.path.exists()
    Path("notes").write_text("x" * 1000)
    assert "cannot use the database notes" in run("user", "list", "-d", "notes", status=1)


# -- deleting ------------------------------------------------------------------------------------------------


def fill(home: Home) -> dict[str, list[Path]]:
    """Files of every kind in a home, and some that are none of ours."""
    files = {
        "--database": [home.database, home.path / "manager.sqlite3-journal"],
        "--certs": [home.certificate(), home.certificates / "old" / "lab7.crt"],
        "--keys": [home.key()],
        "--logs": [home.logs / "manager-2024-01-01-00-00-00.log"],
        "others": [
            home.path / "notes.txt",
            home.certificates / "README",
            home.keys / "x.crt",
            home.path / "x.log",
        ],
    }
    for path in (path for paths in files.values() for path in paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1500)
    return files


@pytest.mark.parametrize("option", ["--database", "--certs", "--keys", "--logs", "--all"])
def test_what_was_asked_for_is_deleted(option: str, home: Home) -> None:
    """Of the files of a home those of the kinds that were named go, all others stay."""
    files = fill(home)
    shown = run("delete", option, "--yes")
    for kind, paths in files.items():
        for path in paths:
            should_be_gone = kind == option or (option == "--all" and kind != "others")
            assert should_be_gone == (not path.exists())
            assert should_be_gone == (f"[Deleted] {path}\n" in shown)
    assert home.certificates.exists()
    run("delete", option, "--yes")


def test_deleting_asks_first(home: Home) -> None:
    """Without a yes, or without anybody to ask, nothing is deleted; each kind is asked about by itself."""
    files = fill(home)
    shown = run("delete", "--certs", "--keys", typed="n\ny\n")
    assert "2 certificates will be deleted [3 kB]" in shown
    assert f"{home.key()} will be deleted [2 kB]" in shown
    assert home.certificate().exists()
    assert not home.key().exists()
    run("delete", "--certs", typed="", status=1)
    run("delete", "--certs", typed="\n")
    assert all(path.exists() for path in files["--certs"])


def test_deleting_can_be_quiet(home: Home) -> None:
    """With --quiet nothing is printed but what has to be asked."""
    fill(home)
    assert "" == run("delete", "--all", "--yes", "--quiet")
    assert "" == run("delete", "--all", "--yes", "--quiet")
    shown = run("delete", "--all", "--yes")
    assert [
        "No database found",
        "No certificates found",
        "No keys found",
        "No log files found",
    ] == shown.splitlines()
    fill(home)
    assert "will be deleted" in run("delete", "--logs", "--quiet", typed="y\n")


def test_another_home_can_be_deleted_from(home: Home) -> None:
    """--root names a home that must exist; the default one is left alone."""
    fill(home)
    other = fill(Home(Path("other").resolve()))
    run("delete", "--all", "--yes", "--root", "other")
    assert not any(path.exists() for path in other["--certs"])
    assert home.certificate().exists()
    assert "does not exist" in run("delete", "--all", "--root", "none", status=2)
    assert "expected what to delete" in run("delete", status=2)
    assert "expected what to delete" in run("delete", "--yes", status=2)


def test_deleting_does_not_follow_links_out_of_the_home(home: Home, tmp_path: Path) -> None:
    """A link goes, what it leads to stays; a linked directory is not searched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "lab.key").write_text("precious")
    home.keys.mkdir(parents=True)
    (home.keys / "link.key").symlink_to(outside / "lab.key")
    (home.keys / "directory").symlink_to(outside)
    run("delete", "--keys", "--yes")
    assert "precious" == (outside / "lab.key").read_text()
    assert ["directory"] == os.listdir(home.keys)
