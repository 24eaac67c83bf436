"""Keep in step with a server's sensors: what it has, who wants them, and what is subscribed.

Pure: the engine is told what happened on the connection and says what to ask next. Invariants:

1. A sensor *needs work* if its subscription is unknown, if it is subscribed and nobody wants it, or if it is
   not subscribed and somebody does.
2. The engine is `SYNCED` exactly when it is connected, its list is fresh, and no sensor needs work.
3. A watcher hears of a sensor only between its ``sensor_added`` and its ``sensor_removed``.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .messages import WireMessage
from .readings import STATUS_BY_TEXT, SensorStatus

__all__ = ["BatchWatcher", "MirrorEngine", "SensorDescription", "SyncState", "Watcher"]

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

_logger = logging.getLogger("armillary.katcp.mirror")


class SyncState(enum.Enum):
    """How a mirror stands to its server."""

    DISCONNECTED = 1
    """There is no connection."""
    SYNCING = 2
    """Connected; the list or some subscriptions are not up to date yet."""
    SYNCED = 3
    """Every wanted sensor is known and subscribed."""
    CLOSED = 4
    """The client's block was left, or its only connection has ended."""


class SensorDescription(NamedTuple):
    """What ``#sensor-list`` says of a sensor."""

    name: str
    description: str
    units: str
    type_name: str
    parameters: tuple[bytes, ...]


class Watcher(Protocol):
    """Somebody who wants to be told of a server's sensors. Exceptions of these methods are logged."""

    def filter(self, sensor: SensorDescription) -> bool:
        """Whether to be told of this sensor."""

    def strategy(self, sensor: SensorDescription) -> str:
        """How to sample it: a strategy and its parameters, with spaces between."""

    def sensor_added(self, sensor: SensorDescription) -> None:
        """The server has this sensor, or has changed its description."""

    def sensor_removed(self, name: str) -> None:
        """The server does not have it any more, or `filter` does not want its new description."""

    def sensor_updated(self, name: str, value: bytes, status: SensorStatus, timestamp: float) -> None:
        """It has this reading now."""

    def state_updated(self, state: SyncState) -> None:
        """The mirror's state has changed."""


@runtime_checkable
class BatchWatcher(Watcher, Protocol):
    """A watcher that also wants to know which changes came together."""

    def batch_start(self) -> None:
        """Changes follow."""

    def batch_stop(self) -> None:
        """The changes that came together are complete."""


class _Subscription(enum.Enum):
    NO = enum.auto()
    YES = enum.auto()
    UNKNOWN = enum.auto()


class _Known:
    """One sensor of the server."""

    __slots__ = ("description", "reading", "strategy", "subscribed", "watchers")

    def __init__(self, description: SensorDescription) -> None:
        self.description = description
        # A tuple, because most sensors have the same watchers and can share it.
        self.watchers: tuple[Watcher, ...] = ()
        self.subscribed = _Subscription.NO
        self.strategy = "auto"
        self.reading: tuple[bytes, SensorStatus, float] | None = None


class MirrorEngine:
    """What one client knows of its server's sensors.

    Args:
        logger: gets what is odd about them, and what watchers raise.
    """

    def __init__(self, logger: Logger = _logger) -> None:
        self._logger = logger
        self._known: dict[str, _Known] = {}
        self._work: dict[str, None] = {}
        self._watchers: tuple[Watcher, ...] = ()
        self._batch_watchers: tuple[BatchWatcher, ...] = ()
        self._by_wire_name: dict[bytes, _Known] = {}
        self.state = SyncState.DISCONNECTED
        self.is_list_stale = True
        """Whether ``?sensor-list`` has to be asked."""

    # -- what happens -------------------------------------------------------------------------------------

    def connected(self) -> None:
        """There is a new connection: nothing is subscribed on it."""
        self._forget_subscriptions()
        self.is_list_stale = True
        self._set_state(SyncState.SYNCING)

    def disconnected(self) -> None:
        """The connection is gone. What was known stays known."""
        if self.state is not SyncState.CLOSED:
            self._forget_subscriptions()
            self._set_state(SyncState.DISCONNECTED)

    def closed(self) -> None:
        """The client is closed."""
        self._set_state(SyncState.CLOSED)

    def interface_changed(self, arguments: Sequence[bytes] = ()) -> None:
        """The server said ``#interface-changed``, with these arguments."""
        if self.state in (SyncState.SYNCING, SyncState.SYNCED):
            self.is_list_stale = True
            if len(arguments) == 3 and arguments[0] == b"sensor":
                known = self._by_wire_name.get(arguments[1])
                if known is not None and known.subscribed is _Subscription.YES:
                    # Perhaps replaced by its like: then nothing in the list says that nobody is subscribed.
                    known.subscribed = _Subscription.UNKNOWN
                    self._review(known)
            self._set_state(SyncState.SYNCING)

    def add_watcher(self, watcher: Watcher) -> None:
        """Tell `watcher` of what is known, and of everything from now on."""
        if watcher in self._watchers:
            return
        self._watchers = (*self._watchers, watcher)
        if isinstance(watcher, BatchWatcher):
            self._batch_watchers = (*self._batch_watchers, watcher)
        isolated = self._isolated
        if self.state is not SyncState.DISCONNECTED:
            isolated(watcher.state_updated, self.state)
        with _Batch(isolated, (watcher,) if isinstance(watcher, BatchWatcher) else ()):
            for known in tuple(self._known.values()):
                if isolated(watcher.filter, known.description):
                    known.watchers = (*known.watchers, watcher)
                    isolated(watcher.sensor_added, known.description)
                    self._review(known)
                    if known.reading is not None:
                        isolated(watcher.sensor_updated, known.description.name, *known.reading)
        self._work_may_have_come()

    def remove_watcher(self, watcher: Watcher) -> None:
        """Tell `watcher` nothing more."""
        if watcher not in self._watchers:
            return
        self._watchers = _without(self._watchers, watcher)
        self._batch_watchers = tuple(other for other in self._batch_watchers if other is not watcher)
        for known in self._known.values():
            if watcher in known.watchers:
                known.watchers = _without(known.watchers, watcher)
                self._review(known)
        self._work_may_have_come()

    def list_requested(self) -> None:
        """``?sensor-list`` is on its way: what changes from now on makes its answer stale again."""
        self.is_list_stale = False

    def list_received(self, informs: Iterable[WireMessage]) -> None:
        """The answer to ``?sensor-list`` is there."""
        gone = dict(self._known)
        with _Batch(self._isolated, self._batch_watchers):
            for inform in informs:
                description = _parse_description(inform.arguments)
                if description is None:
                    self._logger.warning("ignored a malformed sensor description: %r", inform.arguments)
                    continue
                gone.pop(description.name, None)
                self._describe(description)
            for name, known in gone.items():
                del self._known[name]
                self._by_wire_name.pop(name.encode("utf-8"), None)
                self._work.pop(name, None)
                for watcher in known.watchers:
                    self._isolated(watcher.sensor_removed, name)

    def status_received(self, arguments: list[bytes]) -> None:
        """A ``#sensor-status`` is there. What in it makes no sense is ignored, with a warning."""
        readings = _parse_status(arguments)
        if readings is None:
            self._logger.warning("ignored a malformed sensor status: %r", arguments)
        elif self._batch_watchers:
            with _Batch(self._isolated, self._batch_watchers):
                self._take_readings(*readings)
        else:
            self._take_readings(*readings)

    # -- what to do ---------------------------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """Whether anybody watches, or anything is left of somebody who did."""
        return bool(self._watchers or self._work)

    @property
    def needs_work(self) -> bool:
        """Whether the server has to be asked for something."""
        return self.is_list_stale or bool(self._work)

    def to_subscribe(self) -> dict[str, list[str]]:
        """Names of sensors to subscribe, sorted, by strategy."""
        wanted: dict[str, list[str]] = {}
        for name in sorted(self._work):
            known = self._known[name]
            if known.watchers and known.subscribed is not _Subscription.YES:
                known.strategy = self._strategy(known)
                wanted.setdefault(known.strategy, []).append(name)
        return wanted

    def to_unsubscribe(self) -> list[str]:
        """Names of sensors to unsubscribe, sorted."""
        return [
            name
            for name in sorted(self._work)
            if not self._known[name].watchers and self._known[name].subscribed is not _Subscription.NO
        ]

    def subscribing(self, names: Iterable[str]) -> None:
        """A subscription of these sensors is on its way: nobody knows whether it holds."""
        for name in names:
            known = self._known.get(name)
            if known is not None:
                known.subscribed = _Subscription.UNKNOWN
                self._review(known)

    def subscription_set(self, names: Iterable[str], *, subscribed: bool) -> None:
        """The server has answered for these sensors, with ok or with no."""
        for name in names:
            known = self._known.get(name)
            if known is not None:
                known.subscribed = _Subscription.YES if subscribed else _Subscription.NO
                if not subscribed:
                    known.reading = None
                self._review(known)

    def work_done(self) -> None:
        """Nothing was left to do."""
        if self.state is SyncState.SYNCING and not self.needs_work:
            self._set_state(SyncState.SYNCED)

    # -- inside -------------------------------------------------------------------------------------------

    def _take_readings(self, timestamp: float, words: list[bytes]) -> None:
        """Note readings, given as name, status and value of each, and tell those who want them."""
        for index in range(0, len(words), 3):
            raw_name, raw_status, value = words[index : index + 3]
            known = self._by_wire_name.get(raw_name)
            status = STATUS_BY_TEXT.get(raw_status)
            if known is None or status is None:
                self._logger.warning("ignored status %r of sensor %r", raw_status, raw_name)
                continue
            if known.subscribed is _Subscription.NO:
                known.subscribed = _Subscription.YES
                self._review(known)
            known.reading = (value, status, timestamp)
            name = known.description.name
            for watcher in known.watchers:
                try:  # here and not by `_isolated`, because nothing happens as often
                    watcher.sensor_updated(name, value, status, timestamp)
                except Exception:
                    self._logger.exception("error in a sensor watcher")

    def _describe(self, description: SensorDescription) -> None:
        known = self._known.get(description.name)
        if known is None:
            known = self._known[description.name] = _Known(description)
            self._by_wire_name[description.name.encode("utf-8")] = known
        elif known.description == description:
            return
        else:
            known.description = description
            known.subscribed = _Subscription.UNKNOWN
            known.reading = None
        before = known.watchers
        isolated = self._isolated
        wanting = tuple([watcher for watcher in self._watchers if isolated(watcher.filter, description)])
        known.watchers = self._watchers if len(wanting) == len(self._watchers) else wanting
        for watcher in self._watchers:
            if watcher in known.watchers:
                isolated(watcher.sensor_added, description)
            elif watcher in before:
                isolated(watcher.sensor_removed, description.name)
        self._review(known)

    def _strategy(self, known: _Known) -> str:
        """How to sample a sensor: as the first of those who want it says."""
        asked = [self._isolated(watcher.strategy, known.description) or "auto" for watcher in known.watchers]
        if len(asked) > 1 and len(set(asked)) > 1:
            self._logger.warning(
                "sensor %s is sampled with %r, though some asked for %r",
                known.description.name,
                asked[0],
                asked[1:],
            )
        return asked[0]

    def _review(self, known: _Known) -> None:
        """Note whether a sensor needs work."""
        settled = known.subscribed is (_Subscription.YES if known.watchers else _Subscription.NO)
        if settled:
            self._work.pop(known.description.name, None)
        else:
            self._work[known.description.name] = None

    def _forget_subscriptions(self) -> None:
        for known in self._known.values():
            known.subscribed = _Subscription.NO
            known.reading = None
            self._review(known)

    def _work_may_have_come(self) -> None:
        if self.state is SyncState.SYNCED and self.needs_work:
            self._set_state(SyncState.SYNCING)

    def _set_state(self, state: SyncState) -> None:
        if state is not self.state:
            self.state = state
            for watcher in self._watchers:
                self._isolated(watcher.state_updated, state)

    def _isolated(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a watcher; what it raises is logged, so that it disturbs nobody and is not tried again."""
        try:
            return function(*arguments)
        except Exception:
            self._logger.exception("error in a sensor watcher")
            return None


class _Batch:
    """Between ``batch_start`` and ``batch_stop`` of these watchers."""

    __slots__ = ("_isolated", "_watchers")

    def __init__(self, isolated: Callable[..., Any], watchers: tuple[BatchWatcher, ...]) -> None:
        self._isolated = isolated
        self._watchers = watchers

    def __enter__(self) -> None:
        for watcher in self._watchers:
            self._isolated(watcher.batch_start)

    def __exit__(self, *exc_info: object) -> None:
        for watcher in self._watchers:
            self._isolated(watcher.batch_stop)


def _without(watchers: tuple[Watcher, ...], watcher: Watcher) -> tuple[Watcher, ...]:
    return tuple(other for other in watchers if other is not watcher)


def _parse_description(arguments: list[bytes]) -> SensorDescription | None:
    if len(arguments) < 4:
        return None
    try:
        name, description, units, type_name = [argument.decode("utf-8") for argument in arguments[:4]]
    except UnicodeDecodeError:
        return None
    return SensorDescription(name, description, units, type_name, tuple(arguments[4:]))


def _parse_status(arguments: list[bytes]) -> tuple[float, list[bytes]] | None:
    """The timestamp, and name, status and value of each reading."""
    try:
        timestamp = float(arguments[0])
        count = int(arguments[1])
    except (IndexError, ValueError):
        return None
    words = arguments[2:]
    return (timestamp, words) if count >= 0 and len(words) == 3 * count else None
