"""A service that says all the time that it is alive, with a task of its own.

::

    python -m msl.examples.network.heartbeat
"""

# Not with the annotations of the future: see basic_math.
import asyncio

from msl.network import Service

__all__ = ["Heartbeat"]


class Heartbeat(Service):
    """Counts its beats, and tells each to the linked clients."""

    def __init__(self) -> None:
        super().__init__()
        self._counter = 0
        self._sleep = 1.0
        self._alive = True
        self.add_tasks(self.emit())

    def kill(self) -> None:
        """Stop beating. The service itself goes on."""
        self._alive = False

    def reset(self) -> None:
        """Count from 0 again."""
        self._counter = 0

    def set_heart_rate(self, beats_per_second: int) -> None:
        """Beat so many times in a second."""
        self._sleep = 1.0 / float(beats_per_second)

    async def emit(self) -> None:
        """Beat until the end."""
        while self._alive:
            self.emit_notification(self._counter)
            self._counter += 1
            await asyncio.sleep(self._sleep)

    def shutdown_handler(self) -> None:
        """The connection is gone: a service ends when its tasks have."""
        self._alive = False


if __name__ == "__main__":
    Heartbeat().start()
