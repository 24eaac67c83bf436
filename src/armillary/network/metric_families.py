"""A manager's numbers as OpenMetrics has them. Needs the extra ``metrics``.

Everything begins with ``armillary_manager_``. Labels are either from a list that is known beforehand, or the
names of services that are connected now: clients come and go, so there is no label for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from armillary.__about__ import __version__

if TYPE_CHECKING:
    from .manager import Manager

__all__ = ["ManagerCollector"]

_PREFIX = "armillary_manager_"


class ManagerCollector:
    """A collector of one manager's numbers, for a ``CollectorRegistry`` of ``prometheus_client``.

    Args:
        manager: whose numbers they are. Collect them in its thread.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        yield from self._itself()
        yield from self._connections()
        yield from self._requests()
        yield from self._traffic()
        yield from self._services()

    def _itself(self) -> Iterator[Metric]:
        manager = self._manager
        info = InfoMetricFamily("armillary_manager", "Which manager this is.")
        info.add_metric([], {"version": __version__, "hostname": manager.hostname, "port": str(manager.port)})
        yield info
        yield _gauge(
            "start_time_seconds",
            "When the manager was started, since 1970.",
            manager.started_at,
            unit="seconds",
        )

    def _connections(self) -> Iterator[Metric]:
        manager = self._manager
        counters = manager.counters
        services = len(manager.registry.services())
        peers = _gauges("peers", "Who is connected now.", "type")
        peers.add_metric(["client"], len(manager.registry.clients()))
        peers.add_metric(["service"], services)
        yield peers
        yield _gauge("handshakes", "Connections that have not been let in yet.", manager.handshakes)
        connections = _counters(
            "connections",
            "Connections by what became of their handshakes: abandoned ones ended before that was known.",
            "outcome",
        )
        connections.add_metric(["accepted"], counters.connections_accepted)
        connections.add_metric(["refused"], counters.connections_refused)
        connections.add_metric(["abandoned"], counters.connections_abandoned)
        yield connections
        logins = _counters("logins", "Usernames and passwords that were checked.", "outcome")
        logins.add_metric(["accepted"], counters.logins_accepted)
        logins.add_metric(["refused"], counters.logins_refused)
        yield logins
        yield _counter(
            "login_pauses",
            "Pauses before a username or a password was checked, because of earlier failures.",
            counters.login_pauses,
        )

    def _requests(self) -> Iterator[Metric]:
        requests = self._manager.outstanding.statistics()
        yield _counter("requests_forwarded", "Requests sent on to services.", requests.forwarded)
        yield _gauge("requests_in_flight", "Requests that wait for their replies.", requests.in_flight)
        yield _counter("requests_answered", "Requests whose replies were delivered.", requests.answered)
        yield _counter("requests_given_up", "Requests whose replies nobody waited for.", requests.given_up)
        yield _counter(
            "requests_unanswered", "Requests whose service went before it replied.", requests.unanswered
        )
        yield _counter(
            "requests_refused",
            "Requests that were not sent on to services.",
            self._manager.counters.requests_refused,
        )
        yield _counter("reply_parts", "Items and progress delivered before their replies.", requests.parts)
        strays = _counters("strays", "Replies that reached nobody.", "reason")
        for reason, count in requests.strays.items():
            strays.add_metric([reason.name.lower()], count)
        yield strays

    def _traffic(self) -> Iterator[Metric]:
        traffic = self._manager.traffic()
        yield _counter("notifications", "Notifications that came from services.", traffic.notifications)
        yield _counter("notifications_sent", "Copies of them that were sent.", traffic.notifications_sent)
        yield _counter(
            "notifications_dropped",
            "Copies of them that were not sent to peers that do not read.",
            traffic.notifications_dropped,
        )
        yield _counter("packets", "Packets that came from peers.", traffic.packets)
        yield _counter("malformed", "Lines from peers that were no packets.", traffic.malformed)
        yield _counter("received_bytes", "Bytes that came from peers.", traffic.bytes_received, unit="bytes")
        yield _counter("sent_bytes", "Bytes that were sent to peers.", traffic.bytes_sent, unit="bytes")
        yield _gauge("backlog_bytes", "Bytes that wait to be read by peers.", traffic.backlog, unit="bytes")

    def _services(self) -> Iterator[Metric]:
        registry, outstanding = self._manager.registry, self._manager.outstanding
        requests = _counters("service_requests", "Requests sent on to a service.", "service")
        in_flight = _gauges("service_requests_in_flight", "Requests that a service has to answer.", "service")
        links = _gauges("service_links", "Peers that are linked with a service.", "service")
        locks = _gauges(
            "service_lock_holders", "Peers that hold a service's lock, 0 if it is free.", "service", "lock"
        )
        for row in registry.table():
            service = registry.service(row.name)
            assert service is not None
            requests.add_metric([row.name], outstanding.forwarded_to(service))
            in_flight.add_metric([row.name], outstanding.in_flight_at(service))
            links.add_metric([row.name], len(row.links))
            for kind in ("exclusive", "shared"):
                locks.add_metric([row.name, kind], len(row.holders) if row.lock == kind else 0)
        yield from (requests, in_flight, links, locks)


def _counter(name: str, text: str, value: float, *, unit: str = "") -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value, unit=unit)


def _gauge(name: str, text: str, value: float, *, unit: str = "") -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value, unit=unit)


def _counters(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, labels=labels)


def _gauges(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=labels)
