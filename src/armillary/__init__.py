"""armillary."""

from armillary.__about__ import __version__
