"""The sensors that one client has subscribed to, each with a sampler on the loop's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armillary.katcp.protocol.sampling import Sampling, Strategy

from .sensor import Sensor, SensorSampler

if TYPE_CHECKING:
    from ._client_connection import ClientConnection

__all__ = ["ConnectionSamplers"]


class ConnectionSamplers:
    """One client's samplers by name of their sensor: what armillary's requests and `ClientConnection` use.

    Args:
        connection: the client's, which sends what the samplers report.
    """

    __slots__ = ("_by_name", "_connection")

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._by_name: dict[str, SensorSampler[Any]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get_sampler(self, sensor: Sensor[Any]) -> SensorSampler[Any] | None:
        """The sampler of that very sensor, or None."""
        sampler = self._by_name.get(sensor.name)
        return sampler if sampler is not None and sampler.sensor is sensor else None

    def set_sampler(self, sensor: Sensor[Any], sampler: SensorSampler[Any] | None) -> None:
        """Put a sampler, or nothing, in the place of the one that the sensor has. The old one is closed."""
        self.unsubscribe(sensor.name)
        if sampler is not None:
            self._by_name[sensor.name] = sampler

    def get(self, sensor: Sensor[Any]) -> Sampling | None:
        """How the client samples the sensor, or None."""
        sampler = self.get_sampler(sensor)
        return None if sampler is None else sampler.sampling

    def subscribe(self, sensor: Sensor[Any], sampling: Sampling) -> None:
        """Sample the sensor from now on, instead of any way it was sampled before, and report it at once."""
        self.unsubscribe(sensor.name)
        if sampling.strategy is not Strategy.NONE:
            connection = self._connection
            self._by_name[sensor.name] = SensorSampler.of(
                sensor, connection.sensor_update, connection.owner.loop, sampling
            )

    def unsubscribe(self, name: str) -> None:
        """Sample the sensor of that name no more."""
        sampler = self._by_name.pop(name, None)
        if sampler is not None:
            sampler.close()

    def forget(self, sensor: Sensor[Any]) -> None:
        """Sample that very object no more; another sensor of its name is left alone."""
        if self.get_sampler(sensor) is not None:
            self.unsubscribe(sensor.name)

    def clear(self) -> None:
        """Sample nothing any more."""
        for name in tuple(self._by_name):
            self.unsubscribe(name)
