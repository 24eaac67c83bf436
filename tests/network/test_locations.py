from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from armillary.network.locations import (
    Home,
    find_home,
    localhost_aliases,
    own_addresses,
    own_hostname,
)


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    """MSL_NETWORK_HOME names the home, and may begin with a tilde."""
    assert Home(tmp_path) == find_home({"MSL_NETWORK_HOME": str(tmp_path)})
    assert Home(Path.home() / "lab") == find_home({"MSL_NETWORK_HOME": "~/lab"})


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says now counts, not what it said when the module was imported."""
    monkeypatch.setenv("MSL_NETWORK_HOME", "/one")
    assert Home(Path("/one")) == find_home()
    monkeypatch.setenv("MSL_NETWORK_HOME", "/other")
    assert Home(Path("/other")) == find_home()


def test_the_home_is_in_the_users_home_by_default() -> None:
    """Without MSL_NETWORK_HOME, or with an empty one, it is where MSL-Network 1.0 has it."""
    expected = Home(Path.home() / ".msl" / "network")
    assert expected == find_home({})
    assert expected == find_home({"MSL_NETWORK_HOME": ""})


def test_under_sudo_the_home_is_that_of_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """SUDO_USER's home directory is used; that of somebody unknown is not guessed."""
    monkeypatch.setenv("HOME", "/somewhere/else")
    user = getpass.getuser()
    assert Home(Path(os.path.expanduser(f"~{user}")) / ".msl" / "network") == find_home({"SUDO_USER": user})
    assert Home(Path("/somewhere/else/.msl/network")) == find_home({"SUDO_USER": "no-such-user"})


def test_what_is_where_in_a_home() -> None:
    """Certificates, keys, logs and the database have the places that MSL-Network 1.0 gives them."""
    home = Home(Path("/lab"))
    assert Path("/lab/certs/localhost.crt") == home.certificate()
    assert Path("/lab/keys/localhost.key") == home.key()
    assert Path("/lab/certs/192.168.1.7.crt") == home.certificate("192.168.1.7")
    assert Path("/lab/keys/::1.key") == home.key("::1")
    assert Path("/lab/manager.sqlite3") == home.database
    started = 1_700_000_000.9
    assert Path("/lab/logs") == home.log(started).parent
    assert home.log(started).name.startswith("manager-2023-11-1")
    assert home.log(started).name.endswith("-20.log")


@pytest.mark.parametrize("host", ["", "a/b", "../up", "/etc/passwd", "a\0b"])
def test_a_host_that_is_no_file_name_is_refused(host: str) -> None:
    """No name of a host leads to a file elsewhere."""
    home = Home(Path("/lab"))
    for path_of in (home.certificate, home.key):
        with pytest.raises(ValueError, match="host"):
            path_of(host)


def test_own_addresses_are_this_computers() -> None:
    """Each address that is told can be listened on, and the loopback ones come first."""
    loopback, other_loopback, *others = own_addresses()
    assert ("127.0.0.1", "::1") == (loopback, other_loopback)
    for address in others:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind((address, 0))


def test_a_computer_that_hides_its_interfaces_has_its_loopback_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not being allowed to look at the interfaces is no error."""

    def refuse() -> Any:
        raise PermissionError

    monkeypatch.setattr(psutil, "net_if_addrs", refuse)
    assert ["127.0.0.1", "::1"] == own_addresses()


def test_the_aliases_are_all_that_means_this_computer() -> None:
    """Its name, localhost, its addresses, and what the resolver calls the loopback addresses."""
    aliases = localhost_aliases()
    assert {own_hostname(), "localhost", *own_addresses()} <= aliases
    assert socket.getnameinfo(("127.0.0.1", 0), 0)[0] in aliases
