"""``python -m armillary``."""

from __future__ import annotations

from armillary.cli import main

if __name__ == "__main__":
    main()
