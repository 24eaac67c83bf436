"""The reference of the lab network has what the source has."""

from __future__ import annotations

import re
from pathlib import Path

from armillary import network
from armillary.network import cli
from armillary.network.protocol.features import ALL_FEATURES, announcement
from armillary.network.protocol.roles import ADMIN_REQUESTS, ADMINISTRATOR, Roles
from armillary.network.protocol.words import WORDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference/network.md").read_text("utf-8")
# What each table of the database answers.
OF_EVERY_TABLE = {"path", "tables", "table_info", "column_names", "column_datatypes"}


def first_cells(page: str, heading: str) -> list[str]:
    """The names in the first column of the table whose first column has that heading."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[- |]*\|\n((?:\|.*\n)*)", page, re.MULTILINE)
    return [re.findall(r"`([^`]+)`", row)[0] for row in table.splitlines()]


def test_public_names() -> None:
    """Every public name is on the page."""
    documented = set(
        re.findall(r"^\.\. auto\w+:: (?:armillary\.network\.store\.)?(\w+)$", PAGE, re.MULTILINE)
    )
    assert set(network.__all__) <= documented


def test_commands() -> None:
    """Every command is in the table, in the order of the command's own help, or another."""
    assert sorted(first_cells(PAGE, "command")) == sorted(cli.main.commands)


def test_admin_requests() -> None:
    """The list of what administrators can ask for is that of the manager."""
    tables = {name.partition(".")[0] for name in ADMIN_REQUESTS if "." in name}
    listed = first_cells(PAGE, "attribute")
    everywhere = {f"{table}.{name}" for table in tables for name in OF_EVERY_TABLE}
    assert len(tables) == 3
    assert sorted([*listed, *everywhere]) == sorted(ADMIN_REQUESTS)
    assert all(f"`{name}`" in PAGE for name in OF_EVERY_TABLE)


def test_features() -> None:
    """The features in the table, and in what the manager says, are those that there are."""
    assert first_cells(PAGE, "feature") == sorted(ALL_FEATURES)
    offered = re.search(r'"kwargs":(\{"features":.*?\})', PAGE)
    assert offered is not None
    assert offered[1] == str(announcement(ALL_FEATURES)).replace("'", '"').replace(" ", "")


def test_words() -> None:
    """The words in the table are those that there are."""
    assert set(first_cells(PAGE, "word")) == set(WORDS)


def test_roles() -> None:
    """The roles in the table are those that every manager has."""
    page = (DOCS / "howto/network_users_and_roles.md").read_text("utf-8")
    roles = first_cells(page, "role")
    assert sorted(roles) == Roles().names
    assert roles[0] == ADMINISTRATOR.name
