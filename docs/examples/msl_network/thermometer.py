"""A thermometer with its manager, as a program for MSL-Network 1.0. Usage: thermometer.py PORT."""

from __future__ import annotations

import sys
import threading

from msl.network import Service, run_services


# [service]
class Thermometer(Service):
    """A thermometer with four channels. What a driver would do, is simulated."""

    unit = "C"

    def __init__(self) -> None:
        super().__init__(name="Thermometer", max_clients=2)
        self._bus = threading.Lock()

    def read(self, channel: int) -> float:
        """The temperature."""
        if not 1 <= channel <= 4:
            raise ValueError(f"there is no channel {channel}")
        with self._bus:  # requests run at the same time, and there is one instrument
            return 20.0 + channel / 2

    def watch(self, channel: int, readings: int) -> str:
        """Tell some readings to everybody who is linked."""
        for number in range(1, readings + 1):
            self.emit_notification_threadsafe(number, self.read(channel))
        return "done"

    def shutdown_service(self) -> str:
        """Let clients end it."""
        return "switched off"


# [run]
if __name__ == "__main__":
    run_services(Thermometer(), port=int(sys.argv[1]), disable_tls=True, log_level="WARNING")
# [end]
