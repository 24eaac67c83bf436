"""Packets that a manager forwards and that the device for which they are cannot read: somebody waits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from armillary.errors import PeerError
from armillary.network.service import Service
from armillary.testing import RawPeer, open_lab

# JSON has no limit for the digits of a number, but Python has.
DIGITS = b"9" * 5000


class Bench(Service):
    """What is asked."""

    async def echo(self, value: object) -> object:
        return value


async def introduce(peer: RawPeer, kind: str, name: str) -> None:
    """Let it in."""
    identity = {"type": kind, "name": name, "language": "Test", "os": "Test", "attributes": {}}
    assert json.loads(await peer.receive())["attribute"] == "identity"
    await peer.send(json.dumps({"result": identity, "error": False, "requester": None}).encode() + b"\r\n")


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (b'"args":null,"kwargs":{}', "expected an array as 'args', got null"),
        (b'"args":[],"kwargs":[]', "expected an object as 'kwargs', got an array"),
        (b'"args":[%b],"kwargs":{}' % DIGITS, ""),
    ],
    ids=["args", "kwargs", "digits"],
)
async def test_a_request_that_a_service_cannot_read(
    part: bytes, complaint: str, autojump_clock: object
) -> None:
    """It is answered with an error, so that nobody waits for ever, and the next one is carried out."""
    async with open_lab(Bench()) as lab, lab.open_raw() as client:
        await introduce(client, "client", "Terminal")
        await client.send(b'{"service":"Bench","attribute":"echo",%b,"uid":"1"}\r\n' % part)
        with trio.fail_after(5):
            answer = json.loads(await client.receive())
        assert (answer["error"], answer["uid"]) == (True, "1")
        assert answer["message"].startswith("ValueError: ")
        assert complaint in answer["message"]
        assert lab.manager.statistics().requests.in_flight == 0
        await client.send(b'{"service":"Bench","attribute":"echo","args":["x"],"kwargs":{},"uid":"2"}\r\n')
        with trio.fail_after(5):
            reply: dict[str, Any] = json.loads(await client.receive())
        assert (reply["result"], reply["uid"]) == ("x", "2")


async def test_a_reply_that_a_client_cannot_read(autojump_clock: object) -> None:
    """The call fails, with an error that names it."""
    async with open_lab() as lab, lab.open_raw() as service:
        await introduce(service, "service", "DMM")

        async def answer() -> None:
            request = json.loads(await service.receive())
            requester, uid = request["requester"].encode(), request["uid"].encode()
            await service.send(b'{"result":%b,"requester":"%b","uid":"%b"}\r\n' % (DIGITS, requester, uid))

        async with lab.client() as client, client.link("DMM") as dmm, trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(5), pytest.raises(PeerError, match=r"DMM\.voltage"):
                await dmm.voltage()
