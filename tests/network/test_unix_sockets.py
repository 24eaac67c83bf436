"""A manager on a Unix socket."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from armillary._runtime.dial import open_listeners
from armillary.network import open_client, run_service, serve_manager_on
from armillary.testing import DemoService


async def test_peers_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Clients that are called the same are connected at the same time, each under a name of its own."""
    path = str(tmp_path / "manager")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_manager_on, await open_listeners(path)))
            await nursery.start(partial(run_service, DemoService(), path, None, trust=None))
            connect = partial(open_client, path, None, trust=None)
            async with connect() as one, connect() as two, two.link("Demo") as demo:
                assert await demo.echo(1) == [[1], {}]
                assert len((await one.identities())["clients"]) == 2
                assert {one.network_name, two.network_name} == set((await one.identities())["clients"])
            nursery.cancel_scope.cancel()
