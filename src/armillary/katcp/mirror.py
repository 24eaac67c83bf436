"""Sensors of a server, kept in step in a set of our own."""

from __future__ import annotations

import enum
import functools
import logging
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import trio

from armillary._wire.backoff import Backoff
from armillary.errors import ConnectionClosed

from .connection import Connection, PendingRequest
from .informs import InformHub
from .protocol.messages import FailReply, InvalidReply
from .protocol.mirroring import Logger, MirrorEngine, SensorDescription, SyncState, Watcher
from .protocol.readings import Reading, SensorStatus
from .protocol.values import TYPE_BY_NAME, TypeRegistry
from .sensor_set import SensorSet
from .sensors import Sensor

__all__ = ["MirroredSensors", "Mirrors", "SensorChange"]

_logger = logging.getLogger("armillary.katcp.mirror")

# Names in one bulk subscription. More makes one very long line that the server answers with another; fewer
# costs more round trips. 1000 names of 30 bytes are 30 kB.
_BULK = 1000
# Requests on their way at once where a server cannot subscribe in bulk.
_PIPELINED = 100
# Made enums remembered by a mirror.
_ENUMS = 1024


@dataclass(frozen=True, slots=True)
class SensorChange:
    """The latest about one mirrored sensor."""

    name: str
    """The sensor's name here."""
    sensor: Sensor[Any] | None
    """The sensor, or None if it is gone."""
    reading: Reading[Any] | None
    """Its reading, or None if it is gone."""


class MirroredSensors(SensorSet):
    """The sensors of a server as they are now. Read it; what is written to it is overwritten.

    Made by `Client.mirror_sensors`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = SyncState.DISCONNECTED
        """How the mirror stands to the server."""
        self._state_changed = trio.Event()
        # Weak: a reader that is dropped is told no more. A list, because it is looked at for every update.
        self._changes: list[weakref.ref[SensorChanges]] = []

    async def wait_synced(self) -> None:
        """Wait until every wanted sensor is known and subscribed. Its first reading is then there.

        Raises:
            ConnectionClosed: the client was closed, or has lost the only connection that it will ever have.
        """
        await trio.lowlevel.checkpoint()
        while self.state is not SyncState.SYNCED:
            if self.state is SyncState.CLOSED:
                raise ConnectionClosed("the mirror is not in step any more: its client is closed")
            await self._state_changed.wait()

    async def wait_for(
        self, name: str, condition: Callable[[Reading[Any]], bool] = lambda reading: True
    ) -> Reading[Any]:
        """Wait until a sensor is there, reachable, and has a reading that meets a condition.

        Looks at the present reading first, so that nothing is missed between looking and waiting. A reading
        that lasts so shortly that the next one overtakes it may not be seen.

        Args:
            name: the sensor's name here.
            condition: asked for the latest reading after each change; any reading will do if none is given.

        Returns:
            The reading that met the condition.

        Raises:
            ConnectionClosed: as for `wait_synced`.
        """
        changes = self.changes()
        while True:
            sensor = self.get(name)
            # A sensor that was just found is unknown until its first reading is there.
            if (
                sensor is not None
                and sensor.status is not SensorStatus.UNREACHABLE
                and (self.state is SyncState.SYNCED or sensor.status is not SensorStatus.UNKNOWN)
                and condition(sensor.reading)
            ):
                await trio.lowlevel.checkpoint()
                return sensor.reading
            try:
                await anext(changes)
            except StopAsyncIteration:
                raise ConnectionClosed("the mirror is not in step any more: its client is closed") from None

    def changes(self) -> SensorChanges:
        """Iterate, with ``async for``, over what changes from now on.

        A reader that is slower than the sensors gets the latest of each, not every update: what waits is
        never more than the number of sensors. The loop ends when the mirror's block is left, or when its
        client has lost the only connection that it will ever have.
        """
        changes = SensorChanges()
        if self.state is SyncState.CLOSED:
            changes.close()
        self._changes.append(weakref.ref(changes, self._changes.remove))
        return changes

    def _set_state(self, state: SyncState) -> None:
        self.state = state
        changed, self._state_changed = self._state_changed, trio.Event()
        changed.set()
        if state is SyncState.CLOSED:
            self._end_changes()

    def _tell(self, name: str, sensor: Sensor[Any] | None) -> None:
        if self._changes:
            change = SensorChange(name, sensor, None if sensor is None else sensor.reading)
            for changes in self._readers():
                changes.put(change)

    def _end_changes(self) -> None:
        for changes in self._readers():
            changes.close()

    def _readers(self) -> Iterator[SensorChanges]:
        for reference in tuple(self._changes):
            changes = reference()
            if changes is not None:
                yield changes


class _Mirror:
    """Fills one `MirroredSensors` with what the engine tells: a `protocol.mirroring.Watcher`."""

    def __init__(
        self,
        types: TypeRegistry,
        filter: Callable[[SensorDescription], bool] | None,
        rename: Callable[[str], str | Sequence[str]] | None,
        strategy: str | Callable[[SensorDescription], str],
        enum_types: tuple[type[enum.Enum], ...],
    ) -> None:
        self.sensors = MirroredSensors()
        self._types = types
        self._filter = filter
        self._rename = rename
        self._strategy = strategy
        self._mirrored: dict[str, tuple[tuple[Sensor[Any], Callable[[bytes], Any]], ...]] = {}
        self._make_enum = functools.lru_cache(_ENUMS)(functools.partial(find_enum, types, enum_types))

    def filter(self, sensor: SensorDescription) -> bool:
        return self._filter is None or self._filter(sensor)

    def strategy(self, sensor: SensorDescription) -> str:
        return self._strategy if isinstance(self._strategy, str) else self._strategy(sensor)

    def sensor_added(self, sensor: SensorDescription) -> None:
        try:
            sensor_type = self._type_of(sensor)
        except ValueError:
            _logger.warning("Type %s is not recognised, skipping sensor %s", sensor.type_name, sensor.name)
            self.sensor_removed(sensor.name)
            return
        renamed = sensor.name if self._rename is None else self._rename(sensor.name)
        names = [renamed] if isinstance(renamed, str) else list(renamed)
        decode = self._types.get_decoder(sensor_type)
        before = self._mirrored.get(sensor.name, ())
        self._mirrored[sensor.name] = tuple(
            [
                (Sensor(sensor_type, name, sensor.description, sensor.units, types=self._types), decode)
                for name in names
            ]
        )
        for stale, _ in before:
            if stale.name not in names:
                self._discard(stale)
        for mirrored, _ in self._mirrored[sensor.name]:
            self.sensors.add(mirrored)
            self.sensors._tell(mirrored.name, mirrored)

    def sensor_removed(self, name: str) -> None:
        for mirrored, _ in self._mirrored.pop(name, ()):
            self._discard(mirrored)

    def sensor_updated(self, name: str, value: bytes, status: SensorStatus, timestamp: float) -> None:
        for mirrored, decode in self._mirrored.get(name, ()):
            try:
                decoded = decode(value)
            except ValueError as error:
                _logger.warning(
                    "Sensor %s: value %r does not match type %s: %s", name, value, mirrored.type_name, error
                )
                return
            mirrored.set_reading(Reading(timestamp, status, decoded))
            self.sensors._tell(mirrored.name, mirrored)

    def state_updated(self, state: SyncState) -> None:
        self.sensors._set_state(state)
        if state is SyncState.DISCONNECTED:
            now = time.time()
            for sensor in self.sensors.values():
                sensor.set_reading(Reading(now, SensorStatus.UNREACHABLE, sensor.value))
                self.sensors._tell(sensor.name, sensor)

    def _discard(self, sensor: Sensor[Any]) -> None:
        self.sensors.discard(sensor)
        self.sensors._tell(sensor.name, None)

    def _type_of(self, sensor: SensorDescription) -> type:
        if sensor.type_name == "discrete":
            return self._make_enum(sensor.parameters)
        if sensor.type_name not in TYPE_BY_NAME:
            raise ValueError(sensor.type_name)
        return TYPE_BY_NAME[sensor.type_name]


class SensorChanges:
    """The latest of each sensor that one reader has not seen. Made by `MirroredSensors.changes`."""

    def __init__(self) -> None:
        self._latest: dict[str, SensorChange] = {}
        self._news = trio.Event()
        self._is_closed = False

    def put(self, change: SensorChange) -> None:
        """Remember a change instead of an older one of the same sensor."""
        self._latest.pop(change.name, None)
        self._latest[change.name] = change
        self._news.set()

    def close(self) -> None:
        """No more changes will come."""
        self._is_closed = True
        self._news.set()

    def __aiter__(self) -> SensorChanges:
        return self

    async def __anext__(self) -> SensorChange:
        await trio.lowlevel.checkpoint()
        while not self._latest:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = trio.Event()
            await self._news.wait()
        return self._latest.pop(next(iter(self._latest)))


def find_enum(
    types: TypeRegistry, known: tuple[type[enum.Enum], ...], values: tuple[bytes, ...]
) -> type[enum.Enum]:
    """An enum whose members have these texts, in this order: one of `known`, or a new one."""
    for candidate in known:
        encode = types.get_encoder(candidate)
        if tuple(encode(member) for member in candidate) == values:
            return candidate

    if not values:
        raise ValueError("discrete")
    members = [(f"ENUM{index}", value) for index, value in enumerate(values)]
    return cast("type[enum.Enum]", _Discrete("discrete", members))  # type: ignore[call-arg]


class _Discrete(enum.Enum):
    """Values of a sensor that only its server knows the meaning of."""

    @property
    def katcp_value(self) -> bytes:
        return cast(bytes, self.value)


class Mirrors:
    """All mirrors of one client, and the task that asks the server for what they need.

    Args:
        hub: where the client's informs arrive.
        logger: gets what is odd about the server's sensors, and what watchers raise.
    """

    def __init__(self, hub: InformHub, logger: Logger = _logger) -> None:
        self._hub = hub
        self._logger = logger
        self.engine = MirrorEngine(logger)
        self._wake = trio.Event()

    @asynccontextmanager
    async def open(
        self,
        types: TypeRegistry,
        filter: Callable[[SensorDescription], bool] | None,
        rename: Callable[[str], str | Sequence[str]] | None,
        strategy: str | Callable[[SensorDescription], str],
        enum_types: tuple[type[enum.Enum], ...],
    ) -> AsyncIterator[MirroredSensors]:
        """One mirror, for the length of a block."""
        mirror = _Mirror(types, filter, rename, strategy, enum_types)
        self.add(mirror)
        try:
            yield mirror.sensors
        finally:
            self.remove(mirror)
            mirror.sensors._end_changes()

    def add(self, watcher: Watcher) -> None:
        """Tell a watcher of the server's sensors until `remove`."""
        self.engine.add_watcher(watcher)
        self._wake.set()

    def remove(self, watcher: Watcher) -> None:
        """Undo `add`. Sensors that nobody else wants are unsubscribed."""
        self.engine.remove_watcher(watcher)
        self._wake.set()

    def close(self) -> None:
        """The client is closed."""
        self.engine.closed()

    def begin(self) -> None:
        """There is a connection."""
        self._hub.subscribe("sensor-status", self, lambda wire: self._status_received(wire.arguments))
        self._hub.subscribe("interface-changed", self, lambda wire: self._interface_changed(wire.arguments))
        self.engine.connected()

    def end(self) -> None:
        """It has begun to end; silent if there was none."""
        self._hub.unsubscribe("sensor-status", self)
        self._hub.unsubscribe("interface-changed", self)
        self.engine.disconnected()

    async def run(self, connection: Connection) -> None:
        """Keep the engine in step with the server, from `begin` until the connection ends."""
        try:
            await self._work(connection)
        except ConnectionClosed as error:
            self._logger.debug("mirroring stopped: %s", error)

    def _status_received(self, arguments: list[bytes]) -> None:
        if not self.engine.is_wanted:
            return  # nobody mirrors: the client's user samples by hand
        self.engine.status_received(arguments)
        if self.engine.needs_work:
            self._wake.set()

    def _interface_changed(self, arguments: list[bytes]) -> None:
        self.engine.interface_changed(arguments)
        self._wake.set()

    async def _work(self, connection: Connection) -> None:
        engine = self.engine
        backoff = Backoff(random.uniform)
        while True:
            self._wake = trio.Event()
            if engine.is_wanted and engine.needs_work:
                try:
                    if engine.is_list_stale:
                        await self._list(connection)
                    await self._subscribe(connection)
                    if not engine.is_list_stale:
                        await self._set_strategy(connection, engine.to_unsubscribe(), "none")
                except (FailReply, InvalidReply) as error:
                    # A server that refuses its own list is asked again later, not at once for ever.
                    self._logger.warning("the server refused to list its sensors: %s", error)
                    engine.is_list_stale = True
                    await trio.sleep(backoff.next())
                else:
                    backoff.reset()
                if engine.needs_work:
                    continue
            if engine.is_wanted:
                engine.work_done()
            if connection.reason is not None:
                raise ConnectionClosed("the connection has ended")
            await self._wake.wait()

    async def _list(self, connection: Connection) -> None:
        self.engine.list_requested()
        pending = await _start(connection, "sensor-list").settle()
        pending.check()  # raises what the server refused with
        self.engine.list_received(pending.informs)

    async def _subscribe(self, connection: Connection) -> None:
        for strategy, names in self.engine.to_subscribe().items():
            await self._set_strategy(connection, names, strategy)

    async def _set_strategy(self, connection: Connection, names: list[str], strategy: str) -> None:
        """Set a strategy for many sensors: in bulk where the server can, else with many requests at once."""
        if len(names) < 2 or "B" not in connection.flags:
            await self._set_singly(connection, names, strategy)
            return
        bulks = [names[start : start + _BULK] for start in range(0, len(names), _BULK)]
        asked = []
        for some in bulks:
            self.engine.subscribing(some)
            asked.append(_start(connection, "sensor-sampling", ",".join(some), *strategy.split()))
        for some, request in zip(bulks, asked, strict=True):
            pending = await request.settle()
            try:
                pending.check()
            except (FailReply, InvalidReply):
                await self._set_singly(connection, some, strategy)
            else:
                self.engine.subscription_set(some, subscribed=strategy != "none")

    async def _set_singly(self, connection: Connection, names: list[str], strategy: str) -> None:
        for start in range(0, len(names), _PIPELINED):
            some = names[start : start + _PIPELINED]
            self.engine.subscribing(some)
            asked = [_start(connection, "sensor-sampling", name, *strategy.split()) for name in some]
            for name, request in zip(some, asked, strict=True):
                pending = await request.settle()
                try:
                    pending.check()
                except (FailReply, InvalidReply) as error:
                    self._logger.warning("Failed to set strategy on %s to %s: %s", name, strategy, error)
                # Refused counts as done: asking again would be refused again.
                self.engine.subscription_set([name], subscribed=strategy != "none")


def _start(connection: Connection, name: str, *arguments: object) -> PendingRequest:
    return PendingRequest(connection, connection.start(name, arguments))
