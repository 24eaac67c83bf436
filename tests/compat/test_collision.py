"""The warning when a façade's import name belongs to somebody else, too."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from armillary_compat.collision import NameCollisionWarning, warn_of_collision


@pytest.fixture(autouse=True)
def once_more() -> Iterator[None]:
    """Each test is a process of its own, as far as the warning can tell."""
    warn_of_collision.cache_clear()
    yield
    warn_of_collision.cache_clear()


def install(directory: Path, metadata_directory: str, name: str, version: str = "2.3.0") -> None:
    """What an installer leaves there."""
    metadata = directory / metadata_directory
    metadata.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    file = "METADATA" if metadata_directory.endswith(".dist-info") else "PKG-INFO"
    (metadata / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("metadata_directory", "name", "asked_for"),
    [
        ("aiokatcp-2.3.0.dist-info", "aiokatcp", "aiokatcp"),
        ("msl_network-2.3.0.dist-info", "msl-network", "msl-network"),
        ("msl.network-2.3.0.dist-info", "msl-network", "msl_network"),
        ("Msl_Network-2.3.0.dist-info", "Msl-Network", "msl.network"),
        ("aiokatcp-2.3.0-py3.11.egg-info", "aiokatcp", "aiokatcp"),
    ],
)
def test_a_foreign_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata_directory: str, name: str, asked_for: str
) -> None:
    """If the distribution whose import name a façade keeps is installed, a warning says what to do."""
    install(tmp_path, metadata_directory, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(NameCollisionWarning) as caught:
        warn_of_collision("some.package", asked_for)
    text = str(caught[0].message)
    assert "expected 'some.package' to come from armillary-compat alone" in text
    assert f"{asked_for} 2.3.0 is installed as well" in text
    assert f"`pip uninstall {asked_for}`, then `pip install --force-reinstall" in text.replace(
        "and then", "then"
    )
    assert caught[0].filename == __file__ or "pytest" in caught[0].filename


def test_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning comes once in a process, for each name."""
    install(tmp_path, "aiokatcp-2.3.0.dist-info", "aiokatcp")
    install(tmp_path, "aiomonitor-1.dist-info", "aiomonitor")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            warn_of_collision("aiokatcp", "aiokatcp")
            warn_of_collision("aiomonitor", "aiomonitor")
    assert [type(warning.message) for warning in caught] == [NameCollisionWarning] * 2
    assert issubclass(NameCollisionWarning, UserWarning)


def test_no_foreign_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is no warning: not for ourselves, for others of a similar name, or for odd paths."""
    for directory in ("aiokatcp_extras-1.dist-info", "katcp-1.dist-info", "aiokatcp-notes", "aiokatcp.txt"):
        install(tmp_path, directory, "something")
    (tmp_path / "aiokatcp-9.dist-info").mkdir()  # left behind empty by a broken uninstall
    (tmp_path / "a file").touch()
    for entry in (tmp_path, tmp_path / "missing", tmp_path / "a file", ""):
        monkeypatch.syspath_prepend(entry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("aiokatcp", "aiomonitor", "msl-network", "activelogic"):
            warn_of_collision(name, name)


def test_it_is_cheap() -> None:
    """Where nothing collides, nothing is imported that takes long, and no metadata is read."""
    code = (
        "import sys; from armillary_compat.collision import warn_of_collision; before = set(sys.modules);"
        "warn_of_collision('aiokatcp', 'aiokatcp');"
        "print(sorted(set(sys.modules) - before), 'importlib.metadata' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[] False\n"


PEER = Path(__file__).parents[2] / ".peers" / "aiokatcp" / "bin" / "python"


@pytest.mark.interop
@pytest.mark.skipif(not PEER.exists(), reason="make peers installs aiokatcp")
def test_the_real_one() -> None:
    """In an environment with the real aiokatcp, the warning names it."""
    source = Path(__file__).parents[2] / "compat" / "src" / "armillary_compat" / "collision.py"
    code = f"import runpy; runpy.run_path({str(source)!r})['warn_of_collision']('aiokatcp', 'aiokatcp')"
    result = subprocess.run([PEER, "-Wdefault", "-c", code], check=True, capture_output=True, text=True)
    assert "NameCollisionWarning: expected 'aiokatcp' to come from armillary-compat alone" in result.stderr
    assert "but aiokatcp 2.3.0 is installed" in result.stderr
