"""The service and the client of MSL-Network 1.0 that are measured: `armillary_end.py` is the other."""

import functools
import json
import random
import sys
import threading
import time

from msl.network import Service, connect


class Echo(Service):
    """Gives back what it gets."""

    def plain(self, value):
        return value

    # Coroutines are not for those who call.
    coroutine = plain

    def tell(self, count):
        for number in range(count):
            self.emit_notification_threadsafe(number, channel=1)


class Client:
    """What the client is asked to do: each method is a command."""

    def __init__(self, link, connect, client):
        self._link = link
        self._connect = connect
        self._client = client
        self._idle = []
        self._heard = 0
        self._heard_all = threading.Event()
        self._last = 0.0

    def one_at_a_time(self, seconds):
        echo = self._link.coroutine
        taken = []
        begin = now = time.perf_counter()
        while now - begin < seconds:
            echo(1)
            later = time.perf_counter()
            taken.append(later - now)
            now = later
        return now - begin, taken

    def pipelined(self, method, at_once, seconds):
        done = 0
        call = getattr(self._link, method)
        begin = time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds:
            for future in [call(number, asynchronous=True) for number in range(at_once)]:
                future.result()
            done += at_once
        return taken, done

    def big(self, size, seconds):
        text = "x" * size
        taken = []
        while sum(taken) < seconds:
            begin = time.perf_counter()
            answer = self._link.coroutine(text)
            taken.append(time.perf_counter() - begin)
            assert len(answer) == size
        return taken

    def array(self, size, times):
        values = [random.random() for _ in range(size)]
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            answer = self._link.coroutine(values)
            taken.append(time.perf_counter() - begin)
            assert len(answer) == size
        return taken

    def listen(self, count):
        self._heard = count
        self._heard_all.clear()
        self._link.notification_handler = self._hear

    def _hear(self, number, channel):
        self._heard -= 1
        if not self._heard:
            self._last = time.monotonic()
            self._heard_all.set()

    def tell(self, count):
        begin = time.monotonic()
        self._link.tell(count)
        return begin

    def heard(self):
        self._heard_all.wait()
        return self._last

    def connects(self, times):
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            client = self._connect()
            taken.append(time.perf_counter() - begin)
            client.disconnect()
        return taken

    def idle(self, count):
        begin = time.perf_counter()
        self._idle += [self._connect() for _ in range(count)]
        return time.perf_counter() - begin

    def identities(self):
        begin = time.perf_counter()
        answer = self._client.identities()
        return time.perf_counter() - begin, len(answer["clients"])


def run_client(name, connect):
    client = connect()
    while name not in client.identities()["services"]:
        time.sleep(0.05)
    end = Client(client.link(name), connect, client)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(getattr(end, command)(*arguments)), flush=True)


def main(role, name, port, home, tls):
    where = {"host": "localhost", "port": int(port), "disable_tls": tls != "tls", "auto_save": True}
    if role == "client":
        run_client(name, functools.partial(connect, **where))
    else:
        Echo(name=name).start(**where)


if __name__ == "__main__":
    main(*sys.argv[1:])
