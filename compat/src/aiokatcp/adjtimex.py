"""The Linux kernel's clock discipline: a binding to adjtimex(2)."""

from __future__ import annotations

from armillary.katcp.adjtimex import (
    ADJ_ESTERROR,
    ADJ_FREQUENCY,
    ADJ_MAXERROR,
    ADJ_MICRO,
    ADJ_NANO,
    ADJ_OFFSET,
    ADJ_OFFSET_SINGLESHOT,
    ADJ_OFFSET_SS_READ,
    ADJ_SETOFFSET,
    ADJ_STATUS,
    ADJ_TAI,
    ADJ_TICK,
    ADJ_TIMECONST,
    STA_CLK,
    STA_CLOCKERR,
    STA_DEL,
    STA_FLL,
    STA_FREQHOLD,
    STA_INS,
    STA_MODE,
    STA_NANO,
    STA_PLL,
    STA_PPSERROR,
    STA_PPSFREQ,
    STA_PPSJITTER,
    STA_PPSSIGNAL,
    STA_PPSTIME,
    STA_PPSWANDER,
    STA_RONLY,
    STA_UNSYNC,
    TIME_BAD,
    TIME_DEL,
    TIME_ERROR,
    TIME_INS,
    TIME_OK,
    TIME_OOP,
    TIME_WAIT,
    Timeval,
    Timex,
    adjtimex,
)

__all__ = [
    "ADJ_ESTERROR",
    "ADJ_FREQUENCY",
    "ADJ_MAXERROR",
    "ADJ_MICRO",
    "ADJ_NANO",
    "ADJ_OFFSET",
    "ADJ_OFFSET_SINGLESHOT",
    "ADJ_OFFSET_SS_READ",
    "ADJ_SETOFFSET",
    "ADJ_STATUS",
    "ADJ_TAI",
    "ADJ_TICK",
    "ADJ_TIMECONST",
    "STA_CLK",
    "STA_CLOCKERR",
    "STA_DEL",
    "STA_FLL",
    "STA_FREQHOLD",
    "STA_INS",
    "STA_MODE",
    "STA_NANO",
    "STA_PLL",
    "STA_PPSERROR",
    "STA_PPSFREQ",
    "STA_PPSJITTER",
    "STA_PPSSIGNAL",
    "STA_PPSTIME",
    "STA_PPSWANDER",
    "STA_RONLY",
    "STA_UNSYNC",
    "TIME_BAD",
    "TIME_DEL",
    "TIME_ERROR",
    "TIME_INS",
    "TIME_OK",
    "TIME_OOP",
    "TIME_WAIT",
    "Timeval",
    "Timex",
    "adjtimex",
    "get_adjtimex",
]


def get_adjtimex() -> tuple[int, Timex]:
    """Ask the kernel for its clock's state, one of the ``TIME_`` constants, and change nothing.

    Raises:
        OSError: the kernel refused.
        NotImplementedError: this system has no adjtimex; only Linux does.
    """
    # Not armillary's function of this name: tests of programs replace this module's `adjtimex`.
    timex = Timex()
    return adjtimex(timex), timex
