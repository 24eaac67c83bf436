"""What the driver without a thread needs of trio's private parts, and what happens if a trio lacks it."""

from __future__ import annotations

import ast
import asyncio
import logging
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import armillary_compat
from armillary_compat import _rehearsal, _tick, _trio_internals
from armillary_compat._tick import HostDriver, StockDriver, driver_for
from armillary_compat.futures import call_trio


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was found out about this trio is found out again."""
    monkeypatch.delenv("ARMILLARY_GUEST", raising=False)
    caches = (_trio_internals.missing_names, _tick.why_not_hosted)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def drivers_of_a_program() -> set[str]:
    """The drivers that a program's guest gets."""
    drivers: set[str] = set()

    async def main() -> None:
        await call_trio(trio.sleep, 0)
        drivers.add(type(driver_for(asyncio.get_running_loop())).__name__)

    asyncio.run(main())
    return drivers


@pytest.mark.usefixtures("fresh")
def test_this_trio_has_them_all() -> None:
    """This trio has every private name that the driver without a thread uses."""
    missing = _trio_internals.missing_names()
    assert not missing, (
        f"trio {trio.__version__} no longer has {', '.join(missing)}. Until _trio_internals.py is adapted,"
        " guests run with a helper thread, correctly but several times slower"
    )


@pytest.mark.usefixtures("fresh")
def test_this_trio_behaves() -> None:
    """This trio does what the driver without a thread expects of those names."""
    assert _tick.why_not_hosted() is None
    loop = asyncio.new_event_loop()
    assert isinstance(driver_for(loop), HostDriver)
    loop.close()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ({"_run": {"Runner": ("no_such_name", "reschedule")}}, "trio._core._run.Runner.no_such_name"),
        ({"_run": {"NoSuchClass": ("reschedule",)}}, "trio._core._run.NoSuchClass"),
        ({"_no_such_module": {"Class": ()}}, "trio._core._no_such_module"),
    ],
    ids=["attribute", "class", "module"],
)
def test_a_missing_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, names: Any, missing: str
) -> None:
    """A trio without one of the names gets the stock driver, and the log says once which name it was."""
    monkeypatch.setattr(_trio_internals, "NAMES", names)
    with caplog.at_level(logging.WARNING):
        assert [drivers_of_a_program() for _ in range(3)] == [{"StockDriver"}] * 3
    assert _trio_internals.missing_names() == (missing,)
    assert [record.getMessage() for record in caplog.records] == [
        f"trio {trio.__version__} runs in asyncio loops with a helper thread, since it has no {missing}"
    ]


@pytest.mark.usefixtures("fresh")
def test_a_system_without_epoll(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A system without epoll gets the stock driver, and nothing is logged of what nobody can change."""
    with monkeypatch.context() as patch:
        patch.delattr(select, "epoll")
        assert _tick.why_not_hosted() == "this system has no epoll"
    assert drivers_of_a_program() == {"StockDriver"}
    assert caplog.records == []


def no_longer(*args: Any) -> None:
    """What a new trio's function of the same name might do for us."""


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("owner", "name", "replacement", "problem"),
    [
        (_trio_internals._HostedWakeup, "wakeup_thread_and_signal_safe", no_longer, "nothing was called"),
        (_trio_internals._HostedIO, "_watch", no_longer, "nothing was watched"),
        (_trio_internals.Scheduler, "events", lambda self: (), "did not end"),
        (_rehearsal._Stage, "turn_soon", no_longer, "no turn was asked for"),
        (_rehearsal._Stage, "unwatch", no_longer, "still watched"),
        (_trio_internals.Scheduler, "outcome", no_longer, "AttributeError"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_rehearsal_that_fails(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, replacement: Any, problem: str
) -> None:
    """A trio that has the names, but does something else, gets the stock driver too."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, replacement)
        reason = _tick.why_not_hosted()
    assert reason is not None
    assert problem in reason
    assert drivers_of_a_program() == {"StockDriver"}


@pytest.mark.usefixtures("fresh")
def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable ARMILLARY_GUEST chooses the stock driver."""
    loop = asyncio.new_event_loop()
    monkeypatch.setenv("ARMILLARY_GUEST", "stock")
    assert isinstance(driver_for(loop), StockDriver)
    monkeypatch.setenv("ARMILLARY_GUEST", "")
    assert isinstance(driver_for(loop), HostDriver)
    loop.close()


def test_what_is_not_a_first_turn() -> None:
    """Anything but trio's first turn is refused."""
    for function in (print, lambda: None, [].append):
        with pytest.raises(LookupError, match="expected trio's first turn"):
            _trio_internals.Scheduler(function, _rehearsal._Stage())


def test_all_in_one_module() -> None:
    """No other module of the bridge imports from trio's private parts, or uses one of the private names."""
    directory = Path(armillary_compat.__file__).parent
    private = {
        name
        for owners in _trio_internals.NAMES.values()
        for owner, names in owners.items()
        for name in (owner, *names)
        if name
        not in ("clock", "close", "drain", "statistics", "wait_readable", "wait_writable", "reschedule")
    }
    assert {"GuestState", "guest_tick_scheduled", "_epoll", "GLOBAL_RUN_CONTEXT"} <= private
    found = []
    for path in sorted(directory.glob("*.py")):
        if path.name == "_trio_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", None)
            module = getattr(node, "module", None)
            if used in private or (isinstance(module, str) and module.startswith("trio._")):
                found.append(f"{path.name}:{node.lineno} {used or module}")  # type: ignore[attr-defined]
    assert found == []
