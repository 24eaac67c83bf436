"""Both sides of the handshake, driven against each other: they agree on what has happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from armillary.network.protocol.admin_login import AdminLogin, Deny, Grant
from armillary.network.protocol.credentials import (
    Action,
    Ask,
    Awaited,
    Close,
    FindUser,
    Login,
    Pause,
    Record,
    Reject,
    VerifyLogin,
    VerifyManagerPassword,
)
from armillary.network.protocol.device_handshake import (
    Answer,
    Credentials,
    DeviceHandshake,
    DeviceState,
    Identify,
    Prompt,
)
from armillary.network.protocol.features import ALL_FEATURES, agree, announcement
from armillary.network.protocol.handshake import Authentication, CheckIdentity, Connected, ManagerHandshake
from armillary.network.protocol.identities import Identity, service_is_running
from armillary.network.protocol.throttle import LoginThrottle, Outcome

MANAGER = "Manager[lab7:1875]"
ADDRESS = "192.0.2.7"
MANAGER_PASSWORD = "5e5ame"
# Whose name is followed by the password, and whether it is an administrator's.
USERS: Mapping[str, tuple[str, bool]] = {"marie": ("p0lonium", True), "pierre": ("radium", False)}

usernames = st.sampled_from([*USERS, "nobody"])
passwords = st.sampled_from([MANAGER_PASSWORD, *(password for password, _ in USERS.values()), "wr0ng"])
features = st.frozensets(st.sampled_from(sorted(ALL_FEATURES)))


@dataclass
class Person:
    """What somebody knows, and types when asked; what of it the program is given beforehand."""

    username: str
    password: str
    password_manager: str
    given: frozenset[str]
    prompts: int = 0

    def credentials(self) -> Credentials:
        known = {name: getattr(self, name) for name in self.given}
        return Credentials(**known)

    def type(self, prompt: Prompt) -> str:
        self.prompts += 1
        if not prompt.is_secret:
            return self.username
        return self.password_manager if "Manager[" in prompt.text else self.password


people = st.builds(
    Person,
    usernames,
    passwords,
    passwords,
    st.frozensets(st.sampled_from(["username", "password", "password_manager"])),
)


@dataclass
class Encounter:
    """A manager, a device and the wire between them, until nothing is left to do."""

    manager: ManagerHandshake | AdminLogin[str]
    device: DeviceHandshake
    person: Person
    identity: Identity
    taken: frozenset[str] = frozenset()
    offered: frozenset[str] = frozenset()
    now: float = 0.0
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    agreed: frozenset[str] | None = None
    outcome: Action | None = None
    printed: str = ""

    def run(self, actions: list[Action]) -> None:
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            self.printed += repr(action)
            self.now += 0.01
            todo.extend(self.carry_out(action))

    def carry_out(self, action: Action) -> list[Action]:
        manager, now = self.manager, self.now
        match action:
            case Ask():
                self.asked.append((action.attribute, action.args))
                replies = self.device.asked(
                    action.attribute, action.args, announcement(action.features), MANAGER
                )
                return [further for reply in replies for further in self.reply(reply)]
            case Record(message):
                self.records.append(message)
            case Pause(until):
                self.now = until
                return manager.resume(until)
            case FindUser(username):
                return manager.found(username in USERS, now)
            case VerifyLogin(username, password):
                known, is_admin = USERS[username]
                return manager.verified(known == password, now, is_admin=is_admin)
            case VerifyManagerPassword(password):
                return manager.verified(password == MANAGER_PASSWORD, now)
            case CheckIdentity(value):
                assert isinstance(manager, ManagerHandshake)
                try:
                    identity = Identity.read(value)
                except (KeyError, TypeError, ValueError) as error:
                    return manager.not_identified(error, now)
                if identity.type == "service" and identity.name in self.taken:
                    return manager.not_identified(service_is_running(identity.name), now)
                self.agreed = agree(value, self.offered)
                return manager.identified(identity.type, now)
            case _:
                self.outcome = action
        if isinstance(action, Reject | Close):
            if isinstance(action, Reject):
                self.device.received(uid="", requester=MANAGER, error=action.error.message)
            return manager.closed(now) or []
        return []

    def reply(self, reply: Action) -> list[Action]:
        self.printed += repr(reply)
        match reply:
            case Answer(value, requester):
                assert MANAGER == requester
                return self.manager.answered(value, self.now)
            case Prompt():
                replies = self.device.prompted(self.person.type(reply))
                return [further for one in replies for further in self.reply(one)]
            case Identify(agreed):
                answer = Identity(
                    self.identity.type,
                    self.identity.name,
                    attributes=self.identity.attributes,
                    features=agreed,
                ).answer()
                return self.manager.answered(answer, self.now)
        raise AssertionError(reply)


def meet(
    authentication: Authentication, person: Person, *, offered: Any = frozenset(), **options: Any
) -> Encounter:
    device = DeviceHandshake(person.credentials(), features=options.pop("known", ()))
    taken = options.pop("taken", frozenset())
    identity = options.pop("identity", Identity("client", "Bench A"))
    manager = ManagerHandshake(
        authentication,
        manager_name=MANAGER,
        address=ADDRESS,
        throttle=LoginThrottle(),
        features=tuple(sorted(offered)),
        **options,
    )
    encounter = Encounter(manager, device, person, identity, taken, offered=offered)
    encounter.run(manager.start(0.0))
    return encounter


def expected(
    authentication: Authentication, person: Person, *, is_trusted: bool, is_taken: bool
) -> tuple[list[tuple[str, tuple[str, ...]]], str | None, str | None]:
    """What is asked, what is recorded and told as the reason of a rejection; None if there is none."""
    asked: list[tuple[str, tuple[str, ...]]] = []
    if authentication is Authentication.MANAGER_PASSWORD:
        asked.append(("password", (MANAGER,)))
        if person.password_manager != MANAGER_PASSWORD:
            return asked, "rejected: wrong Manager password", "ValueError: Wrong Manager password"
    elif authentication is Authentication.HOSTNAMES:
        if not is_trusted:
            told = "ValueError: 'bench' is not a trusted hostname"
            return asked, "rejected: untrusted hostname", told
    elif authentication is Authentication.LOGIN:
        asked.append(("username", (MANAGER,)))
        if person.username not in USERS:
            return asked, "rejected: unregistered user", "ValueError: Unregistered user"
        asked.append(("password", (person.username,)))
        if person.password != USERS[person.username][0]:
            return asked, "rejected: wrong login password", "ValueError: Wrong login password"
    asked.append(("identity", ()))
    if is_taken:
        told = "NameError: A 'DMM' service is already running on the Manager"
        return asked, "rejected: invalid identity", told
    return asked, None, None


@given(
    authentication=st.sampled_from(Authentication),
    person=people,
    is_service=st.booleans(),
    is_trusted=st.booleans(),
    is_taken=st.booleans(),
    offered=features,
    known=features,
)
def test_both_sides_agree(
    authentication: Authentication,
    person: Person,
    is_service: bool,
    is_trusted: bool,
    is_taken: bool,
    offered: frozenset[str],
    known: frozenset[str],
) -> None:
    """Whoever comes, the right questions are asked in order, and both sides know how it ended."""
    encounter = meet(
        authentication,
        person,
        offered=offered,
        known=known,
        identity=Identity("service", "DMM") if is_service else Identity("client", "Bench A"),
        taken=frozenset({"DMM"} if is_taken else ()),
        hostname="bench",
        trusted_hostnames={"bench"} if is_trusted else set(),
    )
    asked, record, told = expected(
        authentication, person, is_trusted=is_trusted, is_taken=is_taken and is_service
    )
    event(f"{authentication.name}: {record or 'connected'}")
    assert asked == encounter.asked
    device = encounter.device
    if record is None:
        what = "service" if is_service else "client"
        login = None
        if authentication is Authentication.LOGIN:
            login = Login(person.username, USERS[person.username][1])
        assert Connected(what, login) == encounter.outcome
        assert ["new connection request", f"connected as a {what}"] == encounter.records
        assert device.state is DeviceState.IDENTIFIED
        assert offered & known == device.features == encounter.agreed
        device.received(uid="1", requester=f"{encounter.identity.name}[lab7:51022]")
        assert device.state is DeviceState.ACCEPTED
        encounter.run(encounter.manager.closed(99.0) or [])
    else:
        assert isinstance(encounter.outcome, Reject)
        assert ["new connection request", record, "disconnected"] == encounter.records[:3]
        assert device.state is DeviceState.REJECTED
        assert told == device.rejection
    assert 1 == encounter.records.count("disconnected")
    assert "disconnected" == encounter.records[-1]
    for secret in (MANAGER_PASSWORD, *(password for password, _ in USERS.values()), "wr0ng"):
        assert secret not in encounter.printed


@given(person=people)
def test_what_was_typed_need_not_be_typed_again(person: Person) -> None:
    """After a handshake that succeeded, the next one with the same credentials prompts nobody."""
    credentials = person.credentials()
    for attempt in range(2):
        device = DeviceHandshake(credentials)
        manager = ManagerHandshake(
            Authentication.LOGIN, manager_name=MANAGER, address=ADDRESS, throttle=LoginThrottle()
        )
        before = person.prompts
        encounter = Encounter(manager, device, person, Identity("client", "Bench A"))
        encounter.run(manager.start(0.0))
        if device.state is DeviceState.REJECTED:
            missing = {"username", "password"} - person.given
            assert all(getattr(credentials, name) is None for name in missing)
            return
        assert not attempt or before == person.prompts


@given(person=people, is_admin=st.booleans())
def test_both_sides_agree_on_an_administrators_login(person: Person, is_admin: bool) -> None:
    """A request is granted to administrators, denied to others, and a wrong login ends the connection."""
    device = DeviceHandshake(person.credentials())
    login: AdminLogin[str] = AdminLogin(
        manager_name=MANAGER, address=ADDRESS, throttle=LoginThrottle(), is_admin=is_admin
    )
    encounter = Encounter(login, device, person, Identity("client", "Bench A"))
    encounter.run(login.request("port", 0.0))
    if is_admin:
        assert (Grant("port"), []) == (encounter.outcome, encounter.asked)
        return
    asked, record, told = expected(Authentication.LOGIN, person, is_trusted=True, is_taken=False)
    assert asked[:-1] == encounter.asked if record is None else asked == encounter.asked
    assert ([] if record is None else [record]) == encounter.records
    if record is not None:
        assert isinstance(encounter.outcome, Reject)
        assert told == encounter.outcome.error.message
    elif USERS[person.username][1]:
        assert Grant("port") == encounter.outcome
        assert login.is_admin
    else:
        assert isinstance(encounter.outcome, Deny)
        assert not login.is_admin


# What can be told to a manager's side, by what it waits for.
ANSWERS = st.one_of(
    st.sampled_from(["marie", "p0lonium", MANAGER_PASSWORD, "", " ", None, 7]),
    st.just({"type": "client", "name": "Bench A"}),
)


@given(
    authentication=st.sampled_from(Authentication),
    data=st.data(),
    failures=st.integers(0, 7),
    end=st.sampled_from(["leave", "time out", "noise"]),
    steps=st.integers(0, 12),
)
def test_whatever_a_peer_does_the_manager_is_left_clean(
    authentication: Authentication, data: st.DataObject, failures: int, end: str, steps: int
) -> None:
    """After any answers and at any point of the handshake, its end is recorded once, and nothing is left."""
    throttle = LoginThrottle()
    manager = ManagerHandshake(
        authentication,
        manager_name=MANAGER,
        address=ADDRESS,
        throttle=throttle,
        hostname="bench",
        trusted_hostnames={"bench"},
    )
    for _ in range(failures):
        if not throttle.admit(ADDRESS, 0.0):
            throttle.settle(ADDRESS, None, Outcome.FAILED, 0.0)
    now = 0.0
    actions = manager.start(now)
    for _ in range(steps):
        now += data.draw(st.sampled_from([0.0, 0.5, 10.0]))
        match manager.awaited:
            case Awaited.ANSWER:
                actions += manager.answered(data.draw(ANSWERS), now)
            case Awaited.RESUME:
                actions += manager.resume(now)
            case Awaited.FOUND:
                actions += manager.found(data.draw(st.booleans()), now)
            case Awaited.VERIFIED:
                actions += manager.verified(data.draw(st.booleans()), now)
            case Awaited.IDENTITY if data.draw(st.booleans()):
                actions += manager.identified("client", now)
            case Awaited.IDENTITY:
                actions += manager.not_identified(KeyError("name"), now)
            case Awaited.NOTHING:
                break
    if end == "time out":
        actions += manager.timed_out(now)
    elif end == "noise" and manager.awaited is Awaited.ANSWER:
        actions += manager.undecodable(now)
    actions += manager.closed(now)
    records = [action.message for action in actions if isinstance(action, Record)]
    ends = [action for action in actions if isinstance(action, Reject | Close | Connected)]
    assert "new connection request" == records[0]
    assert len(ends) <= 1
    if "disconnected" in records:
        assert 3 == len(records)
        assert records[1].startswith(("connected as", "rejected"))
        assert 1 == len(ends)
    else:
        assert 2 == len(records)
        assert records[1].startswith("connection closed")
    assert [] == manager.closed(now)
    assert manager.awaited is Awaited.NOTHING
    assert manager.deadline is None
    assert not throttle._busy
