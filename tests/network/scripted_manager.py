"""A manager that says what a test wants it to say: raw lines over streams in memory."""

from __future__ import annotations

import json
from typing import Any

import trio

from armillary.errors import ConnectFailed
from armillary.testing import bounded_stream_pair

NAME = "Manager[lab7:1875]"
OURS = "Bench A[lab7:51022]"


class ScriptedManager:
    """The manager's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._unread = bytearray()

    async def send(self, packet: object) -> None:
        """Send a packet, or a raw line."""
        line = packet if isinstance(packet, bytes) else json.dumps(packet).encode() + b"\r\n"
        await self.stream.send_all(line)

    async def receive_line(self) -> bytes:
        while (stop := self._unread.find(b"\n")) < 0:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise EOFError
            self._unread += data
        line = bytes(self._unread[: stop + 1])
        del self._unread[: stop + 1]
        return line

    async def receive(self) -> dict[str, Any]:
        line = await self.receive_line()
        assert line.endswith(b"\r\n")
        return json.loads(line)

    async def ask(self, attribute: str, *args: object, **kwargs: object) -> dict[str, Any]:
        """Ask the device something in the manager's name, and return its answer."""
        await self.send(
            {
                "args": args,
                "attribute": attribute,
                "error": False,
                "kwargs": kwargs,
                "requester": NAME,
                "uid": "",
            }
        )
        return await self.receive()

    async def let_in(self, features: list[str] | None = None, requester: str = OURS) -> dict[str, Any]:
        """Ask who it is, and answer what a device asks to see whether it is in; return its identity."""
        answer = await self.ask("identity", **({} if features is None else {"features": features}))
        probe = await self.receive()
        assert probe["service"] == "Manager"
        await self.reply(probe, True, requester=requester)
        return answer["result"]

    async def reply(
        self, request: dict[str, Any], result: object, *, requester: str = OURS, **more: object
    ) -> None:
        await self.send(
            {"error": False, "requester": requester, "result": result, "uid": request["uid"], **more}
        )

    async def fail(
        self, request: dict[str, Any], message: str, *, traceback: list[str] | None = None, **more: object
    ) -> None:
        await self.send(
            {
                "error": True,
                "message": message,
                "requester": OURS,
                "result": None,
                "traceback": traceback or [],
                "uid": request["uid"],
                **more,
            }
        )

    async def link(self, service: str = "DMM", **entry: object) -> None:
        """Expect a request to be linked, and grant it."""
        request = await self.receive()
        assert (request["service"], request["attribute"], request["args"]) == ("Manager", "link", [service])
        await self.reply(request, {"attributes": {}, "address": "lab7:51030", "max_clients": -1, **entry})

    async def serve_rest(self) -> list[dict[str, Any]]:
        """Grant whatever is asked until the device takes leave; close, and return what was asked."""
        asked = []
        while True:
            try:
                request = await self.receive()
            except EOFError:
                break
            asked.append(request)
            if request["attribute"] == "__disconnect__":
                break
            await self.reply(request, True)
        await self.stream.aclose()
        return asked

    async def call(
        self, attribute: str, *args: object, uid: str = "7", requester: str = OURS, **kwargs: object
    ) -> None:
        """Forward a client's request to a service."""
        await self.send(
            {
                "args": args,
                "attribute": attribute,
                "error": False,
                "kwargs": kwargs,
                "service": "DMM",
                "uid": uid,
                "requester": requester,
            }
        )


def connected() -> tuple[trio.abc.Stream, ScriptedManager]:
    """A device's end of a connection, and a manager at the other."""
    ours, theirs = bounded_stream_pair()
    return ours, ScriptedManager(theirs)


class Dialled:
    """Connections of a device that connects again and again: each comes out of `next`."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[ScriptedManager](10)
        self.attempts = 0
        self.is_there = True
        self.tried = trio.Event()

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.attempts += 1
        self.tried.set()
        if not self.is_there:
            raise ConnectFailed("nobody listens")
        stream, manager = connected()
        self._send.send_nowait(manager)
        return stream

    async def next(self) -> ScriptedManager:
        return await self._receive.receive()
