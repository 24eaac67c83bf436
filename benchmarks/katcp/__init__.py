"""KATCP against aiokatcp 2.3 from PyPI, which lives in an environment of its own (``make peers``)."""
