"""A manager under fire: peers that send anything, in any pieces, beside a client and a service that work.

pytest runs some seeded cases, and new ones for some seconds. ``test_manager_fuzz.py SECONDS [SEED]``, as a
program, tries new ones for as long, or those from that seed on, and prints the seed of what it finds.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).parent / "protocol"))  # where the maker of lines is

from packet_maker import Maker
from seeded import main, run_cases, run_seeded

from armillary.network.client import Client
from armillary.network.manager import Authenticate, ManagerLimits
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.protocol.features import ALL_FEATURES
from armillary.network.protocol.framing import PacketReader
from armillary.network.protocol.words import WORDS
from armillary.network.service import Service
from armillary.testing import Lab, open_lab
from armillary.testing.streams import BoundedStream

# Seconds of virtual time that nothing here needs by far.
PATIENCE = 600.0
PASSWORD = "5e5ame"
LINE = 20_000
CASES = 100
# More digits than Python reads; JSON has no limit.
DIGITS = b"9" * 5000


class Bench(Service):
    """What works, whatever others do."""

    async def echo(self, token: object) -> object:
        return token

    async def wait(self, token: object, seconds: float = 0.01) -> object:
        await trio.sleep(min(seconds, 1.0))
        return token

    async def tell(self, token: object) -> object:
        self.emit_notification(token)
        return token


class Attacker:
    """One connection on which anything is sent."""

    def __init__(
        self, rng: random.Random, stream: BoundedStream, victim: Client, *, needs_password: bool
    ) -> None:
        self.rng = rng
        self.needs_password = needs_password
        self.stream = stream
        self.victim = victim
        self.maker = Maker(rng)
        self.features = [feature for feature in sorted(ALL_FEATURES) if rng.random() < 0.3]
        self.name = rng.choice(["Mallory", "Mallory", "Bench", "Victim", "Manager", "DMM", "[]", "é"])

    async def attack(self) -> None:
        """Send it, and read what comes, or do not."""
        rng = self.rng
        async with trio.open_nursery() as nursery:
            if rng.random() < 0.8:
                nursery.start_soon(self.read)
            try:
                if rng.random() < 0.3:
                    await self.send(self.before())
                if rng.random() < 0.9:
                    await self.send(self.introduction())
                for _ in range(rng.randrange(1, 12)):
                    await self.send(self.after())
                if rng.random() < 0.3:
                    await trio.sleep(rng.choice([0.1, 70.0]))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the manager has had enough
            if rng.random() < 0.3:
                self.stream.reset()
            await trio.aclose_forcefully(self.stream)

    async def read(self) -> None:
        """Whatever the manager says is packets, whatever it was told."""
        reader = PacketReader(16 * LINE)
        is_plain = "bin1" not in self.features
        try:
            while data := await self.stream.receive_some(self.rng.choice([1, 100, 65536])):
                reader.append(bytes(data))
                while is_plain and (line := reader.next_line()) is not None:
                    assert isinstance(line, bytes)
                    packet = json.loads(line)
                    assert isinstance(packet, dict), line
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def send(self, data: bytes) -> None:
        """Send it in random pieces."""
        rng = self.rng
        start = 0
        longest = rng.choice([1, 7, 1000, 100_000])
        while start < len(data):
            size = max(rng.randrange(longest) + 1, len(data) // 50)
            await self.stream.send_all(data[start : start + size])
            start += size
            if rng.random() < 0.2:
                await trio.sleep(rng.choice([0, 0.001]))

    # -- what is sent --------------------------------------------------------------------------------------

    def before(self) -> bytes:
        """Something that is no identity."""
        maker, rng = self.maker, self.rng
        match rng.randrange(6):
            case 0:
                return rng.choice([b"\x16\x03\x01\x02\x00", b"\xff\xfe", b"\x00"]) * rng.randrange(1, 5)
            case 1:
                return rng.randbytes(rng.randrange(200)) + b"\n"
            case 2:
                return json.dumps({"result": maker.value(), "error": False}).encode() + b"\r\n"
            case 3:
                return rng.choice(
                    [b"client\n", b"identity\n", b"5e5ame\r\n", b"Mallory\r\n", b"\r\n", b'""\n']
                )
            case 4:
                return b'{"result":%b}\n' % rng.choice([DIGITS, b"[" * 3000, b'"' + b"x" * 2 * LINE + b'"'])
        return maker.line()

    def introduction(self) -> bytes:
        """What lets it in, or nearly."""
        maker, rng = self.maker, self.rng
        identity: dict[str, Any] = {
            "type": rng.choice([*["client", "service"] * 5, "manager"]),
            "name": self.name,
            "language": "Test",
            "os": "Test",
            "attributes": {"echo": "(token)"},
            "max_clients": rng.choice([-1, -1, 0, 1, 2, 10**20]),
            "features": self.features,
        }
        for key in list(identity):
            if rng.random() < 0.02:
                identity[key] = maker.value()
            elif rng.random() < 0.01:
                del identity[key]
        answer = {"error": False, "requester": None, "result": identity, "uid": ""}
        says_password = self.needs_password is (rng.random() < 0.9)
        first = json.dumps({"result": PASSWORD}).encode() + b"\r\n" if says_password else b""
        return first + json.dumps(answer).encode("utf-8", "surrogatepass") + b"\r\n"

    def after(self) -> bytes:
        """A packet that is aimed at somebody, perhaps damaged, or anything."""
        maker, rng = self.maker, self.rng
        if rng.random() < 0.3:
            return maker.line()
        line = json.dumps(
            rng.choice([self.request, self.to_manager, self.reply, self.notification])()
        ).encode()
        if rng.random() < 0.05:
            line = line.replace(b"[", b"[" + DIGITS + b",", 1)
        if rng.random() < 0.2:
            start = rng.randrange(len(line))
            line = line[:start] + rng.choice([b"", b'"', b"{", b"\xff", b"\\", b"\n"]) + line[start + 1 :]
        return line + rng.choice([b"\r\n", b"\n"])

    def uid(self) -> str:
        return str(self.rng.choice(["", "notification", "-1", *range(30)]))

    def somebody(self) -> object:
        return self.rng.choice([self.victim.network_name, self.victim.manager_name, "Mallory[lab:1]", None])

    def request(self) -> dict[str, object]:
        rng = self.rng
        return {
            "service": rng.choice(["Bench", "Bench", "DMM", "self"]),
            "attribute": rng.choice(["echo", "wait", "tell", "name", "_run", "__class__", "nothing"]),
            "args": rng.choice([[self.maker.value()], [], [1, 2, 3], None]),
            "kwargs": rng.choice([{}, {"seconds": 0.5}, {"token": 1}, None]),
            "uid": self.uid(),
            **({"requester": self.somebody()} if rng.random() < 0.3 else {}),
            **({"more": True} if rng.random() < 0.1 else {}),
        }

    def to_manager(self) -> dict[str, object]:
        rng = self.rng
        attribute = rng.choice(
            [
                rng.choice(["link", "unlink", "acquire_lock", "release_lock", "identity"]),
                rng.choice(["force_unlock", "port", "shutdown_manager", "users_table.usernames"]),
                rng.choice(["__init__.__globals__", *WORDS]),
            ]
        )
        return {
            "service": "Manager",
            "attribute": attribute,
            "args": rng.choice([["Bench"], ["DMM"], [self.uid()], [self.uid(), 5], [], [self.maker.value()]]),
            "kwargs": rng.choice([{}, {"shared": True}, {"shared": False}, {"shared": 1}]),
            "uid": self.uid(),
        }

    def reply(self) -> dict[str, object]:
        rng = self.rng
        return {
            "result": "forged",
            "uid": self.uid(),
            "requester": self.somebody(),
            "error": rng.choice([True, False]),
            "message": "forged",
            "traceback": [],
            **({"more": rng.choice([True, False])} if rng.random() < 0.3 else {}),
        }

    def notification(self) -> dict[str, object]:
        result = self.rng.choice([*[[["forged"], {}]] * 4, "forged", None, [], [1, 2]])
        service = self.rng.choice(["Bench", "Bench", "DMM", None])
        return {"result": result, "service": service, "uid": "notification", "error": False}


class Errors(logging.Handler):
    """What was logged as an error: whatever a peer sends, that would be ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


@contextmanager
def no_errors() -> Iterator[None]:
    """For a block, nothing may be logged as an error."""
    errors, logger = Errors(), logging.getLogger("armillary")
    logger.addHandler(errors)
    propagates, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(errors)
    assert not errors.found, errors.found[0]


async def fire(seed: int) -> Counter[str]:
    """One case: some attackers at once. Return what has become of what they did."""
    rng = random.Random(seed)
    authenticate = rng.choice(
        [Authenticate(), Authenticate(password=PASSWORD), Authenticate(hostnames=["bench", "lab"])]
    )
    lab_options = {"authenticate": authenticate, "limits": ManagerLimits(line=LINE)}
    credentials = Credentials(password_manager=PASSWORD)
    with no_errors():
        async with open_lab(
            Bench(), credentials=credentials, buffer=rng.choice([300, 65536]), **lab_options
        ) as lab:
            with trio.fail_after(PATIENCE):
                async with lab.client("Victim") as victim:
                    async with trio.open_nursery() as attackers:
                        for _ in range(rng.randrange(1, 5)):
                            host = rng.choice(["lab", "lab", "elsewhere", "[::1]"])
                            stream = await lab.connect(host=host)
                            needs_password = authenticate.password is not None
                            attacker = Attacker(rng, stream, victim, needs_password=needs_password)
                            attackers.start_soon(attacker.attack)
                        for _ in range(10):
                            await work(victim, rng)
                            if not attackers.child_tasks:
                                break
                    await work(victim, rng)
                    await trio.sleep(2)  # until the service has answered those who have gone
                    check_victims_alone(lab, victim)
                    manager = lab.manager
    statistics = manager.statistics()
    assert manager.registry.peers() == []
    assert statistics.peers == statistics.services == ()
    assert statistics.requests.in_flight == 0
    counters, traffic = statistics.counters, statistics.traffic
    return Counter(
        {
            "accepted": counters.connections_accepted - 2,
            "refused": counters.connections_refused,
            "abandoned": counters.connections_abandoned,
            "no packets": traffic.malformed,
            "packets": traffic.packets - traffic.malformed,
            "requests refused": counters.requests_refused,
            "replies of nobody": sum(statistics.requests.strays.values()),
        }
    )


async def work(victim: Client, rng: random.Random) -> None:
    """Calls that go on undisturbed: each has its own result, and nothing is told that was not told."""
    told: list[object] = []
    expected: list[object] = []
    async with victim.link("Bench") as bench:
        bench.add_notification_callback(told.append)
        for number in range(rng.randrange(5, 15)):
            token = f"{number} {rng.random()}"
            match rng.randrange(4):
                case 0:
                    expected.append(token)
                    assert await bench.tell(token) == token
                case 1:
                    assert await bench.wait(token, rng.choice([0.0, 0.01])) == token
                case _:
                    assert await bench.echo(token) == token
        bench.remove_notification_callback(told.append)
    # Whoever is let in may call the service, which then tells everybody: but only what it was asked to tell.
    own = iter(told)
    assert all(token in own for token in expected), (expected, told)
    assert "forged" not in told


def check_victims_alone(lab: Lab, victim: Client) -> None:
    """Nobody else is left, anywhere."""
    manager = lab.manager
    assert {peer.name for peer in manager.registry.peers()} == {"Bench", "Victim"}
    (row,) = manager.registry.table()
    assert (row.name, row.links, row.lock) == ("Bench", (), None)
    statistics = manager.statistics()
    assert statistics.requests.in_flight == 0
    assert len(statistics.peers) == 2
    outstanding = manager.outstanding
    assert set(outstanding._requesters) <= {victim.network_name}
    assert all(not at.in_flight and not at.named and not at.unnamed for at in outstanding._services.values())


def test_calls_go_on_whatever_others_send() -> None:
    """Whatever peers send, before and after they are let in, disturbs nobody, and nothing is left of them."""
    total: Counter[str] = Counter()
    for seed in range(CASES):
        total += run_seeded(fire, seed)
    assert len(total) == 7
    assert min(total.values()) >= 5, total


def test_new_cases_for_some_seconds() -> None:
    """The same with cases that nobody has tried before; an error says which seed it was."""
    _, number, _ = run_cases(fire, 2.0)
    assert number > 0


def conversation(authenticate: Authenticate) -> bytes:
    """All that a good client says, from the handshake to its good-bye."""
    answers: list[dict[str, Any]] = []
    if authenticate.password is not None:
        answers.append({"result": authenticate.password, "error": False, "requester": None, "uid": ""})
    identity = {"type": "client", "name": "Cut", "language": "Test", "os": "Test"}
    answers.append({"result": identity, "error": False, "requester": None, "uid": ""})
    requests = [("Manager", "link", ["Bench"], {}), ("Manager", "acquire_lock", ["Bench"], {"shared": False})]
    requests += [
        ("Bench", "echo", ["é"], {}),
        ("Bench", "wait", ["x", 1.0], {}),
        ("x", "__disconnect__", [], {}),
    ]
    for uid, (service, attribute, args, kwargs) in enumerate(requests):
        answers.append(
            {"service": service, "attribute": attribute, "args": args, "kwargs": kwargs, "uid": str(uid)}
        )
    return b"".join(json.dumps(answer, ensure_ascii=False).encode() + b"\r\n" for answer in answers)


@pytest.mark.parametrize(
    "authenticate", [Authenticate(), Authenticate(password=PASSWORD)], ids=["", "password"]
)
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_a_peer_that_is_cut_off_after_any_byte(
    authenticate: Authenticate, is_reset: bool, autojump_clock: object
) -> None:
    """Wherever a connection ends, nothing of the peer is left: no name, no link, no lock, no request."""
    said = conversation(authenticate)
    credentials = Credentials(password_manager=PASSWORD)
    with no_errors():
        async with open_lab(Bench(), credentials=credentials, authenticate=authenticate) as lab:
            manager = lab.manager
            locked = 0
            for size in range(len(said) + 1):
                stream = await lab.connect()
                await stream.send_all(said[:size])
                await trio.testing.wait_all_tasks_blocked()
                (row,) = manager.registry.table()
                locked += row.lock is not None
                if is_reset:
                    stream.reset()
                await trio.aclose_forcefully(stream)
                await trio.testing.wait_all_tasks_blocked()
                assert [peer.name for peer in manager.registry.peers()] == ["Bench"], said[:size]
                (row,) = manager.registry.table()
                assert (row.links, row.lock) == ((), None)
                statistics = manager.statistics()
                assert (len(statistics.peers), statistics.requests.in_flight) == (1, 0)
                assert manager.outstanding._requesters == {}
    assert locked > 100


if __name__ == "__main__":
    main(fire)
