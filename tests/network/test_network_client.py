"""Connecting to a manager, asking it, and what becomes of requests when the connection ends."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from scripted_manager import NAME, OURS, ScriptedManager, connected

from armillary._runtime.groups import single_exception
from armillary.errors import ConnectFailed, ConnectionClosed
from armillary.network.client import Client, open_client, open_client_on
from armillary.network.connection import Connection
from armillary.network.errors import PacketTooLarge, Rejected, RemoteError, ServiceGone
from armillary.network.protocol.device_handshake import Credentials


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[Client, ScriptedManager]]:
    """A client that was let in by a scripted manager."""
    stream, manager = connected()
    with single_exception():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.let_in)
            async with open_client_on(stream, name="Bench A", **options) as client:
                await trio.testing.wait_all_tasks_blocked()
                try:
                    yield client, manager
                finally:
                    nursery.start_soon(manager.serve_rest)


def connection_of(client: Client) -> Connection:
    assert client.connection is not None
    return client.connection


# -- getting in ----------------------------------------------------------------------------------------------


async def test_a_client_says_who_it_is_and_knows_that_it_is_in(autojump_clock: object) -> None:
    """The identity is that of the protocol, and the block begins when the manager has answered something."""
    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        entered = False

        async def enter() -> None:
            nonlocal entered
            async with open_client_on(stream, name="Bench A") as client:
                entered = True
                assert client.is_connected
                assert (client.network_name, client.manager_name) == (OURS, NAME)

        nursery.start_soon(enter)
        answer = await manager.ask("identity")
        assert answer["requester"] is None
        assert answer["uid"] == ""
        assert not answer["error"]
        assert answer["result"].keys() == {"type", "name", "language", "os"}
        assert (answer["result"]["type"], answer["result"]["name"]) == ("client", "Bench A")
        probe = await manager.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert not entered
        await manager.reply(probe, True)
        await manager.serve_rest()
        assert entered


async def test_a_client_is_told_why_it_is_not_let_in() -> None:
    """An error in the manager's own name after the identity is `Rejected`, with its class and its text."""
    stream, manager = connected()

    async def reject() -> None:
        await manager.ask("identity")
        await manager.receive()
        await manager.send(
            {
                "error": True,
                "message": "NameError: already running",
                "requester": NAME,
                "result": None,
                "uid": "",
            }
        )
        await manager.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reject)
        with pytest.raises(Rejected, match="already running") as caught:
            async with open_client_on(stream):
                pytest.fail("it was let in")
    assert (caught.value.type_name, caught.value.text) == ("NameError", "already running")


async def test_credentials_are_given_to_who_asks_for_them() -> None:
    """A manager's name asks for the manager's password, anything else for the user's."""
    stream, manager = connected()
    credentials = Credentials(username="marie", password="polonium", password_manager="radium")
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            assert (await manager.ask("password", NAME))["result"] == "radium"
            assert (await manager.ask("username", NAME))["result"] == "marie"
            assert (await manager.ask("password", "marie"))["result"] == "polonium"
            await manager.let_in()
            await manager.serve_rest()

        nursery.start_soon(ask)
        async with open_client_on(stream, credentials=credentials) as client:
            assert client.is_connected


async def test_a_person_is_asked_and_takes_time(autojump_clock: object) -> None:
    """What no credentials say, a person is asked, and the time-out for connecting does not run meanwhile."""
    stream, manager = connected()
    asked = []

    async def ask(question: str, is_secret: bool) -> str:
        asked.append((question, is_secret))
        await trio.sleep(1000)
        return "marie"

    async with trio.open_nursery() as nursery:

        async def question() -> None:
            assert (await manager.ask("username", NAME))["result"] == "marie"
            await manager.let_in()
            await manager.serve_rest()

        nursery.start_soon(question)
        async with open_client_on(stream, ask=ask, connect_timeout=10) as client:
            assert client.is_connected
    assert asked == [(f"Enter a username for {NAME} > ", False)]


async def test_nobody_to_ask_ends_the_attempt() -> None:
    """Without credentials and without a person, a question fails the attempt and says what was asked."""
    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            manager.send, {"attribute": "username", "args": [NAME], "requester": NAME, "uid": ""}
        )
        with pytest.raises(ConnectFailed, match="Enter a username"):
            async with open_client_on(stream):
                pytest.fail("it was let in")
    await manager.stream.aclose()


async def test_a_silent_manager_is_given_up(autojump_clock: object) -> None:
    """A manager that says nothing fails the attempt after `connect_timeout`, with a hint at TLS."""
    stream, manager = connected()
    started = trio.current_time()
    with pytest.raises(ConnectFailed, match="perhaps it expects TLS"):
        async with open_client_on(stream, connect_timeout=5):
            pytest.fail("it was let in")
    assert 5 <= trio.current_time() - started <= 6.5
    await manager.stream.aclose()


async def test_a_manager_that_closes_in_the_handshake(autojump_clock: object) -> None:
    """The end of the connection during the handshake is `ConnectFailed`, not an error of JSON."""
    stream, manager = connected()
    await manager.stream.aclose()
    with pytest.raises(ConnectFailed, match="closed the connection"):
        async with open_client_on(stream):
            pytest.fail("it was let in")


async def test_nobody_listens() -> None:
    """Connecting to a port where nobody listens is `ConnectFailed`."""
    with pytest.raises(ConnectFailed):
        async with open_client("127.0.0.1", 1, trust=None):
            pytest.fail("somebody listens")


# -- asking --------------------------------------------------------------------------------------------------


async def test_identities_and_their_request() -> None:
    """`identities` is the manager's answer, and the request has every key of the protocol."""
    async with opened() as (client, manager), trio.open_nursery() as nursery:

        async def answer() -> None:
            request = await manager.receive()
            assert request.keys() == {"args", "attribute", "error", "kwargs", "service", "uid"}
            assert (request["service"], request["attribute"], request["error"]) == (
                "Manager",
                "identity",
                False,
            )
            await manager.reply(request, {"hostname": "lab7"})

        nursery.start_soon(answer)
        assert await client.identities() == {"hostname": "lab7"}


async def test_replies_find_their_requests_in_any_order() -> None:
    """Two calls are answered in the opposite order, and each gets its own result."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        first, second = connection.start("DMM", "a"), connection.start("DMM", "b")
        requests = [await manager.receive(), await manager.receive()]
        await manager.reply(requests[1], "B")
        await manager.reply(requests[0], "A")
        assert [await first.wait(), await second.wait()] == ["A", "B"]
        assert connection.statistics().pending == 0


async def test_an_error_packet_becomes_a_remote_error() -> None:
    """Class, text, traceback and module of the remote exception are kept."""
    async with opened() as (client, manager):
        call = connection_of(client).start("DMM", "a")
        request = await manager.receive()
        exception = {"type": "RangeError", "module": "dmm"}
        await manager.fail(
            request, "RangeError: too: high", traceback=["line 1", "line 2"], exception=exception
        )
        with pytest.raises(RemoteError, match=r"^RangeError: too: high") as caught:
            await call.wait()
    error = caught.value
    assert (error.type_name, error.text, error.module) == ("RangeError", "too: high", "dmm")
    assert error.traceback == ["line 1", "line 2"]
    assert error.__notes__ == ["The remote traceback:\nline 1\nline 2"]


async def test_a_cancelled_call_leaves_nothing_and_its_late_reply_is_dropped(autojump_clock: object) -> None:
    """The caller's time-out ends the wait; the reply that comes later disturbs nobody."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        with trio.move_on_after(1) as scope:
            await connection.start("DMM", "slow").wait()
        assert scope.cancelled_caught
        assert connection.statistics().pending == 0
        late = await manager.receive()
        again = connection.start("DMM", "quick")
        await manager.reply(late, "late")
        await manager.reply(await manager.receive(), "quick")
        assert await again.wait() == "quick"
        assert connection.statistics().unexpected == 1


async def test_an_argument_that_cannot_be_sent() -> None:
    """It raises TypeError at the caller, nothing is sent, and the connection stays usable."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        with pytest.raises(TypeError, match="not JSON serializable"):
            connection.start("DMM", "a", [1j])
        call = connection.start("DMM", "b")
        request = await manager.receive()
        assert request["attribute"] == "b"
        await manager.reply(request, 1)
        assert await call.wait() == 1


async def test_a_service_that_is_not_there_with_the_callers_uid() -> None:
    """It is `ServiceGone`, and surely was not received."""
    async with opened() as (client, manager):
        call = connection_of(client).start("DMM", "a")
        request = await manager.receive()
        await manager.fail(
            request, """KeyError: "the 'DMM' Service is not connected to Manager[lab7:1875]\""""
        )
        with pytest.raises(ServiceGone) as caught:
            await call.wait()
    assert not caught.value.may_have_been_received


async def test_a_service_that_goes_before_it_answers() -> None:
    """It is `ServiceGone` as well, and may have been received."""
    async with opened() as (client, manager):
        call = connection_of(client).start("DMM", "a")
        request = await manager.receive()
        text = (
            "ConnectionAbortedError: the 'DMM' Service disconnected from Manager[lab7:1875] before it replied"
        )
        await manager.fail(request, text)
        with pytest.raises(ServiceGone) as caught:
            await call.wait()
    assert caught.value.may_have_been_received


async def test_a_manager_of_1_0_does_not_say_which_request_went_to_no_service() -> None:
    """Then every call to that service fails, and those to others go on; the client does not die of it."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        gone = [connection.start("DMM", "a"), connection.start("DMM", "b")]
        other = connection.start("Motor", "a")
        for _ in range(2):
            await manager.receive()
        last = await manager.receive()
        await manager.fail(
            {"uid": ""}, """KeyError: "the 'DMM' Service is not connected to Manager[lab7:1875]\""""
        )
        await manager.reply(last, "moved")
        for call in gone:
            with pytest.raises(ServiceGone) as caught:
                await call.wait()
            assert caught.value.may_have_been_received
        assert await other.wait() == "moved"


async def test_what_is_no_packet_is_skipped_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Bad JSON, bad UTF-8, wrong types and strays do no harm, and the log gets one warning."""
    async with opened() as (client, manager):
        call = connection_of(client).start("DMM", "a")
        request = await manager.receive()
        for line in (
            b"nonsense\r\n",
            b"\xff\xfe\n",
            b"[]\n",
            b"\r\n",
            b'{"result":1,"uid":5}\n',
            b'{"a":' * 9999 + b"\n",
        ):
            await manager.send(line)
        await manager.send({"result": 1, "uid": "999", "error": False, "requester": OURS})
        await manager.reply(request, "fine")
        assert await call.wait() == "fine"
        assert connection_of(client).statistics().malformed == 5
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1


async def test_an_answer_that_is_too_large() -> None:
    """Its call fails with `PacketTooLarge`, and the connection goes on."""
    async with opened(limit=2000) as (client, manager):
        connection = connection_of(client)
        large, small = connection.start("DMM", "a"), connection.start("DMM", "b")
        requests = [await manager.receive(), await manager.receive()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.reply, requests[0], "x" * 3_000_000)
            with pytest.raises(PacketTooLarge, match=r"DMM\.a has more than 2000 bytes"):
                await large.wait()
        await manager.reply(requests[1], "small")
        assert await small.wait() == "small"


# -- the administrator ---------------------------------------------------------------------------------------


async def test_an_admin_request_logs_in_on_the_way() -> None:
    """The manager asks for user and password in between; its answer without a uid is the answer."""
    async with opened(credentials=Credentials("marie", "polonium")) as (client, manager):
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                request = await manager.receive()
                assert request["attribute"] == "users_table.usernames"
                assert (request["args"], request["kwargs"]) == ([1], {"a": 2})
                assert (await manager.ask("username", NAME))["result"] == "marie"
                assert (await manager.ask("password", "marie"))["result"] == "polonium"
                await manager.reply({"uid": ""}, ["marie"])

            nursery.start_soon(answer)
            assert await client.admin("users_table.usernames", 1, a=2) == ["marie"]


async def test_answers_without_uid_belong_to_admin_requests_in_turn(autojump_clock: object) -> None:
    """One that was cancelled still takes its answer; an error without a uid is the next one's."""
    async with opened() as (client, manager):
        with trio.move_on_after(1):
            await client.admin("port")
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await manager.receive()
                await manager.receive()
                await manager.reply({"uid": ""}, 1875)
                await manager.fail({"uid": ""}, "ValueError: You must be an administrator")

            nursery.start_soon(answer)
            with pytest.raises(RemoteError, match="administrator"):
                await client.admin("login")


async def test_shutting_down_the_manager_is_answered_by_its_end() -> None:
    """`shutdown_manager` returns None when the connection ends; anything else pending fails."""
    async with opened() as (client, manager):
        other = connection_of(client).start("DMM", "a")
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await manager.receive()
                await manager.receive()
                await manager.stream.aclose()

            nursery.start_soon(stop)
            assert await client.admin("shutdown_manager") is None
        with pytest.raises(ConnectionClosed):
            await other.wait()
        assert not client.is_connected


# -- the end -------------------------------------------------------------------------------------------------


async def test_pending_calls_fail_at_once_when_the_connection_ends() -> None:
    """Every pending call raises `ConnectionClosed` that says it may have been received; so does the next."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        calls = [connection.start("DMM", "a") for _ in range(3)]
        for _ in calls:
            await manager.receive()
        await manager.stream.aclose()
        for call in calls:
            with pytest.raises(ConnectionClosed) as caught:
                await call.wait()
            assert caught.value.may_have_been_received
        with pytest.raises(ConnectionClosed, match="not connected") as caught:
            await client.identities()
        assert not caught.value.may_have_been_received


async def test_a_call_that_never_left_says_so() -> None:
    """When the connection breaks before a call's first byte is sent, repeating it is safe, and it says so."""
    async with opened() as (client, manager):
        connection = connection_of(client)
        first = connection.start("DMM", "a", ["x" * 500_000])
        await trio.testing.wait_all_tasks_blocked()
        second = connection.start("DMM", "b")
        await manager.stream.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await first.wait()
        assert caught.value.may_have_been_received
        with pytest.raises(ConnectionClosed) as caught:
            await second.wait()
        assert not caught.value.may_have_been_received


async def test_leaving_the_block_takes_leave_and_waits_for_the_manager() -> None:
    """The last packet is `__disconnect__`, and the block is left when the manager has closed its side."""
    stream, manager = connected()
    asked: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await manager.let_in()
            asked.extend(await manager.serve_rest())

        nursery.start_soon(serve)
        async with open_client_on(stream):
            pass
        assert [packet["attribute"] for packet in asked] == ["__disconnect__"]
        assert asked[0]["service"] == OURS


async def test_a_manager_that_does_not_close_delays_the_end_by_half_a_second(autojump_clock: object) -> None:
    """A manager that ignores the good-bye does not hold the program up."""
    stream, manager = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.let_in)
        async with open_client_on(stream):
            left = trio.current_time()
    assert trio.current_time() - left <= 1.1
    assert json.loads(await manager.receive_line())["attribute"] == "__disconnect__"
    await manager.stream.aclose()


async def test_the_blocks_own_exception_comes_out_as_it_is() -> None:
    """A KeyError in the block is a KeyError outside of it."""
    with pytest.raises(KeyError, match="mine"):
        async with opened():
            raise KeyError("mine")


async def test_a_client_is_cancelled_everywhere(cancel_everywhere: Any, autojump_clock: object) -> None:
    """Cancelled at any checkpoint, a session leaves no task and no open connection."""

    async def scenario() -> None:
        stream, manager = connected()

        async def serve() -> None:
            try:
                await manager.let_in()
                await manager.link()
                await manager.serve_rest()
            except EOFError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_client_on(stream) as client, client.link("DMM") as dmm, dmm.lock():
                await dmm.read()

    assert await cancel_everywhere(scenario) > 10
