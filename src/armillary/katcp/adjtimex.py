"""The Linux kernel's clock discipline: a binding to adjtimex(2).

Structures and constants have the names of ``<sys/timex.h>``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import ClassVar

# The clock's state, as `adjtimex` returns it.
TIME_OK = 0
TIME_INS = 1
TIME_DEL = 2
TIME_OOP = 3
TIME_WAIT = 4
TIME_ERROR = 5
TIME_BAD = TIME_ERROR

# What to set: bits of `Timex.modes`.
ADJ_OFFSET = 0x0001
ADJ_FREQUENCY = 0x0002
ADJ_MAXERROR = 0x0004
ADJ_ESTERROR = 0x0008
ADJ_STATUS = 0x0010
ADJ_TIMECONST = 0x0020
ADJ_TAI = 0x0080
ADJ_SETOFFSET = 0x0100
ADJ_MICRO = 0x1000
ADJ_NANO = 0x2000
ADJ_TICK = 0x4000
ADJ_OFFSET_SINGLESHOT = 0x8001
ADJ_OFFSET_SS_READ = 0xA001

# How the clock is disciplined: bits of `Timex.status`.
STA_PLL = 0x0001
STA_PPSFREQ = 0x0002
STA_PPSTIME = 0x0004
STA_FLL = 0x0008
STA_INS = 0x0010
STA_DEL = 0x0020
STA_UNSYNC = 0x0040
STA_FREQHOLD = 0x0080
STA_PPSSIGNAL = 0x0100
STA_PPSJITTER = 0x0200
STA_PPSWANDER = 0x0400
STA_PPSERROR = 0x0800
STA_CLOCKERR = 0x1000
STA_NANO = 0x2000
STA_MODE = 0x4000
STA_CLK = 0x8000
STA_RONLY = (
    STA_PPSSIGNAL
    | STA_PPSJITTER
    | STA_PPSWANDER
    | STA_PPSERROR
    | STA_CLOCKERR
    | STA_NANO
    | STA_MODE
    | STA_CLK
)


class Timeval(ctypes.Structure):
    """A time since 1970-01-01 UTC."""

    _fields_: ClassVar = [
        ("tv_sec", ctypes.c_long),
        ("tv_usec", ctypes.c_long),  # nanoseconds if the status has STA_NANO
    ]


class Timex(ctypes.Structure):
    """What the kernel knows of its clock. Errors are in microseconds; see adjtimex(2) for all units."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    ]


def adjtimex(timex: Timex) -> int:
    """Set what ``timex.modes`` names, then fill `timex` with all that the kernel knows.

    Returns:
        The clock's state, one of the ``TIME_`` constants.

    Raises:
        OSError: the kernel refused: to set anything, a privilege is needed.
        NotImplementedError: this system has no adjtimex; only Linux does.
    """
    if not sys.platform.startswith("linux"):
        raise NotImplementedError(f"adjtimex is not available on {sys.platform}")
    # Loaded for each call, which costs some microseconds, rather than kept in the module.
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        function = libc.adjtimex
    except AttributeError:
        raise NotImplementedError("adjtimex is not in this system's C library") from None
    function.argtypes = [ctypes.POINTER(Timex)]
    function.restype = ctypes.c_int
    state: int = function(ctypes.byref(timex))
    if state == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return state


def get_adjtimex() -> tuple[int, Timex]:
    """Ask the kernel for its clock's state, and change nothing. Needs no privilege; takes microseconds.

    Raises:
        OSError: the kernel refused, as some sandboxes do.
        NotImplementedError: this system has no adjtimex; only Linux does.
    """
    timex = Timex()
    state = adjtimex(timex)
    return state, timex
