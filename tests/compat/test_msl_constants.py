"""What 1.0's users find in the package itself, and in its constants."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import msl.network
from msl.network import constants


def run(program: str, **variables: str) -> list[str]:
    """The words that a program prints in a process of its own."""
    environ = {
        name: value for name, value in os.environ.items() if name not in ("MSL_NETWORK_HOME", "SUDO_USER")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        env=environ | variables,
        check=False,
    )
    assert not done.stderr
    return done.stdout.split()


def test_the_version_is_that_of_the_api() -> None:
    """As text, and in parts."""
    assert msl.network.__version__ == "1.0.0"
    assert msl.network.version_info == (1, 0, 0, "final")
    assert repr(msl.network.version_info) == ("version_info(major=1, minor=0, micro=0, releaselevel='final')")
    assert msl.network.__author__
    assert msl.network.__copyright__.startswith("\N{COPYRIGHT SIGN}")


@pytest.mark.parametrize("name", msl.network.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    """Those of the package, and the modules that come with it."""
    assert getattr(msl.network, name) is not None
    assert name in dir(msl.network)


@pytest.mark.parametrize(
    "name",
    ["client", "constants", "cryptography", "database", "json", "manager", "network", "service", "utils"],
)
def test_modules_are_there_without_importing_them(name: str) -> None:
    """Importing the package is enough."""
    program = f"import msl.network\nprint(msl.network.{name}.__name__)"
    assert run(program) == [f"msl.network.{name}"]
    assert getattr(msl.network, name) is importlib.import_module(f"msl.network.{name}")


def test_other_names_are_not_there() -> None:
    """They raise what a module raises."""
    for name in ("Client", "Link", "Manager", "run_forever", "no_such"):
        with pytest.raises(AttributeError, match=f"module 'msl.network' has no attribute '{name}'"):
            getattr(msl.network, name)


def test_other_distributions_have_modules_in_msl(tmp_path: Path) -> None:
    """The package above is nobody's."""
    (tmp_path / "msl" / "elsewhere").mkdir(parents=True)
    (tmp_path / "msl" / "elsewhere" / "__init__.py").write_text("here = 'here'")
    program = "import msl.network, msl.elsewhere\nprint(msl.elsewhere.here)"
    assert run(program, PYTHONPATH=str(tmp_path)) == ["here"]
    assert getattr(sys.modules["msl"], "__file__", None) is None


def test_the_old_library_beside_it_is_announced_once(tmp_path: Path) -> None:
    """Whoever imports the package is told how to get rid of one of the two."""
    metadata = tmp_path / "msl_network-1.0.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: msl-network\nVersion: 1.0.0\n")
    program = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        " warnings.simplefilter('always')\n"
        " import msl.network, msl.network.json\n"
        " from msl.network import constants\n"
        "print(len(caught), type(caught[0].message).__name__, 'msl-network 1.0.0' in str(caught[0].message))"
    )
    assert run(program, PYTHONPATH=str(tmp_path)) == ["1", "NameCollisionWarning", "True"]


def test_words_and_numbers() -> None:
    """They are those of the wire, and of the log lines that others wait for."""
    assert constants.PORT == 1875
    assert constants.DISCONNECT_REQUEST == "__disconnect__"
    assert constants.NOTIFICATION_UID == "notification"
    assert constants.SHUTDOWN_SERVICE == "shutdown_service"
    assert constants.SHUTDOWN_MANAGER == "shutdown_manager"
    assert constants.NETWORK_MANAGER_RUNNING_PREFIX == "Network Manager running on"
    assert constants.DEFAULT_YEARS_VALID == (100 if sys.maxsize > 2**32 else 15)
    assert type(constants.DEFAULT_YEARS_VALID) is int


def test_the_system() -> None:
    """At most one of the two."""
    assert constants.IS_WINDOWS is sys.platform.startswith(("win", "cygwin"))
    assert constants.IS_LINUX is sys.platform.startswith("linux")


def test_what_this_computer_is_called() -> None:
    """Its own IPv4 addresses are among its aliases, and are text."""
    assert socket.gethostname() == constants.HOSTNAME
    assert isinstance(constants.IPV4_ADDRESSES, list)
    assert "127.0.0.1" in constants.IPV4_ADDRESSES
    for address in constants.IPV4_ADDRESSES:
        socket.inet_aton(address)
    assert isinstance(constants.LOCALHOST_ALIASES, set)
    assert constants.LOCALHOST_ALIASES.issuperset(
        {constants.HOSTNAME, "localhost", "127.0.0.1", "::1", *constants.IPV4_ADDRESSES}
    )
    assert constants.LOCALHOST_ALIASES is constants.LOCALHOST_ALIASES


_WHERE = (
    "from msl.network import constants as c\nprint(c.USER_DIR, c.HOME_DIR, c.CERT_DIR, c.KEY_DIR, c.DATABASE)"
)


def test_where_the_files_are(tmp_path: Path) -> None:
    """In the user's home directory."""
    home = tmp_path / ".msl" / "network"
    expected = [tmp_path, home, home / "certs", home / "keys", home / "manager.sqlite3"]
    assert run(_WHERE, HOME=str(tmp_path)) == list(map(str, expected))


def test_a_variable_says_where_the_files_are(tmp_path: Path) -> None:
    """Other than the user's directory, which stays where it is."""
    expected = [
        "/home/of/somebody",
        tmp_path,
        tmp_path / "certs",
        tmp_path / "keys",
        tmp_path / "manager.sqlite3",
    ]
    found = run(_WHERE, HOME="/home/of/somebody", MSL_NETWORK_HOME=str(tmp_path))
    assert found == list(map(str, expected))


def test_who_calls_sudo_has_the_files_of_the_caller() -> None:
    """Not those of root."""
    root = os.path.expanduser("~root")
    found = run(_WHERE, HOME="/home/of/somebody", SUDO_USER="root")
    assert found[:2] == [root, os.path.join(root, ".msl", "network")]


def test_unknown_constants_are_not_there() -> None:
    """They raise what a module raises."""
    with pytest.raises(AttributeError, match="has no attribute 'NO_SUCH'"):
        constants.NO_SUCH  # noqa: B018
