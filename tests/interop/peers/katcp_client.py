"""A client of katcp-python that blocks: ``katcp_client.py PORT``."""

import sys
import threading
from typing import Any

from told import obey, orders, raw, tell, text

import katcp

PATIENCE = 10.0


def words(message: katcp.Message) -> list[str]:
    return [text(argument) for argument in message.arguments]


class Client(katcp.BlockingClient):
    """Tells of every inform that belongs to no request, and of its connection."""

    def unhandled_inform(self, msg: katcp.Message) -> None:
        tell(msg.name, *words(msg))

    def notify_connected(self, connected: bool) -> None:
        super().notify_connected(connected)
        tell("connected" if connected else "disconnected")


class Orders:
    """What a test can make the client do."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def flags(self) -> list:
        flags = self.client.protocol_flags
        return [flags.major, flags.minor, sorted(map(text, flags.flags))]

    def versions(self) -> dict[str, list[str]]:
        return {name: list(versions) for name, versions in self.client.versions.items()}

    def request(self, name: str, *arguments: str, use_mid: bool = True) -> list:
        request = katcp.Message.request(name, *map(raw, arguments))
        reply, informs = self.client.blocking_request(request, timeout=PATIENCE, use_mid=use_mid)
        return [words(reply), [words(inform) for inform in informs]]

    def request_without_mid(self, name: str, *arguments: str) -> list:
        return self.request(name, *arguments, use_mid=False)

    def call_back(self, name: str, *arguments: str) -> list:
        """Make a request, and hear its informs and its reply as they come."""
        heard: list[list[str]] = []
        done = threading.Event()

        def take_reply(message: katcp.Message) -> None:
            heard.append(["!", *words(message)])
            done.set()

        self.client.callback_request(
            katcp.Message.request(name, *map(raw, arguments)),
            reply_cb=take_reply,
            inform_cb=lambda message: heard.append(["#", *words(message)]),
            timeout=PATIENCE,
        )
        done.wait(PATIENCE)
        return heard

    def pipeline(self, count: int) -> bool:
        """Whether as many requests at once each get their own answer."""
        answers: dict[int, list[bytes]] = {}
        done = threading.Event()

        def take(message: katcp.Message, number: int) -> None:
            answers[number] = message.arguments
            if len(answers) == count:
                done.set()

        for number in range(count):
            self.client.callback_request(
                katcp.Message.request("echo", number), reply_cb=take, user_data=(number,), timeout=PATIENCE
            )
        done.wait(PATIENCE)
        return answers == {number: [b"ok", str(number).encode()] for number in range(count)}

    def echo_large(self, size: int) -> bool:
        payload = (bytes(range(128)) * (size // 128 + 1))[:size]
        reply, _ = self.client.blocking_request(katcp.Message.request("echo", payload), timeout=PATIENCE)
        return reply.arguments == [b"ok", payload]


def main(port: int) -> None:
    client = Client("127.0.0.1", port, timeout=PATIENCE)
    client.start(timeout=PATIENCE)
    client.wait_protocol(PATIENCE)
    commands: Any = Orders(client)
    for order in orders():
        obey({order[0]: getattr(commands, order[0])}, order)
    client.stop()
    client.join(PATIENCE)


main(int(sys.argv[1]))
