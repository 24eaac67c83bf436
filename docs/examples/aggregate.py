"""Sensors computed from other sensors: the mean of some temperatures, and the worst status of all."""

from __future__ import annotations

from typing import Any

from armillary import katcp


# [mean]
class MeanTemperature(katcp.SimpleAggregateSensor[float]):
    """The mean of all sensors in degrees Celsius whose values mean anything."""

    def __init__(self, target: katcp.SensorSet) -> None:
        self._values: dict[str, float] = {}  # before super().__init__(), which counts the sensors in
        super().__init__(target, float, "mean-temperature", "Mean of the temperatures", "degC")

    def filter_aggregate(self, sensor: katcp.Sensor[Any]) -> bool:
        return sensor is not self and sensor.units == "degC"

    def aggregate_add(self, sensor: katcp.Sensor[Any], reading: katcp.Reading[Any]) -> bool:
        self._values[sensor.name] = reading.value
        return True

    def aggregate_remove(self, sensor: katcp.Sensor[Any], reading: katcp.Reading[Any]) -> bool:
        del self._values[sensor.name]
        return True

    def aggregate_compute(self) -> tuple[katcp.SensorStatus, float]:
        if not self._values:
            return katcp.SensorStatus.UNKNOWN, 0.0
        return katcp.SensorStatus.NOMINAL, sum(self._values.values()) / len(self._values)


# [health]
HEALTH = {
    katcp.SensorStatus.WARN: katcp.DeviceStatus.DEGRADED,
    katcp.SensorStatus.ERROR: katcp.DeviceStatus.FAIL,
    katcp.SensorStatus.FAILURE: katcp.DeviceStatus.FAIL,
}
STATUSES = {
    katcp.DeviceStatus.OK: katcp.SensorStatus.NOMINAL,
    katcp.DeviceStatus.DEGRADED: katcp.SensorStatus.WARN,
    katcp.DeviceStatus.FAIL: katcp.SensorStatus.ERROR,
}


class Health(katcp.AggregateSensor[katcp.DeviceStatus]):
    """The ``device-status`` that devices have by convention: as bad as the worst sensor."""

    def __init__(self, target: katcp.SensorSet) -> None:
        super().__init__(target, katcp.DeviceStatus, "device-status", "Health of the device")

    def update_aggregate(
        self,
        updated_sensor: katcp.Sensor[Any] | None,
        reading: katcp.Reading[Any] | None,
        old_reading: katcp.Reading[Any] | None,
    ) -> katcp.Reading[katcp.DeviceStatus] | None:
        found = [
            HEALTH.get(sensor.status, katcp.DeviceStatus.OK)
            for sensor in self.target.values()
            if sensor is not self
        ]
        worst = max(found, key=lambda health: health.value, default=katcp.DeviceStatus.OK)
        if worst is self.value and updated_sensor is not None:
            return None
        return katcp.Reading(self.now(), STATUSES[worst], worst)


# [main]
def main() -> None:
    sensors = katcp.SensorSet()
    health, mean = Health(sensors), MeanTemperature(sensors)
    for aggregate in (health, mean):
        sensors.add(aggregate)
    mirror_cell, camera = (katcp.Sensor(float, name, units="degC") for name in ("mirror-cell", "camera"))
    sensors.add(mirror_cell)
    sensors.add(camera)
    mirror_cell.value = 8.0
    camera.value = -60.0
    print("mean:", mean.value, mean.units)
    camera.set_value(20.0, katcp.SensorStatus.ERROR)
    print("mean:", mean.value, mean.units, "and the device:", health.value.name)
    sensors.remove(camera)
    print("mean:", mean.value, mean.units, "and the device:", health.value.name)


if __name__ == "__main__":
    main()
# [end]
