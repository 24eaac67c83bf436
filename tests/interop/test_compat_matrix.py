"""One conversation, with the same programs at both ends, goes alike whichever library each end runs on.

Each end runs on aiokatcp or on the façade (on either event loop). Whatever the programs are told — answers,
exceptions, callbacks and log records, in their order — is written down. What differs on purpose stands in
`DIFFERENCES`, each with its reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import trio
from speaking import Peer, open_peer, open_peer_server

pytestmark = pytest.mark.interop

THEIRS = ("aiokatcp", "aiokatcp")
PAIRS = [
    ("facade", "aiokatcp"),
    ("aiokatcp", "facade"),
    ("facade", "facade"),
    ("facade-uvloop", "facade-uvloop"),
]
Transcript = list[Any]


def masked(fact: Any) -> Any:
    """A fact without what has to differ: ports, the present time, the way that a traceback leads through."""
    if isinstance(fact, list | tuple):
        return [masked(part) for part in fact]
    if isinstance(fact, dict):
        return {name: masked(part) for name, part in fact.items()}
    if isinstance(fact, float) and abs(fact - time.time()) < 3600:
        return "NOW"
    if isinstance(fact, str):
        if re.fullmatch(r"1\d{9}\.\d+", fact):
            return masked(float(fact)) if abs(float(fact) - time.time()) < 3600 else fact
        fact = re.sub(r"(\[Errno \d+\]) .*", r"\1", fact)  # uvloop has its own words
        fact = re.sub(r"(?<=\.py:)\d+", "LINE", fact)
        fact = re.sub(r"127\.0\.0\.1:\d+|'127\.0\.0\.1', \d+", "ADDRESS", fact)
        return re.sub(r"^Traceback .*\n(?=\S)", "Traceback ... ", fact, flags=re.DOTALL)
    return fact


class Talk:
    """A server and a client, what they are made to do, and what they told.

    Args:
        server: the server's program.
        client: the client's.
    """

    def __init__(self, server: Peer, client: Peer) -> None:
        self._server = server
        self._client = client
        self.transcript: Transcript = []

    async def client(self, order: str, *arguments: object) -> None:
        """Let the client do something, and write down everything that comes of it. Both are connected."""
        self._write("client", order, *arguments, answer=await self._client.ask(order, *arguments))
        await self.settle()

    async def server(self, order: str, *arguments: object) -> None:
        """The same for the server."""
        self._write("server", order, *arguments, answer=await self._server.ask(order, *arguments))
        await self.settle()

    async def settle(self) -> None:
        """Write down what both have to tell, once they have heard each other."""
        await self._client.ask("request", "watchdog")
        await self.rest()

    async def rest(self) -> None:
        """Write down what both have told."""
        await self._server.ask("is_listening")
        await self._client.ask("standing")
        for name, peer in (("server", self._server), ("client", self._client)):
            self._write_events(name, peer.take_events())

    async def in_step(self, witness: str) -> None:
        """Wait until a watcher of the client is in step, and write down what it was told."""
        await self._client.ask("in_step", witness)
        await self.settle()

    async def alone(self, who: str, order: str, *arguments: object) -> None:
        """Let one of them do something that may end their connection. Its events are left for later."""
        peer = self._server if who == "server" else self._client
        self._write(who, order, *arguments, answer=await peer.ask(order, *arguments))

    async def hear(self, who: str, event: str, matches: Callable[..., bool] = lambda *facts: True) -> None:
        """Wait for an event, and write down what came before it, and itself."""
        peer = self._server if who == "server" else self._client
        self._write_events(who, await peer.events_until(event, matches))

    def _write(self, who: str, order: str, *arguments: object, answer: Any) -> None:
        self.transcript.append(masked([who, order, *arguments, answer]))

    def _write_events(self, who: str, events: list[Any]) -> None:
        self.transcript += [
            masked([f"{who} tells", *event]) for event in events if "watchdog" not in str(event)
        ]


# -- what they talk about ------------------------------------------------------------------------------------


async def requests(talk: Talk) -> None:
    """Arguments of every type, replies of every kind, and informs that belong to them."""
    await talk.client("standing")
    await talk.client("request_values", "types")
    await talk.client("request_values", "echo", 2)
    await talk.client(
        "request", "types", "-1", "inf", "0", "5", "fault", "1.2.3.4:80", "\u00e9\0\n\r\t\\ \x1b"
    )
    await talk.client("request", "echo", "", "\udcff\udc80", " ", "\\@")
    await talk.client("request", "echo")
    await talk.client("request", "add", "1", "2")
    await talk.client("request", "add", "1")
    await talk.client("request", "when", "now")
    await talk.client("request", "when", "5")
    await talk.client("request", "either")
    await talk.client("request", "either", "1")
    await talk.client("request", "recite", "0")
    await talk.client("request", "recite", "3")
    await talk.client("request_raw", "recite", "1")
    await talk.client("request_raw", "refuse", "no")
    await talk.client("request_raw", "no-such")
    await talk.client("request_raw", "by-hand")
    await talk.client("request", "by-hand")
    await talk.client("request", "who")
    await talk.client("request", "adopted", "by", "the hook")
    await talk.client("request", "version-list")
    await talk.client("request", "client-list")
    await talk.client("request", "help", "by-hand")
    await talk.client("recite_together", 20)


async def refusals(talk: Talk) -> None:
    """Whatever can be wrong with a request, and what each end says of it."""
    await talk.client("attempt", "refuse", "h\u00f6t")
    await talk.client("attempt", "refuse", "")
    await talk.client("attempt", "refuse", "\udcff")
    await talk.client("attempt", "disown", "not you")
    await talk.client("attempt", "no-such", "1")
    await talk.client("attempt", "Watchdog")
    await talk.client("attempt", "help", "no-such")
    await talk.client("attempt", "watchdog", "1")
    await talk.client("attempt", "add")
    await talk.client("attempt", "add", "1", "2", "3")
    await talk.client("attempt", "add", "x")
    await talk.client("attempt", "types", "1", "1", "2", "5", "idle", "1.2.3.4", "")
    await talk.client("attempt", "types", "1", "1", "1", "5", "moving_fast", "1.2.3.4", "")
    await talk.client("attempt", "types", "1", "1", "1", "now", "idle", "1.2.3.4", "")
    await talk.client("attempt", "types", "1", "1", "1", "5", "idle", "1.2.3.4", "\udcff")
    await talk.client("attempt", "crash")
    await talk.client("attempt", "cancel-yourself")
    for kind in ("list", "none", "object", "empty"):
        await talk.client("attempt", "nonsense", kind)
    await talk.client("attempt", "reply-twice")
    await talk.client("attempt", "inform-late")
    await talk.client("attempt", "return-late")
    await talk.client("attempt", "fail-late")
    await talk.client("attempt", "disown-late")
    await talk.client("attempt", "cancel-late")
    await talk.client("attempt", "bad name")
    await talk.client("attempt", "")
    await talk.client("request_nonsense", "echo", "none")
    await talk.client("request_nonsense", "echo", "list")
    await talk.client("request_nonsense", "echo", "object")


async def requests_underway(talk: Talk) -> None:
    """Requests that overtake each other, and one whose reply nobody waits for any more."""
    await talk.client("overlap", 0.3, 0.0, 0.15)
    await talk.alone("client", "begin", "slow", "wait")
    await talk.hear("server", "waiting")
    await talk.client("request", "echo", "quick")
    await talk.client("record", "aiokatcp.client", "DEBUG")
    await talk.alone("client", "begin", "given up", "wait")
    await talk.hear("server", "waiting")
    await talk.client("give_up", "given up")
    await talk.server("go_on")
    await talk.client("end", "slow")
    await talk.client("record", "aiokatcp.client", "WARNING")


async def informs(talk: Talk) -> None:
    """Informs of the device's own, log informs, and what the client's methods make of them."""
    await talk.client("listen", "gossip")
    await talk.client("listen", "log")
    await talk.server("inform", "gossip", 1, 2.5, True, "h\u00f6t")
    await talk.server("inform", "gossip")
    await talk.server("inform", "news", 7, "it stopped")
    await talk.server("inform", "news", 8)
    await talk.server("inform", "news")
    await talk.server("inform", "news", "seven")
    await talk.server("inform", "news", 1, 2, 3)
    await talk.server("inform", "bad-news", -1)
    await talk.server("inform", "bad-news", 1)
    await talk.client("record", "aiokatcp.client", "DEBUG")
    await talk.server("inform", "nobody-listens", 1)
    await talk.client("record", "aiokatcp.client", "WARNING")
    await talk.server("log", 40, "it is on fire")
    await talk.server("log", 20, "not told")
    await talk.client("request", "log-level")
    await talk.client("request", "log-level", "all")
    await talk.server("log", 1, "finest")
    await talk.server("log", 10, "fine")
    await talk.server("log", 50, "coarse")
    await talk.client("request", "log-level", "off")
    await talk.server("log", 50, "not told")
    await talk.client("request", "log-level", "warn")


READINGS = {
    "temperature": "21.5",
    "counter": "-7",
    "enabled": "1",
    "mode": "moving-fast",
    "colour": "dark blue",
    "peer.address": "[fe80::1]:80",
    "since": "1.5",
    "label": "na\u00efve",
    "serial": "\udcff\0",
}


async def readings(talk: Talk) -> None:
    """Sensors of every type, described and read."""
    for request in ("sensor-list", "sensor-value"):
        await talk.client("attempt", request)
        await talk.client("attempt", request, "mode")
        await talk.client("attempt", request, "/e$/")
        await talk.client("attempt", request, "/(/")
        await talk.client("attempt", request, "nobody's")
        await talk.client("attempt", request, "label,mode")
    await talk.client("value_of_type", "temperature")
    await talk.client("value_of_type", "humidity")
    await talk.client("value_of_type", "/part/")
    for name, value in READINGS.items():
        await talk.server("set", name, value, "WARN")
        await talk.client("reading", name)
        await talk.client("value_of_type", name)
    await talk.client("value_of_type", "mode", "discrete")
    await talk.client("value_of_type", "label", "string")
    await talk.client("value_of_type", "label", "integer")
    await talk.client("value_of_type", "since", "float")
    await talk.client("value_of_type", "serial", "string")
    await talk.client("value_of_type", "serial", "bytes")
    await talk.server("set", "part.1", "3")
    await talk.server("set", "part.2", "4")
    await talk.client("reading", "total")
    await talk.server("set", "part.1", "5", "FAILURE")
    await talk.client("reading", "total")
    await talk.server("assign", "limited", "12")
    await talk.client("value_of_type", "limited")
    await talk.client("attempt", "sensor-value", "limited")


STRATEGIES = [
    "event",
    "auto",
    "differential 5",
    "period 3600",
    "event-rate 0 3600",
    "differential-rate 10 0 3600",
    "none",
]


async def sampling(talk: Talk) -> None:
    """Every strategy, asked for, used and refused."""
    await talk.client("listen", "sensor-status")
    for strategy in STRATEGIES:
        await talk.client("request", "sensor-sampling", "temperature", *strategy.split())
        await talk.client("request", "sensor-sampling", "temperature")
        for value, status in (
            ("0", "NOMINAL"),
            ("1", "NOMINAL"),
            ("1", "NOMINAL"),
            ("9", "WARN"),
            ("30", "WARN"),
        ):
            await talk.server("set", "temperature", value, status)
    await talk.client("request", "sensor-sampling", "temperature", "event-rate", "1", "3600")
    await talk.server("set_some", "temperature", ["1", "2", "3"])
    await talk.hear("client", "sensor-status", lambda *facts: facts[-1] == "3.0")
    await talk.client("request", "sensor-sampling", "temperature", "none")
    for name in ("lazy", "limited", "counter", "total"):
        await talk.client("request", "sensor-sampling", name, "auto")
    for value in ("0", "9", "18", "40"):
        await talk.server("set", "lazy", value)
        await talk.server("assign", "limited", value)
        await talk.server("assign", "limited", value)
        await talk.server("set", "part.2", value)
    for words in (
        "label carrot",
        "label event 1",
        "label period",
        "label period foo",
        "label differential 2",
        "counter differential 2.5",
        "nobody event",
        "nobody",
        "label,since event",
        "label,since",
        "label,label event",
        "label,nobody none",
        "label",
    ):
        await talk.client("attempt", "sensor-sampling", *words.split())
    await talk.server("remove", "label")
    await talk.server("add", "label", "string", "A name for people")
    await talk.client("request", "sensor-sampling", "label")
    await talk.server("set", "label", "not told")
    await talk.client("request", "sensor-sampling", "since,lazy,limited,counter,total", "none")


async def watching(talk: Talk) -> None:
    """What watchers are told, call by call, while sensors come, go, and become something else."""
    await talk.client("listen", "sensor-status")
    await talk.client("witness", "all")
    await talk.in_step("all")
    await talk.client("watch")
    await talk.client("witness", "parts", "part")
    await talk.client("witness_again", "parts")
    await talk.server("set", "part.1", "7")
    await talk.server("set", "mode", "idle", "ERROR", 2.5)
    await talk.server("add", "part.3", "integer")
    await talk.server("inform", "interface-changed", "sensor", "part.3", "added")
    await talk.in_step("parts")
    await talk.client("dismiss", "parts")
    await talk.server("remove", "part.2")
    await talk.server("remove", "part.1")
    await talk.server("add", "part.1", "colour", "Painted")
    await talk.server("add", "apart", "address")
    await talk.server("inform", "interface-changed", "sensor-list")
    await talk.in_step("all")
    await talk.server("set", "part.1", "dark blue")
    await talk.server("inform", "interface-changed")
    await talk.in_step("all")
    await talk.client("witness", "late", "serial|mode")
    await talk.server("remove", "serial")
    await talk.server("inform", "interface-changed", "sensor", "serial", "removed")
    await talk.in_step("all")
    await talk.client("dismiss", "late")
    await talk.server("remove", "label")
    await talk.server("add", "label", "mode", "A mood")
    await talk.server("inform", "interface-changed", "sensor", "label", "modified")
    await talk.in_step("all")
    await talk.server("set", "label", "fault")
    await talk.client("request", "sensor-sampling", "part.3")
    await talk.server("set", "peer.address", "1.2.3.4:5")
    await talk.server("set", "temperature", "451", "FAILURE", 666.0)
    await talk.server("set", "temperature", "1")
    await talk.client("mirror")
    await talk.client("dismiss", "all")
    await talk.client("request", "sensor-sampling", "part.3")


async def news_by_hand(talk: Talk) -> None:
    """Informs about sensors that make no sense, one by one, change nothing and break nothing."""
    await talk.client("witness", "all", "label|mode")
    await talk.server("inform", "sensor-status", "1.0", 1, "nobody", "nominal", "1")
    await talk.server("inform", "sensor-status", "1.0", 1, "label", "bad", "1")
    await talk.server("inform", "sensor-status", "1.0", 2, "label", "nominal", "fault")
    await talk.client("record", "aiokatcp.client", "CRITICAL")
    for arguments in (
        ["1.0", 2, "label", "nominal", "fault", "mode", "warn", "idle"],
        ["1.0", "x", "label", "nominal", "fault"],
        ["1.0", -1],
        ["1.0", 0],
        ["1.0"],
        ["x", 1, "label", "nominal", "fault"],
        ["1.0", 2, "label", "unknown", "idle", "nobody", "nominal", "1"],
        [],
    ):
        await talk.server("inform", "sensor-status", *arguments)
    await talk.client("record", "aiokatcp.client", "WARNING")
    await talk.server("inform", "sensor-status", "1.0", 1, "mode", "nominal", "nonsense")
    await talk.client("mirror")
    await talk.client("dismiss", "all")


async def logs(talk: Talk) -> None:
    """Whatever both ends log of a few messages."""
    for who in (talk.client, talk.server):
        await who("record", "aiokatcp", "DEBUG")
        await who("record", "aiokatcp.client", "NOTSET")
    await talk.client("request", "echo", "1", "")
    await talk.client("request", "recite", "2")
    await talk.client("request", "refuse", "no")
    await talk.server("inform", "nobody-listens", "x")
    await talk.client("request", "sensor-sampling", "label", "event")
    await talk.server("set", "label", "told")
    await talk.client("request", "sensor-sampling", "label", "none")
    for who in (talk.client, talk.server):
        await who("record", "aiokatcp", "WARNING")


async def other_clients(talk: Talk) -> None:
    """A client that connects once, and leaves."""
    await talk.client("listen", "client-connected")
    await talk.alone("client", "connect_once")
    await talk.hear("client", "client-connected")


async def stops_and_starts(talk: Talk) -> None:
    """A server that stops under its client's hands, and comes back."""
    await talk.client("witness", "all", "mode")
    await talk.in_step("all")
    await talk.alone("client", "begin", "slow", "sleep-on")
    await talk.hear("server", "asleep")
    await talk.alone("server", "stop")
    await talk.hear("client", "disconnected")
    await talk.alone("client", "end", "slow")
    await talk.alone("client", "attempt", "watchdog")
    await talk.alone("client", "standing")
    await talk.alone("client", "wait_disconnected")
    await talk.alone("client", "connect_once")
    await talk.alone("server", "is_listening")
    await talk.alone("server", "stop")
    await talk.alone("server", "join")
    await talk.alone("server", "start")
    await talk.alone("server", "start")
    await talk.hear("client", "connected")
    await talk.in_step("all")
    await talk.client("standing")
    await talk.server("set", "mode", "fault")
    await talk.alone("client", "begin", "patient", "sleep", "0.2")
    await talk.settle()
    await talk.alone("server", "begin_stop", False)
    await talk.hear("client", "disconnected")
    await talk.alone("client", "end", "patient")
    await talk.hear("server", "on_stop")
    await talk.alone("server", "join")
    await talk.alone("server", "start")
    await talk.hear("client", "connected")
    await talk.in_step("all")


async def the_end(talk: Talk) -> None:
    """Nobody watches for a while, a service fails, and the client is closed."""
    await talk.client("dismiss", "all")
    await talk.client("unwatch")
    await talk.client("request", "sensor-sampling", "mode")
    await talk.client("witness", "all", "mode")
    await talk.in_step("all")
    await talk.alone("client", "begin", "slow", "sleep-on")
    await talk.hear("server", "asleep")
    await talk.alone("server", "fail_service")
    await talk.alone("server", "join")
    await talk.alone("server", "stop")
    await talk.hear("client", "disconnected")
    await talk.alone("client", "end", "slow")
    await talk.hear("client", "failed")
    await talk.alone("client", "standing")
    await talk.alone("client", "close")
    await talk.alone("client", "standing")
    await talk.alone("client", "wait_connected")
    await talk.alone("client", "attempt", "watchdog")
    await talk.alone("client", "close")
    await talk.alone("client", "wait_disconnected")


SUBJECTS: list[Callable[[Talk], Awaitable[None]]] = [
    requests,
    requests_underway,
    logs,
    other_clients,
    informs,
    readings,
    sampling,
    watching,
    news_by_hand,
    refusals,
    stops_and_starts,
    the_end,
]


# -- what differs on purpose ---------------------------------------------------------------------------------


class Difference(NamedTuple):
    """Lines of a transcript that are others where one end runs on the façade."""

    reason: str
    subject: Callable[[Talk], Awaitable[None]]
    end: str
    theirs: Transcript
    ours: Transcript


PART_3 = ["part.3", "", "", "integer"]
MODE = ["mode", "What it does", "", "discrete", "idle", "moving-fast", "fault"]
A_NAME = "expected a name of letters, digits and dashes, got"
NO_VALUE = "sensor temperature has no value: its status is unknown"
HANDLER_ERROR = "RuntimeError: handler both replied and returned a value"
REPLIED_ERROR = "RuntimeError: request ?return-late has already been replied to"


def told(event: str, *facts: Any) -> list[Any]:
    """What the client told."""
    return ["client tells", event, list(facts)]


def record(level: str, text: str, error: str | None = None) -> list[Any]:
    """What the client logged."""
    return told("record", "aiokatcp.client", level, f"{text} [ADDRESS]", error)


NEWS_BY_HAND = "the mirror says what it ignored, and of what"
NOT_A_NAME = "armillary says what a name looks like"

DIFFERENCES = [
    Difference(
        "aiokatcp takes its level `all` for an alias of the highest",
        informs,
        "server",
        [told("log", "off", "NOW", "parity", "aiokatcp_server.py:LINE: finest")],
        [told("log", "all", "NOW", "parity", "aiokatcp_server.py:LINE: finest")],
    ),
    Difference(
        "armillary says which request was answered twice, whichever way",
        refusals,
        "server",
        [told("log", "error", "NOW", "aiokatcp.server", "Traceback ... " + HANDLER_ERROR + "\n")],
        [told("log", "error", "NOW", "aiokatcp.server", "Traceback ... " + REPLIED_ERROR + "\n")],
    ),
    Difference(
        "what a service raised came out of `stop` or `join`; stopping once more has nothing to raise",
        the_end,
        "server",
        [["server", "stop", ["RuntimeError", "out of service"]]],
        [["server", "stop", []]],
    ),
    Difference(
        "the mirror always listens to news of sensors, though nobody watches",
        logs,
        "client",
        [record("DEBUG", "unknown inform sensor-status")],
        [],
    ),
    Difference(
        "armillary names a status by its word",
        readings,
        "client",
        [["client", "value_of_type", "temperature", ["ValueError", "Reading for temperature has status 0"]]],
        [["client", "value_of_type", "temperature", ["ValueError", NO_VALUE]]],
    ),
    Difference(
        "all watchers are asked whether they want a sensor before one is told of it",
        watching,
        "client",
        [told("all added", *PART_3), told("parts filter", *PART_3)],
        [told("parts filter", *PART_3), told("all added", *PART_3)],
    ),
    Difference(
        "whatever a watcher raises is logged in the same way",
        watching,
        "client",
        [record("WARNING", "Failed to process #sensor-status for temperature", "RuntimeError")],
        [record("ERROR", "error in a sensor watcher", "RuntimeError")],
    ),
    Difference(
        NEWS_BY_HAND,
        news_by_hand,
        "client",
        [record("WARNING", "Received update for sensor nobody we haven't seen")],
        [record("WARNING", "ignored status b'nominal' of sensor b'nobody'")],
    ),
    Difference(
        NEWS_BY_HAND,
        news_by_hand,
        "client",
        [record("WARNING", "Failed to process #sensor-status for label", "ValueError")],
        [record("WARNING", "ignored status b'bad' of sensor b'label'")],
    ),
    Difference(
        NEWS_BY_HAND,
        news_by_hand,
        "client",
        [record("ERROR", "Exception raised from callback", "FailReply")],
        [
            record(
                "WARNING",
                "ignored a malformed sensor status: [b'1.0', b'2', b'label', b'nominal', b'fault']",
            )
        ],
    ),
    Difference(
        NOT_A_NAME,
        refusals,
        "client",
        [["client", "attempt", "bad name", ["ValueError", "name bad name is invalid"]]],
        [["client", "attempt", "bad name", ["ValueError", f"{A_NAME} 'bad name'"]]],
    ),
    Difference(
        NOT_A_NAME,
        refusals,
        "client",
        [["client", "attempt", "", ["ValueError", "name  is invalid"]]],
        [["client", "attempt", "", ["ValueError", f"{A_NAME} ''"]]],
    ),
    Difference(
        "a mirror that nobody wanted is not called synced: it may have missed something",
        the_end,
        "client",
        [["client", "witness", "all", "mode", None], told("all state", "SYNCED")],
        [["client", "witness", "all", "mode", None], told("all state", "SYNCING")],
    ),
    Difference(
        "so it need not be told that it is not",
        the_end,
        "client",
        [told("all added", *MODE), told("all state", "SYNCING")],
        [told("all added", *MODE)],
    ),
]


def adapted(subject: str, theirs: Transcript, end: str) -> Transcript:
    """A transcript of aiokatcp with one end on the façade instead. Each difference of that end must occur."""
    for difference in DIFFERENCES:
        if (difference.subject.__name__, difference.end) == (subject, end):
            length = len(difference.theirs)
            places = [i for i in range(len(theirs)) if theirs[i : i + length] == difference.theirs]
            assert places, f"aiokatcp does not do what this is a difference from: {difference}"
            for place in reversed(places):
                theirs = theirs[:place] + difference.ours + theirs[place + length :]
    return theirs


# -- the conversations ---------------------------------------------------------------------------------------

Transcripts = dict[tuple[str, str], dict[str, Transcript]]


async def converse(server_on: str, client_on: str) -> dict[str, Transcript]:
    """What is said in the whole conversation, by subject."""
    transcripts: dict[str, Transcript] = {}
    try:
        with trio.fail_after(60):
            async with (
                open_peer_server(server_on, "aiokatcp_server.py", 0, "wide") as (server, port),
                open_peer(client_on, "aiokatcp_client.py", port) as client,
            ):
                for subject in SUBJECTS:
                    talk = Talk(server, client)
                    transcripts[subject.__name__] = talk.transcript
                    await subject(talk)
                    await talk.rest()
    except Exception as error:
        subject_name, transcript = transcripts.popitem()
        error.add_note(f"server on {server_on}, client on {client_on}, {subject_name}: {transcript[-5:]}")
        raise
    return transcripts


async def converse_everywhere() -> Transcripts:
    """All conversations; at the same time, because much of one is waiting."""
    transcripts = {}

    async def one(pair: tuple[str, str]) -> None:
        transcripts[pair] = await converse(*pair)

    async with trio.open_nursery() as nursery:
        for pair in (THEIRS, *PAIRS):
            nursery.start_soon(one, pair)
    return transcripts


@pytest.fixture(scope="module")
def transcripts() -> Transcripts:
    """What was said, for each pair of libraries."""
    return trio.run(converse_everywhere)


@pytest.mark.parametrize("subject", [subject.__name__ for subject in SUBJECTS])
@pytest.mark.parametrize(("server_on", "client_on"), PAIRS)
def test_the_conversation_goes_alike(
    transcripts: Transcripts, server_on: str, client_on: str, subject: str
) -> None:
    """With the façade at one end or both, a conversation goes as between two ends on aiokatcp."""
    expected = transcripts[THEIRS][subject]
    for end, library in (("server", server_on), ("client", client_on)):
        if library != "aiokatcp":
            expected = adapted(subject, expected, end)
    assert transcripts[server_on, client_on][subject] == expected
