"""Tests of the balance of balance.py, without ports and without waiting. Run it with pytest."""

from __future__ import annotations

import pytest
import trio
from balance import Balance
from trio.testing import MockClock

from armillary import network
from armillary.testing import FaultyStream, Lab

# [fixtures]
pytest_plugins = ["armillary.testing.fixtures"]  # in a project of several files: in its conftest.py


@pytest.fixture
async def lab_services() -> list[network.Service]:
    """The services that the fixture `lab` begins with."""
    return [Balance()]


# [call]
async def test_weighs(lab: Lab, autojump_clock: MockClock) -> None:
    """A tared balance weighs what was placed on it."""
    async with lab.client() as client, client.link("Balance") as balance:
        await balance.tare()
        await balance.place(20.0)
        assert await balance.weigh() == pytest.approx(20.0, abs=0.001)


# [absence]
async def test_comes_back(lab: Lab, autojump_clock: MockClock) -> None:
    """The balance is there again after an hour without a manager."""
    async with lab.persistent_client() as client, client.link("Balance") as balance:
        await lab.restart_manager(absence=3600.0)
        await trio.sleep(120.0)  # the longest pause between two attempts is a minute
        assert await balance.UNIT() == "g"


# [silence]
async def test_silent_holder(lab: Lab, autojump_clock: MockClock) -> None:
    """A client from which nothing is heard any more loses its lock, and the next one gets it."""
    stream = FaultyStream(await lab.connect())
    async with lab.client(stream=stream) as gone, gone.link("Balance") as balance:
        async with balance.lock():
            stream.sends_nothing = stream.reads_nothing = True
            await trio.sleep(120.0)
            async with lab.client() as other, other.link("Balance") as another:
                async with another.lock(shared=True):
                    pass


# [end]
