"""What a device answers, read in bytes by a peer that knows nothing of armillary."""

from __future__ import annotations

import enum
import logging
from typing import Any

import pytest
import trio
import trio.lowlevel

from armillary import katcp
from armillary.katcp import FailReply, InvalidReply, RequestContext
from armillary.testing import DemoDevice, RawPeer, ServedDevice, serve_in_memory


class Mode(enum.Enum):
    FAST_SCAN = 1
    STOW = 2


class Odd(DemoDevice):
    """A device whose handlers do all that handlers may, and some that they may not."""

    async def request_typed(
        self, ctx: RequestContext, mode: Mode, gain: float = 1.5, *rest: int
    ) -> tuple[Mode, float, int]:
        """Reply with the values."""
        return mode, gain, sum(rest)

    def request_plain(self, ctx: RequestContext, text: str) -> str:
        """Reply with the text."""
        return text

    async def request_none(self, ctx: RequestContext) -> None:
        """Reply with nothing."""

    async def request_fail(self, ctx: RequestContext) -> None:
        """Fail politely."""
        raise FailReply("on fire")

    def request_invalid(self, ctx: RequestContext) -> None:
        """Refuse."""
        raise InvalidReply("not now")

    async def request_list(self, ctx: RequestContext) -> list[int]:
        """Return what cannot be encoded."""
        return [1, 2]

    async def request_tuple_of_none(self, ctx: RequestContext) -> tuple[None]:
        """Return what cannot be encoded."""
        return (None,)

    async def request_twice(self, ctx: RequestContext) -> None:
        """Reply twice."""
        ctx.reply("ok", 1)
        ctx.reply("ok", 2)

    async def request_reply_and_return(self, ctx: RequestContext) -> int:
        """Reply, then return a value too."""
        ctx.reply("ok")
        return 3

    async def request_late_inform(self, ctx: RequestContext) -> None:
        """Reply, then send an inform."""
        ctx.reply("ok")
        ctx.inform("late")

    async def request_informs(self, ctx: RequestContext) -> None:
        """Send some informs."""
        ctx.inform("first", 1)
        ctx.informs([("second", 2), ("third", 3)])

    def request_later(self, ctx: RequestContext) -> Any:
        """Return a coroutine from a plain function."""
        return self.request_sleep(ctx, 1.0)

    async def request_group(self, ctx: RequestContext) -> None:
        """Fail with a group of errors."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.request_fail, ctx)
            await trio.sleep(1)

    @katcp.request_timeout_hint(25.0)
    async def request_slew(self, ctx: RequestContext) -> None:
        """Slew.

        It takes its time.
        """
        await trio.sleep(20)


@pytest.fixture
def device() -> katcp.Device:
    return Odd()


@pytest.fixture
async def peer(served_device: ServedDevice) -> Any:
    async with served_device.open_raw() as raw:
        yield raw


async def ask(peer: RawPeer, request: bytes) -> list[bytes]:
    """Send one request and return its informs and its reply."""
    await peer.send(request + b"\n")
    return await peer.receive_until(b"!" + request[1:].split()[0].split(b"[")[0])


@pytest.mark.parametrize(
    ("request_line", "reply"),
    [
        (b"?watchdog", b"!watchdog ok\n"),
        (b"?watchdog[2147483647]", b"!watchdog[2147483647] ok\n"),
        (b"?typed stow", b"!typed ok stow 1.5 0\n"),
        (b"?typed[3] fast-scan 1e3 1 2 3", b"!typed[3] ok fast-scan 1000.0 6\n"),
        (b"?plain caf\xc3\xa9", b"!plain ok caf\xc3\xa9\n"),
        (b"?plain \\@", b"!plain ok \\@\n"),
        (b"?plain a\\_b\\n\\t\\\\\\e\\0\\r", b"!plain ok a\\_b\\n\\t\\\\\\e\\0\\r\n"),
        (b"?none", b"!none ok\n"),
        (b"?fail", b"!fail fail on\\_fire\n"),
        (b"?invalid", b"!invalid invalid not\\_now\n"),
        (b"?later", b"!later ok 1.0\n"),
        (b"?nonsense[7] 1 2", b"!nonsense[7] invalid unknown\\_request\\_nonsense\n"),
        (
            b"?count x",
            b"!count fail argument\\_1\\_(step):\\_invalid\\_literal\\_for\\_int()\\_"
            b"with\\_base\\_10:\\_b'x'\n",
        ),
        (b"?count 1 2", b"!count fail too\\_many\\_arguments\\_for\\_count\n"),
        (b"?sleep", b"!sleep fail missing\\_a\\_required\\_argument:\\_'seconds'\n"),
        (
            b"?typed carrot",
            b"!typed fail argument\\_1\\_(mode):\\_b'carrot'\\_is\\_not\\_a\\_valid\\_value\\_for\\_Mode\n",
        ),
        (
            b"?typed stow 1 2 x",
            b"!typed fail argument\\_4\\_(rest):\\_invalid\\_literal\\_for\\_int()\\_with\\_"
            b"base\\_10:\\_b'x'\n",
        ),
        (b"?log-level trace", b"!log-level ok trace\n"),
        (b"?log-level off", b"!log-level ok off\n"),
        (
            b"?log-level carrot",
            b"!log-level fail argument\\_1\\_(level):\\_b'carrot'\\_is\\_not\\_a\\_valid\\_"
            b"value\\_for\\_LogLevel\n",
        ),
        (b"?help nonsense", b"!help fail request\\_nonsense\\_is\\_not\\_known\n"),
        (b"?help log_level", b"!help fail request\\_log_level\\_is\\_not\\_known\n"),
        (b"?sensor-value nonsense", b"!sensor-value fail Unknown\\_sensor\\_'nonsense'\n"),
        (b"?sensor-value /", b"!sensor-value fail Unknown\\_sensor\\_'/'\n"),
        (b"?sensor-list /zzz/", b"!sensor-list ok 0\n"),
        (
            b"?sensor-list /(/",
            b"!sensor-list fail missing\\_),\\_unterminated\\_subpattern\\_at\\_position\\_0\n",
        ),
        (
            b"?request-timeout-hint nonsense",
            b"!request-timeout-hint fail request\\_nonsense\\_is\\_not\\_known\n",
        ),
    ],
)
async def test_reply(peer: RawPeer, request_line: bytes, reply: bytes) -> None:
    """A request gets exactly the reply that the specification says."""
    assert [reply] == await ask(peer, request_line)


@pytest.mark.parametrize("request_name", [b"crash", b"list", b"tuple-of-none", b"group"])
async def test_failing_handler(peer: RawPeer, request_name: bytes, caplog: Any) -> None:
    """A handler that raises, or returns what cannot be encoded, fails with its traceback and is logged."""
    (reply,) = await ask(peer, b"?" + request_name)

    code, text = katcp.Message.parse(reply).arguments
    assert b"fail" == code
    assert b"Traceback" in text
    assert [logging.ERROR] == [record.levelno for record in caplog.records]
    assert [b"!watchdog ok\n"] == await ask(peer, b"?watchdog")


@pytest.mark.parametrize("request_name", [b"twice", b"reply-and-return", b"late-inform"])
async def test_second_reply(peer: RawPeer, request_name: bytes, caplog: Any) -> None:
    """What a handler does after its reply reaches the client as a log inform, never as a second reply."""
    await peer.send(b"?%b[5]\n?watchdog\n" % request_name)
    lines = await peer.receive_until(b"!watchdog")

    reply, log, _ = (katcp.Message.parse(line) for line in lines)
    assert (b"ok", 5) == (reply.arguments[0], reply.mid)
    assert ("log", b"error", b"armillary.katcp.server") == (log.name, log.arguments[0], log.arguments[2])
    assert b"already been replied to" in log.arguments[3]


async def test_informs(peer: RawPeer) -> None:
    """Informs of a request carry its name and message id and precede its reply, which counts them."""
    assert [
        b"#informs[4] first 1\n",
        b"#informs[4] second 2\n",
        b"#informs[4] third 3\n",
        b"!informs[4] ok 2\n",
    ] == await ask(peer, b"?informs[4]")


async def test_greeting(served_device: ServedDevice) -> None:
    """The first lines that a client sees are the versions of protocol, library and device."""
    async with served_device.open_raw(greeted=False) as peer:
        lines = [await peer.receive() for _ in range(3)]

    assert [
        b"#version-connect katcp-protocol 5.1-MIBT\n",
        b"#version-connect katcp-library armillary-0.1 armillary-0.1.0\n",
        b"#version-connect katcp-device demo-1.0 demo-1.0.0\n",
    ] == lines


async def test_version_list(peer: RawPeer) -> None:
    """?version-list repeats the greeting as informs of the request."""
    assert [
        b"#version-list[1] katcp-protocol 5.1-MIBT\n",
        b"#version-list[1] katcp-library armillary-0.1 armillary-0.1.0\n",
        b"#version-list[1] katcp-device demo-1.0 demo-1.0.0\n",
        b"!version-list[1] ok 3\n",
    ] == await ask(peer, b"?version-list[1]")


async def test_help(peer: RawPeer) -> None:
    """?help lists all requests, inherited ones too, by name, each with the first line of its docstring."""
    *informs, reply = [katcp.Message.parse(line) for line in await ask(peer, b"?help")]

    names = [inform.arguments[0] for inform in informs]
    assert sorted(names) == names
    assert {b"watchdog", b"typed", b"echo", b"sensor-list", b"halt", b"restart"} <= set(names)
    assert [b"ok", b"%d" % len(names)] == reply.arguments
    assert b"Slew." == informs[names.index(b"slew")].arguments[1]


async def test_help_of_one(peer: RawPeer) -> None:
    """?help of one request brings its whole docstring."""
    inform, reply = [katcp.Message.parse(line) for line in await ask(peer, b"?help slew")]

    # Python 3.13 takes the indentation out of docstrings, older ones leave it: here it stays as it is.
    assert (Odd.request_slew.__doc__ or "").encode() == inform.arguments[1]
    assert b"It takes its time." in inform.arguments[1]
    assert [b"ok", b"1"] == reply.arguments


async def test_timeout_hints(peer: RawPeer) -> None:
    """?request-timeout-hint lists what has a hint, and says 0 for one that has none."""
    assert [
        b"#request-timeout-hint slew 25.0\n",
        b"!request-timeout-hint ok 1\n",
    ] == await ask(peer, b"?request-timeout-hint")
    assert [
        b"#request-timeout-hint watchdog 0.0\n",
        b"!request-timeout-hint ok 1\n",
    ] == await ask(peer, b"?request-timeout-hint watchdog")


async def test_log_level_is_shared(peer: RawPeer, served_device: ServedDevice) -> None:
    """?log-level begins at warn, and what one client sets another sees."""
    assert [b"!log-level ok warn\n"] == await ask(peer, b"?log-level")
    await ask(peer, b"?log-level debug")
    async with served_device.open_raw() as other:
        assert [b"!log-level ok debug\n"] == await ask(other, b"?log-level")


async def test_sensor_list(peer: RawPeer) -> None:
    r"""?sensor-list describes sensors by name; an empty unit is \@ and a discrete one lists its values."""
    assert [
        b"#sensor-list counter Requests\\_to\\_count\\_so\\_far \\@ integer\n",
        b"#sensor-list device-status Health\\_of\\_the\\_device \\@ discrete ok degraded fail\n",
        b"#sensor-list temperature Air\\_temperature degC float\n",
        b"!sensor-list ok 3\n",
    ] == await ask(peer, b"?sensor-list")


async def test_sensor_list_filters(peer: RawPeer) -> None:
    """A /regex/ is searched for anywhere in the name, and // matches every name."""
    assert b"!sensor-list ok 2\n" == (await ask(peer, b"?sensor-list /er/"))[-1]
    assert b"!sensor-list ok 3\n" == (await ask(peer, b"?sensor-list //"))[-1]
    assert b"!sensor-list ok 1\n" == (await ask(peer, b"?sensor-list counter"))[-1]


async def test_sensor_value(peer: RawPeer, device: Odd) -> None:
    """?sensor-value brings timestamp, count, name, status and value."""
    device.temperature.set_value(21.5, katcp.SensorStatus.WARN, 1234.5)
    device.sensors.add(katcp.Sensor(str, "comment"))
    device.sensors["comment"].set_value("", timestamp=1.0)

    assert [
        b"#sensor-value[9] 1234.5 1 temperature warn 21.5\n",
        b"!sensor-value[9] ok 1\n",
    ] == await ask(peer, b"?sensor-value[9] temperature")
    assert b"#sensor-value 1.0 1 comment nominal \\@\n" == (await ask(peer, b"?sensor-value comment"))[0]


async def test_many_sensors_in_order(peer: RawPeer, device: Odd) -> None:
    """A list longer than what is sent in one go comes whole and in order."""
    for index in range(1234):
        device.sensors.add(katcp.Sensor(int, f"many.{index:04d}"))
    *informs, reply = await ask(peer, b"?sensor-value /many/")

    names = [katcp.Message.parse(inform).arguments[2] for inform in informs]
    assert [b"many.%04d" % index for index in range(1234)] == names
    assert b"!sensor-value ok 1234\n" == reply


async def test_client_list(peer: RawPeer, served_device: ServedDevice) -> None:
    """?client-list brings the address of every client, the asking one included."""
    async with served_device.open_raw():
        lines = await ask(peer, b"?client-list")

    assert [b"#client-list memory-1\n", b"#client-list memory-2\n", b"!client-list ok 2\n"] == [
        line for line in lines if not line.startswith(b"#client-connected")
    ]


async def test_client_connected(peer: RawPeer, served_device: ServedDevice) -> None:
    """A new client is announced to the others, and not to itself."""
    async with served_device.open_raw() as other:
        assert b"#client-connected memory-2\n" == await peer.receive()
        async with served_device.open_raw() as third, served_device.open_raw():
            assert [b"#client-connected memory-3\n", b"#client-connected memory-4\n"] == [
                await peer.receive(),
                await peer.receive(),
            ]
            assert b"#client-connected memory-4\n" == await third.receive()
            assert b"#client-connected memory-3\n" == await other.receive()


async def test_answers_out_of_order(autojump_clock: Any, peer: RawPeer) -> None:
    """Requests with message ids are answered as they finish; a hundred that sleep run at once."""
    await peer.send(b"".join(b"?sleep[%d] %d\n" % (101 - n, n) for n in range(1, 101, 5)))
    with trio.fail_after(97):
        mids = [katcp.Message.parse(await peer.receive()).mid for _ in range(20)]

    assert list(range(100, 4, -5)) == mids


async def test_contexts_are_separate(autojump_clock: Any) -> None:
    """A context variable that a handler sets is not seen by the next request of the same client."""
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    class Forgetful(DemoDevice):
        async def request_async(self, ctx: RequestContext) -> int:
            """Reply with the variable, having set it for those who come after."""
            value = variable.get()
            variable.set(1)
            await trio.lowlevel.checkpoint()
            return value + variable.get()

        def request_sync(self, ctx: RequestContext) -> int:
            """Reply with the variable, having set it for those who come after."""
            value = variable.get()
            variable.set(1)
            return value

    async with serve_in_memory(Forgetful()) as served, served.open_raw() as peer:
        for _ in range(2):
            assert [b"!async ok 1\n"] == await ask(peer, b"?async")
            assert [b"!sync ok 0\n"] == await ask(peer, b"?sync")


def test_handler_without_docstring() -> None:
    """A request without docstring is refused when its class is made, because ?help needs it."""
    with pytest.raises(TypeError, match="request_mute must have a docstring"):

        class Mute(katcp.Device):
            def request_mute(self, ctx: RequestContext) -> None:
                pass


def test_handler_with_unknown_type() -> None:
    """A parameter whose class has no KATCP type is refused when the class is made, by name."""
    with pytest.raises(TypeError, match=r"odd: parameter value: <class 'complex'> is not registered"):

        class Unknown(katcp.Device):
            def request_odd(self, ctx: RequestContext, value: complex) -> None:
                """Never made."""


def test_handler_without_context() -> None:
    """A handler that has no room for the context is refused when its class is made."""
    with pytest.raises(TypeError, match="at least 2 positional"):

        class Short(katcp.Device):
            def request_short(self) -> None:
                """Never made."""


def test_device_without_version() -> None:
    """A device that does not say its version cannot be made."""

    class Anonymous(katcp.Device):
        BUILD_STATE = "x-1"

    with pytest.raises(TypeError, match="Anonymous does not define VERSION"):
        Anonymous()


def test_first_base_wins() -> None:
    """With several bases, the handler that Python's method resolution picks is the one that answers."""

    class Left(katcp.Device):
        def request_side(self, ctx: RequestContext) -> str:
            """Left."""
            return "left"

    class Right(katcp.Device):
        def request_side(self, ctx: RequestContext) -> str:
            """Right."""
            return "right"

    class Both(Left, Right):
        pass

    assert "Left." == Both.request_handlers[b"side"].help


async def test_own_types(autojump_clock: Any) -> None:
    """A device with types of its own decodes and encodes them, and the standard types stay as they were."""
    types = katcp.STANDARD_TYPES.copy()
    types.register(
        katcp.TypeInfo(
            complex,
            "complex",
            lambda cls: lambda value: f"{value.real},{value.imag}".encode(),
            lambda cls: lambda raw: complex(*map(float, raw.split(b","))),
            lambda cls: 0j,
        )
    )
    own = types

    class Complex(DemoDevice):
        types = own

        def request_conjugate(self, ctx: RequestContext, value: complex) -> complex:
            """Reply with the conjugate."""
            return value.conjugate()

    async with serve_in_memory(Complex()) as served, served.open_raw() as peer:
        assert [b"!conjugate ok 1.0,-2.0\n"] == await ask(peer, b"?conjugate 1,2")
    with pytest.raises(TypeError, match="is not registered"):
        katcp.STANDARD_TYPES.encode(1j)
