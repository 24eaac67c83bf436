"""A warning when the distribution whose import name a façade keeps is installed as well.

Both install into the same directory, and the installer says nothing: whichever came last has overwritten the
other's files, and uninstalling either breaks the other.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings

__all__ = ["NameCollisionWarning", "warn_of_collision"]


class NameCollisionWarning(UserWarning):
    """Two installed distributions claim the same import name."""


@functools.cache
def warn_of_collision(import_name: str, distribution_name: str) -> None:
    """Warn, once in a process, if `distribution_name` is installed, whose import name is `import_name`.

    Args:
        import_name: dotted, as in ``import msl.network``.
        distribution_name: as in ``pip install msl-network``, in any of the spellings that pip takes.

    Without such a distribution this reads the names in the directories of ``sys.path``, and no more: not even
    `importlib.metadata` is imported, which takes as long as much of the rest.
    """
    if not _may_be_installed(distribution_name):
        return
    from importlib import metadata

    try:
        distribution = metadata.distribution(distribution_name)
    except metadata.PackageNotFoundError:
        return
    if distribution.read_text("METADATA") is None and distribution.read_text("PKG-INFO") is None:
        return  # an empty directory, left behind by an installer
    warnings.warn(
        f"expected {import_name!r} to come from armillary-compat alone, but {distribution_name}"
        f" {distribution.version} is installed as well, and so nobody knows whose files are imported. To keep"
        f" armillary-compat: `pip uninstall {distribution_name}`, and then `pip install --force-reinstall"
        f" --no-deps armillary-compat`, because the first may remove files of the second",
        NameCollisionWarning,
        stacklevel=3,
    )


def _may_be_installed(distribution_name: str) -> bool:
    """Whether anything in ``sys.path`` looks like the metadata of that distribution."""
    wanted = _normal(distribution_name)
    for directory in sys.path:
        try:
            names = os.listdir(directory or os.curdir)
        except OSError:
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            if kind in ("dist-info", "egg-info") and _normal(stem.partition("-")[0]) == wanted:
                return True
    return False


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
