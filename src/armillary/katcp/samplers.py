"""One client's subscriptions to sensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from armillary._wire.timetable import Timetable

from .protocol.readings import Reading
from .protocol.sampling import Sampling, SamplingMachine, Strategy
from .sensors import Sensor

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Samplers"]

# Reports that are due together and sent without letting others run. More delays other clients; fewer spends
# a larger part of the time on switching.
_BATCH = 200


class _Sampler:
    """One subscription: attached to its sensor as an observer while it lasts."""

    __slots__ = ("_group", "machine", "sampling", "sensor", "timed")

    def __init__(self, group: Samplers, sensor: Sensor[Any], sampling: Sampling) -> None:
        self._group = group
        self.sensor = sensor
        self.sampling = sampling
        self.machine = SamplingMachine(sampling)
        self.timed = self.machine.needs_time

    def __call__(self, sensor: Sensor[Any], reading: Reading[Any]) -> None:
        """The sensor was set: report it now, later or not at all."""
        if not self.timed:
            if self.machine.update(reading, 0.0):
                self._group.report(sensor)
        else:
            if self.machine.update(reading, trio.current_time()):
                self._group.report(sensor)
            self._group.schedule(self)


class Samplers:
    """One client's subscriptions, and the one task that serves those with a timer.

    A strategy without timer needs no task: it reports from the sensor's observer into the session's outbox,
    so that an update wakes nobody. Strategies with a timer share one task, `run`: a task for each costs
    about 15 microseconds to start, twice that to end, and 2.7 kB while it sleeps, which is more than all the
    rest of a subscription.

    Args:
        session: whose client gets the reports.
    """

    __slots__ = ("_by_name", "_is_running", "_session", "_sleep", "_timetable")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._by_name: dict[str, _Sampler] = {}
        self._timetable: Timetable[_Sampler] = Timetable()
        self._sleep: trio.CancelScope | None = None
        self._is_running = False

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, sensor: Sensor[Any]) -> Sampling | None:
        """How the client samples `sensor`, or None."""
        sampler = self._by_name.get(sensor.name)
        return None if sampler is None else sampler.sampling

    def subscribe(self, sensor: Sensor[Any], sampling: Sampling) -> None:
        """Sample `sensor` from now on, instead of any way it was sampled before, and report it at once."""
        self.unsubscribe(sensor.name)
        if sampling.strategy is Strategy.NONE:
            return
        sampler = _Sampler(self, sensor, sampling)
        self._by_name[sensor.name] = sampler
        sensor.attach_classic(sampler)
        sampler.machine.start(sensor.reading, trio.current_time() if sampler.timed else 0.0)
        self.report(sensor)
        if sampler.timed:
            self.schedule(sampler)

    def unsubscribe(self, name: str) -> None:
        """Sample the sensor of that name no more."""
        sampler = self._by_name.pop(name, None)
        if sampler is not None:
            sampler.sensor.detach(sampler)
            self._timetable.discard(sampler)

    def forget(self, sensor: Sensor[Any]) -> None:
        """Sample that very object no more; another sensor of its name is left alone."""
        sampler = self._by_name.get(sensor.name)
        if sampler is not None and sampler.sensor is sensor:
            self.unsubscribe(sensor.name)

    def clear(self) -> None:
        """Sample nothing any more."""
        for name in list(self._by_name):
            self.unsubscribe(name)

    def report(self, sensor: Sensor[Any]) -> None:
        """Send the sensor's current reading."""
        self._session.send_async_inform(self._session.device.status_line(sensor))

    def schedule(self, sampler: _Sampler) -> None:
        """Wake the sampler when its machine wants to be woken."""
        at = sampler.machine.wake_at
        if at is None:
            self._timetable.discard(sampler)
            return
        self._timetable.set(sampler, at)
        if not self._is_running:
            self._is_running = True
            self._session.start_task(self._run)
        elif self._sleep is not None and at < self._sleep.deadline:
            self._sleep.deadline = at

    async def _run(self) -> None:
        """Wake samplers when their time has come. Ends with the session."""
        while True:
            earliest = self._timetable.next()
            with trio.CancelScope(deadline=math.inf if earliest is None else earliest) as self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            for count, (sampler, _) in enumerate(self._timetable.pop_due(now), start=1):
                if sampler.machine.wake(sampler.sensor.reading, now):
                    self.report(sampler.sensor)
                self.schedule(sampler)
                if count % _BATCH == 0:
                    await trio.lowlevel.checkpoint()
