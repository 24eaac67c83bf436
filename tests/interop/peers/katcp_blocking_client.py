import sys, katcp, logging
from katcp import Message

port = int(sys.argv[1])
c = katcp.BlockingClient("127.0.0.1", port, timeout=5)
c.start(timeout=5)
print("conn", c.wait_connected(5), c.wait_protocol(5), c.protocol_flags)
print(c.versions if hasattr(c, "versions") else None)
r, i = c.blocking_request(Message.request("help"))
print(r, len(i))
r, i = c.blocking_request(
    Message.request("types", -12, 1e-7, True, 1234567890.5, "moving-fast", "[::1]:7147", "caf\u00e9\n\t\0 \\")
)
print(r)
r, i = c.blocking_request(Message.request("crash"))
print(r.arguments)
r, i = c.blocking_request(Message.request("no-such"))
print(r.arguments)
r, i = c.blocking_request(Message.request("recite", 3))
print(r, [str(x) for x in i])
r, i = c.blocking_request(Message.request("recite", 3), use_mid=False)
print(r, [str(x) for x in i])
c.stop()
c.join(5)

import tornado.ioloop, tornado.gen
from katcp import inspecting_client, resource_client

loop = tornado.ioloop.IOLoop.current()


@tornado.gen.coroutine
def main():
    ic = inspecting_client.InspectingClientAsync("127.0.0.1", port, ioloop=loop)
    ic.set_state_callback(lambda s, m: print("state", s, m))
    ic.connect()
    yield ic.until_synced(timeout=10)
    print(ic.sensors, ic.requests)
    s = yield ic.future_get_sensor("temperature")
    print(s)
    s = yield ic.future_get_sensor("nobody")
    print(s)
    r = yield ic.simple_request("sensor-value", "label")
    print(r)
    ic.stop()
    yield ic.until_stopped(timeout=5)
    rc = resource_client.KATCPClientResource(dict(name="dev", address=("127.0.0.1", port), controlled=True))
    rc.start()
    yield rc.until_synced(timeout=10)
    print(rc.versions, list(rc.sensor), list(rc.req))
    rep = yield rc.req.add(1, 2)
    print(rep, rep.succeeded)
    yield rc.sensor.temperature.set_strategy("event")
    print(rc.sensor.temperature.reading, rc.sensor.temperature.sampling_strategy)
    v = yield rc.sensor.mode.get_value()
    print(v)
    yield rc.set_sampling_strategies("mode|label", "period 0.5")
    print(rc.sensor.mode.reading)
    rc.stop()
    yield rc.until_stopped(timeout=5)


loop.run_sync(main)
