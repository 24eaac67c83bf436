"""Kinds of command line options that several commands have."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["Seconds"]


class Seconds(click.ParamType[float]):
    """A positive, finite number of seconds. click's own ranges let NaN and infinity through."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (seconds > 0 and math.isfinite(seconds)):
            self.fail(f"expected a positive number of seconds, got {value!r}", param, ctx)
        return seconds
