"""A client's links when several things happen to them at once."""

from __future__ import annotations

import trio

from armillary.network.reconnect import LOOK_INTERVAL
from armillary.network.service import Service
from armillary.testing import FaultyStream, open_lab


class Bench(Service):
    """What is linked."""


async def test_a_block_that_is_left_while_the_client_looks_for_the_service(autojump_clock: object) -> None:
    """The manager's answer to that look comes after the end of the link, and does not bring it back."""
    async with open_lab(Bench()) as lab:

        async def dial() -> FaultyStream:
            stream = FaultyStream(await lab.connect())
            stream.delay = 0.1
            return stream

        seen = set()
        async with lab.persistent_client(dial=dial) as client:
            for tenth in range(10):
                async with client.link("Bench"):
                    # The first look comes with the connection, the others after such an interval.
                    before = trio.current_time() % LOOK_INTERVAL
                    await trio.sleep(LOOK_INTERVAL - before + tenth / 20)
                await trio.sleep(1)
                (row,) = lab.manager.registry.table()
                seen.add(row.links)
        assert seen == {()}
