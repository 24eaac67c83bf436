"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

__all__ = ["PRIVATE", "PUBLIC", "write_file"]

PRIVATE = 0o600
PUBLIC = 0o644

# What file systems that know no second name for a file answer.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def write_file(path: Path, content: bytes, *, mode: int, overwrite: bool = False) -> None:
    """Write a file that nobody ever sees half written or with wider permissions than `mode`.

    Directories on the way are created. A crash leaves the old file, or none, or the new one.

    Raises:
        FileExistsError: there is a file, and `overwrite` is false.
        OSError: the system did not let us.
    """
    directory = path.parent
    try:
        directory.mkdir(mode=0o700 if mode == PRIVATE else 0o777, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"expected a directory, got the file {directory}") from None
    # Made with 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=directory)
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if not overwrite:
            _reserve(temporary, path)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(temporary: Path, path: Path) -> None:
    """Give `path` to who comes first: a link to the new file, or an empty one where there are no links."""
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
    except FileExistsError:
        raise FileExistsError(f"there is a file {path}") from None
