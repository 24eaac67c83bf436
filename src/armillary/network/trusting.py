"""How a device gets to its manager: over TLS with a certificate that is trusted, or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trio

from armillary._runtime.dial import keep_alive, open_stream, take_bulk

from .locations import Home, find_home
from .tls.contexts import DeviceContexts
from .tls.trust import Decide, open_trusted_stream, refuse

__all__ = ["Trust", "dial_manager"]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates a device trusts: those that are stored, and what somebody decides about new ones."""

    decide: Decide = refuse
    """Is asked about the first certificate of a host: `tls.trust.accept` takes it; by default nobody does."""
    home: Home | None = None
    """Where certificates are stored; that of the environment if None."""
    certificate: Path | None = None
    """The file with the only certificate that is trusted; that of the host in `home` if None."""
    assert_hostname: bool = True
    """Whether a certificate must be for the host that one connects to."""
    contexts: DeviceContexts | None = None
    """Keeps TLS contexts, for programs that connect more than once."""


async def dial_manager(
    host: str, port: int | None, *, trust: Trust | None, timeout: float
) -> trio.abc.Stream:
    """Connect to a manager.

    Raises:
        ConnectFailed: nobody answered, or, as one of its kinds, the certificate is not trusted.

    The caller closes the stream. Cancellation leaves nothing open.
    """
    stream: trio.abc.Stream
    if trust is None or port is None:
        stream = await open_stream(host, port, timeout=timeout)
    else:
        stream = await _open_trusted_stream(host, port, trust, timeout)
    keep_alive(stream)
    take_bulk(stream)
    return stream


async def _open_trusted_stream(host: str, port: int, trust: Trust, timeout: float) -> trio.abc.Stream:
    return await open_trusted_stream(
        host,
        port,
        home=find_home() if trust.home is None else trust.home,
        contexts=DeviceContexts() if trust.contexts is None else trust.contexts,
        certificate=trust.certificate,
        decide=trust.decide,
        assert_hostname=trust.assert_hostname,
        timeout=timeout,
    )
