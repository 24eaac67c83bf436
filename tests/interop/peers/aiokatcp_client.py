"""A client of aiokatcp: ``aiokatcp_client.py PORT``."""

import asyncio
import enum
import logging
import re
import sys
from typing import Any

from told import RecordTeller, obey_async, orders_async, raw, run, tell, text

import aiokatcp

# Seconds within which a mirror is in step, or never.
PATIENCE = 12.0
# The time of a reading that no witness survives.
POISON = 666.0


class Mode(enum.Enum):
    IDLE = 0
    MOVING_FAST = 1
    FAULT = 2


# A value of every type that has one on the wire.
VALUES = (
    -12,
    1e-07,
    True,
    aiokatcp.Timestamp(1234567890.5),
    Mode.MOVING_FAST,
    aiokatcp.Address.parse(b"[::1]:7147"),
    "caf\xe9\n\t\0 \\",
)
TYPES = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "timestamp": aiokatcp.Timestamp,
    "discrete": Mode,
    "address": aiokatcp.Address,
    "string": str,
    "bytes": bytes,
}
NO_ARGUMENTS = {"none": None, "list": [1], "object": object()}


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


def of_error(error: BaseException) -> list:
    """The class that a caller would catch, and the text."""
    kinds = (
        aiokatcp.FailReply,
        aiokatcp.InvalidReply,
        aiokatcp.ProtocolError,
        *_LOSSES,
        ValueError,
        TypeError,
    )
    return [next((kind for kind in kinds if isinstance(error, kind)), type(error)).__name__, str(error)]


_LOSSES = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, ConnectionRefusedError)


class ParityClient(aiokatcp.Client):
    def inform_news(self, number: int, subject: str = "nothing") -> None:
        tell("news", number, subject)

    def inform_bad_news(self, number: int) -> None:
        if number < 0:
            raise aiokatcp.FailReply("there is nothing negative in the news")
        raise RuntimeError("the bearer was shot")


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


class Witness(aiokatcp.AbstractSensorWatcher):
    """Tells each call as an event ``NAME CALL``."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self.pattern = re.compile(pattern)
        self.synced = asyncio.Event()

    def tell(self, call: str, *facts: Any) -> None:
        tell(f"{self.name} {call}", *facts)

    def filter(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> bool:
        self.tell("filter", name, description, units, type_name, *map(text, args))
        return bool(self.pattern.search(name))

    def sensor_added(self, name: str, description: str, units: str, type_name: str, *args: bytes) -> None:
        self.tell("added", name, description, units, type_name, *map(text, args))

    def sensor_removed(self, name: str) -> None:
        self.tell("removed", name)

    def sensor_updated(
        self, name: str, value: bytes, status: aiokatcp.Sensor.Status, timestamp: float
    ) -> None:
        self.tell("updated", name, text(value), status.name, timestamp)
        if timestamp == POISON:
            raise RuntimeError("poisoned")

    def batch_start(self) -> None:
        self.tell("start")

    def batch_stop(self) -> None:
        self.tell("stop")

    def state_updated(self, state: aiokatcp.SyncState) -> None:
        self.tell("state", state.name)
        if state is aiokatcp.SyncState.SYNCED:
            self.synced.set()
        else:
            self.synced.clear()


class Orders:
    """What a test can make the client do."""

    def __init__(self, client: aiokatcp.Client) -> None:
        self.client = client
        self.watcher = Watcher(client)
        self.witnesses: dict[str, Witness] = {}
        self.counted: asyncio.Queue[bytes] = asyncio.Queue()
        self.underway: dict[str, asyncio.Task[list]] = {}

    async def request(self, name: str, *arguments: str) -> list:
        try:
            reply, informs = await self.client.request(name, *map(raw, arguments))
        except (aiokatcp.FailReply, aiokatcp.InvalidReply) as error:
            return [type(error).__name__, str(error)]
        except ConnectionError:
            return ["ConnectionError"]
        return ["ok", [text(argument) for argument in reply], [words(inform) for inform in informs]]

    async def attempt(self, name: str, *arguments: str) -> list:
        """As `request`, but say which error exactly."""
        try:
            reply, informs = await self.client.request(name, *map(raw, arguments))
        except Exception as error:
            return of_error(error)
        return ["ok", [text(argument) for argument in reply], [words(inform) for inform in informs]]

    async def request_raw(self, name: str, *arguments: str) -> list:
        reply, informs = await self.client.request_raw(name, *map(raw, arguments))
        return [[str(message.mtype), message.name, *words(message)] for message in (reply, *informs)]

    async def request_values(self, name: str, first: int = 0) -> list:
        """Make a request whose arguments are values of every type."""
        reply, _ = await self.client.request(name, *VALUES[first:])
        return [text(argument) for argument in reply]

    async def request_nonsense(self, name: str, kind: str) -> list:
        """Make a request with an argument that nobody can encode."""
        try:
            await self.client.request(name, NO_ARGUMENTS[kind])
        except Exception as error:
            return of_error(error)
        return []

    async def begin(self, key: str, name: str, *arguments: str) -> None:
        """Begin a request, and let it go on."""
        self.underway[key] = asyncio.create_task(self.attempt(name, *arguments))
        await asyncio.sleep(0)

    async def end(self, key: str) -> list:
        """Wait for a request that was begun."""
        return await self.underway.pop(key)

    async def give_up(self, key: str) -> bool:
        """Cancel a request that was begun; return whether that is how it ended."""
        task = self.underway.pop(key)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    async def reading(self, name: str) -> list:
        reading = await self.client.sensor_reading(name)
        return [text(aiokatcp.encode(reading.value)), reading.status.name, reading.timestamp]

    async def value(self, name: str) -> str:
        try:
            return text(aiokatcp.encode(await self.client.sensor_value(name)))
        except (ValueError, aiokatcp.FailReply) as error:
            return f"{type(error).__name__}: {error}"

    async def value_of_type(self, name: str, type_name: str | None = None) -> list:
        """A sensor's value, decoded as a type or as the server says: its class, and its text."""
        try:
            value = await self.client.sensor_value(name, type_name and TYPES[type_name])
        except Exception as error:
            return of_error(error)
        return [type(value).__name__, text(aiokatcp.encode(value))]

    async def pipeline(self, count: int) -> bool:
        """Whether as many requests at once each get their own answer."""
        answers = await asyncio.gather(*(self.client.request("echo", number) for number in range(count)))
        return [int(reply[0]) for reply, _ in answers] == list(range(count))

    async def recite_together(self, count: int) -> bool:
        """Whether as many requests at once, with 0, 1, 2... informs, each get their own."""
        answers = await asyncio.gather(*(self.client.request("recite", number) for number in range(count)))
        return [[words(inform) for inform in informs] for _, informs in answers] == [
            [["line", str(line)] for line in range(number)] for number in range(count)
        ]

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

    async def mirror(self) -> dict[str, list]:
        """The mirror as it is."""
        return picture(self.watcher.sensors)

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

    async def witness(self, name: str, pattern: str = "") -> None:
        """Add a watcher that tells whatever it hears."""
        self.witnesses[name] = Witness(name, pattern)
        self.client.add_sensor_watcher(self.witnesses[name])

    async def witness_again(self, name: str) -> None:
        """Add a witness that is there."""
        self.client.add_sensor_watcher(self.witnesses[name])

    async def dismiss(self, name: str) -> None:
        """Undo `witness`."""
        self.client.remove_sensor_watcher(self.witnesses.pop(name))

    async def in_step(self, name: str) -> None:
        """Wait until a witness has heard that it is synced."""
        await asyncio.wait_for(self.witnesses[name].synced.wait(), PATIENCE)

    async def listen(self, name: str) -> None:
        """Tell every asynchronous inform of that name."""
        self.client.add_inform_callback(name, lambda *arguments: tell(name, *map(text, arguments)))

    async def count(self, name: str) -> None:
        """Keep the first argument of every asynchronous inform of that name, a number."""
        self.client.add_inform_callback(name, lambda number, _: self.counted.put_nowait(number))

    async def counted_up_to(self, count: int) -> bool:
        """Wait until there are as many, and tell whether they came in their order."""
        return [int(await self.counted.get()) for _ in range(count)] == list(range(count))

    async def meet(self, count: int) -> bool:
        """Make as many other clients of the same server at once; tell whether each has its own answer."""

        async def ask(number: int) -> int:
            async with await aiokatcp.Client.connect("127.0.0.1", self.client.port) as client:
                reply, _ = await client.request("echo", number)
                return int(reply[0])

        return await asyncio.gather(*map(ask, range(count))) == list(range(count))

    async def record(self, logger: str, level: str) -> None:
        """Let a logger's records be told from that level on."""
        logging.getLogger(logger).setLevel(level)

    async def standing(self) -> list:
        """What the client says of its connection."""
        error = self.client.last_exc
        return [
            self.client.is_connected,
            sorted(self.client.protocol_flags),
            None if error is None else of_error(error),
        ]

    async def connect_once(self) -> list:
        """Make another client of the same server, with one attempt only."""
        try:
            client = await aiokatcp.Client.connect("127.0.0.1", self.client.port, auto_reconnect=False)
        except Exception as error:
            return of_error(error)
        async with client:
            return sorted(client.protocol_flags)

    async def wait_connected(self) -> list:
        try:
            await self.client.wait_connected()
        except Exception as error:
            return of_error(error)
        return []

    async def wait_disconnected(self) -> None:
        await self.client.wait_disconnected()

    async def close(self) -> None:
        self.client.close()
        await self.client.wait_closed()


async def main(port: int) -> None:
    logging.getLogger().addHandler(RecordTeller())
    client = await ParityClient.connect("127.0.0.1", port)
    tell("connected", sorted(client.protocol_flags))
    client.add_connected_callback(lambda: tell("connected", sorted(client.protocol_flags)))
    client.add_disconnected_callback(lambda: tell("disconnected"))
    client.add_failed_connect_callback(lambda error: tell("failed", *of_error(error)))
    client.add_inform_callback("disconnect", lambda reason: tell("disconnect", text(reason)))
    async with client:
        commands = Orders(client)
        async for order in orders_async():
            await obey_async({order[0]: getattr(commands, order[0])}, order)


run(main(int(sys.argv[1])))
