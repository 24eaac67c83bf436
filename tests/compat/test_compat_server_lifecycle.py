"""The life of a `DeviceServer`: start, stop, halt, join, service tasks, and how many requests it takes on."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import subprocess
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import pytest
from raw_client import PATIENCE, run, served, turns, until

import aiokatcp
from aiokatcp import DeviceServer, RequestContext, Sensor

if TYPE_CHECKING:
    from conftest import Host

DISCONNECT = b"#disconnect server\\_shutting\\_down\n"
CANCELLED = b"fail request\\_cancelled\n"


class Rig(DeviceServer):
    """Writes down what happens to it."""

    VERSION = "rig-1.0"
    BUILD_STATE = "rig-1.0.3"

    def __init__(self, port: int = 0, **options: Any) -> None:
        super().__init__("127.0.0.1", port, **options)
        self.told: list[Any] = []
        self.failure: Exception | None = None
        self.go_on = asyncio.Event()

    async def request_wait(self, ctx: RequestContext) -> None:
        """Wait until told to go on."""
        number = ctx.req.mid
        self.told.append(f"wait {number}")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.told.append(f"cancelled {number}")
            raise
        self.told.append(f"went on {number}")

    async def request_echo(self, ctx: RequestContext, *arguments: bytes) -> tuple[bytes, ...]:
        """Reply with the arguments."""
        return arguments

    async def request_stop(self, ctx: RequestContext, cancel: bool = True) -> None:
        """Stop the server, and wait for it."""
        await self.stop(cancel)

    async def on_stop(self) -> None:
        self.told.append("on_stop")
        if self.failure is not None:
            raise self.failure


async def error_of(awaitable: Awaitable[Any]) -> Exception | None:
    """What it raises."""
    try:
        await awaitable
    except Exception as error:
        return error
    return None


async def is_blocked(awaitable: Awaitable[Any]) -> bool:
    """Whether it is still not done after some turns of the loop."""
    task = asyncio.ensure_future(awaitable)
    await turns(20)
    blocked = not task.done()
    task.cancel()
    await asyncio.wait([task])
    return blocked


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server has warned of."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("aiokatcp") and record.levelno >= logging.WARNING
    ]


# -- starting -----------------------------------------------------------------------------------------------


def test_sockets(host: Host) -> None:
    """``sockets == ()`` without a start; constructing does not need anything listening."""

    async def main() -> None:
        server = Rig()
        assert server.sockets == ()
        assert server.server is None
        assert server.service_tasks == ()
        await server.start()
        (listening,) = server.sockets
        assert listening.getsockname()[0] == "127.0.0.1"
        assert server.server is not None
        await server.stop()
        assert server.sockets == ()
        assert server.server is None

    run(host, main)


def test_starting_twice(host: Host) -> None:
    """A running server cannot be started, and runs on."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            with pytest.raises(RuntimeError, match=r"^Server is already running$"):
                await server.start()
            client = await clients.dial()
            assert await client.ask(b"?watchdog\n") == [b"!watchdog ok\n"]

    run(host, main)


def test_a_port_that_is_taken(host: Host) -> None:
    """A start that fails leaves nothing, and may be tried again."""

    async def main() -> None:
        first = Rig()
        await first.start()
        port = first.sockets[0].getsockname()[1]
        second = Rig(port)
        for _ in range(2):
            error = await error_of(second.start())
            assert isinstance(error, OSError)
            assert error.errno == errno.EADDRINUSE
            assert second.sockets == ()
            assert second.server is None
            assert await is_blocked(second.join())
        await first.stop()
        async with served(second) as clients:
            await clients.dial()
        assert second.told == ["on_stop"]

    run(host, main)


def test_a_failed_start_leaves_nothing(host: Host) -> None:
    """Neither tasks nor sockets: the loop can end at once."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            assert isinstance(await error_of(Rig(taken.getsockname()[1]).start()), OSError)

    run(host, main)


def test_a_start_that_is_cancelled(host: Host) -> None:
    """Whenever it is cancelled, it leaves nothing, and may be tried again."""

    async def main() -> None:
        server = Rig()
        for count in range(10):
            task = asyncio.create_task(server.start())
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await server.stop()
            assert server.sockets == ()
        async with served(server) as clients:
            await clients.dial()

    run(host, main)


def test_a_server_of_another_loop(host: Host) -> None:
    """It cannot be started, and says so."""
    other = asyncio.new_event_loop()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="the loop that the server was made for"):
            await Rig(loop=other).start()

    run(host, main)
    other.close()


def test_a_server_made_before_its_loop_runs(host: Host) -> None:
    """With ``loop=``, a server can be made outside of the loop."""
    loop = host.new_event_loop()
    server = Rig(loop=loop)
    assert server.loop is loop

    async def main() -> None:
        async with served(server) as clients:
            client = await clients.dial()
            assert await client.ask(b"?echo a\n") == [b"!echo ok a\n"]

    loop.run_until_complete(main())
    loop.close()


def test_starting_again(host: Host) -> None:
    """A server can be started again and again, with its sensors, and with none of its subscriptions."""

    async def main() -> None:
        server = Rig()
        server.sensors.add(Sensor(int, "counter"))
        for count in range(3):
            async with served(server) as clients:
                client = await clients.dial()
                assert await client.ask(b"?sensor-sampling counter\n") == [
                    b"!sensor-sampling ok counter none\n"
                ]
                await client.ask(b"?sensor-sampling counter event\n")
                assert server.told == ["on_stop"] * count
        assert await error_of(server.join()) is None

    run(host, main)


def test_starting_while_it_stops(host: Host) -> None:
    """Starting waits for the end of the stop."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            server.halt(cancel=False)
            await turns()
            starting = asyncio.create_task(server.start())
            await turns()
            assert not starting.done()
            server.go_on.set()
            assert await client.rest() == [b"!wait[1] ok\n", DISCONNECT]
            await starting
            assert len(server.sockets) == 1

    run(host, main)


def test_stopping_while_it_starts(host: Host) -> None:
    """The start is finished first; then the server stops."""

    async def main() -> None:
        server = Rig()
        starting = asyncio.create_task(server.start())
        await asyncio.sleep(0)
        await server.stop()
        await starting
        assert server.sockets == ()
        assert server.told == ["on_stop"]
        await server.join()

    run(host, main)


# -- stopping -----------------------------------------------------------------------------------------------


def test_halt_by_a_client(host: Host) -> None:
    """``!halt[2] ok``, then the running request is cancelled, then ``#disconnect``, then EOF."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            joined = asyncio.create_task(server.join())
            client.send(b"?wait[1]\n?halt[2]\n")
            assert await client.rest() == [b"!halt[2] ok\n", b"!wait[1] " + CANCELLED, DISCONNECT]
            assert await other.rest() == [DISCONNECT]
            await joined
            assert server.told == ["wait 1", "cancelled 1", "on_stop"]

    run(host, main)


def test_stop_without_cancelling(host: Host) -> None:
    """A running request may finish and reply before ``#disconnect``; requests that arrive meanwhile get no
    reply at all.
    """

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            stopping = asyncio.create_task(server.stop(cancel=False))
            await turns()
            client.send(b"?echo[2]\n?watchdog[3]\nrubbish\n?wait[4]\n?halt[5]\n")
            other.send(b"?watchdog[6]\n?echo[7]\n")
            await asyncio.sleep(0.05)
            assert not stopping.done()
            assert server.told == ["wait 1"]
            server.go_on.set()
            assert await client.rest() == [b"!wait[1] ok\n", DISCONNECT]
            assert await other.rest() == [DISCONNECT]
            await stopping
            assert server.told == ["wait 1", "went on 1", "on_stop"]

    run(host, main)


@pytest.mark.parametrize("cancel", [True, False])
def test_the_last_words_of_requests(host: Host, cancel: bool) -> None:
    """What a request says at its end, to its client and to all, reaches them before ``#disconnect``."""

    class Parting(Rig):
        async def request_part(self, ctx: RequestContext) -> None:
            """Say something in the end."""
            try:
                await self.go_on.wait()
            finally:
                await asyncio.sleep(0.02)
                ctx.inform("last")
                self.mass_inform("farewell")

    async def main() -> None:
        server = Parting()
        async with served(server) as clients:
            client, idle = await clients.dial_pair()
            client.send(b"?part[1]\n")
            await idle.unasked()
            stopping = server.halt(cancel)
            if not cancel:
                server.go_on.set()
            reply = b"!part[1] " + (CANCELLED if cancel else b"ok\n")
            assert await client.rest() == [b"#part[1] last\n", b"#farewell\n", reply, DISCONNECT]
            assert await idle.rest() == [b"#farewell\n", DISCONNECT]
            await stopping

    run(host, main)


def test_new_clients_are_refused(host: Host) -> None:
    """From the beginning of the stop on, nobody can connect."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            stopping = server.halt(cancel=False)
            await turns()
            with pytest.raises(ConnectionRefusedError):
                await clients.dial()
            server.go_on.set()
            await stopping

    run(host, main)


def test_halt_returns_the_task_that_stops(host: Host) -> None:
    """An asyncio task; the same one as long as the server is stopping."""

    async def main() -> None:
        server = Rig()
        await server.start()
        task = server.halt()
        assert isinstance(task, asyncio.Task)
        assert server.halt() is task
        await asyncio.gather(server.stop(), server.stop(cancel=False), task, server.join())
        assert server.told == ["on_stop"]

    run(host, main)


def test_stopping_harder(host: Host) -> None:
    """A stop that lets requests finish becomes one that cancels them when somebody asks for it."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            patient = asyncio.create_task(server.stop(cancel=False))
            await turns()
            await server.stop()
            assert await client.rest() == [b"!wait[1] " + CANCELLED, DISCONNECT]
            await patient
            assert server.told == ["wait 1", "cancelled 1", "on_stop"]

    run(host, main)


def test_stopping_a_server_that_is_not_running(host: Host) -> None:
    """It is harmless, before the first start and after a stop, and concerns no service tasks."""

    async def main() -> None:
        server = Rig()
        assert await is_blocked(server.join())
        service = asyncio.create_task(asyncio.sleep(PATIENCE))
        server.add_service_task(service)
        await server.stop()
        await server.halt()
        await server.join()
        assert server.service_tasks == (service,)
        await server.start()
        assert await is_blocked(server.join())
        await server.stop()
        assert service.cancelled()
        await server.stop()
        await server.join()
        assert server.told == ["on_stop"]

    run(host, main)


def test_a_stop_that_is_cancelled(host: Host) -> None:
    """Who waits may give up: the server goes on stopping."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.stop(cancel=False), 0.01)
            assert await is_blocked(server.join())
            server.go_on.set()
            await server.join()
            assert await client.rest() == [b"!wait[1] ok\n", DISCONNECT]
            assert server.told == ["wait 1", "went on 1", "on_stop"]

    run(host, main)


def test_a_request_that_stops_the_server(host: Host) -> None:
    """A handler that awaits stop() is itself cancelled by it."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?stop[1]\n")
            assert await client.rest() == [b"!stop[1] " + CANCELLED, DISCONNECT]
            await server.join()
            assert server.told == ["on_stop"]

    run(host, main)


def test_a_request_that_waits_for_itself(host: Host) -> None:
    """A handler that awaits stop(cancel=False) waits for itself, until somebody stops harder."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?stop[1] 0\n")
            await asyncio.sleep(0.05)
            await server.stop()
            assert await client.rest() == [b"!stop[1] " + CANCELLED, DISCONNECT]

    run(host, main)


# -- what must not hold up a stop ----------------------------------------------------------------------------


class Generous(Rig):
    """Sends much."""

    async def request_reply_much(self, ctx: RequestContext) -> str:
        """Reply with ten megabytes."""
        self.told.append("replied")
        return "x" * 10**7

    async def request_inform_much(self, ctx: RequestContext) -> None:
        """Send ten megabytes, and wait until they have left."""
        ctx.inform("x" * 10**7)
        self.told.append("informed")
        await ctx.drain()

    async def request_list_much(self, ctx: RequestContext) -> None:
        """Have the server list its many sensors."""
        self.told.append("listed")
        await self.request_sensor_list(ctx)


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("request_", [b"?reply-much", b"?inform-much", b"?list-much", b"?sensor-list"])
def test_a_client_that_does_not_read(host: Host, request_: bytes, cancel: bool) -> None:
    """A client that does not read and has unsent data does not hang stop()."""

    async def main() -> None:
        server = Generous()
        for number in range(200):
            server.sensors.add(Sensor(int, f"many.{number:03}", "x" * 50_000))
        async with served(server) as clients:
            other = await clients.dial()
            deaf = clients.dial_deaf()
            deaf.send(request_ + b"\n")
            assert (await other.line()).startswith(b"#client-connected")
            await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                await server.stop(cancel)
            assert await other.rest() == [DISCONNECT]
            assert server.told[-1] == "on_stop"
            deaf.close()

    run(host, main)


@pytest.mark.parametrize("cancel", [True, False])
def test_parked_requests(host: Host, cancel: bool) -> None:
    """Requests parked beyond max_pending during stop are never started."""

    async def main() -> None:
        server = Rig(max_pending=2)
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            client.send(b"?wait[1]\n?wait[2]\n?wait[3]\n?wait[4]\n")
            await until(lambda: len(server.told) == 2)
            other.send(b"?wait[5]\n")
            await turns()
            stopping = server.halt(cancel)
            await turns()
            server.go_on.set()
            replies = [b"!wait[%d] " % number + (CANCELLED if cancel else b"ok\n") for number in (1, 2)]
            *told, last = await client.rest()
            assert sorted(told) == replies
            assert last == DISCONNECT
            assert await other.rest() == [DISCONNECT]
            await stopping
            await turns()
            assert len(server.told) == 5
            assert not {"wait 3", "wait 4", "wait 5"} & set(server.told)

    run(host, main)


def test_a_request_that_takes_its_time_to_be_cancelled(host: Host) -> None:
    """The stop waits for its cleanup, and its client gets what it has to say."""

    class Stubborn(Rig):
        async def request_resist(self, ctx: RequestContext) -> str:
            """Answer though cancelled."""
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
            return "anyway"

    async def main() -> None:
        server = Stubborn()
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?resist[1]\n?watchdog[2]\n")
            await client.line()
            await server.stop()
            assert await client.rest() == [b"!resist[1] ok anyway\n", DISCONNECT]

    run(host, main)


def test_a_request_of_a_client_that_has_gone(host: Host) -> None:
    """It is cancelled with the others, and the stop waits for it."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client, other = await clients.dial_pair()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            client.reset()
            await until(lambda: len(server._connections) == 1)
            await server.stop()
            assert server.told == ["wait 1", "cancelled 1", "on_stop"]
            assert await other.rest() == [DISCONNECT]

    run(host, main)


# -- on_stop -------------------------------------------------------------------------------------------------


def test_on_stop_comes_last_but_for_service_tasks(host: Host) -> None:
    """It is called when clients and requests are gone, before service tasks end, and before join()
    returns.
    """

    class Last(Rig):
        async def on_stop(self) -> None:
            assert self.sockets == ()
            assert not self._connections
            assert len(self.service_tasks) == 1
            assert not self.service_tasks[0].done()
            await asyncio.sleep(0.02)
            await super().on_stop()

    async def main() -> None:
        server = Last()
        service = asyncio.create_task(asyncio.sleep(PATIENCE))
        server.add_service_task(service)
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?wait[1]\n")
            await until(lambda: server.told)
            joined = asyncio.create_task(server.join())
            stopping = server.halt()
            assert await client.rest() == [b"!wait[1] " + CANCELLED, DISCONNECT]
            assert not joined.done()
            await stopping
            await joined
            assert server.told == ["wait 1", "cancelled 1", "on_stop"]
            assert service.cancelled()
            assert server.service_tasks == ()

    run(host, main)


def test_on_stop_raises(host: Host) -> None:
    """Its exception comes out of stop(), and out of join(), and service tasks end all the same."""

    async def main() -> None:
        server = Rig()
        server.failure = ZeroDivisionError("on purpose")
        service = asyncio.create_task(asyncio.sleep(PATIENCE))
        server.add_service_task(service)
        await server.start()
        joined = asyncio.create_task(server.join())
        assert await error_of(server.stop()) is server.failure
        assert await error_of(joined) is server.failure
        assert await error_of(server.join()) is server.failure
        assert service.cancelled()
        assert server.service_tasks == ()
        assert await error_of(server.stop()) is None
        assert server.told == ["on_stop"]
        server.failure = None
        async with served(server):
            assert await is_blocked(server.join())
        await server.join()
        assert server.told == ["on_stop", "on_stop"]

    run(host, main)


def test_on_stop_raises_after_a_halt(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Who joins is told; nobody else has to look at the task."""

    async def main() -> None:
        server = Rig()
        server.failure = ZeroDivisionError("on purpose")
        async with served(server) as clients:
            client = await clients.dial()
            client.send(b"?halt\n")
            assert await client.rest() == [b"!halt ok\n", DISCONNECT]
            assert await error_of(server.join()) is server.failure

    run(host, main)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_on_stop_may_halt(host: Host) -> None:
    """It is part of the stop already."""

    class Halting(Rig):
        async def on_stop(self) -> None:
            assert not self.halt().done()
            await super().on_stop()

    async def main() -> None:
        server = Halting()
        await server.start()
        await server.stop()
        assert server.told == ["on_stop"]

    run(host, main)


# -- service tasks -------------------------------------------------------------------------------------------


async def failing(after: float = 0.0) -> None:
    """A service that fails."""
    await asyncio.sleep(after)
    raise KeyError("out of service")


def test_service_tasks_end_with_the_server(host: Host) -> None:
    """They are cancelled and awaited; those that have ended by themselves are forgotten."""

    async def main() -> None:
        server = Rig()
        await server.start()
        cleaned_up = False

        async def serve() -> None:
            nonlocal cleaned_up
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                await asyncio.sleep(0.02)
                cleaned_up = True

        lasting, cancelled, finishing = (
            asyncio.create_task(coroutine) for coroutine in (serve(), serve(), asyncio.sleep(0))
        )
        for task in (lasting, cancelled, finishing):
            server.add_service_task(task)
        assert server.service_tasks == (lasting, cancelled, finishing)
        await turns()
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await turns()
        assert server.service_tasks == (lasting,)
        assert await is_blocked(server.join())
        cleaned_up = False
        await server.stop()
        assert cleaned_up
        assert lasting.cancelled()
        assert server.service_tasks == ()

    run(host, main)


def test_a_service_task_that_fails(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """The server halts, with a warning that has the traceback, and the exception comes out of join()."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            other = asyncio.create_task(asyncio.sleep(PATIENCE))
            server.add_service_task(other)
            server.add_service_task(asyncio.create_task(failing(), name="the service"))
            assert await client.rest() == [DISCONNECT]
            error = await error_of(server.join())
            assert isinstance(error, KeyError)
            assert other.cancelled()
            assert server.told == ["on_stop"]
            assert server.service_tasks == ()

    run(host, main)
    assert logged(caplog) == ["Halting the server because task 'the service' raised 'out of service'"]
    assert caplog.records[-1].exc_info is not None


def test_a_service_task_that_failed_before_it_was_added(host: Host) -> None:
    """It is never too late."""

    async def main() -> None:
        server = Rig()
        task = asyncio.create_task(failing())
        await asyncio.wait([task])
        await server.start()
        server.add_service_task(task)
        assert isinstance(await error_of(server.join()), KeyError)

    run(host, main)


def test_a_service_task_that_fails_before_the_start(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It still halts a server started afterwards, through join()."""

    async def main() -> None:
        server = Rig()
        server.add_service_task(asyncio.create_task(failing(), name="the service"))
        await turns()
        await server.start()
        assert isinstance(await error_of(server.join()), KeyError)
        assert server.told == ["on_stop"]
        async with served(server):
            assert await is_blocked(server.join())

    run(host, main)
    assert logged(caplog) == ["Halting the server because task 'the service' raised 'out of service'"]


def test_a_service_task_that_fails_in_the_end(host: Host) -> None:
    """What it raises while it is being cancelled comes out of stop() and join()."""

    async def fail_at_last() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            raise KeyError("at last")

    async def main() -> None:
        server = Rig()
        await server.start()
        server.add_service_task(asyncio.create_task(fail_at_last()))
        await turns()
        error = await error_of(server.stop())
        assert isinstance(error, KeyError)
        assert await error_of(server.join()) is error

    run(host, main)


def test_the_first_failure_counts(host: Host) -> None:
    """If on_stop and a service task both fail, the first is raised and the other is in the log."""

    async def main() -> None:
        server = Rig()
        server.failure = ZeroDivisionError("on purpose")
        await server.start()
        server.add_service_task(asyncio.create_task(failing()))
        await turns()
        assert await error_of(server.join()) is server.failure

    run(host, main)


def test_a_service_task_that_stops_the_server(host: Host) -> None:
    """It may await stop(), and is cancelled by it."""

    async def main() -> None:
        server = Rig()
        async with served(server) as clients:
            client = await clients.dial()
            service = asyncio.create_task(server.stop())
            server.add_service_task(service)
            assert await client.rest() == [DISCONNECT]
            await server.join()
            assert service.cancelled()
            assert server.told == ["on_stop"]

    run(host, main)


# -- how much is taken on ------------------------------------------------------------------------------------


def test_max_pending(host: Host) -> None:
    """With max_pending=3, of four requests in one packet three start, and the fourth starts the moment one
    ends; the limit spans connections, a connection made while full is greeted normally, and all are readable
    again afterwards.
    """

    class Sleeping(Rig):
        async def request_sleep(self, ctx: RequestContext, seconds: float) -> None:
            """Sleep."""
            began = self.loop.time()
            self.told.append(("begin", ctx.req.mid, began))
            await asyncio.sleep(seconds)
            self.told.append(("end", ctx.req.mid, self.loop.time()))

    async def main() -> None:
        server = Sleeping(max_pending=3)
        async with served(server) as clients:
            first, second = await clients.dial_pair()
            first.send(b"?sleep[1] 0.1\n?sleep[2] 0.2\n?sleep[3] 0.3\n?sleep[4] 0.15\n")
            await until(lambda: len(server.told) == 3)
            second.send(b"?sleep[5] 0\n")
            third = await clients.dial()
            assert await third.ask(b"?watchdog\n") == [b"!watchdog ok\n"]
            third.send(b"?sleep[6] 0\n")
            assert [told[:2] for told in server.told] == [("begin", 1), ("begin", 2), ("begin", 3)]
            connected = b"#client-connected %b\n" % third.address
            assert await first.until(b"!sleep[3]") == [
                connected,
                b"!sleep[1] ok\n",
                b"!sleep[2] ok\n",
                b"!sleep[4] ok\n",
                b"!sleep[3] ok\n",
            ]
            assert await second.until(b"!") == [connected, b"!sleep[5] ok\n"]
            assert await third.line() == b"!sleep[6] ok\n"
            order = [(kind, number) for kind, number, _ in server.told]
            assert order.index(("end", 1)) < order.index(("begin", 4)) < order.index(("begin", 5))
            assert order.index(("begin", 5)) < order.index(("begin", 6))
            times = {(kind, number): at for kind, number, at in server.told}
            assert times["begin", 4] - times["end", 1] < 0.03
            assert times["end", 4] - times["begin", 4] >= 0.149
            for client in (first, second, third):
                assert await client.ask(b"?echo a\n") == [b"!echo ok a\n"]

    run(host, main)


def test_a_full_server_reads_no_more(host: Host) -> None:
    """What a client sends while its requests wait piles up at the client."""

    async def main() -> None:
        server = Rig(max_pending=1)
        async with served(server) as clients:
            client = await clients.dial()
            sent = [b"?wait[1]\n?wait[2]\n"]
            sent += [b"?echo[%d] " % number + b"x" * 100_000 + b"\n" for number in range(3, 203)]
            client.send(b"".join(sent))
            await asyncio.sleep(0.2)
            assert client.writer.transport.get_write_buffer_size() > 5 * 10**6  # type: ignore[attr-defined]
            assert server.told == ["wait 1"]
            server.go_on.set()
            replies = await client.lines(202)
            assert replies[:2] == [b"!wait[1] ok\n", b"!wait[2] ok\n"]
            assert [len(reply) for reply in replies[2:]] == [len(line) + 3 for line in sent[1:]]

    run(host, main)


def test_replies_that_nobody_reads(host: Host) -> None:
    """A client that does not read gets few replies made: its further requests wait."""

    async def main() -> None:
        server = Generous(max_pending=3)
        async with served(server) as clients:
            deaf = clients.dial_deaf()
            deaf.send(b"?reply-much\n" * 100)
            client = await clients.dial()
            await asyncio.sleep(0.2)
            assert len(server.told) <= 2 * 3
            assert await client.ask(b"?echo a\n") == [b"!echo ok a\n"]
            deaf.close()

    run(host, main)


# -- the end of the loop -------------------------------------------------------------------------------------


def test_a_loop_that_ends_without_a_stop(host: Host) -> None:
    """Requests are cancelled, clients disconnected, sockets closed, and nothing is complained of."""
    told: list[Any] = []
    with socket.socket() as client:

        async def main() -> None:
            server = Rig()
            server.told = told
            await server.start()
            server.add_service_task(asyncio.create_task(asyncio.sleep(PATIENCE)))
            client.connect(server.sockets[0].getsockname())
            client.send(b"?wait[1]\n")
            await until(lambda: told)

        run(host, main, leaves_tasks=True)
        with client.makefile("rb") as lines:
            assert lines.read().splitlines(keepends=True)[3:] == [b"!wait[1] " + CANCELLED, DISCONNECT]
    assert told == ["wait 1", "cancelled 1"]


PROGRAM = """
import asyncio
import logging
import sys

import aiokatcp


class Server(aiokatcp.DeviceServer):
    VERSION = "a-1"
    BUILD_STATE = "a-1.0"

    async def request_wait(self, ctx):
        "Wait."
        await asyncio.sleep(100)

    async def request_exit(self, ctx):
        "End the program."
        raise SystemExit(3)


async def main(how):
    server = Server("127.0.0.1", 0)
    server.sensors.add(aiokatcp.Sensor(int, "x"))
    await server.start()
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"?sensor-sampling x period 0.01\\n?wait\\n?watchdog\\n")
    await reader.readuntil(b"!watchdog ok\\n")
    if how == "exit":
        writer.write(b"?exit\\n")
        await asyncio.sleep(100)
    writer.close()
    await writer.wait_closed()
    if how == "stop":
        await server.stop()


# Of a reply that comes too late for its client, one is warned.
logging.getLogger("aiokatcp").setLevel(logging.ERROR)
asyncio.run(main(sys.argv[1]))
print("done")
"""


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_programs_in_development_mode(how: str) -> None:
    """With ``-X dev`` and warnings as errors, a program runs to its end, stopped or not, and says nothing."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_handler_that_ends_the_program() -> None:
    """SystemExit is no failure of a request: it ends the loop, as asyncio has it, and the program."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "exit"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 3


def test_versions_of_the_package() -> None:
    """What servers say of the package is what the package says of itself."""
    assert aiokatcp.__version__.startswith(aiokatcp.minor_version() + ".")
