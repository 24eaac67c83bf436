"""Defects of MSL-Network 1.0 that show in its database, its log and the status of its commands.

====== =========================================== ==========================================================
number the defect                                  the tests
====== =========================================== ==========================================================
13     asking for connections of a certain time    `test_connections_of_a_certain_time_can_be_asked_for`,
       raises an OperationalError                  ``test_audit.test_bounds_are_included``
17     commands that fail end with status 0;       `test_a_command_that_fails_says_so_by_its_status`,
       SIGTERM ends a manager without a word       `test_a_terminated_manager_takes_its_leave`,
                                                   ``test_network_start.test_what_cannot_be``,
                                                   ``test_network_cli`` for the other commands
--     secrets in files                            `test_no_file_knows_a_secret`
====== =========================================== ==========================================================
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from test_network_start import PATIENCE, started
from watched_lab import open_watched_lab

from armillary.errors import ConnectionClosed
from armillary.network.client import open_client
from armillary.network.errors import Rejected
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.service import Service, run_service
from armillary.network.store import AuditEvent, EventKind, open_store

SECRET = "p0l0nium-84"
WRONG = "rad1um-88"


class Bench(Service):
    """Somebody to call."""

    async def wait(self) -> None:
        await trio.sleep_forever()


# -- 13 ------------------------------------------------------------------------------------------------------


async def test_connections_of_a_certain_time_can_be_asked_for(tmp_path: Path) -> None:
    """An administrator asks for what was before, after and between, as text, over the network."""
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC).astimezone()
    with open_store(tmp_path / "manager.sqlite3", iterations=1000) as store:
        store.users.add("root", SECRET, is_admin=True)
        store.audit.record(
            [
                AuditEvent((noon + timedelta(hours=hour)).timestamp(), EventKind.CONNECTION, f"at {hour}")
                for hour in range(5)
            ]
        )
        credentials = Credentials(username="root", password=SECRET)
        async with open_watched_lab(store=store) as lab, lab.open_client(credentials=credentials) as client:

            async def messages(**bounds: str) -> list[str]:
                rows = await client.admin("connections_table.connections", **bounds)
                return [row[-1] for row in rows if row[-1].startswith("at ")]

            first, second, third = (
                (noon + timedelta(hours=hour)).replace(tzinfo=None).isoformat() for hour in (1, 2, 3)
            )
            assert await messages() == ["at 0", "at 1", "at 2", "at 3", "at 4"]
            assert await messages(start=third) == ["at 3", "at 4"]
            assert await messages(end=first) == ["at 0", "at 1"]
            assert await messages(start=first, end=second) == ["at 1", "at 2"]
            assert await messages(start=third, end=first) == []


# -- 17 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["certdump", "none.crt"], "none.crt"),
        (["keygen", "XYZ"], "XYZ"),
        (["user", "remove", "nobody"], "nobody"),
        (["user", "add", "marie:5", "--password", "x"], ":<integer>"),
        (["hostname", "remove", "nowhere"], "nowhere"),
        (["start", "--auth-login", "--auth-hostname"], "Cannot specify multiple authentication methods"),
        (["start", "--auth-login"], "empty"),
        (["start", "--key-file", "none.key"], "none.key"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_a_command_that_fails_says_so_by_its_status(arguments: list[str], text: str, tmp_path: Path) -> None:
    """Its status is not zero, and it says on stderr what went wrong, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "armillary", "network", *arguments],
        env={"MSL_NETWORK_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert text in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@asynccontextmanager
async def _bench(port: int) -> AsyncIterator[trio.Nursery]:
    """A service at a manager, for a block; it may end before."""
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[str | None]) -> None:
            with pytest.raises(ConnectionClosed):
                await run_service(
                    Bench(), "127.0.0.1", port, trust=None, reconnect=False, task_status=task_status
                )

        await nursery.start(run)
        yield nursery


async def test_a_terminated_manager_takes_its_leave(tmp_path: Path) -> None:
    """On SIGTERM calls fail at once, everybody is disconnected and recorded, and the status is 0."""
    async with started(tmp_path, "--disable-tls") as (process, port, _), _bench(port):
        async with open_client("127.0.0.1", port, trust=None) as client, client.link("Bench") as link:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:

                    async def call() -> None:
                        with pytest.raises(ConnectionClosed) as caught:
                            await link.wait()
                        assert caught.value.may_have_been_received

                    nursery.start_soon(call)
                    await client.identities()  # the call was sent before
                    process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    (log,) = (tmp_path / "logs").glob("*.log")
    assert log.read_text().splitlines()[-1].endswith(" - the manager has ended")
    with open_store(tmp_path / "manager.sqlite3") as store:
        messages = [row.message for row in store.audit.connections()]
    assert messages.count("new connection request") == 2
    assert messages.count("disconnected") == 2


# -- secrets -------------------------------------------------------------------------------------------------


def _contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_no_file_knows_a_secret(tmp_path: Path) -> None:
    """After logins, right and wrong, and a new user, nothing below the home contains a password."""
    new = "f0r-the-new-0ne"
    with open_store(tmp_path / "manager.sqlite3", iterations=1000) as store:
        store.users.add("root", SECRET, is_admin=True)
    options = ("--disable-tls", "--auth-login", "--log-level", "DEBUG")
    async with started(tmp_path, *options) as (process, port, printed):
        assert process.stdout is not None
        for credentials in (
            Credentials(username="root", password=WRONG),
            Credentials(username=WRONG, password=SECRET),
        ):
            with pytest.raises(Rejected):
                async with open_client("127.0.0.1", port, trust=None, credentials=credentials):
                    pytest.fail("it was let in")
        right = Credentials(username="root", password=SECRET)
        async with open_client("127.0.0.1", port, trust=None, credentials=right) as client:
            await client.admin("users_table.insert", "pierre", new, False)
            await client.admin("shutdown_manager")
        async with await trio.open_file(tmp_path / "printed", "wb") as file:
            async for data in process.stdout:
                await file.write(data)
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    contents = _contents(tmp_path)
    contents[Path("first lines")] = "\n".join(printed).encode()
    logs = [path for path in contents if path.suffix == ".log"]
    assert len(logs) == 1
    assert b"disconnected" in contents[logs[0]]
    for secret in (SECRET, WRONG, new):
        for text in (secret, secret[::-1], json.dumps(secret)[1:-1]):
            assert [path for path, content in contents.items() if text.encode() in content] == []
