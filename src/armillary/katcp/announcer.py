"""News that goes to every client of a device: who connected, which sensors came and went.

A device that adds ten thousand sensors, or that five thousand clients find at once after a restart, would
send its news as many times to as many clients. News therefore goes out at once when it is quiet, and at most
every `INTERVAL` seconds, joined, when it is not; less often yet with thousands of clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .protocol.messages import MessageType, line

if TYPE_CHECKING:
    from .device import Device
    from .session import Session

__all__ = ["INTERVAL", "Announcer"]

# Seconds. Shorter sends more lines to a client for the same change (each makes a mirror list all sensors
# again); longer leaves a mirror behind for longer.
INTERVAL = 0.05
# Seconds more for each client. Telling one takes about a tenth of this, so that news takes a tenth of the
# server's time at most, however many clients there are.
INTERVAL_PER_CLIENT = 0.0002

# Names of removed sensors that are remembered, the latest. Fewer are forgotten before they come back, and
# mirrors then miss their updates; more takes 100 bytes each.
_REMEMBERED = 10_000

_INFORM = MessageType.INFORM


class Announcer:
    """Collects news synchronously; `run` sends it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._news = trio.Event()
        self._arrivals: list[Session] = []
        self._changes: dict[str, str] = {}
        # Of sensors that were removed: one that comes back is announced by name, because a client that finds
        # it in the list as it was before does not know that it is not subscribed any more.
        self._removed: dict[str, None] = {}

    def client_connected(self, session: Session) -> None:
        """Tell every client that was there before of this one."""
        self._arrivals.append(session)
        self._news.set()

    def sensor_changed(self, name: str, change: str) -> None:
        """Tell every client that a sensor was ``added``, ``removed`` or, being both, ``modified``."""
        # One that was added and removed before anybody was told is told of, too: a client that has listed
        # the sensors in between would keep it for ever.
        self._changes.pop(name, None)
        if change == "removed":
            self._removed[name] = None
            if len(self._removed) > _REMEMBERED:
                del self._removed[next(iter(self._removed))]
        elif name in self._removed:
            del self._removed[name]
            change = "modified"
        self._changes[name] = change
        self._news.set()

    async def run(self) -> None:
        """Send news until cancelled."""
        while True:
            await self._news.wait()
            # Whoever brought the news may have more in the same breath.
            await trio.lowlevel.checkpoint()
            self._news = trio.Event()
            self._announce_clients()
            self._announce_sensors()
            await trio.sleep(max(INTERVAL, INTERVAL_PER_CLIENT * len(self._device.sessions)))

    def _announce_clients(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        lines = [
            line(_INFORM, b"client-connected", None, [session.peer.encode("utf-8")]) for session in arrivals
        ]
        if not lines:
            return
        # Sessions are kept in order of arrival: each is told of those that came after it.
        position = {session: index for index, session in enumerate(arrivals)}
        together = b"".join(lines)
        for session in tuple(self._device.sessions):
            index = position.get(session)
            news = together if index is None else b"".join(lines[index + 1 :])
            if news and (index is not None or session.serial < arrivals[0].serial):
                session.send_async_inform(news)

    def _announce_sensors(self) -> None:
        changes, self._changes = self._changes, {}
        if not changes:
            return
        # Replaced sensors are named: if one looks as it did before, the list does not show that whoever had
        # subscribed to it is not subscribed any more.
        named = {
            name: change for name, change in changes.items() if change == "modified" or len(changes) == 1
        }
        told = [[b"sensor", name.encode("utf-8"), change.encode("ascii")] for name, change in named.items()]
        if len(named) < len(changes):
            told.append([b"sensor-list"])
        news = b"".join(line(_INFORM, b"interface-changed", None, arguments) for arguments in told)
        for session in tuple(self._device.sessions):
            session.send_async_inform(news)
