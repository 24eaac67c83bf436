"""A client of aiokatcp: ``aiokatcp_client.py PORT``."""

import asyncio
import sys
from typing import Any

from told import obey_async, orders_async, raw, tell, text

import aiokatcp

# Seconds within which a mirror is in step, or never.
PATIENCE = 12.0


def words(message: aiokatcp.Message) -> list[str]:
    return [text(argument) for argument in message.arguments]


def picture(sensors: aiokatcp.SensorSet) -> dict[str, list]:
    """What there is to know of sensors, as plain text."""
    return {
        sensor.name: [
            sensor.type_name,
            sensor.description,
            sensor.units,
            text(aiokatcp.encode(sensor.value)),
            sensor.status.name,
            sensor.timestamp,
        ]
        for sensor in sensors.values()
    }


class Watcher(aiokatcp.SensorWatcher):
    """A mirror that tells its state, and says when it may have changed."""

    def __init__(self, client: aiokatcp.Client) -> None:
        super().__init__(client)
        self.news = asyncio.Event()
        self.updates = 0

    def sensor_updated(self, *arguments: Any) -> None:
        super().sensor_updated(*arguments)
        self.updates += 1

    def batch_stop(self) -> None:
        super().batch_stop()
        self.news.set()

    def state_updated(self, state: aiokatcp.SyncState) -> None:
        super().state_updated(state)
        self.news.set()
        tell("state", state.name)


class Orders:
    """What a test can make the client do."""

    def __init__(self, client: aiokatcp.Client) -> None:
        self.client = client
        self.watcher = Watcher(client)

    async def request(self, name: str, *arguments: str) -> list:
        try:
            reply, informs = await self.client.request(name, *map(raw, arguments))
        except (aiokatcp.FailReply, aiokatcp.InvalidReply) as error:
            return [type(error).__name__, str(error)]
        except ConnectionError:
            return ["ConnectionError"]
        return ["ok", [text(argument) for argument in reply], [words(inform) for inform in informs]]

    async def reading(self, name: str) -> list:
        reading = await self.client.sensor_reading(name)
        return [text(aiokatcp.encode(reading.value)), reading.status.name, reading.timestamp]

    async def value(self, name: str) -> str:
        try:
            return text(aiokatcp.encode(await self.client.sensor_value(name)))
        except (ValueError, aiokatcp.FailReply) as error:
            return f"{type(error).__name__}: {error}"

    async def pipeline(self, count: int) -> bool:
        """Whether as many requests at once each get their own answer."""
        answers = await asyncio.gather(*(self.client.request("echo", number) for number in range(count)))
        return [int(reply[0]) for reply, _ in answers] == list(range(count))

    async def overlap(self, *seconds: float) -> list[float]:
        """Sleep as many times at once; return the order in which they ended."""
        ended = []

        async def sleep(duration: float) -> None:
            await self.client.request("sleep", duration)
            ended.append(duration)

        await asyncio.gather(*map(sleep, seconds))
        return ended

    async def echo_large(self, size: int) -> bool:
        """Whether so many bytes of every kind come back as they are."""
        payload = (bytes(range(256)) * (size // 256 + 1))[:size]
        reply, _ = await self.client.request("echo", payload)
        return reply == [payload]

    async def watch(self) -> None:
        self.client.add_sensor_watcher(self.watcher)

    async def unwatch(self) -> None:
        self.client.remove_sensor_watcher(self.watcher)

    async def updates(self) -> int:
        return self.watcher.updates

    async def mirror_becomes(self, expected: dict[str, list]) -> dict[str, list]:
        """Wait until the mirror is in step with `expected`, or for long enough; return it."""

        async def wait() -> None:
            while not self.watcher.synced.is_set() or picture(self.watcher.sensors) != expected:
                self.watcher.news.clear()
                await self.watcher.news.wait()

        try:
            await asyncio.wait_for(wait(), PATIENCE)
        except TimeoutError:
            pass
        return picture(self.watcher.sensors)

    async def listen(self, name: str) -> None:
        """Tell every asynchronous inform of that name."""
        self.client.add_inform_callback(name, lambda *arguments: tell(name, *map(text, arguments)))


async def main(port: int) -> None:
    client = await aiokatcp.Client.connect("127.0.0.1", port)
    tell("connected", sorted(client.protocol_flags))
    client.add_connected_callback(lambda: tell("connected", sorted(client.protocol_flags)))
    client.add_disconnected_callback(lambda: tell("disconnected"))
    client.add_inform_callback("disconnect", lambda reason: tell("disconnect", text(reason)))
    async with client:
        commands = Orders(client)
        async for order in orders_async():
            await obey_async({order[0]: getattr(commands, order[0])}, order)


asyncio.run(main(int(sys.argv[1])))
