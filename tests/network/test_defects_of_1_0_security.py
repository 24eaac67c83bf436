"""Defects of MSL-Network 1.0 that let peers do what they may not, or see what they should not.

====== =========================================== ==========================================================
number the defect                                  the tests
====== =========================================== ==========================================================
9      any peer can forge a result, a              `test_a_forged_reply_reaches_nobody`,
       notification or a requester, and can call   `test_a_reply_is_delivered_once`,
       services that are locked, full, or that it  `test_a_client_cannot_notify`,
       is not linked with                          `test_who_has_asked_is_never_what_he_says`,
                                                   `test_a_locked_service_answers_its_holder_only`,
                                                   `test_a_full_service_answers_those_who_are_linked`,
                                                   `test_what_a_role_does_not_allow_is_refused`,
                                                   ``test_manager.test_nobody_answers_for_another``,
                                                   ``test_manager.test_nobody_makes_up_a_requester``
10     an administrator reaches all of the         `test_nothing_beyond_the_list_is_reached`,
       manager's objects; the answers lose         `test_only_administrators_are_answered`,
       their uid                                   `test_administrators_answers_have_their_uid`,
                                                   ``test_roles.test_nothing_else_is_reached``
12     an empty credential leaves the socket open  `test_credentials_that_are_none_end_the_connection`,
       and silent                                  `test_credentials_of_administrators_that_are_none`
--     passwords can be tried out at full speed    `test_failed_logins_slow_their_address_down`,
                                                   `test_failed_logins_of_administrators_count_too`,
                                                   `test_guessing_at_once_is_no_faster`
--     secrets in logs, tracebacks and reprs       `test_a_conversation_leaves_no_secret_behind`,
                                                   `test_typing_errors_leave_no_secret_behind`,
                                                   ``test_defects_of_1_0_files`` for what is on disk
====== =========================================== ==========================================================

The last two have no number in the list of the old library's defects, and belong to it.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from watched_lab import Device, WatchedLab, assert_nothing_unexpected, open_watched_lab

from armillary.network.errors import Rejected, RemoteError
from armillary.network.manager import Authenticate
from armillary.network.protocol.device_handshake import Credentials
from armillary.network.protocol.outstanding import Stray
from armillary.network.protocol.roles import ADMIN_REQUESTS, Role, Roles
from armillary.network.store import Store, open_store

SECRET = "p0l0nium-84"
WRONG = "rad1um-88"


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store(":memory:", iterations=1000) as opened:
        opened.users.add("root", SECRET, is_admin=True)
        opened.users.add("marie", SECRET)
        yield opened


# -- 9: forgeries and fences ---------------------------------------------------------------------------------


@pytest.mark.parametrize("forger", ["another client", "another service", "the client itself"])
@pytest.mark.parametrize("error", [False, True])
async def test_a_forged_reply_reaches_nobody(forger: str, error: bool) -> None:
    """Only the service that was asked can answer; the others are counted, and the call goes on."""
    async with open_watched_lab() as lab, lab.service() as service, lab.client("Victim") as victim:
        async with lab.service("Other") as other, lab.client("Mallory") as mallory:
            device = {"another client": mallory, "another service": other, "the client itself": victim}[
                forger
            ]
            await victim.request("DMM", "read", uid="7")
            await service.hear()
            forged: dict[str, Any] = {
                "result": None if error else "forged",
                "requester": victim.name,
                "uid": "7",
            }
            if error:
                forged |= {"message": "ValueError: forged", "traceback": []}
            await device.tell(error=error, **forged)
            await trio.testing.wait_all_tasks_blocked()
            assert lab.manager.outstanding.statistics().strays[Stray.ANOTHER_WAS_ASKED] == 1
            assert lab.manager.outstanding.statistics().in_flight == 1
            await service.tell(error=False, result="true", requester=victim.name, uid="7")
            assert (await victim.hear())["result"] == "true"


async def test_a_reply_is_delivered_once() -> None:
    """A service cannot answer what it was not asked, nor twice, nor for the manager."""
    async with open_watched_lab() as lab, lab.service() as service, lab.client() as client:
        reply = {"error": False, "result": "out of the blue", "requester": client.name}
        await service.tell(**reply, uid="7")
        await client.request("DMM", "read", uid="7")
        await service.hear()
        await service.tell(**{**reply, "result": "asked"}, uid="7")
        await service.tell(**{**reply, "result": "again"}, uid="7")
        await service.tell(**{**reply, "result": "no uid"}, uid="")
        await client.request("Manager", "identity", uid="8")
        assert [(await client.hear())["uid"] for _ in range(2)] == ["7", "8"]
        await service.tell(**{**reply, "result": "another's"}, uid="8")
        await client.request("Manager", "unlink", "nobody", uid="9")
        assert (await client.hear())["uid"] == "9"
        assert lab.manager.outstanding.statistics().strays[Stray.NOT_ASKED] == 4


async def test_a_client_cannot_notify() -> None:
    """Nobody hears what was told in the name of a service, and who told it is refused."""
    async with open_watched_lab() as lab, lab.service(), lab.service("Other") as other:
        async with lab.client("Victim") as victim, lab.client("Mallory") as mallory:
            await victim.ask("Manager", "link", "DMM")
            await mallory.ask("Manager", "link", "DMM")
            for device in (mallory, other, victim):
                await device.tell(error=False, result=[["forged"], {}], service="DMM", uid="notification")
                refused = await device.hear()
                assert refused["message"].startswith("PermissionError: ")
            assert (await victim.ask("Manager", "unlink", "DMM", uid="next"))["uid"] == "next"


@pytest.mark.parametrize(
    "extra",
    [
        b', "requester": "Admin[lab7:1]"',
        b', "requester": null',
        b', "requ\\u0065ster": "Admin[lab7:1]"',
        b', "requester" : "Manager[lab7:1875]" , "more_of_it": {"requester": "x"}',
    ],
)
async def test_who_has_asked_is_never_what_he_says(extra: bytes) -> None:
    """However a request spells the key, the service reads the name that the manager knows, once."""
    packet = b'{"args": [], "attribute": "read", "kwargs": {}, "service": "DMM", "uid": "1"%b}\n' % extra
    async with open_watched_lab() as lab, lab.service() as service, lab.client() as client:
        await client.send(packet)
        line = await service.line()
        found: list[tuple[str, Any]] = []
        json.loads(line, object_pairs_hook=found.extend)
        assert [value for key, value in found if key == "requester" and value != "x"] == [client.name]
        await client.send(packet.replace(b"}\n", b', "requester": "again", "requester": "and again"}\n'))
        assert (await client.hear())["message"].startswith("ValueError: expected the key 'requester' once")


async def test_a_locked_service_answers_its_holder_only() -> None:
    """Under an exclusive lock of somebody else, no kind of request gets through, typed or not."""
    async with open_watched_lab() as lab, lab.service() as service, lab.client("Holder") as holder:
        await holder.ask("Manager", "link", "DMM")
        assert (await holder.ask("Manager", "acquire_lock", "DMM", shared=False))["error"] is False
        async with lab.client("Mallory") as mallory:
            refused = [await mallory.ask("DMM", "read", uid="1")]
            await mallory.send(b"DMM read 1\n")
            refused.append(await mallory.hear())
            for attribute in ("link", "acquire_lock"):
                refused.append(await mallory.ask("Manager", attribute, "DMM", shared=True))
            assert all(packet["message"].startswith("PermissionError: ") for packet in refused)
            assert holder.name in refused[0]["message"]
            # Releasing is fine, and releases nothing.
            assert (await mallory.ask("Manager", "release_lock", "DMM"))["result"] == [holder.name]
            await holder.request("DMM", "read", uid="mine")
            assert (await service.hear())["uid"] == "mine"
            assert lab.manager.outstanding.statistics().forwarded == 1


async def test_a_full_service_answers_those_who_are_linked() -> None:
    """`max_clients` is a limit of those who ask, not only of those who link."""
    async with open_watched_lab() as lab, lab.service(max_clients=1) as service:
        async with lab.client("First") as first, lab.client("Mallory") as mallory:
            await first.ask("Manager", "link", "DMM")
            for answer in (await mallory.ask("DMM", "read"), await mallory.ask("Manager", "link", "DMM")):
                assert answer["message"].startswith("PermissionError: The maximum number of Clients")
                assert first.name in answer["message"]
            await first.request("DMM", "read", uid="mine")
            assert (await service.hear())["uid"] == "mine"


async def test_what_a_role_does_not_allow_is_refused(store: Store) -> None:
    """Who may only look cannot call, lock, serve or administrate, and is told so each time."""
    store.users.add("guest", SECRET, role="guest")
    options: dict[str, Any] = {
        "authenticate": Authenticate(login=True),
        "roles": Roles([Role("guest", link=("DMM",))]),
        "store": store,
    }
    async with open_watched_lab(**options) as lab:
        async with lab.device() as service, lab.device() as guest, lab.device() as intruder:
            await _log_in(service, "marie")
            await service.identify("service", "DMM", attributes={})
            await _log_in(guest, "guest")
            await guest.identify("client", "Guest")
            assert (await guest.ask("Manager", "link", "DMM"))["error"] is False
            for service_name, attribute, args in (
                ("DMM", "read", ()),
                ("Manager", "acquire_lock", ("DMM",)),
                ("Manager", "link", ("Secret",)),
            ):
                answer = await guest.ask(service_name, attribute, *args, shared=True)
                assert answer["message"].startswith("PermissionError: Guest[")
            await _log_in(intruder, "guest")
            await intruder.hear()
            await intruder.tell(result={"type": "service", "name": "Fake", "attributes": {}}, uid="")
            assert (await intruder.hear())["message"].startswith("PermissionError: ")
            assert await intruder.line() == b""
            assert lab.manager.outstanding.statistics().forwarded == 0


# -- 10: administration --------------------------------------------------------------------------------------


async def _log_in(device: Device, username: str, password: str = SECRET) -> None:
    """Answer the manager's two questions."""
    for attribute, answer in (("username", username), ("password", password)):
        assert (await device.hear())["attribute"] == attribute
        await device.tell(error=False, requester=None, result=answer, uid="")


@pytest.mark.parametrize(
    "attribute",
    [
        "_store",
        "__class__",
        "__init__.__globals__",
        "_requests",
        "registry",
        "authentication.password",
        "outstanding.statistics",
        "password.upper",
        "port.bit_length",
        "users_table",
        "users_table._hash",
        "users_table.key",
        "users_table.database.writing",
        "users_table.__init__",
        "connections_table.close",
        "hostnames_table.execute",
        "users_table.get_password",
        ".port",
        "port.",
        "users_table..users",
        "shutdown_manager.__call__",
        "Manager.port",
        "",
        " port",
        "PORT",
    ],
)
async def test_nothing_beyond_the_list_is_reached(attribute: str, store: Store) -> None:
    """To an administrator, whatever is not on the list does not exist, however it is spelt."""
    assert attribute not in ADMIN_REQUESTS
    async with open_watched_lab(store=store) as lab, lab.client() as client:
        await client.request("Manager", attribute, uid="42")
        await _log_in(client, "root")
        refused = await client.hear()
        assert (refused["uid"], refused["error"], refused["result"]) == ("42", True, None)
        assert refused["message"].startswith("AttributeError: ")
        assert (await client.ask("Manager", "port", uid="43"))["uid"] == "43"


async def test_only_administrators_are_answered(store: Store) -> None:
    """Each request on the list is refused to everybody else, and nothing was done."""
    async with open_watched_lab(store=store) as lab, lab.client() as client:
        for number, attribute in enumerate(ADMIN_REQUESTS):
            await client.request("Manager", attribute, "mallory", "pw", True, uid=str(number))
            await _log_in(client, "marie")
            answer = await client.hear()
            assert answer["uid"] == str(number)
            assert answer["message"].startswith("ValueError: You must be an administrator")
        assert (await client.ask("Manager", "identity"))["error"] is False
        await lab.assert_clean(["Bench"])
    assert store.users.names() == ["root", "marie"]


async def test_administrators_answers_have_their_uid(store: Store) -> None:
    """Results, refusals and errors come back under the uid of their request, also out of turn."""
    async with open_watched_lab(store=store) as lab:
        credentials = Credentials(username="root", password=SECRET)
        async with lab.open_client(credentials=credentials) as client:
            answers: dict[str, Any] = {}

            async def ask(attribute: str, *args: object) -> None:
                try:
                    answers[attribute] = await client.admin(attribute, *args)
                except RemoteError as error:
                    answers[attribute] = error.type_name

            async with trio.open_nursery() as nursery:
                for attribute, *args in (
                    ("users_table.usernames",),
                    ("no.such.thing",),
                    ("users_table.delete", "nobody"),
                    ("users_table.is_admin",),
                    ("port",),
                ):
                    nursery.start_soon(ask, attribute, *args)
            assert answers == {
                "users_table.usernames": ["root", "marie"],
                "no.such.thing": "AttributeError",
                "users_table.delete": "ValueError",
                "users_table.is_admin": "TypeError",
                "port": 0,
            }
            statistics = client.statistics()
            assert statistics is not None
            assert statistics.unexpected == 0


# -- 12: empty credentials -----------------------------------------------------------------------------------

NO_CREDENTIALS = {
    "an empty line": b"\r\n",
    "blanks": b"   \t \n",
    "an empty text": b'{"result": "", "uid": ""}\n',
    "null": b'{"result": null, "uid": ""}\n',
    "a number": b'{"result": 5, "uid": ""}\n',
    "an array": b'{"result": ["x"], "uid": ""}\n',
    "bad UTF-8": b"\xff\xfe\n",
    "half of a surrogate pair": b'{"result": "\\ud800", "uid": ""}\n',
    "a huge integer": b'{"result": ' + b"1" * 5000 + b"}\n",
    "deep nesting": b'{"result": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\n",
}


@pytest.mark.parametrize("answer", NO_CREDENTIALS.values(), ids=NO_CREDENTIALS)
@pytest.mark.parametrize("asked", ["the manager's password", "username", "password"])
async def test_credentials_that_are_none_end_the_connection(
    asked: str, answer: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is no credential ends the connection, at once and for a reason."""
    is_login = asked != "the manager's password"
    authenticate = Authenticate(login=True) if is_login else Authenticate(password=SECRET)
    async with open_watched_lab(authenticate=authenticate, store=store) as lab, lab.device() as device:
        await device.hear()
        if asked == "password":
            await device.send(b"marie\n")
            await device.hear()
        await device.send(answer)
        # To what is no text, as from a TLS library, nothing is said.
        if not answer.startswith((b"\xff", b"\x16")):
            refusal = await device.hear()
            assert (refusal["error"], refusal["uid"], refusal["requester"]) == (True, "", lab.manager.name)
            assert refusal["message"].startswith("ValueError: ")
        assert await device.line() == b""
        await lab.assert_clean()
    assert_nothing_unexpected(caplog)


@pytest.mark.parametrize("answer", NO_CREDENTIALS.values(), ids=NO_CREDENTIALS)
async def test_credentials_of_administrators_that_are_none(
    answer: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The same holds for who is in already, and asks for what only administrators may have."""
    async with open_watched_lab(store=store) as lab, lab.client() as client:
        assert (await client.ask("Manager", "port", uid="7"))["attribute"] == "username"
        await client.send(answer)
        refusal = await client.hear()
        assert (refusal["error"], refusal["uid"], refusal["requester"]) == (True, "", lab.manager.name)
        assert refusal["message"].startswith("ValueError: ")
        assert await client.line() == b""
        await lab.assert_clean()
    assert_nothing_unexpected(caplog)


# -- slowed logins -------------------------------------------------------------------------------------------


async def _guess(lab: WatchedLab, host: str) -> float:
    """Try one wrong password; return for how long one had to wait for the answer."""
    began = trio.current_time()
    async with lab.device(host, 7) as device:
        await device.hear()
        await device.send(WRONG.encode() + b"\n")
        assert (await device.hear())["message"] == "ValueError: Wrong Manager password"
    return trio.current_time() - began


async def test_failed_logins_slow_their_address_down(autojump_clock: object) -> None:
    """The first five are free, then the pauses double; whoever comes from elsewhere does not wait."""
    async with open_watched_lab(authenticate=Authenticate(password=SECRET)) as lab:
        waited = [await _guess(lab, "gate") for _ in range(9)]
        assert waited == pytest.approx([0, 0, 0, 0, 0, 1, 2, 4, 8], abs=0.01)
        assert await _guess(lab, "desk") == 0
        # Who knows the password has to wait as well, and comes in.
        began = trio.current_time()
        async with lab.device("gate", 7) as device:
            await device.hear()
            await device.send(SECRET.encode() + b"\n")
            await device.identify("client", "Late")
        assert trio.current_time() - began == pytest.approx(16, abs=0.01)


async def test_guessing_at_once_is_no_faster(autojump_clock: object) -> None:
    """A hundred connections together get no more guesses in a minute than one."""
    results: list[str] = []

    async def guess(lab: WatchedLab) -> None:
        async with lab.device("gate", 7) as device:
            await device.hear()
            await device.send(WRONG.encode() + b"\n")
            results.append((await device.hear())["message"])

    async with open_watched_lab(authenticate=Authenticate(password=SECRET)) as lab:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(guess, lab)
    checked = results.count("ValueError: Wrong Manager password")
    assert 5 < checked < 15
    assert len(results) == 100
    assert all("Too many failed logins" in text for text in results if "Wrong" not in text)


async def test_failed_logins_of_administrators_count_too(store: Store) -> None:
    """Each wrong administrator's password costs the connection, and counts like any other."""
    async with open_watched_lab(store=store) as lab:
        for number in range(5):
            assert lab.manager.throttle.failures("gate:7", trio.current_time()) == number
            async with lab.device("gate", 7) as device:
                await device.identify("client", "Mallory")
                await device.request("Manager", "users_table.users", uid="1")
                await _log_in(device, "root", WRONG)
                assert (await device.hear())["message"] == "ValueError: Wrong login password"
                assert await device.line() == b""
        assert lab.manager.throttle.admit("gate:7", trio.current_time()) > 0.5
        await lab.assert_clean()


# -- secrets -------------------------------------------------------------------------------------------------


class _Witness:
    """Everything that somebody could read afterwards."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._seen: list[str] = []
        caplog.set_level(logging.DEBUG)

    def see(self, *things: object) -> None:
        """Look at things, and at exceptions with all that a traceback of them prints."""
        for thing in things:
            self._seen += [repr(thing), str(thing)]
            if isinstance(thing, BaseException):
                self._seen += traceback.format_exception(thing)

    def assert_knows_nothing(self, *secrets: str) -> None:
        logged = [logging.Formatter("%(message)s").format(record) for record in self._caplog.records]
        assert logged
        args = [repr(record.args) for record in self._caplog.records]
        for secret in secrets:
            assert [text for text in logged + args + self._seen if secret in text] == []


@pytest.fixture
def witness(caplog: pytest.LogCaptureFixture) -> _Witness:
    return _Witness(caplog)


async def test_a_conversation_leaves_no_secret_behind(store: Store, witness: _Witness) -> None:
    """Logins that succeed and fail, an administrator who sets passwords, and everything that is printed."""
    new = "f0r-the-new-0ne"
    options: dict[str, Any] = {"authenticate": Authenticate(login=True), "store": store}
    right = Credentials(username="root", password=SECRET)
    wrong = Credentials(username="root", password=WRONG)
    typed = Credentials(username="marie")

    async def ask(question: str, is_secret: bool) -> str:
        witness.see(question)
        return SECRET

    async with open_watched_lab(**options) as lab:
        for credentials in (wrong, Credentials(username=WRONG, password=SECRET)):
            with pytest.raises(Rejected) as caught:
                async with lab.open_client(credentials=credentials):
                    pytest.fail("it was let in")
            witness.see(caught.value)
        async with lab.open_client(credentials=right) as client:
            witness.see(client, client.connection, right, client.statistics(), vars(client))
            await client.admin("users_table.insert", "pierre", new, False)
            await client.admin("users_table.update", "pierre", password=new + "!")
            assert await client.admin("users_table.is_password_valid", "pierre", new + "!") is True
            for attribute, *args in (
                ("users_table.insert", "pierre", new, False),
                ("users_table.insert", "", new, False),
                ("users_table.insert", "a", new),
                ("users_table.insert", "a", [new], False),
                ("users_table.insert", new),
                ("users_table.update", "nobody", new),
                ("users_table.is_password_valid", new),
                ("users_table.is_password_valid", "root", {"password": new}),
            ):
                with pytest.raises(RemoteError) as refused:
                    await client.admin(attribute, *args)
                witness.see(refused.value)
        async with lab.open_client("Typed", credentials=typed, ask=ask) as client:
            witness.see(typed, client)
            with pytest.raises(RemoteError) as refused:
                await client.admin("users_table.users")
            witness.see(refused.value)
        manager = lab.manager
        witness.see(manager, manager.statistics(), manager.authentication, vars(manager), store, options)
    witness.see(*store.audit.events(), *store.audit.connections(), *store.users.all())
    witness.assert_knows_nothing(SECRET, WRONG, new)


async def test_typing_errors_leave_no_secret_behind(
    store: Store, witness: _Witness, autojump_clock: object
) -> None:
    """A password that is typed at the wrong moment, or with something else, is written down nowhere."""
    options: dict[str, Any] = {"authenticate": Authenticate(password=SECRET), "store": store}
    lines: list[Callable[[], bytes]] = [
        lambda: f"{SECRET} {SECRET}\n".encode(),  # wrong, with blanks
        lambda: f'{{"result": "{WRONG}", "uid": ""}}\n'.encode(),
        lambda: f'{{"password": "{SECRET}"}}\n'.encode(),  # no answer: taken as text
        lambda: SECRET.encode() + b"\xff\n",
        lambda: f'{{"result": {{"password": "{SECRET}"}}}}\n'.encode(),
    ]
    async with open_watched_lab(**options) as lab:
        for number, line in enumerate(lines):
            async with lab.device(f"desk-{number}", 7) as device:
                await device.hear()
                await device.send(line())
                while await device.line():
                    pass
        async with lab.device("desk", 7) as device:
            await device.hear()
            await device.send(SECRET.encode() + b"\n")
            await device.hear()
            # It is asked for its identity now, and its owner types the password once more.
            await device.send(SECRET.encode() + b"\n")
            assert (await device.hear())["message"].startswith("TypeError: ")
        async with lab.device("desk", 8) as device:
            await device.hear()
            await device.send(SECRET.encode() + b"\n")
            await device.identify("client", "Typist")
            # And here at a moment when nobody has asked for anything, as JSON, as a word, as a request.
            for line in (f"{SECRET}\n", f'"{SECRET}"\n', f'{{"password": "{SECRET}"}}\n', f"{SECRET}\x00\n"):
                await device.send(line.encode())
                assert (await device.hear())["error"] is True
            await device.send(f"my {SECRET} is right\n".encode())
            assert (await device.hear())["message"].startswith("KeyError: ")
            await device.tell(result=SECRET, uid="", requester=None, error=False)
            await device.tell(result=SECRET, uid="", requester=lab.manager.name, error=False)
            await device.tell(result=SECRET, uid="5", requester="Nobody[lab7:1]", error=False)
            # An administrator's password that comes too late.
            await device.request("Manager", "port", uid="6")
            assert (await device.hear())["attribute"] == "username"
            await trio.sleep(121)
            assert (await device.hear())["message"].startswith("TimeoutError: ")
            await device.tell(result=SECRET, uid="", requester=lab.manager.name, error=False)
            assert (await device.ask("Manager", "identity", uid="7"))["uid"] == "7"
        manager = lab.manager
        witness.see(manager.statistics(), manager.authentication, vars(manager), *manager._sessions)
    witness.see(*store.audit.events(), *store.audit.connections())
    witness.assert_knows_nothing(SECRET, WRONG)
