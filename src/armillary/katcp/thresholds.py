"""When the telemetry of a host is WARN or ERROR: the defaults, and how to choose others.

Of each limit it is said what smaller and larger ones would do.
"""

from __future__ import annotations

from dataclasses import dataclass

from .groups import Above, Below

__all__ = ["HIGHEST_BELIEVABLE_LIMIT", "Thresholds"]

# Per cent of all cores' time. Smaller: every compilation warns. Larger: a host that has no time left for its
# instruments looks healthy. Never ERROR: being busy is what a processor is for.
CPU_LIMITS = Above(warn=90.0)

# Per cent of one core's time. No limits: one busy thread fills its core, and that is as it should be.
CORE_LIMITS = Above()

# Processes that run or wait for a disk, per core. Smaller: a host that just has enough to do warns. Larger:
# every process waits for several others, and nobody is told.
LOAD_LIMITS = Above(warn=2.0, error=8.0)

# Per cent of the memory that is not available any more. Smaller: hosts that use what they were bought for
# warn. Larger: between the warning and the kernel killing processes there is no time to act.
MEMORY_LIMITS = Above(warn=85.0, error=95.0)

# Bytes of memory still available. No limits, because what is much on a small board is nothing on a large
# server; the per cent above fit both.
AVAILABLE_LIMITS = Below()

# Per cent of the swap space. Smaller: pages that were put aside once and never needed again warn. Larger:
# memory ends soon after the warning.
SWAP_LIMITS = Above(warn=50.0, error=90.0)

# Per cent of a disk that is used. Smaller: an archive that is nearly full for years warns for years. Larger:
# a recording fills the rest before anybody has come.
DISK_LIMITS = Above(warn=85.0, error=95.0)

# Bytes of a disk still free. No limits, for the same reason as with memory: boot partitions are small.
FREE_LIMITS = Below()

# Bit/s through one network interface, in one direction. No limits, because links differ by orders of
# magnitude.
TRAFFIC_LIMITS = Above()

# Degrees Celsius, where the hardware names no limits of its own. Smaller: processors under load warn.
# Larger: the hardware has slowed down or switched itself off before.
TEMPERATURE_LIMITS = Above(warn=80.0, error=95.0)

# Degrees Celsius up to which limits that the hardware names are believed: some drivers give 0, others
# 65261.85, for "none". Smaller: true limits of hot parts (graphics memory: 110) are lost. Larger: nonsense
# is believed, and the sensor never warns.
HIGHEST_BELIEVABLE_LIMIT = 200.0

# Processes at once. Smaller: a large server warns. Larger: a program that forks without end comes near the
# kernel's common limit of 32768 before anybody is told.
PROCESSES_LIMITS = Above(warn=10_000, error=30_000)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the telemetry of a host is WARN or ERROR."""

    cpu: Above = CPU_LIMITS
    """Per cent of all cores' time."""
    core: Above = CORE_LIMITS
    """Per cent of one core's time."""
    load: Above = LOAD_LIMITS
    """Load average, per core."""
    memory: Above = MEMORY_LIMITS
    """Per cent of the memory in use."""
    available: Below = AVAILABLE_LIMITS
    """Bytes of memory available."""
    swap: Above = SWAP_LIMITS
    """Per cent of the swap space in use."""
    disk: Above = DISK_LIMITS
    """Per cent of a disk in use."""
    free: Below = FREE_LIMITS
    """Bytes free on a disk."""
    traffic: Above = TRAFFIC_LIMITS
    """Bit/s through a network interface, in one direction."""
    temperature: Above = TEMPERATURE_LIMITS
    """Degrees Celsius, for hardware that names no limits of its own."""
    processes: Above = PROCESSES_LIMITS
    """Processes at once."""
