"""Ctrl-C: with a guest, a program sees what it would see without one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
import trio

from armillary_compat import _tick
from armillary_compat.futures import call_asyncio, call_trio
from armillary_compat.guest import Guest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.usefixtures("driver")


@pytest.fixture(autouse=True)
def python_handler() -> Iterator[None]:
    """Python's own handler is in place before each test, and after it."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def is_main_thread_asleep() -> bool:
    state = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat").read_text().rpartition(")")[2]
    return state.split()[0] == "S"


def press_from_outside() -> None:
    """As the terminal does it: while the main thread sleeps in its selector."""

    def run() -> None:
        asleep = 0
        while asleep < 5:
            time.sleep(0.01)
            asleep = asleep + 1 if is_main_thread_asleep() else 0
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=run).start()


async def press_in_trio() -> None:
    press()


async def press_in_asyncio() -> None:
    press()


async def press_deep_inside() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_asyncio, call_trio, press_in_trio)


def press_idle(guest: Guest) -> None:
    press_from_outside()


def press_busy(guest: Guest) -> None:
    guest.start_soon(press_in_trio)


def press_nested(guest: Guest) -> None:
    guest.start_soon(press_deep_inside)


def press_in_callback(guest: Guest) -> None:
    asyncio.get_running_loop().call_soon(press)


ways = pytest.mark.parametrize("way", [press_idle, press_busy, press_nested, press_in_callback])


class Bystander:
    """A trio task that must come through it all."""

    def __init__(self) -> None:
        self.log = list[str]()

    async def run(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            self.log.append("cleaned up")


@ways
def test_runner(host: Host, way: Callable[[Guest], None]) -> None:
    """Under `asyncio.run`, Ctrl-C cancels the main task, whose cleanup can use the guest, then is raised."""
    bystander = Bystander()
    log = list[str]()

    async def main() -> None:
        guest = Guest.current()
        guest.start_soon(bystander.run)
        await call_trio(trio.sleep, 0)
        way(guest)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await call_trio(trio.sleep, 0.01)
            log.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        host.run(main)
    assert log == ["cancelled"]
    assert bystander.log == ["cleaned up"]
    assert not trio.lowlevel.in_trio_run()


@ways
def test_run_until_complete(host: Host, way: Callable[[Guest], None]) -> None:
    """Out of `run_until_complete`, Ctrl-C is raised at once; no task is harmed, the loop can be run on."""
    bystander = Bystander()
    loop = host.new_event_loop()
    goes_on = trio.Event()

    async def main() -> str:
        guest = Guest.current()
        guest.start_soon(bystander.run)
        await call_trio(trio.sleep, 0)
        way(guest)
        await call_trio(goes_on.wait)
        return "came to its end"

    main_task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main_task)
    assert not main_task.done()
    assert bystander.log == []
    loop.call_soon(goes_on.set)
    assert loop.run_until_complete(main_task) == "came to its end"
    assert bystander.log == []
    loop.close()
    assert bystander.log == ["cleaned up"]
    assert not trio.lowlevel.in_trio_run()


@pytest.mark.parametrize("runner", ["Runner", "run_until_complete"])
def test_an_endless_turn(host: Host, runner: str) -> None:
    """A second Ctrl-C gets through to a trio task that never lets go, and then out of the loop."""

    async def endless() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            press()
        raise AssertionError("nobody interrupted this")

    tasks = []

    async def main() -> None:
        await call_trio(trio.sleep, 0)
        tasks.append(Guest.current().start_soon(endless))
        await asyncio.sleep(60)

    if runner == "Runner":
        # uvloop lets the main task end after that, and then its stop gets in the way of the runner's cleanup.
        # It does so without a guest, too, with any task whose cleanup takes a while.
        expected = (KeyboardInterrupt, RuntimeError) if host.name == "uvloop" else KeyboardInterrupt
        with pytest.raises(expected):
            host.run(main)
    else:
        loop = host.new_event_loop()
        main_task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main_task)
        assert loop.run_until_complete(call_trio(trio.sleep, 0)) is None
        main_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(main_task)
        loop.close()
    with pytest.raises(KeyboardInterrupt):
        tasks[0].future.result()
    assert not trio.lowlevel.in_trio_run()


def test_not_in_trios_own_code(host: Host) -> None:
    """However often Ctrl-C is pressed while trio's own code runs, it is raised after that."""
    loop = host.new_event_loop()

    class PressALot(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            trio.lowlevel.remove_instrument(self)
            for _ in range(5):
                press()

    async def main() -> int:
        await call_trio(trio.sleep, 0)
        with Guest.current().hold():
            trio.lowlevel.add_instrument(PressALot())
            await call_trio(trio.sleep, 0)
            await asyncio.sleep(0)
            return 5

    main_task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main_task)
    assert loop.run_until_complete(main_task) == 5
    loop.close()


def test_at_the_edge_of_a_turn(host: Host, driver: str) -> None:
    """Ctrl-C between the loop's taking a queued turn and the turn's beginning does not stop the guest."""
    loop = host.new_event_loop()
    entry = (_tick.HostDriver if driver == "hosted" else _tick.StockDriver)._take_turn.__code__

    def press_at_entry(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is entry:
            sys.setprofile(None)
            press()

    async def main() -> int:
        await call_trio(trio.sleep, 0)
        task = Guest.current().start_soon(trio.sleep, 0.01)
        sys.setprofile(press_at_entry)
        await task.wait()
        return 6

    main_task = loop.create_task(main())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main_task)
    finally:
        sys.setprofile(None)
    assert loop.run_until_complete(asyncio.wait_for(main_task, 10)) == 6
    loop.close()


def test_a_keyboard_interrupt_of_a_task(host: Host) -> None:
    """A KeyboardInterrupt that a task raises itself ends the program, as in an asyncio task."""
    loop = host.new_event_loop()

    async def interrupt() -> None:
        raise KeyboardInterrupt("from the task")

    async def main() -> None:
        task = Guest.current().start_soon(interrupt)
        await asyncio.wait([task.future])
        assert isinstance(task.future.exception(), KeyboardInterrupt)

    main_task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt, match="from the task"):
        loop.run_until_complete(main_task)
    loop.run_until_complete(main_task)
    loop.close()


def test_a_foreign_handler(host: Host) -> None:
    """A program's own handler of SIGINT is left in its place."""
    seen = list[int]()

    def handler(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    signal.signal(signal.SIGINT, handler)
    try:
        loop = host.new_event_loop()

        async def main() -> None:
            await call_trio(press_in_trio)
            assert signal.getsignal(signal.SIGINT) is handler

        loop.run_until_complete(main())
        loop.close()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.SIGINT]


def test_a_handler_set_meanwhile(host: Host) -> None:
    """A handler that the program sets while the guest runs stays when the guest ends."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise AssertionError("not called")

    loop = host.new_event_loop()

    async def main() -> None:
        await call_trio(trio.sleep, 0)
        signal.signal(signal.SIGINT, handler)

    loop.run_until_complete(main())
    loop.close()
    assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_two_loops_share_the_handler(host: Host) -> None:
    """With guests of several loops in the main thread, the last to end gives Python its handler back."""
    loops = [host.new_event_loop() for _ in range(2)]

    async def main() -> None:
        Guest.current().start_soon(trio.sleep_forever)
        await asyncio.sleep(0)

    async def pressed() -> None:
        Guest.current().start_soon(press_in_trio)
        await asyncio.sleep(60)

    for loop in loops:
        loop.run_until_complete(main())
    loops[0].close()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    pressed_task = loops[1].create_task(pressed())
    with pytest.raises(KeyboardInterrupt):
        loops[1].run_until_complete(pressed_task)
    pressed_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loops[1].run_until_complete(pressed_task)
    loops[1].close()


def test_other_threads(host: Host) -> None:
    """A guest in another thread than the main one leaves the handler alone."""
    handlers = list[Any]()

    async def main() -> None:
        await call_trio(trio.sleep, 0)
        handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=host.run, args=[main])
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_a_stop_that_is_left_behind(host: Host) -> None:
    """A stop that is still queued when the loop is closed does not keep the guest from being finished."""
    bystander = Bystander()
    loop = host.new_event_loop()

    async def main() -> None:
        Guest.current().start_soon(bystander.run)
        await call_trio(trio.sleep, 0)

    loop.run_until_complete(main())
    loop.call_soon(loop.stop)
    loop.close()
    assert bystander.log == ["cleaned up"]
    assert loop.is_closed()
