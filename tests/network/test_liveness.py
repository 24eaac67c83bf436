"""Signs of life: who is asked for them, and what becomes of those who give none."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from armillary.errors import ConnectionClosed
from armillary.network import LockLost, ManagerLimits, Service, ServiceGone
from armillary.network.protocol import packets
from armillary.network.protocol.features import PING
from armillary.network.protocol.words import PING_DEVICE, tell_device
from armillary.testing import Lab, RawPeer, open_lab


class Dmm(Service):
    async def voltage(self) -> float:
        return 1.5


async def introduce(
    peer: RawPeer, name: str = "Mute", features: Any = (PING,), **more: Any
) -> dict[str, Any]:
    """Be a client that answers only when the test says so. Return what the manager says then, if anything."""
    await peer.stream.receive_some()
    identity = {"type": "client", "name": name, "features": list(features), **more}
    await peer.stream.send_all(packets.answer(identity))
    if PING not in features:
        return {}
    return await hear(peer)


async def hear(peer: RawPeer) -> dict[str, Any]:
    """The next packet."""
    data = b""
    while not data.endswith(b"\n"):
        data += await peer.stream.receive_some(1)
    heard = json.loads(data)
    assert isinstance(heard, dict)
    return heard


async def ask(peer: RawPeer, attribute: str, *args: object, **kwargs: object) -> dict[str, Any]:
    """Ask the manager."""
    await peer.stream.send_all(packets.request("Manager", attribute, args, kwargs, uid=attribute))
    while (answer := await hear(peer)).get("uid") != attribute:
        pass
    return answer


def holders(lab: Lab) -> tuple[str, ...]:
    return lab.manager.statistics().services[0].holders


async def test_a_device_is_told_that_it_is_in(autojump_clock: MockClock) -> None:
    """A device that knows of it is told its name, and how often it will hear from the manager."""
    async with open_lab() as lab, lab.open_raw() as peer:
        word = await introduce(peer)
        assert word["attribute"] == "__accepted__"
        assert word["args"] == ["Mute[lab:1]", 10.0]
        assert word["requester"] == lab.manager.name


async def test_silent_devices_are_pinged(autojump_clock: MockClock) -> None:
    """Who has said nothing for an interval is asked for a sign of life, again and again."""
    async with open_lab() as lab, lab.open_raw() as peer:
        await introduce(peer)
        start = trio.current_time()
        for _ in range(5):
            assert (await hear(peer))["attribute"] == "__ping__"
        assert 25 <= trio.current_time() - start <= 60


async def test_a_device_that_talks_hears_something(autojump_clock: MockClock) -> None:
    """Who talks all the time without being answered is pinged as well: it wants to know who listens."""
    async with open_lab() as lab, lab.open_raw() as peer, trio.open_nursery() as nursery:
        await introduce(peer)

        async def talk() -> None:
            while True:
                await peer.stream.send_all(packets.request("Manager", "__pong__"))
                await trio.sleep(1)

        nursery.start_soon(talk)
        with trio.fail_after(25):
            assert (await hear(peer))["attribute"] == "__ping__"
        nursery.cancel_scope.cancel()


async def test_others_are_never_pinged(autojump_clock: MockClock) -> None:
    """A device that does not know of pings hears nothing that it has not asked for."""
    async with open_lab() as lab, lab.open_raw() as peer:
        await introduce(peer, features=())
        with trio.move_on_after(1000) as scope:
            await hear(peer)
        assert scope.cancelled_caught


@pytest.mark.parametrize("shared", [False, True])
async def test_who_gives_no_sign_of_life_loses_its_lock(autojump_clock: MockClock, shared: bool) -> None:
    """A client that is silent for the length of the lease loses its lock and is told so; its link stays."""
    async with open_lab(Dmm()) as lab, lab.open_raw() as peer:
        await introduce(peer)
        await ask(peer, "link", "Dmm")
        await ask(peer, "acquire_lock", "Dmm", shared=shared)
        await trio.sleep(55)
        assert holders(lab) == ("Mute[lab:2]",)
        await trio.sleep(15)
        assert holders(lab) == ()
        assert lab.manager.statistics().services[0].links == ("Mute[lab:2]",)
        while (word := await hear(peer))["attribute"] == "__ping__":
            pass
        assert word["attribute"] == "__lock_lost__"
        assert word["args"] == ["Dmm", "nothing was heard for 60 s"]


async def test_who_gives_signs_of_life_keeps_its_lock(autojump_clock: MockClock) -> None:
    """A client that answers pings, and has nothing else to say, keeps its lock for as long as it wants."""
    async with open_lab(Dmm()) as lab, lab.client() as client, client.link("Dmm") as link, link.lock():
        await trio.sleep(3600)
        assert holders(lab) == (client.network_name,)


async def test_who_cannot_be_pinged_keeps_its_lock(autojump_clock: MockClock) -> None:
    """A client of 1.0 keeps its lock through any silence: it has no means to give a sign of life."""
    async with open_lab(Dmm()) as lab, lab.open_raw() as peer:
        await introduce(peer, features=())
        await ask(peer, "link", "Dmm")
        await ask(peer, "acquire_lock", "Dmm", shared=False)
        await trio.sleep(3600)
        assert holders(lab) == ("Mute[lab:2]",)


async def test_a_client_learns_that_its_lock_was_taken(autojump_clock: MockClock) -> None:
    """When an administrator takes a lock away, calls inside its block fail; after the block all is well."""
    async with open_lab(Dmm()) as lab, lab.client() as client, client.link("Dmm") as link:
        async with link.lock():
            assert await link.voltage() == 1.5
            session = next(iter(lab.manager._sessions))
            assert lab.manager._force_unlock(session, "Dmm") == [client.network_name]
            lab.manager.uncork()
            await trio.sleep(1)
            with pytest.raises(LockLost, match="the manager has taken it away: it was taken away by"):
                await link.voltage()
        assert await link.voltage() == 1.5
        async with link.lock():
            assert holders(lab) == (client.network_name,)


async def test_a_manager_that_was_asleep_takes_no_locks(autojump_clock: MockClock) -> None:
    """When the manager's own process was stopped, the silence was its own: nobody loses a lock by it."""
    async with open_lab(Dmm()) as lab, lab.client() as client, client.link("Dmm") as link, link.lock():
        for _ in range(3):
            autojump_clock.jump(1000)
            await trio.sleep(2)
            assert holders(lab) == (client.network_name,)
        await trio.sleep(100)
        assert holders(lab) == (client.network_name,)


async def test_a_device_gives_up_a_silent_manager(autojump_clock: MockClock) -> None:
    """A device that hears nothing for three intervals takes its manager for gone."""
    async with open_lab(limits=ManagerLimits(ping_interval=2.0)) as lab:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            stream = await lab.connect()
            is_deaf = False

            async def pump(source: trio.abc.Stream, sink: trio.abc.Stream, *, is_down: bool) -> None:
                while data := await source.receive_some():
                    if not (is_down and is_deaf):
                        await sink.send_all(data)

            async def up() -> None:
                await pump(theirs, stream, is_down=False)

            async def down() -> None:
                await pump(stream, theirs, is_down=True)

            nursery.start_soon(up)
            nursery.start_soon(down)
            async with lab.client(stream=ours) as client:
                await trio.sleep(100)
                assert client.is_connected
                is_deaf = True
                start = trio.current_time()
                assert client.connection is not None
                await client.connection.closed.wait()
                assert 4 <= trio.current_time() - start <= 9
                with pytest.raises(ConnectionClosed, match="the manager was silent for 6 s"):
                    await client.identities()
            nursery.cancel_scope.cancel()


async def test_nonsense_of_a_manager(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """What makes no sense in a manager's words is logged once, and disturbs nobody."""
    async with open_lab(Dmm()) as lab, lab.client() as client:
        session = next(session for session in lab.manager._sessions if session.name == client.network_name)
        nonsense: list[tuple[str, tuple[object, ...]]] = [
            ("__lock_lost__", ()),
            ("__lock_lost__", ("Nobody", "why")),
            ("__accepted__", (1, 2)),
            ("__accepted__", ("x", -1)),
            ("__accepted__", ()),
            ("__cancel__", ("x", "1")),
            (PING_DEVICE, (1, 2, 3)),
        ]
        for word, args in nonsense:
            session.send(tell_device(lab.manager.name, word, *args))
        lab.manager.uncork()
        async with client.link("Dmm") as link:
            assert await link.voltage() == 1.5
        statistics = client.statistics()
        assert statistics is not None
        assert statistics.malformed == 4
    warnings = [record for record in caplog.records if "makes no sense" in record.message]
    assert [record.levelname for record in warnings] == ["WARNING"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"error": false, "requester": "%s", "uid": "%s", "result": 1, "uid": "x"}',
        b'{"error": 7, "requester": "%s", "uid": "%s", "result": 1}',
        b'{"error": false, "requester": "%s", "uid": "%s", "result": [1, 2}',
        b'{"error": false, "requester": "%s", "uid": "%s", "result": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
async def test_an_answer_that_is_no_packet(autojump_clock: MockClock, line: bytes) -> None:
    """Who has asked is told when the answer is no packet: there will be no other."""
    async with open_lab() as lab, lab.open_raw() as service, lab.client() as client:
        await introduce(service, "Odd", (), type="service", attributes={})
        await trio.sleep(1)
        async with client.link("Odd") as link:
            pending = link.start_call("anything")
            request = await hear(service)
            await service.stream.send_all(
                line % (request["requester"].encode(), request["uid"].encode()) + b"\n"
            )
            with pytest.raises(Exception, match="the answer of the 'Odd' Service is no packet") as caught:
                await pending.wait()
            assert type(caught.value).__name__ == "RemoteError"
            assert lab.manager.statistics().requests.in_flight == 0


async def test_clients_are_told_that_their_service_has_gone(autojump_clock: MockClock) -> None:
    """A client learns at once that its link has ended, and that the lock which it held is lost."""
    async with open_lab() as lab, lab.client() as client:
        scope = await lab.start(Dmm())
        async with client.link("Dmm") as link, link.lock(shared=True):
            assert await link.voltage() == 1.5
            scope.cancel()
            await trio.sleep(0.1)
            assert not link.is_linked
            await lab.start(Dmm())
            with pytest.raises(LockLost, match="the 'Dmm' service has disconnected"):
                await link.voltage()


async def test_a_persistent_client_links_again_at_once(autojump_clock: MockClock) -> None:
    """When a service was restarted, a client that reconnects is linked again soon, with its shared lock."""
    async with open_lab() as lab, lab.persistent_client() as client:
        scope = await lab.start(Dmm())
        async with client.link("Dmm") as link, link.lock(shared=True):
            for _ in range(5):
                scope.cancel()
                await trio.sleep(0.1)
                assert not link.is_linked
                with pytest.raises(ServiceGone, match="and its lock with it"):
                    await link.voltage()
                scope = await lab.start(Dmm())
                await trio.sleep(2)
                assert link.is_linked
                assert await link.voltage() == 1.5
                assert holders(lab) == (client.network_name,)


async def test_a_service_for_those_who_are_linked(autojump_clock: MockClock) -> None:
    """A service may want to be called by nobody who is not linked with it."""
    async with open_lab(Dmm(links_required=True)) as lab, lab.open_raw() as peer, lab.client() as client:
        await introduce(peer)
        await peer.stream.send_all(packets.request("Dmm", "voltage", uid="1"))
        answer = await hear(peer)
        assert answer["error"]
        assert answer["message"].startswith(
            "PermissionError: Mute[lab:2] must be linked with the 'Dmm' service"
        )
        async with client.link("Dmm") as link:
            assert await link.voltage() == 1.5
