"""A device of katcp-python: ``katcp_server.py PORT FLAGS [SENSORS]``, with flags as ``5.0-IM``."""

import logging
import sys
from typing import Any

from katcp.kattypes import (
    Address,
    Bool,
    Discrete,
    Float,
    Int,
    Str,
    Timestamp,
    request,
    request_timeout_hint,
    return_reply,
)
from told import obey, orders, raw, tell, text

import katcp

TIME = 1234567890.5
MODES = ["idle", "moving-fast", "fault"]


class ParityDevice(katcp.DeviceServer):
    VERSION_INFO = ("parity", 1, 0)
    BUILD_INFO = ("parity", 1, 0, "3")

    def setup_sensors(self) -> None:
        for sensor in (
            katcp.Sensor.float("temperature", "Air temperature", "degC", [-50.0, 50.0], default=0.0),
            katcp.Sensor.integer("counter", "Requests to count so far", "", [0, 1000]),
            katcp.Sensor.boolean("enabled", "Whether it may move"),
            katcp.Sensor.discrete("mode", "What it does", "", MODES),
            katcp.Sensor.address("peer.address", "Where its data goes"),
            katcp.Sensor.timestamp("since", "When it was started"),
            katcp.Sensor.string("label", "A name for people"),
        ):
            sensor.set(TIME, katcp.Sensor.UNKNOWN, sensor.value())
            self.add_sensor(sensor)

    def request_echo(self, req: Any, msg: Any) -> Any:
        """Reply with the arguments."""
        return req.make_reply("ok", *msg.arguments)

    @request(Int(), Float(), Bool(), Timestamp(), Discrete(MODES), Address(), Str())
    @return_reply(Int(), Float(), Bool(), Timestamp(), Discrete(MODES), Address(), Str())
    def request_types(self, req: Any, *values: Any) -> Any:
        """Decode and encode an argument of every type."""
        return ("ok", *values)

    @request(Str())
    @return_reply()
    def request_refuse(self, req: Any, reason: str) -> Any:
        """Fail politely."""
        return ("fail", reason)

    @request(Int())
    @return_reply(Int())
    @request_timeout_hint(25)
    def request_recite(self, req: Any, count: int) -> Any:
        """Answer with informs."""
        for number in range(count):
            req.inform("line", number)
        return ("ok", count)

    def request_crash(self, req: Any, msg: Any) -> Any:
        """Fail with a traceback."""
        raise RuntimeError("crashed on request")


class Orders:
    """What a test can make the device do."""

    def __init__(self, server: ParityDevice) -> None:
        self.server = server

    def set(self, name: str, value: str, status: str = "nominal", time: float = TIME) -> None:
        sensor = self.server.get_sensor(name)
        sensor.set_formatted(repr(time).encode(), status.lower().encode(), raw(value))

    def add(self, name: str, kind: str, description: str = "") -> None:
        self.server.add_sensor(getattr(katcp.Sensor, kind)(name, description))

    def remove(self, name: str) -> None:
        self.server.remove_sensor(name)

    def inform(self, name: str, *arguments: str) -> None:
        self.server.mass_inform(katcp.Message.inform(name, *arguments))

    def log(self, message: str) -> None:
        self.server.log.error(message)

    def picture(self) -> dict[str, list]:
        told = {}
        for sensor in self.server.get_sensors():
            time, status, value = sensor.read_formatted()
            told[sensor.name] = [
                sensor.type,
                sensor.description,
                sensor.units,
                repr(float(value)) if sensor.type == "timestamp" else text(value),
                status.decode().upper(),
                float(time),
            ]
        return told


def main(port: int, flags: str, sensors: int) -> None:
    protocol = {"PROTOCOL_INFO": katcp.ProtocolFlags.parse_version(flags.encode())}
    # Which requests there are is found out when the class is made.
    server = type("Device", (ParityDevice,), protocol)("127.0.0.1", port)
    for number in range(sensors):
        server.add_sensor(katcp.Sensor.float(f"many.{number:04}", default=float(number)))
    server.start(timeout=10)
    logging.disable()
    tell("listening", server.bind_address[1])
    commands = Orders(server)
    for order in orders():
        obey({order[0]: getattr(commands, order[0])}, order)
    server.stop()
    server.join(timeout=10)


main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
