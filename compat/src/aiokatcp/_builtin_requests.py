"""The requests that every server answers, as methods that a subclass may override and call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from armillary.katcp.standard_requests import StandardRequests
from armillary_compat.futures import call_trio

from ._requests import RequestContext
from .core import LogLevel, decode, encode
from .sensor import SensorSampler

if TYPE_CHECKING:
    from .server import DeviceServer

__all__ = ["BuiltinRequests"]

F = TypeVar("F", bound=Callable[..., Any])


def _is_native(method: F) -> F:
    """Mark a request's method as one that armillary answers itself where it is not overridden."""
    method._is_native = True  # type: ignore[attr-defined]
    return method


class BuiltinRequests:
    """Mixed into `DeviceServer`, which has what is used here.

    Where none of them is overridden, armillary answers in its own way, and these methods are not called.
    """

    @_is_native
    async def request_help(self, ctx: RequestContext, name: str | None = None) -> None:
        """List the requests that this server answers, or describe one of them.

        Without an argument, one inform for each request with its name and what it does in a line; with the
        name of a request, one inform with all that is known of it.
        """
        await _answer(self, StandardRequests.request_help, ctx, name)

    @_is_native
    async def request_halt(self, ctx: RequestContext) -> None:
        """Stop the server: disconnect every client and serve no more."""
        _server(self).halt()

    @_is_native
    async def request_watchdog(self, ctx: RequestContext) -> None:
        """Answer ok, to show that the server is alive."""

    @_is_native
    async def request_version_list(self, ctx: RequestContext) -> None:
        """List the versions of the protocol, of the library, and of the device."""
        _server(self).send_version_info(ctx)

    @_is_native
    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """Describe the sensors: all, the one of that name, or those whose name matches /regex/."""
        count: int = await _answer(self, StandardRequests.request_sensor_list, ctx, name)
        return count

    @_is_native
    async def request_sensor_value(self, ctx: RequestContext, name: str | None = None) -> None:
        """Read the sensors: all, the one of that name, or those whose name matches /regex/."""
        ctx.reply("ok", await _answer(self, StandardRequests.request_sensor_value, ctx, name))

    @_is_native
    async def request_sensor_sampling(
        self,
        ctx: RequestContext,
        name: str,
        strategy: SensorSampler.Strategy | None = None,
        *args: bytes,
    ) -> tuple[Any, ...]:
        """Query or set how sensors are sampled for this client.

        With a name alone, tell its strategy. With a strategy (none, auto, event, period, differential,
        event-rate or differential-rate) and its parameters, set it; then the name may be a comma-separated
        list of names, of which all or none are set.
        """
        word = None if strategy is None else encode(strategy)
        _, used, *parameters = await _answer(
            self, StandardRequests.request_sensor_sampling, ctx, name, word, *args
        )
        return (name, decode(SensorSampler.Strategy, used), *parameters)

    @_is_native
    async def request_client_list(self, ctx: RequestContext) -> None:
        """List the addresses of the connected clients."""
        await _answer(self, StandardRequests.request_client_list, ctx)

    @_is_native
    async def request_log_level(self, ctx: RequestContext, level: LogLevel | None = None) -> LogLevel:
        """Query or set the least level of log informs, for all clients."""
        current: LogLevel = await _answer(self, StandardRequests.request_log_level, ctx, level)
        return current


async def _answer(
    requests: BuiltinRequests, request: Callable[..., Any], ctx: RequestContext, *arguments: Any
) -> Any:
    """Let armillary answer: for methods that an override calls."""
    device = _server(requests)._katcp_device
    if inspect.iscoroutinefunction(request):
        return await call_trio(request, device, ctx, *arguments)
    return request(device, ctx, *arguments)


def _server(requests: BuiltinRequests) -> DeviceServer:
    return cast("DeviceServer", requests)
