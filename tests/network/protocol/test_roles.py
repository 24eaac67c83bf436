"""Who may do what, and what administrators can ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from armillary.network.protocol.peers import Peer
from armillary.network.protocol.refusals import Refused
from armillary.network.protocol.roles import (
    ADMIN_REQUESTS,
    ADMINISTRATOR,
    NOBODY,
    OBSERVER,
    OPERATOR,
    PUBLIC_REQUESTS,
    Role,
    Roles,
    admin_request,
)

MARIE = Peer("client", "Marie", "lab7:1")
DMM = Peer("service", "DMM", "lab7:2")
STUDENT = Role("student", link=("*",), call=("DMM", "Scope ?"), serve=("Test*",))


def message(function: Callable[[], object]) -> str | None:
    """What a refusal says; None if there is none."""
    try:
        function()
    except Refused as refused:
        return refused.message
    return None


@pytest.mark.parametrize(
    ("role", "link", "call", "serve", "administrate"),
    [
        (ADMINISTRATOR, True, True, True, True),
        (OPERATOR, True, True, True, False),
        (OBSERVER, True, False, False, False),
        (NOBODY, False, False, False, False),
        (STUDENT, True, True, False, False),
    ],
)
def test_what_roles_may_do(role: Role, link: bool, call: bool, serve: bool, administrate: bool) -> None:
    """Each role may do what it says; locking goes with calling."""
    assert link is (message(lambda: role.check_link(MARIE, "DMM")) is None)
    assert call is (message(lambda: role.check_call(MARIE, "DMM")) is None)
    assert call is (message(lambda: role.check_lock(MARIE, "DMM")) is None)
    assert serve is (message(lambda: role.check_serve(DMM)) is None)
    assert administrate is (message(role.check_administrate) is None)


def test_refusals_say_who_may_not_do_what() -> None:
    """The texts name the peer and the service; that for administrators is the one of 1.0."""
    who = "PermissionError: Marie[lab7:1] may not"
    assert f"{who} link with the 'DMM' service" == message(lambda: NOBODY.check_link(MARIE, "DMM"))
    assert f"{who} send requests to the 'DMM' service" == message(lambda: NOBODY.check_call(MARIE, "DMM"))
    assert f"{who} lock the 'DMM' service" == message(lambda: NOBODY.check_lock(MARIE, "DMM"))
    assert "PermissionError: You may not run a service with the name 'DMM'" == message(
        lambda: NOBODY.check_serve(DMM)
    )
    assert "ValueError: You must be an administrator to send this request to the Manager" == message(
        OPERATOR.check_administrate
    )


@pytest.mark.parametrize(
    ("service", "may_call"),
    [("DMM", True), ("dmm", False), ("DMM 2", False), ("Scope A", True), ("Scope", False), ("Laser", False)],
)
def test_services_are_given_by_patterns(service: str, may_call: bool) -> None:
    """A pattern is for the whole name, and upper and lower case differ, as in names themselves."""
    assert may_call is (message(lambda: STUDENT.check_call(MARIE, service)) is None)


def test_a_pattern_by_itself_is_no_list_of_patterns() -> None:
    """A forgotten comma is found when the role is made, not when somebody asks."""
    with pytest.raises(TypeError, match="DMM"):
        Role("student", call=("DMM"))  # type: ignore[arg-type]


def test_who_has_which_role() -> None:
    """Administrators are that, whatever else is said; a role by its name; everybody else the default."""
    roles = Roles([STUDENT])
    assert roles.of(None) is OPERATOR
    assert roles.of("student") is STUDENT
    assert roles.of("student", is_admin=True) is ADMINISTRATOR
    assert roles.of(None, is_admin=True) is ADMINISTRATOR
    assert ["administrator", "nobody", "observer", "operator", "student"] == roles.names


def test_an_unknown_role_may_do_nothing() -> None:
    """A slip in the users table shuts doors instead of opening them."""
    assert Roles().of("operatr") is NOBODY
    assert Roles().of("") is NOBODY


def test_a_program_can_replace_roles_and_choose_the_default() -> None:
    """What everybody else may do is the program's to say."""
    careful = Role("operator", link=("*",))
    assert Roles([careful]).of(None) is careful
    assert Roles([STUDENT], default="student").of(None) is STUDENT
    assert Roles(default="observer").of("operator") is OPERATOR


@pytest.mark.parametrize(
    ("roles", "default", "match"),
    [
        ([STUDENT, Role("student")], "operator", "two roles"),
        ([Role("administrator")], "operator", "cannot be changed"),
        ([], "student", "no role called 'student'"),
    ],
)
def test_roles_that_make_no_sense(roles: list[Role], default: str, match: str) -> None:
    """They are refused when they are given."""
    with pytest.raises(ValueError, match=match):
        Roles(roles, default=default)


def test_the_allow_list() -> None:
    """Administrators reach exactly these; a new entry is a decision, not an accident."""
    tables = {
        "connections_table": "connections",
        "hostnames_table": "delete hostnames insert",
        "users_table": ("delete insert is_admin is_password_valid is_user_registered update usernames users"),
    }
    of_every_table = "column_datatypes column_names path table_info tables"
    assert {
        *["port", "password", "login", "hostnames", "clients", "services", "service_links", "service_locks"],
        *["set_logging_level", "shutdown_manager", "force_unlock"],
        *(
            f"{table}.{name}"
            for table, names in tables.items()
            for name in [*names.split(), *of_every_table.split()]
        ),
    } == set(ADMIN_REQUESTS)
    assert {"users_table.insert", "users_table.is_password_valid", "users_table.update"} == {
        name for name, request in ADMIN_REQUESTS.items() if request.has_secrets
    }
    assert PUBLIC_REQUESTS.isdisjoint(ADMIN_REQUESTS)


def test_data_and_methods_are_told_apart() -> None:
    """Only methods take arguments."""
    assert admin_request("users_table.usernames").is_method
    assert not admin_request("port").is_method
    assert not admin_request("users_table.path").is_method


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("nonsense", "'Manager' object has no attribute 'nonsense'"),
        ("_loop", "'Manager' object has no attribute '_loop'"),
        ("", "'Manager' object has no attribute ''"),
        ("users_table", "'Manager' object has no attribute 'users_table'"),
        ("users_table.", "'Manager' object has no attribute 'users_table.'"),
        ("users_table.execute", "'UsersTable' object has no attribute 'execute'"),
        ("users_table.get_user", "'UsersTable' object has no attribute 'get_user'"),
        ("users_table.records", "'UsersTable' object has no attribute 'records'"),
        ("hostnames_table.close", "'HostnamesTable' object has no attribute 'close'"),
        (
            "connections_table.connection.execute",
            "'ConnectionsTable' object has no attribute 'connection.execute'",
        ),
        ("port.__class__", "'Manager' object has no attribute 'port.__class__'"),
        ("users_table.insert.__globals__", "'UsersTable' object has no attribute 'insert.__globals__'"),
        ("Port", "'Manager' object has no attribute 'Port'"),
        ("port ", "'Manager' object has no attribute 'port '"),
    ],
)
def test_nothing_else_is_reached(attribute: str, text: str) -> None:
    """Whatever is not listed does not exist: private names, paths through objects, SQL, hashes."""
    assert f"AttributeError: {text}" == message(lambda: admin_request(attribute))
