"""Sensors: a typed value with a status and a time, and those who watch it."""

from __future__ import annotations

import enum
import inspect
import time
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from .protocol.messages import escape, line_tail
from .protocol.readings import STATUS_TEXT, Reading, SensorStatus
from .protocol.sampling import Sampling, Strategy
from .protocol.values import STANDARD_TYPES, Timestamp, TypeRegistry

__all__ = ["DeltaObserver", "Observer", "Sensor"]

T = TypeVar("T")
Observer = Callable[["Sensor[Any]", Reading[Any]], None]
DeltaObserver = Callable[..., None]  # (sensor, reading, *, old_reading)


def _always_nominal(value: object) -> SensorStatus:
    return SensorStatus.NOMINAL


class Sensor(Generic[T]):
    """A typed value with a status and a time, and those who watch it.

    Args:
        sensor_type: a class with a KATCP type (int, float, bool, str, bytes, an enum, `Timestamp`,
            `Address`, or one registered in `types`).
        name: its name. By convention lower case, with dots between levels.
        description: one line for people.
        units: the unit of the value, empty if it has none.
        default: the first value; the type's own default if None.
        initial_status: the status of the first reading. `status_func` is not asked for it.
        status_func: gives the status of a value that is set without one.
        auto_strategy: what ``auto`` means for this sensor; every update if None.
        auto_strategy_parameters: its parameters, as numbers.
        types: where `sensor_type` is looked up.

    Raises:
        TypeError: the type is not registered, or `default` is not of it.
        ValueError: the automatic strategy's parameters make no sense.
    """

    __slots__ = (
        "__weakref__",
        "_delta_observers",
        "_observers",
        "_reading",
        "auto_strategy",
        "auto_strategy_parameters",
        "description",
        "name",
        "status_func",
        "stype",
        "types",
        "units",
    )

    Status: ClassVar[type[SensorStatus]] = SensorStatus

    def __init__(
        self,
        sensor_type: type[T],
        name: str,
        description: str = "",
        units: str = "",
        default: T | None = None,
        initial_status: SensorStatus = SensorStatus.UNKNOWN,
        *,
        status_func: Callable[[T], SensorStatus] = _always_nominal,
        auto_strategy: Strategy | None = None,
        auto_strategy_parameters: tuple[float, ...] = (),
        types: TypeRegistry = STANDARD_TYPES,
    ) -> None:
        self.types = types
        self.stype = sensor_type
        self.name = name
        self.description = description
        self.units = units
        self.status_func = status_func
        self.auto_strategy = Strategy.AUTO if auto_strategy is None else auto_strategy
        self.auto_strategy_parameters = tuple(auto_strategy_parameters)
        if auto_strategy is not None or self.auto_strategy_parameters:
            Sampling.of(self.auto_strategy, self.auto_strategy_parameters)  # raises for what makes no sense
        # None until somebody watches: most sensors of a large device are watched by few or by nobody.
        self._observers: dict[Observer, None] | None = None
        self._delta_observers: dict[DeltaObserver, None] | None = None
        info = types.get(sensor_type)
        value = info.default(sensor_type) if default is None else self._coerce(default)
        self._reading: Reading[T] = Reading(self.now(), initial_status, value)

    @staticmethod
    def now() -> float:
        """The time that a reading gets if none is given, in seconds since 1970-01-01 UTC."""
        return time.time()

    @property
    def type_name(self) -> str:
        """The KATCP name of the sensor's type."""
        return self.types.get(self.stype).name

    @property
    def params(self) -> list[bytes]:
        """What ``#sensor-list`` tells beyond the type: the values of a discrete sensor, in order."""
        if not issubclass(self.stype, enum.Enum):
            return []
        encode = self.types.get_encoder(self.stype)
        return [encode(member) for member in self.stype]

    @property
    def reading(self) -> Reading[T]:
        return self._reading

    @property
    def timestamp(self) -> float:
        return self._reading.timestamp

    @property
    def status(self) -> SensorStatus:
        return self._reading.status

    @property
    def value(self) -> T:
        """The value. Assigning to it is `set_value` with no status and no timestamp."""
        return self._reading.value

    @value.setter
    def value(self, value: T) -> None:
        self.set_value(value)

    def set_value(self, value: T, status: SensorStatus | None = None, timestamp: float | None = None) -> None:
        """Set the reading and tell the observers.

        Args:
            value: of the sensor's type, or of a wider one that converts without loss of meaning: any real
                number for a float or timestamp, any integer for an int.
            status: the status; ``status_func(value)`` if None.
            timestamp: when it was so, in seconds since 1970-01-01 UTC; `now` if None.

        Raises:
            TypeError: the value is not of the sensor's type; nothing is changed.
            Exception: what an observer raised, after all others were told.
        """
        if type(value) is not self.stype:
            value = self._coerce(value)
        if timestamp is None:
            timestamp = self.now()
        if status is None:
            status = self.status_func(value)
        self.set_reading(Reading(timestamp, status, value))

    def set_reading(self, reading: Reading[T]) -> None:
        """Set a reading whose value is known to be of the sensor's type, and tell the observers."""
        old_reading = self._reading
        self._reading = reading
        self.notify(reading, old_reading)

    def attach(self, observer: Observer | DeltaObserver) -> None:
        """Tell `observer` of every update from now on; attaching twice is attaching once.

        It is called as ``observer(sensor, reading)``, or, if it has a parameter of the name `old_reading`,
        as ``observer(sensor, reading, old_reading=...)`` after those that do not. An observer may attach
        and detach others, from the next update on. One that raises does not keep the update from the others.
        """
        if "old_reading" in inspect.signature(observer).parameters:
            if self._delta_observers is None:
                self._delta_observers = {}
            self._delta_observers[observer] = None
        else:
            self.attach_classic(observer)

    def attach_classic(self, observer: Observer) -> None:
        """As `attach`, for an observer known to take ``(sensor, reading)``: nothing is inspected."""
        if self._observers is None:
            self._observers = {}
        self._observers[observer] = None

    def detach(self, observer: Observer | DeltaObserver) -> None:
        """Do not tell `observer` of updates any more. Silent if it was not attached."""
        if self._observers is not None:
            self._observers.pop(observer, None)
            self._observers = self._observers or None
        if self._delta_observers is not None:
            self._delta_observers.pop(observer, None)
            self._delta_observers = self._delta_observers or None

    def notify(self, reading: Reading[T], old_reading: Reading[T]) -> None:
        """Tell the observers of `reading`, as if it had just been set.

        Raises:
            Exception: the first error that an observer raised, after all of them were told.
        """
        if self._observers is None and self._delta_observers is None:
            return
        failure: Exception | None = None
        # Both taken before anybody is told: an aggregate to which an observer adds this sensor has counted
        # the new reading already, and must not be told to count it again.
        observers = tuple(self._observers or ())
        delta_observers = tuple(self._delta_observers or ())
        for observer in observers:
            try:
                observer(self, reading)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been told
                failure = failure or error
        for delta_observer in delta_observers:
            try:
                delta_observer(self, reading, old_reading=old_reading)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been told
                failure = failure or error
        if failure is not None:
            raise failure

    def encoded_reading(self, reading: Reading[T] | None = None) -> bytes:
        """The bytes of a reading after the message name: `` timestamp 1 name status value``.

        Put together here, because no other message is sent as often; the codec escapes what has to be.

        Args:
            reading: the present one if None.
        """
        if reading is None:
            reading = self._reading
        # As the type that ``#sensor-list`` announces: a member of an IntEnum in an integer sensor is a number
        # on the wire.
        value = self.types.get_encoder(self.stype)(reading.value)
        return b" %b 1 %b %b %b\n" % (
            repr(float(reading.timestamp)).encode("ascii"),
            escape(self.name.encode("utf-8")),
            STATUS_TEXT[reading.status],
            escape(value),
        )

    def encoded_description(self) -> bytes:
        """The bytes of the sensor's description after the message name, as ``#sensor-list`` has them."""
        return line_tail(
            [
                self.name.encode("utf-8"),
                self.description.encode("utf-8"),
                self.units.encode("utf-8"),
                self.type_name.encode("ascii"),
                *self.params,
            ]
        )

    def sampling(self, name: bytes, parameters: list[bytes]) -> Sampling:
        """The sampling that a client asks for, with ``auto`` resolved to what this sensor prefers.

        Raises:
            ValueError: the strategy or its parameters make no sense.
            TypeError: the strategy does not fit the sensor's type.
        """
        sampling = Sampling.parse(self.stype, name, parameters)
        if sampling.strategy is Strategy.AUTO and self.auto_strategy is not Strategy.AUTO:
            return Sampling.of(self.auto_strategy, self.auto_strategy_parameters).as_auto(self.stype)
        return sampling

    def _coerce(self, value: Any) -> T:
        if isinstance(value, self.stype):
            return value
        core_type = self.types.get(self.stype).type
        if isinstance(value, core_type) and not issubclass(core_type, enum.Enum):
            return self.stype(value)  # type: ignore[call-arg]  # every registered core type converts
        if issubclass(self.stype, Timestamp) and isinstance(value, self.types.get(float).type):
            return self.stype(value)
        raise TypeError(
            f"Value type {type(value)} is not compatible with Sensor type {self.stype} "
            f"with core type {core_type}"
        )

    def __repr__(self) -> str:
        reading = self._reading
        return f"<{type(self).__name__} {self.name}: {reading.value!r} {reading.status.name.lower()}>"
