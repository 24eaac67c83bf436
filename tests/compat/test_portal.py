"""The portal: one trio thread for all synchronous callers of a process."""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager

import anyio
import pytest
import trio

from armillary_compat import portal
from armillary_compat.portal import Lease, hold_portal


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "armillary portal"]


@pytest.fixture(autouse=True)
def no_portal() -> Iterator[None]:
    """There is none before a test, and none after it."""
    assert portal_threads() == []
    yield
    assert portal_threads() == []


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * number


async def whereabouts() -> int:
    return threading.get_ident()


class Endless:
    """A trio function that waits to be cancelled, and tells of it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def run(self) -> None:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


# -- leases -----------------------------------------------------------------------------------------------


def test_one_thread() -> None:
    """There is one thread in a process, however many leases; it ends with the last, and may start again."""
    for _ in range(2):
        leases = [hold_portal() for _ in range(50)]
        assert len({lease.call(whereabouts) for lease in leases}) == 1
        assert len(portal_threads()) == 1
        for lease in leases[:-1]:
            lease.release()
            lease.release()
        assert leases[-1].call(double, 4) == 8
        leases[-1].release()
        assert portal_threads() == []


def test_a_lease_is_a_block() -> None:
    """A lease is a block, too; once released it can only say so."""
    with hold_portal() as lease:
        assert lease.call(double, 1) == 2
    for attempt in (lambda: lease.call(double, 1), lambda: lease.post(print), lambda: lease.portal):
        with pytest.raises(RuntimeError, match="this one was released"):
            attempt()


def test_nothing_is_left() -> None:
    """A hundred portals one after another leave no thread and no descriptor."""
    with hold_portal():
        pass
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        with hold_portal() as lease:
            assert lease.call(double, number) == 2 * number
    gc.collect()
    # Fewer when something of an earlier test has ended only now.
    assert len(os.listdir("/proc/self/fd")) <= before


def test_many_threads() -> None:
    """Threads that take leases, call and release them, all at once, share one portal."""
    together = threading.Barrier(16)
    found = list[int]()

    def run(number: int) -> None:
        together.wait()
        for _ in range(20):
            with hold_portal() as lease:
                assert len(portal_threads()) == 1
                found.append(lease.call(double, number))

    threads = [threading.Thread(target=run, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([2 * number for number in range(16)] * 20)


def test_a_portal_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A portal that cannot start says why, and the next attempt is a new one."""

    def run(*args: object, **kwargs: object) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(anyio, "run", run)
        with pytest.raises(OSError, match="too many"):
            hold_portal()
    with hold_portal() as lease:
        assert lease.call(double, 2) == 4


# -- calls ------------------------------------------------------------------------------------------------


def test_posts() -> None:
    """Posted functions are called in the portal's thread, in their order; one that raises is logged."""
    called = list[tuple[int, int]]()
    done: Future[None] = Future()
    with hold_portal() as lease:
        for number in range(100):
            lease.post(lambda number=number: called.append((number, threading.get_ident())))  # type: ignore[misc]
        lease.post(done.set_result, None)
        done.result(30)
        assert called == [(number, lease.call(whereabouts)) for number in range(100)]


def test_a_post_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A posted function that raises is logged, and harms nobody."""

    def fail() -> None:
        raise KeyError("x")

    with hold_portal() as lease, caplog.at_level(logging.ERROR):
        lease.post(fail)
        assert lease.call(double, 3) == 6
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


def test_calls() -> None:
    """A call has the function's result or exception, and runs with the caller's context variables."""
    variable = contextvars.ContextVar("variable", default="default")
    error = ExceptionGroup("x", [KeyError("y")])

    async def read() -> str:
        found = variable.get()
        variable.set("changed")
        return found

    async def fail() -> None:
        raise error

    with hold_portal() as lease:
        variable.set("the caller's")
        assert lease.call(read) == "the caller's"
        assert variable.get() == "the caller's"
        with pytest.raises(ExceptionGroup) as caught:
            lease.call(fail)
        assert caught.value is error
        assert lease.call(double, 7) == 14


def test_what_is_started_is_not_waited_for() -> None:
    """A function is started with its caller's context, and its future has the result or the exception."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def look() -> str:
        await trio.lowlevel.checkpoint()
        return variable.get()

    async def fail() -> None:
        raise KeyError("x")

    endless = Endless()
    with hold_portal() as lease:
        variable.set("the caller's")
        assert lease.start(look).result(10) == "the caller's"
        assert isinstance(lease.start(fail).exception(10), KeyError)
        ending = lease.start(endless.run)
        assert endless.begun.wait(10)
        assert not ending.cancel()
        assert not endless.cancelled.is_set()
    with pytest.raises(CancelledError):
        ending.result(10)
    with pytest.raises(RuntimeError, match="released"):
        lease.start(look)


def test_while_the_portal_is_idle() -> None:
    """A function is called in the caller's thread while the portal's stands still, unless that is busy."""
    with hold_portal() as lease:
        called: list[int] = []
        deadline = time.monotonic() + 10
        while not lease.call_while_idle(lambda: called.append(threading.get_ident())):
            assert time.monotonic() < deadline
        assert called == [threading.get_ident()]
        begun, go_on = threading.Event(), threading.Event()
        lease.post(lambda: (begun.set(), go_on.wait(10)))
        assert begun.wait(10)
        assert not lease.call_while_idle(called.clear)
        go_on.set()

        def fail() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            while not lease.call_while_idle(fail):
                assert time.monotonic() < deadline

        def post_and_look() -> None:
            lease.post(called.clear)
            time.sleep(0.1)  # the portal is awake, and has to wait
            called.append(1)

        while not lease.call_while_idle(post_and_look):
            assert time.monotonic() < deadline
        lease.call(trio.lowlevel.checkpoint)
        assert called == []
    with pytest.raises(RuntimeError, match="released"):
        lease.call_while_idle(called.clear)


def test_ctrl_c_in_the_wrong_moment_costs_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that has taken the idle thread's lock and does not give it back does not stop the portal."""
    monkeypatch.setattr(portal, "_LOST", 0.1)
    with hold_portal() as lease:
        idle = portal._process._thread.idle  # type: ignore[union-attr]
        assert idle.acquire(timeout=10)
        assert lease.call(double, 2) == 4
        deadline = time.monotonic() + 10
        while not lease.call_while_idle(lambda: None):
            assert time.monotonic() < deadline


def test_anyios_portal() -> None:
    """The portal of anyio is there, with what it can do."""

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        yield "in trio"
        await trio.lowlevel.checkpoint()

    with hold_portal() as lease:
        with lease.portal.wrap_async_context_manager(manager()) as value:
            assert value == "in trio"


def test_from_its_own_thread() -> None:
    """A call from the portal's own thread would wait for itself, and is an error."""

    async def call_inside() -> str:
        with pytest.raises(RuntimeError, match="outside of the portal's thread") as caught:
            lease.call(double, 1)
        return str(caught.value)

    with hold_portal() as lease:
        assert "wait for itself" in lease.call(call_inside)


def test_ctrl_c() -> None:
    """Ctrl-C ends a call at once and cancels what it called; the portal goes on."""
    endless = Endless()

    def press() -> None:
        endless.begun.wait()
        time.sleep(0.02)  # until the main thread waits again
        os.kill(os.getpid(), signal.SIGINT)

    with hold_portal() as lease:
        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lease.call(endless.run)
        assert endless.cancelled.wait(30)
        thread.join()
        assert lease.call(double, 5) == 10


def test_released_during_a_call() -> None:
    """The end of the last lease cancels what still runs, and whoever waits for it is told."""
    endless = Endless()
    lease = hold_portal()
    caught = list[type[BaseException]]()

    def call() -> None:
        try:
            lease.call(endless.run)
        except BaseException as error:
            caught.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    endless.begun.wait()
    lease.release()
    thread.join(30)
    assert endless.cancelled.is_set()
    assert caught == [CancelledError]


def test_leases_inside() -> None:
    """A task of the portal can take leases and release the last one; while the portal ends, it takes none."""
    problems = list[str]()
    ended = threading.Event()

    async def run() -> None:
        inside = hold_portal()
        lease.release()
        try:
            inside.release()
            await trio.sleep_forever()
        finally:
            try:
                hold_portal()
            except RuntimeError as error:
                problems.append(str(error))
            ended.set()

    lease = hold_portal()
    [thread] = portal_threads()
    with pytest.raises(CancelledError):
        lease.call(run)
    thread.join()
    assert ended.is_set()
    assert problems == ["expected the portal to be running; this is its thread, and it is ending"]


def test_impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleanup that does not end holds up the end of the last lease only for a while."""
    monkeypatch.setattr(portal, "_PATIENCE", 0.01)
    begun, let_go = threading.Event(), threading.Event()

    async def stubborn() -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(let_go.wait)

    lease = hold_portal()
    lease.post(spawn, lease, stubborn)
    begun.wait()
    [thread] = portal_threads()
    lease.release()
    assert thread.is_alive()
    let_go.set()
    thread.join()


def spawn(lease: Lease, async_fn: object) -> None:
    assert lease._thread is not None
    lease._thread.nursery.start_soon(async_fn)  # type: ignore[arg-type]


# -- processes --------------------------------------------------------------------------------------------


def run_program(code: str) -> tuple[int, str, str]:
    """The exit status, the output and the complaints of a program."""
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


FORK = """
import os, trio
from armillary_compat.portal import hold_portal

async def double(number):
    await trio.lowlevel.checkpoint()
    return 2 * number

lease = hold_portal()
print(lease.call(double, 1), flush=True)
child = os.fork()
if not child:
    for attempt in (lambda: lease.call(double, 2), lambda: lease.post(print)):
        try:
            attempt()
        except RuntimeError as error:
            print(error)
    lease.release()
    with hold_portal() as fresh:
        print(fresh.call(double, 3), fresh.call(trio.to_thread.run_sync, lambda: 7))
    raise SystemExit(5)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), lease.call(double, 4))
lease.release()
"""


def test_fork() -> None:
    """In a forked child a lease from before says what is wrong, and a new one works; the parent's goes on."""
    status, output, complaints = run_program(FORK)
    assert (status, complaints) == (0, "")
    expected = (
        "expected a lease of the portal that was taken in this process; this one was taken before the fork"
    )
    lines = output.splitlines()
    assert lines[0] == "2"
    assert [line[: len(expected)] for line in lines[1:3]] == [expected] * 2
    assert lines[3:] == ["6 7", "5 8"]


EXIT = """
import sys, trio
from armillary_compat import portal

async def serve(clean_up):
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await clean_up()
            print("cleaned up", flush=True)

async def start(clean_up):
    lease._thread.nursery.start_soon(serve, clean_up)
    await trio.testing.wait_all_tasks_blocked()

async def quickly():
    await trio.sleep(0.05)

lease = portal.hold_portal()
import trio.testing
"""


def test_exit() -> None:
    """A program that ends without releasing anything ends, in silence, when the portal has cleaned up."""
    assert run_program(EXIT + "lease.call(start, quickly)") == (0, "cleaned up\n", "")


def test_exit_with_an_exception() -> None:
    """A program that an exception ends, even Ctrl-C, has the portal clean up, too."""
    status, output, complaints = run_program(EXIT + "lease.call(start, quickly); raise KeyboardInterrupt")
    assert status != 0
    assert output == "cleaned up\n"
    assert complaints.splitlines()[-1] == "KeyboardInterrupt"
    assert complaints.count("Traceback") == 1


def test_exit_in_spite_of_a_cleanup() -> None:
    """A cleanup that does not end holds up the exit only for a while, and in silence."""
    program = EXIT + "portal._PATIENCE = 0.1\nlease.call(start, trio.sleep_forever)"
    assert run_program(program) == (0, "", "")


def test_ctrl_c_during_the_exit() -> None:
    """Ctrl-C during the wait at exit ends that wait, in silence."""
    program = (
        EXIT
        + """
import os, signal, threading
async def press():
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    await trio.sleep_forever()
portal._PATIENCE = 50
lease.call(start, press)
"""
    )
    assert run_program(program) == (0, "", "")


def test_ctrl_c_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the portal starts leaves no thread behind."""
    pressed = threading.Event()

    class Pressed(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            pressed.set()
            raise KeyboardInterrupt

        def set_result(self, result: None) -> None:
            pressed.wait()
            super().set_result(result)

    with monkeypatch.context() as patch:
        patch.setattr(portal, "Future", Pressed)
        with pytest.raises(KeyboardInterrupt):
            hold_portal()
    for thread in portal_threads():
        thread.join(30)
    with hold_portal() as lease:
        assert lease.call(double, 8) == 16
