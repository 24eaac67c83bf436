"""Rows of texts in columns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["columns"]

_GAP = "  "
# Columns that one is padded to at most. Wider pads every line for the sake of one long text.
_WIDEST = 40


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as lines; the first one has the titles."""
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    return "\n".join(
        _GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
