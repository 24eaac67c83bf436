from __future__ import annotations

import errno
import time
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from armillary.katcp import Sensor, SensorStatus, Timestamp
from armillary.katcp.groups import Above, Below, sample_group
from armillary.katcp.telemetry import DiskGroup, HostGroup
from armillary.katcp.thresholds import Thresholds

CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait guest guest_nice")


def cpu(user: float = 0.0, idle: float = 0.0, iowait: float = 0.0, guest: float = 0.0) -> CpuTimes:
    return CpuTimes(user, 0.0, 0.0, idle, iowait, guest, 0.0)


def partition(device: str, mountpoint: str, opts: str = "rw,relatime") -> SimpleNamespace:
    return SimpleNamespace(device=device, mountpoint=mountpoint, fstype="ext4", opts=opts)


def degrees(
    label: str, current: float, high: float | None = None, critical: float | None = None
) -> SimpleNamespace:
    return SimpleNamespace(label=label, current=current, high=high, critical=critical)


class FakeMachine:
    """Stands for psutil, and for the module `time`: a host that changes only when told.

    What is in `broken` raises its error instead of answering.
    """

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.cores = [cpu(), cpu()]
        self.memory = SimpleNamespace(percent=40.0, available=6_000_000_000)
        self.swap = SimpleNamespace(percent=10.0, total=1_000)
        self.partitions = [partition("/dev/sda1", "/"), partition("/dev/sdb1", "/data/raw")]
        self.usage = {
            "/": SimpleNamespace(percent=50.0, free=10_000),
            "/data/raw": SimpleNamespace(percent=90.0, free=20_000),
        }
        self.traffic = {
            "lo": SimpleNamespace(bytes_recv=0, bytes_sent=0),
            "eth0": SimpleNamespace(bytes_recv=1_000, bytes_sent=2_000),
        }
        self.temperatures = {"coretemp": [degrees("Core 0", 45.0, 80.0, 100.0)]}
        self.broken: dict[str, Exception] = {}

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - 1_699_999_000.0

    def _answer(self, name: str, value: Any) -> Any:
        if name in self.broken:
            raise self.broken[name]
        return value

    def cpu_times(self, percpu: bool = False) -> Any:
        together = CpuTimes(*(sum(times) for times in zip(*self.cores, strict=True)))
        return self._answer("cpu_times", list(self.cores) if percpu else together)

    def getloadavg(self) -> tuple[float, float, float]:
        return self._answer("getloadavg", (5.0, 1.0, 0.5))

    def virtual_memory(self) -> Any:
        return self._answer("virtual_memory", self.memory)

    def swap_memory(self) -> Any:
        return self._answer("swap_memory", self.swap)

    def disk_partitions(self, all: bool = False) -> list[Any]:
        return self._answer("disk_partitions", list(self.partitions))

    def disk_usage(self, path: str) -> Any:
        return self._answer(path, self.usage[path])

    def net_io_counters(self, pernic: bool = False, nowrap: bool = True) -> Any:
        assert pernic
        assert not nowrap
        return self._answer("net_io_counters", dict(self.traffic))

    def sensors_temperatures(self) -> Any:
        return self._answer("sensors_temperatures", dict(self.temperatures))

    def pids(self) -> list[int]:
        return self._answer("pids", [1, 2, 3])

    def boot_time(self) -> float:
        return self._answer("boot_time", 1_699_999_000.0)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


class Host:
    """A host group on a fake machine, with its sensors by name."""

    def __init__(self, machine: FakeMachine, **options: Any) -> None:
        self.group = HostGroup("", source=machine, clock=machine, **options)
        self.sensors = {sensor.name: sensor for sensor in self.group.sensors}

    def update(self) -> None:
        self.group.apply(self.group.read())

    def __getitem__(self, name: str) -> tuple[Any, str]:
        """Value and status."""
        sensor: Sensor[Any] = self.sensors[name]
        return sensor.value, sensor.status.name.lower()


def updated(machine: FakeMachine, **options: Any) -> Host:
    host = Host(machine, **options)
    host.update()
    return host


def test_all_sensors(machine: FakeMachine) -> None:
    """A host has these sensors, each with a unit where it has one, and a description."""
    group = HostGroup(source=machine, clock=machine)
    assert {sensor.name: sensor.units for sensor in group.sensors} == {
        "host.cpu.percent": "%",
        "host.cpu.0.percent": "%",
        "host.cpu.1.percent": "%",
        "host.load.1m": "processes",
        "host.load.5m": "processes",
        "host.load.15m": "processes",
        "host.memory.percent": "%",
        "host.memory.available": "B",
        "host.swap.percent": "%",
        "host.disk.root.percent": "%",
        "host.disk.root.free": "B",
        "host.disk.data-raw.percent": "%",
        "host.disk.data-raw.free": "B",
        "host.network.eth0.received": "bit/s",
        "host.network.eth0.sent": "bit/s",
        "host.network.lo.received": "bit/s",
        "host.network.lo.sent": "bit/s",
        "host.temperature.coretemp-core-0": "degC",
        "host.processes": "processes",
        "host.boot-time": "",
        "host.uptime": "s",
    }
    assert all(sensor.description for sensor in group.sensors)


def test_processor(machine: FakeMachine) -> None:
    """Processor time is a per cent of the time between two readings: waiting is idle, guests count once."""
    host = updated(machine)
    assert host["cpu.percent"] == (0.0, "unknown")
    machine.cores = [cpu(user=3.0, guest=2.0, idle=0.5, iowait=0.5), cpu(user=1.0, idle=3.0)]
    host.update()
    assert host["cpu.0.percent"] == (75.0, "nominal")
    assert host["cpu.1.percent"] == (25.0, "nominal")
    assert host["cpu.percent"] == (50.0, "nominal")


def test_processor_idle(machine: FakeMachine) -> None:
    """A processor that did nothing reads zero, not what it read before."""
    host = updated(machine)
    machine.cores = [cpu(user=0.3, idle=0.1), cpu(user=0.1, idle=0.2)]
    host.update()
    machine.cores = [cpu(user=0.3, idle=1.2), cpu(user=0.1, idle=1.3)]
    host.update()
    assert host["cpu.percent"] == (0.0, "nominal")


def test_processor_waiting_taken_back(machine: FakeMachine) -> None:
    """A kernel that takes waiting time back does not make a processor more than fully busy."""
    host = updated(machine)
    machine.cores = [cpu(user=1.0, iowait=0.5), cpu()]
    host.update()
    machine.cores = [cpu(user=2.0, iowait=0.4), cpu()]
    host.update()
    assert host["cpu.0.percent"] == (100.0, "nominal")


def test_core_switched_off(machine: FakeMachine) -> None:
    """While a core is switched off, the cores are INACTIVE and the processor as a whole is not."""
    host = updated(machine)
    both = machine.cores
    machine.cores = [cpu(user=1.0, idle=1.0)]
    host.update()
    assert host["cpu.0.percent"] == (0.0, "inactive")
    assert host["cpu.1.percent"] == (0.0, "inactive")
    assert host["cpu.percent"] == (50.0, "nominal")
    machine.cores = both
    host.update()
    machine.cores = [cpu(user=1.0), cpu(idle=1.0)]
    host.update()
    assert host["cpu.0.percent"] == (100.0, "nominal")


def test_load(machine: FakeMachine) -> None:
    """The limits of the load average are per core."""
    host = updated(machine)
    assert host["load.1m"] == (5.0, "warn")
    assert host["load.5m"] == (1.0, "nominal")
    assert host["load.15m"] == (0.5, "nominal")


def test_memory(machine: FakeMachine) -> None:
    """Memory beyond its limits is WARN, then ERROR."""
    host = updated(machine)
    assert host["memory.percent"] == (40.0, "nominal")
    assert host["memory.available"] == (6_000_000_000, "nominal")
    machine.memory = SimpleNamespace(percent=90.0, available=1_000_000_000)
    host.update()
    assert host["memory.percent"] == (90.0, "warn")
    machine.memory = SimpleNamespace(percent=99.0, available=100_000)
    host.update()
    assert host["memory.percent"] == (99.0, "error")


def test_no_swap(machine: FakeMachine) -> None:
    """A host without swap space has no sensor for it."""
    machine.swap = SimpleNamespace(percent=0.0, total=0)
    assert "swap.percent" not in Host(machine).sensors


def test_swap_switched_off(machine: FakeMachine) -> None:
    """Swap space that is switched off becomes INACTIVE."""
    host = updated(machine)
    assert host["swap.percent"] == (10.0, "nominal")
    machine.swap = SimpleNamespace(percent=0.0, total=0)
    host.update()
    assert host["swap.percent"] == (10.0, "inactive")


def test_disks(machine: FakeMachine) -> None:
    """Each disk tells its use, and warns when it is nearly full."""
    host = updated(machine)
    assert host["disk.root.percent"] == (50.0, "nominal")
    assert host["disk.root.free"] == (10_000, "nominal")
    assert host["disk.data-raw.percent"] == (90.0, "warn")


def test_disks_left_out(machine: FakeMachine) -> None:
    """A disk mounted twice counts once, at the shorter path; what is read-only does not count at all."""
    machine.partitions = [
        partition("/dev/sda1", "/var/lib/containers"),
        partition("/dev/sda1", "/"),
        partition("/dev/loop0", "/snap/core", "ro,nodev"),
    ]
    names = {name for name in Host(machine).sensors if name.startswith("disk")}
    assert names == {"disk.root.percent", "disk.root.free"}


def test_disk_names_unique(machine: FakeMachine) -> None:
    """Disks whose mount points look alike in a sensor's name are numbered."""
    machine.partitions = [partition("/dev/sdb1", "/Data"), partition("/dev/sdc1", "/data")]
    machine.usage = dict.fromkeys(["/Data", "/data"], machine.usage["/"])
    assert {"disk.data.free", "disk.data-2.free"} <= Host(machine).sensors.keys()


def test_disk_unplugged(machine: FakeMachine) -> None:
    """A disk that is not mounted is INACTIVE until it is back, though its mount point still answers."""
    host = updated(machine)
    plugged = machine.partitions
    machine.partitions = plugged[:1]
    machine.usage["/data/raw"] = machine.usage["/"]
    host.update()
    assert host["disk.data-raw.percent"] == (90.0, "inactive")
    assert host["disk.root.percent"] == (50.0, "nominal")
    machine.partitions = plugged
    host.update()
    assert host["disk.data-raw.percent"] == (50.0, "nominal")


def test_disk_broken(machine: FakeMachine) -> None:
    """A disk that cannot be read any more is FAILURE, and everything else goes on."""
    host = updated(machine)
    machine.broken["/data/raw"] = OSError(errno.EIO, "broken")
    machine.usage["/"] = SimpleNamespace(percent=60.0, free=8_000)
    host.update()
    assert host["disk.data-raw.percent"] == (90.0, "failure")
    assert host["disk.root.percent"] == (60.0, "nominal")


def test_disk_broken_from_the_start(machine: FakeMachine) -> None:
    """A disk that cannot be read at first has no sensors, and the others have theirs."""
    machine.broken["/"] = PermissionError(errno.EACCES, "no")
    names = {name for name in Host(machine).sensors if name.startswith("disk")}
    assert names == {"disk.data-raw.percent", "disk.data-raw.free"}


def test_disk_group_waits_for_its_disk(machine: FakeMachine) -> None:
    """A group for one disk may be made before the disk is mounted."""
    everything = machine.partitions
    machine.partitions = everything[:1]
    group = DiskGroup("/data/raw", "raw.", source=machine, clock=machine)
    group.apply(group.read())
    assert [sensor.name for sensor in group.sensors] == ["raw.percent", "raw.free"]
    assert {sensor.status for sensor in group.sensors} == {SensorStatus.INACTIVE}
    machine.partitions = everything
    group.apply(group.read())
    assert [sensor.value for sensor in group.sensors] == [90.0, 20_000]


def test_network(machine: FakeMachine) -> None:
    """Traffic is in bit/s, from the growth of the counters over the time between two readings."""
    host = updated(machine)
    assert host["network.eth0.received"] == (0.0, "unknown")
    machine.traffic["eth0"] = SimpleNamespace(bytes_recv=2_000, bytes_sent=2_100)
    machine.now += 2.0
    host.update()
    assert host["network.eth0.received"] == (4_000.0, "nominal")
    assert host["network.eth0.sent"] == (400.0, "nominal")
    assert host["network.lo.sent"] == (0.0, "nominal")


def test_network_counters_reset(machine: FakeMachine) -> None:
    """Counters that start again make no rate for one round."""
    host = updated(machine)
    for received in (2_000, 10, 20):
        machine.traffic["eth0"] = SimpleNamespace(bytes_recv=received, bytes_sent=2_000)
        machine.now += 1.0
        host.update()
        assert host["network.eth0.received"] == (80.0 if received == 20 else 8_000.0, "nominal")


def test_interface_gone(machine: FakeMachine) -> None:
    """An interface that is gone is INACTIVE."""
    host = updated(machine)
    del machine.traffic["eth0"]
    host.update()
    assert host["network.eth0.received"] == (0.0, "inactive")


def test_temperatures(machine: FakeMachine) -> None:
    """Temperatures have the hardware's own limits; where it names none, or nonsense, the thresholds count."""
    machine.temperatures = {
        "chip": [
            degrees("own", 70.0, 60.0, 90.0),
            degrees("critical", 91.0, None, 90.0),
            degrees("none", 85.0),
            degrees("nonsense", 96.0, 65261.85, 0.0),
        ]
    }
    host = updated(machine)
    assert host["temperature.chip-own"] == (70.0, "warn")
    assert host["temperature.chip-critical"] == (91.0, "error")
    assert host["temperature.chip-none"] == (85.0, "warn")
    assert host["temperature.chip-nonsense"] == (96.0, "error")


def test_temperatures_alike(machine: FakeMachine) -> None:
    """Two disks of a kind have two sensors, and one that is gone is INACTIVE."""
    machine.temperatures = {"nvme": [degrees("Composite", 40.0), degrees("Composite", 50.0)]}
    host = updated(machine)
    assert host["temperature.nvme-composite"] == (40.0, "nominal")
    assert host["temperature.nvme-composite-2"] == (50.0, "nominal")
    machine.temperatures = {"nvme": [degrees("Composite", 41.0)]}
    host.update()
    assert host["temperature.nvme-composite"] == (41.0, "nominal")
    assert host["temperature.nvme-composite-2"] == (50.0, "inactive")


def test_uptime(machine: FakeMachine) -> None:
    """The start of the host is a timestamp, the time since then in seconds."""
    host = updated(machine)
    assert host["boot-time"] == (Timestamp(1_699_999_000.0), "nominal")
    assert host["uptime"] == (1_000.0, "nominal")
    assert host.sensors["boot-time"].stype is Timestamp


@pytest.mark.parametrize(
    ("call", "prefix", "error"),
    [
        ("cpu_times", "cpu", PermissionError(errno.EACCES, "no")),
        ("getloadavg", "load", OSError("no")),
        ("virtual_memory", "memory", RuntimeError("no")),
        ("swap_memory", "swap", RuntimeError("no")),
        ("disk_partitions", "disk", FileNotFoundError(errno.ENOENT, "no")),
        ("net_io_counters", "network", psutil.AccessDenied()),
        ("sensors_temperatures", "temperature", NotImplementedError("no")),
        ("pids", "processes", OSError("no")),
        ("boot_time", "boot", RuntimeError("no")),
    ],
)
def test_unreadable(machine: FakeMachine, call: str, prefix: str, error: Exception) -> None:
    """What cannot be read at first has no sensors; what fails later is FAILURE; the rest is as ever."""
    host = updated(machine)
    machine.broken[call] = error
    assert not [name for name in Host(machine).sensors if name.startswith(prefix)]
    host.update()
    assert {host[name][1] for name in host.sensors if name.startswith(prefix)} == {"failure"}
    assert [name for name in host.sensors if host[name][1] in ("nominal", "warn")]


def test_no_temperatures_in_psutil(machine: FakeMachine) -> None:
    """Where psutil knows no temperatures, there are no sensors for them."""
    source = SimpleNamespace(
        **{
            name: getattr(machine, name)
            for name in dir(machine)
            if not name.startswith("_") and name != "sensors_temperatures"
        }
    )
    group = HostGroup("", source=source, clock=machine)
    assert not [sensor for sensor in group.sensors if sensor.name.startswith("temperature")]


def test_thresholds(machine: FakeMachine) -> None:
    """All limits are the caller's to choose."""
    host = updated(
        machine,
        thresholds=Thresholds(
            core=Above(warn=10.0),
            available=Below(warn=8e9, error=1e9),
            free=Below(error=15_000),
            traffic=Above(warn=1_000.0),
            processes=Above(error=2),
        ),
    )
    machine.cores = [cpu(user=1.0), cpu(idle=1.0)]
    machine.traffic["eth0"] = SimpleNamespace(bytes_recv=2_000, bytes_sent=2_000)
    machine.now += 1.0
    host.update()
    assert host["cpu.0.percent"] == (100.0, "warn")
    assert host["memory.available"][1] == "warn"
    assert host["disk.root.free"][1] == "error"
    assert host["disk.data-raw.free"][1] == "nominal"
    assert host["network.eth0.received"][1] == "warn"
    assert host["network.eth0.sent"][1] == "nominal"
    assert host["processes"] == (3, "error")


def test_timestamps(machine: FakeMachine) -> None:
    """A reading's time is when it was measured, not when it was applied."""
    host = Host(machine)
    measured = host.group.read()
    machine.now += 60.0
    host.group.apply(measured)
    assert host.sensors["memory.percent"].timestamp == 1_700_000_000.0


async def test_real_host(autojump_clock: trio.testing.MockClock) -> None:
    """On this machine, what does not need two readings can be read after the first."""
    group = HostGroup()
    async with trio.open_nursery() as nursery:
        await nursery.start(sample_group, group)
        sensors = {sensor.name: sensor for sensor in group.sensors}
        assert len(sensors) == len(group.sensors)
        assert 0 < sensors["host.memory.percent"].value <= 100
        assert sensors["host.processes"].value > 0
        assert sensors["host.uptime"].value > 0
        assert abs(sensors["host.memory.percent"].timestamp - time.time()) < 60
        expected_later = {name for name in sensors if name.startswith(("host.cpu.", "host.network."))}
        unknown = {name for name in sensors if sensors[name].status is SensorStatus.UNKNOWN}
        assert unknown == expected_later
        nursery.cancel_scope.cancel()


def test_real_rates() -> None:
    """On this machine, two readings with work in between make rates that can be."""
    group = HostGroup()
    group.apply(group.read())
    before = psutil.cpu_times()
    while sum(psutil.cpu_times()) - sum(before) < 0.03:  # the counters move in steps of 0.01 s
        sum(range(10_000))
    group.apply(group.read())
    sensors = {sensor.name: sensor for sensor in group.sensors}
    assert sensors["host.cpu.percent"].status.valid_value()
    assert 0 <= sensors["host.cpu.percent"].value <= 100
    assert all(sensor.value >= 0 for name, sensor in sensors.items() if name.startswith("host.network."))
