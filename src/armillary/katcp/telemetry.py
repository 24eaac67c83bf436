"""This computer's telemetry as sensors: processor, memory, disks, network, temperatures."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

import psutil

from .groups import Above, Below, GuardedGroup, SensorGroup
from .measured import Clock, Counters, RateGroup, ValueGroup
from .protocol.values import Timestamp
from .sensors import Sensor
from .thresholds import HIGHEST_BELIEVABLE_LIMIT, Thresholds

__all__ = ["DiskGroup", "HostGroup", "Source"]

T = TypeVar("T")
_Groups: TypeAlias = Sequence[SensorGroup[Any]]

_logger = logging.getLogger(__name__)


class Source(Protocol):
    """The part of psutil that is used.

    Besides, `sensors_temperatures`, which psutil has on Linux and FreeBSD only.
    """

    @overload
    def cpu_times(self, percpu: Literal[False] = ...) -> Any: ...
    @overload
    def cpu_times(self, percpu: Literal[True]) -> list[Any]: ...
    def getloadavg(self) -> tuple[float, float, float]: ...
    def virtual_memory(self) -> Any: ...
    def swap_memory(self) -> Any: ...
    def disk_partitions(self, all: bool = ...) -> list[Any]: ...
    def disk_usage(self, path: str) -> Any: ...
    @overload
    def net_io_counters(self, pernic: Literal[False] = ..., nowrap: bool = ...) -> Any: ...
    @overload
    def net_io_counters(self, pernic: Literal[True], nowrap: bool = ...) -> dict[str, Any]: ...
    def pids(self) -> list[int]: ...
    def boot_time(self) -> float: ...


def _translated(function: Callable[[], T]) -> Callable[[], T]:
    """`function`, with all that psutil raises for "cannot be read" as OSError."""

    def translated() -> T:
        try:
            return function()
        except (psutil.Error, RuntimeError) as error:  # NotImplementedError is a RuntimeError
            raise OSError(f"{type(error).__name__}: {error}") from error

    return translated


@dataclass(frozen=True, slots=True)
class _Host:
    """What the functions below need to make groups. Each knows one subject."""

    prefix: str
    thresholds: Thresholds
    source: Source
    clock: Clock

    def sensor(
        self,
        sensor_type: type[T],
        name: str,
        description: str,
        units: str = "",
        limits: Above | Below = Above(),  # noqa: B008 - frozen: no limits
    ) -> Sensor[T]:
        return Sensor(sensor_type, self.prefix + name, description, units, status_func=limits.status)  # type: ignore[arg-type]  # all are numbers

    def values(
        self, sensors: Iterable[Sensor[Any]], measure: Callable[[], Sequence[float | None]]
    ) -> ValueGroup:
        return ValueGroup(sensors, _translated(measure), self.clock)


def _processor(host: _Host) -> _Groups:
    # Not psutil's own `cpu_percent`: it keeps the previous counters for each thread, and which worker thread
    # reads is left to chance.
    source = host.source
    cores = len(source.cpu_times(percpu=True))
    limits = host.thresholds
    sensors = [host.sensor(float, "cpu.percent", "Processor time in use, all cores", "%", limits.cpu)]
    for core in range(cores):
        description = f"Processor time in use, core {core}"
        sensors.append(host.sensor(float, f"cpu.{core}.percent", description, "%", limits.core))

    def measure() -> Counters:
        of_cores: Counters = [_busy_and_all(times) for times in source.cpu_times(percpu=True)]
        if len(of_cores) != cores:
            # They come without numbers: while some are switched off, nobody can tell which are these.
            of_cores = [None] * cores
        return [_busy_and_all(source.cpu_times()), *of_cores]

    # The kernel may take waiting time back, so that busy time grows by more than all time does.
    return [RateGroup(sensors, _translated(measure), host.clock, factor=100.0, largest=100.0)]


def _busy_and_all(times: Any) -> tuple[float, float]:
    busy = idle = 0.0
    for kind, seconds in times._asdict().items():
        if kind in ("idle", "iowait"):
            idle += seconds
        elif kind not in ("guest", "guest_nice"):  # Linux counts these as the user's, too
            busy += seconds
    return busy, busy + idle


def _load(host: _Host) -> _Groups:
    limits = host.thresholds.load.scaled(max(1, len(host.source.cpu_times(percpu=True))))
    sensors = [
        host.sensor(
            float,
            f"load.{minutes}m",
            f"Processes that ran or waited for a disk, mean of {minutes} min",
            "processes",
            limits,
        )
        for minutes in (1, 5, 15)
    ]
    return [host.values(sensors, host.source.getloadavg)]


def _memory(host: _Host) -> _Groups:
    limits = host.thresholds
    used = host.sensor(float, "memory.percent", "Memory in use", "%", limits.memory)
    available = host.sensor(
        int, "memory.available", "Memory that programs can have without swapping", "B", limits.available
    )

    def measure() -> Sequence[float]:
        memory = host.source.virtual_memory()
        return memory.percent, memory.available

    return [host.values([used, available], measure)]


def _swap(host: _Host) -> _Groups:
    def measure() -> Sequence[float | None]:
        swap = host.source.swap_memory()
        return [swap.percent if swap.total else None]

    if measure() == [None]:
        return []
    used = host.sensor(float, "swap.percent", "Swap space in use", "%", host.thresholds.swap)
    return [host.values([used], measure)]


def _disks(host: _Host) -> _Groups:
    devices: dict[str, str] = {}
    partitions = host.source.disk_partitions(all=False)
    # A disk may be mounted at several places. The shortest path is the one that people know it by.
    for partition in sorted(partitions, key=lambda found: (len(found.mountpoint), found.mountpoint)):
        # What is mounted read-only (images of packages, discs) is always full, and nobody can fill it.
        if "ro" not in partition.opts.split(","):
            devices.setdefault(partition.device, partition.mountpoint)
    names = _Names()
    return [
        DiskGroup(
            mount,
            f"{host.prefix}disk.{names.safe(mount, 'root')}.",
            thresholds=host.thresholds,
            source=host.source,
            clock=host.clock,
        )
        for mount in devices.values()
    ]


class DiskGroup(ValueGroup):
    """One mounted disk: ``percent`` used and bytes ``free``. While it is not mounted, they are INACTIVE.

    Bytes that are kept for the superuser count neither as used nor as free.

    Args:
        mount: the mount point, as the system's table of mounts has it. Nothing need be mounted there yet.
        prefix: goes before the sensors' names.
        thresholds: limits for ``percent`` and ``free``.
        source: psutil, or what stands for it.
        clock: the module `time`, or what stands for it.
    """

    def __init__(
        self,
        mount: str,
        prefix: str,
        *,
        thresholds: Thresholds | None = None,
        source: Source = psutil,
        clock: Clock = time,
    ) -> None:
        self._mount = mount
        self._source = source
        host = _Host(prefix, thresholds or Thresholds(), source, clock)
        used = host.sensor(float, "percent", f"Space in use on {mount}", "%", host.thresholds.disk)
        free = host.sensor(int, "free", f"Space free on {mount}", "B", host.thresholds.free)
        super().__init__([used, free], _translated(self._usage), clock)

    def _usage(self) -> Sequence[float | None]:
        # Looked up first: when a disk is gone, its mount point is an ordinary directory that would answer
        # for the disk that it lies on.
        mounted = self._source.disk_partitions(all=True)
        if not any(partition.mountpoint == self._mount for partition in mounted):
            return [None, None]
        usage = self._source.disk_usage(self._mount)
        return [usage.percent, usage.free]


def _network(host: _Host) -> _Groups:
    # Without psutil's own care for counters that were reset: it keeps state in its module, for all callers.
    ask = partial(host.source.net_io_counters, pernic=True, nowrap=False)
    interfaces = sorted(ask())
    names = _Names()
    sensors = []
    for interface in interfaces:
        name = names.safe(interface, "interface")
        for direction in ("received", "sent"):
            description = f"Data {direction} through {interface}"
            limits = host.thresholds.traffic
            sensors.append(host.sensor(float, f"network.{name}.{direction}", description, "bit/s", limits))

    def measure() -> Counters:
        counters = ask()
        now = host.clock.monotonic()
        pairs: list[tuple[float, float] | None] = []
        for interface in interfaces:
            if interface in counters:
                pairs += [(counters[interface].bytes_recv, now), (counters[interface].bytes_sent, now)]
            else:
                pairs += [None, None]
        return pairs

    return [RateGroup(sensors, _translated(measure), host.clock, factor=8.0)]


def _temperatures(host: _Host) -> _Groups:
    ask = getattr(host.source, "sensors_temperatures", None)
    if ask is None:
        return []

    def by_place() -> dict[tuple[str, str, int], Any]:
        # Two disks of a kind share chip and label, so the number among those counts, too.
        places: dict[tuple[str, str, int], Any] = {}
        for chip, entries in sorted(ask().items()):
            for entry in entries:
                number = sum(place[:2] == (chip, entry.label) for place in places)
                places[chip, entry.label, number] = entry
        return places

    names = _Names()
    sensors = {}
    for (chip, label, number), entry in by_place().items():
        name = names.safe(f"{chip} {label}", "chip")
        description = f"Temperature of {label or 'the chip'} ({chip})"
        limits = _named_limits(entry.high, entry.critical) or host.thresholds.temperature
        sensors[chip, label, number] = host.sensor(float, f"temperature.{name}", description, "degC", limits)

    def measure() -> Sequence[float | None]:
        places = by_place()
        return [places[place].current if place in places else None for place in sensors]

    return [host.values(sensors.values(), measure)]


def _named_limits(high: float | None, critical: float | None) -> Above | None:
    """The limits that the hardware names; None if it names none that can be believed."""
    warn = high if high is not None and 0 < high <= HIGHEST_BELIEVABLE_LIMIT else None
    error = critical if critical is not None and 0 < critical <= HIGHEST_BELIEVABLE_LIMIT else None
    if warn is None and error is None:
        return None
    if warn is not None and error is not None:
        warn = min(warn, error)
    return Above(warn, error)


def _processes(host: _Host) -> _Groups:
    count = host.sensor(int, "processes", "Processes", "processes", host.thresholds.processes)
    return [host.values([count], lambda: [len(host.source.pids())])]


def _boot(host: _Host) -> _Groups:
    boot = host.sensor(Timestamp, "boot-time", "When this host was started")
    uptime = host.sensor(float, "uptime", "Time since this host was started", "s")

    def measure() -> Sequence[float]:
        started = host.source.boot_time()
        return started, host.clock.time() - started

    return [host.values([boot, uptime], measure)]


class _Names:
    """Makes names of what the system calls things: safe in a sensor's name, and each only once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def safe(self, text: str, otherwise: str) -> str:
        plain = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-") or otherwise
        name, number = plain, 1
        while name in self._taken:
            number += 1
            name = f"{plain}-{number}"
        self._taken.add(name)
        return name


_SUBJECTS: tuple[Callable[[_Host], _Groups], ...] = (
    _processor,
    _load,
    _memory,
    _swap,
    _disks,
    _network,
    _temperatures,
    _processes,
    _boot,
)


class HostGroup:
    """This computer's telemetry: a group for `sample_group`.

    After the prefix, the sensors are

    ===========================================  =====================================================
    ``cpu.percent``, ``cpu.<n>.percent``         processor time in use, of all cores and of each
    ``load.1m``, ``load.5m``, ``load.15m``       load average
    ``memory.percent``, ``memory.available``     in use; bytes that programs can still have
    ``swap.percent``                             in use
    ``disk.<mount>.percent``, ``.free``          in use; bytes free
    ``network.<interface>.received``, ``.sent``  bit/s
    ``temperature.<chip and label>``             degrees Celsius, with the hardware's own limits
    ``processes``                                their number
    ``boot-time``, ``uptime``                    timestamp; seconds
    ===========================================  =====================================================

    What there is, is found out once, here: sensors for what this computer does not have are not made, and
    what is plugged in later is not seen. What cannot be read any more becomes FAILURE, and what is gone (a
    disk, an interface) INACTIVE until it is back; the rest goes on. Processor and network need two readings
    and are UNKNOWN after the first.

    Network disks are left out, because one that hangs would hold up all the others. Give each a `DiskGroup`
    and a `sample_group` of its own.

    Creating one reads everything once, which takes milliseconds or more: in a program that is already busy,
    ``await trio.to_thread.run_sync(HostGroup)``.

    Args:
        prefix: goes before the sensors' names.
        thresholds: when they are WARN or ERROR.
        source: psutil, or what stands for it.
        clock: the module `time`, or what stands for it.
    """

    def __init__(
        self,
        prefix: str = "host.",
        *,
        thresholds: Thresholds | None = None,
        source: Source = psutil,
        clock: Clock = time,
    ) -> None:
        host = _Host(prefix, thresholds or Thresholds(), source, clock)
        found: list[GuardedGroup[Any]] = []
        for subject in _SUBJECTS:
            try:
                groups = _translated(partial(subject, host))()
            except OSError as error:
                # Many systems lack something, and a container may hide more.
                _logger.debug("No sensors for %s: %s", subject.__name__.strip("_"), error)
                continue
            guarded = [GuardedGroup(group) for group in groups]
            found += [group for group in guarded if not isinstance(group.read(), OSError)]
        self._groups = tuple(found)
        self.sensors = tuple(sensor for group in found for sensor in group.sensors)
        """All sensors, by subject."""

    def read(self) -> Sequence[Any]:
        """Measure all that can be measured. Takes milliseconds, and raises nothing for what cannot."""
        return [group.read() for group in self._groups]

    def apply(self, measured: Sequence[Any], /) -> None:
        """Set the sensors to what `read` returned."""
        for group, one in zip(self._groups, measured, strict=True):
            group.apply(one)
