"""A manager behind TLS, and clients that trust it, do not, and notice that it has changed."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import trio

from armillary import network
from armillary.network.locations import Home
from armillary.network.tls.contexts import manager_context
from armillary.network.tls.own import manager_certificate
from armillary.network.tls.trust import CertificateChanged, CertificateRefused, Offer


# [manager]
async def manage(home: Home, *, task_status: trio.TaskStatus[int]) -> None:
    """Serve a manager with the certificate that is in `home`, or is made there."""
    own = manager_certificate(home)
    context = manager_context(own.certificate, own.key)
    async with trio.open_nursery() as nursery:
        serve = partial(network.serve_manager, 0, host="127.0.0.1", ssl_context=context)
        listeners = await nursery.start(serve)
        task_status.started(network.bound_ports(listeners)[0])


# [decide]
async def look_and_trust(offer: Offer) -> bool:
    print("the manager's fingerprint has", len(offer.fingerprint().split(":")), "bytes")
    return True  # after having compared it with what certdump prints there


# [clients]
async def who_am_i(port: int, home: Home, trust: network.Trust) -> None:
    try:
        async with network.open_client("127.0.0.1", port, name="Bench", trust=trust) as lab:
            clients = (await lab.identities())["clients"]
            print("connected as one of", len(clients))
    except CertificateRefused:
        print("the certificate is not trusted")
    except CertificateChanged as error:
        print("not the certificate in", error.path.relative_to(home.path))


# [main]
async def main(directory: Path) -> None:
    theirs, ours = Home(directory / "manager"), Home(directory / "client")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(manage, theirs)
        await who_am_i(port, ours, network.Trust(home=ours))
        await who_am_i(port, ours, network.Trust(look_and_trust, home=ours))
        await who_am_i(port, ours, network.Trust(home=ours))

        other_port = await nursery.start(manage, Home(directory / "impostor"))
        await who_am_i(other_port, ours, network.Trust(home=ours))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        trio.run(main, Path(temporary))
# [end]
