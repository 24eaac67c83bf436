"""The requests that every device answers (guidelines revision 5, section 5; KATCP 5.1 for flags B and T)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from .protocol.messages import FailReply, InvalidReply
from .protocol.sampling import Sampling, Strategy
from .protocol.values import LogLevel
from .sensors import Sensor
from .version import version_informs

if TYPE_CHECKING:
    from .device import Device
    from .requests import RequestContext

__all__ = ["StandardRequests"]

# Sensors described, read or subscribed to without letting others run. More makes other clients wait longer;
# fewer spends a larger part of the time on switching.
_BATCH = 100


class StandardRequests:
    """Mixed into `armillary.katcp.Device`, which has what is used here. Every request can be overridden."""

    def request_help(self, ctx: RequestContext, name: str | None = None) -> None:
        """List the requests that this device answers, or describe one of them."""
        handlers = _device(self).request_handlers
        if name is None:
            ctx.informs((h.name, _first_line(h.help)) for h in handlers.values())
            return
        handler = handlers.get(name.encode("utf-8"))
        if handler is None:
            raise FailReply(f"request {name} is not known")
        ctx.informs([(handler.name, handler.help)])

    def request_halt(self, ctx: RequestContext) -> None:
        """Stop the device: disconnect every client and serve no more."""
        ctx.reply("ok")
        _device(self).halt()

    def request_restart(self, ctx: RequestContext) -> None:
        """Restart the device: disconnect every client, start over, and let clients connect again."""
        ctx.reply("ok")
        _device(self).restart()

    def request_watchdog(self, ctx: RequestContext) -> None:
        """Answer ok, to show that the device is alive."""

    def request_version_list(self, ctx: RequestContext) -> None:
        """List the versions of the protocol, of the library, and of the device."""
        ctx.informs(version_informs(_device(self)))

    def request_client_list(self, ctx: RequestContext) -> None:
        """List the addresses of the connected clients."""
        ctx.informs((session.peer,) for session in _device(self).sessions)

    def request_log_level(self, ctx: RequestContext, level: LogLevel | None = None) -> LogLevel:
        """Query or set the least level of log informs, for all clients."""
        device = _device(self)
        if level is not None:
            device.log_level = level
        return device.log_level

    def request_request_timeout_hint(self, ctx: RequestContext, request: str | None = None) -> None:
        """Tell how many seconds a request may take: one request, or all that have a hint. 0 is no hint."""
        handlers = _device(self).request_handlers
        if request is None:
            ctx.informs((h.name, h.timeout_hint) for h in handlers.values() if h.timeout_hint)
            return
        handler = handlers.get(request.encode("utf-8"))
        if handler is None:
            raise FailReply(f"request {request} is not known")
        ctx.informs([(handler.name, handler.timeout_hint)])

    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """Describe the sensors: all, the one of that name, or those whose name matches /regex/."""
        return await _inform_each(ctx, _matching(self, name), Sensor.encoded_description)

    async def request_sensor_value(self, ctx: RequestContext, name: str | None = None) -> int:
        """Read the sensors: all, the one of that name, or those whose name matches /regex/."""
        return await _inform_each(ctx, _matching(self, name), Sensor.encoded_reading)

    async def request_sensor_sampling(
        self, ctx: RequestContext, name: str, strategy: bytes | None = None, *parameters: bytes
    ) -> tuple[object, ...]:
        """Query or set how sensors are sampled for this client.

        With a name alone, tell its strategy. With a strategy (none, auto, event, period, differential,
        event-rate or differential-rate) and its parameters, set it; then the name may be a comma-separated
        list of names, of which all or none are set.
        """
        sensors = _device(self).sensors
        samplers = ctx.session.samplers
        async with ctx.session.sampling_lock:  # for a query, too: it tells of what was asked for before
            if strategy is None:
                sampling = samplers.get(_find(sensors, name))
                return (name, *(sampling or _UNSAMPLED).words)
            plan = _plan_sampling(sensors, name, strategy, list(parameters))
            for count, (sensor, sampling) in enumerate(plan, start=1):
                samplers.subscribe(sensor, sampling)
                if count % _BATCH == 0:
                    await ctx.session.wait_turn()
            for sensor, _ in plan:
                if sensors.get(sensor.name) is not sensor:  # removed while others had their turn
                    samplers.forget(sensor)
        return (name, *plan[-1][1].words)

    def request_sensor_sampling_clear(self, ctx: RequestContext) -> None:
        """Sample no sensor for this client any more."""
        ctx.session.samplers.clear()

    def _unknown_request(self, ctx: RequestContext) -> Any:
        raise InvalidReply(f"unknown request {ctx.name}")


_UNSAMPLED = Sampling(Strategy.NONE)


def _device(requests: StandardRequests) -> Device:
    return cast("Device", requests)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _find(sensors: Any, name: str) -> Sensor[Any]:
    sensor: Sensor[Any] | None = sensors.get(name)
    if sensor is None:
        raise FailReply(f"Unknown sensor {name!r}")
    return sensor


def _matching(requests: StandardRequests, name: str | None) -> list[Sensor[Any]]:
    """The sensors that a name or a /regex/ selects, by name."""
    sensors = _device(requests).sensors
    if name is None:
        names = sorted(sensors)
    elif len(name) >= 2 and name.startswith("/") and name.endswith("/"):
        try:
            search = re.compile(name[1:-1]).search
        except re.error as error:
            raise FailReply(str(error)) from None
        names = sorted(filter(search, sensors))
    else:
        return [_find(sensors, name)]
    return [sensors[found] for found in names]


async def _inform_each(ctx: RequestContext, sensors: list[Sensor[Any]], tail_of: Any) -> int:
    """Send an inform for each sensor, letting others run between batches; return their number."""
    for start in range(0, len(sensors), _BATCH):
        if start:
            await ctx.session.wait_turn()
        ctx.inform_tails(map(tail_of, sensors[start : start + _BATCH]))
    return len(sensors)


def _plan_sampling(
    sensors: Any, names: str, strategy: bytes, parameters: list[bytes]
) -> list[tuple[Sensor[Any], Sampling]]:
    """Check everything that a sampling request asks for before anything is changed."""
    listed = names.split(",") if names not in sensors else [names]
    if len(set(listed)) != len(listed):
        raise FailReply("Duplicate sensor name")
    # Sensors of one type and preference get the same sampling: thousands of names, a few checks.
    known: dict[tuple[object, ...], Sampling] = {}
    plan = []
    try:
        for name in listed:
            sensor = _find(sensors, name)
            key = (sensor.stype, sensor.auto_strategy, sensor.auto_strategy_parameters)
            if key not in known:
                known[key] = sensor.sampling(strategy, parameters)
            plan.append((sensor, known[key]))
    except (TypeError, ValueError) as error:
        raise FailReply(str(error)) from None
    return plan
