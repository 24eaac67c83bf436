"""A service of MSL-Network 1.0: ``msl_service.py HOME {"service": {...}, "start": {...}}``.

It tells ``ended`` when it does: with nothing, or with what it raised.
"""

import json
import os
import sys
import threading
import time
from typing import Any

from told import orders, tell

home, options = sys.argv[1], json.loads(sys.argv[2])
os.environ["MSL_NETWORK_HOME"] = home

from msl.network import Service  # noqa: E402 - reads the environment


class Theirs(Service):
    """What others call."""

    pi = 3.14

    @property
    def temperature(self) -> float:
        return 21.5

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def add(self, x: int, y: int = 1) -> int:
        return x + y

    def fail(self) -> None:
        raise ValueError("range")

    def not_json(self) -> Any:
        return object()

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def tell(self, count: int) -> int:
        for number in range(count):
            self.emit_notification_threadsafe(number, n=number)
        return count

    def shutdown_service(self) -> str:
        return "bye"


def end_with_the_test() -> None:
    for _ in orders():
        pass
    os._exit(0)


reader = threading.Thread(target=end_with_the_test)
reader.start()
try:
    Theirs(**options["service"]).start(**options["start"])
except Exception as error:
    tell("ended", type(error).__name__, str(error))
else:
    tell("ended")
reader.join()
