"""A service made of a socket and JSON, as one in LabVIEW is. Usage: plain_service.py [PORT]."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

IDENTITY = {
    "type": "service",
    "name": "Thermometer",
    "attributes": {"read": "(channel=1) -> float"},
    "language": "none to speak of",
    "os": "unknown",
}


# [service]
def answer(packet: dict[str, Any]) -> dict[str, Any]:
    """The reply to what the manager, or a client through the manager, asks for."""
    reply = {"error": False, "requester": packet["requester"], "uid": packet["uid"]}
    if packet["attribute"] == "identity":
        return {**reply, "result": IDENTITY}
    if packet["attribute"] == "read":
        channel = packet["kwargs"].get("channel", 1)
        return {**reply, "result": 20.0 + channel}
    message = f"AttributeError: there is no {packet['attribute']!r} here"
    return {**reply, "error": True, "message": message, "result": None, "traceback": []}


def main(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as lines:
        for line in lines:
            packet = json.loads(line)
            if packet.get("error"):
                print(packet["message"], file=sys.stderr)
            else:
                connection.sendall(json.dumps(answer(packet)).encode() + b"\r\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1875)
# [end]
