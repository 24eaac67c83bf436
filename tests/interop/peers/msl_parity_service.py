"""A service, as programs for MSL-Network 1.0 are written: run with 1.0, and with the façade."""

import asyncio
import sys
import time

from msl.network import Service


class Parity(Service):
    """What the parity client calls."""

    constant = 2.5

    def __init__(self):
        super().__init__(max_clients=2, ignore_attributes=["hidden"])
        self.beating = True
        self.ignore_attributes("beating")
        self.add_tasks(self.beat())

    async def beat(self):
        while self.beating:
            self.emit_notification_threadsafe("beat")
            await asyncio.sleep(0.05)

    def shutdown_handler(self):
        self.beating = False

    @property
    def computed(self):
        return 17

    def echo(self, *args, **kwargs):
        return args, kwargs

    def hidden(self):
        return "hidden"

    def fail(self):
        raise KeyError("no such key")

    def unserializable(self):
        return 1j

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def tell(self, count):
        for number in range(count):
            self.emit_notification_threadsafe(number, n=[number])
        return count

    def shutdown_service(self):
        return "bye"


Parity().start(port=int(sys.argv[1]), auto_save=True, disable_tls=sys.argv[2] == "plain")
sys.stdout.write("ended\n")
