"""A client of the thermometer, as a program for MSL-Network 1.0. Usage: readings.py PORT."""

from __future__ import annotations

import sys

from msl.network import connect


# [client]
def main(port: int) -> None:
    client = connect(name="Readings", port=port, disable_tls=True)
    thermometer = client.link("Thermometer")
    unit = thermometer.unit()
    futures = [thermometer.read(channel, asynchronous=True) for channel in (1, 2, 3)]
    print("channels:", [future.result() for future in futures], unit)
    try:
        thermometer.read(9)
    except RuntimeError as error:
        print("refused:", str(error).splitlines()[-1])

    def show(number: int, reading: float) -> None:
        print(f"reading {number}: {reading} {unit}")

    thermometer.notification_handler = show  # type: ignore[method-assign]  # as it is meant
    thermometer.acquire_lock()
    print(thermometer.watch(4, readings=3))
    thermometer.release_lock()
    print(thermometer.shutdown_service(timeout=5))
    client.disconnect()


# [end]
if __name__ == "__main__":
    main(int(sys.argv[1]))
