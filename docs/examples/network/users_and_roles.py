"""Users with roles, and the audit of what they did."""

from __future__ import annotations

from datetime import date
from functools import partial
from getpass import getpass

import trio

from armillary import network
from armillary.network.store import EventKind

PASSWORDS = {"marie": "polonium", "pierre": "radium", "irene": "neutron", "lab7": "bench"}


class Laser(network.Service):
    def wavelength(self) -> float:
        return 633.0

    def fire(self) -> str:
        return "fired"


# [roles]
ROLES = network.Roles(
    [
        network.Role("student", link=("Laser",)),
        network.Role("laser-host", serve=("Laser",)),
    ],
    default="nobody",
)


def add_users(store: network.Store) -> None:
    store.users.add("marie", PASSWORDS["marie"], is_admin=True)
    store.users.add("pierre", PASSWORDS["pierre"], role="operator")
    store.users.add("irene", PASSWORDS["irene"], role="student")
    store.users.add("lab7", PASSWORDS["lab7"], role="laser-host")


# [manager]
async def manage(store: network.Store, *, task_status: trio.TaskStatus[int]) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(
            network.serve_manager,
            0,
            host="127.0.0.1",
            authenticate=network.Authenticate(login=True),
            roles=ROLES,
            store=store,
        )
        listeners = await nursery.start(serve)
        task_status.started(network.bound_ports(listeners)[0])


# [ask]
async def ask_at_terminal(question: str, is_secret: bool) -> str:
    return await trio.to_thread.run_sync(getpass if is_secret else input, question)


# [clients]
async def try_it(port: int, username: str, password: str) -> None:
    credentials = network.Credentials(username=username, password=password)
    try:
        async with (
            network.open_client("127.0.0.1", port, trust=None, credentials=credentials) as lab,
            lab.link("Laser") as laser,
        ):
            print(f"{username} is linked;", await laser.fire())
    except network.Rejected as error:
        print(f"{username} is not let in: {error.text}")
    except network.RemoteError as error:
        print(f"{username} is refused: {error.type_name}")


# [admin]
async def administrate(port: int) -> None:
    credentials = network.Credentials(username="marie", password=PASSWORDS["marie"])
    async with network.open_client("127.0.0.1", port, trust=None, credentials=credentials) as lab:
        print("users:", *await lab.admin("users_table.usernames"))
        today = await lab.admin("connections_table.connections", start=date.today().isoformat())
        print("connected today:", sum(row[-1].startswith("connected as") for row in today))


# [audit]
def print_audit(store: network.Store) -> None:
    for event in store.audit.events(kinds=[EventKind.ADMIN]):
        print(f"{event.user}: {event.kind} {event.message} {event.subject}")


# [main]
async def main(store: network.Store) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(manage, store)
        credentials = network.Credentials(username="lab7", password=PASSWORDS["lab7"])
        run = partial(network.run_service, Laser(), "127.0.0.1", port, trust=None, credentials=credentials)
        await nursery.start(run)
        await try_it(port, "pierre", PASSWORDS["pierre"])
        await try_it(port, "irene", PASSWORDS["irene"])
        await try_it(port, "irene", "proton")
        await administrate(port)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with network.open_store(":memory:") as opened:
        add_users(opened)
        trio.run(main, opened)
        print_audit(opened)
# [end]
