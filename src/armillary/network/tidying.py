"""Finds and deletes the files that a lab network has left on this computer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from .locations import Home

__all__ = ["FileKind", "Found", "find_files"]


class FileKind(enum.Enum):
    """What files may be deleted. Its value is what people call one of them."""

    DATABASE = "database"
    CERTIFICATES = "certificate"
    KEYS = "key"
    LOGS = "log file"


@dataclass(frozen=True, slots=True)
class Found:
    """Files of one kind, sorted."""

    kind: FileKind
    paths: tuple[Path, ...]
    size: int
    """Bytes, all of them together."""

    @property
    def size_text(self) -> str:
        """The size for people, in kB rounded up."""
        return f"{-(-self.size // 1000)} kB"


def find_files(home: Home, kind: FileKind) -> Found:
    """The files of a kind in a home, and nothing that has another name or is elsewhere."""
    match kind:
        case FileKind.DATABASE:
            # A journal that outlived its database would be taken for the next one's.
            candidates = [home.database, home.database.with_name(home.database.name + "-journal")]
        case FileKind.CERTIFICATES:
            candidates = [*home.certificates.rglob("*.crt")]
        case FileKind.KEYS:
            candidates = [*home.keys.rglob("*.key")]
        case FileKind.LOGS:
            candidates = [*home.logs.rglob("*.log")]
    paths = tuple(sorted(path for path in candidates if path.is_file()))
    return Found(kind, paths, sum(path.stat().st_size for path in paths))
