"""The mirroring engine by itself."""

from __future__ import annotations

from typing import Any

from armillary.katcp import SensorDescription, SensorStatus, SyncState
from armillary.katcp.protocol.messages import MessageType, WireMessage
from armillary.katcp.protocol.mirroring import MirrorEngine


class Recorder:
    """A watcher that writes down everything, and may do something in the midst of it."""

    def __init__(self, engine: MirrorEngine) -> None:
        self.engine = engine
        self.told: list[str] = []
        self.inside: Any = None
        self.unwanted: set[str] = set()

    def filter(self, sensor: SensorDescription) -> bool:
        self.told.append(f"filter {sensor.name}")
        return sensor.name not in self.unwanted

    def strategy(self, sensor: SensorDescription) -> str:
        return "auto"

    def sensor_added(self, sensor: SensorDescription) -> None:
        self.told.append(f"add {sensor.name} {sensor.type_name}")
        if self.inside is not None:
            inside, self.inside = self.inside, None
            inside()

    def sensor_removed(self, name: str) -> None:
        self.told.append(f"remove {name}")

    def sensor_updated(self, name: str, value: bytes, status: SensorStatus, timestamp: float) -> None:
        self.told.append(f"update {name} {value.decode()}")

    def batch_start(self) -> None:
        self.told.append("start")

    def batch_stop(self) -> None:
        self.told.append("stop")

    def state_updated(self, state: SyncState) -> None:
        self.told.append(state.name)

    def heard(self) -> str:
        told, self.told = self.told, []
        return " | ".join(told)


def listed(**types: str) -> list[WireMessage]:
    return [
        WireMessage(MessageType.INFORM, b"sensor-list", 1, [name.encode(), b"", b"", type_.encode()])
        for name, type_ in types.items()
    ]


def synced(engine: MirrorEngine) -> None:
    """Do what the engine asks until nothing is left."""
    for names in engine.to_subscribe().values():
        engine.subscribing(names)
        for name in names:
            engine.status_received([b"1", b"1", name.encode(), b"nominal", b"5"])
        engine.subscription_set(names, subscribed=True)
    engine.subscription_set(engine.to_unsubscribe(), subscribed=False)
    engine.work_done()


def test_order_of_calls() -> None:
    """A watcher added before connecting hears of the state, the sensors, their values, and the end."""
    engine = MirrorEngine()
    watcher = Recorder(engine)
    engine.add_watcher(watcher)
    engine.connected()
    engine.list_requested()
    engine.list_received(listed(a="integer", b="float"))
    synced(engine)

    assert (
        "start | stop | SYNCING | start | filter a | add a integer | filter b | add b float | stop"
        " | start | update a 5 | stop | start | update b 5 | stop | SYNCED"
    ) == watcher.heard()


def test_changed_description() -> None:
    """A sensor that changes is added again without being removed, unless it is not wanted any more."""
    engine = MirrorEngine()
    watcher = Recorder(engine)
    engine.add_watcher(watcher)
    engine.connected()
    engine.list_requested()
    engine.list_received(listed(a="integer", b="integer", c="integer"))
    synced(engine)
    watcher.heard()

    watcher.unwanted = {"b"}
    engine.interface_changed()
    engine.list_requested()
    engine.list_received(listed(a="float", b="float", d="integer"))
    assert (
        "SYNCING | start | filter a | add a float | filter b | remove b | filter d | add d integer"
        " | remove c | stop"
    ) == watcher.heard()
    assert ["b"] == engine.to_unsubscribe()
    assert {"auto": ["a", "d"]} == engine.to_subscribe()


def test_late_watcher() -> None:
    """A watcher that comes late hears of the state, and of all that is known in one batch."""
    engine = MirrorEngine()
    first = Recorder(engine)
    engine.add_watcher(first)
    engine.connected()
    engine.list_requested()
    engine.list_received(listed(a="integer"))
    synced(engine)

    late = Recorder(engine)
    engine.add_watcher(late)
    engine.add_watcher(late)
    assert "SYNCED | start | filter a | add a integer | update a 5 | stop" == late.heard()
    assert SyncState.SYNCED is engine.state


def test_watcher_added_inside_a_callback() -> None:
    """A watcher may be added, or removed, while another is being told."""
    engine = MirrorEngine()
    first, second = Recorder(engine), Recorder(engine)

    def exchange() -> None:
        engine.add_watcher(second)
        engine.remove_watcher(first)

    first.inside = exchange
    engine.add_watcher(first)
    engine.connected()
    engine.list_requested()
    engine.list_received(listed(a="integer", b="integer"))
    synced(engine)

    assert "SYNCED" == second.told[-1]
    for name in ("a", "b"):
        assert f"add {name} integer" in second.told
        assert f"update {name} 5" in second.told
    assert not any("update" in told for told in first.told)


def test_nobody_wants_a_sensor_any_more() -> None:
    """When the last watcher goes, its sensors are to be unsubscribed, and then the engine is synced again."""
    engine = MirrorEngine()
    watcher = Recorder(engine)
    engine.add_watcher(watcher)
    engine.connected()
    engine.list_requested()
    engine.list_received(listed(a="integer"))
    synced(engine)
    engine.remove_watcher(watcher)

    assert (SyncState.SYNCING, ["a"]) == (engine.state, engine.to_unsubscribe())
    synced(engine)
    assert SyncState.SYNCED is engine.state
    engine.status_received([b"2", b"1", b"a", b"nominal", b"6"])
    assert ["a"] == engine.to_unsubscribe()
