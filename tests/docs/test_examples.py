"""The programs in the documentation run, and print what the pages say that they print."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from armillary._wire.timetable import Timetable  # noqa: F401
