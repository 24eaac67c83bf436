"""Event loops that host us: the standard library's, and uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import uvloop

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """One kind of event loop."""

    name: str
    new_event_loop: Callable[[], asyncio.AbstractEventLoop]

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """As ``asyncio.run(main())``, in debug mode, on this kind of loop."""
        with asyncio.Runner(debug=True, loop_factory=self.new_event_loop) as runner:
            return runner.run(main())


HOSTS = [Host("asyncio", asyncio.new_event_loop), Host("uvloop", uvloop.new_event_loop)]


@pytest.fixture(params=HOSTS, ids=lambda host: host.name)
def host(request: pytest.FixtureRequest) -> Host:
    """Runs a test's coroutine function, once on each kind of loop."""
    chosen: Host = request.param
    return chosen


@pytest.fixture(params=["hosted", "stock"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who gives a test's guests their turns: the host's callbacks, or trio's guest mode as it comes."""
    chosen: str = request.param
    monkeypatch.setenv("ARMILLARY_GUEST", chosen)
    return chosen
