"""The page about the limits of the lab network, and others that quote them, say what the source says."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from armillary._runtime import dial
from armillary._wire import backoff
from armillary.network import (
    ManagerLimits,
    connection,
    hosts,
    iteration,
    manager,
    notifications,
    open_client,
    peer_conversations,
    peer_session,
    reconnect,
    running_call,
    serve_manager,
    service,
    streams,
)
from armillary.network.protocol import (
    admin_login,
    codec,
    device_handshake,
    envelopes,
    identities,
    outstanding,
    terminal_input,
    throttle,
    words,
)
from armillary.network.store import audit, database, recorder

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "explanation/network_limits.md").read_text("utf-8")
LIMITS = ManagerLimits()


def size(count: int) -> str:
    return f"{count // 1024**2} MiB" if count >= 1024**2 else f"{count // 1024} KiB"


def table(heading: str) -> dict[str, str]:
    """The defaults in the table of a section, by the first words of the limit."""
    _, _, rest = PAGE.partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| ")][2:]
    assert all(len(row) == 4 for row in rows)
    return {row[0].removeprefix("| "): row[1] for row in rows}


def test_from_a_peer() -> None:
    """What a manager takes from a peer."""
    assert list(table("What a manager takes from a peer").values()) == [
        size(LIMITS.line),
        size(peer_session._INTRODUCTION),
        str(codec.MAX_DEPTH),
        str(envelopes.MOST_KEYS),
        f"{envelopes.LONGEST_VALUE} B",
        f"{identities._LONGEST_NAME} characters",
        size(terminal_input._LONGEST_LINE),
        str(peer_session._BURST),
        f"{size(peer_session._RECEIVE)}, in a long line {size(peer_session._RECEIVE_LONG)}",
        str(outstanding.PER_REQUESTER),
        str(outstanding.PER_SERVICE),
        str(outstanding.GIVEN_UP_PER_SERVICE),
        str(words.MOST_CREDIT),
        str(peer_conversations._MOST_TASKS),
        str(admin_login.WAITING_REQUESTS),
    ]


def test_unread() -> None:
    """What a peer may leave unread."""
    assert list(table("What a peer leaves unread").values()) == [
        size(LIMITS.unread),
        size(LIMITS.unread_replies),
        f"{peer_session.FAREWELL_TIMEOUT:g} s",
    ]


def test_time() -> None:
    """How long a manager waits for what."""
    assert inspect.signature(serve_manager).parameters["backlog"].default is None
    assert list(table("Time at a manager").values()) == [
        f"{dial.HANDSHAKE_TIMEOUT:g} s",
        f"{hosts.RESOLVE_TIMEOUT:g} s",
        f"{LIMITS.handshake:g} s",
        f"{LIMITS.ping_interval:g} s",
        f"{LIMITS.lock_lease:g} s",
        f"{admin_login.ADMIN_LOGIN_LIMIT:g} s",
        "what the system allows",
    ]


def test_every_limit_of_a_manager_is_there() -> None:
    """No field of ManagerLimits is missing."""
    assert {field.name for field in dataclasses.fields(ManagerLimits)} <= set(re.findall(r"`(\w+)`:", PAGE))


def test_logins() -> None:
    """How failed logins slow down others."""
    assert list(table("Logins").values()) == [
        str(manager._LOGINS_AT_ONCE),
        str(throttle.FREE),
        f"{throttle.FIRST:g} s, doubling up to {throttle.LONGEST:g} s",
        f"after {throttle.FORGET_AFTER:g} s",
        str(throttle.ADDRESSES),
    ]


def test_audit() -> None:
    """What the audit keeps."""
    assert list(table("The audit").values()) == [
        str(recorder._MOST_WAITING),
        str(audit._LONGEST_TEXT),
        f"{database.BUSY_TIMEOUT:g} s",
    ]
    assert f"tried again after {recorder._RETRY:g} s" in PAGE


def test_devices() -> None:
    """What clients and services take, and how long they wait."""
    parameters = inspect.signature(open_client).parameters
    first, longest = backoff.FIRST, backoff.LONGEST
    assert list(table("Clients and services").values()) == [
        size(parameters["limit"].default),
        f"{parameters['connect_timeout'].default:g} s",
        f"{connection._SILENT_INTERVALS} of its `ping_interval`s",
        size(connection._HIGH_WATER),
        str(connection._BURST),
        f"{connection.CLOSE_TIMEOUT:g} s",
        f"{first:g} to {2 * first:g} s, doubling up to {longest / 2:g} to {longest:g} s",
        str(device_handshake.OPEN_QUESTIONS),
        str(notifications.NOTIFICATION_BOUND),
        str(streams.WINDOW),
        f"every {reconnect.LOOK_INTERVAL:g} s",
        f"every {reconnect.WAIT_INTERVAL:g} s",
    ]
    assert f"until {size(connection._LOW_WATER)} are left" in PAGE


def test_service() -> None:
    """What a service takes on."""
    assert list(table("A service").values()) == [
        str(service.THREADS),
        "no limit",
        str(service.PENDING),
        str(iteration.MOST_COLLECTED),
        size(service._NOTIFICATION_HIGH_WATER),
        size(running_call._PROGRESS_HIGH_WATER),
        "no limit",
    ]


def quoted(page: str, pattern: str) -> str:
    """The one number on a page that a pattern finds."""
    text = " ".join((DOCS / page).read_text("utf-8").split())
    (found,) = re.findall(pattern, text)
    return str(found)


def test_quoted_elsewhere() -> None:
    """How-tos that quote a limit quote the right one."""
    notifying, streaming = "howto/network_notifications.md", "howto/network_streaming_and_progress.md"
    assert quoted("howto/network_locks.md", r"silent for (\d+) s") == f"{LIMITS.lock_lease:g}"
    assert quoted(notifying, r"At most (\d+) notifications") == str(notifications.NOTIFICATION_BOUND)
    assert quoted(notifying, r"beyond (\d+ MiB) that wait") == size(service._NOTIFICATION_HIGH_WATER)
    assert quoted(notifying, r"beyond (\d+ MiB), the manager drops") == size(LIMITS.unread)
    assert quoted(streaming, r"at most (\d+) items ahead") == str(streams.WINDOW)
    assert quoted(streaming, r"of ([\d ]+) items at most").replace(" ", "") == str(iteration.MOST_COLLECTED)
    dying, silence = "explanation/network_when_something_dies.md", LIMITS.ping_interval
    assert quoted(dying, r"heard nothing of them for (\d+) s") == f"{silence:g}"
    assert quoted(dying, r"the manager \| (\d+) s \|") == f"{LIMITS.lock_lease:g}"
    assert (
        quoted(dying, r"clients and services \| (\d+) s \|") == f"{connection._SILENT_INTERVALS * silence:g}"
    )
    assert quoted("howto/network_serial_instrument.md", r"up to (\d+) threads") == str(service.THREADS)
    assert (
        f"waits {backoff.FIRST:g} to {2 * backoff.FIRST:g} s, then twice as long, "
        f"up to {backoff.LONGEST / 2:g} to {backoff.LONGEST:g} s"
        in " ".join((DOCS / "howto/network_reconnecting.md").read_text("utf-8").split())
    )
