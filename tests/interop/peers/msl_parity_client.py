"""A client, as programs for MSL-Network 1.0 are written: run with 1.0, and with the façade."""

import concurrent.futures
import json
import sys
import time

from msl.network import LinkedClient, connect

OPTIONS = {"port": int(sys.argv[1]), "auto_save": True, "disable_tls": sys.argv[2] == "plain", "timeout": 30}


def caught(function, *args, **kwargs):
    """The class that 1.0 raises, and the last line of the text."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        kinds = (
            RuntimeError,
            TypeError,
            ValueError,
            concurrent.futures.TimeoutError,
            ConnectionError,
            AttributeError,
        )
        kind = next(kind for kind in kinds if isinstance(error, kind))
        return [kind.__name__, (str(error).splitlines() or [""])[-1]]


seen = {}
linked = LinkedClient("Parity", name="linked", **OPTIONS)
client = connect(name="A b", **OPTIONS)
link = client.link("Parity")
told = []
link.notification_handler = lambda *args, **kwargs: told.append([args, kwargs]) if args != ("beat",) else None
seen["attributes"] = link.service_attributes
seen["max_clients"] = link.service_max_clients
seen["echo"] = link.echo(1, "\u00e9", x=[None, 2.5, (3,)])
seen["values"] = [link.constant(), link.computed(), link.hidden(), link.name()]
seen["many"] = [future.result(30)[0][0] for future in [link.echo(n, asynchronous=True) for n in range(300)]]
seen["large"] = len(link.echo("x" * 3_000_000)[0][0])
seen["told"] = [link.tell(10), list(told)]
seen["fail"] = caught(link.fail)
seen["private"] = caught(link._private)
seen["absent"] = caught(link.absent)
seen["unserializable"] = caught(link.unserializable)
seen["argument"] = caught(link.echo, 1j)
seen["timeout"] = caught(link.sleep, 0.3, timeout=0.05)
seen["full"] = caught(connect(name="third", **OPTIONS).link, "Parity")
seen["full"] = seen["full"][:1]
seen["locks"] = [
    len(link.acquire_lock(shared=True)) == 2,
    linked.acquire_lock(shared=True) is not None,
    link.release_lock() == [str(linked.client)],
    linked.release_lock(),
]
seen["names"] = sorted(name.partition("[")[0] for name in client.identities()["clients"])
seen["text"] = [line for line in client.identities(as_string=True).splitlines() if "Parity" not in line][1:4]
beats = []
linked.notification_handler = lambda *args: beats.append(args)
while not beats:
    time.sleep(0.01)
seen["linked"] = linked.echo(2)
linked.unlink()
seen["unlinked"] = caught(lambda: linked.echo(1))
seen["bye"] = link.shutdown_service()
seen["broken"] = caught(lambda: link.echo(1))
for _ in range(3):
    client.disconnect()
    linked.disconnect()
seen["left"] = caught(client.identities)[0]
seen["state"] = [client.is_connected(), linked.is_connected(), repr(client)]
sys.stdout.write(json.dumps(seen))
