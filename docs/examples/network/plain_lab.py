"""A manager without TLS, with the balance of the tutorial. Usage: plain_lab.py [PORT]."""

from __future__ import annotations

import sys
from functools import partial

import trio
from balance import Balance

from armillary import network


# [main]
async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(network.serve_manager, port, host="127.0.0.1"))
        port = network.bound_ports(listeners)[0]
        await nursery.start(partial(network.run_service, Balance(), "127.0.0.1", port, trust=None))
        print("listening on port", port, flush=True)


if __name__ == "__main__":
    try:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1875)
    except* KeyboardInterrupt:
        print("stopped")
# [end]
