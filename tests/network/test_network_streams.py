"""Calls that say more than one thing: generators, progress, and what happens when nobody listens any more."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from armillary.errors import ConnectionClosed, PeerError
from armillary.network import RemoteError, Service, ServiceGone, current_call, run_service_on
from armillary.network.protocol import packets
from armillary.network.protocol.features import CANCEL, EXCEPTION, STREAM
from armillary.network.streams import WINDOW
from armillary.testing import Lab, open_lab


class Scanner(Service):
    """Makes points, and keeps count of what becomes of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(name="Scanner", **options)
        self.made = 0
        self.ends: list[str] = []
        self._may_go_on = threading.Event()

    async def scan(self, count: int, step: float = 0.0) -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                self.made += 1
                yield number
                await trio.sleep(step)
            self.ends.append("done")
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise

    def scan_in_thread(self, count: int) -> Generator[int, None, None]:
        try:
            for number in range(count):
                self.made += 1
                yield number
            self.ends.append("done")
        finally:
            self.ends.append("closed")

    async def break_at(self, count: int) -> AsyncGenerator[int, None]:
        for number in range(count):
            yield number
        raise LookupError("no more points")

    async def unsendable(self) -> AsyncGenerator[object, None]:
        yield 1
        yield object()

    def break_in_thread(self, count: int) -> Generator[int, None, None]:
        yield from range(count)
        raise LookupError("no more points")

    async def made_by_coroutine(self) -> AsyncGenerator[int, None]:
        return self.scan(3)

    def listed(self) -> list[int]:
        return [1, 2, 3]

    def single(self) -> int:
        return 7

    def arrays(self) -> Generator[bytes, None, None]:
        for number in range(3):
            yield bytes([number]) * 1000

    async def calibrate(self, steps: int) -> str:
        for number in range(steps):
            await current_call().progress({"step": number})
        return "calibrated"

    def calibrate_in_thread(self, steps: int) -> str:
        for number in range(steps):
            current_call().emit_progress(number)
        return "calibrated"

    async def scan_with_progress(self) -> AsyncGenerator[int, None]:
        for number in range(3):
            current_call().emit_progress(f"before {number}")
            yield number

    async def wait(self) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.ends.append("cancelled")
            raise

    def wait_in_thread(self) -> str:
        call = current_call()
        self._may_go_on.set()
        while not call.is_abandoned:
            time.sleep(0.001)
        self.ends.append("abandoned")
        return "too late"

    def who(self) -> list[object]:
        call = current_call()
        return [call.requester, call.request.attribute, call.is_abandoned, call.wants_progress]


@pytest.fixture
def scanner() -> Scanner:
    return Scanner()


@pytest.fixture
async def lab(scanner: Scanner) -> AsyncIterator[Lab]:
    async with open_lab(scanner) as opened:
        yield opened


GENERATORS = pytest.mark.parametrize("method", ["scan", "scan_in_thread"])


@GENERATORS
async def test_items_come_in_their_order(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner, method: str
) -> None:
    """A generator, asynchronous or not, is iterated to its end, however long it is."""
    async with lab.client() as client, client.link("Scanner") as link:
        async with link.stream(method, 1000) as points:
            assert [point async for point in points] == list(range(1000))
        assert scanner.ends[0] == "done"
        assert await link.single() == 7


@GENERATORS
async def test_a_generator_is_never_far_ahead(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner, method: str
) -> None:
    """A generator makes no more than a window of items before the client has read some of them."""
    async with lab.client() as client, client.link("Scanner") as link:
        async with link.stream(method, 1000) as points:
            for _ in range(5):
                await trio.sleep(10)
                assert scanner.made == WINDOW
            assert await anext(points) == 0
            await trio.sleep(10)
            assert scanner.made == WINDOW
            for expected in range(1, 100):
                assert await anext(points) == expected
                assert scanner.made <= expected + 1 + WINDOW
            await trio.sleep(10)
            assert WINDOW // 2 + 100 <= scanner.made <= 100 + WINDOW


@GENERATORS
async def test_leaving_early_closes_the_generator(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner, method: str
) -> None:
    """Whoever leaves a stream's block ends its generator in the service; nothing of the call is left."""
    async with lab.client() as client, client.link("Scanner") as link:
        async with link.stream(method, 1000) as points:
            assert await anext(points) == 0
        await trio.sleep(1)
        assert len(scanner.ends) == 1
        assert scanner.ends[0] in ("Cancelled", "GeneratorExit", "closed")
        assert scanner.made == WINDOW
        with pytest.raises(trio.ClosedResourceError):
            await anext(points)
        statistics = scanner.statistics()
        assert statistics is not None
        assert statistics.running == 0
        assert lab.manager.statistics().requests.in_flight == 0
        assert await link.single() == 7


@GENERATORS
async def test_a_client_that_dies_closes_the_generator(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner, method: str
) -> None:
    """When the client of a stream is gone, its generator is closed."""
    stream = await lab.connect()
    async with lab.client(stream=stream) as client, client.link("Scanner") as link:
        async with link.stream(method, 1000) as points:
            assert await anext(points) == 0
            await stream.aclose()
            await trio.sleep(1)
            assert len(scanner.ends) == 1
            with pytest.raises(ConnectionClosed):
                async for _ in points:
                    pass


@GENERATORS
async def test_without_a_stream_it_is_a_list(autojump_clock: MockClock, lab: Lab, method: str) -> None:
    """Called as any other method, a generator answers with a list."""
    async with lab.client() as client, client.link("Scanner") as link:
        assert await link.call(method, 30) == list(range(30))


async def test_a_list_has_an_end(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that never ends, called as any other method, is stopped with an error."""
    monkeypatch.setattr("armillary.network.calls.MOST_COLLECTED", 1000)
    async with lab.client() as client, client.link("Scanner") as link:
        for method in ("scan", "scan_in_thread"):
            with pytest.raises(
                RemoteError, match="ValueError: more than 1000 items: ask for them one by one"
            ):
                await link.call(method, 10**9)
        assert await link.single() == 7


@pytest.mark.parametrize("method", ["break_at", "break_in_thread"])
@pytest.mark.parametrize("count", [0, 3, 40])
async def test_what_a_generator_raises_comes_after_its_items(
    autojump_clock: MockClock, lab: Lab, method: str, count: int
) -> None:
    """The items before an exception are delivered, and then the exception."""
    async with lab.client() as client, client.link("Scanner") as link:
        seen = []
        with pytest.raises(RemoteError, match="LookupError: no more points") as caught:
            async with link.stream(method, count) as points:
                async for point in points:
                    seen.append(point)
        assert seen == list(range(count))
        assert caught.value.type_name == "LookupError"


async def test_an_item_that_cannot_be_sent(autojump_clock: MockClock, lab: Lab) -> None:
    """An item that is no JSON ends the stream with an error; the connection goes on."""
    async with lab.client() as client, client.link("Scanner") as link:
        with pytest.raises(RemoteError, match="TypeError"):
            async with link.stream("unsendable") as items:
                assert await anext(items) == 1
                await anext(items)
        assert await link.single() == 7


async def test_other_things_that_can_be_iterated(autojump_clock: MockClock, lab: Lab) -> None:
    """What a coroutine returns as a generator, and what a method returns as a list, are iterated over."""
    async with lab.client() as client, client.link("Scanner") as link:
        async with link.stream("made_by_coroutine") as items:
            assert [item async for item in items] == [0, 1, 2]
        async with link.stream("listed") as items:
            assert [item async for item in items] == [1, 2, 3]
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        async with link.stream("single") as items:
            with pytest.raises(TypeError, match=r"Scanner\.single returned what cannot be iterated: int"):
                await anext(items)
        async with link.stream("missing") as items:
            with pytest.raises(RemoteError, match="AttributeError"):
                await anext(items)


async def test_items_with_bytes(autojump_clock: MockClock, lab: Lab) -> None:
    """Bytes are items as they are."""
    async with lab.client() as client, client.link("Scanner") as link, link.stream("arrays") as items:
        assert [item async for item in items] == [bytes([number]) * 1000 for number in range(3)]


async def test_streams_beside_each_other(autojump_clock: MockClock, lab: Lab) -> None:
    """Many streams of one client do not wait for the one that nobody reads."""
    async with lab.client() as client, client.link("Scanner") as link:
        async with link.stream("scan", 1000), trio.open_nursery() as nursery:

            async def read() -> None:
                async with link.stream("scan", 100, step=0.1) as points:
                    assert [point async for point in points] == list(range(100))

            for _ in range(20):
                nursery.start_soon(read)


@pytest.mark.parametrize("features", [(), {EXCEPTION, CANCEL}])
async def test_a_client_without_streams(autojump_clock: MockClock, lab: Lab, features: Any) -> None:
    """On a connection without streams, a stream is made of the list that comes; progress is not told."""
    async with lab.client(features=features) as client, client.link("Scanner") as link:
        async with link.stream("scan", 100) as points:
            assert [point async for point in points] == list(range(100))
        heard: list[object] = []
        assert await link.with_progress(heard.append).calibrate(3) == "calibrated"
        assert heard == []


async def test_a_service_without_streams(autojump_clock: MockClock, lab: Lab) -> None:
    """A service that can send no parts answers with a list, which is iterated over."""
    plain = Scanner()
    plain._name = "Plain"
    await lab.start(plain, features={EXCEPTION})
    async with lab.client() as client, client.link("Plain") as link, link.stream("scan", 40) as points:
        assert [point async for point in points] == list(range(40))


@pytest.mark.parametrize("method", ["calibrate", "calibrate_in_thread"])
async def test_progress_comes_before_the_result(autojump_clock: MockClock, lab: Lab, method: str) -> None:
    """Progress is told to who has asked for it, in order and before the result; to others it is not."""
    async with lab.client() as client, client.link("Scanner") as link:
        heard: list[Any] = []
        assert await link.with_progress(heard.append).call(method, 5) == "calibrated"
        assert [each["step"] if method == "calibrate" else each for each in heard] == [0, 1, 2, 3, 4]
        assert await link.call(method, 5) == "calibrated"
        assert len(heard) == 5


async def test_progress_of_a_stream(autojump_clock: MockClock, lab: Lab) -> None:
    """A stream can tell progress between its items."""
    async with lab.client() as client, client.link("Scanner") as link:
        heard: list[object] = []
        async with link.with_progress(heard.append).stream("scan_with_progress") as items:
            assert [item async for item in items] == [0, 1, 2]
        assert heard == ["before 0", "before 1", "before 2"]
        async with link.stream("scan_with_progress") as items:
            assert [item async for item in items] == [0, 1, 2]


async def test_a_callback_that_raises(
    autojump_clock: MockClock, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback for progress raises is logged, and the call goes on."""

    def fail(value: object) -> None:
        raise ZeroDivisionError

    async with lab.client() as client, client.link("Scanner") as link:
        assert await link.with_progress(fail).calibrate(2) == "calibrated"
    assert [record.message for record in caplog.records] == ["a callback for progress failed"] * 2


async def test_cancelling_a_call_cancels_its_task(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner
) -> None:
    """Leaving the caller's scope cancels the coroutine in the service."""
    async with lab.client() as client, client.link("Scanner") as link:
        with trio.move_on_after(1) as scope:
            await link.wait()
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert scanner.ends == ["cancelled"]
        requests = lab.manager.statistics().requests
        assert (requests.in_flight, requests.given_up) == (0, 1)
        assert await link.single() == 7


async def test_cancelling_a_call_tells_its_thread(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner
) -> None:
    """A method in a thread learns that nobody waits any more, and its result reaches nobody."""
    async with lab.client() as client, client.link("Scanner") as link:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.wait_in_thread)
                await trio.to_thread.run_sync(scanner._may_go_on.wait)
                scope.cancel()
        while not scanner.ends:
            await trio.to_thread.run_sync(time.sleep, 0.001)
        assert scanner.ends == ["abandoned"]
        assert await link.single() == 7
        connection = client.statistics()
        assert connection is not None
        assert connection.unexpected == 0


async def test_cancelling_a_call_that_waits_for_its_turn(autojump_clock: MockClock) -> None:
    """A call that is cancelled before its turn is never carried out, and the next one is."""
    scanner = Scanner(concurrency=1)
    async with open_lab(scanner) as lab, lab.client() as client, client.link("Scanner") as link:
        async with trio.open_nursery() as nursery:
            first, second = trio.CancelScope(), trio.CancelScope()

            async def call(scope: trio.CancelScope, method: str, *args: Any) -> None:
                with scope:
                    await link.call(method, *args)

            nursery.start_soon(call, first, "wait")
            await trio.sleep(1)
            nursery.start_soon(call, second, "scan", 5)
            await trio.sleep(1)
            second.cancel()
            await trio.sleep(1)
            first.cancel()
        assert await link.single() == 7
        assert scanner.made == 0
        assert scanner.ends == ["cancelled"]


async def test_a_client_that_goes_cancels_what_it_has_asked(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner
) -> None:
    """When a client's connection is lost, the coroutines that it has called are cancelled."""
    stream = await lab.connect()
    async with lab.client(stream=stream) as client, client.link("Scanner") as link:
        pending = link.start_call("wait")
        await trio.sleep(1)
        await stream.aclose()
        with pytest.raises(ConnectionClosed):
            await pending.wait()
        await trio.sleep(1)
        assert scanner.ends == ["cancelled"]


async def test_nobody_cancels_what_others_have_asked(
    autojump_clock: MockClock, lab: Lab, scanner: Scanner
) -> None:
    """A client that names the uid of another's call, in whatever way, does nothing to it."""
    async with (
        lab.client("Victim") as client,
        client.link("Scanner") as link,
        lab.client("Rogue") as rogue,
    ):
        pending = link.start_call("wait")
        await trio.sleep(1)
        assert rogue.connection is not None
        for args in ([pending.uid], [client.network_name, pending.uid], [], [7], [""], [pending.uid, -1]):
            for word in ("__cancel__", "__credit__"):
                rogue.connection.send(packets.request("Manager", word, args))
        await rogue.identities()
        await trio.sleep(1)
        assert scanner.ends == []
        assert pending.outcome is None
        pending.abandon()


async def test_a_service_that_goes_ends_its_streams(autojump_clock: MockClock, lab: Lab) -> None:
    """When a service goes in the midst of a stream, the loop is told which one has gone."""
    other = Scanner()
    other._name = "Other"
    scope = await lab.start(other, reconnect=False)
    async with lab.client() as client, client.link("Other") as link:
        seen = []
        with pytest.raises(ServiceGone, match="Other"):
            async with link.stream("scan", 1000, step=1) as points:
                async for point in points:
                    seen.append(point)
                    if point == 20:
                        scope.cancel()
        assert seen == list(range(21))


async def test_a_service_that_does_not_wait(autojump_clock: MockClock, lab: Lab) -> None:
    """A service that sends more items than it was asked for is cut off, and takes bounded memory."""
    async with lab.open_raw() as flooder, lab.client() as client:
        await flooder.stream.receive_some()
        identity = {"type": "service", "name": "Flood", "attributes": {}, "features": [STREAM]}
        await flooder.stream.send_all(packets.answer(identity))
        await trio.sleep(1)
        async with client.link("Flood") as link, link.stream("scan") as items:
            await trio.sleep(1)
            request = packets.typed(json.loads(await flooder.stream.receive_some()))
            assert isinstance(request, packets.Request)
            part = packets.reply(request.requester, request.uid, "x", more=True)
            await flooder.stream.send_all(part * 100)
            await trio.sleep(1)
            with pytest.raises(PeerError, match=r"Flood\.scan sent more items than it was asked for"):
                async for _ in items:
                    pass


async def test_what_a_method_knows_of_its_call(autojump_clock: MockClock, lab: Lab) -> None:
    """A method can ask who calls it; outside of one there is nothing to ask."""
    async with lab.client("Asker") as client, client.link("Scanner") as link:
        requester, attribute, is_abandoned, wants_progress = await link.who()
        assert requester == client.network_name
        assert (attribute, is_abandoned, wants_progress) == ("who", False, False)
        assert (await link.with_progress(print).who())[3] is True
    with pytest.raises(LookupError):
        current_call()


async def test_cancelling_the_loop(autojump_clock: MockClock, lab: Lab, scanner: Scanner) -> None:
    """A time-out around a stream ends it on both sides; what was read before is kept."""
    seen: list[int] = []
    async with lab.client() as client, client.link("Scanner") as link:
        with trio.move_on_after(5.5):
            async with link.stream("scan", 1000, step=1) as points:
                async for point in points:
                    seen.append(point)
        assert seen == [0, 1, 2, 3, 4, 5]
        await trio.sleep(1)
        assert scanner.ends == ["Cancelled"]


@GENERATORS
async def test_stopping_a_service_in_the_midst_of_a_stream(autojump_clock: MockClock, method: str) -> None:
    """A service that is cancelled closes its generators, those in threads included, and ends."""
    scanner = Scanner()
    async with open_lab() as lab, lab.client() as client, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            with scope:
                await run_service_on(scanner, await lab.connect(), task_status=task_status)

        async def end() -> None:
            scope.cancel()

        await nursery.start(run)
        async with client.link("Scanner") as link, link.stream(method, 1000) as points:
            assert await anext(points) == 0
            nursery.start_soon(end)
            with pytest.raises(ServiceGone):
                async for _ in points:
                    pass
    assert len(scanner.ends) == 1
